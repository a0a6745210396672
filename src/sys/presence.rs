//! One daemon per network namespace, whatever its files are: a socket with a name that belongs to the namespace
//! (`unix(7)`, abstract sockets) and that the kernel gives up when its owner dies.

use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use nix::unistd::Pid;

use super::users;

const NAME: &str = "knock-agent";
/// `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;
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
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => {
            effective(&status).is_some_and(|set| set & (1 << CAP_NET_ADMIN) == 0)
                || (uid != 0 && is_elsewhere(pid))
        }
        // What is hidden (`hidepid`, proc(5)) is there all the same.
        Err(_) => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
    }
}

/// Whether a process is in another user namespace, where everybody can have capabilities that count there only
/// (`user_namespaces(7)`).
fn is_elsewhere(pid: i32) -> bool {
    let map = |of: &str| std::fs::read_to_string(format!("/proc/{of}/uid_map")).ok();
    matches!((map("self"), map(&pid.to_string())), (Some(own), Some(other)) if own != other)
}

/// The effective capabilities in `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_power_over_the_network_cannot_be_the_one() {
        assert_eq!(effective("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000001000\n"), Some(1 << CAP_NET_ADMIN));
        assert_eq!(effective("Name:\tx\n"), None);
        assert!(!is_powerless(7, 0), "it cannot be seen from here");
        assert!(is_powerless(7, i32::MAX), "there is no such process");
    }
}
