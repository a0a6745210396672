//! Users and keys whose `expires` is over: who still counts, and when that ends next.

use std::time::SystemTime;

use crate::config::Settings;
use crate::units::{AccessKey, AppName, Timestamp};

/// A key as it counts at a moment: disabled once it has expired.
pub(super) fn as_of(key: &AccessKey, wall: SystemTime) -> AccessKey {
    AccessKey { disabled: key.disabled || !lasts(key.expires, wall), ..key.clone() }
}

/// Whether a moment is still to come, where one is said.
pub(super) fn lasts(ends: Option<Timestamp>, wall: SystemTime) -> bool {
    ends.is_none_or(|ends| ends.left(wall).is_some())
}

/// The users' keys of step 2 that open an app at a moment, each with its user's name.
pub(super) fn keys_of_users<'s>(
    settings: &'s Settings,
    app: &AppName,
    wall: SystemTime,
) -> Vec<(&'s str, &'s AccessKey)> {
    let users = settings.users.iter().filter(|user| !user.disabled && lasts(user.expires, wall));
    let all = users.flat_map(|user| {
        let of_app = |theirs: &&crate::config::UserApp| {
            theirs.app == *app && !theirs.disabled && lasts(theirs.expires, wall)
        };
        let keys = user.apps.iter().filter(of_app).flat_map(|theirs| &theirs.https);
        let keys = keys.filter(move |key| !key.disabled && lasts(key.expires, wall));
        keys.map(|key| (user.name.as_str(), key))
    });
    all.collect()
}

/// The next moment at which a user or a key expires.
pub(super) fn next_end(settings: &Settings, wall: SystemTime) -> Option<Timestamp> {
    let of_apps = settings.apps.iter().flat_map(|app| &app.access_key_https).filter_map(|key| key.expires);
    let of_users = settings.users.iter().flat_map(|user| {
        let of_apps = user.apps.iter().flat_map(|theirs| {
            theirs.expires.into_iter().chain(theirs.https.iter().filter_map(|key| key.expires))
        });
        user.expires.into_iter().chain(of_apps)
    });
    of_apps.chain(of_users).filter(|ends| ends.left(wall).is_some()).min()
}
