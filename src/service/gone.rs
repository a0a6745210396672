//! Who went from the configuration while no daemon ran: their grants end at the start, as they would by a reload.

use std::collections::BTreeSet;

use super::operations::{OperationError, Operations, TRIES};
use super::reload::hand_over;
use super::shut_out::ShutOut;
use crate::backend::BackendError;
use crate::config::{App, Settings};
use crate::grant::Succession;
use crate::units::Now;

/// Those who can open an app, as notes call them. A key that took another one's place has its name.
fn who_may(settings: &Settings, app: &App) -> BTreeSet<String> {
    let keys = app.access_key_https.iter().enumerate().filter(|(_, key)| !key.disabled);
    let users = settings.users.iter().filter(|user| !user.disabled);
    let users = users.filter(|user| {
        let mut apps = user.apps.iter().filter(|theirs| theirs.app == app.name && !theirs.disabled);
        apps.any(|theirs| theirs.https.iter().any(|key| !key.disabled))
    });
    let keys = keys.map(|(at, _)| format!("key {}", at + 1));
    keys.chain(users.map(|user| user.name.to_string())).collect()
}

impl Operations {
    /// Ends the grants of users and keys that the settings do not know; returns how many.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub(super) fn end_grants_of_those_gone(&mut self, now: Now) -> Result<usize, OperationError> {
        let mut ended = 0;
        for app in self.settings().apps.clone() {
            let may = who_may(self.settings(), &app);
            let connected = self.connected(&app)?;
            let had = self.ledger().knockers(&app.slug).into_iter();
            let had = had.chain(connected.iter().map(String::as_str));
            let gone: BTreeSet<String> = had.filter(|by| !may.contains(*by)).map(str::to_owned).collect();
            if !gone.is_empty() {
                let gone = Succession::leaving(gone);
                ended += self.end_grants_of(&app.slug, &gone, now)?;
                ended += self.cut_connected(&app.slug, |_, note| gone.note(note).is_none())?;
            }
        }
        Ok(ended)
    }

    fn end_grants_of(&mut self, slug: &str, gone: &Succession, now: Now) -> Result<usize, OperationError> {
        let mut result = Err(OperationError::NoTable);
        for _ in 0..TRIES {
            let live = self.live()?;
            let (changes, ended) = hand_over(slug, gone, &live, self.ledger(), now);
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
    use super::*;

    #[test]
    fn only_who_has_a_key_that_counts_may_open() {
        let text = "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\n  users:\n    alice: {access_key_http: alice-first-key, access_key_https: alice-second-key}\n    bob: {disabled: true, access_key_http: bobby-first-key, access_key_https: bobby-second-key}\n    carol: {apps: [web], access_key_http: carol-first-key, access_key_https: carol-second-key}\nssh:\n  port: 22\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret, {key: third-secret, disabled: true}]\nweb:\n  port: 80\n  duration: 1h\n";
        let settings = crate::config::parse("x", text, None, &crate::config::Alone).unwrap().settings;
        let app = |name: &str| settings.apps.iter().find(|app| app.slug == name).unwrap();
        let may = |name| who_may(&settings, app(name)).into_iter().collect::<Vec<_>>();
        assert_eq!(may("ssh"), ["alice", "key 1"]);
        assert_eq!(may("web"), ["alice", "carol"]);
    }
}
