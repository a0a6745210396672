//! The page of figures: the same for everybody who asks.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::exposition::Page;
use super::families as of;
use crate::backend::{BOUNDS, Commits};
use crate::grant::End;
use crate::knock::Refusal;
use crate::ruleset::wire::RuleCounter;
use crate::service::around::Known;
use crate::service::tally::{ByWord, Figures, REPAIRS, RESULTS, WAYS};

/// So many rules have figures of their own; what is counted at more is summed up.
const RULES: usize = 2_000;
/// Chain and rule of that sum.
const OTHERS: &str = "(others)";

/// The page by what is known at a moment; `memory` is in bytes.
#[must_use]
pub fn document(figures: &Figures, known: &Known, memory: Option<u64>) -> String {
    let mut page = Page::default();
    page.add(&of::BUILD, &[env!("CARGO_PKG_VERSION"), figures.backend], 1);
    page.add(&of::STARTED, &[], seconds(known.started));
    if let Some(memory) = memory {
        page.add(&of::MEMORY, &[], memory);
    }
    if let Some(guarded) = figures.guarded {
        page.add(&of::GUARDED, &[], u8::from(guarded));
    }
    grants(&mut page, figures);
    knocks(&mut page, figures);
    rules(&mut page, figures.rules.as_deref().unwrap_or_default());
    for place in REPAIRS {
        page.add(&of::REPAIRS, &[place], figures.repairs.get(place).copied().unwrap_or_default());
    }
    page.add(&of::RELOADS, &["done"], known.reloaded);
    page.add(&of::RELOADS, &["refused"], known.refused);
    page.add(&of::LAST_RELOAD, &[], u8::from(known.last_reload_good && !known.users_refused));
    page.add(&of::CONFIGURED, &[], seconds(known.configured));
    commits(&mut page, &figures.commits);
    if let Some(ends) = known.certificate_ends {
        page.add(&of::CERTIFICATE, &[], seconds(ends));
    }
    if let Some(front) = known.front {
        page.add(&of::FRONT, &[], u8::from(known.front_problem().is_none()));
        page.add(&of::FRONT_RESTARTS, &[], front.restarts);
    }
    page.finish()
}

fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn grants(page: &mut Page, figures: &Figures) {
    for (name, app) in &figures.apps {
        page.add(&of::GRANTS, &[name], app.grants);
    }
    page.add(&of::GRANTS_LIMIT, &[], figures.room);
    let usual = WAYS.map(|how| how.word());
    let ends = [End::Expired, End::Revoked].map(End::word);
    for (name, app) in &figures.apps {
        for (word, count) in with_zeros(&app.turns.opened, &usual) {
            page.add(&of::OPENED, &[name, word], count);
        }
    }
    for (name, app) in &figures.apps {
        for (word, count) in with_zeros(&app.turns.renewed, &usual) {
            page.add(&of::RENEWED, &[name, word], count);
        }
    }
    for (name, app) in &figures.apps {
        for (word, count) in with_zeros(&app.turns.closed, &ends) {
            page.add(&of::CLOSED, &[name, word], count);
        }
    }
}

/// What nothing was counted of is shown as well: nobody can tell how much a figure grew that was not there.
fn with_zeros(counts: &ByWord, words: &[&'static str]) -> ByWord {
    let mut all: ByWord = words.iter().map(|word| (*word, 0)).collect();
    all.extend(counts);
    all
}

fn knocks(page: &mut Page, figures: &Figures) {
    for (step, results) in RESULTS {
        for result in results {
            let count = figures.knocks.get(&(step, result)).copied().unwrap_or_default();
            page.add(&of::KNOCKS, &[if step == 1 { "1" } else { "2" }, result], count);
        }
    }
    for reason in Refusal::ALL.map(Refusal::word) {
        page.add(&of::DENIALS, &[reason], figures.denials.get(reason).copied().unwrap_or_default());
    }
    page.add(&of::LOCKOUTS, &[], figures.lockouts);
    page.add(&of::LOCKED_OUT, &[], figures.locked_out);
}

fn rules(page: &mut Page, rules: &[RuleCounter]) {
    let mut sums: BTreeMap<(&str, &str, &str), (u64, u64)> = BTreeMap::new();
    for rule in rules {
        let own = (rule.chain.as_str(), rule.what.as_str(), rule.verdict);
        let key =
            if sums.len() < RULES || sums.contains_key(&own) { own } else { (OTHERS, OTHERS, rule.verdict) };
        let sum = sums.entry(key).or_default();
        *sum = (sum.0.saturating_add(rule.packets), sum.1.saturating_add(rule.bytes));
    }
    for ((chain, rule, verdict), (packets, _)) in &sums {
        page.add(&of::PACKETS, &[chain, rule, verdict], packets);
    }
    for ((chain, rule, verdict), (_, bytes)) in &sums {
        page.add(&of::BYTES, &[chain, rule, verdict], bytes);
    }
}

fn commits(page: &mut Page, commits: &Commits) {
    let mut so_far = 0;
    for (bound, count) in BOUNDS.iter().zip(commits.within) {
        so_far += count;
        page.add_part(&of::COMMITS, "_bucket", Some(&bound.as_secs_f64().to_string()), so_far);
    }
    page.add_part(&of::COMMITS, "_bucket", Some("+Inf"), commits.count);
    page.add_part(&of::COMMITS, "_sum", None, commits.sum.as_secs_f64());
    page.add_part(&of::COMMITS, "_count", None, commits.count);
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
