//! The way back: what a guarded service sends outside needs a grant as well, so that a
//! stream ends with its grant even when only the service talks.

use crate::ruleset::expr::Side;
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{Chain, Rule};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::{Family, Protocol};

use super::adopted::{self, adopted_set};
use super::gate::lan_families;
use super::{Meets, behind, chain, for_clients, guarded_on};

/// Stem of the sets of clients' addresses and ports.
pub(super) const SPOKEN_SET: &str = "spoken";
/// Stem of the sets of clients' addresses, for those whose ports have no room in the sets above: one client has
/// 65,536 ports, but one place here.
pub(super) const SPOKEN_BY_SET: &str = "spoken_by";
/// The IPv6 addresses of a site share a place, whatever the prefix that a grant is for.
const SITE: u8 = 64;
/// Stem of the sets of this host's own addresses, as packets to it name them. A connection to another
/// address that somebody forwards (one-to-one NAT of a routed address) is none of ours, whatever its port.
pub(super) const OWN_SET: &str = "own";
/// How long that is remembered, in milliseconds: a service may know its peer's address for long.
pub const SPOKEN_MS: u64 = 30 * 86_400_000;

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let mut out = vec![
        chain("replies", replies(layout)),
        chain("replies_tracked", replies_tracked(layout)),
        chain("replies_stray", replies_stray(layout)),
    ];
    out.extend(
        layout.services.iter().map(|segment| reply_chain(layout, segment, &layout.here(segment), "rep")),
    );
    out.extend(layout.lan.iter().map(|segment| reply_chain(layout, segment, segment, "lrp")));
    out
}

/// Called for packets that leave by an outside interface.
fn replies(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![
        rule().reply_direction().goto("replies_tracked").named("replies"),
        // A service that goes on talking after connection tracking forgot the client would make
        // itself the originator, and the client's packets replies. With TCP the first packet tells;
        // with UDP only that the client spoke from there before.
        rule()
            .new_connection()
            .l4proto(Protocol::Tcp)
            .not_syn()
            .goto("replies_stray")
            .named("replies:midstream"),
        rule().untracked().goto("replies_stray").named("replies:untracked"),
        rule().invalid().goto("replies_stray").named("replies:invalid"),
    ];
    rules.extend(Family::BOTH.map(|family| {
        rule()
            .endpoint_in(family, Side::Destination, &spoken_set(family))
            .goto("replies_stray")
            .named("replies:turned")
    }));
    rules.extend(Family::BOTH.map(|family| {
        spoken_by(layout, rule(), family, Side::Destination).goto("replies_stray").named("replies:turned")
    }));
    rules.extend(Family::BOTH.map(|family| {
        rule()
            .tuple_in(family, Side::Destination, &adopted_set(family))
            .goto("replies_stray")
            .named("replies:adopted")
    }));
    rules
}

/// The set of this host's addresses that somebody has begun to talk to.
#[must_use]
pub fn own_set(family: Family) -> String {
    format!("{OWN_SET}_{}", family.digit())
}

/// The set of clients' ends of conversations that the service could take up by itself.
pub(super) fn spoken_set(family: Family) -> String {
    format!("{SPOKEN_SET}_{}", family.digit())
}

/// UDP from or to a client whose ports had no room.
pub(super) fn spoken_by(layout: &Layout<'_>, begin: RuleText, family: Family, side: Side) -> RuleText {
    begin.l4proto(Protocol::Udp).addr_in(family, side, site(layout), &spoken_by_set(family))
}

/// How much of an IPv6 address is compared there.
pub(super) fn site(layout: &Layout<'_>) -> u8 {
    layout.settings.global.ipv6_prefix.min(SITE)
}

/// The set of clients whose ports had no room.
pub(super) fn spoken_by_set(family: Family) -> String {
    format!("{SPOKEN_BY_SET}_{}", family.digit())
}

/// Replies of tracked connections, by the port the client used: of this host, of whoever
/// the connection was forwarded to, and of LAN hosts reached by a route.
fn replies_tracked(layout: &Layout<'_>) -> Vec<Rule> {
    // First, because a port that is forwarded may also be that of a service here, with grants of its own.
    let mut rules = from_lan(layout);
    for protocol in PROTOCOLS {
        let map = format!("reply_{protocol}");
        rules.push(rule().local(Side::Source).original_port_vmap(protocol, &map).named("replies:local"));
    }
    for family in Family::BOTH {
        for protocol in PROTOCOLS {
            let map = format!("reply_{protocol}");
            let text = rule().dnatted().originally_to(family, &own_set(family));
            rules.push(text.original_port_vmap(protocol, &map).named("replies:forwarded"));
        }
    }
    rules
}

/// Packets that no connection explains, by the port they come from.
fn replies_stray(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = from_lan(layout);
    for protocol in PROTOCOLS {
        let map = format!("reply_{protocol}");
        rules.push(rule().local(Side::Source).port_vmap(protocol, Side::Source, &map).named("replies:local"));
    }
    rules.push(behind::to_behind_out());
    rules
}

fn from_lan(layout: &Layout<'_>) -> Vec<Rule> {
    lan_families(layout)
        .into_iter()
        .map(|family| {
            let map = format!("lan_reply_{}", family.digit());
            rule().host_service_vmap(family, Side::Source, &map).named("replies:lan")
        })
        .collect()
}

/// `clients` is the segment with those apps whose grants count here.
fn reply_chain(layout: &Layout<'_>, segment: &Segment, clients: &Segment, stem: &str) -> Chain {
    let mut rules = vec![adopted::jump("adopted_out")];
    if segment.protocol == Protocol::Tcp {
        // In the middle of a connection that is not tracked (any more): the client's next packet makes it
        // one again, the right way round; the service's would turn it around.
        rules.push(rule().new_connection().counter().drop().named("cut:stray"));
    }
    rules.extend(granted(layout, segment, clients));
    rules.extend(cut(layout, segment));
    chain(format!("{stem}_{}", segment.name()), rules)
}

/// What is sent to those who are let in.
pub(super) fn granted(layout: &Layout<'_>, segment: &Segment, clients: &Segment) -> Vec<Rule> {
    let mark = layout.settings.global.mark;
    let mut rules = for_clients(layout, clients, Side::Destination, Meets::WhatPassed, |text, what| {
        text.mark(mark).counter().accept().named(what)
    });
    if layout.keeps_established(segment) && !clients.apps.is_empty() {
        rules.push(rule().established().mark(mark).counter().accept().named("keep"));
    }
    rules
}

/// What is sent to nobody who is let in. Where the segment is not guarded on every outside interface, an answer by another
/// one may be for somebody who came in there, unless a granted client spoke from its destination.
fn cut(layout: &Layout<'_>, segment: &Segment) -> Vec<Rule> {
    let what = format!("cut:{}", segment.name());
    let drops = |text: RuleText| text.counter().drop().named(&what);
    let Some(sets) = guarded_on(layout, segment) else { return vec![drops(rule())] };
    let mut rules: Vec<Rule> = sets.iter().map(|set| drops(rule().oifname(set))).collect();
    if segment.protocol == Protocol::Udp {
        let ends = Family::BOTH
            .map(|family| drops(rule().endpoint_in(family, Side::Destination, &spoken_set(family))));
        let clients = Family::BOTH.map(|family| drops(spoken_by(layout, rule(), family, Side::Destination)));
        rules.extend(ends.into_iter().chain(clients));
    }
    rules
}
