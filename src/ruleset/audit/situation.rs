//! What an audit is told about the machine; whoever reads it is elsewhere.

use std::net::IpAddr;

use super::host::Host;
use crate::ruleset::iptables::model::{CHAIN_PREFIX, SET_PREFIX};
use crate::ruleset::model::TABLE;
use crate::units::{Family, Protocol};

/// An interface of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostInterface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether it is a bridge.
    pub is_bridge: bool,
    /// Whether a program sees its packets before anything else does (XDP).
    pub has_xdp: bool,
    /// Whether nothing goes through it.
    pub is_down: bool,
    /// Whether hardware addresses are asked for on it.
    pub has_neighbours: bool,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
}

/// A port that somebody listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address, which may be unspecified.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Who, where that can be told.
    pub process: Option<Process>,
}

/// Everything an audit judges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// What is loaded.
    pub host: Host,
    /// The interfaces.
    pub interfaces: Vec<HostInterface>,
    /// Who listens; none: it cannot be read.
    pub listeners: Option<Vec<Listener>>,
    /// Tables of iptables-legacy, as `ip filter` or `ip6 nat`.
    pub legacy_tables: Vec<String>,
    /// Files that are loaded at boot or on reload and begin by flushing everything.
    pub flushing_files: Vec<String>,
    /// Files that are loaded at boot and have what is ours in them.
    pub saved_files: Vec<SavedFile>,
}

/// A file that is loaded at boot, in which somebody saved our rules or sets with the host's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedFile {
    /// Where it is.
    pub file: String,
    /// What wrote it.
    pub saver: Saver,
}

/// Programs that save rules and sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saver {
    /// nft.
    Nft,
    /// iptables and ip6tables.
    Iptables,
    /// ipset.
    Ipset,
}

impl Saver {
    /// Whether what is ours is in a text that it wrote.
    #[must_use]
    pub fn has_ours(self, text: &str) -> bool {
        let has = |line: &str| match self {
            Self::Nft => line.split_whitespace().take(4).eq(["table", "inet", TABLE, "{"]),
            Self::Iptables => line.contains(CHAIN_PREFIX),
            Self::Ipset => line.split(' ').nth(1).is_some_and(|name| name.starts_with(SET_PREFIX)),
        };
        text.lines().map(str::trim).any(|line| !line.starts_with('#') && has(line))
    }
}

impl Situation {
    /// The interface of that name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&HostInterface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The interface in whose network an address is.
    #[must_use]
    pub fn towards(&self, addr: IpAddr) -> Option<&HostInterface> {
        self.interfaces.iter().find(|interface| {
            interface.addresses.iter().any(|&(own, prefix)| {
                crate::units::Network::around(own, prefix).is_ok_and(|network| {
                    Family::of(addr) == network.family() && network.first() <= addr && addr <= network.last()
                })
            })
        })
    }

    /// Whether an address is one of this host's.
    #[must_use]
    pub fn is_own(&self, addr: IpAddr) -> bool {
        addr.is_loopback()
            || self.interfaces.iter().any(|interface| interface.addresses.iter().any(|&(own, _)| own == addr))
    }
}

impl HostInterface {
    /// An address of a family by which clients could reach it.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.reachable(family).next()
    }

    /// All of these.
    pub fn reachable(&self, family: Family) -> impl Iterator<Item = IpAddr> {
        let all = self.addresses.iter().map(|&(addr, _)| addr);
        all.filter(move |&addr| Family::of(addr) == family && !is_link_local(addr))
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_in_a_saved_file_is_told_from_what_only_names_it() {
        for (saver, ours, others) in [
            (
                Saver::Nft,
                "table inet knock_agent { # handle 7\n}",
                "# table inet knock_agent {\ndelete table inet knock_agent\n",
            ),
            (
                Saver::Iptables,
                "*mangle\n:KA-gate - [0:0]\nCOMMIT",
                "*filter\n:INPUT DROP [0:0]\n# KA-gate\nCOMMIT",
            ),
            (Saver::Ipset, "create ka_app_ssh_4 hash:ip", "create banned hash:ip comment \"ka_\""),
        ] {
            assert!(saver.has_ours(ours) && !saver.has_ours(others), "{saver:?}");
        }
    }
}
