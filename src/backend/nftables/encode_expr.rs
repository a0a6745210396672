//! Expressions of rules to libnftnl's.

use nftnl_sys as nft;

use super::encode::verdict_parts;
use crate::ruleset::expr::{Base, CmpOp, CtKey, Expr, Limit, MetaKey, Reg, Side, Verdict};
use crate::sys::nftnl::{BuildError, Expression};
use crate::units::Family;

const NAT_DNAT: u32 = 1;
const FIB_RESULT_OIF: u32 = 1;
const FIB_RESULT_OIFNAME: u32 = 2;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_PRESENT: u32 = 32;
const DYNSET_ADD: u32 = 0;
const DYNSET_UPDATE: u32 = 1;
const DYNSET_DELETE: u32 = 2;
const BYTEORDER_HTON: u32 = 1;
const CT_DIR_ORIGINAL: u32 = 0;
const LIMIT_PACKETS: u32 = 0;
const LIMIT_INVERTED: u32 = 1;
const NAT_RANGE_PROTO_SPECIFIED: u32 = 2;

/// The kernel's number of a register: the four 16-byte ones where it starts one, else its own.
fn number(reg: Reg) -> u32 {
    let index = u32::from(reg.0);
    if index.is_multiple_of(4) { 1 + index / 4 } else { 8 + index }
}

pub(super) fn expression(expr: &Expr) -> Result<Expression, BuildError> {
    match expr {
        Expr::MetaLoad { key, reg } => meta(*key, nft::NFTNL_EXPR_META_DREG, *reg),
        Expr::MetaSet { key, reg } => meta(*key, nft::NFTNL_EXPR_META_SREG, *reg),
        Expr::Payload { base, offset, len, reg } => payload(*base, *offset, *len, *reg),
        Expr::Cmp { reg, op, data } => cmp(*reg, *op, data),
        Expr::Bitwise { reg, mask, xor } => bitwise(*reg, mask, xor),
        Expr::ToBigEndian { reg } => to_big_endian(*reg),
        Expr::Lookup { set, reg, verdict } => lookup(set, *reg, *verdict),
        Expr::Immediate { reg, data } => {
            let mut out = Expression::new("immediate")?;
            out.set_u32(nft::NFTNL_EXPR_IMM_DREG, number(*reg));
            out.set_data(nft::NFTNL_EXPR_IMM_DATA, data);
            Ok(out)
        }
        Expr::Verdict(verdict) => self::verdict(verdict),
        Expr::Ct { key, reg } => ct(*key, *reg),
        Expr::FibType { side, reg } => fib(FIB_RESULT_ADDRTYPE, *side, 0, *reg),
        Expr::FibInterface { side, reg } => fib(FIB_RESULT_OIFNAME, *side, 0, *reg),
        Expr::FibRouted { side, reg } => fib(FIB_RESULT_OIF, *side, FIB_PRESENT, *reg),
        Expr::Counter => Expression::new("counter"),
        Expr::Notrack => Expression::new("notrack"),
        Expr::Update { set, reg, timeout_ms, limit } => update(set, *reg, *timeout_ms, *limit),
        Expr::Map { set, reg, to } => {
            let mut out = lookup(set, *reg, false)?;
            out.set_u32(nft::NFTNL_EXPR_LOOKUP_DREG, number(*to));
            Ok(out)
        }
        Expr::Remember { set, reg, timeout_ms, data } => {
            dynset(DYNSET_ADD, set, *reg, Some(*timeout_ms), *data)
        }
        Expr::Forget { set, reg, data } => dynset(DYNSET_DELETE, set, *reg, None, *data),
        Expr::Log { group, prefix, snaplen } => log(*group, prefix, *snaplen),
        Expr::KernelLog { prefix } => {
            let mut out = Expression::new("log")?;
            out.set_text(nft::NFTNL_EXPR_LOG_PREFIX, prefix)?;
            Ok(out)
        }
        Expr::Limit(rate) => limit(*rate),
        Expr::Dnat { family, addr, port } => dnat(*family, *addr, *port),
        Expr::Masquerade => Expression::new("masq"),
        // The plan never has one; the kernel has no expression of an empty name either.
        Expr::Foreign(_) => Err(BuildError::Alloc),
    }
}

fn meta(key: MetaKey, direction: u32, reg: Reg) -> Result<Expression, BuildError> {
    let key = match key {
        MetaKey::Len => 0,
        MetaKey::Mark => 3,
        MetaKey::IifName => 6,
        MetaKey::OifName => 7,
        MetaKey::NfProto => 15,
        MetaKey::L4Proto => 16,
        MetaKey::IifKind => 26,
    };
    let mut out = Expression::new("meta")?;
    out.set_u32(nft::NFTNL_EXPR_META_KEY, key);
    out.set_u32(direction, number(reg));
    Ok(out)
}

fn payload(base: Base, offset: u32, len: u32, reg: Reg) -> Result<Expression, BuildError> {
    let base = match base {
        Base::Network => 1,
        Base::Transport => 2,
        Base::Inner => 3,
    };
    let mut out = Expression::new("payload")?;
    out.set_u32(nft::NFTNL_EXPR_PAYLOAD_DREG, number(reg));
    out.set_u32(nft::NFTNL_EXPR_PAYLOAD_BASE, base);
    out.set_u32(nft::NFTNL_EXPR_PAYLOAD_OFFSET, offset);
    out.set_u32(nft::NFTNL_EXPR_PAYLOAD_LEN, len);
    Ok(out)
}

fn cmp(reg: Reg, op: CmpOp, data: &[u8]) -> Result<Expression, BuildError> {
    let op = match op {
        CmpOp::Eq => 0,
        CmpOp::Ne => 1,
        CmpOp::Le => 3,
        CmpOp::Ge => 5,
    };
    let mut out = Expression::new("cmp")?;
    out.set_u32(nft::NFTNL_EXPR_CMP_SREG, number(reg));
    out.set_u32(nft::NFTNL_EXPR_CMP_OP, op);
    out.set_data(nft::NFTNL_EXPR_CMP_DATA, data);
    Ok(out)
}

fn bitwise(reg: Reg, mask: &[u8], xor: &[u8]) -> Result<Expression, BuildError> {
    let mut out = Expression::new("bitwise")?;
    out.set_u32(nft::NFTNL_EXPR_BITWISE_SREG, number(reg));
    out.set_u32(nft::NFTNL_EXPR_BITWISE_DREG, number(reg));
    out.set_u32(nft::NFTNL_EXPR_BITWISE_LEN, u32::try_from(mask.len()).unwrap_or(u32::MAX));
    out.set_data(nft::NFTNL_EXPR_BITWISE_MASK, mask);
    out.set_data(nft::NFTNL_EXPR_BITWISE_XOR, xor);
    Ok(out)
}

fn to_big_endian(reg: Reg) -> Result<Expression, BuildError> {
    let mut out = Expression::new("byteorder")?;
    out.set_u32(nft::NFTNL_EXPR_BYTEORDER_SREG, number(reg));
    out.set_u32(nft::NFTNL_EXPR_BYTEORDER_DREG, number(reg));
    out.set_u32(nft::NFTNL_EXPR_BYTEORDER_OP, BYTEORDER_HTON);
    out.set_u32(nft::NFTNL_EXPR_BYTEORDER_LEN, 4);
    out.set_u32(nft::NFTNL_EXPR_BYTEORDER_SIZE, 4);
    Ok(out)
}

fn lookup(set: &str, reg: Reg, verdict: bool) -> Result<Expression, BuildError> {
    let mut out = Expression::new("lookup")?;
    out.set_u32(nft::NFTNL_EXPR_LOOKUP_SREG, number(reg));
    out.set_text(nft::NFTNL_EXPR_LOOKUP_SET, set)?;
    if verdict {
        out.set_u32(nft::NFTNL_EXPR_LOOKUP_DREG, 0);
    }
    Ok(out)
}

fn verdict(verdict: &Verdict) -> Result<Expression, BuildError> {
    let (code, chain) = verdict_parts(verdict);
    let mut out = Expression::new("immediate")?;
    out.set_u32(nft::NFTNL_EXPR_IMM_DREG, 0);
    out.set_u32(nft::NFTNL_EXPR_IMM_VERDICT, code);
    if let Some(chain) = chain {
        out.set_text(nft::NFTNL_EXPR_IMM_CHAIN, chain)?;
    }
    Ok(out)
}

fn ct(key: CtKey, reg: Reg) -> Result<Expression, BuildError> {
    let (number_of_key, original) = match key {
        CtKey::State => (0, false),
        CtKey::Direction => (1, false),
        CtKey::Status => (2, false),
        CtKey::OriginalProtoDst => (12, true),
        CtKey::OriginalDst4 => (20, true),
        CtKey::OriginalDst6 => (22, true),
    };
    let mut out = Expression::new("ct")?;
    out.set_u32(nft::NFTNL_EXPR_CT_KEY, number_of_key);
    out.set_u32(nft::NFTNL_EXPR_CT_DREG, number(reg));
    if original {
        // One byte, in an attribute that libnftnl reads as such.
        out.set_data(nft::NFTNL_EXPR_CT_DIR, &CT_DIR_ORIGINAL.to_ne_bytes()[..1]);
    }
    Ok(out)
}

fn fib(result: u32, side: Side, more: u32, reg: Reg) -> Result<Expression, BuildError> {
    let side = match side {
        Side::Source => 1,
        Side::Destination => 2,
    };
    let mut out = Expression::new("fib")?;
    out.set_u32(nft::NFTNL_EXPR_FIB_DREG, number(reg));
    out.set_u32(nft::NFTNL_EXPR_FIB_RESULT, result);
    out.set_u32(nft::NFTNL_EXPR_FIB_FLAGS, side | more);
    Ok(out)
}

fn update(set: &str, reg: Reg, timeout_ms: u64, limit: Option<Limit>) -> Result<Expression, BuildError> {
    let mut out = dynset(DYNSET_UPDATE, set, reg, Some(timeout_ms), None)?;
    if let Some(rate) = limit {
        out.add(self::limit(rate)?);
    }
    Ok(out)
}

fn limit(rate: Limit) -> Result<Expression, BuildError> {
    let mut out = Expression::new("limit")?;
    out.set_u64(nft::NFTNL_EXPR_LIMIT_RATE, rate.rate);
    out.set_u64(nft::NFTNL_EXPR_LIMIT_UNIT, rate.unit_secs);
    out.set_u32(nft::NFTNL_EXPR_LIMIT_BURST, rate.burst);
    out.set_u32(nft::NFTNL_EXPR_LIMIT_TYPE, LIMIT_PACKETS);
    out.set_u32(nft::NFTNL_EXPR_LIMIT_FLAGS, if rate.over { LIMIT_INVERTED } else { 0 });
    Ok(out)
}

fn dynset(
    operation: u32,
    set: &str,
    reg: Reg,
    timeout_ms: Option<u64>,
    data: Option<Reg>,
) -> Result<Expression, BuildError> {
    let mut out = Expression::new("dynset")?;
    out.set_u32(nft::NFTNL_EXPR_DYNSET_SREG_KEY, number(reg));
    out.set_u32(nft::NFTNL_EXPR_DYNSET_OP, operation);
    out.set_text(nft::NFTNL_EXPR_DYNSET_SET_NAME, set)?;
    if let Some(ms) = timeout_ms {
        out.set_u64(nft::NFTNL_EXPR_DYNSET_TIMEOUT, ms);
    }
    if let Some(data) = data {
        out.set_u32(nft::NFTNL_EXPR_DYNSET_SREG_DATA, number(data));
    }
    Ok(out)
}

fn log(group: u16, prefix: &str, snaplen: u32) -> Result<Expression, BuildError> {
    let mut out = Expression::new("log")?;
    out.set_text(nft::NFTNL_EXPR_LOG_PREFIX, prefix)?;
    // Two bytes, in an attribute that libnftnl reads as such.
    out.set_data(nft::NFTNL_EXPR_LOG_GROUP, &group.to_ne_bytes());
    out.set_u32(nft::NFTNL_EXPR_LOG_SNAPLEN, snaplen);
    Ok(out)
}

fn dnat(family: Family, addr: Reg, port: Option<Reg>) -> Result<Expression, BuildError> {
    let mut out = Expression::new("nat")?;
    out.set_u32(nft::NFTNL_EXPR_NAT_TYPE, NAT_DNAT);
    out.set_u32(
        nft::NFTNL_EXPR_NAT_FAMILY,
        match family {
            Family::V4 => 2,
            Family::V6 => 10,
        },
    );
    out.set_u32(nft::NFTNL_EXPR_NAT_REG_ADDR_MIN, number(addr));
    if let Some(port) = port {
        out.set_u32(nft::NFTNL_EXPR_NAT_REG_PROTO_MIN, number(port));
        out.set_u32(nft::NFTNL_EXPR_NAT_FLAGS, NAT_RANGE_PROTO_SPECIFIED);
    }
    Ok(out)
}
