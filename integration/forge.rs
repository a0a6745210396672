//! Packets of its own making, from any source, as fast as one processor sends them.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

use crate::namespace::Namespace;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Sends whole IP packets through sockets of a namespace.
pub struct Forge {
    v4: OwnedFd,
    v6: OwnedFd,
}

impl Forge {
    pub fn new(from: &Namespace) -> Self {
        let raw = |family| socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap();
        from.enter(|| Self { v4: raw(AddressFamily::Inet), v6: raw(AddressFamily::Inet6) })
    }

    /// Sends the first packet of a connection; false where there was no room for it.
    pub fn syn(&self, source: SocketAddr, to: SocketAddr) -> bool {
        self.send(TCP, (source.ip(), to.ip()), to.ip(), syn(source, to), 16)
    }

    /// The same by way of a router, which has to find its way from there.
    pub fn syn_by(&self, router: IpAddr, source: SocketAddr, to: SocketAddr) -> bool {
        self.send(TCP, (source.ip(), to.ip()), router, syn(source, to), 16)
    }

    /// Sends a packet in the middle of a connection, or one with data at its beginning.
    pub fn segment(&self, source: SocketAddr, to: SocketAddr, said: &Said, payload: &[u8]) -> bool {
        let mut header = syn(source, to);
        header[4..8].copy_from_slice(&said.sequence.to_be_bytes());
        header[8..12].copy_from_slice(&said.acknowledged.to_be_bytes());
        header[13] = said.flags;
        header.extend(payload);
        self.send(TCP, (source.ip(), to.ip()), to.ip(), header, 16)
    }

    /// Sends a datagram; false where there was no room for it.
    pub fn datagram(&self, source: SocketAddr, to: SocketAddr, payload: &[u8]) -> bool {
        self.send(UDP, (source.ip(), to.ip()), to.ip(), datagram(source, to, payload), 6)
    }

    /// The same by way of a router, which has to find its way from there.
    pub fn datagram_by(&self, router: IpAddr, source: SocketAddr, to: SocketAddr, payload: &[u8]) -> bool {
        self.send(UDP, (source.ip(), to.ip()), router, datagram(source, to, payload), 6)
    }

    /// `by` is where the kernel is told to send it to, which need not be where it says it goes.
    fn send(
        &self,
        protocol: u8,
        (source, to): (IpAddr, IpAddr),
        by: IpAddr,
        mut upper: Vec<u8>,
        checksum_at: usize,
    ) -> bool {
        let length = u16::try_from(upper.len()).unwrap();
        let (packet, fd) = match (source, to) {
            (IpAddr::V4(source), IpAddr::V4(to)) => {
                let ends = [source.octets(), to.octets()].concat();
                finish(&mut upper, &ends, protocol, checksum_at);
                // The kernel fills in length, identification and checksum of this header.
                let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
                packet.extend(ends);
                (packet, &self.v4)
            }
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                let ends = [source.octets(), to.octets()].concat();
                finish(&mut upper, &ends, protocol, checksum_at);
                let mut packet = vec![0x60, 0, 0, 0];
                packet.extend(length.to_be_bytes());
                packet.extend([protocol, 64]);
                packet.extend(ends);
                (packet, &self.v6)
            }
            _ => panic!("{source} and {to} are of different families"),
        };
        let whole = [packet, upper].concat();
        let at = SockaddrStorage::from(SocketAddr::new(by, 0));
        sendto(fd.as_raw_fd(), &whole, &at, MsgFlags::empty()).is_ok()
    }
}

/// What a TCP header says beside ports.
pub struct Said {
    pub flags: u8,
    pub sequence: u32,
    pub acknowledged: u32,
}

/// The number of the first packets that are sent here.
pub const FIRST_NUMBER: u32 = 0x1234_5678;

fn syn(source: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = Vec::with_capacity(24);
    header.extend(source.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header.extend(FIRST_NUMBER.to_be_bytes());
    header.extend([0, 0, 0, 0, 6 << 4, 2, 0xfa, 0xf0, 0, 0, 0, 0]);
    // The largest segment, as every client names it.
    header.extend([2, 4, 5, 0xb4]);
    header
}

fn datagram(source: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(8 + payload.len());
    header.extend(source.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    header.extend([0, 0]);
    header.extend(payload);
    header
}

/// Puts the checksum over both ends, the protocol and what it carries where it belongs.
fn finish(upper: &mut [u8], ends: &[u8], protocol: u8, checksum_at: usize) {
    let words = |bytes: &[u8]| -> u32 {
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum()
    };
    let mut sum = words(ends) + words(upper) + u32::from(protocol) + u32::try_from(upper.len()).unwrap();
    while sum >> 16 > 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).unwrap();
    upper[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
}
