//! OpenWrt: fw4 puts the files of a folder into its chains at every reload.

use super::{Need, nft};
use crate::ruleset::audit::host::{Host, HostHook};

pub(super) fn admit(host: &Host, need: &Need<'_>) -> Vec<String> {
    let chain = zone_chain(host, need).unwrap_or(need.chain);
    let folder = format!("/usr/share/nftables.d/chain-pre/{chain}");
    let file = format!("{folder}/knock-agent.nft");
    let mut out = vec![format!("mkdir -p {folder}")];
    for (index, rule) in nft::rules(need).iter().enumerate() {
        let into = if index == 0 { ">" } else { ">>" };
        out.push(format!("echo '{}' {into} {file}", rule.replace('\'', "")));
    }
    out.push(format!("echo {file} >> /etc/sysupgrade.conf"));
    out.push("fw4 reload".to_owned());
    out
}

/// fw4 jumps from a hook to one chain for each zone, such as `input_wan`.
fn zone_chain<'a>(host: &Host, need: &Need<'a>) -> Option<&'a str> {
    let stem = match need.hook {
        HostHook::Input => "input_",
        HostHook::Forward => "forward_",
        HostHook::Output => "output_",
        HostHook::Ingress | HostHook::Prerouting | HostHook::Postrouting | HostHook::Egress => return None,
    };
    let mut zones = need.visited.iter().filter(|name| name.starts_with(stem));
    let zone = zones.next()?;
    // Where packets of several zones are lost, the base chain is the place for them all.
    let only = zones.next().is_none() && host.chain(need.table, zone).is_some();
    only.then_some(zone.as_str())
}
