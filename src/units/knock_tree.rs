//! The knocks of many clients that are right for a limited time, as one tree: what a source has knocked is one place
//! in it, and a packet costs the same with one client or thousands.
//!
//! A place is known by the knocks that lead to it, hashed. So what is added later never changes what is there, paths
//! that begin alike share their beginning, and what the kernel remembers means the same after a restart, or nothing.
//!
//! Other than the [`Automaton`](super::Automaton) of fixed sequences it recognises a beginning in the middle of other
//! knocks only from its first knock on. What does not continue counts as a first knock, or as nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Knock, START};

/// The mark that a knock leads to which repeats the one before: where the source stands stays as it is.
pub const STAY: u32 = u32::MAX;
/// How long an end is remembered after it was last right, so that what is told of it late still has a name.
const MEMORY: Duration = Duration::from_secs(60);

/// What somebody is to knock until a moment.
#[derive(Clone, PartialEq, Eq)]
pub struct KnockPath {
    /// The knocks in order; at least one, and none the same as the one before it.
    pub knocks: Vec<Knock>,
    /// Who knocks.
    pub who: Arc<str>,
    /// What it leads to, by a name of the caller's.
    pub deed: Arc<str>,
    /// Of which time step it is.
    pub step: u64,
    /// Until when it is right, since 1970 began.
    pub until: Duration,
}

impl fmt::Debug for KnockPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnockPath").field("who", &self.who).finish_non_exhaustive()
    }
}

/// Where a path ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathEnd {
    /// Who knocks it.
    pub who: Arc<str>,
    /// What it leads to.
    pub deed: Arc<str>,
    /// Of which time steps it is; one, but for rare coincidences.
    pub steps: Vec<u64>,
    /// Until when it is right.
    pub until: Duration,
}

/// A step in the tree: where it leads to, and until when it is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeStep {
    /// The mark of the place, or [`STAY`].
    pub to: u32,
    /// Since 1970 began.
    pub until: Duration,
}

/// What the adding of paths changed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Growth {
    /// Steps that were not there.
    pub new: BTreeMap<(u32, Knock), TreeStep>,
    /// Steps that are right for longer.
    pub renewed: BTreeMap<(u32, Knock), TreeStep>,
    /// Ends that were not there.
    pub new_ends: BTreeMap<u32, PathEnd>,
    /// Ends that are right for longer.
    pub renewed_ends: BTreeMap<u32, PathEnd>,
    /// Paths that were left out, because they cannot be told from others'.
    pub left_out: usize,
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Growth").field("new", &self.new.len()).finish_non_exhaustive()
    }
}

/// The tree. Printing it for debugging does not tell the knocks.
#[derive(Clone, Default)]
pub struct KnockTree {
    /// Marks that are somebody else's.
    reserved: BTreeSet<u32>,
    steps: BTreeMap<(u32, Knock), TreeStep>,
    ends: BTreeMap<u32, PathEnd>,
    /// Every place, with whether it leads on.
    places: BTreeMap<u32, bool>,
}

impl fmt::Debug for KnockTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnockTree").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl KnockTree {
    /// An empty tree, whose places have none of these marks.
    #[must_use]
    pub fn new(reserved: BTreeSet<u32>) -> Self {
        Self { reserved, ..Self::default() }
    }

    /// Adds paths, in order. One that ends on the way of another's, or leads over the end of another's, is left out:
    /// it opens nothing until it is another one. Of several that are the same, so are all but the first client's.
    pub fn add(&mut self, paths: impl IntoIterator<Item = KnockPath>) -> Growth {
        let mut growth = Growth::default();
        for path in paths {
            if path.knocks.is_empty() || self.clashes(&path) {
                growth.left_out += 1;
            } else {
                self.add_one(path, &mut growth);
            }
        }
        growth
    }

    fn clashes(&self, path: &KnockPath) -> bool {
        let mut at = START;
        for (left, &knock) in (0..path.knocks.len()).rev().zip(&path.knocks) {
            let Some(step) = self.steps.get(&(at, knock)) else { return false };
            at = step.to;
            let of_another = self
                .ends
                .get(&at)
                .is_some_and(|end| left > 0 || end.who != path.who || end.deed != path.deed);
            let on_the_way = left == 0 && self.places.get(&at).is_some_and(|&leads_on| leads_on);
            if of_another || on_the_way {
                return true;
            }
        }
        false
    }

    fn add_one(&mut self, path: KnockPath, growth: &mut Growth) {
        let KnockPath { knocks, who, deed, step, until } = path;
        let mut at = START;
        let mut hash = FNV_START;
        for (depth, &knock) in (1..).zip(&knocks) {
            hash = fnv(hash, knock);
            let to = match self.steps.get(&(at, knock)) {
                Some(step) => step.to,
                None => self.new_place(hash),
            };
            self.grow((at, knock), TreeStep { to, until }, growth);
            if depth > 1 {
                self.grow((to, knock), TreeStep { to: STAY, until }, growth);
            }
            if at != START {
                self.places.insert(at, true);
            }
            at = to;
        }
        let known = self.ends.get(&at);
        let had = known.map(|end| end.until);
        let mut steps = known.map(|end| end.steps.clone()).unwrap_or_default();
        steps.push(step);
        let end = PathEnd { who, deed, steps, until: had.map_or(until, |had| had.max(until)) };
        match had {
            Some(had) if had >= until => {}
            Some(_) if !growth.new_ends.contains_key(&at) => {
                drop(growth.renewed_ends.insert(at, end.clone()))
            }
            Some(_) | None => drop(growth.new_ends.insert(at, end.clone())),
        }
        self.ends.insert(at, end);
    }

    fn grow(&mut self, key: (u32, Knock), step: TreeStep, growth: &mut Growth) {
        match self.steps.get(&key).map(|have| have.until) {
            Some(until) if until >= step.until => return,
            Some(_) if !growth.new.contains_key(&key) => drop(growth.renewed.insert(key, step)),
            Some(_) | None => drop(growth.new.insert(key, step)),
        }
        self.steps.insert(key, step);
    }

    fn new_place(&mut self, hash: u64) -> u32 {
        let mut hash = hash;
        loop {
            let mark = folded(hash);
            let free = mark != START && mark != STAY && !self.reserved.contains(&mark);
            if free && !self.places.contains_key(&mark) {
                self.places.insert(mark, false);
                return mark;
            }
            hash = fnv_byte(hash, b'+');
        }
    }

    /// Forgets what is right no more.
    pub fn forget(&mut self, now: Duration) {
        self.steps.retain(|_, step| step.until > now);
        self.ends.retain(|_, end| end.until + MEMORY > now);
        let mut places: BTreeMap<u32, bool> = self.ends.keys().map(|&mark| (mark, false)).collect();
        for (&(from, _), step) in self.steps.iter().filter(|(_, step)| step.to != STAY) {
            places.entry(step.to).or_insert(false);
            if from != START {
                places.insert(from, true);
            }
        }
        self.places = places;
    }

    /// Every end with its place.
    pub fn ends(&self) -> impl Iterator<Item = (u32, &PathEnd)> {
        self.ends.iter().map(|(&mark, end)| (mark, end))
    }

    /// Every step: from, by which knock, to where.
    pub fn steps(&self) -> impl Iterator<Item = ((u32, Knock), TreeStep)> + '_ {
        self.steps.iter().map(|(&key, &step)| (key, step))
    }

    /// The end at a place.
    #[must_use]
    pub fn end(&self, mark: u32) -> Option<&PathEnd> {
        self.ends.get(&mark)
    }

    /// Where a knock leads to from a place: at [`STAY`], nowhere else; at none, to nothing at all.
    #[must_use]
    pub fn next(&self, from: u32, knock: Knock, now: Duration) -> Option<u32> {
        let step = |from| self.steps.get(&(from, knock)).filter(|step| step.until > now).map(|step| step.to);
        step(from).or_else(|| step(START))
    }

    /// How many steps there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of Fowler, Noll and Vo (FNV-1a); nobody chooses his input, which follows from secrets.
fn fnv(hash: u64, knock: Knock) -> u64 {
    let [high, low] = knock.port().to_be_bytes();
    let [long, short] = knock.length().map_or([u8::MAX; 2], u16::to_be_bytes);
    [knock.protocol().number(), high, low, long, short].into_iter().fold(hash, fnv_byte)
}

fn fnv_byte(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
}

/// To 32 bits, with every bit of the 64 in each of them (the finishing step of MurmurHash3).
fn folded(hash: u64) -> u32 {
    let mut mixed = hash;
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ (mixed >> 33)).wrapping_mul(factor);
    }
    u32::try_from(mixed >> 32).unwrap_or(STAY)
}

#[cfg(test)]
#[path = "knock_tree_tests.rs"]
mod tests;
