//! `knock-agent allow`.

use clap::Args;

use crate::cli::operate::operate;
use crate::cli::status;
use crate::cli::{ConfigArg, Exit};
use crate::service::control::Request;
use crate::service::status::Kind;
use crate::units::{AppName, Lifetime, Network};

/// The arguments of `allow`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "knock-agent allow [OPTIONS] ADDR[/LEN] [--app APP] [--for DURATION]\n       knock-agent allow [OPTIONS] --list [--app APP]\n       knock-agent allow [OPTIONS] --flush [--app APP]"
)]
#[command(
    after_help = "Examples:\n  sudo knock-agent allow 198.51.100.0/24 --app ssh --for 8h\n  sudo knock-agent allow --list"
)]
pub struct AllowArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// The address or network to let in without a knock
    #[arg(value_name = "ADDR[/LEN]", required_unless_present_any = ["list", "flush"], conflicts_with_all = ["list", "flush"])]
    pub network: Option<Network>,

    /// To this app only, by the name of its section; to every app unless given
    #[arg(long, value_name = "APP")]
    pub app: Option<AppName>,

    /// For how long: 90s, 15m, 24h, 30d; until --flush unless given
    #[arg(long = "for", value_name = "DURATION", conflicts_with_all = ["list", "flush"])]
    pub lifetime: Option<Lifetime>,

    /// Show the networks that are let in
    #[arg(long, conflicts_with = "flush")]
    pub list: bool,

    /// Forget all networks but those of the configuration
    #[arg(long)]
    pub flush: bool,
}

/// Lets a network in, or shows or forgets those that are.
#[must_use]
pub fn run(args: AllowArgs) -> Exit {
    let app = args.app.map(|app| app.to_string());
    match args.network {
        Some(network) => {
            let seconds = args.lifetime.map(Lifetime::as_secs);
            operate(&args.file, Request::Allow { network: network.to_string(), app, seconds })
        }
        None if args.flush => operate(&args.file, Request::AllowFlush { app }),
        None => status::show(&args.file, false, |row| {
            let asked = app.as_deref().is_none_or(|app| row.app == app || row.app == "*");
            row.kind == Kind::Allow && asked
        }),
    }
}
