//! iptables, in its nf_tables and its legacy variant.

use super::nft::with_separator;
use super::{Admission, Door, Need, Owner, Spot};
use crate::ruleset::audit::host::HostFamily;
use crate::units::Mark;

/// Lines that put a rule into a chain.
pub(super) fn admit(need: &Need<'_>, tool: &str, chain: &str) -> Vec<String> {
    let mut out = insert(need, tool, chain);
    let how = [
        "# to keep it: the same lines wherever this host's rules are written, such as /etc/iptables/rules.v4",
        "# (not netfilter-persistent save: with --firewall-type iptables that saves knock-agent's rules too, and the file may not load at the next boot; iptables-save | grep -v KA- leaves them out)",
    ];
    out.extend(how.map(str::to_owned));
    out
}

pub(super) fn insert(need: &Need<'_>, tool: &str, chain: &str) -> Vec<String> {
    let tool = match need.table.family {
        HostFamily::Ip6 => tool.replacen("ip", "ip6", 1),
        _ => tool.to_owned(),
    };
    let table = match need.table.table.as_str() {
        "filter" => String::new(),
        other => format!("-t {other} "),
    };
    // Where only the policy is in the way, behind everything that the host decides itself.
    let how = if need.spot() == Spot::Last && chain == need.chain { "-A" } else { "-I" };
    matches(need).into_iter().map(|what| format!("{tool} {table}{how} {chain} {what} -j ACCEPT")).collect()
}

/// What tells our packets, in iptables' words.
pub(super) fn matches(need: &Need<'_>) -> Vec<String> {
    match need.admission {
        Admission::Mark(mark) => vec![by_mark(mark)],
        Admission::Ports => need
            .passers()
            .iter()
            .filter(|passer| match (passer.owner, need.table.family) {
                (Owner::Host(addr), HostFamily::Ip) => addr.is_ipv4(),
                (Owner::Host(addr), HostFamily::Ip6) => addr.is_ipv6(),
                (Owner::Host(_) | Owner::Plain | Owner::Here, _) => true,
            })
            .map(|passer| {
                let (side, flag) = if passer.is_source { ("sport", 's') } else { ("dport", 'd') };
                let whose = match passer.owner {
                    Owner::Plain => String::new(),
                    Owner::Here => "-m addrtype --dst-type LOCAL ".to_owned(),
                    Owner::Host(addr) => format!("-{flag} {addr} "),
                };
                let (by, protocol) = (by_door(passer.door.as_ref()), passer.protocol);
                format!("{by}{whose}-p {protocol} --{side} {}", with_separator(passer.ports, ':'))
            })
            .collect(),
    }
}

pub(super) fn by_door(door: Option<&Door>) -> String {
    door.map(|door| format!("-{} {} ", if door.is_out { 'o' } else { 'i' }, door.name)).unwrap_or_default()
}

pub(super) fn by_mark(mark: Mark) -> String {
    if mark.mask() == u32::MAX {
        format!("-m mark --mark {}", mark.value())
    } else {
        format!("-m mark --mark {:#x}/{:#x}", mark.value(), mark.mask())
    }
}
