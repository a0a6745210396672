//! `knock-agent revoke`.

use clap::Args;

use crate::cli::operate::operate;
use crate::cli::{ConfigArg, Exit};
use crate::service::control::Request;
use crate::units::{AppName, Network};

/// The arguments of `revoke`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "knock-agent revoke [OPTIONS] APP ADDR\n       knock-agent revoke [OPTIONS] --all [--app APP]"
)]
#[command(
    after_help = "For root and, while a daemon runs, members of the group knock-agent.\n\nExamples:\n  sudo knock-agent revoke ssh 203.0.113.7\n  sudo knock-agent revoke --all --app ssh"
)]
pub struct RevokeArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// The app, by the name of its section
    #[arg(value_name = "APP", required_unless_present = "all", conflicts_with = "all")]
    pub app: Option<AppName>,

    /// The address to shut out, or the IPv6 network of a grant as `status` shows it
    #[arg(value_name = "ADDR", required_unless_present = "all", conflicts_with = "all")]
    pub address: Option<Network>,

    /// Take back every grant
    #[arg(long)]
    pub all: bool,

    /// With --all: of this app only
    #[arg(long = "app", value_name = "APP", requires = "all", conflicts_with_all = ["app", "address"])]
    pub only_app: Option<AppName>,
}

/// Takes grants back.
#[must_use]
pub fn run(args: RevokeArgs) -> Exit {
    let request = match (args.app, args.address) {
        (Some(app), Some(network)) => Request::Revoke {
            app: app.to_string(),
            address: network.first(),
            prefix: Some(network.prefix_len()).filter(|&len| len < network.family().bits()),
        },
        // The command line allows this with --all only.
        (None, _) | (_, None) => Request::RevokeAll { app: args.only_app.map(|app| app.to_string()) },
    };
    operate(&args.file, request)
}
