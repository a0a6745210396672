//! Clients who are shut out: what they have open ends, too. Where established connections live on (`established: keep`) the kernel
//! lets pass what connection tracking knows, so that it has to forget it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::knocked::GrantSet;
use super::operations::Operations;
use super::ways_in::WaysIn;
use crate::config::{App, Destination, Established, Settings};
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

    /// Whether somebody is among those. All of them, or all of a network, are those only who need a grant: who comes
    /// from outside.
    pub(super) fn has(
        &self,
        slug: &str,
        addr: IpAddr,
        prefix: u8,
        comes_from_outside: impl FnOnce() -> bool,
    ) -> bool {
        let of_slug = |app: &Option<String>| app.as_ref().is_none_or(|app| app == slug);
        match self {
            Self::Everybody(app) => of_slug(app) && comes_from_outside(),
            Self::Those { grants, networks } => {
                grants.contains(&(slug.to_owned(), ClientAddr::new(addr).masked_v6(prefix).ip()))
                    || networks.iter().any(|(app, network)| of_slug(app) && holds(*network, addr))
                        && comes_from_outside()
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

/// Whether a port of UDP leads to different ends: what is translated to the one would never come to the other, to which its client
/// may still have a grant.
fn lead_apart(apps: &[App]) -> bool {
    let udp = apps.iter().filter(|app| app.protocol.each().contains(&Protocol::Udp));
    let mut all: Vec<_> = udp
        .flat_map(|app| app.ports.iter().map(|ports| (ports.first(), ports.last(), app.destination)))
        .collect();
    all.sort_by_key(|&(first, ..)| first);
    let mut reach: Option<(u16, Destination)> = None;
    for (first, last, destination) in all {
        match reach {
            Some((far, other)) if far >= first && other != destination => return true,
            Some((far, _)) if far >= last => {}
            Some(_) | None => reach = Some((last, destination)),
        }
    }
    false
}

/// Who is the client of which service. With UDP the service may have taken a conversation up again, after connection
/// tracking forgot it, so that it seems to have begun it; with TCP such a packet is dropped.
fn ways(flow: &Tracked) -> impl Iterator<Item = Tracked> {
    let turned = Tracked { client: flow.server, server: flow.client, there: flow.client, ..*flow };
    [*flow].into_iter().chain((flow.protocol == Protocol::Udp).then_some(turned))
}

impl Operations {
    /// Has connection tracking forget what those have open who were shut out just now.
    pub(super) fn cut_open(&mut self, out: &ShutOut) {
        if any_keeps(&self.settings.apps) || lead_apart(&self.settings.apps) {
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
        let mut ways_in = WaysIn::now(&self.settings, self.options).with(self.own_addresses());
        let boot = clock::now().boot;
        for flow in known {
            let theirs = ways(&flow).find(|way| {
                let client = way.client.ip();
                let at = ways_in.apps(apps, way).into_iter();
                let slugs: Vec<&App> = at
                    .filter(|app| out.has(&app.slug, client, prefix, || ways_in.is_outside(client)))
                    .collect();
                // Else it stands open to everybody, unless it was only by us that one came there.
                let mut is_guarded = || !ways_in.apps(&self.settings.apps, way).is_empty();
                slugs.iter().any(|app| app.destination.host().is_some()) || !slugs.is_empty() && is_guarded()
            });
            let Some(way) = theirs else { continue };
            let adopted = !matches!(out, ShutOut::Everybody(_))
                && self.adopted.knows(flow.protocol, way.client, way.server);
            if adopted || self.may_reach(&way, &mut ways_in, boot) {
                continue;
            }
            self.outlasting.on_cut(&flow);
            if let Err(error) = flows::forget(&flow) {
                tracing::warn!(%error, "a connection that was to end may go on as long as it is tracked");
            }
        }
    }

    /// Whether a grant or a network lets a client reach what it is connected to.
    pub(super) fn may_reach(&mut self, flow: &Tracked, ways_in: &mut WaysIn, boot: Duration) -> bool {
        let at = ways_in.apps(&self.settings.apps, flow);
        let slugs: Vec<&str> = at.iter().map(|app| app.slug.as_str()).collect();
        if slugs.is_empty() {
            return false;
        }
        let client = ClientAddr::new(flow.client.ip());
        let of_operators = self.allowed.iter().filter(|allowed| {
            allowed.until.is_none_or(|until| until > boot)
                && allowed.app.as_deref().is_none_or(|app| slugs.contains(&app))
        });
        let of_settings = at.iter().flat_map(|app| &app.allow).chain(&self.settings.global.allow);
        let mut networks = of_operators.map(|allowed| &allowed.network).chain(of_settings);
        if networks.any(|network| holds(*network, client.ip())) {
            return true;
        }
        let addr = client.masked_v6(self.settings.global.ipv6_prefix);
        let key = address_key(addr.ip());
        let sets: Vec<GrantSet> = slugs.iter().flat_map(|slug| self.grant_sets_of(slug)).collect();
        let once: Vec<String> = at.iter().filter(|app| app.once).map(|app| app.slug.clone()).collect();
        // Where the kernel does not say, nobody is let in.
        sets.iter().any(|grants| {
            let set = SetRef::plain(grants.set(addr.family()));
            matches!(self.firewall.element(&set, &key), Ok(Some(_)))
        }) || once.iter().any(|slug| self.is_connected(slug, flow.protocol, flow.client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Alone, parse};

    #[test]
    fn ports_of_udp_that_lead_to_different_ends_are_found() {
        let lead_apart = |apps: &[(&str, &str, &str)]| {
            let keys =
                "  duration: 10\n  access_key_http: [first-key-N]\n  access_key_https: [second-key-N]\n";
            let sections = apps.iter().enumerate().map(|(n, (ports, protocol, to))| {
                let keys = keys.replace('N', &n.to_string());
                format!("app{n}:\n  port: {ports}\n  protocol: {protocol}\n  destination: {to}\n{keys}")
            });
            let global = "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n";
            let text = global.to_owned() + &sections.collect::<String>();
            let settings =
                parse("test", &text, None, &Alone).unwrap_or_else(|p| panic!("{p}\n{text}")).settings;
            lead_apart(&settings.apps)
        };
        let wide = ("7000-7100", "both", "10.0.0.5");
        for (other, apart) in [
            (("7050", "udp", "10.0.0.6"), true),
            (("7100-7200", "both", "10.0.0.5:9"), true),
            (("7050", "tcp", "10.0.0.6"), false),
            (("7101", "udp", "10.0.0.6"), false),
            (("7050", "udp", "10.0.0.5"), false),
        ] {
            assert_eq!(lead_apart(&[wide, other]), apart, "{other:?}");
            assert_eq!(lead_apart(&[("1", "udp", "10.0.0.7"), other, wide]), apart, "{other:?}");
        }
    }

    #[test]
    fn who_is_shut_out_is_known_by_the_address_of_the_grant_or_the_network() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let has = |out: &ShutOut, slug: &str, at: &str, prefix| out.has(slug, addr(at), prefix, || true);
        let one = ShutOut::one("ssh", addr("2001:db8::"));
        assert!(has(&one, "ssh", "2001:db8::77", 64), "any address of the prefix");
        assert!(!has(&one, "ssh", "2001:db8::77", 128) && !has(&one, "web", "2001:db8::", 64));
        assert!(one.has("ssh", addr("2001:db8::"), 64, || false), "whoever is named, wherever it is");
        let networks = ShutOut::networks(vec![
            (Some("ssh".to_owned()), "192.0.2.0/24".parse().unwrap()),
            (None, "10.0.0.0/8".parse().unwrap()),
        ]);
        assert!(has(&networks, "ssh", "192.0.2.255", 128) && has(&networks, "web", "10.9.9.9", 128));
        assert!(!has(&networks, "web", "192.0.2.1", 128) && !has(&networks, "ssh", "::1", 128));
        let (all, of_ssh) = (ShutOut::Everybody(None), ShutOut::Everybody(Some("ssh".to_owned())));
        assert!(has(&all, "web", "::1", 128) && !has(&of_ssh, "web", "::1", 128));
        for out in [networks, all] {
            assert!(!out.has("web", addr("10.9.9.9"), 128, || false), "inside, nobody needs a grant");
        }
    }
}
