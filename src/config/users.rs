//! All users: those of `global.users`, and those with files of their own.

use std::collections::BTreeSet;

use crate::config::app::AppDraft;
use crate::config::global::GlobalDraft;
use crate::config::node::{self, Kind};
use crate::config::outside::{Outside, UserFile};
use crate::config::problem::{Place, Problems};
use crate::config::report::{Report, Spot};
use crate::config::section::Section;
use crate::config::settings::User;
use crate::config::syntax;
use crate::config::user::{self, Around, Owners};

/// Files of users that are read.
const MAX_FILES: usize = 10_000;

/// What was said about users.
pub(super) struct UsersDraft {
    /// The users; none if one of them is wrong.
    pub list: Option<Vec<User>>,
    /// The most bytes of a form that a name and a key of step 1 take.
    pub form_bytes: usize,
}

/// Reads every user; what is wrong with files goes to `of_files`.
pub(super) fn read(
    global: &GlobalDraft<'_>,
    apps: &[AppDraft<'_>],
    outside: &dyn Outside,
    report: &mut Report,
    of_files: &mut Problems,
) -> UsersDraft {
    let around = Around { apps, outside, proofs_only: global.proofs_only };
    let mut owners = Owners::of_apps(apps);
    let mut names = BTreeSet::new();
    let mut out = UsersDraft { list: Some(Vec::new()), form_bytes: 0 };
    if let Some(section) = global.users.as_ref().and_then(|field| field.section(report)) {
        for (name, field) in section.entries() {
            names.insert(name.to_owned());
            match field.section(report) {
                Some(section) => out.add(user::read(name, &section, &around, &mut owners, report)),
                None => out.list = None,
            }
        }
    }
    if let Some((folder, field)) = &global.users_folder {
        match outside.users(folder) {
            Ok(files) if files.len() > MAX_FILES => {
                report.error(
                    field.shown_spot(),
                    format!("there are {} files, the most is {MAX_FILES}", files.len()),
                );
                out.list = None;
            }
            Ok(files) => {
                for file in &files {
                    let mut own = Report::default();
                    match of_file(file, &names, &around, &mut owners, &mut own) {
                        Some(read) => out.add(read),
                        None => out.list = None,
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
                report.error(field.shown_spot(), reason);
                out.list = None;
            }
        }
    }
    out
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
    Some(user::read(&file.name, &section, around, owners, report))
}
