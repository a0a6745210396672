//! Knocks as the simplest clients make them: one SYN, one datagram.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

use knock_agent::units::{Knock, Protocol};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::namespace::Namespace;

/// The pause of the seed's client between two knocks.
pub const DELAY: Duration = Duration::from_millis(100);

/// Knocks at these ports of the router, with a pause after each.
pub fn knock_at(from: &Namespace, to: IpAddr, knocks: &str) {
    slowly(from, to, knocks, DELAY);
}

/// The same with pauses of that length between two knocks.
pub fn slowly(from: &Namespace, to: IpAddr, knocks: &str, pause: Duration) {
    for (index, knock) in knocks.split(',').enumerate() {
        if index > 0 {
            sleep(pause);
        }
        let knock = knock.parse().unwrap();
        from.enter(|| once(None, to, knock));
    }
    sleep(DELAY);
}

/// Knocks once from a port of its own.
pub fn knock_from_port(from: &Namespace, source: u16, to: IpAddr, knock: &str) {
    let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
    from.enter(|| once(Some((any, source).into()), to, knock.parse().unwrap()));
    sleep(DELAY);
}

/// Sends one knock from the network namespace of this thread.
pub fn once(source: Option<SocketAddr>, to: IpAddr, knock: Knock) {
    let at = SocketAddr::from((to, knock.port()));
    match knock.protocol() {
        Protocol::Tcp => syn(source, at),
        Protocol::Udp => {
            let any = SocketAddr::from((
                if to.is_ipv4() { [0, 0, 0, 0].into() } else { IpAddr::from([0_u16; 8]) },
                0,
            ));
            let length = usize::from(knock.length().unwrap_or(4));
            datagram(source.unwrap_or(any), at, &vec![b'k'; length]);
        }
    }
}

/// A connection attempt that nobody waits for, so that no SYN is repeated.
fn syn(source: Option<SocketAddr>, to: SocketAddr) {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None).unwrap();
    if let Some(source) = source {
        setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
        bind(fd.as_raw_fd(), &SockaddrStorage::from(source)).unwrap();
    }
    let _ = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
}

fn datagram(source: SocketAddr, to: SocketAddr, payload: &[u8]) {
    let socket = UdpSocket::bind(source).unwrap();
    let _ = socket.send_to(payload, to);
}
