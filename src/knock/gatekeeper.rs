mod codes;
mod proved;
mod same;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use self::codes::Code;
use self::proved::ProvedGrants;
use self::same::mark;
use crate::config::{App, Settings, Step1Proof};
use crate::knock::attempt::{Action, Attempt, Credential, Refusal, Step, Verdict};
use crate::knock::defence::Defence;
use crate::knock::guesses::Guesses;
use crate::knock::keyring::{Factor, Holder, Keyring, NoCode, TwoFactor};
use crate::knock::pending::{Digest, Pending, Step1};
use crate::knock::proof::{Claim, UsedProofs, latest};
use crate::knock::used_codes::{UsedCodes, UsedUp};
use crate::units::{AppName, ClientAddr, Lifetime, Now, Secret, TotpKind, TotpSecret};

/// Step 1s that may be live at once.
const MAX_PENDING: usize = 65_536;
/// Longer than any code or proof is good.
const DOUBT: Duration = Duration::from_secs(2 * 60 * 60);

/// Decides what every attempt opens.
///
/// Names and keys are held and found by digests under a random key, with the same work whether they are right or
/// wrong, so that time tells neither which apps exist nor how near a key was.
pub struct Gatekeeper {
    keyring: Keyring,
    apps: Vec<App>,
    by_name: BTreeMap<Digest, usize>,
    factors: Vec<Factor>,
    decoy_factor: Option<TotpSecret>,
    codes: UsedCodes,
    guesses: Guesses,
    held: Option<(String, Duration)>,
    proofs: UsedProofs,
    proved: ProvedGrants,
    /// When it was not known what is used up, on the clock that never goes back.
    doubted: Option<Duration>,
    /// Until when everything counts as used, by the calendar.
    refused_until: Option<SystemTime>,
    step1_proof: Step1Proof,
    token_window: Lifetime,
    ipv6_prefix: u8,
    defence: Defence,
    pending: Pending,
    used: bool,
    /// By what name a monitor asks; no app has it.
    monitor: Option<String>,
}

/// A right key, and what has to happen with it.
struct Right {
    app: usize,
    holder: usize,
    /// The time step of a proof.
    proved: Option<u64>,
}

impl Gatekeeper {
    /// A gatekeeper for these settings that knows nobody yet; `random` keys its tables.
    #[must_use]
    pub fn new(settings: &Settings, two_factor: &[TwoFactor], random: [u8; 16]) -> Self {
        let mut factors = Vec::new();
        let keyring = Keyring::new(settings, two_factor, &random, &mut factors);
        let names = settings.apps.iter().enumerate();
        let by_name = names.map(|(at, app)| (keyring.digest(&[app.name.as_str().as_bytes()]), at)).collect();
        Self {
            keyring,
            by_name,
            apps: settings.apps.clone(),
            factors,
            // Twenty bytes are within the bounds of a secret.
            decoy_factor: TotpSecret::new(&[0; 20], TotpKind::default()).ok(),
            codes: UsedCodes::default(),
            guesses: Guesses::new(settings.global.lockout),
            held: None,
            proofs: UsedProofs::default(),
            proved: ProvedGrants::default(),
            doubted: None,
            refused_until: None,
            step1_proof: settings.global.step1_proof,
            token_window: settings.global.token_window,
            ipv6_prefix: settings.global.ipv6_prefix,
            defence: Defence::new(settings, &random),
            pending: Pending::new(MAX_PENDING),
            used: false,
            monitor: settings.global.healthcheck_app_name.clone(),
        }
    }

    /// Who keeps guessers off.
    #[must_use]
    pub fn defence(&self) -> &Defence {
        &self.defence
    }

    /// Who keeps guessers off, to change what it knows.
    pub fn defence_mut(&mut self) -> &mut Defence {
        &mut self.defence
    }

    /// Whose one-time codes began to be held back since this was last asked, and for how long.
    pub fn take_held(&mut self) -> Option<(String, Duration)> {
        self.held.take()
    }

    /// Wrong one-time codes, to lift what is held back because of them.
    pub fn guesses_mut(&mut self) -> &mut Guesses {
        &mut self.guesses
    }

    /// Whether a code or proof was used up since this was last asked; then [`Gatekeeper::used_up`] is worth keeping.
    pub fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.used)
    }

    /// What is used up, and where the owners of secrets knock from.
    #[must_use]
    pub fn used_up(&self) -> UsedUp {
        let (proofs, proofs_from) = self.proofs.list();
        let doubted_ms = self.doubted.map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        let (codes, codes_upto) = (self.codes.list(), self.codes.upto());
        let (refused_until, own, proved) = (self.refused_until, self.guesses.own_sites(), self.proved.list());
        UsedUp { codes, codes_upto, proofs, proofs_from, doubted_ms, refused_until, own, proved }
    }

    /// Takes over what [`Gatekeeper::used_up`] told before a restart.
    pub fn remember_used(&mut self, used: &UsedUp, now: Now) {
        for (secret, steps) in &used.codes {
            steps.iter().for_each(|&step| self.codes.remember(secret, step));
        }
        used.codes_upto.iter().for_each(|(secret, &step)| self.codes.forget_upto(secret, step));
        self.proofs.remember(&used.proofs, used.proofs_from);
        self.refused_until = used.refused_until;
        // A later moment is one of another run of the kernel.
        let doubted = used.doubted_ms.map(|ms| Duration::from_millis(ms).min(now.boot));
        self.doubted = self.doubted.max(doubted);
        let names: Vec<&str> = self.factors.iter().map(|factor| factor.name.as_str()).collect();
        self.guesses.remember_own(&used.own, &names, now);
        self.proved.remember(&used.proved);
    }

    /// Counts every code and proof that could be used by now as used, because nobody knows which of them are.
    pub fn refuse_present(&mut self, now: Now) {
        self.doubted = Some(now.boot);
        self.used = true;
    }

    /// Takes over settings that have been reloaded.
    ///
    /// What is known of addresses and what is used up go on; step 1s that are pending are forgotten and have to be knocked again,
    /// because what they were right for may be gone. Returns the keys that need no code any more.
    pub fn reload(&mut self, settings: &Settings, two_factor: &[TwoFactor], random: [u8; 16]) -> Vec<NoCode> {
        let mut fresh = Self::new(settings, two_factor, random);
        let gone = self.keyring.codes_gone(&self.apps, &fresh.keyring, &fresh.apps);
        // By the secret and not by the key: a key that was replaced does not make its codes good again, nor a user who is
        // disabled and enabled.
        std::mem::swap(&mut fresh.codes, &mut self.codes);
        let names: Vec<&str> = fresh.factors.iter().map(|factor| factor.name.as_str()).collect();
        fresh.codes.tidy(&names);
        std::mem::swap(&mut fresh.guesses, &mut self.guesses);
        fresh.guesses.reload(settings.global.lockout, &names);
        std::mem::swap(&mut fresh.proofs, &mut self.proofs);
        fresh.proofs.forget_whose();
        std::mem::swap(&mut fresh.proved, &mut self.proved);
        (fresh.doubted, fresh.refused_until) = (self.doubted, self.refused_until);
        fresh.used = self.used;
        std::mem::swap(&mut fresh.defence, &mut self.defence);
        fresh.defence.reload(settings);
        *self = fresh;
        gone
    }

    /// Judges one attempt. `session` tells whether somebody's grant for an app runs at the address of the attempt.
    ///
    /// A request with a code or proof that is repeated at step 1 while it is pending is answered as before, costs
    /// nothing and prolongs nothing. A step 1 stays good until its time is over, however often step 2 follows.
    pub fn judge(
        &mut self,
        attempt: &Attempt,
        session: &dyn Fn(&AppName, &str) -> bool,
        now: Now,
    ) -> Verdict {
        self.expire(now);
        if self.defence.locks_out(attempt.client, now.boot) {
            return Verdict::Refuse(Refusal::LockedOut);
        }
        let presented = self.presented(attempt);
        // A code works once, so whoever has to repeat a request with one gets what is left of the first. Without
        // a code the same request again is a fresh knock: somebody tries anew, and should have the whole time.
        let once = attempt.token.is_some() || matches!(attempt.credential, Credential::Proof(_));
        if attempt.step == Step::One
            && once
            && let Some((app, deadline)) = self.pending.repeated(self.masked(attempt.client), &presented)
        {
            return self.admit(app, deadline.saturating_sub(now.boot));
        }
        // Of no use to step 1: whoever recorded a plain one could repeat it and have more than others every time.
        let live = attempt.step == Step::Two && self.pending.any(self.masked(attempt.client));
        if let Some(reason) = self.defence.turn_away(attempt.client, attempt.step, live, now.boot) {
            return Verdict::Refuse(reason);
        }
        if self.monitor.as_ref() == Some(&attempt.app) {
            return Verdict::Alive;
        }
        let app = self.index_of(&attempt.app);
        if let Credential::Key(key) = &attempt.credential
            && let Some((_, hash)) = self.keyring.by_hash(attempt.step, app, attempt.user.as_deref())
            && self.takes_keys(attempt.step)
            // The user's other keys, and those of nobody in particular, need not wait.
            && self.keyring.by_key(attempt.step, app, key).is_none()
        {
            if !self.defence.allows_hash(attempt, live, now.boot) {
                return Verdict::Refuse(Refusal::Busy);
            }
            return Verdict::Hash { hash, key: key.clone() };
        }
        let right = self.check(attempt, app, now);
        self.conclude(attempt, right, presented, session, now)
    }

    /// Judges an attempt whose key was compared with a hash, as [`Verdict::Hash`] asked for.
    ///
    /// The comparison took its time: the hash may have been replaced meanwhile, and the address locked out.
    pub fn judge_hashed(
        &mut self,
        attempt: &Attempt,
        hash: &Secret,
        fits: bool,
        session: &dyn Fn(&AppName, &str) -> bool,
        now: Now,
    ) -> Verdict {
        self.expire(now);
        if self.defence.locks_out(attempt.client, now.boot) {
            return Verdict::Refuse(Refusal::LockedOut);
        }
        let app = self.index_of(&attempt.app);
        let found = self.keyring.by_hash(attempt.step, app, attempt.user.as_deref());
        let right = match (app, found) {
            (None, _) => Err(Refusal::UnknownApp),
            (Some(app), Some((holder, known))) if fits && known.same_as(hash) => {
                self.keyring.learn(holder, &attempt.credential);
                Ok(Right { app, holder, proved: None })
            }
            (Some(_), Some(_) | None) => Err(Refusal::WrongKey),
        };
        let presented = self.presented(attempt);
        self.conclude(attempt, right, presented, session, now)
    }

    /// Whether this address has a step 1 for this app that is still good.
    #[must_use]
    pub fn live_step1(&mut self, client: ClientAddr, app: &AppName, now: Now) -> bool {
        self.expire(now);
        let client = self.masked(client);
        self.index_of(app.as_str()).is_some_and(|app| self.pending.keys(client, app).next().is_some())
    }

    /// Forgets the step 1s of an address for an app: the kernel did not admit it.
    pub fn forget(&mut self, client: ClientAddr, app: &AppName) {
        let client = self.masked(client);
        if let Some(app) = self.index_of(app.as_str()) {
            self.pending.forget(client, app);
        }
    }

    /// Forgets every step 1: an operator closes everything.
    pub fn forget_everybody(&mut self) {
        self.pending = Pending::new(MAX_PENDING);
    }

    /// Drops the step 1s whose time is over; judging does so too.
    pub fn expire(&mut self, now: Now) {
        self.pending.expire(now.boot);
        self.doubted = self.doubted.filter(|&at| now.boot < at + DOUBT);
    }

    /// When the next step 1 ends, on the clock of [`Now::boot`].
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        self.pending.next_deadline()
    }

    /// Whose key or proof it is; the same work whether it is right or wrong.
    fn check(&self, attempt: &Attempt, app: Option<usize>, now: Now) -> Result<Right, Refusal> {
        let found = match &attempt.credential {
            Credential::Key(key) => self.keyring.by_key(attempt.step, app, key).map(|at| (at, None)),
            Credential::Proof(_) if attempt.step == Step::Two => None,
            Credential::Proof(proof) => {
                let user = attempt.user.as_deref().unwrap_or_default();
                let claim = Claim { app: &attempt.app, user };
                let anywhere = self.step1_proof != Step1Proof::RequireAddress;
                let found =
                    self.keyring.by_proof(app, &claim, proof, attempt.client.ip(), anywhere, now.wall);
                found.map(|(at, counter)| (at, Some(counter)))
            }
        };
        let app = app.ok_or(Refusal::UnknownApp)?;
        if matches!(attempt.credential, Credential::Key(_)) && !self.takes_keys(attempt.step) {
            return Err(Refusal::KeyNotTaken);
        }
        let (holder, proved) = found.ok_or(Refusal::WrongKey)?;
        Ok(Right { app, holder, proved })
    }

    fn takes_keys(&self, step: Step) -> bool {
        step == Step::Two || self.step1_proof == Step1Proof::Accept
    }

    fn conclude(
        &mut self,
        attempt: &Attempt,
        right: Result<Right, Refusal>,
        presented: Digest,
        session: &dyn Fn(&AppName, &str) -> bool,
        now: Now,
    ) -> Verdict {
        let holder = right.as_ref().ok().map(|right| right.holder);
        let mark = mark(attempt, &presented, now);
        let again = self.defence.repeats(attempt.client, mark, now.boot);
        let verdict = match attempt.step {
            Step::One => self.conclude_step1(attempt, right, presented, again, now),
            Step::Two => self.conclude_step2(attempt, right, again, session, now),
        };
        let verdict = verdict.unwrap_or_else(Verdict::Refuse);
        self.defence.learn(attempt.client, &verdict, mark, now.boot);
        if let Some(lasts) = self.guesses.take_begun() {
            let whose = holder.and_then(|at| self.keyring.holder(at)).map(|holder| holder.who.name());
            self.held = Some((whose.unwrap_or_default(), lasts));
        }
        verdict
    }

    fn conclude_step1(
        &mut self,
        attempt: &Attempt,
        right: Result<Right, Refusal>,
        presented: Digest,
        again: bool,
        now: Now,
    ) -> Result<Verdict, Refusal> {
        let wants =
            |gate: &Self, right: &Right| gate.app(right.app).is_some_and(|app| app.two_factor_step.at_http());
        let holder = right.as_ref().ok().and_then(|right| self.keyring.holder(right.holder));
        let factor = holder.and_then(|holder| holder.factor);
        let factor = factor.filter(|_| right.as_ref().is_ok_and(|right| wants(self, right)));
        let code = self.check_code(factor.as_slice(), attempt, now);

        let Right { app: index, holder: at, proved } = right?;
        let lifetime = {
            let holder = self.keyring.holder(at).ok_or(Refusal::WrongKey)?;
            holder.left(now.wall).map_err(|()| Refusal::Expired)?;
            let app = self.app(index).ok_or(Refusal::UnknownApp)?;
            self.can_reach(app, attempt.client)?;
            app.step2_https_duration.as_duration()
        };
        if factor.is_some() {
            self.spend(&code, factor.as_slice(), attempt.client, again, now)?;
        }
        if let (Some(counter), Credential::Proof(proof)) = (proved, &attempt.credential) {
            if self.doubted(now).is_some_and(|then| counter <= latest(then)) {
                return Err(Refusal::ReplayedProof);
            }
            self.proofs.spend(proof, counter, at, now.wall)?;
            self.used = true;
        }
        let step1 = Step1 { deadline: now.boot + lifetime, presented, prolonged: false };
        if !self.pending.insert((self.masked(attempt.client), index, at), step1) {
            return Err(Refusal::TableFull);
        }
        Ok(self.admit(index, lifetime))
    }

    fn conclude_step2(
        &mut self,
        attempt: &Attempt,
        right: Result<Right, Refusal>,
        again: bool,
        session: &dyn Fn(&AppName, &str) -> bool,
        now: Now,
    ) -> Result<Verdict, Refusal> {
        let client = self.masked(attempt.client);
        let step1s: Vec<&Holder> = match &right {
            Ok(right) => self.step1s(client, right),
            Err(_) => Vec::new(),
        };
        let holder = right.as_ref().ok().and_then(|right| self.keyring.holder(right.holder));
        let at_https = right
            .as_ref()
            .is_ok_and(|right| self.app(right.app).is_some_and(|app| app.two_factor_step.at_https()));
        let factors = holder.map(|holder| self.factors_for(holder, &step1s, at_https)).unwrap_or_default();
        let code = self.check_code(&factors, attempt, now);

        let index = right?.app;
        let holder = holder.ok_or(Refusal::WrongKey)?;
        if step1s.is_empty() {
            return Err(Refusal::NoStep1);
        }
        let left = holder.left(now.wall).map_err(|()| Refusal::Expired)?;
        let app = self.app(index).ok_or(Refusal::UnknownApp)?;
        self.can_reach(app, attempt.client)?;
        let (app, user) = (app.name.clone(), holder.who.name());
        let lifetime = lifetime(attempt.duration, holder, left).ok_or(Refusal::Expired)?;
        let whose = (app.to_string(), client.ip(), user.clone());
        let is_in = session(&app, &user);
        // Who gave a code for what runs proved it then, and closing takes nothing away from anybody else.
        let free = attempt.token.is_none()
            && (attempt.action == Action::Close || is_in && self.has_proved(&whose, &factors));
        if !factors.is_empty() && !free {
            if matches!(code, Code::Missing) {
                let until = now.boot + self.token_window.as_duration();
                let first = self.pending.prolong(client, index, until);
                return Ok(Verdict::NeedToken { readmit: first.then_some(self.token_window) });
            }
            self.spend(&code, &factors, attempt.client, again, now)?;
        }
        match attempt.action {
            Action::Open => self.note_proved(whose, &factors, &code, (is_in, lifetime), now),
            Action::Close => self.used |= self.proved.forget(&whose),
        }
        Ok(match attempt.action {
            Action::Open => Verdict::Grant { app, lifetime, user },
            Action::Close => Verdict::Close { app, user },
        })
    }

    /// The keys with which this address did step 1 of the knock whose step 2 this is.
    fn step1s(&self, client: ClientAddr, right: &Right) -> Vec<&Holder> {
        let Some(holder) = self.keyring.holder(right.holder) else { return Vec::new() };
        let known = self.pending.keys(client, right.app).filter_map(|at| self.keyring.holder(at));
        known.filter(|step1| step1.who.goes_with(&holder.who)).collect()
    }

    /// Admits to step 2 for what is left of `lifetime`, in whole seconds and at least one.
    fn admit(&self, app: usize, lifetime: Duration) -> Verdict {
        let name = self.app(app).map(|app| app.name.clone());
        match (name, Lifetime::from_secs(lifetime.as_secs().max(1))) {
            (Some(app), Ok(lifetime)) => Verdict::AdmitToStep2 { app, lifetime },
            (Some(_) | None, Ok(_) | Err(_)) => Verdict::Refuse(Refusal::UnknownApp),
        }
    }

    fn app(&self, at: usize) -> Option<&App> {
        self.apps.get(at)
    }

    /// Whether a grant for an app would be of use to an address, and to it only.
    fn can_reach(&self, app: &App, client: ClientAddr) -> Result<(), Refusal> {
        if !app.families().contains(&client.family()) {
            Err(Refusal::WrongFamily)
        } else if !client.may_be_masked(self.ipv6_prefix) {
            Err(Refusal::LinkLocal)
        } else {
            Ok(())
        }
    }

    fn masked(&self, client: ClientAddr) -> ClientAddr {
        client.masked_v6(self.ipv6_prefix)
    }

    fn index_of(&self, app: &str) -> Option<usize> {
        self.by_name.get(&self.keyring.digest(&[app.as_bytes()])).copied()
    }
}

/// How long a grant lasts: what was asked for, within what the key may have and its own last day.
fn lifetime(asked: Option<Lifetime>, holder: &Holder, left: Option<Duration>) -> Option<Lifetime> {
    let wanted = asked.map_or(holder.duration, |asked| asked.min(holder.max_duration));
    let whole = left.map_or(wanted.as_secs(), |left| left.as_secs().max(1).min(wanted.as_secs()));
    Lifetime::from_secs(whole).ok()
}

impl fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatekeeper").field("apps", &self.apps.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "gatekeeper_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "users_tests.rs"]
mod users_tests;

#[cfg(test)]
#[path = "defence_tests.rs"]
mod defence_tests;
