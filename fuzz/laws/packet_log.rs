//! Netfilter's packet log.

use std::net::IpAddr;

use crate::ruleset::wire::{self, Logged};

use super::choices::Choices;

/// The first byte says whether the rest is a message, or what one is made of.
///
/// What a message says is what is read of it; one that is cut off says nothing else.
pub fn packet_log(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    if choices.flag() {
        let _ = wire::logged(choices.rest());
        return;
    }
    let told = Logged {
        mark: u32::from_be_bytes(choices.bytes()),
        source: if choices.flag() {
            IpAddr::from(choices.bytes::<4>())
        } else {
            IpAddr::from(choices.bytes::<16>())
        },
        from: None,
        prefix: (0..choices.below(64)).map(|_| char::from(choices.byte() % 94 + 33)).collect(),
    };
    // Of no protocol that has ports.
    let packet = match told.source {
        IpAddr::V4(v4) => [&[0x45; 12][..], &v4.octets(), choices.rest()].concat(),
        IpAddr::V6(v6) => [&[0x60; 8][..], &v6.octets(), choices.rest()].concat(),
    };
    let length = packet.len().min(64);
    let prefix = [told.prefix.as_bytes(), &[0]].concat();
    let attributes =
        [attribute(2, &told.mark.to_be_bytes()), attribute(10, &prefix), attribute(9, &packet[..length])];
    let message = message(&attributes.concat());
    assert_eq!(wire::logged(&message).as_ref(), Some(&told));
    for end in 0..message.len() {
        if let Some(cut) = wire::logged(&message[..end]) {
            // What pads the last attribute may be missing.
            assert_eq!(cut, told, "{end} bytes of {}", message.len());
        }
    }
}

/// `NFULNL_MSG_PACKET` with these attributes.
fn message(attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap();
    let mut out = length.to_ne_bytes().to_vec();
    out.extend((4_u16 << 8).to_ne_bytes());
    out.resize(20, 0);
    out.extend(attributes);
    out
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(payload.len() + 4).unwrap().to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}
