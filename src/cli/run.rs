//! `knock-agent run`.

use clap::Args;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cli::consent::{Wishes, consent};
use crate::cli::load::{self, Exposure};
use crate::cli::operate::{exit_of, exit_of_backend};
use crate::cli::outside::WithCodes;
use crate::cli::quick::{self, QuickArgs};
use crate::cli::{DaemonArgs, Exit, Printer};
use crate::config::{self, Problem, ProxyStep2, Settings, Severity};
use crate::service::daemon::{self, Daemon, DaemonError, TlsFiles};
use crate::service::launcher::Launcher;
use crate::service::on_disk::InForce;
use crate::service::record::Record;
use crate::service::source::Source;
use crate::service::trial::Watcher;
use crate::service::user_files::UserFiles;
use crate::sys::{process, resident, signals};
use crate::units::{Lifetime, LogEvent};

/// The arguments of `run`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Needs the capabilities CAP_NET_ADMIN and, for ports below 1024, CAP_NET_BIND_SERVICE.\nSIGHUP has it read the configuration and the certificate again; if they are wrong, those of before stay in force. The flags stay as they are.\nSIGTERM stops the daemon; the guard and what is granted stay.\n\nOn a terminal it asks before it guards a port that somebody is connected to from outside; without one it goes on and says so in the log. Such connections live on (adopt_established).\n--confirm: also where the daemon is killed, everything is put back, by a second process that does nothing else; only if both are killed (kill -9 of all, a crash of the host) nothing is. If that process alone is killed, the daemon puts everything back, and `health` says so. Exit code 1: it was put back.\n\nExamples:\n  sudo knock-agent run --sequence tcp/1234,tcp/5678,tcp/9012 --protected-port 2222 --window 10\n  sudo knock-agent run -c config.yaml --http-port 80 --https-port 443 --cert cert.pem --key key.pem"
)]
pub struct RunArgs {
    /// What all verbs of the daemon have.
    #[command(flatten)]
    pub daemon: DaemonArgs,

    /// What stands for a configuration.
    #[command(flatten)]
    pub quick: QuickArgs,

    /// Show the rules and ask before anything is changed; needs a terminal
    #[arg(long)]
    pub ask: bool,

    /// Do not ask about connections that are open to ports that will be guarded
    #[arg(short, long, conflicts_with = "ask")]
    pub yes: bool,

    /// Put everything back as it was unless `knock-agent confirm` is said within this time (with nftables only)
    #[arg(long, value_name = "TIME")]
    pub confirm: Option<Lifetime>,
}

/// Guards until it is told to stop.
#[must_use]
pub fn run(args: RunArgs) -> Exit {
    process::pass_nothing_on();
    let mut err = Printer::stderr();
    // Whoever asks for a reload before there is one to ask gets it later, instead of ending the start.
    if let Err(errno) = signals::begin_afresh().and_then(|()| signals::hold_hangup()) {
        err.line(format!("error: signals cannot be held back: {errno}"));
        return err.finish(Exit::Bug);
    }
    // Before privileges that come with the file of the program can no longer be had.
    let watcher = match args.confirm.map(|_| Watcher::start()).transpose() {
        Ok(watcher) => watcher,
        Err(error) => {
            err.line(format!("error: {error}"));
            return err.finish(Exit::Unavailable);
        }
    };
    // Its ports are told from strangers' by it, also where the program's file is called otherwise.
    process::take_name(c"knock-agent");
    resident::keep_large_blocks_apart();
    let locked = process::lock_memory();
    let launcher = match Launcher::start(&args.daemon.log_style().to_string()) {
        Ok(launcher) => Arc::new(launcher),
        Err(error) => {
            err.line(format!("error: {}", DaemonError::Launcher(error)));
            return err.finish(Exit::Unavailable);
        }
    };
    // Before the first key is in memory.
    if let Err(errno) = process::harden(args.daemon.use_sudo) {
        err.line(format!("error: the process cannot be protected: {errno}"));
        return err.finish(Exit::Bug);
    }
    let on_trial = watcher.is_some();
    let style = args.daemon.log_style();
    if style.is_json() {
        style.begin();
        err = Printer::log();
    }
    let daemon = match prepare(args, &mut err) {
        Ok(daemon) => daemon,
        Err(exit) => return err.finish(exit),
    };
    if !locked {
        tracing::info!(
            "memory may be swapped out: `LimitMEMLOCK=infinity` in the unit keeps keys from the disk"
        );
    }
    match daemon::run(daemon, launcher, watcher) {
        Ok(()) => err.finish(Exit::Done),
        Err(error) => {
            if style.has_fields() {
                Record { reason: Some(error.to_string()), ..Record::of(LogEvent::Failed) }
                    .log("the daemon ends");
            }
            if style.is_json() {
                return err.finish(exit_code(&error));
            }
            err.line(format!("error: {error}"));
            if let Some(advice) = advice(&error) {
                err.line(format!("  fix: {advice}"));
            }
            if matches!(error, DaemonError::Listen { .. } | DaemonError::Front(_) | DaemonError::Died(_))
                && !on_trial
            {
                err.line("  note: the guard is in place and stays: guarded ports are closed (`knock-agent teardown` removes it)");
            }
            err.finish(exit_code(&error))
        }
    }
}

fn prepare(args: RunArgs, err: &mut Printer) -> Result<Daemon, Exit> {
    let wishes = Wishes { ask: args.ask, yes: args.yes };
    let confirm = args.confirm.map(Lifetime::as_duration);
    let (args, quick) = (args.daemon, args.quick);
    args.vet(err);
    args.log_style().begin();
    let exposure = Exposure::of_strict(args.strict);
    let steps = args.steps();
    let quick = quick.text(err)?;
    let checked = match &quick {
        Some(text) => quick::load(text, err)?,
        None => load::load_with(&args.file.config, Some(&steps), exposure, &WithCodes, err)?,
    };
    let in_force = InForce::of(&checked);
    let settings = checked.settings;
    // Before anybody is asked, which may take long: whoever is disabled meanwhile is.
    let users = UserFiles::new(&settings);
    consent(wishes, &args, &settings, err)?;
    let firewall = args.firewall_choice();
    let (http_port, https_port) = args.public_ports();
    let host = args.host_chains(settings.global.mark, err)?;
    let tls = tls_files(args.cert, args.key, &settings, err)?;
    let (path, with_tls, steps_on) = (args.file.config.clone(), tls.is_some(), settings.global.steps);
    let metrics = settings.metrics.clone();
    let file = quick.is_none().then(|| path.clone());
    let name = path.display().to_string();
    let users_only = move |settings: &Settings| config::users_anew(&name, settings, &WithCodes);
    let all = move || {
        if let Some(text) = &quick {
            return quick::read(text);
        }
        let read = load::read_with(&path, Some(&steps), exposure, &WithCodes);
        let mut checked = read.map_err(|refused| refused.problems)?;
        if checked.settings.metrics != metrics {
            let later = load::one_problem(&path, "global.metrics", OTHER_METRICS, "start it again").list;
            let as_warnings = later.into_iter().map(|one| Problem { severity: Severity::Warning, ..one });
            checked.warnings.extend(as_warnings);
        }
        if checked.settings.global.steps != steps_on {
            return Err(load::one_problem(&path, "global.steps", OTHER_STEPS, "start it again"));
        }
        match needs_certificate(&checked.settings) && !with_tls {
            true => Err(load::one_problem(&path, "global.proxy_step2", NO_CERTIFICATE, RESTART_WITH_ONE)),
            false => Ok(checked),
        }
    };
    let source = Source::new(file, all, users_only);
    Ok(Daemon {
        host,
        tls,
        firewall,
        settings,
        source,
        in_force,
        users,
        http_port,
        https_port,
        cleanup: args.service_rule_cleanup_on_shutdown,
        runtime_dir: args.file.runtime_dir,
        state_dir: args.state_dir,
        confirm,
    })
}

const OTHER_METRICS: &str = "a running daemon goes on showing figures where it did from its start";
const OTHER_STEPS: &str = "a running daemon does not begin or cease to listen";
const NO_CERTIFICATE: &str = "step 2 would be HTTPS, and the daemon was started without a certificate";
const RESTART_WITH_ONE: &str = "start it again with --cert and --key";

/// Whether step 2 is HTTPS: always, unless TLS ends at a proxy.
fn needs_certificate(settings: &Settings) -> bool {
    settings.global.steps
        && settings.global.proxy.as_ref().is_none_or(|proxy| proxy.step2 == ProxyStep2::Https)
}

/// The pair of files, which only step 2 in plain HTTP does without.
fn tls_files(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    settings: &Settings,
    err: &mut Printer,
) -> Result<Option<TlsFiles>, Exit> {
    let missing = match (certificate, key) {
        (Some(certificate), Some(key)) => return Ok(Some(TlsFiles { certificate, key })),
        (None, None) if !needs_certificate(settings) => return Ok(None),
        (None, _) => "--cert",
        (_, None) => "--key",
    };
    err.line(format!("error: {missing} FILE is missing: step 2 is HTTPS and needs a certificate"));
    err.line("  fix: give --cert and --key; `knock-agent cert` makes a self-signed pair");
    Err(Exit::BadConfig)
}

fn exit_code(error: &DaemonError) -> Exit {
    let of_io = |source: &std::io::Error| match source.kind() {
        ErrorKind::PermissionDenied => Exit::NoPermission,
        _ => Exit::Io,
    };
    match error {
        DaemonError::AlreadyRuns(_) | DaemonError::AlreadyGuards(_) => Exit::Unavailable,
        DaemonError::CertificateFile { source, .. } => match source.kind() {
            ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::BadConfig,
        },
        DaemonError::Certificate { .. } | DaemonError::TwoFactor(_) | DaemonError::Outside(_) => {
            Exit::BadConfig
        }
        DaemonError::Backend(error) => exit_of_backend(error),
        DaemonError::Operation(error) => exit_of(error.failure()),
        DaemonError::Listen { error } => of_io(&error.source),
        DaemonError::Trial(_) => Exit::Unavailable,
        DaemonError::NotConfirmed(_) | DaemonError::EndedUnconfirmed => Exit::Found,
        DaemonError::Runtime { source, .. } | DaemonError::Process(source) => of_io(source),
        DaemonError::Launcher(_) | DaemonError::Front(_) | DaemonError::Unguarded(_) => Exit::Unavailable,
        DaemonError::Seal(_) | DaemonError::Died(_) => Exit::Bug,
    }
}

fn advice(error: &DaemonError) -> Option<&'static str> {
    match error {
        DaemonError::Listen { error } if error.source.kind() == ErrorKind::PermissionDenied => Some(
            "a port below 1024 takes root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)",
        ),
        DaemonError::Runtime { source, .. } if source.kind() == ErrorKind::PermissionDenied => Some(
            "let the user that runs knock-agent own the directory and the files in it (systemd: RuntimeDirectory=knock-agent); a `lock` there of another user's can be removed while no daemon runs",
        ),
        DaemonError::CertificateFile { source, .. } if source.kind() == ErrorKind::NotFound => {
            Some("`knock-agent cert` makes a self-signed certificate and key")
        }
        DaemonError::Unguarded(_) => {
            Some("`knock-agent guard`, or start it again; and stop what changes its rules")
        }
        _ => None,
    }
}
