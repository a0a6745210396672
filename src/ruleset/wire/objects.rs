//! Chains, rules, sets and elements, as the kernel dumps them.

use super::attr::Attributes;
use super::expr::{expressions, verdict};
use crate::ruleset::expr::Expr;
use crate::ruleset::model::{
    BaseChain, Chain, ChainType, Content, Element, Elements, Hook, KeyPart, Rule, Set, SetFlags, Timeout,
    Value,
};

const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVAL: u32 = 0x20;
/// `NFT_SET_CONCAT`, which accompanies ranges of concatenations.
const SET_CONCAT: u32 = 0x80;
const ELEMENT_INTERVAL_END: u32 = 1;
const DATA_VERDICT: u32 = 0xffff_ff00;
/// nft's type of marks.
const TYPE_MARK: u32 = 19;
/// nft packs the types of a concatenation into one number, six bits each.
const TYPE_BITS: u32 = 6;

/// The name of a table, in a dump of tables, and its flags: none for one that works and belongs to nobody.
#[must_use]
pub fn table(payload: &[u8]) -> Option<(&str, u32)> {
    let table = Attributes(payload);
    Some((table.text(1)?, table.be32(2).unwrap_or(0)))
}

/// The number that the kernel gave a table when it was made.
#[must_use]
pub fn table_handle(payload: &[u8]) -> Option<u64> {
    Attributes(payload).be64(4)
}

/// A chain, without its rules; `None` for a chain of another table.
#[must_use]
pub fn chain(payload: &[u8], table: &str) -> Option<Chain> {
    let chain = Attributes(payload);
    if chain.text(1)? != table {
        return None;
    }
    let hook = chain.nested(4);
    let base = hook.be32(1).map(|number| BaseChain {
        kind: if chain.text(7) == Some("nat") { ChainType::Nat } else { ChainType::Filter },
        hook: match number {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            _ => Hook::Postrouting,
        },
        priority: hook.be32(2).unwrap_or(0).cast_signed(),
        drops: chain.be32(5) == Some(0),
    });
    Some(Chain { name: chain.text(3)?.to_owned(), base, rules: Vec::new() })
}

/// A rule with the chain it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedRule {
    /// The chain.
    pub chain: String,
    /// The number by which its table knows it.
    pub handle: u64,
    /// The rule.
    pub rule: Rule,
}

/// A rule; `None` for a rule of another table.
#[must_use]
pub fn rule(payload: &[u8], table: &str) -> Option<DecodedRule> {
    let rule = Attributes(payload);
    if rule.text(1)? != table {
        return None;
    }
    let exprs: Vec<Expr> = expressions(rule.nested(4));
    let comment = rule.get(7).and_then(comment).or_else(|| match_comment(rule.nested(4)));
    let handle = rule.be64(3).unwrap_or(0);
    Some(DecodedRule { chain: rule.text(2)?.to_owned(), handle, rule: Rule { comment, exprs } })
}

/// What nft keeps as a comment.
pub(super) fn comment(userdata: &[u8]) -> Option<String> {
    let body = user_data(userdata, 0)?;
    Some(String::from_utf8_lossy(body.strip_suffix(&[0]).unwrap_or(body)).into_owned())
}

/// nft's own user data: type (0 is a comment), length, bytes.
fn user_data(mut userdata: &[u8], wanted: u8) -> Option<&[u8]> {
    while let &[kind, length, ref rest @ ..] = userdata {
        let (body, rest) = rest.split_at_checked(usize::from(length))?;
        if kind == wanted {
            return Some(body);
        }
        userdata = rest;
    }
    None
}

/// A comment as iptables keeps it, in a match of that name: what it saves and restores has its comments there.
fn match_comment(exprs: Attributes<'_>) -> Option<String> {
    let mut all = exprs.map(|(_, expr)| Attributes(expr));
    let found =
        all.find(|expr| expr.text(1) == Some("match") && expr.nested(2).text(1) == Some("comment"))?;
    let text = found.nested(2).get(3)?.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The name of a set; `None` for a set of another table.
#[must_use]
pub fn set_name<'a>(payload: &'a [u8], table: &str) -> Option<&'a str> {
    let set = Attributes(payload);
    (set.text(1)? == table).then(|| set.text(2)).flatten()
}

/// Of a set of ranges, whether this program made it: it writes down that the ranges are not merged, which nft neither
/// prints nor writes when it loads what it has printed. `None` for other sets, and those of another table.
#[must_use]
pub fn made_by_us(payload: &[u8], table: &str) -> Option<bool> {
    const UDATA_MERGE_ELEMENTS: u8 = 2;
    let set = Attributes(payload);
    if set.text(1)? != table || set.be32(3)? & SET_INTERVAL == 0 {
        return None;
    }
    let userdata = set.get(13).unwrap_or_default();
    Some(user_data(userdata, UDATA_MERGE_ELEMENTS).is_some_and(|merges| merges.iter().all(|&byte| byte == 0)))
}

/// A set without its elements; `None` for a set of another table or of a kind this program never makes.
#[must_use]
pub fn set(payload: &[u8], table: &str) -> Option<Set> {
    let set = Attributes(payload);
    if set.text(1)? != table {
        return None;
    }
    let flags = set.be32(3).unwrap_or(0);
    let data = set.be32(6);
    if flags & !(SET_INTERVAL | SET_MAP | SET_TIMEOUT | SET_EVAL | SET_CONCAT) != 0 {
        return None;
    }
    Some(Set {
        name: set.text(2)?.to_owned(),
        key: key_parts(set.be32(4)?)?,
        value: match data {
            None => Value::Nothing,
            Some(DATA_VERDICT) => Value::Verdict,
            Some(TYPE_MARK) => Value::Mark,
            Some(_) => return None,
        },
        flags: SetFlags {
            interval: flags & SET_INTERVAL != 0,
            timeout: flags & SET_TIMEOUT != 0,
            dynamic: flags & SET_EVAL != 0,
        },
        size: set.nested(9).be32(1),
        content: Content::Living,
    })
}

fn key_parts(mut packed: u32) -> Option<Vec<KeyPart>> {
    let mut parts = Vec::new();
    while packed != 0 {
        parts.push(match packed & ((1 << TYPE_BITS) - 1) {
            7 => KeyPart::Ipv4,
            8 => KeyPart::Ipv6,
            4 => KeyPart::UdpLength,
            12 => KeyPart::Protocol,
            13 => KeyPart::Port,
            TYPE_MARK => KeyPart::Mark,
            41 => KeyPart::IfName,
            _ => return None,
        });
        packed >>= TYPE_BITS;
    }
    parts.reverse();
    // Numbers have no type of their own: beside an address it is one that TCP acknowledges.
    if parts.iter().any(|part| matches!(part, KeyPart::Ipv4 | KeyPart::Ipv6)) {
        let numbers = parts.iter_mut().filter(|part| **part == KeyPart::UdpLength);
        numbers.for_each(|part| *part = KeyPart::TcpAck);
    }
    (!parts.is_empty()).then_some(parts)
}

/// One element as it is stored; a range of single-part keys is two of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawElement {
    /// Its key.
    pub key: Vec<u8>,
    /// Whether it only says that a range ends before it.
    pub ends_range: bool,
    /// Everything else.
    pub element: Element,
}

/// The elements in one message of a dump.
#[must_use]
pub fn elements(payload: &[u8]) -> Vec<RawElement> {
    Attributes(payload).nested(3).filter_map(|(_, item)| element(Attributes(item))).collect()
}

fn element(item: Attributes<'_>) -> Option<RawElement> {
    let key = item.nested(1).get(1)?;
    let timeout = item
        .be64(4)
        .filter(|&ms| ms != 0)
        .map(|total_ms| Timeout { total_ms, left_ms: item.be64(5).unwrap_or(total_ms).min(total_ms) });
    Some(RawElement {
        key: key.to_vec(),
        ends_range: item.be32(3).is_some_and(|flags| flags & ELEMENT_INTERVAL_END != 0),
        element: Element {
            last: item.nested(10).get(1).filter(|&last| last != key).map(<[u8]>::to_vec),
            verdict: verdict(item.nested(2).nested(2)),
            mark: item.nested(2).get(1).and_then(|mark| Some(u32::from_ne_bytes(mark.try_into().ok()?))),
            timeout,
            comment: item.get(6).and_then(comment),
        },
    })
}

/// Puts the two halves of ranges together again; elements of other sets come through as they are.
#[must_use]
pub fn pair_ranges(set: &Set, mut raw: Vec<RawElement>) -> Elements {
    if !set.flags.interval || set.key.len() > 1 {
        return raw.into_iter().map(|raw| (raw.key, raw.element)).collect();
    }
    // At one key, the end of the range before it comes first.
    raw.sort_by(|a, b| a.key.cmp(&b.key).then(b.ends_range.cmp(&a.ends_range)));
    let mut out = Elements::new();
    let mut open: Option<(Vec<u8>, Element)> = None;
    for raw in raw {
        if let Some((first, mut element)) = open.take() {
            // The same key twice is no range, least of all one that goes round the end.
            element.last = (raw.key > first).then(|| before(&raw.key)).filter(|last| *last != first);
            out.insert(first, element);
        }
        if !raw.ends_range {
            open = Some((raw.key, raw.element));
        }
    }
    if let Some((first, mut element)) = open {
        let last = vec![0xff; first.len()];
        element.last = (last != first).then_some(last);
        out.insert(first, element);
    }
    out
}

/// The key before this one.
fn before(key: &[u8]) -> Vec<u8> {
    let mut out = key.to_vec();
    for byte in out.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval_set() -> Set {
        Set {
            name: "allow_all_4".into(),
            key: vec![KeyPart::Ipv4],
            value: Value::Nothing,
            flags: SetFlags { interval: true, timeout: true, dynamic: false },
            size: None,
            content: Content::Living,
        }
    }

    fn half(key: [u8; 4], ends_range: bool) -> RawElement {
        RawElement { key: key.to_vec(), ends_range, element: Element::default() }
    }

    #[test]
    fn halves_of_ranges_are_paired_whatever_their_order() {
        let raw = vec![
            half([224, 0, 0, 0], false),
            half([10, 0, 1, 0], false),
            half([10, 0, 1, 0], true),
            half([11, 0, 0, 0], true),
            half([10, 0, 0, 0], false),
            half([0, 0, 0, 0], true),
        ];
        let paired = pair_ranges(&interval_set(), raw);
        let got: Vec<_> = paired.iter().map(|(first, e)| (first.clone(), e.last.clone())).collect();
        assert_eq!(
            got,
            [
                (vec![10, 0, 0, 0], Some(vec![10, 0, 0, 255])),
                (vec![10, 0, 1, 0], Some(vec![10, 255, 255, 255])),
                (vec![224, 0, 0, 0], Some(vec![255, 255, 255, 255])),
            ]
        );
    }

    #[test]
    fn the_same_key_twice_is_no_range_and_does_not_go_round_the_end() {
        for key in [[0; 4], [10, 0, 0, 1]] {
            let twice = vec![half(key, false), half(key, false), half([10, 0, 0, 2], true)];
            let paired = pair_ranges(&interval_set(), twice);
            let last = if key == [0; 4] { Some(vec![10, 0, 0, 1]) } else { None };
            assert_eq!(paired.get(key.as_slice()).unwrap().last, last);
        }
    }

    #[test]
    fn a_single_address_is_no_range() {
        let paired =
            pair_ranges(&interval_set(), vec![half([10, 0, 0, 1], false), half([10, 0, 0, 2], true)]);
        assert_eq!(paired.get(&vec![10, 0, 0, 1]).unwrap().last, None);
    }

    #[test]
    fn packed_types_unpack_in_order() {
        assert_eq!(key_parts((7 << 6) | 13), Some(vec![KeyPart::Ipv4, KeyPart::Port]));
        assert_eq!(key_parts((12 << 6) | 13), Some(vec![KeyPart::Protocol, KeyPart::Port]));
        assert_eq!(key_parts(0), None);
        assert_eq!(key_parts(63), None);
    }

    #[test]
    fn comments_are_found_behind_other_user_data() {
        assert_eq!(comment(&[1, 2, 9, 9, 0, 3, b'h', b'i', 0]), Some("hi".into()));
        assert_eq!(comment(&[0, 200, b'h']), None);
        assert_eq!(comment(&[]), None);
    }
}
