//! Users and keys whose `expires` is over: who still counts, and when that ends next.

use std::time::{Duration, SystemTime};

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

/// Says so where something that has expired by what the calendar was before is let in again, as the calendar is behind that.
pub(super) fn tell_of_calendar(settings: &Settings, before: Option<SystemTime>, wall: SystemTime) {
    let Some(behind) = before.and_then(|before| is_believed_again(settings, before, wall)) else { return };
    tracing::warn!(
        behind_s = behind.as_secs(),
        "the calendar is behind what it was: users and keys that have expired since are let in until it is right. Where that may last, say `disabled: true`"
    );
}

/// How far the calendar is behind, where that lets in who expired meanwhile.
fn is_believed_again(settings: &Settings, before: SystemTime, wall: SystemTime) -> Option<Duration> {
    let behind = before.duration_since(wall).ok()?;
    next_end(settings, wall).is_some_and(|ends| ends.left(before).is_none()).then_some(behind)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_calendar_that_lets_in_who_has_expired_since_is_told_of() {
        let text = "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\n  users:\n    dave: {expires: 2026-06-30, access_key_http: daves-first-key, access_key_https: daves-second-key}\nssh:\n  port: 22\n  duration: 1h\n";
        let settings = crate::config::parse("x", text, None, &crate::config::Alone).unwrap().settings;
        let day = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * days);
        // 2026-01-01 is day 20,454 since 1970, the end of June comes 181 days later.
        let (january, may, august) = (day(20_454), day(20_574), day(20_666));
        assert_eq!(is_believed_again(&settings, august, january), Some(Duration::from_secs(86_400 * 212)));
        assert_eq!(is_believed_again(&settings, may, january), None, "it has not expired by either");
        assert_eq!(is_believed_again(&settings, january, august), None, "time went on");
    }
}
