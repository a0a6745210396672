use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::units::ClientAddr;

/// A keyed digest of what was presented; takes the place of the credentials themselves.
pub(crate) type Digest = [u8; 32];

/// Whose step 1 it is: the address, the app and the key of step 1, by their places in the settings.
pub(crate) type Knocker = (ClientAddr, usize, usize);

/// A step 1 that was right.
#[derive(Clone, Debug)]
pub(crate) struct Step1 {
    /// When step 2 closes, since the same fixed start as `Now::boot`.
    pub(crate) deadline: Duration,
    /// What was presented, to know it again.
    pub(crate) presented: Digest,
    /// Whether the time for typing a code has been given.
    pub(crate) prolonged: bool,
}

/// The live step 1s: bounded, found by address and app, ordered by expiry. Every operation is O(log n).
#[derive(Debug)]
pub(crate) struct Pending {
    capacity: usize,
    by_knocker: BTreeMap<Knocker, Step1>,
    by_deadline: BTreeSet<(Duration, Knocker)>,
}

impl Pending {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, by_knocker: BTreeMap::new(), by_deadline: BTreeSet::new() }
    }

    /// Forgets what has ended by `boot`.
    pub(crate) fn expire(&mut self, boot: Duration) {
        while let Some(&(deadline, knocker)) = self.by_deadline.first() {
            if deadline > boot {
                return;
            }
            self.by_deadline.pop_first();
            self.by_knocker.remove(&knocker);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.by_deadline.first().map(|&(deadline, _)| deadline)
    }

    /// Notes a step 1; an earlier one of the same knocker never ends sooner for it. False when the table is full.
    pub(crate) fn insert(&mut self, knocker: Knocker, mut step1: Step1) -> bool {
        if let Some(earlier) = self.by_knocker.get(&knocker) {
            step1.deadline = step1.deadline.max(earlier.deadline);
        } else if self.by_knocker.len() >= self.capacity {
            return false;
        }
        let deadline = step1.deadline;
        if let Some(earlier) = self.by_knocker.insert(knocker, step1) {
            self.by_deadline.remove(&(earlier.deadline, knocker));
        }
        self.by_deadline.insert((deadline, knocker));
        true
    }

    /// Whether an address has a step 1.
    pub(crate) fn any(&self, client: ClientAddr) -> bool {
        self.by_knocker.range((client, 0, 0)..=(client, usize::MAX, usize::MAX)).next().is_some()
    }

    /// Gives the step 1s of an address for an app time until `deadline`, each once; whether any had not had it yet.
    pub(crate) fn prolong(&mut self, client: ClientAddr, app: usize, deadline: Duration) -> bool {
        let mut any = false;
        for (&knocker, step1) in self.by_knocker.range_mut((client, app, 0)..=(client, app, usize::MAX)) {
            if !std::mem::replace(&mut step1.prolonged, true) {
                any = true;
                self.by_deadline.remove(&(step1.deadline, knocker));
                step1.deadline = step1.deadline.max(deadline);
                self.by_deadline.insert((step1.deadline, knocker));
            }
        }
        any
    }

    /// The places of the keys with which an address knocked for an app.
    pub(crate) fn keys(&self, client: ClientAddr, app: usize) -> impl Iterator<Item = usize> + '_ {
        self.by_knocker.range((client, app, 0)..=(client, app, usize::MAX)).map(|(&(_, _, key), _)| key)
    }

    /// The step 1 of this address that presented exactly this: its app and deadline.
    pub(crate) fn repeated(&self, client: ClientAddr, presented: &Digest) -> Option<(usize, Duration)> {
        self.by_knocker
            .range((client, 0, 0)..=(client, usize::MAX, usize::MAX))
            .filter(|(_, step1)| step1.presented.ct_eq(presented).into())
            .map(|(&(_, app, _), step1)| (app, step1.deadline))
            .next()
    }

    pub(crate) fn forget(&mut self, client: ClientAddr, app: usize) {
        let keys: Vec<usize> = self.keys(client, app).collect();
        for key in keys {
            let knocker = (client, app, key);
            if let Some(step1) = self.by_knocker.remove(&knocker) {
                self.by_deadline.remove(&(step1.deadline, knocker));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(n: u8) -> ClientAddr {
        ClientAddr::new([192, 0, 2, n].into())
    }

    fn until(secs: u64) -> Step1 {
        Step1 { deadline: Duration::from_secs(secs), presented: [0; 32], prolonged: false }
    }

    #[test]
    fn a_full_table_still_renews_and_recovers() {
        let mut pending = Pending::new(1);
        assert!(pending.insert((client(1), 0, 0), until(10)));
        assert!(!pending.insert((client(2), 0, 0), until(10)));
        assert!(pending.insert((client(1), 0, 0), until(5)));
        assert_eq!(pending.next_deadline(), Some(Duration::from_secs(10)));
        pending.expire(Duration::from_secs(10));
        assert!(pending.insert((client(2), 0, 0), until(20)));
    }

    #[test]
    fn time_for_a_code_is_given_once_and_never_shortens() {
        let mut pending = Pending::new(4);
        assert!(pending.insert((client(1), 0, 0), until(100)));
        assert!(pending.prolong(client(1), 0, Duration::from_secs(60)));
        assert_eq!(pending.next_deadline(), Some(Duration::from_secs(100)));
        assert!(!pending.prolong(client(1), 0, Duration::from_secs(200)));
        assert_eq!(pending.next_deadline(), Some(Duration::from_secs(100)));
    }

    proptest! {
        #[test]
        fn both_indexes_hold_the_same(ops in proptest::collection::vec((0_u8..4, 0_u8..3, 0_usize..2, 0_usize..2, 0_u64..20), 0..80)) {
            let mut pending = Pending::new(5);
            for (op, who, app, key, secs) in ops {
                match op {
                    0 => { pending.insert((client(who), app, key), until(secs)); }
                    1 => { pending.prolong(client(who), app, Duration::from_secs(secs)); }
                    2 => pending.forget(client(who), app),
                    _ => pending.expire(Duration::from_secs(secs)),
                }
                let sorted: BTreeSet<_> = pending.by_knocker.iter().map(|(&k, s)| (s.deadline, k)).collect();
                prop_assert_eq!(&sorted, &pending.by_deadline);
                prop_assert!(sorted.len() <= 5);
            }
        }
    }
}
