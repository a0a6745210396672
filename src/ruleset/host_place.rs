//! Where in a host's chain the rule that accepts our mark belongs.
//!
//! First, so that nothing drops before it; but behind the host's own bans, where rules say so by
//! themselves: a drop of packets that connection tracking calls invalid, or a drop of named sources, and a
//! jump to a chain that holds nothing but such rules and accepts. What cannot be told (a verdict map, a
//! rule with words unknown here) is no ban, and what follows it is not looked at.

use super::expr::{Base, CmpOp, CtKey, Expr, Verdict, ct_state};
use super::host_chain::HostTable;
use super::model::{Chain, Rule};

/// How far jumps are followed (`NFT_JUMP_STACK_SIZE` in the kernel).
const DEPTH: u8 = 16;

/// Between which rules of the host's ours may stand, as the number of rules before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Behind the last of the bans that begin the chain; a new rule goes here.
    pub(super) earliest: usize,
    /// Before the first rule that might drop what we let in.
    pub(super) latest: usize,
}

/// What a rule means for a packet that we let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It lets the packet go on or accepts it.
    Harmless,
    /// It drops strangers that the host does not want, whatever we say.
    Ban,
    /// Anything else.
    Other,
}

/// The place among these rules of one chain, ours left out.
pub(super) fn place(table: &HostTable, rules: &[&Rule]) -> Place {
    let kinds = rules.iter().map(|rule| kind(table, rule, DEPTH));
    let mut out = Place { earliest: 0, latest: 0 };
    for kind in kinds.take_while(|kind| *kind != Kind::Other) {
        out.latest += 1;
        if kind == Kind::Ban {
            out.earliest = out.latest;
        }
    }
    out
}

/// Whether packets can come from one chain to another of the same table by jumps written in rules, not in maps.
pub(super) fn leads_to(table: &HostTable, from: &Chain, to: &str) -> bool {
    let mut seen = vec![from.name.as_str()];
    let mut next = vec![from];
    while let Some(chain) = next.pop() {
        if chain.name == to {
            return true;
        }
        for target in chain.rules.iter().filter_map(target) {
            if !seen.contains(&target) {
                seen.push(target);
                next.extend(table.chain(target));
            }
        }
    }
    false
}

fn target(rule: &Rule) -> Option<&str> {
    rule.exprs.iter().find_map(|expr| match expr {
        Expr::Verdict(Verdict::Jump(chain) | Verdict::Goto(chain)) => Some(chain.as_str()),
        _ => None,
    })
}

fn kind(table: &HostTable, rule: &Rule, depth: u8) -> Kind {
    let Some((last, conditions)) = rule.exprs.split_last() else { return Kind::Harmless };
    match last {
        Expr::Verdict(Verdict::Accept) => Kind::Harmless,
        Expr::Verdict(Verdict::Drop) if names_strangers(conditions) => Kind::Ban,
        Expr::Foreign(name) if name == "reject" && names_strangers(conditions) => Kind::Ban,
        Expr::Verdict(Verdict::Jump(chain)) => {
            table.chain(chain).map_or(Kind::Other, |chain| kind_of_chain(table, chain, depth))
        }
        Expr::Verdict(_) => Kind::Other,
        _ if rule.exprs.iter().all(only_looks) => Kind::Harmless,
        _ => Kind::Other,
    }
}

/// What a jump to that chain means.
fn kind_of_chain(table: &HostTable, chain: &Chain, depth: u8) -> Kind {
    if depth == 0 {
        return Kind::Other;
    }
    let mut out = Kind::Harmless;
    for rule in &chain.rules {
        if let Some(Expr::Verdict(Verdict::Return)) = rule.exprs.last() {
            continue;
        }
        match kind(table, rule, depth - 1) {
            Kind::Harmless => {}
            Kind::Ban => out = Kind::Ban,
            Kind::Other => return Kind::Other,
        }
    }
    out
}

/// Whether conditions hold for nobody but invalid packets or sources that they name; others only narrow that.
fn names_strangers(conditions: &[Expr]) -> bool {
    let source = |expr: &Expr| match expr {
        Expr::Payload { base: Base::Network, offset: 12, len, .. } => *len <= 4,
        Expr::Payload { base: Base::Network, offset: 8, len, .. } => *len <= 16,
        _ => false,
    };
    let invalid = ct_state::INVALID.to_ne_bytes();
    conditions.windows(2).any(|pair| match pair {
        [load, Expr::Lookup { verdict: false, .. } | Expr::Cmp { op: CmpOp::Eq, .. }] => source(load),
        _ => false,
    }) || conditions.windows(3).any(|three| match three {
        [load, Expr::Bitwise { .. }, Expr::Cmp { op: CmpOp::Eq, .. }] => source(load),
        [
            Expr::Ct { key: CtKey::State, .. },
            Expr::Bitwise { mask, .. },
            Expr::Cmp { op: CmpOp::Ne, data, .. },
        ] => mask[..] == invalid && data.iter().all(|&byte| byte == 0),
        _ => false,
    })
}

/// Whether an instruction changes nothing about the packet.
fn only_looks(expr: &Expr) -> bool {
    match expr {
        Expr::MetaLoad { .. }
        | Expr::Payload { .. }
        | Expr::Cmp { .. }
        | Expr::Bitwise { .. }
        | Expr::ToBigEndian { .. }
        | Expr::Lookup { verdict: false, .. }
        | Expr::Ct { .. }
        | Expr::FibType { .. }
        | Expr::FibInterface { .. }
        | Expr::FibRouted { .. }
        | Expr::Counter => true,
        Expr::Foreign(name) => matches!(name.as_str(), "log" | "limit"),
        _ => false,
    }
}
