//! The journal of systemd, in its own protocol: a datagram of fields (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};

use crate::sys::log_end::wait_for_room;

const SOCKET: &str = "/run/systemd/journal/socket";
/// So much of a value is told; what is longer would need a file of its own.
const LONGEST: usize = 16 << 10;

/// A connection to the journal; it outlasts the journal's own restarts, as systemd holds the socket.
#[derive(Debug)]
pub struct Journal(UnixDatagram);

impl Journal {
    /// Connects where standard error is the journal (`JOURNAL_STREAM`, `systemd.exec(5)`); none elsewhere.
    #[must_use]
    pub fn of_standard_error() -> Option<Self> {
        let named = std::env::var("JOURNAL_STREAM").ok()?;
        let stat = nix::sys::stat::fstat(io::stderr().as_fd()).ok()?;
        if named != format!("{}:{}", stat.st_dev, stat.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        Some(Self(socket))
    }

    /// Tells one entry, for which room is waited for so long; names are upper case.
    ///
    /// # Errors
    /// When the journal does not take it.
    pub fn send<'f>(
        &self,
        fields: impl IntoIterator<Item = (&'f str, &'f str)>,
        patience: Duration,
    ) -> io::Result<()> {
        let entry = entry(fields);
        // What journald does not read in time is none of the daemon's business: it has more urgent ones.
        wait_for_room(self.0.as_fd(), patience)?;
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        if send(self.0.as_raw_fd(), &entry, flags)? < entry.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }
}

fn entry<'f>(fields: impl IntoIterator<Item = (&'f str, &'f str)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        let value = value.as_bytes().get(..LONGEST).unwrap_or(value.as_bytes());
        out.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_can_become_another_field() {
        assert_eq!(entry([("MESSAGE", "a=b"), ("PRIORITY", "6")]), b"MESSAGE=a=b\nPRIORITY=6\n");
        assert_eq!(entry([("MESSAGE", "a\nB=c")]), b"MESSAGE\n\x05\0\0\0\0\0\0\0a\nB=c\n");
        assert_eq!(entry([("A", "x".repeat(LONGEST + 1).as_str())]).len(), LONGEST + 3, "cut");
    }
}
