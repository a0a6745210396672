use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use crate::config::LockoutRule;
use crate::knock::lockout::length;
use crate::knock::used_codes::OwnSite;
use crate::units::{ClientAddr, Now};

/// As many wrong codes of a secret as `lockout.after` says, times this, have its codes held back: people who mistype are
/// locked out by their address before that.
const FACTOR: u32 = 2;
/// Addresses that are remembered to be the owner's, per secret.
const OWN: usize = 8;
/// For how long an address is the owner's after a right code.
const OWN_FOR: Duration = Duration::from_secs(7 * 86_400);
/// By so much the calendar may have been set back since a right code was noted; what is further ahead is not believed.
const SET_BACK: Duration = Duration::from_secs(60);
/// IPv6 addresses of one site are one owner's.
const SITE: u8 = 64;

/// Wrong one-time codes of each secret, from whatever address: whoever has somebody's keys could else guess the code from many
/// addresses, a few times from each.
///
/// Only who showed a right key comes in here, so strangers hold nobody back. There is one entry for each secret at most.
/// Addresses from which a right code came within a week are not held back, so that a thief of keys does not keep the owner
/// out; nor does a right code forgive wrong ones, so that the owner does not help the thief.
#[derive(Debug)]
pub struct Guesses {
    rule: Option<LockoutRule>,
    /// By the name of the secret.
    secrets: BTreeMap<String, Guessed>,
    begun: Option<Duration>,
}

#[derive(Debug, Default)]
struct Guessed {
    failures: u32,
    /// How often its codes were held back.
    times: u32,
    last: Duration,
    until: Duration,
    /// From where right codes came; the latest last.
    own: Vec<Own>,
}

#[derive(Clone, Copy, Debug)]
struct Own {
    site: ClientAddr,
    until: Duration,
    /// When the code came, by the calendar, in milliseconds: another daemon may start to count elsewhere.
    at_ms: u64,
}

impl Guesses {
    /// Nothing was guessed yet; without a rule nothing is ever held back.
    #[must_use]
    pub fn new(rule: Option<LockoutRule>) -> Self {
        Self { rule, secrets: BTreeMap::new(), begun: None }
    }

    /// Takes another rule, and forgets secrets that are none of these.
    pub fn reload(&mut self, rule: Option<LockoutRule>, names: &[&str]) {
        self.rule = rule;
        self.secrets.retain(|name, _| names.contains(&name.as_str()));
        if rule.is_none() {
            self.lift();
        }
    }

    /// Whether codes of a secret are held back from an address.
    #[must_use]
    pub fn holds_back(&self, secret: &str, client: ClientAddr, now: Duration) -> bool {
        self.secrets.get(secret).is_some_and(|guessed| now < guessed.until && !guessed.is_own(client, now))
    }

    /// Counts a wrong code.
    pub fn failed(&mut self, secret: &str, now: Duration) {
        let Some(rule) = self.rule else { return };
        let guessed = self.secrets.entry(secret.to_owned()).or_default();
        if now < guessed.until {
            // From an address of the owner's.
            return;
        }
        if now >= guessed.last.max(guessed.until) + rule.longest.as_duration() {
            (guessed.failures, guessed.times) = (0, 0);
        }
        guessed.last = now;
        guessed.failures = guessed.failures.saturating_add(1);
        if guessed.failures >= rule.after.saturating_mul(FACTOR) {
            let lasts = length(rule, guessed.times);
            guessed.failures = 0;
            guessed.times = guessed.times.saturating_add(1);
            guessed.until = now + lasts;
            self.begun = Some(lasts);
        }
    }

    /// A right code of a secret came from there.
    pub fn succeeded(&mut self, secret: &str, client: ClientAddr, now: Now) {
        let own = Own {
            site: client.masked_v6(SITE),
            until: now.boot.saturating_add(OWN_FOR),
            at_ms: calendar(now),
        };
        self.secrets.entry(secret.to_owned()).or_default().add(own);
    }

    /// The owners' addresses, by the name of the secret, to be kept across a restart; the latest last.
    #[must_use]
    pub fn own_sites(&self) -> BTreeMap<String, Vec<OwnSite>> {
        let with_some = self.secrets.iter().filter(|(_, guessed)| !guessed.own.is_empty());
        let each = |own: &Own| OwnSite { site: own.site.to_string(), at_ms: own.at_ms };
        with_some.map(|(name, guessed)| (name.clone(), guessed.own.iter().map(each).collect())).collect()
    }

    /// Takes over what [`Guesses::own_sites`] told of these secrets before a restart.
    ///
    /// What is damaged, a week old or of a time that has not come yet is left out: then the owner waits with everybody.
    pub fn remember_own(&mut self, kept: &BTreeMap<String, Vec<OwnSite>>, names: &[&str], now: Now) {
        for (name, sites) in kept.iter().filter(|(name, _)| names.contains(&name.as_str())) {
            for own in sites.iter().filter_map(|kept| Own::kept(kept, now)) {
                self.secrets.entry(name.clone()).or_default().add(own);
            }
        }
    }

    /// For how long codes are held back since this was last asked, where that began.
    pub fn take_begun(&mut self) -> Option<Duration> {
        self.begun.take()
    }

    /// Holds nothing back any more and forgets wrong codes.
    pub fn lift(&mut self) {
        for guessed in self.secrets.values_mut() {
            (guessed.failures, guessed.times, guessed.until) = (0, 0, Duration::ZERO);
        }
    }
}

impl Guessed {
    fn is_own(&self, client: ClientAddr, now: Duration) -> bool {
        let site = client.masked_v6(SITE);
        self.own.iter().any(|own| own.site == site && now < own.until)
    }

    fn add(&mut self, own: Own) {
        self.own.retain(|known| known.site != own.site);
        if self.own.len() >= OWN {
            self.own.remove(0);
        }
        self.own.push(own);
    }
}

impl Own {
    fn kept(kept: &OwnSite, now: Now) -> Option<Self> {
        let site = ClientAddr::new(kept.site.parse().ok()?).masked_v6(SITE);
        let (at, today) = (Duration::from_millis(kept.at_ms), Duration::from_millis(calendar(now)));
        if at > today.saturating_add(SET_BACK) {
            return None;
        }
        let left = OWN_FOR.checked_sub(today.saturating_sub(at)).filter(|left| !left.is_zero())?;
        Some(Self { site, until: now.boot.saturating_add(left), at_ms: kept.at_ms })
    }
}

/// Milliseconds since 1970.
fn calendar(now: Now) -> u64 {
    let since = now.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knock::lockout::tests::{client, rule, secs};

    /// Of how many secrets codes are held back.
    fn held_back(guesses: &Guesses, now: Duration) -> usize {
        guesses.secrets.values().filter(|guessed| now < guessed.until).count()
    }

    #[test]
    fn codes_are_held_back_from_all_but_the_owner_for_times_that_double() {
        let mut guesses = Guesses::new(rule(2, 60, 200));
        guesses.succeeded("alice", client("2001:db8::1"), Now::at_secs(1));
        let mut now = secs(5);
        for lasts in [60, 120, 200, 200] {
            for _ in 0..3 {
                guesses.failed("alice", now);
                assert_eq!((guesses.take_begun(), held_back(&guesses, now)), (None, 0));
            }
            guesses.failed("alice", now);
            assert_eq!((guesses.take_begun(), held_back(&guesses, now)), (Some(secs(lasts)), 1));
            let last = now + secs(lasts) - Duration::from_millis(1);
            assert!(guesses.holds_back("alice", client("192.0.2.1"), last));
            assert!(!guesses.holds_back("alice", client("2001:db8::ffff"), last), "the owner's site");
            assert!(!guesses.holds_back("bob", client("192.0.2.1"), last));
            now += secs(lasts);
            assert!(!guesses.holds_back("alice", client("192.0.2.1"), now));
        }
    }

    #[test]
    fn a_right_code_forgives_nothing_and_a_quiet_time_everything() {
        let mut guesses = Guesses::new(rule(1, 60, 600));
        guesses.failed("alice", secs(1));
        guesses.succeeded("alice", client("192.0.2.9"), Now::at_secs(2));
        guesses.failed("alice", secs(3));
        assert_eq!(guesses.take_begun(), Some(secs(60)));
        let mut now = secs(3 + 60 + 600);
        guesses.failed("alice", now);
        assert_eq!(guesses.take_begun(), None, "counted anew");
        now += secs(1);
        guesses.failed("alice", now);
        assert_eq!(guesses.take_begun(), Some(secs(60)), "and for as long as the first time");
    }

    #[test]
    fn the_owner_is_so_for_a_week_and_at_the_last_eight_addresses() {
        let mut guesses = Guesses::new(rule(1, 86_400, 86_400 * 30));
        let at = |n: usize| client(&format!("192.0.2.{n}"));
        (0..9).for_each(|n| guesses.succeeded("alice", at(n), Now::at_secs(0)));
        let week = 7 * 86_400;
        for now in [secs(week - 10), secs(week - 10)] {
            guesses.failed("alice", now);
        }
        assert!(guesses.holds_back("alice", at(0), secs(week - 1)), "the ninth before the last");
        assert!(!guesses.holds_back("alice", at(1), secs(week - 1)));
        assert!(guesses.holds_back("alice", at(1), secs(week)));
    }

    #[test]
    fn without_a_rule_nothing_is_held_back_and_a_reload_keeps_what_is_left() {
        let mut guesses = Guesses::new(None);
        (0..100).for_each(|_| guesses.failed("alice", secs(1)));
        assert_eq!(held_back(&guesses, secs(1)), 0);
        guesses.reload(rule(1, 60, 60), &["alice", "bob"]);
        for name in ["alice", "alice", "bob", "bob"] {
            guesses.failed(name, secs(2));
        }
        assert_eq!(held_back(&guesses, secs(2)), 2);
        guesses.reload(rule(1, 60, 60), &["alice"]);
        assert_eq!(held_back(&guesses, secs(2)), 1);
        guesses.lift();
        assert_eq!(held_back(&guesses, secs(2)), 0);
    }

    /// What is left of the owners' addresses when a daemon starts `secs` after an arbitrary start of the calendar.
    fn restarted(before: &Guesses, now: Now) -> Guesses {
        let mut after = Guesses::new(rule(1, 86_400 * 30, 86_400 * 30));
        after.remember_own(&before.own_sites(), &["alice"], now);
        after.failed("alice", now.boot);
        after.failed("alice", now.boot);
        after
    }

    #[test]
    fn the_owner_is_so_for_the_rest_of_the_week_after_a_restart_whatever_else_the_clock_counts_from() {
        let week = 7 * 86_400;
        let mut before = Guesses::new(rule(1, 60, 60));
        for name in ["alice", "bob"] {
            before.succeeded(name, client("2001:db8::1"), Now::at_secs(1_000));
        }
        let boot = secs(5);
        let after = restarted(&before, Now { boot, ..Now::at_secs(1_000 + 100) });
        assert!(!after.holds_back("alice", client("2001:db8::ffff"), boot), "the owner's site");
        assert!(after.holds_back("alice", client("2001:db8:1::"), boot));
        let left = secs(week - 100);
        assert!(!after.holds_back("alice", client("2001:db8::"), boot + left - secs(1)));
        assert!(after.holds_back("alice", client("2001:db8::"), boot + left));
        assert!(!after.own_sites().contains_key("bob"), "a secret that nobody has is forgotten");
        let once_more = restarted(&after, Now { boot, ..Now::at_secs(1_000 + 200) });
        assert!(
            once_more.holds_back("alice", client("2001:db8::"), boot + left - secs(100)),
            "no longer for it"
        );
    }

    #[test]
    fn a_clock_that_was_set_makes_nobody_an_owner_for_longer() {
        let mut before = Guesses::new(rule(1, 60, 60));
        let owner = client("192.0.2.1");
        before.succeeded("alice", owner, Now::at_secs(1_000_000));
        for (clock, is_own) in [
            (1_000_000 - 30, true),
            (1_000_000 - 61, false),
            (0, false),
            (1_000_000 + 7 * 86_400 - 1, true),
            (1_000_000 + 7 * 86_400, false),
        ] {
            let now = Now { boot: secs(1), ..Now::at_secs(clock) };
            let after = restarted(&before, now);
            assert_eq!(after.holds_back("alice", owner, now.boot), !is_own, "{clock}");
            assert!(after.holds_back("alice", owner, now.boot + secs(7 * 86_400)), "{clock}");
        }
    }

    #[test]
    fn of_what_is_kept_only_the_latest_eight_are_taken_and_nothing_that_is_no_address() {
        let now = Now::at_secs(1_000);
        let at_ms = calendar(now);
        let mut sites: Vec<OwnSite> =
            (0..200).map(|n| OwnSite { site: format!("192.0.2.{n}"), at_ms }).collect();
        sites.push(OwnSite { site: "no address".to_owned(), at_ms });
        sites.push(OwnSite { site: "192.0.2.250".to_owned(), at_ms: u64::MAX });
        let mut guesses = Guesses::new(rule(1, 60, 60));
        guesses.remember_own(&BTreeMap::from([("alice".to_owned(), sites)]), &["alice"], now);
        let kept: Vec<String> = guesses.own_sites()["alice"].iter().map(|own| own.site.clone()).collect();
        assert_eq!(kept, (192..200).map(|n| format!("192.0.2.{n}")).collect::<Vec<_>>());
    }
}
