//! One-time codes that are used up, and from where right ones came, kept in the runtime directory across restarts of the
//! daemon. A reboot may be over before a code is: what it made forgotten is refused then.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::knock::{Gatekeeper, UsedUp};
use crate::sys::files;
use crate::units::Now;

/// What ten thousand users have used up, and from where, and as many proofs as are remembered.
const MAX_BYTES: u64 = 32 << 20;
/// After a disk that could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// Where the codes are kept.
#[derive(Debug)]
pub struct UsedCodesFile {
    path: PathBuf,
    /// When it was last found that it says less than the gatekeeper knows, and cannot be written.
    behind: Option<Duration>,
}

impl UsedCodesFile {
    /// Reads what is kept into the gatekeeper. Where it cannot be read, every present code counts as used; where nothing is
    /// kept as well, if a daemon ran here before.
    #[must_use]
    pub fn read(runtime_dir: &Path, ran_before: bool, gatekeeper: &mut Gatekeeper, now: Now) -> Self {
        let path = runtime_dir.join("used-codes.json");
        match files::read_text(&path, MAX_BYTES) {
            Ok(text) => match serde_json::from_str::<UsedUp>(&text) {
                Ok(used) => gatekeeper.remember_used(&used, now),
                Err(_) => doubt(&path, "it is damaged", gatekeeper, now),
            },
            Err(error) if error.kind() == ErrorKind::NotFound && !ran_before => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::info!(
                    "one-time codes and proofs of before this start are refused: which are used up is forgotten with a reboot"
                );
                gatekeeper.refuse_present(now);
            }
            Err(error) => doubt(&path, &error.to_string(), gatekeeper, now),
        }
        // Where nothing can be written now, a daemon before may have written nothing either. It is not waited for the disk:
        // this says nothing that is not on it already, or that would not be doubted again.
        match text(gatekeeper).and_then(|text| files::replace_unhurried(&path, 0o600, &text)) {
            Ok(()) => Self { path, behind: None },
            Err(error) => {
                doubt(&path, &error.to_string(), gatekeeper, now);
                Self { path, behind: Some(now.boot) }
            }
        }
    }

    /// Keeps what the gatekeeper knows. Where that cannot be, what the file says is made unreadable, so that after a
    /// restart no present code works; and it is tried again.
    pub fn write(&mut self, gatekeeper: &Gatekeeper, now: Now) {
        let written = write(&self.path, gatekeeper);
        let was_behind = std::mem::replace(&mut self.behind, written.is_err().then_some(now.boot)).is_some();
        let Err(error) = written else { return };
        let spoiled = files::empty(&self.path);
        if was_behind {
            return;
        }
        let file = self.path.display();
        match spoiled {
            Ok(()) => {
                tracing::warn!(%file, %error, "used one-time codes are not kept: after a restart, those of that time are refused")
            }
            Err(_) => {
                tracing::error!(%file, %error, "used one-time codes are not kept: after a restart they could work again")
            }
        }
    }

    /// The same, if it could not be done before.
    pub fn catch_up(&mut self, gatekeeper: &Gatekeeper, now: Now) {
        if self.behind.is_some_and(|at| now.boot >= at + RETRY) {
            self.write(gatekeeper, now);
        }
    }
}

fn write(path: &Path, gatekeeper: &Gatekeeper) -> io::Result<()> {
    files::replace(path, 0o600, &text(gatekeeper)?)
}

fn text(gatekeeper: &Gatekeeper) -> io::Result<Vec<u8>> {
    serde_json::to_vec(&gatekeeper.used_up()).map_err(io::Error::other)
}

fn doubt(path: &Path, reason: &str, gatekeeper: &mut Gatekeeper, now: Now) {
    tracing::warn!(file = %path.display(), reason, "which one-time codes are used up is not known: present ones are refused");
    gatekeeper.refuse_present(now);
}
