//! Uncomplicated Firewall: lines in the files of rules that come before its own.

use super::{Need, iptables};
use crate::ruleset::audit::host::{HostFamily, HostHook};

pub(super) fn admit(need: &Need<'_>) -> Vec<String> {
    let direction = match need.hook {
        HostHook::Input => "input",
        HostHook::Forward => "forward",
        HostHook::Output => "output",
        HostHook::Ingress | HostHook::Prerouting | HostHook::Postrouting | HostHook::Egress => {
            return iptables::admit(need, "iptables", need.chain);
        }
    };
    let (file, prefix) = match need.table.family {
        HostFamily::Ip6 => ("/etc/ufw/before6.rules", "ufw6"),
        _ => ("/etc/ufw/before.rules", "ufw"),
    };
    let mut out: Vec<String> = iptables::matches(need)
        .iter()
        .map(|what| {
            let line = format!("-A {prefix}-before-{direction} {what} -j ACCEPT");
            format!("sed -i '/^# End required lines/a {line}' {file}")
        })
        .collect();
    out.push("ufw reload".to_owned());
    out
}
