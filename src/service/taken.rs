//! What a trial (`run --confirm`) ends by itself, because its configuration has no place for it: that comes back with what was
//! in force before. What a person, a packet or time ends stays ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::clients_gone::{ClientsGone, Moved};
use super::connected::{end_address, once_set};
use super::expired::{as_of, lasts};
use super::operations::{OperationError, Operations};
use super::snapshot::Snapshot;
use super::trial::Trial;
use crate::config::{App, Settings};
use crate::grant::{How, Note, Succession};
use crate::ruleset::allow::key_address;

use crate::ruleset::diff::Change;
use crate::ruleset::model::Element;
use crate::ruleset::plan::app_set;
use crate::units::{ClientAddr, Family, Now};

/// Elements, by their sets.
pub(super) type Keys = BTreeMap<String, BTreeSet<Vec<u8>>>;

/// What becomes of elements during a trial, as the process beside the daemon is told.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Deed {
    /// The trial ended or shortened these.
    Took(Keys),
    /// Somebody else ended these.
    Ended(Keys),
    /// Somebody else ended all that was in these sets.
    Emptied(BTreeSet<String>),
}

/// What became of elements since a trial began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Ended by the trial alone.
    took: Keys,
    /// Ended by somebody else. Only where the trial has no such set, that does not show in the kernel.
    ended: Keys,
    /// Sets of which somebody else ended all.
    emptied: BTreeSet<String>,
}

impl Taken {
    /// Whether it is this element that the trial ended.
    pub(super) fn has(&self, set: &str, key: &[u8]) -> bool {
        holds(&self.took, set, key)
    }

    /// Whether somebody else ended it.
    pub(super) fn is_ended(&self, set: &str, key: &[u8]) -> bool {
        self.is_emptied(set) || holds(&self.ended, set, key)
    }

    /// Whether somebody else ended all of a set.
    pub(super) fn is_emptied(&self, set: &str) -> bool {
        self.emptied.contains(set)
    }

    /// Of what the trial ended, that which is meant.
    fn took_of(&self, sets: &[String], is_meant: impl Fn(&[u8]) -> bool) -> Keys {
        let of_set = |set: &String| {
            let keys = self.took.get(set)?.iter().filter(|key| is_meant(key)).cloned();
            Some((set.clone(), keys.collect()))
        };
        sets.iter().filter_map(of_set).collect()
    }

    /// Takes note of it; whether it is news.
    pub(super) fn note(&mut self, deed: &Deed) -> bool {
        match deed {
            Deed::Took(keys) => more(&mut self.took, keys),
            Deed::Ended(keys) => {
                for (set, ended) in keys {
                    if let Some(took) = self.took.get_mut(set) {
                        took.retain(|key| !ended.contains(key));
                    }
                }
                more(&mut self.ended, keys)
            }
            Deed::Emptied(sets) => sets.iter().fold(false, |news, set| {
                let took = self.took.remove(set).is_some();
                self.emptied.insert(set.clone()) | took | news
            }),
        }
    }
}

fn holds(keys: &Keys, set: &str, key: &[u8]) -> bool {
    keys.get(set).is_some_and(|keys| keys.contains(key))
}

/// Adds these; whether there was anything to add.
fn more(all: &mut Keys, new: &Keys) -> bool {
    let mut news = false;
    for (set, keys) in new.iter().filter(|(_, keys)| !keys.is_empty()) {
        let all = all.entry(set.clone()).or_default();
        let had = all.len();
        all.extend(keys.iter().cloned());
        news |= all.len() > had;
    }
    news
}

/// The trial that is on, if any.
#[derive(Clone, Default)]
pub(super) struct OnTrial(pub(super) Option<Arc<Trial>>);

impl fmt::Debug for OnTrial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnTrial").field(&self.0.is_some()).finish()
    }
}

impl OnTrial {
    /// Whether there is one.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes what these changes end. Whoever was disabled or has expired stays out.
    pub(super) fn takes<'c>(
        &self,
        changes: impl IntoIterator<Item = &'c Change>,
        settings: &Settings,
        wall: SystemTime,
    ) {
        let Some(trial) = &self.0 else { return };
        let mut keys = Keys::new();
        for change in changes {
            let (set, elements, ends) = match change {
                Change::DeleteElements { set, elements } => (set, elements, true),
                Change::RenewElements { set, elements } => (set, elements, false),
                _ => continue,
            };
            let app = app_of(settings, &set.name);
            let out = |element: &Element| {
                ends && is_shut_out(settings, app, &Note::parse(element.comment.as_deref()), wall)
            };
            let took = elements.iter().filter(|(_, element)| !out(element)).map(|(key, _)| key.clone());
            keys.entry(set.name.clone()).or_default().extend(took);
        }
        trial.note(|_| Deed::Took(keys));
    }

    /// Notes whoever is disabled, or has expired, as a whole: also of apps that the trial leaves out.
    pub(super) fn shuts_out(&self, settings: &Settings, wall: SystemTime) {
        let Some(trial) = &self.0 else { return };
        let is_out = |note: &Note| is_shut_out(settings, None, note, wall);
        trial.note(|before| Deed::Ended(before.of_those(is_out)));
    }

    /// Notes that somebody ends all of these sets of before.
    pub(super) fn emptied(&self, sets: impl FnOnce(&Snapshot) -> BTreeSet<String>) {
        if let Some(trial) = &self.0 {
            trial.note(|before| Deed::Emptied(sets(before)));
        }
    }
}

/// The app that a set lets into, as far as it is one of these settings.
fn app_of<'s>(settings: &'s Settings, set: &str) -> Option<&'s App> {
    let is_its = |slug: &str| {
        Family::BOTH.iter().any(|&family| set == app_set(slug, family) || set == once_set(slug, family).name)
    };
    settings.apps.iter().find(|app| is_its(&app.slug))
}

/// Whether somebody said that a user, key or client is to open nothing, or nothing any more: this app or, without one, whatever
/// it is. Keys and what a user has with an app are that app's own, and say nothing of others.
pub(super) fn is_shut_out(settings: &Settings, app: Option<&App>, note: &Note, wall: SystemTime) -> bool {
    let over = |ends| !lasts(ends, wall);
    let by = note.by.as_str();
    match note.how {
        How::TwoStep => {
            let mut users = settings.users.iter().filter(|user| user.name.as_str() == by);
            let number = by.strip_prefix("key ").and_then(|number| number.parse::<usize>().ok());
            let at = number.and_then(|number| number.checked_sub(1));
            let key = app.and_then(|app| app.access_key_https.get(at?));
            users.any(|user| {
                let with_it = user.apps.iter().filter(|theirs| app.is_some_and(|app| app.name == theirs.app));
                user.disabled
                    || over(user.expires)
                    || with_it.into_iter().any(|theirs| {
                        let mut keys = theirs.https.iter();
                        theirs.disabled || over(theirs.expires) || keys.any(|key| as_of(key, wall).disabled)
                    })
            }) || key.is_some_and(|key| as_of(key, wall).disabled)
        }
        How::Sequence => {
            let mut clients = settings.time_sequence.iter().flat_map(|timed| &timed.clients);
            clients.any(|client| client.name.as_str() == by && (client.disabled || over(client.expires)))
        }
        How::Operator | How::Config | How::Unknown => false,
    }
}

impl Operations {
    /// Somebody ends what an app lets in, or what it lets in from an address (as grants have it): that does not come back.
    pub(super) fn ended_by_hand(&self, slug: &str, addr: Option<IpAddr>) {
        let Some(trial) = &self.on_trial.0 else { return };
        let prefix = self.settings.global.ipv6_prefix;
        let of_grant = |addr: IpAddr| ClientAddr::new(addr).masked_v6(prefix).ip();
        let at = |key: &[u8]| key_address(key).or_else(|| end_address(key)).map(of_grant);
        let is_meant = |key: &[u8]| addr.is_none() || at(key) == addr;
        let sets: Vec<String> = self.sets_of(slug);
        trial.note(|before| {
            let mut keys = before.taken.took_of(&sets, is_meant);
            for set in sets.iter().filter(|_| addr.is_some()) {
                keys.entry(set.clone()).or_default().extend(before.keys_at(set, addr, is_meant));
            }
            Deed::Ended(keys)
        });
    }

    /// The trial is about to end what a door let in that closed behind it.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub(super) fn trial_cuts(
        &mut self,
        slug: &str,
        is_meant: impl Fn(&Note) -> bool,
        wall: SystemTime,
    ) -> Result<(), OperationError> {
        for set in
            Family::BOTH.map(|family| once_set(slug, family)).into_iter().filter(|_| self.on_trial.is_on())
        {
            let mut elements = self.firewall.elements(&set)?;
            elements.retain(|_, element| is_meant(&Note::parse(element.comment.as_deref())));
            self.on_trial.takes(&[Change::DeleteElements { set, elements }], &self.settings, wall);
        }
        Ok(())
    }

    /// What a reload takes: from whoever goes by it, that is somebody's deed; what is at other ports may come back.
    pub(super) fn ended_by_reload(
        &self,
        successions: &BTreeMap<String, Succession>,
        clients: &ClientsGone,
        moved: &Moved,
        changes: &[Change],
        now: Now,
    ) {
        if !self.on_trial.is_on() {
            return;
        }
        self.on_trial.shuts_out(&self.settings, now.wall);
        let go = successions.iter().filter(|(_, succession)| succession.takes_somebody());
        for slug in go.map(|(slug, _)| slug).chain(clients.keys()) {
            self.ended_by_hand(slug, None);
        }
        let sets: BTreeSet<String> = moved.iter().flat_map(|slug| self.sets_of(slug)).collect();
        let of_moved = |change: &&Change| match change {
            Change::DeleteElements { set, .. } => sets.contains(&set.name),
            _ => false,
        };
        self.on_trial.takes(changes.iter().filter(of_moved), &self.settings, now.wall);
    }

    /// The sets of what an app lets in.
    pub(super) fn sets_of(&self, slug: &str) -> Vec<String> {
        let kinds = self.grant_sets_of(slug);
        let of_family = |family| {
            let grants: Vec<String> = kinds.iter().map(|kind| kind.set(family)).collect();
            grants.into_iter().chain([once_set(slug, family).name])
        };
        Family::BOTH.into_iter().flat_map(of_family).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_somebody_else_ends_is_not_the_trials() {
        let keys = |set: &str, keys: &[u8]| {
            Keys::from([(set.to_owned(), keys.iter().map(|&key| vec![key; 4]).collect())])
        };
        let mut taken = Taken::default();
        assert!(taken.note(&Deed::Took(keys("app_ssh_4", &[1, 2]))));
        assert!(!taken.note(&Deed::Took(keys("app_ssh_4", &[2]))) && !taken.note(&Deed::Took(Keys::new())));
        let meant = taken.took_of(&["app_ssh_4".to_owned(), "app_web_4".to_owned()], |key| key == [1; 4]);
        assert_eq!(meant, keys("app_ssh_4", &[1]));
        assert!(taken.note(&Deed::Ended(meant)));
        assert!(!taken.has("app_ssh_4", &[1; 4]) && taken.has("app_ssh_4", &[2; 4]));
        assert!(taken.is_ended("app_ssh_4", &[1; 4]) && !taken.is_ended("app_ssh_4", &[2; 4]));
        let all = Deed::Emptied(BTreeSet::from(["app_ssh_4".to_owned()]));
        assert!(taken.note(&all) && !taken.note(&all));
        assert!(!taken.has("app_ssh_4", &[2; 4]) && taken.is_ended("app_ssh_4", &[2; 4]));
    }

    #[test]
    fn who_is_disabled_or_has_expired_is_shut_out_and_who_is_not_there_is_not() {
        let text = "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\n  users:\n    alice: {access_key_http: alice-first-key, access_key_https: alice-second-key, apps: {ssh: {}, web: {disabled: true}}}\n    bob: {disabled: true, access_key_http: bobby-first-key, access_key_https: bobby-second-key}\n    dave: {expires: 1971-01-01, access_key_http: daves-first-key, access_key_https: daves-second-key}\nssh:\n  port: 22\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret, {key: third-secret, disabled: true}]\nweb:\n  port: 443\n  duration: 1h\n";
        let settings = crate::config::parse("x", text, None, &crate::config::Alone).unwrap().settings;
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 400);
        let out = |set: &str, words: &str| {
            is_shut_out(&settings, app_of(&settings, set), &Note::parse(Some(words)), wall)
        };
        for (words, [of_ssh, of_web, of_another]) in [
            ("alice two-step", [false, true, false]),
            ("bob two-step", [true, true, true]),
            ("dave two-step", [true, true, true]),
            ("carol two-step", [false, false, false]),
            ("key 1 two-step", [false, false, false]),
            ("key 2 two-step", [true, false, false]),
            ("key 3 two-step", [false, false, false]),
            ("bob operator", [false, false, false]),
        ] {
            for (set, expected) in
                [("app_ssh_4", of_ssh), ("app_web_6", of_web), ("app_left_out_4", of_another)]
            {
                assert_eq!(out(set, words), expected, "{words} in {set}");
            }
        }
    }
}
