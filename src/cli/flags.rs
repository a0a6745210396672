use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::host_flags::HostArgs;
use crate::backend::iptables::Variant;
use crate::backend::{Choice, Kind};
use crate::cli::logging::{LogFormat, LogStyle};
use crate::cli::proxy_flags::ProxyArgs;
use crate::cli::{Exit, Printer};
use crate::ruleset::host_chain::HostChains;
use crate::ruleset::iptables::plan::Keeping;
use crate::units::Mark;

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

    /// Port of step 1 (plain HTTP) [default: 8080]
    #[arg(long = "http-port", value_name = "PORT", value_parser = step_port)]
    pub own_http_port: Option<NonZeroU16>,

    /// Port of step 2 (HTTPS) [default: 8443]
    #[arg(long = "https-port", value_name = "PORT", value_parser = step_port)]
    pub own_https_port: Option<NonZeroU16>,

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

    /// How the host's firewall is programmed [default: nftables, or iptables where the kernel has no nf_tables]
    #[arg(long, value_name = "TYPE", value_enum)]
    pub firewall_type: Option<FirewallType>,

    /// With iptables, which of its programs [default: those with which the host has rules already]
    #[arg(long, value_name = "VARIANT", value_enum)]
    pub iptables_variant: Option<IptablesVariant>,

    /// With iptables, do without ipset even where it is there: lists of -m recent, with their limits
    #[arg(long)]
    pub without_ipset: bool,

    /// Close the services too when the daemon stops (they stay open for their time otherwise)
    #[arg(long)]
    pub service_rule_cleanup_on_shutdown: bool,

    /// Refuse a configuration file that others can read or change, instead of warning
    #[arg(long)]
    pub strict: bool,

    /// How much is logged to standard error: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: String,

    /// In what form it is logged; in systemd's journal, text has the fields of events too (`knock-agent log`)
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// Run iptables and ipset through sudo (packaging/sudoers.d); with nftables not needed, a capability does it
    #[arg(long)]
    pub use_sudo: bool,

    /// Tables and chains of the host.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Chains of the host are to accept our mark, and there is none.
pub(super) const UNMARKED: &str =
    "the host's chains cannot accept what is let in: with global.mark: 0 nothing tells it from the rest";
/// What to do about it.
pub(super) const UNMARKED_FIX: &str =
    "set global.mark, or leave out --nftables-table-filter, --nftables-chain-... and --firewall-type vyos";

/// What programs the host's firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FirewallType {
    /// A table of our own in nftables
    Nftables,
    /// The same, and the chains that VyOS has are to accept what is let in
    Vyos,
    /// iptables and ipset, for kernels without nf_tables
    Iptables,
}

/// Which programs speak for iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IptablesVariant {
    /// iptables-legacy-restore and so on
    Legacy,
    /// iptables-nft-restore and so on
    Nft,
}

impl DaemonArgs {
    /// The kind of firewall, as far as it was said.
    #[must_use]
    pub fn kind(&self) -> FirewallType {
        self.firewall_type.unwrap_or(FirewallType::Nftables)
    }

    /// Where iptables keeps grants: without a kernel, ipset is taken to be there unless it is said otherwise.
    pub(super) fn keeping(&self) -> Keeping {
        if self.without_ipset { Keeping::Recent } else { Keeping::Ipset }
    }

    /// The level and the form of the log.
    #[must_use]
    pub(super) fn log_style(&self) -> LogStyle {
        LogStyle::new(&self.log_level, self.log_format)
    }

    /// The firewall they choose.
    #[must_use]
    pub fn firewall_choice(&self) -> Choice {
        let kind = self.firewall_type.map(|kind| match kind {
            FirewallType::Iptables => Kind::Iptables,
            FirewallType::Nftables | FirewallType::Vyos => Kind::Nftables,
        });
        let variant = self.iptables_variant.map(|variant| match variant {
            IptablesVariant::Legacy => Variant::Legacy,
            IptablesVariant::Nft => Variant::Nft,
        });
        Choice { kind, variant, use_sudo: self.use_sudo, without_ipset: self.without_ipset }
    }

    /// The chains of the host that are to accept our mark.
    ///
    /// # Errors
    /// [`Exit::BadConfig`], after the reason was printed, where packets are not marked.
    pub fn host_chains(&self, mark: Option<Mark>, err: &mut Printer) -> Result<HostChains, Exit> {
        let chains = self.host.wishes(self.kind());
        if chains.is_empty() || mark.is_some() {
            return Ok(chains);
        }
        err.line(format!("error: {UNMARKED}"));
        err.line(format!("  fix: {UNMARKED_FIX}"));
        Err(Exit::BadConfig)
    }

    /// Prints which of these flags do nothing here, and why.
    pub fn vet(&self, err: &mut Printer) {
        if self.use_sudo && self.firewall_type != Some(FirewallType::Iptables) {
            err.line(
                "note: --use-sudo is not needed: the capability CAP_NET_ADMIN does it, no command is run",
            );
        }
        for note in self.host.notes(self.kind()) {
            err.line(format!("note: {note}"));
        }
    }
}

/// A port that a step may be on.
pub(super) fn step_port(text: &str) -> Result<NonZeroU16, String> {
    text.parse().map_err(|_| "a port is a number from 1 to 65535".to_owned())
}
