//! Knocks that change with time: like those of fixed sequences, but for the steps, which come and go with their time,
//! and for their ends, each of which opens once.
//!
//! All of their ports belong to them, so that nobody can see which are knocked at. Whether an end was reached before
//! is decided by a limit of one packet that each element of a set has: the kernel counts under a lock, also for
//! packets on several processors at the same instant.

use crate::ruleset::expr::Limit;
use crate::ruleset::knocking::{LOG_REPLAYED, TimedRules};
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{Chain, Content, KeyPart, Rule, Set, SetFlags, Value};
use crate::ruleset::rule::rule;
use crate::units::{Protocol, START};

use super::chain;
use super::knock::{again, before_it_was_a_knock, dynamic, metered, only_once, place, told, wrong};
use super::sets::CLIENTS;
use crate::ruleset::expr::Side;

/// From place and knock to place.
pub const TIMED: &str = "knock_timed";
/// From the place of an end to what it leads to.
pub const TIMED_OPEN: &str = "knock_timed_open";
/// The ends that packets reached, each with its limit.
pub const USED: &str = "knock_used";
/// The ends of which the daemon knows that they were reached: it cannot put an element with a used-up limit there.
pub const SPENT: &str = "knock_spent";
const WEEK_SECS: u64 = 604_800;

/// In the gate, before guarded ports. Answers to conversations of this host pass, where its own ports are among them.
pub(super) fn to_timed(layout: &Layout<'_>) -> Option<Rule> {
    let timed = layout.knocking.timed.as_ref()?;
    let text =
        rule().iifname("ext").local(Side::Destination).port(timed.protocol, Side::Destination, timed.ports);
    Some(text.unasked().goto(TIMED).named("knock:timed"))
}

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let Some(timed) = &layout.knocking.timed else { return Vec::new() };
    let replayed = told(layout, rule().counter(), LOG_REPLAYED, "");
    let mut out = vec![chain("knock_replayed", vec![replayed.drop().named("drop:knock:replayed")])];
    for (name, opens) in &timed.deeds {
        let opening = TimedRules::opening(name);
        let mut rules: Vec<Rule> = opens.iter().map(|open| rule().jump(open).named("knock:open")).collect();
        rules.push(rule().counter().drop().named("drop:knock"));
        out.push(chain(&opening, rules));
        out.push(chain(name, once(timed, &opening)));
    }
    let step = |map| match timed.sized {
        false => rule().mark_by_knock(map),
        true => rule().mark_by_sized_knock(map),
    };
    let mut moved = vec![again(layout)];
    moved.extend(metered(layout, "knock_timed_on"));
    out.push(chain("knock_timed_ends", ends()));
    out.push(chain("knock_timed_on", goes_on(&timed.next_chain())));
    out.push(chain("knock_timed_begins", goes_on(&timed.first_chain())));
    out.push(chain("knock_timed_moved", moved));
    out.push(chain("knock_timed_begun", metered(layout, "knock_timed_begins")));
    out.push(chain("knock_timed_next", vec![step(TIMED).goto("knock_timed_moved").named("knock:step")]));
    out.push(chain("knock_timed_first", vec![step(TIMED).goto("knock_timed_begun").named("knock:step")]));
    out.push(chain(TIMED, judge(layout, timed)));
    out
}

fn judge(layout: &Layout<'_>, timed: &TimedRules) -> Vec<Rule> {
    let mut rules = vec![before_it_was_a_knock()];
    if timed.protocol == Protocol::Tcp {
        rules.extend(only_once(layout));
    }
    rules.extend(place());
    rules.push(rule().mark_is_not(START).jump("knock_timed_next").named("knock:next"));
    // Not what comes next: perhaps it begins anew.
    rules.push(rule().set_mark(START).done().named("knock:start"));
    rules.push(rule().jump("knock_timed_first").named("knock:first"));
    rules.extend(wrong(layout));
    rules
}

fn goes_on(remember: &str) -> Vec<Rule> {
    vec![rule().jump(remember).named("knock:move"), rule().goto("knock_timed_ends").named("knock:open")]
}

fn ends() -> Vec<Rule> {
    vec![rule().mark_vmap(TIMED_OPEN).done().named("knock:open"), rule().counter().drop().named("drop:knock")]
}

/// The first to reach an end goes on; where there is no room to remember it, nobody does.
fn once(timed: &TimedRules, opening: &str) -> Vec<Rule> {
    let limit = Limit { rate: 1, unit_secs: WEEK_SECS, burst: 1, over: false };
    vec![
        rule().mark_in(SPENT).goto("knock_replayed").named("knock:spent"),
        rule().update_mark(USED, timed.used_secs * 1_000, limit).goto(opening).named("knock:used"),
        rule().goto("knock_replayed").named("knock:replayed"),
    ]
}

pub(super) fn sets(layout: &Layout<'_>) -> Vec<Set> {
    let Some(timed) = &layout.knocking.timed else { return Vec::new() };
    let key = match timed.sized {
        false => vec![KeyPart::Mark, KeyPart::Protocol, KeyPart::Port],
        true => vec![KeyPart::Mark, KeyPart::Port, KeyPart::UdpLength],
    };
    vec![
        by_daemon(TIMED, key, Value::Mark),
        by_daemon(TIMED_OPEN, vec![KeyPart::Mark], Value::Verdict),
        by_daemon(SPENT, vec![KeyPart::Mark], Value::Nothing),
        dynamic(USED.to_owned(), vec![KeyPart::Mark], Value::Nothing, CLIENTS),
    ]
}

/// What the daemon fills, and time empties.
fn by_daemon(name: &str, key: Vec<KeyPart>, value: Value) -> Set {
    let flags = SetFlags { timeout: true, ..SetFlags::default() };
    Set { name: name.to_owned(), key, value, flags, size: None, content: Content::Living }
}
