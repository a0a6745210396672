//! The gate: every packet towards a guarded port needs a grant, whoever forwards it afterwards.

use crate::ruleset::expr::Side;
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{Chain, Hook, Rule};
use crate::ruleset::rule::rule;
use crate::units::Family;

use super::step1::to_port;
use super::{chain, drop_the_rest, filter, for_clients, step2_set};

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let mut out = vec![filter("gate", Hook::Prerouting, -150, gate(layout))];
    out.push(chain("step2_gate", step2_gate()));
    out.extend(layout.services.iter().map(|segment| service_chain(layout, segment, "svc", false)));
    out.push(filter("gate_forward", Hook::Forward, -10, gate_forward(layout)));
    out.extend(layout.lan.iter().map(|segment| service_chain(layout, segment, "lan", true)));
    out
}

fn gate(layout: &Layout<'_>) -> Vec<Rule> {
    vec![
        // Answers to connections that this host or a LAN host made from a port that happens to be guarded.
        rule().reply_direction().accept().named("own"),
        to_port(layout.options.http_port).goto("step1_gate").named("step1"),
        to_port(layout.options.https_port).goto("step2_gate").named("step2"),
        rule().iifname("ext").for_this_host().service_vmap("services").named("services"),
    ]
}

fn step2_gate() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Family::BOTH
        .into_iter()
        .map(|family| {
            rule()
                .addr_in(family, Side::Source, 128, &step2_set(family))
                .counter()
                .accept()
                .named("step2:admitted")
        })
        .collect();
    rules.push(rule().established().counter().accept().named("step2:begun"));
    rules.push(rule().counter().drop().named("drop:step2"));
    rules
}

/// Packets from outside straight to a LAN host, whether somebody translated them or not.
fn gate_forward(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![rule().reply_direction().accept().named("own")];
    for family in lan_families(layout) {
        let map = format!("lan_{}", family.digit());
        rules.push(rule().iifname("ext").host_service_vmap(family, Side::Destination, &map).named("lan"));
    }
    rules
}

/// The families of the LAN hosts that services are forwarded to.
pub(super) fn lan_families(layout: &Layout<'_>) -> Vec<Family> {
    let any = |family| layout.lan.iter().any(|segment| segment.host.map(Family::of) == Some(family));
    Family::BOTH.into_iter().filter(|&family| any(family)).collect()
}

fn service_chain(layout: &Layout<'_>, segment: &Segment, stem: &str, with_mark: bool) -> Chain {
    let mark = layout.settings.global.mark.filter(|_| with_mark);
    let mut rules = for_clients(layout, segment, Side::Source, |text, what| {
        text.mark(mark).counter().accept().named(what)
    });
    if layout.keeps_established(segment) {
        rules.push(rule().established().mark(mark).counter().accept().named("keep"));
    }
    rules.extend(drop_the_rest(layout, segment, true, "drop"));
    chain(format!("{stem}_{}", segment.name()), rules)
}
