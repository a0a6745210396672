//! Open files handed to another process over a pair of sockets (`unix(7)`, `SCM_RIGHTS`).
#![expect(
    unsafe_code,
    reason = "descriptors that the kernel has just made for this process have no owner yet"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// The most descriptors in one message.
pub const MOST: usize = 8;

/// The socket that this process was started with as its standard input.
///
/// # Errors
/// When there are no descriptors left.
pub fn inherited() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// Sends bytes, at least one, and descriptors, at most [`MOST`].
///
/// # Errors
/// What the kernel says.
pub fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    // Whoever is gone is an error, not a signal.
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives so many bytes at most, and the descriptors that came with them; no bytes at the end.
///
/// # Errors
/// What the kernel says; [`io::ErrorKind::InvalidData`] for more descriptors than [`MOST`].
pub fn receive(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; MOST]);
    let mut into = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut into, Some(&mut space), flags)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these for this process, and nothing else knows of them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_descriptor_arrives_with_the_bytes_and_works() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&here, b"p", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut bytes = [0; 4];
        let (count, mut descriptors) = receive(&there, &mut bytes).unwrap();
        assert_eq!((&bytes[..count], descriptors.len()), (&b"p"[..], 1));
        std::fs::File::from(descriptors.remove(0)).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(here);
        let (count, none) = receive(&there, &mut bytes).unwrap();
        assert!(count == 0 && none.is_empty());
    }

    #[test]
    fn bytes_alone_can_be_sent_and_nobody_there_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        send(&here, b"x", &[]).unwrap();
        assert_eq!(receive(&there, &mut [0; 4]).unwrap().0, 1);
        drop(there);
        send(&here, b"x", &[]).unwrap_err();
    }
}
