//! `knock-agent health`.

use std::io::ErrorKind;
use std::num::NonZeroU16;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::backend::Firewall;
use crate::cli::load::{self, Exposure};
use crate::cli::operate::exit_of_backend;
use crate::cli::proxy_flags::Steps;
use crate::cli::{DaemonArgs, Exit, Printer, Tone, beside, installed};
use crate::config::{Behind, Settings, Severity};
use crate::service::control::{Reply, Request};
use crate::service::health::{Ailment, Part, of_certificate, of_rules};
use crate::service::on_disk::ON_DISK;
use crate::sys::clock;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The arguments of `health`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Give it the flags of `run`: --cert, chains of the host. Where no ports are said they are those of the daemon that answers. It changes nothing, and looks at what it can without the daemon.\n\nExit codes:\n  0 all is well\n  1 something is wrong: a line for each\n  69 the kernel cannot be asked   77 no permission   78 the configuration cannot be used\n\nExamples:\n  sudo knock-agent health --cert /etc/knock-agent/cert.pem\n  sudo knock-agent health --json"
)]
pub struct HealthArgs {
    /// What all verbs of the daemon have.
    #[command(flatten)]
    pub daemon: DaemonArgs,

    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// What was found, and what kept from looking.
#[derive(Default)]
struct Findings {
    ailments: Vec<Ailment>,
    exit: Option<Exit>,
}

impl Findings {
    fn add(&mut self, part: Part, message: impl Into<String>) {
        // One line each, whatever others have to say.
        let message = message.into().replace("\n  fix: ", "; fix: ");
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        self.ailments.push(Ailment { part, message });
    }

    /// Something could not be looked at. A missing permission is told before anything else: it may be why.
    fn blocked(&mut self, part: Part, message: impl Into<String>, exit: Exit) {
        self.add(part, message);
        if exit == Exit::NoPermission || self.exit.is_none() {
            self.exit = Some(exit);
        }
    }
}

/// Looks at everything and says what is wrong.
#[must_use]
pub fn run(args: HealthArgs) -> Exit {
    let mut findings = Findings::default();
    let heard = ask(&args.daemon);
    let by_flags = is_by_flags(&heard);
    kernel(&args.daemon, steps(&args.daemon, &heard), by_flags, &mut findings);
    if let Some(path) = &args.daemon.cert {
        findings.ailments.extend(of_certificate(path, clock::now().wall));
    }
    daemon(heard, &mut findings);
    let Findings { mut ailments, exit } = findings;
    ailments.sort();
    ailments.dedup();
    let healthy = ailments.is_empty();
    let mut out = Printer::stdout();
    if args.json {
        out.line(json!({"version": 1, "healthy": healthy, "problems": ailments}));
    } else if healthy {
        let ok = out.paint(Tone::Good, "ok");
        out.line(format!("{ok}: guarded, and all that lets people in answers"));
    } else {
        for Ailment { part, message } in &ailments {
            let part = out.paint(Tone::Bad, &part.to_string());
            out.line(format!("{part}: {message}"));
        }
    }
    out.finish(exit.unwrap_or(if healthy { Exit::Done } else { Exit::Found }))
}

/// What the daemon says of itself, or why it does not.
pub(super) type Heard = std::io::Result<Option<Reply>>;
/// Those of step 1 and step 2.
pub(super) type Ports = (NonZeroU16, NonZeroU16);

/// What the daemon says of itself.
pub(super) fn ask(args: &DaemonArgs) -> Heard {
    beside::ask(&args.file.runtime_dir, &Request::Health {}, Some(PATIENCE))
}

/// Which ports clients use, and whether a proxy has them: as the flags say; as the daemon does, where they say nothing.
fn steps(args: &DaemonArgs, heard: &Heard) -> (Ports, Option<Behind>) {
    steps_of_daemon(args, heard).unwrap_or_else(|| {
        if !args.says_ports() {
            installed::note(args, "health", &mut Printer::stderr());
        }
        (args.public_ports(), args.steps().behind)
    })
}

/// The same as the daemon says, unless the flags say it.
pub(super) fn steps_of_daemon(args: &DaemonArgs, heard: &Heard) -> Option<(Ports, Option<Behind>)> {
    match heard {
        Ok(Some(Reply::Health { ports: Some(ports), behind, .. })) if !args.says_ports() => {
            Some((*ports, behind.clone()))
        }
        Ok(_) | Err(_) => None,
    }
}

/// Whether flags stand for a file of the daemon's (`run --sequence`).
pub(super) fn is_by_flags(heard: &Heard) -> bool {
    matches!(heard, Ok(Some(Reply::Health { by_flags: true, .. })))
}

/// The rules in the kernel, as far as the configuration says what they should be; there is none where flags stand for it.
fn kernel(
    args: &DaemonArgs,
    (ports, behind): (Ports, Option<Behind>),
    by_flags: bool,
    findings: &mut Findings,
) {
    let steps = Steps::new(ports, behind);
    let read = || load::read(&args.file.config, Some(&steps), Exposure::Warn);
    let mut first: Option<Settings> = match (!by_flags).then(read) {
        None => None,
        Some(Ok(checked)) => Some(checked.settings),
        Some(Err(refused)) => {
            // Not what is only warned of, which would hide why it is refused.
            let mut errors = refused.problems.list.iter().filter(|one| one.severity == Severity::Error);
            let first = errors.next().map(ToString::to_string).unwrap_or_default();
            let count = refused.problems.errors() + refused.problems.more;
            findings.blocked(
                Part::Configuration,
                if count == 1 { first } else { format!("{count} problems, the first: {first}") },
                refused.exit,
            );
            None
        }
    };
    let chains =
        first.as_ref().map(|settings| args.host_chains(settings.global.mark, &mut Printer::stderr()));
    let Ok(chains) = chains.transpose() else {
        findings.blocked(
            Part::Configuration,
            "the host's chains cannot accept a mark that is not set",
            Exit::BadConfig,
        );
        return;
    };
    let mut again = first.is_some();
    // Read anew for a second look, as rules may change with time.
    let settings = || {
        first.take().or_else(|| std::mem::take(&mut again).then(|| read().ok()).flatten().map(|c| c.settings))
    };
    let looked = Firewall::open(args.firewall_choice())
        .and_then(|mut firewall| of_rules(&mut firewall, settings, ports, &chains.unwrap_or_default()));
    match looked {
        Ok(found) => found.into_iter().for_each(|one| findings.add(one.part, one.message)),
        Err(error) => findings.blocked(Part::Kernel, error.to_string(), exit_of_backend(&error)),
    }
}

/// What the daemon says of itself.
fn daemon(heard: Heard, findings: &mut Findings) {
    match heard {
        Ok(Some(Reply::Health { problems, .. })) => {
            // What is wrong with the file is told once.
            let is_told = findings.ailments.iter().any(|one| one.part == Part::Configuration);
            let again = |one: &Ailment| one.part == Part::Configuration && one.message.starts_with(ON_DISK);
            let new = problems.into_iter().filter(|one| !(is_told && again(one)));
            new.for_each(|one| findings.add(one.part, one.message));
        }
        Ok(Some(Reply::Failed { message, .. })) => findings.add(Part::Daemon, message),
        Ok(Some(_)) => findings.add(Part::Daemon, "it answers something else: it is of another release"),
        Ok(None) => findings.add(Part::Daemon, "no daemon runs: nobody can knock"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            findings.blocked(Part::Daemon, "no permission to ask the daemon", Exit::NoPermission);
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            findings.add(Part::Daemon, format!("it does not answer within {} s", PATIENCE.as_secs()));
        }
        Err(error) => findings.add(Part::Daemon, format!("it does not answer: {error}")),
    }
}
