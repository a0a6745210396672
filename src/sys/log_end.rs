//! Where the log goes: standard error, to which nothing here writes longer than it is told to wait, whoever reads it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{SFlag, fstat};

/// A pipe with room at all takes so much at once (`PIPE_BUF`, `pipe(7)`).
const PIECE: usize = 4_096;
/// For where `poll(2)` sees room that is too small.
const AGAIN: Duration = Duration::from_millis(1);

/// Standard error, as the end of a log.
#[derive(Debug)]
pub struct LogEnd(Way);

/// How what is there is written without waiting. The flag `O_NONBLOCK` of what others have open as well is not ours to set
/// (`open(2)`).
#[derive(Debug)]
enum Way {
    /// A pipe or terminal, opened once more.
    Opened(File),
    Socket,
    /// A file, or what cannot be opened once more.
    AsItIs,
}

impl LogEnd {
    /// That of this process, as it is now.
    #[must_use]
    pub fn of_standard_error() -> Self {
        Self::of(io::stderr().as_fd())
    }

    fn of(end: BorrowedFd<'_>) -> Self {
        let kind = fstat(end).map(|stat| stat.st_mode & SFlag::S_IFMT.bits());
        Self(match kind.map(SFlag::from_bits_truncate) {
            Ok(SFlag::S_IFSOCK) => Way::Socket,
            // Not a file, of which a second description begins at its first byte.
            Ok(SFlag::S_IFIFO | SFlag::S_IFCHR) => opened_once_more(end).map_or(Way::AsItIs, Way::Opened),
            _ => Way::AsItIs,
        })
    }

    /// Writes as much of it as there is room for, which is waited for so long; so many bytes were written.
    ///
    /// # Errors
    /// Those of `write(2)` but for `EAGAIN` and `EINTR`.
    pub fn write(&self, text: &[u8], patience: Duration) -> io::Result<usize> {
        self.write_to(io::stderr().as_fd(), text, patience)
    }

    fn write_to(&self, end: BorrowedFd<'_>, text: &[u8], patience: Duration) -> io::Result<usize> {
        let until = Instant::now() + patience;
        let mut done = 0;
        while let Some(rest) = text.get(done..).filter(|rest| !rest.is_empty()) {
            let left = || until.saturating_duration_since(Instant::now());
            if matches!(self.0, Way::AsItIs) && !wait_for_room(end, left())? {
                break;
            }
            match self.write_some(end, rest.get(..PIECE).unwrap_or(rest)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => done += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if left().is_zero() || !wait_for_room(end, left())? {
                        break;
                    }
                    std::thread::sleep(AGAIN);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_some(&self, end: BorrowedFd<'_>, piece: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Way::Opened(file) => (&*file).write(piece),
            Way::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(end.as_raw_fd(), piece, flags).map_err(io::Error::from)
            }
            Way::AsItIs => nix::unistd::write(end, piece).map_err(io::Error::from),
        }
    }
}

/// The same pipe or terminal, with flags of its own.
fn opened_once_more(end: BorrowedFd<'_>) -> Option<File> {
    let mut options = File::options();
    options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    options.open(format!("/proc/self/fd/{}", end.as_raw_fd())).ok()
}

/// Waits so long until something can be written there, or never again; false where neither came.
///
/// # Errors
/// Those of `poll(2)`.
pub(super) fn wait_for_room(to: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut asked = [PollFd::new(to, PollFlags::POLLOUT)];
        match poll(&mut asked, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    const SOON: Duration = Duration::from_millis(20);
    const LINE: &[u8] = b"12345678\n";

    /// Fills it; so many lines fitted in.
    fn fill(end: &LogEnd, to: BorrowedFd<'_>) -> usize {
        (0..1 << 20).find(|_| end.write_to(to, LINE, SOON).unwrap() < LINE.len()).expect("it is full at last")
    }

    #[test]
    fn a_full_pipe_is_not_waited_for_and_takes_lines_again_once_it_is_read() {
        let (mut reader, writer) = io::pipe().unwrap();
        for end in [LogEnd::of(writer.as_fd()), LogEnd(Way::AsItIs)] {
            let lines = fill(&end, writer.as_fd());
            assert!(lines > 100, "{lines}");
            assert_eq!(end.write_to(writer.as_fd(), &[b'x'; 10_000], SOON).unwrap(), 0);
            let mut some = vec![0; 1 << 17];
            let _ = reader.read(&mut some).unwrap();
            assert_eq!(end.write_to(writer.as_fd(), b"again\n", SOON).unwrap(), 6);
            let length = reader.read(&mut some).unwrap();
            assert!(some[..length].ends_with(b"again\n"));
        }
    }

    #[test]
    fn whoever_has_the_pipe_open_too_writes_to_it_as_before() {
        let (_reader, writer) = io::pipe().unwrap();
        let end = LogEnd::of(writer.as_fd());
        assert!(matches!(end.0, Way::Opened(_)), "{end:?}");
        let flags = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, 0);
    }

    #[test]
    fn neither_a_full_socket_nor_a_terminal_that_nobody_reads_is_waited_for() {
        let (_reader, writer) = UnixStream::pair().unwrap();
        let end = LogEnd::of(writer.as_fd());
        assert!(matches!(end.0, Way::Socket), "{end:?}");
        let lines = fill(&end, writer.as_fd());
        assert!(lines > 100, "{lines}");
        let pty = nix::pty::openpty(None, None).unwrap();
        let end = LogEnd::of(pty.slave.as_fd());
        assert!(matches!(end.0, Way::Opened(_)), "{end:?}");
        let lines = fill(&end, pty.slave.as_fd());
        assert!(lines > 10, "{lines}");
    }

    #[test]
    fn a_file_is_written_where_it_ends() {
        let path = std::env::temp_dir().join(format!("knock-agent-log-end-{}", std::process::id()));
        std::fs::write(&path, "first\n").unwrap();
        let file = File::options().append(true).open(&path).unwrap();
        assert_eq!(LogEnd::of(file.as_fd()).write_to(file.as_fd(), b"second\n", Duration::ZERO).unwrap(), 7);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\nsecond\n");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn that_nobody_reads_any_more_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        let end = LogEnd::of(writer.as_fd());
        drop(reader);
        let error = end.write_to(writer.as_fd(), LINE, SOON).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
