//! Open connections of this network namespace, as the kernel lists them, and which way a peer is reached.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use super::netlink::{HEADER, NLMSG_DONE, error_of, kind_of, split_messages};
use super::receive::receive;
use crate::ruleset::wire::{
    Attempt, Attributes, CTA_ZONE, Socket, Tracked, attempted, known, socket as decode_socket,
    socket_request, tracked,
};

/// Of all families, unlike `SOCK_DIAG_BY_FAMILY`.
const TCPDIAG_GETSOCK: u16 = 18;
/// Subsystem 1 (ctnetlink), message 1 (get).
const CT_GET: u16 = 0x101;
const CT_DELETE: u16 = 0x102;
const ACK: u16 = 4;
/// `NLA_F_NESTED`
const NESTED: u16 = 0x8000;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const REQUEST: u16 = 1;
pub(super) const DUMP: u16 = 0x300;
/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
/// Length of `struct rtmsg`.
pub(super) const RTMSG: usize = 12;
/// Where in it the type of the route is.
pub(super) const RTM_TYPE: usize = 7;
const RTN_LOCAL: u8 = 2;
const PATIENCE_SECS: i64 = 20;
/// How many connections connection tracking knows in this network namespace.
const TRACKED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";

/// TCP sockets that listen or carry a connection, of both families.
///
/// # Errors
/// When the kernel does not say.
pub fn sockets() -> io::Result<Vec<Socket>> {
    let mut out = Vec::new();
    dump_sockets(true, |payload| out.extend(decode_socket(payload)))?;
    Ok(out)
}

/// Hands each `struct inet_diag_msg` to `take`.
fn dump_sockets(connections: bool, take: impl FnMut(&[u8])) -> io::Result<()> {
    let netlink = open(SockProtocol::NetlinkSockDiag)?;
    ask(&netlink, TCPDIAG_GETSOCK, REQUEST | DUMP, &socket_request(connections))?;
    read_all(&netlink, take)
}

/// TCP ports on whose `::` somebody listens who takes no IPv4.
///
/// # Errors
/// When the kernel does not say.
pub fn listening_for_v6_only() -> io::Result<Vec<u16>> {
    let mut out = Vec::new();
    dump_sockets(false, |payload| out.extend(v6_only(payload)))?;
    Ok(out)
}

/// The port of one `struct inet_diag_msg`, where it is such a listener (`INET_DIAG_SKV6ONLY`).
fn v6_only(payload: &[u8]) -> Option<u16> {
    const DIAG_MSG: usize = 72;
    const SKV6ONLY: u16 = 11;
    let only = Attributes(payload.get(DIAG_MSG..)?).get(SKV6ONLY)?;
    let socket = decode_socket(payload)?;
    let is_any = socket.listens && socket.local.ip().is_unspecified();
    (is_any && only.first() == Some(&1)).then_some(socket.local.port())
}

/// Where TCP sockets listen whose queue of connections that their program has not taken is full: the kernel answers no more.
///
/// # Errors
/// When the kernel does not say.
pub fn full_queues() -> io::Result<Vec<SocketAddr>> {
    let (mut full, mut free) = (Vec::new(), Vec::new());
    dump_sockets(false, |payload| match is_full(payload) {
        Some((local, true)) => full.push(local),
        Some((local, false)) => free.push(local),
        None => {}
    })?;
    // Several may listen at the same place.
    full.retain(|local| !free.contains(local));
    Ok(full)
}

/// Of one `struct inet_diag_msg` of a socket that listens: how many wait in its queue, and how many may.
fn is_full(payload: &[u8]) -> Option<(SocketAddr, bool)> {
    const WAIT: usize = 56;
    const MAY_WAIT: usize = 60;
    let number = |at: usize| Some(u32::from_ne_bytes(*payload.get(at..)?.first_chunk::<4>()?));
    let socket = decode_socket(payload).filter(|socket| socket.listens)?;
    Some((socket.local, number(WAIT)? > number(MAY_WAIT)?))
}

/// Connections that connection tracking knows and both ends have spoken on.
///
/// # Errors
/// When the kernel does not say, among others because it does not track connections.
pub fn tracked_connections() -> io::Result<Vec<Tracked>> {
    dump(tracked)
}

/// All connections of TCP and UDP that connection tracking knows, those that are only beginning or end among them.
///
/// # Errors
/// As for [`tracked_connections`].
pub fn known_connections() -> io::Result<Vec<Tracked>> {
    dump(known)
}

/// The same with the state that they are in.
///
/// # Errors
/// As for [`tracked_connections`].
pub fn all_attempts() -> io::Result<Vec<Attempt>> {
    dump(attempted)
}

/// Whether connection tracking here lets packets of TCP pass that do not fit the state of their connection.
#[must_use]
pub fn is_liberal() -> bool {
    // Where nobody may ask (`ProcSubset=pid`) it may be so.
    std::fs::read(LIBERAL).map_or(true, |flag| flag.trim_ascii() != b"0")
}

fn dump<T>(decode: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    let mut out = Vec::new();
    // The kernel walks a table of the size of the whole machine's to find none.
    if std::fs::read(TRACKED).is_ok_and(|number| number.trim_ascii() == b"0") {
        return Ok(out);
    }
    let netlink = open(SockProtocol::NetlinkNetFilter)?;
    ask(&netlink, CT_GET, REQUEST | DUMP, &[0; NFGENMSG])?;
    read_all(&netlink, |payload| out.extend(payload.get(NFGENMSG..).and_then(&decode)))?;
    Ok(out)
}

/// Connections of one client that connection tracking knows, in whatever state.
///
/// # Errors
/// When the kernel does not say, among others because it does not track connections.
pub fn attempts_of(client: IpAddr) -> io::Result<Vec<Attempt>> {
    let mut out = Vec::new();
    let netlink = open(SockProtocol::NetlinkNetFilter)?;
    ask(&netlink, CT_GET, REQUEST | DUMP, &[0; NFGENMSG])?;
    read_all(&netlink, |payload| {
        let found = payload.get(NFGENMSG..).and_then(attempted);
        out.extend(found.filter(|attempt| attempt.flow.client.ip() == client));
    })?;
    Ok(out)
}

/// Has connection tracking forget a connection that it listed.
///
/// # Errors
/// As for [`forget_connection`].
pub fn forget(flow: &Tracked) -> io::Result<()> {
    forget_in_zone(flow.protocol.number(), flow.client, flow.server, flow.zone)
}

/// Has connection tracking forget the connection between two ends, whoever of them it takes for the originator, where
/// nobody made zones of connections.
///
/// # Errors
/// When the kernel cannot be asked; a connection that it does not know is none.
pub fn forget_connection(protocol: u8, client: SocketAddr, server: SocketAddr) -> io::Result<()> {
    forget_in_zone(protocol, client, server, 0)
}

fn forget_in_zone(protocol: u8, client: SocketAddr, server: SocketAddr, zone: u16) -> io::Result<()> {
    let netlink = open(SockProtocol::NetlinkNetFilter)?;
    let (family, body) = tuple_attribute(protocol, client, server);
    let mut message = vec![family, 0, 0, 0];
    message.extend(body);
    if zone != 0 {
        message.extend(attribute(CTA_ZONE, &zone.to_be_bytes()));
    }
    ask(&netlink, CT_DELETE, REQUEST | ACK, &message)?;
    let mut buffer = vec![0; 8192];
    let length = receive(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let answer = split_messages(buffer.get(..length).unwrap_or_default()).find_map(error_of);
    match answer.map_or(Errno::EBADMSG, |(errno, _)| Errno::from_raw(errno)) {
        Errno::UnknownErrno if answer.is_some_and(|(errno, _)| errno == 0) => Ok(()),
        Errno::ENOENT => Ok(()),
        errno => Err(errno.into()),
    }
}

/// `AF_INET` or `AF_INET6`, and `CTA_TUPLE_ORIG`.
fn tuple_attribute(protocol: u8, client: SocketAddr, server: SocketAddr) -> (u8, Vec<u8>) {
    let (family, first) = if client.is_ipv4() { (2, 1) } else { (10, 3) };
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let ends = [attribute(first, &octets(client.ip())), attribute(first + 1, &octets(server.ip()))].concat();
    let ports = [
        attribute(1, &[protocol]),
        attribute(2, &client.port().to_be_bytes()),
        attribute(3, &server.port().to_be_bytes()),
    ]
    .concat();
    let tuple = [attribute(NESTED | 1, &ends), attribute(NESTED | 2, &ports)].concat();
    (family, attribute(NESTED | 1, &tuple))
}

pub(super) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX).to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(payload);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

/// Index of the interface by which packets to an address would leave; none where there is no route.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn interface_towards(addr: IpAddr) -> io::Result<Option<u32>> {
    Ok(way_to(addr)?.and_then(|way| way.interface))
}

/// Whether packets to an address are for this host.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn is_local(addr: IpAddr) -> io::Result<bool> {
    Ok(way_to(addr)?.is_some_and(|way| way.is_local))
}

/// What the kernel says of the way to an address.
struct Way {
    interface: Option<u32>,
    is_local: bool,
}

fn way_to(addr: IpAddr) -> io::Result<Option<Way>> {
    let (family, bytes) = match addr {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    };
    let bits = u8::try_from(bytes.len() * 8).unwrap_or(u8::MAX);
    let mut body = vec![family, bits];
    body.resize(RTMSG, 0);
    // RTA_DST
    body.extend(u16::try_from(bytes.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend(1_u16.to_ne_bytes());
    body.extend(bytes);
    let netlink = open(SockProtocol::NetlinkRoute)?;
    ask(&netlink, RTM_GETROUTE, REQUEST, &body)?;
    let mut buffer = vec![0; 8192];
    let length = receive(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    for message in split_messages(buffer.get(..length).unwrap_or_default()) {
        if error_of(message).is_some() {
            return Ok(None);
        }
        let Some((route, attributes)) = message.get(HEADER..).and_then(|body| body.split_at_checked(RTMSG))
        else {
            continue;
        };
        // RTA_OIF
        let interface = Attributes(attributes).get(4).and_then(|bytes| bytes.try_into().ok());
        return Ok(Some(Way {
            interface: interface.map(u32::from_ne_bytes),
            is_local: route.get(RTM_TYPE) == Some(&RTN_LOCAL),
        }));
    }
    Ok(None)
}

pub(super) fn open(protocol: SockProtocol) -> io::Result<OwnedFd> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_SECS, 0))?;
    Ok(netlink)
}

/// Sends one question.
pub(super) fn one_message(netlink: &OwnedFd, kind: u16, body: &[u8]) -> io::Result<()> {
    ask(netlink, kind, REQUEST, body)
}

pub(super) fn ask(netlink: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let mut message = Vec::new();
    message.extend(u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    Ok(())
}

/// Hands the payload of each message of a dump to `take`.
fn read_all(netlink: &OwnedFd, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    read_while(netlink, |payload| {
        take(payload);
        true
    })
}

/// The same, until `take` has enough.
pub(super) fn read_while(netlink: &OwnedFd, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = receive(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in split_messages(buffer.get(..length).unwrap_or_default()) {
            if kind_of(message) == Some(NLMSG_DONE) {
                return Ok(());
            }
            if let Some((errno, _)) = error_of(message) {
                return Err(Errno::from_raw(errno).into());
            }
            if !take(message.get(HEADER..).unwrap_or_default()) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Backlog, SockaddrIn6, bind, listen};
    use std::net::{SocketAddrV6, TcpListener, TcpStream};

    #[test]
    fn listeners_and_connections_of_this_host_are_listed() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let found = sockets().unwrap();
            let server = listener.local_addr().unwrap();
            assert!(found.iter().any(|socket| socket.listens && socket.local == server));
            let ends = (server, client.local_addr().unwrap());
            assert!(found.iter().any(|socket| !socket.listens && (socket.local, socket.remote) == ends));
        }
    }

    #[test]
    fn who_listens_for_ipv6_only_is_told_from_who_listens_for_both() {
        let listeners = [true, false].map(|only| {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Inet6, SockType::Stream, flags, None).unwrap();
            setsockopt(&socket, sockopt::Ipv6V6Only, &only).unwrap();
            bind(socket.as_raw_fd(), &SockaddrIn6::from("[::]:0".parse::<SocketAddrV6>().unwrap())).unwrap();
            listen(&socket, Backlog::new(1).unwrap()).unwrap();
            TcpListener::from(socket)
        });
        let [only, both] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
        let found = listening_for_v6_only().unwrap();
        assert!(found.contains(&only.port()) && !found.contains(&both.port()), "{found:?}");
        let full = full_queues().unwrap();
        assert!(!full.contains(&only) && !full.contains(&both), "{full:?}");
    }

    #[test]
    fn the_way_to_oneself_is_the_loopback_interface() {
        let index = interface_towards("127.0.0.1".parse().unwrap()).unwrap().unwrap();
        assert_eq!(nix::net::if_::if_indextoname(index).unwrap().to_str(), Ok("lo"));
        for own in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert!(is_local(own.parse().unwrap()).unwrap(), "{own}");
        }
        for other in ["192.0.2.1", "2001:db8::1", "224.0.0.1"] {
            assert!(!is_local(other.parse().unwrap()).unwrap_or(false), "{other}");
        }
    }
}
