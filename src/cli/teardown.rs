//! `knock-agent teardown`.

use clap::Args;

use crate::cli::{ConfigArg, Exit, Printer};

/// The arguments of `teardown`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Stop the daemon first: it would put the guard back.")]
pub struct TeardownArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,
}

/// Does what the arguments say.
#[must_use]
pub fn run(_args: TeardownArgs) -> Exit {
    let mut err = Printer::stderr();
    err.line("error: `knock-agent teardown` is not built yet");
    err.finish(Exit::Bug)
}
