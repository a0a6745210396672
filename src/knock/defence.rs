use std::time::Duration;

use crate::config::Settings;
use crate::knock::attempt::{Attempt, Refusal, Step, Verdict};
use crate::knock::cap::{Cap, Standing};
use crate::knock::crowds::Crowds;
use crate::knock::known::Known;
use crate::knock::lockout::{LockedOut, Lockout};
use crate::knock::rate_limit::{Counted, RateLimit};
use crate::units::ClientAddr;

/// What keeps guessers off: the rate of each address at each step, lock-outs, and the cap on all of them together.
#[derive(Debug)]
pub struct Defence {
    rate: RateLimit,
    lockout: Lockout,
    cap: Cap,
    /// Who got in, and when, in seconds; only those who get in come in here, so strangers push nobody out.
    known: Known,
    /// Networks by which nobody gets in.
    crowds: Crowds,
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
            known: Known::new(random),
            crowds: Crowds::new(random),
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

    /// Counts a request; why it is not judged, where it is not. `live`: it is a step 2, and a step 1 of the address is live.
    ///
    /// What is not judged because of others takes nothing of the address' own rate.
    pub fn turn_away(
        &mut self,
        client: ClientAddr,
        step: Step,
        live: bool,
        now: Duration,
    ) -> Option<Refusal> {
        let standing = self.standing(client, live, now);
        match self.rate.count(client, step, standing == Standing::Known, now) {
            Counted::Within => {}
            Counted::Beyond => return Some(Refusal::TooMany),
            Counted::NoPlace => return Some(Refusal::Busy),
        }
        if self.cap.allows(standing, now) {
            return None;
        }
        self.rate.give_back(client, step, now);
        Some(Refusal::Busy)
    }

    /// Counts a comparison with a slow hash; whether it may be made.
    pub fn allows_hash(&mut self, attempt: &Attempt, live: bool, now: Duration) -> bool {
        let standing = if self.got_in_as_named(attempt, now) {
            Standing::Known
        } else {
            self.standing_of_stranger(attempt.client, live, now)
        };
        let allowed = self.cap.allows_hash(standing, now);
        if !allowed {
            self.give_back(attempt, now);
        }
        allowed
    }

    /// Whether an address got in not long ago as the user whom it names now. Somebody with keys of his own gets no
    /// more guesses at another's by that.
    #[must_use]
    pub fn got_in_as_named(&self, attempt: &Attempt, now: Duration) -> bool {
        attempt.user.as_deref().is_some_and(|user| self.known.knows_as(attempt.client, user, now))
    }

    /// Takes back a request that was counted at `now` and is not judged after all.
    pub fn give_back(&mut self, attempt: &Attempt, now: Duration) {
        self.rate.give_back(attempt.client, attempt.step, now);
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
            Verdict::Grant { user, .. } => {
                self.lockout.succeeded(client);
                self.known.remember(client, user, now);
                self.crowds.got_in(client);
            }
            Verdict::Refuse(reason) => {
                if reason.is_a_guess() {
                    self.begun = self.lockout.failed(client, self.marked(mark), now).or(self.begun);
                }
                self.crowds.in_vain(client, now);
            }
            Verdict::AdmitToStep2 { .. } | Verdict::NeedToken { .. } => self.crowds.in_vain(client, now),
            Verdict::Close { .. } | Verdict::Hash { .. } | Verdict::Alive => {}
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
        if self.known.knows(client, now) {
            Standing::Known
        } else {
            self.standing_of_stranger(client, live, now)
        }
    }

    fn standing_of_stranger(&self, client: ClientAddr, live: bool, now: Duration) -> Standing {
        if self.crowds.has(client, now) {
            Standing::Failed
        } else if live {
            Standing::Live
        } else if self.lockout.has_failed(client, now) {
            Standing::Failed
        } else {
            Standing::Unblemished
        }
    }
}
