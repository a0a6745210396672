use std::collections::BTreeSet;

use proptest::prelude::*;

use super::arbitrary::{options, settings};
use super::*;
use crate::laws::table::{apply, asked, targets, with_grants};
use crate::ruleset::diff::{Live, diff};
use crate::ruleset::expr::{Expr, Verdict};
use crate::ruleset::model::{Content, Element, Elements, Set, Timeout};
use crate::ruleset::transition::written_out;

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
    fn what_was_loaded_from_a_file_is_made_anew_and_lets_nobody_in(
        before in settings(), after in settings(), options in options()
    ) {
        let (old, new) = (plan(&before, options), plan(&after, options));
        let live = with_grants(apply(None, &diff(None, &old)).unwrap());
        let loaded = Live { loaded: true, ..live }.believed();
        let reached = apply(Some(loaded.clone()), &diff(Some(&loaded), &new)).unwrap();
        let reached = Live { loaded: false, ..reached };
        prop_assert_eq!(diff(Some(&reached), &new), vec![]);
        for set in new.sets.iter().filter(|set| set.content == Content::Living) {
            prop_assert!(reached.elements.get(&set.name).is_none_or(Elements::is_empty), "{}", &set.name);
        }
        prop_assert!(new.sets.iter().any(|set| set.flags.interval), "by which it is told");
    }

    #[test]
    fn only_what_was_loaded_over_what_is_in_force_is_there_twice(
        before in settings(), after in settings(), options in options()
    ) {
        let (old, new) = (plan(&before, options), plan(&after, options));
        prop_assert!(!new.is_there_twice());
        // As the kernel has it during a change, and where this program is killed then.
        let all = new.sets.iter().map(|set| set.name.clone()).collect();
        prop_assert!(!written_out(&new, &all).is_there_twice());
        let mut twice = new.clone();
        for chain in &mut twice.chains {
            let saved = old.chain(&chain.name).map(|chain| chain.rules.clone()).unwrap_or_default();
            chain.rules.extend(saved);
        }
        prop_assert!(twice.is_there_twice(), "of another configuration");
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
