//! What the daemon tells of one address: its own memory, beside what the kernel knows.

use serde::{Deserialize, Serialize};

use crate::grant::Happening;

/// The word of the memory for a proof of no key; that of the log is the one for a wrong key.
pub const WRONG_PROOF: &str = "wrong-proof";

/// So many parts of a configuration are named.
const NAMED: usize = 6;

/// What the daemon knows of an address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recalled {
    /// For how many seconds it has remembered.
    pub since_s: u64,
    /// What became of the address, the last first.
    pub events: Vec<Event>,
    /// How many seconds ago anything was heard of it or of another address of its IPv6 network (/64).
    #[serde(default)]
    pub network_ago_s: Option<u64>,
    /// For how many more seconds it is locked out.
    pub locked_out_s: Option<u64>,
    /// The apps (slugs) for which it has a step 1 that is still good.
    pub step1: Vec<String>,
    /// Who is let in by that address.
    pub grants: Vec<Holder>,
    /// Who else is let in, a few of them.
    pub others: Vec<Holder>,
    /// Others whose step 1 was right lately, and who have not gone on; the last first, a few of them.
    #[serde(default)]
    pub pending: Vec<Pending>,
    /// The ports of the steps that clients use; none: there are no steps.
    pub ports: Option<(u16, u16)>,
    /// How many seconds ago the certificate of step 2 ended; none: it has not.
    pub certificate_ended_s: Option<u64>,
    /// How many addresses are let in.
    pub all_grants: u64,
    /// What on the disk is not in force; none where all of it is.
    #[serde(default)]
    pub newer: Option<Box<Newer>>,
}

/// A configuration on the disk that is another one than the one in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newer {
    /// How many seconds ago the file was written; none where that cannot be told.
    pub changed_s: Option<u64>,
    /// The parts that differ, such as `ssh.duration`, and files with secrets; never what they say.
    pub parts: Vec<String>,
    /// Why the daemon could not put it in force; none where it could.
    pub refused: Option<String>,
}

impl Newer {
    /// A few of its parts.
    #[must_use]
    pub fn named(&self) -> String {
        let mut named = self.parts.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        if let Some(more) = self.parts.len().checked_sub(NAMED).filter(|more| *more > 0) {
            named.push_str(&format!(" and {more} more"));
        }
        named
    }
}

/// Something that became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// How many seconds ago, the last time.
    pub ago_s: u64,
    /// How often.
    pub times: u32,
    /// The slug of the app.
    pub app: Option<String>,
    /// What.
    pub happening: Happening,
}

/// Somebody who is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The slug of the app.
    pub app: String,
    /// From where.
    pub address: std::net::IpAddr,
    /// Who; empty where nobody knows.
    pub by: String,
    /// How: a word of `status --json`.
    pub how: String,
    /// For how many more seconds.
    pub left_s: u64,
}

/// Somebody whose step 2 has not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The slug of the app.
    pub app: String,
    /// From where.
    pub address: std::net::IpAddr,
    /// How many seconds ago.
    pub ago_s: u64,
}
