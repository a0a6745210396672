//! What of knocks is written into a log: off by default, and so seldom that nobody can fill a disk with it.

use crate::config::KnockEvent;
use crate::ruleset::expr::{Limit, Side};
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{Chain, Rule};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::{Family, Protocol};

use super::chain;

/// How many lines of one kind there are in a minute, and at once. Who floods one kind hides others of that kind only.
const LIMIT: Limit = Limit { rate: 10, unit_secs: 60, burst: 10, over: false };
/// Bytes of each packet that a group is told: the headers.
const BYTES: u32 = 128;

/// The chain that writes it down; of those that are dropped, it is also the end. None where it is not wanted.
pub(super) fn chain_of(layout: &Layout<'_>, event: KnockEvent) -> Option<String> {
    let wanted = layout.settings.global.knock_log.events.contains(&event)
        && (event == KnockEvent::Transient || !layout.knocking.is_empty());
    wanted.then(|| format!("log_{}", event.name()))
}

/// Drops, and writes it down if that is wanted.
pub(super) fn drop(layout: &Layout<'_>, event: KnockEvent, text: RuleText) -> Rule {
    match chain_of(layout, event) {
        Some(chain) => text.goto(&chain),
        None => text.drop(),
    }
}

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let log = &layout.settings.global.knock_log;
    log.events
        .iter()
        .filter_map(|&event| {
            let prefix = format!("knock-agent {}: ", event.name());
            let text = rule().limit(LIMIT);
            let text = match log.group {
                None => text.kernel_log(&prefix),
                Some(group) => text.log(&prefix, group, BYTES),
            };
            let mut rules = vec![text.done().named(&format!("log:{}", event.name()))];
            match event {
                KnockEvent::Accepted | KnockEvent::Transient => {}
                KnockEvent::Ignored | KnockEvent::Invalid => rules.push(rule().drop().named("drop:knock")),
            }
            Some(chain(chain_of(layout, event)?, rules))
        })
        .collect()
}

/// The first packet from a network in this set to a port of this host.
pub(super) fn transient(
    layout: &Layout<'_>,
    segment: &Segment,
    family: Family,
    set: &str,
    begin: RuleText,
) -> Option<Rule> {
    let chain = chain_of(layout, KnockEvent::Transient).filter(|_| segment.host.is_none())?;
    let first = match segment.protocol {
        Protocol::Tcp => begin.beginning(),
        Protocol::Udp => begin.new_or_untracked(),
    };
    Some(first.addr_in(family, Side::Source, 128, set).jump(&chain).named("log:transient"))
}
