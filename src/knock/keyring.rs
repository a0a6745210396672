//! Whose key it is: found by a digest under a random key, so that time tells nothing about near misses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ring::hmac;

use crate::config::{App, Settings};
use crate::knock::attempt::{Credential, Step};
use crate::knock::pending::Digest;
use crate::knock::proof::{Claim, Proof};
use crate::units::{AccessKey, AppName, KeyCheck, Lifetime, Secret, Timestamp, TotpSecret, Verifier};

/// An access key that needs a one-time code as well, as its 2FA file says.
#[derive(Clone, Debug)]
pub struct TwoFactor {
    /// The access key, of step 1 or of step 2.
    pub access_key: Secret,
    /// The secret of its codes.
    pub secret: TotpSecret,
}

/// A key that needed a one-time code before a reload and needs none after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCode {
    /// What it opens.
    pub app: AppName,
    /// `key` and its place in the list, or the user.
    pub by: String,
    /// 1 or 2.
    pub step: u8,
}

/// Who has a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Whoever knows the app's key at this place of its list, from 1.
    Key(usize),
    /// The user at this place of the settings.
    User { index: usize, name: String },
}

impl Who {
    /// Whether a step 1 by one and a step 2 by the other are those of one knock.
    pub(crate) fn goes_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(_), Self::Key(_)) => true,
            (Self::User { index: one, .. }, Self::User { index: two, .. }) => one == two,
            (Self::Key(_), Self::User { .. }) | (Self::User { .. }, Self::Key(_)) => false,
        }
    }

    /// As ledger and log call them.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Key(at) => format!("key {at}"),
            Self::User { name, .. } => name.clone(),
        }
    }
}

/// One key of one step of one app.
#[derive(Debug)]
pub(crate) struct Holder {
    step: Step,
    pub(crate) app: usize,
    pub(crate) who: Who,
    /// The secret of the one-time codes that go with it.
    pub(crate) factor: Option<usize>,
    pub(crate) duration: Lifetime,
    pub(crate) max_duration: Lifetime,
    /// When it stops to open anything; several dates may apply.
    expires: Vec<Timestamp>,
    verifier: Option<Verifier>,
    hash: Option<Secret>,
}

impl Holder {
    /// What is left of its validity: nothing once it has ended.
    pub(crate) fn left(&self, wall: SystemTime) -> Result<Option<Duration>, ()> {
        let mut least = None;
        for end in &self.expires {
            let left = end.left(wall).ok_or(())?;
            least = Some(least.map_or(left, |least: Duration| least.min(left)));
        }
        Ok(least)
    }
}

/// The secret of somebody's one-time codes.
pub(crate) struct Factor {
    /// The same for keys that share a secret: then they share its codes, too.
    pub(crate) name: String,
    pub(crate) secret: TotpSecret,
}

/// Every key there is.
pub(crate) struct Keyring {
    digest_key: hmac::Key,
    holders: Vec<Holder>,
    /// By step, app and key.
    by_key: BTreeMap<Digest, usize>,
    /// By app and the user's name or the key's id: whose proofs of step 1 could be meant.
    by_name: BTreeMap<Digest, Vec<usize>>,
    /// By step, app and the user's name: keys that take long to check.
    by_hash: BTreeMap<Digest, usize>,
    /// The secrets of 2FA files, by the keys that these are named after.
    of_files: Vec<(Verifier, usize)>,
    decoy: Verifier,
}

impl Keyring {
    /// Every key of these settings; also fills the list of their factors.
    pub(crate) fn new(
        settings: &Settings,
        two_factor: &[TwoFactor],
        random: &[u8; 16],
        factors: &mut Vec<Factor>,
    ) -> Self {
        let mut out = Self {
            digest_key: hmac::Key::new(hmac::HMAC_SHA256, random),
            holders: Vec::new(),
            by_key: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            of_files: Vec::new(),
            decoy: Verifier::of(&Secret::new("a key that nobody has".to_owned())),
        };
        let mut factor_of = |secret: &TotpSecret| {
            factors.push(Factor { name: secret.fingerprint(), secret: secret.clone() });
            factors.len() - 1
        };
        out.of_files =
            two_factor.iter().map(|file| (Verifier::of(&file.access_key), factor_of(&file.secret))).collect();
        for (at, app) in settings.apps.iter().enumerate() {
            for (step, keys) in [(Step::One, &app.access_key_http), (Step::Two, &app.access_key_https)] {
                for (place, key) in keys.iter().enumerate() {
                    let mut holder = holder(step, at, app, Who::Key(place + 1));
                    holder.factor = out.of_file(key.verifier());
                    out.add(key, None, holder);
                }
            }
        }
        for (index, user) in settings.users.iter().enumerate().filter(|(_, user)| !user.disabled) {
            let own = user.totp.as_ref().map(&mut factor_of);
            for theirs in user.apps.iter().filter(|theirs| !theirs.disabled) {
                let Some((at, app)) = find(&settings.apps, theirs.app.as_str()) else { continue };
                for (step, keys) in [(Step::One, &theirs.http), (Step::Two, &theirs.https)] {
                    for key in keys {
                        let name = user.name.to_string();
                        let mut holder = holder(step, at, app, Who::User { index, name });
                        holder.factor = own.or_else(|| out.of_file(key.verifier()));
                        (holder.duration, holder.max_duration) = (theirs.duration, theirs.max_duration);
                        holder.expires.extend(user.expires.into_iter().chain(theirs.expires));
                        out.add(key, Some(user.name.as_str()), holder);
                    }
                }
            }
        }
        out
    }

    fn add(&mut self, key: &AccessKey, user: Option<&str>, mut holder: Holder) {
        if key.disabled {
            return;
        }
        holder.expires.extend(key.expires);
        holder.verifier = key.verifier();
        let (at, step, app) = (self.holders.len(), holder.step, holder.app);
        if let Some(verifier) = &holder.verifier {
            self.by_key.insert(self.place(step, app, verifier.expose()), at);
            if step == Step::One {
                for name in user.into_iter().chain(key.id.as_deref()) {
                    let place = self.place(step, app, name.as_bytes());
                    self.by_name.entry(place).or_default().push(at);
                }
            }
        }
        if let (KeyCheck::Slow(hash), Some(user)) = (&key.check, user) {
            holder.hash = Some(hash.clone());
            self.by_hash.insert(self.place(step, app, user.as_bytes()), at);
        }
        self.holders.push(holder);
    }

    /// The key at a place that was found before.
    pub(crate) fn holder(&self, at: usize) -> Option<&Holder> {
        self.holders.get(at)
    }

    /// Whose key was presented at a step for an app; the same work whatever comes of it.
    pub(crate) fn by_key(&self, step: Step, app: Option<usize>, key: &Secret) -> Option<usize> {
        let place = self.place(step, app.unwrap_or(usize::MAX), Verifier::of(key).expose());
        self.by_key.get(&place).copied()
    }

    /// The secret of the file that is named after a key.
    fn of_file(&self, key: Option<Verifier>) -> Option<usize> {
        let key = key?;
        self.of_files.iter().find(|(held, _)| held.expose() == key.expose()).map(|(_, factor)| *factor)
    }

    /// Notes the key at a place, which took long to check and was right: now it is known whether a file is named after it.
    pub(crate) fn learn(&mut self, at: usize, key: &Credential) {
        let Credential::Key(key) = key else { return };
        let factor = self.of_file(Some(Verifier::of(key)));
        if let Some(holder) = self.holders.get_mut(at) {
            holder.factor = holder.factor.or(factor);
        }
    }

    /// The keys that need a code here and none in the keyring of a reload.
    pub(crate) fn codes_gone(&self, apps: &[App], fresh: &Self, fresh_apps: &[App]) -> Vec<NoCode> {
        let gone = self.holders.iter().filter_map(|had| {
            let (factor, app) = (had.factor?, apps.get(had.app)?);
            let (at, _) = find(fresh_apps, app.name.as_str())?;
            let now = fresh.same(had, at)?;
            // That of a key that takes long to check is not learnt yet.
            let mut files = self.of_files.iter().filter(|(_, secret)| *secret == factor);
            let goes_on =
                now.factor.is_some() || files.any(|(file, _)| fresh.of_file(Some(file.clone())).is_some());
            let step = if had.step == Step::One { 1 } else { 2 };
            (!goes_on).then(|| NoCode { app: app.name.clone(), by: had.who.name(), step })
        });
        gone.collect()
    }

    /// The same key as that of another keyring, for the app at a place of this one.
    fn same(&self, had: &Holder, app: usize) -> Option<&Holder> {
        let at = match (&had.verifier, &had.hash) {
            (Some(verifier), _) => *self.by_key.get(&self.place(had.step, app, verifier.expose()))?,
            (None, Some(hash)) => {
                let found = self.by_hash(had.step, Some(app), Some(&had.who.name()));
                found.filter(|(_, known)| known.same_as(hash))?.0
            }
            (None, None) => return None,
        };
        self.holders.get(at)
    }

    /// Whose key takes long to check, and against what.
    pub(crate) fn by_hash(
        &self,
        step: Step,
        app: Option<usize>,
        user: Option<&str>,
    ) -> Option<(usize, Secret)> {
        let place = self.place(step, app.unwrap_or(usize::MAX), user.unwrap_or_default().as_bytes());
        let at = *self.by_hash.get(&place)?;
        Some((at, self.holders.get(at)?.hash.clone()?))
    }

    /// Whose key of step 1 is proved, and for which time step; where nobody's could be, a decoy's is tried.
    pub(crate) fn by_proof(
        &self,
        app: Option<usize>,
        claim: &Claim<'_>,
        proof: &Proof,
        address: IpAddr,
        anywhere: bool,
        wall: SystemTime,
    ) -> Option<(usize, u64)> {
        let place = self.place(Step::One, app.unwrap_or(usize::MAX), claim.user.as_bytes());
        let Some(candidates) = self.by_name.get(&place) else {
            let _ = proof.matching(&self.decoy, claim, address, anywhere, wall);
            return None;
        };
        let mut found = None;
        for &at in candidates {
            let Some(verifier) = self.holders.get(at).and_then(|holder| holder.verifier.as_ref()) else {
                continue;
            };
            if let Some(counter) = proof.matching(verifier, claim, address, anywhere, wall) {
                found = Some((at, counter));
            }
        }
        found
    }

    /// A digest of texts under the random key, each with its length, so that no two lists have the same bytes.
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.digest_key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().first_chunk::<32>().copied().unwrap_or_default()
    }

    fn place(&self, step: Step, app: usize, what: &[u8]) -> Digest {
        let step = match step {
            Step::One => 1_u8,
            Step::Two => 2,
        };
        self.digest(&[&[step], &(app as u64).to_be_bytes(), what])
    }
}

fn holder(step: Step, at: usize, app: &App, who: Who) -> Holder {
    Holder {
        step,
        app: at,
        who,
        factor: None,
        duration: app.duration,
        max_duration: app.max_duration,
        expires: Vec::new(),
        verifier: None,
        hash: None,
    }
}

fn find<'a>(apps: &'a [App], name: &str) -> Option<(usize, &'a App)> {
    apps.iter().enumerate().find(|(_, app)| app.name.as_str() == name)
}
