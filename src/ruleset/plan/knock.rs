//! Knock sequences without a process: an automaton in maps. What a source has knocked is one state, as a mark; one
//! look-up finds the next, however many sequences there are.
//!
//! Packets to knock ports end here, so their mark is free to use. A packet to another port that is not guarded is a
//! wrong knock. Where a set is full, the knock does not count: nothing opens by that.

use crate::config::KnockEvent;
use crate::ruleset::expr::{Limit, Side, Verdict};
use crate::ruleset::knocking::{
    Deed, KNOCKS_AT_ONCE, KNOCKS_PER_SECOND, KnockGrants, Knocking, LOG_BYTES, LOG_CLOSED, LOG_GROUP,
    LOG_OPENED, Move, SEEN_SECS, STAY, first_chain, next_chain,
};
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{Chain, Content, Element, Elements, KeyPart, Rule, Set, SetFlags, Value};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::{Family, Knock, Protocol, START};

use super::sets::{CLIENTS, GRANTS, address};
use super::{adopted, chain, knock_log, timed};

/// The map from port to the chain of knocks.
pub const KNOCK_PORTS: &str = "knock_ports";
/// From state and knock to state.
const NEXT: &str = "knock_next";
/// The same for datagrams of a certain length.
const SIZED: &str = "knock_sized";
/// From state to how it is remembered.
const MOVE: &str = "knock_move";
/// From state to what is opened.
const OPEN: &str = "knock_open";
/// How long the rate of a source is remembered: longer than it takes to be as fresh as a new one.
const METER_MS: u64 = 3_000;
const METER_V6_PREFIX: u8 = 64;
/// Room for SYNs that are remembered: a stranger who sends fewer than 3,700 a second to a knock port cannot fill it.
const SEEN: u32 = 262_144;
/// Bytes of a UDP header, which its length counts.
const UDP_HEADER: u16 = 8;

fn at(family: Family) -> String {
    format!("knock_at{}", family.digit())
}

fn begun(family: Family) -> String {
    format!("knock_begun{}", family.digit())
}

fn meter(family: Family) -> String {
    format!("knock_meter{}", family.digit())
}

fn seen(family: Family) -> String {
    format!("knock_seen{}", family.digit())
}

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let knocking = &layout.knocking;
    if knocking.is_empty() {
        return Vec::new();
    }
    let mut out = vec![chain("knock_reset", reset(layout))];
    out.extend(knocking.deeds.iter().map(|(name, deed)| chain(name, self::deed(layout, deed))));
    for (name, calls) in &knocking.several {
        out.push(chain(name, calls.iter().map(|call| rule().jump(call).named("knock:open")).collect()));
    }
    out.extend(knocking.kinds_of_moves.iter().map(|kind| chain(&kind.chain, remember(layout, kind))));
    out.push(chain("knock_counted", counted()));
    out.push(chain("knock_moved", moved(layout)));
    out.push(chain("knock_step", step(knocking)));
    out.push(chain("knock", knock(layout)));
    out.extend(timed::chains(layout));
    for step in [1, 2] {
        let grants = knocking.before_step(step);
        if !grants.is_empty() {
            out.push(chain(format!("step{step}_knocked"), before_step(layout, step, &grants)));
        }
    }
    out
}

/// The chain that packets to the port of a step go to.
pub(super) fn step_gate(layout: &Layout<'_>, step: u8) -> String {
    let stem = if layout.knocking.before_step(step).is_empty() { "gate" } else { "knocked" };
    format!("step{step}_{stem}")
}

/// In the gate, before guarded ports. What is for a whole network, such as mDNS, is neither a knock nor lost.
pub(super) fn to_knock(layout: &Layout<'_>) -> Vec<Rule> {
    let known = !layout.knocking.is_empty();
    let here = || rule().iifname("ext").local(Side::Destination);
    let fixed = known.then(|| here().service_vmap(KNOCK_PORTS).named("knock"));
    fixed.into_iter().chain(timed::to_timed(layout)).collect()
}

/// In the gate, behind guarded ports.
pub(super) fn to_reset(layout: &Layout<'_>) -> Vec<Rule> {
    if layout.knocking.is_empty() {
        return Vec::new();
    }
    let here = || rule().iifname("ext").local(Side::Destination);
    vec![
        here().beginning().jump("knock_reset").named("knock:wrong"),
        here().l4proto(Protocol::Udp).new_or_untracked().jump("knock_reset").named("knock:wrong"),
    ]
}

fn knock(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![before_it_was_a_knock()];
    rules.extend(only_once(layout));
    rules.extend(place());
    rules.push(rule().jump("knock_step").named("knock:next"));
    // Not what comes next: perhaps it begins anew.
    rules.push(rule().set_mark(START).done().named("knock:start"));
    rules.push(rule().jump("knock_step").named("knock:first"));
    rules.extend(wrong(layout));
    rules
}

/// A port may have been somebody's before it was knocked at.
pub(super) fn before_it_was_a_knock() -> Rule {
    adopted::jump("adopted_gate")
}

/// Of TCP, a SYN counts, and once.
pub(super) fn only_once(layout: &Layout<'_>) -> Vec<Rule> {
    let both = |text: &dyn Fn(Family) -> Rule| Family::BOTH.map(text);
    let mut rules = vec![rule().l4proto(Protocol::Tcp).not_syn().counter().drop().named("drop:knock")];
    // A client's kernel repeats a SYN that is not answered, also when the next knock is already on its way.
    let again = |text| knock_log::drop(layout, KnockEvent::Ignored, text).named("knock:again");
    rules.extend(both(&|family| again(rule().syn_in(family, &seen(family)))));
    rules.extend(both(&|family| {
        rule().remember_syn(family, &seen(family), SEEN_SECS * 1_000).done().named("knock:seen")
    }));
    rules
}

/// Where the source stands.
pub(super) fn place() -> Vec<Rule> {
    let mut rules = vec![rule().set_mark(START).done().named("knock:start")];
    rules.extend(
        Family::BOTH.map(|family| {
            rule().mark_of_source(family, &begun(family), &at(family)).done().named("knock:at")
        }),
    );
    rules
}

/// It continues nothing and begins nothing.
pub(super) fn wrong(layout: &Layout<'_>) -> [Rule; 2] {
    let drop = knock_log::drop(layout, KnockEvent::Invalid, rule().counter());
    [rule().jump("knock_reset").named("knock:wrong"), drop.named("drop:knock")]
}

fn step(knocking: &Knocking) -> Vec<Rule> {
    let mut rules = vec![rule().mark_by_knock(NEXT).goto("knock_moved").named("knock:step")];
    if knocking.has_lengths() {
        rules.push(rule().mark_by_sized_knock(SIZED).goto("knock_moved").named("knock:step"));
    }
    rules
}

fn moved(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![again(layout)];
    rules.extend(metered(layout, "knock_counted"));
    rules
}

/// What repeats the knock before it.
pub(super) fn again(layout: &Layout<'_>) -> Rule {
    knock_log::drop(layout, KnockEvent::Ignored, rule().mark_is(STAY).counter()).named("knock:again")
}

/// What a source does too fast is a wrong knock, and so is what the meter has no room for.
pub(super) fn metered(layout: &Layout<'_>, goes_on: &str) -> Vec<Rule> {
    let ignored = |text, what| knock_log::drop(layout, KnockEvent::Ignored, text).named(what);
    let mut rules = Vec::new();
    let limit = Limit { rate: KNOCKS_PER_SECOND, unit_secs: 1, burst: KNOCKS_AT_ONCE, over: false };
    rules.extend(Family::BOTH.map(|family| {
        let text = rule().update_source(family, METER_V6_PREFIX, &meter(family), METER_MS, limit);
        text.goto(goes_on).named("knock:counted")
    }));
    rules.push(rule().jump("knock_reset").named("knock:fast"));
    rules.push(ignored(rule().counter(), "drop:knock:fast"));
    rules
}

fn counted() -> Vec<Rule> {
    vec![
        rule().mark_vmap(MOVE).done().named("knock:move"),
        rule().mark_vmap(OPEN).done().named("knock:open"),
        rule().counter().drop().named("drop:knock"),
    ]
}

fn remember(layout: &Layout<'_>, kind: &Move) -> Vec<Rule> {
    let forget =
        || Family::BOTH.map(|family| rule().forget_mark(family, &at(family)).done().named("knock:forget"));
    let Some(window_secs) = kind.window_secs else {
        let mut rules = forget().to_vec();
        rules.extend(Family::BOTH.map(|family| {
            let ms = kind.knock_secs * 1_000;
            rule().remember_mark(family, &at(family), ms).done().named("knock:remember")
        }));
        return rules;
    };
    let first = first_chain(window_secs, kind.knock_secs);
    if kind.is_gated() {
        // It counts for those only for whom another sequence has opened it.
        let mut rules = Vec::new();
        for grants in &kind.behind {
            rules.extend(Family::BOTH.map(|family| {
                rule()
                    .addr_in(family, Side::Source, 128, &grants.set(family))
                    .goto(&first)
                    .named("knock:behind")
            }));
        }
        rules.extend(wrong(layout));
        return rules;
    }
    // In this order: no packet on another processor finds the old state with the new time.
    let mut rules = forget().to_vec();
    rules.extend(Family::BOTH.map(|family| {
        rule().renew_source(family, 128, &begun(family), window_secs * 1_000).done().named("knock:begun")
    }));
    rules.push(rule().goto(&next_chain(kind.knock_secs)).named("knock:remember"));
    rules
}

fn prefix(layout: &Layout<'_>, grants: &KnockGrants) -> u8 {
    if grants.service { layout.settings.global.ipv6_prefix } else { 128 }
}

fn deed(layout: &Layout<'_>, deed: &Deed) -> Vec<Rule> {
    match deed {
        Deed::Opens(grants) => {
            grants.families.iter().flat_map(|&family| open(layout, grants, family)).collect()
        }
        Deed::Closes(all) => all.iter().flat_map(|grants| close(layout, grants)).collect(),
    }
}

/// Tells of it only if it did: an address of the other family, or one too many, opens nothing.
fn open(layout: &Layout<'_>, grants: &KnockGrants, family: Family) -> Vec<Rule> {
    let (prefix, set) = (prefix(layout, grants), grants.set(family));
    let mut rules = Vec::new();
    if grants.are_wide(family, prefix) {
        rules.push(rule().source_link_local().counter().back().named("knock:link-local"));
    }
    let text = rule().renew_source(family, prefix, &set, grants.secs * 1_000).counter();
    let text = told(layout, text, LOG_OPENED, &grants.stem);
    let opened = match knock_log::chain_of(layout, KnockEvent::Accepted) {
        Some(chain) => text.jump(&chain),
        None => text.done(),
    };
    rules.push(opened.named("knock:opened"));
    rules
}

/// Takes back what stands open for the source, and tells of it only if it did.
fn close(layout: &Layout<'_>, grants: &KnockGrants) -> Vec<Rule> {
    let prefix = prefix(layout, grants);
    let mut rules = Vec::new();
    for &family in grants.families {
        let set = grants.set(family);
        let open = rule().addr_in(family, Side::Source, prefix, &set).counter();
        rules.push(told(layout, open, LOG_CLOSED, &grants.stem).done().named("knock:closed"));
        rules.push(rule().forget_source(family, prefix, &set).done().named("knock:close"));
    }
    rules
}

pub(super) fn told(layout: &Layout<'_>, text: RuleText, what: &str, stem: &str) -> RuleText {
    if layout.options.log { text.log(&format!("{what}{stem}"), LOG_GROUP, LOG_BYTES) } else { text }
}

fn reset(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for family in Family::BOTH {
        rules.push(rule().forget_mark(family, &at(family)).done().named("knock:forget"));
        rules.push(rule().forget_source(family, 128, &begun(family)).done().named("knock:forget"));
    }
    for grants in layout.knocking.grants.iter().filter(|grants| grants.strict) {
        rules.extend(close(layout, grants));
    }
    rules
}

/// The port of a step is there for those only who have knocked; a connection that began in time may go on.
fn before_step(layout: &Layout<'_>, step: u8, grants: &[&KnockGrants]) -> Vec<Rule> {
    let gate = format!("step{step}_gate");
    // Knocks of this host itself are not looked at, so it could make none.
    let here = || rule().on_loopback().goto(&gate).named("knock:here");
    let mut rules: Vec<Rule> = (!layout.guards_loopback()).then(here).into_iter().collect();
    for grants in grants {
        rules.extend(Family::BOTH.map(|family| {
            rule().addr_in(family, Side::Source, 128, &grants.set(family)).goto(&gate).named("knock:step")
        }));
    }
    rules.push(rule().going_on(Protocol::Tcp).goto(&gate).named("knock:step"));
    rules.push(rule().counter().drop().named(&format!("drop:step{step}")));
    rules
}

pub(super) fn sets(layout: &Layout<'_>) -> Vec<Set> {
    let knocking = &layout.knocking;
    if knocking.is_empty() {
        return Vec::new();
    }
    let mut out = Vec::new();
    for grants in &knocking.grants {
        for family in Family::BOTH {
            let size = if grants.service { GRANTS } else { CLIENTS };
            out.push(dynamic(grants.set(family), vec![address(family)], Value::Nothing, size));
        }
    }
    for family in Family::BOTH {
        out.push(dynamic(at(family), vec![address(family)], Value::Mark, CLIENTS));
    }
    for family in Family::BOTH {
        out.push(dynamic(begun(family), vec![address(family)], Value::Nothing, CLIENTS));
    }
    for family in Family::BOTH {
        out.push(dynamic(meter(family), vec![address(family)], Value::Nothing, CLIENTS));
    }
    for family in Family::BOTH {
        let key = vec![address(family), KeyPart::Port, KeyPart::Port];
        out.push(dynamic(seen(family), key, Value::Nothing, SEEN));
    }
    out.extend(maps(knocking));
    out.extend(timed::sets(layout));
    out
}

fn maps(knocking: &Knocking) -> Vec<Set> {
    let steps =
        |sized: bool| knocking.steps.iter().filter(move |(_, knock, _)| knock.length().is_some() == sized);
    let to = |mark: u32| Element { mark: Some(mark), ..Element::default() };
    let next = steps(false).map(|&(from, knock, mark)| (knock_key(from, knock), to(mark))).collect();
    let sized: Elements =
        steps(true).map(|&(from, knock, mark)| (sized_key(from, knock), to(mark))).collect();
    let verdict = |verdict| Element { verdict: Some(verdict), ..Element::default() };
    let by_mark = |list: &[(u32, String)]| -> Elements {
        let jump = |chain: &String| verdict(Verdict::Jump(chain.clone()));
        list.iter().map(|(mark, chain)| (mark.to_ne_bytes().to_vec(), jump(chain))).collect()
    };
    let ports = knocking
        .ports
        .iter()
        .map(|&(protocol, port)| {
            let [high, low] = port.to_be_bytes();
            (vec![protocol.number(), 0, 0, 0, high, low, 0, 0], verdict(Verdict::Goto("knock".to_owned())))
        })
        .collect();
    let mut out = vec![map(NEXT, vec![KeyPart::Mark, KeyPart::Protocol, KeyPart::Port], Value::Mark, next)];
    if knocking.has_lengths() {
        out.push(map(SIZED, vec![KeyPart::Mark, KeyPart::Port, KeyPart::UdpLength], Value::Mark, sized));
    }
    out.push(map(MOVE, vec![KeyPart::Mark], Value::Verdict, by_mark(&knocking.moves)));
    out.push(map(OPEN, vec![KeyPart::Mark], Value::Verdict, by_mark(&knocking.opens)));
    out.push(map(KNOCK_PORTS, vec![KeyPart::Protocol, KeyPart::Port], Value::Verdict, ports));
    out
}

/// How the map has a step by a knock of any length.
pub(in crate::ruleset) fn knock_key(from: u32, knock: Knock) -> Vec<u8> {
    let [high, low] = knock.port().to_be_bytes();
    [&from.to_ne_bytes()[..], &[knock.protocol().number(), 0, 0, 0, high, low, 0, 0]].concat()
}

/// How the map has a step by a knock whose length counts.
pub(in crate::ruleset) fn sized_key(from: u32, knock: Knock) -> Vec<u8> {
    let length = knock.length().unwrap_or_default().saturating_add(UDP_HEADER);
    let ([high, low], [long, short]) = (knock.port().to_be_bytes(), length.to_be_bytes());
    [&from.to_ne_bytes()[..], &[high, low, 0, 0, long, short, 0, 0]].concat()
}

pub(super) fn dynamic(name: String, key: Vec<KeyPart>, value: Value, size: u32) -> Set {
    let flags = SetFlags { dynamic: true, timeout: true, ..SetFlags::default() };
    Set { name, key, value, flags, size: Some(size), content: Content::Living }
}

fn map(name: &str, key: Vec<KeyPart>, value: Value, elements: Elements) -> Set {
    let content = Content::Planned(elements);
    Set { name: name.to_owned(), key, value, flags: SetFlags::default(), size: None, content }
}
