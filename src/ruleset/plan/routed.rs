//! Addresses that are this host's by another routing table than `local` and `main`: the gate, before routing, cannot tell them
//! from those of others. What arrives here for the ports of the two steps, and those behind a proxy, is judged as there.

use std::num::NonZeroU16;

use crate::config::Step1Reply;
use crate::ruleset::expr::Side;
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{Chain, Rule};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::Protocol;

use super::{backend, chain, knock, step1};

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let judged = judged(layout);
    if judged.is_empty() {
        return Vec::new();
    }
    // Answers to what this host asked from such a port.
    let mut rules = vec![rule().reply_direction().back().named("own")];
    rules.extend(judged.iter().map(|(port, gate)| to(rule(), *port).goto(gate).named("routed")));
    let mut out = vec![chain("steps_here", rules)];
    if remembers(layout) {
        let path = step1::right_path(layout);
        let mut rules: Vec<Rule> = path.map(|text| text.jump("step1_begun").named("step1:path")).collect();
        rules.push(rule().goto(&knock::step_gate(layout, 1)).named("routed"));
        out.push(chain("step1_here", rules));
        out.push(chain("step1_begun", step1::begun(layout)));
    }
    out
}

/// For the chain that judges what arrives here. Only from outside: what a proxy of the host's own takes from inside for
/// others (`tproxy`) is for them.
pub(super) fn to_steps(layout: &Layout<'_>) -> Vec<Rule> {
    let from_outside = |port| to(rule().iifname("ext"), port).for_another();
    judged(layout).iter().map(|(port, _)| from_outside(*port).jump("steps_here").named("routed")).collect()
}

/// The ports, each with the chain that judges what comes there.
fn judged(layout: &Layout<'_>) -> Vec<(NonZeroU16, String)> {
    let options = layout.options;
    let mut out = Vec::new();
    if layout.settings.global.steps {
        let first = if remembers(layout) { "step1_here".to_owned() } else { knock::step_gate(layout, 1) };
        out.push((options.http_port, first));
        out.push((options.https_port, knock::step_gate(layout, 2)));
    }
    out.extend(layout.backend_ports().into_iter().map(|port| (port, backend::GATE.to_owned())));
    out
}

/// Whether the gate of step 1 relies on what was remembered before connection tracking.
fn remembers(layout: &Layout<'_>) -> bool {
    let global = &layout.settings.global;
    global.steps && global.step1_reply == Step1Reply::Silent && global.step1_segments > 1
}

fn to(text: RuleText, port: NonZeroU16) -> RuleText {
    text.port(Protocol::Tcp, Side::Destination, port.into())
}
