//! What is loaded on the host beside our table: everybody's chains, rules, sets and flowtables.

use std::collections::{BTreeMap, BTreeSet};

use super::packet::Byte;
use super::step::{Comparison, Source, Step};
use crate::ruleset::expr::Verdict;
use crate::units::Mark;

/// A family of tables (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostFamily {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Packets as an interface gets them.
    Netdev,
    /// Frames inside a bridge.
    Bridge,
}

impl HostFamily {
    /// All that can keep a packet from us.
    pub const ALL: [Self; 5] = [Self::Inet, Self::Ip, Self::Ip6, Self::Netdev, Self::Bridge];

    /// nft's word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
        }
    }

    /// The kernel's number for it.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
            Self::Netdev => 5,
            Self::Bridge => 7,
        }
    }
}

/// A table of somebody's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableRef {
    /// Its family.
    pub family: HostFamily,
    /// Its name.
    pub table: String,
}

impl std::fmt::Display for TableRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family.word(), self.table)
    }
}

/// Where a packet can meet a base chain, in the order in which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostHook {
    /// As the interface got it.
    Ingress,
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
    /// As the interface sends it.
    Egress,
}

/// What a base chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostChainKind {
    /// Every packet passes it.
    Filter,
    /// The first packet of a connection passes it.
    Nat,
}

/// How a base chain is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBase {
    /// Where.
    pub hook: HostHook,
    /// Lower runs earlier.
    pub priority: i32,
    /// What for.
    pub kind: HostChainKind,
    /// Whether its policy is drop.
    pub drops: bool,
    /// The interfaces it is bound to, on the hooks that have some.
    pub devices: Vec<String>,
}

/// A chain of somebody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostChain {
    /// Its table.
    pub table: TableRef,
    /// Its name.
    pub name: String,
    /// How it is attached, if it is a base chain.
    pub base: Option<HostBase>,
    /// Its rules in order.
    pub rules: Vec<HostRule>,
}

/// A rule of somebody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRule {
    /// The number that nft lists it by.
    pub handle: u64,
    /// What its owner wrote beside it.
    pub comment: Option<String>,
    /// What it does.
    pub steps: Vec<Step>,
}

/// A set or map of somebody's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSet {
    /// Whether its elements are ranges.
    pub interval: bool,
    /// The length of a key in bytes.
    pub key_len: usize,
    /// The length of each part of a key in bytes, where it has several; each begins at a multiple of 4.
    pub fields: Vec<usize>,
    /// The length of the value of a map in bytes.
    pub data_len: usize,
    /// How many elements it takes, where that is limited.
    pub size: Option<u32>,
    /// What is in it, in the order of first keys; none: too much to read.
    pub elements: Option<Vec<HostElement>>,
}

impl HostSet {
    /// The elements that a key may be in: where all of it is known and no part has a range of its own, the last
    /// one that does not begin behind it.
    #[must_use]
    pub fn candidates<'e>(&self, key: &[Byte], elements: &'e [HostElement]) -> &'e [HostElement] {
        let known: Option<Vec<u8>> = key.iter().copied().collect();
        let Some(known) = known.filter(|_| !self.interval || self.fields.is_empty()) else {
            return elements;
        };
        let end =
            elements.partition_point(|element| element.first.as_ref().is_none_or(|first| *first <= known));
        elements.get(end.saturating_sub(1)..end).unwrap_or_default()
    }
}

/// An element of somebody's set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostElement {
    /// The first key; none: whatever no other element has.
    pub first: Option<Vec<u8>>,
    /// The last key of a range.
    pub last: Option<Vec<u8>>,
    /// The value, in a map.
    pub data: Vec<u8>,
    /// The verdict, in a verdict map.
    pub verdict: Option<Verdict>,
}

/// A flowtable: connections that pass by all chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFlowtable {
    /// Its table.
    pub table: TableRef,
    /// Its name.
    pub name: String,
    /// The interfaces whose packets it takes.
    pub devices: Vec<String>,
}

/// Everything that is loaded beside our own table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The chains, by table and name.
    pub chains: Vec<HostChain>,
    /// The sets, by table and name.
    pub sets: BTreeMap<(TableRef, String), HostSet>,
    /// The flowtables.
    pub flowtables: Vec<HostFlowtable>,
    /// The tables that only the program that made them may change (`flags owner`), with the netlink port by which the
    /// kernel knows it: mostly its process id. None where that program is gone.
    pub owned: BTreeMap<TableRef, Option<u32>>,
    /// The tables that are switched off (`flags dormant`): their chains see no packet and are no base chains here.
    pub dormant: BTreeSet<TableRef>,
}

impl Host {
    /// The chain of that name in that table.
    #[must_use]
    pub fn chain(&self, table: &TableRef, name: &str) -> Option<&HostChain> {
        self.chains.iter().find(|chain| chain.name == name && chain.table == *table)
    }

    /// Whether a set takes no more elements than it has: what is not in it yet cannot be added.
    #[must_use]
    pub fn is_full(&self, table: &TableRef, name: &str) -> bool {
        let set = self.sets.get(&(table.clone(), name.to_owned()));
        let room = set.and_then(|set| Some((set.elements.as_ref()?.len(), usize::try_from(set.size?).ok()?)));
        room.is_some_and(|(has, most)| has >= most)
    }

    /// Whether a table has a chain whose name begins so.
    #[must_use]
    pub fn has_chain_like(&self, table: &TableRef, start: &str) -> bool {
        self.chains.iter().any(|chain| chain.table == *table && chain.name.starts_with(start))
    }

    /// As if a chain had a rule that accepts our mark, before the rule with that handle, or at its end: to judge
    /// a host as it is once that rule is in place. False if there is no such chain.
    pub fn accept_mark(&mut self, table: &TableRef, name: &str, before: Option<u64>, mark: Mark) -> bool {
        let Some(chain) = self.chain_mut(table, name) else { return false };
        // NFT_META_MARK
        let load = Step::Load { source: Source::Meta(3), to: 0, len: Some(4) };
        let mask = mark.mask().to_ne_bytes().to_vec();
        let steps = vec![
            load,
            Step::Mask { from: 0, to: 0, mask, xor: vec![0; 4] },
            Step::Compare { at: 0, how: Comparison::Eq, data: mark.value().to_ne_bytes().to_vec() },
            Step::Verdict(Verdict::Accept),
        ];
        let at = chain.rules.iter().position(|rule| Some(rule.handle) == before);
        chain.rules.insert(at.unwrap_or(chain.rules.len()), HostRule { steps, ..HostRule::default() });
        true
    }

    /// As if a rule were not there.
    pub fn forget(&mut self, table: &TableRef, name: &str, handle: u64) {
        if let Some(chain) = self.chain_mut(table, name) {
            chain.rules.retain(|rule| rule.handle != handle);
        }
    }

    fn chain_mut(&mut self, table: &TableRef, name: &str) -> Option<&mut HostChain> {
        self.chains.iter_mut().find(|chain| chain.name == name && chain.table == *table)
    }

    /// The base chains on a hook, in the order in which a packet meets them: of equal ones of a table, the newer first.
    pub fn on(&self, hook: HostHook) -> Vec<(&HostChain, &HostBase)> {
        let mut out: Vec<(&HostChain, &HostBase)> = self
            .chains
            .iter()
            .filter_map(|chain| Some((chain, chain.base.as_ref()?)))
            .filter(|(_, base)| base.hook == hook)
            .rev()
            .collect();
        out.sort_by_key(|(_, base)| base.priority);
        out
    }
}
