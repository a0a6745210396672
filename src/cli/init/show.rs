//! What comes after the files: both checks, the client's commands, and a start that cannot lock anybody out.

use std::path::Path;

use clap::Parser;

use super::InitArgs;
use super::answers::{self, Answers, Chance};
use super::unit;
use crate::backend::{BackendError, Firewall};
use crate::cli::load::{self, Exposure};
use crate::cli::{Cli, DaemonArgs, Exit, Printer, Tone, Verb};
use crate::ruleset::audit::Severity;
use crate::service::check::{self, Report};
use crate::service::check_iptables;

/// Checks what was written, and shows how to go on.
///
/// # Errors
/// The exit code, where the configuration is refused.
pub fn all(
    args: &InitArgs,
    answers: &Answers,
    chance: &Chance,
    pin: Option<&str>,
    err: &mut Printer,
) -> Result<Exit, Exit> {
    let config = &args.file.config;
    let line = answers::start(answers, config);
    let Checked { in_the_way, by_iptables } = checks(config, &line, err)?;
    let mut out = Printer::stdout();
    client(args, answers, chance, pin, &mut out);
    trial(&line, config, by_iptables, &mut out);
    for_good(answers, config, by_iptables, &mut out);
    if in_the_way.is_empty() {
        return Ok(out.finish(Exit::Done));
    }
    // Said above, too, and out of sight by now.
    let exit = out.finish(Exit::Found);
    let heading = err.paint(
        Tone::Bad,
        "Before you start it: this host's own rules are in the way, and knocking would let nobody in:",
    );
    err.line(format!("\n{heading}"));
    in_the_way.iter().for_each(|line| err.line(line));
    Ok(exit)
}

/// Is there while the guard is to be taken down again.
const TRIAL: &str = "/run/knock-agent-trial";

/// A start that takes itself back.
fn trial(line: &[String], config: &Path, by_iptables: bool, out: &mut Printer) {
    let words: Vec<String> = line.iter().map(|word| quoted(word)).collect();
    let start = format!("  sudo knock-agent {}", words.join(" "));
    let heading = out.paint(Tone::Heading, "Start it, so that nobody is locked out for good:");
    out.line(format!("\n{heading}"));
    let second = "Leave this session open. Knock and connect from a second one. If that works, say there within the five minutes:";
    if !by_iptables {
        out.line(format!("{start} --confirm 5m"));
        out.line(second);
        out.line(format!("  sudo knock-agent confirm --config {}", quoted(&config.display().to_string())));
        out.line("If not, say nothing: everything is put back as it was.");
        return;
    }
    // A file, and no number of a process, which may be another's by then.
    out.line(format!(
        "  sudo sh -c 'trap \"\" HUP; touch {TRIAL}; (sleep 300; rm {TRIAL} && knock-agent teardown) >/dev/null 2>&1 &'"
    ));
    out.line(start);
    out.line("(This host is guarded with iptables, where `run` has no --confirm: the first line takes the guard down after five minutes.)");
    out.line(second);
    out.line(format!("  sudo rm {TRIAL}"));
    out.line("If not, say nothing: the daemon is stopped, and nothing is guarded any more.");
}

/// How the trial ends and systemd goes on.
fn for_good(answers: &Answers, config: &Path, by_iptables: bool, out: &mut Printer) {
    let key = &answers.tls.1;
    if key.parent() != config.parent() {
        let key = key.display();
        out.line(format!("systemd runs it as the user knock-agent, who has to be able to read {key}:"));
        out.line(
            "one that others renew is copied to /etc/knock-agent, as docs/operations.md says of renewals.",
        );
    }
    if by_iptables {
        out.line("The units of systemd are for nftables. With iptables each of them needs a drop-in first, with the ports of above: docs/host-firewall.md names both.");
    }
    out.line("Then end the first one with Ctrl-C, which opens nothing, and leave the rest to systemd, after each boot too:");
    let lines = unit::commands(answers, config, Path::new(unit::FOLDER));
    // What has to stand at the beginning of a line is not indented.
    let indent = if lines.len() == 1 { "  " } else { "" };
    lines.iter().for_each(|line| out.line(format!("{indent}{line}")));
}

/// What the checks told.
#[derive(Default)]
struct Checked {
    /// What of the host's own rules is to be mended first.
    in_the_way: Vec<String>,
    /// Whether the daemon would guard with iptables here; not known: no.
    by_iptables: bool,
}

fn checks(config: &Path, line: &[String], err: &mut Printer) -> Result<Checked, Exit> {
    let cli = Cli::try_parse_from(std::iter::once("knock-agent".to_owned()).chain(line.iter().cloned()));
    let Ok(Cli { verb: Verb::Run(run) }) = cli else {
        err.line("error: the command that starts it is not understood: report it");
        return Err(Exit::Bug);
    };
    let daemon = run.daemon;
    let settings = load::load(config, Some(&daemon.steps()), Exposure::Warn, err)?.settings;
    let good = err.paint(Tone::Good, "the configuration is right");
    err.line(good);
    let (report, by_iptables) = match look(&daemon, &settings) {
        Ok(found) => found,
        Err(error) => {
            err.line(format!("warning: this host's firewall could not be looked at: {error}"));
            err.line("  fix: sudo knock-agent check-ruleset shows what it thinks of this");
            return Ok(Checked::default());
        }
    };
    let mut in_the_way = Vec::new();
    for finding in report.findings.iter().filter(|finding| finding.severity != Severity::Info) {
        let is_error = finding.severity == Severity::Error;
        let tone = if is_error { Tone::Bad } else { Tone::Doubtful };
        let severity = err.paint(tone, finding.severity.word());
        let mut lines = vec![format!("{severity}: {} [{}]", finding.message, finding.code)];
        for (n, fix) in finding.fix.lines().enumerate() {
            lines.push(format!("{}{fix}", if n == 0 { "  fix: " } else { "       " }));
        }
        lines.iter().for_each(|line| err.line(line));
        if is_error {
            in_the_way.append(&mut lines);
        }
    }
    if report.ok() {
        let good = err.paint(Tone::Good, "this host's rules let it work");
        err.line(good);
    } else if in_the_way.is_empty() {
        in_the_way.push("  sudo knock-agent check-ruleset tells more".to_owned());
    }
    Ok(Checked { in_the_way, by_iptables })
}

/// What is found, and whether iptables was asked.
fn look(daemon: &DaemonArgs, settings: &crate::config::Settings) -> Result<(Report, bool), BackendError> {
    let mut firewall = Firewall::open(daemon.firewall_choice())?;
    let (http, https) = daemon.public_ports();
    let options = firewall.options(settings, http, https)?;
    let host = daemon.host.wishes(daemon.kind());
    match firewall {
        Firewall::Nftables(mut nft) => Ok((check::online(&mut nft, settings, options, &host)?, false)),
        Firewall::Iptables(mut iptables) => {
            Ok((check_iptables::online(&mut iptables, settings, options)?, true))
        }
    }
}

fn client(args: &InitArgs, answers: &Answers, chance: &Chance, pin: Option<&str>, out: &mut Printer) {
    if let Some(path) = &args.profile {
        let heading = out.paint(Tone::Heading, "For the client:");
        out.line(format!(
            "\n{heading} move {} to ~/.config/knock-agent/home.yaml there (it is a secret), then",
            path.display()
        ));
        out.line("  knock-agent knock home");
        return;
    }
    let first = answers.hosts.first().map_or("", String::as_str);
    let heading = out.paint(
        Tone::Heading,
        "For the client, as ~/.config/knock-agent/home.yaml, mode 0600 (then: knock-agent knock home):",
    );
    out.line(format!("\n{heading}"));
    out.line(answers::profile(answers, chance, first, pin).expose().trim_end());
    for host in &answers.hosts {
        let heading = out.paint(Tone::Heading, &format!("Or with curl, towards {host}:"));
        out.line(format!("\n{heading}"));
        out.line(answers::curl(answers, chance, host, pin).expose().trim_end());
    }
    out.line("\nThese are shown once: the configuration has only hashes of the keys. Each address family is opened by itself.");
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-:".contains(&b));
    if plain && !word.is_empty() { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
