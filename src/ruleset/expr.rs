//! The packet-matching instructions a rule is made of, as the kernel's nf_tables machine knows them.

use serde::{Deserialize, Serialize};

use super::hex;
use crate::units::Family;

/// One of the sixteen 32-bit registers of the nf_tables machine, 0 to 15 (`NFT_REG32_00` onwards).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reg(pub u8);

/// `NFT_META_*`: properties of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MetaKey {
    /// Packet length from the network header on, host byte order.
    Len,
    /// Packet mark, host byte order.
    Mark,
    /// Name of the incoming interface, 16 bytes.
    IifName,
    /// Name of the outgoing interface, 16 bytes.
    OifName,
    /// Address family, one byte.
    NfProto,
    /// Transport protocol, one byte.
    L4Proto,
    /// Kind of the incoming interface (`bridge`, `vlan`, …), 16 bytes (Linux 5.0).
    IifKind,
}

/// `NFT_PAYLOAD_*_HEADER`: what an offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Base {
    /// The IP header.
    Network,
    /// The TCP or UDP header.
    Transport,
    /// The bytes that TCP or UDP carries (Linux 5.16).
    Inner,
}

/// `NFT_CMP_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less or equal, as big-endian bytes.
    Le,
    /// Greater or equal, as big-endian bytes.
    Ge,
}

/// `NFT_CT_*`: properties of the connection a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CtKey {
    /// State bits ([`ct_state`]), host byte order.
    State,
    /// Original (0) or reply (1), one byte; no value for untracked packets.
    Direction,
    /// Status bits ([`CT_STATUS_DNAT`]), host byte order.
    Status,
    /// Destination port of the original direction, big endian.
    OriginalProtoDst,
    /// IPv4 destination of the original direction (Linux 4.17).
    OriginalDst4,
    /// IPv6 destination of the original direction.
    OriginalDst6,
}

/// State bits of `ct state` (`NF_CT_STATE_BIT` in `linux/netfilter/nf_conntrack_common.h`).
pub mod ct_state {
    /// Connection tracking can make nothing of it.
    pub const INVALID: u32 = 1;
    /// Packets were seen both ways.
    pub const ESTABLISHED: u32 = 2;
    /// Begun by another one, such as an ICMP error about it.
    pub const RELATED: u32 = 4;
    /// The first packet of a connection.
    pub const NEW: u32 = 8;
    /// Not tracked at all.
    pub const UNTRACKED: u32 = 64;
}

/// `IPS_CONFIRMED`: a packet of the connection went all the way through this host, or left it.
pub const CT_STATUS_CONFIRMED: u32 = 0x08;
/// `IPS_DST_NAT`: the destination of the connection was translated.
pub const CT_STATUS_DNAT: u32 = 0x20;

/// `RTN_*` (`linux/rtnetlink.h`): what kind of address it is for this host.
pub mod addr_type {
    /// Somebody else's, reached by a route.
    pub const UNICAST: u32 = 1;
    /// This host's own.
    pub const LOCAL: u32 = 2;
    /// Everybody in a network.
    pub const BROADCAST: u32 = 3;
    /// This host's among others': that of all routers of an IPv6 network.
    pub const ANYCAST: u32 = 4;
    /// Whoever joined a group.
    pub const MULTICAST: u32 = 5;
}

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// Source.
    Source,
    /// Destination.
    Destination,
}

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// This base chain lets it pass; later ones still see it.
    Accept,
    /// Gone for good.
    Drop,
    /// Back to where the chain was jumped from.
    Return,
    /// To a chain, and back afterwards.
    Jump(String),
    /// To a chain, not back.
    Goto(String),
}

/// A packet rate (`NFTA_LIMIT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Packets per [`Limit::unit_secs`].
    pub rate: u64,
    /// Length of the unit in seconds.
    pub unit_secs: u64,
    /// Packets above the rate that pass at once.
    pub burst: u32,
    /// Match what exceeds the rate instead of what keeps to it.
    pub over: bool,
}

/// One instruction of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expr {
    /// Loads a property of the packet.
    MetaLoad {
        /// Which one.
        key: MetaKey,
        /// Where to.
        reg: Reg,
    },
    /// Writes a property of the packet.
    MetaSet {
        /// Which one.
        key: MetaKey,
        /// Where from.
        reg: Reg,
    },
    /// Loads bytes of the packet; no match if they are not there.
    Payload {
        /// What the offset counts from.
        base: Base,
        /// First byte.
        offset: u32,
        /// How many, at most 16.
        len: u32,
        /// Where to.
        reg: Reg,
    },
    /// Goes on only if the comparison holds.
    Cmp {
        /// What to compare.
        reg: Reg,
        /// How.
        op: CmpOp,
        /// With what.
        #[serde(with = "hex")]
        data: Vec<u8>,
    },
    /// `reg = (reg & mask) ^ xor`.
    Bitwise {
        /// Source and target.
        reg: Reg,
        /// Bits to keep.
        #[serde(with = "hex")]
        mask: Vec<u8>,
        /// Bits to flip then.
        #[serde(with = "hex")]
        xor: Vec<u8>,
    },
    /// Host to network byte order of one 32-bit value.
    ToBigEndian {
        /// Source and target.
        reg: Reg,
    },
    /// Goes on only if the key is in the set; in a verdict map, follows its verdict.
    Lookup {
        /// Name of the set.
        set: String,
        /// First register of the key.
        reg: Reg,
        /// Whether the set is a verdict map.
        verdict: bool,
    },
    /// Loads what the key leads to in a map of marks; no match if it is not there.
    Map {
        /// Name of the map.
        set: String,
        /// First register of the key.
        reg: Reg,
        /// Where to.
        to: Reg,
    },
    /// Loads a constant.
    Immediate {
        /// Where to.
        reg: Reg,
        /// The constant.
        #[serde(with = "hex")]
        data: Vec<u8>,
    },
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// Loads a property of the connection; no match if there is none.
    Ct {
        /// Which one.
        key: CtKey,
        /// Where to.
        reg: Reg,
    },
    /// Loads the type of the source or destination address for this host.
    FibType {
        /// Which address.
        side: Side,
        /// Where to.
        reg: Reg,
    },
    /// Loads the name of the interface by which routes lead to the source or destination address, 16 bytes.
    FibInterface {
        /// Which address.
        side: Side,
        /// Where to.
        reg: Reg,
    },
    /// Loads whether any route leads to the source or destination address by an interface, host byte order.
    FibRouted {
        /// Which address.
        side: Side,
        /// Where to.
        reg: Reg,
    },
    /// Counts packets and bytes; the figures are no part of the rule.
    Counter,
    /// Keeps the packet out of connection tracking.
    Notrack,
    /// Adds the key to a dynamic set or renews it there; no match when the set is full.
    Update {
        /// Name of the set.
        set: String,
        /// First register of the key.
        reg: Reg,
        /// Timeout in milliseconds.
        timeout_ms: u64,
        /// A rate kept per element; the rule goes on only if it matches.
        limit: Option<Limit>,
    },
    /// Adds the key to a dynamic set, unless it is there already; no match when the set is full.
    Remember {
        /// Name of the set.
        set: String,
        /// First register of the key.
        reg: Reg,
        /// Timeout in milliseconds.
        timeout_ms: u64,
        /// Register with what it leads to, in a map.
        data: Option<Reg>,
    },
    /// Removes the key from a dynamic set, if it is there (Linux 5.4).
    Forget {
        /// Name of the set.
        set: String,
        /// First register of the key.
        reg: Reg,
        /// In a map, which wants one, a register with any value.
        data: Option<Reg>,
    },
    /// Tells whoever listens to a group of netfilter's log.
    Log {
        /// The group.
        group: u16,
        /// What it is told with the packet, at most 127 bytes.
        prefix: String,
        /// Bytes of the packet, from the network header on.
        snaplen: u32,
    },
    /// Writes a line about the packet into the kernel's own log.
    KernelLog {
        /// How the line begins, at most 127 bytes.
        prefix: String,
    },
    /// Goes on only as often as the rate allows, over all packets.
    Limit(Limit),
    /// Translates the destination.
    Dnat {
        /// Family of the new address.
        family: Family,
        /// Register with the address.
        addr: Reg,
        /// Register with the port, if it changes.
        port: Option<Reg>,
    },
    /// Translates the source to the outgoing interface's address.
    Masquerade,
    /// An instruction that this program never writes: somebody else edited the rule.
    Foreign(String),
}
