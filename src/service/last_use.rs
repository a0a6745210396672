//! Until when one-time codes, proofs and knocks that change with time were used, by the calendar: known after a reboot too,
//! when which of them were used is forgotten, and the calendar may be behind what it was.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::sealed::{Kind, SealError};
use super::state::ms;
use crate::sys::files;
use crate::units::Now;

const KIND: Kind = Kind { name: "use", version: 1, max_bytes: 1 << 10 };
const FILE: &str = "last-use";
/// It is written once for all that is used in so much time, in milliseconds.
const SLOT_MS: u64 = 30_000;
/// What is used so much earlier than what the same daemon saw used was used by a calendar that has been put right.
const FAR: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// In milliseconds since 1970.
    until_ms: u64,
}

/// The file in the state directory, and what it says.
#[derive(Debug)]
pub(super) struct LastUse {
    path: PathBuf,
    until: Option<SystemTime>,
    /// Something was used since it was written.
    pending: bool,
    /// Whether what it says is of this run of the daemon.
    own: bool,
    failed: bool,
}

impl LastUse {
    /// Reads what a daemon before left. Where that cannot be read, it was when the file was written.
    pub(super) fn read(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let kept = KIND.read_beside(&path).and_then(|text| KIND.open::<Kept>(&text));
        let until = match kept {
            Ok(kept) => Some(at(kept.until_ms)),
            Err(SealError::Missing) => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "when codes were last used is taken from when it was written");
                files::modified(&path)
            }
        };
        Self { path, until, pending: false, own: false, failed: false }
    }

    /// Until when something was used, as far as is known.
    pub(super) fn until(&self) -> Option<SystemTime> {
        self.until
    }

    /// Says so where the calendar is behind that: what is right by it was used, or could have been.
    pub(super) fn tell(&self, now: Now) {
        let behind = self.until.and_then(|until| until.duration_since(now.wall).ok());
        if let Some(behind) = behind.filter(|behind| *behind > Duration::from_millis(SLOT_MS)) {
            tracing::warn!(
                behind_s = behind.as_secs(),
                file = %self.path.display(),
                "the calendar is behind what it was when somebody last used a code or knocks: those of until then are refused. Set it right; if it was wrong then, remove this file and restart"
            );
        }
    }

    /// Takes note that something was used; [`LastUse::keep`] writes it down.
    pub(super) fn on_use(&mut self) {
        self.pending = true;
    }

    /// Writes down when that was, once for each half a minute.
    pub(super) fn keep(&mut self, now: Now) {
        if !std::mem::take(&mut self.pending) {
            return;
        }
        let slot = ms(now.wall.duration_since(UNIX_EPOCH).unwrap_or_default()) / SLOT_MS;
        let kept = Kept { until_ms: (slot + 1) * SLOT_MS - 1 };
        let until = at(kept.until_ms);
        // That of a daemon before is later by a calendar that is behind now, or that was wrong: nobody can tell.
        if self.until.is_some_and(|before| until <= before && (!self.own || before < until + FAR)) {
            return;
        }
        (self.until, self.own) = (Some(until), true);
        let written = self.write(kept);
        if let Err(error) = &written
            && !self.failed
        {
            tracing::warn!(
                file = %self.path.display(), %error,
                "when codes and knocks were last used is not kept: after a reboot with a calendar that is behind, they could be used again"
            );
        }
        self.failed = written.is_err();
    }

    fn write(&self, kept: Kept) -> io::Result<()> {
        let text = KIND.seal(&kept).map_err(io::Error::other)?;
        files::replace(&self.path, 0o600, text.as_bytes())
    }
}

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_latest_use_is_kept_once_for_each_half_a_minute_and_a_calendar_that_was_wrong_is_forgotten() {
        let folder = std::env::temp_dir().join(format!("knock-agent-use-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let now = |secs: u64| Now { boot: Duration::from_secs(5), wall: at(secs * 1_000) };
        let kept = || LastUse::read(&folder).until();
        let mut last = LastUse::read(&folder);
        last.keep(now(100_000));
        assert_eq!(kept(), None, "nothing was used");
        let mut used = |secs| {
            last.on_use();
            last.keep(now(secs));
            kept().unwrap()
        };
        let first = used(100_000);
        assert_eq!(first, at(100_019_999), "as long as nothing is written for what else is used");
        fs::remove_file(folder.join(FILE)).unwrap();
        last.on_use();
        last.keep(now(100_019));
        last.keep(now(200_000));
        assert_eq!(kept(), None);
        let mut used = |secs| {
            last.on_use();
            last.keep(now(secs));
            kept()
        };
        assert_eq!(used(100_020), Some(at(100_049_999)));
        assert_eq!(used(99_000), Some(at(100_049_999)), "it never goes back a little");
        assert_eq!(used(90_000), Some(at(90_029_999)), "it was wrong");
        let mut next = LastUse::read(&folder);
        next.on_use();
        next.keep(now(10_000));
        assert_eq!(kept(), Some(at(90_029_999)), "of a daemon before");

        fs::write(folder.join(FILE), "damaged").unwrap();
        assert!(kept().is_some_and(|until| until > at(1_700_000_000_000)), "when it was written");
        fs::remove_dir_all(&folder).unwrap();
    }
}
