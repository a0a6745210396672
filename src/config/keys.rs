//! Access keys: in the file, in another one, or in a credential.

use std::path::Path;

use crate::config::outside::{Outside, SecretFrom};
use crate::config::report::Report;
use crate::config::section::{Field, Section, refuse_repeats};
use crate::config::shared_keys::{MAX_ITEMS, Said};
use crate::units::{AccessKey, AccessKeyError, KeyCheck, Secret, Timestamp};

/// The keys of a section about one access key.
pub(super) const KEYS: &[&str] = &["key", "file", "credential", "expires", "disabled"];

/// The keys of a section about another secret.
pub(super) const PLACES: &[&str] = &["value", "file", "credential"];

/// What means something else in a form (`application/x-www-form-urlencoded`).
const SENT_OTHERWISE: [char; 4] = ['+', '&', '%', ' '];

/// Access keys with the places where they are written.
pub(super) type Keys<'n> = Vec<(AccessKey, Field<'n>)>;

/// The access keys of a list; none if one of them is wrong.
pub(super) fn keys<'n>(field: &Field<'n>, outside: &dyn Outside, report: &mut Report) -> Option<Keys<'n>> {
    let found = field.each(MAX_ITEMS, report, |item, report| access_key(item, outside, report))?;
    refuse_repeats(&found, AccessKey::same_as, "key", report);
    Some(found)
}

/// Reports every key of step 2 that is one of step 1, too.
pub(super) fn refuse_shared(http: &Keys<'_>, https: &Keys<'_>, report: &mut Report) {
    for (key, field) in https {
        if let Some((_, first)) = http.iter().find(|(other, _)| other.same_as(key)) {
            report.conflict(
                field.spot(),
                &first.spot(),
                "this key is used at both steps",
                "make another one: who listens to step 1 would know both",
            );
        }
    }
}

/// Warns of every key of step 1 of which no proof can be made, where only proofs are taken.
pub(super) fn warn_of_unprovable(http: &Keys<'_>, with_user: bool, report: &mut Report) {
    for (key, field) in http.iter().filter(|(key, _)| !key.disabled) {
        let why = match key.check {
            KeyCheck::Slow(_) => "it is stored as argon2id, which does not do for a proof",
            _ if with_user || key.id.is_some() => continue,
            KeyCheck::Plain(_) | KeyCheck::Stored(_) => {
                "a proof names a user or the id of a key, and this one has neither"
            }
        };
        report.warning(
            field.spot(),
            format!("nobody can use this key with `step1_proof: require`: {why}"),
            "generate one (`knock-agent hash-key --generate`), or give it to a user; or `step1_proof: accept`",
        );
    }
}

/// The keys alone.
pub(super) fn bare(keys: Keys<'_>) -> Vec<AccessKey> {
    keys.into_iter().map(|(key, _)| key).collect()
}

fn access_key(field: &Field<'_>, outside: &dyn Outside, report: &mut Report) -> Option<AccessKey> {
    if !field.is_section() {
        return judged(field, field.text(report)?, report);
    }
    let section = field.section(report)?;
    if section.entries().any(|(key, _)| !KEYS.contains(&key)) {
        // Not by name: it may be an access key that got into the wrong place.
        report.error_fix(
            section.spot(),
            "this has a key that is not known here",
            format!("write a key of 10 to 50 characters, or a section with {} only", KEYS.join(", ")),
        );
        return None;
    }
    let (secret, at) = secret_of(&section, "key", outside, report)?;
    let key = judged(&at, secret.expose(), report);
    let expires = expires(&section, report);
    let disabled = disabled(&section, report);
    Some(AccessKey { expires: expires?, disabled: disabled?, ..key? })
}

/// The date from which on nothing is opened any more, if there is one.
pub(super) fn expires(section: &Section<'_>, report: &mut Report) -> Option<Option<Timestamp>> {
    Said::read(section.get("expires"), |f| f.parse_text::<Timestamp>(report).map(Some)).or(None)
}

/// Whether nothing is opened until somebody changes that.
pub(super) fn disabled(section: &Section<'_>, report: &mut Report) -> Option<bool> {
    Said::read(section.get("disabled"), |f| f.switch(report)).or(false)
}

fn judged(field: &Field<'_>, text: &str, report: &mut Report) -> Option<AccessKey> {
    match text.parse::<AccessKey>() {
        Ok(key) => {
            if matches!(key.check, KeyCheck::Plain(_)) && text.contains(SENT_OTHERWISE) {
                report.warning(
                    field.spot(),
                    "curl's -d does not send this key as it is: some of `+`, `&`, `%` and blanks are in it",
                    "send it with --data-urlencode, or make another one",
                );
            }
            Some(key)
        }
        Err(
            error @ (AccessKeyError::Length(_)
            | AccessKeyError::Unseen
            | AccessKeyError::Shown
            | AccessKeyError::Stored
            | AccessKeyError::Slow),
        ) => {
            report.error(field.spot(), error.to_string());
            None
        }
    }
}

/// A secret that may be left out: the text itself, or a section that says where it is.
pub(super) fn said_secret(
    section: &Section<'_>,
    key: &str,
    outside: &dyn Outside,
    report: &mut Report,
) -> Option<Option<Secret>> {
    let Some(field) = section.secret(key) else { return Some(None) };
    if !field.is_section() {
        return field.text(report).map(|text| Some(Secret::new(text.to_owned())));
    }
    let place = field.section(report)?;
    place.refuse_unknown(PLACES, &[], "", report);
    secret_of(&place, "value", outside, report).map(|(secret, _)| Some(secret))
}

/// The secret that a section has under the key `inline`, or names by `file` or `credential`, and the field that does.
pub(super) fn secret_of<'n>(
    section: &Section<'n>,
    inline: &str,
    outside: &dyn Outside,
    report: &mut Report,
) -> Option<(Secret, Field<'n>)> {
    let said: Vec<(&str, Field<'n>)> = [inline, "file", "credential"]
        .into_iter()
        .filter_map(|place| Some((place, section.secret(place)?)))
        .collect();
    let (place, field) = match said.as_slice() {
        [(place, field)] => (*place, field.clone()),
        [] => {
            report.error_fix(
                section.spot(),
                "this does not say where the secret is",
                format!("write `{inline}: <the secret>`, `file: /path` or `credential: name`"),
            );
            return None;
        }
        [_, (_, second), ..] => {
            report.error(
                second.key(),
                format!("one secret has one place: write {inline}, file or credential, not several"),
            );
            return None;
        }
    };
    let text = field.text(report)?;
    let found = match place {
        place if place == inline => return Some((Secret::new(text.to_owned()), field)),
        "file" if !Path::new(text).is_absolute() => Err("write the whole path of the file".to_owned()),
        "file" => outside.secret(SecretFrom::File(Path::new(text))),
        _ if !credential_name(text) => {
            Err("a credential's name is one of systemd's: letters, digits and . _ -".to_owned())
        }
        _ => outside.secret(SecretFrom::Credential(text)),
    };
    match found {
        Ok(secret) => Some((secret, field)),
        Err(reason) => {
            // Where it is kept is not the secret; what cannot be a place may be the secret itself.
            let is_place = place == "file" && Path::new(text).is_absolute();
            report.error(if is_place { field.shown_spot() } else { field.spot() }, reason);
            None
        }
    }
}

fn credential_name(text: &str) -> bool {
    let legal = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    legal && !text.is_empty() && text.len() <= 100 && !text.starts_with('.')
}
