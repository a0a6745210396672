//! Forwarding to LAN hosts: for granted clients only, before the host's own translations.

use std::net::IpAddr;

use super::model::{Chain, Table};
use super::names;
use super::phrase::{Phrase, Side, rule};
use super::plan::{Draft, table};
use super::step1;
use crate::config::App;
use crate::ruleset::plan::allow_set;
use crate::units::{Family, IfName, PortRange, Protocol};

/// The nat table; none where nothing is forwarded in this family.
pub(super) fn nat(draft: &Draft<'_>, family: Family) -> Option<Table> {
    let forwarded: Vec<(&App, IpAddr)> =
        draft.layout.forwarded().filter(|(_, host)| Family::of(*host) == family).collect();
    if forwarded.is_empty() {
        return None;
    }
    let masqueraded = || forwarded.iter().filter(|(app, _)| app.masquerade);
    let mut chains = vec![
        Chain::new("dstnat", forwarded.iter().flat_map(|&(app, _)| arriving(draft, app)).collect()),
        Chain::new("srcnat", masqueraded().flat_map(|&(app, host)| leaving(app, host)).collect()),
    ];
    for &(app, host) in &forwarded {
        let to = match app.destination.port() {
            None => host.to_string(),
            Some(port) => std::net::SocketAddr::new(host, port).to_string(),
        };
        let remapped = app.destination.port().is_some();
        let dnat = |text: Phrase, what: &str| text.target(&format!("-j DNAT --to-destination {to}"), what);
        chains.push(chain("dnat", app, clients(draft, app, family, remapped, dnat)));
        if app.masquerade {
            let as_us = |text: Phrase, what: &str| text.target("-j MASQUERADE", what);
            chains.push(chain("snat", app, clients(draft, app, family, false, as_us)));
        }
    }
    let hooks = vec![step1::hook("PREROUTING", "dstnat"), step1::hook("POSTROUTING", "srcnat")];
    Some(table("nat", hooks, chains))
}

/// The stem of an app's chain.
fn chain_of(prefix: &str, slug: &str) -> String {
    format!("{prefix}_{slug}")
}

fn chain(prefix: &str, app: &App, rules: Vec<String>) -> Chain {
    Chain { name: names::chain(&chain_of(prefix, &app.slug)), rules }
}

fn arriving(draft: &Draft<'_>, app: &App) -> Vec<String> {
    let all: Vec<&IfName> = match draft.own_interfaces(app) {
        Some(own) => own.iter().collect(),
        None => draft.layout.ext.iter().copied().collect(),
    };
    let mut rules = Vec::new();
    for name in all {
        for &protocol in app.protocol.each() {
            for &ports in &app.ports {
                let text = rule().iif(name).dport(protocol, ports).address_type(Side::Destination, "LOCAL");
                rules.push(text.jump(&chain_of("dnat", &app.slug), &format!("dnat:{}", app.slug)));
            }
        }
    }
    rules
}

/// By the port that the client used as well: another app may lead to the same place.
fn leaving(app: &App, host: IpAddr) -> Vec<String> {
    let there = app.destination.port().and_then(|port| PortRange::new(port, port).ok());
    let mut rules = Vec::new();
    for &protocol in app.protocol.each() {
        for &ports in &app.ports {
            let text = rule().sent_to(host).dport(protocol, there.unwrap_or(ports)).dnatted();
            let text = text.original_port(protocol, ports);
            rules.push(text.jump(&chain_of("snat", &app.slug), &format!("snat:{}", app.slug)));
        }
    }
    rules
}

/// One rule per set of clients, and per protocol where the port is translated.
fn clients(
    draft: &Draft<'_>,
    app: &App,
    family: Family,
    per_protocol: bool,
    finish: impl Fn(Phrase, &str) -> String,
) -> Vec<String> {
    let mut sets = draft.sets_of(app, family);
    sets.push((allow_set("all", family), "allow:all".to_owned()));
    let begin: Vec<Option<Protocol>> =
        if per_protocol { app.protocol.each().iter().copied().map(Some).collect() } else { vec![None] };
    let mut rules = Vec::new();
    for protocol in begin {
        for (set, what) in &sets {
            let text = protocol.map_or_else(rule, |protocol| rule().protocol(protocol));
            let each = draft.asked(&text, set, family, Side::Source).into_iter();
            rules.extend(each.map(|text| finish(text, what)));
        }
    }
    rules
}
