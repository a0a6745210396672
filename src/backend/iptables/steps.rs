//! What has to be done to get from what is listed to what is wanted, and in which order.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::boot::Boot;
use super::tools::Tools;
use super::{IptablesError, NEW_SET, Observed};
use crate::ruleset::iptables::elements::{creation, listed};
use crate::ruleset::iptables::model::{IpSet, SetContent, Tables};
use crate::ruleset::iptables::names;
use crate::ruleset::iptables::restore::{TableChange, changes};
use crate::ruleset::iptables::save::{ListedElement, ListedSet, sets};
use crate::ruleset::iptables::sets::same_kind;
use crate::ruleset::keeping::heirs;
use crate::units::Family;

/// The changes of both families in their order: what no longer opens and the gates of both, then the rest.
pub(super) fn steps(seen: &Observed, wanted: &Tables) -> Vec<(Family, TableChange)> {
    let mut out = Vec::new();
    for (family, listing) in Family::BOTH.into_iter().zip(&seen.listings) {
        let tables = wanted.of(family);
        let closes = |change: &TableChange| {
            change.table == "mangle" && !tables.is_empty()
                || change.table == "nat" && tables.iter().all(|table| table.name != "nat")
        };
        let each = changes(listing, tables).into_iter();
        out.extend(each.map(|change| (!closes(&change), family, change)));
    }
    out.sort_by_key(|(later, ..)| *later);
    out.into_iter().map(|(_, family, change)| (family, change)).collect()
}

pub(super) fn what(steps: &[(Family, TableChange)]) -> Vec<String> {
    let family = |family: &Family| match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    steps
        .iter()
        .flat_map(|(of, change)| change.what.iter().map(move |what| format!("{}: {what}", family(of))))
        .collect()
}

pub(super) fn stale_sets(seen: &Observed, wanted: &Tables) -> Vec<String> {
    let known = |name: &&String| *name == NEW_SET || wanted.ipsets.iter().any(|set| set.name == **name);
    seen.sets.keys().filter(|name| !known(name)).cloned().collect()
}

pub(super) fn is_filled_by_rules(name: &str) -> bool {
    ["ka_step1_", "ka_spoken_", "ka_talked_", "ka_behind_"].iter().any(|stem| name.starts_with(stem))
}

/// What sets hold that go, for those that take their place.
pub(super) fn inherited(
    tools: &Tools,
    seen: &Observed,
    stale: &[String],
    wanted: &Tables,
) -> Result<String, IptablesError> {
    let new: Vec<&IpSet> = wanted.ipsets.iter().filter(|set| !seen.sets.contains_key(&set.name)).collect();
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    // What somebody saved is not believed.
    for old in stale.iter().filter(|_| !seen.loaded) {
        let Some(meaning) = names::meaning(old) else { continue };
        let heirs: Vec<&str> = heirs(meaning, new.iter().map(|set| set.meaning.as_str())).collect();
        if heirs.is_empty() {
            continue;
        }
        let held = sets(&tools.save_sets(&[old])?).remove(old).unwrap_or_default();
        let line = |element: &ListedElement| {
            format!("{} timeout {}", element.key, element.left_secs.unwrap_or(0).max(1))
        };
        for heir in heirs {
            found.entry(heir).or_default().extend(held.elements.iter().map(line));
        }
    }
    let mut out = String::new();
    for set in new {
        // More than it has room for would be refused.
        let lines = found.remove(set.meaning.as_str()).unwrap_or_default().into_iter().take(room(set));
        lines.for_each(|line| {
            let _ = writeln!(out, "add {} {line}", set.name);
        });
    }
    Ok(out)
}

fn room(set: &IpSet) -> usize {
    let mut words = set.kind.split_whitespace().skip_while(|word| *word != "maxelem");
    words.nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn exchange(set: &IpSet, have: &ListedSet) -> String {
    let new = IpSet { name: NEW_SET.to_owned(), ..set.clone() };
    let mut out = format!("create {NEW_SET} {}\n", new.kind);
    for element in &have.elements {
        let secs = element.left_secs.unwrap_or(0);
        // What packets put there has none, and ipset takes no empty one.
        let comment = element.comment.as_deref().filter(|comment| !comment.is_empty());
        let comment = comment.map(|comment| format!(" comment \"{comment}\"")).unwrap_or_default();
        let _ = writeln!(out, "add {NEW_SET} {} timeout {secs}{comment}", element.key);
    }
    let _ = writeln!(out, "swap {NEW_SET} {}\ndestroy {NEW_SET}", set.name);
    out.push_str(&creation(set));
    out
}

/// What makes the sets that rules ask, with their sentinels; a set of another type is exchanged for one with the same
/// elements. Sets of another run of the kernel are emptied.
pub(super) fn set_changes(seen: &Observed, wanted: &Tables, boot: &Boot) -> String {
    let mut out = String::new();
    if seen.sets.contains_key(NEW_SET) {
        // Somebody was killed in the middle of an exchange.
        let _ = writeln!(out, "destroy {NEW_SET}");
    }
    let all = seen.sets.keys().filter(|name| seen.loaded && *name != NEW_SET);
    out.extend(all.map(|name| format!("flush {name}\n")));
    for set in &wanted.ipsets {
        match seen.sets.get(&set.name) {
            None => out.push_str(&creation(set)),
            // Not listed, so that their type is not known; ours have had no other.
            Some(_) if matches!(set.content, SetContent::Packets | SetContent::Flows) => {}
            Some(have) if !same_kind(&have.kind, &set.kind) => out.push_str(&exchange(set, have)),
            Some(have) => {
                if set.content == SetContent::Kept && (!listed(have).1 || boot.is_missing(have)) {
                    out.push_str(&creation(set));
                }
            }
        }
    }
    out
}

pub(super) fn lines(text: &str) -> usize {
    text.lines().count()
}
