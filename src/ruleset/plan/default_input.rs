//! The whole host closed (`default_input: drop`): what nothing let in and no network can do without.

use crate::config::DefaultInput;
use crate::ruleset::expr::{Limit, Side, addr_type};
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{Chain, Rule};
use crate::ruleset::rule::rule;
use crate::units::Family;

use super::{adopted, chain};

/// Stem of the sets of those who ping.
pub(super) const ECHO_SET: &str = "echo_meter";
const ECHO_MS: u64 = 60_000;
/// A ping a second, twice over, and some at once.
const ECHO_RATE: u64 = 120;
const ECHO_BURST: u32 = 20;
const IGMP: u8 = 2;

/// Whether the whole host is closed.
pub(super) fn wanted(layout: &Layout<'_>) -> bool {
    layout.settings.global.default_input == DefaultInput::Drop
}

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    if wanted(layout) { vec![chain("default_in", default_in())] } else { Vec::new() }
}

/// The last rule of what judges packets to this host.
pub(super) fn last(layout: &Layout<'_>) -> Option<Rule> {
    wanted(layout).then(|| rule().iifname("ext").goto("default_in").named("default"))
}

fn default_in() -> Vec<Rule> {
    let mut rules = Vec::new();
    // First, because connection tracking takes a second ping for an established connection.
    for (family, request) in [(Family::V4, 8), (Family::V6, 128)] {
        let limit = Limit { rate: ECHO_RATE, unit_secs: 60, burst: ECHO_BURST, over: true };
        let (prefix, set) = (64, format!("{ECHO_SET}_{}", family.digit()));
        let text = rule().icmp(family, request, request);
        rules
            .push(text.update_echo(family, prefix, &set, ECHO_MS, limit).counter().drop().named("drop:echo"));
        rules.push(rule().icmp(family, request, request).accept().named("safe:echo"));
    }
    // To connection tracking the first packet of another connection between the same ports belongs to the one before, as long
    // as it knows that. What this host begins itself is answered in the other direction.
    rules.push(rule().original_direction().established().any_syn().counter().drop().named("drop:default"));
    rules.push(rule().established_or_related().accept().named("safe:established"));
    // What this host sends to many comes back to its own programs, by the interface that it left by. The first packet of a
    // stranger in this host's name is confirmed after this chain only, so never.
    for kind in [addr_type::MULTICAST, addr_type::BROADCAST] {
        rules.push(rule().confirmed().local(Side::Source).for_many(kind).accept().named("safe:own"));
    }
    rules.extend([
        adopted::jump("adopted_gate"),
        // Where a host tracks nothing, only that tells an answer from a beginning.
        rule().untracked().any_ack().accept().named("safe:untracked"),
    ]);
    // Unreachable (path MTU among them); time exceeded, parameter problem.
    rules.push(rule().icmp(Family::V4, 3, 3).accept().named("safe:icmp"));
    rules.push(rule().icmp(Family::V4, 11, 12).accept().named("safe:icmp"));
    // Unreachable, packet too big, time exceeded, parameter problem.
    rules.push(rule().icmp(Family::V6, 1, 4).accept().named("safe:icmp"));
    // Router and neighbour discovery, redirects; a router drops what says 255 and was forwarded.
    rules.push(rule().hop_limit_255().icmp_here(Family::V6, 133, 137).accept().named("safe:nd"));
    // Who listens to which multicasts.
    rules.push(rule().source_link_local().icmp_here(Family::V6, 130, 132).accept().named("safe:mld"));
    rules.push(rule().icmp(Family::V6, 143, 143).accept().named("safe:mld"));
    rules.push(rule().raw_l4proto(IGMP).accept().named("safe:igmp"));
    // Answers that do not come from where the question was sent to.
    rules.push(rule().udp_ports(67, 68).accept().named("safe:dhcp"));
    rules.push(rule().source_link_local().udp_ports(547, 546).accept().named("safe:dhcp"));
    rules.push(rule().counter().drop().named("drop:default"));
    rules
}
