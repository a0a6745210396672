//! A change of the files of users or clients, taken over by itself: nothing else is read, so that a configuration that
//! somebody is about to write neither comes into force with it nor keeps it out.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::daemon::DaemonError;
use super::expired::{as_of, lasts};
use super::not_reloaded::{ReloadError, one_line, reasons};
use super::on_disk::{CodesRead, codes, told};
use super::record::{Record, number};
use super::reload::{Reload, Reloaded, Reloader, tell_refused};
use super::source::Source;
use super::two_factor::keys::Keys;
use super::two_factor::{self, Found};
use crate::config::{Anew, Settings, User};
use crate::sys::clock;
use crate::units::{AccessKey, KeyCheck, LogEvent, Secret};

impl Reloader {
    /// Takes over what the files of users and clients say, and tells the log. What is refused is tried again.
    pub(super) async fn take_over_users(&mut self) {
        let looked = self.users.look();
        let again = self.users.was_refused(&looked);
        if !again {
            tracing::info!("the files of users or clients have changed");
        }
        match self.reload_users().await {
            Ok((changes, ended)) => {
                self.users.taken(looked);
                self.users_refused.clear();
                let newer = self.on_disk.newer().await;
                self.around.users_reloaded(newer.is_none());
                let (changes, grants) = (number(changes), number(ended));
                Record { changes, grants, ..Record::of(LogEvent::Reloaded) }
                    .log("reloaded: the files of users and clients are in force");
                if let Some(newer) = newer {
                    tracing::info!("not taken over with them: {}", told(&newer));
                }
            }
            Err(error) => {
                self.users.failed(looked);
                let reasons: Vec<String> = reasons(&error);
                if again && reasons == self.users_refused {
                    return;
                }
                self.around.users_refused();
                self.users_refused.clone_from(&reasons);
                tracing::warn!(
                    "not reloaded: users and clients stay as they were before; it is tried again, until their files are right"
                );
                tell_refused(reasons);
            }
        }
    }

    /// Returns the changes to the table and the grants that ended.
    async fn reload_users(&mut self) -> Result<(usize, usize), ReloadError> {
        let (asked, told) = oneshot::channel();
        self.enforcer.send(Reload::InForce(asked)).await.map_err(|_| ReloadError::Ending)?;
        let in_force = told.await.map_err(|_| ReloadError::Ending)?;
        let (source, had) = (self.source.clone(), Arc::clone(&self.two_factor));
        let read = spawn_blocking(move || read(&source, &in_force, had));
        let (Anew { settings, warnings, secrets }, Codes { found, read }) =
            read.await.map_err(|_| ReloadError::Ending)??;
        for warning in warnings {
            tracing::warn!("{}", one_line(&warning));
        }
        let known = self.two_factor.troubles();
        let Reloaded { changes, ended, good } = self.put_in_force(settings, found).await?;
        for trouble in self.two_factor.troubles().iter().filter(|trouble| !known.contains(trouble)) {
            tracing::warn!("{trouble}");
        }
        self.on_disk.users_taken(secrets, read);
        self.keep_plan(good).await;
        Ok((changes, ended))
    }
}

/// The 2FA files from now on, and what of them is on the disk.
struct Codes {
    found: Arc<Found>,
    /// None where they could not be read, and none was needed.
    read: Option<CodesRead>,
}

fn read(source: &Source, in_force: &Settings, had: Arc<Found>) -> Result<(Anew, Codes), ReloadError> {
    let anew = source.users(in_force).map_err(ReloadError::Configuration)?;
    let before = active(in_force, clock::now().wall);
    let codes = merged(&before, &anew.settings, had).map_err(ReloadError::Files)?;
    Ok((anew, codes))
}

/// Users with the keys that open something: what another key opens one day depends on its 2FA file of that day.
fn active(settings: &Settings, wall: SystemTime) -> Settings {
    let mut out = settings.clone();
    out.users.retain(|user| !user.disabled && lasts(user.expires, wall));
    for user in &mut out.users {
        user.apps.retain(|theirs| !theirs.disabled && lasts(theirs.expires, wall));
        for keys in user.apps.iter_mut().flat_map(|theirs| [&mut theirs.http, &mut theirs.https]) {
            keys.retain(|key| !as_of(key, wall).disabled);
        }
    }
    out
}

/// The 2FA files in force, and those of keys that users have got since, or again: a file that is about to be replaced takes no key's
/// second factor away, and a secret of before counts for nobody who comes later.
fn merged(before: &Settings, after: &Settings, had: Arc<Found>) -> Result<Codes, DaemonError> {
    let stamps = after.global.two_factor_folder.as_deref().map(codes).unwrap_or_default();
    let found = match two_factor::load(after) {
        Ok(found) => found,
        // Whoever is disabled does not wait for a folder.
        Err(_) if !has_new_keys(before, after, |_| true) => return Ok(Codes { found: had, read: None }),
        Err(errors) => return Err(DaemonError::TwoFactor(errors)),
    };
    let (keys, keys_after) = (Keys::of(before), Keys::of(after));
    let is_slow = |key: &AccessKey| matches!(key.check, KeyCheck::Slow(_));
    // Whose file is whose cannot be told of these.
    let strays_stay = !has_new_keys(before, after, is_slow);
    let named = |found: &Found| found.factors.iter().map(|file| file.access_key.clone()).collect::<Vec<_>>();
    let (on_disk, unusable): (Vec<Secret>, Vec<Secret>) =
        (named(&found), had.closed.iter().map(|(key, _)| key.clone()).collect());
    let [on_disk, unusable] =
        [&on_disk, &unusable].map(|keys| keys.iter().map(Secret::expose).collect::<BTreeSet<_>>());
    let stays = |key: &Secret| {
        let is_there = on_disk.contains(key.expose());
        let known =
            keys.whose(key).is_some() || keys_after.whose(key).is_none() && (strays_stay || !is_there);
        known && !(is_there && unusable.contains(key.expose()))
    };
    let stay: Vec<Secret> = named(&had).into_iter().filter(|key| stays(key)).collect();
    let of_before: BTreeSet<&str> = stay.iter().map(Secret::expose).collect();
    let is_of_before = |key: &Secret| of_before.contains(key.expose());
    let old = had.factors.iter().filter(|file| is_of_before(&file.access_key)).cloned();
    let closed = had.closed.iter().filter(|(key, _)| is_of_before(key)).cloned();
    let factors = found.factors.iter().filter(|file| !is_of_before(&file.access_key)).cloned();
    let more = found.closed.iter().filter(|(key, _)| !is_of_before(key)).cloned();
    let (factors, closed) = (old.chain(factors).collect(), closed.chain(more).collect());
    let found = Arc::new(Found { factors, closed, ..found });
    Ok(Codes { found, read: Some(CodesRead { stamps, stay }) })
}

/// Whether a user has such a key that they had not before.
fn has_new_keys(before: &Settings, after: &Settings, counts: impl Fn(&AccessKey) -> bool) -> bool {
    fn keys(user: &User) -> impl Iterator<Item = &AccessKey> {
        user.apps.iter().flat_map(|theirs| theirs.http.iter().chain(&theirs.https))
    }
    let had: HashMap<&str, &User> = before.users.iter().map(|user| (user.name.as_str(), user)).collect();
    after.users.iter().any(|user| {
        let old = had.get(user.name.as_str());
        let mut new = keys(user).filter(|key| counts(key));
        new.any(|key| !old.is_some_and(|old| keys(old).any(|had| had.same_as(key))))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Alone, parse};

    fn settings(folder: &Path, users: &str) -> Settings {
        let text = format!(
            "global: {{http_post_path: /first-one-4711, https_post_path: /second-one-0815, interface_ext: eth0, 2fa_config_folder: {}, users: {{{users}}}}}\nssh: {{port: 22, duration: 60}}\n",
            folder.display()
        );
        parse("x", &text, None, &Alone).unwrap_or_else(|problems| panic!("{problems}")).settings
    }

    fn user(name: &str, more: &str) -> String {
        format!("{name}: {{access_key_http: {name}-first-key, access_key_https: {name}-second-key{more}}}, ")
    }

    #[test]
    fn who_comes_back_is_asked_for_the_codes_of_the_file_that_is_there_then() {
        let folder = std::env::temp_dir().join(format!("ka-users-anew-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let put = |name: &str, secret: &str, mode: u32| {
            let path = folder.join(format!("{name}-first-key.json"));
            std::fs::write(&path, format!("{{\"secret\": \"{secret}\"}}")).unwrap();
            crate::sys::files::set_mode(&path, mode).unwrap();
        };
        let (old, new) = ("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP");
        for name in ["alice", "bobby", "carol"] {
            put(name, old, 0o600);
        }
        let secret_of = |codes: &Codes, name: &str| {
            let key = Secret::new(format!("{name}-first-key"));
            let file = codes.found.factors.iter().find(|file| file.access_key.same_as(&key));
            file.map(|file| file.secret.fingerprint())
        };
        let [is_old, is_new] = [old, new].map(|text| {
            let text = format!("{{\"secret\": \"{text}\"}}");
            Some(crate::units::TotpSecret::parse(&text).unwrap().fingerprint())
        });
        let now = clock::now().wall;
        let take = |before: &Settings, after: &Settings, had: Arc<Found>| {
            merged(&active(before, now), after, had).unwrap()
        };
        let all = settings(&folder, &(user("alice", "") + &user("bobby", "") + &user("carol", "")));
        let had = Arc::new(two_factor::load(&all).unwrap());
        for (disabled, carol) in [("", ""), (", disabled: true", ", expires: 1999-01-01")] {
            let gone = match disabled {
                "" => user("alice", ""),
                _ => user("alice", "") + &user("bobby", disabled) + &user("carol", carol),
            };
            let gone = settings(&folder, &gone);
            let between = take(&all, &gone, Arc::clone(&had));
            for name in ["alice", "bobby", "carol"] {
                put(name, new, 0o600);
            }
            let back = take(&gone, &all, between.found);
            for (name, expected) in [("alice", &is_old), ("bobby", &is_new), ("carol", &is_new)] {
                assert_eq!(secret_of(&back, name), *expected, "{name}{disabled}");
            }
            assert_eq!(back.read.unwrap().stay, [Secret::new("alice-first-key".to_owned())]);
            for name in ["alice", "bobby", "carol"] {
                put(name, old, 0o600);
            }
        }
        // One that could not be used is looked at again, and one that is away for a moment switches nothing off.
        put("bobby", old, 0o644);
        let shut = take(&settings(&folder, &user("alice", "")), &all, Arc::new(Found::default()));
        assert!(secret_of(&shut, "bobby") != is_old && shut.found.closed.len() == 1, "{:?}", shut.found);
        std::fs::remove_file(folder.join("alice-first-key.json")).unwrap();
        let still = take(&all, &all, shut.found);
        assert!(secret_of(&still, "alice") == is_old && still.found.closed.len() == 1);
        put("bobby", old, 0o600);
        let right = take(&all, &all, still.found);
        assert!(secret_of(&right, "bobby") == is_old && right.found.closed.is_empty(), "{:?}", right.found);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
