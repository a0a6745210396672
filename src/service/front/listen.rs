use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::sys::tcp;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 4_096;
/// How often the kernel repeats the SYN-ACK of step 1. Strangers never get past it, so this is how long each of them is
/// remembered: 1 + 2 + 4 s instead of a minute.
const SYN_ACK_RETRIES: u8 = 2;
/// How long step 1 leaves a connection without data to the kernel, where it takes nobody's place: as long as a request
/// may take at all.
const DATA_WITHIN_SECS: u8 = 3;

/// The front of a daemon that was killed a moment ago may still hold the port.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on TCP port {port}: see who has it with `ss -ltnp`, or choose another one")]
pub struct ListenError {
    /// The port.
    pub port: u16,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Who can reach a port at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every host.
    Everybody,
    /// Processes on this host, over its loopback interface.
    ThisHost,
}

/// The sockets that listen on a port.
#[derive(Debug)]
pub struct Ears(Vec<TcpListener>);

impl Ears {
    /// The next connection, and from where it is.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = poll_fn(|cx| {
            let mut ears = self.0.iter().map(|ear| ear.poll_accept(cx));
            ears.find(Poll::is_ready).unwrap_or(Poll::Pending)
        });
        let (stream, from) = accepted.await?;
        // One that came while another front listened may end as that one wished.
        tcp::close_gently(&stream)?;
        Ok((stream, from))
    }

    /// Takes over sockets that listen. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says; none is known.
    pub(super) fn from_listeners(listeners: Vec<std::net::TcpListener>) -> io::Result<Self> {
        let ears = listeners.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            // What the front of before may have set, connections would inherit.
            tcp::close_gently(&listener)?;
            TcpListener::from_std(listener)
        });
        ears.collect::<io::Result<_>>().map(Self)
    }

    /// The sockets themselves, which nobody accepts from then on.
    ///
    /// # Errors
    /// What the kernel says; none is known.
    pub fn into_descriptors(self) -> io::Result<Vec<OwnedFd>> {
        self.0.into_iter().map(|ear| ear.into_std().map(OwnedFd::from)).collect()
    }

    /// The address of the first of them.
    ///
    /// # Errors
    /// What the kernel says; none is known.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.first().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }
}

/// Listens for step 1, in both families; on a host without IPv6, in IPv4. Needs a tokio runtime.
///
/// # Errors
/// [`ListenError`] when the port is taken or forbidden.
pub fn bind_step1(port: u16, reach: Reach) -> Result<Ears, ListenError> {
    bind(port, reach, |socket| {
        tcp::limit_handshake_retries(socket, SYN_ACK_RETRIES)?;
        tcp::wait_for_data(socket, DATA_WITHIN_SECS)
    })
}

/// Listens for step 2, in both families; on a host without IPv6, in IPv4. Needs a tokio runtime.
///
/// # Errors
/// [`ListenError`] when the port is taken or forbidden.
pub fn bind_step2(port: u16, reach: Reach) -> Result<Ears, ListenError> {
    bind(port, reach, |_| Ok(()))
}

fn bind(
    port: u16,
    reach: Reach,
    prepare: impl Fn(&TcpSocket) -> io::Result<()>,
) -> Result<Ears, ListenError> {
    let v4 = |at: Ipv4Addr| listen(TcpSocket::new_v4()?, (at, port).into(), &prepare);
    let v6 = |at: Ipv6Addr| {
        let socket = TcpSocket::new_v6()?;
        if at.is_unspecified() {
            tcp::serve_both_families(&socket)?;
        }
        listen(socket, (IpAddr::from(at), port).into(), &prepare)
    };
    let ears = match reach {
        Reach::Everybody => match v6(Ipv6Addr::UNSPECIFIED) {
            Err(e) if without_ipv6(&e) => v4(Ipv4Addr::UNSPECIFIED).map(|ear| vec![ear]),
            other => other.map(|ear| vec![ear]),
        },
        Reach::ThisHost => v4(Ipv4Addr::LOCALHOST).and_then(|first| match v6(Ipv6Addr::LOCALHOST) {
            Err(e) if without_ipv6(&e) => Ok(vec![first]),
            other => other.map(|second| vec![first, second]),
        }),
    };
    ears.map(Ears).map_err(|source| ListenError { port, source })
}

/// A kernel built without IPv6 knows no such family; one that had it switched off has no such address.
fn without_ipv6(error: &io::Error) -> bool {
    let absent = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| absent.contains(&Errno::from_raw(code)))
}

fn listen(
    socket: TcpSocket,
    at: SocketAddr,
    prepare: impl Fn(&TcpSocket) -> io::Result<()>,
) -> io::Result<TcpListener> {
    socket.set_reuseaddr(true)?;
    prepare(&socket)?;
    let until = Instant::now() + LAST_BREATH;
    loop {
        match socket.bind(at) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                thread::sleep(Duration::from_millis(20));
            }
            bound => break bound?,
        }
    }
    let listener = socket.listen(BACKLOG)?;
    tcp::wait_for_handshake(&listener)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_listener_serves_both_families() {
        for listener in [bind_step1(0, Reach::Everybody).unwrap(), bind_step2(0, Reach::Everybody).unwrap()] {
            let at = listener.local_addr().unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, at.port())).await.unwrap();
            if at.is_ipv6() {
                TcpStream::connect((Ipv6Addr::LOCALHOST, at.port())).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind_step1(0, Reach::Everybody).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = bind_step2(port, Reach::Everybody).unwrap_err();
        assert_eq!(error.port, port);
        assert!(error.to_string().contains(&port.to_string()));
    }

    #[tokio::test]
    async fn what_is_for_this_host_is_heard_on_loopback_in_both_families_and_nowhere_else() {
        let port = bind_step1(0, Reach::Everybody).unwrap().local_addr().unwrap().port();
        let ears = bind_step2(port, Reach::ThisHost).unwrap();
        for ear in &ears.0 {
            let at = ear.local_addr().unwrap();
            assert!(at.ip().is_loopback() && at.port() == port, "{at}");
            let client = TcpStream::connect(at).await.unwrap();
            let (_, from) = ears.accept().await.unwrap();
            assert_eq!(from, client.local_addr().unwrap());
        }
        // Another address of this host, which 127.0.0.1 does not stand for.
        assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).await.is_err());
    }
}
