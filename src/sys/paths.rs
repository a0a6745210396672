//! Where the kernel's routing sends packets, those from others included.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};

use super::flows::{attribute, one_message, open};
use super::netlink::{HEADER, error_of, split_messages};
use super::receive::receive;
use crate::ruleset::wire::Attributes;
use crate::units::Protocol;

const RTM_GETROUTE: u16 = 26;
const RTMSG: usize = 12;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_IIF: u16 = 3;
const RTA_OIF: u16 = 4;
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;

/// What routing says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// To this host.
    Here,
    /// Out of the interface with this index.
    Out(u32),
    /// Nowhere; why.
    Refused(Errno),
}

/// What routing would do with a packet between two addresses (and ports, of source and destination, for rules that ask
/// for them) that came in by the interface with that index; none: that this host makes.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn routed(
    from: Option<IpAddr>,
    to: IpAddr,
    ports: Option<(Protocol, u16, u16)>,
    by: Option<u32>,
) -> io::Result<Routed> {
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let bits = |addr: Option<IpAddr>| addr.map_or(0, |addr| if addr.is_ipv4() { 32 } else { 128 });
    // AF_INET and AF_INET6
    let mut body = vec![if to.is_ipv4() { 2 } else { 10 }, bits(Some(to)), bits(from)];
    body.resize(RTMSG, 0);
    body.extend(attribute(RTA_DST, &octets(to)));
    if let Some(from) = from {
        body.extend(attribute(RTA_SRC, &octets(from)));
    }
    if let Some(by) = by {
        body.extend(attribute(RTA_IIF, &by.to_ne_bytes()));
    }
    if let Some((protocol, source, destination)) = ports {
        body.extend(attribute(RTA_IP_PROTO, &[protocol.number()]));
        body.extend(attribute(RTA_SPORT, &source.to_be_bytes()));
        body.extend(attribute(RTA_DPORT, &destination.to_be_bytes()));
    }
    let netlink = open(SockProtocol::NetlinkRoute)?;
    one_message(&netlink, RTM_GETROUTE, &body)?;
    let mut buffer = vec![0; 8192];
    let length = receive(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let message = split_messages(buffer.get(..length).unwrap_or_default()).next().unwrap_or_default();
    if let Some((errno, _)) = error_of(message) {
        return Ok(Routed::Refused(Errno::from_raw(errno)));
    }
    Ok(answer(message.get(HEADER..).unwrap_or_default()))
}

/// `struct rtmsg` and its attributes.
fn answer(payload: &[u8]) -> Routed {
    const LOCAL: u8 = 2;
    const BROADCAST: u8 = 3;
    const BLACKHOLE: u8 = 6;
    const UNREACHABLE: u8 = 7;
    const PROHIBIT: u8 = 8;
    let oif = Attributes(payload.get(RTMSG..).unwrap_or_default()).get(RTA_OIF);
    let oif = oif.and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    match (payload.get(7).copied(), oif) {
        (Some(LOCAL | BROADCAST), _) => Routed::Here,
        (Some(BLACKHOLE | PROHIBIT), _) => Routed::Refused(Errno::EACCES),
        (Some(UNREACHABLE), _) | (_, None) => Routed::Refused(Errno::ENETUNREACH),
        (_, Some(oif)) => Routed::Out(oif),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_this_host_is_here() {
        assert_eq!(routed(None, [127, 0, 0, 1].into(), None, None).unwrap(), Routed::Here);
    }
}
