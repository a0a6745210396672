//! Registers of the nf_tables machine whose bytes may be unknown, and what can be said about them.

use std::collections::BTreeSet;

use super::host::HostSet;
use super::packet::Byte;
use super::step::Comparison;

/// Sixteen registers of four bytes.
pub(super) const REGISTER_BYTES: usize = 64;

/// Ways to fill several registers at once that are told apart; beyond that their bytes stay unknown.
const MANY: usize = 200_000;

/// All registers.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    bytes: [Byte; REGISTER_BYTES],
    choices: Vec<Choice>,
    /// Where the packet's own destination has been loaded.
    destinations: Vec<usize>,
}

/// Unknown bytes that are one of these values.
#[derive(Clone, Debug)]
struct Choice {
    at: usize,
    len: usize,
    values: Vec<Vec<u8>>,
}

impl Choice {
    fn is_at(&self, at: usize, len: usize) -> bool {
        self.at < at + len && at < self.at + self.len
    }
}

impl Registers {
    pub(super) const UNKNOWN: Self =
        Self { bytes: [None; REGISTER_BYTES], choices: Vec::new(), destinations: Vec::new() };
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tri {
    /// Certainly not.
    No,
    /// It cannot be told.
    Maybe,
    /// Certainly.
    Yes,
}

impl Tri {
    pub(super) fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }

    pub(super) fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

pub(super) fn store(registers: &mut Registers, at: usize, bytes: &[Byte]) {
    // What does not fill a register leaves zeros behind it.
    let whole = bytes.len().next_multiple_of(4);
    let padded = bytes.iter().copied().chain(std::iter::repeat(Some(0))).take(whole);
    for (register, byte) in registers.bytes.iter_mut().skip(at).zip(padded) {
        *register = byte;
    }
    registers.choices.retain(|choice| !choice.is_at(at, whole));
    registers.destinations.retain(|loaded| !(at..at + whole).contains(loaded));
}

/// Remembers that the packet's own destination address has been loaded there.
pub(super) fn note_destination(registers: &mut Registers, at: usize) {
    registers.destinations.push(at);
}

pub(super) fn has_destination(registers: &Registers, at: usize) -> bool {
    registers.destinations.contains(&at)
}

/// Stores what is one of some values.
pub(super) fn store_one_of(registers: &mut Registers, at: usize, len: usize, values: Vec<Vec<u8>>) {
    store(registers, at, &vec![None; len]);
    registers.choices.push(Choice { at, len, values });
}

/// What may be in some places (first byte and length) at the same time; none: nobody knows.
pub(super) fn possible(registers: &Registers, places: &[(usize, usize)]) -> BTreeSet<Vec<Option<Vec<u8>>>> {
    let mut all = vec![registers.bytes];
    let asked = |choice: &&Choice| places.iter().any(|&(at, len)| choice.is_at(at, len));
    for choice in registers.choices.iter().filter(asked) {
        if all.len().saturating_mul(choice.values.len()) > MANY {
            continue;
        }
        let filled = |bytes: &[Byte; REGISTER_BYTES], value: &Vec<u8>| {
            let mut bytes = *bytes;
            for (register, byte) in bytes.iter_mut().skip(choice.at).zip(value) {
                *register = Some(*byte);
            }
            bytes
        };
        all = all.iter().flat_map(|bytes| choice.values.iter().map(|value| filled(bytes, value))).collect();
    }
    let read = |bytes: &[Byte], &(at, len): &(usize, usize)| bytes.get(at..at + len).and_then(all_known);
    all.iter().map(|bytes| places.iter().map(|place| read(bytes, place)).collect()).collect()
}

pub(super) fn fetch(registers: &Registers, at: usize, len: usize) -> &[Byte] {
    registers.bytes.get(at..at + len).unwrap_or_default()
}

pub(super) fn all_known(bytes: &[Byte]) -> Option<Vec<u8>> {
    bytes.iter().copied().collect::<Option<Vec<u8>>>().filter(|bytes| !bytes.is_empty())
}

pub(super) fn port_in(registers: &Registers, at: usize) -> Option<u16> {
    let bytes = all_known(fetch(registers, at, 2))?;
    bytes.try_into().ok().map(u16::from_be_bytes)
}

/// In a concatenation, each part has its own range; else the key as a whole is one number.
pub(super) fn in_range(set: &HostSet, key: &[Byte], first: &[u8], last: &[u8]) -> Tri {
    let whole = [set.key_len];
    let fields = if set.fields.is_empty() { whole.as_slice() } else { set.fields.as_slice() };
    let (mut at, mut found) = (0, Tri::Yes);
    for len in fields {
        let end = at + len;
        let (Some(key), Some(first), Some(last)) = (key.get(at..end), first.get(at..end), last.get(at..end))
        else {
            return Tri::Maybe;
        };
        found = found.min(compare(key, Comparison::Ge, first)).min(compare(key, Comparison::Le, last));
        at = end.next_multiple_of(4);
    }
    found
}

pub(super) fn compare(bytes: &[Byte], how: Comparison, data: &[u8]) -> Tri {
    use std::cmp::Ordering;
    if bytes.len() < data.len() {
        return Tri::Maybe;
    }
    // Up to the first unknown byte, the order is known.
    let mut order = Some(Ordering::Equal);
    let mut differs = false;
    for (byte, datum) in bytes.iter().zip(data) {
        match byte {
            Some(byte) if byte != datum => {
                differs = true;
                if order == Some(Ordering::Equal) {
                    order = Some(byte.cmp(datum));
                }
            }
            Some(_) => {}
            None if order == Some(Ordering::Equal) => order = None,
            None => {}
        }
    }
    match (how, order) {
        (Comparison::Eq, _) if differs => Tri::No,
        (Comparison::Ne, _) if differs => Tri::Yes,
        (_, None) => Tri::Maybe,
        (Comparison::Eq, Some(order)) => Tri::of(order.is_eq()),
        (Comparison::Ne, Some(order)) => Tri::of(order.is_ne()),
        (Comparison::Lt, Some(order)) => Tri::of(order.is_lt()),
        (Comparison::Le, Some(order)) => Tri::of(order.is_le()),
        (Comparison::Gt, Some(order)) => Tri::of(order.is_gt()),
        (Comparison::Ge, Some(order)) => Tri::of(order.is_ge()),
    }
}
