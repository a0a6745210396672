//! Knock sequences: one packet per knock, by means that need no privilege.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::units::{Knock, Protocol};

/// How long a SYN is waited for at most: no system repeats one within that.
const PATIENCE: Duration = Duration::from_millis(900);
/// How long at least, so that it is on its way.
const LEAST: Duration = Duration::from_millis(20);
/// What a datagram holds whose length does not count.
const BYTES: u16 = 1;

/// Knocks at an address, with a pause after each knock. Nobody answers, so nobody knows what came of it.
///
/// # Errors
/// Why a knock could not be sent.
pub fn knock_sequence(address: IpAddr, knocks: &[Knock], pause: Duration) -> io::Result<()> {
    for &knock in knocks {
        let begun = Instant::now();
        let to = SocketAddr::new(address, knock.port());
        match knock.protocol() {
            Protocol::Tcp => syn(to, pause.clamp(LEAST, PATIENCE))?,
            Protocol::Udp => datagram(to, knock.length().unwrap_or(BYTES))?,
        }
        thread::sleep(pause.saturating_sub(begun.elapsed()));
    }
    Ok(())
}

/// A connection attempt that is given up before its SYN is repeated.
fn syn(to: SocketAddr, wait: Duration) -> io::Result<()> {
    match TcpStream::connect_timeout(&to, wait) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::TimedOut
                    | ErrorKind::WouldBlock
                    | ErrorKind::ConnectionRefused
                    | ErrorKind::ConnectionReset
            ) =>
        {
            Err(error)
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn datagram(to: SocketAddr, length: u16) -> io::Result<()> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    // Not connected: an answer that the port is closed is no error of the next knock.
    let sent = UdpSocket::bind(any)?.send_to(&vec![0; usize::from(length)], to)?;
    if sent == usize::from(length) { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn each_knock_is_one_packet_in_order_and_in_time() {
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let port = |address: io::Result<SocketAddr>| address.unwrap().port();
        let text = format!("udp/{}/20,tcp/{}", port(udp.local_addr()), port(tcp.local_addr()));
        let knocks: Vec<Knock> = text.split(',').map(|knock| knock.parse().unwrap()).collect();
        let begun = Instant::now();
        knock_sequence("127.0.0.1".parse().unwrap(), &knocks, Duration::from_millis(60)).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(120));
        let mut bytes = [0; 64];
        assert_eq!(udp.recv(&mut bytes).unwrap(), 20);
        tcp.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        assert_eq!(tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn closed_ports_are_knocked_at_all_the_same() {
        let knocks: Vec<Knock> = ["1", "udp/1", "2"].map(|knock| knock.parse().unwrap()).to_vec();
        knock_sequence("127.0.0.1".parse().unwrap(), &knocks, Duration::ZERO).unwrap();
    }
}
