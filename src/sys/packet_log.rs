//! Hears what log rules tell of packets (nfnetlink_log).
#![expect(unsafe_code, reason = "hands a descriptor of its own to the runtime")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use tokio::io::unix::AsyncFd;

use super::netlink::split_messages;

const NLMSG_ERROR: u16 = 2;
const RECEIVE: usize = 64 * 1024;
/// Bytes that may wait: thousands of packets.
const ROOM: usize = 4 << 20;
/// A kernel that does not answer a request for this long does not answer.
const PATIENCE_SECS: i64 = 5;

/// A socket that hears one group.
#[derive(Debug)]
pub struct PacketLog {
    waiting: AsyncFd<OwnedFd>,
    received: Vec<u8>,
}

impl PacketLog {
    /// Sends these requests for a group, and waits for the kernel's answers. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel would not: it lacks the module, or another program has the group.
    pub fn open(requests: &[Vec<u8>]) -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_SECS, 0))?;
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &ROOM);
        let mut received = vec![0; RECEIVE];
        for request in requests {
            send(fd.as_raw_fd(), request, MsgFlags::empty())?;
            // What is told meanwhile is of no use before the grants in the kernel are read.
            while !answered(&fd, &mut received)? {}
        }
        // SAFETY: the descriptor is owned by what is registered, and is the same until that is dropped.
        let waiting =
            unsafe { AsyncFd::register(fd) }.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { waiting, received })
    }

    /// Waits until something is told and hands every message that waits to `take`; false if some were lost.
    /// May be dropped and called again without loss.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub async fn heard(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut ready = self.waiting.readable().await?;
        let whole = drain(ready.get_inner(), &mut self.received, &mut take)?;
        ready.clear_ready();
        Ok(whole)
    }

    /// The same for what waits now.
    ///
    /// # Errors
    /// As [`PacketLog::heard`].
    pub fn heard_now(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        drain(self.waiting.get_ref(), &mut self.received, &mut take)
    }
}

fn drain(fd: &OwnedFd, received: &mut [u8], take: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    let mut whole = true;
    loop {
        match recv(fd.as_raw_fd(), received, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                split_messages(received.get(..length).unwrap_or_default()).for_each(&mut *take);
            }
            Err(Errno::EAGAIN) => return Ok(whole),
            Err(Errno::EINTR) => {}
            Err(Errno::ENOBUFS) => whole = false,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether the answer to a request was among what came.
fn answered(fd: &OwnedFd, received: &mut [u8]) -> io::Result<bool> {
    let length = match recv(fd.as_raw_fd(), received, MsgFlags::empty()) {
        Ok(length) => length,
        Err(Errno::EINTR | Errno::ENOBUFS) => return Ok(false),
        Err(errno) => return Err(errno.into()),
    };
    for message in split_messages(received.get(..length).unwrap_or_default()) {
        let kind = message.get(4..6).and_then(|kind| Some(u16::from_ne_bytes(kind.try_into().ok()?)));
        let code = message.get(16..20).and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?)));
        match (kind, code) {
            (Some(NLMSG_ERROR), Some(0)) => return Ok(true),
            (Some(NLMSG_ERROR), Some(code)) => return Err(io::Error::from_raw_os_error(-code)),
            _ => {}
        }
    }
    Ok(false)
}
