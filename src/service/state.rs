//! Grants across a reboot: a file of who was let in until when, written at each change, read once after the
//! host was restarted. It never opens anything for longer than was granted; in doubt it opens nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::allowed::Allowed;
use super::knocked::slug_of;
use super::lockout;
use super::operations::{OperationError, Operations};
use super::record::{Record, number};
use super::restoring;
use super::sealed::{Kind, SealError};
use super::status::Service;
use crate::config::{App, Settings};
use crate::grant::Ledger;
use crate::ruleset::model::Timeout;
use crate::sys::{files, kernel};
use crate::units::{Lifetime, LogEvent, Network, Now, PortRange, Protocol, Protocols};

pub(super) const KIND: Kind = Kind { name: "grants", version: 1, max_bytes: 256 << 20 };
/// The kernel's words on an element are as long at most.
const MAX_NOTE: usize = 128;
/// After a failed write, the wait before the next one.
const RETRY: Duration = Duration::from_secs(60);
/// When the calendar was set by more than this, all ends are written anew.
const SLACK: Duration = Duration::from_secs(1);
/// What is only given is written so long after the last write: whoever has very many let in, by knocks that are known, must
/// not have the daemon do nothing but write.
const PACE: Duration = Duration::from_secs(1);

/// Why nothing is restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is not what was kept.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It was written later than now.
    #[error("it was written in the future: the clock is wrong, or was")]
    Future,
    /// A grant that cannot have been made.
    #[error("it holds a grant that cannot be: {0}")]
    Impossible(&'static str),
    /// Nobody knows whether the host was restarted.
    #[error("the kernel's boot id cannot be read: {0}")]
    BootId(#[source] io::Error),
    /// The kernel would not.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    /// Which run of the kernel.
    boot_id: String,
    /// When, in milliseconds since 1970.
    pub written_ms: u64,
    pub grants: Vec<Grant>,
    /// Networks that operators allowed.
    #[serde(default)]
    pub allowed: Vec<AllowedNetwork>,
    /// Where the apps were for which there are grants, by their slugs; earlier versions did not write it.
    #[serde(default)]
    pub ports: BTreeMap<String, Vec<Service>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AllowedNetwork {
    /// Slug of the app; none: every app.
    pub app: Option<String>,
    pub network: Network,
    /// When it ends, in milliseconds since 1970; none: never.
    pub end_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    /// Slug of the app.
    pub app: String,
    pub address: IpAddr,
    /// Who and how, as it stands on the element.
    note: String,
    /// When it ends, in milliseconds since 1970.
    pub end_ms: u64,
    /// What it was given.
    lifetime_ms: u64,
}

/// A grant with what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rest {
    pub app: String,
    pub address: IpAddr,
    pub note: String,
    pub timeout: Timeout,
}

impl Saved {
    fn of(ledger: &Ledger, allowed: &[Allowed], boot_id: &str, now: Now) -> Self {
        let written_ms = since_1970(now.wall);
        let grants = ledger
            .longest(now)
            .map(|(app, address, note, left, lifetime)| Grant {
                app: app.to_owned(),
                address,
                note: note.to_string(),
                end_ms: written_ms.saturating_add(ms(left)),
                lifetime_ms: ms(lifetime.max(left)),
            })
            .collect();
        let left_of = |until: Duration| until.checked_sub(now.boot).filter(|left| !left.is_zero());
        let allowed = allowed
            .iter()
            .filter(|have| have.until.is_none_or(|until| left_of(until).is_some()))
            .map(|have| AllowedNetwork {
                app: have.app.clone(),
                network: have.network,
                end_ms: have.until.and_then(left_of).map(|left| written_ms.saturating_add(ms(left))),
            })
            .collect();
        Self { boot_id: boot_id.to_owned(), written_ms, grants, allowed, ports: BTreeMap::new() }
    }

    /// With the ports of the apps that something was granted for.
    fn at(self, apps: &[AppPorts]) -> Self {
        let granted: BTreeSet<&str> = self.grants.iter().map(|grant| slug_of(&grant.app)).collect();
        let apps = apps.iter().filter(|(slug, ..)| granted.contains(slug.as_str()));
        let ports = apps.map(|(slug, protocols, ports)| {
            let of = |&protocol: &Protocol| ports.iter().map(move |&ports| Service::of(protocol, ports));
            (slug.clone(), protocols.each().iter().flat_map(of).collect())
        });
        let ports = ports.collect();
        Self { ports, ..self }
    }

    /// Nothing but what was there before, and none of it for longer.
    fn within(mut self, before: &Self) -> Self {
        self.grants.retain_mut(|grant| {
            let had = |other: &&Grant| (&other.app, other.address) == (&grant.app, grant.address);
            let Some(had) = before.grants.iter().find(had) else { return false };
            grant.end_ms = grant.end_ms.min(had.end_ms);
            true
        });
        self.allowed.retain_mut(|allowed| {
            let had =
                |other: &&AllowedNetwork| (&other.app, other.network) == (&allowed.app, allowed.network);
            let Some(had) = before.allowed.iter().find(had) else { return false };
            let ends = [allowed.end_ms, had.end_ms].into_iter().flatten();
            allowed.end_ms = ends.min();
            true
        });
        self
    }

    /// What is left of the networks; one that cannot be makes all of them doubtful.
    pub(super) fn networks(&self, now: Now) -> Result<Vec<Allowed>, StateError> {
        let now_ms = since_1970(now.wall);
        let longest = ms(Lifetime::MAX.as_duration());
        let mut out = Vec::new();
        for AllowedNetwork { app, network, end_ms } in &self.allowed {
            if end_ms.is_some_and(|end| end > self.written_ms.saturating_add(longest)) {
                return Err(StateError::Impossible("a network is allowed for longer than anything can be"));
            }
            let left_ms = end_ms.map(|end| end.saturating_sub(now_ms));
            if left_ms != Some(0) {
                let until = left_ms.map(|left| now.boot + Duration::from_millis(left));
                out.push(Allowed { network: *network, app: app.clone(), until });
            }
        }
        Ok(out)
    }

    /// What is left of the grants; one that cannot be makes all of them doubtful.
    pub(super) fn rest(self, now: Now) -> Result<Vec<Rest>, StateError> {
        let now_ms = since_1970(now.wall);
        if self.written_ms > now_ms {
            return Err(StateError::Future);
        }
        let mut out = Vec::new();
        for Grant { app, address, note, end_ms, lifetime_ms } in self.grants {
            let impossible = |why| Err(StateError::Impossible(why));
            if lifetime_ms.checked_div(1000).and_then(|secs| Lifetime::from_secs(secs).ok()).is_none() {
                return impossible("its duration is out of bounds");
            }
            if end_ms > self.written_ms.saturating_add(lifetime_ms) {
                return impossible("it ends later than its duration after it was written");
            }
            if note.len() > MAX_NOTE || note.contains('\0') {
                return impossible("its note is none of ours");
            }
            let left_ms = end_ms.saturating_sub(now_ms).min(lifetime_ms);
            if left_ms > 0 {
                let timeout = Timeout { total_ms: lifetime_ms, left_ms };
                out.push(Rest { app, address, note, timeout });
            }
        }
        Ok(out)
    }
}

/// An app's slug, and its ports.
type AppPorts = (String, Protocols, Vec<PortRange>);

/// What was true when the file was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Written {
    /// The ledger's changes.
    changes: u64,
    /// Those among them that took something back.
    taken_back: u64,
    /// The networks.
    allowed: Vec<Allowed>,
    /// The calendar's distance from the clock that never goes back.
    offset: Duration,
    /// Until when what is only given waits.
    rests_until: Duration,
}

/// The file, and what it says.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    boot_id: String,
    /// What it says.
    written: Option<Written>,
    /// Where the apps are for which it says something.
    apps: Vec<AppPorts>,
    /// After a failure, when to try again.
    again: Duration,
    /// Whether the last attempt to write failed.
    failed: bool,
    /// When what waits is to be written.
    due: Option<Duration>,
    /// What was there before a trial that nobody has confirmed: if that is put back, what came meanwhile ends.
    before_trial: Option<BeforeTrial>,
}

/// What a state file may hold while a start waits for its confirmation.
#[derive(Debug, Default)]
pub struct BeforeTrial(Option<Saved>);

/// How it went at the start.
#[derive(Debug)]
pub struct Resumed {
    /// For writing; none where there is a file that is not ours, or the host has no boot id.
    pub file: Option<StateFile>,
    /// How many grants and networks were restored.
    pub restored: Result<usize, StateError>,
}

impl StateFile {
    /// Restores what the settings' `state_file` holds, if the host was restarted since; none without one.
    pub fn resume(operations: &mut Operations, now: Now) -> Option<Resumed> {
        Self::resume_from(operations, |path| KIND.read(path), now)
    }

    /// The same for a verb without a daemon, which may run as another user than the daemon does.
    pub fn resume_beside(operations: &mut Operations, now: Now) -> Option<Resumed> {
        Self::resume_from(operations, |path| KIND.read_beside(path), now)
    }

    fn resume_from(
        operations: &mut Operations,
        read: impl Fn(&Path) -> Result<String, SealError>,
        now: Now,
    ) -> Option<Resumed> {
        let path = operations.settings().global.state_file.clone()?;
        let boot_id = match kernel::boot_id() {
            Ok(id) => id,
            Err(error) => return Some(Resumed { file: None, restored: Err(StateError::BootId(error)) }),
        };
        let saved = read(&path).and_then(|text| KIND.open::<Saved>(&text));
        let restored = match saved {
            Err(SealError::Missing) => Ok(0),
            Err(error @ (SealError::Foreign | SealError::Others | SealError::Read(_))) => {
                // Somebody else's file, named by mistake, is not to be lost.
                return Some(Resumed { file: None, restored: Err(error.into()) });
            }
            Err(error @ (SealError::Damaged | SealError::Version(_))) => Err(error.into()),
            // Within one run of the kernel, the kernel knows better: what is gone was taken back.
            Ok(saved) if saved.boot_id == boot_id => Ok(0),
            Ok(saved) => saved.networks(now).and_then(|networks| {
                let ports = saved.ports.clone();
                let mut rest = saved.rest(now)?;
                rest.retain(|rest| !has_moved(&ports, operations.settings(), slug_of(&rest.app)));
                Ok(restoring::networks(operations, networks, now)?
                    + restoring::grants(operations, rest, now)?)
            }),
        };
        Some(Resumed {
            file: Some(Self {
                path,
                boot_id,
                written: None,
                apps: Vec::new(),
                again: Duration::ZERO,
                failed: false,
                due: None,
                before_trial: None,
            }),
            restored,
        })
    }

    /// Writes the ledger and what operators allowed, if it has changed since, and waits for the disk. What was taken back
    /// is written at once; what was only given waits for [`StateFile::due`].
    ///
    /// # Errors
    /// The reason; there is no file then, so that nothing that was taken back can come again.
    pub fn keep(&mut self, operations: &Operations, now: Now) -> io::Result<()> {
        let apps = &operations.settings().apps;
        let of = |app: &App| (app.slug.clone(), app.protocol, app.ports.clone());
        let same = |app: &App, (slug, protocol, ports): &AppPorts| {
            (&app.slug, &app.protocol, &app.ports) == (slug, protocol, ports)
        };
        if apps.len() != self.apps.len() || !apps.iter().zip(&self.apps).all(|(app, had)| same(app, had)) {
            (self.apps, self.written) = (apps.iter().map(of).collect(), None);
        }
        self.keep_what(operations.ledger(), &operations.allowed, now)
    }

    /// The same, of what was given as well.
    ///
    /// # Errors
    /// As for [`StateFile::keep`].
    pub fn keep_at_once(&mut self, operations: &Operations, now: Now) -> io::Result<()> {
        if let Some(written) = &mut self.written {
            written.rests_until = Duration::ZERO;
        }
        self.keep(operations, now)
    }

    /// When what was given is written, where that waits.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    fn keep_what(&mut self, ledger: &Ledger, allowed: &[Allowed], now: Now) -> io::Result<()> {
        let calendar = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let offset = calendar.saturating_sub(now.boot);
        self.due = None;
        let holds_nothing_else = |have: &&Written| {
            have.taken_back == ledger.taken_back()
                && have.allowed == allowed
                && have.offset.abs_diff(offset) <= SLACK
        };
        if now.boot < self.again {
            return Ok(());
        }
        if let Some(have) = self.written.as_ref().filter(holds_nothing_else) {
            if have.changes == ledger.changes() {
                return Ok(());
            }
            self.due = Some(have.rests_until).filter(|&until| now.boot < until);
            if self.due.is_some() {
                return Ok(());
            }
        }
        let began = Instant::now();
        let all = Saved::of(ledger, allowed, &self.boot_id, now).at(&self.apps);
        let kept = match &self.before_trial {
            None => all,
            Some(BeforeTrial(Some(before))) => all.within(before),
            Some(BeforeTrial(None)) => Saved { grants: Vec::new(), allowed: Vec::new(), ..all },
        };
        let written = KIND
            .seal(&kept)
            .map_err(io::Error::other)
            .and_then(|text| files::replace(&self.path, 0o600, text.as_bytes()));
        if written.is_ok() {
            self.written = Some(Written {
                changes: ledger.changes(),
                taken_back: ledger.taken_back(),
                allowed: allowed.to_vec(),
                offset,
                rests_until: now.boot + began.elapsed() + PACE,
            });
        } else {
            self.again = now.boot + RETRY;
            // Where even that is impossible, the error is the same.
            let _ = files::remove(&self.path);
        }
        self.failed = written.is_err();
        written
    }

    /// From now on, until [`StateFile::confirmed`], nothing is added to what there is.
    pub fn begin_trial(&mut self, operations: &Operations, now: Now) {
        let before = Saved::of(operations.ledger(), &operations.allowed, &self.boot_id, now);
        self.before_trial = Some(BeforeTrial(Some(before)));
    }

    /// What came since the trial began counts from now on.
    pub fn confirmed(&mut self) {
        self.before_trial = None;
        self.written = None;
    }

    /// Takes over what another file may hold; during a trial, nothing where there was none.
    pub fn succeed(&mut self, other: Option<Self>, on_trial: bool) {
        let before = other.and_then(|other| other.before_trial);
        self.before_trial = on_trial.then(|| before.unwrap_or_default());
    }

    /// Whether there is a file that says something else than the ledger, and cannot be changed.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.failed && files::exists(&self.path)
    }

    /// Whether it could not be written when that was tried last.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file: everything was taken back.
    ///
    /// # Errors
    /// The reason.
    pub fn forget(&self) -> io::Result<()> {
        files::remove(&self.path)
    }
}

/// Whether an app has none of the ports that it had: what was granted is not there.
fn has_moved(ports: &BTreeMap<String, Vec<Service>>, settings: &Settings, slug: &str) -> bool {
    let app = settings.apps.iter().find(|app| app.slug == slug);
    app.zip(ports.get(slug)).is_some_and(|(app, had)| lockout::has_moved(had, app))
}

/// Says what became of the grants of before the reboot.
pub(super) fn resumed(Resumed { file, restored }: Resumed) -> Option<StateFile> {
    match restored {
        Ok(0) => {}
        Ok(grants) => {
            Record { grants: number(grants), ..Record::of(LogEvent::Restored) }
                .log("grants of before the reboot are restored with the time they have left");
        }
        Err(error) => tracing::error!(%error, "state_file is refused: no grant is restored"),
    }
    if file.is_none() {
        tracing::error!(
            "grants are not kept across a reboot: remove the file that state_file names, or name another"
        );
    }
    file
}

/// Removes a state file, where it is one: everything was taken back.
///
/// # Errors
/// The reason.
pub fn forget(path: &Path) -> io::Result<()> {
    match KIND.read_beside(path).and_then(|text| KIND.open::<Saved>(&text)) {
        Ok(_) | Err(SealError::Damaged | SealError::Version(_)) => files::remove(path),
        // What may be anybody's is believed by nobody.
        Err(SealError::Missing | SealError::Foreign | SealError::Others) => Ok(()),
        Err(SealError::Read(error)) => Err(error),
    }
}

pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn since_1970(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, ms)
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
