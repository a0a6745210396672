//! Which sets really contain an address.

use std::net::IpAddr;

use crate::ruleset::audit::host::{Host, HostElement, HostFamily, HostSet, TableRef};
use crate::ruleset::audit::machine::Found;
use crate::ruleset::audit::packet::Packet;
use crate::ruleset::model::{ONCE_SETS, TABLE, TRIED_SETS};
use crate::units::{ClientAddr, Family, Protocol};

/// A set or map of somebody's that has the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// `set` or `map`.
    pub kind: &'static str,
    /// Its name; none: it has none, and is written into the rule.
    pub name: Option<String>,
    /// The element as nft writes it; none: it is a range, or of other parts than can be told.
    pub element: Option<String>,
}

/// Our own table.
#[must_use]
pub fn our_table() -> TableRef {
    TableRef { family: HostFamily::Inet, table: TABLE.to_owned() }
}

/// The set of ours with that name.
#[must_use]
pub fn our_set<'h>(host: &'h Host, name: &str) -> Option<&'h HostSet> {
    host.sets.get(&(our_table(), name.to_owned()))
}

/// Whether a set of ours has an address.
#[must_use]
pub fn is_in_ours(host: &Host, name: &str, addr: IpAddr) -> bool {
    our_set(host, name).and_then(|set| element_of(set, addr)).is_some()
}

/// The set in which a rule found an element, if that is about an address; `packet` has what the other parts of it may say.
#[must_use]
pub fn is_about(
    host: &Host,
    table: &TableRef,
    found: &Found,
    addr: IpAddr,
    packet: &Packet,
) -> Option<Membership> {
    let set = host.sets.get(&(table.clone(), found.set.clone()))?;
    let HostElement { first, last, data, verdict } = &found.element;
    let first = first.as_ref()?;
    let last = last.as_ref().unwrap_or(first);
    let own = octets(addr);
    let (mut at, mut has_it, mut words) = (0_usize, false, Vec::new());
    for len in lengths(set, first, &own) {
        let (low, high) = (first.get(at..at + len)?, last.get(at..at + len)?);
        let is_addr = own.len() == len && low <= own.as_slice() && own.as_slice() <= high;
        has_it |= is_addr;
        words.push(if is_addr { (low == high).then(|| addr.to_string()) } else { word(low, high, packet) });
        at += len.next_multiple_of(4);
    }
    let is_map = verdict.is_some() || !data.is_empty();
    has_it.then(|| Membership {
        kind: if is_map { "map" } else { "set" },
        // The kernel's own names.
        name: (!found.set.starts_with("__")).then(|| found.set.clone()),
        element: words.into_iter().collect::<Option<Vec<String>>>().map(|words| words.join(" . ")),
    })
}

/// The length of each part of a key. Of sets without ranges the kernel tells the whole alone, whose parts fill whole registers.
fn lengths(set: &HostSet, key: &[u8], own: &[u8]) -> Vec<usize> {
    if !set.fields.is_empty() || set.key_len <= own.len() {
        return if set.fields.is_empty() { vec![set.key_len] } else { set.fields.clone() };
    }
    let (mut out, mut rest) = (Vec::new(), key);
    while !rest.is_empty() {
        let len = if rest.starts_with(own) { own.len() } else { 4 };
        out.push(len);
        rest = rest.get(len..).unwrap_or_default();
    }
    out
}

/// A part of a key that is a port or the protocol of the packet, as nft writes it.
fn word(low: &[u8], high: &[u8], packet: &Packet) -> Option<String> {
    match *low {
        _ if low != high => None,
        [high, low] | [high, low, 0, 0]
            if [true, false].iter().any(|to| packet.port(*to) == Some(u16::from_be_bytes([high, low]))) =>
        {
            Some(u16::from_be_bytes([high, low]).to_string())
        }
        [number] | [number, 0, 0, 0] if number == packet.protocol.number() => {
            Some(packet.protocol.to_string())
        }
        _ => None,
    }
}

/// The addresses in a set of ours, a few of them.
#[must_use]
pub fn some_of(host: &Host, name: &str, most: usize) -> Vec<IpAddr> {
    let elements = our_set(host, name).and_then(|set| set.elements.as_deref()).unwrap_or_default();
    elements.iter().filter_map(|element| address(element.first.as_deref()?)).take(most).collect()
}

/// The value of an address in a map of ours.
#[must_use]
pub fn value_of<'h>(host: &'h Host, name: &str, addr: IpAddr) -> Option<&'h [u8]> {
    Some(&element_of(our_set(host, name)?, addr)?.data)
}

/// As if a first packet had passed: the sets of connections of an app that says `once` have those of this client's port,
/// which the packet itself puts there.
pub fn begin_once(host: &mut Host, slug: &str, addr: IpAddr, port: u16) {
    let set = format!("{ONCE_SETS}{slug}_{}", Family::of(addr).digit());
    let Some(elements) = host.sets.get_mut(&(our_table(), set)).and_then(|set| set.elements.as_mut()) else {
        return;
    };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut key = begins_end(protocol, addr);
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
        elements.push(HostElement { first: Some(key), ..HostElement::default() });
    }
    elements.sort_by(|a, b| a.first.cmp(&b.first));
}

/// Whether what an address began at an app that says `once` may go on.
#[must_use]
pub fn goes_on_once(host: &Host, slug: &str, addr: IpAddr) -> bool {
    let set = format!("{ONCE_SETS}{slug}_{}", Family::of(addr).digit());
    let mut elements = our_set(host, &set).and_then(|set| set.elements.as_deref()).unwrap_or_default().iter();
    let begins = [Protocol::Tcp, Protocol::Udp].map(|protocol| begins_end(protocol, addr));
    elements
        .any(|element| element.first.as_ref().is_some_and(|key| begins.iter().any(|b| key.starts_with(b))))
}

/// How many connections are begun in the name of an address at an app that says `once`, and not completed.
#[must_use]
pub fn begun_once(host: &Host, slug: &str, addr: IpAddr) -> usize {
    let set = format!("{TRIED_SETS}{slug}_{}", Family::of(addr).digit());
    let elements = our_set(host, &set).and_then(|set| set.elements.as_deref()).unwrap_or_default();
    let begins = begins_end(Protocol::Tcp, addr);
    let theirs = |element: &&HostElement| element.first.as_ref().is_some_and(|key| key.starts_with(&begins));
    elements.iter().filter(theirs).count()
}

/// How the keys begin of a client's ends of connections; each part fills whole registers.
fn begins_end(protocol: Protocol, addr: IpAddr) -> Vec<u8> {
    [vec![protocol.number(), 0, 0, 0], octets(addr)].concat()
}

/// What of an IPv6 address a grant covers.
#[must_use]
pub fn covered(addr: IpAddr, ipv6_prefix: u8) -> IpAddr {
    match Family::of(addr) {
        Family::V4 => addr,
        Family::V6 => ClientAddr::new(addr).masked_v6(ipv6_prefix).ip(),
    }
}

fn element_of(set: &HostSet, addr: IpAddr) -> Option<&HostElement> {
    let key = octets(addr);
    if set.key_len != key.len() || !set.fields.is_empty() {
        return None;
    }
    set.elements.as_ref()?.iter().find(|element| match (&element.first, &element.last) {
        (Some(first), None) => *first == key,
        (Some(first), Some(last)) => *first <= key && key <= *last,
        (None, _) => false,
    })
}

fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_begun_in_a_client_s_name_is_counted_and_nobody_else_s() {
        let end = |last, port| HostElement {
            first: Some(vec![6, 0, 0, 0, 192, 0, 2, last, 0, port, 0, 0]),
            ..HostElement::default()
        };
        let elements = Some(vec![end(1, 7), end(1, 8), end(2, 7)]);
        let mut host = Host::default();
        let set = HostSet { key_len: 12, elements, ..HostSet::default() };
        host.sets.insert((our_table(), "tried_ssh_4".to_owned()), set);
        let begun = |slug, addr: &str| begun_once(&host, slug, addr.parse().unwrap());
        assert_eq!((begun("ssh", "192.0.2.1"), begun("ssh", "192.0.2.2")), (2, 1));
        assert_eq!((begun("ssh", "192.0.2.3"), begun("web", "192.0.2.1"), begun("ssh", "::1")), (0, 0, 0));
    }
}
