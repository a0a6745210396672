//! The way back: what a guarded service sends outside needs a grant as well, so that a stream ends with its
//! grant even when only the service talks. These rules only drop; [`super::marks`] marks what is left.

use super::adopted::Way;
use super::gate::{SPOKEN, TALKED};
use super::model::Chain;
use super::phrase::{Phrase, Side, rule};
use super::plan::{Draft, stem};
use super::{adopted, behind, names};
use crate::ruleset::layout::Segment;
use crate::units::{Family, Protocol};

pub(super) fn chains(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    let mut out = vec![
        Chain::new("replies", replies(draft, family)),
        Chain::new("replies_tracked", replies_tracked(draft, family)),
        Chain::new("replies_stray", replies_stray(draft, family)),
    ];
    for segment in &draft.layout.services {
        out.push(reply_chain(draft, family, segment, &draft.layout.here(segment), "rep"));
    }
    out.extend(draft.lan(family).map(|segment| reply_chain(draft, family, segment, segment, "lrp")));
    out
}

/// Called for packets that leave by an outside interface.
fn replies(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let mut rules = vec![
        rule().reply().goto("replies_tracked", "replies"),
        // A service that goes on talking after connection tracking forgot the client would make itself the
        // originator, and the client's packets replies. With TCP the first packet tells; with UDP only that the
        // client spoke from there before.
        rule().not_syn().state("NEW").goto("replies_stray", "replies:midstream"),
        rule().state("UNTRACKED").goto("replies_stray", "replies:untracked"),
        rule().state("INVALID").goto("replies_stray", "replies:invalid"),
    ];
    let turned = draft.remembered(rule().protocol(Protocol::Udp), SPOKEN, family, Side::Destination);
    rules.extend(turned.into_iter().map(|text| text.goto("replies_stray", "replies:turned")));
    let (begin, side) = (rule(), Side::Destination);
    rules.extend(adopted::turned(draft, &begin, family, side, "replies_stray", "replies:adopted"));
    rules
}

fn replies_tracked(draft: &Draft<'_>, family: Family) -> Vec<String> {
    // First, because a port that is forwarded may also be that of a service here, with grants of its own.
    let mut rules = from_lan(draft, family);
    for segment in &draft.layout.services {
        let text = local_reply(segment);
        rules.push(text.goto(&stem("rep", segment), "replies:local"));
    }
    for segment in &draft.layout.services {
        let texts = forwarded_reply(draft, family, segment).into_iter();
        rules.extend(texts.map(|text| text.goto(&stem("rep", segment), "replies:forwarded")));
    }
    rules
}

/// A reply of a service of this host.
pub(super) fn local_reply(segment: &Segment) -> Phrase {
    rule().address_type(Side::Source, "LOCAL").original_port(segment.protocol, segment.ports)
}

/// A reply of a connection to this host that somebody forwards: the client's end is remembered, which tells it
/// from connections to other addresses that happen to have a guarded port number.
pub(super) fn forwarded_reply(draft: &Draft<'_>, family: Family, segment: &Segment) -> Vec<Phrase> {
    let text = rule().original_port(segment.protocol, segment.ports).dnatted();
    draft.remembered(text, memory(segment), family, Side::Destination)
}

/// The stem of the sets that remember the clients of a segment.
pub(super) fn memory(segment: &Segment) -> &'static str {
    match segment.protocol {
        Protocol::Tcp => TALKED,
        Protocol::Udp => SPOKEN,
    }
}

/// Packets that no connection explains, by the port they come from.
fn replies_stray(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let mut rules = from_lan(draft, family);
    for segment in &draft.layout.services {
        let text = rule().sport(segment.protocol, segment.ports).address_type(Side::Source, "LOCAL");
        rules.push(text.goto(&stem("rep", segment), "replies:local"));
    }
    rules.extend(behind::to_behind_out(draft));
    rules
}

fn from_lan(draft: &Draft<'_>, family: Family) -> Vec<String> {
    draft.lan(family).map(|segment| lan_reply(segment).goto(&stem("lrp", segment), "replies:lan")).collect()
}

/// What a LAN host sends from a guarded port.
pub(super) fn lan_reply(segment: &Segment) -> Phrase {
    let text = match segment.host {
        Some(host) => rule().sent_by(host),
        None => rule(),
    };
    text.sport(segment.protocol, segment.ports)
}

/// `clients` is the segment with those apps whose grants count here.
fn reply_chain(
    draft: &Draft<'_>,
    family: Family,
    segment: &Segment,
    clients: &Segment,
    prefix: &str,
) -> Chain {
    let mut rules: Vec<String> =
        adopted::pass(draft, family, segment.protocol, Way::Back).into_iter().collect();
    if segment.protocol == Protocol::Tcp {
        // The client's next packet makes it a connection again, the right way round; the service's would turn
        // it around.
        rules.push(rule().state("NEW").drop("cut:stray"));
    }
    rules.extend(draft.for_clients(clients, family, Side::Destination, Phrase::pass));
    if !clients.apps.is_empty() && draft.layout.keeps_established(segment) {
        rules.push(rule().state("ESTABLISHED").pass("keep"));
    }
    rules.extend(draft.drop_the_rest(segment, family, Side::Destination, "cut"));
    Chain { name: names::chain(&stem(prefix, segment)), rules }
}
