//! Expressions of rules, as the kernel dumps them (`linux/netfilter/nf_tables.h`).

use super::attr::Attributes;
use crate::ruleset::expr::{Base, CmpOp, CtKey, Expr, Limit, MetaKey, Reg, Side, Verdict};
use crate::units::Family;

/// Decodes the list in `NFTA_RULE_EXPRESSIONS`; what this program never writes becomes [`Expr::Foreign`].
#[must_use]
pub fn expressions(list: Attributes<'_>) -> Vec<Expr> {
    list.filter_map(|(_, item)| {
        let item = Attributes(item);
        let name = item.text(1).unwrap_or_default();
        let data = item.nested(2);
        if does_nothing(name, data) {
            return None;
        }
        Some(expression(name, data).unwrap_or_else(|| Expr::Foreign(name.to_owned())))
    })
    .collect()
}

/// nft 1.0.6 swaps the bytes of the one-byte protocol in a key with ranges; the kernel then swaps none.
fn does_nothing(name: &str, data: Attributes<'_>) -> bool {
    name == "byteorder" && data.be32(4) == Some(1) && reg(data, 1) == reg(data, 2)
}

fn expression(name: &str, data: Attributes<'_>) -> Option<Expr> {
    match name {
        "meta" => meta(data),
        "payload" => payload(data),
        "cmp" => cmp(data),
        "bitwise" => bitwise(data),
        "byteorder" => byteorder(data),
        "lookup" => lookup(data),
        "immediate" => immediate(data),
        "ct" => ct(data),
        "fib" => fib(data),
        "counter" => Some(Expr::Counter),
        "notrack" => Some(Expr::Notrack),
        "dynset" => dynset(data),
        "nat" => nat(data),
        "log" => log(data),
        "limit" => limit(data).map(Expr::Limit),
        "masq" => data.get(1).is_none_or(|flags| flags == [0; 4]).then_some(Expr::Masquerade),
        _ => None,
    }
}

/// Registers come as the four 16-byte ones (1 to 4) where they start one, else as 8 and up.
fn reg(data: Attributes<'_>, kind: u16) -> Option<Reg> {
    match data.be32(kind)? {
        whole @ 1..=4 => u8::try_from((whole - 1) * 4).ok().map(Reg),
        part @ 8..=23 => u8::try_from(part - 8).ok().map(Reg),
        _ => None,
    }
}

fn value(data: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    data.nested(kind).get(1).map(<[u8]>::to_vec)
}

fn meta(data: Attributes<'_>) -> Option<Expr> {
    let key = match data.be32(2)? {
        0 => MetaKey::Len,
        3 => MetaKey::Mark,
        6 => MetaKey::IifName,
        7 => MetaKey::OifName,
        15 => MetaKey::NfProto,
        16 => MetaKey::L4Proto,
        26 => MetaKey::IifKind,
        _ => return None,
    };
    match (reg(data, 1), reg(data, 3)) {
        (Some(reg), None) => Some(Expr::MetaLoad { key, reg }),
        (None, Some(reg)) => Some(Expr::MetaSet { key, reg }),
        (None, None) | (Some(_), Some(_)) => None,
    }
}

fn payload(data: Attributes<'_>) -> Option<Expr> {
    let base = match data.be32(2)? {
        1 => Base::Network,
        2 => Base::Transport,
        3 => Base::Inner,
        _ => return None,
    };
    Some(Expr::Payload { base, offset: data.be32(3)?, len: data.be32(4)?, reg: reg(data, 1)? })
}

fn cmp(data: Attributes<'_>) -> Option<Expr> {
    let op = match data.be32(2)? {
        0 => CmpOp::Eq,
        1 => CmpOp::Ne,
        3 => CmpOp::Le,
        5 => CmpOp::Ge,
        _ => return None,
    };
    Some(Expr::Cmp { reg: reg(data, 1)?, op, data: value(data, 3)? })
}

fn bitwise(data: Attributes<'_>) -> Option<Expr> {
    let in_place = reg(data, 1)? == reg(data, 2)?;
    let masks = data.be32(6).unwrap_or(0) == 0;
    let (mask, xor) = (value(data, 4)?, value(data, 5)?);
    (in_place && masks).then_some(Expr::Bitwise { reg: reg(data, 1)?, mask, xor })
}

fn byteorder(data: Attributes<'_>) -> Option<Expr> {
    let ours =
        reg(data, 1)? == reg(data, 2)? && data.be32(3)? == 1 && data.be32(4)? == 4 && data.be32(5)? == 4;
    ours.then_some(Expr::ToBigEndian { reg: reg(data, 1)? })
}

fn lookup(data: Attributes<'_>) -> Option<Expr> {
    let inverted = data.be32(5).is_some_and(|flags| flags != 0);
    let (set, key) = (data.text(1)?.to_owned(), reg(data, 2)?);
    let lookup = match data.be32(3) {
        None => Expr::Lookup { set, reg: key, verdict: false },
        Some(0) => Expr::Lookup { set, reg: key, verdict: true },
        Some(_) => Expr::Map { set, reg: key, to: reg(data, 3)? },
    };
    (!inverted).then_some(lookup)
}

fn immediate(data: Attributes<'_>) -> Option<Expr> {
    if data.be32(1)? == 0 {
        return verdict(data.nested(2).nested(2)).map(Expr::Verdict);
    }
    Some(Expr::Immediate { reg: reg(data, 1)?, data: value(data, 2)? })
}

/// Decodes `NFTA_VERDICT_*`.
pub(super) fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    let chain = || data.text(2).map(str::to_owned);
    match data.be32(1)?.cast_signed() {
        0 => Some(Verdict::Drop),
        1 => Some(Verdict::Accept),
        -3 => chain().map(Verdict::Jump),
        -4 => chain().map(Verdict::Goto),
        -5 => Some(Verdict::Return),
        _ => None,
    }
}

fn ct(data: Attributes<'_>) -> Option<Expr> {
    let original = data.get(3).map(|direction| direction == [0]);
    let key = match (data.be32(2)?, original) {
        (0, None) => CtKey::State,
        (1, None) => CtKey::Direction,
        (2, None) => CtKey::Status,
        (12, Some(true)) => CtKey::OriginalProtoDst,
        (20, Some(true)) => CtKey::OriginalDst4,
        (22, Some(true)) => CtKey::OriginalDst6,
        _ => return None,
    };
    if data.get(4).is_some() {
        return None;
    }
    Some(Expr::Ct { key, reg: reg(data, 1)? })
}

fn fib(data: Attributes<'_>) -> Option<Expr> {
    const PRESENT: u32 = 32;
    let flags = data.be32(3)?;
    let side = match flags & !PRESENT {
        1 => Side::Source,
        2 => Side::Destination,
        _ => return None,
    };
    let reg = reg(data, 1)?;
    match (data.be32(2)?, flags & PRESENT != 0) {
        (1, true) => Some(Expr::FibRouted { side, reg }),
        (2, false) => Some(Expr::FibInterface { side, reg }),
        (3, false) => Some(Expr::FibType { side, reg }),
        _ => None,
    }
}

fn dynset(data: Attributes<'_>) -> Option<Expr> {
    let (set, key) = (data.text(1)?.to_owned(), reg(data, 4)?);
    let value = match data.get(5) {
        None => None,
        Some(_) => Some(reg(data, 5)?),
    };
    let bare = data.nested(7).text(1).is_none() && data.get(10).is_none();
    match data.be32(3)? {
        0 if bare => {
            let timeout_ms = data.be64(6).unwrap_or(0);
            return Some(Expr::Remember { set, reg: key, timeout_ms, data: value });
        }
        2 if bare => return Some(Expr::Forget { set, reg: key, data: value }),
        1 if value.is_none() => {}
        _ => return None,
    }
    let inner = data.nested(7);
    let limit = match inner.text(1) {
        None if data.get(10).is_none() => None,
        Some("limit") => Some(limit(inner.nested(2))?),
        None | Some(_) => return None,
    };
    Some(Expr::Update { set, reg: key, timeout_ms: data.be64(6).unwrap_or(0), limit })
}

/// To a group, or to the kernel's own log at the level that is usual.
fn log(data: Attributes<'_>) -> Option<Expr> {
    const WARNING: u32 = 4;
    let prefix = data.text(2)?.to_owned();
    let Some(group) = data.get(1) else {
        let usual =
            data.be32(5).is_none_or(|level| level == WARNING) && data.be32(6).is_none_or(|flags| flags == 0);
        return usual.then_some(Expr::KernelLog { prefix });
    };
    let group = u16::from_be_bytes(group.try_into().ok()?);
    let threshold = data.get(4).is_none_or(|threshold| threshold == [0, 0]);
    let log = Expr::Log { group, prefix, snaplen: data.be32(3).unwrap_or_default() };
    (threshold && data.get(5).is_none()).then_some(log)
}

fn limit(data: Attributes<'_>) -> Option<Limit> {
    let packets = data.be32(4)? == 0;
    let limit = Limit {
        rate: data.be64(1)?,
        unit_secs: data.be64(2)?,
        burst: data.be32(3)?,
        over: data.be32(5)? & 1 != 0,
    };
    packets.then_some(limit)
}

fn nat(data: Attributes<'_>) -> Option<Expr> {
    let family = match data.be32(2)? {
        2 => Family::V4,
        10 => Family::V6,
        _ => return None,
    };
    let addr = reg(data, 3)?;
    let port = match data.be32(5) {
        None => None,
        Some(_) => Some(reg(data, 5)?),
    };
    // The kernel fills in the upper ends, equal to the lower ones.
    let single = data.be32(4).is_none_or(|_| reg(data, 4) == Some(addr))
        && data.be32(6).is_none_or(|_| reg(data, 6) == port);
    (data.be32(1)? == 1 && single).then_some(Expr::Dnat { family, addr, port })
}
