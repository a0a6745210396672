use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ring::hmac;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::config::{App, Settings};
use crate::knock::attempt::{Attempt, Refusal, Step, Verdict};
use crate::knock::pending::{Digest, Pending, Step1};
use crate::knock::rate_limit::RateLimit;
use crate::knock::totp::{TotpSecret, UsedCodes};
use crate::units::{AppName, ClientAddr, Lifetime, Now, Secret};

/// Step 1s that may be live at once.
const MAX_PENDING: usize = 65_536;
/// Added where a list of keys is shorter than the longest; no digest of a text is all zeros.
const NOBODY: Digest = [0; 32];

/// An access key that needs a one-time code as well, as its 2FA file says.
#[derive(Clone, Debug)]
pub struct TwoFactor {
    /// The access key, of step 1 or of step 2.
    pub access_key: Secret,
    /// The secret of its codes.
    pub secret: TotpSecret,
}

/// Decides what every attempt opens.
///
/// Names and keys are held and compared as digests under a random key, always as many as the app with the most has,
/// so that time tells neither which apps exist nor how near a key was.
pub struct Gatekeeper {
    digest_key: hmac::Key,
    apps: Vec<Guarded>,
    by_name: BTreeMap<Digest, usize>,
    factors: Vec<Factor>,
    decoy_factor: Option<TotpSecret>,
    decoy_keys: Vec<Key>,
    token_window: Lifetime,
    ipv6_prefix: u8,
    rate: RateLimit,
    pending: Pending,
    codes_used: bool,
}

struct Guarded {
    app: App,
    http: Vec<Key>,
    https: Vec<Key>,
}

#[derive(Clone, Copy)]
struct Key {
    digest: Digest,
    factor: Option<usize>,
}

struct Factor {
    access_key: Digest,
    /// The same for keys that share a secret: then they share its codes, too.
    name: String,
    secret: TotpSecret,
    used: UsedCodes,
}

/// What became of a one-time code.
enum Code {
    Missing,
    Wrong,
    Used,
    Good { factor: usize, counter: u64 },
}

impl Gatekeeper {
    /// A gatekeeper for these settings that knows nobody yet; `random` keys its tables.
    #[must_use]
    pub fn new(settings: &Settings, two_factor: Vec<TwoFactor>, random: [u8; 16]) -> Self {
        let digest_key = hmac::Key::new(hmac::HMAC_SHA256, &random);
        let factors: Vec<Factor> = two_factor
            .into_iter()
            .map(|file| Factor {
                access_key: digest(&digest_key, &[file.access_key.expose()]),
                name: file.secret.fingerprint(),
                secret: file.secret,
                used: UsedCodes::default(),
            })
            .collect();
        let longest = settings
            .apps
            .iter()
            .flat_map(|app| [app.access_key_http.len(), app.access_key_https.len()])
            .max()
            .unwrap_or(0)
            .max(1);
        let keys = |secrets: &[Secret]| {
            let mut keys: Vec<Key> = secrets
                .iter()
                .map(|secret| {
                    let digest = digest(&digest_key, &[secret.expose()]);
                    Key { digest, factor: factors.iter().position(|f| f.access_key == digest) }
                })
                .collect();
            keys.resize(longest, Key { digest: NOBODY, factor: None });
            keys
        };
        let apps: Vec<Guarded> = settings
            .apps
            .iter()
            .map(|app| Guarded {
                app: app.clone(),
                http: keys(&app.access_key_http),
                https: keys(&app.access_key_https),
            })
            .collect();
        let by_name = apps
            .iter()
            .enumerate()
            .map(|(index, guarded)| (digest(&digest_key, &[guarded.app.name.as_str()]), index))
            .collect();
        let decoy_keys = keys(&[]);
        Self {
            by_name,
            apps,
            factors,
            // Twenty bytes and thirty seconds are within the bounds of a secret.
            decoy_factor: TotpSecret::new(&[0; 20], 30).ok(),
            decoy_keys,
            token_window: settings.global.token_window,
            ipv6_prefix: settings.global.ipv6_prefix,
            rate: RateLimit::new(settings.global.step1_2_rate_limit_per_minute, &random),
            pending: Pending::new(MAX_PENDING),
            digest_key,
            codes_used: false,
        }
    }

    /// Whether a code was used up since this was last asked; then [`Gatekeeper::used_codes`] is worth keeping.
    pub fn take_codes_used(&mut self) -> bool {
        std::mem::take(&mut self.codes_used)
    }

    /// The time steps whose codes are used up, by names of secrets that tell nothing of them.
    #[must_use]
    pub fn used_codes(&self) -> BTreeMap<String, Vec<u64>> {
        self.factors.iter().map(|factor| (factor.name.clone(), factor.used.steps().collect())).collect()
    }

    /// Takes over what [`Gatekeeper::used_codes`] told before a restart.
    pub fn remember_used_codes(&mut self, used: &BTreeMap<String, Vec<u64>>) {
        for factor in &mut self.factors {
            for &step in used.get(&factor.name).into_iter().flatten() {
                factor.used.remember(step);
            }
        }
    }

    /// Counts every code that could be used now as used, because nobody knows which of them are.
    pub fn refuse_present_codes(&mut self, now: Now) {
        for factor in &mut self.factors {
            factor.secret.present(now.wall).into_iter().for_each(|step| factor.used.remember(step));
        }
        self.codes_used = true;
    }

    /// Takes over settings that have been reloaded.
    ///
    /// The rate limit and the codes used up go on; step 1s that are pending are forgotten and have to be knocked again, because what
    /// they were right for may be gone.
    pub fn reload(&mut self, settings: &Settings, two_factor: Vec<TwoFactor>, random: [u8; 16]) {
        let mut fresh = Self::new(settings, two_factor, random);
        // By the secret and not by the key: a key that was replaced does not make its codes good again.
        fresh.remember_used_codes(&self.used_codes());
        fresh.codes_used = self.codes_used;
        std::mem::swap(&mut fresh.rate, &mut self.rate);
        fresh.rate.set_limit(settings.global.step1_2_rate_limit_per_minute);
        *self = fresh;
    }

    /// Judges one attempt. A request with a code that is repeated at step 1 while it is pending is answered as before,
    /// costs nothing and prolongs nothing. A step 1 stays good until its time is over, however often step 2 follows.
    pub fn judge(&mut self, attempt: &Attempt, now: Now) -> Verdict {
        self.expire(now);
        match attempt.step {
            Step::One => self.judge_step1(attempt, now),
            Step::Two => self.judge_step2(attempt, now),
        }
    }

    /// Whether this address has a step 1 for this app that is still good.
    #[must_use]
    pub fn live_step1(&mut self, client: ClientAddr, app: &AppName, now: Now) -> bool {
        self.expire(now);
        let client = client.masked_v6(self.ipv6_prefix);
        self.index_of(app.as_str()).is_some_and(|app| self.pending.keys(client, app).next().is_some())
    }

    /// Forgets the step 1s of an address for an app: the kernel did not admit it.
    pub fn forget(&mut self, client: ClientAddr, app: &AppName) {
        let client = client.masked_v6(self.ipv6_prefix);
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
    }

    /// When the next step 1 ends, on the clock of [`Now::boot`].
    #[must_use]
    pub fn next_expiry(&self) -> Option<Duration> {
        self.pending.next_deadline()
    }

    fn judge_step1(&mut self, attempt: &Attempt, now: Now) -> Verdict {
        let client = attempt.client.masked_v6(self.ipv6_prefix);
        let token = attempt.token.as_ref().map_or("", Secret::expose);
        let presented = digest(&self.digest_key, &[attempt.app.as_str(), attempt.access_key.expose(), token]);
        // A code works once, so whoever has to repeat a request with one gets what is left of the first. Without
        // a code the same request again is a fresh knock: somebody tries anew, and should have the whole time.
        if let Some((app, deadline)) = self.pending.repeated(client, &presented)
            && attempt.token.is_some()
        {
            return self.admit(app, deadline.saturating_sub(now.boot));
        }
        if !self.rate.allows(attempt.client, now.boot) {
            return Verdict::Refuse(Refusal::TooMany);
        }
        let index = self.index_of(&attempt.app);
        let guarded = index.and_then(|at| self.apps.get(at));
        let key = self.find(guarded.map_or(&self.decoy_keys, |g| &g.http), &attempt.access_key);
        let wants_code = guarded.is_some_and(|g| g.app.two_factor_step.at_http());
        let factor = key.and_then(|(_, key)| key.factor).filter(|_| wants_code);
        let code = self.check_code(factor.as_slice(), attempt.token.as_ref(), now);

        let Some((index, guarded)) = index.zip(guarded) else {
            return Verdict::Refuse(Refusal::UnknownApp);
        };
        let Some((key, _)) = key else {
            return Verdict::Refuse(Refusal::WrongKey);
        };
        if !guarded.app.families().contains(&attempt.client.family()) {
            return Verdict::Refuse(Refusal::WrongFamily);
        }
        let lifetime = guarded.app.step2_https_duration.as_duration();
        if factor.is_some()
            && let Err(refusal) = self.spend(&code)
        {
            return Verdict::Refuse(refusal);
        }
        let step1 = Step1 { deadline: now.boot + lifetime, presented, prolonged: false };
        if !self.pending.insert((client, index, key), step1) {
            return Verdict::Refuse(Refusal::TableFull);
        }
        self.admit(index, lifetime)
    }

    fn judge_step2(&mut self, attempt: &Attempt, now: Now) -> Verdict {
        if !self.rate.allows(attempt.client, now.boot) {
            return Verdict::Refuse(Refusal::TooMany);
        }
        let client = attempt.client.masked_v6(self.ipv6_prefix);
        let index = self.index_of(&attempt.app);
        let guarded = index.and_then(|at| self.apps.get(at));
        let key = self.find(guarded.map_or(&self.decoy_keys, |g| &g.https), &attempt.access_key);
        let step1_keys: Vec<usize> =
            index.map_or_else(Vec::new, |at| self.pending.keys(client, at).collect());
        let wants_code = guarded.is_some_and(|g| g.app.two_factor_step.at_https());
        let factors = match (guarded, key) {
            (Some(guarded), Some((_, key))) if wants_code => factors_for(guarded, key, &step1_keys),
            (Some(_) | None, Some(_) | None) => Vec::new(),
        };
        let code = self.check_code(&factors, attempt.token.as_ref(), now);

        let Some((index, guarded)) = index.zip(guarded) else {
            return Verdict::Refuse(Refusal::UnknownApp);
        };
        if step1_keys.is_empty() {
            return Verdict::Refuse(Refusal::NoStep1);
        }
        let Some((key, _)) = key else {
            return Verdict::Refuse(Refusal::WrongKey);
        };
        if !guarded.app.families().contains(&attempt.client.family()) {
            return Verdict::Refuse(Refusal::WrongFamily);
        }
        let (app, lifetime) = (guarded.app.name.clone(), guarded.app.duration);
        if !factors.is_empty() {
            if matches!(code, Code::Missing) {
                let until = now.boot + self.token_window.as_duration();
                let first = self.pending.prolong(client, index, until);
                return Verdict::NeedToken { readmit: first.then_some(self.token_window) };
            }
            if let Err(refusal) = self.spend(&code) {
                return Verdict::Refuse(refusal);
            }
        }
        Verdict::Grant { app, lifetime, user: format!("key {}", key + 1) }
    }

    /// Admits to step 2 for what is left of `lifetime`, in whole seconds and at least one.
    fn admit(&self, app: usize, lifetime: Duration) -> Verdict {
        let name = self.apps.get(app).map(|guarded| guarded.app.name.clone());
        match (name, Lifetime::from_secs(lifetime.as_secs().max(1))) {
            (Some(app), Ok(lifetime)) => Verdict::AdmitToStep2 { app, lifetime },
            (Some(_) | None, Ok(_) | Err(_)) => Verdict::Refuse(Refusal::UnknownApp),
        }
    }

    fn index_of(&self, app: &str) -> Option<usize> {
        self.by_name.get(&digest(&self.digest_key, &[app])).copied()
    }

    /// The place of a key in a list, all of which is always compared.
    fn find(&self, keys: &[Key], presented: &Secret) -> Option<(usize, Key)> {
        let presented = digest(&self.digest_key, &[presented.expose()]);
        let mut found = u64::MAX;
        for (at, key) in (0_u64..).zip(keys) {
            let fits: Choice = key.digest.ct_eq(&presented) & found.ct_eq(&u64::MAX);
            found.conditional_assign(&at, fits);
        }
        let at = usize::try_from(found).ok()?;
        keys.get(at).map(|&key| (at, key))
    }

    /// Compares a code with those of each factor; with a decoy's where there is none, for the time it takes.
    fn check_code(&self, factors: &[usize], token: Option<&Secret>, now: Now) -> Code {
        let Some(token) = token else {
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
            if let Some(counter) = held.secret.matching(token, now.wall)
                && !matches!(result, Code::Good { .. })
            {
                result =
                    if held.used.contains(counter) { Code::Used } else { Code::Good { factor, counter } };
            }
        }
        result
    }

    /// Uses a code up, or says why it is none.
    fn spend(&mut self, code: &Code) -> Result<(), Refusal> {
        match *code {
            Code::Missing => Err(Refusal::MissingToken),
            Code::Wrong => Err(Refusal::WrongToken),
            Code::Used => Err(Refusal::ReplayedToken),
            Code::Good { factor, counter } => {
                let name = self.factors.get(factor).ok_or(Refusal::WrongToken)?.name.clone();
                for held in self.factors.iter_mut().filter(|held| held.name == name) {
                    held.used.remember(counter);
                }
                self.codes_used = true;
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Gatekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gatekeeper").field("apps", &self.apps.len()).finish_non_exhaustive()
    }
}

/// The 2FA secrets any of which step 2 may be completed with; none: no code is asked for.
///
/// That of the key of step 2 goes first. Otherwise it is that of the key of step 1; where two people behind one address knocked
/// with different keys of an app, the one without a secret may go on without a code, as without the other.
fn factors_for(guarded: &Guarded, https: Key, step1_keys: &[usize]) -> Vec<usize> {
    if let Some(factor) = https.factor {
        return vec![factor];
    }
    let of_step1 = step1_keys.iter().map(|&at| guarded.http.get(at).and_then(|key| key.factor));
    of_step1.collect::<Option<Vec<usize>>>().unwrap_or_default()
}

/// A digest of texts, each with its length, so that no two lists have the same bytes.
fn digest(key: &hmac::Key, parts: &[&str]) -> Digest {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.sign().as_ref().first_chunk::<32>().copied().unwrap_or(NOBODY)
}

#[cfg(test)]
#[path = "gatekeeper_tests.rs"]
mod tests;
