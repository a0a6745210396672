//! One-time codes that are used up, and from where right ones came, kept in the runtime directory across restarts of the
//! daemon. A reboot may be over before a code is, or have set the calendar back: what it made forgotten is refused then.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::last_use::LastUse;
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
    last_use: LastUse,
}

impl UsedCodesFile {
    /// Reads what is kept into the gatekeeper. Where it cannot be read, every present code counts as used; where nothing is
    /// kept as well, if a daemon ran here before. By a calendar that is behind, it is what could be used until the last use.
    #[must_use]
    pub(super) fn read(
        runtime_dir: &Path,
        ran_before: bool,
        last_use: LastUse,
        gatekeeper: &mut Gatekeeper,
        now: Now,
    ) -> Self {
        let path = runtime_dir.join("used-codes.json");
        gatekeeper.refuse_until(last_use.until());
        match files::read_text(&path, MAX_BYTES) {
            Ok(text) => match serde_json::from_str::<UsedUp>(&text) {
                Ok(used) => {
                    gatekeeper.remember_used(&used, now);
                    // Who removes the word of the last use means this, too.
                    gatekeeper.refuse_until(last_use.until().and(used.refused_until));
                }
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
        if gatekeeper.refuses_until().is_some() {
            last_use.tell(now);
        }
        // That it is not known is no use of anything.
        gatekeeper.take_used();
        // Where nothing can be written now, a daemon before may have written nothing either. It is not waited for the disk:
        // this says nothing that is not on it already, or that would not be doubted again.
        match text(gatekeeper).and_then(|text| files::replace_unhurried(&path, 0o600, &text)) {
            Ok(()) => Self { path, behind: None, last_use },
            Err(error) => {
                doubt(&path, &error.to_string(), gatekeeper, now);
                Self { path, behind: Some(now.boot), last_use }
            }
        }
    }

    /// Keeps what the gatekeeper knows. Where that cannot be, what the file says is made unreadable, so that after a
    /// restart no present code works; and it is tried again.
    pub fn write(&mut self, gatekeeper: &Gatekeeper, now: Now) {
        self.last_use.on_use();
        self.put(gatekeeper, now);
    }

    /// Keeps when something was last used, knocks that change with time among it.
    pub fn keep_last_use(&mut self, by_knocks: bool, now: Now) {
        if by_knocks {
            self.last_use.on_use();
        }
        self.last_use.keep(now);
    }

    fn put(&mut self, gatekeeper: &Gatekeeper, now: Now) {
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
            self.put(gatekeeper, now);
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
