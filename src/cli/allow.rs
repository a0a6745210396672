//! `knock-agent allow`.

use clap::Args;

use crate::cli::load::{self, Exposure};
use crate::cli::operate::operate;
use crate::cli::status;
use crate::cli::{ConfigArg, Exit, Printer};
use crate::service::control::Request;
use crate::service::status::{Kind, Row};
use crate::units::{AppName, Lifetime, Network};

/// The arguments of `allow`.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "knock-agent allow [OPTIONS] ADDR[/LEN] [--app APP] [--for DURATION]\n       knock-agent allow [OPTIONS] --list [--app APP]\n       knock-agent allow [OPTIONS] --flush [--app APP]"
)]
#[command(
    after_help = "For root and, while a daemon runs, members of the group knock-agent. A network wider\nthan a /8 (IPv6: a /16) is for root, or a process of the daemon's user that has CAP_NET_ADMIN.\n\nExamples:\n  sudo knock-agent allow 198.51.100.0/24 --app ssh --for 8h\n  sudo knock-agent allow --list"
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
        None => match app.as_deref().map_or(Ok(()), |app| exists(&args.file, app)) {
            Ok(()) => list(&args.file, app.as_deref()),
            Err(exit) => exit,
        },
    }
}

/// An app that is misspelt is not one to which nobody is let in.
fn exists(file: &ConfigArg, app: &str) -> Result<(), Exit> {
    let Ok(checked) = load::read(&file.config, None, Exposure::Warn) else { return Ok(()) };
    let names: Vec<&str> = checked.settings.apps.iter().map(|app| app.name.as_str()).collect();
    if names.contains(&app) {
        return Ok(());
    }
    let mut err = Printer::stderr();
    err.line(format!("error: there is no app `{app}`; the apps are: {}", names.join(", ")));
    Err(err.finish(Exit::Usage))
}

fn list(file: &ConfigArg, app: Option<&str>) -> Exit {
    let wanted = |row: &Row| {
        let asked = app.is_none_or(|app| row.app == app || row.app == "*");
        row.kind == Kind::Allow && asked
    };
    status::show_grants(file, wanted, "no networks are allowed")
}
