//! Receiving from a socket whatever signals come.

use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// Receives as `recv(2)` does, again where a signal interrupted it: on a socket with a time limit it is interrupted even by
/// signals whose handlers ask for a restart (`signal(7)`), such as those of a reload.
///
/// # Errors
/// Those of `recv(2)` but `EINTR`.
pub(super) fn receive(fd: RawFd, buffer: &mut [u8], flags: MsgFlags) -> Result<usize, Errno> {
    loop {
        match recv(fd, buffer, flags) {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}
