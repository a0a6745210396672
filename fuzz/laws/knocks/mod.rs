//! The whole knock logic against a model of it.
//!
//! The bytes are a story: a configuration, and then what happens one after the other. The gatekeeper and the model are told
//! the same, and must say the same. A third one, who only remembers what was said, looks for what must never be.

mod defence;
mod history;
mod model;
mod world;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use history::History;
use model::{Model, Proof, Shown, Try, code, steps};
use world::{INTERVAL, Key, Kind, SECRETS, START, USERS, World, wall};

use super::choices::Choices;
use crate::knock::{Action, Attempt, Claim, Credential, Gatekeeper, Proof as Made, Step, UsedUp, Verdict};
use crate::units::{ClientAddr, Lifetime, Now, Secret, Verifier};

/// The longest story; longer ones say nothing that two short ones would not.
const MOST: usize = 160;
const CLIENTS: [&str; 7] = [
    "192.0.2.1",
    "192.0.2.2",
    "2001:db8:0:1::1",
    "2001:db8:0:1::2",
    "2001:db8:0:2::1",
    "2001:db8:1:1::1",
    "198.51.100.9",
];

/// Whoever waits for a comparison of a key with its hash.
struct Waiting {
    attempt: Try,
    hash: Secret,
    fits: bool,
}

struct Story<'a> {
    choices: Choices<'a>,
    world: World,
    gate: Gatekeeper,
    model: Model,
    history: History,
    waiting: VecDeque<Waiting>,
    /// Milliseconds since the host was started.
    boot: u64,
    /// How far the calendar is off from where it would be.
    off: i64,
    /// What was presented before, to be presented again.
    attempts: Vec<Try>,
}

/// Bytes to a story, told to its end.
pub fn knocks(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let world = World::chosen(&mut choices);
    let gate = Gatekeeper::new(&world.settings(), &world.two_factor(), choices.bytes());
    let mut story = Story {
        choices,
        gate,
        model: Model::new(world.clone()),
        world,
        history: History::default(),
        waiting: VecDeque::new(),
        boot: 5_000,
        off: 0,
        attempts: Vec::new(),
    };
    for _ in 0..MOST {
        if story.choices.is_over() {
            break;
        }
        story.next();
    }
}

impl Story<'_> {
    fn now(&self) -> Now {
        let calendar = i64::try_from(START * 1_000 + self.boot).unwrap() + self.off;
        Now { boot: Duration::from_millis(self.boot), wall: wall(u64::try_from(calendar).unwrap()) }
    }

    fn next(&mut self) {
        match self.choices.below(16) {
            0..=7 => {
                let attempt = self.sensible();
                self.present(attempt);
            }
            8 => {
                let attempt = self.anything();
                self.present(attempt);
            }
            9 => {
                if !self.attempts.is_empty() {
                    let at = self.choices.below(self.attempts.len().min(256));
                    let mut attempt = self.attempts[at].clone();
                    if self.choices.rarely(4) {
                        attempt.client = self.client();
                    }
                    self.present(attempt);
                }
            }
            10 => self.hashed(),
            11 => self.boot += [1, 40, 1_000, 4_999][self.choices.below(4)],
            12 => {
                self.boot += [5_000, 29_000, 60_000, 65_000, 600_000, 3_600_000, 86_400_000, 700_000_000]
                    [self.choices.below(8)];
            }
            // Up to an hour there and back: used proofs are remembered for two.
            13 => self.off = [0, -30_000, 30_000, 1_800_000, -1_800_000][self.choices.below(5)],
            14 => self.reload(),
            _ => self.rarer(),
        }
        self.agree_otherwise();
    }

    fn rarer(&mut self) {
        let now = self.now();
        match self.choices.below(6) {
            0 => self.restart(false),
            1 => self.restart(true),
            2 => {
                let (client, app) = (self.client(), self.world.apps[0].name);
                self.gate.forget(client, &app.parse().unwrap());
                self.model.forget(client, app);
            }
            3 => {
                self.gate.forget_everybody();
                self.model.forget_everybody();
                self.history.forget_everybody();
            }
            n => {
                let client = (n == 4).then(|| self.client());
                let lifted = self.gate.defence_mut().unblock(client, now.boot);
                assert_eq!(lifted, self.model.defence.unblock(client, self.boot), "how many were locked out");
                if client.is_none() {
                    self.gate.guesses_mut().lift();
                    self.model.unblock_codes();
                }
            }
        }
    }

    fn reload(&mut self) {
        if self.choices.flag() {
            // A change that an operator makes in a moment, and takes back in the next.
            let many = self.world.users.len();
            match self.choices.below(4) {
                0 if many > 0 => {
                    let at = self.choices.below(many);
                    self.world.users[at].disabled ^= true;
                }
                1 => self.world.lock_out = None,
                2 => self.world.limit = [1_000, 4][self.choices.below(2)],
                _ => drop(self.world.files.pop()),
            }
        } else {
            self.world = World::chosen(&mut self.choices);
        }
        self.gate.reload(&self.world.settings(), &self.world.two_factor(), self.choices.bytes());
        self.model.reload(self.world.clone());
        self.history.forget_everybody();
    }

    /// The daemon is started anew; `damaged`: what it kept cannot be read.
    fn restart(&mut self, damaged: bool) {
        let kept = serde_json::to_string(&self.gate.used_up()).unwrap();
        self.gate = Gatekeeper::new(&self.world.settings(), &self.world.two_factor(), self.choices.bytes());
        self.model.restart(self.now(), damaged);
        if damaged {
            self.gate.refuse_present(self.now());
            self.model.doubt(self.now());
            self.history.forget_proofs();
        } else {
            let used = serde_json::from_str::<UsedUp>(&kept).unwrap();
            self.gate.remember_used(&used, self.now());
        }
        self.waiting.clear();
        self.history.forget_everybody();
    }

    /// What both are asked beside verdicts.
    fn agree_otherwise(&mut self) {
        let now = self.now();
        self.gate.expire(now);
        self.model.expire(now);
        assert_eq!(self.gate.next_expiry(), self.model.next_expiry(), "when the next step 1 ends");
        assert_eq!(self.gate.defence().locked_out(now.boot).len(), self.model.defence.locked_out(self.boot));
    }

    fn client(&mut self) -> ClientAddr {
        ClientAddr::new(self.choices.pick(&CLIENTS).parse().unwrap())
    }

    /// An attempt with a key or a proof of one, often wholly right.
    fn sensible(&mut self) -> Try {
        let client =
            ClientAddr::new(CLIENTS[[0, 0, 0, 1, 2, 3, 4, 5][self.choices.below(8)]].parse().unwrap());
        let step = if self.choices.flag() { Step::Two } else { Step::One };
        let at = usize::from(step == Step::Two);
        let mut all: Vec<(&str, Option<&str>, &Key, Option<usize>)> = Vec::new();
        for app in &self.world.apps {
            all.extend(app.keys[at].iter().map(|key| (app.name, None, key, None)));
        }
        for user in &self.world.users {
            for app in &user.apps {
                let of = |key| (self.world.apps[app.app].name, Some(user.name), key, user.secret);
                all.extend(app.keys[at].iter().map(of));
            }
        }
        let Some(&(app, user, key, secret)) = all.get(self.choices.below(all.len().min(256))) else {
            return self.anything();
        };
        let (app, key) = (app.to_owned(), key.clone());
        let of_file = self.world.files.iter().find(|(text, _)| *text == key.text).map(|(_, secret)| *secret);
        let secret = secret.or(of_file);
        let mut out = Try {
            client,
            step,
            app,
            shown: Shown::Key(key.text.clone()),
            user: user.filter(|_| key.kind == Kind::Slow || self.choices.flag()).map(str::to_owned),
            token: None,
            duration: None,
            action: Action::Open,
        };
        let twist = self.choices.byte();
        if let Some(secret) = secret
            && twist & 1 == 0
        {
            let ago = [0, 0, 1, 2][usize::from(twist >> 1 & 3)];
            out.token = Some(code(secret, steps(self.now()) - ago));
        }
        let proves = self.world.proof != "accept" || twist & 8 != 0;
        if step == Step::One && proves && key.kind != Kind::Slow {
            let name = user.or(key.id()).unwrap_or("nobody").to_owned();
            let address = (twist & 16 == 0).then_some(client.ip());
            out.user = Some(name.clone());
            out.shown = Shown::Proof(self.proof(&out.app.clone(), &name, &key.text, address));
        }
        if twist & 0xe0 == 0xe0 {
            out.duration = Some([1, 90, 100_000][self.choices.below(3)]);
        }
        if twist & 0xe0 == 0xc0 {
            out.action = Action::Close;
        }
        out
    }

    /// An attempt with any parts, known or not.
    fn anything(&mut self) -> Try {
        let mut texts: Vec<String> = self.world.holders().map(|key| key.text.clone()).collect();
        texts.push("a-wrong-key".to_owned());
        let text = texts[usize::from(self.choices.number()) % texts.len()].clone();
        let app = (*self.choices.pick(&["ssh", "Web Mail", "vpn", "nothing", "SSH"])).to_owned();
        let names: Vec<&str> = USERS.into_iter().chain(["nobody"]).collect();
        let user = self.choices.flag().then(|| (*self.choices.pick(&names)).to_owned());
        let client = self.client();
        let shown = if self.choices.flag() {
            let address: Option<IpAddr> =
                self.choices.flag().then(|| self.choices.pick(&CLIENTS).parse().unwrap());
            let name = user.clone().unwrap_or_else(|| "alice".to_owned());
            Shown::Proof(self.proof(&app, &name, &text, address))
        } else {
            Shown::Key(text)
        };
        let token = match self.choices.below(4) {
            0 => Some("00000000".to_owned()),
            1 => {
                let (secret, ahead) = (self.choices.below(SECRETS.len()), self.choices.byte() % 6);
                Some(code(secret, steps(self.now()) + u64::from(ahead) - 3))
            }
            _ => None,
        };
        let step = if self.choices.flag() { Step::Two } else { Step::One };
        let action = if self.choices.rarely(4) { Action::Close } else { Action::Open };
        let duration = self.choices.rarely(4).then(|| 1 + u64::from(self.choices.number()));
        Try { client, step, app, shown, user, token, duration, action }
    }

    fn proof(&mut self, app: &str, user: &str, key: &str, address: Option<IpAddr>) -> Proof {
        let choice = self.choices.byte();
        let counter = steps(self.now()) + [1, 1, 1, 0, 2, 3, 1, 1][usize::from(choice & 7)] - 1;
        Proof {
            app: app.to_owned(),
            user: user.to_owned(),
            key: key.to_owned(),
            address,
            counter,
            nonce: format!("{:016x}", choice >> 3),
        }
    }

    fn present(&mut self, attempt: Try) {
        let now = self.now();
        let sessions = self.history.sessions(attempt.client.masked_v6(self.world.prefix), self.boot);
        let session =
            |app: &str, user: &str| sessions.iter().any(|(a, u)| (a.as_str(), u.as_str()) == (app, user));
        let real = real(&attempt);
        let expected = self.model.judge(&attempt, &session, now);
        let got = self.gate.judge(&real, &|app, user| session(app.as_str(), user), now);
        assert_eq!(told(&got), told(&expected), "{attempt:?} at {now:?}");
        self.attempts.push(attempt.clone());
        if let Verdict::Hash { hash, key } = got {
            // Whether it fits is found out against the hash that was given, later.
            let holder = self.world.holders().find(|holder| holder.configured() == hash.expose());
            let fits = holder.is_some_and(|holder| holder.text == key.expose());
            self.waiting.push_back(Waiting { attempt, hash, fits });
            if !self.choices.rarely(4) {
                self.hashed();
            }
            return;
        }
        self.history.learn(&self.world, &attempt, &got, now);
    }

    fn hashed(&mut self) {
        let Some(Waiting { attempt, hash, fits }) = self.waiting.pop_front() else { return };
        let now = self.now();
        let sessions = self.history.sessions(attempt.client.masked_v6(self.world.prefix), self.boot);
        let session =
            |app: &str, user: &str| sessions.iter().any(|(a, u)| (a.as_str(), u.as_str()) == (app, user));
        let expected = self.model.judge_hashed(&attempt, hash.expose(), fits, &session, now);
        let got = self.gate.judge_hashed(
            &real(&attempt),
            &hash,
            fits,
            &|app, user| session(app.as_str(), user),
            now,
        );
        assert_eq!(told(&got), told(&expected), "{attempt:?}, whose key fits: {fits}, at {now:?}");
        self.history.learn(&self.world, &attempt, &got, now);
    }
}

/// A verdict with the secrets in it, which two must have in common.
fn told(verdict: &Verdict) -> (Verdict, String) {
    let secrets = match verdict {
        Verdict::Hash { hash, key } => format!("{} {}", hash.expose(), key.expose()),
        _ => String::new(),
    };
    (verdict.clone(), secrets)
}

/// The attempt as bytes would have it.
fn real(attempt: &Try) -> Attempt {
    let credential = match &attempt.shown {
        Shown::Key(text) => Credential::Key(Secret::new(text.clone())),
        Shown::Proof(proof) => {
            let key = Verifier::of(&Secret::new(proof.key.clone()));
            let claim = Claim { app: &proof.app, user: &proof.user };
            let at = wall(proof.counter * INTERVAL * 1_000);
            Credential::Proof(Made::make(&key, &claim, proof.address, &proof.nonce, at))
        }
    };
    Attempt {
        client: attempt.client,
        step: attempt.step,
        app: attempt.app.clone(),
        credential,
        user: attempt.user.clone(),
        token: attempt.token.clone().map(Secret::new),
        duration: attempt.duration.map(|secs| Lifetime::from_secs(secs).unwrap()),
        action: attempt.action,
    }
}
