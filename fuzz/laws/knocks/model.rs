//! What the documentation says a gateway does, as simple as can be: lists that are searched from end to end, credentials
//! as they are, nothing that is ever forgotten to save memory.

use std::net::IpAddr;
use std::time::Duration;

use super::defence::{Defence, Guesses};
use super::world::{INTERVAL, Key, Kind, SECRETS, World, secret, wall};
use crate::knock::{Action, Refusal, Step, Verdict};
use crate::units::{ClientAddr, Family, Lifetime, Now, Secret};

/// A proof by what it was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pub app: String,
    pub user: String,
    pub key: String,
    pub address: Option<IpAddr>,
    /// The time step it was made for.
    pub counter: u64,
    pub nonce: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Key(String),
    Proof(Proof),
}

/// An attempt by what it was made of.
#[derive(Clone, Debug)]
pub struct Try {
    pub client: ClientAddr,
    pub step: Step,
    pub app: String,
    pub shown: Shown,
    pub user: Option<String>,
    pub token: Option<String>,
    pub duration: Option<u64>,
    pub action: Action,
}

/// Whoever may use one key of one step of one app.
#[derive(Clone, Debug)]
struct Holder {
    app: usize,
    step: usize,
    key: Key,
    /// None: whoever knows a key of the app.
    user: Option<(usize, &'static str)>,
    name: String,
    secret: Option<usize>,
    duration: u64,
    max_duration: u64,
    ends: Vec<u64>,
}

type Presented = (String, Shown, Option<String>, Option<String>);

/// A request, at a step; with a code, in a time step.
pub type Mark = (Presented, usize, Option<u64>);

#[derive(Clone, Debug)]
struct Step1 {
    client: ClientAddr,
    app: usize,
    holder: usize,
    until: u64,
    presented: Presented,
    typed: bool,
}

/// Times are in milliseconds, of `Now::boot`.
#[derive(Clone, Debug)]
pub struct Model {
    world: World,
    holders: Vec<Holder>,
    pub defence: Defence,
    step1s: Vec<Step1>,
    /// Secret and time step of every code that opened anything.
    used_codes: Vec<(usize, u64)>,
    /// What is known of wrong codes, by secret.
    guesses: Vec<Guesses>,
    used_proofs: Vec<Proof>,
    /// When nobody knew what was used.
    doubted: Option<u64>,
}

impl Model {
    pub fn new(world: World) -> Self {
        let defence = Defence::new(world.limit, world.lock_out);
        let holders = holders(&world);
        Self {
            world,
            holders,
            defence,
            step1s: vec![],
            used_codes: vec![],
            guesses: vec![Guesses::default(); SECRETS.len()],
            used_proofs: vec![],
            doubted: None,
        }
    }

    pub fn reload(&mut self, world: World) {
        self.holders = holders(&world);
        self.step1s.clear();
        self.defence.reload(world.limit, world.lock_out);
        self.world = world;
        let there = self.secrets();
        for (index, guesses) in self.guesses.iter_mut().enumerate() {
            guesses.reload(there.contains(&index), self.world.lock_out);
        }
    }

    /// Everything is forgotten but what is used up, and where owners of secrets are; that as well where it is damaged.
    pub fn restart(&mut self, now: Now, damaged: bool) {
        self.step1s.clear();
        self.defence = Defence::new(self.world.limit, self.world.lock_out);
        let there = self.secrets();
        for (index, guesses) in self.guesses.iter_mut().enumerate() {
            guesses.restart(!damaged && there.contains(&index), millis(now), calendar(now));
        }
    }

    /// The secrets of somebody's codes.
    fn secrets(&self) -> Vec<usize> {
        let of_users = self.world.users.iter().filter(|user| !user.disabled).filter_map(|user| user.secret);
        self.world.files.iter().map(|(_, secret)| *secret).chain(of_users).collect()
    }

    pub fn unblock_codes(&mut self) {
        self.guesses.iter_mut().for_each(Guesses::lift);
    }

    /// Nobody knows what was used: whatever could be good now is refused. What was used while the calendar was ahead is
    /// unknown as well, and good again when that time comes.
    pub fn doubt(&mut self, now: Now) {
        self.used_codes.clear();
        self.used_proofs.clear();
        self.doubted = Some(millis(now));
    }

    /// Whether something of this time step could have been used when nobody knew, by the calendar as it is now.
    fn in_doubt(&self, step: u64, drift: u64, now: Now) -> bool {
        let then = |doubted: u64| (calendar(now) - (millis(now) - doubted)) / 1_000 / INTERVAL;
        self.doubted.is_some_and(|doubted| step <= then(doubted) + drift)
    }

    pub fn forget(&mut self, client: ClientAddr, app: &str) {
        let client = client.masked_v6(self.world.prefix);
        let app = self.app(app);
        self.step1s.retain(|step1| step1.client != client || Some(step1.app) != app);
    }

    pub fn forget_everybody(&mut self) {
        self.step1s.clear();
    }

    pub fn next_expiry(&self) -> Option<Duration> {
        self.step1s.iter().map(|step1| Duration::from_millis(step1.until)).min()
    }

    fn app(&self, name: &str) -> Option<usize> {
        self.world.apps.iter().position(|app| app.name == name)
    }

    pub fn expire(&mut self, now: Now) {
        let now = millis(now);
        self.step1s.retain(|step1| step1.until > now);
    }

    pub fn judge(&mut self, attempt: &Try, session: &dyn Fn(&str, &str) -> bool, now: Now) -> Verdict {
        self.expire(now);
        if self.defence.is_locked_out(attempt.client, millis(now)) {
            return Verdict::Refuse(Refusal::LockedOut);
        }
        let client = attempt.client.masked_v6(self.world.prefix);
        let once = attempt.token.is_some() || matches!(attempt.shown, Shown::Proof(_));
        if attempt.step == Step::One && once {
            let presented = presented(attempt);
            let mut same: Vec<&Step1> = self.step1s.iter().collect();
            same.retain(|step1| step1.client == client && step1.presented == presented);
            if let Some(step1) = same.first() {
                return self.admit(step1.app, step1.until - millis(now));
            }
        }
        let live = attempt.step == Step::Two && self.step1s.iter().any(|step1| step1.client == client);
        if let Some(reason) = self.defence.turns_away(attempt.client, attempt.step, live, millis(now)) {
            return Verdict::Refuse(reason);
        }
        let slow = self.slow(attempt);
        if let (Shown::Key(key), Some(holder)) = (&attempt.shown, slow)
            && self.takes_keys(attempt.step)
            && self.holder(attempt, now).is_err()
        {
            if !self.defence.takes_hash(attempt.client, attempt.user.as_deref(), live, millis(now)) {
                return Verdict::Refuse(Refusal::Busy);
            }
            let hash = Secret::new(self.holders[holder].key.configured());
            return Verdict::Hash { hash, key: Secret::new(key.clone()) };
        }
        let found = self.holder(attempt, now);
        self.conclude(attempt, found, session, now)
    }

    /// After a comparison with `hash`, of which it is known whether the key fitted.
    pub fn judge_hashed(
        &mut self,
        attempt: &Try,
        hash: &str,
        fits: bool,
        session: &dyn Fn(&str, &str) -> bool,
        now: Now,
    ) -> Verdict {
        self.expire(now);
        if self.defence.is_locked_out(attempt.client, millis(now)) {
            return Verdict::Refuse(Refusal::LockedOut);
        }
        let found = match (self.app(&attempt.app), self.slow(attempt)) {
            (None, _) => Err(Refusal::UnknownApp),
            // The hash may be another one by now.
            (Some(_), Some(holder)) if fits && self.holders[holder].key.configured() == hash => Ok(holder),
            (Some(_), _) => Err(Refusal::WrongKey),
        };
        self.conclude(attempt, found, session, now)
    }

    /// The key of the user who is named, where it takes long to check.
    fn slow(&self, attempt: &Try) -> Option<usize> {
        let app = self.app(&attempt.app)?;
        let named = |holder: &Holder| holder.user.map(|(_, name)| name) == attempt.user.as_deref();
        let slow = |holder: &Holder| {
            holder.key.kind == Kind::Slow
                && (holder.app, holder.step) == (app, place(attempt.step))
                && holder.user.is_some()
                && named(holder)
        };
        // There is one at most.
        self.holders.iter().rposition(slow)
    }

    fn takes_keys(&self, step: Step) -> bool {
        step == Step::Two || self.world.proof == "accept"
    }

    fn holder(&self, attempt: &Try, now: Now) -> Result<usize, Refusal> {
        let app = self.app(&attempt.app).ok_or(Refusal::UnknownApp)?;
        if matches!(attempt.shown, Shown::Key(_)) && !self.takes_keys(attempt.step) {
            return Err(Refusal::KeyNotTaken);
        }
        let fits = |holder: &Holder| {
            (holder.app, holder.step) == (app, place(attempt.step))
                && holder.key.kind != Kind::Slow
                && match &attempt.shown {
                    Shown::Key(key) => holder.key.text == *key,
                    Shown::Proof(proof) => {
                        attempt.step == Step::One
                            && self.proves(proof, attempt, now)
                            && holder.key.text == proof.key
                            && holder.answers_to(attempt.user.as_deref().unwrap_or_default())
                    }
                }
        };
        self.holders.iter().rposition(fits).ok_or(Refusal::WrongKey)
    }

    /// A proof is good for the app, the user, the address and the time that it was made for.
    fn proves(&self, proof: &Proof, attempt: &Try, now: Now) -> bool {
        let here = match proof.address {
            Some(address) => address == attempt.client.ip(),
            None => self.world.proof != "require_address",
        };
        here && proof.app == attempt.app
            && Some(&proof.user) == attempt.user.as_ref()
            && proof.counter.abs_diff(steps(now)) <= 1
    }

    fn conclude(
        &mut self,
        attempt: &Try,
        found: Result<usize, Refusal>,
        session: &dyn Fn(&str, &str) -> bool,
        now: Now,
    ) -> Verdict {
        let time = attempt.token.is_some().then(|| steps(now));
        let mark = (presented(attempt), place(attempt.step), time);
        let again = self.defence.repeats(attempt.client, &mark, millis(now));
        let verdict = match attempt.step {
            Step::One => self.step1(attempt, found, again, now),
            Step::Two => self.step2(attempt, found, again, session, now),
        };
        let verdict = verdict.unwrap_or_else(Verdict::Refuse);
        self.defence.learns(attempt.client, &verdict, mark, millis(now));
        verdict
    }

    fn step1(
        &mut self,
        attempt: &Try,
        found: Result<usize, Refusal>,
        again: bool,
        now: Now,
    ) -> Result<Verdict, Refusal> {
        let at = found?;
        let holder = self.holders[at].clone();
        let app = self.world.apps[holder.app].clone();
        holder.left(now)?;
        reaches(app.destination, attempt.client)?;
        if let (Some(secret), true) = (holder.secret, app.codes[0]) {
            self.code(&[secret], attempt, again, now)?;
        }
        if let Shown::Proof(proof) = &attempt.shown {
            if self.in_doubt(proof.counter, 1, now) || self.used_proofs.contains(proof) {
                return Err(Refusal::ReplayedProof);
            }
            self.used_proofs.push(proof.clone());
        }
        let client = attempt.client.masked_v6(self.world.prefix);
        let mut until = millis(now) + app.step2 * 1_000;
        let same = |step1: &Step1| (step1.client, step1.app, step1.holder) == (client, holder.app, at);
        if let Some(earlier) = self.step1s.iter().find(|step1| same(step1)) {
            until = until.max(earlier.until);
        }
        self.step1s.retain(|step1| !same(step1));
        let presented = presented(attempt);
        self.step1s.push(Step1 { client, app: holder.app, holder: at, until, presented, typed: false });
        Ok(self.admit(holder.app, app.step2 * 1_000))
    }

    fn step2(
        &mut self,
        attempt: &Try,
        found: Result<usize, Refusal>,
        again: bool,
        session: &dyn Fn(&str, &str) -> bool,
        now: Now,
    ) -> Result<Verdict, Refusal> {
        let holder = self.holders[found?].clone();
        let client = attempt.client.masked_v6(self.world.prefix);
        let (index, app) = (holder.app, self.world.apps[holder.app].clone());
        let theirs = |step1: &Step1| {
            let user = self.holders[step1.holder].user;
            step1.client == client && step1.app == index && user == holder.user
        };
        let keys: Vec<usize> = self.step1s.iter().filter(|s| theirs(s)).map(|s| s.holder).collect();
        if keys.is_empty() {
            return Err(Refusal::NoStep1);
        }
        let left = holder.left(now)?;
        reaches(app.destination, attempt.client)?;
        let asked = attempt.duration.map_or(holder.duration, |asked| asked.min(holder.max_duration));
        let lifetime = left.map_or(asked, |left| asked.min(left.max(1)));
        let (name, user) = (app.name.parse().unwrap(), holder.name.clone());
        // The code of the key of step 2; else one of those of step 1, unless one of these has none.
        let of_step1: Vec<Option<usize>> = keys.iter().map(|&key| self.holders[key].secret).collect();
        let secrets: Vec<usize> = match holder.secret {
            // At step 1 it was asked for, if it was that of the key there.
            Some(secret) if app.codes[1] || of_step1.iter().any(|asked| *asked != Some(secret)) => {
                vec![secret]
            }
            Some(_) => vec![],
            None if !app.codes[1] || of_step1.contains(&None) => vec![],
            None => of_step1.into_iter().flatten().collect(),
        };
        let goes_on = attempt.action == Action::Close || session(app.name, &user);
        if !secrets.is_empty() && (attempt.token.is_some() || !goes_on) {
            if attempt.token.is_none() {
                return Ok(self.time_to_type(client, index, now));
            }
            self.code(&secrets, attempt, again, now)?;
        }
        Ok(match attempt.action {
            Action::Open => {
                Verdict::Grant { app: name, lifetime: Lifetime::from_secs(lifetime).unwrap(), user }
            }
            Action::Close => Verdict::Close { app: name, user },
        })
    }

    /// Every step 1 of the address for the app gets the time once.
    fn time_to_type(&mut self, client: ClientAddr, app: usize, now: Now) -> Verdict {
        let until = millis(now) + self.world.token_window * 1_000;
        let mut first = false;
        for step1 in &mut self.step1s {
            if (step1.client, step1.app, step1.typed) == (client, app, false) {
                (step1.typed, first) = (true, true);
                step1.until = step1.until.max(until);
            }
        }
        let window = Lifetime::from_secs(self.world.token_window).unwrap();
        Verdict::NeedToken { readmit: first.then_some(window) }
    }

    /// Uses up a code of one of these secrets.
    fn code(&mut self, secrets: &[usize], attempt: &Try, again: bool, now: Now) -> Result<(), Refusal> {
        let token = attempt.token.as_deref().ok_or(Refusal::MissingToken)?;
        let mut wrong = Refusal::WrongToken;
        for &index in secrets {
            if self.guesses[index].holds_back(attempt.client, millis(now)) {
                wrong = Refusal::HeldToken;
                continue;
            }
            let drift = u64::from(SECRETS[index].2);
            let taken = (steps(now) - drift..=steps(now) + drift).rev();
            // Two time steps may have one code; the later one counts.
            let Some(step) = taken.into_iter().find(|&step| code(index, step) == token) else { continue };
            if self.in_doubt(step, drift, now) || self.used_codes.contains(&(index, step)) {
                wrong = Refusal::ReplayedToken;
                continue;
            }
            self.used_codes.push((index, step));
            self.guesses[index].succeeds(attempt.client, millis(now), calendar(now));
            return Ok(());
        }
        if wrong == Refusal::WrongToken && !again {
            let tried = (0..SECRETS.len()).filter(|index| secrets.contains(index));
            tried.for_each(|index| self.guesses[index].fails(self.world.lock_out, millis(now)));
        }
        Err(wrong)
    }

    fn admit(&self, app: usize, for_millis: u64) -> Verdict {
        let lifetime = Lifetime::from_secs((for_millis / 1_000).max(1)).unwrap();
        Verdict::AdmitToStep2 { app: self.world.apps[app].name.parse().unwrap(), lifetime }
    }
}

/// The code of a secret for a time step.
pub fn code(index: usize, step: u64) -> String {
    secret(index).code_at(wall(step * INTERVAL * 1_000)).expose().to_owned()
}

/// The time step of a moment; that of proofs and of codes alike.
pub fn steps(now: Now) -> u64 {
    now.wall.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / INTERVAL
}

/// Milliseconds since 1970.
fn calendar(now: Now) -> u64 {
    now.wall.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn millis(now: Now) -> u64 {
    u64::try_from(now.boot.as_millis()).unwrap()
}

fn place(step: Step) -> usize {
    match step {
        Step::One => 0,
        Step::Two => 1,
    }
}

fn presented(attempt: &Try) -> Presented {
    (attempt.app.clone(), attempt.shown.clone(), attempt.user.clone(), attempt.token.clone())
}

fn reaches(destination: &str, client: ClientAddr) -> Result<(), Refusal> {
    let family = match destination {
        "local" => client.family(),
        v6 if v6.contains(':') => Family::V6,
        _ => Family::V4,
    };
    if family == client.family() { Ok(()) } else { Err(Refusal::WrongFamily) }
}

fn holders(world: &World) -> Vec<Holder> {
    let mut out = Vec::new();
    let file = |key: &Key| {
        let files = world.files.iter().filter(|_| key.kind != Kind::Slow);
        files.into_iter().find(|(text, _)| *text == key.text).map(|(_, secret)| *secret)
    };
    for (index, app) in world.apps.iter().enumerate() {
        for (step, keys) in app.keys.iter().enumerate() {
            for (at, key) in keys.iter().enumerate() {
                out.push(Holder {
                    app: index,
                    step,
                    key: key.clone(),
                    user: None,
                    name: format!("key {}", at + 1),
                    secret: file(key),
                    duration: app.duration,
                    max_duration: app.max_duration,
                    ends: key.expires.into_iter().collect(),
                });
            }
        }
    }
    for (index, user) in world.users.iter().enumerate().filter(|(_, user)| !user.disabled) {
        for theirs in user.apps.iter().filter(|theirs| !theirs.disabled) {
            for (step, keys) in theirs.keys.iter().enumerate() {
                for key in keys {
                    out.push(Holder {
                        app: theirs.app,
                        step,
                        key: key.clone(),
                        user: Some((index, user.name)),
                        name: user.name.to_owned(),
                        secret: user.secret.or_else(|| file(key)),
                        duration: theirs.duration,
                        max_duration: theirs.max_duration,
                        ends: [key.expires, theirs.expires, user.expires].into_iter().flatten().collect(),
                    });
                }
            }
        }
    }
    out.retain(|holder| !holder.key.disabled);
    out
}

impl Holder {
    fn answers_to(&self, name: &str) -> bool {
        self.user.is_some_and(|(_, user)| user == name) || self.key.id() == Some(name)
    }

    /// Seconds until it ends, if it does; rounded down.
    fn left(&self, now: Now) -> Result<Option<u64>, Refusal> {
        let Some(end) = self.ends.iter().min() else { return Ok(None) };
        match wall(end * 1_000).duration_since(now.wall) {
            Ok(left) if !left.is_zero() => Ok(Some(left.as_secs())),
            Ok(_) | Err(_) => Err(Refusal::Expired),
        }
    }
}
