//! Interfaces that become outside ones. What came by them met no guard so far, unless one of them takes the place of an
//! interface that was guarded: then those may be connections that a grant was for, and whose grant is over.

use std::net::IpAddr;

use super::allow::address_key;
use super::diff::Live;
use super::layout::{LOOPBACK, Layout};
use super::lockout::Flow;
use super::plan::{app_set, interface_key};
use crate::config::App;
use crate::units::{ClientAddr, Family, IfName, Network};

/// An interface of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether packets come in by a bridge or bond whose port it is.
    pub is_port: bool,
}

impl Interface {
    /// Those of its addresses that other links have not got as well, as networks.
    fn networks(&self) -> impl Iterator<Item = Network> {
        let of_a_link = |addr: IpAddr| match addr {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        let mut addresses = self.addresses.iter();
        std::iter::from_fn(move || addresses.by_ref().find(|(addr, _)| !of_a_link(*addr)))
            .filter_map(|&(addr, length)| Network::around(addr, length).ok())
    }

    /// Whether it is still what the guard knew: a host gives the addresses of one that it replaces to another.
    fn stands(&self) -> bool {
        !self.is_port && (self.name == LOOPBACK || self.networks().next().is_some())
    }
}

fn holds(network: &Network, addr: IpAddr) -> bool {
    (network.first()..=network.last()).contains(&addr)
}

fn overlap(one: &Network, other: &Network) -> bool {
    holds(one, other.first()) || holds(other, one.first())
}

/// The outside interfaces that a guard that stands does not know.
pub(super) struct NewOutside<'a> {
    names: Vec<&'a IfName>,
    interfaces: &'a [Interface],
    /// The networks of those that it knows; none where one of them is not there any more as it was.
    before: Option<Vec<Network>>,
}

impl<'a> NewOutside<'a> {
    pub(super) fn of(layout: &Layout<'a>, live: Option<&Live>, interfaces: &'a [Interface]) -> Self {
        let known = live.and_then(|live| live.elements.get("ext")).filter(|known| !known.is_empty());
        let is_new = |name: &&IfName| known.is_some_and(|known| !known.contains_key(&interface_key(name)));
        let (names, old): (Vec<&IfName>, Vec<&IfName>) = layout.ext.iter().copied().partition(is_new);
        let all_stay = known.is_some_and(|known| known.len() == old.len());
        let mut before = all_stay.then(Vec::new);
        for name in old {
            let here = interfaces.iter().find(|interface| interface.name == name.as_str());
            match (&mut before, here.filter(|interface| interface.stands())) {
                (Some(before), Some(interface)) => before.extend(interface.networks()),
                (_, _) => before = None,
            }
        }
        Self { names, interfaces, before }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn has(&self, name: &IfName) -> bool {
        self.names.contains(&name)
    }

    /// Whether a flow whose client is reached by that interface cannot have come by one that was guarded. Its client
    /// addressed the new one, or is on its network; and a network that both have tells nothing.
    pub(super) fn met_no_guard(&self, flow: &Flow<'_>, by: &IfName) -> bool {
        let Some(before) = &self.before else { return false };
        let Some(interface) = self.interfaces.iter().find(|other| other.name == by.as_str()) else {
            return false;
        };
        let client = flow.client.ip();
        let is_shared = |network: &Network| before.iter().any(|other| overlap(network, other));
        if before.iter().any(|network| holds(network, client)) || interface.networks().any(|n| is_shared(&n))
        {
            return false;
        }
        let addressed = interface.addresses.iter().any(|&(addr, _)| addr == flow.server.ip());
        addressed || interface.networks().any(|network| holds(&network, client))
    }
}

/// Whether a grant, or the configuration, lets the client of a flow in: it goes on as long as that does.
pub(super) fn is_let_in(layout: &Layout<'_>, live: Option<&Live>, flow: &Flow<'_>) -> bool {
    let client = ClientAddr::new(flow.client.ip());
    let key = address_key(client.masked_v6(layout.settings.global.ipv6_prefix).ip());
    let family = Family::of(client.ip());
    let has = |set: &str| {
        live.and_then(|live| live.elements.get(set)).is_some_and(|elements| elements.contains_key(&key))
    };
    let leads = |app: &&App| {
        let here = app.ports.iter().any(|ports| ports.contains(flow.server.port()));
        app.protocol.each().contains(&flow.protocol)
            && (here || app.destination.host() == Some(flow.there.ip()))
    };
    layout.settings.apps.iter().filter(leads).any(|app| {
        let allowed = app.allow.iter().chain(&layout.settings.global.allow);
        has(&app_set(&app.slug, family))
            || layout.knocking.of_app(app).any(|grants| has(&grants.set(family)))
            || allowed.into_iter().any(|network| holds(network, client.ip()))
    })
}
