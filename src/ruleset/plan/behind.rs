//! Where others forward guarded ports of this host to, such as a container: learnt from packets of granted clients, so that
//! what a service there sends by itself is judged like what one of a configured LAN host sends.

use crate::ruleset::expr::Side;
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{Chain, KeyPart, Rule, Set};
use crate::ruleset::rule::rule;
use crate::units::{Family, Protocol};

use super::replies::{SPOKEN_MS, own_set, spoken_by, spoken_set};
use super::{chain, sets};

/// Stem of the sets of such ends, address and port. Only the host's own rules say how many there are.
const BEHIND_SET: &str = "behind";
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The guarded ports with an app that others may forward.
fn segments<'a>(layout: &'a Layout<'_>) -> impl Iterator<Item = &'a Segment> {
    layout.services.iter().filter(|segment| !layout.here(segment).apps.is_empty())
}

fn set(segment: &Segment, family: Family) -> String {
    format!("{BEHIND_SET}_{}_{}", segment.name(), family.digit())
}

pub(super) fn sets(layout: &Layout<'_>) -> Vec<Set> {
    let mut out = Vec::new();
    for segment in segments(layout) {
        let stem = format!("{BEHIND_SET}_{}", segment.name());
        let each = Family::BOTH.into_iter();
        out.extend(
            each.map(|family| sets::from_packets(&stem, vec![sets::address(family), KeyPart::Port], family)),
        );
    }
    for protocol in PROTOCOLS {
        let of_protocol: Vec<Segment> =
            segments(layout).filter(|segment| segment.protocol == protocol).cloned().collect();
        out.push(sets::verdicts(&format!("behind_{protocol}"), vec![KeyPart::Port], &of_protocol, "bhd"));
    }
    out
}

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let mut out = vec![
        chain("behind", behind()),
        chain("behind_out", behind_out(layout)),
        chain("behind_turned", behind_turned(layout)),
        chain("behind_own", behind_own(layout)),
    ];
    out.extend(segments(layout).map(learnt));
    out
}

/// Forwarded packets of clients, with others' translation done.
pub(super) fn to_behind() -> Rule {
    rule().iifname("ext").original_direction().dnatted().jump("behind").named("behind")
}

/// What arrives at a guarded port of this host has passed the gate.
fn behind() -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        for protocol in PROTOCOLS {
            let text = rule().originally_to(family, &own_set(family));
            rules.push(text.original_port_vmap(protocol, &format!("behind_{protocol}")).named("behind"));
        }
    }
    rules
}

fn learnt(segment: &Segment) -> Chain {
    let remember = |family| {
        let set = set(segment, family);
        rule().update_service(segment.protocol, family, &set, SPOKEN_MS).done().named("behind")
    };
    chain(format!("bhd_{}", segment.name()), Family::BOTH.map(remember).to_vec())
}

/// Packets that no connection explains, if they may begin one the other way round or belong to such a one.
pub(super) fn to_behind_out() -> Rule {
    rule().new_or_established().goto("behind_out").named("replies:behind")
}

fn behind_out(layout: &Layout<'_>) -> Vec<Rule> {
    let from = |segment: &Segment, family| {
        rule()
            .service_in(segment.protocol, family, Side::Source, &set(segment, family))
            .goto(&format!("rep_{}", segment.name()))
            .named("replies:behind")
    };
    segments(layout).flat_map(|segment| Family::BOTH.map(|family| from(segment, family))).collect()
}

/// Answers to what a service there sent, which may be a conversation that it took up by itself.
pub(super) fn to_turned() -> Rule {
    rule().iifname("ext").l4proto(Protocol::Udp).jump("behind_turned").named("behind:turned")
}

fn behind_turned(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Family::BOTH
        .map(|family| {
            let text = rule().endpoint_in(family, Side::Source, &spoken_set(family));
            text.goto("behind_own").named("behind:turned")
        })
        .to_vec();
    rules.extend(Family::BOTH.map(|family| {
        spoken_by(layout, rule(), family, Side::Source).goto("behind_own").named("behind:turned")
    }));
    rules
}

fn behind_own(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for segment in segments(layout).filter(|segment| segment.protocol == Protocol::Udp) {
        rules.extend(Family::BOTH.map(|family| {
            rule()
                .service_in(Protocol::Udp, family, Side::Destination, &set(segment, family))
                .goto(&format!("inp_{}", segment.name()))
                .named("behind:turned")
        }));
    }
    rules
}
