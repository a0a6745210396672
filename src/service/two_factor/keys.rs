//! The keys that there are, to be found by what a file is called: that is the key itself, however it is stored.

use std::collections::BTreeSet;
use std::fmt;

use crate::config::Settings;
use crate::units::{AccessKey, KeyCheck, Secret, Verifier};

/// Every key that may have a file.
pub(in crate::service) struct Keys<'a> {
    /// Sorted by what a key is compared with.
    found: Vec<(Verifier, Whose<'a>)>,
    /// How many are stored as argon2id: whether a file is that of one shows when it is used.
    pub slow: usize,
}

/// A key and its place.
#[derive(Clone, Copy)]
pub(in crate::service) struct Whose<'a> {
    key: &'a AccessKey,
    owner: &'a str,
    /// For which app, where the owner is a user.
    app: Option<&'a str>,
    step: &'static str,
    position: usize,
}

impl<'a> Keys<'a> {
    /// Those of apps, and of users who have no secret of their own for all their keys.
    pub fn of(settings: &'a Settings) -> Self {
        let mut all: Vec<Whose<'a>> = Vec::new();
        let mut add = |owner, app, step, keys: &'a [AccessKey]| {
            let keys = keys.iter().enumerate();
            all.extend(keys.map(|(at, key)| Whose { key, owner, app, step, position: at + 1 }));
        };
        for app in &settings.apps {
            add(app.name.as_str(), None, "http", &app.access_key_http);
            add(app.name.as_str(), None, "https", &app.access_key_https);
        }
        for user in settings.users.iter().filter(|user| user.totp.is_none()) {
            for theirs in &user.apps {
                add(user.name.as_str(), Some(theirs.app.as_str()), "http", &theirs.http);
                add(user.name.as_str(), Some(theirs.app.as_str()), "https", &theirs.https);
            }
        }
        let slow = all.iter().filter_map(|whose| match &whose.key.check {
            KeyCheck::Slow(hash) => Some(hash.expose()),
            KeyCheck::Plain(_) | KeyCheck::Stored(_) => None,
        });
        let slow = slow.collect::<BTreeSet<_>>().len();
        let mut found: Vec<_> =
            all.into_iter().filter_map(|whose| Some((whose.key.verifier()?, whose))).collect();
        // In place: what else would be left behind in memory are keys.
        found.sort_unstable_by(|(one, a), (two, b)| {
            let order = one.expose().cmp(two.expose());
            order
                .then_with(|| b.is_plain_of_app().cmp(&a.is_plain_of_app()))
                .then_with(|| a.at().cmp(&b.at()))
        });
        Self { found, slow }
    }

    /// Whose key this is.
    pub fn whose(&self, key: &Secret) -> Option<Whose<'a>> {
        let wanted = Verifier::of(key);
        let at = self.found.partition_point(|(verifier, _)| verifier.expose() < wanted.expose());
        self.found
            .get(at)
            .filter(|(verifier, _)| verifier.expose() == wanted.expose())
            .map(|(_, whose)| *whose)
    }

    /// The keys that are known themselves and can be the name of a file.
    pub fn that_name_files(&self) -> Vec<Secret> {
        let plain = self.found.iter().filter_map(|(_, whose)| whose.key.plain());
        let mut keys: Vec<Secret> = plain.filter(|key| !key.expose().contains('/')).cloned().collect();
        keys.dedup();
        keys
    }
}

impl Whose<'_> {
    /// Whether it stands in an app's section as it is.
    pub fn is_plain_of_app(&self) -> bool {
        self.app.is_none() && self.key.plain().is_some()
    }

    fn at(&self) -> (Option<&str>, &str, &str, usize) {
        (self.app, self.owner, self.step, self.position)
    }
}

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}'s {} key {}", self.owner, self.step, self.position)?;
        self.app.map_or(Ok(()), |app| write!(f, " for {app}"))
    }
}
