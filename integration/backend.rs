//! Which firewall the agent uses in a test. Scenarios are the same for all of them.

use std::cell::Cell;

/// A firewall under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Nftables,
    IptablesLegacy,
    IptablesNft,
    /// iptables-legacy without ipset.
    RecentLegacy,
    /// iptables-nft without ipset.
    RecentNft,
}

thread_local! {
    static CURRENT: Cell<Option<Backend>> = const { Cell::new(None) };
}

impl Backend {
    /// That of the test on this thread; else the one that `KNOCK_AGENT_TEST_FIREWALL` names (`nftables`,
    /// `iptables-legacy` or `iptables-nft`); else nftables.
    pub fn current() -> Self {
        CURRENT.get().unwrap_or_else(|| match std::env::var("KNOCK_AGENT_TEST_FIREWALL").as_deref() {
            Ok("iptables-legacy") => Self::IptablesLegacy,
            Ok("iptables-nft") => Self::IptablesNft,
            Ok("recent-legacy") => Self::RecentLegacy,
            Ok("recent-nft") => Self::RecentNft,
            Ok("nftables") | Err(_) => Self::Nftables,
            Ok(other) => panic!("KNOCK_AGENT_TEST_FIREWALL: there is no {other}"),
        })
    }

    /// Runs a scenario on this firewall.
    pub fn run(self, scenario: impl FnOnce()) {
        let before = CURRENT.replace(Some(self));
        scenario();
        CURRENT.set(before);
    }

    /// The flags of the agent's verbs that choose it.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Nftables => &[],
            Self::IptablesLegacy => &["--firewall-type", "iptables", "--iptables-variant", "legacy"],
            Self::IptablesNft => &["--firewall-type", "iptables", "--iptables-variant", "nft"],
            Self::RecentLegacy => {
                &["--firewall-type", "iptables", "--iptables-variant", "legacy", "--without-ipset"]
            }
            Self::RecentNft => {
                &["--firewall-type", "iptables", "--iptables-variant", "nft", "--without-ipset"]
            }
        }
    }

    /// Whether it is iptables of either kind.
    pub fn is_iptables(self) -> bool {
        self != Self::Nftables
    }

    /// Whether it is iptables without ipset.
    pub fn is_recent(self) -> bool {
        matches!(self, Self::RecentLegacy | Self::RecentNft)
    }

    /// The program of that verb (`save`, `restore`, or none for the command itself) for a family (4 or 6).
    pub fn program(self, family: char, verb: &str) -> String {
        let stem = if family == '4' { "iptables" } else { "ip6tables" };
        let variant = if matches!(self, Self::IptablesNft | Self::RecentNft) { "nft" } else { "legacy" };
        if verb.is_empty() { format!("{stem}-{variant}") } else { format!("{stem}-{variant}-{verb}") }
    }
}

/// Makes a test of each scenario for every firewall: `<scenario>::nftables`, `::iptables_legacy`, `::iptables_nft`.
macro_rules! on_every_firewall {
    ($($scenario:ident),+ $(,)?) => { $(
        mod $scenario {
            use crate::backend::Backend;

            #[test]
            fn nftables() {
                Backend::Nftables.run(super::$scenario);
            }

            #[test]
            fn iptables_legacy() {
                Backend::IptablesLegacy.run(super::$scenario);
            }

            #[test]
            fn iptables_nft() {
                Backend::IptablesNft.run(super::$scenario);
            }
        }
    )+ };
}

/// The same for what only concerns iptables: `<scenario>::iptables_legacy`, `::iptables_nft`.
macro_rules! on_both_iptables {
    ($($scenario:ident),+ $(,)?) => { $(
        mod $scenario {
            use crate::backend::Backend;

            #[test]
            fn iptables_legacy() {
                Backend::IptablesLegacy.run(super::$scenario);
            }

            #[test]
            fn iptables_nft() {
                Backend::IptablesNft.run(super::$scenario);
            }
        }
    )+ };
}

/// Makes tests of scenarios for iptables without ipset: `without_ipset::<scenario>::legacy`, `::nft`.
macro_rules! without_ipset {
    ($($scenario:ident),+ $(,)?) => {
        mod without_ipset { $(
            mod $scenario {
                use crate::backend::Backend;

                #[test]
                fn legacy() {
                    Backend::RecentLegacy.run(super::super::$scenario);
                }

                #[test]
                fn nft() {
                    Backend::RecentNft.run(super::super::$scenario);
                }
            }
        )+ }
    };
}

pub(crate) use {on_both_iptables, on_every_firewall, without_ipset};
