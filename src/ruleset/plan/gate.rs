//! The gate: every packet towards a guarded port needs a grant, whoever forwards it afterwards.

use crate::ruleset::expr::Side;
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{Chain, Hook, Rule};
use crate::ruleset::rule::rule;
use crate::units::{Family, IfName, Protocol};

use super::adopted::{self, adopted_set};
use super::replies::{self, SPOKEN_MS, own_set, spoken_by_set, spoken_set};
use super::step1::to_port;
use super::{Meets, backend, behind, chain, drop_the_rest, filter, for_clients, knock, once, step2_set};

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let mut out = vec![filter("gate", Hook::Prerouting, -150, gate(layout))];
    out.push(chain("forged", vec![rule().counter().drop().named("drop:forged")]));
    out.push(chain("outward", outward(layout)));
    out.push(chain("from_inside", from_inside(layout)));
    out.push(chain("gate_own", gate_own(layout)));
    out.push(chain("spoke", spoke(layout)));
    out.push(chain("passed", passed()));
    if layout.settings.global.steps {
        out.push(chain("step2_gate", step2_gate(layout)));
    }
    out.extend(layout.services.iter().map(|segment| service_chain(layout, segment, "svc", false)));
    out.push(chain("gate_forward_own", gate_forward_own(layout)));
    out.push(filter("gate_forward", Hook::Forward, -10, gate_forward(layout)));
    out.extend(layout.lan.iter().map(|segment| service_chain(layout, segment, "lan", true)));
    out
}

fn gate(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![rule().reply_direction().goto("gate_own").named("own")];
    rules.extend(forged(layout));
    if layout.settings.global.steps {
        rules.push(to_port(layout.options.http_port).goto(&knock::step_gate(layout, 1)).named("step1"));
        rules.push(to_port(layout.options.https_port).goto(&knock::step_gate(layout, 2)).named("step2"));
    }
    rules.extend(backend::to_gate(layout));
    rules.extend(knock::to_knock(layout));
    rules.push(rule().iifname("ext").for_this_host().service_vmap("services").named("services"));
    rules.extend(knock::to_reset(layout));
    rules
}

/// Connections from outside that claim to be begun by this host, or by a service on a LAN host: whoever began one so
/// could go on in the other direction, by which only answers come. Nobody's next packet finds a connection
/// whose first one was dropped.
fn forged(layout: &Layout<'_>) -> Vec<Rule> {
    // A stranger can make a helper wait for it, where the host has one: such a packet is related, and not new.
    let begun = || rule().iifname("ext").new_or_related();
    // What this host sends to many comes back to its own programs, as if from outside.
    let mut rules = vec![
        begun().local(Side::Source).for_one_host().goto("forged").named("forged"),
        begun().anycast(Side::Source).for_one_host().goto("forged").named("forged"),
    ];
    for family in lan_families(layout) {
        let map = format!("lan_forged_{}", family.digit());
        rules.push(begun().host_service_vmap(family, Side::Source, &map).named("forged:lan"));
    }
    // What is bridged shows the bridge as its interface, but goes by no route of ours, whoever it is from.
    rules.push(begun().not_by_bridge().for_another().jump("outward").named("outward"));
    rules
}

/// What goes out again where outside is.
fn outward(layout: &Layout<'_>) -> Vec<Rule> {
    let by = |name: &IfName| rule().routed_by(Side::Destination, name).goto("from_inside").named("outward");
    let mut rules: Vec<Rule> = layout.ext.iter().map(|name| by(name)).collect();
    // Where rules of routing ask for the incoming interface, no route is found here.
    rules.push(rule().unrouted(Side::Destination).goto("from_inside").named("outward:unknown"));
    rules
}

/// Whether it claims to be from a host behind this one: such as one that others translate a guarded port to (a container),
/// whose answers they send on in this host's name.
fn from_inside(layout: &Layout<'_>) -> Vec<Rule> {
    let outside = |name: &IfName| rule().routed_by(Side::Source, name).back().named("outward:outside");
    let mut rules: Vec<Rule> = layout.ext.iter().map(|name| outside(name)).collect();
    rules.push(rule().unrouted(Side::Source).back().named("outward:unknown"));
    rules.push(rule().goto("forged").named("forged:inside"));
    rules
}

/// Answers to connections that this host or a LAN host made from a port that happens to be guarded;
/// but not those of a client to whom the service began to talk by itself, after connection tracking
/// had forgotten it: they are what a grant is for.
fn gate_own(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Family::BOTH
        .into_iter()
        .map(|family| {
            rule()
                .iifname("ext")
                .endpoint_in(family, Side::Source, &spoken_set(family))
                .for_this_host()
                .service_vmap("services")
                .named("turned")
        })
        .collect();
    rules.extend(Family::BOTH.map(|family| {
        replies::spoken_by(layout, rule().iifname("ext"), family, Side::Source)
            .for_this_host()
            .service_vmap("services")
            .named("turned")
    }));
    // Connection tracking may learn of a flow of before from a packet of the service.
    rules.extend(Family::BOTH.map(|family| {
        rule()
            .iifname("ext")
            .tuple_in(family, Side::Source, &adopted_set(family))
            .for_this_host()
            .service_vmap("services")
            .named("adopted:turned")
    }));
    rules.push(rule().accept().named("own"));
    rules
}

/// Remembers that a granted client spoke from here, or where there is no room for its ports, that it spoke at all.
/// A rule whose set is full goes no further. Who cannot be remembered does not come in, as its grant might never end.
fn spoke(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Family::BOTH
        .into_iter()
        .map(|family| {
            rule()
                .update_endpoint(family, Side::Source, &spoken_set(family), SPOKEN_MS)
                .goto("passed")
                .named("spoken")
        })
        .collect();
    rules.extend(Family::BOTH.map(|family| {
        rule()
            .remember_source(family, replies::site(layout), &spoken_by_set(family), SPOKEN_MS)
            .goto("passed")
            .named("spoken")
    }));
    rules.push(rule().counter().drop().named("drop:spoken"));
    rules
}

/// Remembers to which address of this host a granted client turned. Not what strangers turned to, and none that is only
/// not somebody else's: a prefix that is delegated to a host has an unreachable route, and more addresses than the set.
fn passed() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Family::BOTH
        .into_iter()
        .map(|family| {
            rule()
                .new_connection()
                .local(Side::Destination)
                .update_destination(family, &own_set(family), SPOKEN_MS)
                .done()
                .named("own-address")
        })
        .collect();
    rules.push(rule().accept().named("passed"));
    rules
}

/// A client on this host comes by the loopback interface, whatever addresses it uses; nobody else does.
fn step2_gate(layout: &Layout<'_>) -> Vec<Rule> {
    let here = || rule().on_loopback().counter().accept().named("step2:here");
    let mut rules: Vec<Rule> = (!layout.guards_loopback()).then(here).into_iter().collect();
    rules.extend(Family::BOTH.map(|family| {
        let text = rule().addr_in(family, Side::Source, 128, &step2_set(family));
        text.counter().accept().named("step2:admitted")
    }));
    rules.push(rule().going_on(Protocol::Tcp).counter().accept().named("step2:begun"));
    rules.push(rule().counter().drop().named("drop:step2"));
    rules
}

/// Packets from outside straight to a LAN host, whether somebody translated them or not.
fn gate_forward(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![
        rule().reply_direction().goto("gate_forward_own").named("own"),
        // Only a source route takes a packet for this host elsewhere, and it names the LAN host too late to be seen.
        rule()
            .iifname("ext")
            .ip_options()
            .local(Side::Destination)
            .counter()
            .drop()
            .named("drop:source-route"),
    ];
    for family in lan_families(layout) {
        let map = format!("lan_{}", family.digit());
        rules.push(rule().iifname("ext").host_service_vmap(family, Side::Destination, &map).named("lan"));
    }
    rules
}

fn gate_forward_own(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in lan_families(layout) {
        let map = format!("lan_{}", family.digit());
        rules.push(
            rule()
                .iifname("ext")
                .endpoint_in(family, Side::Source, &spoken_set(family))
                .host_service_vmap_here(family, Side::Destination, &map)
                .named("turned"),
        );
    }
    for family in lan_families(layout) {
        let map = format!("lan_{}", family.digit());
        rules.push(
            replies::spoken_by(layout, rule().iifname("ext"), family, Side::Source)
                .host_service_vmap_here(family, Side::Destination, &map)
                .named("turned"),
        );
    }
    for family in lan_families(layout) {
        let map = format!("lan_{}", family.digit());
        rules.push(
            rule()
                .iifname("ext")
                .tuple_in(family, Side::Source, &adopted_set(family))
                .host_service_vmap_here(family, Side::Destination, &map)
                .named("adopted:turned"),
        );
    }
    rules.push(behind::to_turned());
    rules.push(rule().accept().named("own"));
    rules
}

/// The families of the LAN hosts that services are forwarded to.
pub(super) fn lan_families(layout: &Layout<'_>) -> Vec<Family> {
    let any = |family| layout.lan.iter().any(|segment| segment.host.map(Family::of) == Some(family));
    Family::BOTH.into_iter().filter(|&family| any(family)).collect()
}

fn service_chain(layout: &Layout<'_>, segment: &Segment, stem: &str, with_mark: bool) -> Chain {
    let mark = layout.settings.global.mark.filter(|_| with_mark);
    let mut rules = for_clients(layout, segment, Side::Source, Meets::FirstPackets, |text, what| {
        let text = text.mark(mark).counter();
        match segment.protocol {
            Protocol::Tcp if with_mark => text.accept(),
            Protocol::Tcp => text.goto("passed"),
            Protocol::Udp => text.goto("spoke"),
        }
        .named(what)
    });
    if layout.keeps_established(segment) {
        rules.extend(once::losers(layout, segment, |app| match layout.own_interfaces(app) {
            Some(set) => rule().iifname(&set),
            None => rule(),
        }));
        rules.push(rule().going_on(segment.protocol).mark(mark).counter().accept().named("keep"));
    }
    rules.push(adopted::jump(if with_mark { "adopted_in" } else { "adopted_gate" }));
    rules.extend(drop_the_rest(layout, segment, "drop"));
    chain(format!("{stem}_{}", segment.name()), rules)
}
