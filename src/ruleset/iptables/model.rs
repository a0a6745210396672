//! Tables, chains and sets as iptables and ipset have them.

use serde::{Deserialize, Serialize};

/// What all chains of ours begin with.
pub const CHAIN_PREFIX: &str = "KA-";

/// What all sets of ours begin with.
pub const SET_PREFIX: &str = "ka_";

/// What is to be in force: the sets, and the tables of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tables {
    /// The sets that rules ask.
    pub ipsets: Vec<IpSet>,
    /// The tables of IPv4, in the order in which they are put in force.
    pub ipv4: Vec<Table>,
    /// The tables of IPv6, likewise.
    pub ipv6: Vec<Table>,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpSet {
    /// What the kernel calls it, at most 31 characters.
    pub name: String,
    /// What the model calls it, such as `app_ssh_4`.
    pub meaning: String,
    /// Type and options, as `ipset save` writes them, without what the kernel chooses.
    pub kind: String,
    /// What it holds.
    pub content: SetContent,
}

/// What a set holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetContent {
    /// Grants or networks, beside the sentinel that tells a flush from a revocation.
    Kept,
    /// Admissions, which last seconds.
    Admissions,
    /// What rules put there.
    Packets,
    /// Flows of before, which end by themselves and are renewed by rules.
    Flows,
}

/// A table with what of it is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// `raw`, `mangle`, `nat` or `filter`.
    pub name: String,
    /// The rules that lead to our chains, first in theirs, in this order.
    pub hooks: Vec<Hook>,
    /// Our chains.
    pub chains: Vec<Chain>,
}

/// A rule in a built-in chain that leads to one of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Such as `PREROUTING`.
    pub builtin: String,
    /// Our chain.
    pub chain: String,
}

impl Hook {
    /// The rule, without the chain it stands in.
    #[must_use]
    pub fn rule(&self) -> String {
        format!("-m comment --comment \"knock-agent\" -j {}", self.chain)
    }
}

/// A chain and its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Its name, at most 28 characters.
    pub name: String,
    /// Its rules, as `iptables-save` writes them after `-A NAME `.
    pub rules: Vec<String>,
}

impl Chain {
    /// A chain `KA-<stem>`.
    #[must_use]
    pub fn new(stem: &str, rules: Vec<String>) -> Self {
        Self { name: format!("{CHAIN_PREFIX}{stem}"), rules }
    }
}

impl Tables {
    /// The tables of one family.
    #[must_use]
    pub fn of(&self, family: crate::units::Family) -> &[Table] {
        match family {
            crate::units::Family::V4 => &self.ipv4,
            crate::units::Family::V6 => &self.ipv6,
        }
    }

    /// The same for a host that has no ipset any more: rules that ask or fill a set are left out. They let clients in, so
    /// that what is left lets nobody in.
    #[must_use]
    pub fn without_sets(&self) -> Self {
        let asks = |rule: &String| {
            ["--match-set ", "--add-set ", "--del-set "].iter().any(|word| rule.contains(word))
        };
        let mut out = Self { ipsets: Vec::new(), ..self.clone() };
        let chains = out.ipv4.iter_mut().chain(&mut out.ipv6).flat_map(|table| &mut table.chains);
        chains.for_each(|chain| chain.rules.retain(|rule| !asks(rule)));
        out
    }

    /// Whether it can be ours: nothing in it names anybody else's chain or set, or ends a line.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let line = |text: &str| !text.contains(['\n', '\r', '\0']);
        let set = |set: &IpSet| {
            set.name.starts_with(SET_PREFIX) && !set.name.contains(' ') && line(&set.name) && line(&set.kind)
        };
        let ours = |name: &str| name.starts_with(CHAIN_PREFIX) && !name.contains(' ') && line(name);
        let chain = |chain: &Chain| ours(&chain.name) && chain.rules.iter().all(|rule| line(rule));
        let hook = |hook: &Hook| {
            let known = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
            ours(&hook.chain) && known.contains(&hook.builtin.as_str())
        };
        let table = |table: &Table| {
            ["raw", "mangle", "nat", "filter"].contains(&table.name.as_str())
                && table.chains.iter().all(chain)
                && table.hooks.iter().all(hook)
        };
        self.ipsets.iter().all(set) && self.ipv4.iter().chain(&self.ipv6).all(table)
    }
}
