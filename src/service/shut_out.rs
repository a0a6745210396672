//! Clients who are shut out: what they have open ends, too. Where established connections live on (`established: keep`) the kernel
//! lets pass what connection tracking knows, so that it has to forget it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::knocked::GrantSet;
use super::operations::Operations;
use crate::config::{App, Established, Settings};
use crate::ruleset::allow::{address_key, key_address};
use crate::ruleset::diff::{Live, SetRef};
use crate::ruleset::wire::Tracked;
use crate::sys::{clock, flows};
use crate::units::{ClientAddr, Family, Network, Protocol};

/// From whom something was taken back. Who may still reach an app by something else is not shut out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ShutOut {
    /// From all clients of all apps, or of this one (its slug).
    Everybody(Option<String>),
    /// From those at the addresses of grants, by the app's slug, and from networks that could reach an app, or all.
    Those {
        /// Slugs and addresses.
        grants: BTreeSet<(String, IpAddr)>,
        /// Slugs and networks.
        networks: Vec<(Option<String>, Network)>,
    },
}

impl ShutOut {
    /// One client of one app.
    pub(super) fn one(slug: &str, addr: IpAddr) -> Self {
        Self::Those { grants: BTreeSet::from([(slug.to_owned(), addr)]), networks: Vec::new() }
    }

    /// Networks that could reach an app, or all of them.
    pub(super) fn networks(networks: Vec<(Option<String>, Network)>) -> Self {
        Self::Those { grants: BTreeSet::new(), networks }
    }

    /// All whom these sets let in.
    pub(super) fn all_of(sets: &[GrantSet], live: &Live) -> Self {
        let grants = sets.iter().flat_map(|grants| {
            let elements = Family::BOTH.map(|family| live.elements.get(&grants.set(family)));
            let keys = elements.into_iter().flatten().flat_map(|elements| elements.keys());
            keys.filter_map(|key| Some((grants.slug.clone(), key_address(key)?)))
        });
        Self::Those { grants: grants.collect(), networks: Vec::new() }
    }

    /// These networks, too: those that settings allowed.
    pub(super) fn and_allowed_by(mut self, settings: &Settings) -> Self {
        if let Self::Those { networks, .. } = &mut self {
            networks.extend(settings.global.allow.iter().map(|&network| (None, network)));
            for app in &settings.apps {
                networks.extend(app.allow.iter().map(|&network| (Some(app.slug.clone()), network)));
            }
        }
        self
    }

    fn has(&self, slug: &str, addr: IpAddr, prefix: u8) -> bool {
        match self {
            Self::Everybody(app) => app.as_ref().is_none_or(|app| app == slug),
            Self::Those { grants, networks } => {
                let of_slug = |app: &Option<String>| app.as_ref().is_none_or(|app| app == slug);
                grants.contains(&(slug.to_owned(), ClientAddr::new(addr).masked_v6(prefix).ip()))
                    || networks.iter().any(|(app, network)| of_slug(app) && holds(*network, addr))
            }
        }
    }
}

fn holds(network: Network, addr: IpAddr) -> bool {
    (network.first()..=network.last()).contains(&addr)
}

/// Whether connections to any of these apps live on when their grants end.
pub(super) fn any_keeps(apps: &[App]) -> bool {
    apps.iter().any(|app| app.established == Established::Keep)
}

/// Whether what is sent to a port is for an app, by the port that clients use or by that of its LAN host.
pub(super) fn leads_to(app: &App, protocol: Protocol, server: SocketAddr) -> bool {
    let (addr, port) = (server.ip(), server.port());
    let lan_port = app.destination.host() == Some(addr) && app.destination.port() == Some(port);
    app.protocol.each().contains(&protocol)
        && (lan_port || app.ports.iter().any(|ports| ports.contains(port)))
}

/// Who is the client of which service; the other way round, too, where the service seems to have begun.
fn ways(flow: &Tracked) -> [(SocketAddr, SocketAddr); 2] {
    [(flow.client, flow.server), (flow.server, flow.client)]
}

impl Operations {
    /// Has connection tracking forget what those have open who were shut out just now.
    pub(super) fn cut_open(&mut self, out: &ShutOut) {
        if any_keeps(&self.settings.apps) {
            let (apps, prefix) = (self.settings.apps.clone(), self.settings.global.ipv6_prefix);
            self.cut_open_of(&apps, prefix, out);
        }
    }

    /// The same for apps as they were then, with the length of a grant's IPv6 prefix.
    pub(super) fn cut_open_of(&mut self, apps: &[App], prefix: u8, out: &ShutOut) {
        let known = match flows::known_connections() {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "connections of who was shut out may go on where established ones are kept, as the kernel does not list them: `conntrack -D -s ADDRESS` ends them"
                );
                return;
            }
        };
        for flow in known {
            let theirs = ways(&flow).into_iter().find(|(client, server)| {
                let mut of = apps.iter().filter(|app| leads_to(app, flow.protocol, *server));
                of.any(|app| {
                    out.has(&app.slug, client.ip(), prefix) && self.is_guarded(app, flow.protocol, *server)
                })
            });
            let Some((client, server)) = theirs else { continue };
            let number = flow.protocol.number();
            let adopted = !matches!(out, ShutOut::Everybody(_)) && self.adopted.knows(number, client, server);
            if adopted || self.may_reach(ClientAddr::new(client.ip()), flow.protocol, server) {
                continue;
            }
            if let Err(error) = flows::forget_connection(number, flow.client, flow.server) {
                tracing::warn!(%error, "a connection that was to end may go on as long as it is tracked");
            }
        }
    }

    /// Whether a port is guarded, or it was only by us that one came there: else it stands open to everybody.
    fn is_guarded(&self, was: &App, protocol: Protocol, server: SocketAddr) -> bool {
        was.destination.host().is_some()
            || self.settings.apps.iter().any(|app| leads_to(app, protocol, server))
    }

    /// Whether a grant or a network lets a client reach a port.
    fn may_reach(&mut self, client: ClientAddr, protocol: Protocol, server: SocketAddr) -> bool {
        let at_port: Vec<&App> =
            self.settings.apps.iter().filter(|app| leads_to(app, protocol, server)).collect();
        let slugs: Vec<String> = at_port.iter().map(|app| app.slug.clone()).collect();
        if slugs.is_empty() {
            return false;
        }
        let boot = clock::now().boot;
        let of_operators = self.allowed.iter().filter(|allowed| {
            allowed.until.is_none_or(|until| until > boot)
                && allowed.app.as_ref().is_none_or(|app| slugs.contains(app))
        });
        let of_settings = at_port.iter().flat_map(|app| &app.allow).chain(&self.settings.global.allow);
        let mut networks = of_operators.map(|allowed| &allowed.network).chain(of_settings);
        if networks.any(|network| holds(*network, client.ip())) {
            return true;
        }
        let addr = client.masked_v6(self.settings.global.ipv6_prefix);
        let key = address_key(addr.ip());
        let sets: Vec<GrantSet> = slugs.iter().flat_map(|slug| self.grant_sets_of(slug)).collect();
        // Where the kernel does not say, nobody is let in.
        sets.iter().any(|grants| {
            let set = SetRef::plain(grants.set(addr.family()));
            matches!(self.firewall.element(&set, &key), Ok(Some(_)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_shut_out_is_known_by_the_address_of_the_grant_or_the_network() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = ShutOut::one("ssh", addr("2001:db8::"));
        assert!(one.has("ssh", addr("2001:db8::77"), 64), "any address of the prefix");
        assert!(!one.has("ssh", addr("2001:db8::77"), 128) && !one.has("web", addr("2001:db8::"), 64));
        let networks = ShutOut::networks(vec![
            (Some("ssh".to_owned()), "192.0.2.0/24".parse().unwrap()),
            (None, "10.0.0.0/8".parse().unwrap()),
        ]);
        assert!(networks.has("ssh", addr("192.0.2.255"), 128) && networks.has("web", addr("10.9.9.9"), 128));
        assert!(!networks.has("web", addr("192.0.2.1"), 128) && !networks.has("ssh", addr("::1"), 128));
        assert!(ShutOut::Everybody(None).has("web", addr("::1"), 128));
        assert!(!ShutOut::Everybody(Some("ssh".to_owned())).has("web", addr("::1"), 128));
    }
}
