//! Expressions of other people's rules, for the audit.

use super::attr::Attributes;
use super::expr::verdict;
use crate::ruleset::audit::step::{Comparison, Room, Source, Step, Then};

/// Decodes the list in `NFTA_RULE_EXPRESSIONS`.
#[must_use]
pub fn steps(list: Attributes<'_>) -> Vec<Step> {
    list.map(|(_, item)| {
        let item = Attributes(item);
        let name = item.text(1).unwrap_or_default();
        step(name, item.nested(2)).unwrap_or_else(|| Step::Unknown(name.to_owned()))
    })
    .collect()
}

fn step(name: &str, data: Attributes<'_>) -> Option<Step> {
    match name {
        "meta" => meta(data),
        "payload" => payload(data),
        "cmp" => cmp(data),
        "range" => range(data),
        "bitwise" => bitwise(data),
        "byteorder" => byteorder(data),
        "lookup" => lookup(data),
        "immediate" => immediate(data),
        "ct" => ct(data),
        "fib" => fib(data),
        "exthdr" => exthdr(data),
        "nat" => nat(data),
        "redir" => Some(Step::Redirect { port: register(data, 1), last_port: register(data, 2) }),
        "masq" => Some(Step::Translated),
        "tproxy" => Some(Step::Tproxy { addr: register(data, 2), port: register(data, 3) }),
        "fwd" => Some(Step::Forward),
        "queue" => Some(Step::Queue),
        "reject" => Some(Step::Reject),
        "notrack" => Some(Step::Notrack),
        "flow_offload" => Some(Step::FlowAdd(data.text(1)?.to_owned())),
        "limit" => Some(limit(data)),
        "quota" => Some(quota(data)),
        "connlimit" => Some(connlimit(data)),
        "dynset" => dynset(data),
        "match" => Some(Step::CompatMatch {
            name: data.text(1)?.to_owned(),
            revision: data.be32(2).unwrap_or(0),
            info: data.get(3).unwrap_or_default().to_vec(),
        }),
        "target" => Some(Step::CompatTarget {
            name: data.text(1)?.to_owned(),
            revision: data.be32(2).unwrap_or(0),
            info: data.get(3).unwrap_or_default().to_vec(),
        }),
        "counter" | "log" | "dup" | "last" => Some(Step::Nothing),
        "objref" => Some(named_object(data)),
        "hash" | "numgen" | "rt" | "socket" | "osf" | "xfrm" | "tunnel" | "inner" => unknown_load(name, data),
        _ => None,
    }
}

/// The first byte of a register: the four of 16 bytes are 1 to 4, the sixteen of 4 bytes 8 to 23.
fn register(data: Attributes<'_>, kind: u16) -> Option<usize> {
    match data.be32(kind)? {
        whole @ 1..=4 => usize::try_from((whole - 1) * 16).ok(),
        part @ 8..=23 => usize::try_from((part - 8) * 4).ok(),
        _ => None,
    }
}

fn length(data: Attributes<'_>, kind: u16) -> Option<usize> {
    usize::try_from(data.be32(kind)?).ok()
}

fn value(data: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    data.nested(kind).get(1).map(<[u8]>::to_vec)
}

fn load(source: Source, to: usize, len: Option<usize>) -> Option<Step> {
    Some(Step::Load { source, to, len })
}

/// Loads something that cannot be told beforehand; the register is in another place for each.
fn unknown_load(name: &str, data: Attributes<'_>) -> Option<Step> {
    let at = match name {
        "hash" => register(data, 2),
        "socket" => register(data, 2),
        "tunnel" => register(data, 2),
        _ => register(data, 1),
    };
    load(Source::Unknown, at?, Some(16))
}

/// `NFT_META_*`; those that are written and not 3 (the mark) do not matter.
fn meta(data: Attributes<'_>) -> Option<Step> {
    let key = data.be32(2)?;
    match (register(data, 1), register(data, 3)) {
        (Some(to), None) => load(Source::Meta(key), to, meta_length(key)),
        (None, Some(from)) if key == 3 => Some(Step::SetMark { from }),
        (None, Some(_)) => Some(Step::Nothing),
        (None, None) | (Some(_), Some(_)) => None,
    }
}

fn meta_length(key: u32) -> Option<usize> {
    match key {
        // Protocol of the link, kinds of interface: two bytes.
        1 | 8 | 9 => Some(2),
        15 | 16 | 19 | 25 => Some(1),
        6 | 7 | 17 | 18 => Some(16),
        _ => Some(4),
    }
}

fn payload(data: Attributes<'_>) -> Option<Step> {
    let (base, offset, len) = (data.be32(2)?, length(data, 3)?, length(data, 4)?);
    match (register(data, 1), register(data, 5)) {
        (Some(to), None) => load(Source::Payload { base, offset }, to, Some(len)),
        (None, Some(from)) => Some(Step::Write { base, offset, len, from }),
        (None, None) | (Some(_), Some(_)) => None,
    }
}

fn cmp(data: Attributes<'_>) -> Option<Step> {
    let how = match data.be32(2)? {
        0 => Comparison::Eq,
        1 => Comparison::Ne,
        2 => Comparison::Lt,
        3 => Comparison::Le,
        4 => Comparison::Gt,
        5 => Comparison::Ge,
        _ => return None,
    };
    Some(Step::Compare { at: register(data, 1)?, how, data: value(data, 3)? })
}

fn range(data: Attributes<'_>) -> Option<Step> {
    Some(Step::Range {
        at: register(data, 1)?,
        outside: data.be32(2)? == 1,
        first: value(data, 3)?,
        last: value(data, 4)?,
    })
}

fn bitwise(data: Attributes<'_>) -> Option<Step> {
    let (from, to) = (register(data, 1)?, register(data, 2)?);
    match (data.be32(6).unwrap_or(0), value(data, 4), value(data, 5)) {
        (0, Some(mask), Some(xor)) => Some(Step::Mask { from, to, mask, xor }),
        // Shifts, and masks from registers.
        _ => load(Source::Unknown, to, length(data, 3)),
    }
}

fn byteorder(data: Attributes<'_>) -> Option<Step> {
    let (len, size) = (length(data, 4)?, length(data, 5)?);
    // The kernel knows the sizes 2, 4 and 8, and leaves others alone.
    let size = if [2, 4, 8].contains(&size) { size } else { 1 };
    Some(Step::Swap { from: register(data, 1)?, to: register(data, 2)?, len, size })
}

fn lookup(data: Attributes<'_>) -> Option<Step> {
    let into = match data.be32(3) {
        None => Then::Nothing,
        Some(0) => Then::Verdict,
        Some(_) => Then::Register(register(data, 3)?),
    };
    Some(Step::Lookup {
        set: data.text(1)?.to_owned(),
        at: register(data, 2)?,
        inverted: data.be32(5).is_some_and(|flags| flags & 1 != 0),
        into,
    })
}

fn immediate(data: Attributes<'_>) -> Option<Step> {
    if data.be32(1)? != 0 {
        return Some(Step::Constant { to: register(data, 1)?, data: value(data, 2)? });
    }
    let target = data.nested(2).nested(2);
    match target.be32(1)?.cast_signed() {
        // NFT_CONTINUE
        -1 => Some(Step::Nothing),
        // NF_QUEUE in the lower half
        code if code & 0xff == 3 && code > 0 => Some(Step::Queue),
        _ => verdict(target).map(Step::Verdict),
    }
}

/// `NFT_CT_*`; of what is written to a connection only its mark matters.
fn ct(data: Attributes<'_>) -> Option<Step> {
    const MARK: u32 = 3;
    let key = data.be32(2)?;
    if data.get(4).is_some() {
        return Some(match key {
            MARK => Step::SetConnectionMark { from: register(data, 4)? },
            _ => Step::Nothing,
        });
    }
    let direction = data.get(3).and_then(|bytes| bytes.first().copied());
    let len = match key {
        0 | 2..=6 => Some(4),
        1 | 9 | 10 => Some(1),
        11 | 12 => Some(2),
        19 | 20 => Some(4),
        _ => Some(16),
    };
    load(Source::Ct { key, direction }, register(data, 1)?, len)
}

fn fib(data: Attributes<'_>) -> Option<Step> {
    let (result, flags) = (data.be32(2)?, data.be32(3)?);
    let len = if result == 2 { 16 } else { 4 };
    load(Source::Fib { result, flags }, register(data, 1)?, Some(len))
}

/// The option of TCP that names the largest segment.
const TCPOPT_MSS: u8 = 2;

/// Extension headers of IPv6 (0) are absent from our packets; options of TCP (1) and IPv4 (2) are not known.
fn exthdr(data: Attributes<'_>) -> Option<Step> {
    let only_present = data.be32(5).unwrap_or(0) & 1 != 0;
    match (data.be32(6).unwrap_or(0), register(data, 1)) {
        (1, Some(to)) if data.get(2) == Some(&[TCPOPT_MSS]) => match only_present {
            true => load(Source::Present(true), to, Some(1)),
            false => load(Source::SegmentSize, to, Some(2)),
        },
        (0 | 2, Some(to)) if only_present => load(Source::Present(false), to, Some(1)),
        (0 | 2, Some(_)) => Some(Step::Never),
        (_, Some(to)) => load(Source::Unknown, to, length(data, 4).or(Some(1))),
        (_, None) => Some(Step::Nothing),
    }
}

/// Slower than one packet in a second, a client that tries again uses it up.
fn limit(data: Attributes<'_>) -> Step {
    const BYTES: u32 = 1;
    let (rate, seconds) = (data.be64(1).unwrap_or(0), data.be64(2).unwrap_or(1));
    let is_slow = rate < seconds && data.be32(4) != Some(BYTES);
    let room = if is_slow { Room::Narrow } else { Room::Wide };
    Step::Limit { over: data.be32(5).unwrap_or(0) & 1 != 0, room }
}

/// The kernel tells what of it is used up.
fn quota(data: Attributes<'_>) -> Step {
    let (most, used) = (data.be64(1).unwrap_or(u64::MAX), data.be64(4).unwrap_or(0));
    let room = if used >= most { Room::Gone } else { Room::Wide };
    Step::Limit { over: data.be32(2).unwrap_or(0) & 1 != 0, room }
}

/// So many connections one client may have open by itself.
const FEW_CONNECTIONS: u32 = 10;

fn connlimit(data: Attributes<'_>) -> Step {
    let room = if data.be32(1).unwrap_or(0) < FEW_CONNECTIONS { Room::Narrow } else { Room::Wide };
    Step::Limit { over: data.be32(2).unwrap_or(0) & 1 != 0, room }
}

/// Quotas, rates and numbers of connections that have names are not read; counters and helpers matter little. Where a
/// map names the object (and no kind is told), a packet that is not in it does not match.
fn named_object(data: Attributes<'_>) -> Step {
    const QUOTA: u32 = 2;
    const LIMIT: u32 = 4;
    const CONNLIMIT: u32 = 5;
    match data.be32(1) {
        Some(QUOTA | LIMIT | CONNLIMIT) | None => Step::Unknown("objref".to_owned()),
        Some(_) => Step::Nothing,
    }
}

/// A rate may be kept in the set as well.
fn dynset(data: Attributes<'_>) -> Option<Step> {
    const DELETE: u32 = 2;
    let mut inner = vec![data.nested(7)];
    inner.extend(data.nested(10).map(|(_, item)| Attributes(item)));
    for item in inner {
        if let Some("limit" | "connlimit" | "quota") = item.text(1) {
            return step(item.text(1)?, item.nested(2));
        }
    }
    match data.be32(3) {
        Some(DELETE) => Some(Step::Nothing),
        Some(_) | None => Some(Step::AddTo(data.text(1)?.to_owned())),
    }
}

fn nat(data: Attributes<'_>) -> Option<Step> {
    // NFT_NAT_SNAT is 0, NFT_NAT_DNAT 1.
    if data.be32(1)? == 0 {
        return Some(Step::Translated);
    }
    Some(Step::Dnat {
        addr: register(data, 3),
        last_addr: register(data, 4),
        v6: data.be32(2)? == 10,
        port: register(data, 5),
        last_port: register(data, 6),
    })
}

#[cfg(test)]
mod tests {
    use super::super::attr::attribute;
    use super::*;

    #[test]
    fn what_a_named_object_does_is_unknown_where_a_map_names_it() {
        let of = |kind: u32| [attribute(1, &kind.to_be_bytes()), attribute(2, b"q\0")].concat();
        let by_map = [attribute(3, &1_u32.to_be_bytes()), attribute(4, b"m\0")].concat();
        let unknown = Step::Unknown("objref".to_owned());
        assert_eq!(named_object(Attributes(&of(1))), Step::Nothing, "a counter");
        assert_eq!(named_object(Attributes(&of(2))), unknown, "a quota");
        assert_eq!(named_object(Attributes(&by_map)), unknown);
    }
}
