//! libvirt: its networks' chains are made anew whenever a network starts.

use super::{Need, iptables, nft};
use crate::ruleset::audit::host::HostFamily;

pub(super) fn admit(need: &Need<'_>) -> Vec<String> {
    let by_nft = need.table.table == "libvirt_network"
        || !matches!(need.table.family, HostFamily::Ip | HostFamily::Ip6);
    let mut out = if by_nft {
        nft::insert(need, &nft::rules(need))
    } else {
        iptables::insert(need, "iptables", need.chain)
    };
    out.push(
        "# to keep it, run the same from /etc/libvirt/hooks/network when the second word is \"started\""
            .to_owned(),
    );
    out
}
