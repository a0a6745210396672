//! What a configuration leans on: certificate and key, 2FA, and the flags beside it.

use std::io::ErrorKind;

use super::flags::{UNMARKED, UNMARKED_FIX};
use crate::cli::{DaemonArgs, Exit};
use crate::config::{Problem, Settings, Severity};
use crate::service::daemon::{self, DaemonError};
use crate::service::outside;
use crate::service::two_factor::{self, TwoFactorError};

/// Every problem with those files, as far as this process may read them.
pub(super) fn check(settings: &Settings, args: &DaemonArgs) -> Vec<Problem> {
    let mut out = two_factor(settings, args);
    for trouble in outside::other_names(settings) {
        out.push(problem(args, Severity::Error, "interface_ext", trouble.to_string()));
    }
    if settings.global.mark.is_none() && !args.host.wishes(args.kind()).is_empty() {
        let unmarked = problem(args, Severity::Error, "global.mark", UNMARKED.to_owned());
        out.push(Problem { fix: Some(UNMARKED_FIX.to_owned()), ..unmarked });
    }
    out.extend(tls(args));
    out
}

/// What is wrong with certificate and key, where flags name them: without them the guard would close all, and no daemon start.
pub(super) fn tls(args: &DaemonArgs) -> Option<Problem> {
    let (certificate, key) = match (&args.cert, &args.key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return None,
        (given, _) => {
            let other = if given.is_some() { "--key" } else { "--cert" };
            let alone = format!("{other} FILE is missing: step 2 takes a certificate and its key");
            return Some(problem(args, Severity::Error, "", alone));
        }
    };
    let error = daemon::tls(certificate, key).err()?;
    let kind = match &error {
        DaemonError::CertificateFile { source, .. } => Some(source.kind()),
        _ => None,
    };
    // The daemon may be allowed what whoever checks is not.
    let severity =
        if kind == Some(ErrorKind::PermissionDenied) { Severity::Warning } else { Severity::Error };
    let fix = (kind == Some(ErrorKind::NotFound))
        .then(|| "`knock-agent cert` makes a self-signed certificate and key".to_owned());
    Some(Problem { fix, ..problem(args, severity, "", error.to_string()) })
}

fn two_factor(settings: &Settings, args: &DaemonArgs) -> Vec<Problem> {
    let key = "global.2fa_config_folder";
    match two_factor::load(settings) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .into_iter()
            .map(|error| {
                let severity = match &error {
                    TwoFactorError::Unreadable { source, .. } | TwoFactorError::NoFolder { source, .. }
                        if source.kind() == ErrorKind::PermissionDenied =>
                    {
                        Severity::Warning
                    }
                    TwoFactorError::Unreadable { .. }
                    | TwoFactorError::NoFolder { .. }
                    | TwoFactorError::Exposed { .. }
                    | TwoFactorError::Malformed { .. } => Severity::Error,
                };
                problem(args, severity, key, error.to_string())
            })
            .collect(),
    }
}

fn problem(args: &DaemonArgs, severity: Severity, path: &str, message: String) -> Problem {
    Problem {
        severity,
        file: args.file.config.display().to_string(),
        place: None,
        path: path.to_owned(),
        value: None,
        message,
        fix: None,
    }
}

/// The exit code that problems come to.
pub(super) fn exit(problems: &[Problem]) -> Exit {
    let bad = problems.iter().any(|problem| problem.severity == Severity::Error);
    if bad { Exit::BadConfig } else { Exit::Done }
}
