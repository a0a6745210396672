//! Who would be locked out: connections from outside to ports that are about to be guarded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::allow::address_key;
use super::audit::{Finding, Severity};
use super::diff::{Change, Live, SetRef};
use super::layout::{Layout, Segment};
use super::model::{Element, Elements, Timeout};
pub use super::new_outside::Interface;
use super::new_outside::{NewOutside, is_let_in};
use super::plan::{KNOCK_PORTS, TCP_MS, TIMED, UDP_MS, adopted_set};
use super::wire::{Socket, Tracked};
use crate::config::DefaultInput;
use crate::units::{Family, IfName, Protocol};

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
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
}

/// Flows from outside that the rules would cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endangered<'a> {
    /// Those to ports that are not guarded yet.
    pub flows: Vec<Flow<'a>>,
    /// Those by an interface that becomes an outside one, which may have come by one that was guarded: perhaps their grants
    /// are over.
    pub doubted: Vec<Flow<'a>>,
}

/// The flows from outside that the rules would cut, because their ports are not guarded yet.
///
/// `way` tells by which interface an address that is not this host's is reached; none where that cannot be told, which
/// counts as outside.
#[must_use]
pub fn endangered<'a>(
    layout: &Layout<'a>,
    live: Option<&Live>,
    seen: &Seen,
    mut way: impl FnMut(IpAddr) -> Option<IfName>,
) -> Endangered<'a> {
    let mut flows = in_danger(layout, live, seen);
    flows.retain(|flow| way(flow.client.ip()).is_none_or(|name| layout.ext.contains(&name)));
    // What is guarded is so on the interfaces that were outside until now.
    let new = NewOutside::of(layout, live, &seen.interfaces);
    let mut doubted = Vec::new();
    if !new.is_empty() {
        for flow in in_danger(layout, None, seen) {
            let by = way(flow.client.ip()).filter(|name| new.has(name));
            match by {
                Some(_) if flows.contains(&flow) || is_let_in(layout, live, &flow) => {}
                Some(by) if new.met_no_guard(&flow, &by) => drop(flows.insert(flow)),
                Some(_) => doubted.push(flow),
                None => {}
            }
        }
    }
    Endangered { flows: flows.into_iter().collect(), doubted }
}

/// The flows to ports that these rules do not guard yet.
fn in_danger<'a>(layout: &Layout<'a>, live: Option<&Live>, seen: &Seen) -> BTreeSet<Flow<'a>> {
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
    of_sockets.chain(of_tracking).filter(|flow| !own(flow.client.ip())).collect()
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

/// What an operator should know before the rules are applied; nothing where nobody would be locked out.
#[must_use]
pub fn findings(Endangered { flows, doubted }: &Endangered<'_>, adopt: bool) -> Vec<Finding> {
    let fate = if adopt {
        "to ports that are not guarded yet live on when the guard starts, but none of them can be made again without a knock"
    } else {
        "to ports that are not guarded yet are cut when the guard starts (adopt_established: false, or no ipset)"
    };
    [(flows, fate), (doubted, DOUBTED)]
        .into_iter()
        .filter(|(flows, _)| !flows.is_empty())
        .map(|(flows, fate)| finding(flows, fate))
        .collect()
}

/// What becomes of those that may have met the guard elsewhere.
const DOUBTED: &str = "by an interface that is guarded from now on are cut, as they may have come by another one, with a grant that is over";

fn finding(flows: &[Flow<'_>], fate: &str) -> Finding {
    let (count, plural) = (flows.len(), if flows.len() == 1 { "" } else { "s" });
    let named: Vec<String> = flows.iter().take(NAMED).map(Flow::to_string).collect();
    let more = if count > NAMED { format!("; and {} more", count - NAMED) } else { String::new() };
    Finding {
        severity: Severity::Warning,
        code: "lockout",
        message: format!("{count} connection{plural} from outside {fate}: {}{more}", named.join("; ")),
        fix: "knock once by hand first, or start with `knock-agent run --confirm 60s`, which puts everything back unless you say `knock-agent confirm`".to_owned(),
    }
}

#[cfg(test)]
#[path = "lockout_tests.rs"]
mod tests;
