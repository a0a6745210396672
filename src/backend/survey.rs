//! What else on this host filters packets: everybody's tables, chains, rules and sets, and what is beside them.
//!
//! Two readings that must agree: rustables lists tables and chains, and our own decoder
//! reads what rustables 0.9 gets wrong (it takes every policy for accept) or does not
//! tell (the family of a table, most of what rules are made of).

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::BackendError;
use super::nftables::Nftables;
use crate::ruleset::audit::host::{Host, HostFamily, TableRef};
use crate::ruleset::audit::situation::{HostInterface, Listener, Process, SavedFile, Saver, Situation};
use crate::ruleset::model::TABLE;
use crate::sys::{interfaces, listeners};
use crate::units::Protocol;

/// What was found, and whether both readings found the same.
#[derive(Clone, Debug)]
pub struct Survey {
    /// What was found.
    pub situation: Situation,
    /// What the other reading has against it.
    pub doubt: Option<String>,
}

/// Files that load rules at boot or on reload, and what shows that somebody does load them.
const RULE_FILES: [(&str, &[&str]); 3] = [
    ("/etc/nftables.conf", &["/etc/systemd/system/sysinit.target.wants/nftables.service"]),
    ("/etc/sysconfig/nftables.conf", &["/etc/systemd/system/multi-user.target.wants/nftables.service"]),
    ("/etc/nftables.nft", &["/etc/runlevels/default/nftables", "/etc/runlevels/boot/nftables"]),
];

/// Surveys the host.
///
/// # Errors
/// [`BackendError`] when the kernel's tables cannot be read; the rest is taken as far as it can be read.
pub fn survey(nft: &mut Nftables) -> Result<Survey, BackendError> {
    let ours = |family: HostFamily, table: &str| family == HostFamily::Inet && table == TABLE;
    // Our own sets are left out, and a million grants take half a minute to read.
    let mut host = nft.host_without(&|table, _| ours(table.family, &table.table))?;
    host.chains.retain(|chain| !ours(chain.table.family, &chain.table.table));
    host.sets.retain(|(table, _), _| !ours(table.family, &table.table));
    let doubt = doubt(&host);
    let situation = Situation {
        host,
        interfaces: interfaces(),
        listeners: listeners(),
        legacy_tables: legacy_tables(),
        flushing_files: flushing_files(),
        saved_files: saved_files(),
    };
    Ok(Survey { situation, doubt })
}

/// The host with everybody's rules, ours included, as far as it concerns these addresses; `skip` names sets of ours
/// whose elements are only looked up.
///
/// # Errors
/// [`BackendError`] when the kernel's tables cannot be read; the rest is taken as far as it can be read.
pub fn whole(
    nft: &mut Nftables,
    addresses: &[IpAddr],
    skip: &dyn Fn(&str) -> bool,
) -> Result<Situation, BackendError> {
    let ours = |table: &TableRef| table.family == HostFamily::Inet && table.table == TABLE;
    let mut host = nft.host_without(&|table, set| ours(table) && skip(set))?;
    nft.look_up(&mut host, addresses)?;
    Ok(Situation {
        host,
        interfaces: interfaces(),
        listeners: listeners(),
        legacy_tables: legacy_tables(),
        flushing_files: Vec::new(),
        saved_files: Vec::new(),
    })
}

fn doubt(host: &Host) -> Option<String> {
    let theirs = match by_rustables() {
        Err(error) => return Some(format!("the host's tables cannot be listed by rustables: {error}")),
        Ok(theirs) => theirs,
    };
    let known = |(table, chain): &(String, String)| {
        let sleeps = host.dormant.iter().any(|dormant| dormant.table == *table);
        sleeps
            || host
                .chains
                .iter()
                .any(|have| have.base.is_some() && have.table.table == *table && have.name == *chain)
    };
    theirs
        .iter()
        .find(|name| !known(name))
        .map(|(table, chain)| format!("base chain {chain} of table {table} cannot be read"))
}

/// Table and name of every base chain on the input, forward and output hooks but ours.
fn by_rustables() -> Result<BTreeSet<(String, String)>, rustables::error::QueryError> {
    let mut out = BTreeSet::new();
    for table in rustables::list_tables()? {
        let Some(name) = table.get_name().filter(|name| *name != TABLE) else { continue };
        for chain in rustables::list_chains_for_table(&table)? {
            let hook = chain.get_hook().and_then(|hook| hook.get_class());
            // NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_INET_LOCAL_OUT (`linux/netfilter.h`); families
            // that number their hooks otherwise (arp, bridge, netdev) filter no routed packets.
            let filters = matches!(hook, Some(1..=3)) && ip_family(&table);
            if let (true, Some(chain)) = (filters, chain.get_name()) {
                out.insert((name.clone(), chain.clone()));
            }
        }
    }
    Ok(out)
}

/// rustables keeps a table's family to itself, but compares it.
fn ip_family(table: &rustables::Table) -> bool {
    use rustables::ProtocolFamily::{Inet, Ipv4, Ipv6};
    [Inet, Ipv4, Ipv6].into_iter().any(|family| {
        let mut same = rustables::Table::new(family);
        if let Some(name) = table.get_name() {
            same.set_name(name.clone());
        }
        if let Some(flags) = table.get_flags() {
            same.set_flags(*flags);
        }
        if let Some(userdata) = table.get_userdata() {
            same.set_userdata(userdata.clone());
        }
        same == *table
    })
}

fn interfaces() -> Vec<HostInterface> {
    let states = interfaces::states().unwrap_or_default();
    states
        .into_iter()
        .map(|state| HostInterface {
            // Not /sys, which may be that of another network namespace.
            is_bridge: state.kind == "bridge",
            name: state.name,
            index: state.index,
            addresses: state.addresses,
            has_xdp: state.has_xdp,
            is_down: state.is_down,
            has_neighbours: state.has_neighbours,
        })
        .collect()
}

fn listeners() -> Option<Vec<Listener>> {
    let found = listeners::listening().ok()?;
    Some(
        found
            .into_iter()
            .map(|socket| Listener {
                protocol: if socket.is_tcp { Protocol::Tcp } else { Protocol::Udp },
                address: socket.address,
                port: socket.port,
                process: socket.process.map(|(pid, name)| Process { pid, name }),
            })
            .collect(),
    )
}

/// The kernel names the tables of iptables-legacy that were ever touched in this network namespace.
fn legacy_tables() -> Vec<String> {
    let mut out = Vec::new();
    for (file, family) in [("ip_tables_names", "ip"), ("ip6_tables_names", "ip6")] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        out.extend(text.lines().map(|table| format!("{family} {table}")));
    }
    out
}

/// Files that rules and sets are loaded from at boot where they are there.
const SAVED: [(&str, Saver); 14] = [
    ("/etc/iptables/rules.v4", Saver::Iptables),
    ("/etc/iptables/rules.v6", Saver::Iptables),
    ("/etc/iptables/iptables.rules", Saver::Iptables),
    ("/etc/iptables/ip6tables.rules", Saver::Iptables),
    ("/etc/sysconfig/iptables", Saver::Iptables),
    ("/etc/sysconfig/ip6tables", Saver::Iptables),
    ("/etc/iptables/ipsets", Saver::Ipset),
    ("/etc/sysconfig/ipset", Saver::Ipset),
    // OpenRC, of Alpine and Gentoo.
    ("/etc/iptables/rules-save", Saver::Iptables),
    ("/etc/iptables/rules6-save", Saver::Iptables),
    ("/var/lib/iptables/rules-save", Saver::Iptables),
    ("/var/lib/ip6tables/rules-save", Saver::Iptables),
    ("/var/lib/ipset/rules-save", Saver::Ipset),
    ("/var/lib/nftables/rules-save", Saver::Nft),
];

/// Files that are loaded at boot and have rules or sets of ours, saved while we ran.
#[must_use]
pub fn saved_files() -> Vec<SavedFile> {
    let by_nft = RULE_FILES.into_iter().filter(|(_, signs)| is_enabled(signs));
    let by_nft = by_nft.flat_map(|(file, _)| with_included(Path::new(file)));
    let all = by_nft.map(|file| (file, Saver::Nft));
    let all = all.chain(SAVED.into_iter().map(|(file, saver)| (PathBuf::from(file), saver)));
    all.filter(|(file, saver)| fs::read_to_string(file).is_ok_and(|text| saver.has_ours(&text)))
        .map(|(file, saver)| SavedFile { file: file.display().to_string(), saver })
        .collect()
}

/// A file of nft's, and those that it includes.
fn with_included(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut out = vec![file.to_owned()];
    // A comment may follow.
    let named = |line: &str| Some(line.trim().strip_prefix("include")?.split(['"', '\'']).nth(1)?.to_owned());
    for included in text.lines().filter_map(named) {
        match included.split_once('*') {
            None => out.push(PathBuf::from(included)),
            Some((before, after)) => {
                let folder = before.rsplit_once('/').map_or(".", |(folder, _)| folder);
                let found = fs::read_dir(folder).into_iter().flatten().flatten();
                let paths = found.map(|entry| entry.path());
                out.extend(paths.filter(|path| {
                    let path = path.to_string_lossy();
                    path.starts_with(before) && path.ends_with(after)
                }));
            }
        }
    }
    out
}

fn is_enabled(signs: &[&str]) -> bool {
    signs.iter().any(|sign| fs::symlink_metadata(sign).is_ok())
}

fn flushing_files() -> Vec<String> {
    let flushes = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.trim_start().starts_with("flush ruleset"))
    };
    RULE_FILES
        .into_iter()
        .filter(|(file, signs)| is_enabled(signs) && flushes(file))
        .map(|(file, _)| file.to_owned())
        .collect()
}
