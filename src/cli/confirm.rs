//! `knock-agent confirm`.

use clap::Args;

use crate::cli::operate::tell_daemon;
use crate::cli::{ConfigArg, Exit};
use crate::service::control::Request;

/// The arguments of `confirm`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "For root, or a process of the daemon's user that has CAP_NET_ADMIN: members of the group knock-agent may not.\nSay it from a connection that you made after the start: then you know that you still get in."
)]
pub struct ConfirmArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,
}

/// Tells the daemon that all is well.
#[must_use]
pub fn run(args: ConfirmArgs) -> Exit {
    let nobody = [
        "error: no daemon runs here: there is nothing to confirm",
        "  note: if one was started with --confirm, its time is over and all is as it was before",
    ];
    tell_daemon(&args.file, Request::Confirm {}, &nobody)
}
