//! `knock-agent check-ruleset`.

use clap::{Args, ValueEnum};

use serde_json::json;

use crate::backend::iptables::IptablesError;
use crate::backend::{BackendError, Firewall, Kind};
use crate::cli::check_config::refused_json;
use crate::cli::load::{self, Exposure};
use crate::cli::operate::exit_of_backend;
use crate::cli::outside::Noted;
use crate::cli::{DaemonArgs, Exit, Printer, Tone};
use crate::cli::{companions, installed, readable};
use crate::config::{self, Problems, Settings};
use crate::ruleset::audit::Severity;
use crate::ruleset::iptables::plan::{Matcher, plan};
use crate::ruleset::layout::Options;
use crate::ruleset::text::{render, vyos_commands};
use crate::service::check::{self, Report};
use crate::service::check_iptables;

/// The arguments of `check-ruleset`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  sudo knock-agent check-ruleset\n  knock-agent check-ruleset --offline --print nft -c config.yaml"
)]
pub struct CheckRulesetArgs {
    /// What all verbs of the daemon have.
    #[command(flatten)]
    pub daemon: DaemonArgs,

    /// Do not ask the kernel: plan only
    #[arg(long)]
    pub offline: bool,

    /// Print the planned rules in this language instead of the findings
    #[arg(long, value_name = "LANGUAGE", value_enum, conflicts_with = "json")]
    pub print: Option<RuleLanguage>,

    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,

    /// Exit with 1 if the rules in the kernel differ from the plan
    #[arg(long, conflicts_with = "offline")]
    pub diff_exit: bool,
}

/// A language rules are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuleLanguage {
    /// Text for `nft -f`
    Nft,
    /// Text for ipset restore, iptables-restore and ip6tables-restore
    Iptables,
    /// VyOS commands that have it accept what is let in
    Vyos,
}

/// Plans, asks the kernel and shows what came of it; changes nothing.
#[must_use]
pub fn run(args: CheckRulesetArgs) -> Exit {
    let mut err = Printer::stderr();
    let exit = match check(&args, &mut err) {
        Ok(exit) | Err(exit) => exit,
    };
    err.finish(exit)
}

fn check(args: &CheckRulesetArgs, err: &mut Printer) -> Result<Exit, Exit> {
    args.daemon.vet(err);
    let exposure = Exposure::of_strict(args.daemon.strict);
    let steps = args.daemon.steps();
    let noted = Noted::default();
    let read = load::read_with(&args.daemon.file.config, Some(&steps), exposure, &noted);
    let settings = match read {
        Ok(checked) => {
            load::print_all(&checked.warnings, 0, err);
            checked.settings
        }
        Err(refused) if args.json => return Ok(refuse(&refused.problems, refused.exit)),
        Err(refused) => {
            load::print_refused(&refused, err);
            return Err(refused.exit);
        }
    };
    load::print_all(&readable::check(&settings, &args.daemon, noted.files()), 0, err);
    let host = args.daemon.host_chains(settings.global.mark, err)?;
    installed::note(&args.daemon, "check-ruleset", err);
    if let Some(problem) = companions::tls(&args.daemon) {
        let bad = problem.severity == config::Severity::Error;
        let problems = Problems { list: vec![problem], more: 0 };
        if bad && args.json {
            return Ok(refuse(&problems, Exit::BadConfig));
        }
        load::print_all(&problems.list, 0, err);
        if bad {
            return Err(Exit::BadConfig);
        }
    }
    if args.print == Some(RuleLanguage::Vyos) {
        return vyos(args, &settings, err);
    }
    let (http_port, https_port) = args.daemon.public_ports();
    let mut options = Options { http_port, https_port, inner_header: true, log: true };
    let failed = |error: &BackendError, err: &mut Printer| match error {
        BackendError::Iptables(IptablesError::Impossible(error)) if args.json => {
            let list = vec![companions::impossible(error, &args.daemon)];
            Ok(refuse(&Problems { list, more: 0 }, Exit::BadConfig))
        }
        error => {
            err.line(format!("error: {error}"));
            Err(exit_of_backend(error))
        }
    };
    if args.offline {
        let report = match args.daemon.firewall_choice().kind {
            Some(Kind::Iptables) => {
                let report = check_iptables::offline(&settings, options, args.daemon.keeping());
                report.map_err(|error| IptablesError::Impossible(error).into())
            }
            Some(Kind::Nftables) | None => Ok(check::offline(&settings, options)),
        };
        return match report {
            Ok(report) => show(args, &settings, options, &report, err),
            Err(error) => failed(&error, err),
        };
    }
    let online = Firewall::open(args.daemon.firewall_choice()).and_then(|firewall| match firewall {
        Firewall::Nftables(mut nft) => {
            options.inner_header = nft.knows_inner_header()?;
            check::online(&mut nft, &settings, options, &host)
        }
        Firewall::Iptables(mut iptables) => {
            options.log = iptables.knows_log()?;
            check_iptables::online(&mut iptables, &settings, options)
        }
    });
    match online {
        Ok(report) => show(args, &settings, options, &report, err),
        Err(error) => failed(&error, err),
    }
}

/// Prints what is wrong for programs.
fn refuse(problems: &Problems, exit: Exit) -> Exit {
    let mut out = Printer::stdout();
    out.line(refused_json(problems));
    out.finish(exit)
}

/// Prints VyOS's commands, for what it has loaded or, without a kernel, for every release.
fn vyos(args: &CheckRulesetArgs, settings: &Settings, err: &mut Printer) -> Result<Exit, Exit> {
    let tables = if args.offline {
        Vec::new()
    } else {
        let found = crate::backend::nftables::Nftables::open().and_then(|mut nft| nft.vyos_tables());
        found.map_err(|error| {
            err.line(format!("error: {error}"));
            exit_of_backend(&error)
        })?
    };
    let mut out = Printer::stdout();
    out.line(vyos_commands(settings.global.mark, &tables).trim_end());
    Ok(out.finish(Exit::Done))
}

fn show(
    args: &CheckRulesetArgs,
    settings: &Settings,
    options: Options,
    report: &Report,
    err: &mut Printer,
) -> Result<Exit, Exit> {
    let mut out = Printer::stdout();
    if args.print == Some(RuleLanguage::Iptables) {
        let tables = plan(settings, options, Matcher::Bpf, args.daemon.keeping()).map_err(|error| {
            err.line(format!("error: {error}"));
            Exit::BadConfig
        })?;
        out.line(check_iptables::printed(&tables).trim_end());
    } else if args.print.is_some() {
        let text = render(settings, options).map_err(|error| {
            err.line(format!("error: {error}"));
            Exit::Bug
        })?;
        out.line(text.trim_end());
    } else if args.json {
        out.line(as_json(report));
    } else {
        print(report, args.offline, &mut out);
    }
    let found = !report.ok() || (args.diff_exit && !report.changes.is_empty());
    Ok(out.finish(if found { Exit::Found } else { Exit::Done }))
}

fn as_json(report: &Report) -> serde_json::Value {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            json!({
                "severity": finding.severity.word(),
                "code": finding.code,
                "message": finding.message,
                "fix": finding.fix,
            })
        })
        .collect();
    json!({ "version": 1, "ok": report.ok(), "findings": findings, "changes": report.changes })
}

fn print(report: &Report, offline: bool, out: &mut Printer) {
    for finding in &report.findings {
        let tone = match finding.severity {
            Severity::Error => Tone::Bad,
            Severity::Warning => Tone::Doubtful,
            Severity::Info => Tone::Good,
        };
        let severity = out.paint(tone, finding.severity.word());
        out.line(format!("{severity}: {} [{}]", finding.message, finding.code));
        for (index, line) in finding.fix.lines().enumerate() {
            let lead = if index == 0 { "  fix: " } else { "       " };
            out.line(format!("{lead}{line}"));
        }
    }
    let against = if offline { "an empty kernel" } else { "what is in the kernel" };
    if report.changes.is_empty() {
        out.line("the rules in the kernel are as planned: nothing would change");
        return;
    }
    out.line(format!("against {against}, {} changes:", report.changes.len()));
    for change in &report.changes {
        out.line(format!("  {change}"));
    }
    out.line("(--print nft and --print iptables show the rules themselves)");
}
