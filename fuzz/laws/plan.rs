//! Plans, what turns one into another, and how they travel to the kernel and onto the disk.

use std::collections::BTreeSet;

use crate::backend::nftables::encode::encode;
use crate::ruleset::diff::{Change, Live, diff};
use crate::ruleset::model::{Content, Ruleset, TABLE};
use crate::ruleset::plan::{arbitrary, plan};
use crate::ruleset::transition::{changing_sets, rules_only, written_out};
use crate::ruleset::{text, wire};
use crate::sys::nftnl::Scratch;

use super::choices::Choices;
use super::table::{apply, asked, targets, with_grants};

/// Two configurations: the difference between their plans leads from one to the other and keeps what was granted; there
/// is none between a plan and what came of it; and every message says what was planned.
pub fn plans(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let options = arbitrary::chosen_options(&mut choices);
    let [before, after] = [(); 2].map(|()| arbitrary::chosen(&mut choices));
    let (old, new) = (plan(&before, options), plan(&after, options));
    text::render(&after, options).expect("the same as text");
    names_what_it_has(&new);

    let live = with_grants(apply(None, &diff(None, &old)).unwrap());
    let changes = diff(Some(&live), &new);
    let reached = apply(Some(live.clone()), &changes).unwrap();
    assert_eq!(diff(Some(&reached), &new), vec![], "a second time");
    for set in &new.sets {
        let granted = ["app_", "seq_"].iter().any(|stem| set.name.starts_with(stem));
        if granted && old.set(&set.name).is_some() {
            assert_eq!(reached.elements[&set.name], live.elements[&set.name], "{}", set.name);
        }
        if let Content::Planned(wanted) = &set.content {
            assert_eq!(&reached.elements[&set.name], wanted, "{}", set.name);
        }
    }
    meanwhile(&old, &new, &changes);
    travels(&new);
    // The same by way of somebody else's mess: rules and elements that are not ours.
    let mut spoiled = live;
    spoil(&mut spoiled, &mut choices);
    let mended = apply(Some(spoiled.clone()), &diff(Some(&spoiled), &new)).unwrap();
    assert_eq!(diff(Some(&mended), &new), vec![], "mended");
}

fn names_what_it_has(ruleset: &Ruleset) {
    let live = apply(None, &diff(None, ruleset)).unwrap();
    assert!(targets(&live).iter().all(|target| ruleset.chain(target).is_some()));
    for expr in ruleset.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs) {
        assert!(asked(expr).is_none_or(|set| ruleset.set(set).is_some()), "{expr:?}");
    }
    let names: BTreeSet<&str> = ruleset.sets.iter().map(|set| set.name.as_str()).collect();
    assert_eq!(names.len(), ruleset.sets.len(), "two sets of one name");
}

/// While sets change, rules say by themselves what those say; afterwards nothing of that is left.
fn meanwhile(old: &Ruleset, new: &Ruleset, changes: &[Change]) {
    let sets = changing_sets(changes, old, new);
    let spelled = written_out(new, &sets);
    let live = apply(None, &diff(None, &spelled)).unwrap();
    let back = apply(Some(live), &rules_only(&spelled, new)).unwrap();
    assert_eq!(diff(Some(&back), new), vec![]);
}

fn travels(ruleset: &Ruleset) {
    let changes = diff(None, ruleset);
    let encoded = encode(&changes).expect("what libnftnl can write");
    assert_eq!(encoded.messages.len(), encoded.origins.len());
    let mut scratch = Scratch::default();
    for (message, &origin) in encoded.messages.iter().zip(&encoded.origins) {
        let bytes = message.to_bytes(&mut scratch).split_off(20);
        match &changes[origin] {
            Change::AddRule { chain, rule } => {
                let found = wire::rule(&bytes, TABLE).expect("a rule");
                assert_eq!((&found.chain, &found.rule), (chain, rule));
            }
            Change::AddChain(chain) => assert_eq!(&wire::chain(&bytes, TABLE).expect("a chain"), chain),
            Change::AddSet(set) => assert_eq!(&wire::set(&bytes, TABLE).expect("a set"), set),
            Change::AddElements { set, elements } => {
                let found = wire::pair_ranges(ruleset.set(&set.name).unwrap(), wire::elements(&bytes));
                assert_eq!(&found, elements);
            }
            other => assert!(matches!(other, Change::AddTable), "{other}"),
        }
    }
}

/// Removes and repeats rules, and removes elements, here and there.
fn spoil(live: &mut Live, choices: &mut Choices<'_>) {
    for _ in 0..choices.below(8) {
        let chains = live.ruleset.chains.len();
        if chains == 0 {
            return;
        }
        let rules = &mut live.ruleset.chains[usize::from(choices.number()) % chains].rules;
        let at = choices.below(rules.len().min(256));
        match choices.below(3) {
            0 if !rules.is_empty() => drop(rules.remove(at)),
            1 if !rules.is_empty() => rules.push(rules[at].clone()),
            _ => {
                let all = live.elements.len().min(256);
                if let Some(elements) = live.elements.values_mut().nth(choices.below(all)) {
                    elements.pop_first();
                }
            }
        }
    }
}
