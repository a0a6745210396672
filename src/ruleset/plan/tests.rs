use std::collections::BTreeSet;

use proptest::prelude::*;

use super::arbitrary::{options, settings};
use super::*;
use crate::ruleset::diff::{Change, Live, diff};
use crate::ruleset::expr::{Expr, Verdict};
use crate::ruleset::model::{Content, Element, Elements, Set, Timeout};

/// What the kernel would list after these changes.
fn apply(live: Option<Live>, changes: &[Change]) -> Option<Live> {
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
        for target in targets(live.as_ref().unwrap()) {
            assert!(live.as_ref().unwrap().ruleset.chain(&target).is_some(), "{change}: no chain {target}");
        }
    }
    live
}

/// The set that an expression needs.
fn asked(expr: &Expr) -> Option<&String> {
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
fn targets(live: &Live) -> BTreeSet<String> {
    let of_rules = live.ruleset.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
    let of_rules = of_rules.filter_map(|expr| match expr {
        Expr::Verdict(verdict) => Some(verdict),
        _ => None,
    });
    let of_elements = live.elements.values().flatten().filter_map(|(_, element)| element.verdict.as_ref());
    of_rules
        .chain(of_elements)
        .filter_map(|verdict| match verdict {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain.clone()),
            Verdict::Accept | Verdict::Drop | Verdict::Return => None,
        })
        .collect()
}

/// A grant in every set of grants, so that changes have something to lose.
fn with_grants(mut live: Live) -> Live {
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

fn planned(set: &Set) -> Elements {
    match &set.content {
        Content::Planned(elements) => elements.clone(),
        Content::Living => Elements::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_difference_turns_any_ruleset_into_any_other_and_keeps_its_grants(
        before in settings(), after in settings(), options in options()
    ) {
        let (old, new) = (plan(&before, options), plan(&after, options));
        let live = with_grants(apply(None, &diff(None, &old)).unwrap());
        let reached = apply(Some(live.clone()), &diff(Some(&live), &new)).unwrap();
        prop_assert_eq!(diff(Some(&reached), &new), vec![]);
        for set in &new.sets {
            if (set.name.starts_with("app_") || set.name.starts_with("seq_")) && old.set(&set.name).is_some() {
                prop_assert_eq!(&reached.elements[&set.name], &live.elements[&set.name], "{}", &set.name);
            }
            if let Content::Planned(wanted) = &set.content {
                prop_assert_eq!(&reached.elements[&set.name], wanted);
            }
        }
    }

    #[test]
    fn every_guarded_port_leads_to_a_chain_that_ends_in_a_drop(settings in settings(), options in options()) {
        let ruleset = plan(&settings, options);
        let services = planned(ruleset.set("services").unwrap());
        for app in &settings.apps {
            for protocol in app.protocol.each() {
                for ports in &app.ports {
                    for port in [ports.first(), ports.last()] {
                        let found = services.iter().filter(|(first, element)| {
                            let last = element.last.as_ref().unwrap_or(first);
                            let at = |key: &[u8]| (key[0], u16::from_be_bytes([key[4], key[5]]));
                            let wanted = (protocol.number(), port);
                            at(first) <= wanted && wanted <= at(last)
                        }).collect::<Vec<_>>();
                        prop_assert_eq!(found.len(), 1, "{} {}", protocol, port);
                        let Some(Verdict::Goto(chain)) = &found[0].1.verdict else { panic!("no chain") };
                        let rules = &ruleset.chain(chain).unwrap().rules;
                        let last = rules.last().unwrap();
                        prop_assert_eq!(last.exprs.last(), Some(&Expr::Verdict(Verdict::Drop)));
                        let asks = rules.iter().flat_map(|rule| &rule.exprs).any(|expr| matches!(
                            expr, Expr::Lookup { set, .. } if *set == app_set(&app.slug, app.families()[0])
                        ));
                        prop_assert!(asks, "{} does not ask for {}", chain, app.slug);
                    }
                }
            }
        }
    }

    #[test]
    fn rules_name_only_sets_and_chains_that_exist(settings in settings(), options in options()) {
        let ruleset = plan(&settings, options);
        let live = apply(None, &diff(None, &ruleset)).unwrap();
        for target in targets(&live) {
            prop_assert!(ruleset.chain(&target).is_some(), "no chain {}", target);
        }
        for expr in ruleset.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs) {
            if let Some(set) = asked(expr) {
                prop_assert!(ruleset.set(set).is_some(), "no set {}", set);
            }
        }
        let names: BTreeSet<&str> = ruleset.sets.iter().map(|set| set.name.as_str()).collect();
        prop_assert_eq!(names.len(), ruleset.sets.len());
    }
}

#[test]
fn what_packets_granted_goes_on_where_its_set_goes_or_is_filled_for_a_shorter_time() {
    use crate::config::{Alone, parse};
    let planned = |sequences: &str| {
        let text = format!(
            "global: {{interface_ext: eth0, steps: off}}\nssh: {{port: 22, duration: 600, sequence: [{sequences}]}}\n"
        );
        let settings = parse("x", &text, None, &Alone).unwrap().settings;
        let port = |n| std::num::NonZeroU16::new(n).unwrap();
        let options = Options { http_port: port(80), https_port: port(443), inner_header: true, log: true };
        plan(&settings, options)
    };
    let key = |last| vec![203, 0, 113, last];
    let left = |left_ms| {
        let timeout = Some(Timeout { total_ms: 3_600_000, left_ms });
        Element { timeout, ..Element::default() }
    };
    let both = "{knocks: [1, 2], duration: 1h}, {knocks: [1, 3]}";
    let mut live = apply(None, &diff(None, &planned(both))).unwrap();
    live.elements.get_mut("seq_ssh_4").unwrap().insert(key(1), left(3_000_000));
    live.elements.get_mut("seq_ssh_4").unwrap().insert(key(2), left(5_000));
    live.elements.get_mut("seq_ssh.600_4").unwrap().insert(key(3), left(500_000));
    let after = |sequences: &str| {
        let wanted = planned(sequences);
        let reached = apply(Some(live.clone()), &diff(Some(&live), &wanted)).unwrap();
        assert_eq!(diff(Some(&reached), &wanted), vec![]);
        let of = |set: &str| -> Vec<u8> {
            reached.elements.get(set).into_iter().flatten().map(|(key, _)| key[3]).collect()
        };
        (of("app_ssh_4"), of("seq_ssh_4"))
    };
    assert_eq!(after("{knocks: [1, 3]}"), (vec![1, 3], vec![1, 2]));
    assert_eq!(after("{knocks: [1, 2], duration: 1h}"), (vec![3], vec![1, 2]));
    assert_eq!(after(both), (vec![], vec![1, 2]));
    assert_eq!(after("{knocks: [1, 4], duration: 2h}, {knocks: [1, 3]}"), (vec![], vec![1, 2]));
}
