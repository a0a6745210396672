//! Settings to the ruleset that enforces them: the only place that decides rules.

mod adopted;
mod backend;
mod behind;
mod default_input;
mod forward;
mod gate;
mod knock;
mod knock_log;
mod marks;
mod once;
mod replies;
mod routed;
mod sets;
mod step1;
mod timed;

use super::layout::{Layout, Options, Segment};
use super::model::{BaseChain, Chain, ChainType, Hook, Rule, Ruleset};
use super::rule::{RuleText, rule};
use crate::config::{App, Settings};
use crate::ruleset::expr::Side;

pub use adopted::adopted_set;
pub(super) use adopted::{TCP_MS, UDP_MS};
pub use knock::KNOCK_PORTS;
pub(in crate::ruleset) use knock::{knock_key, sized_key};
pub use replies::{SPOKEN_MS, own_set};
pub use sets::{GRANTS, allow_set, app_set, interface_key, step2_set};
pub(in crate::ruleset) use step1::{METER_V6_PREFIX, SEEN_SECS, SEEN_SET, meter_rate, request_line_starts};
pub use timed::{SPENT, TIMED, TIMED_OPEN, USED};

/// The ruleset that these settings want, with the elements that are known beforehand.
#[must_use]
pub fn plan(settings: &Settings, options: Options) -> Ruleset {
    let layout = Layout::new(settings, options);
    let mut chains = Vec::new();
    chains.extend(step1::chains(&layout));
    chains.extend(knock_log::chains(&layout));
    chains.extend(knock::chains(&layout));
    chains.extend(gate::chains(&layout));
    chains.extend(adopted::chains(&layout));
    chains.extend(backend::chains(&layout));
    chains.extend(behind::chains(&layout));
    chains.extend(replies::chains(&layout));
    chains.extend(once::chains(&layout));
    chains.extend(marks::chains(&layout));
    chains.extend(routed::chains(&layout));
    chains.extend(default_input::chains(&layout));
    chains.extend(forward::chains(&layout));
    Ruleset { sets: sets::sets(&layout), chains }
}

fn base(name: &str, kind: ChainType, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name: name.to_owned(), base: Some(BaseChain { kind, hook, priority, drops: false }), rules }
}

fn filter(name: &str, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    base(name, ChainType::Filter, hook, priority, rules)
}

fn chain(name: impl Into<String>, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), base: None, rules }
}

/// One rule per set that lets clients in, with what it does left to `finish`.
///
/// `side` is where the client's address stands: source towards the service, destination on the way back.
fn for_clients(
    layout: &Layout<'_>,
    segment: &Segment,
    side: Side,
    meets: Meets,
    finish: impl Fn(RuleText, &str) -> Rule,
) -> Vec<Rule> {
    let prefix = layout.settings.global.ipv6_prefix;
    let mut rules = Vec::new();
    for app in layout.apps(segment) {
        // By which interface an answer leaves is a matter of routes: whom the gate let in gets it by any of them.
        let begin = || match layout.own_interfaces(app) {
            Some(set) if side == Side::Source => rule().iifname(&set),
            Some(_) | None => rule(),
        };
        if app.once {
            let first = meets == Meets::FirstPackets;
            rules.extend(once::clients(layout, app, segment.protocol, side, first, begin, &finish));
        } else {
            rules.extend(granted(layout, app, side, prefix, begin, &finish));
        }
        for &family in app.families() {
            let set = allow_set(&app.slug, family);
            if meets == Meets::FirstPackets {
                rules.extend(knock_log::transient(layout, segment, family, &set, begin()));
            }
            let text = begin().addr_in(family, side, 128, &set);
            rules.push(finish(text, &format!("allow:{}", app.slug)));
        }
    }
    for family in layout.families(segment) {
        let set = allow_set("all", family);
        if meets == Meets::FirstPackets {
            rules.extend(knock_log::transient(layout, segment, family, &set, rule()));
        }
        rules.push(finish(rule().addr_in(family, side, 128, &set), "allow:all"));
    }
    rules
}

/// One rule per set of grants of an app.
fn granted(
    layout: &Layout<'_>,
    app: &App,
    side: Side,
    prefix: u8,
    begin: impl Fn() -> RuleText,
    finish: impl Fn(RuleText, &str) -> Rule,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for &family in app.families() {
        let text = begin().addr_in(family, side, prefix, &app_set(&app.slug, family));
        rules.push(finish(text, &format!("grant:{}", app.slug)));
    }
    for grants in layout.knocking.of_app(app) {
        for &family in grants.families {
            let text = begin().addr_in(family, side, prefix, &grants.set(family));
            rules.push(finish(text, &format!("knocked:{}", app.slug)));
        }
    }
    rules
}

/// Whether the first packet of a connection may not have been judged before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meets {
    FirstPackets,
    WhatPassed,
}

/// The sets of the interfaces a segment is guarded on, where these are not simply all outside ones.
fn guarded_on(layout: &Layout<'_>, segment: &Segment) -> Option<Vec<String>> {
    layout.apps(segment).map(|app| layout.own_interfaces(app)).collect()
}

/// The rules that drop what nothing let in: for every interface the segment is guarded on.
fn drop_the_rest(layout: &Layout<'_>, segment: &Segment, what: &str) -> Vec<Rule> {
    let what = format!("{what}:{}", segment.name());
    let drops = |text: RuleText| text.counter().drop().named(&what);
    match guarded_on(layout, segment) {
        None => vec![drops(rule())],
        Some(sets) => sets.iter().map(|set| drops(rule().iifname(set))).collect(),
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
