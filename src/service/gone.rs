//! Who went from the configuration while no daemon ran, or whose time is over: their grants end as they would by a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::expired::{as_of, keys_of_users};
use super::operations::{OperationError, Operations, TRIES};
use super::reload::hand_over;
use super::shut_out::ShutOut;
use super::taken::is_shut_out;
use crate::backend::BackendError;
use crate::config::{App, Settings};
use crate::grant::{How, Note, Succession};
use crate::units::{AccessKey, AppName, Now};

/// Those who can open an app, as notes call them. A key that took another one's place has its name.
fn who_may(settings: &Settings, app: &App, wall: SystemTime) -> BTreeSet<String> {
    let keys = app.access_key_https.iter().enumerate().filter(|(_, key)| !as_of(key, wall).disabled);
    let keys = keys.map(|(at, _)| format!("key {}", at + 1));
    let users = keys_of_users(settings, &app.name, wall).into_iter();
    keys.chain(users.map(|(name, _)| name.to_owned())).collect()
}

/// What becomes of the keys of the apps that stay, by slug. Who had expired at the first moment could open nothing before.
pub(super) fn successions(
    before: &Settings,
    after: &Settings,
    [from, wall]: [SystemTime; 2],
) -> BTreeMap<String, Succession> {
    let all = |keys: &[AccessKey], at| keys.iter().map(|key| as_of(key, at)).collect::<Vec<_>>();
    before
        .apps
        .iter()
        .filter_map(|old| {
            let new = after.apps.iter().find(|new| new.slug == old.slug)?;
            let gone = users_gone(before, after, &old.name, [from, wall]);
            let [had, has] = [all(&old.access_key_https, from), all(&new.access_key_https, wall)];
            Some((old.slug.clone(), Succession::between(&had, &has, gone)))
        })
        .collect()
}

/// Who could open an app before and cannot any more, or not with any of the keys of step 2 of before.
pub(super) fn users_gone(
    before: &Settings,
    after: &Settings,
    app: &AppName,
    [from, wall]: [SystemTime; 2],
) -> BTreeSet<String> {
    let (old, new) = (keys_of_users(before, app, from), keys_of_users(after, app, wall));
    let stays = |name: &str| {
        old.iter().any(|(who, key)| {
            *who == name && new.iter().any(|(now, other)| *now == name && other.same_as(key))
        })
    };
    old.iter().filter(|(name, _)| !stays(name)).map(|(name, _)| (*name).to_owned()).collect()
}

impl Operations {
    /// Ends the grants of users and keys that the settings do not know, or that have expired; returns how many.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub(super) fn end_grants_of_those_gone(&mut self, now: Now) -> Result<usize, OperationError> {
        self.on_trial.shuts_out(&self.settings, now.wall);
        let mut ended = 0;
        let expired = self.successions_from(&self.settings, now.wall);
        for app in self.settings().apps.clone() {
            // What has no name may be theirs whose time is over.
            if expired.get(&app.slug).is_some_and(Succession::takes_somebody) {
                ended += self.cut_connected(&app.slug, |_, note| note.how == How::Unknown)?;
            }
            let may = who_may(self.settings(), &app, now.wall);
            let connected = self.connected(&app)?;
            let had = self.ledger().knockers(&app.slug).into_iter();
            let had = had.chain(connected.iter().map(String::as_str));
            let gone: BTreeSet<String> = had.filter(|by| !may.contains(*by)).map(str::to_owned).collect();
            // Of a trial, whoever is only missing comes back with what was in force before.
            let is_out = |by: &String| {
                let note = Note { by: by.clone(), how: How::TwoStep };
                is_shut_out(self.settings(), Some(&app), &note, now.wall)
            };
            let (out, left_out): (BTreeSet<_>, BTreeSet<_>) = gone.into_iter().partition(is_out);
            for (gone, by_trial) in [(out, false), (left_out, true)] {
                if !gone.is_empty() {
                    let gone = Succession::leaving(gone);
                    ended += self.end_grants_of(&app.slug, &gone, by_trial, now)?;
                }
            }
        }
        self.expired_by = now.wall;
        Ok(ended)
    }

    /// What becomes of keys and users of before, as far as they had not been seen to when they expired.
    pub(super) fn successions_from(
        &self,
        before: &Settings,
        wall: SystemTime,
    ) -> BTreeMap<String, Succession> {
        successions(before, &self.settings, [self.expired_by.min(wall), wall])
    }

    /// Ends what these let in, also by a door that closed behind them.
    fn end_grants_of(
        &mut self,
        slug: &str,
        gone: &Succession,
        by_trial: bool,
        now: Now,
    ) -> Result<usize, OperationError> {
        let ended = self.hand_over_from(slug, gone, by_trial, now)?;
        let is_meant = |note: &Note| gone.note(note).is_none();
        if by_trial {
            self.trial_cuts(slug, is_meant, now.wall)?;
        }
        Ok(ended + self.cut_connected(slug, |_, note| is_meant(note))?)
    }

    fn hand_over_from(
        &mut self,
        slug: &str,
        gone: &Succession,
        by_trial: bool,
        now: Now,
    ) -> Result<usize, OperationError> {
        let mut result = Err(OperationError::NoTable);
        for _ in 0..TRIES {
            let live = self.live()?;
            let (changes, ended) = hand_over(slug, gone, &live, self.ledger(), now);
            if by_trial {
                self.on_trial.takes(&changes, &self.settings, now.wall);
            }
            match self.firewall().apply(&changes) {
                Ok(()) => {
                    self.succeed_to(slug, gone);
                    if ended > 0 {
                        self.cut_open(&ShutOut::all_of(&self.grant_sets_of(slug), &live));
                    }
                    return Ok(ended);
                }
                // A grant may have ended between being read and being removed.
                Err(error @ BackendError::Refused { .. }) => result = Err(error.into()),
                Err(error) => return Err(error.into()),
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::service::expired::next_end;
    use crate::units::Timestamp;

    #[test]
    fn only_who_has_a_key_that_counts_may_open() {
        let text = "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\n  users:\n    alice: {access_key_http: alice-first-key, access_key_https: alice-second-key}\n    bob: {disabled: true, access_key_http: bobby-first-key, access_key_https: bobby-second-key}\n    carol: {apps: [web], access_key_http: carol-first-key, access_key_https: carol-second-key}\n    dave: {apps: [web], expires: 1971-01-01, access_key_http: daves-first-key, access_key_https: daves-second-key}\nssh:\n  port: 22\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret, {key: third-secret, disabled: true}, {key: fourth-secret, expires: 1971-01-02}]\nweb:\n  port: 80\n  duration: 1h\n";
        let settings = crate::config::parse("x", text, None, &crate::config::Alone).unwrap().settings;
        let app = |name: &str| settings.apps.iter().find(|app| app.slug == name).unwrap();
        let second = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let may = |name, wall| who_may(&settings, app(name), wall).into_iter().collect::<Vec<_>>();
        assert_eq!(may("ssh", second(0)), ["alice", "key 1", "key 3"]);
        assert_eq!(may("web", second(0)), ["alice", "carol", "dave"]);
        let (first, last) = (86_400 * 366, 86_400 * 367);
        assert_eq!(next_end(&settings, second(0)).map(Timestamp::as_secs), Some(first));
        assert_eq!(may("web", second(first)), ["alice", "carol"]);
        assert_eq!(next_end(&settings, second(first)).map(Timestamp::as_secs), Some(last));
        assert_eq!(may("ssh", second(last)), ["alice", "key 1"]);
        assert_eq!(next_end(&settings, second(last)), None);
    }
}
