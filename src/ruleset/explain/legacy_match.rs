//! What a rule of iptables-legacy asks of a packet.

use super::legacy_marks::{CONNECTION_MARK, value_and_mask};
use crate::ruleset::audit::step::{Comparison, Source, Step};
use crate::ruleset::expr::ct_state;
use crate::units::{Family, Network, PortRange};

/// NFT_META_*
const MARK: u32 = 3;
const IIFNAME: u32 = 6;
const OIFNAME: u32 = 7;
const L4PROTO: u32 = 16;
/// Offsets in the headers of TCP and UDP.
const SOURCE_PORT: usize = 0;
const DESTINATION_PORT: usize = 2;
const TCP_FLAGS: usize = 13;

/// The steps that hold where all that is asked does; several where one port of several may.
pub(super) fn matches(words: &[String], family: Family) -> Vec<Vec<Step>> {
    let mut all = vec![Vec::new()];
    let mut words = words.iter().map(String::as_str).peekable();
    let mut inverted = false;
    let mut module = "";
    while let Some(word) = words.next() {
        if word == "!" {
            inverted = true;
            continue;
        }
        let mut values = Vec::new();
        while let Some(value) = words.next_if(|next| *next != "!" && !next.starts_with('-')) {
            values.push(value);
        }
        let value = values.first().copied().unwrap_or_default();
        if word == "-m" {
            module = value;
        }
        let several = several(word, value, inverted);
        if several.is_empty() {
            let found = one(module, word, &values, inverted, family);
            all.iter_mut().for_each(|steps| steps.extend(found.iter().cloned()));
        } else {
            let each = |steps: &Vec<Step>| {
                let steps = steps.clone();
                several
                    .clone()
                    .into_iter()
                    .map(move |more| [steps.clone(), more].concat())
                    .collect::<Vec<_>>()
            };
            all = all.iter().flat_map(each).collect();
        }
        inverted = false;
    }
    all
}

/// One of several ports.
fn several(word: &str, value: &str, inverted: bool) -> Vec<Vec<Step>> {
    let offset = match word {
        "--dports" => DESTINATION_PORT,
        "--sports" => SOURCE_PORT,
        _ => return Vec::new(),
    };
    let ports = value.split(',').map(|ports| port(offset, ports, inverted));
    // None of them is all of them inverted.
    if inverted { vec![ports.flatten().collect()] } else { ports.collect() }
}

fn one(module: &str, word: &str, values: &[&str], inverted: bool, family: Family) -> Vec<Step> {
    let value = values.first().copied().unwrap_or_default();
    let unknown = || vec![Step::Unknown(word.to_owned())];
    match (module, word) {
        (_, "-p") => protocol(value, inverted),
        (_, "-s") => address(value, false, inverted, family),
        (_, "-d") => address(value, true, inverted, family),
        (_, "-i") => interface(IIFNAME, value, inverted),
        (_, "-o") => interface(OIFNAME, value, inverted),
        (_, "-m") => match value {
            "tcp" | "udp" | "comment" | "conntrack" | "state" | "multiport" | "mark" | "connmark"
            | "addrtype" => Vec::new(),
            other => vec![Step::CompatMatch { name: other.to_owned(), revision: u32::MAX, info: Vec::new() }],
        },
        ("tcp" | "udp", "--dport") => port(DESTINATION_PORT, value, inverted),
        ("tcp" | "udp", "--sport") => port(SOURCE_PORT, value, inverted),
        ("tcp", "--tcp-flags") => {
            tcp_flags(value, values.get(1).copied().unwrap_or_default(), inverted).unwrap_or_else(unknown)
        }
        ("comment", "--comment") => Vec::new(),
        ("conntrack", "--ctstate") | ("state", "--state") => state(value, inverted).unwrap_or_else(unknown),
        ("mark", "--mark") => mark(Source::Meta(MARK), value, inverted).unwrap_or_else(unknown),
        ("connmark", "--mark") => mark(CONNECTION_MARK, value, inverted).unwrap_or_else(unknown),
        ("addrtype", "--dst-type") => kind(value, 2, inverted).unwrap_or_else(unknown),
        ("addrtype", "--src-type") => kind(value, 1, inverted).unwrap_or_else(unknown),
        ("tcp" | "udp" | "conntrack" | "state" | "multiport" | "mark" | "connmark" | "addrtype", _) => {
            unknown()
        }
        // Options of a match that is judged by its name.
        ("", _) => unknown(),
        _ => Vec::new(),
    }
}

fn equal(source: Source, data: Vec<u8>, inverted: bool) -> Vec<Step> {
    let how = if inverted { Comparison::Ne } else { Comparison::Eq };
    vec![Step::Load { source, to: 0, len: Some(data.len()) }, Step::Compare { at: 0, how, data }]
}

fn masked(source: Source, mask: Vec<u8>, data: Vec<u8>, inverted: bool) -> Vec<Step> {
    let how = if inverted { Comparison::Ne } else { Comparison::Eq };
    let len = mask.len();
    vec![
        Step::Load { source, to: 0, len: Some(len) },
        Step::Mask { from: 0, to: 0, mask, xor: vec![0; len] },
        Step::Compare { at: 0, how, data },
    ]
}

fn protocol(name: &str, inverted: bool) -> Vec<Step> {
    let number = match name {
        "all" => return Vec::new(),
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmp" => Some(1),
        "ipv6-icmp" => Some(58),
        other => other.parse::<u8>().ok(),
    };
    match number {
        Some(number) => equal(Source::Meta(L4PROTO), vec![number], inverted),
        // Of some other name, which is neither TCP nor UDP.
        None if inverted => Vec::new(),
        None => vec![Step::Never],
    }
}

fn interface(key: u32, name: &str, inverted: bool) -> Vec<Step> {
    let mut data = name.trim_end_matches('+').as_bytes().to_vec();
    if !name.ends_with('+') {
        data.resize(16, 0);
    }
    equal(Source::Meta(key), data, inverted)
}

fn address(network: &str, destination: bool, inverted: bool, family: Family) -> Vec<Step> {
    let Ok(network) = network.parse::<Network>() else { return vec![Step::Unknown(network.to_owned())] };
    let octets = |addr: std::net::IpAddr| match addr {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let (first, last) = (octets(network.first()), octets(network.last()));
    let mask = first.iter().zip(&last).map(|(first, last)| !(first ^ last)).collect();
    let offset = match (family, destination) {
        (Family::V4, false) => 12,
        (Family::V4, true) => 16,
        (Family::V6, false) => 8,
        (Family::V6, true) => 24,
    };
    masked(Source::Payload { base: 1, offset }, mask, first, inverted)
}

fn port(offset: usize, ports: &str, inverted: bool) -> Vec<Step> {
    let Ok(ports) = ports.replace(':', "-").parse::<PortRange>() else {
        return vec![Step::Unknown(ports.to_owned())];
    };
    let load = Step::Load { source: Source::Payload { base: 2, offset }, to: 0, len: Some(2) };
    let (first, last) = (ports.first().to_be_bytes().to_vec(), ports.last().to_be_bytes().to_vec());
    vec![load, Step::Range { at: 0, outside: inverted, first, last }]
}

fn tcp_flags(asked: &str, set: &str, inverted: bool) -> Option<Vec<Step>> {
    let bits = |names: &str| -> Option<u8> {
        let bit = |name: &str| {
            Some(match name {
                "FIN" => 1,
                "SYN" => 2,
                "RST" => 4,
                "PSH" => 8,
                "ACK" => 16,
                "URG" => 32,
                "ALL" => 63,
                "NONE" => 0,
                _ => return None,
            })
        };
        names.split(',').try_fold(0, |all, name| Some(all | bit(name)?))
    };
    let source = Source::Payload { base: 2, offset: TCP_FLAGS };
    Some(masked(source, vec![bits(asked)?], vec![bits(set)?], inverted))
}

fn state(names: &str, inverted: bool) -> Option<Vec<Step>> {
    let bit = |name: &str| {
        Some(match name {
            "INVALID" => ct_state::INVALID,
            "ESTABLISHED" => ct_state::ESTABLISHED,
            "RELATED" => ct_state::RELATED,
            "NEW" => ct_state::NEW,
            "UNTRACKED" => ct_state::UNTRACKED,
            _ => return None,
        })
    };
    let mask = names.split(',').try_fold(0_u32, |all, name| Some(all | bit(name)?))?;
    Some(masked(Source::Ct { key: 0, direction: None }, mask.to_ne_bytes().to_vec(), vec![0; 4], !inverted))
}

fn mark(source: Source, text: &str, inverted: bool) -> Option<Vec<Step>> {
    let (value, mask) = value_and_mask(text)?;
    Some(masked(source, mask.to_ne_bytes().to_vec(), value.to_ne_bytes().to_vec(), inverted))
}

/// `which` is 1 for the source, 2 for the destination.
fn kind(name: &str, which: u32, inverted: bool) -> Option<Vec<Step>> {
    // RTN_UNICAST and RTN_LOCAL
    let number: u32 = match name {
        "UNICAST" => 1,
        "LOCAL" => 2,
        _ => return None,
    };
    Some(equal(Source::Fib { result: 3, flags: which }, number.to_ne_bytes().to_vec(), inverted))
}
