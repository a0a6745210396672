//! Addresses, ports that are open or not, and bytes from one end to the other.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Families;

/// A connection to the service.
pub type Stream = TcpStream;

/// How long one try to reach the service takes.
const TRY: Duration = Duration::from_millis(1_500);

/// Of each family, so many addresses are tried at most.
const MOST: usize = 4;

/// The first few addresses of a host in each family, in the order in which the system prefers them.
///
/// # Errors
/// The resolver's reason; [`io::ErrorKind::NotFound`] where there is none of the wanted families.
pub fn resolve(host: &str, families: Families) -> io::Result<Vec<IpAddr>> {
    // Port 9 stands for none: only addresses are asked for.
    let found = (host, 9).to_socket_addrs()?.map(|socket| socket.ip());
    let found = some(found, families, MOST);
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address of the wanted family"));
    }
    Ok(found)
}

/// The first of each family.
#[must_use]
pub fn firsts(addresses: &[IpAddr]) -> Vec<IpAddr> {
    some(addresses.iter().copied(), Families::Both, 1)
}

/// So many different ones of each wanted family at most.
fn some(addresses: impl Iterator<Item = IpAddr>, families: Families, most: usize) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for address in addresses {
        let wanted = match families {
            Families::Both => true,
            Families::V4 => address.is_ipv4(),
            Families::V6 => address.is_ipv6(),
        };
        let before = found.iter().filter(|known| known.is_ipv4() == address.is_ipv4()).count();
        if wanted && before < most && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// From which address this host reaches each of these; none where there is no route. Sends nothing.
#[must_use]
pub fn own_addresses(to: &[IpAddr]) -> Vec<Option<IpAddr>> {
    let own = |to: &IpAddr| {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect((*to, 9)).ok()?;
        socket.local_addr().ok().map(|socket| socket.ip())
    };
    to.iter().map(own).collect()
}

/// Connects to the first of these addresses that answers, until `end`; all are tried at the same time.
#[must_use]
pub fn open(addresses: &[IpAddr], port: u16, end: Instant) -> Option<Stream> {
    loop {
        let (tell, told) = channel();
        for address in addresses {
            let (tell, to) = (tell.clone(), SocketAddr::from((*address, port)));
            thread::spawn(move || {
                if let Ok(stream) = TcpStream::connect_timeout(&to, TRY) {
                    // Nobody listens any more once another was first.
                    let _ = tell.send(stream);
                }
            });
        }
        drop(tell);
        let begun = Instant::now();
        // Ends when one succeeded or all have failed.
        if let Ok(stream) = told.recv() {
            return Some(stream);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(100).saturating_sub(begun.elapsed()));
    }
}

/// Carries bytes between standard input and output and a connection, until the service closes it.
///
/// # Errors
/// What broke.
pub fn pipe(stream: &Stream) -> io::Result<()> {
    let mut to = stream.try_clone()?;
    // Ends with the process, where nothing more is typed.
    thread::spawn(move || {
        let copied = carry(&mut io::stdin().lock(), &mut to);
        if copied.is_ok() {
            let _ = to.shutdown(Shutdown::Write);
        }
    });
    let mut from = stream.try_clone()?;
    carry(&mut from, &mut io::stdout().lock())
}

fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; 65_536];
    loop {
        let length = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(piece.get(..length).unwrap_or_default())?;
        // Standard output waits for the end of a line otherwise.
        to.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_addresses_of_each_family_are_kept_in_their_order() {
        let all =
            ["192.0.2.1", "2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"];
        let all: Vec<IpAddr> = all.iter().map(|address| address.parse().unwrap()).collect();
        let kept = |families| some(all.iter().copied(), families, MOST);
        assert_eq!(kept(Families::V4), [all[0], all[3], all[4], all[5]]);
        assert_eq!(kept(Families::Both), [all[0], all[1], all[3], all[4], all[5]]);
        assert_eq!(firsts(&all), [all[0], all[1]]);
    }

    #[test]
    fn addresses_of_the_wanted_families_are_found() {
        let of = |host: &str, families| resolve(host, families).ok();
        assert_eq!(of("127.0.0.1", Families::Both), Some(vec!["127.0.0.1".parse().unwrap()]));
        assert_eq!(of("::1", Families::V6), Some(vec!["::1".parse().unwrap()]));
        assert_eq!(of("::1", Families::V4), None);
        assert_eq!(own_addresses(&["127.0.0.1".parse().unwrap()]), [Some("127.0.0.1".parse().unwrap())]);
    }
}
