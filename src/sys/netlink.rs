//! The netlink socket to nf_tables: transactions, dry runs, dumps.
#![expect(
    unsafe_code,
    reason = "borrows the descriptor of a socket that libmnl keeps, and sends that socket to a thread"
)]

use std::io;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, sendmsg, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroize;

use super::nftnl::{Body, Message, Scratch, msg};
use super::receive::receive;
use super::socket_filter::ignore_port;

const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const HEADER: usize = 16;
/// The kernel caps one dump datagram below this.
const RECEIVE: usize = 64 * 1024;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` (`linux/netfilter/nfnetlink.h`).
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const REQUEST: u16 = 1;
/// `NFNL_SUBSYS_NFTABLES`
const NFTABLES: u16 = 10;
/// `NFNL_BATCH_GENID`: a 32-bit number in network byte order.
const GENERATION: u16 = 1;
/// What is kept for the next transaction; a larger one gives its room back.
const KEPT_ROOM: usize = 64 * 1024;
/// Bytes of events that may wait.
const EVENT_ROOM: usize = 8 << 20;
/// How often a dump is tried again when the ruleset changes under it.
const DUMP_TRIES: u32 = 5;
/// A kernel that answers no dump for this long does not answer.
const PATIENCE_SECS: i64 = 20;

/// What the kernel has against one message of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Position of the message; none: it is about the transaction as a whole.
    pub position: Option<usize>,
    /// What the kernel says.
    pub errno: Errno,
}

/// Why a transaction or a dump failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// Sending failed; nothing was committed.
    #[error("cannot send to the kernel")]
    Send(#[source] Errno),
    /// The answer could not be read.
    #[error("cannot read the kernel's answer")]
    Receive(#[source] Errno),
    /// The kernel refused; nothing was committed.
    #[error("the kernel refused {} of the changes", .0.len())]
    Refused(Vec<Refusal>),
    /// The ruleset changed under every attempt to read it.
    #[error("the ruleset changes faster than it can be read")]
    Restless,
}

/// A socket to nf_tables of the network namespace it was opened in.
pub struct Netlink {
    socket: mnl::Socket,
    received: Vec<u8>,
    /// The transaction that is being made.
    batch: Vec<u8>,
    scratch: Scratch,
    /// What may wait to be sent, in bytes as the kernel counts them.
    room: usize,
}

// SAFETY: a `mnl_socket` is a file descriptor and an address on the heap, without any tie to the
// thread that made it (libmnl's socket.c); `Netlink` is the only one who has the pointer.
unsafe impl Send for Netlink {}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Netlink")
    }
}

impl Netlink {
    /// Opens a socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] where the kernel lacks netfilter netlink.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = mnl::Socket::new(mnl::Bus::Netfilter).map_err(NetlinkError::Open)?;
        let (received, batch, scratch) = (vec![0; RECEIVE], Vec::new(), Scratch::default());
        let mut netlink = Self { socket, received, batch, scratch, room: 0 };
        netlink.room = nix::sys::socket::getsockopt(&netlink.fd(), sockopt::SndBuf).unwrap_or(0);
        setsockopt(&netlink.fd(), sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_SECS, 0))
            .map_err(|errno| NetlinkError::Open(errno.into()))?;
        Ok(netlink)
    }

    /// The number the kernel knows this socket by; messages about its changes carry it.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.socket.portid()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.socket`, which lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    /// Commits all messages in one transaction, or none of them.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with every message that the kernel has something against.
    pub fn commit(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        self.commit_at(messages, None)
    }

    /// The same, unless the ruleset has changed since that generation (`ERESTART`): then nothing is done.
    ///
    /// # Errors
    /// As [`Netlink::commit`].
    pub fn commit_at(&mut self, messages: &[Message], generation: Option<u32>) -> Result<(), NetlinkError> {
        if messages.is_empty() {
            return Ok(());
        }
        let end = self.write_batch(messages, generation);
        self.send_batch(end)?;
        let refusals = self.refusals(messages)?;
        if refusals.is_empty() { Ok(()) } else { Err(NetlinkError::Refused(refusals)) }
    }

    /// Has the kernel check all messages and commit none: a transaction without its end.
    ///
    /// Blind spots (`nft -c` has them too): what is checked only when a chain that
    /// the same transaction made is bound, such as loops and nat in a wrong hook.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel cannot be asked; what it has against the messages is the result.
    pub fn validate(&mut self, messages: &[Message]) -> Result<Vec<Refusal>, NetlinkError> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        self.write_batch(messages, None);
        let whole = self.batch.len().saturating_sub(HEADER + 4);
        self.send_batch(whole)?;
        self.refusals(messages)
    }

    /// Makes the transaction of these messages; gives its length. The end is its last message.
    fn write_batch(&mut self, messages: &[Message], generation: Option<u32>) -> usize {
        let Self { batch, scratch, .. } = self;
        batch.clear();
        bracket(batch, BATCH_BEGIN, 0, generation);
        let mut sequence = 0;
        for message in messages {
            sequence += 1;
            message.append_to(batch, scratch, sequence);
        }
        bracket(batch, BATCH_END, sequence + 1, None);
        batch.len()
    }

    /// Sends that much of what was made, as one datagram: the kernel treats each as a transaction of its own.
    fn send_batch(&mut self, length: usize) -> Result<(), NetlinkError> {
        let batch = std::mem::take(&mut self.batch);
        let sent = self.send(batch.get(..length).unwrap_or(&batch));
        self.batch = batch;
        // It may hold the secret path of step 1.
        self.batch.as_mut_slice().zeroize();
        self.batch.clear();
        self.batch.shrink_to(KEPT_ROOM);
        sent
    }

    fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        self.make_room(datagram.len());
        let kernel = NetlinkAddr::new(0, 0);
        let pieces = [IoSlice::new(datagram)];
        sendmsg(self.socket.as_raw_fd(), &pieces, &[], MsgFlags::empty(), Some(&kernel))
            .map_err(NetlinkError::Send)?;
        Ok(())
    }

    fn make_room(&mut self, total: usize) {
        if total + 8192 > self.room / 2 {
            let fd = self.fd();
            // Beyond the limit only with the capability in the initial namespace; without it the
            // send fails by itself if the room is too small.
            let want = total + 8192;
            if setsockopt(&fd, sockopt::SndBufForce, &want).is_err() {
                let _ = setsockopt(&fd, sockopt::SndBuf, &want);
            }
            self.room = nix::sys::socket::getsockopt(&self.fd(), sockopt::SndBuf).unwrap_or(0);
        }
    }

    /// The answers to a batch are queued by the time `sendmsg` returns.
    fn refusals(&mut self, messages: &[Message]) -> Result<Vec<Refusal>, NetlinkError> {
        let mut out = Vec::new();
        loop {
            let fd = self.socket.as_raw_fd();
            let length = match receive(fd, &mut self.received, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(out),
                // More complaints than the buffer holds: there was at least one.
                Err(Errno::ENOBUFS) => {
                    out.push(Refusal { position: None, errno: Errno::ENOBUFS });
                    continue;
                }
                Err(errno) => return Err(NetlinkError::Receive(errno)),
            };
            for answer in split_messages(self.received.get(..length).unwrap_or_default()) {
                if let Some((errno, sequence)) = error_of(answer)
                    && errno != 0
                {
                    let position = messages.iter().position(|message| message.sequence() == sequence);
                    out.push(Refusal { position, errno: Errno::from_raw(errno) });
                }
            }
        }
    }

    /// Sends a query for all objects of a kind; `parse` sees the payload of each message, after the
    /// 4 bytes of `nfgenmsg`. Objects that are not there (`ENOENT`) are an empty list.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel cannot be asked or refuses.
    pub fn dump(&mut self, request: &Message, mut parse: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        let request = request.as_dump(&mut self.scratch);
        for _ in 0..DUMP_TRIES {
            let mut found = Vec::new();
            if self.dump_once(&request, &mut found)? {
                for payload in &found {
                    parse(payload);
                }
                return Ok(());
            }
        }
        Err(NetlinkError::Restless)
    }

    /// False when the ruleset changed meanwhile.
    fn dump_once(&mut self, request: &[u8], found: &mut Vec<Vec<u8>>) -> Result<bool, NetlinkError> {
        self.drain();
        self.send(request)?;
        let mut generation = None;
        let mut steady = true;
        loop {
            let length = receive(self.socket.as_raw_fd(), &mut self.received, MsgFlags::empty())
                .map_err(NetlinkError::Receive)?;
            for message in split_messages(self.received.get(..length).unwrap_or_default()) {
                let Some(header) = Header::of(message) else {
                    continue;
                };
                steady &= header.flags & NLM_F_DUMP_INTR == 0;
                if header.kind == NLMSG_DONE {
                    return Ok(steady);
                }
                if let Some((errno, _)) = error_of(message) {
                    return match Errno::from_raw(errno) {
                        Errno::ENOENT => Ok(true),
                        Errno::EINTR => Ok(false),
                        _ if errno == 0 => continue,
                        errno => Err(NetlinkError::Refused(vec![Refusal { position: None, errno }])),
                    };
                }
                // Dumps of elements never flag an interruption; the low half of the generation tells.
                let now = message.get(HEADER + 2..HEADER + 4).map(<[u8]>::to_vec);
                steady &= *generation.get_or_insert_with(|| now.clone()) == now;
                if let Some(payload) = message.get(HEADER + 4..) {
                    found.push(payload.to_vec());
                }
            }
        }
    }

    /// Asks for one object; none if it is not there (`ENOENT`).
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel cannot be asked or refuses.
    pub fn get(&mut self, request: &Message) -> Result<Option<Vec<u8>>, NetlinkError> {
        self.drain();
        let request = request.to_bytes(&mut self.scratch);
        self.send(&request)?;
        let length = receive(self.socket.as_raw_fd(), &mut self.received, MsgFlags::empty())
            .map_err(NetlinkError::Receive)?;
        for message in split_messages(self.received.get(..length).unwrap_or_default()) {
            if let Some((errno, _)) = error_of(message) {
                let errno = Errno::from_raw(errno);
                return match errno {
                    Errno::ENOENT => Ok(None),
                    errno => Err(NetlinkError::Refused(vec![Refusal { position: None, errno }])),
                };
            }
            if let Some(payload) = message.get(HEADER + 4..) {
                return Ok(Some(payload.to_vec()));
            }
        }
        Err(NetlinkError::Receive(Errno::EBADMSG))
    }

    fn drain(&mut self) {
        let fd = self.socket.as_raw_fd();
        while receive(fd, &mut self.received, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    /// The number of the last change to any table of this network namespace.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel does not answer.
    pub fn generation(&mut self) -> Result<u32, NetlinkError> {
        let payload = self.get(&Message::new(msg::GET_GENERATION, 0, Body::Empty))?.unwrap_or_default();
        // NFTA_GEN_ID (1) is the first attribute.
        match payload.get(4..8) {
            Some(&[a, b, c, d]) => Ok(u32::from_be_bytes([a, b, c, d])),
            Some(_) | None => Err(NetlinkError::Receive(Errno::EBADMSG)),
        }
    }
}

/// A socket that hears of every change to any table of its network namespace.
pub struct Events {
    socket: mnl::Socket,
    received: Vec<u8>,
}

// SAFETY: as for `Netlink`.
unsafe impl Send for Events {}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

impl Events {
    /// Opens a socket and subscribes.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] where the kernel would not.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = mnl::Socket::open(mnl::Bus::Netfilter).map_err(NetlinkError::Open)?;
        // NFNLGRP_NFTABLES is group 7 (`linux/netfilter/nfnetlink.h`); 0 lets the kernel choose the port.
        socket.bind(1 << 6, 0).map_err(NetlinkError::Open)?;
        let events = Self { socket, received: vec![0; RECEIVE] };
        // SAFETY: the descriptor belongs to `events.socket`, which lives as long as the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(events.socket.as_raw_fd()) };
        // Room for large transactions; without the capability in the initial namespace the default has to do,
        // and what does not fit is noticed.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &EVENT_ROOM);
        Ok(events)
    }

    /// Stops to hear of what one port changes: who makes a hundred thousand grants need not hear of each.
    ///
    /// # Errors
    /// When the kernel takes no filter; everything is heard then.
    pub fn ignore(&self, port: u32) -> io::Result<()> {
        // SAFETY: the descriptor belongs to `self.socket`, which lives as long as the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) };
        ignore_port(fd, port)
    }

    /// The same, for a tokio runtime to wait on.
    ///
    /// # Errors
    /// When the runtime would not.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of `self.socket`: open, and the same, until `self` is dropped.
        unsafe { AsyncFd::register(self) }.map_err(|error| io::Error::other(error.to_string()))
    }

    /// Hands every message that waits to `take`; false if some were lost.
    ///
    /// # Errors
    /// [`NetlinkError::Receive`] when the socket fails.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool, NetlinkError> {
        let mut whole = true;
        loop {
            match receive(self.socket.as_raw_fd(), &mut self.received, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    split_messages(self.received.get(..length).unwrap_or_default()).for_each(&mut take);
                }
                Err(Errno::EAGAIN) => return Ok(whole),
                Err(Errno::ENOBUFS) => whole = false,
                Err(errno) => return Err(NetlinkError::Receive(errno)),
            }
        }
    }
}

/// Appends the beginning or the end of a transaction; a beginning may say for which generation it is meant.
fn bracket(out: &mut Vec<u8>, kind: u16, sequence: u32, generation: Option<u32>) {
    let attribute = generation.map(|generation| {
        [&8_u16.to_ne_bytes()[..], &GENERATION.to_ne_bytes(), &generation.to_be_bytes()].concat()
    });
    let attribute = attribute.unwrap_or_default();
    let length = u32::try_from(HEADER + 4 + attribute.len()).unwrap_or(u32::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(REQUEST.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    // No port, AF_UNSPEC, version 0.
    out.extend([0; 6]);
    out.extend(NFTABLES.to_be_bytes());
    out.extend(attribute);
}

/// The fields of a netlink header that matter here.
struct Header {
    kind: u16,
    flags: u16,
}

impl Header {
    fn of(message: &[u8]) -> Option<Self> {
        let &[_, _, _, _, k0, k1, f0, f1, ..] = message else {
            return None;
        };
        Some(Self { kind: u16::from_ne_bytes([k0, k1]), flags: u16::from_ne_bytes([f0, f1]) })
    }
}

/// Cuts a datagram into messages; stops at the first one whose length is impossible.
pub(super) fn split_messages(mut datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = datagram.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))?;
        let length = usize::try_from(length).ok().filter(|&length| length >= HEADER)?;
        let message = datagram.get(..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The type of a message.
pub(super) fn kind_of(message: &[u8]) -> Option<u16> {
    Header::of(message).map(|header| header.kind)
}

/// Error number (positive; 0 acknowledges) and sequence number of the message it is about.
pub(super) fn error_of(message: &[u8]) -> Option<(i32, u32)> {
    if Header::of(message)?.kind != NLMSG_ERROR {
        return None;
    }
    let errno = i32::from_ne_bytes(*message.get(HEADER..)?.first_chunk::<4>()?);
    let sequence = message
        .get(HEADER + 4 + 8..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    Some((errno.saturating_neg(), sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_cut_at_message_borders_and_never_beyond() {
        let mut datagram = Vec::new();
        for length in [16_u32, 21] {
            datagram.extend(length.to_ne_bytes());
            datagram.resize(datagram.len() + (length as usize).next_multiple_of(4) - 4, 0);
        }
        datagram.extend(1000_u32.to_ne_bytes());
        let lengths: Vec<usize> = split_messages(&datagram).map(<[u8]>::len).collect();
        assert_eq!(lengths, [16, 21]);
        assert_eq!(split_messages(&[0; 64]).count(), 0);
        assert_eq!(split_messages(&[]).count(), 0);
    }

    #[test]
    fn an_error_names_the_message_it_is_about() {
        let mut message = vec![0_u8; 36];
        message[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        message[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        message[28..32].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(error_of(&message), Some((17, 7)));
        message[4] = 3;
        assert_eq!(error_of(&message), None);
    }
}
