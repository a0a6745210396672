//! Netfilter's packet log (`linux/netfilter/nfnetlink_log.h`): asking for a group, and what it tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attr::Attributes;
use crate::units::Protocol;

/// `NFNL_SUBSYS_ULOG`, in the upper byte of a type.
const SUBSYS: u16 = 4 << 8;
const MSG_PACKET: u16 = SUBSYS;
const MSG_CONFIG: u16 = SUBSYS | 1;
const CFG_COMMAND: u16 = 1;
const CFG_MODE: u16 = 2;
const CFG_THRESHOLD: u16 = 5;
const COMMAND_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
const MARK: u16 = 2;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
/// `NLM_F_REQUEST | NLM_F_ACK`.
const FLAGS: u16 = 5;
/// Of `struct nlmsghdr`, and with `struct nfgenmsg`.
const HEADER: usize = 16;
const BOTH_HEADERS: usize = HEADER + 4;

/// What a log rule told of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The words of the rule.
    pub prefix: String,
    /// The packet's mark.
    pub mark: u32,
    /// Where it came from.
    pub source: IpAddr,
    /// From which port of which protocol, where the packet says that right behind its IP header.
    pub from: Option<(Protocol, u16)>,
}

/// The requests for a group, with so many bytes of each packet, each told at once.
#[must_use]
pub fn subscription(group: u16, bytes: u32) -> [Vec<u8>; 2] {
    let mode = [&bytes.to_be_bytes()[..], &[COPY_PACKET, 0]].concat();
    let details = [attribute(CFG_MODE, &mode), attribute(CFG_THRESHOLD, &1_u32.to_be_bytes())].concat();
    [config(group, &attribute(CFG_COMMAND, &[COMMAND_BIND])), config(group, &details)]
}

/// What a message tells; none if it is no packet, or one without an address.
#[must_use]
pub fn logged(message: &[u8]) -> Option<Logged> {
    let kind = u16::from_ne_bytes(*message.get(4..)?.first_chunk()?);
    let attributes = Attributes(message.get(BOTH_HEADERS..).filter(|_| kind == MSG_PACKET)?);
    let prefix = attributes.text(PREFIX)?.to_owned();
    let packet = attributes.get(PAYLOAD)?;
    let source = source(packet)?;
    Some(Logged { prefix, mark: attributes.be32(MARK).unwrap_or(0), source, from: from(packet) })
}

fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?).into()),
        6 => Some(Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn from(packet: &[u8]) -> Option<(Protocol, u16)> {
    let first = *packet.first()?;
    let (next, header) = match first >> 4 {
        // A later fragment has no ports.
        4 if u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x1fff == 0 => {
            (*packet.get(9)?, usize::from(first & 0x0f) * 4)
        }
        6 => (*packet.get(6)?, 40),
        _ => return None,
    };
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.number() == next)?;
    Some((protocol, u16::from_be_bytes(*packet.get(header..)?.first_chunk()?)))
}

fn config(group: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(BOTH_HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut out = length.to_ne_bytes().to_vec();
    out.extend(MSG_CONFIG.to_ne_bytes());
    out.extend(FLAGS.to_ne_bytes());
    // No sequence number, no port; no family, version 0, and the group.
    out.extend([0; 8]);
    out.extend([0, 0]);
    out.extend(group.to_be_bytes());
    out.extend(attributes);
    out
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut out = config(7, &attributes.concat());
        out[4..6].copy_from_slice(&kind.to_ne_bytes());
        out
    }

    fn packet(source: IpAddr) -> Vec<u8> {
        match source {
            IpAddr::V4(v4) => {
                [&[0x45][..], &[0; 8], &[17, 0, 0], &v4.octets(), &[0; 4], &[0x12, 0x34]].concat()
            }
            IpAddr::V6(v6) => [&[0x60][..], &[0; 5], &[6, 0], &v6.octets(), &[0; 16], &[0x12, 0x34]].concat(),
        }
    }

    #[test]
    fn a_packet_tells_the_rule_s_words_its_mark_and_where_it_came_from() {
        for text in ["203.0.113.2", "2001:db8:1::2"] {
            let source: IpAddr = text.parse().unwrap();
            let attributes = [
                attribute(1, &[8, 0, 0, 0]),
                attribute(MARK, &0x1234_u32.to_be_bytes()),
                attribute(PREFIX, b"ka:opened:seq_ssh\0"),
                attribute(PAYLOAD, &packet(source)),
            ];
            let told = logged(&message(MSG_PACKET, &attributes)).unwrap();
            let protocol = if source.is_ipv4() { Protocol::Udp } else { Protocol::Tcp };
            let from = Some((protocol, 0x1234));
            assert_eq!(told, Logged { prefix: "ka:opened:seq_ssh".into(), mark: 0x1234, source, from });
            assert_eq!(logged(&message(MSG_CONFIG, &attributes)), None);
        }
        assert_eq!(logged(&message(MSG_PACKET, &[attribute(PREFIX, b"x\0")])), None);
    }

    #[test]
    fn requests_say_their_length() {
        for request in subscription(24_107, 64) {
            let length = u32::from_ne_bytes(*request.first_chunk().unwrap());
            assert_eq!(usize::try_from(length).unwrap(), request.len());
            assert_eq!(request[18..20], 24_107_u16.to_be_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fall_over(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = logged(&bytes);
        }
    }
}
