//! One rule in chains of the host that accepts our mark: which chains, where in them, and the changes
//! that lead there.
//!
//! A verdict `accept` in our own table does not help where the host drops later. Where the operator names
//! chains of the host, each gets one rule. It is known by its comment, `ka:host-<hook>`, so that it is
//! there exactly once and that nothing else is ever removed. No chain and no table of the host is made or
//! removed.

use std::fmt;

use super::expr::{CmpOp, Expr, MetaKey, Reg, Verdict};
use super::host_place::{Place, leads_to, place};
use super::model::{Chain, ChainType, Hook, Rule};
use crate::units::Mark;

/// What the comments of our rules in the host's chains begin with.
pub const HOST_COMMENT: &str = "ka:host-";
/// Our mark is set by chains of this priority: base chains up to it never see it.
const MARKED_AT: i32 = -10;

/// A family of tables that see routed packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostFamily {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
}

impl HostFamily {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ip, Self::Ip6, Self::Inet];

    /// The word nft has for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        }
    }

    /// The kernel's number (`NFPROTO_*`).
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }
}

/// A chain of the host's, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainName {
    /// Family of its table.
    pub family: HostFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family.word(), self.table, self.chain)
    }
}

/// A table of the host's, with its chains and rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTable {
    /// Its family.
    pub family: HostFamily,
    /// Its name.
    pub name: String,
    /// Whether it belongs to a program, which alone may write to it (`flags owner`).
    pub owned: bool,
    /// Its chains, with their rules.
    pub chains: Vec<Chain>,
    /// The handles of each chain's rules, in the same order.
    pub handles: Vec<Vec<u64>>,
}

impl HostTable {
    /// The chain of that name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// Handles and rules of a chain.
    fn rules_of(&self, name: &str) -> impl Iterator<Item = (u64, &Rule)> {
        let at = self.chains.iter().position(|chain| chain.name == name);
        let chain = at.and_then(|at| Some((self.handles.get(at)?, self.chains.get(at)?)));
        chain.into_iter().flat_map(|(handles, chain)| handles.iter().copied().zip(&chain.rules))
    }

    fn named(&self, chain: &str) -> ChainName {
        ChainName { family: self.family, table: self.name.clone(), chain: chain.to_owned() }
    }
}

/// One wish of the operator's: that what we let in passes the host's filter on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The table, of whatever family.
    pub table: String,
    /// The hook: input, forward or output.
    pub hook: Hook,
    /// The chain that is to hold the rule, where the hooked chains lead to it.
    pub chain: Option<String>,
    /// The hooked chain; none: every one that the table has on this hook.
    pub base: Option<String>,
    /// Whether the rule goes into the hooked chain where `chain` is not there, or not reached from it.
    pub else_base: bool,
    /// Whether the operator named the chain, and should hear of it when it is not there.
    pub by_operator: bool,
}

/// Chains of the host in which one rule is to accept our mark; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostChains {
    /// What is wished for.
    pub wishes: Vec<Wish>,
}

impl HostChains {
    /// Whether no chain of the host is concerned.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wishes.is_empty()
    }

    /// The names of the tables concerned.
    #[must_use]
    pub fn tables(&self) -> Vec<String> {
        let mut names: Vec<String> = self.wishes.iter().map(|wish| wish.table.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// A change to a chain of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// Put our rule into a chain.
    Insert {
        /// The chain.
        chain: ChainName,
        /// Handle of the rule that is to follow; none: it comes last.
        before: Option<u64>,
        /// The rule.
        rule: Rule,
    },
    /// Remove a rule of ours.
    Delete {
        /// The chain.
        chain: ChainName,
        /// Its handle.
        handle: u64,
        /// Its comment.
        comment: String,
    },
}

impl fmt::Display for HostChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert { chain, rule, .. } => {
                let comment = rule.comment.as_deref().unwrap_or_default();
                write!(f, "insert rule {comment} into the host's chain {chain}")
            }
            Self::Delete { chain, comment, .. } => {
                write!(f, "delete rule {comment} from the host's chain {chain}")
            }
        }
    }
}

/// What stands in the way of a wish, or is otherwise than its words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// There is no such chain; its rule is in the hooked chains instead.
    NoChain(ChainName),
    /// The chain is there, but the hooked ones do not lead to it; its rule is in those instead.
    NotReached(ChainName),
    /// The table belongs to a program.
    Owned(HostFamily, String),
    /// No chain of that table sees packets of ours on that hook.
    Nowhere {
        /// The table.
        table: String,
        /// The hook.
        hook: &'static str,
        /// The chain asked for.
        chain: Option<String>,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoChain(chain) => write!(
                f,
                "there is no chain {chain}: until there is, the rule that accepts our mark is in the chain that is hooked"
            ),
            Self::NotReached(chain) => write!(
                f,
                "chain {chain} is there, but no rule of the hooked chain jumps to it: the rule that accepts our mark is in the hooked chain instead"
            ),
            Self::Owned(family, table) => write!(
                f,
                "table {} {table} belongs to a program (flags owner), and the kernel lets nobody else put a rule into it",
                family.word()
            ),
            Self::Nowhere { table, hook, chain } => {
                write!(f, "no chain of a table {table} is hooked to {hook}")?;
                if let Some(chain) = chain {
                    write!(f, ", and none is called {chain}")?;
                }
                f.write_str(": the rule that accepts our mark is put in as soon as there is one")
            }
        }
    }
}

/// What is to be done to the host's chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPlan {
    /// The changes, in order.
    pub changes: Vec<HostChange>,
    /// The hooked chains past which our mark gets when all is done.
    pub passable: Vec<ChainName>,
    /// What the operator should know.
    pub troubles: Vec<Trouble>,
}

/// The changes after which our rule is exactly once in each chain that the operator wished, and nowhere else.
///
/// Without a mark there is nothing to accept, and our rules go. `tables` are the host's tables, those that no
/// wish names as well where rules of ours are to be cleared out of them.
#[must_use]
pub fn plan_host(wanted: &HostChains, mark: Option<Mark>, tables: &[HostTable]) -> HostPlan {
    let mut out = HostPlan::default();
    let mut targets: Vec<(ChainName, Hook)> = Vec::new();
    for wish in wanted.wishes.iter().filter(|_| mark.is_some()) {
        let mut found = false;
        for table in tables.iter().filter(|table| table.name == wish.table) {
            if table.owned {
                out.troubles.push(Trouble::Owned(table.family, table.name.clone()));
                found = true;
                continue;
            }
            for target in targets_of(wish, table, &mut out) {
                found = true;
                if !targets.iter().any(|(have, _)| *have == target) {
                    targets.push((target, wish.hook));
                }
            }
        }
        if !found && wish.by_operator {
            let (table, hook, chain) = (wish.table.clone(), hook_word(wish.hook), wish.chain.clone());
            out.troubles.push(Trouble::Nowhere { table, hook, chain });
        }
    }
    out.troubles.sort();
    out.troubles.dedup();
    let mut inserts = Vec::new();
    for table in tables.iter().filter(|table| !table.owned) {
        for chain in &table.chains {
            let target = targets.iter().find(|(name, _)| *name == table.named(&chain.name));
            let rule = target.and_then(|(_, hook)| mark.map(|mark| accept_rule(*hook, mark)));
            let (deletes, insert) = settle(table, chain, rule);
            out.changes.extend(deletes);
            inserts.extend(insert);
        }
    }
    out.changes.extend(inserts);
    out
}

/// Where the rule for a wish goes in a table; notes which hooked chains it gets past.
fn targets_of(wish: &Wish, table: &HostTable, out: &mut HostPlan) -> Vec<ChainName> {
    let counterpart = |name: &String| counterpart(name, table.family);
    let name = wish.chain.as_ref().map(counterpart);
    let chain = name.as_ref().and_then(|name| table.chain(name));
    let base = wish.base.as_ref().map(counterpart);
    let bases: Vec<&Chain> = table
        .chains
        .iter()
        .filter(|chain| sees_mark(chain, wish.hook))
        .filter(|chain| {
            base.as_ref().is_none_or(|base| chain.name == *base) || Some(&chain.name) == name.as_ref()
        })
        .collect();
    let mut targets = Vec::new();
    let mut reached = false;
    for hooked in &bases {
        let into = match chain {
            Some(chain) if leads_to(table, hooked, &chain.name) => {
                reached = true;
                chain
            }
            Some(_) | None if wish.else_base => hooked,
            Some(_) | None => continue,
        };
        targets.push(table.named(&into.name));
        out.passable.push(table.named(&hooked.name));
    }
    if let (Some(name), true, false) = (&name, wish.by_operator, bases.is_empty() || reached) {
        let name = table.named(name);
        out.troubles.push(if chain.is_some() { Trouble::NotReached(name) } else { Trouble::NoChain(name) });
    }
    targets
}

fn sees_mark(chain: &Chain, hook: Hook) -> bool {
    chain
        .base
        .is_some_and(|base| base.hook == hook && base.kind == ChainType::Filter && base.priority > MARKED_AT)
}

fn hook_word(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

/// The name that a chain has in a table of that family: VyOS calls its IPv6 chains otherwise.
fn counterpart(name: &str, family: HostFamily) -> String {
    if family != HostFamily::Ip6 {
        return name.to_owned();
    }
    if let Some(rest) = name.strip_prefix("NAME_") {
        return format!("NAME6_{rest}");
    }
    let hooked = ["INPUT", "FORWARD", "OUTPUT"].map(|hook| format!("VYOS_{hook}_"));
    if hooked.iter().any(|prefix| name.starts_with(prefix)) {
        return name.replacen("VYOS_", "VYOS_IPV6_", 1);
    }
    name.to_owned()
}

/// The rule itself.
#[must_use]
pub fn accept_rule(hook: Hook, mark: Mark) -> Rule {
    let reg = Reg(0);
    let mut exprs = vec![Expr::MetaLoad { key: MetaKey::Mark, reg }];
    if mark.mask() != u32::MAX {
        let mask = mark.mask().to_ne_bytes().to_vec();
        exprs.push(Expr::Bitwise { reg, mask, xor: vec![0; 4] });
    }
    exprs.push(Expr::Cmp { reg, op: CmpOp::Eq, data: mark.value().to_ne_bytes().to_vec() });
    exprs.extend([Expr::Counter, Expr::Verdict(Verdict::Accept)]);
    Rule { comment: Some(format!("{HOST_COMMENT}{}", hook_word(hook))), exprs }
}

/// Whether a rule of the host's own does the same as ours.
#[must_use]
pub fn does_the_same(rule: &Rule, mark: Mark) -> bool {
    let without_counter = |rule: &Rule| -> Vec<Expr> {
        rule.exprs.iter().filter(|expr| **expr != Expr::Counter).cloned().collect()
    };
    without_counter(rule) == without_counter(&accept_rule(Hook::Input, mark))
}

/// Whether a rule in a chain of the host's is one of ours.
#[must_use]
pub fn is_ours(rule: &Rule) -> bool {
    rule.comment.as_deref().is_some_and(|comment| comment.starts_with(HOST_COMMENT))
}

/// What it takes until a chain has this rule (none: no rule) of ours once and in its place.
fn settle(table: &HostTable, chain: &Chain, wanted: Option<Rule>) -> (Vec<HostChange>, Option<HostChange>) {
    let theirs: Vec<(u64, &Rule)> = table.rules_of(&chain.name).filter(|(_, rule)| !is_ours(rule)).collect();
    let rules: Vec<&Rule> = theirs.iter().map(|(_, rule)| *rule).collect();
    let Place { earliest, latest } = place(table, &rules);
    let (mut before, mut kept, mut deletes) = (0, false, Vec::new());
    for (handle, rule) in table.rules_of(&chain.name) {
        if !is_ours(rule) {
            before += 1;
        } else if !kept && wanted.as_ref() == Some(rule) && (earliest..=latest).contains(&before) {
            kept = true;
        } else {
            let comment = rule.comment.clone().unwrap_or_default();
            deletes.push(HostChange::Delete { chain: table.named(&chain.name), handle, comment });
        }
    }
    let insert = wanted.filter(|_| !kept).map(|rule| HostChange::Insert {
        chain: table.named(&chain.name),
        before: theirs.get(earliest).map(|(handle, _)| *handle),
        rule,
    });
    (deletes, insert)
}

#[cfg(test)]
#[path = "host_chain_tests.rs"]
mod tests;
