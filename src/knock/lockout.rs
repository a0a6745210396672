use std::fmt;
use std::time::Duration;

use crate::config::LockoutRule;
use crate::knock::places::Places;
use crate::units::ClientAddr;

/// Lock-outs of a length that doubles this often are as long as any; keeps the shift in bounds.
const MOST_DOUBLINGS: u64 = 31;
/// The same request that fails again so soon is none that somebody made.
const AGAIN: Duration = Duration::from_secs(60);

/// Locks an address (IPv6: a /64) out after repeated failures, each time twice as long; fixed memory, constant time.
///
/// Failures within a lock-out are not judged, do not count and prolong nothing. An address is forgotten when it has
/// been quiet for as long as the longest lock-out. Where eight addresses that share a set are all locked out, others
/// of that set are not counted; the rate limit and the cap hold them as well.
///
/// What an address failed with last counts once a minute: a client's kernel repeats a request that nobody answers, and
/// where the listener's queue is full of what strangers forged (SYN cookies), each time as a connection of its own.
pub struct Lockout {
    rule: Option<LockoutRule>,
    places: Places<4>,
}

/// What is known of an address, in milliseconds since the fixed start of `Now::boot`.
#[derive(Clone, Copy)]
struct Record {
    last: u64,
    until: u64,
    failures: u32,
    /// How often it was locked out.
    times: u32,
    /// What it failed with last.
    mark: u64,
}

/// An address that is locked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedOut {
    /// The address; of IPv6 the first of the /64.
    pub client: ClientAddr,
    /// How much of the lock-out is left.
    pub left: Duration,
    /// How long it lasts in all.
    pub whole: Duration,
    /// How often the address was locked out, this time included.
    pub times: u32,
}

impl Lockout {
    /// Nobody is locked out yet; none: nobody ever is. `key` is random.
    #[must_use]
    pub fn new(rule: Option<LockoutRule>, key: &[u8; 16]) -> Self {
        Self { rule, places: Places::new(key) }
    }

    /// Takes another rule from now on. Lock-outs that run go on; without a rule all are lifted.
    pub fn set_rule(&mut self, rule: Option<LockoutRule>) {
        self.rule = rule;
        if self.rule.is_none() {
            self.lift_all(Duration::ZERO);
        }
    }

    /// How long an address is still locked out at `now`.
    #[must_use]
    pub fn left(&self, client: ClientAddr, now: Duration) -> Option<Duration> {
        let record = Record::read(self.places.get(client)?);
        left(record, now)
    }

    /// Whether an address has failures on record.
    #[must_use]
    pub fn has_failed(&self, client: ClientAddr, now: Duration) -> bool {
        let record = self.places.get(client).map(Record::read);
        self.rule.is_some_and(|rule| record.is_some_and(|record| !record.is_forgotten(rule, now)))
    }

    /// Whether the last failure of an address was with the same, less than a minute ago. `mark` stands for a request.
    #[must_use]
    pub fn repeats(&self, client: ClientAddr, mark: u64, now: Duration) -> bool {
        let record = self.places.get(client).map(Record::read);
        record.is_some_and(|record| record.mark == mark && now < Duration::from_millis(record.last) + AGAIN)
    }

    /// Counts a failure at `now`; the length of the lock-out that begins with it.
    pub fn failed(&mut self, client: ClientAddr, mark: u64, now: Duration) -> Option<Duration> {
        let rule = self.rule?;
        if self.repeats(client, mark, now) {
            return None;
        }
        // Whoever is locked out keeps the place; of others that which was quiet for longest gives way.
        let worth = |values: &[u64; 4]| {
            let record = Record::read(values);
            left(record, now).is_none().then_some(record.last)
        };
        let place = self.places.take(client, worth)?;
        let mut record = Record::read(place);
        if left(record, now).is_some() {
            return None;
        }
        if record.is_forgotten(rule, now) {
            record = Record { last: 0, until: 0, failures: 0, times: 0, mark };
        }
        record.last = millis(now);
        record.mark = mark;
        record.failures = record.failures.saturating_add(1);
        let mut begun = None;
        if record.failures >= rule.after {
            let length = length(rule, record.times);
            record.failures = 0;
            record.times = record.times.saturating_add(1);
            record.until = millis(now + length);
            begun = Some(length);
        }
        *place = record.write();
        begun
    }

    /// Forgets what an address did: it got in.
    pub fn succeeded(&mut self, client: ClientAddr) {
        self.places.free(client);
    }

    /// Lifts the lock-out of an address and forgets its failures; whether it was locked out.
    pub fn lift(&mut self, client: ClientAddr, now: Duration) -> bool {
        let held = self.places.free(client);
        held.is_some_and(|values| left(Record::read(&values), now).is_some())
    }

    /// Lifts all lock-outs and forgets all failures; how many were locked out.
    pub fn lift_all(&mut self, now: Duration) -> usize {
        let all: Vec<ClientAddr> = self.places.iter().map(|(client, _)| client).collect();
        all.into_iter().filter(|&client| self.lift(client, now)).count()
    }

    /// Who is locked out at `now`, in the order of the addresses.
    #[must_use]
    pub fn list(&self, now: Duration) -> Vec<LockedOut> {
        let mut list: Vec<LockedOut> = self
            .places
            .iter()
            .filter_map(|(client, values)| {
                let record = Record::read(values);
                let whole = Duration::from_millis(record.until.saturating_sub(record.last));
                Some(LockedOut { client, left: left(record, now)?, whole, times: record.times })
            })
            .collect();
        list.sort_by_key(|locked| locked.client);
        list
    }
}

impl Record {
    fn read(&[last, until, counts, mark]: &[u64; 4]) -> Self {
        // Both halves fit by construction.
        let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
        Self { last, until, failures: half(counts), times: half(counts >> 32), mark }
    }

    fn write(self) -> [u64; 4] {
        [self.last, self.until, u64::from(self.times) << 32 | u64::from(self.failures), self.mark]
    }

    fn is_forgotten(self, rule: LockoutRule, now: Duration) -> bool {
        let peace = Duration::from_millis(self.last.max(self.until)) + rule.longest.as_duration();
        now >= peace
    }
}

fn left(record: Record, now: Duration) -> Option<Duration> {
    Duration::from_millis(record.until).checked_sub(now).filter(|left| !left.is_zero())
}

/// How long the next lock-out lasts, after so many.
pub(super) fn length(rule: LockoutRule, earlier: u32) -> Duration {
    let factor = 1_u32 << u64::from(earlier).min(MOST_DOUBLINGS);
    let longest = rule.longest.as_duration();
    rule.first.as_duration().checked_mul(factor).map_or(longest, |length| length.min(longest))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Lockout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lockout").field("rule", &self.rule).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::units::Lifetime;

    pub(in crate::knock) fn rule(after: u32, first: u64, longest: u64) -> Option<LockoutRule> {
        let lifetime = |secs| Lifetime::from_secs(secs).unwrap();
        Some(LockoutRule { after, first: lifetime(first), longest: lifetime(longest) })
    }

    impl Lockout {
        /// Fails with what nobody failed with before.
        fn fails(&mut self, client: ClientAddr, now: Duration) -> Option<Duration> {
            let before = self.places.get(client).map_or(0, |values| Record::read(values).mark);
            self.failed(client, before + 1, now)
        }
    }

    pub(in crate::knock) fn client(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    pub(in crate::knock) fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn lock_outs_double_up_to_the_longest_and_end() {
        let mut lockout = Lockout::new(rule(2, 60, 200), &[1; 16]);
        let who = client("192.0.2.1");
        let mut now = secs(5);
        for (times, wanted) in (1..).zip([60, 120, 200, 200]) {
            assert_eq!(lockout.fails(who, now), None);
            assert_eq!(lockout.fails(who, now), Some(secs(wanted)));
            assert_eq!(lockout.fails(who, now + secs(1)), None, "failures within a lock-out prolong nothing");
            let row = LockedOut { client: who, left: secs(wanted), whole: secs(wanted), times };
            assert_eq!(lockout.list(now), [row]);
            now += secs(wanted);
            assert_eq!((lockout.left(who, now), lockout.list(now)), (None, Vec::new()));
        }
    }

    #[test]
    fn peace_success_and_an_operator_make_forget() {
        let mut lockout = Lockout::new(rule(2, 60, 100), &[1; 16]);
        let (who, other) = (client("2001:db8::1"), client("2001:db8::ffff"));
        assert_eq!(lockout.fails(who, secs(0)), None);
        assert_eq!(lockout.fails(other, secs(100)), None, "quiet for the longest lock-out");
        assert!(lockout.has_failed(who, secs(100)));
        lockout.succeeded(who);
        assert!(!lockout.has_failed(who, secs(100)));
        assert_eq!(lockout.fails(who, secs(101)), None);
        assert_eq!(lockout.fails(other, secs(102)), Some(secs(60)), "a /64 is one client");
        assert!(lockout.lift(who, secs(103)));
        assert!(!lockout.lift(who, secs(103)));
        assert_eq!(lockout.fails(who, secs(104)), None);
        assert_eq!(lockout.fails(who, secs(104)), Some(secs(60)), "the first again");
        lockout.set_rule(rule(9, 1, 1));
        assert_eq!(lockout.left(who, secs(105)), Some(secs(59)));
        assert_eq!(lockout.lift_all(secs(105)), 1);
        lockout.set_rule(None);
        assert_eq!([0; 9].map(|_| lockout.fails(who, secs(200))), [None; 9]);
    }

    #[test]
    fn the_same_again_within_a_minute_counts_once() {
        let mut lockout = Lockout::new(rule(3, 60, 1_000), &[1; 16]);
        let (who, other) = (client("192.0.2.1"), client("192.0.2.2"));
        for now in [100, 101, 159] {
            assert_eq!(lockout.repeats(who, 7, secs(now)), now > 100);
            assert_eq!(lockout.failed(who, 7, secs(now)), None);
        }
        assert!(!lockout.repeats(other, 7, secs(101)) && !lockout.repeats(who, 8, secs(101)));
        assert_eq!(lockout.failed(who, 7, secs(160)), None, "the second");
        assert_eq!(lockout.failed(who, 8, secs(161)), Some(secs(60)), "the third");
        assert_eq!(lockout.failed(who, 8, secs(161)), None);
        assert_eq!(lockout.left(who, secs(161)), Some(secs(60)));
    }

    #[test]
    fn whoever_is_locked_out_stays_so_whatever_comes_from_elsewhere() {
        let mut lockout = Lockout::new(rule(2, 60, 100), &[1; 16]);
        let who = client("192.0.2.1");
        lockout.fails(who, secs(0));
        lockout.fails(who, secs(0));
        for n in 0..100_000_u32 {
            lockout.fails(ClientAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into()), secs(1));
        }
        assert_eq!(lockout.left(who, secs(2)), Some(secs(58)));
        assert_eq!(lockout.list(secs(2)).len(), 1);
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_account_of_every_address_says(
            after in 1_u32..4,
            steps in proptest::collection::vec((0_u64..40_000, 0_u8..3, 0_u8..12), 1..150),
        ) {
            let rule = rule(after, 10, 45);
            let mut lockout = Lockout::new(rule, &[3; 16]);
            // Failures, lock-outs so far, when the last ends or the last failure was, whether it is a lock-out.
            let mut plain: HashMap<u8, (u32, u32, Duration, bool)> = HashMap::new();
            let mut now = secs(9);
            for (millis, who, what) in steps {
                now += Duration::from_millis(millis);
                let address = client(&format!("192.0.2.{who}"));
                let entry = plain.entry(who).or_default();
                let locked = entry.3 && entry.2 > now;
                prop_assert_eq!(lockout.left(address, now), locked.then(|| entry.2 - now));
                match what {
                    0 => {
                        lockout.succeeded(address);
                        plain.remove(&who);
                    }
                    1 => {
                        prop_assert_eq!(lockout.lift(address, now), locked);
                        plain.remove(&who);
                    }
                    _ if locked => prop_assert_eq!(lockout.fails(address, now), None),
                    _ => {
                        if now >= entry.2 + secs(45) {
                            *entry = Default::default();
                        }
                        *entry = (entry.0 + 1, entry.1, now, false);
                        let mut wanted = None;
                        if entry.0 == after {
                            let length = secs([10, 20, 40, 45][entry.1.min(3) as usize]);
                            *entry = (0, entry.1 + 1, now + length, true);
                            wanted = Some(length);
                        }
                        prop_assert_eq!(lockout.fails(address, now), wanted);
                    }
                }
            }
        }
    }
}
