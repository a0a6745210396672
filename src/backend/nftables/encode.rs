//! Changes to netlink messages, by libnftnl.

use nftnl_sys as nft;

use super::encode_expr::expression;
use crate::ruleset::diff::{Change, SetRef};
use crate::ruleset::expr::Verdict;
use crate::ruleset::model::{
    BaseChain, Chain, ChainType, Element, Elements, Hook, KeyPart, Rule, Set, TABLE, TABLE_COMMENT, Value,
};
use crate::sys::nftnl::{self as sys, Body, BuildError, FAMILY_INET, Message, flag, msg};

const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
const SET_CONCAT: u32 = 0x80;
const ELEMENT_INTERVAL_END: u32 = 1;
const DATA_VERDICT: u32 = 0xffff_ff00;
/// nft's type of marks.
const TYPE_MARK: u32 = 19;
/// NF_DROP and NF_ACCEPT.
const POLICY_DROP: u32 = 0;
const POLICY_ACCEPT: u32 = 1;
/// Kinds of nft's own user data on sets (libnftnl's `udata.h`).
const UDATA_KEY_BYTEORDER: u8 = 0;
const UDATA_DATA_BYTEORDER: u8 = 1;
const UDATA_MERGE_ELEMENTS: u8 = 2;
/// nft's `enum byteorder`.
const HOST_ENDIAN: u32 = 1;
const BIG_ENDIAN: u32 = 2;
/// Elements in one message; with room to spare below the 64 KiB that an attribute can hold.
const ELEMENTS_PER_MESSAGE: usize = 300;

/// A change and the message it became part of, to tie a refusal of the kernel back to it.
#[derive(Debug, Default)]
pub struct Encoded {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// For each message, the index of its change.
    pub origins: Vec<usize>,
}

/// Encodes changes in order.
///
/// # Errors
/// [`BuildError`] where libnftnl cannot.
pub fn encode(changes: &[Change]) -> Result<Encoded, BuildError> {
    let mut out = Encoded::default();
    let mut set_id = 0;
    for (index, change) in changes.iter().enumerate() {
        let before = out.messages.len();
        one(change, &mut set_id, &mut out.messages)?;
        out.origins.extend(std::iter::repeat_n(index, out.messages.len() - before));
    }
    Ok(out)
}

fn one(change: &Change, set_id: &mut u32, out: &mut Vec<Message>) -> Result<(), BuildError> {
    match change {
        Change::AddTable => {
            let mut table = table()?;
            table.set_data(nft::NFTNL_TABLE_USERDATA, &comment(TABLE_COMMENT));
            out.push(Message::new(msg::NEW_TABLE, flag::CREATE, Body::Table(table)));
        }
        Change::DeleteTable => out.push(Message::new(msg::DEL_TABLE, 0, Body::Table(table()?))),
        Change::AddSet(set) => {
            *set_id += 1;
            out.push(Message::new(msg::NEW_SET, flag::CREATE, Body::Set(new_set(set, *set_id)?)));
        }
        Change::DeleteSet(name) => {
            out.push(Message::new(msg::DEL_SET, 0, Body::Set(named_set(name)?)));
        }
        // Removing elements without naming any removes them all.
        Change::FlushSet(name) => {
            out.push(Message::new(msg::DEL_ELEMENTS, 0, Body::Elements(named_set(name)?)));
        }
        Change::AddChain(chain) => {
            out.push(Message::new(msg::NEW_CHAIN, flag::CREATE, Body::Chain(new_chain(chain)?)));
        }
        Change::DeleteChain(name) => {
            out.push(Message::new(msg::DEL_CHAIN, 0, Body::Chain(named_chain(name)?)));
        }
        Change::FlushChain(name) => {
            out.push(Message::new(msg::DEL_RULE, 0, Body::Rule(rule_in(name)?)));
        }
        Change::AddRule { chain, rule } => {
            let flags = flag::CREATE | flag::APPEND;
            out.push(Message::new(msg::NEW_RULE, flags, Body::Rule(new_rule(chain, rule)?)));
        }
        Change::AddElements { set, elements } => add(set, elements, out)?,
        // Before Linux 6.12 adding an element that is there changes nothing, and removing one that
        // has just expired fails: add, remove and add again does on every kernel.
        Change::RenewElements { set, elements } => {
            add(set, elements, out)?;
            delete(set, elements, out)?;
            add(set, elements, out)?;
        }
        Change::DeleteElements { set, elements } => delete(set, elements, out)?,
        Change::Host(change) => out.push(super::host_chain::message(change)?),
    }
    Ok(())
}

/// A request body that names our table, for dumps.
///
/// # Errors
/// [`BuildError`] where libnftnl cannot.
pub fn rules_of_table() -> Result<Body, BuildError> {
    let mut rule = sys::Rule::new()?;
    rule.set_text(nft::NFTNL_RULE_TABLE, TABLE)?;
    Ok(Body::Rule(rule))
}

/// A request body that names a chain of any table, for dumps of its rules.
///
/// # Errors
/// [`BuildError`] where libnftnl cannot.
pub fn rules_of_chain(table: &str, chain: &str) -> Result<Body, BuildError> {
    let mut rule = sys::Rule::new()?;
    rule.set_text(nft::NFTNL_RULE_TABLE, table)?;
    rule.set_text(nft::NFTNL_RULE_CHAIN, chain)?;
    Ok(Body::Rule(rule))
}

/// A request body that names anybody's set, for a dump of its elements.
///
/// # Errors
/// [`BuildError`] where libnftnl cannot.
pub fn elements_of_host(table: &str, set: &str) -> Result<Body, BuildError> {
    let mut named = sys::Set::new()?;
    named.set_text(nft::NFTNL_SET_TABLE, table)?;
    named.set_text(nft::NFTNL_SET_NAME, set)?;
    Ok(Body::Elements(named))
}

/// A request body that names one element of anybody's set without ranges, to ask for it.
///
/// # Errors
/// [`BuildError`] where libnftnl cannot.
pub fn element_of_host(table: &str, set: &str, key: &[u8]) -> Result<Body, BuildError> {
    let mut named = sys::Set::new()?;
    named.set_text(nft::NFTNL_SET_TABLE, table)?;
    named.set_text(nft::NFTNL_SET_NAME, set)?;
    for half in halves(&SetRef::plain(set), key, &Element::default(), false)? {
        named.add(half);
    }
    Ok(Body::Elements(named))
}

/// A request body that names one of our sets, for dumps of it or its elements.
///
/// # Errors
/// [`BuildError`] where libnftnl cannot.
pub fn elements_of(set: &str) -> Result<Body, BuildError> {
    Ok(Body::Elements(named_set(set)?))
}

/// A request body that names our table's sets, for dumps.
///
/// # Errors
/// [`BuildError`] where libnftnl cannot.
pub fn sets_of_table() -> Result<Body, BuildError> {
    let mut set = sys::Set::new()?;
    set.set_text(nft::NFTNL_SET_TABLE, TABLE)?;
    Ok(Body::Set(set))
}

/// A request body that names one element, to ask for it.
///
/// # Errors
/// [`BuildError`] where libnftnl cannot.
pub fn one_element(set: &SetRef, key: &[u8]) -> Result<Body, BuildError> {
    let mut bundle = named_set(&set.name)?;
    for half in halves(set, key, &Element::default(), false)? {
        bundle.add(half);
    }
    Ok(Body::Elements(bundle))
}

fn table() -> Result<sys::Table, BuildError> {
    let mut table = sys::Table::new()?;
    table.set_u32(nft::NFTNL_TABLE_FAMILY, u32::from(FAMILY_INET));
    table.set_text(nft::NFTNL_TABLE_NAME, TABLE)?;
    Ok(table)
}

fn named_chain(name: &str) -> Result<sys::Chain, BuildError> {
    let mut chain = sys::Chain::new()?;
    chain.set_text(nft::NFTNL_CHAIN_TABLE, TABLE)?;
    chain.set_text(nft::NFTNL_CHAIN_NAME, name)?;
    Ok(chain)
}

fn new_chain(chain: &Chain) -> Result<sys::Chain, BuildError> {
    let mut out = named_chain(&chain.name)?;
    if let Some(BaseChain { kind, hook, priority, drops }) = chain.base {
        let kind = match kind {
            ChainType::Filter => "filter",
            ChainType::Nat => "nat",
        };
        let hook = match hook {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        };
        out.set_text(nft::NFTNL_CHAIN_TYPE, kind)?;
        out.set_u32(nft::NFTNL_CHAIN_HOOKNUM, hook);
        out.set_s32(nft::NFTNL_CHAIN_PRIO, priority);
        out.set_u32(nft::NFTNL_CHAIN_POLICY, if drops { POLICY_DROP } else { POLICY_ACCEPT });
    }
    Ok(out)
}

fn rule_in(chain: &str) -> Result<sys::Rule, BuildError> {
    let mut rule = sys::Rule::new()?;
    rule.set_text(nft::NFTNL_RULE_TABLE, TABLE)?;
    rule.set_text(nft::NFTNL_RULE_CHAIN, chain)?;
    Ok(rule)
}

fn new_rule(chain: &str, rule: &Rule) -> Result<sys::Rule, BuildError> {
    let mut out = rule_in(chain)?;
    if let Some(text) = &rule.comment {
        out.set_data(nft::NFTNL_RULE_USERDATA, &comment(text));
    }
    for expr in &rule.exprs {
        out.add(expression(expr)?);
    }
    Ok(out)
}

fn named_set(name: &str) -> Result<sys::Set, BuildError> {
    let mut set = sys::Set::new()?;
    set.set_text(nft::NFTNL_SET_TABLE, TABLE)?;
    set.set_text(nft::NFTNL_SET_NAME, name)?;
    Ok(set)
}

fn new_set(set: &Set, id: u32) -> Result<sys::Set, BuildError> {
    let mut out = named_set(&set.name)?;
    let concatenated = set.key.len() > 1;
    let flags = [
        (SET_INTERVAL, set.flags.interval),
        (SET_CONCAT, set.flags.interval && concatenated),
        (SET_MAP, set.value != Value::Nothing),
        (SET_TIMEOUT, set.flags.timeout),
        (SET_EVAL, set.flags.dynamic),
    ];
    let flags = flags.iter().filter(|(_, on)| *on).fold(0, |all, (bit, _)| all | bit);
    out.set_u32(nft::NFTNL_SET_ID, id);
    out.set_u32(nft::NFTNL_SET_FLAGS, flags);
    out.set_u32(nft::NFTNL_SET_KEY_TYPE, packed_type(&set.key));
    out.set_u32(nft::NFTNL_SET_KEY_LEN, len32(set.key_len()));
    match set.value {
        Value::Nothing => {}
        Value::Verdict => {
            out.set_u32(nft::NFTNL_SET_DATA_TYPE, DATA_VERDICT);
            out.set_u32(nft::NFTNL_SET_DATA_LEN, 0);
        }
        Value::Mark => {
            out.set_u32(nft::NFTNL_SET_DATA_TYPE, TYPE_MARK);
            out.set_u32(nft::NFTNL_SET_DATA_LEN, 4);
        }
    }
    if let Some(size) = set.size {
        out.set_u32(nft::NFTNL_SET_DESC_SIZE, size);
    }
    if set.flags.interval && concatenated {
        let lengths: Vec<u8> =
            set.key.iter().map(|part| u8::try_from(part.length()).unwrap_or(u8::MAX)).collect();
        out.set_data(nft::NFTNL_SET_DESC_CONCAT, &lengths);
    }
    out.set_data(nft::NFTNL_SET_USERDATA, &set_userdata(set));
    Ok(out)
}

/// nft stores here what it needs to print a set again.
fn set_userdata(set: &Set) -> Vec<u8> {
    let order = match set.key.as_slice() {
        [KeyPart::IfName | KeyPart::Mark] => HOST_ENDIAN,
        [_] => BIG_ENDIAN,
        _ => 0,
    };
    let mut out = tlv(UDATA_KEY_BYTEORDER, &order.to_ne_bytes());
    match set.value {
        Value::Nothing => {}
        // A verdict has none; nft asserts (1.0.6) if it is given one.
        Value::Verdict => out.extend(tlv(UDATA_DATA_BYTEORDER, &0_u32.to_ne_bytes())),
        Value::Mark => out.extend(tlv(UDATA_DATA_BYTEORDER, &HOST_ENDIAN.to_ne_bytes())),
    }
    if set.key.iter().any(|part| matches!(part, KeyPart::UdpLength | KeyPart::TcpAck)) {
        out.extend(super::type_of::of_key(&set.key));
    }
    if set.key.contains(&KeyPart::UdpLength) {
        out.extend(super::type_of::of_mark_values());
    }
    // It is also what tells our table from one that nft loaded (`wire::made_by_us`): in no version may it be left out.
    if set.flags.interval {
        out.extend(tlv(UDATA_MERGE_ELEMENTS, &0_u32.to_ne_bytes()));
    }
    out
}

fn packed_type(parts: &[KeyPart]) -> u32 {
    parts.iter().fold(0, |packed, part| {
        let number = match part {
            KeyPart::Ipv4 => 7,
            KeyPart::Ipv6 => 8,
            KeyPart::UdpLength | KeyPart::TcpAck => 4,
            KeyPart::Protocol => 12,
            KeyPart::Port => 13,
            KeyPart::Mark => TYPE_MARK,
            KeyPart::IfName => 41,
        };
        (packed << 6) | number
    })
}

fn add(set: &SetRef, elements: &Elements, out: &mut Vec<Message>) -> Result<(), BuildError> {
    in_messages(set, elements, true, msg::NEW_ELEMENTS, flag::CREATE, out)
}

fn delete(set: &SetRef, elements: &Elements, out: &mut Vec<Message>) -> Result<(), BuildError> {
    in_messages(set, elements, false, msg::DEL_ELEMENTS, 0, out)
}

fn in_messages(
    set: &SetRef,
    elements: &Elements,
    with_content: bool,
    kind: u16,
    flags: u16,
    out: &mut Vec<Message>,
) -> Result<(), BuildError> {
    let mut bundle = named_set(&set.name)?;
    let mut count = 0;
    for (key, element) in elements {
        if count == ELEMENTS_PER_MESSAGE {
            out.push(Message::new(kind, flags, Body::Elements(bundle)));
            bundle = named_set(&set.name)?;
            count = 0;
        }
        for half in halves(set, key, element, with_content)? {
            bundle.add(half);
        }
        count += 1;
    }
    if count > 0 {
        out.push(Message::new(kind, flags, Body::Elements(bundle)));
    }
    Ok(())
}

/// An element as the kernel wants it: a range of single-part keys takes two.
fn halves(
    set: &SetRef,
    key: &[u8],
    element: &Element,
    with_content: bool,
) -> Result<Vec<sys::Element>, BuildError> {
    let mut first = sys::Element::new()?;
    first.set_data(nft::NFTNL_SET_ELEM_KEY, key);
    if with_content {
        content(&mut first, element)?;
    }
    if !set.interval {
        return Ok(vec![first]);
    }
    let last = element.last.as_deref().unwrap_or(key);
    if set.concatenated {
        first.set_data(nft::NFTNL_SET_ELEM_KEY_END, last);
        return Ok(vec![first]);
    }
    let mut out = vec![first];
    // A range to the very end has no other half.
    if let Some(after) = after(last) {
        let mut end = sys::Element::new()?;
        end.set_data(nft::NFTNL_SET_ELEM_KEY, &after);
        end.set_u32(nft::NFTNL_SET_ELEM_FLAGS, ELEMENT_INTERVAL_END);
        out.push(end);
    }
    Ok(out)
}

fn content(out: &mut sys::Element, element: &Element) -> Result<(), BuildError> {
    if let Some(verdict) = &element.verdict {
        let (code, chain) = verdict_parts(verdict);
        out.set_u32(nft::NFTNL_SET_ELEM_VERDICT, code);
        if let Some(chain) = chain {
            out.set_text(nft::NFTNL_SET_ELEM_CHAIN, chain)?;
        }
    }
    if let Some(mark) = element.mark {
        out.set_data(nft::NFTNL_SET_ELEM_DATA, &mark.to_ne_bytes());
    }
    if let Some(timeout) = element.timeout {
        // Zero would mean for ever.
        out.set_u64(nft::NFTNL_SET_ELEM_TIMEOUT, timeout.total_ms.max(1));
        if timeout.left_ms != timeout.total_ms {
            out.set_u64(nft::NFTNL_SET_ELEM_EXPIRATION, timeout.left_ms.max(1));
        }
    }
    if let Some(text) = &element.comment {
        out.set_data(nft::NFTNL_SET_ELEM_USERDATA, &comment(text));
    }
    Ok(())
}

/// The verdict's number (`NF_*`, `NFT_*`) and the chain it leads to.
pub(super) fn verdict_parts(verdict: &Verdict) -> (u32, Option<&str>) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0_i32, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain.as_str())),
        Verdict::Goto(chain) => (-4, Some(chain.as_str())),
        Verdict::Return => (-5, None),
    };
    (code.cast_unsigned(), chain)
}

/// The key after this one; none after the last.
fn after(key: &[u8]) -> Option<Vec<u8>> {
    let mut out = key.to_vec();
    for byte in out.iter_mut().rev() {
        let (more, carry) = byte.overflowing_add(1);
        *byte = more;
        if !carry {
            return Some(out);
        }
    }
    None
}

pub(super) fn tlv(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    let mut out = vec![kind, length];
    out.extend(body.iter().take(usize::from(length)));
    out
}

/// nft keeps comments, at most 128 bytes long, as user data of kind 0.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut body: Vec<u8> = Vec::new();
    for c in text.chars() {
        if body.len() + c.len_utf8() > 127 {
            break;
        }
        body.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    body.push(0);
    tlv(0, &body)
}

fn len32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
