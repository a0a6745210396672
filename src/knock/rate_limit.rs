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
/// last minute it is refused rather than sharing, because sharing or evicting would let somebody through more often.
/// Which addresses share a set depends on a random key, so a stranger cannot aim at one; to fill the table
/// he needs some ten thousand addresses of the same family that complete a connection and know the secret path, each minute. IPv4 and
/// IPv6 have tables of their own: addresses that are cheap to come by do not crowd out those that are not.
pub struct RateLimit {
    limit: u32,
    key: hmac::Key,
    v4: Table,
    v6: Table,
}

impl RateLimit {
    /// A limit of `per_minute` requests, at least 1, with a random key.
    #[must_use]
    pub fn new(per_minute: u32, key: &[u8; 16]) -> Self {
        Self {
            limit: per_minute.max(1),
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            v4: Table::new(),
            v6: Table::new(),
        }
    }

    /// Counts a request at `now` (time since a fixed start); false when the address has used up its minute at that step.
    #[must_use]
    pub fn allows(&mut self, client: ClientAddr, step: Step, now: Duration) -> bool {
        let (id, set, limit) = (identity(client, step), self.set(client, step), self.limit);
        self.table(client).count(set, id, now.as_secs() / SLOT_SECS, limit)
    }

    /// Takes back a request that was counted at `now` and not judged; where nothing else counts, its place as well.
    pub fn give_back(&mut self, client: ClientAddr, step: Step, now: Duration) {
        let (id, set) = (identity(client, step), self.set(client, step));
        self.table(client).give_back(set, id, now.as_secs() / SLOT_SECS);
    }

    fn set(&self, client: ClientAddr, step: Step) -> usize {
        let hash = hmac::sign(&self.key, &identity(client, step).to_be_bytes());
        let number = hash.as_ref().first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b));
        usize::try_from(number % (SETS as u64)).unwrap_or_default()
    }

    fn table(&mut self, client: ClientAddr) -> &mut Table {
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

/// The places of one family; parallel vectors of zeros, which the system hands out untouched.
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

    fn count(&mut self, set: usize, id: u128, slot: u64, limit: u32) -> bool {
        let places = set * WAYS..(set + 1) * WAYS;
        let (Some(ids), Some(last), Some(counts)) = (
            self.ids.get_mut(places.clone()),
            self.last.get_mut(places.clone()),
            self.counts.get_mut(places),
        ) else {
            return false;
        };
        let mut free = None;
        let mut own = None;
        for (way, (held, &at)) in ids.iter().zip(last.iter()).enumerate() {
            if *held == id {
                own = Some(way);
            } else if *held == 0 || slot.saturating_sub(at) >= SLOTS as u64 {
                free = Some(way);
            }
        }
        let Some(way) = own.or(free) else {
            return false;
        };
        let (Some(held), Some(at), Some(counts)) = (ids.get_mut(way), last.get_mut(way), counts.get_mut(way))
        else {
            return false;
        };
        if own.is_none() {
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
                true
            }
            Some(_) | None => false,
        }
    }

    fn give_back(&mut self, set: usize, id: u128, slot: u64) {
        let places = set * WAYS..(set + 1) * WAYS;
        let own = self.ids.get(places).and_then(|ids| ids.iter().position(|&held| held == id));
        let Some(at) = own.map(|way| set * WAYS + way) else { return };
        let (Some(held), Some(counts)) = (self.ids.get_mut(at), self.counts.get_mut(at)) else { return };
        if let Some(count) = counts.get_mut(place(slot)) {
            *count = count.saturating_sub(1);
        }
        if counts.iter().all(|&count| count == 0) {
            *held = 0;
        }
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % (SLOTS as u64)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
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

    proptest! {
        #[test]
        fn no_sixty_seconds_see_more_than_the_limit(
            limit in 1_u32..6,
            steps in proptest::collection::vec((0_u64..20_000, 0_u8..2), 1..120),
        ) {
            let mut rate = RateLimit::new(limit, &[3; 16]);
            let mut now = Duration::from_secs(77);
            let mut allowed: Vec<(u8, Duration)> = Vec::new();
            for (millis, who) in steps {
                now += Duration::from_millis(millis);
                let address = ClientAddr::new(IpAddr::from([192, 0, 2, who]));
                let recent = |window: u64| {
                    allowed.iter().filter(|&&(w, t)| w == who && now - t < Duration::from_secs(window)).count()
                };
                let (in_minute, in_65) = (recent(60), recent(65));
                let allows = rate.allows(address, Step::One, now);
                if allows {
                    prop_assert!(in_minute < limit as usize);
                    allowed.push((who, now));
                } else {
                    prop_assert!(in_65 >= limit as usize);
                }
            }
        }
    }
}
