//! The mark on what is let through, for hosts that drop by default; set after routing, so that policy routing
//! by mark is not disturbed: packets of this host are marked in the filter table, because a mark that changes
//! in the mangle table's OUTPUT has them routed anew.

use super::adopted::Way;
use super::gate::{SPOKEN, SPOKEN_SECS, remembering};
use super::model::{Chain, Table};
use super::phrase::{Phrase, Side, for_this_host, rule};
use super::plan::{Draft, Keeping, port, stem, table};
use super::replies::{forwarded_reply, lan_reply, local_reply, memory};
use super::step1;
use super::{adopted, behind, names};
use crate::ruleset::layout::Segment;
use crate::units::{Family, Protocol};

pub(super) fn chains(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    let mut out = vec![
        Chain::new("mark", mark(draft)),
        Chain::new("spoke_mark", spoke_and_mark(draft, family)),
        Chain::new("in", arriving(draft, family)),
        Chain::new("in_tracked", in_tracked(draft)),
        Chain::new("in_untracked", in_untracked(draft)),
        Chain::new("back", leaving_through(draft, family)),
        Chain::new("out", leaving(draft)),
    ];
    if draft.layout.settings.global.steps {
        out.extend(step1::here(draft, family));
    }
    out.extend(draft.layout.services.iter().map(|segment| input_chain(draft, family, segment)));
    if draft.layout.settings.global.mark.is_some() {
        out.extend(draft.layout.local.iter().map(|segment| mark_chain(draft, family, segment)));
    }
    out
}

/// Packets of this host that have passed the mangle table: those of a service are granted by now.
pub(super) fn filter(draft: &Draft<'_>, family: Family) -> Option<Table> {
    let _ = family;
    draft.layout.settings.global.mark?;
    let options = draft.layout.options;
    let mut rules = Vec::new();
    if draft.layout.settings.global.steps {
        rules.push(rule().sport(Protocol::Tcp, port(options.http_port)).goto("mark", "mark:step1"));
        rules.push(rule().sport(Protocol::Tcp, port(options.https_port)).goto("mark", "mark:step2"));
    }
    rules.extend(draft.layout.ext.iter().map(|name| rule().oif(name).reply().goto("mark_back", "replies")));
    let back =
        draft.layout.services.iter().map(|segment| local_reply(segment).goto("mark", "mark:local")).collect();
    let chains =
        vec![Chain::new("mark_out", rules), Chain::new("mark_back", back), Chain::new("mark", mark(draft))];
    Some(table("filter", vec![step1::hook("OUTPUT", "mark_out")], chains))
}

fn mark(draft: &Draft<'_>) -> Vec<String> {
    let mark = draft.layout.settings.global.mark;
    mark.map(|mark| {
        rule().target(&format!("-j MARK --set-xmark 0x{:x}/0x{:x}", mark.value(), mark.mask()), "mark")
    })
    .into_iter()
    .collect()
}

fn spoke_and_mark(draft: &Draft<'_>, family: Family) -> Vec<String> {
    if draft.keeping == Keeping::Recent {
        return mark(draft);
    }
    let mut rules = remembering(SPOKEN, family, Protocol::Udp, SPOKEN_SECS);
    rules.extend(mark(draft));
    rules
}

/// What reaches the two steps' ports here has passed the gate. What else arrives here after all needs a grant
/// of an app that is here.
fn arriving(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let options = draft.layout.options;
    let mut rules = Vec::new();
    let ports = [(options.http_port, "mark:step1"), (options.https_port, "mark:step2")];
    for (number, what) in ports.into_iter().filter(|_| draft.layout.settings.global.steps) {
        for text in for_this_host(family) {
            rules.push(text.dport(Protocol::Tcp, port(number)).goto("mark", what));
        }
    }
    for name in draft.layout.ext.iter().filter(|_| draft.layout.settings.global.steps) {
        for number in [options.http_port, options.https_port] {
            let text = rule().iif(name).dport(Protocol::Tcp, port(number));
            rules.push(text.jump("steps_here", "routed"));
        }
    }
    for name in &draft.layout.ext {
        let original = rule().iif(name).original();
        rules.push(original.goto("in_tracked", "here:tracked"));
        rules.push(rule().iif(name).state("UNTRACKED").goto("in_untracked", "here:untracked"));
    }
    rules
}

fn in_tracked(draft: &Draft<'_>) -> Vec<String> {
    let each = draft.layout.services.iter();
    each.map(|segment| {
        let text = rule().original_port(segment.protocol, segment.ports);
        text.goto(&stem("inp", segment), "here:tracked")
    })
    .collect()
}

fn in_untracked(draft: &Draft<'_>) -> Vec<String> {
    let each = draft.layout.services.iter();
    each.map(|segment| {
        let text = rule().dport(segment.protocol, segment.ports);
        text.goto(&stem("inp", segment), "here:untracked")
    })
    .collect()
}

fn input_chain(draft: &Draft<'_>, family: Family, segment: &Segment) -> Chain {
    let here = draft.layout.here(segment);
    let to_mark = |text: Phrase, what: &str| text.goto("mark", what);
    let mut rules = draft.for_clients(&here, family, Side::Source, to_mark);
    if !here.apps.is_empty() {
        rules.extend(draft.keep(segment, to_mark));
    }
    rules.extend(adopted::pass(draft, family, segment.protocol, Way::Marked));
    rules.extend(draft.drop_the_rest(segment, family, Side::Source, "drop:here"));
    Chain { name: names::chain(&stem("inp", segment)), rules }
}

/// Forwarded packets: the way back needs a grant; then the marks, both ways.
fn leaving_through(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let mut rules: Vec<String> =
        draft.layout.ext.iter().map(|name| rule().oif(name).jump("replies", "replies")).collect();
    rules.extend(behind::to_behind(draft));
    if draft.layout.settings.global.mark.is_none() {
        return rules;
    }
    for name in &draft.layout.ext {
        let back = draft.lan(family).map(lan_reply);
        let back = back
            .chain(draft.layout.services.iter().flat_map(|segment| forwarded_reply(draft, family, segment)));
        rules.extend(back.map(|text| text.oif(name).reply().goto("mark", "mark:back")));
        for segment in &draft.layout.local {
            let text = rule().iif(name).original_port(segment.protocol, segment.ports).dnatted().original();
            let texts = draft.remembered(text, memory(segment), family, Side::Source);
            rules.extend(texts.into_iter().map(|text| text.goto(&stem("mrk", segment), "mark:forwarded")));
        }
    }
    rules
}

fn leaving(draft: &Draft<'_>) -> Vec<String> {
    draft.layout.ext.iter().map(|name| rule().oif(name).goto("replies", "replies")).collect()
}

fn mark_chain(draft: &Draft<'_>, family: Family, segment: &Segment) -> Chain {
    let to_mark = |text: Phrase, what: &str| text.goto("mark", what);
    let mut rules = draft.for_clients(segment, family, Side::Source, to_mark);
    rules.extend(draft.keep(segment, to_mark));
    rules.extend(adopted::pass(draft, family, segment.protocol, Way::Marked));
    Chain { name: names::chain(&stem("mrk", segment)), rules }
}
