//! Grants across a reboot: a file of who was let in until when, written at each change, read once after the
//! host was restarted. It never opens anything for longer than was granted; in doubt it opens nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::operations::{OperationError, Operations};
use super::sealed::{Kind, SealError};
use crate::grant::{How, Ledger, Note};
use crate::ruleset::allow::address_key;
use crate::ruleset::diff::{Change, SetRef};
use crate::ruleset::model::{Element, Elements, Timeout};
use crate::ruleset::plan::app_set;
use crate::sys::files;
use crate::units::{ClientAddr, Lifetime, Now};

const KIND: Kind = Kind { name: "grants", version: 1, max_bytes: 256 << 20 };
/// The kernel's words on an element are as long at most.
const MAX_NOTE: usize = 128;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// After a failed write, the wait before the next one.
const RETRY: Duration = Duration::from_secs(60);
/// When the calendar was set by more than this, all ends are written anew.
const SLACK: Duration = Duration::from_secs(1);

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
    #[error("{BOOT_ID} cannot be read: {0}")]
    BootId(#[source] io::Error),
    /// The kernel would not.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// Which run of the kernel.
    boot_id: String,
    /// When, in milliseconds since 1970.
    written_ms: u64,
    grants: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    /// Slug of the app.
    app: String,
    address: IpAddr,
    /// Who and how, as it stands on the element.
    note: String,
    /// When it ends, in milliseconds since 1970.
    end_ms: u64,
    /// What it was given.
    lifetime_ms: u64,
}

/// A grant with what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rest {
    app: String,
    address: IpAddr,
    note: String,
    timeout: Timeout,
}

impl Saved {
    fn of(ledger: &Ledger, boot_id: &str, now: Now) -> Self {
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
        Self { boot_id: boot_id.to_owned(), written_ms, grants }
    }

    /// What is left of the grants; one that cannot be makes all of them doubtful.
    fn rest(self, now: Now) -> Result<Vec<Rest>, StateError> {
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

/// The file, and what it says.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    boot_id: String,
    /// The ledger's changes and the calendar's distance from the clock that never goes back, when it was written.
    written: Option<(u64, Duration)>,
    /// After a failure, when to try again.
    again: Duration,
}

/// How it went at the start.
#[derive(Debug)]
pub struct Resumed {
    /// For writing; none where there is a file that is not ours, or the host has no boot id.
    pub file: Option<StateFile>,
    /// How many grants were restored.
    pub restored: Result<usize, StateError>,
}

impl StateFile {
    /// Restores what the settings' `state_file` holds, if the host was restarted since; none without one.
    pub fn resume(operations: &mut Operations, now: Now) -> Option<Resumed> {
        let path = operations.settings().global.state_file.clone()?;
        let boot_id = match files::read_text(Path::new(BOOT_ID), 64) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => return Some(Resumed { file: None, restored: Err(StateError::BootId(error)) }),
        };
        let saved = KIND.read(&path).and_then(|text| KIND.open::<Saved>(&text));
        let restored = match saved {
            Err(SealError::Missing) => Ok(0),
            Err(error @ (SealError::Foreign | SealError::Read(_))) => {
                // Somebody else's file, named by mistake, is not to be lost.
                return Some(Resumed { file: None, restored: Err(error.into()) });
            }
            Err(error @ (SealError::Damaged | SealError::Version(_))) => Err(error.into()),
            // Within one run of the kernel, the kernel knows better: what is gone was taken back.
            Ok(saved) if saved.boot_id == boot_id => Ok(0),
            Ok(saved) => saved.rest(now).and_then(|rest| Ok(restore(operations, rest, now)?)),
        };
        Some(Resumed { file: Some(Self { path, boot_id, written: None, again: Duration::ZERO }), restored })
    }

    /// Writes the ledger, if it has changed since, and waits for the disk.
    ///
    /// # Errors
    /// The reason; there is no file then, so that nothing that was taken back can come again.
    pub fn keep(&mut self, ledger: &Ledger, now: Now) -> io::Result<()> {
        let calendar = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let offset = calendar.saturating_sub(now.boot);
        let current =
            |(changes, then): (u64, Duration)| changes == ledger.changes() && then.abs_diff(offset) <= SLACK;
        if self.written.is_some_and(current) || now.boot < self.again {
            return Ok(());
        }
        let written = KIND
            .seal(&Saved::of(ledger, &self.boot_id, now))
            .map_err(io::Error::other)
            .and_then(|text| files::replace(&self.path, 0o600, text.as_bytes()));
        if written.is_ok() {
            self.written = Some((ledger.changes(), offset));
        } else {
            self.again = now.boot + RETRY;
            // Where even that is impossible, the error is the same.
            let _ = files::remove(&self.path);
        }
        written
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

/// Says what became of the grants of before the reboot.
pub(super) fn resumed(Resumed { file, restored }: Resumed) -> Option<StateFile> {
    match restored {
        Ok(0) => {}
        Ok(grants) => {
            tracing::info!(grants, "grants of before the reboot are restored with the time they have left")
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
    match KIND.read(path).and_then(|text| KIND.open::<Saved>(&text)) {
        Ok(_) | Err(SealError::Damaged | SealError::Version(_)) => files::remove(path),
        Err(SealError::Missing | SealError::Foreign) => Ok(()),
        Err(SealError::Read(error)) => Err(error),
    }
}

/// Puts the rest of grants into the kernel, in one transaction, where it has not got longer ones.
fn restore(operations: &mut Operations, rest: Vec<Rest>, now: Now) -> Result<usize, OperationError> {
    let live = operations.live()?;
    let prefix = operations.settings().global.ipv6_prefix;
    let mut sets: BTreeMap<String, Elements> = BTreeMap::new();
    for Rest { app, address, note, mut timeout } in rest {
        let Some(app) = operations.settings().apps.iter().find(|has| has.slug == app) else { continue };
        let client = ClientAddr::new(address);
        // Where the prefix was changed, the grant would be for other clients than it was.
        if !app.families().contains(&client.family()) || client.masked_v6(prefix).ip() != address {
            continue;
        }
        if Note::parse(Some(&note)).how != How::Operator {
            timeout.left_ms = timeout.left_ms.min(ms(app.max_duration.as_duration()));
        }
        let (set, key) = (app_set(&app.slug, client.family()), address_key(address));
        let have = live.elements.get(&set).and_then(|elements| elements.get(&key));
        if have.is_none_or(|have| have.timeout.is_some_and(|have| have.left_ms < timeout.left_ms)) {
            let element = Element { timeout: Some(timeout), comment: Some(note), ..Element::default() };
            sets.entry(set).or_default().insert(key, element);
        }
    }
    let count = sets.values().map(BTreeMap::len).sum();
    let changes: Vec<Change> = sets
        .into_iter()
        .map(|(name, elements)| Change::RenewElements {
            set: SetRef { name, interval: false, concatenated: false },
            elements,
        })
        .collect();
    if !changes.is_empty() {
        operations.firewall().apply(&changes)?;
        let live = operations.live()?;
        operations.adopt_grants(&live, now);
    }
    Ok(count)
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn since_1970(wall: SystemTime) -> u64 {
    wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, ms)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn ledger(grants: &[(u8, u64, u64)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(host, from, secs) in grants {
            let note = Note { by: format!("user {host}"), how: How::TwoStep };
            let address = IpAddr::from([203, 0, 113, host]);
            ledger.grant("ssh", address, &note, Lifetime::from_secs(secs).unwrap(), Now::at_secs(from));
        }
        ledger
    }

    /// After a restart the clock of the kernel begins anew.
    fn after_reboot(wall_secs: u64) -> Now {
        Now { boot: Duration::from_secs(3), ..Now::at_secs(wall_secs) }
    }

    fn saved(grant: Grant) -> Saved {
        Saved { boot_id: "a".into(), written_ms: 1_700_000_000_000, grants: vec![grant] }
    }

    fn grant() -> Grant {
        Grant {
            app: "ssh".into(),
            address: IpAddr::from([203, 0, 113, 2]),
            note: "alice two-step".into(),
            end_ms: 1_700_000_060_000,
            lifetime_ms: 60_000,
        }
    }

    #[test]
    fn what_is_left_is_what_the_calendar_leaves() {
        let kept = Saved::of(&ledger(&[(1, 0, 100), (2, 0, 30)]), "a", Now::at_secs(10));
        let rest = kept.rest(after_reboot(50)).unwrap();
        assert_eq!(rest.len(), 1, "the other one has ended meanwhile");
        assert_eq!(rest[0].note, "user 1 two-step");
        assert_eq!(rest[0].timeout, Timeout { total_ms: 100_000, left_ms: 50_000 });
    }

    #[test]
    fn a_file_from_the_future_is_refused_as_a_whole() {
        let kept = Saved::of(&ledger(&[(1, 0, 100)]), "a", Now::at_secs(10));
        assert!(matches!(kept.clone().rest(Now::at_secs(9)), Err(StateError::Future)));
        assert!(kept.rest(Now { wall: SystemTime::UNIX_EPOCH, ..Now::at_secs(0) }).is_err());
    }

    #[test]
    fn one_grant_that_cannot_be_makes_all_doubtful() {
        let now = Now::at_secs(0);
        assert_eq!(saved(grant()).rest(now).unwrap().len(), 1);
        for bad in [
            Grant { end_ms: 1_700_000_060_001, ..grant() },
            Grant { end_ms: u64::MAX, ..grant() },
            Grant { lifetime_ms: 0, ..grant() },
            Grant { lifetime_ms: u64::MAX, ..grant() },
            Grant { end_ms: u64::MAX, lifetime_ms: u64::MAX, ..grant() },
            Grant { note: "a".repeat(200), ..grant() },
        ] {
            let mut all = saved(grant());
            all.grants.push(bad.clone());
            assert!(matches!(all.rest(now), Err(StateError::Impossible(_))), "{bad:?}");
        }
    }

    #[test]
    fn it_is_written_at_changes_and_when_the_calendar_is_set() {
        let folder = std::env::temp_dir().join(format!("knock-agent-state-{}", std::process::id()));
        files::make_directory(&folder, 0o700).unwrap();
        let path = folder.join("grants");
        let mut file =
            StateFile { path: path.clone(), boot_id: "a".into(), written: None, again: Duration::ZERO };
        let mut grants = ledger(&[(1, 0, 100)]);
        let mut written = |grants: &Ledger, now: Now| {
            files::remove(&path).unwrap();
            file.keep(grants, now).unwrap();
            files::exists(&path)
        };
        assert!(written(&grants, Now::at_secs(1)));
        assert!(!written(&grants, Now::at_secs(60)), "nothing has changed");
        grants.revoke("ssh", IpAddr::from([203, 0, 113, 9]));
        assert!(!written(&grants, Now::at_secs(61)), "nobody was there to be revoked");
        grants.revoke("ssh", IpAddr::from([203, 0, 113, 1]));
        assert!(written(&grants, Now::at_secs(61)));
        let set_back = Now { wall: Now::at_secs(0).wall, ..Now::at_secs(62) };
        assert!(written(&grants, set_back));
        let text = KIND.read(&path);
        assert!(text.is_ok_and(|text| KIND.open::<Saved>(&text).unwrap().grants.is_empty()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    proptest! {
        #[test]
        fn nothing_lasts_longer_than_it_was_granted_whatever_the_clock_says(
            grants in vec((0_u8..20, 0_u64..1000, 1_u64..100_000), 0..10),
            written in 1000_u64..2000,
            read in 0_u64..200_000,
        ) {
            let ledger = ledger(&grants);
            let then = Now::at_secs(written);
            let text = KIND.seal(&Saved::of(&ledger, "a", then)).unwrap();
            let kept: Saved = KIND.open(&text).unwrap();
            match kept.rest(after_reboot(read)) {
                Err(_) => prop_assert!(read < written),
                Ok(rest) => {
                    let passed = Duration::from_secs(read.checked_sub(written).expect("not in the future"));
                    let due: Vec<_> = ledger
                        .longest(then)
                        .filter_map(|(_, address, _, left, _)| {
                            let left = left.checked_sub(passed).filter(|left| !left.is_zero())?;
                            Some((address, ms(left)))
                        })
                        .collect();
                    let got: Vec<_> = rest.iter().map(|rest| (rest.address, rest.timeout.left_ms)).collect();
                    prop_assert_eq!(got, due);
                }
            }
        }

        #[test]
        fn made_up_times_never_grant_more_than_they_say(
            end_ms in any::<u64>(),
            lifetime_ms in any::<u64>(),
            written_ms in any::<u64>(),
            read in 0_u64..1 << 33,
        ) {
            let made_up = Saved { written_ms, ..saved(Grant { end_ms, lifetime_ms, ..grant() }) };
            let now = after_reboot(read);
            if let Ok(rest) = made_up.rest(now) {
                prop_assert!(written_ms <= since_1970(now.wall));
                for rest in rest {
                    prop_assert!(rest.timeout.left_ms <= lifetime_ms);
                    prop_assert!(rest.timeout.left_ms <= end_ms - since_1970(now.wall));
                }
            }
        }

        #[test]
        fn a_damaged_file_restores_nothing(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let whole = KIND.seal(&saved(grant())).unwrap().into_bytes();
            let mut bytes = whole.clone();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(text) = String::from_utf8(bytes.clone()) {
                prop_assert_eq!(KIND.open::<Saved>(&text).is_ok(), bytes == whole);
            }
        }
    }
}
