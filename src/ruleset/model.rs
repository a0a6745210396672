//! Tables, chains, sets and elements, without any handle or kernel state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::expr::{Expr, Verdict};
use super::hex;

/// The table that is ours, family `inet`; of others, only single rules are changed, where the operator named them.
pub const TABLE: &str = "knock_agent";

/// Comment on the table: what made it and the version of the layout.
pub const TABLE_COMMENT: &str = "knock-agent 1";

/// Stem of the sets of flows that were there before the guard.
pub const ADOPTED_SET: &str = "adopted";

/// How the names of the sets begin that finished knock sequences fill: grants by the kernel.
pub const KNOCKED_SETS: &str = "seq_";

/// How the names of the sets begin that the daemon fills with knocks which change with time, and with those that were
/// used: they are made anew rather than carried over, as others beside them cannot be.
pub const TIMED_SETS: [&str; 2] = ["knock_timed", "knock_spent"];

/// How the names of the sets of grants by the agent begin; packets end them where an app says `once`.
pub const GRANTED_SETS: &str = "app_";

/// How the names of the sets begin that tell where others translate guarded ports to, and who came by these.
pub const BEHIND_SETS: &str = "behind_";

/// How the names of the sets of connections begin that closed the door behind them.
pub const ONCE_SETS: &str = "once_";

/// How the names of the sets of connections begin that were begun at a door which closes behind the first one, and have not
/// been answered yet.
pub const TRIED_SETS: &str = "tried_";

/// How the names of the sets begin of those for whom a sequence opened what stands before a step or another sequence.
pub const GATE_SETS: &str = "gate_";

/// Everything in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ruleset {
    /// Sets and maps, in the order in which they are made.
    pub sets: Vec<Set>,
    /// Chains with their rules, in the order in which they are made.
    pub chains: Vec<Chain>,
}

impl Ruleset {
    /// The set of that name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// The chain of that name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// Whether a chain begins anew behind its end: somebody loaded what this program's rules were once, and did not remove
    /// those that are in force. No plan has the first rule of a chain in it a second time.
    #[must_use]
    pub fn is_there_twice(&self) -> bool {
        self.chains.iter().any(|chain| {
            let mut rules = chain.rules.iter().filter(|rule| rule.is_ours());
            rules.next().is_some_and(|first| rules.any(|rule| rule == first))
        })
    }
}

/// Where a base chain sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// Before leaving.
    Postrouting,
}

/// What a base chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChainType {
    /// Lets pass or drops.
    Filter,
    /// Translates addresses.
    Nat,
}

/// How a base chain is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseChain {
    /// Filter or nat.
    pub kind: ChainType,
    /// Where.
    pub hook: Hook,
    /// Lower runs earlier.
    pub priority: i32,
    /// Whether its policy is drop; ours never is.
    pub drops: bool,
}

/// A chain and its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// How it is attached, if it is a base chain.
    pub base: Option<BaseChain>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What identifies it: `ka:<what>`.
    pub comment: Option<String>,
    /// Its instructions.
    pub exprs: Vec<Expr>,
}

impl Rule {
    /// Whether it may be one of this program's: it has such a name, and nothing in it that this program never writes.
    fn is_ours(&self) -> bool {
        self.comment.as_deref().is_some_and(|comment| comment.starts_with("ka:"))
            && !self.exprs.iter().any(|expr| matches!(expr, Expr::Foreign(_)))
    }
}

/// The type of one part of a key; the numbers are nft's own (`enum datatypes` in its `datatype.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyPart {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `inet_proto`.
    Protocol,
    /// `inet_service`.
    Port,
    /// `ifname`.
    IfName,
    /// `mark`, in host byte order.
    Mark,
    /// The length field of a UDP header, for which nft has no name of a type.
    UdpLength,
    /// The number that a TCP packet acknowledges, for which it has none either.
    TcpAck,
}

impl KeyPart {
    /// Length in bytes, before padding.
    #[must_use]
    pub fn length(self) -> usize {
        match self {
            Self::Ipv4 | Self::Mark | Self::TcpAck => 4,
            Self::Ipv6 | Self::IfName => 16,
            Self::Protocol => 1,
            Self::Port | Self::UdpLength => 2,
        }
    }

    /// Length in a concatenation, where each part fills whole registers.
    #[must_use]
    pub fn padded_length(self) -> usize {
        self.length().next_multiple_of(4)
    }
}

/// What a set is for, as far as the kernel must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetFlags {
    /// Elements are ranges.
    pub interval: bool,
    /// Elements may have a timeout.
    pub timeout: bool,
    /// Rules add elements.
    pub dynamic: bool,
}

/// What each element of a set leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Nothing: it is in the set or not.
    #[default]
    Nothing,
    /// A verdict.
    Verdict,
    /// A packet mark.
    Mark,
}

/// A set, or a map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The parts of its key; at least one.
    pub key: Vec<KeyPart>,
    /// What each element leads to.
    pub value: Value,
    /// Its flags.
    pub flags: SetFlags,
    /// The most elements it takes; none: no bound.
    pub size: Option<u32>,
    /// Who decides about its elements.
    pub content: Content,
}

impl Set {
    /// Length of a key in bytes, as the kernel stores it.
    #[must_use]
    pub fn key_len(&self) -> usize {
        match self.key.as_slice() {
            [single] => single.length(),
            parts => parts.iter().map(|part| part.padded_length()).sum(),
        }
    }

    /// Whether only packets fill it, and with what lasts for seconds or is learnt again; or it is made anew wherever it
    /// might be amiss.
    #[must_use]
    pub fn is_fleeting(&self) -> bool {
        let lasting = [ADOPTED_SET, KNOCKED_SETS, GRANTED_SETS, ONCE_SETS, GATE_SETS];
        TIMED_SETS.iter().any(|stem| self.name.starts_with(stem))
            || self.flags.dynamic && !lasting.iter().any(|stem| self.name.starts_with(stem))
    }

    /// Whether kernel and configuration agree on everything but the elements.
    #[must_use]
    pub fn same_shape(&self, other: &Self) -> bool {
        self.key == other.key
            && self.value == other.value
            && self.flags == other.flags
            && self.size == other.size
    }
}

/// Who decides about the elements of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// The plan: these and no others.
    Planned(#[serde(with = "hex::keys")] Elements),
    /// Grants, admissions and the packet path: whatever is there stays.
    Living,
}

/// Elements by key; a range is keyed by its first key.
pub type Elements = BTreeMap<Vec<u8>, Element>;

/// What belongs to a key in a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Element {
    /// Last key of a range, included; none: a single key.
    #[serde(with = "hex::option")]
    pub last: Option<Vec<u8>>,
    /// The verdict, in a map of verdicts.
    pub verdict: Option<Verdict>,
    /// The mark, in a map of marks.
    #[serde(default)]
    pub mark: Option<u32>,
    /// How long it has left; none: for ever.
    pub timeout: Option<Timeout>,
    /// Words for people who list the set.
    pub comment: Option<String>,
}

/// The time of an element, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timeout {
    /// What it was given.
    pub total_ms: u64,
    /// What is left of it, at most `total_ms`.
    pub left_ms: u64,
}

impl Timeout {
    /// A fresh timeout.
    #[must_use]
    pub fn fresh_ms(ms: u64) -> Self {
        Self { total_ms: ms, left_ms: ms }
    }
}
