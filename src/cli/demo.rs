//! `knock-agent demo`.

use clap::Args;

use crate::cli::{ConfigArg, Exit, Printer};

/// The arguments of `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,
}

/// Does what the arguments say.
#[must_use]
pub fn run(_args: DemoArgs) -> Exit {
    let mut err = Printer::stderr();
    err.line("error: `knock-agent demo` is not built yet");
    err.finish(Exit::Bug)
}
