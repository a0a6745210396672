//! Whose rules they are, by the names of tables and chains.

use crate::ruleset::audit::host::{Host, HostFamily, TableRef};

/// A program that writes firewall rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Somebody's own nft rules, such as `/etc/nftables.conf`.
    PlainNft,
    /// VyOS 1.4 and later.
    Vyos14,
    /// VyOS 1.3.
    Vyos13,
    /// OpenWrt 22.03 and later.
    Fw4,
    /// Uncomplicated Firewall.
    Ufw,
    /// firewalld with nftables.
    Firewalld,
    /// Docker with its nftables backend.
    DockerNft,
    /// Docker with its iptables backend.
    DockerIptables,
    /// Proxmox VE's firewall, by iptables.
    Proxmox,
    /// Proxmox VE's firewall, by nftables.
    ProxmoxNft,
    /// libvirt's networks.
    Libvirt,
    /// fail2ban.
    Fail2ban,
    /// CrowdSec's firewall bouncer.
    Crowdsec,
    /// Somebody's own iptables rules.
    Iptables,
}

impl Program {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PlainNft => "nftables",
            Self::Vyos14 => "VyOS 1.4 or later",
            Self::Vyos13 => "VyOS 1.3",
            Self::Fw4 => "OpenWrt fw4",
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::DockerNft => "Docker (nftables)",
            Self::DockerIptables => "Docker (iptables)",
            Self::Proxmox => "Proxmox VE",
            Self::ProxmoxNft => "Proxmox VE (nftables)",
            Self::Libvirt => "libvirt",
            Self::Fail2ban => "fail2ban",
            Self::Crowdsec => "CrowdSec",
            Self::Iptables => "iptables",
        }
    }
}

/// The chains that iptables itself makes.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
const IPTABLES_TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// Who wrote a base chain.
#[must_use]
pub fn program_of(host: &Host, table: &TableRef, chain: &str) -> Program {
    match (table.family, table.table.as_str()) {
        (HostFamily::Inet, "fw4") => Program::Fw4,
        (_, "firewalld") => Program::Firewalld,
        (_, "docker-bridges") => Program::DockerNft,
        (_, name) if name.starts_with("vyos_") || name == "vrf_zones" => Program::Vyos14,
        _ if chain.starts_with("VYOS_") || chain.starts_with("vyos_") => Program::Vyos14,
        (_, "libvirt_network") => Program::Libvirt,
        (_, name) if name.starts_with("proxmox-firewall") => Program::ProxmoxNft,
        (_, name) if name.starts_with("f2b-") => Program::Fail2ban,
        (_, "crowdsec" | "crowdsec6") => Program::Crowdsec,
        (HostFamily::Ip | HostFamily::Ip6, name)
            if IPTABLES_TABLES.contains(&name) && BUILT_IN.contains(&chain) =>
        {
            of_iptables(host, table, chain)
        }
        _ => Program::PlainNft,
    }
}

/// Several programs write to the same tables of iptables; chains of their own tell them apart.
fn of_iptables(host: &Host, table: &TableRef, chain: &str) -> Program {
    let signs: [(&str, Program); 7] = [
        ("VYATTA_", Program::Vyos13),
        ("ufw-", Program::Ufw),
        ("ufw6-", Program::Ufw),
        ("PVEFW-", Program::Proxmox),
        ("DOCKER-USER", Program::DockerIptables),
        ("DOCKER", Program::DockerIptables),
        ("LIBVIRT_", Program::Libvirt),
    ];
    let sign = signs.into_iter().find(|(start, _)| host.has_chain_like(table, start));
    match sign {
        // Docker and libvirt write to the chains of what is forwarded; the policy of others is somebody else's.
        Some((_, Program::DockerIptables | Program::Libvirt))
            if table.table == "filter" && chain != "FORWARD" =>
        {
            Program::Iptables
        }
        Some((_, program)) => program,
        None => Program::Iptables,
    }
}

/// Everybody whose rules are loaded.
#[must_use]
pub fn programs(host: &Host) -> Vec<Program> {
    let mut out: Vec<Program> = host
        .chains
        .iter()
        .filter(|chain| chain.base.is_some())
        .map(|chain| program_of(host, &chain.table, &chain.name))
        .collect();
    out.sort();
    out.dedup();
    out
}
