//! Matches at the beginning of what TCP carries, as programs for the kernel's packet filter (`-m bpf`) or, for
//! short texts, comparisons of `-m u32`.
//!
//! Both know the lengths of the IP and TCP headers of each packet, so that nothing but the beginning matches.
//! A packet with IPv6 extension headers does not match: what is not understood stays outside.

use std::fmt::Write;

use crate::units::Family;

/// `XT_BPF_MAX_NUM_INSTR` (`linux/netfilter/xt_bpf.h`).
const MAX_BPF: usize = 64;
/// `XT_U32_MAXSIZE` (`linux/netfilter/xt_u32.h`).
const MAX_U32: usize = 10;
/// Length of an IPv6 header.
const V6_HEADER: u32 = 40;

/// How the beginning of a packet is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// `-m bpf`: up to 110 bytes or so.
    Bpf,
    /// `-m u32`: up to 40 bytes.
    U32,
}

/// An instruction of the classic packet filter: code, jump if true, jump if false, operand.
type Instruction = (u16, u8, u8, u32);

const LOAD_WORD_AT_X: u16 = 0x40;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_BYTE_AT_X: u16 = 0x50;
const LOAD_BYTE: u16 = 0x30;
const LOAD_IP_HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
const SHIFT_RIGHT: u16 = 0x74;
const ADD_X: u16 = 0x0c;
const TO_X: u16 = 0x07;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const YES: u32 = 65_535;

/// That TCP's data begins with these bytes; none where the matcher cannot hold them.
pub(super) fn begins(matcher: Matcher, family: Family, bytes: &[u8]) -> Option<String> {
    match matcher {
        Matcher::Bpf => {
            let mut program = data_offset(family);
            let base = base(family);
            let pieces = pieces(bytes);
            for (index, (offset, load, value)) in pieces.iter().enumerate() {
                let after = 2 * (pieces.len() - index - 1) + 1;
                program.push((*load, 0, 0, base + offset));
                program.push((IF_EQUAL, 0, u8::try_from(after).ok()?, *value));
            }
            finished(program)
        }
        Matcher::U32 => {
            let windows = windows(bytes)?;
            let start = match family {
                Family::V4 => "0x0>>0x16&0x3c@0xc>>0x1a&0x3c@".to_owned(),
                Family::V6 => "0x34>>0x1a&0x3c@".to_owned(),
            };
            let base = base(family);
            let tests: Vec<String> = windows
                .iter()
                .map(|(offset, value)| format!("{start}0x{:x}=0x{value:x}", base + offset))
                .collect();
            (tests.len() <= MAX_U32).then(|| format!("-m u32 --u32 \"{}\"", tests.join("&&")))
        }
    }
}

/// That TCP carries data at all: otherwise there is no byte to load, which ends the program with a no.
pub(super) fn has_data(matcher: Matcher, family: Family) -> Option<String> {
    match matcher {
        Matcher::Bpf => {
            let mut program = data_offset(family);
            program.push((LOAD_BYTE_AT_X, 0, 0, base(family)));
            program.push((IF_GREATER_OR_EQUAL, 0, 1, 0));
            finished(program)
        }
        Matcher::U32 => None,
    }
}

/// An IPv4 packet with options.
pub(super) fn ip_options(matcher: Matcher) -> Option<String> {
    match matcher {
        Matcher::Bpf => {
            finished(vec![(LOAD_BYTE, 0, 0, 0), (AND, 0, 0, 0x0f), (IF_GREATER_OR_EQUAL, 0, 1, 6)])
        }
        Matcher::U32 => Some("-m u32 --u32 \"0x0>>0x18&0xf=0x6:0xf\"".to_owned()),
    }
}

/// Puts into X where TCP's data begins: for IPv4 from the start of the packet, for IPv6 from the start of the
/// TCP header, which must follow the IPv6 header at once.
fn data_offset(family: Family) -> Vec<Instruction> {
    match family {
        Family::V4 => vec![
            (LOAD_IP_HEADER_LENGTH, 0, 0, 0),
            (LOAD_BYTE_AT_X, 0, 0, 12),
            (AND, 0, 0, 0xf0),
            (SHIFT_RIGHT, 0, 0, 2),
            (ADD_X, 0, 0, 0),
            (TO_X, 0, 0, 0),
        ],
        Family::V6 => {
            vec![
                (LOAD_BYTE, 0, 0, V6_HEADER + 12),
                (AND, 0, 0, 0xf0),
                (SHIFT_RIGHT, 0, 0, 2),
                (TO_X, 0, 0, 0),
            ]
        }
    }
}

fn base(family: Family) -> u32 {
    match family {
        Family::V4 => 0,
        Family::V6 => V6_HEADER,
    }
}

/// Offset, load instruction and value of comparisons that cover the bytes.
fn pieces(bytes: &[u8]) -> Vec<(u32, u16, u32)> {
    let mut out = Vec::new();
    let mut offset = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        let (load, size) = match rest.len() {
            0 | 1 => (LOAD_BYTE_AT_X, 1),
            2 | 3 => (LOAD_HALF_AT_X, 2),
            _ => (LOAD_WORD_AT_X, 4),
        };
        let (piece, more) = rest.split_at(size);
        out.push((offset, load, number(piece)));
        offset += u32::try_from(size).unwrap_or(0);
        rest = more;
    }
    out
}

/// Offset and value of words that cover the bytes, the last one overlapping; none for less than a word.
fn windows(bytes: &[u8]) -> Option<Vec<(u32, u32)>> {
    let last = bytes.len().checked_sub(4)?;
    let mut offsets: Vec<usize> = (0..=last).step_by(4).collect();
    if offsets.last() != Some(&last) {
        offsets.push(last);
    }
    offsets
        .into_iter()
        .map(|offset| Some((u32::try_from(offset).ok()?, number(bytes.get(offset..offset + 4)?))))
        .collect()
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn finished(mut program: Vec<Instruction>) -> Option<String> {
    program.push((RETURN, 0, 0, YES));
    program.push((RETURN, 0, 0, 0));
    if program.len() > MAX_BPF {
        return None;
    }
    let mut text = program.len().to_string();
    for (code, if_true, if_false, operand) in program {
        let _ = write!(text, ",{code} {if_true} {if_false} {operand}");
    }
    Some(format!("-m bpf --bytecode \"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_fits_a_program_and_a_short_one_fits_u32() {
        let longest = format!("POST /{} ", "b".repeat(99));
        for family in Family::BOTH {
            let text = begins(Matcher::Bpf, family, longest.as_bytes()).unwrap();
            // iptables-restore reads parameters of up to 1,023 bytes.
            assert!(text.len() < 1023, "{}", text.len());
            assert_eq!(begins(Matcher::U32, family, longest.as_bytes()), None);
            assert!(begins(Matcher::U32, family, b"POST /a-path-of-thirty-two-bytes-at- ").is_some());
        }
    }

    #[test]
    fn every_byte_is_compared_once() {
        for length in 1..40_usize {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n).unwrap()).collect();
            let covered: Vec<u8> = pieces(&bytes)
                .into_iter()
                .flat_map(|(offset, load, value)| {
                    let size = match load {
                        LOAD_BYTE_AT_X => 1,
                        LOAD_HALF_AT_X => 2,
                        _ => 4,
                    };
                    assert_eq!(value.to_be_bytes()[4 - size], u8::try_from(offset).unwrap());
                    value.to_be_bytes()[4 - size..].to_vec()
                })
                .collect();
            assert_eq!(covered, bytes);
        }
        assert_eq!(windows(b"abcdef").unwrap(), [(0, 0x6162_6364), (2, 0x6364_6566)]);
    }
}
