//! Knocks that change with time, as elements of maps: which are right at a moment, and which of them were used.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::diff::{Change, SetRef};
use super::expr::Verdict;
use super::knocking::{Knocking, TimedRules};
use super::model::{Element, Elements, Timeout};
use super::plan::{SPENT, TIMED, TIMED_OPEN, knock_key, sized_key};
use crate::config::{Settings, TimeSequence};
use crate::units::{
    Growth, Knock, KnockPath, KnockTree, Now, PathEnd, STAY, TreeStep, UsedSteps, knocks, step_at,
};

/// Elements in one transaction.
pub const MOST_ELEMENTS: usize = 20_000;
/// Elements that were over for less than this may still be there: clocks are corrected, and timers round.
const SLACK: Duration = Duration::from_secs(5);
/// Among the ends that were used, this one says that nobody has emptied the set: no path has it.
const WITNESS: u32 = STAY;
/// This one says that not all is known of what was used: to a daemon that starts, as long as it matters.
const DOUBT: u32 = STAY - 1;
/// How long nobody is said to have emptied it; it is said again long before.
const WITNESS_MS: u64 = 365 * 24 * 3_600 * 1_000;

/// The knocks that are right now, and what was used of those that were.
#[derive(Clone, Debug, Default)]
pub struct TimedKnocks {
    tree: KnockTree,
    /// The last time step whose knocks are in the tree.
    upto: Option<u64>,
    used: BTreeMap<Arc<str>, UsedSteps>,
    /// Since when all that was used is known, on the clock that never goes back.
    known_since: Duration,
    /// Until when something was used that is not known any more, by the calendar.
    used_until: Duration,
    /// How often something was learnt to be used.
    uses: u64,
}

/// What is to be done to the maps: transactions, one after the other. Printing it for debugging does not tell knocks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Refill {
    /// Each a transaction.
    pub transactions: VecDeque<Vec<Change>>,
    /// Clients whose knocks cannot be told from others' for a time step.
    pub left_out: usize,
}

impl fmt::Debug for Refill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refill").field("transactions", &self.transactions.len()).finish_non_exhaustive()
    }
}

impl TimedKnocks {
    /// Notes that what was used before a moment may not all be known: what could be knocked by then counts as used.
    pub fn doubt(&mut self, boot: Duration) {
        self.known_since = self.known_since.max(boot);
    }

    /// The same by the calendar, which may be behind that now.
    pub fn refuse_until(&mut self, until: SystemTime) {
        self.used_until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    }

    /// Goes up with what is learnt to be used.
    #[must_use]
    pub fn uses(&self) -> u64 {
        self.uses
    }

    /// Whether these ends, as read from the kernel, are those that were put there: nobody has emptied the set.
    #[must_use]
    pub fn is_witnessed(spent: &Elements) -> bool {
        spent.contains_key(&mark_key(WITNESS))
    }

    /// Whether the daemon that put these ends there did not know all that was used, and it still matters.
    #[must_use]
    pub fn is_doubted(spent: &Elements) -> bool {
        spent.contains_key(&mark_key(DOUBT))
    }

    /// Notes that the knocks that end here were used; by whom, if that is known, and whether that is news.
    pub fn on_used(&mut self, mark: u32) -> Option<(Arc<str>, bool)> {
        let PathEnd { who, steps, .. } = self.tree.end(mark)?.clone();
        let mut news = false;
        for step in steps {
            news |= self.remember(&who, step);
        }
        self.uses += u64::from(news);
        Some((who, news))
    }

    /// Notes that a client's knocks of a time step were used; true if that is news.
    pub fn remember(&mut self, who: &Arc<str>, step: u64) -> bool {
        self.used.entry(who.clone()).or_default().remember(step)
    }

    /// Notes all ends that a set in the kernel names.
    pub fn on_read(&mut self, elements: &Elements) {
        for mark in elements.keys().filter_map(|key| Some(u32::from_ne_bytes(*key.first_chunk()?))) {
            self.on_used(mark);
        }
    }

    /// Whose knocks end here.
    #[must_use]
    pub fn who(&self, mark: u32) -> Option<Arc<str>> {
        self.tree.end(mark).map(|end| end.who.clone())
    }

    /// What was used and could be right again: clients, with time steps from this one on.
    pub fn used_since(&self, step: u64) -> impl Iterator<Item = (&str, u64)> {
        let pairs = self.used.iter().flat_map(|(who, steps)| steps.iter().map(move |step| (&**who, step)));
        pairs.filter(move |&(_, used)| used >= step)
    }

    /// Works out anew what is right, whatever was so before. [`TimedKnocks::refill`] tells what that means.
    pub fn rebuild(&mut self, settings: &Settings, knocking: &Knocking, now: Now) -> usize {
        self.tree = KnockTree::new(knocking.moves.iter().map(|(mark, _)| *mark).chain([DOUBT]).collect());
        self.upto = None;
        let (Some(sequence), Some(rules)) = (&settings.time_sequence, &knocking.timed) else { return 0 };
        let at = step_at(now.wall, sequence.every);
        let drift = u64::from(sequence.drift);
        let paths = (at.saturating_sub(drift)..=at + drift)
            .flat_map(|step| self.paths(sequence, rules, step, now))
            .collect::<Vec<_>>();
        self.upto = Some(at + drift);
        self.tree.add(paths).left_out
    }

    /// Everything, into maps that may hold anything.
    #[must_use]
    pub fn refill(&self, knocking: &Knocking, now: Now) -> VecDeque<Vec<Change>> {
        let Some(rules) = &knocking.timed else { return VecDeque::new() };
        let mut spent = self.spent(self.tree.ends(), now);
        let witness = Timeout::fresh_ms(WITNESS_MS);
        spent.insert(mark_key(WITNESS), Element { timeout: Some(witness), ..Element::default() });
        let matters = self.known_since + Duration::from_secs(rules.used_secs);
        if !self.known_since.is_zero() && matters > now.boot {
            let left_ms = u64::try_from((matters - now.boot).as_millis()).unwrap_or(WITNESS_MS);
            let doubt = Timeout::fresh_ms(left_ms.max(1));
            spent.insert(mark_key(DOUBT), Element { timeout: Some(doubt), ..Element::default() });
        }
        let first = [TIMED_OPEN, TIMED, SPENT].map(|set| Change::FlushSet(set.to_owned()));
        let all = [
            (SetRef::plain(SPENT), spent, Kind::New),
            (SetRef::plain(TIMED_OPEN), doors(self.tree.ends(), now), Kind::New),
            (steps_set(), steps(rules, self.tree.steps(), now), Kind::New),
        ];
        transactions(first.to_vec(), all)
    }

    /// Adds the knocks of time steps that have come near; none where nothing has. Where that is not the next step
    /// only, everything is to be worked out anew.
    pub fn advance(&mut self, settings: &Settings, knocking: &Knocking, now: Now) -> Advance {
        let (Some(sequence), Some(rules)) = (&settings.time_sequence, &knocking.timed) else {
            return Advance::Nothing;
        };
        let wanted = step_at(now.wall, sequence.every) + u64::from(sequence.drift);
        match self.upto {
            Some(upto) if upto == wanted => return Advance::Nothing,
            Some(upto) if upto + 1 == wanted => {}
            Some(_) | None => return Advance::Rebuild,
        }
        // What is over for us may not be over for the kernel yet, which then would leave it as it is.
        self.tree.forget(since_1970(now).saturating_sub(SLACK));
        let paths = self.paths(sequence, rules, wanted, now);
        let Growth { new, renewed, new_ends, renewed_ends, left_out } = self.tree.add(paths);
        self.upto = Some(wanted);
        let ends = || new_ends.iter().chain(&renewed_ends).map(|(&mark, end)| (mark, end));
        let all = [
            (SetRef::plain(SPENT), self.spent(ends(), now), Kind::Renewed),
            (
                SetRef::plain(TIMED_OPEN),
                doors(new_ends.iter().map(|(&mark, end)| (mark, end)), now),
                Kind::New,
            ),
            (
                SetRef::plain(TIMED_OPEN),
                doors(renewed_ends.iter().map(|(&mark, end)| (mark, end)), now),
                Kind::Renewed,
            ),
            (steps_set(), steps(rules, new.iter().map(|(key, step)| (*key, *step)), now), Kind::New),
            (steps_set(), steps(rules, renewed.iter().map(|(key, step)| (*key, *step)), now), Kind::Renewed),
        ];
        Advance::Grow(Refill { transactions: transactions(Vec::new(), all), left_out })
    }

    /// What clients knock in a time step; nothing in one that may have been used unheard.
    fn paths(&self, sequence: &TimeSequence, rules: &TimedRules, step: u64, now: Now) -> Vec<KnockPath> {
        let every = sequence.every.as_secs();
        let drift = u64::from(sequence.drift);
        let begins = Duration::from_secs(step.saturating_sub(drift).saturating_mul(every));
        let ends = Duration::from_secs((step + 1 + drift).saturating_mul(every));
        let known_since = since_1970(now).saturating_sub(now.boot.saturating_sub(self.known_since));
        if begins < known_since.max(self.used_until) {
            return Vec::new();
        }
        let of_client = |(client, deed): (&crate::config::SequenceClient, &Arc<str>)| {
            let expires = client.expires.map(|at| Duration::from_secs(at.as_secs()));
            let until = expires.map_or(ends, |expires| expires.min(ends));
            if client.disabled || until <= since_1970(now) {
                return None;
            }
            let knocks = knocks(&client.secret, client.pin.as_ref(), step, &sequence.shape(client));
            Some(KnockPath { knocks, who: client.name.as_str().into(), deed: deed.clone(), step, until })
        };
        sequence.clients.iter().zip(&rules.of_client).filter_map(of_client).collect()
    }

    fn spent<'e>(&self, ends: impl Iterator<Item = (u32, &'e PathEnd)>, now: Now) -> Elements {
        let was_used = |end: &PathEnd| {
            let of_client = self.used.get(&end.who);
            of_client.is_some_and(|used| end.steps.iter().any(|&step| used.contains(step)))
        };
        let element =
            |(mark, end): (u32, &PathEnd)| Some((mark_key(mark), timed(Element::default(), end.until, now)?));
        ends.filter(|(_, end)| was_used(end)).filter_map(element).collect()
    }
}

/// What a new moment means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// Nothing.
    Nothing,
    /// This is added.
    Grow(Refill),
    /// Time has jumped.
    Rebuild,
}

/// Takes off the times of elements what has passed since they were worked out; those that are over by now go.
pub fn shorten(changes: &mut Vec<Change>, passed: Duration) {
    let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    changes.retain_mut(|change| {
        let (Change::AddElements { elements, .. } | Change::RenewElements { elements, .. }) = change else {
            return true;
        };
        elements.retain(|_, element| {
            let Some(timeout) = &mut element.timeout else { return true };
            let left_ms = timeout.left_ms.saturating_sub(passed_ms);
            *timeout = Timeout::fresh_ms(left_ms);
            left_ms > 0
        });
        !elements.is_empty()
    });
}

/// Time since 1970 began.
fn since_1970(now: Now) -> Duration {
    now.wall.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn mark_key(mark: u32) -> Vec<u8> {
    mark.to_ne_bytes().to_vec()
}

/// With a timeout that ends at a moment; none if that is over.
fn timed(element: Element, until: Duration, now: Now) -> Option<Element> {
    let left = until.checked_sub(since_1970(now)).filter(|left| !left.is_zero())?;
    let ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Some(Element { timeout: Some(Timeout::fresh_ms(ms.max(1))), ..element })
}

fn doors<'e>(ends: impl Iterator<Item = (u32, &'e PathEnd)>, now: Now) -> Elements {
    let element = |(mark, end): (u32, &PathEnd)| {
        let verdict = Some(Verdict::Goto(end.deed.to_string()));
        Some((mark_key(mark), timed(Element { verdict, ..Element::default() }, end.until, now)?))
    };
    ends.filter_map(element).collect()
}

fn steps(rules: &TimedRules, steps: impl Iterator<Item = ((u32, Knock), TreeStep)>, now: Now) -> Elements {
    let element = |((from, knock), step): ((u32, Knock), TreeStep)| {
        let key = if rules.sized { sized_key(from, knock) } else { knock_key(from, knock) };
        Some((key, timed(Element { mark: Some(step.to), ..Element::default() }, step.until, now)?))
    };
    steps.filter_map(element).collect()
}

fn steps_set() -> SetRef {
    SetRef { concatenated: true, ..SetRef::plain(TIMED) }
}

#[derive(Clone, Copy)]
enum Kind {
    New,
    Renewed,
}

/// Cuts changes into transactions. None of them opens anything by itself that all of them do not.
fn transactions(
    first: Vec<Change>,
    all: impl IntoIterator<Item = (SetRef, Elements, Kind)>,
) -> VecDeque<Vec<Change>> {
    let mut out = VecDeque::new();
    let (mut changes, mut count) = (first, 0);
    for (set, elements, kind) in all {
        let mut piece = Elements::new();
        let close = |changes: &mut Vec<Change>, piece: Elements| {
            let set = set.clone();
            if !piece.is_empty() {
                changes.push(match kind {
                    Kind::New => Change::AddElements { set, elements: piece },
                    Kind::Renewed => Change::RenewElements { set, elements: piece },
                });
            }
        };
        for (key, element) in elements {
            if count == MOST_ELEMENTS {
                close(&mut changes, std::mem::take(&mut piece));
                out.push_back(std::mem::take(&mut changes));
                count = 0;
            }
            piece.insert(key, element);
            count += 1;
        }
        close(&mut changes, piece);
    }
    if !changes.is_empty() {
        out.push_back(changes);
    }
    out
}

#[cfg(test)]
#[path = "timed_tests.rs"]
mod tests;
