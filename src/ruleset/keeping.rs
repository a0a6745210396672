//! Grants that packets made, where the set that holds them goes, or is filled for a shorter time from now on: they go
//! on among the agent's own grants, which no packet shortens. Where an app has no sequence any more, they end.

use crate::grant::{How, Note};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::expr::Expr;
use crate::ruleset::model::{Element, Elements, GRANTED_SETS, KNOCKED_SETS, Ruleset};

/// The changes that keep them.
pub(super) fn kept(live: &Live, wanted: &Ruleset) -> Vec<Change> {
    let sets = live.ruleset.sets.iter().map(|set| set.name.as_str());
    sets.filter_map(|set| {
        let (stem, digit) = set.strip_prefix(KNOCKED_SETS)?.rsplit_once('_')?;
        let slug = stem.split('.').next()?;
        let of_app = |name: &str| {
            let rest = name.strip_prefix(KNOCKED_SETS).and_then(|rest| rest.strip_prefix(slug));
            rest.is_some_and(|rest| rest.starts_with('.') || matches!(rest, "_4" | "_6"))
        };
        let heir = wanted.set(&format!("{GRANTED_SETS}{slug}_{digit}"))?;
        if !wanted.sets.iter().any(|other| of_app(&other.name)) {
            return None;
        }
        let will_ms = wanted.set(set).and_then(|_| given_ms(wanted, set)).unwrap_or(0);
        if given_ms(&live.ruleset, set).is_none_or(|had_ms| had_ms <= will_ms) {
            return None;
        }
        let have = live.elements.get(&heir.name);
        let longer = |key: &Vec<u8>, left: u64| {
            have.and_then(|have| have.get(key)).is_none_or(|element| left_ms(element) < left)
        };
        let note = Note { by: String::new(), how: How::Sequence }.to_string();
        let elements: Elements = live
            .elements
            .get(set)?
            .iter()
            .filter(|(key, element)| left_ms(element) > will_ms && longer(key, left_ms(element)))
            .map(|(key, element)| (key.clone(), Element { comment: Some(note.clone()), ..element.clone() }))
            .collect();
        let to = SetRef::from(heir);
        (!elements.is_empty()).then_some(Change::RenewElements { set: to, elements })
    })
    .collect()
}

fn left_ms(element: &Element) -> u64 {
    element.timeout.map_or(u64::MAX, |timeout| timeout.left_ms)
}

/// For how long packets are remembered in a set; none where no rule adds to it.
fn given_ms(ruleset: &Ruleset, name: &str) -> Option<u64> {
    let exprs = ruleset.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
    exprs
        .filter_map(|expr| match expr {
            Expr::Update { set, timeout_ms, .. } if set == name => Some(*timeout_ms),
            _ => None,
        })
        .max()
}
