//! Which packets must get through, for these settings on this machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::journey::{Journey, Route, travel};
use super::packet::{Interface, Packet, TcpFlags, Tracking};
use super::samples::{MOST_ADDRESSES, Samples};
use super::situation::{HostInterface, Situation};
use crate::config::{App, Step1Reply};
use crate::ruleset::expr::CT_STATUS_DNAT;
use crate::ruleset::layout::Layout;
use crate::units::{Family, Mark, PortRange, Protocol};

/// Addresses that clients may have, far from each other; a list of strangers' addresses that has all of them
/// has nearly everybody.
const CLIENTS_4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(45, 83, 12, 7), Ipv4Addr::new(93, 201, 77, 21), Ipv4Addr::new(178, 20, 55, 90)];
const CLIENTS_6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2a01, 0x4f8, 0x1c17, 0x4c2, 0, 0, 0, 7),
    Ipv6Addr::new(0x2600, 0x1700, 0x51, 0x9d, 0, 0, 0, 0x21),
    Ipv6Addr::new(0x2401, 0xfa00, 0x8, 0x17, 0, 0, 0, 0x90),
];
/// What a PPPoE session, behind which the last of them is, takes from each segment.
const PPPOE: u16 = 8;
/// The port a client happens to use.
const CLIENT_PORT: u16 = 51_515;

/// All journeys, for every outside interface, family, address and client.
#[must_use]
pub fn journeys(layout: &Layout<'_>, situation: &Situation, mark: Option<Mark>) -> Vec<Journey> {
    let samples = Samples::of(&situation.host);
    let mut out = Vec::new();
    for name in &layout.ext {
        let known = situation.interface(name.as_str());
        let interface = Interface { name: name.as_str().to_owned(), index: known.map(|known| known.index) };
        for family in Family::BOTH {
            // Before an interface exists, nobody knows its addresses; one without an address of a family is not
            // reached by it.
            let own: Vec<Option<IpAddr>> =
                known.map_or(vec![None], |known| known.reachable(family).map(Some).collect());
            let scene = |client| {
                let interface = &interface;
                Scene { layout, situation, samples: &samples, interface, family, own: None, client }
            };
            let scenes: Vec<Scene<'_, '_>> = clients(family, known).into_iter().map(scene).collect();
            let tried = scenes.iter().map(|scene| scene.told_apart(&own, mark)).max().unwrap_or_default();
            for &own in own.iter().take(tried) {
                scenes.iter().for_each(|scene| Scene { own, ..*scene }.all(&mut out));
            }
        }
    }
    out
}

/// First packets of strangers, who know these rules and make what they like: to any port of this host, and of
/// addresses that are not its own.
#[must_use]
pub fn strangers(layout: &Layout<'_>, situation: &Situation) -> Vec<Journey> {
    let mut out = Vec::new();
    for name in &layout.ext {
        let known = situation.interface(name.as_str());
        let interface = Interface { name: name.as_str().to_owned(), index: known.map(|known| known.index) };
        for family in Family::BOTH {
            let mut go = |protocol, for_here| {
                let packet = Packet::new(family, protocol, (None, None), (None, None), TcpFlags::Syn);
                let mut packet = packet.crafted();
                (packet.iif, packet.for_here) = (Some(interface.clone()), for_here);
                out.push(Journey {
                    what: "any other port".to_owned(),
                    ports: layout.options.http_port.into(),
                    packet,
                    route: Route::In,
                    untracked: false,
                    forwarded: None,
                });
            };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                go(protocol, true);
                go(protocol, false);
            }
        }
    }
    out
}

/// Clients from everywhere, and one from the network of the interface.
fn clients(family: Family, interface: Option<&HostInterface>) -> Vec<IpAddr> {
    let mut out: Vec<IpAddr> = match family {
        Family::V4 => CLIENTS_4.into_iter().map(IpAddr::from).collect(),
        Family::V6 => CLIENTS_6.into_iter().map(IpAddr::from).collect(),
    };
    match interface.and_then(|interface| interface.address(family)) {
        Some(IpAddr::V4(own)) => out.push(Ipv4Addr::from_bits(own.to_bits() ^ 3).into()),
        Some(IpAddr::V6(own)) => out.push(Ipv6Addr::from_bits(own.to_bits() ^ 3).into()),
        None => {}
    }
    out
}

/// One client at one interface.
#[derive(Clone, Copy)]
struct Scene<'a, 'l> {
    layout: &'a Layout<'l>,
    situation: &'a Situation,
    samples: &'a Samples,
    interface: &'a Interface,
    family: Family,
    own: Option<IpAddr>,
    client: IpAddr,
}

impl Scene<'_, '_> {
    /// How many of this host's addresses are tried: one stands for all where no rule of others tells them apart for
    /// this client.
    fn told_apart(self, own: &[Option<IpAddr>], mark: Option<Mark>) -> usize {
        let (Some(&first), Some(_)) = (own.first(), own.get(1)) else { return 1 };
        let met = |own| {
            let mut journeys = Vec::new();
            Self { own, ..self }.all(&mut journeys);
            journeys.iter().map(|journey| travel(self.situation, journey, mark)).collect::<Vec<_>>()
        };
        if met(first) == met(None) { 1 } else { MOST_ADDRESSES }
    }

    fn all(self, out: &mut Vec<Journey>) {
        let options = self.layout.options;
        let silent = self.layout.settings.global.step1_reply == Step1Reply::Silent;
        if self.layout.settings.global.steps {
            self.conversation("step 1", Protocol::Tcp, (options.http_port.into(), None), silent, out);
            self.conversation("step 2", Protocol::Tcp, (options.https_port.into(), None), false, out);
        }
        for segment in &self.layout.local {
            for port in self.samples.within(segment.ports) {
                for app in self.layout.apps(segment).filter(|app| self.is_here(app)) {
                    let ports = (segment.ports, Some(port));
                    self.conversation(app.name.as_str(), segment.protocol, ports, false, out);
                }
            }
        }
        for (app, host) in self.layout.forwarded() {
            if Family::of(host) == self.family && self.is_here(app) {
                for (&protocol, range) in
                    app.protocol.each().iter().flat_map(|p| app.ports.iter().map(move |range| (p, range)))
                {
                    // Where all lead to one port, a packet to the same port here would look as if each kept its own.
                    let is_tried = |port: &u16| range.is_single() || app.destination.port() != Some(*port);
                    for port in self.samples.within(*range).into_iter().filter(is_tried) {
                        self.forwarded(app, protocol, (*range, port), host, out);
                    }
                }
            }
        }
    }

    /// Has the client send a packet.
    fn send(&self, packet: &mut Packet) {
        packet.iif = Some(self.interface.clone());
        let is = |last: Option<IpAddr>| last == Some(self.client);
        if is(CLIENTS_4.last().map(|&last| last.into())) || is(CLIENTS_6.last().map(|&last| last.into())) {
            packet.segment = packet.segment.map(|usual| usual - PPPOE);
        }
    }

    fn is_here(&self, app: &App) -> bool {
        app.interface_ext.iter().any(|name| name.as_str() == self.interface.name)
    }

    /// The first packet to a port of this host, a later one, and the answer.
    fn conversation(
        &self,
        what: &str,
        protocol: Protocol,
        (ports, port): (PortRange, Option<u16>),
        untracked: bool,
        out: &mut Vec<Journey>,
    ) {
        let to = (self.own, Some(port.unwrap_or(ports.first())));
        let from = (Some(self.client), Some(CLIENT_PORT));
        let (first, later, reply) = if untracked {
            (Tracking::UNTRACKED, Tracking::UNTRACKED, Tracking::UNTRACKED)
        } else {
            (Tracking::NEW, Tracking::ESTABLISHED, Tracking::REPLY)
        };
        let mut go = |packet: Packet, tracking, route| {
            let mut packet = Packet { tracking, ..packet };
            match route {
                Route::Out => packet.oif = Some(self.interface.clone()),
                Route::In | Route::Through => self.send(&mut packet),
            }
            out.push(Journey { what: what.to_owned(), ports, packet, route, untracked, forwarded: None });
        };
        go(Packet::new(self.family, protocol, from, to, TcpFlags::Syn), first, Route::In);
        go(Packet::new(self.family, protocol, from, to, TcpFlags::Data), later, Route::In);
        go(Packet::new(self.family, protocol, to, from, TcpFlags::SynAck), reply, Route::Out);
        if !untracked {
            go(Packet::new(self.family, protocol, to, from, TcpFlags::Data), reply, Route::Out);
        }
    }

    /// The same to a LAN host.
    fn forwarded(
        &self,
        app: &App,
        protocol: Protocol,
        (ports, port): (PortRange, u16),
        host: IpAddr,
        out: &mut Vec<Journey>,
    ) {
        let there = (host, app.destination.port().unwrap_or(port));
        let from = (Some(self.client), Some(CLIENT_PORT));
        let to = (self.own, Some(port));
        for (flags, tracking) in [(TcpFlags::Syn, Tracking::NEW), (TcpFlags::Data, Tracking::ESTABLISHED)] {
            let mut packet = Packet::new(self.family, protocol, from, to, flags);
            self.send(&mut packet);
            packet.tracking = tracking;
            out.push(Journey {
                what: app.name.as_str().to_owned(),
                ports,
                packet,
                route: Route::Through,
                untracked: false,
                forwarded: Some(there),
            });
        }
        let sender = (Some(there.0), Some(there.1));
        let mut packet = Packet::new(self.family, protocol, sender, from, TcpFlags::SynAck);
        packet.for_here = false;
        packet.tracking = Tracking { status: CT_STATUS_DNAT, ..Tracking::REPLY };
        packet.iif = Some(self.towards(there.0, app));
        packet.oif = Some(self.interface.clone());
        out.push(Journey {
            what: app.name.as_str().to_owned(),
            ports,
            packet,
            route: Route::Through,
            untracked: false,
            forwarded: None,
        });
    }

    fn towards(&self, addr: IpAddr, app: &App) -> Interface {
        let found = self.situation.towards(addr);
        let name = found
            .map(|interface| interface.name.as_str())
            .or(app.interface_int.first().map(|name| name.as_str()))
            .unwrap_or_default();
        Interface { name: name.to_owned(), index: found.map(|interface| interface.index) }
    }
}
