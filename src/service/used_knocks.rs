//! Which clients used the knocks of which time steps, and what is open by that, kept in the runtime directory across
//! restarts of the daemon.
//! What is in the kernel says the same, unless somebody flushed it meanwhile.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::sys::files;

const MAX_BYTES: u64 = 16 << 20;

/// Where it is kept, and what was there at the start.
#[derive(Debug)]
pub(super) struct UsedKnocksFile {
    path: PathBuf,
    was_there: bool,
    /// Until when what was used is not known, by the calendar.
    refused_until: Option<SystemTime>,
    used: Kept,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// Time steps, by client.
    used: BTreeMap<String, Vec<u64>>,
    #[serde(default)]
    opened: Vec<Opened>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused_until: Option<SystemTime>,
}

/// A grant that a client's knocks made: the kernel does not know whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Opened {
    /// By what name the ledger keeps it.
    pub key: String,
    /// Who was let in.
    pub address: IpAddr,
    /// The client.
    pub who: String,
}

impl UsedKnocksFile {
    /// Reads it. One that cannot be read was there, and says nothing.
    #[must_use]
    pub(super) fn read(runtime_dir: &Path) -> Self {
        let path = runtime_dir.join("used-knocks.json");
        let (was_there, used): (bool, Kept) = match files::read_text(&path, MAX_BYTES) {
            Ok(text) => (true, serde_json::from_str(&text).unwrap_or_default()),
            Err(error) => (error.kind() != ErrorKind::NotFound, Kept::default()),
        };
        Self { path, was_there, refused_until: used.refused_until, used }
    }

    /// Whether a daemon took knocks since this host was started.
    pub(super) fn was_there(&self) -> bool {
        self.was_there
    }

    /// Until when what was used is not known: until the last use, where it was forgotten when this host was started.
    pub(super) fn refuse_until(&mut self, last_use: Option<SystemTime>) -> Option<SystemTime> {
        self.refused_until = last_use.and(if self.was_there { self.refused_until } else { last_use });
        self.refused_until
    }

    /// Whose knocks of which time steps were used.
    pub(super) fn used(&self) -> Vec<(Arc<str>, u64)> {
        let of = |(who, steps): (&String, &Vec<u64>)| {
            let who: Arc<str> = who.as_str().into();
            steps.iter().map(move |&step| (who.clone(), step)).collect::<Vec<_>>()
        };
        self.used.used.iter().flat_map(of).collect()
    }

    /// What was open by that.
    pub(super) fn opened(&self) -> &[Opened] {
        &self.used.opened
    }

    /// Writes it anew.
    pub(super) fn write<'u>(&self, used: impl Iterator<Item = (&'u str, u64)>, opened: Vec<Opened>) {
        let mut kept = Kept { opened, refused_until: self.refused_until, ..Kept::default() };
        for (who, step) in used {
            kept.used.entry(who.to_owned()).or_default().push(step);
        }
        let written = serde_json::to_vec(&kept)
            .map_err(std::io::Error::other)
            .and_then(|text| files::replace(&self.path, 0o600, &text));
        if let Err(error) = written {
            tracing::warn!(file = %self.path.display(), %error, "used knocks are not kept: after a flush while the daemon is not there they could be used again");
        }
    }
}
