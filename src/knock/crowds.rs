use std::fmt;
use std::time::Duration;

use crate::knock::places::Places;
use crate::units::ClientAddr;

/// So many requests in vain make a network a crowd; more than people who come at once send before the first is in. Stories of a
/// fuzzer are short.
const MANY: u64 = if cfg!(fuzzing) { 8 } else { 100 };
/// A network of which nothing was judged for so long begins anew, in seconds.
const QUIET: u64 = 3_600;

/// Tells networks by which nobody gets in, however much is tried; fixed memory, constant time.
///
/// A network is an IPv4 address, or a /48 of IPv6: that is what one customer may have, with 65,536 of the /64 by which all else is
/// counted. Each of these could otherwise fail, or do no more than a right step 1, as somebody of whom nothing is known.
pub(super) struct Crowds(Places<2>);

impl Crowds {
    /// No network is a crowd yet; `key` is random.
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self(Places::new(key))
    }

    /// Counts what was judged and let nobody in.
    pub(super) fn in_vain(&mut self, client: ClientAddr, now: Duration) {
        let secs = now.as_secs();
        if let Some([count, last]) = self.0.take(network(client), |&[_, last]| Some(last)) {
            *count = if is_past(*last, secs) { 1 } else { *count + 1 };
            *last = secs;
        }
    }

    /// Somebody of that network got in.
    pub(super) fn got_in(&mut self, client: ClientAddr) {
        self.0.free(network(client));
    }

    /// Whether an address is of a crowd.
    pub(super) fn has(&self, client: ClientAddr, now: Duration) -> bool {
        let record = self.0.get(network(client));
        record.is_some_and(|&[count, last]| count >= MANY && !is_past(last, now.as_secs()))
    }
}

fn network(client: ClientAddr) -> ClientAddr {
    client.masked_v6(48)
}

fn is_past(last: u64, secs: u64) -> bool {
    secs.saturating_sub(last) >= QUIET
}

impl fmt::Debug for Crowds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Crowds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_network_is_a_crowd_after_many_tries_until_somebody_gets_in_or_an_hour_is_quiet() {
        let mut crowds = Crowds::new(&[1; 16]);
        let of = |n: u64| client(&format!("2001:db8:f:{n:x}::7"));
        for n in 0..MANY {
            assert!(!crowds.has(of(7), secs(5)), "{n}");
            crowds.in_vain(of(n), secs(5));
        }
        assert!(crowds.has(of(60_000), secs(5)) && crowds.has(of(0), secs(3_604)));
        assert!(!crowds.has(client("2001:db8:e:1::7"), secs(5)) && !crowds.has(client("192.0.2.1"), secs(5)));
        assert!(!crowds.has(of(7), secs(3_605)));
        crowds.in_vain(of(7), secs(3_604));
        assert!(crowds.has(of(7), secs(7_000)));
        crowds.got_in(of(9));
        assert!(!crowds.has(of(7), secs(7_000)));
        crowds.in_vain(of(7), secs(7_000));
        assert!(!crowds.has(of(7), secs(7_000)));
    }
}
