//! What the standard library does not offer on TCP sockets.
#![expect(unsafe_code, reason = "TCP_SYNCNT, TCP_DEFER_ACCEPT and TCP_FASTOPEN have no safe wrapper")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};

/// Lets a socket that is bound to an IPv6 address serve IPv4 as well, whatever `bindv6only` says.
///
/// # Errors
/// What the kernel says; none is known on a fresh IPv6 socket.
pub fn serve_both_families(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Ipv6V6Only, &false)?)
}

/// Lets a socket be bound to an address that this host does not have yet.
///
/// # Errors
/// What the kernel says; none is known on a fresh socket.
pub fn bind_before_address(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::IpFreebind, &true)?)
}

/// Makes a listener repeat its SYN-ACK at most so often, 1 to 255 times.
///
/// # Errors
/// What the kernel says, such as `EINVAL` for zero.
pub fn limit_handshake_retries(socket: &impl AsFd, retries: u8) -> io::Result<()> {
    set_number(socket, libc::TCP_SYNCNT, retries)
}

/// Makes a listener hand connections over only when data has come, or, after about so many seconds, when the client
/// acknowledges a repeated SYN-ACK. An end of the stream counts as data.
///
/// # Errors
/// What the kernel says; none is known on a TCP socket.
pub fn wait_for_data(socket: &impl AsFd, secs: u8) -> io::Result<()> {
    set_number(socket, libc::TCP_DEFER_ACCEPT, secs)
}

/// Has a listener take no data before the handshake is complete, whatever `net.ipv4.tcp_fastopen` says: with cookies switched
/// off there (`0x200`, `0x400`), a packet with a forged source would be a whole connection.
///
/// To be called after `listen(2)`, which has the socket do what is said there.
///
/// # Errors
/// What the kernel says; none is known on a TCP socket.
pub fn wait_for_handshake(listener: &impl AsFd) -> io::Result<()> {
    match set_number(listener, libc::TCP_FASTOPEN, 0) {
        // A kernel that knows nothing of it does not do it.
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        other => other,
    }
}

fn set_number(socket: &impl AsFd, option: libc::c_int, value: u8) -> io::Result<()> {
    let value = libc::c_int::from(value);
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or_default();
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `len` bytes of `value`, which is
    // that long and lives past the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            len,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// Makes closing a socket throw away what is unsent and leave with at most one RST: no FIN, no state that lingers.
///
/// # Errors
/// What the kernel says; none is known on an open socket.
pub fn close_abruptly(socket: &impl AsFd) -> io::Result<()> {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(setsockopt(socket, sockopt::Linger, &now)?)
}

/// Undoes [`close_abruptly`].
///
/// # Errors
/// As for that.
pub fn close_gently(socket: &impl AsFd) -> io::Result<()> {
    let off = libc::linger { l_onoff: 0, l_linger: 0 };
    Ok(setsockopt(socket, sockopt::Linger, &off)?)
}

/// Whether bytes have arrived that nobody has read yet; never waits, and leaves them where they are.
#[must_use]
pub fn has_unread(socket: &impl AsFd) -> bool {
    let mut byte = [0];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(socket.as_fd().as_raw_fd(), &mut byte, flags).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn unread_bytes_are_seen_and_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert!(!has_unread(&server));
        client.write_all(b"x").unwrap();
        server.peek(&mut [0]).unwrap();
        assert!(has_unread(&server));
        assert_eq!(server.read(&mut [0; 2]).unwrap(), 1);
        drop(client);
        assert!(!has_unread(&server));
    }

    #[test]
    fn an_abrupt_close_is_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        close_abruptly(&server).unwrap();
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_listener_that_waits_for_data_hands_over_no_connection_without() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        wait_for_data(&listener, 60).unwrap();
        listener.set_nonblocking(true).unwrap();
        let _idle = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"x").unwrap();
        let (server, from) = listener.accept().unwrap();
        assert!(has_unread(&server) && from == client.local_addr().unwrap());
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_listener_can_be_told_to_wait_for_the_handshake() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_number(&listener, libc::TCP_FASTOPEN, 5).unwrap();
        wait_for_handshake(&listener).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(listener.accept().unwrap().0.read(&mut [0; 2]).unwrap(), 1);
    }

    #[test]
    fn the_number_of_handshake_retries_can_be_set_but_not_to_zero() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        limit_handshake_retries(&listener, 2).unwrap();
        assert_eq!(limit_handshake_retries(&listener, 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
