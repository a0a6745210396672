//! `knock-agent explain`.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::load::{self, Exposure, Refused};
use crate::cli::operate::exit_of_backend;
use crate::cli::proxy_flags::Steps;
use crate::cli::{DaemonArgs, Exit, Printer, Tone, beside, health};
use crate::config::{App, Settings, Severity};
use crate::ruleset::explain::{Answer, Cause, Daemon, Finding, Outcome, Step, Verdict, hook_word};
use crate::ruleset::layout::Options;
use crate::service::control::{Failure, Reply, Request};
use crate::service::explain::{Asked, Wanted, explain};
use crate::service::recovered;
use crate::sys::interfaces;
use crate::units::{AppName, Protocol};

/// The exit code where it cannot be told.
const UNKNOWN: u8 = 3;
/// How long a daemon may take to answer, before it is taken for one that hangs.
const PATIENCE: Duration = Duration::from_secs(8);

/// The arguments of `explain`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  sudo knock-agent explain 203.0.113.7 ssh\n  sudo knock-agent explain 2001:db8::7\n  sudo knock-agent explain 203.0.113.7 tcp/8080 --json\n\nExit codes: 0 let through, 1 not let through, 3 it cannot be told; others as for all verbs.\nWorks without the daemon, which only knows more of what has been."
)]
pub struct ExplainArgs {
    /// What all verbs of the daemon have.
    #[command(flatten)]
    pub daemon: DaemonArgs,

    /// The client's address, as this host sees it
    #[arg(value_name = "ADDR")]
    pub address: IpAddr,

    /// What it wants to reach: an app, or a port such as 22 or udp/1194 [default: every app]
    #[arg(value_name = "APP")]
    pub app: Option<String>,

    /// The interface by which it comes in [default: as the route to it says]
    #[arg(long, value_name = "IFACE")]
    pub by: Option<String>,

    /// The address of this host that it turns to [default: one of that interface]
    #[arg(long, value_name = "ADDR")]
    pub to: Option<IpAddr>,

    /// Do not ask a LAN host for a connection
    #[arg(long)]
    pub no_probe: bool,

    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Explains why an address is or is not let through.
#[must_use]
pub fn run(args: ExplainArgs) -> Exit {
    let mut err = Printer::stderr();
    let exit = match answer(&args, &mut err) {
        Ok(exit) | Err(exit) => exit,
    };
    err.finish(exit)
}

fn answer(args: &ExplainArgs, err: &mut Printer) -> Result<Exit, Exit> {
    // What the daemon was started with counts, where the command line is silent.
    let heard = health::ask(&args.daemon);
    let said = health::steps_of_daemon(&args.daemon, &heard);
    let (ports, behind) = said.unwrap_or_else(|| (args.daemon.public_ports(), args.daemon.steps().behind));
    let (settings, trouble) = settings(args, &Steps::new(ports, behind), health::is_by_flags(&heard), err)?;
    let what = match wanted(args.app.as_deref(), &settings) {
        Some(what) => what,
        None => return unknown_app(args, &settings, trouble, err),
    };
    if let Some((what, fix)) = nowhere(args) {
        err.line(format!("error: {what}"));
        err.line(format!("  fix: {fix}"));
        return Err(Exit::Usage);
    }
    let (http_port, https_port) = ports;
    let options = Options { http_port, https_port, inner_header: true, log: true };
    let client = args.address.to_canonical();
    let mut daemon = ask(args, client);
    if let (Some(_), Daemon::Says(recalled)) = (&trouble, &mut daemon) {
        // It is told what is wrong with the file.
        recalled.newer = None;
    }
    let asked = Asked { client, what, by: args.by.clone(), to: args.to, probe: !args.no_probe };
    let mut answers = explain(&settings, options, daemon, &asked).map_err(|error| {
        err.line(format!("error: {error}"));
        exit_of_backend(&error)
    })?;
    if let Some(trouble) = trouble {
        if answers.is_empty() {
            answers.push(untold(args, &trouble));
        }
        answers.iter_mut().for_each(|answer| answer.also.push(trouble.clone()));
    }
    Ok(show(args, &answers))
}

/// What this host has not: an interface, or an address; or no client has.
fn nowhere(args: &ExplainArgs) -> Option<(String, &'static str)> {
    let client = args.address.to_canonical();
    let broadcast = matches!(client, IpAddr::V4(v4) if v4.is_broadcast());
    if client.is_multicast() || client.is_unspecified() || broadcast {
        return Some((
            format!("{client} is no address that a client can have"),
            "name the client's address as this host sees it",
        ));
    }
    let states = interfaces::states().ok()?;
    let absent = |name: &&String| !states.iter().any(|state| state.name == **name);
    if let Some(by) = args.by.as_ref().filter(absent) {
        return Some((format!("--by {by}: this host has no interface of that name"), "ip -brief link"));
    }
    let to = args.to?.to_canonical();
    if to.is_ipv4() != args.address.to_canonical().is_ipv4() {
        return Some((
            format!("--to {to}: the client {} is of the other IP version", args.address),
            "name an address of the client's IP version",
        ));
    }
    let is_own = states.iter().flat_map(|state| &state.addresses).any(|(addr, _)| *addr == to);
    (!is_own).then(|| (format!("--to {to}: this host has no such address"), "ip -brief address"))
}

/// The settings of the file or, where flags stand for it or it cannot be used, those that the rules in force tell; and what is wrong
/// with the file.
fn settings(
    args: &ExplainArgs,
    steps: &Steps,
    by_flags: bool,
    err: &mut Printer,
) -> Result<(Settings, Option<Finding>), Exit> {
    if by_flags && let Ok(Some(settings)) = recovered::settings() {
        return Ok((settings, None));
    }
    // Its warnings are for other verbs.
    match load::read(&args.daemon.file.config, Some(steps), Exposure::Warn) {
        Ok(checked) => Ok((checked.settings, None)),
        Err(refused) => {
            load::print_refused(&refused, err);
            Ok((from_the_kernel(&refused, err)?, Some(trouble(&refused))))
        }
    }
}

/// The settings as far as the rules in force tell them.
fn from_the_kernel(refused: &Refused, err: &mut Printer) -> Result<Settings, Exit> {
    match recovered::settings() {
        Ok(settings) => settings.ok_or(refused.exit),
        Err(error) => {
            err.line(format!("error: {error}"));
            Err(exit_of_backend(&error))
        }
    }
}

/// That the configuration cannot be used, and where.
fn trouble(refused: &Refused) -> Finding {
    let errors = refused.problems.list.iter().filter(|problem| problem.severity == Severity::Error);
    let first = errors.map(|problem| problem.to_string()).next().unwrap_or_default();
    let first = first.lines().next().unwrap_or_default();
    Finding::unknown(
        Cause::BadConfiguration,
        format!("the configuration cannot be used, so that the rules in force alone tell this: {first}"),
    )
    .next("knock-agent check-config  # what is wrong with the file: a daemon that starts now refuses it")
}

/// The answer where neither the configuration nor rules say what an app is.
fn untold(args: &ExplainArgs, trouble: &Finding) -> Answer {
    let mut finding = trouble.clone();
    finding.message =
        "no rules of knock-agent are in force, and no configuration tells what they should guard".to_owned();
    finding = finding.next(format!("# or ask about a port: knock-agent explain {} tcp/22", args.address));
    let service = args.app.clone().unwrap_or_else(|| "every app".to_owned());
    Answer { app: args.app.clone(), service, finding, also: Vec::new(), steps: Vec::new() }
}

fn unknown_app(
    args: &ExplainArgs,
    settings: &Settings,
    trouble: Option<Finding>,
    err: &mut Printer,
) -> Result<Exit, Exit> {
    if let (Some(trouble), true) = (&trouble, settings.apps.is_empty()) {
        let mut answer = untold(args, trouble);
        answer.also.push(trouble.clone());
        return Ok(show(args, &[answer]));
    }
    let names: Vec<&str> = settings.apps.iter().map(|app| app.name.as_str()).collect();
    let place = if trouble.is_some() { "rules in force" } else { "configuration" };
    err.line(format!(
        "error: there is no app `{}` in the {place}, so nothing of that name is guarded or opened; the apps are: {}",
        args.app.as_deref().unwrap_or_default(),
        names.join(", ")
    ));
    err.line("  fix: name one of these, or a port such as tcp/22");
    Err(Exit::Usage)
}

fn show(args: &ExplainArgs, answers: &[Answer]) -> Exit {
    let client = args.address.to_canonical();
    let mut out = Printer::stdout();
    if args.json {
        out.line(as_json(client, answers));
    } else {
        for (index, answer) in answers.iter().enumerate() {
            if index > 0 {
                out.line("");
            }
            print(client, answer, &mut out);
        }
        if answers.is_empty() {
            out.line("the configuration has no apps: nothing is guarded");
        }
    }
    out.finish(exit_of(answers))
}

fn exit_of(answers: &[Answer]) -> Exit {
    match answers.iter().map(|answer| answer.finding.verdict).max() {
        Some(Verdict::Open) | None => Exit::Done,
        Some(Verdict::Closed) => Exit::Found,
        Some(Verdict::Unknown) => Exit::Other(UNKNOWN),
    }
}

/// What is asked about; none: an app that is not there.
fn wanted(text: Option<&str>, settings: &Settings) -> Option<Wanted> {
    let Some(text) = text else { return Some(Wanted::Everything) };
    let named = settings.apps.iter().find(|app| app.name.as_str() == text);
    // Rules know an app by its other name only.
    let slug = text.parse::<AppName>().map(|name| name.slug()).unwrap_or_default();
    let named = named.or_else(|| settings.apps.iter().find(|app| app.name.as_str() == slug));
    match named {
        Some(app) => Some(Wanted::App(app.name.to_string())),
        None => port(text).map(|(protocol, port)| {
            // A bare number is what is guarded there: TCP, unless it is UDP alone.
            let guarded = |by| settings.apps.iter().any(|app| guards(app, by, port));
            let udp_alone = !text.contains('/') && !guarded(Protocol::Tcp) && guarded(Protocol::Udp);
            Wanted::Port(if udp_alone { Protocol::Udp } else { protocol }, port)
        }),
    }
}

fn guards(app: &App, protocol: Protocol, port: u16) -> bool {
    app.protocol.each().contains(&protocol) && app.ports.iter().any(|range| range.contains(port))
}

/// `22`, `tcp/22`, `udp/53`.
fn port(text: &str) -> Option<(Protocol, u16)> {
    let (protocol, port) = match text.split_once('/') {
        Some(("tcp", port)) => (Protocol::Tcp, port),
        Some(("udp", port)) => (Protocol::Udp, port),
        Some(_) => return None,
        None => (Protocol::Tcp, text),
    };
    port.parse().ok().filter(|port| *port > 0).map(|port| (protocol, port))
}

/// What the daemon knows of the address; the kernel tells the rest.
fn ask(args: &ExplainArgs, address: IpAddr) -> Daemon {
    match beside::ask(&args.daemon.file.runtime_dir, &Request::Explain { address }, Some(PATIENCE)) {
        Ok(Some(Reply::Explained { recalled })) => Daemon::Says(recalled),
        Ok(Some(Reply::Failed { failure: Failure::Request, .. })) => {
            Daemon::Mute("it is of an older version".to_owned())
        }
        Ok(Some(Reply::Failed { message, .. })) => Daemon::Mute(message),
        Ok(Some(Reply::Done { .. } | Reply::Status { .. } | Reply::Health { .. } | Reply::Figures(_))) => {
            Daemon::Mute("it says something else".to_owned())
        }
        Ok(None) => Daemon::Absent,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Daemon::Mute("it does not answer in time".to_owned())
        }
        Err(error) => Daemon::Mute(error.to_string()),
    }
}

fn name(answer: &Answer) -> String {
    match &answer.app {
        Some(app) => format!("{app} ({})", answer.service),
        None => answer.service.clone(),
    }
}

fn print(client: IpAddr, answer: &Answer, out: &mut Printer) {
    let (tone, verdict) = match answer.finding.verdict {
        Verdict::Open => (Tone::Good, "is let through to"),
        Verdict::Closed => (Tone::Bad, "is NOT let through to"),
        Verdict::Unknown => (Tone::Doubtful, "may or may not be let through to"),
    };
    let verdict = out.paint(tone, verdict);
    let Finding { message, cause, .. } = &answer.finding;
    out.line(format!("{client} {verdict} {}: {message} [{}]", name(answer), cause.code()));
    for step in &answer.steps {
        out.line(format!("  {}", words(step)));
    }
    for note in &answer.also {
        out.line(format!("also: {} [{}]", note.message, note.cause.code()));
    }
    let further = answer.also.iter().filter(|note| note.verdict != Verdict::Open);
    let mut told: Vec<&String> = Vec::new();
    for line in answer.finding.next.iter().chain(further.flat_map(|note| &note.next)) {
        if !told.contains(&line) {
            let lead = if told.is_empty() { "next: " } else { "      " };
            out.line(format!("{lead}{line}"));
            told.push(line);
        }
    }
}

fn words(step: &Step) -> String {
    let outcome = match &step.outcome {
        Outcome::Passes => "lets it pass".to_owned(),
        Outcome::Translated(to) => format!("sends it to {to}"),
        Outcome::Dropped => "drops it".to_owned(),
        Outcome::Doubtful => "may drop it".to_owned(),
    };
    let rule = match (step.handle, &step.rule) {
        (Some(handle), Some(text)) => format!(": {text} (handle {handle})"),
        (Some(handle), None) => format!(": handle {handle}"),
        (None, _) => ": its policy".to_owned(),
    };
    let hook = hook_word(step.hook);
    format!("{} packet, {hook}, {} {} {outcome}{rule}", step.packet, step.table, step.chain)
}

fn as_json(client: IpAddr, answers: &[Answer]) -> Value {
    let all: Vec<Value> = answers.iter().map(answer_json).collect();
    // What weighs most; the first of several.
    let worst = answers.iter().map(|answer| answer.finding.verdict).max();
    let first = answers.iter().position(|answer| Some(answer.finding.verdict) == worst);
    let mut out = first.and_then(|index| all.get(index)).cloned().unwrap_or_else(|| json!({}));
    if let Some(fields) = out.as_object_mut() {
        fields.insert("version".to_owned(), json!(1));
        fields.insert("address".to_owned(), json!(client));
        fields.insert("answers".to_owned(), json!(all));
    }
    out
}

fn answer_json(answer: &Answer) -> Value {
    let steps: Vec<Value> = answer.steps.iter().map(step_json).collect();
    let also: Vec<Value> = answer
        .also
        .iter()
        .map(|note| json!({ "verdict": note.verdict, "cause": note.cause.code(), "message": note.message, "next": note.next }))
        .collect();
    json!({
        "app": answer.app,
        "service": answer.service,
        "verdict": answer.finding.verdict,
        "cause": answer.finding.cause.code(),
        "message": answer.finding.message,
        "next": answer.finding.next,
        "also": also,
        "steps": steps,
    })
}

fn step_json(step: &Step) -> Value {
    let (outcome, to) = match &step.outcome {
        Outcome::Passes => ("passes", None),
        Outcome::Translated(to) => ("translated", Some(to)),
        Outcome::Dropped => ("dropped", None),
        Outcome::Doubtful => ("may-be-dropped", None),
    };
    json!({
        "packet": step.packet,
        "hook": hook_word(step.hook),
        "family": step.table.family.word(),
        "table": step.table.table,
        "chain": step.chain,
        "handle": step.handle,
        "rule": step.rule,
        "outcome": outcome,
        "to": to,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_with_or_without_a_protocol() {
        assert_eq!(port("22"), Some((Protocol::Tcp, 22)));
        assert_eq!(port("udp/1194"), Some((Protocol::Udp, 1194)));
        for text in ["0", "tcp/", "sctp/5", "ssh", "70000", "-1"] {
            assert_eq!(port(text), None, "{text}");
        }
    }
}
