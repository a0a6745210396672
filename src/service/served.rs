//! What the front is to serve with, as a reload changes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::daemon::{DaemonError, tls};
use super::link::serving::{Pem, Serving};
use crate::sys::files;

/// For the front to take over what is new.
const TAKEN: Duration = Duration::from_secs(5);

/// The pair of files that step 2 is served with.
#[derive(Debug)]
pub(super) struct Pair {
    certificate: PathBuf,
    key: PathBuf,
    seen: [Option<files::Stamp>; 2],
}

impl Pair {
    /// The pair as it is now; what changes from here on is a change.
    pub(super) fn new(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let seen = [&certificate, &key].map(|path| files::stamp(path));
        Self { certificate, key, seen }
    }

    /// Whether a file was written or replaced since it was last read.
    pub(super) fn changed(&self) -> bool {
        [&self.certificate, &self.key].map(|path| files::stamp(path)) != self.seen
    }

    /// Reads the pair; one that cannot be used is not tried again before it has changed.
    pub(super) fn read(&mut self) -> Result<Arc<Pem>, DaemonError> {
        // Before reading, so that what is written meanwhile is a change.
        self.seen = [&self.certificate, &self.key].map(|path| files::stamp(path));
        tls(&self.certificate, &self.key)
    }
}

/// What the front serves new connections with.
pub(super) struct Served {
    pub(super) serving: watch::Sender<Serving>,
    /// The version that it has taken over.
    pub(super) taken: watch::Receiver<Option<u32>>,
}

impl Served {
    /// Changes it, and waits until the front has taken that over, for a while.
    pub(super) async fn change(&mut self, change: impl FnOnce(&mut Serving)) {
        self.serving.send_modify(|serving| {
            serving.version += 1;
            change(serving);
        });
        let version = self.serving.borrow().version;
        let taken = self.taken.wait_for(|taken| *taken >= Some(version));
        if timeout(TAKEN, taken).await.is_err() {
            tracing::warn!(
                "the front does not say that it serves with what is new; it is told as soon as it listens"
            );
        }
    }
}
