//! A table as the kernel keeps it, as far as changes go: what it refuses, this refuses.

use std::collections::BTreeSet;

use crate::ruleset::diff::{Change, Live};
use crate::ruleset::expr::{Expr, Verdict};
use crate::ruleset::model::{Element, Elements, Rule, Timeout};

/// What the kernel would list after these changes.
pub(crate) fn apply(live: Option<Live>, changes: &[Change]) -> Option<Live> {
    let mut live = live;
    for change in changes {
        match change {
            Change::AddTable => {
                live.get_or_insert_default();
                continue;
            }
            Change::DeleteTable => {
                live = None;
                continue;
            }
            _ => {}
        }
        let table = live.as_mut().expect("changes to a table that is not there");
        match change {
            Change::AddTable | Change::DeleteTable => {}
            Change::AddSet(set) => {
                assert!(table.ruleset.set(&set.name).is_none(), "set {} twice", set.name);
                table.elements.insert(set.name.clone(), Elements::new());
                table.ruleset.sets.push(set.clone());
            }
            Change::DeleteSet(name) => {
                let used = |expr: &Expr| asked(expr) == Some(name);
                let rules = table.ruleset.chains.iter().flat_map(|chain| &chain.rules);
                assert!(!rules.flat_map(|rule| &rule.exprs).any(used), "set {name} is in use");
                table.ruleset.sets.retain(|set| set.name != *name);
                table.elements.remove(name);
            }
            Change::FlushSet(name) => table.elements.get_mut(name).unwrap().clear(),
            Change::AddChain(chain) => {
                assert!(table.ruleset.chain(&chain.name).is_none(), "chain {} twice", chain.name);
                table.ruleset.chains.push(chain.clone());
            }
            Change::DeleteChain(name) => {
                assert!(!targets(table).contains(name), "chain {name} is in use");
                assert!(table.ruleset.chain(name).unwrap().rules.is_empty());
                table.ruleset.chains.retain(|chain| chain.name != *name);
            }
            Change::FlushChain(name) => {
                table.ruleset.chains.iter_mut().find(|chain| chain.name == *name).unwrap().rules.clear();
            }
            Change::AddRule { chain, rule } => {
                table
                    .ruleset
                    .chains
                    .iter_mut()
                    .find(|have| have.name == *chain)
                    .unwrap()
                    .rules
                    .push(rule.clone());
            }
            Change::AddElements { set, elements } => {
                for (key, element) in elements {
                    let had = table.elements.get_mut(&set.name).unwrap().insert(key.clone(), element.clone());
                    assert_eq!(had, None, "element twice in {}", set.name);
                }
            }
            Change::RenewElements { set, elements } => {
                table.elements.get_mut(&set.name).unwrap().extend(elements.clone());
            }
            Change::DeleteElements { set, elements } => {
                for key in elements.keys() {
                    assert!(table.elements.get_mut(&set.name).unwrap().remove(key).is_some());
                }
            }
            Change::Host(_) => panic!("a plan of our own table leaves the host's alone"),
        }
        let table = live.as_ref().unwrap();
        for target in leads_to(change) {
            assert!(table.ruleset.chain(&target).is_some(), "{change}: no chain {target}");
        }
    }
    live
}

/// The chains that what a change adds leads to.
fn leads_to(change: &Change) -> Vec<String> {
    match change {
        Change::AddRule { rule, .. } => of_rule(rule).filter_map(chain_of).collect(),
        Change::AddElements { elements, .. } | Change::RenewElements { elements, .. } => {
            elements.values().filter_map(|element| element.verdict.as_ref()).filter_map(chain_of).collect()
        }
        _ => Vec::new(),
    }
}

fn of_rule(rule: &Rule) -> impl Iterator<Item = &Verdict> {
    rule.exprs.iter().filter_map(|expr| match expr {
        Expr::Verdict(verdict) => Some(verdict),
        _ => None,
    })
}

fn chain_of(verdict: &Verdict) -> Option<String> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain.clone()),
        Verdict::Accept | Verdict::Drop | Verdict::Return => None,
    }
}

/// The set that an expression needs.
pub(crate) fn asked(expr: &Expr) -> Option<&String> {
    match expr {
        Expr::Lookup { set, .. }
        | Expr::Map { set, .. }
        | Expr::Update { set, .. }
        | Expr::Remember { set, .. }
        | Expr::Forget { set, .. } => Some(set),
        _ => None,
    }
}

/// The chains that rules and elements lead to.
pub(crate) fn targets(live: &Live) -> BTreeSet<String> {
    let of_rules = live.ruleset.chains.iter().flat_map(|chain| &chain.rules).flat_map(of_rule);
    let of_elements = live.elements.values().flatten().filter_map(|(_, element)| element.verdict.as_ref());
    of_rules.chain(of_elements).filter_map(chain_of).collect()
}

/// A grant in every set of grants, so that changes have something to lose.
pub(crate) fn with_grants(mut live: Live) -> Live {
    for (name, elements) in &mut live.elements {
        if name.starts_with("app_") || name.starts_with("seq_") {
            let key = vec![1; if name.ends_with("_4") { 4 } else { 16 }];
            elements.insert(
                key,
                Element { timeout: Some(Timeout { total_ms: 10_000, left_ms: 7_000 }), ..Element::default() },
            );
        }
    }
    live
}
