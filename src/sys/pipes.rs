//! Pipes to other processes.

use std::io;
use std::os::fd::AsFd;
#[cfg(feature = "gateway")]
use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
#[cfg(feature = "gateway")]
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// Has writes fail with [`io::ErrorKind::WouldBlock`] where they would wait.
///
/// # Errors
/// Those of `fcntl(2)`.
pub fn never_block(pipe: &impl AsFd) -> io::Result<()> {
    let fd = pipe.as_fd();
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Has a pipe hold so many bytes that nobody has read yet, at least.
///
/// # Errors
/// Those of `fcntl(2)`: `EPERM` above `/proc/sys/fs/pipe-max-size`.
#[cfg(target_os = "linux")]
pub fn have_room(pipe: &impl AsFd, bytes: usize) -> io::Result<()> {
    let has = usize::try_from(fcntl(pipe.as_fd(), FcntlArg::F_GETPIPE_SZ)?).unwrap_or_default();
    if has < bytes {
        let wanted = i32::try_from(bytes).map_err(io::Error::other)?;
        fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(wanted))?;
    }
    Ok(())
}

/// Waits so long for something to read, or the end of it; false where neither came.
///
/// # Errors
/// Those of `poll(2)`.
#[cfg(feature = "gateway")]
pub fn wait_readable(from: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let mut asked = [PollFd::new(from, PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut asked, patience) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes all of it into a pipe that never blocks, and waits for who reads it: so long at a time, and ten times that in all.
///
/// # Errors
/// Those of `write(2)` and `poll(2)`; [`io::ErrorKind::TimedOut`] where nobody read in time.
#[cfg(feature = "gateway")]
pub fn write_patiently(
    to: &mut (impl io::Write + AsFd),
    mut bytes: &[u8],
    patience: Duration,
) -> io::Result<()> {
    let end = Instant::now() + patience * 10;
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = end.saturating_duration_since(Instant::now());
                wait_writable(to.as_fd(), patience.min(left))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(feature = "gateway")]
fn wait_writable(to: BorrowedFd<'_>, patience: Duration) -> io::Result<()> {
    let mut asked = [PollFd::new(to, PollFlags::POLLOUT)];
    match poll(&mut asked, PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether somebody may still read what is written there; also true of a file, and where it cannot be told.
#[cfg(feature = "gateway")]
#[must_use]
pub fn has_reader(to: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(to, PollFlags::empty())];
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    let told = poll(&mut asked, PollTimeout::ZERO).unwrap_or_default();
    told == 0 || asked.iter().all(|one| one.revents().is_none_or(|found| !found.intersects(gone)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[cfg(feature = "gateway")]
    #[test]
    fn it_is_told_whether_there_is_something_to_read_and_anybody_who_reads() {
        let (reader, mut writer) = io::pipe().unwrap();
        let soon = Duration::from_millis(1);
        assert!(!wait_readable(reader.as_fd(), soon).unwrap() && has_reader(writer.as_fd()));
        writer.write_all(b"x").unwrap();
        assert!(wait_readable(reader.as_fd(), soon).unwrap());
        drop(reader);
        assert!(!has_reader(writer.as_fd()));
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(has_reader(file.as_fd()));
    }

    #[test]
    fn a_pipe_takes_what_there_is_room_for_before_anybody_reads() {
        let (_reader, mut writer) = io::pipe().unwrap();
        have_room(&writer, 300_000).unwrap();
        never_block(&writer).unwrap();
        writer.write_all(&[0; 300_000]).unwrap();
    }

    #[test]
    fn a_full_pipe_is_told_instead_of_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        never_block(&writer).unwrap();
        let error = (0..1 << 20).find_map(|_| writer.write_all(&[0; 4_096]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(reader);
    }
}
