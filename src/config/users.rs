//! All users: those of `global.users`, and those with files of their own.

use std::collections::BTreeSet;
use std::path::Path;

use crate::config::app::AppDraft;
use crate::config::global::GlobalDraft;
use crate::config::node::{self, Kind};
use crate::config::outside::{Outside, UserFile};
use crate::config::problem::{Place, Problems};
use crate::config::report::{Report, Spot};
use crate::config::section::Section;
use crate::config::settings::{Settings, Step1Proof, User};
use crate::config::syntax;
use crate::config::user::{self, Around, Owners};

/// Files of users that are read.
const MAX_FILES: usize = 10_000;
/// Files that are not read and are named.
const MAX_PASSED_OVER: usize = 10;

/// What was said about users.
pub(super) struct UsersDraft {
    /// The users; none if one of them is wrong.
    pub list: Option<Vec<User>>,
    /// The most bytes of a form that a name and a key of step 1 take.
    pub form_bytes: usize,
}

/// Reads every user; what is wrong with files goes to `of_files`. The secrets of those with files come from `of_folder`.
pub(super) fn read(
    global: &GlobalDraft<'_>,
    apps: &[AppDraft<'_>],
    (outside, of_folder): (&dyn Outside, &dyn Outside),
    report: &mut Report,
    of_files: &mut Problems,
) -> UsersDraft {
    let around = Around { apps, outside, proofs_only: global.proofs_only };
    let mut reading = Reading::new(apps);
    if let Some(section) = global.users.as_ref().and_then(|field| field.section(report)) {
        for (name, field) in section.entries() {
            reading.names.insert(name.to_owned());
            match field.section(report) {
                Some(section) => {
                    let read = user::read(name, &section, &around, &mut reading.owners, report);
                    reading.draft.add(read);
                }
                None => reading.draft.list = None,
            }
        }
    }
    if let Some((folder, field)) = &global.users_folder {
        let around = Around { outside: of_folder, ..around };
        reading.folder((folder, field.shown_spot()), &around, report, of_files);
    }
    reading.draft
}

/// Reads those with files anew, beside the others as they are.
pub(super) fn again(
    settings: &Settings,
    apps: &[AppDraft<'_>],
    outside: &dyn Outside,
    report: &mut Report,
    of_files: &mut Problems,
) -> UsersDraft {
    let mut reading = Reading::new(apps);
    let others: Vec<User> = settings.users.iter().filter(|user| !user.of_file).cloned().collect();
    for user in &others {
        reading.names.insert(user.name.to_string());
        reading.owners.add(user, apps);
    }
    reading.draft.list = Some(others);
    if let Some(folder) = &settings.global.users_folder {
        let proofs_only = settings.global.step1_proof != Step1Proof::Accept;
        let around = Around { apps, outside, proofs_only };
        reading.folder((folder, Spot::elsewhere("global.users_folder")), &around, report, of_files);
    }
    reading.draft
}

struct Reading {
    owners: Owners,
    names: BTreeSet<String>,
    draft: UsersDraft,
}

impl Reading {
    fn new(apps: &[AppDraft<'_>]) -> Self {
        let draft = UsersDraft { list: Some(Vec::new()), form_bytes: 0 };
        Self { owners: Owners::of_apps(apps), names: BTreeSet::new(), draft }
    }

    fn folder(
        &mut self,
        (folder, spot): (&Path, Spot),
        around: &Around<'_, '_>,
        report: &mut Report,
        of_files: &mut Problems,
    ) {
        warn_of_passed_over(folder, &spot, around.outside, report);
        match around.outside.users(folder) {
            Ok(files) if files.len() > MAX_FILES => {
                report.error(spot, format!("there are {} files, the most is {MAX_FILES}", files.len()));
                self.draft.list = None;
            }
            Ok(files) => {
                for file in &files {
                    let mut own = Report::default();
                    match of_file(file, &self.names, around, &mut self.owners, &mut own) {
                        Some(read) => self.draft.add(read),
                        None => self.draft.list = None,
                    }
                    match own.finish(&file.file, &file.text) {
                        Ok(warnings) => of_files.list.extend(warnings),
                        Err(problems) => {
                            of_files.list.extend(problems.list);
                            of_files.more += problems.more;
                        }
                    }
                }
            }
            Err(reason) => {
                report.error(spot, reason);
                self.draft.list = None;
            }
        }
    }
}

/// Warns of files that look like those of users or clients, and are not read.
pub(super) fn warn_of_passed_over(folder: &Path, spot: &Spot, outside: &dyn Outside, report: &mut Report) {
    for name in outside.passed_over(folder).into_iter().take(MAX_PASSED_OVER) {
        report.warning(
            spot.clone(),
            format!("{name} is not read: only files NAME.yaml are"),
            "rename it, or move it away",
        );
    }
}

impl UsersDraft {
    fn add(&mut self, (user, form_bytes): (Option<User>, usize)) {
        self.form_bytes = self.form_bytes.max(form_bytes);
        match (user, &mut self.list) {
            (Some(user), Some(list)) => list.push(user),
            (Some(_) | None, _) => self.list = None,
        }
    }
}

fn of_file(
    file: &UserFile,
    names: &BTreeSet<String>,
    around: &Around<'_, '_>,
    owners: &mut Owners,
    report: &mut Report,
) -> Option<(Option<User>, usize)> {
    let start = Spot::at("", Place::START);
    if names.contains(&file.name) {
        let message = format!("there is a user `{}` in `global.users` already", file.name);
        report.error_fix(start, message, "rename the file, or remove one of them");
        return None;
    }
    if let Some(fault) = syntax::precheck(&file.text) {
        report.fault(fault);
        return None;
    }
    let root = match node::read(&file.text) {
        Ok(document) => document.root,
        Err(error) => {
            report.fault(syntax::fault(&error, &file.text));
            return None;
        }
    };
    let Some(root) = root.filter(|root| matches!(root.kind, Kind::Map(_))) else {
        report.error_fix(
            start,
            "this file is not about a user",
            "write `access_key_http: ...` and so on into it",
        );
        return None;
    };
    let section = Section::open("", start, &root, report)?;
    let (user, form_bytes) = user::read(&file.name, &section, around, owners, report);
    Some((user.map(|user| User { of_file: true, ..user }), form_bytes))
}
