use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::namespace::Namespace;

/// How long nothing must come back before a port counts as silent.
pub const PATIENCE: Duration = Duration::from_millis(700);
/// How long an open port may take: two repetitions of a lost first packet.
pub const GENEROUS: Duration = Duration::from_secs(4);

/// What became of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The handshake was completed.
    Open,
    /// A reset came back.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// An ICMP error came back.
    Unreachable,
}

/// Tries to connect.
pub fn tcp(from: &Namespace, to: SocketAddr, limit: Duration) -> Reach {
    match dial(from, to, limit) {
        Ok(_) => Reach::Open,
        Err(e) => match e.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Reach::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Reach::Silent,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied => {
                Reach::Unreachable
            }
            _ => panic!("connecting to {to}: {e}"),
        },
    }
}

/// Connects from inside the namespace.
pub fn dial(from: &Namespace, to: SocketAddr, limit: Duration) -> std::io::Result<TcpStream> {
    from.enter(|| TcpStream::connect_timeout(&to, limit))
}

/// Connects from a chosen source port.
pub fn dial_from_port(from: &Namespace, source: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    from.enter(|| {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(4))?;
        let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
        bind(raw, &SockaddrStorage::from(source))?;
        connect(raw, &SockaddrStorage::from(to))?;
        Ok(TcpStream::from(fd))
    })
}

/// Stops the test unless the port accepts a connection.
#[track_caller]
pub fn assert_open(from: &Namespace, to: IpAddr, port: u16) {
    let reach = tcp(from, (to, port).into(), GENEROUS);
    assert_eq!(reach, Reach::Open, "tcp port {port} of {to} from {}", from.name());
}

/// Stops the test unless nothing at all comes back from the port.
#[track_caller]
pub fn assert_silent(from: &Namespace, to: IpAddr, port: u16) {
    let reach = tcp(from, (to, port).into(), PATIENCE);
    assert_eq!(reach, Reach::Silent, "tcp port {port} of {to} from {}", from.name());
}

/// Stops the test unless what is sent over a connection to the port comes back.
#[track_caller]
pub fn assert_echoes(from: &Namespace, to: IpAddr, port: u16) {
    let stream = dial(from, (to, port).into(), GENEROUS)
        .unwrap_or_else(|e| panic!("tcp port {port} of {to} from {}: {e}", from.name()));
    assert_echo(stream);
}

/// Stops the test unless what is sent over the connection comes back.
#[track_caller]
pub fn assert_echo(mut stream: TcpStream) {
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    stream.write_all(b"are you there").unwrap();
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).expect("the echo of what was sent");
    assert_eq!(&answer, b"are you there");
}

/// Whether a datagram to the port is answered in time; it is sent again every 300 ms.
pub fn udp_echoes(from: &Namespace, to: IpAddr, port: u16, limit: Duration) -> bool {
    udp_echoes_from(from, 0, to, port, limit)
}

/// The same, from a chosen source port (0: any).
pub fn udp_echoes_from(from: &Namespace, source: u16, to: IpAddr, port: u16, limit: Duration) -> bool {
    let socket = udp_socket(from, to, source);
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let end = Instant::now() + limit;
    loop {
        let _ = socket.send_to(b"are you there", (to, port));
        let mut answer = [0; 64];
        if matches!(socket.recv_from(&mut answer), Ok((13, _))) {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
    }
}

/// A datagram socket of the family of `to`, inside the namespace.
pub fn udp_socket(from: &Namespace, to: IpAddr, source: u16) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let end = Instant::now() + GENEROUS;
    loop {
        match from.enter(|| UdpSocket::bind((any, source))) {
            // A process that another test is about to start has a socket of before for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            bound => return bound.unwrap(),
        }
    }
}

#[track_caller]
pub fn assert_udp_open(from: &Namespace, to: IpAddr, port: u16) {
    assert!(udp_echoes(from, to, port, GENEROUS), "udp port {port} of {to} is closed to {}", from.name());
}

#[track_caller]
pub fn assert_udp_silent(from: &Namespace, to: IpAddr, port: u16) {
    assert!(!udp_echoes(from, to, port, PATIENCE), "udp port {port} of {to} is open to {}", from.name());
}

/// Waits until the port goes silent and tells when it did; stops the test when it is still open at `end`.
#[track_caller]
pub fn when_silent(from: &Namespace, to: IpAddr, port: u16, end: Instant) -> Instant {
    loop {
        let tried = Instant::now();
        if tcp(from, (to, port).into(), PATIENCE) == Reach::Silent {
            return tried;
        }
        assert!(tried < end, "tcp port {port} of {to} is still open to {}", from.name());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Stops the test unless `moment` is within 1.5 s of `due`.
#[track_caller]
pub fn assert_on_time(moment: Instant, due: Instant) {
    let off = moment.max(due) - moment.min(due);
    let side = if moment < due { "early" } else { "late" };
    assert!(off <= Duration::from_millis(1500), "{off:?} too {side}");
}
