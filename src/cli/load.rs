//! The configuration file from the disk, with what is wrong with it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::cli::outside::Disk;
use crate::cli::{Exit, Printer, Steps, Tone};
use crate::config::{self, Checked, MAX_BYTES, Outside, Place, Problem, Problems, Severity};
use crate::sys::{clock, files, users};

/// What becomes of a configuration file that others can read or change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// It is used, with a warning.
    Warn,
    /// It is refused (`--strict`).
    Refuse,
}

impl Exposure {
    /// As `--strict` says.
    #[must_use]
    pub fn of_strict(strict: bool) -> Self {
        if strict { Self::Refuse } else { Self::Warn }
    }

    fn severity(self) -> Severity {
        match self {
            Self::Warn => Severity::Warning,
            Self::Refuse => Severity::Error,
        }
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug)]
pub struct Refused {
    /// The problems.
    pub problems: Problems,
    /// The exit code they come to.
    pub exit: Exit,
}

/// Reads a configuration and prints every problem and warning.
///
/// # Errors
/// The exit code, after its reasons have been printed.
pub fn load(
    path: &Path,
    steps: Option<&Steps>,
    exposure: Exposure,
    err: &mut Printer,
) -> Result<Checked, Exit> {
    load_with(path, steps, exposure, &Disk, err)
}

/// The same, with other files from somewhere else.
///
/// # Errors
/// As above.
pub fn load_with(
    path: &Path,
    steps: Option<&Steps>,
    exposure: Exposure,
    outside: &dyn Outside,
    err: &mut Printer,
) -> Result<Checked, Exit> {
    match read_with(path, steps, exposure, outside) {
        Ok(checked) => {
            print_all(&checked.warnings, 0, err);
            Ok(checked)
        }
        Err(refused) => {
            print_refused(&refused, err);
            Err(refused.exit)
        }
    }
}

/// Prints why a configuration cannot be used.
pub fn print_refused(refused: &Refused, err: &mut Printer) {
    print_all(&refused.problems.list, refused.problems.more, err);
    let errors = refused.problems.errors() + refused.problems.more;
    let count = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
    let verdict = err.paint(Tone::Bad, &format!("{count}: this configuration is not used"));
    err.line(verdict);
}

/// Prints problems, one or two lines each.
pub fn print_all(problems: &[Problem], more: usize, err: &mut Printer) {
    for problem in problems {
        err.line(problem);
    }
    if more > 0 {
        err.line(format!("... and {more} more"));
    }
}

/// Reads a configuration and prints nothing.
///
/// # Errors
/// Every problem, with the exit code they come to.
pub fn read(path: &Path, steps: Option<&Steps>, exposure: Exposure) -> Result<Checked, Refused> {
    read_with(path, steps, exposure, &Disk)
}

/// The same, with other files from somewhere else.
///
/// # Errors
/// As above.
pub fn read_with(
    path: &Path,
    steps: Option<&Steps>,
    exposure: Exposure,
    outside: &dyn Outside,
) -> Result<Checked, Refused> {
    let name = path.display().to_string();
    let (text, mut about_file) = read_text(path, &name, exposure)?;
    let refused = |problems| Refused { problems, exit: Exit::BadConfig };
    let (ports, behind) = (steps.map(|s| s.ports), steps.and_then(|s| s.behind.as_ref()));
    match config::parse_behind(&name, &text, ports, behind, outside) {
        Ok(checked) if about_file.iter().any(|p| p.severity == Severity::Error) => {
            about_file.extend(checked.warnings);
            Err(refused(Problems { list: about_file, more: 0 }))
        }
        Ok(Checked { mut settings, warnings, outline }) => {
            settings.follow_time(clock::now().wall);
            about_file.extend(warnings);
            Ok(Checked { settings, warnings: about_file, outline })
        }
        Err(Problems { list, more }) => {
            about_file.extend(list);
            Err(refused(Problems { list: about_file, more }))
        }
    }
}

fn read_text(path: &Path, name: &str, exposure: Exposure) -> Result<(String, Vec<Problem>), Refused> {
    let unreadable = |error: io::Error| unreadable(name, &error);
    let (file, about) = files::open_regular(path).map_err(unreadable)?;
    let bytes = read_capped(&file).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let mut found = problem(name, "this is not UTF-8 text", "save the file in UTF-8");
        found.place = Some(end_of(valid));
        refusal(found, Exit::BadConfig)
    })?;
    let exposed =
        exposed(about.mode(), users::may_own_secrets(about.uid())).into_iter().map(|(message, fix)| {
            Problem { severity: exposure.severity(), ..problem(name, message, &format!("{fix} {name}")) }
        });
    Ok((text, exposed.collect()))
}

/// One byte more than a configuration may have, so that the reader of the text refuses what is longer.
fn read_capped(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(name: &str, error: &io::Error) -> Refused {
    let bad = |message: &str, fix| refusal(problem(name, message, fix), Exit::BadConfig);
    match error.kind() {
        io::ErrorKind::IsADirectory | io::ErrorKind::InvalidInput => {
            bad(&error.to_string(), "name a file with --config")
        }
        io::ErrorKind::NotFound => bad("there is no such file", "name the configuration with --config"),
        io::ErrorKind::PermissionDenied => {
            let fix = "run as root or as a member of the file's group";
            refusal(problem(name, "no permission to read this file", fix), Exit::NoPermission)
        }
        _ => bad(&format!("this file cannot be read: {error}"), "check file and disk"),
    }
}

fn refusal(problem: Problem, exit: Exit) -> Refused {
    Refused { problems: Problems { list: vec![problem], more: 0 }, exit }
}

/// One error about a key of a configuration.
pub fn one_problem(path: &Path, key: &str, message: &str, fix: &str) -> Problems {
    let found = problem(&path.display().to_string(), message, fix);
    Problems { list: vec![Problem { path: key.to_owned(), ..found }], more: 0 }
}

fn problem(name: &str, message: &str, fix: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        file: name.to_owned(),
        place: None,
        path: String::new(),
        value: None,
        message: message.to_owned(),
        fix: Some(fix.to_owned()),
    }
}

/// How others can get at a file of this mode, whose owner is trusted or not, and the command against it.
pub(super) fn exposed(mode: u32, trusted_owner: bool) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    if mode & 0o004 != 0 {
        found.push(("everybody on this host can read the secrets in this file", "chmod o= "));
    }
    if mode & 0o022 != 0 {
        found.push(("others than its owner can change this file", "chmod go-w "));
    }
    if !trusted_owner {
        found.push(("this file belongs to another user, who can change it", "chown root "));
    }
    found.into_iter().map(|(message, fix)| (message, fix.trim_end())).collect()
}

fn end_of(valid: &[u8]) -> Place {
    let text = String::from_utf8_lossy(valid);
    let line = text.matches('\n').count() + 1;
    let last = text.rsplit('\n').next().unwrap_or_default();
    Place { line, column: last.chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_nobody_else_can_touch_is_quiet() {
        for (mode, trusted_owner, found) in [
            (0o100_600, true, 0),
            (0o100_640, true, 0),
            (0o100_644, true, 1),
            (0o100_660, true, 1),
            (0o100_666, true, 2),
            (0o100_600, false, 1),
        ] {
            assert_eq!(exposed(mode, trusted_owner).len(), found, "{mode:o} {trusted_owner}");
        }
    }

    #[test]
    fn the_end_of_a_text_counts_characters_from_one() {
        assert_eq!(end_of(b""), Place::START);
        assert_eq!(end_of("a\nbä".as_bytes()), Place { line: 2, column: 3 });
    }

    #[test]
    fn a_missing_file_and_a_directory_are_bad_configurations() {
        for (path, part) in [("/nonexistent/config.yaml", "no such file"), ("/", "a directory")] {
            let refused = read(Path::new(path), None, Exposure::Warn).unwrap_err();
            assert_eq!(refused.exit, Exit::BadConfig);
            assert!(refused.problems.to_string().contains(part), "{}", refused.problems);
        }
    }
}
