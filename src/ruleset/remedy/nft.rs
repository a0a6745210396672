//! Rules in nft's own language.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Admission, Door, Need, Owner, Passer, Spot};
use crate::ruleset::audit::host::{HostFamily, HostHook};
use crate::units::{Mark, PortRange};

/// The rule itself, without where it goes; several where ports of both protocols are concerned.
pub(super) fn rules(need: &Need<'_>) -> Vec<String> {
    match need.admission {
        Admission::Mark(mark) => vec![format!("{} accept", matcher(mark))],
        Admission::Ports => by_ports(need),
    }
}

/// A line for a shell that puts the rule where it belongs, and how it stays.
pub(super) fn admit(need: &Need<'_>) -> Vec<String> {
    let rules = rules(need);
    let mut out = insert(need, &rules);
    let (table, chain) = (need.table, need.chain);
    let spot = match need.spot() {
        Spot::First => "first",
        Spot::Last => "last",
        Spot::Before(_) => "right before the one that drops",
    };
    out.push(format!(
        "# to keep it, write it {spot} into chain {chain} of table {table} where that is defined, such as /etc/nftables.conf:"
    ));
    out.extend(rules.iter().map(|rule| format!("#   {}", rule.replace('\'', ""))));
    if let (Admission::Mark(_), HostHook::Input | HostHook::Forward | HostHook::Output) =
        (need.admission, need.hook)
    {
        out.push(format!(
            "# or have the daemon keep it there: run it with --nftables-table-filter {}",
            table.table
        ));
    }
    out
}

/// What only the program that made the table can do.
pub(super) fn admit_owned(need: &Need<'_>, port: Option<u32>) -> Vec<String> {
    let table = need.table;
    let who = match port {
        Some(port) => format!("which has the netlink port {port}, mostly its process: ps -p {port}"),
        None => "which is gone: start it again".to_owned(),
    };
    let mut out = vec![
        format!("# table {table} has `flags owner`: nobody can change it but the program that made it,"),
        format!("# {who}"),
        "# tell that program to do this, or to make its table without that flag:".to_owned(),
    ];
    let unquoted = |line: &String| line.replace('\'', "").trim_start_matches("nft ").to_owned();
    out.extend(insert(need, &rules(need)).iter().map(|line| format!("#   {}", unquoted(line))));
    out
}

pub(super) fn insert(need: &Need<'_>, rules: &[String]) -> Vec<String> {
    let (table, chain) = (need.table, need.chain);
    let line = |rule: &String| match need.spot() {
        Spot::First => format!("nft insert rule {table} {chain} {rule}"),
        Spot::Before(handle) => format!("nft insert rule {table} {chain} position {handle} {rule}"),
        Spot::Last => format!("nft add rule {table} {chain} {rule}"),
    };
    rules.iter().map(line).collect()
}

pub(super) fn matcher(mark: Mark) -> String {
    if mark.mask() == u32::MAX {
        format!("meta mark {}", mark.value())
    } else {
        format!("meta mark and {:#x} == {:#x}", mark.mask(), mark.value())
    }
}

fn by_ports(need: &Need<'_>) -> Vec<String> {
    let mut ports: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for Passer { owner, is_source, protocol, ports: range, door } in need.passers() {
        ports.entry((owner, is_source, protocol, door)).or_default().push(range.to_string());
    }
    // The same ports by several interfaces are one rule.
    let mut doors: BTreeMap<_, Vec<Door>> = BTreeMap::new();
    for ((owner, is_source, protocol, door), ports) in ports {
        doors.entry((owner, is_source, protocol, ports, door.is_some())).or_default().extend(door);
    }
    let mut out = Vec::new();
    for ((owner, is_source, protocol, ports, _), doors) in doors {
        let side = if is_source { 's' } else { 'd' };
        let lead = match owner {
            Owner::Plain => String::new(),
            Owner::Here => "fib daddr type local ".to_owned(),
            Owner::Host(addr @ IpAddr::V4(_)) => format!("ip {side}addr {addr} "),
            Owner::Host(addr @ IpAddr::V6(_)) => format!("ip6 {side}addr {addr} "),
        };
        let ports = match ports.as_slice() {
            [one] => one.clone(),
            several => format!("'{{ {} }}'", several.join(", ")),
        };
        out.push(format!("{}{lead}{protocol} {side}port {ports} accept", by_doors(need, &doors)));
    }
    out
}

/// The names are quoted, as some are words of nft's.
fn by_doors(need: &Need<'_>, doors: &[Door]) -> String {
    let Some(first) = doors.first() else { return String::new() };
    let which = match (need.table.family, first.is_out) {
        (HostFamily::Bridge, false) => "meta ibrname",
        (HostFamily::Bridge, true) => "meta obrname",
        (_, false) => "iifname",
        (_, true) => "oifname",
    };
    let names: Vec<String> = doors.iter().map(|door| format!("\"{}\"", door.name)).collect();
    match names.as_slice() {
        [one] => format!("{which} '{one}' "),
        several => format!("{which} '{{ {} }}' ", several.join(", ")),
    }
}

/// `22`, `6000:6010`: how iptables and firewalld-like programs write ports.
pub(super) fn with_separator(ports: PortRange, separator: char) -> String {
    if ports.is_single() {
        ports.first().to_string()
    } else {
        format!("{}{separator}{}", ports.first(), ports.last())
    }
}
