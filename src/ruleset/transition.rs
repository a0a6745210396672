//! A change that leaves no moment in which a guarded port is open, not even for a packet on its way.
//!
//! The kernel switches all rules at one stroke, but not what they ask. A packet that began with the old rules
//! finds the elements of a set gone that the transaction removes; and the ranges of a map are put in force only
//! at the very end of it (`nft_set_commit_update` in `net/netfilter/nf_tables_api.c`), so that new rules ask a
//! map that has the old ranges or, if it is new itself, none. What finds nothing is let through. So for the time
//! of the change, the rules that ask a set which changes say by themselves what it says: the old ones from
//! before, the new ones until after it.

use std::collections::BTreeSet;

use super::diff::{Change, Live};
use super::expr::{CmpOp, Expr, Reg};
use super::model::{Chain, Content, Element, Elements, KeyPart, Rule, Ruleset, Set};

/// How the names of the maps of knock sequences begin. A knock that finds nothing there opens nothing, and there may be
/// very many: they need not be written out.
const KNOCKS: &str = "knock_";
/// Bytes in one register.
const REGISTER: usize = 4;

/// The sets with planned elements that these changes touch.
#[must_use]
pub fn changing_sets(changes: &[Change], old: &Ruleset, wanted: &Ruleset) -> BTreeSet<String> {
    let planned = |name: &str| {
        let of = |ruleset: &Ruleset| {
            ruleset.set(name).is_some_and(|set| matches!(set.content, Content::Planned(_)))
        };
        of(old) || of(wanted)
    };
    changes
        .iter()
        .flat_map(|change| match change {
            Change::AddSet(set) => vec![set.name.as_str()],
            Change::AddElements { set, .. }
            | Change::RenewElements { set, .. }
            | Change::DeleteElements { set, .. } => vec![set.name.as_str()],
            Change::FlushSet(name) | Change::DeleteSet(name) => vec![name.as_str()],
            Change::DeleteTable => old.sets.iter().map(|set| set.name.as_str()).collect(),
            Change::AddTable
            | Change::AddChain(_)
            | Change::DeleteChain(_)
            | Change::FlushChain(_)
            | Change::AddRule { .. }
            | Change::Host(_) => Vec::new(),
        })
        .filter(|name| planned(name) && !name.starts_with(KNOCKS))
        .map(str::to_owned)
        .collect()
}

/// What is live, as a ruleset with the elements of the sets that only plans fill; none where somebody else's
/// rules are among ours.
#[must_use]
pub fn as_planned(live: &Live) -> Option<Ruleset> {
    let foreign = |rule: &Rule| rule.exprs.iter().any(|expr| matches!(expr, Expr::Foreign(_)));
    if live.ruleset.chains.iter().any(|chain| chain.rules.iter().any(foreign)) {
        return None;
    }
    let mut out = live.ruleset.clone();
    for set in &mut out.sets {
        set.content = match live.elements.get(&set.name) {
            Some(elements) if !set.flags.timeout && !set.flags.dynamic => Content::Planned(elements.clone()),
            Some(_) | None => Content::Living,
        };
    }
    Some(out)
}

/// A ruleset with what these sets hold written out in front of each rule that asks one of them.
#[must_use]
pub fn written_out(ruleset: &Ruleset, sets: &BTreeSet<String>) -> Ruleset {
    let chain = |chain: &Chain| Chain {
        rules: (1..)
            .zip(&chain.rules)
            .flat_map(|(place, rule)| spelled(place, rule, ruleset, sets))
            .collect(),
        ..chain.clone()
    };
    Ruleset { sets: ruleset.sets.clone(), chains: ruleset.chains.iter().map(chain).collect() }
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

/// A rule that asks one of the sets, after one rule per element; any other rule as it is. What is written out says its place, as
/// two rules may come to the same, and no chain may have its first rule twice.
fn spelled(place: usize, rule: &Rule, ruleset: &Ruleset, sets: &BTreeSet<String>) -> Vec<Rule> {
    let mut variants: Vec<Vec<Expr>> = vec![Vec::new()];
    let mut asks = false;
    for expr in &rule.exprs {
        let Some((set, reg, elements)) = asked(expr, ruleset, sets) else {
            variants.iter_mut().for_each(|exprs| exprs.push(expr.clone()));
            continue;
        };
        asks = true;
        variants = variants
            .iter()
            .flat_map(|exprs| {
                elements.iter().map(|(key, element)| {
                    let mut exprs = exprs.clone();
                    exprs.extend(comparisons(set, reg, key, element));
                    exprs.extend(element.verdict.clone().map(Expr::Verdict));
                    exprs
                })
            })
            .collect();
    }
    if !asks {
        return vec![rule.clone()];
    }
    let comment = |n: usize| rule.comment.as_ref().map(|comment| format!("{comment} {place}.{n}"));
    let mut out: Vec<Rule> =
        (1..).zip(variants).map(|(n, exprs)| Rule { comment: comment(n), exprs }).collect();
    out.push(rule.clone());
    out
}

fn asked<'r>(
    expr: &Expr,
    ruleset: &'r Ruleset,
    sets: &BTreeSet<String>,
) -> Option<(&'r Set, Reg, &'r Elements)> {
    let Expr::Lookup { set, reg, .. } = expr else { return None };
    let set = ruleset.set(set).filter(|set| sets.contains(&set.name))?;
    match &set.content {
        Content::Planned(elements) => Some((set, *reg, elements)),
        Content::Living => None,
    }
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
    use crate::ruleset::model::{SetFlags, Value};

    fn goto(chain: &str) -> Element {
        Element { verdict: Some(Verdict::Goto(chain.to_owned())), ..Element::default() }
    }

    /// tcp/22 and udp/6000-6010, asked for by one rule.
    fn wanted(interval: bool) -> Ruleset {
        let ranged = Element { last: Some(vec![17, 0, 0, 0, 0x17, 0x7a, 0, 0]), ..goto("svc_udp_6000_6010") };
        let map = Set {
            name: "services".into(),
            key: vec![KeyPart::Protocol, KeyPart::Port],
            value: Value::Verdict,
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
        let sets = changing_sets(&diff(None, &wanted), &Ruleset::default(), &wanted);
        assert_eq!(sets, BTreeSet::from(["services".to_owned()]));
        let meanwhile = written_out(&wanted, &sets);
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
    fn rules_that_come_to_the_same_once_they_are_written_out_are_no_second_loading() {
        let mut wanted = wanted(true);
        let (ask, mut other) = (wanted.chains[0].rules[1].clone(), wanted.sets[0].clone());
        other.name = "others".into();
        wanted.sets.push(other);
        let mut too = ask.clone();
        too.exprs[1] = Expr::Lookup { set: "others".into(), reg: Reg(0), verdict: true };
        wanted.chains[0].rules = vec![ask, too];
        assert!(!wanted.is_there_twice());
        let sets = BTreeSet::from(["services".to_owned(), "others".to_owned()]);
        assert!(!written_out(&wanted, &sets).is_there_twice());
    }

    #[test]
    fn a_rule_that_asks_two_sets_is_written_out_for_every_pair() {
        let mut wanted = wanted(false);
        let key = |name: &str| {
            let mut key = name.as_bytes().to_vec();
            key.resize(16, 0);
            key
        };
        wanted.sets.push(Set {
            name: "ext".into(),
            key: vec![KeyPart::IfName],
            value: Value::Nothing,
            flags: SetFlags::default(),
            size: None,
            content: Content::Planned(
                [(key("eth0"), Element::default()), (key("ppp0"), Element::default())].into(),
            ),
        });
        wanted.chains[0].rules[1]
            .exprs
            .insert(0, Expr::Lookup { set: "ext".into(), reg: Reg(0), verdict: false });
        let both = BTreeSet::from(["ext".to_owned(), "services".to_owned()]);
        assert_eq!(written_out(&wanted, &both).chain("gate").unwrap().rules.len(), 2 + 2 * 2);
        let one = written_out(&wanted, &BTreeSet::from(["ext".to_owned()]));
        let rules = &one.chain("gate").unwrap().rules;
        assert_eq!(rules.len(), 2 + 2);
        assert_eq!(rules[1].exprs[0], Expr::Cmp { reg: Reg(0), op: CmpOp::Eq, data: key("eth0") });
        assert_eq!(rules[1].exprs.last(), wanted.chains[0].rules[1].exprs.last());
    }

    #[test]
    fn only_sets_that_change_are_written_out_and_never_those_that_grants_fill() {
        let wanted = wanted(true);
        let mut live = Live { ruleset: wanted.clone(), ..Live::default() };
        let Content::Planned(elements) = &wanted.sets[0].content else { unreachable!() };
        live.elements.insert("services".into(), elements.clone());
        let mut grants = wanted.sets[0].clone();
        (grants.name, grants.flags.timeout) = ("app_ssh_4".into(), true);
        live.ruleset.sets.push(grants);
        live.elements.insert("app_ssh_4".into(), Elements::new());
        let old = as_planned(&live).unwrap();
        assert_eq!(old.set("app_ssh_4").unwrap().content, Content::Living);
        assert_eq!(old.set("services"), wanted.set("services"));

        live.ruleset.chains[0].rules.clear();
        let changes = diff(Some(&live), &wanted);
        assert!(!changes.is_empty() && changing_sets(&changes, &old, &wanted).is_empty(), "{changes:?}");
        let foreign = Rule { comment: None, exprs: vec![Expr::Foreign("synproxy".into())] };
        live.ruleset.chains[0].rules.push(foreign);
        assert_eq!(as_planned(&live), None);
    }
}
