//! How long the firewall took to carry changes out.

use std::time::{Duration, Instant};

/// Upper ends of the ranges in which times are counted.
pub const BOUNDS: [Duration; 12] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

/// The times of all transactions so far, those that were refused included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commits {
    /// How many took at most as long as each of [`BOUNDS`] and longer than the one before.
    pub within: [u64; BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// What they took together.
    pub sum: Duration,
}

impl Commits {
    /// Counts one that took so long.
    pub fn add(&mut self, took: Duration) {
        let at = BOUNDS.iter().position(|bound| took <= *bound);
        if let Some(place) = at.and_then(|at| self.within.get_mut(at)) {
            *place += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// Counts one that began then and is over now.
    pub(super) fn since(&mut self, begun: Instant) {
        self.add(begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_counted_once_and_the_longest_in_no_range() {
        let mut commits = Commits::default();
        let times = [0, 50, 51, 10_000_000, 10_000_001];
        times.iter().for_each(|&us| commits.add(Duration::from_micros(us)));
        assert_eq!((commits.within[0], commits.within[1], commits.within[11]), (2, 1, 1));
        assert_eq!((commits.within.iter().sum::<u64>(), commits.count), (4, 5));
        assert_eq!(commits.sum, Duration::from_micros(times.iter().sum()));
        assert!(BOUNDS.is_sorted());
    }
}
