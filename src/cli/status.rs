//! `knock-agent status`.

use clap::Args;

use crate::cli::{ConfigArg, Exit, Printer};

/// The arguments of `status`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Works without the daemon: the kernel knows.")]
pub struct StatusArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Does what the arguments say.
#[must_use]
pub fn run(_args: StatusArgs) -> Exit {
    let mut err = Printer::stderr();
    err.line("error: `knock-agent status` is not built yet");
    err.finish(Exit::Bug)
}
