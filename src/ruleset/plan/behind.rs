//! Where others forward guarded ports of this host to, such as a container: learnt from packets of granted clients, so that
//! what a service there sends by itself is judged like what one of a configured LAN host sends. Several ports may lead to one
//! place, and a place may become that of another port: by which port a client came itself tells which grant counts.

use crate::ruleset::expr::Side;
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{Chain, KeyPart, Rule, Set};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::{Family, Protocol};

use super::replies::{self, SPOKEN_MS, own_set, site, spoken_by, spoken_set};
use super::{adopted, chain, guarded_on, marks, sets};

/// Stem of the sets of such ends, address and port. Only the host's own rules say how many there are.
const BEHIND_SET: &str = "behind";
/// Stem of the sets of the ends of clients that came by a UDP port.
const OF_SET: &str = "behind_of";
/// Stem of the sets of clients for whose ends there was no room.
const BY_SET: &str = "behind_by";
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The guarded ports with an app that others may forward.
fn segments<'a>(layout: &'a Layout<'_>) -> impl Iterator<Item = &'a Segment> {
    layout.services.iter().filter(|segment| !layout.here(segment).apps.is_empty())
}

/// Those where only memory tells whose conversation it is.
fn udp<'a>(layout: &'a Layout<'_>) -> impl Iterator<Item = &'a Segment> {
    segments(layout).filter(|segment| segment.protocol == Protocol::Udp)
}

fn set(stem: &str, segment: &Segment, family: Family) -> String {
    format!("{stem}_{}_{}", segment.name(), family.digit())
}

pub(super) fn sets(layout: &Layout<'_>) -> Vec<Set> {
    let mut out = Vec::new();
    for segment in segments(layout) {
        out.extend(Family::BOTH.map(|family| ends(BEHIND_SET, segment, family)));
        if segment.protocol == Protocol::Udp {
            out.extend(Family::BOTH.map(|family| ends(OF_SET, segment, family)));
            out.extend(Family::BOTH.map(|family| clients(segment, family)));
        }
    }
    for protocol in PROTOCOLS {
        let of_protocol: Vec<Segment> =
            segments(layout).filter(|segment| segment.protocol == protocol).cloned().collect();
        out.push(sets::verdicts(&format!("behind_{protocol}"), vec![KeyPart::Port], &of_protocol, "bhd"));
    }
    out
}

fn ends(stem: &str, segment: &Segment, family: Family) -> Set {
    let key = vec![sets::address(family), KeyPart::Port];
    sets::from_packets(&format!("{stem}_{}", segment.name()), key, family)
}

/// As one client has as many ports as the set of ends has places, its neighbours have one each here.
fn clients(segment: &Segment, family: Family) -> Set {
    let stem = format!("{BY_SET}_{}", segment.name());
    Set { size: Some(sets::GRANTS), ..sets::from_packets(&stem, vec![sets::address(family)], family) }
}

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let mut out = vec![
        chain("behind", behind()),
        chain("behind_out", behind_out(layout)),
        chain("behind_cut", rest(layout, Way::Out)),
        chain("behind_turned", behind_turned(layout)),
        chain("behind_own", behind_own(layout)),
        chain("behind_drop", rest(layout, Way::In)),
    ];
    out.extend(segments(layout).map(|segment| learnt(layout, segment)));
    let granted = |segment: &Segment| replies::granted(layout, segment, &layout.here(segment));
    out.extend(udp(layout).map(|segment| chain(Way::Out.granted(segment), granted(segment))));
    out.extend(udp(layout).map(|segment| chain(Way::In.granted(segment), marks::granted(layout, segment))));
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

fn learnt(layout: &Layout<'_>, segment: &Segment) -> Chain {
    let remember = |family| {
        let set = set(BEHIND_SET, segment, family);
        rule().update_service(segment.protocol, family, &set, SPOKEN_MS).done().named("behind")
    };
    let mut rules = Family::BOTH.map(remember).to_vec();
    if segment.protocol == Protocol::Udp {
        rules.extend(Family::BOTH.map(|family| {
            let set = set(OF_SET, segment, family);
            rule().update_endpoint(family, Side::Source, &set, SPOKEN_MS).back().named("behind:of")
        }));
        rules.extend(Family::BOTH.map(|family| {
            let set = set(BY_SET, segment, family);
            rule().remember_source(family, site(layout), &set, SPOKEN_MS).done().named("behind:by")
        }));
    }
    chain(format!("bhd_{}", segment.name()), rules)
}

/// Packets that no connection explains, if they may begin one the other way round or belong to such a one.
pub(super) fn to_behind_out() -> Rule {
    rule().new_or_established().goto("behind_out").named("replies:behind")
}

fn behind_out(layout: &Layout<'_>) -> Vec<Rule> {
    let from = |segment: &Segment, family| {
        rule()
            .service_in(segment.protocol, family, Side::Source, &set(BEHIND_SET, segment, family))
            .goto(&format!("rep_{}", segment.name()))
            .named("replies:behind")
    };
    let tcp = segments(layout).filter(|segment| segment.protocol == Protocol::Tcp);
    let mut rules: Vec<Rule> =
        tcp.flat_map(|segment| Family::BOTH.map(|family| from(segment, family))).collect();
    rules.push(rule().l4proto(Protocol::Udp).jump("adopted_out").named("adopted"));
    rules.extend(judged(layout, Way::Out));
    rules
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
    let mut rules = vec![adopted::jump("adopted_in")];
    rules.extend(judged(layout, Way::In));
    rules
}

/// What goes which way between a service that others translate a UDP port to and a client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

impl Way {
    fn service(self) -> Side {
        match self {
            Self::Out => Side::Source,
            Self::In => Side::Destination,
        }
    }

    fn client(self) -> Side {
        match self {
            Self::Out => Side::Destination,
            Self::In => Side::Source,
        }
    }

    /// The chain that lets through what a port's grants let through, and nothing else.
    fn granted(self, segment: &Segment) -> String {
        let stem = match self {
            Self::Out => "bho",
            Self::In => "bhi",
        };
        format!("{stem}_{}", segment.name())
    }

    fn rest(self) -> &'static str {
        match self {
            Self::Out => "behind_cut",
            Self::In => "behind_drop",
        }
    }

    fn named(self) -> &'static str {
        match self {
            Self::Out => "replies:behind",
            Self::In => "behind:turned",
        }
    }
}

/// A grant counts for the ports by which the client came itself. Of a client that came by none of them it is not known
/// which it means (what it did before this was remembered, or a conversation that the service began): any of those that
/// lead there will do.
fn judged(layout: &Layout<'_>, way: Way) -> Vec<Rule> {
    let mut rules = Vec::new();
    for segment in udp(layout) {
        for family in Family::BOTH {
            let came = |text: RuleText| text.jump(&way.granted(segment)).named(way.named());
            let end = set(OF_SET, segment, family);
            rules.push(came(there(way, segment, family).service_in_here(family, way.client(), &end)));
            let by = set(BY_SET, segment, family);
            let client = there(way, segment, family).addr_in_here(family, way.client(), site(layout), &by);
            rules.push(came(client));
        }
    }
    for segment in udp(layout) {
        for family in Family::BOTH {
            let known = |text: RuleText| text.goto(way.rest()).named(way.named());
            rules.push(known(rule().endpoint_in(family, way.client(), &set(OF_SET, segment, family))));
            let udp = rule().l4proto(Protocol::Udp);
            rules.push(known(udp.addr_in(family, way.client(), site(layout), &set(BY_SET, segment, family))));
        }
    }
    for segment in udp(layout) {
        let any = |family| there(way, segment, family).jump(&way.granted(segment)).named(way.named());
        rules.extend(Family::BOTH.map(any));
    }
    rules.push(rule().goto(way.rest()).named(way.named()));
    rules
}

/// From or to where the port leads.
fn there(way: Way, segment: &Segment, family: Family) -> RuleText {
    rule().service_in(Protocol::Udp, family, way.service(), &set(BEHIND_SET, segment, family))
}

/// What no grant let through. A client may come in by an interface where its port is not guarded; what leaves is only here
/// if it is for somebody who had a grant.
fn rest(layout: &Layout<'_>, way: Way) -> Vec<Rule> {
    let mut rules = Vec::new();
    for segment in udp(layout) {
        let (what, begins) = match way {
            Way::Out => ("cut", None),
            Way::In => ("drop:here", guarded_on(layout, segment)),
        };
        let begins = begins.map_or_else(|| vec![None], |sets| sets.into_iter().map(Some).collect());
        for interface in begins {
            rules.extend(Family::BOTH.map(|family| {
                let begin = interface.as_ref().map_or_else(rule, |set| rule().iifname(set));
                let set = set(BEHIND_SET, segment, family);
                let text = begin.service_in(Protocol::Udp, family, way.service(), &set);
                text.counter().drop().named(&format!("{what}:{}", segment.name()))
            }));
        }
    }
    rules
}
