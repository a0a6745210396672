//! The dry run where iptables guards: what would change, whether the programs take it, and what in the host's
//! own rules would defeat it.

use super::check::Report;
use super::{forwarding, lockout, outside};
use crate::backend::BackendError;
use crate::backend::iptables::{Iptables, IptablesError, Observed};
use crate::backend::survey::saved_files;
use crate::config::Settings;
use crate::ruleset::audit::{Finding, Severity, saved};
use crate::ruleset::iptables::elements::creation;
use crate::ruleset::iptables::model::Tables;
use crate::ruleset::iptables::plan::{Impossible, Keeping, Matcher, plan};
use crate::ruleset::iptables::recent::LIMITS;
use crate::ruleset::iptables::restore::text;
use crate::ruleset::iptables::save::ListedTable;
use crate::ruleset::layout::{Layout, Options};
use crate::units::{Family, Mark};

/// Plans without a kernel: everything would be new.
///
/// # Errors
/// [`Impossible`] where iptables cannot do what the settings want.
pub fn offline(settings: &Settings, options: Options, keeping: Keeping) -> Result<Report, Impossible> {
    let tables = plan(settings, options, Matcher::Bpf, keeping)?;
    let sets = tables.ipsets.iter().map(|set| format!("add set {} ({})", set.name, set.meaning));
    let chains = Family::BOTH.into_iter().flat_map(|family| {
        tables.of(family).iter().flat_map(move |table| {
            let of = if family == Family::V4 { "IPv4" } else { "IPv6" };
            table
                .chains
                .iter()
                .map(move |chain| format!("{of}: add chain {} of table {}", chain.name, table.name))
        })
    });
    Ok(Report {
        findings: without_ipset(keeping, None).into_iter().collect(),
        changes: sets.chain(chains).collect(),
    })
}

/// The plan as text for `ipset restore` and the two `iptables-restore`s.
#[must_use]
pub fn printed(tables: &Tables) -> String {
    let sets: String = tables.ipsets.iter().map(creation).collect();
    format!(
        "# for ipset restore -exist\n{sets}\n# for iptables-restore --noflush\n{}\n# for ip6tables-restore --noflush\n{}",
        text(&tables.ipv4),
        text(&tables.ipv6)
    )
}

/// Plans, compares with what is live and has the programs check the rules; changes nothing.
///
/// # Errors
/// [`BackendError`] when the programs cannot be asked, or iptables cannot do what the settings want.
pub fn online(
    iptables: &mut Iptables,
    settings: &Settings,
    options: Options,
) -> Result<Report, BackendError> {
    let mut report = Report { findings: outside::findings(settings), changes: Vec::new() };
    report.findings.extend(forwarding::findings(settings));
    report.findings.extend(without_ipset(iptables.keeping(), iptables.room()));
    let tables = iptables.plan(settings, options)?;
    report.changes = iptables.differences(&tables)?;
    match iptables.validate(&tables) {
        Ok(()) => {}
        Err(error @ IptablesError::Refused { .. }) => report.findings.push(Finding {
            severity: Severity::Error,
            code: "kernel-refuses",
            message: error.to_string(),
            fix: "load the modules it needs: modprobe -a xt_set xt_bpf xt_addrtype xt_conntrack xt_CT xt_length xt_mark xt_comment xt_recent xt_hashlimit xt_multiport xt_NFLOG iptable_raw ip6table_raw iptable_nat ip6table_nat".to_owned(),
        }),
        Err(error) => return Err(error.into()),
    }
    let live = iptables.read()?;
    let layout = Layout::new(settings, options);
    let adopts = iptables.keeping() == Keeping::Ipset;
    report.findings.extend(lockout::findings(&layout, live.as_ref(), adopts));
    report.findings.extend(saved_files().iter().map(saved));
    report.findings.extend(host(iptables.seen(), settings));
    Ok(report)
}

/// What lists of `-m recent` cannot do.
fn without_ipset(keeping: Keeping, room: Option<usize>) -> Option<Finding> {
    let room = room.map(|room| format!("; {room} addresses at most for each app")).unwrap_or_default();
    (keeping == Keeping::Recent).then(|| Finding {
        severity: Severity::Warning,
        code: "no-ipset",
        message: format!("{LIMITS}{room}"),
        fix: "apt-get install ipset; modprobe -a ip_set ip_set_hash_ip ip_set_hash_net ip_set_hash_ipport xt_set".to_owned(),
    })
}

/// The built-in chains of the filter table that would drop what we let in.
fn host(seen: &Observed, settings: &Settings) -> Vec<Finding> {
    let forwards = settings.apps.iter().any(|app| app.destination.host().is_some());
    let mut out = Vec::new();
    for (family, listing) in Family::BOTH.into_iter().zip(&seen.listings) {
        let Some(filter) = listing.tables.get("filter") else { continue };
        let command = if family == Family::V4 { "iptables" } else { "ip6tables" };
        for chain in ["INPUT", "FORWARD", "OUTPUT"] {
            if drops(filter, chain) && (chain != "FORWARD" || forwards) {
                out.push(finding(filter, chain, command, settings.global.mark));
            }
        }
    }
    out
}

fn drops(filter: &ListedTable, chain: &str) -> bool {
    let finally = |rule: &String| {
        rule.strip_prefix(chain)
            .and_then(|rest| rest.strip_prefix(' '))
            .is_some_and(|rule| rule.starts_with("-j DROP") || rule.starts_with("-j REJECT"))
    };
    filter.policies.contains_key(chain) || filter.others.iter().any(finally)
}

fn finding(filter: &ListedTable, chain: &str, command: &str, mark: Option<Mark>) -> Finding {
    let code = if chain == "OUTPUT" { "host-drops-output" } else { "host-drops-by-default" };
    let which = format!("{command}: chain {chain} of table filter drops what none of its rules accepts");
    let Some(mark) = mark else {
        return Finding {
            severity: Severity::Warning,
            code,
            message: format!("{which}, and with global.mark: 0 it cannot tell what we let in"),
            fix: "set global.mark, or accept the guarded and the step ports in that chain, for what comes in (OUTPUT: goes out) by interface_ext only: others are not guarded".to_owned(),
        };
    };
    let value = if mark.mask() == u32::MAX {
        format!("{:#x}", mark.value())
    } else {
        format!("{:#x}/{:#x}", mark.value(), mark.mask())
    };
    let accepting = format!("{chain} -m mark --mark {value} -j ACCEPT");
    if filter.others.iter().any(|rule| rule.starts_with(&accepting)) {
        return Finding {
            severity: Severity::Info,
            code: "host-accepts-mark",
            message: format!("{which} and accepts our mark"),
            fix: String::new(),
        };
    }
    Finding {
        severity: Severity::Warning,
        code,
        message: format!("{which}: what we let in dies there unless one of its rules accepts it"),
        fix: format!(
            "{command} -I {chain}{} -m mark --mark {value} -j ACCEPT",
            if chain == "OUTPUT" { " 2" } else { "" }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::iptables::save::listing;

    #[test]
    fn chains_that_drop_are_found_with_the_line_against_it() {
        let text = "*filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n-A OUTPUT -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n";
        let filter = &listing(text).tables["filter"];
        assert!(drops(filter, "INPUT") && drops(filter, "OUTPUT") && !drops(filter, "FORWARD"));
        let found = finding(filter, "INPUT", "iptables", Some(Mark::DEFAULT));
        assert_eq!(found.fix, "iptables -I INPUT -m mark --mark 0x5e2b -j ACCEPT");
        let accepting = text.replace("-i lo", "-m mark --mark 0x5e2b");
        let filter = &listing(&accepting).tables["filter"];
        assert_eq!(finding(filter, "INPUT", "iptables", Some(Mark::DEFAULT)).code, "host-accepts-mark");
    }
}
