//! The files of clients whose knocks change with time.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::config::app::AppDraft;
use crate::config::keys::{disabled, expires, said_secret};
use crate::config::outside::{Outside, UserFile};
use crate::config::problem::{Place, Problems};
use crate::config::report::{Report, Spot};
use crate::config::section::{Field, Section};
use crate::config::shared_keys::{MAX_ITEMS, Said};
use crate::config::users::warn_of_passed_over;
use crate::config::{document, suggest};
use crate::units::{KnockKind, KnockSecret, Lifetime, Secret, Timestamp, UserName};

pub(super) const KEYS: &[&str] =
    &["app", "apps", "secret", "pin", "knocks", "duration", "disabled", "expires"];
/// Files of clients that are read.
const MAX_FILES: usize = 10_000;
/// Knocks of a client that says nothing of them.
const KNOCKS: u8 = 4;
/// What clients of knock-knock send unless told otherwise.
const THEIR_KNOCKS: u8 = 3;
/// Characters of a PIN.
const MAX_PIN: usize = 64;

/// Somebody whose knocks change with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceClient {
    /// Who; the name of the file.
    pub name: UserName,
    /// What the knocks open, by places in the list of apps, sorted; at least one.
    pub apps: Vec<usize>,
    /// What the knocks are made from.
    pub secret: KnockSecret,
    /// What else, where the client has to type something.
    pub pin: Option<Secret>,
    /// How many there are, 1 to 8.
    pub knocks: u8,
    /// How long it is open, unless as long as the app says; at most the app's `max_duration`.
    pub duration: Option<Lifetime>,
    /// Whether nothing opens until somebody changes that.
    pub disabled: bool,
    /// From when on nothing opens any more.
    pub expires: Option<Timestamp>,
}

/// How many knocks a client sends that says nothing of them.
pub(super) fn usual_knocks(kind: KnockKind) -> u8 {
    match kind {
        KnockKind::Secret => KNOCKS,
        KnockKind::KnockKnock => THEIR_KNOCKS,
    }
}

/// Reads all clients, sorted by name; none if one of them is wrong.
pub(super) fn read(
    (folder, kind): (&Path, KnockKind),
    spot: &Spot,
    apps: &[AppDraft<'_>],
    outside: &dyn Outside,
    report: &mut Report,
    of_files: &mut Problems,
) -> Option<Vec<SequenceClient>> {
    warn_of_passed_over(folder, spot, outside, report);
    let files = match outside.users(folder) {
        Ok(files) if files.len() <= MAX_FILES => files,
        Ok(files) => {
            report.error(spot.clone(), format!("there are {} files, the most is {MAX_FILES}", files.len()));
            return None;
        }
        Err(reason) => {
            report.error_fix(
                spot.clone(),
                reason,
                format!(
                    "where it is missing: mkdir -m 750 {} (`knock-agent enroll --sequence` makes it, too)",
                    folder.display()
                ),
            );
            return None;
        }
    };
    let mut owners = HashMap::new();
    let clients: Vec<Option<SequenceClient>> = files
        .iter()
        .map(|file| {
            let mut own = Report::default();
            let client = one((file, kind), apps, &mut owners, outside, &mut own);
            match own.finish(&file.file, &file.text) {
                Ok(warnings) => {
                    of_files.list.extend(warnings);
                    client
                }
                Err(problems) => {
                    of_files.list.extend(problems.list);
                    of_files.more += problems.more;
                    None
                }
            }
        })
        .collect();
    clients.into_iter().collect()
}

fn one(
    (file, kind): (&UserFile, KnockKind),
    apps: &[AppDraft<'_>],
    owners: &mut HashMap<String, String>,
    outside: &dyn Outside,
    report: &mut Report,
) -> Option<SequenceClient> {
    let root = document(&file.text, "write `app: ssh` and `secret: ...` into it", report)?;
    let section = Section::open("", Spot::at("", Place::START), &root, report)?;
    section.refuse_unknown(KEYS, &[], "", report);
    let name = file.name.parse::<UserName>();
    let name =
        name.map_err(|error| report.error_fix(section.spot(), error.to_string(), "rename the file")).ok();
    let secret = secret(&section, &file.name, owners, outside, report);
    let pin = pin(&section, outside, report);
    let knocks = Said::read(section.get("knocks"), |f| f.number(1..=i128::from(KnockKind::MOST), report));
    let duration = Said::read(section.get("duration"), |f| f.lifetime(report).map(Some)).or(None);
    let (disabled, expires) = (disabled(&section, report), expires(&section, report));
    let apps_of = apps_of(&section, apps, report)?;
    let duration = duration?;
    if let (Some(asked), Some(at)) = (duration, section.get("duration")) {
        let mut settings = apps_of.iter().filter_map(|&app| apps.get(app)?.settings.as_ref());
        if let Some(app) = settings.find(|app| app.max_duration < asked) {
            let message = format!("`{}` grants at most {} (max_duration)", app.name, app.max_duration);
            report.error_fix(at.spot(), message, "make it shorter, or the app's max_duration longer");
        }
    }
    Some(SequenceClient {
        name: name?,
        apps: apps_of,
        secret: secret?,
        pin: pin?,
        knocks: knocks.or(usual_knocks(kind))?,
        duration,
        disabled: disabled?,
        expires: expires?,
    })
}

fn secret(
    section: &Section<'_>,
    name: &str,
    owners: &mut HashMap<String, String>,
    outside: &dyn Outside,
    report: &mut Report,
) -> Option<KnockSecret> {
    let Some(field) = section.secret("secret") else {
        section.missing("secret", "<base32, as knock-agent enroll --sequence makes it>", report);
        return None;
    };
    let text = said_secret(section, "secret", outside, report)??;
    match KnockSecret::from_base32(text.expose()) {
        Ok(secret) => match owners.insert(secret.fingerprint(), name.to_owned()) {
            Some(other) => {
                let message = format!("this secret is that of `{other}` too");
                report.error_fix(field.spot(), message, "give everybody a secret of their own");
                None
            }
            None => Some(secret),
        },
        Err(error) => {
            report.error(field.spot(), error.to_string());
            None
        }
    }
}

fn pin(section: &Section<'_>, outside: &dyn Outside, report: &mut Report) -> Option<Option<Secret>> {
    let Some(pin) = said_secret(section, "pin", outside, report)? else { return Some(None) };
    match check_pin(&pin) {
        Ok(()) => Some(Some(pin)),
        Err(message) => {
            report.error(section.spot_for("pin"), message);
            None
        }
    }
}

/// Whether a text can be a PIN.
///
/// # Errors
/// What one is.
pub fn check_pin(pin: &Secret) -> Result<(), &'static str> {
    let legal = (1..=MAX_PIN).contains(&pin.expose().chars().count());
    let plain = !pin.expose().chars().any(char::is_control);
    if legal && plain {
        Ok(())
    } else {
        Err("a PIN has 1 to 64 characters, none of them a control character")
    }
}

/// The apps that are listed, by their places, each once.
fn apps_of(section: &Section<'_>, apps: &[AppDraft<'_>], report: &mut Report) -> Option<Vec<usize>> {
    let field = match (section.get("app"), section.get("apps")) {
        (Some(field), None) | (None, Some(field)) => field,
        (None, None) => {
            section.missing("app", "ssh", report);
            return None;
        }
        (Some(app), Some(_)) => {
            report.error_fix(app.key(), "there is `apps` too", "write all of them there");
            return None;
        }
    };
    let found = field.each(MAX_ITEMS, report, |item, report| place(item, apps, report))?;
    let places: BTreeSet<usize> = found.into_iter().map(|(place, _)| place).collect();
    Some(places.into_iter().collect())
}

fn place(item: &Field<'_>, apps: &[AppDraft<'_>], report: &mut Report) -> Option<usize> {
    let name = item.text(report)?;
    let found = apps.iter().position(|app| app.name == name);
    if found.is_none() {
        let names: Vec<&str> = apps.iter().map(|app| app.name).collect();
        let fix = match suggest::nearest(name, &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the apps are: {}", names.join(", ")),
        };
        report.error_fix(item.spot(), format!("there is no app `{name}`"), fix);
    }
    found
}
