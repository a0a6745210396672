//! The configuration file: YAML text to [`Settings`], every problem with its place.

mod anew;
mod app;
mod conflicts;
mod destination;
mod global;
mod keys;
mod knock_log;
mod lockout;
pub mod manual;
mod metrics;
mod node;
mod notify;
mod outline;
mod outside;
mod problem;
#[cfg(feature = "client")]
mod profile;
#[cfg(feature = "client")]
mod profile_knocks;
mod proxy;
mod report;
mod rotation;
mod section;
mod sequence;
mod sequence_client;
mod sequences;
mod settings;
mod shared_keys;
mod suggest;
mod syntax;
#[cfg(test)]
mod tests;
mod time_sequence;
mod user;
mod users;

pub use anew::{Anew, users_anew};
pub use conflicts::has_good_keys;
pub use destination::parse_destination;
pub use knock_log::{KnockEvent, KnockLog, OWN_LOG_GROUP};
pub use metrics::{Metrics, MetricsAddress, Textfile};
pub use notify::{ExecHook, Mail, MailSecurity, Notify, Webhook};
pub use outline::{Outline, SecretsOfUsers};
pub use outside::{Alone, FileName, Outside, SecretFrom, UserFile};
pub use problem::{Place, Problem, Problems, Severity};
#[cfg(feature = "client")]
pub use profile::{
    CodeSource, Families, Profile, ProofAddress, SecretSource, Step1Form, Trust, parse_profile,
};
#[cfg(feature = "client")]
pub use profile_knocks::{KnockProfile, KnocksFrom, TimedKnocks, Way};
pub use proxy::{Behind, Proxy, ProxyHeader, ProxyStep2, Trusted, TrustedError};
pub use sequence::{KnockEffect, KnockSequence};
pub use sequence_client::{SequenceClient, check_pin};
pub use settings::{
    App, DefaultInput, Destination, Established, Global, LockoutRule, Settings, Step1Proof, Step1Reply,
    TwoFactorStep, User, UserApp,
};
pub use syntax::MAX_BYTES;
pub use time_sequence::TimeSequence;

use node::Kind;
use outline::Noted;
use report::{Report, Show, Spot};
use section::Section;

/// The ports clients use for the two steps, as the command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPorts {
    /// The port of step 1.
    pub http: u16,
    /// The port of step 2.
    pub https: u16,
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it says, defaults filled in.
    pub settings: Settings,
    /// What somebody should look at, in the order of the file.
    pub warnings: Vec<Problem>,
    /// What tells it from another one.
    pub outline: Outline,
}

/// Reads a configuration.
///
/// `file` is only named in problems. `ports` are those in force, which no app may take; none where they are not known.
/// What is kept in other files comes from `outside`.
///
/// # Errors
/// Every problem found, in the order of the file and then of those of users, if at least one of them is an error.
pub fn parse(
    file: &str,
    text: &str,
    ports: Option<StepPorts>,
    outside: &dyn Outside,
) -> Result<Checked, Problems> {
    parse_behind(file, text, ports, None, outside)
}

/// The same with a proxy in front: `ports` are then the proxy's.
///
/// # Errors
/// As [`parse`].
pub fn parse_behind(
    file: &str,
    text: &str,
    ports: Option<StepPorts>,
    behind: Option<&Behind>,
    outside: &dyn Outside,
) -> Result<Checked, Problems> {
    // Some editors put a byte-order mark in front of UTF-8, where it says nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::default();
    conflicts::check_step_ports(ports, behind, &mut report);
    let mut of_users = Problems { list: Vec::new(), more: 0 };
    let (noted, secrets_of_users, mut outline) =
        (Noted::new(outside), Noted::new(outside), Outline::default());
    let both = (&noted as &dyn Outside, &secrets_of_users as &dyn Outside);
    let settings = read(text, (ports, behind), both, &mut report, (&mut of_users, &mut outline));
    outline.take_files(noted, secrets_of_users);
    if settings.is_none() && !report.has_errors() && of_users.errors() == 0 {
        report.error(
            Spot::at("", Place::START),
            "this cannot be read, and knock-agent does not know why: report it",
        );
    }
    let (mut list, more, failed) = match report.finish(file, text) {
        Ok(warnings) => (warnings, 0, false),
        Err(Problems { list, more }) => (list, more, true),
    };
    let failed = failed || of_users.errors() > 0;
    list.extend(of_users.list);
    match settings {
        Some(settings) if !failed => Ok(Checked { settings, warnings: list, outline }),
        Some(_) | None => Err(Problems { list, more: more + of_users.more }),
    }
}

fn read(
    text: &str,
    (ports, behind): (Option<StepPorts>, Option<&Behind>),
    (outside, outside_users): (&dyn Outside, &dyn Outside),
    report: &mut Report,
    (of_users, outline): (&mut Problems, &mut Outline),
) -> Option<Settings> {
    let document = document(text, "write a `global` section and one section per app", report)?;
    outline.take(&document);
    let file = Section::open("", Spot::at("", Place::START), &document, report)?;
    let section = match file.get("global") {
        Some(field) => field.section(report),
        None => {
            missing_global(&file, report);
            None
        }
    };
    let mut global = section.as_ref().map(|section| global::read(section, outside, report));
    let prefix = global.as_ref().and_then(|global| global.step1.as_ref()).map(|(path, ..)| path.clone());
    let rotation =
        section.as_ref().and_then(|section| rotation::read(section, prefix.as_ref(), outside, report));
    if let Some(draft) = &mut global {
        draft.follow(rotation.as_ref().and_then(Option::as_ref));
    }
    let timed = section.as_ref().and_then(|section| time_sequence::read(section, report));
    let metrics = metrics::read(section.as_ref().and_then(|section| section.get("metrics")), report);
    let notify = section.and_then(|section| notify::read(section.get("notify"), outside, report));
    let nothing = global::GlobalDraft::unknown();
    let known = global.as_ref().unwrap_or(&nothing);
    let mut apps = Vec::new();
    let mut all_read = true;
    for (name, field) in file.entries().filter(|(name, _)| *name != "global") {
        match field.section(report) {
            Some(section) => apps.push(app::read(name, &section, known, outside, report)),
            None => all_read = false,
        }
    }
    if apps.is_empty() && all_read && !report.has_errors() {
        report.warning(file.spot(), "there is no app: nothing is guarded", "add a section for each service");
    }
    let users = users::read(known, &apps, (outside, outside_users), report, of_users);
    let mut taken = ports.map(|ports| proxy::taken(ports, behind)).unwrap_or_default();
    if known.without_steps.is_some() {
        taken.clear();
        conflicts::check_without_steps(known, &apps, behind, report);
    }
    conflicts::check(global.as_ref(), &apps, &users, &taken, report);
    let metrics = metrics.settle(&apps, &taken, report);
    let mut global = global?;
    let time_sequence = match timed? {
        None => Some(None),
        Some(draft) if !draft.has_free_ports(&apps, &global.sequences, &taken, report) => None,
        Some(draft) => draft.settle(&apps, outside_users, report, of_users).map(Some),
    };
    conflicts::nobody(&apps, &users, time_sequence.as_ref(), report);
    let sequences = sequences::read(std::mem::take(&mut global.sequences), &mut apps, &taken, report);
    let proxy = std::mem::replace(&mut global.proxy, proxy::ProxyDraft::unknown());
    let proxy = proxy.settle(ports, behind, report)?;
    let global = Global { proxy, path_rotation: rotation?, ..global.settings? };
    let apps = apps.into_iter().map(|app| app.settings).collect::<Option<Vec<_>>>()?;
    let sequences::SequencesDraft { list: sequences, automaton } = sequences?;
    all_read.then_some(Settings {
        global,
        apps,
        users: users.list?,
        notify: notify?,
        metrics: metrics?,
        sequences,
        automaton,
        time_sequence: time_sequence?,
    })
}

/// The first document of a text, which has sections; `fix` says what to write where it has not.
fn document(text: &str, fix: &str, report: &mut Report) -> Option<node::Node> {
    if let Some(fault) = syntax::precheck(text) {
        report.fault(fault);
        return None;
    }
    if let Some(fault) = syntax::foreign(text) {
        report.fault(fault);
        return None;
    }
    let document = match node::read(text) {
        Ok(document) => document,
        Err(error) => {
            report.fault(syntax::fault(&error, text));
            return None;
        }
    };
    if let Some(place) = document.second {
        report.error_fix(
            Spot::at("", place),
            "a second YAML document begins here, which nobody would read",
            "remove the line `---` before it",
        );
    }
    let Some(root) = document.root else {
        report.error_fix(Spot::at("", Place::START), "the file has no content", fix);
        return None;
    };
    if !matches!(root.kind, Kind::Map(_)) {
        report.error_fix(
            Spot::node("", &root, Show::Nothing),
            format!("the file must have sections, it is {}", root.what()),
            fix,
        );
        return None;
    }
    Some(root)
}

fn missing_global(file: &Section<'_>, report: &mut Report) {
    let meant = file.entries().find(|(name, _)| suggest::nearest(name, &["global"]).is_some());
    match meant {
        Some((name, field)) => report.error_fix(
            field.key().about("global"),
            "this section is missing",
            format!("rename `{name}` to `global`"),
        ),
        None => report.error_fix(
            file.spot_for("global"),
            "this section is missing",
            "add it, with http_post_path, https_post_path and interface_ext",
        ),
    }
}
