//! Docker: chains of its own are never edited, but each backend has a place for what others admit.

use super::{Admission, Need, iptables};
use crate::ruleset::audit::host::HostFamily;

/// The nftables backend has a flag for a mark.
pub(super) fn admit_nft(need: &Need<'_>) -> Vec<String> {
    match need.admission {
        Admission::Mark(mark) => vec![
            format!(
                "# start dockerd with --bridge-accept-fwmark={:#x}/{:#x}, or in /etc/docker/daemon.json: \"bridge-accept-fwmark\": \"{:#x}/{:#x}\"; then",
                mark.value(),
                mark.mask(),
                mark.value(),
                mark.mask()
            ),
            "systemctl restart docker".to_owned(),
        ],
        Admission::Ports => vec!["# publish the port: docker run -p, or ports: in compose.yaml".to_owned()],
    }
}

/// The iptables backend calls a chain of the operator's before its own.
pub(super) fn admit_iptables(need: &Need<'_>) -> Vec<String> {
    let tool = match need.table.family {
        HostFamily::Ip6 => "ip6tables",
        _ => "iptables",
    };
    let mut out: Vec<String> = iptables::matches(need)
        .iter()
        .map(|what| format!("{tool} -I DOCKER-USER {what} -j ACCEPT"))
        .collect();
    out.push(
        "# to keep it: a unit with After=docker.service that runs the same (Docker keeps what is in DOCKER-USER until a reboot)"
            .to_owned(),
    );
    out
}
