//! Where the configuration comes from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Anew, Checked, Problems, Settings};

type ReadUsers = dyn Fn(&Settings) -> Result<Anew, Problems> + Send + Sync;

/// Where the configuration comes from: reads and checks it anew, or the files of its users only.
#[derive(Clone)]
pub struct Source {
    path: Option<PathBuf>,
    read: Arc<dyn Fn() -> Result<Checked, Problems> + Send + Sync>,
    users: Arc<ReadUsers>,
}

impl Source {
    /// A source that is read by calling `read`, which reads that file, if any; `users` reads no more than the files of
    /// users and clients.
    pub fn new(
        path: Option<PathBuf>,
        read: impl Fn() -> Result<Checked, Problems> + Send + Sync + 'static,
        users: impl Fn(&Settings) -> Result<Anew, Problems> + Send + Sync + 'static,
    ) -> Self {
        Self { path, read: Arc::new(read), users: Arc::new(users) }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(&self) -> Result<Checked, Problems> {
        (self.read)()
    }

    /// Reads the users and clients of settings that are in force, and nothing else.
    ///
    /// # Errors
    /// What is wrong with their files.
    pub(super) fn users(&self, settings: &Settings) -> Result<Anew, Problems> {
        (self.users)(settings)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}
