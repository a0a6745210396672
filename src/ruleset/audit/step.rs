//! What other people's rules are made of: more than our own rules ever use, but only as far as it
//! tells what becomes of a packet.
//!
//! Registers are counted in bytes, 0 to 63: `NFT_REG_1` starts at 0, `NFT_REG32_01` at 4.

use crate::ruleset::expr::Verdict;

/// What a step loads into a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A property of the packet (`NFT_META_*`).
    Meta(u32),
    /// Bytes of the link header (0), the IP header (1), the TCP or UDP header (2) or what follows it (3).
    Payload {
        /// `NFT_PAYLOAD_*_HEADER`.
        base: u32,
        /// First byte.
        offset: usize,
    },
    /// A property of the connection (`NFT_CT_*`).
    Ct {
        /// Which.
        key: u32,
        /// 0 original, 1 reply.
        direction: Option<u8>,
    },
    /// What routing says about an address (`NFTA_FIB_RESULT`, `NFTA_FIB_FLAGS`).
    Fib {
        /// 1 index of the interface, 2 its name, 3 type of the address.
        result: u32,
        /// 1 source address, 2 destination address, 4 mark, 8 iif, 16 oif, 32 only whether there is a route.
        flags: u32,
    },
    /// The largest segment that the first packet of TCP announces.
    SegmentSize,
    /// Whether there is an extension header or an option, which honest clients' packets have or not.
    Present(bool),
    /// Something that cannot be told beforehand.
    Unknown,
}

/// How much room a rate, a number of connections or a quota leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// None: it is used up.
    Gone,
    /// So little that one client that tries a few times may use it up.
    Narrow,
    /// Enough for one client.
    Wide,
}

/// `NFT_CMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Loads something.
    Load {
        /// What.
        source: Source,
        /// Where to.
        to: usize,
        /// How many bytes; none: as many as it has.
        len: Option<usize>,
    },
    /// Loads a constant.
    Constant {
        /// Where to.
        to: usize,
        /// The constant.
        data: Vec<u8>,
    },
    /// Goes on only if the comparison holds.
    Compare {
        /// With what is in this register.
        at: usize,
        /// How.
        how: Comparison,
        /// With what.
        data: Vec<u8>,
    },
    /// Goes on only inside the range, or outside it.
    Range {
        /// What is in this register.
        at: usize,
        /// Outside instead of inside.
        outside: bool,
        /// Lower end.
        first: Vec<u8>,
        /// Upper end, included.
        last: Vec<u8>,
    },
    /// `to = (from & mask) ^ xor`.
    Mask {
        /// From this register.
        from: usize,
        /// To that one.
        to: usize,
        /// Bits to keep.
        mask: Vec<u8>,
        /// Bits to flip.
        xor: Vec<u8>,
    },
    /// Turns the bytes of each number around.
    Swap {
        /// From this register.
        from: usize,
        /// To that one.
        to: usize,
        /// Bytes in all.
        len: usize,
        /// Bytes of one number.
        size: usize,
    },
    /// Looks a key up in a set or map.
    Lookup {
        /// Name of the set.
        set: String,
        /// Register of the key.
        at: usize,
        /// Goes on if it is not there.
        inverted: bool,
        /// What to do with the value.
        into: Then,
    },
    /// Ends the rule.
    Verdict(Verdict),
    /// Answers and drops.
    Reject,
    /// Goes on up to a rate or a number, or beyond it.
    Limit {
        /// Beyond it.
        over: bool,
        /// How soon that is reached.
        room: Room,
    },
    /// Writes the packet mark.
    SetMark {
        /// From this register.
        from: usize,
    },
    /// Writes the mark of the connection.
    SetConnectionMark {
        /// From this register.
        from: usize,
    },
    /// Writes bytes of the packet.
    Write {
        /// As in [`Source::Payload`].
        base: u32,
        /// First byte.
        offset: usize,
        /// How many.
        len: usize,
        /// From this register.
        from: usize,
    },
    /// Keeps the packet out of connection tracking.
    Notrack,
    /// Translates the destination.
    Dnat {
        /// Registers of the new address, or of the first of a range.
        addr: Option<usize>,
        /// Registers of the last of a range.
        last_addr: Option<usize>,
        /// Whether that is an IPv6 one.
        v6: bool,
        /// Register of the new port, or of the first of a range.
        port: Option<usize>,
        /// Register of the last of a range.
        last_port: Option<usize>,
    },
    /// Translates the destination to this host.
    Redirect {
        /// Register of the new port, or of the first of a range.
        port: Option<usize>,
        /// Register of the last of a range.
        last_port: Option<usize>,
    },
    /// Ends a translation chain in another way.
    Translated,
    /// Gives the packet to a socket.
    Tproxy {
        /// Registers of the address it listens at.
        addr: Option<usize>,
        /// Register of its port.
        port: Option<usize>,
    },
    /// Sends the packet out of an interface.
    Forward,
    /// Gives the packet to a program.
    Queue,
    /// Takes the connection past all chains from now on.
    FlowAdd(String),
    /// Adds to a set, where there is room in it.
    AddTo(String),
    /// Nothing that matters here.
    Nothing,
    /// Something that an honest client's packet never is.
    Never,
    /// A match of iptables.
    CompatMatch {
        /// Its name.
        name: String,
        /// Its revision.
        revision: u32,
        /// Its parameters, as the kernel keeps them.
        info: Vec<u8>,
    },
    /// A target of iptables.
    CompatTarget {
        /// Its name.
        name: String,
        /// Its revision.
        revision: u32,
        /// Its parameters, as the kernel keeps them.
        info: Vec<u8>,
    },
    /// Something of which nobody can say whether it matches.
    Unknown(String),
}

/// What becomes of the value that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// There is none.
    Nothing,
    /// It is loaded there.
    Register(usize),
    /// It is followed.
    Verdict,
}
