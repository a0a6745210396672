//! Forwarding to LAN hosts: for granted clients only.

use std::net::IpAddr;

use crate::config::App;
use crate::ruleset::expr::Side;
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{Chain, ChainType, Hook, Rule};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::{Family, PortRange, Protocol};

use super::{allow_set, app_set, base, chain, once};

/// Before the usual -100 and 100, so that a client we let in is not forwarded elsewhere.
const DSTNAT: i32 = -110;
const SRCNAT: i32 = 90;

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let forwarded: Vec<_> = layout.forwarded().collect();
    if forwarded.is_empty() {
        return Vec::new();
    }
    let masqueraded = || forwarded.iter().copied().filter(|(app, _)| app.masquerade);
    let dstnat = forwarded.iter().flat_map(|&(app, _)| arriving(layout, app)).collect();
    let srcnat = masqueraded().flat_map(|(app, host)| leaving(app, host)).collect();
    let mut out = vec![
        base("dstnat", ChainType::Nat, Hook::Prerouting, DSTNAT, dstnat),
        base("srcnat", ChainType::Nat, Hook::Postrouting, SRCNAT, srcnat),
    ];
    for &(app, host) in &forwarded {
        // nft wants the protocol in a rule that translates the port.
        let remapped: &[Protocol] = if app.destination.port().is_some() { app.protocol.each() } else { &[] };
        let to_host = clients(layout, app, host, remapped, |text, what| {
            text.counter().dnat(host, app.destination.port()).named(what)
        });
        out.push(chain(format!("dnat_{}", app.slug), to_host));
        if app.masquerade {
            let as_us = clients(layout, app, host, &[], |text, what| text.counter().masquerade().named(what));
            out.push(chain(format!("snat_{}", app.slug), as_us));
        }
    }
    out
}

fn arriving(layout: &Layout<'_>, app: &App) -> Vec<Rule> {
    let set = layout.own_interfaces(app).unwrap_or_else(|| "ext".to_owned());
    let mut rules = Vec::new();
    for &protocol in app.protocol.each() {
        for &ports in &app.ports {
            rules.push(
                rule()
                    .iifname(&set)
                    .local(Side::Destination)
                    .port(protocol, Side::Destination, ports)
                    .jump(&format!("dnat_{}", app.slug))
                    .named(&format!("dnat:{}", app.slug)),
            );
        }
    }
    rules
}

/// By the port that the client used as well: another app may lead to the same place.
fn leaving(app: &App, host: IpAddr) -> Vec<Rule> {
    let there = app.destination.port().and_then(|port| PortRange::new(port, port).ok());
    let mut rules = Vec::new();
    for &protocol in app.protocol.each() {
        for &ports in &app.ports {
            rules.push(
                rule()
                    .dnatted()
                    .addr_is(Side::Destination, host)
                    .port(protocol, Side::Destination, there.unwrap_or(ports))
                    .original_port(ports)
                    .jump(&format!("snat_{}", app.slug))
                    .named(&format!("snat:{}", app.slug)),
            );
        }
    }
    rules
}

/// One rule per set of clients, and per protocol where `protocols` names them.
fn clients(
    layout: &Layout<'_>,
    app: &App,
    host: IpAddr,
    protocols: &[Protocol],
    finish: impl Fn(RuleText, &str) -> Rule,
) -> Vec<Rule> {
    let family = Family::of(host);
    let prefix = layout.settings.global.ipv6_prefix;
    let grants =
        layout.knocking.of_app(app).map(|grants| (grants.set(family), format!("knocked:{}", app.slug)));
    let mut sets = vec![(app_set(&app.slug, family), format!("grant:{}", app.slug))];
    sets.extend(grants);
    let allowed = [
        (allow_set(&app.slug, family), format!("allow:{}", app.slug)),
        (allow_set("all", family), "allow:all".to_owned()),
    ];
    let begin: Vec<Option<Protocol>> =
        if protocols.is_empty() { vec![None] } else { protocols.iter().copied().map(Some).collect() };
    let mut rules = Vec::new();
    for protocol in begin {
        let begin = || protocol.map_or_else(rule, |protocol| rule().l4proto(protocol));
        if app.once {
            let texts = once::forwarded(layout, app, family, protocol, begin);
            rules.extend(texts.into_iter().map(|text| finish(text, &once::named(app))));
        } else {
            for (set, what) in &sets {
                rules.push(finish(begin().addr_in(family, Side::Source, prefix, set), what));
            }
        }
        for (set, what) in &allowed {
            rules.push(finish(begin().addr_in(family, Side::Source, 128, set), what));
        }
    }
    rules
}
