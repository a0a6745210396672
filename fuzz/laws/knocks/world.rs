//! A gateway's configuration: as decisions have it, and as the text that an operator would write for it.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Alone, Settings, parse};
use crate::knock::TwoFactor;
use crate::laws::choices::Choices;
use crate::units::{Secret, Timestamp, TotpKind, TotpSecret, Verifier};

/// The calendar at the beginning, in seconds.
pub const START: u64 = 1_700_000_000;
/// Secrets of one-time codes, each with its digits and drift.
pub const SECRETS: [(&str, u8, u8); 3] = [
    ("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", 8, 1),
    ("MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43U", 8, 0),
    ("NBSWY3DPO5XXE3DENBSWY3DPO5XXE3DE", 7, 2),
];
pub const INTERVAL: u64 = 30;
pub const USERS: [&str; 3] = ["alice", "bob", "carol"];
const APPS: [&str; 3] = ["ssh", "Web Mail", "vpn"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Only its verifier is in the configuration.
    Stored,
    /// Only a hash that takes long to compute.
    Slow,
}

#[derive(Clone, Debug)]
pub struct Key {
    /// What a client presents.
    pub text: String,
    pub kind: Kind,
    /// Seconds of the calendar.
    pub expires: Option<u64>,
    pub disabled: bool,
}

#[derive(Clone, Debug)]
pub struct App {
    pub name: &'static str,
    pub destination: &'static str,
    pub duration: u64,
    pub max_duration: u64,
    pub step2: u64,
    /// By step.
    pub keys: [Vec<Key>; 2],
    /// Whether a code is wanted, by step.
    pub codes: [bool; 2],
}

#[derive(Clone, Debug)]
pub struct UserApp {
    pub app: usize,
    pub disabled: bool,
    pub expires: Option<u64>,
    pub duration: u64,
    pub max_duration: u64,
    pub keys: [Vec<Key>; 2],
}

#[derive(Clone, Debug)]
pub struct User {
    pub name: &'static str,
    pub disabled: bool,
    pub expires: Option<u64>,
    pub secret: Option<usize>,
    pub apps: Vec<UserApp>,
}

#[derive(Clone, Copy, Debug)]
pub struct LockOut {
    pub after: u32,
    pub first: u64,
    pub longest: u64,
}

#[derive(Clone, Debug)]
pub struct World {
    pub apps: Vec<App>,
    pub users: Vec<User>,
    /// Keys with 2FA files: what a client presents, and the secret.
    pub files: Vec<(String, usize)>,
    /// `accept`, `require` or `require_address`.
    pub proof: &'static str,
    pub token_window: u64,
    pub prefix: u8,
    pub limit: u32,
    pub lock_out: Option<LockOut>,
}

pub fn secret(index: usize) -> TotpSecret {
    let (text, digits, drift) = SECRETS[index];
    TotpSecret::from_base32(text, TotpKind { interval: INTERVAL, digits, drift }).unwrap()
}

/// What makes the text of a key: its place, and a variant, so that a reload can replace it.
fn key(choices: &mut Choices<'_>, place: &str, slow: bool) -> Key {
    let variant = choices.below(2);
    let kind = match choices.below(8) {
        6 => Kind::Stored,
        7 if slow => Kind::Slow,
        _ => Kind::Plain,
    };
    let place = place.replace([' ', '-'], "").to_lowercase();
    // With an id in front, a key of an app can be proved by it.
    let text = if choices.rarely(3) {
        format!("{place:x<6}.abcdefghij0123456789k{variant}")
    } else {
        format!("key-{place}-{variant}")
    };
    Key { text, kind, expires: end(choices), disabled: choices.rarely(12) }
}

fn end(choices: &mut Choices<'_>) -> Option<u64> {
    match choices.below(12) {
        9 => Some(START - 5),
        10 => Some(START + 40),
        11 => Some(START + 4_000),
        _ => None,
    }
}

fn keys(choices: &mut Choices<'_>, place: &str, slow: bool) -> [Vec<Key>; 2] {
    [1, 2].map(|step| {
        let many = 0..1 + choices.below(2);
        let mut keys: Vec<Key> = many.map(|n| key(choices, &format!("{place}{step}{n}"), slow)).collect();
        // Of those that are found by a name alone there can be one.
        let mut slow = keys.iter_mut().filter(|key| key.kind == Kind::Slow && !key.disabled);
        slow.next();
        slow.for_each(|key| key.disabled = true);
        keys
    })
}

impl World {
    pub fn chosen(choices: &mut Choices<'_>) -> Self {
        let users = choices.below(4);
        let apps = (0..1 + choices.below(3)).map(|at| Self::app(choices, APPS[at], users > 0)).collect();
        let mut out = Self {
            apps,
            users: Vec::new(),
            files: Vec::new(),
            proof: ["accept", "accept", "require", "require_address"][choices.below(4)],
            token_window: [60, 5][choices.below(2)],
            prefix: [128, 64, 48, 128][choices.below(4)],
            limit: [1_000, 3, 10, 60][choices.below(4)],
            lock_out: [
                None,
                Some(LockOut { after: 2, first: 60, longest: 120 }),
                Some(LockOut { after: 3, first: 10, longest: 3_600 }),
                Some(LockOut { after: 1, first: 600, longest: 600 }),
            ][choices.below(4)],
        };
        for name in &USERS[..users] {
            let user = out.user(choices, name);
            out.users.push(user);
        }
        let texts: Vec<String> = out.holders().map(|key| key.text.clone()).collect();
        for _ in 0..choices.below(3) {
            let text = texts[usize::from(choices.number()) % texts.len()].clone();
            if out.files.iter().all(|(known, _)| *known != text) {
                out.files.push((text, choices.below(SECRETS.len())));
            }
        }
        out
    }

    fn app(choices: &mut Choices<'_>, name: &'static str, keyless: bool) -> App {
        let keys = if keyless && choices.flag() { [vec![], vec![]] } else { keys(choices, name, false) };
        let duration = [3_600, 60][choices.below(2)];
        App {
            name,
            destination: ["local", "10.0.0.5", "\"fd00::5\""][choices.below(4) % 3],
            duration,
            max_duration: duration * [1, 4][choices.below(2)],
            step2: [5, 30, 120][choices.below(3)],
            keys,
            codes: [[true, false], [false, true], [true, true]][choices.below(3)],
        }
    }

    fn user(&self, choices: &mut Choices<'_>, name: &'static str) -> User {
        let secret = choices.flag().then(|| choices.below(SECRETS.len()));
        let (disabled, expires) = (choices.rarely(8), end(choices));
        let mut apps = Vec::new();
        for (at, app) in self.apps.iter().enumerate() {
            // Nobody has no app at all.
            if choices.rarely(4) && at > 0 {
                continue;
            }
            let max_duration = app.max_duration / [1, 2][choices.below(2)];
            apps.push(UserApp {
                app: at,
                disabled: choices.rarely(12),
                expires: end(choices),
                duration: max_duration / [1, 3][choices.below(2)],
                max_duration,
                keys: keys(choices, &format!("{name}{at}"), true),
            });
        }
        User { name, disabled, expires, secret, apps }
    }

    /// Every key there is.
    pub fn holders(&self) -> impl Iterator<Item = &Key> {
        let of_users = self.users.iter().flat_map(|user| &user.apps).flat_map(|app| &app.keys);
        self.apps.iter().flat_map(|app| &app.keys).chain(of_users).flatten()
    }

    /// The 2FA files, as the daemon would have read them.
    pub fn two_factor(&self) -> Vec<TwoFactor> {
        let file = |(text, index): &(String, usize)| TwoFactor {
            access_key: Secret::new(text.clone()),
            secret: secret(*index),
        };
        self.files.iter().map(file).collect()
    }

    /// What an operator writes for it, read.
    pub fn settings(&self) -> Settings {
        let text = self.text();
        let checked = parse("world", &text, None, &Alone);
        checked.unwrap_or_else(|problems| panic!("{problems}\n{text}")).settings
    }

    fn text(&self) -> String {
        let mut out = format!(
            "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /one-place\n  https_post_path: /two-place\n  \
             step1_max_bytes: 1400\n  step1_2_rate_limit_per_minute: {}\n  step1_proof: {}\n  token_window: {}\n  ipv6_prefix: {}\n",
            self.limit, self.proof, self.token_window, self.prefix
        );
        match self.lock_out {
            None => out += "  lockout: off\n",
            Some(LockOut { after, first, longest }) => {
                let _ = writeln!(out, "  lockout: {{after: {after}, first: {first}, longest: {longest}}}");
            }
        }
        if !self.users.is_empty() {
            out += "  users:\n";
        }
        for user in &self.users {
            let _ = writeln!(out, "    {}:\n      disabled: {}", user.name, user.disabled);
            ends(&mut out, "      ", user.expires);
            if let Some(index) = user.secret {
                let (text, digits, drift) = SECRETS[index];
                let _ = writeln!(out, "      totp: {{secret: {text}, digits: {digits}, drift: {drift}}}");
            }
            out += if user.apps.is_empty() { "      apps: []\n" } else { "      apps:\n" };
            for theirs in &user.apps {
                let _ = writeln!(
                    out,
                    "        {}:\n          disabled: {}\n          duration: {}\n          max_duration: {}",
                    self.apps[theirs.app].name, theirs.disabled, theirs.duration, theirs.max_duration
                );
                ends(&mut out, "          ", theirs.expires);
                write_keys(&mut out, "          ", &theirs.keys);
            }
        }
        for (at, app) in self.apps.iter().enumerate() {
            let step = match app.codes {
                [true, false] => "http",
                [false, true] => "https",
                _ => "both",
            };
            let _ = writeln!(
                out,
                "{}:\n  port: {}\n  destination: {}\n  duration: {}\n  max_duration: {}\n  step2_https_duration: {}\n  2fa_step: {step}",
                app.name,
                22 + at,
                app.destination,
                app.duration,
                app.max_duration,
                app.step2
            );
            if !app.keys[0].is_empty() {
                write_keys(&mut out, "  ", &app.keys);
            }
        }
        out
    }
}

fn ends(out: &mut String, indent: &str, at: Option<u64>) {
    if let Some(at) = at {
        let _ = writeln!(out, "{indent}expires: \"{}\"", Timestamp::from_secs(at).unwrap());
    }
}

fn write_keys(out: &mut String, indent: &str, keys: &[Vec<Key>; 2]) {
    for (name, keys) in ["access_key_http", "access_key_https"].iter().zip(keys) {
        let _ = writeln!(out, "{indent}{name}:");
        for key in keys {
            let _ = writeln!(
                out,
                "{indent}- key: \"{}\"\n{indent}  disabled: {}",
                key.configured(),
                key.disabled
            );
            ends(out, &format!("{indent}  "), key.expires);
        }
    }
}

impl Key {
    /// As it stands in the configuration.
    pub fn configured(&self) -> String {
        match self.kind {
            Kind::Plain => self.text.clone(),
            Kind::Stored => {
                let verifier = Verifier::of(&Secret::new(self.text.clone()));
                let digits: String = verifier.expose().iter().map(|byte| format!("{byte:02x}")).collect();
                format!("$ka1${}${digits}", self.id().unwrap_or_default())
            }
            // No hash is computed here: that it fits is told by whoever compares.
            Kind::Slow => {
                format!("$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ${}", self.text.replace(['-', '.'], "/"))
            }
        }
    }

    /// The name of a generated key, the part before its dot.
    pub fn id(&self) -> Option<&str> {
        Some(self.text.split_once('.')?.0)
    }
}

/// A moment of the calendar.
pub fn wall(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}
