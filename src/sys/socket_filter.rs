//! Which messages of a netlink socket do not wake its process.
#![expect(unsafe_code, reason = "setsockopt with a filter, for which nix has no words")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// Where a netlink header says which port a message came from (`nlmsg_pid` in `linux/netlink.h`).
const PORT: u32 = 12;
const WHOLE: u32 = u32::MAX;

/// Has a socket not hear of what comes from that netlink port.
///
/// # Errors
/// When the kernel takes no filter.
pub(super) fn ignore_port(socket: BorrowedFd<'_>, port: u32) -> io::Result<()> {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap_or(0), jt, jf, k };
    // Filters read in network byte order; the header is in the host's.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, PORT),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, port),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, WHOLE),
    ];
    let filter =
        libc::sock_fprog { len: u16::try_from(program.len()).unwrap_or(0), filter: program.as_mut_ptr() };
    let length = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0);
    // SAFETY: the descriptor is open; the option takes a `sock_fprog`, which points to that many steps; the kernel copies
    // both before it returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
