use std::io;

use super::tools::Variant;
use crate::ruleset::iptables::elements::ElementError;
use crate::ruleset::iptables::plan::Impossible;

/// Why iptables or ipset did not do what was wanted.
#[derive(Debug, thiserror::Error)]
pub enum IptablesError {
    /// A program is not installed.
    #[error("{tool} is not installed: apt-get install {package} (Debian's package)")]
    Missing {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// It may not change the firewall.
    #[error(
        "{tool} has no permission: run as root, or with --use-sudo and packaging/sudoers.d/knock-agent-iptables (CAP_NET_ADMIN alone is not enough for the lock of iptables-legacy)"
    )]
    NotPermitted {
        /// The program.
        tool: String,
    },
    /// It could not be run, or took too long.
    #[error("{tool} cannot be run: {source}")]
    Run {
        /// The program.
        tool: String,
        /// The reason.
        source: io::Error,
    },
    /// It refused.
    #[error("{tool} refused: {reason}")]
    Refused {
        /// The program.
        tool: String,
        /// What it said, without anything secret.
        reason: String,
    },
    /// It refused, and what was done before could not be undone.
    #[error("{0}; and what was done before it could not be undone ({1}): guarded ports stay closed")]
    HalfDone(String, String),
    /// A list of `-m recent` cannot be read or written.
    #[error(
        "the list {name} of -m recent cannot be used: {source} (run as root, or install ipset: apt-get install ipset)"
    )]
    List {
        /// The list.
        name: String,
        /// The reason.
        source: io::Error,
    },
    /// Lists are files, which sudo does not write.
    #[error("--without-ipset does not go with --use-sudo: run as root, or leave it out")]
    NotWithSudo,
    /// Neither sets nor lists.
    #[error(
        "neither ipset nor xt_recent can be used: apt-get install ipset (Debian's package), or load the module: modprobe xt_recent"
    )]
    NoSets,
    /// The settings want what iptables cannot do.
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// A change that ipset cannot do.
    #[error(transparent)]
    Element(#[from] ElementError),
    /// iptables-nft does not show a table, nor what of ours is in it.
    #[error(
        "iptables cannot show the table {family} {table}: it has a rule of nftables that iptables has no words for; move that to a table of its own (`nft list table {family} {table}` shows it)"
    )]
    Hidden {
        /// As nftables calls it.
        family: &'static str,
        /// The table.
        table: String,
    },
    /// The plan is for another kind of firewall, or none of ours.
    #[error("the plan that was kept is for another kind of firewall: give --firewall-type as before")]
    OtherPlan,
    /// What was there before cannot be put back.
    #[error(
        "--confirm is for nftables only: iptables' rules of before cannot be put back when the daemon dies; leave it out"
    )]
    Confirm,
    /// The host's chains that were named are those of nftables.
    #[error(
        "the flags --nftables-chain-... name chains of nftables, which this kernel does not have: leave them out; `knock-agent check-ruleset` prints the rules to add"
    )]
    HostChains,
    /// The same, the other way round.
    #[error(
        "a guard by iptables is in place: remove it first (`knock-agent teardown`), or give --firewall-type iptables"
    )]
    BesideIptables,
    /// Both kinds at once would each drop what the other lets in.
    #[error(
        "a guard by nftables is in place: remove it first (`knock-agent teardown`), or leave --firewall-type iptables out"
    )]
    BesideNftables,
    /// The same of the two variants of iptables.
    #[error(
        "a guard by {0} is in place: remove it first (`knock-agent teardown`), or leave --iptables-variant out"
    )]
    BesideVariant(Variant),
}
