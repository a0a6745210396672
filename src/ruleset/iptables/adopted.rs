//! Flows that were there before the guard. No ipset holds both ends of a connection with both ports, so two do:
//! one has the client's port, the other the server's, and a packet has to be in both.
//!
//! Nothing begins here: a packet with SYN never passes, and what passes renews its own flow only.

use std::fmt::Write;
use std::net::SocketAddr;

use super::gate::{SPOKEN, SPOKEN_SECS, TALKED, TALKED_SECS, remembering};
use super::model::{Chain, IpSet, SetContent};
use super::names;
use super::phrase::{Phrase, Side, rule};
use super::plan::{Draft, Keeping};
use super::save::ListedSet;
use crate::ruleset::lockout::{ends_of, flow_key};
use crate::ruleset::model::{ADOPTED_SET, Element, Elements, KeyPart, Set, SetFlags, Timeout, Value};
use crate::units::{Family, Protocol};

/// By the client's address and port, and the server's address.
const FROM: &str = "flow_from";
/// By the client's address, and the server's port and address.
const TO: &str = "flow_to";
/// How long a silent TCP connection is remembered: nearly all that an ipset can count.
const TCP_SECS: u32 = SPOKEN_SECS;
const UDP_SECS: u32 = 180;
/// How long a TCP connection is after one side has closed it.
const CLOSING_SECS: u32 = 300;
const ROOM: u32 = 65_536;

const IN: &str = "adopted_in";
const OUT: &str = "adopted_out";
/// With the mark, for hosts that drop by default.
const IN_MARK: &str = "adopted_mark";

/// Both sets of a family, by what the model calls them.
fn meanings(family: Family) -> [String; 2] {
    [FROM, TO].map(|stem| format!("{stem}_{}", family.digit()))
}

fn dimensions(side: Side) -> [&'static str; 2] {
    match side {
        Side::Source => ["src,src,dst", "src,dst,dst"],
        Side::Destination => ["dst,dst,src", "dst,src,src"],
    }
}

/// The sets of a family.
pub(super) fn sets(family: Family) -> Vec<IpSet> {
    let inet = if family == Family::V4 { "inet" } else { "inet6" };
    let kind = format!("hash:ip,port,ip family {inet} maxelem {ROOM} timeout {UDP_SECS}");
    let set = |meaning: String| IpSet {
        name: names::set(&meaning),
        meaning,
        kind: kind.clone(),
        content: SetContent::Flows,
    };
    meanings(family).map(set).into()
}

/// Whether a plan lets flows of before live on.
#[must_use]
pub fn is_planned(sets: &[IpSet]) -> bool {
    sets.iter().any(|set| set.content == SetContent::Flows)
}

fn known(text: Phrase, family: Family, side: Side) -> Phrase {
    let pairs = meanings(family).into_iter().zip(dimensions(side));
    pairs.fold(text, |text, (set, dimensions)| {
        text.with(format!("-m set --match-set {} {dimensions}", names::set(&set)))
    })
}

/// A packet of a protocol that may belong to such a flow.
fn later(text: Phrase, protocol: Protocol) -> Phrase {
    match protocol {
        Protocol::Tcp => text.no_syn(),
        Protocol::Udp => text.protocol(protocol),
    }
}

/// The rule of a chain of a guarded port that lets flows of before pass; none where they cannot be kept.
pub(super) fn pass(draft: &Draft<'_>, family: Family, protocol: Protocol, way: Way) -> Option<String> {
    let (side, stem) = match way {
        Way::Gate => (Side::Source, IN),
        Way::Marked => (Side::Source, IN_MARK),
        Way::Back => (Side::Destination, OUT),
    };
    (draft.keeping == Keeping::Ipset)
        .then(|| known(later(rule(), protocol), family, side).goto(stem, "adopted"))
}

/// Where a packet of such a flow is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As it comes in.
    Gate,
    /// Where it gets our mark.
    Marked,
    /// As the service sends it.
    Back,
}

/// The rules that send those packets of such flows to a chain which connection tracking has the wrong way round.
pub(super) fn turned(
    draft: &Draft<'_>,
    begin: &Phrase,
    family: Family,
    side: Side,
    stem: &str,
    what: &str,
) -> Vec<String> {
    if draft.keeping != Keeping::Ipset {
        return Vec::new();
    }
    let each = [Protocol::Tcp, Protocol::Udp].into_iter();
    each.map(|protocol| known(begin.clone().protocol(protocol), family, side).goto(stem, what)).collect()
}

/// The same for a LAN host, whose protocol and port the text asks already.
pub(super) fn turned_to_lan(draft: &Draft<'_>, text: Phrase, family: Family, stem: &str) -> Option<String> {
    (draft.keeping == Keeping::Ipset).then(|| known(text, family, Side::Source).goto(stem, "adopted:turned"))
}

/// The chains for what belongs to such flows.
pub(super) fn chains(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    if draft.keeping != Keeping::Ipset {
        return Vec::new();
    }
    let mut arriving = seen(family, Side::Source);
    // So that the service cannot take it up again by itself when it is forgotten, and its answers are judged.
    arriving.extend(remembering(SPOKEN, family, Protocol::Udp, SPOKEN_SECS));
    arriving.extend(remembering(TALKED, family, Protocol::Tcp, TALKED_SECS));
    let marked = vec![rule().jump(IN, "adopted"), rule().goto("mark", "adopted")];
    vec![
        Chain::new(IN, arriving),
        Chain::new(OUT, seen(family, Side::Destination)),
        Chain::new(IN_MARK, marked),
    ]
}

/// Data renews; the end of a connection shortens. The last acknowledgements do neither.
fn seen(family: Family, side: Side) -> Vec<String> {
    let [from, to] = meanings(family).map(|set| names::set(&set));
    let [by_client, by_server] = dimensions(side);
    let renew = |text: Phrase, set: &str, dimensions: &str, secs: u32, what: &str| {
        text.target(&format!("-j SET --add-set {set} {dimensions} --exist --timeout {secs}"), what)
    };
    let flags = |text: &str| rule().protocol(Protocol::Tcp).with(format!("-m tcp {text}"));
    let ends = || flags("! --tcp-flags FIN,RST NONE");
    let data = || flags("--tcp-flags FIN,RST,PSH PSH");
    let udp = || rule().protocol(Protocol::Udp);
    vec![
        // The other set may have the same server's port for a connection that goes on.
        renew(ends(), &from, by_client, CLOSING_SECS, "adopted:closing"),
        renew(data(), &from, by_client, TCP_SECS, "adopted:tcp"),
        renew(data(), &to, by_server, TCP_SECS, "adopted:tcp"),
        renew(udp(), &from, by_client, UDP_SECS, "adopted:udp"),
        renew(udp(), &to, by_server, UDP_SECS, "adopted:udp"),
    ]
}

/// Whether the model's set of flows is meant, which two ipsets make.
pub(super) fn is_meant(set: &str) -> bool {
    set.strip_prefix(ADOPTED_SET).is_some_and(|rest| ["_4", "_6"].contains(&rest))
}

fn sets_of(set: &str) -> [String; 2] {
    let family = if set.ends_with('4') { Family::V4 } else { Family::V6 };
    meanings(family).map(|set| names::set(&set))
}

/// What empties both.
pub(super) fn flush(set: &str) -> String {
    sets_of(set).iter().map(|name| format!("flush {name}\n")).collect()
}

/// What adds a flow.
pub(super) fn add(set: &str, key: &[u8], element: &Element) -> String {
    let left = element.timeout.map_or(u64::from(UDP_SECS), |timeout| timeout.left_ms / 1_000);
    let left = left.min(u64::from(TCP_SECS));
    let mut out = String::new();
    if left > 0
        && let Some(keys) = keys(key)
    {
        for (name, key) in sets_of(set).iter().zip(keys) {
            let _ = writeln!(out, "add {name} {key} timeout {left}");
        }
    }
    out
}

/// What removes a flow: another one may share its entry in the second set, which alone lets nothing pass.
pub(super) fn delete(set: &str, key: &[u8]) -> String {
    let [from, _] = sets_of(set);
    keys(key).map(|[key, _]| format!("del {from} {key}\n")).unwrap_or_default()
}

fn keys(key: &[u8]) -> Option<[String; 2]> {
    let (number, client, server) = ends_of(key)?;
    let protocol = protocol(number)?.name();
    let (from, to) = (client.ip(), server.ip());
    Some([client.port(), server.port()].map(|port| format!("{from},{protocol}:{port},{to}")))
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.number() == number)
}

/// An element of either set.
struct Half {
    protocol: Protocol,
    client: std::net::IpAddr,
    port: u16,
    server: std::net::IpAddr,
    left_secs: Option<u64>,
}

fn halves(set: &ListedSet) -> Vec<Half> {
    let half = |key: &str, left_secs| {
        let mut parts = key.split(',');
        let client = parts.next()?.parse().ok()?;
        let (name, port) = parts.next()?.split_once(':')?;
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|each| each.name() == name)?;
        Some(Half {
            protocol,
            client,
            port: port.parse().ok()?,
            server: parts.next()?.parse().ok()?,
            left_secs,
        })
    };
    set.elements.iter().filter_map(|listed| half(&listed.key, listed.left_secs)).collect()
}

/// The flows that two listed sets let pass, as the model has them.
pub(super) fn listed(from: &ListedSet, to: &ListedSet) -> Elements {
    let mut out = Elements::new();
    let servers = halves(to);
    for half in halves(from) {
        let same = |other: &&Half| {
            (other.protocol, other.client, other.server) == (half.protocol, half.client, half.server)
        };
        for server in servers.iter().filter(same) {
            let left = half.left_secs.zip(server.left_secs).map(|(one, other)| one.min(other));
            let timeout = left.map(|secs| Timeout { total_ms: secs * 1_000, left_ms: secs * 1_000 });
            let (client, there) =
                (SocketAddr::new(half.client, half.port), SocketAddr::new(half.server, server.port));
            out.insert(flow_key(half.protocol, client, there), Element { timeout, ..Element::default() });
        }
    }
    out
}

/// Both ipsets of a family by name, and the set that they make.
pub(super) fn parts(family: Family) -> ([String; 2], Set) {
    let address = if family == Family::V4 { KeyPart::Ipv4 } else { KeyPart::Ipv6 };
    let set = Set {
        name: format!("{ADOPTED_SET}_{}", family.digit()),
        key: vec![KeyPart::Protocol, address, KeyPart::Port, address, KeyPart::Port],
        value: Value::Nothing,
        flags: SetFlags { timeout: true, interval: false, dynamic: true },
        size: None,
        content: crate::ruleset::model::Content::Living,
    };
    (meanings(family).map(|set| names::set(&set)), set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::iptables::save;

    fn key(protocol: Protocol, client: &str, server: &str) -> Vec<u8> {
        flow_key(protocol, client.parse().unwrap(), server.parse().unwrap())
    }

    fn element(left_ms: u64) -> Element {
        Element { timeout: Some(Timeout::fresh_ms(left_ms)), ..Element::default() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (set, family, client, server) in [
            ("adopted_4", Family::V4, "203.0.113.2:4000", "203.0.113.1:22"),
            ("adopted_6", Family::V6, "[2001:db8::2]:4000", "[2001:db8::1]:22"),
        ] {
            let key = key(Protocol::Tcp, client, server);
            let created: String = sets(family).iter().map(super::super::elements::creation).collect();
            let text = created + &add(set, &key, &element(60_000));
            let found = save::sets(&text);
            let ([from, to], _) = parts(family);
            assert_eq!(listed(&found[&from], &found[&to]), Elements::from([(key, element(60_000))]));
        }
    }

    #[test]
    fn a_flow_has_an_entry_in_each_set_and_is_removed_by_its_client_s_port() {
        let key = key(Protocol::Udp, "203.0.113.2:4000", "10.0.0.5:53");
        assert_eq!(
            add("adopted_4", &key, &element(60_999)),
            "add ka_flow_from_4 203.0.113.2,udp:4000,10.0.0.5 timeout 60\nadd ka_flow_to_4 203.0.113.2,udp:53,10.0.0.5 timeout 60\n"
        );
        assert_eq!(delete("adopted_4", &key), "del ka_flow_from_4 203.0.113.2,udp:4000,10.0.0.5\n");
        assert_eq!(flush("adopted_6"), "flush ka_flow_from_6\nflush ka_flow_to_6\n");
        assert_eq!(add("adopted_4", &key, &element(999)), "", "it is over");
        let long = add("adopted_4", &key, &element(30 * 86_400_000));
        assert!(long.contains(&format!("timeout {TCP_SECS}\n")), "{long}");
    }

    #[test]
    fn only_what_is_in_both_sets_is_a_flow() {
        let text = "create ka_flow_from_4 hash:ip,port,ip family inet\nadd ka_flow_from_4 203.0.113.2,tcp:1,10.0.0.5 timeout 9\ncreate ka_flow_to_4 hash:ip,port,ip family inet\nadd ka_flow_to_4 203.0.113.3,tcp:22,10.0.0.5 timeout 9\nadd ka_flow_to_4 203.0.113.2,udp:22,10.0.0.5 timeout 9\nadd ka_flow_to_4 203.0.113.2,tcp:22,10.0.0.6 timeout 9\n";
        let found = save::sets(text);
        assert_eq!(listed(&found["ka_flow_from_4"], &found["ka_flow_to_4"]), Elements::new());
    }
}
