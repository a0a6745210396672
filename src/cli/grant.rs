//! `knock-agent grant`.

use std::net::IpAddr;

use clap::Args;

use crate::cli::operate::operate;
use crate::cli::{ConfigArg, Exit};
use crate::service::control::Request;
use crate::units::{AppName, Lifetime};

/// The arguments of `grant`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "For root and, while a daemon runs, members of the group knock-agent.\n\nExample:\n  sudo knock-agent grant ssh 203.0.113.7 --for 2h"
)]
pub struct GrantArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// The app, by the name of its section
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// The address to let in
    #[arg(value_name = "ADDR")]
    pub address: IpAddr,

    /// For how long: 90s, 15m, 24h, 30d; the app's duration unless given
    #[arg(long = "for", value_name = "DURATION")]
    pub lifetime: Option<Lifetime>,
}

/// Lets an address in.
#[must_use]
pub fn run(args: GrantArgs) -> Exit {
    let request = Request::Grant {
        app: args.app.to_string(),
        address: args.address,
        seconds: args.lifetime.map(Lifetime::as_secs),
    };
    operate(&args.file, request)
}
