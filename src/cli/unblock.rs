//! `knock-agent unblock`.

use std::net::IpAddr;

use clap::Args;

use crate::cli::operate::tell_daemon;
use crate::cli::{ConfigArg, Exit};
use crate::service::control::Request;

/// The arguments of `unblock`.
#[derive(Args, Clone, Debug)]
#[command(override_usage = "knock-agent unblock [OPTIONS] ADDR\n       knock-agent unblock [OPTIONS] --all")]
#[command(
    after_help = "For root, the user that the daemon runs as, and members of the group knock-agent.\nWho is locked out is in `knock-agent status`. Any IPv6 address stands for its /64.\n\nExamples:\n  sudo knock-agent unblock 203.0.113.7\n  sudo knock-agent unblock --all"
)]
pub struct UnblockArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// The address that may knock again
    #[arg(value_name = "ADDR", required_unless_present = "all", conflicts_with = "all")]
    pub address: Option<IpAddr>,

    /// Lift every lock-out
    #[arg(long)]
    pub all: bool,
}

/// Has the daemon lift lock-outs.
#[must_use]
pub fn run(args: UnblockArgs) -> Exit {
    let nobody = ["error: no daemon runs here: nobody is locked out, as nobody can knock"];
    tell_daemon(&args.file, Request::Unblock { address: args.address }, &nobody)
}
