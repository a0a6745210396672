use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::proxy_flags::ProxyArgs;
use crate::cli::{Exit, Printer};

/// The flag every verb has.
#[derive(Args, Clone, Debug)]
pub struct ConfigArg {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "/etc/knock-agent/config.yaml")]
    pub config: PathBuf,

    /// Where the daemon's control socket and lock are
    #[arg(long, value_name = "DIR", default_value = "/run/knock-agent", hide = true)]
    pub runtime_dir: PathBuf,
}

/// The flags of `run`, `guard`, `check-config` and `check-ruleset`.
#[derive(Args, Clone, Debug)]
pub struct DaemonArgs {
    /// The configuration file.
    #[command(flatten)]
    pub file: ConfigArg,

    /// Port of step 1 (plain HTTP)
    #[arg(long = "http-port", value_name = "PORT", default_value = "8080", value_parser = step_port)]
    pub own_http_port: NonZeroU16,

    /// Port of step 2 (HTTPS)
    #[arg(long = "https-port", value_name = "PORT", default_value = "8443", value_parser = step_port)]
    pub own_https_port: NonZeroU16,

    /// A proxy in front.
    #[command(flatten)]
    pub proxy: ProxyArgs,

    /// TLS certificate of step 2: PEM, the server's first, then those of its issuers
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// TLS key of step 2: PEM
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Where the last good plan is kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/knock-agent", hide = true)]
    pub state_dir: PathBuf,

    /// How the host's firewall is programmed; this release has nftables only
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = FirewallType::Nftables)]
    pub firewall_type: FirewallType,

    /// Close the services too when the daemon stops (they stay open for their time otherwise)
    #[arg(long)]
    pub service_rule_cleanup_on_shutdown: bool,

    /// Refuse a configuration file that others can read or change, instead of warning
    #[arg(long)]
    pub strict: bool,

    /// How much is logged to standard error: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: String,

    /// Accepted for knock-port's command lines; not needed, a capability does it
    #[arg(long)]
    pub use_sudo: bool,

    /// Flags of knock-port that come with later releases.
    #[command(flatten)]
    pub later: LaterArgs,
}

/// Above them in the help.
const LATER: &str = "Flags of knock-port that come with a later release (refused)";

/// Flags that are understood and refused, so that nobody believes they work.
#[derive(Args, Clone, Debug, Default)]
pub struct LaterArgs {
    /// The host's filter table
    #[arg(long, help_heading = LATER, value_name = "TABLE")]
    pub nftables_table_filter: Option<String>,

    /// The host's nat table
    #[arg(long, help_heading = LATER, value_name = "TABLE")]
    pub nftables_table_nat: Option<String>,

    /// The host's chain for local services
    #[arg(long, help_heading = LATER, value_name = "CHAIN")]
    pub nftables_chain_input: Option<String>,

    /// The host's chain for forwarded services
    #[arg(long, help_heading = LATER, value_name = "CHAIN")]
    pub nftables_chain_forward: Option<String>,

    /// The host's chain hooked to input
    #[arg(long, help_heading = LATER, value_name = "CHAIN")]
    pub nftables_chain_default_input: Option<String>,

    /// The host's chain hooked to output
    #[arg(long, help_heading = LATER, value_name = "CHAIN")]
    pub nftables_chain_default_output: Option<String>,

    /// The host's chain hooked to forward
    #[arg(long, help_heading = LATER, value_name = "CHAIN")]
    pub nftables_chain_default_forward: Option<String>,

    /// The host's chain hooked to nat prerouting
    #[arg(long, help_heading = LATER, value_name = "CHAIN")]
    pub nftables_chain_default_prerouting: Option<String>,

    /// The host's chain hooked to nat postrouting
    #[arg(long, help_heading = LATER, value_name = "CHAIN")]
    pub nftables_chain_default_postrouting: Option<String>,
}

/// What programs the host's firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FirewallType {
    /// A table of our own in nftables
    Nftables,
    /// VyOS (a later release)
    Vyos,
    /// iptables and ipset (a later release)
    Iptables,
}

/// A flag that this release refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotYet {
    /// Another firewall than nftables.
    #[error("--firewall-type {0} comes with a later release: this one has nftables only")]
    Firewall(&'static str),
    /// A chain of the host.
    #[error(
        "{0} comes with a later release: this one writes to its own table only; where the host drops by default, `knock-agent check-ruleset` prints the rule to add"
    )]
    Chain(&'static str),
    /// A table or base chain of the host.
    #[error("{0} comes with a later release: leave it out, this one writes to its own table only")]
    Table(&'static str),
}

impl DaemonArgs {
    /// Prints what these flags do not do: [`Exit::Usage`] if one of them comes with a later release.
    ///
    /// # Errors
    /// [`Exit::Usage`], after every flag concerned has been named.
    pub fn vet(&self, err: &mut Printer) -> Result<(), Exit> {
        if self.use_sudo {
            err.line(
                "note: --use-sudo is not needed: the capability CAP_NET_ADMIN does it, no command is run",
            );
        }
        let refused = self.not_yet();
        for reason in &refused {
            err.line(format!("error: {reason}"));
        }
        if refused.is_empty() { Ok(()) } else { Err(Exit::Usage) }
    }

    /// The flags given that come with a later release.
    #[must_use]
    pub fn not_yet(&self) -> Vec<NotYet> {
        let firewall = match self.firewall_type {
            FirewallType::Nftables => None,
            FirewallType::Vyos => Some(NotYet::Firewall("vyos")),
            FirewallType::Iptables => Some(NotYet::Firewall("iptables")),
        };
        let l = &self.later;
        let given = [
            (l.nftables_chain_input.is_some(), NotYet::Chain("--nftables-chain-input")),
            (l.nftables_chain_forward.is_some(), NotYet::Chain("--nftables-chain-forward")),
            (l.nftables_table_filter.is_some(), NotYet::Table("--nftables-table-filter")),
            (l.nftables_table_nat.is_some(), NotYet::Table("--nftables-table-nat")),
            (l.nftables_chain_default_input.is_some(), NotYet::Table("--nftables-chain-default-input")),
            (l.nftables_chain_default_output.is_some(), NotYet::Table("--nftables-chain-default-output")),
            (l.nftables_chain_default_forward.is_some(), NotYet::Table("--nftables-chain-default-forward")),
            (
                l.nftables_chain_default_prerouting.is_some(),
                NotYet::Table("--nftables-chain-default-prerouting"),
            ),
            (
                l.nftables_chain_default_postrouting.is_some(),
                NotYet::Table("--nftables-chain-default-postrouting"),
            ),
        ];
        let flags = given.into_iter().filter(|(is_given, _)| *is_given).map(|(_, reason)| reason);
        firewall.into_iter().chain(flags).collect()
    }
}

/// A port that a step may be on.
pub(super) fn step_port(text: &str) -> Result<NonZeroU16, String> {
    text.parse().map_err(|_| "a port is a number from 1 to 65535".to_owned())
}
