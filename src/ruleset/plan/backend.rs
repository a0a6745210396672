//! The ports behind a proxy: for the proxy, whoever else may know them.

use crate::ruleset::allow::{Span, elements};
use crate::ruleset::expr::Side;
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{Chain, Content, Rule, Set, SetFlags, Value};
use crate::ruleset::rule::rule;
use crate::units::{Family, Mark};

use super::chain;
use super::sets::address;
use super::step1::{from_port, to_port};

pub(super) const GATE: &str = "backend_gate";

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    if layout.backend_ports().is_empty() {
        return Vec::new();
    }
    let mut rules = vec![rule().on_loopback().counter().accept().named("backend:here")];
    rules.extend(Family::BOTH.map(|family| {
        let text = rule().addr_in(family, Side::Source, 128, &proxy_set(family));
        text.counter().accept().named("backend:proxy")
    }));
    rules.push(rule().counter().drop().named("drop:backend"));
    vec![chain(GATE, rules)]
}

pub(super) fn sets(layout: &Layout<'_>) -> Vec<Set> {
    if layout.backend_ports().is_empty() {
        return Vec::new();
    }
    let spans: Vec<Span> = layout.proxies().into_iter().map(Span::configured).collect();
    let set = |family| Set {
        name: proxy_set(family),
        key: vec![address(family)],
        value: Value::Nothing,
        flags: SetFlags { interval: true, ..SetFlags::default() },
        size: None,
        content: Content::Planned(elements(&spans, family)),
    };
    Family::BOTH.map(set).into()
}

/// From the gate, on every interface.
pub(super) fn to_gate(layout: &Layout<'_>) -> impl Iterator<Item = Rule> {
    layout.backend_ports().into_iter().map(|port| to_port(port).goto(GATE).named("backend"))
}

/// What reaches these ports has passed the gate.
pub(super) fn marks_in(layout: &Layout<'_>, mark: Option<Mark>) -> impl Iterator<Item = Rule> {
    layout
        .backend_ports()
        .into_iter()
        .map(move |port| to_port(port).mark(mark).accept().named("mark:backend"))
}

pub(super) fn marks_out(layout: &Layout<'_>, mark: Option<Mark>) -> impl Iterator<Item = Rule> {
    layout
        .backend_ports()
        .into_iter()
        .map(move |port| from_port(port).mark(mark).accept().named("mark:backend"))
}

fn proxy_set(family: Family) -> String {
    format!("proxy_{}", family.digit())
}
