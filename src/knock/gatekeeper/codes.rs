//! One-time codes: which are asked for, compared and used up.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::Gatekeeper;
use super::proved::Whose;
use crate::knock::attempt::{Attempt, Refusal};
use crate::knock::keyring::Holder;
use crate::units::{ClientAddr, Lifetime, Now};

/// What became of a one-time code.
pub(super) enum Code {
    Missing,
    Wrong,
    Used,
    /// Nobody says whether it was right: too many of its secret's were wrong.
    Held,
    Good {
        factor: usize,
        counter: u64,
    },
}

impl Gatekeeper {
    /// Counts everything as used that could be used until a moment of the calendar, which may be behind that now.
    pub fn refuse_until(&mut self, until: Option<SystemTime>) {
        self.refused_until = until;
    }

    /// Until when everything counts as used.
    #[must_use]
    pub fn refuses_until(&self) -> Option<SystemTime> {
        self.refused_until
    }

    /// When it was not known what is used up, by the calendar of now: that of then may have been wrong, as where a host
    /// has no clock that goes on while it is off. Or when something was used before that, if that is later.
    pub(super) fn doubted(&self, now: Now) -> Option<SystemTime> {
        let then = self.doubted.and_then(|at| now.wall.checked_sub(now.boot.saturating_sub(at)));
        then.max(self.refused_until)
    }

    /// Compares a code with those of each factor; with a decoy's where there is none, for the time it takes.
    pub(super) fn check_code(&self, factors: &[usize], attempt: &Attempt, now: Now) -> Code {
        let Some(token) = &attempt.token else {
            return Code::Missing;
        };
        if factors.is_empty() {
            let _ = self.decoy_factor.as_ref().map(|decoy| decoy.matching(token, now.wall));
            return Code::Wrong;
        }
        let mut result = Code::Wrong;
        for &factor in factors {
            let Some(held) = self.factors.get(factor) else {
                continue;
            };
            // The same work whether it is held back or not.
            let matching = held.secret.matching(token, now.wall);
            if matches!(result, Code::Good { .. }) {
                continue;
            }
            if self.guesses.holds_back(&held.name, attempt.client, now.boot) {
                result = Code::Held;
            } else if let Some(counter) = matching {
                let doubted =
                    self.doubted(now).is_some_and(|then| counter <= *held.secret.present(then).end());
                let used = doubted || self.codes.contains(&held.name, counter);
                result = if used { Code::Used } else { Code::Good { factor, counter } };
            }
        }
        result
    }

    /// Uses a code up, or says why it is none. A wrong one counts against all the secrets that it was tried for, unless it
    /// is only presented `again`.
    pub(super) fn spend(
        &mut self,
        code: &Code,
        factors: &[usize],
        client: ClientAddr,
        again: bool,
        now: Now,
    ) -> Result<(), Refusal> {
        match *code {
            Code::Missing => Err(Refusal::MissingToken),
            Code::Wrong => {
                let tried: BTreeSet<&str> =
                    factors.iter().filter_map(|&at| Some(self.factors.get(at)?.name.as_str())).collect();
                tried.into_iter().filter(|_| !again).for_each(|secret| self.guesses.failed(secret, now.boot));
                Err(Refusal::WrongToken)
            }
            Code::Used => Err(Refusal::ReplayedToken),
            Code::Held => Err(Refusal::HeldToken),
            Code::Good { factor, counter } => {
                let secret = self.factors.get(factor).ok_or(Refusal::WrongToken)?;
                self.codes.remember(&secret.name, counter);
                self.guesses.succeeded(&secret.name, client, now);
                self.used = true;
                Ok(())
            }
        }
    }

    /// The 2FA secrets any of which step 2 may be completed with; none: no code is asked for.
    ///
    /// That of the key of step 2 goes first. Otherwise it is that of the key of step 1; where two people behind one address knocked
    /// with different keys of an app, the one without a secret may go on without a code, as without the other.
    ///
    /// Where codes are asked for at step 1 (`at_https` is false), that was the code of that step's key. If the key of step 2 has a
    /// secret of its own, which was not asked for yet, it is asked for now: a key that has one opens nothing without.
    pub(super) fn factors_for(&self, holder: &Holder, step1s: &[&Holder], at_https: bool) -> Vec<usize> {
        match holder.factor {
            Some(own) if at_https || !step1s.iter().all(|step1| self.is_same(step1.factor, own)) => vec![own],
            None if at_https => {
                step1s.iter().map(|step1| step1.factor).collect::<Option<Vec<usize>>>().unwrap_or_default()
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Whether a code of one of these secrets was given for a grant.
    pub(super) fn has_proved(&self, whose: &Whose, factors: &[usize]) -> bool {
        let names = factors.iter().filter_map(|&at| Some(self.factors.get(at)?.name.as_str()));
        self.proved.has(whose, &names.collect())
    }

    /// Notes whether a code was given for a grant that is made or renewed, and of which secret.
    pub(super) fn note_proved(
        &mut self,
        whose: Whose,
        factors: &[usize],
        code: &Code,
        (is_in, lifetime): (bool, Lifetime),
        now: Now,
    ) {
        if factors.is_empty() {
            self.used |= self.proved.forget(&whose);
            return;
        }
        self.used = true;
        match *code {
            Code::Good { factor, .. } => {
                if let Some(secret) = self.factors.get(factor) {
                    self.proved.prove(whose, &secret.name, is_in, lifetime, now);
                }
            }
            Code::Missing | Code::Wrong | Code::Used | Code::Held => {
                self.proved.prolong(&whose, lifetime, now);
            }
        }
    }

    /// Whether two are the same secret: a code of it is good once.
    fn is_same(&self, asked: Option<usize>, own: usize) -> bool {
        let name = |at: usize| self.factors.get(at).map(|factor| factor.name.as_str());
        asked.is_some_and(|asked| name(asked) == name(own))
    }
}
