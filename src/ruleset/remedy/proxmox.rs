//! Proxmox VE: its chains are written anew every few seconds, the base chains of iptables are not.

use super::nft::with_separator;
use super::{Admission, Need, iptables};
use crate::ruleset::audit::host::HostHook;

pub(super) fn admit(need: &Need<'_>) -> Vec<String> {
    let mut out = iptables::insert(need, "iptables", need.chain);
    out.push(
        "# to keep it, write the same as post-up lines of the outside interface in /etc/network/interfaces"
            .to_owned(),
    );
    out
}

/// The nftables variant writes its whole table anew: the ports go into the configuration, and the gate
/// in front of it guards them.
pub(super) fn admit_nft(need: &Need<'_>) -> Vec<String> {
    let need = Need { admission: Admission::Ports, ..*need };
    let direction = if need.hook == HostHook::Output { "OUT" } else { "IN" };
    let file = "/etc/pve/local/host.fw";
    let mut out = vec![format!("grep -q '^\\[RULES\\]' {file} || echo '[RULES]' >> {file}")];
    out.extend(need.passers().iter().map(|passer| {
        let side = if passer.is_source { "sport" } else { "dport" };
        let ports = with_separator(passer.ports, ':');
        let by = passer.door.as_ref().map(|door| format!("-i {} ", door.name)).unwrap_or_default();
        format!(
            "sed -i '/^\\[RULES\\]/a {direction} ACCEPT {by}-p {} -{side} {ports}' {file}",
            passer.protocol
        )
    }));
    out
}
