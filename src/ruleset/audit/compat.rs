//! The matches and targets of iptables inside nf_tables: what `iptables-nft` has no words of nf_tables for.
//!
//! The parameters are the kernel's own structures (`linux/netfilter/xt_*.h`), in host byte order.

use super::host::HostRule;
use super::machine::{Deed, Tri};
use super::packet::{Byte, Packet};
use super::registers::compare;
use super::step::{Comparison, Room, Step};
use crate::ruleset::expr::{CT_STATUS_DNAT, Verdict, ct_state};
use crate::units::Protocol;

/// What a target does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing that matters here; the next rule follows.
    Nothing,
    /// The packet leaves the chain.
    Ends,
    /// It is dropped or rejected.
    Drops,
    /// A program gets it.
    Queues,
    /// It has this mark now.
    Marks([Byte; 4]),
    /// Its connection has this mark now.
    MarksConnection([Byte; 4]),
    /// It is kept out of connection tracking.
    Notracks,
    /// It is translated or diverted.
    Does(Deed),
    /// Nobody knows.
    Unknown,
}

/// Whether a match of iptables holds.
#[must_use]
pub fn matches(name: &str, revision: u32, info: &[u8], packet: &Packet) -> Tri {
    judge(name, revision, info, packet).unwrap_or(Tri::Maybe)
}

fn judge(name: &str, revision: u32, info: &[u8], packet: &Packet) -> Option<Tri> {
    match (name, revision) {
        ("limit" | "hashlimit" | "connlimit" | "connlabel", _) if packet.crafted => None,
        ("rt" | "frag" | "hbh" | "dst" | "mh" | "ipv6header" | "ipv4options", _) if packet.crafted => None,
        ("comment", _) => Some(Tri::Yes),
        ("conntrack", 2..=3) => conntrack(info, packet),
        ("state", _) => word(info, 0).map(|mask| state_in(mask, packet)),
        ("mark", 1) => mark(info, &packet.mark),
        ("connmark", _) if !packet.tracking.tracked => Some(Tri::No),
        ("connmark", _) => mark(info, &packet.connection_mark),
        ("connlabel", _) => connection_label(info),
        ("tcp", 0) => tcp(info, packet),
        ("udp", 0) => ports(info, 8, packet),
        ("multiport", 1) => multiport(info, packet),
        ("addrtype", 1) => addrtype(info, packet),
        ("limit", _) => Some(of(!packet.is_too_many(slower(word(info, 0).map(u64::from), 10_000)))),
        ("hashlimit", 1) => below(word(info, 16)?, word(info, 20).map(u64::from), 10_000, packet),
        ("hashlimit", 2..=3) => below(word(info, 272)?, long(info, 256), 1_000_000, packet),
        ("connlimit", _) => connlimit(info, packet),
        // Of one client it is not known.
        ("set", _) if packet.of_one_client => None,
        ("recent", _) if packet.of_one_client => recent(info).filter(|held| *held == Tri::Yes),
        ("recent", _) => recent(info),
        ("set", 1..=4) => of_strangers(info, packet),
        ("icmp6", _) if packet.icmpv6().is_some() => icmp6(info, packet),
        ("icmp" | "icmp6" | "ah" | "esp" | "sctp" | "dccp", _) => Some(Tri::No),
        // Extension headers of IPv6, and options of IPv4: it has none.
        ("rt" | "frag" | "hbh" | "dst" | "mh" | "ipv6header" | "ipv4options", _) => Some(Tri::No),
        ("pkttype", 0) => Some(of((word(info, 0)? == 0) != (word(info, 4)? != 0))),
        ("iprange", 1) => iprange(info, packet),
        ("rpfilter", _) => info.first().map(|flags| of(flags & 8 == 0)),
        ("physdev", _) => physdev(info),
        _ => None,
    }
}

/// What is in an ipset is not read. One that is asked for the client's address first is taken for a list of strangers,
/// on which no honest client is, unless what is not on it is looked for. `struct xt_set_info`: the third byte is the
/// number of questions, the fourth whether it is inverted and then, for each question, whether it is the source.
fn of_strangers(info: &[u8], packet: &Packet) -> Option<Tri> {
    const INVERTED: u8 = 1;
    const FIRST_IS_SOURCE: u8 = 2;
    let flags = *info.get(3)?;
    let to_client = packet.iif.is_none() || packet.tracking.direction == 1;
    let of_client = (flags & FIRST_IS_SOURCE != 0) != to_client;
    (flags & INVERTED == 0 && of_client).then_some(Tri::No)
}

/// Whether a match holds, in a rule: a list by which clients are let in is not one of strangers.
#[must_use]
pub fn in_rule(found: Tri, step: &Step, rule: &HostRule) -> Tri {
    let is_list = matches!(step, Step::CompatMatch { name, .. } if name == "set");
    let lets_in = matches!(rule.steps.last(), Some(Step::Verdict(Verdict::Accept)));
    if found == Tri::No && is_list && lets_in { Tri::Maybe } else { found }
}

/// What a target of iptables does.
#[must_use]
pub fn target(name: &str, revision: u32, info: &[u8], packet: &Packet) -> Target {
    match name {
        "LOG" | "NFLOG" | "ULOG" | "CONNSECMARK" | "SECMARK" | "TCPMSS" | "TCPOPTSTRIP" | "TOS" | "DSCP"
        | "ECN" | "HL" | "TTL" | "CLASSIFY" | "CHECKSUM" | "TRACE" | "SET" | "AUDIT" | "RATEEST" | "TEE"
        | "IDLETIMER" | "LED" => Target::Nothing,
        "REJECT" | "TARPIT" | "DELUDE" => Target::Drops,
        "NFQUEUE" | "QUEUE" => Target::Queues,
        "NOTRACK" => Target::Notracks,
        // XT_CT_NOTRACK
        "CT" => match info.first() {
            Some(flags) if flags & 1 != 0 => Target::Notracks,
            Some(_) | None => Target::Nothing,
        },
        "CONNMARK" => connection_mark(info, packet).unwrap_or(Target::Unknown),
        "MARK" if revision == 2 => set_mark(info, packet).map_or(Target::Unknown, Target::Marks),
        "DNAT" => Target::Does(dnat(revision, info)),
        "REDIRECT" => Target::Does(Deed::Redirect { port: redirect_port(info) }),
        "TPROXY" => Target::Does(Deed::Tproxy),
        "SNAT" | "MASQUERADE" | "NETMAP" => Target::Ends,
        _ => Target::Unknown,
    }
}

/// `struct ip6t_icmp`: type, codes from and to, and whether it is inverted.
fn icmp6(info: &[u8], packet: &Packet) -> Option<Tri> {
    let ((kind, code), &[wanted, first, last, flags]) = (packet.icmpv6()?, info.first_chunk::<4>()?);
    let holds = wanted == u8::MAX || wanted == kind && first <= code && code <= last;
    Some(of(holds != (flags & 1 != 0)))
}

fn of(holds: bool) -> Tri {
    if holds { Tri::Yes } else { Tri::No }
}

fn word(info: &[u8], at: usize) -> Option<u32> {
    info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn long(info: &[u8], at: usize) -> Option<u64> {
    info.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    info.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// How much room a rate leaves, of which the time between two packets is told in parts of a second.
fn slower(pause: Option<u64>, second: u64) -> Room {
    if pause.is_none_or(|pause| pause > second) { Room::Narrow } else { Room::Wide }
}

/// `XT_HASHLIMIT_INVERT` in the mode: only what is above the rate; `XT_HASHLIMIT_BYTES`: of bytes.
fn below(mode: u32, pause: Option<u64>, second: u64, packet: &Packet) -> Option<Tri> {
    let room = if mode & (1 << 5) == 0 { slower(pause, second) } else { Room::Wide };
    Some(of((mode & (1 << 4) == 0) != packet.is_too_many(room)))
}

/// `struct xt_connlimit_info`: a mask of 16 bytes, the number, and whether it is inverted (up to the number).
fn connlimit(info: &[u8], packet: &Packet) -> Option<Tri> {
    const FEW: u32 = 10;
    let (most, inverted) = (word(info, 16)?, word(info, 20)? & 1 != 0);
    let room = if most < FEW { Room::Narrow } else { Room::Wide };
    Some(of(packet.is_too_many(room) != inverted))
}

/// `struct xt_recent_mtinfo`: to be put on a list (2) always holds, to be on one does not.
fn recent(info: &[u8]) -> Option<Tri> {
    let (what, inverted) = (*info.get(8)?, *info.get(9)? != 0);
    Some(of((what & 2 != 0) != inverted))
}

/// `struct xt_physdev_info`, for a packet that no bridge carries: every question must be inverted.
fn physdev(info: &[u8]) -> Option<Tri> {
    let (inverted, asked) = (*info.get(64)?, *info.get(65)?);
    Some(of(asked & !inverted == 0))
}

/// `struct xt_conntrack_mtinfo2` and `3`: eight addresses, then the rest.
fn conntrack(info: &[u8], packet: &Packet) -> Option<Tri> {
    const STATE: u16 = 1;
    const PROTO: u16 = 2;
    const STATUS: u16 = 64;
    const DIRECTION: u16 = 1 << 12;
    let (flags, inverted) = (half(info, 146)?, half(info, 148)?);
    let mut found = Tri::Yes;
    let mut judge = |flag: u16, holds: Tri| {
        if flags & flag != 0 {
            let holds = match holds {
                Tri::Maybe => Tri::Maybe,
                known => of((known == Tri::Yes) != (inverted & flag != 0)),
            };
            found = found.min(holds);
        }
    };
    let state = half(info, 150)?;
    judge(STATE, state_in(u32::from(state), packet));
    if !packet.tracking.tracked && flags & !STATE != 0 {
        return Some(Tri::No);
    }
    judge(PROTO, of(half(info, 136)? == u16::from(packet.protocol.number())));
    judge(STATUS, of(u32::from(half(info, 152)?) & packet.tracking.status != 0));
    judge(DIRECTION, of(packet.tracking.direction == 0));
    judge(!(STATE | PROTO | STATUS | DIRECTION), Tri::Maybe);
    Some(found)
}

/// `XT_CONNTRACK_STATE_*`.
fn state_in(mask: u32, packet: &Packet) -> Tri {
    let tracking = packet.tracking;
    let mut bits = match tracking.state {
        ct_state::INVALID => 1,
        ct_state::ESTABLISHED => 2,
        ct_state::NEW => 8,
        ct_state::UNTRACKED => 256,
        _ => 4,
    };
    if tracking.status & CT_STATUS_DNAT != 0 {
        bits |= 128;
    }
    of(mask & bits != 0)
}

/// `struct xt_mark_mtinfo1` and `struct xt_connmark_mtinfo1`.
fn mark(info: &[u8], have: &[Byte; 4]) -> Option<Tri> {
    let (mark, mask, inverted) = (word(info, 0)?, word(info, 4)?, *info.get(8)? != 0);
    let mut found = Tri::Yes;
    for (byte, (want, mask)) in have.iter().zip(mark.to_ne_bytes().into_iter().zip(mask.to_ne_bytes())) {
        found = found.min(match byte {
            _ if mask == 0 => Tri::Yes,
            Some(byte) => of(byte & mask == want),
            None => Tri::Maybe,
        });
    }
    Some(match found {
        Tri::Maybe => Tri::Maybe,
        known => of((known == Tri::Yes) != inverted),
    })
}

/// `struct xt_connmark_tginfo1`: sets the mark of the connection, or copies it from or to that of the packet.
fn connection_mark(info: &[u8], packet: &Packet) -> Option<Target> {
    const SAVE: u8 = 1;
    const RESTORE: u8 = 2;
    let [value, of_connection, of_packet] = [word(info, 0)?, word(info, 4)?, word(info, 8)?];
    // Revision 2 may shift it as well.
    let shifts = info.get(14).is_some_and(|bits| *bits != 0);
    let (have, mark) = (number(packet.connection_mark), number(packet.mark));
    let put = |value: Option<u32>| match value.filter(|_| !shifts) {
        Some(value) => value.to_ne_bytes().map(Some),
        None => [None; 4],
    };
    let both = have.zip(mark);
    Some(match *info.get(12)? {
        SAVE => Target::MarksConnection(put(
            both.map(|(have, mark)| (have & !of_connection) ^ (mark & of_packet))
        )),
        RESTORE => Target::Marks(put(both.map(|(have, mark)| (mark & !of_packet) ^ (have & of_connection)))),
        _ => Target::MarksConnection(put(have.map(|have| (have & !of_connection) ^ value))),
    })
}

fn number(mark: [Byte; 4]) -> Option<u32> {
    let bytes: Vec<u8> = mark.into_iter().collect::<Option<_>>()?;
    word(&bytes, 0)
}

/// `struct xt_connlabel_mtinfo`, as if nobody had labelled the connection so far.
fn connection_label(info: &[u8]) -> Option<Tri> {
    let (mark, inverted) = (word(info, 0)?, *info.get(8)? != 0);
    Some(of((mark == 0) != inverted))
}

fn set_mark(info: &[u8], packet: &Packet) -> Option<[Byte; 4]> {
    let (mark, mask) = (word(info, 0)?.to_ne_bytes(), word(info, 4)?.to_ne_bytes());
    let mut out = packet.mark;
    for (byte, (mark, mask)) in out.iter_mut().zip(mark.into_iter().zip(mask)) {
        *byte = match *byte {
            _ if mask == u8::MAX => Some(mark),
            Some(have) => Some((have & !mask) ^ mark),
            None => None,
        };
    }
    Some(out)
}

fn port_in(packet: &Packet, destination: bool, first: u16, last: u16) -> Tri {
    match packet.port(destination) {
        _ if (first, last) == (0, u16::MAX) => Tri::Yes,
        Some(port) => of((first..=last).contains(&port)),
        None => Tri::Maybe,
    }
}

/// Two ranges of ports, and at `flags` which of them are inverted.
fn ports(info: &[u8], flags: usize, packet: &Packet) -> Option<Tri> {
    let inverted = *info.get(flags)?;
    let mut found = Tri::Yes;
    for (destination, at, flag) in [(false, 0, 1), (true, 4, 2)] {
        let holds = port_in(packet, destination, half(info, at)?, half(info, at + 2)?);
        found = found.min(match holds {
            Tri::Maybe => Tri::Maybe,
            known => of((known == Tri::Yes) != (inverted & flag != 0)),
        });
    }
    Some(found)
}

/// `struct xt_tcp`.
fn tcp(info: &[u8], packet: &Packet) -> Option<Tri> {
    if packet.protocol != Protocol::Tcp {
        return Some(Tri::No);
    }
    let &[option, mask, wanted, inverted] = info.get(8..12)? else { return None };
    let flags = packet.transport.get(13).copied().flatten()?;
    let option = if option == 0 { Tri::Yes } else { Tri::Maybe };
    let flags = of(((flags & mask) == wanted) != (inverted & 4 != 0));
    Some(ports(info, 11, packet)?.min(option).min(flags))
}

/// `struct xt_multiport_v1`.
fn multiport(info: &[u8], packet: &Packet) -> Option<Tri> {
    const SOURCE: u8 = 0;
    const DESTINATION: u8 = 1;
    let (which, count) = (*info.first()?, usize::from(*info.get(1)?));
    let inverted = *info.get(2 + 30 + 15)? != 0;
    let mut found = Tri::No;
    let mut index = 0;
    while index < count.min(15) {
        let first = half(info, 2 + 2 * index)?;
        let is_range = *info.get(32 + index)? != 0;
        let last = if is_range { half(info, 4 + 2 * index)? } else { first };
        index += if is_range { 2 } else { 1 };
        if which != SOURCE {
            found = found.max(port_in(packet, true, first, last));
        }
        if which != DESTINATION {
            found = found.max(port_in(packet, false, first, last));
        }
    }
    Some(match found {
        Tri::Maybe => Tri::Maybe,
        known => of((known == Tri::Yes) != inverted),
    })
}

/// `struct xt_iprange_mtinfo`: two ranges of addresses, in fields of 16 bytes.
fn iprange(info: &[u8], packet: &Packet) -> Option<Tri> {
    let flags = *info.get(64)?;
    let mut found = Tri::Yes;
    for (destination, at, asked, inverted) in [(false, 0, 1, 0x10), (true, 32, 2, 0x20)] {
        if flags & asked == 0 {
            continue;
        }
        let address = packet.address(destination);
        let (first, last) = (info.get(at..at + address.len())?, info.get(at + 16..at + 16 + address.len())?);
        let inside = compare(address, Comparison::Ge, first).min(compare(address, Comparison::Le, last));
        found = found.min(if flags & inverted == 0 { inside } else { inside.not() });
    }
    Some(found)
}

/// `struct xt_addrtype_info_v1`: sets of `1 << RTN_*`.
fn addrtype(info: &[u8], packet: &Packet) -> Option<Tri> {
    const UNICAST: u16 = 1 << 1;
    const LOCAL: u16 = 1 << 2;
    let outgoing = packet.iif.is_none();
    let kind = |here| if here { LOCAL } else { UNICAST };
    let (source, destination, flags) = (half(info, 0)?, half(info, 2)?, word(info, 4)?);
    let source = source == 0 || (source & kind(outgoing) != 0) != (flags & 1 != 0);
    let here = packet.for_here && !outgoing;
    let destination = destination == 0 || (destination & kind(here) != 0) != (flags & 2 != 0);
    Some(of(source && destination))
}

/// `struct nf_nat_range2` (revision 2), `nf_nat_range` (1) or `nf_nat_ipv4_multi_range_compat` (0).
fn dnat(revision: u32, info: &[u8]) -> Deed {
    const MAP_IPS: u32 = 1;
    const PROTO_SPECIFIED: u32 = 2;
    let nothing = Deed::Dnat { addr: None, port: None };
    let (flags_at, addr_at, port_at) = match revision {
        0 => (4, 8, 16),
        1 | 2 => (0, 4, 36),
        _ => return nothing,
    };
    let Some(flags) = word(info, flags_at) else { return nothing };
    let addr_len = if revision == 0 { 4 } else { 16 };
    let addr = info.get(addr_at..addr_at + addr_len).filter(|_| flags & MAP_IPS != 0).map(<[u8]>::to_vec);
    let port = info.get(port_at..port_at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes);
    Deed::Dnat { addr, port: port.filter(|_| flags & PROTO_SPECIFIED != 0) }
}

/// As `DNAT`, in the layout of revision 0; IPv6 has the longer one.
fn redirect_port(info: &[u8]) -> Option<u16> {
    const LONG: usize = 40;
    let at = if info.len() >= LONG { 36 } else { 16 };
    info.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes).filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::audit::packet::{Interface, TcpFlags, Tracking};
    use crate::units::Family;

    #[test]
    fn only_a_plain_list_of_clients_is_taken_for_one_of_strangers() {
        let mut packet = Packet::new(Family::V4, Protocol::Tcp, (None, None), (None, None), TcpFlags::Syn);
        packet.iif = Some(Interface { name: "eth0".to_owned(), index: None });
        let answer = Packet { tracking: Tracking::REPLY, ..packet.clone() };
        let (src, dst) = (1, 0);
        let info = |inverted: u8, asked: &[u8]| {
            let sides = asked.iter().enumerate().map(|(at, side)| side << (at + 1));
            vec![7, 0, u8::try_from(asked.len()).unwrap(), inverted | sides.sum::<u8>()]
        };
        for (info, here, back) in [
            (info(0, &[src]), Tri::No, Tri::Maybe),
            (info(0, &[dst]), Tri::Maybe, Tri::No),
            (info(0, &[src, dst]), Tri::No, Tri::Maybe),
            (info(1, &[src]), Tri::Maybe, Tri::Maybe),
            (info(1, &[dst]), Tri::Maybe, Tri::Maybe),
        ] {
            let found = [&packet, &answer].map(|packet| matches("set", 4, &info, packet));
            assert_eq!(found, [here, back], "{info:?}");
            let step = Step::CompatMatch { name: "set".to_owned(), revision: 4, info };
            for (last, found) in [(Verdict::Drop, here), (Verdict::Accept, Tri::Maybe)] {
                let steps = vec![step.clone(), Step::Verdict(last)];
                let rule = HostRule { steps, ..HostRule::default() };
                assert_eq!(in_rule(here, &step, &rule), found, "{step:?}");
            }
        }
    }

    #[test]
    fn the_mark_of_a_connection_is_set_saved_and_restored_as_the_kernel_does() {
        let mut packet = Packet::new(Family::V4, Protocol::Tcp, (None, None), (None, None), TcpFlags::Syn);
        packet.mark = 0x12_u32.to_ne_bytes().map(Some);
        packet.connection_mark = 0x40_u32.to_ne_bytes().map(Some);
        let info = |words: [u32; 3], mode: u8| -> Vec<u8> {
            words.into_iter().flat_map(u32::to_ne_bytes).chain([mode, 0, 0, 0]).collect()
        };
        let does = |words, mode| target("CONNMARK", 1, &info(words, mode), &packet);
        let of = |number: u32| number.to_ne_bytes().map(Some);
        assert_eq!(does([5, 0xff, 0], 0), Target::MarksConnection(of(5)));
        assert_eq!(does([5, 0x0f, 0], 0), Target::MarksConnection(of(0x45)));
        assert_eq!(does([0, u32::MAX, 0x0f], 1), Target::MarksConnection(of(2)));
        assert_eq!(does([0, 0xf0, 0x10], 2), Target::Marks(of(0x42)));
        let shifted: Vec<u8> = [&info([0, u32::MAX, u32::MAX], 2)[..13], &[0, 4, 0]].concat();
        assert_eq!(target("CONNMARK", 2, &shifted, &packet), Target::Marks([None; 4]));
        let asked: Vec<u8> = [0x40_u32, 0xf0].into_iter().flat_map(u32::to_ne_bytes).chain([0; 4]).collect();
        assert_eq!(matches("connmark", 1, &asked, &packet), Tri::Yes);
        packet.connection_mark = of(0);
        assert_eq!(matches("connmark", 1, &asked, &packet), Tri::No);
    }
}
