//! nf_tables' netlink in a few lines, and nothing else around it: the floor under every grant, and a quick way to make
//! a million of them.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendmsg, setsockopt,
    socket, sockopt,
};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const REQUEST: u16 = 1;
const CREATE: u16 = 0x400;
const INET: u8 = 1;
const NESTED: u16 = 0x8000;
/// An attribute holds less than 64 KiB.
const PER_MESSAGE: usize = 500;
const PER_TRANSACTION: usize = 20_000;

/// A socket to nf_tables of the namespace of the thread that opened it.
pub struct Wire {
    socket: OwnedFd,
    bytes: Vec<u8>,
    answer: Vec<u8>,
}

impl Wire {
    pub fn open() -> Self {
        let (flags, protocol) = (SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter);
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).unwrap();
        setsockopt(&socket, sockopt::SndBufForce, &(8 << 20)).unwrap();
        Self { socket, bytes: Vec::with_capacity(8 << 20), answer: vec![0; 64 << 10] }
    }

    /// Adds elements to a set of `inet` addresses, in as few transactions as will do.
    pub fn add(&mut self, table: &str, set: &str, keys: &[[u8; 4]], timeout_ms: u64, comment: &str) {
        for part in keys.chunks(PER_TRANSACTION) {
            self.bytes.clear();
            self.message(BATCH_BEGIN, REQUEST, 0, 10, |_| {});
            for keys in part.chunks(PER_MESSAGE) {
                self.message(NEW_ELEMENTS, REQUEST | CREATE, INET, 0, |bytes| {
                    attribute(bytes, 1, &[table.as_bytes(), &[0]].concat());
                    attribute(bytes, 2, &[set.as_bytes(), &[0]].concat());
                    nested(bytes, 3, |bytes| {
                        for key in keys {
                            element(bytes, key, timeout_ms, comment);
                        }
                    });
                });
            }
            self.message(BATCH_END, REQUEST, 0, 10, |_| {});
            self.send();
            self.expect_silence();
        }
    }

    /// Whether a set has an element.
    pub fn has(&mut self, table: &str, set: &str, key: [u8; 4]) -> bool {
        self.bytes.clear();
        self.message(GET_ELEMENTS, REQUEST, INET, 0, |bytes| {
            attribute(bytes, 1, &[table.as_bytes(), &[0]].concat());
            attribute(bytes, 2, &[set.as_bytes(), &[0]].concat());
            nested(bytes, 3, |bytes| {
                nested(bytes, 1, |bytes| nested(bytes, 1, |bytes| attribute(bytes, 1, &key)))
            });
        });
        self.send();
        let length = recv(self.socket.as_raw_fd(), &mut self.answer, MsgFlags::empty()).unwrap();
        length > 0 && u16::from_ne_bytes([self.answer[4], self.answer[5]]) == NEW_ELEMENTS
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        body(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).unwrap();
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn send(&mut self) {
        let to = NetlinkAddr::new(0, 0);
        let pieces = [IoSlice::new(&self.bytes)];
        sendmsg(self.socket.as_raw_fd(), &pieces, &[], MsgFlags::empty(), Some(&to)).unwrap();
    }

    /// The kernel's answers are there when `sendmsg` returns, and to what it carried out there are none.
    fn expect_silence(&mut self) {
        let answer = recv(self.socket.as_raw_fd(), &mut self.answer, MsgFlags::MSG_DONTWAIT);
        assert_eq!(answer, Err(Errno::EAGAIN), "the kernel refused: {:?}", &self.answer[..36]);
    }
}

fn element(bytes: &mut Vec<u8>, key: &[u8; 4], timeout_ms: u64, comment: &str) {
    nested(bytes, 1, |bytes| {
        nested(bytes, 1, |bytes| attribute(bytes, 1, key));
        attribute(bytes, 4, &timeout_ms.to_be_bytes());
        if !comment.is_empty() {
            // nft's own user data: kind 0, length, a text that ends with a zero.
            let length = u8::try_from(comment.len() + 1).unwrap();
            attribute(bytes, 6, &[&[0, length], comment.as_bytes(), &[0]].concat());
        }
    });
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn nested(bytes: &mut Vec<u8>, kind: u16, inside: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend([0; 2]);
    bytes.extend((kind | NESTED).to_ne_bytes());
    inside(bytes);
    let length = u16::try_from(bytes.len() - start).unwrap();
    bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}
