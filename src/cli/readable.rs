//! Whether the user as whom the daemon is started can read what root, who checks, can read.

use std::path::{Path, PathBuf};

use crate::cli::DaemonArgs;
use crate::cli::installed::{self, Started};
use crate::config::{Problem, Settings, Severity};
use crate::sys::users;

/// Where `ProtectHome=` hides everything.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// A warning for each file that this user cannot read: those that the configuration named, which were `read`, and the rest.
pub(super) fn check(settings: &Settings, args: &DaemonArgs, read: Vec<PathBuf>) -> Vec<Problem> {
    let config = std::path::absolute(&args.file.config).unwrap_or_else(|_| args.file.config.clone());
    // Who is not root has tried it as far as it can be tried.
    if users::own() != 0 {
        return Vec::new();
    }
    let Some(run) = installed::started(&config) else { return Vec::new() };
    let mut files = vec![config];
    files.extend(read);
    files.extend(settings.global.two_factor_folder.iter().flat_map(|folder| codes(folder)));
    let tls: Vec<PathBuf> = args.cert.iter().chain(&args.key).cloned().collect();
    files.extend(if tls.is_empty() { run.tls.clone() } else { tls });
    files.dedup();
    // Where a link leads to has folders of its own.
    let files: Vec<PathBuf> = files.into_iter().filter_map(|file| std::fs::canonicalize(file).ok()).collect();
    let (hidden, others) = files
        .into_iter()
        .partition(|file: &PathBuf| run.without_homes && HOMES.iter().any(|home| file.starts_with(home)));
    let hidden: Vec<PathBuf> = hidden;
    let mut out: Vec<Problem> = hidden.iter().map(|file| out_of_sight(file)).collect();
    out.extend(denied(&run, &others));
    out
}

/// The folder, and the files of codes in it.
fn codes(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path());
    let codes = files.filter(|file| file.extension().is_some_and(|end| end == "json"));
    std::iter::once(folder.to_owned()).chain(codes).collect()
}

fn out_of_sight(file: &Path) -> Problem {
    let message =
        "knock-agent.service has ProtectHome=yes and sees nothing there: the daemon would not start";
    warning(file, message.to_owned(), "move it to /etc/knock-agent".to_owned())
}

#[cfg(target_pointer_width = "64")]
fn denied(run: &Started, files: &[PathBuf]) -> Vec<Problem> {
    use crate::sys::account::Account;
    let Some(account) = Account::named(&run.user, &run.groups) else { return Vec::new() };
    let (user, group) = (&run.user, account.group());
    let found = account.cannot_read(files).unwrap_or_default();
    let who = match run.by_unit {
        true => format!("knock-agent.service runs as {user}, who cannot read this file"),
        false => format!("the user {user}, who is there for the daemon to run as, cannot read this file"),
    };
    let each = found.into_iter().map(|(file, obstacle)| {
        let message = format!("{who}: the daemon would not start, or not reload");
        let (name, mode) = (obstacle.display(), if obstacle.is_dir() { "g+rx" } else { "g+r" });
        warning(&file, message, format!("chgrp {group} {name} && chmod {mode} {name}"))
    });
    each.collect()
}

/// Threads of such a system change who they are by other calls.
#[cfg(not(target_pointer_width = "64"))]
fn denied(_: &Started, _: &[PathBuf]) -> Vec<Problem> {
    Vec::new()
}

fn warning(file: &Path, message: String, fix: String) -> Problem {
    Problem {
        severity: Severity::Warning,
        file: file.display().to_string(),
        place: None,
        path: String::new(),
        value: None,
        message,
        fix: Some(fix),
    }
}
