//! The description of a key by what it is taken from (`typeof`), which nft keeps as user data of a set to print it
//! again: a UDP length has no name of a type, nor has a number that TCP acknowledges.
//!
//! The numbers are nft's own (`enum expr_types`, `proto_desc_id`, the fields of `proto.c`), which it cannot change
//! without losing sets that are loaded.

use super::encode::tlv;
use crate::ruleset::model::KeyPart;

const UDATA_KEY_TYPEOF: u8 = 3;
const UDATA_DATA_TYPEOF: u8 = 4;
const EXPR_PAYLOAD: u32 = 7;
const EXPR_META: u32 = 9;
const EXPR_CONCAT: u32 = 13;
const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;
const DESC_UDP: u32 = 6;
const UDP_DPORT: u32 = 2;
const UDP_LENGTH: u32 = 3;
const UDP_LENGTH_BITS: u32 = 16;
const DESC_TCP: u32 = 8;
const TCP_ACK: u32 = 4;
const TCP_ACK_BITS: u32 = 32;
/// Whatever has ports.
const DESC_TRANSPORT: u32 = 11;
const TRANSPORT_SPORT: u32 = 1;
const DESC_IP: u32 = 12;
const IP_SADDR: u32 = 11;
const DESC_IP6: u32 = 13;
const IP6_SADDR: u32 = 8;

/// For a key that has a number without a type among its parts, and else only parts that may stand beside one.
pub(super) fn of_key(parts: &[KeyPart]) -> Vec<u8> {
    let part = |part: &KeyPart| if parts.contains(&KeyPart::TcpAck) { of_end(*part) } else { part_of(*part) };
    let each: Vec<u8> = (0..).zip(parts).flat_map(|(place, of)| tlv(place, &part(of))).collect();
    tlv(UDATA_KEY_TYPEOF, &expression(EXPR_CONCAT, &each))
}

/// For values that are marks.
pub(super) fn of_mark_values() -> Vec<u8> {
    tlv(UDATA_DATA_TYPEOF, &mark())
}

fn part_of(part: KeyPart) -> Vec<u8> {
    match part {
        KeyPart::Mark => mark(),
        KeyPart::UdpLength => {
            let fields = [number(0, DESC_UDP), number(1, UDP_LENGTH), number(4, UDP_LENGTH_BITS)];
            expression(EXPR_PAYLOAD, &fields.concat())
        }
        KeyPart::Port
        | KeyPart::Protocol
        | KeyPart::Ipv4
        | KeyPart::Ipv6
        | KeyPart::IfName
        | KeyPart::TcpAck => field(DESC_UDP, UDP_DPORT),
    }
}

/// `meta l4proto . ip saddr . th sport . tcp ackseq`
fn of_end(part: KeyPart) -> Vec<u8> {
    match part {
        KeyPart::Protocol => expression(EXPR_META, &number(0, META_L4PROTO)),
        KeyPart::Ipv4 => field(DESC_IP, IP_SADDR),
        KeyPart::Ipv6 => field(DESC_IP6, IP6_SADDR),
        KeyPart::Port => field(DESC_TRANSPORT, TRANSPORT_SPORT),
        KeyPart::TcpAck => {
            let fields = [number(0, DESC_TCP), number(1, TCP_ACK), number(4, TCP_ACK_BITS)];
            expression(EXPR_PAYLOAD, &fields.concat())
        }
        KeyPart::IfName | KeyPart::Mark | KeyPart::UdpLength => part_of(part),
    }
}

fn field(header: u32, field: u32) -> Vec<u8> {
    expression(EXPR_PAYLOAD, &[number(0, header), number(1, field)].concat())
}

fn mark() -> Vec<u8> {
    expression(EXPR_META, &number(0, META_MARK))
}

fn expression(kind: u32, body: &[u8]) -> Vec<u8> {
    [number(0, kind), tlv(1, body)].concat()
}

fn number(kind: u8, value: u32) -> Vec<u8> {
    tlv(kind, &value.to_ne_bytes())
}
