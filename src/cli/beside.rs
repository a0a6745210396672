//! A daemon that guards here, but cannot be asked: its control socket is gone, or is in a folder that is not seen from here.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::service::control::{self, Reply, Request};
use crate::service::daemon;
use crate::sys::files;
use crate::sys::presence::{self, Claim};

/// How long a daemon may be without its socket: while it starts, and while it ends.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a daemon guards here, or has the lock of that folder; its number, 0 where that is not known.
pub(super) fn present(runtime_dir: &Path) -> Option<i32> {
    if let Ok(Some(Claim::Theirs(pid))) = presence::holder() {
        return Some(pid);
    }
    // A lock that cannot be looked at tells nothing.
    files::is_locked(&daemon::lock_path(runtime_dir)).unwrap_or(false).then_some(0)
}

/// The daemon's reply; none where no daemon runs.
///
/// # Errors
/// When there is a daemon but it cannot be asked: [`ErrorKind::NotConnected`] where nothing answers at its socket.
pub(super) fn ask(
    runtime_dir: &Path,
    request: &Request,
    patience: Option<Duration>,
) -> io::Result<Option<Reply>> {
    let end = Instant::now() + PATIENCE;
    loop {
        let reply = match patience {
            Some(patience) => control::call_within(runtime_dir, request, patience)?,
            None => control::call(runtime_dir, request)?,
        };
        let Some(pid) = (if reply.is_none() { present(runtime_dir) } else { None }) else {
            return Ok(reply);
        };
        if Instant::now() >= end {
            return Err(io::Error::new(ErrorKind::NotConnected, deaf(pid)));
        }
        sleep(PAUSE);
    }
}

/// What there is to say of a daemon that has no socket.
fn deaf(pid: i32) -> String {
    let whose = if pid > 0 { format!(" (process {pid})") } else { String::new() };
    format!(
        "it guards here{whose}, but has no socket there: say the --runtime-dir it was started with, or start it anew \
         (systemctl restart knock-agent), or stop it"
    )
}
