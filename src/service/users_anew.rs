//! A change of the files of users or clients, taken over by itself: nothing else is read, so that a configuration that
//! somebody is about to write neither comes into force with it nor keeps it out.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::daemon::DaemonError;
use super::not_reloaded::{ReloadError, one_line, reasons};
use super::on_disk::told;
use super::record::{Record, number};
use super::reload::{Reload, Reloaded, Reloader, tell_refused};
use super::source::Source;
use super::two_factor::{self, Found};
use crate::config::{Anew, Settings, User};
use crate::knock::TwoFactor;
use crate::units::{AccessKey, LogEvent};

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
        let (Anew { settings, warnings, secrets }, two_factor) =
            read.await.map_err(|_| ReloadError::Ending)??;
        for warning in warnings {
            tracing::warn!("{}", one_line(&warning));
        }
        let Reloaded { changes, ended, good } = self.put_in_force(settings, two_factor).await?;
        self.on_disk.users_taken(secrets);
        self.keep_plan(good).await;
        Ok((changes, ended))
    }
}

type Factors = Arc<Found>;

fn read(source: &Source, in_force: &Settings, had: Factors) -> Result<(Anew, Factors), ReloadError> {
    let anew = source.users(in_force).map_err(ReloadError::Configuration)?;
    let two_factor = factors(in_force, &anew.settings, had).map_err(ReloadError::Files)?;
    Ok((anew, two_factor))
}

/// The 2FA files in force, and those of keys that users have got since: a file that is about to be replaced takes no key's
/// second factor away.
fn factors(before: &Settings, after: &Settings, had: Factors) -> Result<Factors, DaemonError> {
    match two_factor::load(after) {
        Ok(found) => {
            let had = &had.factors;
            let known = |new: &TwoFactor| had.iter().any(|old| old.access_key.same_as(&new.access_key));
            let more = found.factors.into_iter().filter(|new| !known(new));
            let factors = had.iter().cloned().chain(more).collect();
            Ok(Arc::new(Found { factors, ..found }))
        }
        // Whoever is disabled does not wait for a folder.
        Err(_) if !has_new_keys(before, after) => Ok(had),
        Err(errors) => Err(DaemonError::TwoFactor(errors)),
    }
}

/// Whether a user has a key that they had not before.
fn has_new_keys(before: &Settings, after: &Settings) -> bool {
    fn keys(user: &User) -> impl Iterator<Item = &AccessKey> {
        user.apps.iter().flat_map(|theirs| theirs.http.iter().chain(&theirs.https))
    }
    let had: HashMap<&str, &User> = before.users.iter().map(|user| (user.name.as_str(), user)).collect();
    after.users.iter().any(|user| {
        let old = had.get(user.name.as_str());
        keys(user).any(|key| !old.is_some_and(|old| keys(old).any(|had| had.same_as(key))))
    })
}
