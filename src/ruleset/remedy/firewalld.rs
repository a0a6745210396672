//! firewalld: it can match no marks, so the ports are opened in the zone, and the gate in front of it
//! guards them.

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
    let mut out: Vec<String> = need
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
    out.push("firewall-cmd --reload".to_owned());
    out
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
