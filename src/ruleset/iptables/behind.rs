//! Where others forward guarded ports of this host to, such as a container: learnt from packets of granted clients, so that
//! what a service there sends by itself is judged like what one of a configured LAN host sends. Several ports may lead to one
//! place, and a place may become that of another port: by which port a client came itself tells which grant counts. Without
//! ipset nothing is learnt.

use super::gate::{SPOKEN, SPOKEN_SECS};
use super::model::Chain;
use super::phrase::{Phrase, Side, rule};
use super::plan::{Draft, Keeping, stem};
use super::replies::memory;
use super::{adopted, names};
use crate::ruleset::layout::Segment;
use crate::units::{Family, IfName, Protocol};

/// Stem of the sets of such ends, address and port. Only the host's own rules say how many there are.
const BEHIND: &str = "behind";
/// Stem of the sets of the ends of clients that came by a UDP port.
const OF: &str = "behind_of";
/// Stem of the sets of clients for whose ends there was no room.
const BY: &str = "behind_by";

/// The guarded ports with an app that others may forward.
fn segments<'a>(draft: &'a Draft<'_>) -> impl Iterator<Item = &'a Segment> {
    let learns = draft.keeping == Keeping::Ipset;
    draft.layout.services.iter().filter(move |segment| learns && !draft.layout.here(segment).apps.is_empty())
}

/// Those where only memory tells whose conversation it is.
fn udp<'a>(draft: &'a Draft<'_>) -> impl Iterator<Item = &'a Segment> {
    segments(draft).filter(|segment| segment.protocol == Protocol::Udp)
}

fn set(stem: &str, segment: &Segment, family: Family) -> String {
    format!("{stem}_{}_{}", segment.name(), family.digit())
}

/// The sets of addresses with ports.
pub(super) fn ends<'a>(draft: &'a Draft<'_>, family: Family) -> impl Iterator<Item = String> + 'a {
    let there = segments(draft).map(move |segment| set(BEHIND, segment, family));
    there.chain(udp(draft).map(move |segment| set(OF, segment, family)))
}

/// The sets of addresses.
pub(super) fn clients<'a>(draft: &'a Draft<'_>, family: Family) -> impl Iterator<Item = String> + 'a {
    udp(draft).map(move |segment| set(BY, segment, family))
}

pub(super) fn chains(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    if draft.keeping == Keeping::Recent {
        return Vec::new();
    }
    let mut out = vec![
        Chain::new("behind", behind(draft, family)),
        Chain::new("behind_out", behind_out(draft, family)),
        Chain::new("behind_cut", rest(draft, family, Way::Out)),
        Chain::new("behind_own", behind_own(draft, family)),
        Chain::new("behind_drop", rest(draft, family, Way::In)),
    ];
    out.extend(segments(draft).map(|segment| learnt(segment, family)));
    out
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
        let texts = draft.remembered(text, memory(segment), family, Side::Source).into_iter();
        rules.extend(texts.map(|text| text.goto(&stem("bhd", segment), "behind")));
    }
    rules
}

fn learnt(segment: &Segment, family: Family) -> Chain {
    let [there, of, by] = [BEHIND, OF, BY].map(|stem| names::set(&set(stem, segment, family)));
    let add =
        |set: &str, what: &str| format!("-j SET --add-set {set} {what} --exist --timeout {SPOKEN_SECS}");
    let mut rules = vec![rule().target(&add(&there, "dst,dst"), "behind")];
    if segment.protocol == Protocol::Udp {
        let udp = || rule().protocol(Protocol::Udp);
        rules.push(udp().target(&add(&of, "src,src"), "behind:of"));
        let no_room = udp().with(format!("-m set ! --match-set {of} src,src"));
        rules.push(no_room.target(&add(&by, "src"), "behind:by"));
    }
    Chain { name: names::chain(&stem("bhd", segment)), rules }
}

/// Packets that no connection explains, if they may begin one the other way round or belong to such a one.
pub(super) fn to_behind_out(draft: &Draft<'_>) -> Option<String> {
    let text = rule().state("NEW,ESTABLISHED");
    (draft.keeping == Keeping::Ipset).then(|| text.goto("behind_out", "replies:behind"))
}

fn behind_out(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let from = |segment: &Segment| {
        let text = rule().protocol(Protocol::Tcp);
        let text = text.end_in_set(&set(BEHIND, segment, family), Side::Source);
        text.goto(&stem("rep", segment), "replies:behind")
    };
    let tcp = segments(draft).filter(|segment| segment.protocol == Protocol::Tcp);
    let mut rules: Vec<String> = tcp.map(from).collect();
    rules.extend(adopted::pass(draft, family, Protocol::Udp, adopted::Way::Back));
    rules.extend(judged(draft, family, Way::Out));
    rules
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
    let mut rules: Vec<String> =
        adopted::pass(draft, family, Protocol::Udp, adopted::Way::Marked).into_iter().collect();
    rules.extend(judged(draft, family, Way::In));
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

    fn lets(self, text: Phrase, what: &str) -> String {
        match self {
            Self::Out => text.pass(what),
            Self::In => text.goto("mark", what),
        }
    }

    fn to_rest(self, text: Phrase) -> String {
        match self {
            Self::Out => text.goto("behind_cut", "replies:behind"),
            Self::In => text.goto("behind_drop", "behind:turned"),
        }
    }
}

/// A grant counts for the ports by which the client came itself. Of a client that came by none of them it is not known
/// which it means (what it did before this was remembered, or a conversation that the service began): any of those that
/// lead there will do.
fn judged(draft: &Draft<'_>, family: Family, way: Way) -> Vec<String> {
    let came = |text: Phrase, segment: &Segment| {
        let of = text.clone().end_in_set(&set(OF, segment, family), way.client());
        [of, text.in_set(&set(BY, segment, family), way.client())]
    };
    let mut rules = Vec::new();
    for segment in udp(draft) {
        rules.extend(granted(draft, family, way, segment, |text| came(text, segment).to_vec()));
    }
    for segment in udp(draft) {
        let texts = came(rule().protocol(Protocol::Udp), segment);
        rules.extend(texts.map(|text| way.to_rest(text)));
    }
    for segment in udp(draft) {
        rules.extend(granted(draft, family, way, segment, |text| vec![text]));
    }
    rules.push(way.to_rest(rule()));
    rules
}

/// What the grants of a port let through, of what goes from or to where it leads, as far as the text is `narrowed`.
fn granted(
    draft: &Draft<'_>,
    family: Family,
    way: Way,
    segment: &Segment,
    narrowed: impl Fn(Phrase) -> Vec<Phrase>,
) -> Vec<String> {
    let there = |text: Phrase| {
        let text = text.protocol(Protocol::Udp);
        narrowed(text.end_in_set(&set(BEHIND, segment, family), way.service()))
    };
    let here = draft.layout.here(segment);
    let mut rules = Vec::new();
    let lets = |text: Phrase, what: &str| -> Vec<String> {
        there(text).into_iter().map(|text| way.lets(text, what)).collect()
    };
    rules.extend(
        draft.clients(&here, family, way.client()).into_iter().flat_map(|(text, what)| lets(text, &what)),
    );
    if draft.layout.keeps_established(segment) {
        rules.extend(lets(rule().state("ESTABLISHED"), "keep"));
    }
    rules
}

/// What no grant let through. A client may come in by an interface where its port is not guarded; what leaves is only here
/// if it is for somebody who had a grant.
fn rest(draft: &Draft<'_>, family: Family, way: Way) -> Vec<String> {
    let mut rules = Vec::new();
    for segment in udp(draft) {
        let own: Option<Vec<&[IfName]>> = match way {
            Way::Out => None,
            Way::In => draft.layout.apps(segment).map(|app| draft.own_interfaces(app)).collect(),
        };
        let what = match way {
            Way::Out => format!("cut:{}", segment.name()),
            Way::In => format!("drop:here:{}", segment.name()),
        };
        let begins = own.map_or_else(
            || vec![rule()],
            |lists| lists.into_iter().flatten().map(|name| rule().iif(name)).collect(),
        );
        rules.extend(begins.into_iter().map(|text| {
            let text = text.protocol(Protocol::Udp);
            text.end_in_set(&set(BEHIND, segment, family), way.service()).drop(&what)
        }));
    }
    rules
}
