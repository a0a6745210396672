//! What was in force before, to be put back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::allowed::replace;
use super::operations::TRIES;
use super::taken::{Keys, Taken};
use crate::backend::{BackendError, Firewall, Plan};
use crate::grant::Note;
use crate::ruleset::allow::{address_key, still_allowed};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::model::{Content, Element, Elements, Ruleset, Set, Timeout};
use crate::ruleset::transition::as_planned;
use crate::units::Now;

/// Times in nftables up to this far apart are the same.
const SLACK_MS: u64 = 250;

/// What was in force at some moment. It holds the secret path of step 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Rules, maps and, as far as they outlast a moment, the elements of all sets; none: nothing was guarded.
    guard: Option<Ruleset>,
    /// When, on the clock that never goes back.
    taken_at: Duration,
    /// What no person, packet or time has ended since, but the trial itself.
    pub(super) taken: Taken,
}

impl Snapshot {
    /// Of what was read just now; none where somebody else's rules are among ours.
    #[must_use]
    pub fn of(live: Option<&Live>, now: Now) -> Option<Self> {
        let guard = match live {
            None => None,
            Some(live) => {
                let mut ruleset = as_planned(live)?;
                for set in ruleset.sets.iter_mut().filter(|set| !set.is_fleeting()) {
                    set.content = Content::Planned(live.elements.get(&set.name).cloned().unwrap_or_default());
                }
                Some(ruleset)
            }
        };
        Some(Self { guard, taken_at: now.boot, taken: Taken::default() })
    }

    /// The sets whose elements end, but for those of ranges, or of these only.
    pub(super) fn sets(&self, of_ranges: bool) -> BTreeSet<String> {
        let all = self.guard.iter().flat_map(|guard| &guard.sets);
        let named = all.filter(|set| set.flags.timeout && set.flags.interval == of_ranges);
        named.map(|set| set.name.clone()).collect()
    }

    /// What was held of an address. Of two sides only, as connections are, `is_meant` says whose it is.
    pub(super) fn keys_at(
        &self,
        set: &str,
        addr: Option<IpAddr>,
        is_meant: impl Fn(&[u8]) -> bool,
    ) -> Vec<Vec<u8>> {
        let Some((set, held)) = self.guard.as_ref().and_then(|guard| guard.set(set)).and_then(held) else {
            return Vec::new();
        };
        if set.key.len() > 1 {
            return held.keys().filter(|key| is_meant(key)).cloned().collect();
        }
        addr.map(address_key).filter(|key| held.contains_key(key)).into_iter().collect()
    }

    /// What was held by those of whom this is true.
    pub(super) fn of_those(&self, is_theirs: impl Fn(&Note) -> bool) -> Keys {
        let mut out = Keys::new();
        // Of many grants only few differ in whose they are.
        let mut known: BTreeMap<&str, bool> = BTreeMap::new();
        let sets = self.guard.iter().flat_map(|guard| &guard.sets).filter(|set| !set.flags.interval);
        for (set, held) in sets.filter_map(held) {
            for (key, element) in held {
                let Some(comment) = element.comment.as_deref() else { continue };
                if *known.entry(comment).or_insert_with(|| is_theirs(&Note::parse(Some(comment)))) {
                    out.entry(set.name.clone()).or_default().insert(key.clone());
                }
            }
        }
        out
    }

    /// Puts it in force again. What ended meanwhile, by time or by hand, stays ended, and what the trial ended comes back; what
    /// was let in meanwhile ends. Where the table is gone, or somebody loaded another one, nobody knows what was taken back: then only the
    /// networks of the configuration come back. Returns whether anything is guarded then.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel would not.
    pub fn put_back(&self, firewall: &mut Firewall, now: Now) -> Result<bool, BackendError> {
        let Some(guard) = &self.guard else {
            firewall.teardown()?;
            return Ok(false);
        };
        let passed = now.boot.saturating_sub(self.taken_at);
        let (plan, kept) = split(guard, passed);
        let mut result = Ok(true);
        for _ in 0..TRIES {
            let live = firewall.read()?.map(Live::believed);
            let more = match live.as_ref().filter(|live| !live.loaded) {
                Some(live) => changes(live, &kept, &self.taken),
                None => of_configuration(&kept),
            };
            result = firewall.install_over(live.as_ref(), &plan, more).map(|_| true);
            match &result {
                // An element may have ended between being read and being removed.
                Err(BackendError::Refused { .. }) => {}
                Ok(_) | Err(_) => break,
            }
        }
        result
    }
}

/// A set with what was in it.
fn held(set: &Set) -> Option<(&Set, &Elements)> {
    match &set.content {
        Content::Planned(elements) => Some((set, elements)),
        Content::Living => None,
    }
}

/// The rules, and the elements of the sets that plans leave alone, with what is left of their time.
fn split(guard: &Ruleset, passed: Duration) -> (Plan, BTreeMap<String, (Set, Elements)>) {
    let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    let mut ruleset = guard.clone();
    let mut kept = BTreeMap::new();
    for set in ruleset.sets.iter_mut().filter(|set| set.flags.timeout) {
        let Content::Planned(mut elements) = std::mem::replace(&mut set.content, Content::Living) else {
            continue;
        };
        elements.retain(|_, element| match element.timeout {
            None => true,
            Some(Timeout { total_ms, left_ms }) => {
                let left_ms = left_ms.saturating_sub(passed);
                element.timeout = Some(Timeout { total_ms, left_ms });
                left_ms > 0
            }
        });
        kept.insert(set.name.clone(), (set.clone(), elements));
    }
    (Plan::Nftables(ruleset), kept)
}

/// Into a table without elements: what nobody can have taken back.
fn of_configuration(kept: &BTreeMap<String, (Set, Elements)>) -> Vec<Change> {
    let ranges = kept.values().filter(|(set, _)| set.flags.interval);
    ranges
        .map(|(set, before)| (SetRef::from(set), still_allowed(before, &Elements::new())))
        .filter(|(_, elements)| !elements.is_empty())
        .map(|(set, elements)| Change::AddElements { set, elements })
        .collect()
}

fn changes(live: &Live, kept: &BTreeMap<String, (Set, Elements)>, taken: &Taken) -> Vec<Change> {
    let mut out = Vec::new();
    for (name, (set, before)) in kept {
        let same = live.ruleset.set(name).is_some_and(|have| have.same_shape(set));
        let set = SetRef::from(set);
        let have = live.elements.get(name).filter(|_| same);
        match have {
            Some(have) if set.interval => {
                out.extend(replace(&set, have, still_allowed(before, have), SLACK_MS));
            }
            Some(have) => {
                let ended: Elements = have
                    .iter()
                    .filter(|(key, element)| before.get(*key).is_none_or(|had| is_longer(element, had)))
                    .map(|(key, element)| (key.clone(), element.clone()))
                    .collect();
                // In one transaction with their end: what was renewed meanwhile has its rest of before.
                let shorter: Elements =
                    ended.keys().filter_map(|key| Some((key.clone(), before.get(key)?.clone()))).collect();
                if !ended.is_empty() {
                    out.push(Change::DeleteElements { set: set.clone(), elements: ended });
                }
                if !shorter.is_empty() {
                    out.push(Change::AddElements { set: set.clone(), elements: shorter });
                }
                let mut back = before.clone();
                back.retain(|key, had| {
                    taken.has(name, key) && have.get(key).is_none_or(|has| is_longer(had, has))
                });
                if !back.is_empty() {
                    out.push(Change::RenewElements { set, elements: back });
                }
            }
            None => {
                let elements = outlived(&set, before, taken);
                if !elements.is_empty() {
                    out.push(Change::AddElements { set, elements });
                }
            }
        }
    }
    out
}

/// What comes back into a set that the trial did not have.
fn outlived(set: &SetRef, before: &Elements, taken: &Taken) -> Elements {
    match set.interval {
        true if taken.is_emptied(&set.name) => still_allowed(before, &Elements::new()),
        true => before.clone(),
        false => {
            let back = before.iter().filter(|(key, _)| !taken.is_ended(&set.name, key));
            back.map(|(key, element)| (key.clone(), element.clone())).collect()
        }
    }
}

/// Whether an element lasts longer than before, but for how exactly nftables counts.
fn is_longer(now: &Element, before: &Element) -> bool {
    match (now.timeout, before.timeout) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(now), Some(before)) => now.left_ms > before.left_ms + SLACK_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::model::{KeyPart, SetFlags, Value};
    use crate::service::taken::Deed;

    fn set(name: &str) -> Set {
        Set {
            name: name.into(),
            key: vec![KeyPart::Ipv4],
            value: Value::Nothing,
            flags: SetFlags { timeout: true, ..SetFlags::default() },
            size: Some(9),
            content: Content::Living,
        }
    }

    fn element(left_ms: u64) -> Element {
        Element { timeout: Some(Timeout { total_ms: 60_000, left_ms }), ..Element::default() }
    }

    fn live(sets: &[(&str, &[(u8, u64)])]) -> Live {
        let mut live = Live::default();
        for (name, elements) in sets {
            live.ruleset.sets.push(set(name));
            let elements = elements.iter().map(|&(key, left)| (vec![key; 4], element(left))).collect();
            live.elements.insert((*name).to_owned(), elements);
        }
        live
    }

    fn keys(set: &str, keys: &[u8]) -> Keys {
        Keys::from([(set.to_owned(), keys.iter().map(|&key| vec![key; 4]).collect())])
    }

    fn now(secs: u64) -> Now {
        Now { boot: Duration::from_secs(secs), ..crate::sys::clock::now() }
    }

    #[test]
    fn what_ended_stays_ended_what_came_ends_and_lost_grants_come_back_with_their_rest() {
        let before =
            live(&[("app_ssh_4", &[(1, 50_000), (2, 50_000)]), ("app_web_4", &[(3, 50_000), (4, 5_000)])]);
        let snapshot = Snapshot::of(Some(&before), now(100)).unwrap();
        let snapshot: Snapshot = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
        let (_, kept) = split(snapshot.guard.as_ref().unwrap(), Duration::from_secs(10));
        // Client 2 was revoked, client 9 was let in, the app `web` was removed.
        let after = live(&[("app_ssh_4", &[(1, 40_200), (9, 60_000)])]);
        let changes = changes(&after, &kept, &snapshot.taken);
        let [Change::DeleteElements { elements: ended, .. }, Change::AddElements { elements: back, .. }] =
            changes.as_slice()
        else {
            panic!("{changes:?}")
        };
        assert_eq!(*ended, Elements::from([(vec![9; 4], element(60_000))]));
        assert_eq!(*back, Elements::from([(vec![3; 4], element(40_000))]));
    }

    #[test]
    fn what_the_trial_itself_ended_or_shortened_comes_back() {
        let before = live(&[("app_ssh_4", &[(1, 50_000), (2, 50_000), (3, 50_000), (4, 5_000)])]);
        let mut snapshot = Snapshot::of(Some(&before), now(100)).unwrap();
        assert!(snapshot.taken.note(&Deed::Took(keys("app_ssh_4", &[1, 3, 4]))));
        let (_, kept) = split(snapshot.guard.as_ref().unwrap(), Duration::from_secs(10));
        let after = live(&[("app_ssh_4", &[(3, 1_000)])]);
        let changes = changes(&after, &kept, &snapshot.taken);
        let [Change::RenewElements { elements: back, .. }] = changes.as_slice() else {
            panic!("{changes:?}")
        };
        let expected: Elements = [1, 3].map(|key| (vec![key; 4], element(40_000))).into();
        assert_eq!(*back, expected);
    }

    #[test]
    fn what_somebody_took_back_does_not_come_back_with_an_app_that_the_trial_left_out() {
        let mut before =
            live(&[("app_web_4", &[(1, 50_000), (2, 50_000)]), ("allow_web_4", &[(3, 50_000), (4, 50_000)])]);
        let note = |words: &str| Some(words.to_owned());
        let web = before.elements.get_mut("app_web_4").unwrap();
        web.get_mut(&vec![1; 4]).unwrap().comment = note("alice two-step");
        web.get_mut(&vec![2; 4]).unwrap().comment = note("bobby two-step");
        before.ruleset.sets.iter_mut().find(|set| set.name == "allow_web_4").unwrap().flags.interval = true;
        let allowed = before.elements.get_mut("allow_web_4").unwrap();
        allowed.get_mut(&vec![3; 4]).unwrap().comment = note("config");
        allowed.get_mut(&vec![4; 4]).unwrap().comment = note("operator");
        let back = |deed: &dyn Fn(&Snapshot) -> Deed| {
            let mut snapshot = Snapshot::of(Some(&before), now(100)).unwrap();
            let deed = deed(&snapshot);
            assert!(snapshot.taken.note(&deed));
            let (_, kept) = split(snapshot.guard.as_ref().unwrap(), Duration::ZERO);
            let back = changes(&live(&[]), &kept, &snapshot.taken).into_iter().flat_map(|change| {
                let Change::AddElements { elements, .. } = change else { panic!("{change:?}") };
                elements.into_keys().map(|key| key[0])
            });
            back.collect::<Vec<_>>()
        };
        assert_eq!(back(&|_| Deed::Ended(keys("app_ssh_4", &[1]))), [3, 4, 1, 2]);
        assert_eq!(back(&|before| Deed::Ended(before.of_those(|note| note.by == "alice"))), [3, 4, 2]);
        assert_eq!(back(&|before| Deed::Emptied(before.sets(false))), [3, 4]);
        assert_eq!(back(&|before| Deed::Emptied(before.sets(true))), [3, 1, 2]);
        let at = |before: &Snapshot| before.keys_at("app_web_4", Some([2; 4].into()), |_| false);
        let revoked = |before: &Snapshot| {
            Deed::Ended(Keys::from([("app_web_4".to_owned(), at(before).into_iter().collect())]))
        };
        assert_eq!(back(&revoked), [3, 4, 1]);
    }

    #[test]
    fn what_was_renewed_meanwhile_has_its_rest_of_before() {
        let before = live(&[("app_ssh_4", &[(1, 50_000)])]);
        let snapshot = Snapshot::of(Some(&before), now(100)).unwrap();
        let (_, kept) = split(snapshot.guard.as_ref().unwrap(), Duration::from_secs(10));
        let after = live(&[("app_ssh_4", &[(1, 60_000)])]);
        let changes = changes(&after, &kept, &snapshot.taken);
        let [Change::DeleteElements { elements: ended, .. }, Change::AddElements { elements: back, .. }] =
            changes.as_slice()
        else {
            panic!("{changes:?}")
        };
        assert_eq!((ended.len(), back), (1, &Elements::from([(vec![1; 4], element(40_000))])));
    }
}
