use std::fmt;
use std::time::Duration;

use ring::hmac;

use crate::knock::places::Places;
use crate::units::ClientAddr;

/// For how long an address that got in is known.
const KNOWN_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Names that are kept of an address. People behind one address are few who have a key that is compared slowly.
const NAMES: usize = 4;

/// When each address got in last, and as whom.
pub(super) struct Known {
    /// The time in seconds, then digests of names, the last first; 0 where there is none.
    places: Places<5>,
    key: hmac::Key,
}

impl Known {
    /// Nobody is known yet; `key` is random.
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self { places: Places::new(key), key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// Notes that an address got in.
    pub(super) fn remember(&mut self, client: ClientAddr, user: &str, now: Duration) {
        let name = self.name(user);
        let Some([at, names @ ..]) = self.places.take(client, |&[at, ..]| Some(at)) else { return };
        if !is_recent(*at, now) {
            *names = [0; NAMES];
        }
        *at = now.as_secs();
        let gone = names.iter().position(|&known| known == name).unwrap_or(NAMES - 1);
        if let Some(later) = names.get_mut(..=gone) {
            later.rotate_right(1);
        }
        if let Some(first) = names.first_mut() {
            *first = name;
        }
    }

    /// Whether an address got in lately.
    pub(super) fn knows(&self, client: ClientAddr, now: Duration) -> bool {
        self.places.get(client).is_some_and(|&[at, ..]| is_recent(at, now))
    }

    /// Whether it did as this user.
    pub(super) fn knows_as(&self, client: ClientAddr, user: &str, now: Duration) -> bool {
        let found = self.places.get(client);
        found.is_some_and(|[at, names @ ..]| is_recent(*at, now) && names.contains(&self.name(user)))
    }

    fn name(&self, user: &str) -> u64 {
        let digest = hmac::sign(&self.key, user.as_bytes());
        digest.as_ref().first_chunk::<8>().map_or(1, |bytes| u64::from_be_bytes(*bytes).max(1))
    }
}

fn is_recent(at: u64, now: Duration) -> bool {
    now.as_secs().saturating_sub(at) < KNOWN_FOR.as_secs()
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_as_those_who_got_in_from_there_last() {
        let mut known = Known::new(&[1; 16]);
        let [home, other] = [1, 2].map(|n| ClientAddr::new([192, 0, 2, n].into()));
        let at = Duration::from_secs;
        for name in ["a", "b", "c", "d", "a", "e"] {
            known.remember(home, name, at(5));
        }
        let names = |known: &Known, secs| {
            "abcdef".split("").filter(|name| known.knows_as(home, name, at(secs))).collect::<String>()
        };
        assert_eq!(names(&known, 5), "acde");
        assert!(!known.knows(other, at(5)) && !known.knows_as(other, "a", at(5)));
        let week = KNOWN_FOR.as_secs();
        assert_eq!((names(&known, week + 4).len(), known.knows(home, at(week + 4))), (4, true));
        assert_eq!((names(&known, week + 5).len(), known.knows(home, at(week + 5))), (0, false));
        known.remember(home, "f", at(week + 5));
        assert_eq!(names(&known, week + 5), "f", "what was forgotten does not come back");
    }
}
