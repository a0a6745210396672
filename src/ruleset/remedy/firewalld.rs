//! firewalld: it can match no marks, so the ports are opened in the zone, and the gate in front of it
//! guards them, on outside interfaces.

use std::collections::BTreeSet;

use super::nft::with_separator;
use super::{Admission, Need, Owner};
use crate::ruleset::audit::host::HostHook;

pub(super) fn admit(need: &Need<'_>) -> Vec<String> {
    let need = Need { admission: Admission::Ports, ..*need };
    match need.hook {
        HostHook::Input => ports(&need, "--zone", &zone(&need)),
        HostHook::Forward => forward(&need),
        HostHook::Output => output(&need),
        HostHook::Ingress | HostHook::Prerouting | HostHook::Postrouting | HostHook::Egress => vec![
            "# firewalld checks here that packets come by the interface their source is reached by;".to_owned(),
            "# where routes are not symmetric: set IPv6_rpfilter=loose in /etc/firewalld/firewalld.conf, then".to_owned(),
            "firewall-cmd --reload".to_owned(),
        ],
    }
}

/// The zone whose chain the packets came through.
fn zone(need: &Need<'_>) -> String {
    need.visited
        .iter()
        .filter_map(|chain| chain.strip_prefix("filter_IN_"))
        .find(|name| !name.starts_with("policy_"))
        .map(|name| {
            ["_pre", "_log", "_deny", "_allow", "_post"].iter().fold(name, |n, end| n.trim_end_matches(end))
        })
        .unwrap_or("public")
        .to_owned()
}

fn ports(need: &Need<'_>, of: &str, whose: &str) -> Vec<String> {
    let mut lines: Vec<String> = need
        .passers()
        .iter()
        .map(|passer| {
            let kind = if passer.is_source { "source-port" } else { "port" };
            let (ports, protocol) = (with_separator(passer.ports, '-'), passer.protocol);
            let what = match passer.owner {
                Owner::Plain | Owner::Here => format!("--add-{kind}={ports}/{protocol}"),
                Owner::Host(addr) => {
                    let (side, family) = (
                        if passer.is_source { "source" } else { "destination" },
                        if addr.is_ipv4() { "ipv4" } else { "ipv6" },
                    );
                    format!(
                        "--add-rich-rule='rule family=\"{family}\" {side} address=\"{addr}\" {kind} port=\"{ports}\" protocol=\"{protocol}\" accept'"
                    )
                }
            };
            format!("firewall-cmd --permanent {of}={whose} {what}")
        })
        .collect();
    lines.dedup();
    let mut out = shared(need, of, whose);
    out.extend(lines);
    out.push("firewall-cmd --reload".to_owned());
    out
}

/// Its rules ask for zones, not for interfaces.
fn shared(need: &Need<'_>, of: &str, whose: &str) -> Vec<String> {
    let passers = need.passers();
    let doors: BTreeSet<&str> =
        passers.iter().filter_map(|passer| Some(passer.door.as_ref()?.name.as_str())).collect();
    let doors = doors.into_iter().collect::<Vec<_>>().join(", ");
    match of {
        _ if doors.is_empty() => Vec::new(),
        "--zone" => vec![
            format!("# this lets them in by every interface of zone {whose}, and only what comes in by {doors} is guarded:"),
            format!("#   firewall-cmd --zone={whose} --list-interfaces"),
            format!("# where that zone has others (the default zone has all that are in no other), first give {doors} a zone of its own"),
            "# (firewall-cmd --permanent --zone=external --change-interface=...), and run check-ruleset again".to_owned(),
        ],
        _ => vec![format!(
            "# this policy is for all zones, and only {doors} is guarded: name the zone of {doors} instead of ANY where others are there"
        )],
    }
}

/// Only with StrictForwardPorts: otherwise what is translated passes.
fn forward(need: &Need<'_>) -> Vec<String> {
    let mut out = vec![
        "firewall-cmd --permanent --new-policy=knock-agent".to_owned(),
        "firewall-cmd --permanent --policy=knock-agent --add-ingress-zone=ANY".to_owned(),
        "firewall-cmd --permanent --policy=knock-agent --add-egress-zone=ANY".to_owned(),
    ];
    out.extend(ports(need, "--policy", "knock-agent"));
    out
}

fn output(need: &Need<'_>) -> Vec<String> {
    let mut out = vec![
        "firewall-cmd --permanent --new-policy=knock-agent-out".to_owned(),
        "firewall-cmd --permanent --policy=knock-agent-out --add-ingress-zone=HOST".to_owned(),
        "firewall-cmd --permanent --policy=knock-agent-out --add-egress-zone=ANY".to_owned(),
        "firewall-cmd --permanent --policy=knock-agent-out --set-priority=-100".to_owned(),
    ];
    out.extend(ports(need, "--policy", "knock-agent-out"));
    out
}
