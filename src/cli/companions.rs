//! What a configuration leans on: certificate and key, 2FA, and the flags beside it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use super::flags::{UNMARKED, UNMARKED_FIX};
use crate::cli::FirewallType;
use crate::cli::load::exposed;
use crate::cli::{DaemonArgs, Exit};
use crate::config::{ExecHook, Problem, Settings, Severity, has_good_keys};
use crate::ruleset::iptables::plan::{Impossible, Matcher, plan};
use crate::ruleset::layout::Options;
use crate::service::daemon::{self, DaemonError};
use crate::service::outside;
use crate::service::two_factor::{self, TwoFactorError};
use crate::sys::files::Ownership;
use crate::sys::{clock, files, users};

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
    out.extend(open_to_others(settings, args));
    out.extend(settings.notify.exec.iter().filter_map(|hook| absent(hook, args)));
    out.extend(over(settings, clock::now().wall, args));
    out.extend(beyond_iptables(settings, args));
    out
}

/// What iptables cannot do, where that is the firewall which was named.
fn beyond_iptables(settings: &Settings, args: &DaemonArgs) -> Option<Problem> {
    if args.kind() != FirewallType::Iptables {
        return None;
    }
    let (http_port, https_port) = args.public_ports();
    let options = Options { http_port, https_port, inner_header: true, log: true };
    let error = plan(settings, options, Matcher::Bpf, args.keeping()).err()?;
    Some(impossible(&error, args))
}

/// The same, once it is known.
pub(super) fn impossible(error: &Impossible, args: &DaemonArgs) -> Problem {
    problem(args, Severity::Error, "", error.to_string())
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

/// Folders in which others could put files or take some away, and a key of the certificate that others can read or change. Modes
/// alone keep no daemon from starting.
fn open_to_others(settings: &Settings, args: &DaemonArgs) -> Vec<Problem> {
    let global = &settings.global;
    let beside = args.file.config.parent().filter(|folder| *folder != Path::new(""));
    let config = beside.unwrap_or(Path::new("."));
    let timed = settings.time_sequence.as_ref().map(|timed| timed.folder.as_path());
    let folders = [
        ("", Some(config), "put another configuration in the place of this one"),
        (
            "global.users_folder",
            global.users_folder.as_deref(),
            "take users away, or bring back what they were",
        ),
        (
            "global.2fa_config_folder",
            global.two_factor_folder.as_deref(),
            "take files away, so that their keys need no code",
        ),
        ("global.time_sequence.clients", timed, "take clients away, or bring back what they were"),
    ];
    let folders = folders.into_iter().filter_map(|(key, folder, what)| {
        let folder = folder?;
        let fix = fix_of_folder(folder)?;
        let message = format!("others can write to {}: they can {what}", folder.display());
        Some(Problem { fix: Some(fix), ..problem(args, Severity::Warning, key, message) })
    });
    let keys = args.key.iter().flat_map(|key| {
        let about = files::ownership(key);
        let found = about.map(|about| exposed(about.mode, users::may_own_secrets(about.uid)));
        found.into_iter().flatten().map(|(message, fix)| {
            let path = key.display();
            let fix = Some(format!("{fix} {path}"));
            Problem { fix, ..problem(args, Severity::Warning, "", format!("{path}: {message}")) }
        })
    });
    folders.chain(keys).collect()
}

/// The command by which a folder is nobody else's any more, where it is.
fn fix_of_folder(folder: &Path) -> Option<String> {
    const STICKY: u32 = 0o1000;
    let Ownership { uid, mode } = files::ownership(folder).filter(|_| !files::is_read_only(folder))?;
    let is_foreign = !users::may_own_secrets(uid);
    // There, others cannot take files away, and their own are refused or told.
    let is_open = mode & 0o022 != 0 && mode & STICKY == 0;
    let fix = if is_foreign { "chown root" } else { "chmod go-w" };
    (is_foreign || is_open).then(|| format!("{fix} {}", folder.display()))
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
    let of_error = |error: &TwoFactorError| {
        let severity = match error {
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
    };
    match two_factor::load(settings) {
        Ok(found) => {
            let warnings =
                found.warnings.into_iter().map(|warning| problem(args, warned(args), key, warning));
            found.closed.iter().map(|(_, error)| of_error(error)).chain(warnings).collect()
        }
        Err(errors) => errors.iter().map(of_error).collect(),
    }
}

/// What somebody should look at is an error for whoever asked for strictness.
fn warned(args: &DaemonArgs) -> Severity {
    if args.strict { Severity::Error } else { Severity::Warning }
}

/// Which keys need codes by their files, where the configuration names a folder of them.
pub(super) fn codes(settings: &Settings) -> Option<String> {
    settings.global.two_factor_folder.as_ref()?;
    let found = two_factor::load(settings).ok()?;
    let unsure = match found.unsure {
        0 => None,
        1 => Some("1 file that may be that of a key stored as argon2id".to_owned()),
        many => Some(format!("{many} files that may be those of keys stored as argon2id")),
    };
    let whose: Vec<String> = found.whose.into_iter().chain(unsure).collect();
    let whose = if whose.is_empty() { "nobody".to_owned() } else { whose.join(", ") };
    Some(format!("codes by the files of 2fa_config_folder: {whose}"))
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
    fn a_folder_or_the_key_of_the_certificate_that_others_can_get_at_is_warned_of() {
        let root = std::env::temp_dir().join(format!("ka-open-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for folder in ["", "2fa", "users"] {
            files::make_directory(&root.join(folder), 0o755).unwrap();
        }
        files::create(&root.join("key.pem"), 0o640, b"").unwrap();
        let path = |name: &str| root.join(name).display().to_string();
        let words = ["knock-agent", "check-config", "-c", &path("config.yaml"), "--key", &path("key.pem")];
        let Ok(Cli { verb: Verb::CheckConfig(args) }) = Cli::try_parse_from(words) else {
            panic!("{words:?}")
        };
        let text = format!(
            "global: {{interface_ext: eth0, http_post_path: /one-place, https_post_path: /two-place, users_folder: {}, 2fa_config_folder: {}}}\nssh: {{port: 22, duration: 1h, access_key_http: first-secret, access_key_https: other-secret}}\n",
            path("users"),
            path("2fa"),
        );
        struct Nobody;
        impl crate::config::Outside for Nobody {
            fn secret(&self, _: crate::config::SecretFrom<'_>) -> Result<crate::units::Secret, String> {
                Err("none".to_owned())
            }
            fn users(&self, _: &Path) -> Result<Vec<crate::config::UserFile>, String> {
                Ok(Vec::new())
            }
        }
        let settings = parse("x", &text, None, &Nobody).unwrap_or_else(|e| panic!("{e}")).settings;
        let told = || open_to_others(&settings, &args.daemon);
        assert!(told().is_empty(), "{:?}", told());
        for (name, key, open, shut) in [
            ("", "", 0o777, 0o755),
            ("users", "global.users_folder", 0o775, 0o750),
            ("2fa", "global.2fa_config_folder", 0o757, 0o1777),
            ("key.pem", "", 0o644, 0o600),
        ] {
            files::set_mode(&root.join(name), open).unwrap();
            let [one] = told().try_into().unwrap();
            assert_eq!((one.severity, one.path.as_str()), (Severity::Warning, key));
            assert!(one.message.contains(path(name).trim_end_matches('/')), "{}", one.message);
            files::set_mode(&root.join(name), shut).unwrap();
            assert!(told().is_empty(), "{name}");
        }
        std::fs::remove_dir_all(&root).unwrap();
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
