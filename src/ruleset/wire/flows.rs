//! What the kernel says about open connections: its sockets (`linux/inet_diag.h`) and connection tracking
//! (`linux/netfilter/nfnetlink_conntrack.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Attributes;
use crate::units::Protocol;

/// A TCP socket with both its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// This host's end.
    pub local: SocketAddr,
    /// The other one; unspecified where it listens.
    pub remote: SocketAddr,
    /// Whether it waits for connections.
    pub listens: bool,
}

/// A connection that connection tracking knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who began it.
    pub client: SocketAddr,
    /// What the client addressed.
    pub server: SocketAddr,
    /// Who answers, after translation.
    pub there: SocketAddr,
    /// The zone that it is known in; 0 for all where nobody made zones.
    pub zone: u16,
}

/// Request for a dump of TCP sockets that listen, and if `connections` of those that carry a connection
/// (`struct inet_diag_req`): of both families at once, as the kernel walks the whole machine's table each time.
#[must_use]
pub fn socket_request(connections: bool) -> Vec<u8> {
    // ESTABLISHED, FIN_WAIT1, FIN_WAIT2 and CLOSE_WAIT (`net/tcp_states.h`)
    let open: u32 = if connections { 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 } else { 0 };
    let mut out = vec![0; LENGTHS + SOCKET_ID];
    out.extend((open | 1 << LISTEN).to_ne_bytes());
    // Nothing is known already.
    out.extend([0; 4]);
    out
}

/// Family, lengths of prefixes and extensions, none of which matters here.
const LENGTHS: usize = 4;
/// Length of `struct inet_diag_sockid`.
const SOCKET_ID: usize = 48;
const LISTEN: u8 = 10;

/// One `struct inet_diag_msg`.
#[must_use]
pub fn socket(payload: &[u8]) -> Option<Socket> {
    let (&family, &state) = (payload.first()?, payload.get(1)?);
    let port = |at: usize| Some(u16::from_be_bytes(*payload.get(at..)?.first_chunk::<2>()?));
    let addr = |at: usize| {
        let bytes = *payload.get(at..)?.first_chunk::<16>()?;
        match family {
            // AF_INET and AF_INET6
            2 => bytes.first_chunk::<4>().map(|v4| IpAddr::V4(Ipv4Addr::from(*v4))),
            10 => Some(IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()),
            _ => None,
        }
    };
    Some(Socket {
        local: SocketAddr::new(addr(8)?, port(4)?),
        remote: SocketAddr::new(addr(24)?, port(6)?),
        listens: state == LISTEN,
    })
}

/// The zone of a connection (`linux/netfilter/nfnetlink_conntrack.h`).
pub const CTA_ZONE: u16 = 18;
/// Within a tuple.
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;
const CTA_TIMEOUT: u16 = 7;
const IPS_SEEN_REPLY: u32 = 2;

/// Any connection of TCP or UDP, whatever state it is in.
#[must_use]
pub fn known(attributes: &[u8]) -> Option<Tracked> {
    let all = Attributes(attributes);
    let (protocol, client, server) = tuple(all.nested(CTA_TUPLE_ORIG))?;
    let (_, there, _) = tuple(all.nested(CTA_TUPLE_REPLY))?;
    Some(Tracked { protocol, client, server, there, zone: zone(all) })
}

/// A connection that both ends have spoken on and that is not over; none for everything else.
#[must_use]
pub fn tracked(attributes: &[u8]) -> Option<Tracked> {
    let all = Attributes(attributes);
    let known = known(attributes)?;
    if all.be32(CTA_STATUS)? & IPS_SEEN_REPLY == 0 {
        return None;
    }
    if known.protocol == Protocol::Tcp {
        // CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE; ESTABLISHED, FIN_WAIT, CLOSE_WAIT
        let state = all.nested(CTA_PROTOINFO).nested(1).get(1)?.first()?;
        if !(3..=5).contains(state) {
            return None;
        }
    }
    Some(known)
}

/// A connection that connection tracking knows, in whatever state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its ends.
    pub flow: Tracked,
    /// Whether the other end has ever answered.
    pub answered: bool,
    /// Whether both ends have spoken on it, and it is not over.
    pub open: bool,
    /// The state of TCP (`enum tcp_conntrack`).
    pub state: Option<u8>,
    /// For how many more seconds it is remembered without a packet.
    pub left_s: u32,
}

/// A connection in whatever state, answered or not.
#[must_use]
pub fn attempted(attributes: &[u8]) -> Option<Attempt> {
    let all = Attributes(attributes);
    let (protocol, client, server) = tuple(all.nested(CTA_TUPLE_ORIG))?;
    let (_, there, _) = tuple(all.nested(CTA_TUPLE_REPLY))?;
    let state = all.nested(CTA_PROTOINFO).nested(1).get(1).and_then(|state| state.first().copied());
    Some(Attempt {
        flow: Tracked { protocol, client, server, there, zone: zone(all) },
        answered: all.be32(CTA_STATUS)? & IPS_SEEN_REPLY != 0,
        open: tracked(attributes).is_some(),
        state: state.filter(|_| protocol == Protocol::Tcp),
        left_s: all.be32(CTA_TIMEOUT).unwrap_or(0),
    })
}

/// The zone, for both directions or for that of the first packet (`CTA_ZONE`, `CTA_TUPLE_ZONE`).
fn zone(all: Attributes<'_>) -> u16 {
    let either = all.get(CTA_ZONE).or_else(|| all.nested(CTA_TUPLE_ORIG).get(CTA_TUPLE_ZONE));
    either.and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// Protocol, source and destination.
fn tuple(tuple: Attributes<'_>) -> Option<(Protocol, SocketAddr, SocketAddr)> {
    let (ip, proto) = (tuple.nested(1), tuple.nested(2));
    let protocol = match proto.get(1)?.first()? {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let port = |kind| proto.get(kind)?.try_into().ok().map(u16::from_be_bytes);
    let addr = |v4: u16, v6: u16| -> Option<IpAddr> {
        let of4 = ip.get(v4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(IpAddr::from);
        of4.or_else(|| ip.get(v6).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(IpAddr::from))
    };
    Some((protocol, SocketAddr::new(addr(1, 3)?, port(2)?), SocketAddr::new(addr(2, 4)?, port(3)?)))
}

#[cfg(test)]
mod tests {
    use super::super::attr::attribute;
    use super::*;

    fn side(from: [u8; 4], to: [u8; 4], ports: (u16, u16), protocol: u8) -> Vec<u8> {
        let ip = [attribute(1, &from), attribute(2, &to)].concat();
        let proto = [
            attribute(1, &[protocol]),
            attribute(2, &ports.0.to_be_bytes()),
            attribute(3, &ports.1.to_be_bytes()),
        ]
        .concat();
        [attribute(1, &ip), attribute(2, &proto)].concat()
    }

    fn entry(protocol: u8, status: u32, state: u8) -> Vec<u8> {
        let (client, router, host) = ([203, 0, 113, 2], [203, 0, 113, 1], [10, 0, 0, 5]);
        [
            attribute(CTA_TUPLE_ORIG, &side(client, router, (4000, 2222), protocol)),
            attribute(CTA_TUPLE_REPLY, &side(host, client, (22, 4000), protocol)),
            attribute(CTA_STATUS, &status.to_be_bytes()),
            attribute(CTA_PROTOINFO, &attribute(1, &attribute(1, &[state]))),
        ]
        .concat()
    }

    #[test]
    fn a_tracked_connection_tells_client_address_and_whoever_answers() {
        let found = tracked(&entry(6, IPS_SEEN_REPLY, 3)).unwrap();
        assert_eq!(found.client, "203.0.113.2:4000".parse().unwrap());
        assert_eq!(found.server, "203.0.113.1:2222".parse().unwrap());
        assert_eq!(found.there, "10.0.0.5:22".parse().unwrap());
    }

    #[test]
    fn attempts_tell_their_state_and_how_long_they_are_remembered() {
        let of = |status, state| {
            let mut bytes = entry(6, status, state);
            bytes.extend(attribute(CTA_TIMEOUT, &97_u32.to_be_bytes()));
            attempted(&bytes).unwrap()
        };
        let (sent, over, open) = (of(0, 1), of(IPS_SEEN_REPLY, 7), of(IPS_SEEN_REPLY, 3));
        assert_eq!((sent.answered, sent.open, sent.state, sent.left_s), (false, false, Some(1), 97));
        assert_eq!((over.answered, over.open, open.answered, open.open), (true, false, true, true));
    }

    #[test]
    fn what_is_half_open_over_or_no_flow_is_none() {
        for (protocol, status, state) in [(6, 0, 3), (6, 2, 2), (6, 2, 7), (6, 2, 8), (17, 0, 0), (1, 2, 3)] {
            assert_eq!(tracked(&entry(protocol, status, state)), None, "{protocol} {status} {state}");
        }
        assert!(tracked(&entry(17, 2, 0)).is_some());
        let whole = entry(6, 2, 3);
        for cut in 0..whole.len() {
            let _ = tracked(&whole[..cut]);
        }
    }

    #[test]
    fn sockets_are_read_in_both_families_and_mapped_addresses_are_ipv4() {
        let mut message = vec![2, 1, 0, 0, 0, 22, 0x0f, 0xa0];
        message.extend([203, 0, 113, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        message.extend([203, 0, 113, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let found = socket(&message).unwrap();
        let expected = ("203.0.113.1:22".parse().unwrap(), "203.0.113.2:4000".parse().unwrap());
        assert_eq!((found.local, found.remote), expected);
        message[0] = 10;
        for at in [8, 24] {
            let v4: [u8; 4] = message[at..at + 4].try_into().unwrap();
            let mapped = Ipv4Addr::from(v4).to_ipv6_mapped().octets();
            message[at..at + 16].copy_from_slice(&mapped);
        }
        message[1] = LISTEN;
        let mapped = socket(&message).unwrap();
        assert_eq!((mapped.local, mapped.remote), expected);
        assert!(mapped.listens && !found.listens);
        for cut in 0..message.len() {
            assert_eq!(socket(&message[..cut]), None);
        }
    }
}
