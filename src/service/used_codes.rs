//! One-time codes that are used up, kept in the runtime directory across restarts of the
//! daemon. A reboot takes longer than a code lives.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::knock::{Gatekeeper, UsedUp};
use crate::sys::files;
use crate::units::Now;

/// What ten thousand users have used up, and as many proofs as are remembered.
const MAX_BYTES: u64 = 32 << 20;

/// Where the codes are kept.
#[derive(Debug)]
pub struct UsedCodesFile(PathBuf);

impl UsedCodesFile {
    /// Reads what is kept into the gatekeeper. Where it cannot be read, every present code counts as used.
    #[must_use]
    pub fn read(runtime_dir: &Path, gatekeeper: &mut Gatekeeper, now: Now) -> Self {
        let path = runtime_dir.join("used-codes.json");
        match files::read_text(&path, MAX_BYTES) {
            Ok(text) => match serde_json::from_str::<UsedUp>(&text) {
                Ok(used) => gatekeeper.remember_used(&used),
                Err(_) => doubt(&path, "it is damaged", gatekeeper, now),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => doubt(&path, &error.to_string(), gatekeeper, now),
        }
        Self(path)
    }

    /// Keeps what the gatekeeper knows. A code that cannot be kept is still used up until the next restart.
    pub fn write(&self, gatekeeper: &Gatekeeper) {
        let written = serde_json::to_vec(&gatekeeper.used_up())
            .map_err(std::io::Error::other)
            .and_then(|text| files::replace(&self.0, 0o600, &text));
        if let Err(error) = written {
            tracing::warn!(file = %self.0.display(), %error, "used one-time codes are not kept: after a restart they could work again");
        }
    }
}

fn doubt(path: &Path, reason: &str, gatekeeper: &mut Gatekeeper, now: Now) {
    tracing::warn!(file = %path.display(), reason, "which one-time codes are used up is not known: present ones are refused");
    gatekeeper.refuse_present(now);
}
