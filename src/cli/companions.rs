//! What a configuration leans on: certificate and key, 2FA, and the flags beside it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use super::flags::{UNMARKED, UNMARKED_FIX};
use crate::cli::{DaemonArgs, Exit};
use crate::config::{ExecHook, Problem, Settings, Severity, has_good_keys};
use crate::service::daemon::{self, DaemonError};
use crate::service::outside;
use crate::service::two_factor::{self, TwoFactorError};
use crate::sys::{clock, files};

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
    out.extend(shared_state(settings, args));
    out.extend(settings.notify.exec.iter().filter_map(|hook| absent(hook, args)));
    out.extend(over(settings, clock::now().wall, args));
    out
}

/// A folder in which others could put an old state file in the place of the new one, or something in its way.
fn shared_state(settings: &Settings, args: &DaemonArgs) -> Option<Problem> {
    let folder = settings.global.state_file.as_deref()?.parent().filter(|folder| files::is_shared(folder))?;
    let message = format!(
        "others can write to {}: they can keep grants from being kept, and perhaps bring back what was taken back",
        folder.display()
    );
    let fix = "name a file in a folder of the daemon's own, such as /var/lib/knock-agent".to_owned();
    Some(Problem { fix: Some(fix), ..problem(args, Severity::Warning, "global.state_file", message) })
}

/// A program that is to be told and is not there.
fn absent(hook: &ExecHook, args: &DaemonArgs) -> Option<Problem> {
    let program = hook.command.first().filter(|program| !files::exists(Path::new(program)))?;
    let message = format!("{program}: there is no such program, so that nobody is told by it");
    Some(problem(args, Severity::Warning, "global.notify.exec.command", message))
}

/// Each app for which no key is good any more.
fn over(settings: &Settings, now: SystemTime, args: &DaemonArgs) -> Vec<Problem> {
    let sequences = settings.sequences.iter().filter_map(|sequence| sequence.app);
    let clients =
        settings.time_sequence.iter().flat_map(|timed| &timed.clients).flat_map(|client| &client.apps);
    let knocked: BTreeSet<usize> = sequences.chain(clients.copied()).collect();
    let by_keys = settings.apps.iter().enumerate().filter(|(at, _)| !knocked.contains(at));
    let over = by_keys.filter(|(_, app)| {
        has_good_keys(app, &settings.users, None) && !has_good_keys(app, &settings.users, Some(now))
    });
    over.map(|(_, app)| {
        let message = "every key for this app has expired: it stays closed".to_owned();
        problem(args, Severity::Warning, app.name.as_str(), message)
    })
    .collect()
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
                    | TwoFactorError::Foreign { .. }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Verb};
    use crate::config::{Alone, parse};

    #[test]
    fn a_program_that_is_not_there_is_warned_of() {
        let Ok(Cli { verb: Verb::CheckConfig(args) }) = Cli::try_parse_from(["knock-agent", "check-config"])
        else {
            panic!("check-config")
        };
        let hook = |program: &str| ExecHook {
            command: vec![program.to_owned()],
            events: BTreeSet::new(),
            timeout: "1s".parse().unwrap(),
        };
        let told = absent(&hook("/nonexistent/program"), &args.daemon).unwrap();
        assert_eq!(told.severity, Severity::Warning);
        assert!(told.message.starts_with("/nonexistent/program: "), "{}", told.message);
        assert!(absent(&hook("/proc/self/exe"), &args.daemon).is_none());
    }

    #[test]
    fn an_app_is_open_to_whoever_has_keys_that_have_not_expired() {
        let global = "global: {interface_ext: eth0, http_post_path: /one-place, https_post_path: /two-place";
        let of_app = |ends: &str| format!("{{key: first-secret{ends}}}, access_key_https: other-secret");
        let (app, user, end) = (
            of_app(", expires: 2020-01-01"),
            "access_key_http: alice-key-1, access_key_https: alice-key-2",
            ", expires: 2020-01-01",
        );
        let second = |year: u64| SystemTime::UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_556_952);
        for (users, app, before, after) in [
            (String::new(), of_app(""), true, true),
            (String::new(), app.clone(), true, false),
            (format!(", users: {{alice: {{{user}}}}}"), app.clone(), true, true),
            (format!(", users: {{alice: {{{user}{end}}}}}"), app.clone(), true, false),
            (format!(", users: {{alice: {{{user}, disabled: true}}}}"), app, true, false),
        ] {
            let text =
                format!("{global}{users}}}\nssh: {{port: 22, duration: 1h, access_key_http: {app}}}\n");
            let settings = parse("x", &text, None, &Alone).unwrap_or_else(|e| panic!("{e}")).settings;
            let open = |now| has_good_keys(&settings.apps[0], &settings.users, now);
            assert_eq!(
                (open(None), open(Some(second(2019))), open(Some(second(2022)))),
                (true, before, after),
                "{text}"
            );
        }
    }
}
