//! What the steps of rules find in a packet.

use std::net::IpAddr;

use super::{Byte, IPV6_HEADER, Interface, Original, Packet, known};
use crate::ruleset::audit::step::Source;
use crate::ruleset::expr::addr_type;
use crate::units::{Family, Protocol};

impl Packet {
    /// How long it is, where that is known.
    fn len(&self) -> Option<u32> {
        let (at, beside) = match self.family {
            Family::V4 => (2, 0),
            Family::V6 => (4, u32::from(IPV6_HEADER)),
        };
        match self.network.get(at..at + 2) {
            Some(&[Some(high), Some(low)]) => Some(u32::from(u16::from_be_bytes([high, low])) + beside),
            Some(_) | None => None,
        }
    }

    /// What a step would load; none where the packet has no such thing, and the rule does not match.
    #[must_use]
    pub fn load(&self, source: Source, len: Option<usize>) -> Option<Vec<Byte>> {
        match source {
            Source::Meta(key) => self.meta(key),
            Source::Payload { base, offset } => self.payload(base, offset, len.unwrap_or(4)),
            Source::Ct { key, direction } => self.ct(key, direction),
            Source::Fib { result, flags } => Some(self.fib(result, flags)),
            Source::SegmentSize => {
                Some(self.segment.map_or(vec![None; 2], |size| known(&size.to_be_bytes())))
            }
            Source::Present(usual) => Some(vec![(!self.crafted).then_some(u8::from(usual))]),
            Source::Unknown => Some(vec![None; len.unwrap_or(4)]),
        }
    }

    /// Whether what is loaded is the destination address.
    #[must_use]
    pub fn is_destination(&self, source: Source, len: usize) -> bool {
        let (offset, whole) = self.address_at(true);
        source == Source::Payload { base: 1, offset } && len == whole
    }

    fn payload(&self, base: u32, offset: usize, len: usize) -> Option<Vec<Byte>> {
        let bytes = match base {
            // Ethernet's number for the protocol.
            0 if (offset, len) == (12, 2) => return self.meta(1),
            1 => self.network.as_slice(),
            2 => self.transport.as_slice(),
            // What TCP carries, where that is known.
            3 => self.data_at().and_then(|start| self.transport.get(start..)).unwrap_or_default(),
            _ => return Some(vec![None; len]),
        };
        if base == 1 && bytes.len() < offset + len {
            return Some(vec![None; len]);
        }
        match bytes.get(offset..offset + len) {
            Some(found) => Some(found.to_vec()),
            // Options of TCP may be there; UDP has none.
            None if self.protocol == Protocol::Tcp || self.crafted || base == 3 => Some(vec![None; len]),
            None => None,
        }
    }

    /// `NFT_META_*`.
    fn meta(&self, key: u32) -> Option<Vec<Byte>> {
        const NFPROTO_IPV4: u8 = 2;
        const NFPROTO_IPV6: u8 = 10;
        Some(match key {
            0 => self.len().map_or(vec![None; 4], |len| known(&len.to_ne_bytes())),
            // Ethernet's number for the protocol, network byte order.
            1 => known(match self.family {
                Family::V4 => &[0x08, 0x00],
                Family::V6 => &[0x86, 0xdd],
            }),
            3 => self.mark.to_vec(),
            4 => index_of(self.iif.as_ref())?,
            5 => index_of(self.oif.as_ref())?,
            6 => name_of(self.iif.as_ref())?,
            7 => name_of(self.oif.as_ref())?,
            15 => known(&[match self.family {
                Family::V4 => NFPROTO_IPV4,
                Family::V6 => NFPROTO_IPV6,
            }]),
            16 => vec![self.carries()],
            17 | 18 => self.bridge_name(key == 17)?,
            // PACKET_MULTICAST.
            19 if self.is_multicast() => known(&[2]),
            // PACKET_HOST, and no IPsec.
            19 | 25 => known(&[0]),
            _ => vec![None; 16],
        })
    }

    /// The bridge that it comes in by, or goes out by: nothing where it takes the other way.
    fn bridge_name(&self, coming: bool) -> Option<Vec<Byte>> {
        let index = None;
        let known =
            self.bridge.as_ref().map(|(name, comes)| (Interface { name: name.clone(), index }, *comes));
        match known {
            Some((_, comes)) if comes != coming => name_of(None),
            Some((bridge, _)) => name_of(Some(&bridge)),
            None => name_of(Some(&Interface { name: String::new(), index })),
        }
    }

    /// `NFT_CT_*`.
    fn ct(&self, key: u32, direction: Option<u8>) -> Option<Vec<Byte>> {
        let tracking = self.tracking;
        if key == 0 {
            return Some(known(&tracking.state.to_ne_bytes()));
        }
        if !tracking.tracked {
            return None;
        }
        if let (Some(original), Some(0)) = (&self.original, direction)
            && let Some(bytes) = original.load(key)
        {
            return Some(bytes);
        }
        let network = |at: usize, len| self.network.get(at..at + len).map(<[Byte]>::to_vec);
        Some(match (key, direction) {
            (1, None) => known(&[tracking.direction]),
            (2, None) => known(&tracking.status.to_ne_bytes()),
            (3, None) => self.connection_mark.to_vec(),
            // Without translation, the original direction is what the packet says.
            (8 | 19 | 21, Some(0)) if tracking.direction == 0 => match self.family {
                Family::V4 => network(12, 4)?,
                Family::V6 => network(8, 16)?,
            },
            (12, Some(0)) if tracking.direction == 0 && tracking.status == 0 => {
                self.transport.get(2..4)?.to_vec()
            }
            _ => vec![None; 16],
        })
    }

    fn fib(&self, result: u32, flags: u32) -> Vec<Byte> {
        const PRESENT: u32 = 32;
        const SOURCE: u32 = 1;
        const BY_IIF: u32 = 8;
        let unknown = Interface { name: String::new(), index: None };
        // The client is reached by where it came from.
        let interface =
            self.reached_by.as_ref().or(self.iif.as_ref()).or(self.oif.as_ref()).unwrap_or(&unknown);
        if flags & (SOURCE | BY_IIF) == SOURCE | BY_IIF && self.reached_by.is_some() {
            // IPv6 has routes by other interfaces looked for as well.
            return if self.family == Family::V4 { known(&[0; 4]) } else { vec![None; 16] };
        }
        match result {
            _ if flags & PRESENT != 0 => known(&[1, 0, 0, 0]),
            1 if flags & SOURCE != 0 => index_of(Some(interface)).unwrap_or_default(),
            2 if flags & SOURCE != 0 => name_of(Some(interface)).unwrap_or_default(),
            3 => {
                let outgoing = self.iif.is_none();
                let here = if flags & SOURCE != 0 { outgoing } else { self.for_here && !outgoing };
                let to_group = flags & SOURCE == 0 && self.is_multicast();
                let kind = if to_group {
                    addr_type::MULTICAST
                } else if here {
                    addr_type::LOCAL
                } else {
                    addr_type::UNICAST
                };
                known(&kind.to_ne_bytes())
            }
            _ => vec![None; 16],
        }
    }
}

impl Original {
    /// `NFT_CT_*` of the original direction; none for what it does not tell.
    fn load(&self, key: u32) -> Option<Vec<Byte>> {
        let octets = |addr: IpAddr| match addr {
            IpAddr::V4(v4) => known(&v4.octets()),
            IpAddr::V6(v6) => known(&v6.octets()),
        };
        match key {
            8 | 19 | 21 => Some(octets(self.from.0)),
            9 | 20 | 22 => Some(octets(self.to.0)),
            11 => Some(known(&self.from.1.to_be_bytes())),
            12 => Some(known(&self.to.1.to_be_bytes())),
            _ => None,
        }
    }
}

/// None where the hook has no such interface: nf_tables then loads 0.
fn index_of(interface: Option<&Interface>) -> Option<Vec<Byte>> {
    Some(match interface {
        None => known(&[0; 4]),
        Some(Interface { index: Some(index), .. }) => known(&index.to_ne_bytes()),
        Some(Interface { index: None, .. }) => vec![None; 4],
    })
}

fn name_of(interface: Option<&Interface>) -> Option<Vec<Byte>> {
    const IFNAMSIZ: usize = 16;
    Some(match interface {
        None => known(&[0; IFNAMSIZ]),
        Some(Interface { name, .. }) if name.is_empty() => vec![None; IFNAMSIZ],
        Some(Interface { name, .. }) => {
            let mut bytes = name.clone().into_bytes();
            bytes.resize(IFNAMSIZ, 0);
            known(&bytes)
        }
    })
}
