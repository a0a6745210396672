//! That a daemon ran on this host, before a reboot too: what is kept in the runtime directory does not outlast that.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::last_good::LastGood;
use super::sealed::{Kind, SealError};
use crate::sys::files;
use crate::units::Now;

const KIND: Kind = Kind { name: "run", version: 1, max_bytes: 1 << 20 };
const FILE: &str = "last-run";

/// What a daemon leaves for the next one.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {}

/// Leaves word in the state directory that a daemon runs here; returns whether one may have run before.
pub(super) fn begin(state_dir: &Path, now: Now) -> bool {
    let path = state_dir.join(FILE);
    match KIND.read_beside(&path).and_then(|text| KIND.open::<Kept>(&text)) {
        Ok(Kept {}) => return true,
        Err(SealError::Missing) => {}
        Err(error) => tracing::warn!(file = %path.display(), %error, "it is written anew"),
    }
    let before = files::exists(&path) || guarded_before(state_dir, now);
    match write(&path) {
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

fn write(path: &Path) -> io::Result<()> {
    let text = KIND.seal(&Kept {}).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        files::make_directory(folder, 0o700)?;
    }
    files::replace(path, 0o600, text.as_bytes())
}
