//! Tunnels that take packets from whoever sends them, and what comes out of which is not guarded.

use std::collections::BTreeSet;

use crate::ruleset::audit::{Finding, Severity};
use crate::sys::interfaces::InterfaceState;
use crate::units::IfName;

/// The kinds that ask nobody for a key, as `ip -d link` names them.
const OPEN: [&str; 14] = [
    "vxlan",
    "geneve",
    "bareudp",
    "gre",
    "gretap",
    "erspan",
    "ip6gre",
    "ip6gretap",
    "ip6erspan",
    "ipip",
    "ip6tnl",
    "sit",
    "vti",
    "vti6",
];

/// One finding for each that is up and not named; keyed ones, such as WireGuard, are for their owner to trust.
pub(super) fn findings(named: &BTreeSet<IfName>, present: &[InterfaceState]) -> Vec<Finding> {
    let is_named = |name: &str| named.iter().any(|named| named.as_str() == name);
    let is_open = |have: &&InterfaceState| !have.is_down && OPEN.contains(&have.kind.as_str());
    let tunnels = present.iter().filter(is_open).filter_map(|have| {
        // Its packets come in by the bridge that it is a port of.
        let by = have.port_of.as_deref().unwrap_or(&have.name);
        (!is_named(by)).then(|| finding(have, by))
    });
    tunnels.collect()
}

fn finding(tunnel: &InterfaceState, by: &str) -> Finding {
    let InterfaceState { name, kind, .. } = tunnel;
    Finding {
        severity: Severity::Warning,
        code: "open-tunnel",
        message: format!(
            "{name} is a tunnel ({kind}) that asks nobody for a key: whoever can send it packets comes in by {by}, where nothing is guarded"
        ),
        fix: format!(
            "# unless the tunnel is inside IPsec, or takes packets from your own network only: interface_ext: [..., {by}]"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_without_a_key_is_told_unless_it_is_guarded_or_off() {
        let state = |name: &str, kind: &str| InterfaceState {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..InterfaceState::default()
        };
        let off = InterfaceState { is_down: true, ..state("gre0", "gre") };
        let port = InterfaceState { port_of: Some("br0".to_owned()), ..state("vx1", "vxlan") };
        let all = [state("eth0", ""), state("vx0", "vxlan"), state("wg0", "wireguard"), off, port];
        let told = |named: &[&str]| -> Vec<String> {
            let named = named.iter().map(|name| name.parse().unwrap()).collect();
            findings(&named, &all).into_iter().map(|finding| finding.message).collect()
        };
        let both = told(&["eth0"]);
        assert!(
            both.len() == 2 && both[0].starts_with("vx0 ") && both[1].contains("comes in by br0"),
            "{both:?}"
        );
        assert_eq!(told(&["eth0", "vx0", "br0"]), [""; 0]);
    }
}
