//! Who would be locked out: connections from outside to ports that are about to be guarded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::allow::address_key;
use super::audit::{Finding, Severity};
use super::diff::{Change, Live, SetRef};
use super::layout::{Layout, Segment};
use super::model::{Element, Elements, Timeout};
use super::plan::{KNOCK_PORTS, TCP_MS, TIMED, UDP_MS, adopted_set};
use super::wire::{Socket, Tracked};
use crate::config::DefaultInput;
use crate::units::{Family, Protocol};

/// Flows of a family that can be let live: two keys each fit into the sets.
const MOST: usize = 32_000;
/// Connections that a sentence names.
const NAMED: usize = 5;

/// A connection from outside to a port that is about to be guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow<'a> {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who began it.
    pub client: SocketAddr,
    /// What the client addressed.
    pub server: SocketAddr,
    /// Who answers, after translation; the same as `server` without one.
    pub there: SocketAddr,
    /// What closes its port.
    pub closed_by: ClosedBy<'a>,
}

/// What closes a port to those who have not knocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClosedBy<'a> {
    /// The app of that name.
    App(&'a str),
    /// A knock sequence, whose ports never answer.
    Knocks,
    /// `default_input`.
    DefaultInput,
}

impl fmt::Display for ClosedBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::App(name) => name,
            Self::Knocks => "a knock sequence",
            Self::DefaultInput => "default_input",
        })
    }
}

impl fmt::Display for Flow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, protocol, closed_by, .. } = self;
        if *closed_by == ClosedBy::Knocks {
            // Which one is a secret, and this may be written to a log.
            return write!(f, "{client} -> a port of {closed_by}");
        }
        write!(f, "{client} -> {protocol} port {} ({closed_by})", self.server.port())?;
        if self.there == self.server { Ok(()) } else { write!(f, ", forwarded to {}", self.there) }
    }
}

/// What the kernel says about open connections.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Sockets of this host.
    pub sockets: Vec<Socket>,
    /// What connection tracking knows; none where it does not say.
    pub tracked: Option<Vec<Tracked>>,
    /// The addresses of this host.
    pub own: BTreeSet<IpAddr>,
}

/// The flows from outside that the rules would cut, because their ports are not guarded yet.
///
/// `outside` tells whether an address that is not this host's is reached by an outside interface.
#[must_use]
pub fn endangered<'a>(
    layout: &Layout<'a>,
    live: Option<&Live>,
    seen: &Seen,
    mut outside: impl FnMut(IpAddr) -> bool,
) -> Vec<Flow<'a>> {
    let guarded = Guarded { live };
    let own = |addr: IpAddr| seen.own.contains(&addr) || addr.is_loopback();
    let tracked = seen.tracked.as_deref().unwrap_or_default();
    let listened: BTreeSet<u16> =
        seen.sockets.iter().filter(|socket| socket.listens).map(|socket| socket.local.port()).collect();
    // By both ends as a socket of this host sees them.
    let known: BTreeMap<(SocketAddr, SocketAddr), SocketAddr> = tracked
        .iter()
        .filter(|flow| flow.protocol == Protocol::Tcp)
        .map(|flow| ((flow.client, flow.there), flow.server))
        .collect();
    let of_sockets = seen.sockets.iter().filter(|socket| !socket.listens).filter_map(|socket| {
        let (client, there) = (socket.remote, socket.local);
        // Begun by this host, from a port that happens to be guarded.
        if known.contains_key(&(there, client)) {
            return None;
        }
        let server = known.get(&(client, there)).copied().unwrap_or(there);
        let flow = Flow { protocol: Protocol::Tcp, client, server, there, closed_by: ClosedBy::DefaultInput };
        let closed = listened.contains(&there.port());
        guarded.endangers(layout, flow, true, closed)
    });
    let of_tracking = tracked.iter().filter_map(|&Tracked { protocol, client, server, there, .. }| {
        // The sockets tell more of TCP to this host, and what is over there is over.
        if protocol == Protocol::Tcp && own(there.ip()) {
            return None;
        }
        let flow = Flow { protocol, client, server, there, closed_by: ClosedBy::DefaultInput };
        guarded.endangers(layout, flow, own(server.ip()), own(there.ip()))
    });
    let all: BTreeSet<Flow<'a>> = of_sockets.chain(of_tracking).collect();
    all.into_iter().filter(|flow| !own(flow.client.ip()) && outside(flow.client.ip())).collect()
}

/// Whether the port of a flow is guarded by what is live: as the client addressed it, or as it is on a LAN host.
#[must_use]
pub fn is_guarded(live: &Live, protocol: Protocol, server: SocketAddr, there: SocketAddr) -> bool {
    let guarded = Guarded { live: Some(live) };
    guarded.has_port(protocol, server) || guarded.has_lan(protocol, there)
}

/// Whether what is live guards the port of a flow and the end on a LAN host that it was translated to, both.
#[must_use]
pub fn leads_to_lan(live: &Live, protocol: Protocol, server: SocketAddr, there: SocketAddr) -> bool {
    let guarded = Guarded { live: Some(live) };
    guarded.has_port(protocol, server) && guarded.has_lan(protocol, there)
}

struct Guarded<'l> {
    live: Option<&'l Live>,
}

impl Guarded<'_> {
    fn has_port(&self, protocol: Protocol, server: SocketAddr) -> bool {
        self.map_has("services", &service_key(protocol, server.port()))
    }

    fn has_lan(&self, protocol: Protocol, there: SocketAddr) -> bool {
        let map = format!("lan_{}", Family::of(there.ip()).digit());
        self.map_has(&map, &[address_key(there.ip()), service_key(protocol, there.port())].concat())
    }

    /// The flow with its app, if the rules will cut it and those that are there do not yet.
    fn endangers<'a>(
        &self,
        layout: &Layout<'a>,
        flow: Flow<'a>,
        for_this_host: bool,
        closed_by_default: bool,
    ) -> Option<Flow<'a>> {
        let named = |segment: &Segment| Flow {
            closed_by: layout
                .apps(segment)
                .next()
                .map_or(flow.closed_by, |app| ClosedBy::App(app.name.as_str())),
            ..flow
        };
        let covers =
            |segment: &&Segment, port: u16| segment.protocol == flow.protocol && segment.ports.contains(port);
        if for_this_host
            && let Some(segment) = layout.services.iter().find(|segment| covers(segment, flow.server.port()))
        {
            return (!self.has_port(flow.protocol, flow.server)).then(|| named(segment));
        }
        if for_this_host && layout.knocking.takes(flow.protocol, flow.server.port()) {
            let fixed = layout.knocking.ports.contains(&(flow.protocol, flow.server.port()));
            let ours = if fixed {
                self.map_has(KNOCK_PORTS, &service_key(flow.protocol, flow.server.port()))
            } else {
                self.has_timed()
            };
            return (!ours).then_some(Flow { closed_by: ClosedBy::Knocks, ..flow });
        }
        let here = |segment: &&Segment| segment.host == Some(flow.there.ip());
        if let Some(segment) =
            layout.lan.iter().filter(here).find(|segment| covers(segment, flow.there.port()))
        {
            return (!self.has_lan(flow.protocol, flow.there)).then(|| named(segment));
        }
        let closes = layout.settings.global.default_input == DefaultInput::Drop;
        let closed = self.live.is_some_and(|live| live.ruleset.chain("default_in").is_some());
        (closes && !closed && closed_by_default).then_some(flow)
    }

    /// Whether knocks that change with time take their ports already.
    fn has_timed(&self) -> bool {
        self.live.is_some_and(|live| live.ruleset.set(TIMED).is_some())
    }

    fn map_has(&self, map: &str, key: &[u8]) -> bool {
        let elements = self.live.and_then(|live| live.elements.get(map));
        let within = |first: &[u8], last: &[u8]| {
            let parts = first.chunks(4).zip(last.chunks(4)).zip(key.chunks(4));
            first.len() == key.len() && parts.into_iter().all(|((a, b), k)| a <= k && k <= b)
        };
        elements
            .into_iter()
            .flatten()
            .any(|(first, element)| within(first, element.last.as_deref().unwrap_or(first)))
    }
}

fn service_key(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
}

/// The key of a flow in the sets of those that live on.
#[must_use]
pub fn flow_key(protocol: Protocol, client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let mut key = vec![protocol.number(), 0, 0, 0];
    for end in [client, server] {
        key.extend(address_key(end.ip()));
        key.extend(end.port().to_be_bytes());
        key.extend([0, 0]);
    }
    key
}

/// Protocol, client and server of such a key.
#[must_use]
pub fn ends_of(key: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let protocol = *key.first()?;
    let ends = key.get(4..)?;
    let (client, server) = ends.split_at_checked(ends.len() / 2)?;
    let end = |end: &[u8]| {
        let (addr, port) = end.split_at_checked(end.len().checked_sub(4)?)?;
        let port = u16::from_be_bytes(*port.first_chunk::<2>()?);
        Some(SocketAddr::new(super::allow::key_address(addr)?, port))
    };
    Some((protocol, end(client)?, end(server)?))
}

/// How the elements of the set of a family are laid out.
#[must_use]
pub fn adopted_ref(family: Family) -> SetRef {
    SetRef { name: adopted_set(family), interval: false, concatenated: true }
}

/// The changes that let flows live on: as the client addressed them and as they are after translation.
#[must_use]
pub fn adoption(flows: &[Flow<'_>]) -> Vec<Change> {
    Family::BOTH
        .into_iter()
        .filter_map(|family| {
            let mut elements = Elements::new();
            let of_family = |flow: &&Flow<'_>| Family::of(flow.client.ip()) == family;
            for flow in flows.iter().filter(of_family).take(MOST) {
                let ms = match flow.protocol {
                    Protocol::Tcp => TCP_MS,
                    Protocol::Udp => UDP_MS,
                };
                for server in [flow.server, flow.there] {
                    let element = Element { timeout: Some(Timeout::fresh_ms(ms)), ..Element::default() };
                    elements.insert(flow_key(flow.protocol, flow.client, server), element);
                }
            }
            (!elements.is_empty()).then(|| Change::AddElements { set: adopted_ref(family), elements })
        })
        .collect()
}

/// What an operator should know before the rules are applied; none where nobody would be locked out.
#[must_use]
pub fn finding(flows: &[Flow<'_>], adopt: bool) -> Option<Finding> {
    if flows.is_empty() {
        return None;
    }
    let (count, plural) = (flows.len(), if flows.len() == 1 { "" } else { "s" });
    let named: Vec<String> = flows.iter().take(NAMED).map(Flow::to_string).collect();
    let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
    let fate = if adopt {
        "live on when the guard starts, but none of them can be made again without a knock"
    } else {
        "are cut when the guard starts (adopt_established: false, or no ipset)"
    };
    Some(Finding {
        severity: Severity::Warning,
        code: "lockout",
        message: format!(
            "{count} connection{plural} from outside to ports that are not guarded yet {fate}: {}{more}",
            named.join("; ")
        ),
        fix: "knock once by hand first, or start with `knock-agent run --confirm 60s`, which puts everything back unless you say `knock-agent confirm`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::{Alone, Settings, StepPorts, parse};
    use crate::ruleset::diff::diff;
    use crate::ruleset::layout::Options;
    use crate::ruleset::model::Content;
    use crate::ruleset::plan::plan;

    fn settings(more: &str) -> Settings {
        let keys = "  duration: 10\n  access_key_http: [first-key-N]\n  access_key_https: [second-key-N]\n";
        let text = format!(
            "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n{more}ssh:\n  port: [22, 6000-6010]\n{}lan:\n  port: 2222\n  destination: 10.0.0.5:22\n{}vpn:\n  port: 1194\n  protocol: udp\n{}",
            keys.replace('N', "1"),
            keys.replace('N', "2"),
            keys.replace('N', "3"),
        );
        parse("test", &text, Some(StepPorts { http: 8080, https: 8443 }), &Alone).unwrap().settings
    }

    fn options() -> Options {
        let port = |n| NonZeroU16::new(n).unwrap();
        Options { http_port: port(8080), https_port: port(8443), inner_header: true, log: true }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn seen() -> Seen {
        let socket = |local, remote| Socket { local: at(local), remote: at(remote), listens: false };
        let listener = |local| Socket { listens: true, ..socket(local, "0.0.0.0:0") };
        let tracked = |protocol, client, server, there| Tracked {
            protocol,
            client: at(client),
            server: at(server),
            there: at(there),
            zone: 0,
        };
        Seen {
            sockets: vec![
                listener("0.0.0.0:22"),
                listener("0.0.0.0:80"),
                socket("203.0.113.1:22", "198.51.100.1:4000"),
                socket("203.0.113.1:22", "10.0.0.9:4001"),
                socket("127.0.0.1:22", "127.0.0.1:4002"),
                socket("203.0.113.1:80", "198.51.100.1:4003"),
                socket("203.0.113.1:50000", "198.51.100.1:443"),
                // Begun here, from a port that happens to be guarded.
                socket("203.0.113.1:6005", "198.51.100.1:25"),
            ],
            tracked: Some(vec![
                tracked(Protocol::Tcp, "203.0.113.1:6005", "198.51.100.1:25", "198.51.100.1:25"),
                tracked(Protocol::Tcp, "198.51.100.1:4004", "203.0.113.1:2222", "10.0.0.5:22"),
                tracked(Protocol::Tcp, "198.51.100.1:4005", "10.0.0.5:22", "10.0.0.5:22"),
                tracked(Protocol::Tcp, "198.51.100.1:4006", "10.0.0.5:80", "10.0.0.5:80"),
                tracked(Protocol::Udp, "198.51.100.1:4007", "203.0.113.1:1194", "203.0.113.1:1194"),
                tracked(Protocol::Udp, "203.0.113.1:4008", "198.51.100.1:53", "198.51.100.1:53"),
            ]),
            own: ["203.0.113.1".parse().unwrap(), "10.0.0.1".parse().unwrap()].into(),
        }
    }

    fn found(more: &str, live: Option<&Live>) -> Vec<(u16, String)> {
        let settings = settings(more);
        let layout = Layout::new(&settings, options());
        let outside = |addr: IpAddr| !addr.to_string().starts_with("10.");
        let flows = endangered(&layout, live, &seen(), outside);
        let mut out: Vec<(u16, String)> =
            flows.iter().map(|flow| (flow.client.port(), flow.closed_by.to_string())).collect();
        out.sort();
        out
    }

    fn live(more: &str) -> Live {
        let ruleset = plan(&settings(more), options());
        assert!(!diff(None, &ruleset).is_empty());
        let mut live = Live { ruleset, ..Live::default() };
        for set in &live.ruleset.sets {
            if let Content::Planned(elements) = &set.content {
                live.elements.insert(set.name.clone(), elements.clone());
            }
        }
        live
    }

    #[test]
    fn only_flows_from_outside_to_ports_that_become_guarded_are_in_danger() {
        let expected = [(4000, "ssh"), (4004, "lan"), (4005, "lan"), (4007, "vpn")];
        assert_eq!(found("", None), expected.map(|(port, app)| (port, app.to_owned())));
    }

    #[test]
    fn a_closed_host_endangers_what_comes_in_and_not_what_goes_out() {
        let ports: Vec<u16> = found("  default_input: drop\n", None).iter().map(|(port, _)| *port).collect();
        assert_eq!(ports, [4000, 4003, 4004, 4005, 4007]);
        let ports = found("  default_input: drop\n", Some(&live("")));
        assert_eq!(ports, [(4003, "default_input".to_owned())]);
    }

    #[test]
    fn flows_to_ports_that_will_be_knocked_at_are_in_danger_and_their_port_is_not_told() {
        let more = "  sequence: {knocks: [80, 81], opens: step-1}\n";
        let mut expected =
            [(4000, "ssh"), (4003, "a knock sequence"), (4004, "lan"), (4005, "lan"), (4007, "vpn")];
        expected.sort_unstable();
        assert_eq!(found(more, None), expected.map(|(port, app)| (port, app.to_owned())));
        assert_eq!(found(more, Some(&live(more))), []);
        let (client, server) = (at("198.51.100.1:4003"), at("203.0.113.1:80"));
        let flow =
            Flow { protocol: Protocol::Tcp, client, server, there: server, closed_by: ClosedBy::Knocks };
        assert_eq!(flow.to_string(), "198.51.100.1:4003 -> a port of a knock sequence");
    }

    #[test]
    fn a_port_is_guarded_here_and_on_its_lan_host() {
        let live = live("");
        let guarded = |protocol, server, there| is_guarded(&live, protocol, at(server), at(there));
        assert!(guarded(Protocol::Tcp, "203.0.113.1:6005", "203.0.113.1:6005"));
        assert!(guarded(Protocol::Tcp, "203.0.113.7:9", "10.0.0.5:22"));
        assert!(!guarded(Protocol::Udp, "203.0.113.1:22", "203.0.113.1:22"));
        assert!(!guarded(Protocol::Tcp, "203.0.113.1:80", "10.0.0.6:22"));
        assert!(!is_guarded(&Live::default(), Protocol::Tcp, at("203.0.113.1:22"), at("203.0.113.1:22")));
        let leads = |server, there| leads_to_lan(&live, Protocol::Tcp, at(server), at(there));
        assert!(leads("203.0.113.7:2222", "10.0.0.5:22"));
        assert!(!leads("203.0.113.7:9", "10.0.0.5:22") && !leads("203.0.113.1:6005", "203.0.113.1:6005"));
    }

    #[test]
    fn what_is_guarded_already_is_in_no_danger() {
        assert_eq!(found("", Some(&live(""))), []);
        let mut part = live("");
        part.elements.insert("services".into(), Elements::new());
        let expected = [(4000, "ssh"), (4004, "lan"), (4007, "vpn")];
        assert_eq!(found("", Some(&part)), expected.map(|(port, app)| (port, app.to_owned())));
    }

    #[test]
    fn flows_live_on_by_their_exact_ends_before_and_after_translation() {
        let flow = Flow {
            protocol: Protocol::Tcp,
            client: at("198.51.100.1:4004"),
            server: at("203.0.113.1:2222"),
            there: at("10.0.0.5:22"),
            closed_by: ClosedBy::App("lan"),
        };
        let changes = adoption(&[flow]);
        let [Change::AddElements { set, elements }] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((set.name.as_str(), elements.len()), ("adopted_4", 2));
        let ends: Vec<_> = elements.keys().filter_map(|key| ends_of(key)).collect();
        let expected = [at("10.0.0.5:22"), at("203.0.113.1:2222")].map(|server| (6, flow.client, server));
        assert_eq!(ends, expected);
        let (client, server) = (at("[2001:db8::2]:1"), at("[2001:db8::1]:22"));
        let six = Flow { client, server, there: server, ..flow };
        let changes = adoption(&[six]);
        let [Change::AddElements { set, elements }] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((set.name.as_str(), elements.len()), ("adopted_6", 1));
        let key = elements.keys().next().unwrap();
        assert_eq!((key.len(), ends_of(key)), (44, Some((6, client, server))));
        assert_eq!(ends_of(&[6, 0, 0]), None);
    }

    #[test]
    fn the_finding_names_some_and_counts_the_rest() {
        assert!(finding(&[], true).is_none());
        let flow = |port| Flow {
            protocol: Protocol::Tcp,
            client: SocketAddr::new([198, 51, 100, 1].into(), port),
            server: at("203.0.113.1:22"),
            there: at("203.0.113.1:22"),
            closed_by: ClosedBy::App("ssh"),
        };
        let flows: Vec<_> = (1..=7).map(flow).collect();
        let message = finding(&flows, false).unwrap().message;
        assert!(message.contains("7 connections") && message.contains("198.51.100.1:1 -> tcp port 22 (ssh)"));
        assert!(message.ends_with("and 2 more") && message.contains("are cut"), "{message}");
    }
}
