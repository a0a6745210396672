use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ring::hmac;

use crate::knock::attempt::Step;
use crate::units::{ClientAddr, Family};

/// Length of a slot in seconds, and how many make up the minute that is looked back on. One more is
/// counted, because the oldest lies partly within the minute.
const SLOT_SECS: u64 = 5;
const SLOTS: usize = 13;
/// Addresses that share a set; a set is searched from end to end.
const WAYS: usize = 8;
/// Sets per address family: 16,384 addresses at a step each, 1 MiB, touched only where used. A fuzzer makes new tables thousands of
/// times a second, for a few addresses.
const SETS: usize = if cfg!(fuzzing) { 2 } else { 2_048 };

/// At most so many requests in any 60 seconds per step and client address (IPv6: per /64); fixed memory, constant time.
///
/// The last minute of each address at each step is counted in slots of 5 s, all of a slot as long as any of it counts: no
/// 60 s ever see more than the limit, and the last request of a minute is forgotten up to 5 s late. Refused requests are not counted, so
/// nobody is kept out by insisting.
///
/// An address has its own counter or none. Where the eight places of its set are all taken by addresses seen in the
/// last minute it is refused rather than sharing, because sharing or evicting would let somebody through more often; but those who
/// got in before find a place in a table that is for them only. Which addresses share a set depends on a random key, so a
/// stranger cannot aim at one; to fill the table he needs some ten thousand requests a minute that are judged, each of another address of
/// the same family. IPv4 and IPv6 have tables of their own: addresses that are cheap to come by do not crowd out those that are not.
pub struct RateLimit {
    limit: u32,
    key: hmac::Key,
    v4: Tables,
    v6: Tables,
}

/// What became of a request that was to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It is within the limit.
    Within,
    /// The address has used up its minute at that step.
    Beyond,
    /// Others have taken all places.
    NoPlace,
}

impl RateLimit {
    /// A limit of `per_minute` requests, at least 1, with a random key.
    #[must_use]
    pub fn new(per_minute: u32, key: &[u8; 16]) -> Self {
        Self {
            limit: per_minute.max(1),
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            v4: Tables::new(),
            v6: Tables::new(),
        }
    }

    /// Counts a request at `now` (time since a fixed start). Who is `known` has a place where strangers have taken all others.
    #[must_use]
    pub fn count(&mut self, client: ClientAddr, step: Step, known: bool, now: Duration) -> Counted {
        let (id, set, limit) = (identity(client, step), self.set(client, step), self.limit);
        let slot = now.as_secs() / SLOT_SECS;
        self.tables(client).of(set, id, slot, known).count(set, id, slot, limit)
    }

    /// Takes back a request that was counted at `now` and not judged; where nothing else counts, its place as well.
    pub fn give_back(&mut self, client: ClientAddr, step: Step, now: Duration) {
        let (id, set) = (identity(client, step), self.set(client, step));
        let slot = now.as_secs() / SLOT_SECS;
        self.tables(client).of(set, id, slot, false).give_back(set, id, slot);
    }

    fn set(&self, client: ClientAddr, step: Step) -> usize {
        let hash = hmac::sign(&self.key, &identity(client, step).to_be_bytes());
        let number = hash.as_ref().first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        usize::try_from(number % (SETS as u64)).unwrap_or_default()
    }

    fn tables(&mut self, client: ClientAddr) -> &mut Tables {
        match client.family() {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// Takes another limit from now on; what has been counted stays.
    pub fn set_limit(&mut self, per_minute: u32) {
        self.limit = per_minute.max(1);
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// A number of its own for each address and step that are counted apart; never 0, which marks a free place.
fn identity(client: ClientAddr, step: Step) -> u128 {
    let number = match step {
        Step::One => 1,
        Step::Two => 2,
    };
    match client.masked_v6(64).ip() {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 64 | number,
        IpAddr::V6(v6) => u128::from(v6) | number,
    }
}

/// The places of one family.
struct Tables {
    all: Table,
    /// For those who are known and found none there; strangers do not come in here.
    known: Table,
}

impl Tables {
    fn new() -> Self {
        Self { all: Table::new(), known: Table::new() }
    }

    /// Where an address is counted: where it was within the last minute, so that it never has two counts.
    fn of(&mut self, set: usize, id: u128, slot: u64, known: bool) -> &mut Table {
        if self.known.counts_now(set, id, slot) || known && self.all.way(set, id, slot).is_none() {
            &mut self.known
        } else {
            &mut self.all
        }
    }
}

/// Parallel vectors of zeros, which the system hands out untouched.
struct Table {
    ids: Vec<u128>,
    last: Vec<u64>,
    counts: Vec<[u16; SLOTS]>,
}

impl Table {
    fn new() -> Self {
        let places = SETS * WAYS;
        Self { ids: vec![0; places], last: vec![0; places], counts: vec![[0; SLOTS]; places] }
    }

    /// The place of an id, or a free one; whether it is its own.
    fn way(&self, set: usize, id: u128, slot: u64) -> Option<(usize, bool)> {
        let mut free = None;
        for at in set * WAYS..(set + 1) * WAYS {
            let (held, last) = (*self.ids.get(at)?, *self.last.get(at)?);
            if held == id {
                return Some((at, true));
            } else if held == 0 || is_over(last, slot) {
                free = Some((at, false));
            }
        }
        free
    }

    /// Whether an id has a count that is not over.
    fn counts_now(&self, set: usize, id: u128, slot: u64) -> bool {
        let own = self.way(set, id, slot).filter(|&(_, own)| own);
        own.and_then(|(at, _)| self.last.get(at)).is_some_and(|&last| !is_over(last, slot))
    }

    fn count(&mut self, set: usize, id: u128, slot: u64, limit: u32) -> Counted {
        let Some((way, own)) = self.way(set, id, slot) else {
            return Counted::NoPlace;
        };
        let (Some(held), Some(at), Some(counts)) =
            (self.ids.get_mut(way), self.last.get_mut(way), self.counts.get_mut(way))
        else {
            return Counted::NoPlace;
        };
        if !own {
            *held = id;
            *at = slot;
            *counts = [0; SLOTS];
        }
        // Forgets the slots between the last one counted and this one.
        for gone in (*at + 1..=slot).take(SLOTS) {
            if let Some(count) = counts.get_mut(place(gone)) {
                *count = 0;
            }
        }
        *at = slot.max(*at);
        let spent: u32 = counts.iter().map(|&c| u32::from(c)).sum();
        match counts.get_mut(place(*at)) {
            Some(count) if spent < limit && *count < u16::MAX => {
                *count += 1;
                Counted::Within
            }
            Some(_) | None => Counted::Beyond,
        }
    }

    fn give_back(&mut self, set: usize, id: u128, slot: u64) {
        let Some((at, true)) = self.way(set, id, slot) else { return };
        let (Some(held), Some(counts)) = (self.ids.get_mut(at), self.counts.get_mut(at)) else { return };
        if let Some(count) = counts.get_mut(place(slot)) {
            *count = count.saturating_sub(1);
        }
        if counts.iter().all(|&count| count == 0) {
            *held = 0;
        }
    }
}

/// Whether what was counted last in a slot no longer counts.
fn is_over(last: u64, slot: u64) -> bool {
    slot.saturating_sub(last) >= SLOTS as u64
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % (SLOTS as u64)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;

    fn client(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    impl RateLimit {
        /// A stranger's request.
        fn allows(&mut self, client: ClientAddr, step: Step, now: Duration) -> bool {
            self.count(client, step, false, now) == Counted::Within
        }
    }

    #[test]
    fn the_limit_is_reached_kept_and_forgotten() {
        let mut limit = RateLimit::new(3, &[1; 16]);
        let who = client("192.0.2.1");
        let now = secs(1_000);
        assert_eq!([0; 5].map(|_| limit.allows(who, Step::One, now)), [true, true, true, false, false]);
        assert!(!limit.allows(who, Step::One, now + secs(59)));
        assert!(limit.allows(who, Step::One, now + secs(65)));
        assert!(limit.allows(client("192.0.2.2"), Step::One, now));
    }

    #[test]
    fn each_step_is_counted_by_itself() {
        let mut limit = RateLimit::new(1, &[1; 16]);
        for who in ["192.0.2.1", "2001:db8::1"].map(client) {
            for step in [Step::One, Step::Two] {
                assert!(limit.allows(who, step, secs(0)), "{who} {step:?}");
                assert!(!limit.allows(who, step, secs(0)), "{who} {step:?}");
            }
        }
    }

    #[test]
    fn ipv6_counts_by_64_and_ipv4_by_address() {
        let mut limit = RateLimit::new(1, &[1; 16]);
        assert!(limit.allows(client("2001:db8::1"), Step::One, secs(0)));
        assert!(!limit.allows(client("2001:db8::2:1"), Step::One, secs(0)));
        assert!(limit.allows(client("2001:db8:0:1::1"), Step::One, secs(0)));
        assert!(limit.allows(client("::ffff:192.0.2.1"), Step::One, secs(0)));
        assert!(!limit.allows(client("192.0.2.1"), Step::One, secs(0)));
    }

    #[test]
    fn a_full_table_refuses_newcomers_counts_the_known_and_recovers() {
        let mut limit = RateLimit::new(2, &[9; 16]);
        let many = || (0..200_000_u32).map(|n| ClientAddr::new(IpAddr::V4((0x0a00_0000 + n).into())));
        let known: Vec<_> = many().filter(|&c| limit.allows(c, Step::One, secs(100))).collect();
        assert_eq!(known.len(), SETS * WAYS);
        assert!(known.iter().all(|&c| limit.allows(c, Step::One, secs(101))));
        assert!(!known.iter().any(|&c| limit.allows(c, Step::One, secs(102))));
        assert!(limit.allows(client("2001:db8::1"), Step::One, secs(102)));
        assert!(limit.allows(client("10.3.13.63"), Step::One, secs(166)));
    }

    #[test]
    fn who_is_known_has_a_place_in_a_full_table_and_one_count_only() {
        let mut limit = RateLimit::new(2, &[9; 16]);
        let strangers = || (0..200_000_u32).map(|n| ClientAddr::new(IpAddr::V4((0x0a00_0000 + n).into())));
        let early = client("192.0.2.1");
        assert!(limit.allows(early, Step::One, secs(95)));
        strangers().for_each(|stranger| {
            let _ = limit.allows(stranger, Step::One, secs(100));
        });
        // One that strangers left no place for.
        let mut others = (2..=255).map(|n| client(&format!("192.0.2.{n}")));
        let late = others.find(|&other| limit.count(other, Step::One, false, secs(105)) == Counted::NoPlace);
        let late = late.expect("the table is full");
        let mut counted = |who, known, at| limit.count(who, Step::One, known, secs(at));
        assert_eq!(
            [0; 3].map(|_| counted(late, true, 105)),
            [Counted::Within, Counted::Within, Counted::Beyond]
        );
        // Also when there is room again among the others, and when it is known no more.
        assert_eq!([true, false].map(|known| counted(late, known, 165)), [Counted::Beyond; 2]);
        assert_eq!(
            [0; 3].map(|_| counted(late, true, 170)),
            [Counted::Within, Counted::Within, Counted::Beyond]
        );
        // Who had a place before goes on with it.
        assert_eq!([0; 2].map(|_| counted(early, true, 105)), [Counted::Within, Counted::Beyond]);
    }

    #[test]
    fn what_is_given_back_was_never_counted() {
        let mut limit = RateLimit::new(2, &[9; 16]);
        let who = client("192.0.2.1");
        for n in 0..100 {
            assert!(limit.allows(who, Step::One, secs(n)), "{n}");
            limit.give_back(who, Step::One, secs(n));
        }
        assert_eq!([0; 3].map(|_| limit.allows(who, Step::One, secs(100))), [true, true, false]);
        limit.give_back(who, Step::Two, secs(100));
        assert!(!limit.allows(who, Step::One, secs(101)));
        limit.give_back(who, Step::One, secs(100));
        assert_eq!([0; 2].map(|_| limit.allows(who, Step::One, secs(101))), [true, false]);
        // Nor was a place taken, where nothing else counts.
        let many = || (0..200_000_u32).map(|n| ClientAddr::new(IpAddr::V4((0x0a00_0000 + n).into())));
        for client in many() {
            assert!(limit.allows(client, Step::One, secs(101)), "{client}");
            limit.give_back(client, Step::One, secs(101));
        }
    }

    #[test]
    fn which_addresses_meet_depends_on_the_key() {
        let survivors = |key: u8| {
            let mut limit = RateLimit::new(1, &[key; 16]);
            let all = (0..30_000_u32).map(|n| ClientAddr::new(IpAddr::V4((0x0a00_0000 + n).into())));
            all.filter(|&c| limit.allows(c, Step::One, secs(0))).collect::<Vec<_>>()
        };
        assert_ne!(survivors(1), survivors(2));
    }

    /// For either of two addresses as many others as fill its set.
    static NEIGHBOURS: LazyLock<[Vec<ClientAddr>; 2]> = LazyLock::new(|| {
        let rate = RateLimit::new(1, &[3; 16]);
        [0, 1].map(|who| {
            let set = rate.set(person(who), Step::One);
            let all = (0..).map(|n: u32| ClientAddr::new(IpAddr::V4((0x0a00_0000 + n).into())));
            all.filter(|&other| rate.set(other, Step::One) == set).take(WAYS).collect()
        })
    });

    fn person(number: u8) -> ClientAddr {
        ClientAddr::new(IpAddr::from([192, 0, 2, number]))
    }

    proptest! {
        #[test]
        fn no_sixty_seconds_see_more_than_the_limit(
            limit in 1_u32..6,
            steps in proptest::collection::vec((0_u64..20_000, 0_u8..2, any::<bool>(), 0_u8..8), 1..120),
        ) {
            let mut rate = RateLimit::new(limit, &[3; 16]);
            let mut now = Duration::from_secs(77);
            let mut allowed: Vec<(u8, Duration)> = Vec::new();
            for (millis, who, known, crowd) in steps {
                now += Duration::from_millis(millis);
                if crowd == 0 {
                    NEIGHBOURS[usize::from(who)].iter().for_each(|&one| {
                        let _ = rate.allows(one, Step::One, now);
                    });
                }
                let recent = |window: u64| {
                    allowed.iter().filter(|&&(w, t)| w == who && now - t < Duration::from_secs(window)).count()
                };
                let (in_minute, in_65) = (recent(60), recent(65));
                match rate.count(person(who), Step::One, known, now) {
                    Counted::Within => {
                        prop_assert!(in_minute < limit as usize);
                        allowed.push((who, now));
                    }
                    Counted::Beyond => prop_assert!(in_65 >= limit as usize),
                    Counted::NoPlace => prop_assert!(!known && in_minute == 0, "who has a count has a place"),
                }
            }
        }
    }
}
