//! The section of one user, in `global.users` or in a file of its own.

use std::collections::HashMap;

use crate::config::app::AppDraft;
use crate::config::keys::{self, Keys, bare, disabled, expires, secret_of};
use crate::config::outside::Outside;
use crate::config::report::Report;
use crate::config::section::{Field, Section};
use crate::config::settings::{App, User, UserApp};
use crate::config::shared_keys::{MAX_ITEMS, Said};
use crate::config::suggest;
use crate::units::{AccessKey, KeyCheck, Lifetime, TotpKind, TotpSecret, UserName, form_bytes};

/// How many keys a user may have for one step: whoever proves one without sending it has all of them tried.
const MAX_KEYS: usize = 8;

pub(super) const KEYS: &[&str] = &[
    "access_key_http",
    "access_key_https",
    "apps",
    "duration",
    "max_duration",
    "expires",
    "disabled",
    "totp",
];
pub(super) const APP_KEYS: &[&str] =
    &["access_key_http", "access_key_https", "duration", "max_duration", "expires", "disabled"];
pub(super) const TOTP_KEYS: &[&str] = &["secret", "file", "credential", "interval", "digits", "drift"];

/// Whose key it is, by app and by what a presented key is checked against.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<(String, Vec<u8>), String>);

impl Owners {
    /// The keys of the apps themselves.
    pub fn of_apps(apps: &[AppDraft<'_>]) -> Self {
        let mut out = Self::default();
        for app in apps.iter().filter_map(|app| app.settings.as_ref()) {
            for key in app.access_key_http.iter().chain(&app.access_key_https) {
                out.0.insert((app.slug.clone(), fingerprint(key)), "the app itself".to_owned());
            }
        }
        out
    }

    /// Notes the keys of somebody who was read before.
    pub fn add(&mut self, user: &User, apps: &[AppDraft<'_>]) {
        for theirs in &user.apps {
            let Some(slug) =
                apps.iter().find(|app| app.name == theirs.app.as_str()).and_then(|app| app.slug.as_deref())
            else {
                continue;
            };
            for key in theirs.http.iter().chain(&theirs.https) {
                let _ = self.other(slug, key, user.name.as_str());
            }
        }
    }

    /// Who else has the key of an app, unless nobody had it yet.
    fn other(&mut self, app: &str, key: &AccessKey, owner: &str) -> Option<String> {
        let place = (app.to_owned(), fingerprint(key));
        let had = self.0.get(&place).cloned();
        if had.is_none() {
            self.0.insert(place, owner.to_owned());
        }
        had.filter(|had| had != owner)
    }
}

fn fingerprint(key: &AccessKey) -> Vec<u8> {
    match (&key.check, key.verifier()) {
        (_, Some(verifier)) => verifier.expose().to_vec(),
        (KeyCheck::Slow(hash), None) => hash.expose().as_bytes().to_vec(),
        (_, None) => Vec::new(),
    }
}

/// What a section says about keys and times.
struct Terms<'n> {
    http: Option<Keys<'n>>,
    https: Option<Keys<'n>>,
    duration: Option<(Lifetime, Field<'n>)>,
    max_duration: Option<(Lifetime, Field<'n>)>,
}

/// What a user's section is read with.
pub(super) struct Around<'a, 'n> {
    /// The apps there are.
    pub apps: &'a [AppDraft<'n>],
    /// Other files.
    pub outside: &'a dyn Outside,
    /// Whether step 1 takes proofs only.
    pub proofs_only: bool,
}

/// Reads the section of a user; also tells how many bytes of a form its name and longest step-1 key take.
pub(super) fn read(
    name_text: &str,
    section: &Section<'_>,
    around: &Around<'_, '_>,
    owners: &mut Owners,
    report: &mut Report,
) -> (Option<User>, usize) {
    section.refuse_unknown(KEYS, &[], "", report);
    let name = name_text
        .parse::<UserName>()
        .map_err(|error| report.error_fix(section.spot(), error.to_string(), "rename the user"))
        .ok();
    let own = terms(section, around, report);
    let expires = expires(section, report);
    let disabled = disabled(section, report);
    let totp = match section.get("totp") {
        None => Some(None),
        Some(field) => totp(&field, around.outside, report).map(Some),
    };
    let apps = match &own {
        Some(own) => user_apps(name_text, section, own, around, owners, report),
        None => None,
    };
    let http = apps.iter().flatten().flat_map(|app| &app.http);
    let longest = http.map(AccessKey::form_bytes).max().unwrap_or_default();
    let user = (|| {
        Some(User {
            name: name?,
            disabled: disabled?,
            expires: expires?,
            totp: totp?,
            apps: apps?,
            of_file: false,
        })
    })();
    (user, form_bytes(name_text) + longest)
}

fn terms<'n>(section: &Section<'n>, around: &Around<'_, '_>, report: &mut Report) -> Option<Terms<'n>> {
    let keys = |key: &str, report: &mut Report| {
        Said::read(section.secret(key), |field| {
            let found = keys::keys(field, around.outside, report)?;
            if found.len() > MAX_KEYS {
                let message =
                    format!("a user has at most {MAX_KEYS} keys for one step, this list has {}", found.len());
                report.error(field.key(), message);
                return None;
            }
            refuse_second_slow(&found, report);
            Some(Some(found))
        })
        .or(None)
    };
    let (http, https) = (keys("access_key_http", report), keys("access_key_https", report));
    if let Some(Some(http)) = http.as_ref().filter(|_| around.proofs_only) {
        keys::warn_of_unprovable(http, true, report);
    }
    if let (Some(Some(http)), Some(Some(https))) = (&http, &https) {
        keys::refuse_shared(http, https, report);
    }
    let mut time = |key: &str| {
        Said::read(section.get(key), |field| field.lifetime(report).map(|time| Some((time, field.clone()))))
            .or(None)
    };
    let (duration, max_duration) = (time("duration"), time("max_duration"));
    Some(Terms { http: http?, https: https?, duration: duration?, max_duration: max_duration? })
}

/// Reports every key after the first that takes long to check: a user's name finds one.
fn refuse_second_slow(keys: &Keys<'_>, report: &mut Report) {
    let slow = |(key, _): &&(AccessKey, Field<'_>)| matches!(key.check, KeyCheck::Slow(_)) && !key.disabled;
    let mut found = keys.iter().filter(slow);
    let Some((_, first)) = found.next() else { return };
    for (_, field) in found {
        report.conflict(
            field.spot(),
            &first.spot(),
            "a user has one key that is stored as argon2id for one step, this is another one",
            "disable one of them, or generate one (`knock-agent hash-key --generate`)",
        );
    }
}

/// The apps of a user: those that are listed, or all.
fn user_apps(
    name: &str,
    section: &Section<'_>,
    own: &Terms<'_>,
    around: &Around<'_, '_>,
    owners: &mut Owners,
    report: &mut Report,
) -> Option<Vec<UserApp>> {
    let none = || Terms { http: None, https: None, duration: None, max_duration: None };
    let mut wanted: Vec<(&AppDraft<'_>, Option<Section<'_>>, Field<'_>)> = Vec::new();
    let mut good = true;
    let field = section.get("apps");
    match &field {
        None => {}
        Some(field) if field.is_section() => {
            let listed = field.section(report)?;
            for (app_name, app_field) in listed.entries() {
                let below = if app_field.is_nothing() { None } else { Some(app_field.section(report)?) };
                match find(app_name, app_field, around.apps, report) {
                    Some(draft) => wanted.push((draft, below, app_field.clone())),
                    None => good = false,
                }
            }
        }
        Some(field) => {
            let listed = field.each(MAX_ITEMS, report, |item, report| item.text(report))?;
            for (app_name, item) in listed {
                match find(app_name, &item, around.apps, report) {
                    Some(draft) => wanted.push((draft, None, item)),
                    None => good = false,
                }
            }
        }
    }
    let mut out = Vec::new();
    let mut add = |draft: &AppDraft<'_>, below: Option<&Section<'_>>, report: &mut Report| {
        // What is wrong with the app itself is told there.
        let Some(app) = &draft.settings else { return false };
        let mut of_app = none();
        let (mut ends, mut off) = (None, false);
        if let Some(below) = below {
            below.refuse_unknown(APP_KEYS, KEYS, "the section of the user", report);
            let (Some(terms), Some(expires), Some(disabled)) =
                (terms(below, around, report), expires(below, report), disabled(below, report))
            else {
                return false;
            };
            (of_app, ends, off) = (terms, expires, disabled);
        }
        match user_app(name, app, own, &of_app, below.unwrap_or(section), owners, report) {
            Some(mut user_app) => {
                (user_app.expires, user_app.disabled) = (ends, off);
                out.push(user_app);
                true
            }
            None => false,
        }
    };
    if field.is_none() {
        for draft in around.apps {
            good &= add(draft, None, report);
        }
    }
    for (draft, below, _) in &wanted {
        good &= add(draft, below.as_ref(), report);
    }
    good.then_some(out)
}

fn find<'a, 'n>(
    name: &str,
    field: &Field<'_>,
    apps: &'a [AppDraft<'n>],
    report: &mut Report,
) -> Option<&'a AppDraft<'n>> {
    let found = apps.iter().find(|app| app.name == name);
    if found.is_none() {
        let names: Vec<&str> = apps.iter().map(|app| app.name).collect();
        let fix = match suggest::nearest(name, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the apps are: {}", names.join(", ")),
        };
        report.error_fix(field.key(), format!("there is no app `{name}`"), fix);
    }
    found
}

/// What a user has with one app: what is said there, else what is said for all.
fn user_app(
    name: &str,
    app: &App,
    own: &Terms<'_>,
    of_app: &Terms<'_>,
    section: &Section<'_>,
    owners: &mut Owners,
    report: &mut Report,
) -> Option<UserApp> {
    let http = of_app.http.as_ref().or(own.http.as_ref());
    let https = of_app.https.as_ref().or(own.https.as_ref());
    for (key, found) in [("access_key_http", http), ("access_key_https", https)] {
        if found.is_none() {
            report.error_fix(
                section.spot_for(key),
                format!("this key is missing for the app `{}`", app.name),
                format!("add `{key}:` (`knock-agent hash-key --generate` makes keys)"),
            );
        }
    }
    let (http, https) = (http?, https?);
    keys::refuse_shared(http, https, report);
    for (key, field) in http.iter().chain(https) {
        if let Some(other) = owners.other(&app.slug, key, name) {
            let fix = "give everybody keys of their own";
            report.error_fix(
                field.spot(),
                format!("this key is one of {other} too, for the app `{}`", app.name),
                fix,
            );
            return None;
        }
    }
    let max_duration = match of_app.max_duration.as_ref().or(own.max_duration.as_ref()) {
        None => app.max_duration,
        Some((most, field)) => {
            if *most > app.max_duration {
                let message = format!("`{}` grants at most {} (max_duration)", app.name, app.max_duration);
                report.error_fix(field.spot(), message, "make it shorter, or the app's max_duration longer");
                return None;
            }
            *most
        }
    };
    let duration = match of_app.duration.as_ref().or(own.duration.as_ref()) {
        None => app.duration.min(max_duration),
        Some((duration, field)) => {
            if *duration > max_duration {
                let message = format!("with `{}` this is longer than max_duration, {max_duration}", app.name);
                report.error_fix(field.spot(), message, "make it shorter, or max_duration longer");
                return None;
            }
            *duration
        }
    };
    let app = app.name.clone();
    let (http, https) = (bare(http.clone()), bare(https.clone()));
    Some(UserApp { app, http, https, duration, max_duration, expires: None, disabled: false })
}

fn totp(field: &Field<'_>, outside: &dyn Outside, report: &mut Report) -> Option<TotpSecret> {
    let section = field.section(report)?;
    section.refuse_unknown(TOTP_KEYS, &[], "", report);
    let usual = TotpKind::default();
    let interval = Said::read(section.get("interval"), |f| f.number(15..=300, report)).or(usual.interval);
    let digits = Said::read(section.get("digits"), |f| f.number(6..=8, report)).or(usual.digits);
    let drift = Said::read(section.get("drift"), |f| f.number(0..=10, report)).or(usual.drift);
    let (secret, at) = secret_of(&section, "secret", outside, report)?;
    let kind = TotpKind { interval: interval?, digits: digits?, drift: drift? };
    // A file may be one of those that are made for knock-port's folder.
    let parsed = if secret.expose().trim_start().starts_with('{') {
        TotpSecret::parse(secret.expose())
    } else {
        TotpSecret::from_base32(secret.expose(), kind)
    };
    parsed.map_err(|error| report.error(at.spot(), error.to_string())).ok()
}
