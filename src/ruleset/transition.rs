//! A change that leaves no moment in which a guarded port is open.
//!
//! The kernel puts a transaction's rules in force at one stroke, but the ranges of a map only at the very end of
//! it (`nft_set_commit_update` in `net/netfilter/nf_tables_api.c`). In between, the new rules ask a map that has
//! the old ranges or, if it is new itself, none: what finds nothing there is let through. So the rules that ask a
//! map of ranges which changes say meanwhile by themselves what the map will say.

use std::collections::BTreeSet;

use super::diff::Change;
use super::expr::{CmpOp, Expr, Reg};
use super::model::{Chain, Content, Element, KeyPart, Rule, Ruleset, Set};

/// Bytes in one register.
const REGISTER: usize = 4;

/// The maps of ranges that these changes touch.
#[must_use]
pub fn changing_maps<'a>(changes: &[Change], wanted: &'a Ruleset) -> BTreeSet<&'a str> {
    let touched: BTreeSet<&str> = changes
        .iter()
        .filter_map(|change| match change {
            Change::AddSet(set) => Some(set.name.as_str()),
            Change::AddElements { set, .. }
            | Change::RenewElements { set, .. }
            | Change::DeleteElements { set, .. } => Some(set.name.as_str()),
            Change::FlushSet(name) => Some(name.as_str()),
            Change::AddTable
            | Change::DeleteTable
            | Change::DeleteSet(_)
            | Change::AddChain(_)
            | Change::DeleteChain(_)
            | Change::FlushChain(_)
            | Change::AddRule { .. } => None,
        })
        .collect();
    let ranged = wanted.sets.iter().filter(|set| set.verdicts && set.flags.interval);
    ranged.map(|set| set.name.as_str()).filter(|name| touched.contains(name)).collect()
}

/// The wanted ruleset with what these maps hold written out in front of each rule that asks them.
#[must_use]
pub fn written_out(wanted: &Ruleset, maps: &BTreeSet<&str>) -> Ruleset {
    let chain = |chain: &Chain| Chain {
        rules: chain.rules.iter().flat_map(|rule| spelled(rule, wanted, maps)).collect(),
        ..chain.clone()
    };
    Ruleset { sets: wanted.sets.clone(), chains: wanted.chains.iter().map(chain).collect() }
}

/// The changes to the chains' rules that lead from one ruleset with the same chains to another.
#[must_use]
pub fn rules_only(from: &Ruleset, to: &Ruleset) -> Vec<Change> {
    let differs = |chain: &&Chain| from.chain(&chain.name).is_none_or(|other| other.rules != chain.rules);
    let mut out = Vec::new();
    for chain in to.chains.iter().filter(differs) {
        out.push(Change::FlushChain(chain.name.clone()));
        let add = |rule: &Rule| Change::AddRule { chain: chain.name.clone(), rule: rule.clone() };
        out.extend(chain.rules.iter().map(add));
    }
    out
}

/// A rule that asks one of the maps, after one rule per element; any other rule as it is.
fn spelled(rule: &Rule, wanted: &Ruleset, maps: &BTreeSet<&str>) -> Vec<Rule> {
    let mut out = Vec::new();
    if let Some((Expr::Lookup { set, reg, verdict: true }, before)) = rule.exprs.split_last()
        && maps.contains(set.as_str())
        && let Some(map) = wanted.set(set)
        && let Content::Planned(elements) = &map.content
    {
        for (key, element) in elements {
            let mut exprs = before.to_vec();
            exprs.extend(comparisons(map, *reg, key, element));
            exprs.extend(element.verdict.clone().map(Expr::Verdict));
            out.push(Rule { comment: rule.comment.clone(), exprs });
        }
    }
    out.push(rule.clone());
    out
}

/// That the key, as it stands in the registers, lies within the element.
fn comparisons(map: &Set, start: Reg, first: &[u8], element: &Element) -> Vec<Expr> {
    let last = element.last.as_deref().unwrap_or(first);
    let mut out = Vec::new();
    let mut offset = 0;
    for part in &map.key {
        let reg = Reg(start.0.saturating_add(u8::try_from(offset / REGISTER).unwrap_or(u8::MAX)));
        let bytes = |of: &[u8]| of.get(offset..offset + part.length()).unwrap_or_default().to_vec();
        let (low, high) = (bytes(first), bytes(last));
        if low == high {
            out.push(Expr::Cmp { reg, op: CmpOp::Eq, data: low });
        } else {
            out.push(Expr::Cmp { reg, op: CmpOp::Ge, data: low });
            out.push(Expr::Cmp { reg, op: CmpOp::Le, data: high });
        }
        offset += KeyPart::padded_length(*part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::diff::{Live, diff};
    use crate::ruleset::expr::Verdict;
    use crate::ruleset::model::SetFlags;

    fn goto(chain: &str) -> Element {
        Element { verdict: Some(Verdict::Goto(chain.to_owned())), ..Element::default() }
    }

    /// tcp/22 and udp/6000-6010, asked for by one rule.
    fn wanted(interval: bool) -> Ruleset {
        let ranged = Element { last: Some(vec![17, 0, 0, 0, 0x17, 0x7a, 0, 0]), ..goto("svc_udp_6000_6010") };
        let map = Set {
            name: "services".into(),
            key: vec![KeyPart::Protocol, KeyPart::Port],
            verdicts: true,
            flags: SetFlags { interval, ..SetFlags::default() },
            size: None,
            content: Content::Planned(
                [
                    (vec![6, 0, 0, 0, 0, 22, 0, 0], goto("svc_tcp_22")),
                    (vec![17, 0, 0, 0, 0x17, 0x70, 0, 0], ranged),
                ]
                .into(),
            ),
        };
        let ask = Rule {
            comment: Some("ka:services".into()),
            exprs: vec![Expr::Counter, Expr::Lookup { set: "services".into(), reg: Reg(0), verdict: true }],
        };
        let other = Rule { comment: None, exprs: vec![Expr::Counter] };
        let chain = |name: &str, rules: &[&Rule]| Chain {
            name: name.into(),
            base: None,
            rules: rules.iter().map(|&rule| rule.clone()).collect(),
        };
        Ruleset { sets: vec![map], chains: vec![chain("gate", &[&other, &ask]), chain("own", &[&other])] }
    }

    #[test]
    fn what_a_changing_map_of_ranges_will_say_is_written_out_before_it_is_asked() {
        let wanted = wanted(true);
        let maps = changing_maps(&diff(None, &wanted), &wanted);
        assert_eq!(maps, BTreeSet::from(["services"]));
        let meanwhile = written_out(&wanted, &maps);
        let gate = meanwhile.chain("gate").unwrap();
        assert_eq!(gate.rules.len(), 4);
        let cmp = |reg, op, data: &[u8]| Expr::Cmp { reg: Reg(reg), op, data: data.to_vec() };
        let verdict = |chain: &str| Expr::Verdict(Verdict::Goto(chain.into()));
        assert_eq!(
            gate.rules[1].exprs,
            [Expr::Counter, cmp(0, CmpOp::Eq, &[6]), cmp(1, CmpOp::Eq, &[0, 22]), verdict("svc_tcp_22")]
        );
        assert_eq!(
            gate.rules[2].exprs,
            [
                Expr::Counter,
                cmp(0, CmpOp::Eq, &[17]),
                cmp(1, CmpOp::Ge, &[0x17, 0x70]),
                cmp(1, CmpOp::Le, &[0x17, 0x7a]),
                verdict("svc_udp_6000_6010")
            ]
        );
        assert_eq!(gate.rules[3], wanted.chain("gate").unwrap().rules[1]);
        assert_eq!(meanwhile.chain("own"), wanted.chain("own"));

        let back = rules_only(&meanwhile, &wanted);
        assert_eq!(back.len(), 3, "{back:?}");
        assert_eq!(back[0], Change::FlushChain("gate".into()));
    }

    #[test]
    fn maps_without_ranges_and_maps_that_stay_need_nothing() {
        let single = wanted(false);
        assert!(changing_maps(&diff(None, &single), &single).is_empty());
        let ranged = wanted(true);
        let mut live = Live { ruleset: ranged.clone(), ..Live::default() };
        let Content::Planned(elements) = &ranged.sets[0].content else { unreachable!() };
        live.elements.insert("services".into(), elements.clone());
        live.ruleset.chains[0].rules.clear();
        let changes = diff(Some(&live), &ranged);
        assert!(!changes.is_empty() && changing_maps(&changes, &ranged).is_empty(), "{changes:?}");
    }
}
