//! From one plan to the next where only rules differ, without a look at what is live: the cost does not grow with the
//! number of grants.

use super::diff::Change;
use super::model::Ruleset;

/// The changes that replace the rules that differ, chain by chain; to be carried out in one transaction.
///
/// Chains that only one of the two has, and sets, are left alone: plans of one configuration for two moments have
/// the same.
#[must_use]
pub fn swap(before: &Ruleset, after: &Ruleset) -> Vec<Change> {
    let mut out = Vec::new();
    for chain in &after.chains {
        let Some(had) = before.chain(&chain.name).filter(|had| had.rules != chain.rules) else { continue };
        if !had.rules.is_empty() {
            out.push(Change::FlushChain(chain.name.clone()));
        }
        let add = |rule: &_| Change::AddRule { chain: chain.name.clone(), rule: Clone::clone(rule) };
        out.extend(chain.rules.iter().map(add));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::config::Settings;
    use crate::ruleset::plan::{arbitrary, plan};
    use crate::units::{Lifetime, PathRotation, Secret};

    fn at(settings: &Settings, secs: u64) -> Settings {
        let mut settings = settings.clone();
        let secret = Secret::new("0123456789abcdef".to_owned());
        settings.global.path_rotation = PathRotation::new(secret, Lifetime::from_secs(300).unwrap()).ok();
        settings.follow_time(UNIX_EPOCH + Duration::from_secs(secs));
        settings
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_change_of_paths_becomes_what_is_planned_and_touches_the_rules_of_step_1_only(
            settings in arbitrary::settings(),
            options in arbitrary::options(),
            secs in 0_u64..2_000,
        ) {
            let (first, later) = (at(&settings, 1_700_000_000), at(&settings, 1_700_000_000 + secs));
            let (before, after) = (plan(&first, options), plan(&later, options));
            prop_assert_eq!(&before.sets, &after.sets);
            let changes = swap(&before, &after);
            let same = first.global.step1_paths == later.global.step1_paths || !settings.global.steps;
            prop_assert_eq!(changes.is_empty(), same);
            let mut live = before;
            for change in changes {
                let (name, rule) = match change {
                    Change::FlushChain(name) => (name, None),
                    Change::AddRule { chain, rule } => (chain, Some(rule)),
                    other => panic!("{other}"),
                };
                let of_step1 = ["step1_raw", "step1_gate", "step1_here"];
                prop_assert!(of_step1.contains(&name.as_str()), "{}", name);
                let chain = live.chains.iter_mut().find(|chain| chain.name == name).unwrap();
                match rule {
                    None => chain.rules.clear(),
                    Some(rule) => chain.rules.push(rule),
                }
            }
            prop_assert_eq!(live, after);
        }
    }
}
