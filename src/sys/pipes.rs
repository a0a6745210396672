//! Pipes to other processes.

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
