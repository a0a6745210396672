//! `knock-agent status`.

mod around;
mod health;
mod table;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use crate::backend::{BackendError, Firewall};
use crate::cli::load::{self, Exposure};
use crate::cli::operate::{Heard, ask_daemon, exit_of, exit_of_backend};
use crate::cli::{ConfigArg, Exit, Printer};
use crate::service::control::{Failure, Reply, Request};
use crate::service::standing::traffic;
use crate::service::status::{Row, Status, status};
use crate::sys::{signals, terminal};

/// The arguments of `status`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Works without the daemon: the kernel knows. Times are UTC.\n\nExamples:\n  sudo knock-agent status\n  sudo knock-agent status --watch\n  sudo knock-agent status --json | jq '.grants[] | select(.app == \"ssh\")'"
)]
pub struct StatusArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,

    /// Show it again every so many seconds, until Ctrl-C
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub watch: Option<u32>,

    /// List every grant, however many there are
    #[arg(long)]
    pub all: bool,
}

/// To a terminal so many grants are listed, as a person reads them; else so many.
const LISTED: usize = 100;
const LISTED_TO_PROGRAMS: usize = 1_000;
/// What changes while it is looked at fits a screen: so many where it is not known how large that is.
const LISTED_LIVE: usize = 20;
/// A live view asks for no more than a part of the time.
const IDLE: u32 = 4;

/// Shows who is let in.
#[must_use]
pub fn run(args: StatusArgs) -> Exit {
    let Some(seconds) = args.watch else {
        let mut out = Printer::stdout();
        let listed = if out.is_terminal() { LISTED } else { LISTED_TO_PROGRAMS };
        let exit = show(&args, listed, &mut out);
        return out.finish(exit);
    };
    match signals::endings() {
        Ok(endings) => watch(&args, Duration::from_secs(u64::from(seconds)), &endings),
        Err(error) => {
            let mut err = Printer::stderr();
            err.line(format!("error: Ctrl-C cannot be heard: {error}"));
            err.finish(Exit::Bug)
        }
    }
}

/// Shows it again and again: on a terminal in place of what was there.
fn watch(args: &StatusArgs, every: Duration, endings: &Receiver<()>) -> Exit {
    let mut out = Printer::stdout();
    loop {
        let begun = Instant::now();
        // Asked each time: it may be made larger or smaller.
        let size = terminal::size();
        let draws = out.is_terminal() && !args.json;
        if draws {
            out.begin_picture();
        }
        if !args.json {
            let time = table::moment(SystemTime::now(), 0.0);
            out.line(format!("{time} UTC, every {} s; Ctrl-C ends", every.as_secs()));
        }
        let listed = match size {
            _ if !out.is_terminal() => LISTED,
            Some((rows, _)) => usize::from(rows).clamp(1, LISTED),
            None => LISTED_LIVE,
        };
        let exit = show(args, listed, &mut out);
        if draws {
            out.show_picture(size);
        }
        // Who may not ask, may not a moment later either; what does not answer may.
        let over = !out.has_reader() || !matches!(exit, Exit::Done | Exit::Unavailable);
        let pause = every.max(begun.elapsed() * IDLE);
        if over {
            return out.finish(exit);
        }
        if !args.json && !draws {
            out.line("");
        }
        if endings.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return out.finish(Exit::Done);
        }
    }
}

fn show(args: &StatusArgs, listed: usize, out: &mut Printer) -> Exit {
    let mut err = Printer::stderr();
    let most = if args.all || args.json { None } else { Some(listed) };
    let mut found = match find(&args.file, most, &mut err) {
        Ok(found) => found,
        Err(exit) => return err.finish(exit),
    };
    let note = around::look(&args.file, &mut found);
    if args.json {
        match serde_json::to_string(&found) {
            Ok(text) => out.line(text),
            Err(_) => return err.finish(Exit::Bug),
        }
    } else {
        let listed = if args.all { usize::MAX } else { listed };
        health::print(&found, out);
        note.iter().for_each(|note| out.line(format!("note: {note}")));
        out.line("");
        table::print(&found, listed, SystemTime::now(), out);
        table::print_traffic(&found, out);
        table::print_strangers(&found, out);
    }
    err.finish(Exit::Done)
}

/// Shows the rows that are wanted and nothing else; these words where there are none.
pub(super) fn show_grants(file: &ConfigArg, wanted: impl Fn(&Row) -> bool, none: &str) -> Exit {
    let mut err = Printer::stderr();
    let mut found = match find(file, None, &mut err) {
        Ok(found) => found,
        Err(exit) => return err.finish(exit),
    };
    found.grants.retain(wanted);
    let mut out = Printer::stdout();
    if found.grants.is_empty() {
        out.line(none);
    } else {
        table::print(&found, usize::MAX, SystemTime::now(), &mut out);
    }
    out.finish(err.finish(Exit::Done))
}

/// What the daemon says, and without one the kernel; the exit code, after the reason was printed, where neither does. With
/// a number, so many of those that are let in do, the newest.
fn find(file: &ConfigArg, most: Option<usize>, err: &mut Printer) -> Result<Status, Exit> {
    let all = Request::Status {};
    let overview = most.and_then(|most| u32::try_from(most).ok()).map(|most| Request::Overview { most });
    // To list them all may take minutes. Whether there is somebody who answers shows sooner, by what costs nothing.
    let first = overview.unwrap_or(Request::Explain { address: Ipv4Addr::UNSPECIFIED.into() });
    let mut heard = ask_daemon(file, &first, err)?;
    // A daemon of before may not know that request.
    let unknown = matches!(heard, Heard::Reply(Reply::Failed { failure: Failure::Request, .. }));
    if unknown || matches!(heard, Heard::Reply(Reply::Explained { .. })) {
        heard = ask_daemon(file, &all, err)?;
    }
    let (found, deaf) = match heard {
        Heard::Reply(Reply::Status { status }) => (Some(status), None),
        Heard::Reply(Reply::Failed { failure, message }) => {
            err.line(format!("error: {message}"));
            return Err(exit_of(failure));
        }
        Heard::Reply(
            Reply::Done { .. } | Reply::Health { .. } | Reply::Figures(_) | Reply::Explained { .. },
        ) => return Err(Exit::Bug),
        Heard::Nobody => (without_daemon(file, err)?, None),
        Heard::Deaf(why) => (without_daemon(file, err)?, Some(why)),
    };
    match found {
        Some(status) => Ok(Status { unreachable: deaf, ..status }),
        None => {
            let next = deaf.map(|deaf| format!("the daemon does not answer: {deaf}"));
            let next = next.as_deref().unwrap_or("start knock-agent first");
            err.line(format!("error: nothing is guarded here: no rules of knock-agent are in force; {next}"));
            Err(Exit::Unavailable)
        }
    }
}

fn without_daemon(file: &ConfigArg, err: &mut Printer) -> Result<Option<Status>, Exit> {
    from_kernel(file).map_err(|error| {
        err.line(format!("error: {error}"));
        exit_of_backend(&error)
    })
}

/// The kernel alone tells; the configuration only lends the names, where it can be read.
fn from_kernel(file: &ConfigArg) -> Result<Option<Status>, BackendError> {
    let settings = load::read(&file.config, None, Exposure::Warn).map(|checked| checked.settings).ok();
    let prefix = settings.as_ref().map_or(128, |settings| settings.global.ipv6_prefix);
    let apps = settings.map(|settings| settings.apps).unwrap_or_default();
    let names: BTreeMap<String, String> =
        apps.into_iter().map(|app| (app.slug, app.name.to_string())).collect();
    let mut firewall = Firewall::in_place()?;
    let live = firewall.read()?;
    let limits = firewall.limits();
    let counted = firewall.counters()?;
    let Some(live) = live else { return Ok(None) };
    Ok(Some(Status {
        limits,
        traffic_unknown: counted.is_none(),
        traffic: traffic(&counted.unwrap_or_default(), &names),
        switched_off: live.flagged,
        rules_missing: !firewall.closes(&live)?,
        ..status(firewall.name(), &live, &names, prefix, None)
    }))
}
