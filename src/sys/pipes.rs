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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_full_pipe_is_told_instead_of_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        never_block(&writer).unwrap();
        let error = (0..1 << 20).find_map(|_| writer.write_all(&[0; 4_096]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(reader);
    }
}
