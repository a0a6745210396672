//! What comes after the files: both checks, the client's commands, and a start that cannot lock anybody out.

use std::path::Path;

use clap::Parser;

use super::InitArgs;
use super::answers::{self, Answers, Chance};
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
    let config = std::path::absolute(&args.file.config).unwrap_or_else(|_| args.file.config.clone());
    let line = answers::start(answers, &config);
    let ok = checks(&config, &line, err)?;
    let mut out = Printer::stdout();
    client(args, answers, chance, pin, &mut out);
    let words: Vec<String> = line.iter().map(|word| quoted(word)).collect();
    let heading = out.paint(Tone::Heading, "Start it, so that nobody is locked out for good:");
    out.line(format!("\n{heading}"));
    out.line(format!("  sudo knock-agent {} --confirm 5m", words.join(" ")));
    out.line("Leave this session open. Knock and connect from a second one. If that works, say there within the five minutes:");
    out.line(format!("  sudo knock-agent confirm --config {}", quoted(&config.display().to_string())));
    out.line("If not, say nothing: everything is put back as it was.");
    if (answers.ports.0.get(), answers.ports.1.get()) == (80, 443) {
        out.line("Then end the first one with Ctrl-C, which opens nothing, and leave the rest to systemd, after each boot too:");
        out.line("  sudo systemctl enable --now knock-agent-guard knock-agent");
    }
    Ok(out.finish(if ok { Exit::Done } else { Exit::Found }))
}

fn checks(config: &Path, line: &[String], err: &mut Printer) -> Result<bool, Exit> {
    let cli = Cli::try_parse_from(std::iter::once("knock-agent".to_owned()).chain(line.iter().cloned()));
    let Ok(Cli { verb: Verb::Run(run) }) = cli else {
        err.line("error: the command that starts it is not understood: report it");
        return Err(Exit::Bug);
    };
    let daemon = run.daemon;
    let settings = load::load(config, Some(&daemon.steps()), Exposure::Warn, err)?.settings;
    let good = err.paint(Tone::Good, "the configuration is right");
    err.line(good);
    let report = match look(&daemon, &settings) {
        Ok(report) => report,
        Err(error) => {
            err.line(format!("warning: this host's firewall could not be looked at: {error}"));
            err.line("  fix: sudo knock-agent check-ruleset shows what it thinks of this");
            return Ok(true);
        }
    };
    for finding in report.findings.iter().filter(|finding| finding.severity != Severity::Info) {
        let tone = if finding.severity == Severity::Error { Tone::Bad } else { Tone::Doubtful };
        let severity = err.paint(tone, finding.severity.word());
        err.line(format!("{severity}: {} [{}]", finding.message, finding.code));
        for (n, fix) in finding.fix.lines().enumerate() {
            err.line(format!("{}{fix}", if n == 0 { "  fix: " } else { "       " }));
        }
    }
    if report.ok() {
        let good = err.paint(Tone::Good, "this host's rules let it work");
        err.line(good);
    }
    Ok(report.ok())
}

fn look(daemon: &DaemonArgs, settings: &crate::config::Settings) -> Result<Report, BackendError> {
    let mut firewall = Firewall::open(daemon.firewall_choice())?;
    let (http, https) = daemon.public_ports();
    let options = firewall.options(settings, http, https)?;
    let host = daemon.host.wishes(daemon.kind());
    match firewall {
        Firewall::Nftables(mut nft) => check::online(&mut nft, settings, options, &host),
        Firewall::Iptables(mut iptables) => check_iptables::online(&mut iptables, settings, options),
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
