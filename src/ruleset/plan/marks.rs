//! The mark on what is let through, for hosts that drop by default; set after routing,
//! so that policy routing by mark is not disturbed.

use crate::ruleset::expr::Side;
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{Chain, Hook, Rule};
use crate::ruleset::rule::rule;
use crate::units::{Family, Protocol};

use super::replies::own_set;
use super::step1::{from_port, to_port};
use super::{Meets, chain, drop_the_rest, filter, for_clients};
use super::{adopted, backend, behind, default_input, once, routed};

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let mut out = vec![filter("mark_in", Hook::Input, -10, mark_in(layout))];
    out.push(filter("mark_fwd", Hook::Forward, -10, mark_forward(layout)));
    out.push(filter("mark_out", Hook::Output, -10, mark_out(layout)));
    out.extend(layout.services.iter().map(|segment| input_chain(layout, segment)));
    if layout.settings.global.mark.is_some() {
        out.extend(layout.local.iter().map(|segment| mark_chain(layout, segment)));
    }
    out
}

/// What arrives here after all needs a grant of an app that is here: one for a LAN host at the same port
/// is none for this host, where its packets were not translated (broadcasts, or because they are not tracked).
fn input_chain(layout: &Layout<'_>, segment: &Segment) -> Chain {
    let mut rules = granted(layout, segment);
    rules.push(adopted::jump("adopted_in"));
    rules.extend(drop_the_rest(layout, segment, "drop:here"));
    chain(format!("inp_{}", segment.name()), rules)
}

/// What those send who are let in by an app that is here.
pub(super) fn granted(layout: &Layout<'_>, segment: &Segment) -> Vec<Rule> {
    let mark = layout.settings.global.mark;
    let here = layout.here(segment);
    let mut rules = for_clients(layout, &here, Side::Source, Meets::WhatPassed, |text, what| {
        text.mark(mark).accept().named(what)
    });
    if layout.keeps_established(segment) && !here.apps.is_empty() {
        rules.push(rule().going_on(segment.protocol).mark(mark).accept().named("keep"));
    }
    rules
}

/// What reaches the two steps' ports here has passed the gate.
fn mark_in(layout: &Layout<'_>) -> Vec<Rule> {
    let mark = layout.settings.global.mark;
    let options = layout.options;
    let mut rules = Vec::new();
    if layout.settings.global.steps {
        rules.push(to_port(options.http_port).mark(mark).accept().named("mark:step1"));
        rules.push(to_port(options.https_port).mark(mark).accept().named("mark:step2"));
    }
    rules.extend(backend::marks_in(layout, mark));
    rules.extend(routed::to_steps(layout));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let map = format!("in_{protocol}");
        rules.push(
            rule()
                .iifname("ext")
                .original_direction()
                .original_port_vmap(protocol, &map)
                .named("here:tracked"),
        );
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let map = format!("in_{protocol}");
        rules.push(
            rule()
                .iifname("ext")
                .untracked()
                .port_vmap(protocol, Side::Destination, &map)
                .named("here:untracked"),
        );
    }
    rules.extend(default_input::last(layout));
    rules
}

/// Towards LAN hosts of ours, `gate_forward` marks; here, what others forward from a guarded port.
fn mark_forward(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = once::answers_forwarded(layout);
    rules.push(rule().oifname("ext").jump("replies").named("replies"));
    rules.push(behind::to_behind());
    if layout.settings.global.mark.is_some() {
        for family in Family::BOTH {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let map = format!("mark_{protocol}");
                rules.push(
                    rule()
                        .iifname("ext")
                        .original_direction()
                        .dnatted()
                        .originally_to(family, &own_set(family))
                        .original_port_vmap(protocol, &map)
                        .named("mark:forwarded"),
                );
            }
        }
    }
    rules
}

fn mark_out(layout: &Layout<'_>) -> Vec<Rule> {
    let mark = layout.settings.global.mark;
    let options = layout.options;
    let mut rules = once::answers_here(layout);
    if mark.is_some() && layout.settings.global.steps {
        rules.push(from_port(options.http_port).mark(mark).accept().named("mark:step1"));
        rules.push(from_port(options.https_port).mark(mark).accept().named("mark:step2"));
        rules.extend(backend::marks_out(layout, mark));
    }
    rules.push(rule().oifname("ext").jump("replies").named("replies"));
    rules
}

fn mark_chain(layout: &Layout<'_>, segment: &Segment) -> Chain {
    let mark = layout.settings.global.mark;
    let mut rules = for_clients(layout, segment, Side::Source, Meets::WhatPassed, |text, what| {
        text.mark(mark).accept().named(what)
    });
    if layout.keeps_established(segment) {
        rules.push(rule().going_on(segment.protocol).mark(mark).accept().named("keep"));
    }
    rules.push(adopted::jump("adopted_in"));
    chain(format!("mrk_{}", segment.name()), rules)
}
