use std::time::Duration;

/// Requests a second that are judged of each [`Standing`]; as many may come at once.
const KNOWN: u32 = 150;
const LIVE: u32 = 50;
const UNBLEMISHED: u32 = 100;
const FAILED: u32 = 50;
/// Keys a second that are compared with a slow hash, of each standing but the first.
const LIVE_HASHES: u32 = 2;
const UNBLEMISHED_HASHES: u32 = 3;
const FAILED_HASHES: u32 = 1;

/// What is known of whoever asks, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The address got in not long ago.
    Known,
    /// Its step 1 is live and it comes with step 2; whoever saw a plain step 1 can come to that with any number of addresses.
    Live,
    /// Nothing is known.
    Unblemished,
    /// The address failed and did not get in since, or very much came of its network and nobody got in.
    Failed,
}

/// At most so many requests a second in all, whoever sends them.
///
/// Each standing has a share that those of lower standing cannot use up; it may draw on theirs when its own is empty.
/// So those who knock rightly do not notice how many strangers guess.
#[derive(Debug)]
pub struct Cap {
    /// One of each standing, in their order.
    shares: [Bucket; 4],
    /// One of each standing but the first.
    hashes: [Bucket; 3],
}

impl Default for Cap {
    fn default() -> Self {
        let shares = [KNOWN, LIVE, UNBLEMISHED, FAILED].map(Bucket::new);
        let hashes = [LIVE_HASHES, UNBLEMISHED_HASHES, FAILED_HASHES].map(Bucket::new);
        Self { shares, hashes }
    }
}

impl Cap {
    /// Counts a request at `now` (time since a fixed start); false where nothing is left of this second's share.
    pub fn allows(&mut self, standing: Standing, now: Duration) -> bool {
        self.shares.iter_mut().skip(standing as usize).any(|share| share.take(now))
    }

    /// Counts a comparison with a slow hash; those who are known are not counted.
    pub fn allows_hash(&mut self, standing: Standing, now: Duration) -> bool {
        match (standing as usize).checked_sub(1) {
            None => true,
            Some(first) => self.hashes.iter_mut().skip(first).any(|share| share.take(now)),
        }
    }
}

/// A number of requests that fills up again within a second.
#[derive(Debug)]
struct Bucket {
    rate: u32,
    /// When it would be full if nothing more was taken.
    full_at: Duration,
}

impl Bucket {
    fn new(rate: u32) -> Self {
        Self { rate, full_at: Duration::ZERO }
    }

    fn take(&mut self, now: Duration) -> bool {
        let each = Duration::from_secs(1) / self.rate;
        let full_at = self.full_at.max(now) + each;
        let there_is_one = full_at <= now + Duration::from_secs(1);
        if there_is_one {
            self.full_at = full_at;
        }
        there_is_one
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowed(cap: &mut Cap, standing: Standing, now: Duration) -> u32 {
        (0..1_000).map(|_| u32::from(cap.allows(standing, now))).sum()
    }

    #[test]
    fn strangers_take_nothing_from_those_who_are_known() {
        let mut cap = Cap::default();
        let now = Duration::from_secs(7);
        assert_eq!(allowed(&mut cap, Standing::Failed, now), FAILED);
        assert_eq!(allowed(&mut cap, Standing::Unblemished, now), UNBLEMISHED);
        assert_eq!(allowed(&mut cap, Standing::Live, now), LIVE);
        assert_eq!(allowed(&mut cap, Standing::Known, now), KNOWN);
        let later = now + Duration::from_millis(500);
        assert_eq!(allowed(&mut cap, Standing::Failed, later), FAILED / 2);
        assert_eq!(allowed(&mut cap, Standing::Known, later), (KNOWN + LIVE + UNBLEMISHED) / 2);
        let hashes = |cap: &mut Cap, standing| (0..9).filter(|_| cap.allows_hash(standing, now)).count();
        assert_eq!(hashes(&mut cap, Standing::Failed), FAILED_HASHES as usize);
        assert_eq!(hashes(&mut cap, Standing::Unblemished), UNBLEMISHED_HASHES as usize);
        assert_eq!(hashes(&mut cap, Standing::Live), LIVE_HASHES as usize);
        assert_eq!(hashes(&mut cap, Standing::Known), 9);
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_twice_the_rate(
            steps in proptest::collection::vec(0_u64..30, 1..600),
        ) {
            let mut bucket = Bucket::new(20);
            let (mut now, mut taken) = (Duration::from_secs(3), Vec::new());
            for millis in steps {
                now += Duration::from_millis(millis);
                if bucket.take(now) {
                    taken.push(now);
                }
                let recent = taken.iter().filter(|&&at| now - at < Duration::from_secs(1)).count();
                prop_assert!(recent <= 40);
            }
        }
    }
}
