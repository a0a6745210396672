//! What a firewall is to enforce.

use serde::{Deserialize, Serialize};

use crate::ruleset::iptables::adopted;
use crate::ruleset::iptables::model::Tables;
use crate::ruleset::model::Ruleset;

/// What a firewall is to enforce, as its kind is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Plan {
    /// A table of nftables.
    Nftables(Ruleset),
    /// Tables of iptables, with ipsets.
    Iptables(Tables),
}

impl Plan {
    /// The kind of firewall that it is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Nftables(_) => Kind::Nftables,
            Self::Iptables(_) => Kind::Iptables,
        }
    }

    /// Whether it can let connections live on that were open before it.
    #[must_use]
    pub fn adopts(&self) -> bool {
        match self {
            Self::Nftables(_) => true,
            Self::Iptables(tables) => adopted::is_planned(&tables.ipsets),
        }
    }
}

/// The kinds of firewalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// nftables.
    Nftables,
    /// iptables and ipset.
    Iptables,
}
