//! Local sockets (`unix(7)`) of other processes.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// Connects to a listener. Where more wait for it than it has room for, as it accepts nobody, so long and no longer.
///
/// # Errors
/// Those of `connect(2)`; [`io::ErrorKind::TimedOut`] when the time is over.
pub fn call(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let end = Instant::now() + patience;
    let address = UnixAddr::new(path)?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let caller =
            UnixStream::from(socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?);
        // For which connect(2) waits, too.
        caller.set_write_timeout(Some(left))?;
        match connect(caller.as_raw_fd(), &address) {
            Ok(()) => return Ok(caller),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    #[test]
    fn who_accepts_nobody_is_waited_for_so_long() {
        let path = std::env::temp_dir().join(format!("ka-deaf-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let soon = Duration::from_millis(300);
        assert_eq!(call(&path, soon).unwrap_err().kind(), io::ErrorKind::NotFound);
        let deaf = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(deaf.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        assert_eq!(call(&path, soon).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        listen(&deaf, Backlog::new(1).unwrap()).unwrap();
        let waiting: Vec<UnixStream> = (0..2).map(|_| call(&path, soon).unwrap()).collect();
        let begun = Instant::now();
        assert_eq!(call(&path, soon).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= soon && begun.elapsed() < Duration::from_secs(20));
        drop(waiting);
        std::fs::remove_file(&path).unwrap();
    }
}
