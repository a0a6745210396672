//! One daemon per network namespace, whatever its files are: a socket with a name that belongs to the namespace
//! (`unix(7)`, abstract sockets) and that the kernel gives up when its owner dies.

use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};

use super::{process, users};

const NAME: &str = "knock-agent";
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// What became of the attempt to be the one.
#[derive(Debug)]
pub enum Claim {
    /// This process is; until the socket is dropped.
    Ours(UnixListener),
    /// A process that may is; its number, 0 where it cannot be seen from here.
    Theirs(i32),
    /// A user who may not be has taken the name; none where it cannot be told who.
    Squatted(Option<u32>),
}

/// Takes the name, or says who has it.
///
/// # Errors
/// When the kernel would not, for another reason.
pub fn claim() -> io::Result<Claim> {
    for _ in 0..TRIES {
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(NAME)?) {
            Ok(listener) => return Ok(Claim::Ours(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
        if let Some(holder) = holder()? {
            return Ok(holder);
        }
        // Somebody is between taking the name and listening, or has just died.
        std::thread::sleep(PAUSE);
    }
    Ok(Claim::Squatted(None))
}

/// Who has the name: [`Claim::Theirs`] or [`Claim::Squatted`]; none if nobody has, or nobody listens.
///
/// # Errors
/// When the kernel would not say.
pub fn holder() -> io::Result<Option<Claim>> {
    // Not to be held up by somebody who lets callers wait.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let caller = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(caller.as_raw_fd(), &UnixAddr::new_abstract(NAME.as_bytes())?) {
        Ok(()) => {}
        Err(Errno::ECONNREFUSED) => return Ok(None),
        Err(Errno::EAGAIN) => return Ok(Some(Claim::Squatted(None))),
        Err(errno) => return Err(errno.into()),
    }
    let holder = getsockopt(&caller, PeerCredentials)?;
    let (uid, pid) = (holder.uid(), holder.pid());
    Ok(Some(if users::may_operate(uid, holder.gid()) && !is_powerless(uid, pid) {
        Claim::Theirs(pid)
    } else {
        Claim::Squatted(Some(uid))
    }))
}

/// Whether a process is known to be without `CAP_NET_ADMIN`, or to be gone, so that it cannot be the one that guards: such
/// as root of a container that shares this network namespace, or an operator's own process. One that cannot be seen from
/// here may be.
fn is_powerless(uid: u32, pid: i32) -> bool {
    if pid <= 0 {
        return false;
    }
    match process::has_net_admin(pid) {
        Ok(able) => !able || (uid != 0 && is_elsewhere(uid, pid)),
        Err(errno) => errno == Errno::ESRCH,
    }
}

/// Whether a user's process is in another user namespace, where everybody can have capabilities that count there only
/// (`user_namespaces(7)`). Where `/proc` hides that, those who may guard are believed.
fn is_elsewhere(uid: u32, pid: i32) -> bool {
    process::is_elsewhere(pid).unwrap_or_else(|| !users::is_ours(uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_power_over_the_network_cannot_be_the_one() {
        assert!(!is_powerless(7, 0), "it cannot be seen from here");
        assert!(is_powerless(7, i32::MAX), "there is no such process");
        assert_eq!(process::has_net_admin(i32::MAX), Err(Errno::ESRCH));
        // As where /proc hides it.
        assert!(is_elsewhere(54_321, i32::MAX));
        assert!(!is_elsewhere(users::own(), i32::MAX));
    }
}
