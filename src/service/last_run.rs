//! That a daemon ran on this host, and where it kept grants: known after a reboot too, which the runtime directory does
//! not outlast.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::last_good::LastGood;
use super::sealed::{Kind, SealError};
use super::state;
use crate::sys::files;
use crate::units::Now;

const KIND: Kind = Kind { name: "run", version: 1, max_bytes: 1 << 20 };
const FILE: &str = "last-run";

/// What a daemon leaves for the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Where grants may be kept.
    #[serde(default)]
    state_files: BTreeSet<PathBuf>,
}

/// Leaves word in the state directory that a daemon runs here; returns whether one may have run before.
pub(super) fn begin(state_dir: &Path, now: Now) -> bool {
    let path = state_dir.join(FILE);
    match read(&path) {
        Ok(_) => return true,
        Err(SealError::Missing) => {}
        Err(error) => tracing::warn!(file = %path.display(), %error, "it is written anew"),
    }
    let before = files::exists(&path) || guarded_before(state_dir, now);
    match write(&path, &Kept::default()) {
        Ok(()) => before,
        // A daemon before may have failed in the same way.
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the next start cannot tell that a daemon ran before");
            true
        }
    }
}

/// Whether a plan is kept since before this host was started: older daemons left nothing else. One of this boot is
/// perhaps that of `guard`, which comes before the first daemon.
fn guarded_before(state_dir: &Path, now: Now) -> bool {
    let kept = files::modified(&LastGood::path(state_dir));
    kept.zip(now.wall.checked_sub(now.boot)).is_some_and(|(kept, start)| kept < start)
}

/// Takes note of the state file that is in force from a start on, and removes those of before, as a reload does: what
/// they say is soon out of date.
pub(super) fn starts_with(state_file: Option<&Path>, state_dir: &Path) {
    let at = state_file.and_then(files::stamp);
    // By whatever name: with a link on its way it has several.
    let is_it = |had: &Path| state_file == Some(had) || at.is_some() && files::stamp(had) == at;
    change(state_dir, |kept| {
        kept.state_files.retain(|had| is_it(had) || !is_forgotten(had));
        kept.state_files.extend(state_file.map(Path::to_owned));
    });
}

/// Takes note of another state file besides those of before, which stay as long as a start may be taken back.
pub(super) fn tries(state_file: Option<&Path>, state_dir: &Path) {
    change(state_dir, |kept| kept.state_files.extend(state_file.map(Path::to_owned)));
}

/// Takes note of another state file, from a reload on; that of before is removed already.
pub(super) async fn goes_on_with(state_file: Option<PathBuf>, state_dir: PathBuf) {
    let note = move || tries(state_file.as_deref(), &state_dir);
    // The disk may be slow, and it fails only where the daemon is ending.
    let _ = spawn_blocking(note).await;
}

fn is_forgotten(state_file: &Path) -> bool {
    let forgotten = state::forget(state_file);
    if let Err(error) = &forgotten {
        tracing::error!(file = %state_file.display(), %error, "the grants of before stay in the state file: remove it");
    }
    forgotten.is_ok()
}

fn change(state_dir: &Path, change: impl FnOnce(&mut Kept)) {
    let path = state_dir.join(FILE);
    let before = read(&path).unwrap_or_default();
    let mut kept = before.clone();
    change(&mut kept);
    if kept == before {
        return;
    }
    if let Err(error) = write(&path, &kept) {
        tracing::warn!(file = %path.display(), %error, "a later start without this state_file does not remove it");
    }
}

fn read(path: &Path) -> Result<Kept, SealError> {
    KIND.open(&KIND.read_beside(path)?)
}

fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let text = KIND.seal(kept).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        files::make_directory(folder, 0o700)?;
    }
    files::replace(path, 0o600, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn only_where_nothing_tells_of_a_daemon_before_it_is_the_first() {
        let now = |secs| Now { boot: Duration::from_secs(secs), wall: SystemTime::now() };
        let top = std::env::temp_dir().join(format!("knock-agent-run-{}", std::process::id()));
        fs::create_dir_all(&top).unwrap();
        let fresh = top.join("fresh");
        assert!(!begin(&fresh, now(5)) && begin(&fresh, now(5)), "the second is not the first");
        fs::write(fresh.join(FILE), "damaged").unwrap();
        assert!(begin(&fresh, now(5)));
        for (kept, up, before) in [("by guard", 3_600, false), ("before the boot", 0, true)] {
            let folder = top.join(kept);
            fs::create_dir(&folder).unwrap();
            fs::write(LastGood::path(&folder), kept).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(begin(&folder, now(up)), before, "{kept}");
        }
        assert!(begin(&fresh.join(FILE), now(5)), "where no word can be left");
        fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn a_state_file_that_is_not_in_force_any_more_goes_and_files_of_others_stay() {
        let top = std::env::temp_dir().join(format!("knock-agent-ran-{}", std::process::id()));
        fs::create_dir_all(&top).unwrap();
        let [grants, notes, next] = ["grants", "notes", "next"].map(|name| top.join(name));
        let saved = serde_json::json!({"boot_id": "1", "written_ms": 1, "grants": []});
        let text = || state::KIND.seal(&saved).unwrap();
        fs::write(&grants, text()).unwrap();
        fs::write(&notes, "of somebody").unwrap();
        for state_file in [&grants, &notes] {
            starts_with(Some(state_file), &top);
            assert!(state_file.exists());
        }
        assert!(!grants.exists(), "another was named");
        starts_with(Some(&next), &top);
        assert!(notes.exists());
        let kept = || read(&top.join(FILE)).unwrap().state_files;
        assert_eq!(kept(), BTreeSet::from([next.clone()]));
        fs::write(&next, text()).unwrap();
        for state_file in [None, Some(grants.as_path())] {
            tries(state_file, &top);
            assert!(next.exists(), "it may be needed again");
        }
        assert_eq!(kept(), BTreeSet::from([grants.clone(), next.clone()]));
        starts_with(Some(&grants), &top);
        assert!(!next.exists(), "it was confirmed");
        fs::remove_dir_all(&top).unwrap();
    }
}
