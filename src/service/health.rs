//! Whether all is well: what the daemon says of itself, and what is found without it.

use std::fmt;
use std::num::NonZeroU16;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::expiry::expiry;
use super::operations::Operations;
use super::{forwarding, outside};
use crate::backend::survey::survey;
use crate::backend::{BackendError, Firewall, Plan, Scope};
use crate::config::Settings;
use crate::ruleset::audit::{Finding, Severity, audit};
use crate::ruleset::diff::diff;
use crate::ruleset::host_chain::HostChains;
use crate::ruleset::layout::{Layout, Options};
use crate::ruleset::model::{Content, Ruleset};
use crate::sys::files;

/// A certificate that ends so soon should have been renewed.
const SOON: Duration = Duration::from_secs(7 * 86_400);
/// Rules that change with time may change between two looks at them.
const MOMENT: Duration = Duration::from_millis(500);
/// A certificate file holds some kilobytes.
const MAX_PEM: u64 = 1 << 20;

/// What can be wrong; the words are part of `health --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Rules of ours in the kernel.
    Guard,
    /// That they are as the configuration wants them.
    Rules,
    /// The host's own rules, which must let pass what is let in.
    Host,
    /// The kernel's answers.
    Kernel,
    /// The interfaces towards the world, on which ports are guarded.
    Interface,
    /// The running daemon.
    Daemon,
    /// The process that hears clients.
    Front,
    /// The certificate of step 2.
    Certificate,
    /// The configuration.
    Configuration,
    /// The file in which grants outlast a reboot.
    StateFile,
    /// The plan by which the guard closes where the configuration cannot be used.
    LastGoodPlan,
    /// Figures for Prometheus.
    Metrics,
    /// What only a daemon of another version knows.
    #[serde(other)]
    Other,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ailment {
    /// What.
    pub part: Part,
    /// A sentence for an operator, on one line.
    pub message: String,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guard => "guard",
            Self::Rules => "rules",
            Self::Host => "host",
            Self::Kernel => "kernel",
            Self::Interface => "interface",
            Self::Daemon => "daemon",
            Self::Front => "front",
            Self::Certificate => "certificate",
            Self::Configuration => "configuration",
            Self::StateFile => "state-file",
            Self::LastGoodPlan => "last-good-plan",
            Self::Metrics => "metrics",
            Self::Other => "other",
        })
    }
}

impl Ailment {
    fn new(part: Part, message: impl Into<String>) -> Self {
        Self { part, message: message.into() }
    }

    /// What `check-ruleset` finds as well.
    pub(super) fn of_host(finding: Finding) -> Self {
        let Finding { message, code, .. } = finding;
        Self::new(Part::Host, format!("{message} [{code}]; `knock-agent check-ruleset` says what to do"))
    }
}

/// What is wrong with the rules in the kernel, by a configuration that follows the time; changes nothing. Grants are not
/// read, however many there are.
///
/// # Errors
/// [`BackendError`] when the kernel cannot be asked.
pub fn of_rules(
    firewall: &mut Firewall,
    mut settings: impl FnMut() -> Option<Settings>,
    (http_port, https_port): (NonZeroU16, NonZeroU16),
    host: &HostChains,
) -> Result<Vec<Ailment>, BackendError> {
    if !firewall.guards()? {
        let message = "no rules of knock-agent are in the kernel, or some are missing: ports stand open; start knock-agent";
        return Ok(vec![Ailment::new(Part::Guard, message)]);
    }
    let mut found = Vec::new();
    for look in 0..2 {
        let Some(settings) = settings() else { return Ok(found) };
        let options = firewall.options(&settings, http_port, https_port)?;
        found = match firewall {
            Firewall::Nftables(_) => differences(firewall, &settings, options)?,
            Firewall::Iptables(iptables) => {
                let tables = iptables.plan(&settings, options)?;
                iptables.differences(&tables)?
            }
        }
        .first()
        .map(|first| Ailment::new(Part::Rules, format!("the rules are not as the configuration wants them ({first}); a reload or `knock-agent check-ruleset` tells more")))
        .into_iter()
        .collect();
        if found.is_empty() || look > 0 {
            found.extend(outside::ailments(&settings));
            found.extend(of_host(firewall, &settings, options, host)?);
            break;
        }
        sleep(MOMENT);
    }
    Ok(found)
}

impl Operations {
    /// Whether the rules in force are those that are wanted, with nftables. Grants are not read, however many there are.
    pub(super) fn is_as_wanted(&mut self) -> Result<bool, BackendError> {
        let (settings, options) = self.in_force();
        let settings = settings.clone();
        Ok(differences(self.firewall(), &settings, options)?.is_empty())
    }
}

/// What would have to be changed, of what a plan says something about.
fn differences(
    firewall: &mut Firewall,
    settings: &Settings,
    options: Options,
) -> Result<Vec<String>, BackendError> {
    let Plan::Nftables(wanted) = firewall.plan(settings, options)? else { return Ok(Vec::new()) };
    let live = firewall.read_sets(|name| is_planned(&wanted, name))?;
    Ok(diff(live.as_ref(), &wanted).iter().map(ToString::to_string).collect())
}

fn is_planned(wanted: &Ruleset, name: &str) -> bool {
    wanted.set(name).is_some_and(|set| matches!(set.content, Content::Planned(_)))
}

/// What in the host's rules would keep from passing what is let in.
fn of_host(
    firewall: &mut Firewall,
    settings: &Settings,
    options: Options,
    host: &HostChains,
) -> Result<Vec<Ailment>, BackendError> {
    let Firewall::Nftables(nft) = &mut *firewall else { return of_others(firewall, settings, options) };
    let reading = nft.read_host(host, settings.global.mark, Scope::Named)?;
    let mut out: Vec<Ailment> =
        reading.plan.troubles.iter().map(|trouble| Ailment::new(Part::Host, trouble.to_string())).collect();
    let missing = reading.plan.changes.len();
    if missing > 0 {
        let message =
            format!("{missing} rules of the host's chains that accept our mark are not as they should be");
        out.push(Ailment::new(Part::Host, message));
    }
    out.extend(of_others(firewall, settings, options)?);
    Ok(out)
}

/// The same, but for the rule in the host's chains, which whoever asked for it looks after.
///
/// # Errors
/// [`BackendError`] when the kernel cannot be asked.
pub fn of_others(
    firewall: &mut Firewall,
    settings: &Settings,
    options: Options,
) -> Result<Vec<Ailment>, BackendError> {
    let mut out = forwarding::ailments(settings);
    let Firewall::Nftables(nft) = firewall else { return Ok(out) };
    let findings = audit(&Layout::new(settings, options), &survey(nft)?.situation);
    let errors = findings.into_iter().filter(|finding| finding.severity == Severity::Error);
    out.extend(errors.map(Ailment::of_host));
    Ok(out)
}

/// What is wrong with a file of certificates, at that moment.
#[must_use]
pub fn of_certificate(path: &Path, now: SystemTime) -> Option<Ailment> {
    let shown = path.display();
    let message = match files::read_text(path, MAX_PEM) {
        Err(error) => format!("{shown}: {error}"),
        Ok(text) => match expiry(text.as_bytes()) {
            None => format!("{shown}: no certificate whose end can be read"),
            Some(ends) => format!("{shown}: {}", ending(ends, now)?),
        },
    };
    Some(Ailment::new(Part::Certificate, message))
}

/// What it means that the files of the certificate cannot be used, whose pair of before is served.
#[must_use]
pub fn unusable(why: &str) -> String {
    format!(
        "the certificate and key on the disk cannot be used ({why}): those of before are served, and a restart would fail; put a pair there that `knock-agent check-config` with --cert and --key accepts"
    )
}

/// What is wrong with when a certificate ends, if anything.
#[must_use]
pub(super) fn ending(ends: SystemTime, now: SystemTime) -> Option<String> {
    match ends.duration_since(now) {
        Err(_) => Some("the certificate, or one of its issuers', has ended: clients refuse it".to_owned()),
        Ok(left) if left < SOON => {
            let days = left.as_secs() / 86_400;
            Some(format!("the certificate, or one of its issuers', ends within {} days: renew it", days + 1))
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_well_until_a_week_before_its_end() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let in_hours = |hours: u64| ending(now + Duration::from_secs(hours * 3_600), now);
        assert_eq!(in_hours(7 * 24), None);
        assert!(in_hours(7 * 24 - 1).unwrap().contains("within 7 days"));
        assert!(in_hours(1).unwrap().contains("within 1 days"));
        assert!(ending(now - Duration::from_secs(1), now).unwrap().contains("has ended"));
        let nowhere = of_certificate(Path::new("/nowhere/cert.pem"), now).unwrap();
        assert!(nowhere.part == Part::Certificate && nowhere.message.contains("/nowhere/cert.pem"));
    }

    #[test]
    fn a_part_has_the_same_word_for_people_and_programs() {
        for part in [Part::Guard, Part::Configuration, Part::StateFile, Part::LastGoodPlan, Part::Metrics] {
            assert_eq!(serde_json::to_value(part).unwrap(), part.to_string());
        }
    }
}
