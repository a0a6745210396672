//! `knock-agent run`.

use clap::Args;

use crate::cli::{DaemonArgs, Exit, Printer};

/// The arguments of `run`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Needs the capabilities CAP_NET_ADMIN and, for ports below 1024, CAP_NET_BIND_SERVICE.\nSIGHUP reads the configuration again. SIGTERM stops the daemon; the guard and what is granted stay.\n\nExample:\n  sudo knock-agent run -c config.yaml --http-port 80 --https-port 443 --cert cert.pem --key key.pem"
)]
pub struct RunArgs {
    /// What all verbs of the daemon have.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}

/// Does what the arguments say.
#[must_use]
pub fn run(_args: RunArgs) -> Exit {
    let mut err = Printer::stderr();
    err.line("error: `knock-agent run` is not built yet");
    err.finish(Exit::Bug)
}
