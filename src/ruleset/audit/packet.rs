//! A packet as far as it is known beforehand.

use std::net::IpAddr;

use super::step::{Room, Source};
use crate::ruleset::expr::{addr_type, ct_state};
use crate::units::{Family, Mark, Protocol};

/// The length of a small packet of any kind.
const LENGTH: u8 = 80;
/// The largest segment that it announces.
const USUAL_MSS: u16 = 1_440;
/// What the length of IPv6 leaves out.
const IPV6_HEADER: u16 = 40;

/// A byte that may be unknown.
pub type Byte = Option<u8>;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number, if it exists.
    pub index: Option<u32>,
}

/// How connection tracking sees a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// State bits ([`ct_state`]).
    pub state: u32,
    /// Whether it belongs to a connection at all.
    pub tracked: bool,
    /// Original (0) or reply (1).
    pub direction: u8,
    /// `IPS_*`.
    pub status: u32,
}

impl Tracking {
    /// Before connection tracking has seen it.
    pub const NOT_YET: Self = Self { state: ct_state::INVALID, tracked: false, direction: 0, status: 0 };
    /// Kept out of connection tracking.
    pub const UNTRACKED: Self = Self { state: ct_state::UNTRACKED, tracked: false, direction: 0, status: 0 };
    /// The first packet.
    pub const NEW: Self = Self { state: ct_state::NEW, tracked: true, direction: 0, status: 0 };
    /// A later one of the client.
    pub const ESTABLISHED: Self =
        Self { state: ct_state::ESTABLISHED, tracked: true, direction: 0, status: 0 };
    /// An answer.
    pub const REPLY: Self = Self { state: ct_state::ESTABLISHED, tracked: true, direction: 1, status: 0 };
}

/// What a packet of TCP says about its connection (`tcp flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpFlags {
    /// SYN.
    Syn,
    /// SYN and ACK.
    SynAck,
    /// ACK and PSH.
    Data,
}

impl TcpFlags {
    fn byte(self) -> u8 {
        match self {
            Self::Syn => 0x02,
            Self::SynAck => 0x12,
            Self::Data => 0x18,
        }
    }
}

/// What the first packet of a connection said before anybody translated it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Its source: address and port.
    pub from: (IpAddr, u16),
    /// Its destination.
    pub to: (IpAddr, u16),
}

/// What each client's system has its own way with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// Bytes of the whole packet.
    pub len: u16,
    /// How many more routers it may pass.
    pub ttl: u8,
    /// The largest segment that the first packet of TCP announces.
    pub segment: u16,
}

/// A packet on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it came in.
    pub iif: Option<Interface>,
    /// Where it goes out.
    pub oif: Option<Interface>,
    /// The IP header.
    pub network: Vec<Byte>,
    /// The TCP or UDP header.
    pub transport: Vec<Byte>,
    /// The packet mark, host byte order.
    pub mark: [Byte; 4],
    /// The mark of its connection, host byte order; nobody has marked it at first.
    pub connection_mark: [Byte; 4],
    /// How connection tracking sees it.
    pub tracking: Tracking,
    /// Whether its destination is an address of this host.
    pub for_here: bool,
    /// How its connection began, where that is known for certain.
    pub original: Option<Original>,
    /// Whether it is of one certain client, of whom nothing is taken for granted, rather than of honest clients in
    /// general, who are on nobody's list.
    pub of_one_client: bool,
    /// Rates and numbers that leave this much room, or less, are used up by what came before it.
    pub used_up: Room,
    /// Whether somebody may have made it who wants something of it: with any options, on any list, below and beyond
    /// every rate.
    pub crafted: bool,
    /// The largest segment that the first packet of TCP announces; none: not known.
    pub segment: Option<u16>,
}

impl Packet {
    /// A packet from one end to the other; none stands for an address or port that is not known.
    #[must_use]
    pub fn new(
        family: Family,
        protocol: Protocol,
        from: (Option<IpAddr>, Option<u16>),
        to: (Option<IpAddr>, Option<u16>),
        flags: TcpFlags,
    ) -> Self {
        let mut packet = Self {
            family,
            protocol,
            iif: None,
            oif: None,
            network: Vec::new(),
            transport: Vec::new(),
            mark: [Some(0); 4],
            connection_mark: [Some(0); 4],
            tracking: Tracking::NEW,
            for_here: true,
            original: None,
            of_one_client: false,
            crafted: false,
            // An honest client stays below any rate.
            used_up: Room::Gone,
            segment: Some(USUAL_MSS),
        };
        match family {
            Family::V4 => {
                packet.network = vec![None; 20];
                set(&mut packet.network, 0, &[0x45, 0, 0, LENGTH]);
                // Not a fragment, of any size.
                set(&mut packet.network, 6, &[0x40, 0]);
                set(&mut packet.network, 8, &[60, protocol.number()]);
            }
            Family::V6 => {
                packet.network = vec![None; 40];
                set(&mut packet.network, 0, &[0x60, 0, 0, 0, 0, LENGTH - 40, protocol.number(), 60]);
            }
        }
        match protocol {
            Protocol::Tcp => {
                packet.transport = vec![None; 20];
                set(&mut packet.transport, 12, &[0x80, flags.byte()]);
            }
            Protocol::Udp => packet.transport = vec![None; 8],
        }
        packet.put_address(false, from.0);
        packet.put_address(true, to.0);
        packet.put_port(false, from.1);
        packet.put_port(true, to.1);
        packet
    }

    /// Whether it is one too many for a rate or a number that leaves this room.
    #[must_use]
    pub fn is_too_many(&self, room: Room) -> bool {
        room <= self.used_up
    }

    /// What somebody makes who may know these rules: only what routing and connection tracking need is known.
    #[must_use]
    pub fn crafted(mut self) -> Self {
        let free: &[usize] = match self.family {
            Family::V4 => &[1, 2, 3, 4, 5, 6, 8],
            Family::V6 => &[1, 2, 3, 4, 5, 7],
        };
        for &at in free {
            self.network.iter_mut().skip(at).take(1).for_each(|byte| *byte = None);
        }
        self.transport.iter_mut().skip(4).for_each(|byte| *byte = None);
        self.put_habits(None);
        (self.of_one_client, self.crafted) = (true, true);
        self
    }

    /// Writes what each client's system has its own way with; none: nobody knows.
    pub fn put_habits(&mut self, habits: Option<Habits>) {
        let (len_at, ttl_at, beside) = match self.family {
            Family::V4 => (2, 8, 0),
            Family::V6 => (4, 7, IPV6_HEADER),
        };
        let len = habits.map(|habits| habits.len.saturating_sub(beside).to_be_bytes());
        let ttl = habits.map(|habits| habits.ttl);
        for (at, byte) in
            [(len_at, len.map(|[high, _]| high)), (len_at + 1, len.map(|[_, low]| low)), (ttl_at, ttl)]
        {
            self.network.iter_mut().skip(at).take(1).for_each(|old| *old = byte);
        }
        self.segment = habits.map(|habits| habits.segment);
    }

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

    /// Writes the source or destination address.
    pub fn put_address(&mut self, destination: bool, addr: Option<IpAddr>) {
        let (offset, len) = self.address_at(destination);
        match addr {
            Some(IpAddr::V4(v4)) if self.family == Family::V4 => set(&mut self.network, offset, &v4.octets()),
            Some(IpAddr::V6(v6)) if self.family == Family::V6 => set(&mut self.network, offset, &v6.octets()),
            Some(_) | None => self.network.iter_mut().skip(offset).take(len).for_each(|byte| *byte = None),
        }
    }

    fn address_at(&self, destination: bool) -> (usize, usize) {
        match (self.family, destination) {
            (Family::V4, false) => (12, 4),
            (Family::V4, true) => (16, 4),
            (Family::V6, false) => (8, 16),
            (Family::V6, true) => (24, 16),
        }
    }

    /// The source or destination address.
    #[must_use]
    pub fn address(&self, destination: bool) -> &[Byte] {
        let (offset, len) = self.address_at(destination);
        self.network.get(offset..offset + len).unwrap_or_default()
    }

    /// The same as one value, where all of it is known.
    #[must_use]
    pub fn ip(&self, destination: bool) -> Option<IpAddr> {
        let bytes: Vec<u8> = self.address(destination).iter().copied().collect::<Option<_>>()?;
        match self.family {
            Family::V4 => bytes.first_chunk::<4>().map(|&bytes| IpAddr::from(bytes)),
            Family::V6 => bytes.first_chunk::<16>().map(|&bytes| IpAddr::from(bytes)),
        }
    }

    /// Writes the source or destination port.
    pub fn put_port(&mut self, destination: bool, port: Option<u16>) {
        let offset = if destination { 2 } else { 0 };
        match port {
            Some(port) => set(&mut self.transport, offset, &port.to_be_bytes()),
            None => self.transport.iter_mut().skip(offset).take(2).for_each(|byte| *byte = None),
        }
    }

    /// The source or destination port, where it is known.
    #[must_use]
    pub fn port(&self, destination: bool) -> Option<u16> {
        let offset = if destination { 2 } else { 0 };
        match self.transport.get(offset..offset + 2) {
            Some(&[Some(high), Some(low)]) => Some(u16::from_be_bytes([high, low])),
            Some(_) | None => None,
        }
    }

    /// Writes what a packet of TCP says about its connection.
    pub fn put_flags(&mut self, flags: TcpFlags) {
        if self.protocol == Protocol::Tcp {
            set(&mut self.transport, 13, &[flags.byte()]);
        }
    }

    /// Writes a mark, as far as its mask says.
    pub fn put_mark(&mut self, mark: Mark) {
        let pairs = mark.value().to_ne_bytes().into_iter().zip(mark.mask().to_ne_bytes());
        for (byte, (value, mask)) in self.mark.iter_mut().zip(pairs) {
            *byte = match *byte {
                _ if mask == u8::MAX => Some(value),
                Some(have) => Some((have & !mask) | value),
                None => None,
            };
        }
    }

    /// Whether it certainly has not that mark.
    #[must_use]
    pub fn lacks(&self, mark: Mark) -> bool {
        let pairs = mark.value().to_ne_bytes().into_iter().zip(mark.mask().to_ne_bytes());
        self.mark.iter().zip(pairs).any(|(byte, (value, mask))| byte.is_some_and(|byte| byte & mask != value & mask))
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
            1 => &self.network,
            2 => &self.transport,
            _ => return Some(vec![None; len]),
        };
        if base == 1 && bytes.len() < offset + len {
            return Some(vec![None; len]);
        }
        match bytes.get(offset..offset + len) {
            Some(found) => Some(found.to_vec()),
            // Options of TCP may be there; UDP has none.
            None if self.protocol == Protocol::Tcp || self.crafted => Some(vec![None; len]),
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
            16 => known(&[self.protocol.number()]),
            // PACKET_HOST, and no IPsec.
            19 | 25 => known(&[0]),
            _ => vec![None; 16],
        })
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
        let unknown = Interface { name: String::new(), index: None };
        // The client is reached by where it came from.
        let interface = self.iif.as_ref().or(self.oif.as_ref()).unwrap_or(&unknown);
        match result {
            _ if flags & PRESENT != 0 => known(&[1, 0, 0, 0]),
            1 if flags & SOURCE != 0 => index_of(Some(interface)).unwrap_or_default(),
            2 if flags & SOURCE != 0 => name_of(Some(interface)).unwrap_or_default(),
            3 => {
                let outgoing = self.iif.is_none();
                let here = if flags & SOURCE != 0 { outgoing } else { self.for_here && !outgoing };
                let kind = if here { addr_type::LOCAL } else { addr_type::UNICAST };
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

/// Bytes that are known.
#[must_use]
pub fn known(bytes: &[u8]) -> Vec<Byte> {
    bytes.iter().copied().map(Some).collect()
}

fn set(bytes: &mut [Byte], offset: usize, data: &[u8]) {
    for (byte, &new) in bytes.iter_mut().skip(offset).zip(data) {
        *byte = Some(new);
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
