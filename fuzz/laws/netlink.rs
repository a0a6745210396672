//! What the kernel says about our table: decoding, and that what is decoded would be written as it was read.

use crate::backend::nftables::encode::encode;
use crate::ruleset::diff::{Change, SetRef};
use crate::ruleset::expr::Expr;
use crate::ruleset::model::{Content, Elements, KeyPart, Set, SetFlags, TABLE, Value};
use crate::ruleset::wire::{self, Attributes};

use super::choices::Choices;
use crate::sys::nftnl::Scratch;

/// The payloads of the messages that changes become, without the headers.
fn payloads(changes: &[Change]) -> Option<Vec<Vec<u8>>> {
    let encoded = encode(changes).ok()?;
    let mut scratch = Scratch::default();
    Some(encoded.messages.iter().map(|message| message.to_bytes(&mut scratch).split_off(20)).collect())
}

/// The first byte says what the rest is: a chain, a rule, a set, or elements of a set of some shape.
///
/// What can be read is written and read again as the same.
pub fn netlink(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let what = choices.below(5);
    match what {
        0 => chain(choices.rest()),
        1 => rule(choices.rest()),
        2 => set(choices.rest()),
        3 => {
            let shape = shape(&mut choices);
            elements(&shape, choices.rest());
        }
        _ => {
            let payload = choices.rest();
            let _ = wire::table(payload);
            walk(Attributes(payload), 0);
        }
    }
}

/// Attributes lie within their bytes, whatever they say.
fn walk(attributes: Attributes<'_>, depth: usize) {
    let whole = attributes.0.len();
    let mut sum = 0;
    for (_, payload) in attributes {
        sum += payload.len() + 4;
        if depth < 4 {
            walk(Attributes(payload), depth + 1);
        }
    }
    assert!(sum <= whole, "{sum} bytes of {whole}");
}

fn table_of(payload: &[u8]) -> &str {
    Attributes(payload).text(1).unwrap_or(TABLE)
}

fn chain(payload: &[u8]) {
    let Some(chain) = wire::chain(payload, table_of(payload)) else { return };
    assert!(chain.rules.is_empty());
    let Some(written) = payloads(&[Change::AddChain(chain.clone())]) else { return };
    assert_eq!(wire::chain(&written[0], TABLE), Some(chain));
}

fn rule(payload: &[u8]) {
    let Some(found) = wire::rule(payload, table_of(payload)) else { return };
    let foreign = |expr: &Expr| matches!(expr, Expr::Foreign(_));
    if found.rule.exprs.iter().any(foreign) || found.rule.comment.as_ref().is_some_and(|c| c.len() > 127) {
        return;
    }
    let change = Change::AddRule { chain: found.chain.clone(), rule: found.rule.clone() };
    let Some(written) = payloads(&[change]) else { return };
    let again = wire::rule(&written[0], TABLE).expect("the rule that was written");
    assert_eq!((again.chain, again.rule), (found.chain, found.rule));
}

fn set(payload: &[u8]) {
    let _ = wire::set_name(payload, table_of(payload));
    let Some(set) = wire::set(payload, table_of(payload)) else { return };
    let Some(written) = payloads(&[Change::AddSet(set.clone())]) else { return };
    assert_eq!(wire::set(&written[0], TABLE), Some(set));
}

fn shape(choices: &mut Choices<'_>) -> Set {
    let (key, interval) = [
        (vec![KeyPart::Ipv4], false),
        (vec![KeyPart::Ipv6], false),
        (vec![KeyPart::Ipv4], true),
        (vec![KeyPart::Ipv6], true),
        (vec![KeyPart::Port], true),
        (vec![KeyPart::Protocol, KeyPart::Port], true),
        (vec![KeyPart::Mark, KeyPart::Protocol, KeyPart::Port], false),
    ][choices.below(7)]
    .clone();
    let value = [Value::Nothing, Value::Verdict, Value::Mark][choices.below(3)];
    let flags = SetFlags { interval, timeout: choices.flag(), dynamic: false };
    Set { name: "some_set".to_owned(), key, value, flags, size: None, content: Content::Living }
}

fn elements(shape: &Set, payload: &[u8]) {
    let mut raw = wire::elements(payload);
    let length = shape.key_len();
    let fits = |key: &[u8]| key.len() == length;
    raw.retain(|raw| fits(&raw.key) && raw.element.last.as_deref().is_none_or(fits));
    let comments = raw.iter().filter_map(|raw| raw.element.comment.as_ref());
    let long = comments.into_iter().any(|comment| comment.len() > 127 || comment.contains('\0'));
    // Somebody else's program may say nothing at all in many bytes; the kernel's own are told without a reason.
    let timeless = raw.iter().filter_map(|raw| raw.element.timeout).any(|timeout| timeout.left_ms == 0);
    // What an element is mapped to is one thing.
    let two_things = raw.iter().any(|raw| raw.element.verdict.is_some() && raw.element.mark.is_some());
    let listed = wire::pair_ranges(shape, raw);
    let whole = shape.flags.interval && shape.key.len() == 1;
    if whole {
        let mut last: Option<&Vec<u8>> = None;
        for (first, element) in &listed {
            assert!(last.is_none_or(|last| last < first), "ranges overlap");
            last = Some(element.last.as_ref().unwrap_or(first));
            assert!(last.is_some_and(|last| last >= first), "a range that ends before it begins");
        }
    }
    if long
        || timeless
        || two_things
        || !shape.flags.interval && listed.values().any(|element| element.last.is_some())
    {
        return;
    }
    let set = SetRef::from(shape);
    let change = Change::AddElements { set, elements: listed.clone() };
    let Some(written) = payloads(&[change]) else { return };
    let again: Elements =
        wire::pair_ranges(shape, written.iter().flat_map(|payload| wire::elements(payload)).collect());
    assert_eq!(again, listed);
}
