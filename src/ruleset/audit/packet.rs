//! A packet as far as it is known beforehand.

mod loads;

use std::net::{IpAddr, Ipv6Addr};

use super::step::Room;
use crate::ruleset::expr::ct_state;
use crate::units::{Family, Mark, Protocol};

/// The length of a small packet of any kind.
const LENGTH: u8 = 80;
/// The number of the protocol.
const ICMPV6: u8 = 58;
/// The largest segment that it announces, by Ethernet.
const USUAL_MSS_4: u16 = 1_460;
const USUAL_MSS_6: u16 = 1_440;
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

/// Messages by which the ends of a link find each other in IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Asks for a hardware address.
    Solicits,
    /// Tells one.
    Advertises,
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
    /// The interface by which its source is reached, where that is not the one by which it came.
    pub reached_by: Option<Interface>,
    /// The bridge whose own chains see it, as a frame, and whether it comes in there.
    pub bridge: Option<(String, bool)>,
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
            reached_by: None,
            bridge: None,
            for_here: true,
            original: None,
            of_one_client: false,
            crafted: false,
            // An honest client stays below any rate.
            used_up: Room::Gone,
            segment: Some(match family {
                Family::V4 => USUAL_MSS_4,
                Family::V6 => USUAL_MSS_6,
            }),
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

    /// A message by which the ends of a link find each other, to one of them or to a group.
    #[must_use]
    pub fn neighbour(kind: Neighbour, from: Ipv6Addr, to: Ipv6Addr) -> Self {
        /// The message with its target and one option.
        const LENGTH: u8 = 32;
        let ends = ((Some(from.into()), None), (Some(to.into()), None));
        let mut packet = Self::new(Family::V6, Protocol::Udp, ends.0, ends.1, TcpFlags::Data);
        set(&mut packet.network, 4, &[0, LENGTH, ICMPV6, u8::MAX]);
        packet.transport = vec![None; LENGTH.into()];
        let number = match kind {
            Neighbour::Solicits => 135,
            Neighbour::Advertises => 136,
        };
        set(&mut packet.transport, 0, &[number, 0]);
        packet.tracking = Tracking::UNTRACKED;
        packet.segment = None;
        packet
    }

    /// Which protocol its IP header says.
    fn carries(&self) -> Byte {
        let at = if self.family == Family::V4 { 9 } else { 6 };
        self.network.get(at).copied().flatten()
    }

    /// The type of an ICMPv6 message and its code; none: it is none.
    #[must_use]
    pub fn icmpv6(&self) -> Option<(u8, u8)> {
        let of_it = self.family == Family::V6 && self.carries() == Some(ICMPV6);
        let (&kind, &code) = (self.transport.first()?, self.transport.get(1)?);
        kind.zip(code).filter(|_| of_it)
    }

    /// Whether it is for a group of IPv6.
    fn is_multicast(&self) -> bool {
        self.family == Family::V6 && self.address(true).first() == Some(&Some(u8::MAX))
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

    /// Has it carry data that begins so, in a packet of TCP with the usual options.
    pub fn put_data(&mut self, data: &[u8]) {
        let Some(start) = self.data_at() else { return };
        self.transport.resize(start, None);
        self.transport.extend(known(data));
    }

    /// Where in the header of TCP its data begins.
    fn data_at(&self) -> Option<usize> {
        let words = self.transport.get(12).copied().flatten().filter(|_| self.protocol == Protocol::Tcp)?;
        Some(usize::from(words >> 4) * 4)
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

    /// Makes it what a bridge's own chains see: nobody knows which port of the bridge it takes.
    pub fn enter_bridge(&mut self, coming: bool) {
        let side = if coming { &mut self.iif } else { &mut self.oif };
        let bridge = side.replace(Interface { name: String::new(), index: None });
        self.bridge = bridge.map(|bridge| (bridge.name, coming));
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
        self.mark
            .iter()
            .zip(pairs)
            .any(|(byte, (value, mask))| byte.is_some_and(|byte| byte & mask != value & mask))
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
