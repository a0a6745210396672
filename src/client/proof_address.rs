//! As which address the gateway sees this host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::ProofAddress;

/// That address, where it can be told: it cannot where something on the way translates it.
///
/// `all` are the addresses that the gateway's name leads to.
pub(super) fn seen_as(wanted: ProofAddress, own: IpAddr, gateway: IpAddr, all: &[IpAddr]) -> Option<IpAddr> {
    match wanted {
        ProofAddress::None => None,
        ProofAddress::Is(address) if address.is_ipv4() == own.is_ipv4() => Some(address),
        ProofAddress::Is(_) | ProofAddress::Auto if is_translated(own, gateway, all) => None,
        ProofAddress::Is(_) | ProofAddress::Auto => Some(own),
    }
}

/// A private address is, on the way to a public one; one that only begins a tunnel always is; and so is IPv6 that becomes
/// IPv4 on the way.
fn is_translated(own: IpAddr, gateway: IpAddr, all: &[IpAddr]) -> bool {
    let becomes_v4 = match gateway {
        IpAddr::V4(_) => false,
        IpAddr::V6(gateway) => is_of_nat64(gateway) || all.iter().any(|other| stands_for(gateway, *other)),
    };
    (is_private(own) && !is_private(gateway)) || begins_a_tunnel(own) || becomes_v4
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            // 100.64.0.0/10 is for the NAT of carriers (RFC 6598).
            let carrier = first == 100 && second & 0xc0 == 64;
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || carrier
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// 192.0.0.0/29 is what a host in a network without IPv4 calls itself (464XLAT, DS-Lite: RFC 7335), 198.18.0.0/15 what programs
/// that send all connections through a tunnel hand out, for the gateway as well. No gateway sees either.
fn begins_a_tunnel(own: IpAddr) -> bool {
    let IpAddr::V4(own) = own else { return false };
    let bits = own.to_bits();
    bits >> 3 == Ipv4Addr::new(192, 0, 0, 0).to_bits() >> 3
        || bits >> 17 == Ipv4Addr::new(198, 18, 0, 0).to_bits() >> 17
}

/// `64:ff9b::/96` and `64:ff9b:1::/48` (RFC 6052, RFC 8215).
fn is_of_nat64(gateway: Ipv6Addr) -> bool {
    matches!(gateway.segments(), [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..])
}

/// Whether an IPv6 address holds an IPv4 address as NAT64 writes it behind a provider's own prefix, of whatever length
/// (RFC 6052, section 2.2).
fn stands_for(gateway: Ipv6Addr, other: IpAddr) -> bool {
    let IpAddr::V4(other) = other else { return false };
    let [.., a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15] = gateway.octets();
    let behind_shorter =
        [[a4, a5, a6, a7], [a5, a6, a7, a9], [a6, a7, a9, a10], [a7, a9, a10, a11], [a9, a10, a11, a12]];
    let octets = other.octets();
    octets == [a12, a13, a14, a15] || (a8 == 0 && behind_shorter.contains(&octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(wanted: ProofAddress, own: &str, gateway: &str, all: &[&str]) -> Option<String> {
        let all: Vec<IpAddr> = all.iter().map(|address| address.parse().unwrap()).collect();
        seen_as(wanted, own.parse().unwrap(), gateway.parse().unwrap(), &all).map(|seen| seen.to_string())
    }

    #[test]
    fn a_proof_names_the_address_that_the_gateway_is_bound_to_see() {
        let auto = ProofAddress::Auto;
        for (own, gateway, seen_address) in [
            ("192.168.1.5", "203.0.113.1", None),
            ("100.64.3.4", "203.0.113.1", None),
            ("192.168.1.5", "192.168.1.1", Some("192.168.1.5")),
            ("198.51.100.7", "203.0.113.1", Some("198.51.100.7")),
            ("fd00::5", "2001:db8::1", None),
            ("2001:db8::5", "2001:db8::1", Some("2001:db8::5")),
        ] {
            assert_eq!(seen(auto, own, gateway, &[gateway]).as_deref(), seen_address, "{own} {gateway}");
        }
        assert_eq!(seen(ProofAddress::None, "2001:db8::5", "2001:db8::1", &[]), None);
        let nat = ProofAddress::Is("198.51.100.7".parse().unwrap());
        assert_eq!(seen(nat, "10.0.0.5", "203.0.113.1", &[]).as_deref(), Some("198.51.100.7"));
        assert_eq!(seen(nat, "192.0.0.2", "203.0.113.1", &[]).as_deref(), Some("198.51.100.7"));
        assert_eq!(seen(nat, "2001:db8::5", "2001:db8::1", &[]).as_deref(), Some("2001:db8::5"));
    }

    #[test]
    fn a_proof_names_no_address_that_only_begins_a_tunnel() {
        for (own, named) in [
            ("192.0.0.0", false),
            ("192.0.0.2", false),
            ("192.0.0.7", false),
            ("192.0.0.8", true),
            ("192.0.2.2", true),
            ("198.18.0.1", false),
            ("198.19.255.1", false),
            ("198.20.0.1", true),
            ("198.17.255.1", true),
        ] {
            for gateway in ["203.0.113.1", "198.18.0.9"] {
                let told = seen(ProofAddress::Auto, own, gateway, &[gateway]);
                assert_eq!(told.is_some(), named, "{own} {gateway}");
            }
        }
    }

    #[test]
    fn a_proof_names_no_address_where_ipv6_becomes_ipv4_on_the_way() {
        let own = "2001:db8:5::5";
        let auto = |gateway: &str, all: &[&str]| seen(ProofAddress::Auto, own, gateway, all);
        assert_eq!(auto("64:ff9b::c000:201", &[]), None);
        assert_eq!(auto("64:ff9b:1:2:3:4:c000:201", &[]), None);
        assert!(auto("64:ff9c::c000:201", &[]).is_some());
        assert!(auto("64:ff9b:2::c000:201", &[]).is_some());
        // 192.0.2.33 behind prefixes of all lengths: the examples of RFC 6052, section 2.4.
        for synthesized in [
            "2001:db8:c000:221::",
            "2001:db8:1c0:2:21::",
            "2001:db8:122:c000:2:2100::",
            "2001:db8:122:3c0:0:221::",
            "2001:db8:122:344:c0:2:2100::",
            "2001:db8:122:344::192.0.2.33",
        ] {
            assert_eq!(auto(synthesized, &["192.0.2.33", synthesized]), None, "{synthesized}");
            assert!(auto(synthesized, &["192.0.2.34", synthesized]).is_some(), "{synthesized}");
        }
    }
}
