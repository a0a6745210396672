//! Where a rule may send what comes to it: every address and port that its registers can have.

use std::net::IpAddr;

use super::machine::Place;
use super::packet::Packet;
use super::registers::{Registers, has_destination, possible};
use super::step::Step;
use crate::units::Family;

/// How a packet is sent elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Its connection is translated (`dnat`, `redirect`).
    Translated,
    /// It is given to a socket (`tproxy`).
    Diverted,
    /// Its header is written, without any connection.
    Written,
}

/// What an address or a port becomes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<T> {
    /// It stays as it is.
    Kept,
    /// One between these, both included.
    Within(T, T),
    /// One that cannot be told beforehand.
    Any,
    /// One of this host's.
    Ours,
}

/// Where something is sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The address.
    pub addr: Value<IpAddr>,
    /// The port.
    pub port: Value<u16>,
}

/// A rule that may send a packet elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// How.
    pub way: Way,
    /// To one of these.
    pub targets: Vec<Target>,
    /// By which rule.
    pub place: Place,
}

/// Where a step sends a packet, if it does.
#[must_use]
pub(super) fn of_step(step: &Step, registers: &Registers, packet: &Packet) -> Option<(Way, Vec<Target>)> {
    let len = address_len(packet.family);
    match step {
        Step::Dnat { addr: Some(_), v6, .. } if *v6 != (packet.family == Family::V6) => None,
        Step::Dnat { addr, last_addr, port, last_port, .. } => {
            let places = [(*addr, len), (*last_addr, len), (*port, 2), (*last_port, 2)];
            Some((Way::Translated, targets(registers, places, &Value::Kept)))
        }
        Step::Redirect { port, last_port } => {
            let places = [(None, len), (None, len), (*port, 2), (*last_port, 2)];
            Some((Way::Translated, targets(registers, places, &Value::Ours)))
        }
        Step::Tproxy { addr, port } => {
            let places = [(*addr, len), (None, len), (*port, 2), (None, 2)];
            Some((Way::Diverted, targets(registers, places, &Value::Ours)))
        }
        Step::Write { base, offset, len, from } => {
            let found =
                written(registers, packet, Written { base: *base, offset: *offset, len: *len, from: *from });
            found.map(|targets| (Way::Written, targets))
        }
        Step::CompatTarget { name, info, .. } => {
            of_target(name, info, packet.family).map(|(way, target)| (way, vec![target]))
        }
        _ => None,
    }
}

fn address_len(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

/// The first and last address, the first and last port: a register each, where there is one, and its length.
fn targets(
    registers: &Registers,
    places: [(Option<usize>, usize); 4],
    no_addr: &Value<IpAddr>,
) -> Vec<Target> {
    let asked: Vec<(usize, usize)> = places.iter().filter_map(|&(at, len)| Some((at?, len))).collect();
    let [(addr_at, _), ..] = places;
    let unchanged = addr_at.is_some_and(|at| has_destination(registers, at));
    let mut out: Vec<Target> = possible(registers, &asked)
        .into_iter()
        .map(|values| {
            let mut values = values.into_iter();
            let mut next = |(at, _): (Option<usize>, usize)| at.map(|_| values.next().flatten());
            let [addr, last_addr, port, last_port] = places.map(&mut next);
            Target {
                addr: match unchanged {
                    true => Value::Kept,
                    false => within(addr, last_addr, address).unwrap_or_else(|| no_addr.clone()),
                },
                port: within(port, last_port, port_of).unwrap_or(Value::Kept),
            }
        })
        .collect();
    out.dedup();
    out
}

/// None where there is no register; none in it: nobody knows what it has.
fn within<T: Clone>(
    first: Option<Option<Vec<u8>>>,
    last: Option<Option<Vec<u8>>>,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Option<Value<T>> {
    let first = first?.and_then(|bytes| read(&bytes));
    let last = match last {
        Some(last) => last.and_then(|bytes| read(&bytes)),
        None => first.clone(),
    };
    Some(first.zip(last).map_or(Value::Any, |(first, last)| Value::Within(first, last)))
}

fn port_of(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk::<2>().map(|&bytes| u16::from_be_bytes(bytes))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v6 = bytes.first_chunk::<16>().map(|&bytes| IpAddr::from(bytes));
    v6.or_else(|| bytes.first_chunk::<4>().map(|&bytes| IpAddr::from(bytes)))
}

/// Bytes of a packet that are written: as in [`Step::Write`].
#[derive(Clone, Copy)]
struct Written {
    base: u32,
    offset: usize,
    len: usize,
    from: usize,
}

/// The new destination, where the bytes that are written have something of it.
fn written(registers: &Registers, packet: &Packet, bytes: Written) -> Option<Vec<Target>> {
    const ETHERNET: usize = 14;
    let header = packet.network.len();
    // Counted from the IP header, as a rule may reach the ports by any of the headers.
    let start = match bytes.base {
        0 => bytes.offset.checked_sub(ETHERNET)?,
        1 => bytes.offset,
        2 => header + bytes.offset,
        _ => return None,
    };
    let (port_at, addr_len) = (header + 2, address_len(packet.family));
    let addr_at = header - addr_len;
    let touches = |at: usize, len: usize| start < at + len && at < start + bytes.len;
    // A part of a field is not read.
    let register = |at: usize, len: usize| {
        let whole = start <= at && at + len <= start + bytes.len;
        whole.then(|| bytes.from + at - start)
    };
    if !touches(port_at, 2) && !touches(addr_at, addr_len) {
        return None;
    }
    let (addr, port) = (register(addr_at, addr_len), register(port_at, 2));
    let mut out = targets(registers, [(addr, addr_len), (None, 0), (port, 2), (None, 0)], &Value::Kept);
    for target in &mut out {
        if touches(addr_at, addr_len) && addr.is_none() {
            target.addr = Value::Any;
        }
        if touches(port_at, 2) && port.is_none() {
            target.port = Value::Any;
        }
    }
    Some(out)
}

/// The targets of iptables that send packets elsewhere, by the kernel's own structures.
fn of_target(name: &str, info: &[u8], family: Family) -> Option<(Way, Target)> {
    match name {
        "DNAT" | "NETMAP" => Some((Way::Translated, in_range(info, family, Value::Kept)?)),
        "REDIRECT" => {
            let Target { port, .. } = in_range(info, family, Value::Ours)?;
            Some((Way::Translated, Target { addr: Value::Ours, port }))
        }
        "TPROXY" => Some((Way::Diverted, proxied(info)?)),
        _ => None,
    }
}

/// `struct nf_nat_range`, `nf_nat_range2`, or the shorter `nf_nat_ipv4_multi_range_compat`.
fn in_range(info: &[u8], family: Family, no_addr: Value<IpAddr>) -> Option<Target> {
    const LONG: usize = 40;
    const MAP_IPS: u32 = 1;
    const PROTO_SPECIFIED: u32 = 2;
    const PREFIX: u32 = 64;
    let (flags, first, last, addr_len, first_port) =
        if info.len() >= LONG { (0, 4, 20, 16, 36) } else { (4, 8, 12, 4, 16) };
    let flags = info.get(flags..flags + 4)?.first_chunk::<4>().map(|&bytes| u32::from_ne_bytes(bytes))?;
    // IPv4 addresses are at the beginning of the longer field.
    let addr_len = address_len(family).min(addr_len);
    let addr = |at: usize| info.get(at..at + addr_len).and_then(address);
    let port = |at: usize| info.get(at..at + 2).and_then(port_of);
    Some(Target {
        addr: match flags & (MAP_IPS | PREFIX) {
            0 => no_addr,
            _ => Value::Within(addr(first)?, addr(last)?),
        },
        port: match flags & PROTO_SPECIFIED {
            0 => Value::Kept,
            _ => Value::Within(port(first_port)?, port(first_port + 2)?),
        },
    })
}

/// `struct xt_tproxy_target_info` and its revision 1: 0 stands for what stays.
fn proxied(info: &[u8]) -> Option<Target> {
    const ADDR: usize = 8;
    let addr_len = if info.len() >= ADDR + 16 + 2 { 16 } else { 4 };
    let port = info.get(ADDR + addr_len..ADDR + addr_len + 2).and_then(port_of)?;
    let port = if port == 0 { Value::Kept } else { Value::Within(port, port) };
    Some(Target { addr: Value::Ours, port })
}
