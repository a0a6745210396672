//! Where others forward guarded ports of this host to, such as a container: learnt from packets of granted clients, so that
//! what a service there sends by itself is judged like what one of a configured LAN host sends. Without ipset nothing is
//! learnt.

use super::gate::{SPOKEN, SPOKEN_SECS};
use super::model::Chain;
use super::names;
use super::phrase::{Side, rule};
use super::plan::{Draft, Keeping, stem};
use super::replies::memory;
use crate::ruleset::layout::Segment;
use crate::units::{Family, Protocol};

/// Stem of the sets of such ends, address and port. Only the host's own rules say how many there are.
const BEHIND: &str = "behind";

/// The guarded ports with an app that others may forward.
pub(super) fn segments<'a>(draft: &'a Draft<'_>) -> impl Iterator<Item = &'a Segment> {
    let learns = draft.keeping == Keeping::Ipset;
    draft.layout.services.iter().filter(move |segment| learns && !draft.layout.here(segment).apps.is_empty())
}

pub(super) fn set(segment: &Segment, family: Family) -> String {
    format!("{BEHIND}_{}_{}", segment.name(), family.digit())
}

pub(super) fn chains(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    if draft.keeping == Keeping::Recent {
        return Vec::new();
    }
    vec![
        Chain::new("behind", behind(draft, family)),
        Chain::new("behind_out", behind_out(draft, family)),
        Chain::new("behind_own", behind_own(draft, family)),
    ]
}

/// Forwarded packets of clients, with others' translation done.
pub(super) fn to_behind(draft: &Draft<'_>) -> Vec<String> {
    let learns = draft.keeping == Keeping::Ipset;
    let names = draft.layout.ext.iter().filter(|_| learns);
    names.map(|name| rule().iif(name).dnatted().original().jump("behind", "behind")).collect()
}

/// The client's end is remembered, if it has passed the gate.
fn behind(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let mut rules = Vec::new();
    for segment in segments(draft) {
        let text = rule().original_port(segment.protocol, segment.ports);
        let set = names::set(&set(segment, family));
        let add = format!("-j SET --add-set {set} dst,dst --exist --timeout {SPOKEN_SECS}");
        let texts = draft.remembered(text, memory(segment), family, Side::Source).into_iter();
        rules.extend(texts.map(|text| text.target(&add, "behind")));
    }
    rules
}

/// Packets that no connection explains, if they may begin one the other way round or belong to such a one.
pub(super) fn to_behind_out(draft: &Draft<'_>) -> Option<String> {
    let text = rule().state("NEW,ESTABLISHED");
    (draft.keeping == Keeping::Ipset).then(|| text.goto("behind_out", "replies:behind"))
}

fn behind_out(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let from = |segment: &Segment| {
        let text = rule().protocol(segment.protocol).end_in_set(&set(segment, family), Side::Source);
        text.goto(&stem("rep", segment), "replies:behind")
    };
    segments(draft).map(from).collect()
}

/// Answers to what a service there sent, which may be a conversation that it took up by itself.
pub(super) fn to_behind_own(draft: &Draft<'_>, family: Family) -> Vec<String> {
    if draft.keeping == Keeping::Recent {
        return Vec::new();
    }
    let turned = |name| {
        let text = rule().iif(name).protocol(Protocol::Udp);
        draft.remembered(text, SPOKEN, family, Side::Source)
    };
    let texts = draft.layout.ext.iter().flat_map(|name| turned(name));
    texts.map(|text| text.jump("behind_own", "behind:turned")).collect()
}

fn behind_own(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let to = |segment: &Segment| {
        let text = rule().protocol(Protocol::Udp).end_in_set(&set(segment, family), Side::Destination);
        text.goto(&stem("inp", segment), "behind:turned")
    };
    segments(draft).filter(|segment| segment.protocol == Protocol::Udp).map(to).collect()
}
