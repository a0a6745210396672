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
    if let (Some(certificate), Some(key)) = (&args.cert, &args.key)
        && let Err(error) = daemon::tls(certificate, key)
    {
        let denied = matches!(
            &error,
            DaemonError::CertificateFile { source, .. } if source.kind() == ErrorKind::PermissionDenied
        );
        // The daemon may be allowed what whoever checks is not.
        let severity = if denied { Severity::Warning } else { Severity::Error };
        out.push(problem(args, severity, "", error.to_string()));
    }
    out
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
