//! `global.time_sequence`: knocks that change with time, each client's by a secret of its own.

use std::path::PathBuf;

use crate::config::app::AppDraft;
use crate::config::global::absolute_file;
use crate::config::outside::Outside;
use crate::config::problem::Problems;
use crate::config::report::{Report, Spot};
use crate::config::section::Section;
use crate::config::sequence::{self, SequenceDraft};
use crate::config::sequence_client::{self, SequenceClient};
use crate::config::shared_keys::Said;
use crate::units::{KnockKind, KnockShape, Lifetime, PortRange, Protocol};

pub(super) const KEYS: &[&str] =
    &["clients", "kind", "ports", "protocol", "lengths", "every", "drift", "window", "knock_window"];
/// What is always so with clients of knock-knock.
const OURS_ONLY: &[&str] = &["ports", "protocol", "lengths", "every"];
/// The words of `kind`.
pub(super) const KINDS: &[(&str, KnockKind)] =
    &[("secret", KnockKind::Secret), ("knock-knock", KnockKind::KnockKnock)];
/// The words of `protocol`.
pub(super) const PROTOCOLS: &[(&str, Protocol)] = &[("udp", Protocol::Udp), ("tcp", Protocol::Tcp)];
const FOLDER: &str = "/etc/knock-agent/sequence-clients";
/// Below the ports that Linux gives to programs of its own.
pub(super) const USUAL_PORTS: (u16, u16) = (20_000, 31_999);
/// What Linux gives to programs that ask for no port (net.ipv4.ip_local_port_range).
const EPHEMERAL: (u16, u16) = (32_768, 60_999);
/// Fewer ports would be guessed.
const LEAST_PORTS: u32 = 1_000;
pub(super) const EVERY_SECS: u64 = 30;
const EVERY: std::ops::RangeInclusive<u64> = 10..=3_600;
/// A guess shall not open more often than once in so many times: 2^30.
const ENOUGH: f64 = 1_073_741_824.0;

/// Knocks that change with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeSequence {
    /// The rule they follow.
    pub kind: KnockKind,
    /// The ports they are at, all of which belong to them.
    pub ports: PortRange,
    /// Whether they are TCP or UDP.
    pub protocol: Protocol,
    /// Whether the length of a datagram counts.
    pub lengths: bool,
    /// How often they change: 10 s to an hour.
    pub every: Lifetime,
    /// How many time steps before and after the present one are taken, 0 to 10, for clocks that differ.
    pub drift: u8,
    /// The longest time from the first knock to the last, at most an hour.
    pub window: Lifetime,
    /// The longest time from one knock to the next, at most `window`.
    pub knock_window: Lifetime,
    /// The folder with a file for each client.
    pub folder: PathBuf,
    /// Who knocks, sorted by name.
    pub clients: Vec<SequenceClient>,
}

impl TimeSequence {
    /// What the knocks of a client look like.
    #[must_use]
    pub fn shape(&self, client: &SequenceClient) -> KnockShape {
        let Self { kind, ports, protocol, lengths, .. } = *self;
        KnockShape { kind, count: client.knocks, ports, protocol, lengths }
    }

    /// How many time steps are taken at once.
    #[must_use]
    pub fn steps(&self) -> u64 {
        2 * u64::from(self.drift) + 1
    }

    /// In how many guesses one opens something, on average.
    fn guesses(&self) -> f64 {
        let active = self.clients.iter().filter(|client| !client.disabled);
        let chance: f64 = active.map(|client| 1.0 / self.possible(client)).sum();
        1.0 / (chance * self.steps() as f64)
    }

    /// How many different knocks a client may have.
    fn possible(&self, client: &SequenceClient) -> f64 {
        let ports = f64::from(self.ports.last() - self.ports.first()) + 1.0;
        let each = if self.lengths { ports * 16.0 } else { ports };
        let all = each.powi(client.knocks.into());
        match self.kind {
            KnockKind::Secret => all,
            // A code of six digits and the PIN are all that they depend on.
            KnockKind::KnockKnock => {
                let length = client.pin.as_ref().map_or(0, |pin| pin.expose().chars().count());
                all.min(10_f64.powi(i32::try_from(6 + length).unwrap_or(i32::MAX)))
            }
        }
    }
}

/// The section, with the places that other checks need.
pub(super) struct TimeSequenceDraft {
    settings: TimeSequence,
    /// Where the section is.
    spot: Spot,
    /// Where its folder is named.
    folder: Spot,
}

/// Reads the section, if there is one, without its clients; none if it is wrong.
pub(super) fn read(global: &Section<'_>, report: &mut Report) -> Option<Option<TimeSequenceDraft>> {
    let Some(field) = global.get("time_sequence") else { return Some(None) };
    let section = field.section(report)?;
    section.refuse_unknown(KEYS, &[], "", report);
    let kind = Said::read(section.get("kind"), |f| f.choice(KINDS, report)).or(KnockKind::Secret);
    let theirs = kind == Some(KnockKind::KnockKnock);
    if theirs {
        for field in OURS_ONLY.iter().filter_map(|key| section.get(key)) {
            let message = "clients of knock-knock take no other ports, lengths or times than theirs";
            report.error_fix(field.key(), message, "remove it");
        }
    }
    let usual = PortRange::new(USUAL_PORTS.0, USUAL_PORTS.1).ok();
    let usual = if theirs { KnockKind::their_ports() } else { usual? };
    let ports = Said::read(section.get("ports"), |f| f.parse_with(str::parse::<PortRange>, report)).or(usual);
    let protocol = Said::read(section.get("protocol"), |f| f.choice(PROTOCOLS, report)).or(Protocol::Udp);
    let lengths = Said::read(section.get("lengths"), |f| f.switch(report)).or(theirs);
    if let (Some(true), Some(Protocol::Tcp), Some(at)) = (lengths, protocol, section.get("lengths")) {
        report.error_fix(
            at.key(),
            "the SYN of TCP has no length that counts",
            "remove it, or `protocol: tcp`",
        );
    }
    let every =
        Said::read(section.get("every"), |f| f.lifetime(report)).or(Lifetime::from_secs(EVERY_SECS).ok()?);
    if let (Some(every), Some(at)) =
        (every.filter(|every| !EVERY.contains(&every.as_secs())), section.get("every"))
    {
        report.error(at.spot(), format!("knocks change every 10s to 1h, not every {every}"));
    }
    let drift = Said::read(section.get("drift"), |f| f.number(0..=10, report)).or(1);
    let (window, knock_window) = sequence::windows(&section, report)?;
    let folder_field = section.get("clients");
    let folder = Said::read(folder_field.clone(), |f| absolute_file(f, report)).or(PathBuf::from(FOLDER));
    let folder_spot = folder_field.map_or_else(|| section.spot_for("clients"), |f| f.shown_spot());
    let ports_spot = section.get("ports").map_or_else(|| section.spot_for("ports"), |f| f.spot());
    let settings = TimeSequence {
        kind: kind?,
        ports: ports?,
        protocol: protocol?,
        lengths: lengths?,
        every: every?,
        drift: drift?,
        window,
        knock_window,
        folder: folder?,
        clients: Vec::new(),
    };
    about_ports(&settings, ports_spot, report);
    Some(Some(TimeSequenceDraft { settings, spot: section.spot(), folder: folder_spot }))
}

fn about_ports(of: &TimeSequence, spot: Spot, report: &mut Report) {
    let count = u32::from(of.ports.last() - of.ports.first()) + 1;
    if count < LEAST_PORTS {
        let message = format!("these are {count} ports, which are soon guessed");
        report.error_fix(spot, message, format!("write a range of at least {LEAST_PORTS}"));
        return;
    }
    if of.ports.first() <= EPHEMERAL.1 && EPHEMERAL.0 <= of.ports.last() {
        let fix = match of.kind {
            KnockKind::Secret => "use ports below 32768",
            KnockKind::KnockKnock => "use `kind: secret` unless there are clients of knock-knock",
        };
        let message = format!(
            "programs of this host get ports from {} to {}: what strangers send to one of {} is dropped",
            EPHEMERAL.0, EPHEMERAL.1, of.ports
        );
        report.warning(spot, message, fix);
    }
}

impl TimeSequenceDraft {
    /// What is in force, for its clients to be read anew.
    pub fn again(settings: &TimeSequence) -> Self {
        let (spot, folder) =
            (Spot::elsewhere("global.time_sequence"), Spot::elsewhere("global.time_sequence.clients"));
        Self { settings: TimeSequence { clients: Vec::new(), ..settings.clone() }, spot, folder }
    }

    /// Whether its ports are nobody else's: not an app's, not those of the steps, not those of sequences that stay the same.
    pub fn has_free_ports(
        &self,
        apps: &[AppDraft<'_>],
        global: &[SequenceDraft],
        taken: &[(u16, &'static str)],
        report: &mut Report,
    ) -> bool {
        let TimeSequence { ports, protocol, .. } = self.settings;
        let mut free = true;
        let mut clash = |spot: &Spot, what: &str, report: &mut Report| {
            let message = format!("{what} {protocol} ports {ports}, which all belong to time_sequence");
            report.conflict(
                spot.clone(),
                &self.spot,
                message,
                "use a port outside of them, or give it another range",
            );
            free = false;
        };
        for app in apps {
            let same = app.protocol.is_some_and(|has| has.each().contains(&protocol));
            let mut ranges = app.ports.iter().filter(|_| same);
            if let Some((_, spot)) =
                ranges.find(|(range, _)| range.first() <= ports.last() && ports.first() <= range.last())
            {
                clash(spot, &format!("`{}` has one of the", app.name), report);
            }
        }
        for draft in global.iter().chain(apps.iter().flat_map(|app| &app.sequences)) {
            let knocks = draft.sequence.knocks.iter().zip(&draft.knocks);
            for (_, spot) in
                knocks.filter(|(knock, _)| knock.protocol() == protocol && ports.contains(knock.port()))
            {
                clash(spot, "this is one of the", report);
            }
        }
        for (port, flag) in
            taken.iter().filter(|(port, _)| protocol == Protocol::Tcp && ports.contains(*port))
        {
            clash(&self.spot, &format!("{port} ({flag}) is one of the"), report);
        }
        free
    }

    /// Reads the clients; none if one of them is wrong. What is wrong with their files goes to `of_files`.
    pub fn settle(
        self,
        apps: &[AppDraft<'_>],
        outside: &dyn Outside,
        report: &mut Report,
        of_files: &mut Problems,
    ) -> Option<TimeSequence> {
        let clients = sequence_client::read(
            (&self.settings.folder, self.settings.kind),
            &self.folder,
            apps,
            outside,
            report,
            of_files,
        )?;
        let settings = TimeSequence { clients, ..self.settings };
        warn(&settings, &self.spot, report);
        Some(settings)
    }
}

/// Warns of what is guessed too soon, and of nobody who could knock.
fn warn(of: &TimeSequence, spot: &Spot, report: &mut Report) {
    let active: Vec<&SequenceClient> = of.clients.iter().filter(|client| !client.disabled).collect();
    let Some(weakest) = active.iter().min_by(|a, b| of.possible(a).total_cmp(&of.possible(b))) else {
        let fix = "add one: knock-agent enroll --sequence NAME --app APP";
        report.warning(spot.clone(), "there is no client: these knocks open nothing", fix);
        return;
    };
    if let Some(client) = active.iter().find(|client| client.knocks == 1) {
        let message = format!("one knock is no secret: every scan finds that of `{}`", client.name);
        report.warning(spot.clone(), message, "give every client at least 4 knocks");
    }
    let bare = active.iter().filter(|client| client.pin.is_none()).count();
    if of.kind == KnockKind::KnockKnock && bare > 0 {
        let message = format!(
            "{bare} of the clients have no PIN: their knocks are one of a million paths that everybody can compute"
        );
        report.warning(spot.clone(), message, "give each a long PIN, or use `kind: secret`");
    }
    let guesses = of.guesses();
    if guesses < ENOUGH {
        let message = format!(
            "one guess in {guesses:.0} opens something; with {} clients, `{}` is the easiest to guess",
            active.len(),
            weakest.name
        );
        let fix = match of.kind {
            KnockKind::Secret => "more knocks, more ports, `lengths: true`",
            KnockKind::KnockKnock => "longer PINs, or `kind: secret`",
        };
        report.warning(spot.clone(), message, fix);
    }
}
