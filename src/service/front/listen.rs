use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::errno::Errno;
use tokio::net::{TcpListener, TcpSocket};

use crate::sys::tcp;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 4_096;
/// How often the kernel repeats the SYN-ACK of step 1. Strangers never get past it, so this is how long each of them is
/// remembered: 1 + 2 + 4 s instead of a minute.
const SYN_ACK_RETRIES: u8 = 2;

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

/// Listens for step 1, on every address of both families; on a host without IPv6, of IPv4. Needs a tokio runtime.
///
/// # Errors
/// [`ListenError`] when the port is taken or forbidden.
pub fn bind_step1(port: u16) -> Result<TcpListener, ListenError> {
    bind(port, |socket| tcp::limit_handshake_retries(socket, SYN_ACK_RETRIES))
}

/// Listens for step 2, on every address of both families; on a host without IPv6, of IPv4. Needs a tokio runtime.
///
/// # Errors
/// [`ListenError`] when the port is taken or forbidden.
pub fn bind_step2(port: u16) -> Result<TcpListener, ListenError> {
    bind(port, |_| Ok(()))
}

fn bind(port: u16, prepare: impl Fn(&TcpSocket) -> io::Result<()>) -> Result<TcpListener, ListenError> {
    let dual = || {
        let socket = TcpSocket::new_v6()?;
        tcp::serve_both_families(&socket)?;
        listen(socket, (Ipv6Addr::UNSPECIFIED, port).into(), &prepare)
    };
    let v4 = || listen(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into(), &prepare);
    let listener = match dual() {
        Err(e) if without_ipv6(&e) => v4(),
        other => other,
    };
    listener.map_err(|source| ListenError { port, source })
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
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn one_listener_serves_both_families() {
        for listener in [bind_step1(0).unwrap(), bind_step2(0).unwrap()] {
            let at = listener.local_addr().unwrap();
            TcpStream::connect((Ipv4Addr::LOCALHOST, at.port())).await.unwrap();
            if at.is_ipv6() {
                TcpStream::connect((Ipv6Addr::LOCALHOST, at.port())).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = bind_step1(0).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = bind_step2(port).unwrap_err();
        assert_eq!(error.port, port);
        assert!(error.to_string().contains(&port.to_string()));
    }
}
