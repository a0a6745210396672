//! `knock-agent revoke`.

use std::net::IpAddr;

use clap::Args;

use crate::cli::{ConfigArg, Exit, Printer};
use crate::units::AppName;

/// The arguments of `revoke`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "knock-agent revoke [OPTIONS] APP ADDR\n       knock-agent revoke [OPTIONS] --all [--app APP]"
)]
#[command(
    after_help = "Examples:\n  sudo knock-agent revoke ssh 203.0.113.7\n  sudo knock-agent revoke --all --app ssh"
)]
pub struct RevokeArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// The app, by the name of its section
    #[arg(value_name = "APP", required_unless_present = "all", conflicts_with = "all")]
    pub app: Option<AppName>,

    /// The address to shut out
    #[arg(value_name = "ADDR", required_unless_present = "all", conflicts_with = "all")]
    pub address: Option<IpAddr>,

    /// Take back every grant
    #[arg(long)]
    pub all: bool,

    /// With --all: of this app only
    #[arg(long = "app", value_name = "APP", requires = "all", conflicts_with_all = ["app", "address"])]
    pub only_app: Option<AppName>,
}

/// Does what the arguments say.
#[must_use]
pub fn run(_args: RevokeArgs) -> Exit {
    let mut err = Printer::stderr();
    err.line("error: `knock-agent revoke` is not built yet");
    err.finish(Exit::Bug)
}
