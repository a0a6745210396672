use std::time::Duration;

use crate::config::Settings;
use crate::knock::attempt::{Refusal, Step, Verdict};
use crate::knock::cap::{Cap, Standing};
use crate::knock::lockout::{LockedOut, Lockout};
use crate::knock::places::Places;
use crate::knock::rate_limit::RateLimit;
use crate::units::ClientAddr;

/// For how long an address that got in is known.
const KNOWN_FOR: Duration = Duration::from_secs(7 * 86_400);

/// What keeps guessers off: the rate of each address at each step, lock-outs, and the cap on all of them together.
#[derive(Debug)]
pub struct Defence {
    rate: RateLimit,
    lockout: Lockout,
    cap: Cap,
    /// Who got in, and when, in seconds; only those who get in come in here, so strangers push nobody out.
    known: Known,
    begun: Option<Duration>,
    /// How often settings were taken over: what requests are known by is another one then.
    reloads: u64,
}

impl Defence {
    /// A defence that knows nobody yet; `random` keys its tables.
    #[must_use]
    pub fn new(settings: &Settings, random: &[u8; 16]) -> Self {
        Self {
            rate: RateLimit::new(settings.global.step1_2_rate_limit_per_minute, random),
            lockout: Lockout::new(settings.global.lockout, random),
            cap: Cap::default(),
            known: Known(Places::new(random)),
            begun: None,
            reloads: 0,
        }
    }

    /// Takes over settings that have been reloaded; what is known of the addresses stays.
    pub fn reload(&mut self, settings: &Settings) {
        self.rate.set_limit(settings.global.step1_2_rate_limit_per_minute);
        self.lockout.set_rule(settings.global.lockout);
        self.reloads = self.reloads.wrapping_add(1);
    }

    /// Whether an address is locked out.
    #[must_use]
    pub fn locks_out(&self, client: ClientAddr, now: Duration) -> bool {
        self.lockout.left(client, now).is_some()
    }

    /// Counts a request; why it is not judged, where it is not. `live` tells whether a step 1 of the address is live.
    pub fn turn_away(
        &mut self,
        client: ClientAddr,
        step: Step,
        live: bool,
        now: Duration,
    ) -> Option<Refusal> {
        if !self.rate.allows(client, step, now) {
            return Some(Refusal::TooMany);
        }
        let standing = self.standing(client, live, now);
        (!self.cap.allows(standing, now)).then_some(Refusal::Busy)
    }

    /// Counts a comparison with a slow hash; whether it may be made.
    pub fn allows_hash(&mut self, client: ClientAddr, live: bool, now: Duration) -> bool {
        let standing = self.standing(client, live, now);
        self.cap.allows_hash(standing, now)
    }

    /// Whether an address failed with the same request a moment ago; `mark` stands for it.
    #[must_use]
    pub fn repeats(&self, client: ClientAddr, mark: u64, now: Duration) -> bool {
        self.lockout.repeats(client, self.marked(mark), now)
    }

    fn marked(&self, mark: u64) -> u64 {
        mark ^ self.reloads.rotate_right(16)
    }

    /// Remembers what came of a request.
    pub fn learn(&mut self, client: ClientAddr, verdict: &Verdict, mark: u64, now: Duration) {
        match verdict {
            Verdict::Grant { .. } => {
                self.lockout.succeeded(client);
                self.known.remember(client, now);
            }
            Verdict::Refuse(reason) if reason.is_a_guess() => {
                self.begun = self.lockout.failed(client, self.marked(mark), now).or(self.begun);
            }
            Verdict::Refuse(_)
            | Verdict::AdmitToStep2 { .. }
            | Verdict::Close { .. }
            | Verdict::Hash { .. }
            | Verdict::Alive
            | Verdict::NeedToken { .. } => {}
        }
    }

    /// The length of the lock-out that began since this was last asked.
    pub fn take_begun(&mut self) -> Option<Duration> {
        self.begun.take()
    }

    /// Who is locked out.
    #[must_use]
    pub fn locked_out(&self, now: Duration) -> Vec<LockedOut> {
        self.lockout.list(now)
    }

    /// Lifts the lock-out of an address, or all; how many were locked out.
    pub fn unblock(&mut self, client: Option<ClientAddr>, now: Duration) -> usize {
        match client {
            Some(client) => usize::from(self.lockout.lift(client, now)),
            None => self.lockout.lift_all(now),
        }
    }

    fn standing(&self, client: ClientAddr, live: bool, now: Duration) -> Standing {
        if live || self.known.knows(client, now) {
            Standing::Known
        } else if self.lockout.has_failed(client, now) {
            Standing::Failed
        } else {
            Standing::Unblemished
        }
    }
}

/// When each address got in last.
struct Known(Places<1>);

impl Known {
    fn remember(&mut self, client: ClientAddr, now: Duration) {
        if let Some(place) = self.0.take(client, |&[at]| Some(at)) {
            *place = [now.as_secs()];
        }
    }

    fn knows(&self, client: ClientAddr, now: Duration) -> bool {
        self.0.get(client).is_some_and(|&[at]| now.as_secs().saturating_sub(at) < KNOWN_FOR.as_secs())
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Known")
    }
}
