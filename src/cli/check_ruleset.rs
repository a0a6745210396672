//! `knock-agent check-ruleset`.

use clap::{Args, ValueEnum};

use crate::cli::{DaemonArgs, Exit, Printer};

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
    /// iptables-restore (a later release)
    Iptables,
    /// VyOS commands (a later release)
    Vyos,
}

/// Does what the arguments say.
#[must_use]
pub fn run(_args: CheckRulesetArgs) -> Exit {
    let mut err = Printer::stderr();
    err.line("error: `knock-agent check-ruleset` is not built yet");
    err.finish(Exit::Bug)
}
