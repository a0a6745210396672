//! Grants that packets made, where the set that holds them goes, or is filled for a shorter time from now on: they go
//! on among the agent's own grants, which no packet shortens. Where an app has no sequence any more, they end.
//! And what is known of guarded ports that others translate, where these are told apart in another way from now on.

use std::collections::BTreeMap;

use crate::grant::{How, Note};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::expr::Expr;
use crate::ruleset::model::{BEHIND_SETS, Element, Elements, GRANTED_SETS, KNOCKED_SETS, Ruleset};

/// For how many milliseconds packets are remembered in a set; none where no rule adds to it. Every set has an entry.
pub(super) type Given<'a> = BTreeMap<&'a str, Option<u64>>;

/// The changes that keep them.
pub(super) fn kept(live: &Live, wanted: &Ruleset) -> Vec<Change> {
    keep(live, &given(&live.ruleset), &given(wanted))
}

/// The same for any kind of firewall, from what was given before and what will be.
pub(super) fn keep(live: &Live, had: &Given<'_>, wanted: &Given<'_>) -> Vec<Change> {
    had.iter()
        .filter_map(|(&set, had_ms)| {
            let (stem, digit) = set.strip_prefix(KNOCKED_SETS)?.rsplit_once('_')?;
            let slug = stem.split('.').next()?;
            let of_app = |name: &str| {
                let rest = name.strip_prefix(KNOCKED_SETS).and_then(|rest| rest.strip_prefix(slug));
                rest.is_some_and(|rest| rest.starts_with('.') || matches!(rest, "_4" | "_6"))
            };
            let heir = format!("{GRANTED_SETS}{slug}_{digit}");
            if !wanted.contains_key(heir.as_str()) || !wanted.keys().any(|other| of_app(other)) {
                return None;
            }
            let will_ms = wanted.get(set).copied().flatten().unwrap_or(0);
            if had_ms.is_none_or(|had_ms| had_ms <= will_ms) {
                return None;
            }
            let have = live.elements.get(&heir);
            let longer = |key: &Vec<u8>, left: u64| {
                have.and_then(|have| have.get(key)).is_none_or(|element| left_ms(element) < left)
            };
            let note = Note { by: String::new(), how: How::Sequence }.to_string();
            let elements: Elements = live
                .elements
                .get(set)?
                .iter()
                .filter(|(key, element)| left_ms(element) > will_ms && longer(key, left_ms(element)))
                .map(|(key, element)| {
                    (key.clone(), Element { comment: Some(note.clone()), ..element.clone() })
                })
                .collect();
            let to = SetRef::plain(heir);
            (!elements.is_empty()).then_some(Change::RenewElements { set: to, elements })
        })
        .collect()
}

/// Where what a set holds that goes belongs from now on: to the new sets of the same kind that have its ports, or some of
/// them. By which of its ports a client came is not known where these are parted.
pub fn heirs<'a>(gone: &str, new: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    let old = OfPorts::read(gone);
    new.filter(move |name| {
        let both = old.as_ref().zip(OfPorts::read(name));
        both.is_some_and(|(old, new)| old.is_alike(&new) && old.first <= new.last && new.first <= old.last)
    })
}

/// A set of guarded ports that others translate, by what its name says.
struct OfPorts<'a> {
    stem: Vec<&'a str>,
    protocol: &'a str,
    first: u16,
    last: u16,
    digit: &'a str,
}

impl<'a> OfPorts<'a> {
    fn read(name: &'a str) -> Option<Self> {
        let (rest, digit) = name.rsplit_once('_').filter(|_| name.starts_with(BEHIND_SETS))?;
        let mut words = rest.split('_').collect::<Vec<_>>().into_iter();
        let mut stem = Vec::new();
        let protocol = loop {
            match words.next()? {
                word @ ("tcp" | "udp") => break word,
                word => stem.push(word),
            }
        };
        let first = words.next()?.parse().ok()?;
        let last = words.next().map_or(Some(first), |word| word.parse().ok())?;
        Some(Self { stem, protocol, first, last, digit })
    }

    fn is_alike(&self, other: &Self) -> bool {
        (&self.stem, self.protocol, self.digit) == (&other.stem, other.protocol, other.digit)
    }
}

fn left_ms(element: &Element) -> u64 {
    element.timeout.map_or(u64::MAX, |timeout| timeout.left_ms)
}

fn given(ruleset: &Ruleset) -> Given<'_> {
    let mut out: Given<'_> = ruleset.sets.iter().map(|set| (set.name.as_str(), None)).collect();
    let exprs = ruleset.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.exprs);
    for expr in exprs {
        if let Expr::Update { set, timeout_ms, .. } = expr
            && let Some(most) = out.get_mut(set.as_str())
        {
            *most = (*most).max(Some(*timeout_ms));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_ports_goes_to_the_sets_that_have_them_from_now_on() {
        let new = [
            "behind_udp_51820_51830_4",
            "behind_udp_51820_51830_6",
            "behind_of_udp_51820_51830_4",
            "behind_tcp_51820_51830_4",
            "behind_udp_51831_4",
            "behind_udp",
            "spoken_4",
        ];
        let heirs = |gone: &str| heirs(gone, new.into_iter()).collect::<Vec<_>>();
        assert_eq!(heirs("behind_udp_51820_4"), [new[0]]);
        assert_eq!(heirs("behind_of_udp_51825_6"), [] as [&str; 0]);
        assert_eq!(heirs("behind_of_udp_51825_4"), [new[2]]);
        assert_eq!(heirs("behind_udp_51830_51840_4"), [new[0], new[4]], "it is parted");
        assert_eq!(heirs("behind_udp_51840_4"), [] as [&str; 0], "guarded no more");
        assert_eq!(heirs("behind_udp"), [] as [&str; 0]);
    }
}
