//! Which of the connections that connection tracking knows lead to our apps: the port alone does not tell, as everybody
//! behind a router talks to ports of that number somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::lockout::comes_from_outside;
use crate::config::{App, Settings};
use crate::ruleset::layout::{Layout, Options};
use crate::ruleset::wire::Tracked;
use crate::sys::{flows, interfaces};
use crate::units::{IfName, Protocol};

/// Whether a port is one of an app's, as clients use it or as its LAN host does.
pub(super) fn is_at(app: &App, protocol: Protocol, server: SocketAddr) -> bool {
    let lan_port =
        app.destination.host() == Some(server.ip()) && app.destination.port() == Some(server.port());
    app.protocol.each().contains(&protocol) && (lan_port || has_port(app, server.port()))
}

/// Whether clients use that port for an app.
pub(super) fn has_port(app: &App, port: u16) -> bool {
    app.ports.iter().any(|ports| ports.contains(port))
}

/// What this host knows of addresses, each asked for once.
pub(super) struct WaysIn {
    own: BTreeSet<IpAddr>,
    /// Those that were this host's lately.
    were: BTreeSet<IpAddr>,
    ext: BTreeSet<IfName>,
    here: BTreeMap<IpAddr, bool>,
    outside: BTreeMap<IpAddr, bool>,
    by: BTreeMap<IpAddr, Option<u32>>,
}

impl WaysIn {
    /// As it is now, with the outside interfaces of these settings.
    pub(super) fn now(settings: &Settings, options: Options) -> Self {
        let own = interfaces::addresses().unwrap_or_else(|error| {
            tracing::debug!(%error, "the addresses of this host are asked for one by one");
            Vec::new()
        });
        let layout = Layout::new(settings, options);
        let ext = layout.ext.into_iter().cloned().collect();
        let (here, outside, by) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (own, were) = (own.into_iter().collect(), BTreeSet::new());
        Self { own, were, ext, here, outside, by }
    }

    /// The same, where these count as this host's as well: they may be away for a moment only.
    pub(super) fn with(mut self, were: BTreeSet<IpAddr>) -> Self {
        self.were = were;
        self
    }

    /// The apps that whoever began a connection is a client of: those of the LAN host that answers, else those of
    /// this host, where it is one of its addresses that was addressed.
    pub(super) fn apps<'a>(&mut self, apps: &'a [App], flow: &Tracked) -> Vec<&'a App> {
        apps_at(apps, flow, |addr| self.is_or_was_here(addr))
    }

    /// Whether an address is this host's.
    pub(super) fn is_here(&mut self, addr: IpAddr) -> bool {
        self.own.contains(&addr)
            || *self.here.entry(addr).or_insert_with(|| flows::is_local(addr).unwrap_or(false))
    }

    /// The same, or whether it was until lately.
    pub(super) fn is_or_was_here(&mut self, addr: IpAddr) -> bool {
        self.were.contains(&addr) || self.is_here(addr)
    }

    /// Whether packets to an address leave by an outside interface, as far as the main way there tells.
    pub(super) fn is_outside(&mut self, client: IpAddr) -> bool {
        let ext = &self.ext;
        *self.outside.entry(client).or_insert_with(|| comes_from_outside(|name| ext.contains(name), client))
    }

    /// Whether two addresses are reached by the same interface.
    pub(super) fn are_together(&mut self, one: IpAddr, other: IpAddr) -> bool {
        let mut by = |addr: IpAddr| {
            let way = self.by.entry(addr);
            *way.or_insert_with(|| flows::interface_towards(addr).ok().flatten())
        };
        by(one).is_some_and(|interface| by(other) == Some(interface))
    }
}

fn apps_at<'a>(apps: &'a [App], flow: &Tracked, is_here: impl FnOnce(IpAddr) -> bool) -> Vec<&'a App> {
    let of_protocol = || apps.iter().filter(|app| app.protocol.each().contains(&flow.protocol));
    let there = flow.there;
    let inside = of_protocol().filter(|app| {
        let port = match app.destination.port() {
            Some(port) => port == there.port(),
            None => has_port(app, there.port()),
        };
        port && app.destination.host() == Some(there.ip())
    });
    let inside: Vec<&App> = inside.collect();
    if !inside.is_empty() {
        return inside;
    }
    let local = of_protocol().filter(|app| app.destination.host().is_none());
    let local: Vec<&App> = local.filter(|app| has_port(app, flow.server.port())).collect();
    if local.is_empty() || !is_here(flow.server.ip()) { Vec::new() } else { local }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Alone, parse};

    #[test]
    fn only_what_comes_to_this_host_or_ends_at_the_lan_host_of_an_app_is_its_client() {
        let keys = "  duration: 10\n  access_key_http: [first-key-N]\n  access_key_https: [second-key-N]\n";
        let text = format!(
            "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n\
             here:\n  port: [22, 6000-6010]\n{}lan:\n  port: 2222\n  destination: 10.0.0.5:22\n{}six:\n  port: 7006\n  protocol: both\n  destination: \"fd00:5::5\"\n{}",
            keys.replace('N', "1"),
            keys.replace('N', "2"),
            keys.replace('N', "3"),
        );
        let apps = parse("test", &text, None, &Alone).unwrap().settings.apps;
        let own: [IpAddr; 2] = ["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let found = |protocol, client: &str, server: &str, there: &str| {
            let [client, server, there] = [client, server, there].map(|end| end.parse().unwrap());
            let flow = Tracked { protocol, client, server, there, zone: 0 };
            let apps = apps_at(&apps, &flow, |addr| own.contains(&addr));
            apps.iter().map(|app| app.slug.clone()).collect::<Vec<_>>().join(" ")
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let a = "198.51.100.1:4000";
        assert_eq!(found(tcp, a, "203.0.113.1:22", "203.0.113.1:22"), "here");
        assert_eq!(found(tcp, a, "203.0.113.1:6005", "172.17.0.2:80"), "here", "published by a container");
        assert_eq!(found(tcp, a, "203.0.113.1:2222", "10.0.0.5:22"), "lan");
        assert_eq!(found(tcp, a, "10.0.0.5:22", "10.0.0.5:22"), "lan", "by a route");
        for protocol in [tcp, udp] {
            assert_eq!(found(protocol, "[2001:db8::9]:4", "[2001:db8::1]:7006", "[fd00:5::5]:7006"), "six");
        }
        for (protocol, client, server, there) in [
            (udp, a, "203.0.113.1:22", "203.0.113.1:22"),
            (tcp, "10.0.0.9:4000", "198.51.100.1:22", "198.51.100.1:22"),
            (tcp, "10.0.0.9:4000", "198.51.100.1:2222", "198.51.100.1:2222"),
            (tcp, "10.0.0.9:22", "198.51.100.1:443", "198.51.100.1:443"),
            (tcp, "203.0.113.1:6005", "198.51.100.1:25", "198.51.100.1:25"),
            (tcp, a, "10.0.0.6:22", "10.0.0.6:22"),
            (tcp, a, "203.0.113.1:8080", "10.0.0.6:22"),
            (tcp, "[2001:db8::9]:4", "[2001:db8::2]:7006", "[2001:db8::2]:7006"),
        ] {
            assert_eq!(found(protocol, client, server, there), "", "{client} {server} {there}");
        }
    }
}
