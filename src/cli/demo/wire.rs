//! A witness on the wire: every TCP packet that the client's interface sees.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ETHERNET_HEADER: usize = 14;
const IPV6_HEADER: usize = 40;
const PROTOCOL_TCP: u8 = 6;

/// A TCP packet, as far as the story needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    flags: u8,
    payload: usize,
}

impl Packet {
    /// The second packet of a handshake, without data.
    pub(super) fn is_syn_ack(&self) -> bool {
        self.flags & (FIN | SYN | RST | ACK) == SYN | ACK && self.payload == 0
    }

    /// What it is, in a word or two.
    pub(super) fn kind(&self) -> String {
        let names = [(SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (ACK, "ACK")];
        let flags: Vec<&str> =
            names.iter().filter(|(flag, _)| self.flags & flag != 0).map(|&(_, name)| name).collect();
        let flags = flags.join("-");
        if self.payload == 0 { flags } else { format!("{flags} with {} bytes", self.payload) }
    }

    /// Reads an Ethernet frame; none: not TCP.
    fn parse(frame: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8], at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
        };
        let ip = frame.get(ETHERNET_HEADER..)?;
        let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match number(frame, ETHERNET_HEADER - 2)? {
            0x0800 => {
                let header = usize::from(ip.first()? & 0x0f) * 4;
                let address = |at: usize| -> Option<Ipv4Addr> {
                    Some(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?.into())
                };
                if *ip.get(9)? != PROTOCOL_TCP {
                    return None;
                }
                let end = usize::from(number(ip, 2)?);
                (address(12)?.into(), address(16)?.into(), ip.get(header..end)?)
            }
            0x86dd => {
                let address = |at: usize| -> Option<Ipv6Addr> {
                    Some(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?.into())
                };
                if *ip.get(6)? != PROTOCOL_TCP {
                    return None;
                }
                let end = IPV6_HEADER + usize::from(number(ip, 4)?);
                (address(8)?.into(), address(24)?.into(), ip.get(IPV6_HEADER..end)?)
            }
            _ => return None,
        };
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            from: SocketAddr::new(from, number(tcp, 0)?),
            to: SocketAddr::new(to, number(tcp, 2)?),
            flags: *tcp.get(13)?,
            payload: tcp.len().checked_sub(header)?,
        })
    }
}

/// Sees and remembers every TCP packet in the namespace it was made in.
#[derive(Clone, Debug)]
pub(super) struct Witness(Arc<Mutex<Vec<(Instant, Packet)>>>);

impl Witness {
    /// Begins to watch; must be called inside the namespace.
    pub(super) fn watch() -> Result<Self, nix::Error> {
        let tap = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        let witness = Self(Arc::default());
        let notes = witness.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0_u8; 1 << 16];
            loop {
                match recv(tap.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(length) => notes.note(buffer.get(..length).unwrap_or_default()),
                    Err(nix::Error::EINTR | nix::Error::ENETDOWN) => {}
                    Err(_) => return,
                }
            }
        });
        Ok(witness)
    }

    fn note(&self, frame: &[u8]) {
        if let Some(packet) = Packet::parse(frame) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), packet));
        }
    }

    /// What came from one socket address to an address since a moment.
    pub(super) fn seen(&self, from: SocketAddr, to: IpAddr, since: Instant) -> Vec<Packet> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes
            .iter()
            .filter(|(at, packet)| *at >= since && packet.from == from && packet.to.ip() == to)
            .map(|(_, packet)| packet.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(kind: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(kind.to_be_bytes());
        frame.extend(rest);
        frame
    }

    fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 80, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
        out.extend(payload);
        out
    }

    fn ipv4(tcp: &[u8]) -> Vec<u8> {
        let length = u16::try_from(20 + tcp.len()).unwrap().to_be_bytes();
        let mut out = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        out.extend(tcp);
        ethernet(0x0800, &out)
    }

    #[test]
    fn a_syn_ack_is_recognised_despite_the_padding_of_its_frame() {
        let mut frame = ipv4(&tcp(0x12, b""));
        frame.extend([0; 6]);
        let packet = Packet::parse(&frame).unwrap();
        assert!(packet.is_syn_ack());
        assert_eq!(packet.from, "10.0.0.1:80".parse().unwrap());
        assert_eq!(packet.to, "10.0.0.2:40000".parse().unwrap());
    }

    #[test]
    fn data_a_reset_or_an_end_are_told_from_a_syn_ack() {
        for (flags, payload, kind) in [
            (0x10, b"hi".as_slice(), "ACK with 2 bytes"),
            (0x14, b"", "RST-ACK"),
            (0x11, b"", "FIN-ACK"),
            (0x02, b"", "SYN"),
            (0x12, b"!", "SYN-ACK with 1 bytes"),
        ] {
            let packet = Packet::parse(&ipv4(&tcp(flags, payload))).unwrap();
            assert!(!packet.is_syn_ack(), "{kind}");
            assert_eq!(packet.kind(), kind);
        }
    }

    #[test]
    fn ipv6_is_read_as_well() {
        let segment = tcp(0x12, b"");
        let mut ip = vec![0x60, 0, 0, 0, 0, u8::try_from(segment.len()).unwrap(), 6, 64];
        ip.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        ip.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        ip.extend(&segment);
        let packet = Packet::parse(&ethernet(0x86dd, &ip)).unwrap();
        assert!(packet.is_syn_ack());
        assert_eq!(packet.from, "[2001:db8::1]:80".parse().unwrap());
    }

    #[test]
    fn what_is_cut_short_or_not_tcp_is_no_packet() {
        let whole = ipv4(&tcp(0x12, b""));
        for length in 0..whole.len() {
            assert_eq!(Packet::parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(Packet::parse(&ethernet(0x0806, &[0; 40])), None);
    }
}
