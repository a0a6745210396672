//! Flows that were there before the guard: each by protocol and both ends, as long as it lasts.
//!
//! Nothing begins here. A packet with SYN never passes, so that what is left in the sets when a connection
//! is over opens nothing; and what passes renews its own flow only.

use crate::ruleset::expr::{Side, Verdict};
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{ADOPTED_SET, Chain, Rule};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::{Family, Mark, Protocol};

use super::chain;

/// How long a silent TCP connection is remembered.
pub(in crate::ruleset) const TCP_MS: u64 = 30 * 86_400_000;
/// How long a silent UDP conversation is.
pub(in crate::ruleset) const UDP_MS: u64 = 180_000;
/// How long a TCP connection is after one side has closed it; only data renews it, so that the last
/// acknowledgements do not.
const CLOSING_MS: u64 = 300_000;

/// The set of flows of a family that live on.
#[must_use]
pub fn adopted_set(family: Family) -> String {
    format!("{ADOPTED_SET}_{}", family.digit())
}

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let mark = layout.settings.global.mark;
    vec![
        chain("adopted_in_seen", seen(Side::Source)),
        chain("adopted_out_seen", seen(Side::Destination)),
        chain("adopted_gate", known(Side::Source, None)),
        chain("adopted_in", known(Side::Source, mark)),
        chain("adopted_out", known(Side::Destination, mark)),
    ]
}

/// The client stands on this `side` of the packets.
fn known(side: Side, mark: Option<Mark>) -> Vec<Rule> {
    let seen = match side {
        Side::Source => "adopted_in_seen",
        Side::Destination => "adopted_out_seen",
    };
    let mut rules = vec![rule().any_syn().verdict(Verdict::Return).named("adopted:new")];
    rules.extend(Family::BOTH.map(|family| {
        rule().tuple_in(family, side, &adopted_set(family)).mark(mark).counter().goto(seen).named("adopted")
    }));
    rules
}

fn seen(side: Side) -> Vec<Rule> {
    let renew = |text: RuleText, family, ms| text.update_tuple(family, side, &adopted_set(family), ms);
    let mut rules = Vec::new();
    for family in Family::BOTH {
        rules.push(renew(rule().any_end(), family, CLOSING_MS).accept().named("adopted:closing"));
    }
    for family in Family::BOTH {
        rules.push(renew(rule().any_push(), family, TCP_MS).done().named("adopted:tcp"));
        rules.push(renew(rule().l4proto(Protocol::Udp), family, UDP_MS).done().named("adopted:udp"));
    }
    if side == Side::Source {
        // So that the service cannot take it up again by itself when it is forgotten.
        rules.push(rule().l4proto(Protocol::Udp).goto("spoke").named("adopted:spoke"));
    }
    rules.push(rule().accept().named("adopted"));
    rules
}

/// The jump to the chain of that name.
pub(super) fn jump(chain: &str) -> Rule {
    rule().jump(chain).named("adopted")
}
