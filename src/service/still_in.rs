//! What lets an address in all the same whose grant an operator took back: allowed networks, and grants for other apps
//! that have the same port.

use std::collections::{BTreeMap, BTreeSet};

use super::operations::Operations;
use super::status::{self, Kind, Row};
use crate::ruleset::diff::Live;
use crate::ruleset::layout::{Layout, Segment};
use crate::units::{ClientAddr, Network, Now};

/// What is said of a revocation: whether there was a grant, and what lets the address in all the same.
pub(super) fn revoked(client: ClientAddr, app: &str, had: bool, ways: &[String]) -> String {
    let but = format!("but is let in all the same: {}", ways.join("; "));
    match (had, ways.is_empty()) {
        (true, true) => format!("{client} may no longer reach {app}"),
        (false, true) => format!("{client} had no grant for {app}"),
        (true, false) => format!("{client} has no grant for {app} any more, {but}"),
        (false, false) => format!("{client} had no grant for {app}, {but}"),
    }
}

impl Operations {
    /// What lets an address reach an app, by its name, besides a grant for it.
    pub(super) fn still_in(&self, app: &str, client: ClientAddr, now: Now) -> Vec<String> {
        let Ok(app) = self.app(app) else { return Vec::new() };
        let networks = self.networks_of(Some(&app.slug), now).into_iter().filter(|net| has(net, client));
        let mut out: Vec<String> = networks.map(by_network).collect();
        let addr = client.masked_v6(self.settings.global.ipv6_prefix);
        let beside = self.beside(&app.slug);
        let held: BTreeSet<String> =
            self.grants_of(addr.ip(), now).into_iter().map(|(slug, ..)| slug).collect();
        let names = self.names();
        out.extend(
            held.iter()
                .filter(|slug| beside.contains(*slug))
                .map(|slug| by_app(names.get(slug).unwrap_or(slug), client)),
        );
        out
    }

    /// How many networks are let in to an app, by its name, or to any.
    pub(super) fn count_networks(&self, app: Option<&str>, now: Now) -> usize {
        let slug = app.and_then(|name| self.app(name).ok()).map(|app| app.slug.as_str());
        self.networks_of(slug, now).len()
    }

    /// The networks that may reach an app, by its slug, or any.
    fn networks_of(&self, slug: Option<&str>, now: Now) -> BTreeSet<Network> {
        let asked = |app: &str| slug.is_none_or(|slug| slug == app);
        let settings = self.settings();
        let apps = settings.apps.iter().filter(|app| asked(&app.slug)).flat_map(|app| &app.allow);
        let by_operators = self.allowed.iter().filter(|have| {
            have.app.as_deref().is_none_or(asked) && have.until.is_none_or(|until| until > now.boot)
        });
        let by_operators = by_operators.map(|have| have.network);
        settings.global.allow.iter().chain(apps).copied().chain(by_operators).collect()
    }

    /// The slugs of the other apps whose grants open what this one's do.
    fn beside(&self, slug: &str) -> BTreeSet<String> {
        let (settings, options) = self.in_force();
        let layout = Layout::new(settings, options);
        let this = layout.settings.apps.iter().find(|app| app.slug == slug);
        let Some(host) = this.map(|app| app.destination.host()) else { return BTreeSet::new() };
        let of = |segment: &Segment| {
            let all: Vec<_> = layout.apps(segment).collect();
            let meets = all.iter().any(|app| app.slug == slug);
            let others = all.into_iter().filter(|app| app.slug != slug && app.destination.host() == host);
            others.filter(|_| meets).map(|app| app.slug.clone()).collect::<Vec<_>>()
        };
        layout.services.iter().chain(&layout.lan).flat_map(of).collect()
    }
}

/// The same as far as the kernel lists it, where there is no configuration; apps by their slugs.
pub(super) fn by_kernel(live: &Live, slug: &str, client: ClientAddr, prefix: u8) -> Vec<String> {
    let ports = status::services(live, slug);
    let meets = |row: &Row| {
        row.services.iter().any(|other| {
            let same = |port: &&status::Service| port.protocol == other.protocol;
            ports.iter().filter(same).any(|port| port.first <= other.last && other.first <= port.last)
        })
    };
    let rows = status::status("", live, &BTreeMap::new(), prefix, None).grants;
    let rows = rows.into_iter().filter_map(|row| {
        let network = row.address.parse::<Network>().ok().filter(|network| has(network, client))?;
        match row.kind {
            Kind::Allow if row.app == slug || row.app == "*" => Some(by_network(network)),
            Kind::Service if row.app != slug && meets(&row) => Some(by_app(&row.app, client)),
            Kind::Allow | Kind::Service | Kind::Step2 | Kind::Once => None,
        }
    });
    rows.collect::<BTreeSet<_>>().into_iter().collect()
}

fn has(network: &Network, client: ClientAddr) -> bool {
    let addr = client.ip();
    network.family() == client.family() && network.first() <= addr && addr <= network.last()
}

fn by_network(network: Network) -> String {
    format!("by {network}, which is allowed (`knock-agent allow --list`)")
}

fn by_app(app: &str, client: ClientAddr) -> String {
    format!("by a grant for {app}, which has the same port (`knock-agent revoke {app} {client}`)")
}
