//! Step 1: a port whose process is reached only by the right first packet.
//!
//! In silent mode `raw_in` decides what is ours and keeps it out of connection
//! tracking. What is not ours goes on to connection tracking, because it may be the
//! answer to a connection that a masqueraded LAN host made from this very port, and
//! `gate` drops it unless it is. So each packet of a later segment meets the limit of
//! its connection twice, hence the burst.

use std::num::NonZeroU16;

use crate::config::Step1Reply;
use crate::ruleset::expr::{Base, Limit, Side};
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{Chain, Hook, Rule};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::{Family, Protocol};

use super::{chain, filter};

/// Connections whose first packet was right: source address and port.
pub(super) const FLOW_SET: &str = "step1_flow";
/// Sources of SYNs; for those who are asked why nothing opens, nobody is held back by it.
pub(in crate::ruleset) const SEEN_SET: &str = "step1_seen";
/// Sources of requests, or where step 1 answers of new connections, each with its rate.
pub(super) const METER_SET: &str = "step1_meter";

const FLOW_MS: u64 = 3_000;
/// How long a source is remembered after it began a connection.
pub(in crate::ruleset) const SEEN_SECS: u64 = 60;
const SEEN_MS: u64 = SEEN_SECS * 1_000;
const METER_MS: u64 = 60_000;
/// The kernel lets through this many times the rate that is judged exactly later:
/// one honest client makes several connections and retries.
const METER_FACTOR: u32 = 10;
const METER_LEAST: u32 = 60;
/// The IPv6 clients of one site share a meter.
pub(in crate::ruleset) const METER_V6_PREFIX: u8 = 64;
/// Lengths of a TCP header, in 32-bit words.
const TCP_HEADER_WORDS: std::ops::RangeInclusive<u8> = 5..=15;

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    if !layout.settings.global.steps {
        return Vec::new();
    }
    match layout.settings.global.step1_reply {
        Step1Reply::Silent => {
            let to_step1 = to_port(layout.options.http_port).goto("step1_raw").named("step1");
            vec![
                filter("raw_in", Hook::Prerouting, -300, vec![to_step1]),
                filter("raw_out", Hook::Output, -300, raw_out(layout)),
                chain("step1_raw", step1_raw(layout)),
                chain("step1_syn", seen(RuleText::notrack)),
                chain("step1_path", metered(layout, path_found(layout, RuleText::notrack))),
                chain("step1_gate", silent_gate(layout)),
            ]
        }
        Step1Reply::Http => vec![
            chain("step1_syn", metered(layout, seen(|text| text))),
            chain("step1_path", path_found(layout, |text| text)),
            chain("step1_gate", answering_gate(layout)),
        ],
    }
}

/// TCP packets to this port of this host, on every interface.
pub(super) fn to_port(port: NonZeroU16) -> RuleText {
    rule().port(Protocol::Tcp, Side::Destination, port.into()).for_this_host()
}

/// TCP packets from this port.
pub(super) fn from_port(port: NonZeroU16) -> RuleText {
    rule().port(Protocol::Tcp, Side::Source, port.into())
}

/// Nothing but SYN-ACKs leaves the port.
fn raw_out(layout: &Layout<'_>) -> Vec<Rule> {
    let from_step1 = || from_port(layout.options.http_port);
    vec![
        from_step1().syn_ack().counter().notrack().accept().named("step1:synack"),
        from_step1().counter().drop().named("step1:silence"),
    ]
}

fn step1_raw(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![a_syn().goto("step1_syn").named("step1:syn")];
    rules.extend(right_path(layout).map(|text| text.goto("step1_path").named("step1:path")));
    rules.extend(later_segments(layout).map(|text| text.counter().notrack().accept().named("step1:segment")));
    rules
}

fn silent_gate(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![a_syn().accept().named("step1:syn")];
    rules.extend(right_path(layout).map(|text| text.accept().named("step1:path")));
    rules.extend(later_segments(layout).map(|text| text.accept().named("step1:segment")));
    rules.push(rule().counter().drop().named("drop:step1"));
    rules
}

/// The gate of a step 1 that answers: a whole conversation must pass, but data only
/// after the right path.
fn answering_gate(layout: &Layout<'_>) -> Vec<Rule> {
    let mut rules = vec![a_syn().goto("step1_syn").named("step1:syn")];
    rules.extend(right_path(layout).map(|text| text.goto("step1_path").named("step1:path")));
    rules.extend(later_segments(layout).map(|text| text.counter().accept().named("step1:segment")));
    rules.extend(with_payload(layout).map(|text| text.counter().drop().named("drop:step1")));
    rules.push(rule().established_or_untracked().counter().accept().named("step1:ack"));
    rules.push(rule().counter().drop().named("drop:step1"));
    rules
}

fn a_syn() -> RuleText {
    rule().l4proto(Protocol::Tcp).syn_only()
}

/// Whoever begins a connection is remembered; where there is no room for it, it begins all the same.
fn seen(pass: impl Fn(RuleText) -> RuleText) -> Vec<Rule> {
    let sources = Family::BOTH.map(|family| {
        let set = format!("{SEEN_SET}_{}", family.digit());
        rule().remember_source(family, METER_V6_PREFIX, &set, SEEN_MS).done().named("step1:seen")
    });
    let through = pass(rule().counter()).accept().named("step1:syn");
    sources.into_iter().chain([through]).collect()
}

/// Beyond the rate of their source, packets do not come to these rules.
///
/// Where nothing answers, it is first segments with the right path that are counted. SYNs are not: whoever forges them
/// could have anybody's dropped, and what they cost is limited by the kernel's own SYN cookies.
fn metered(layout: &Layout<'_>, then: Vec<Rule>) -> Vec<Rule> {
    let rate = meter_rate(layout);
    let limit = Limit { rate: u64::from(rate), unit_secs: 60, burst: rate, over: true };
    let meters = Family::BOTH.map(|family| {
        let set = format!("{METER_SET}_{}", family.digit());
        rule()
            .update_source(family, METER_V6_PREFIX, &set, METER_MS, limit)
            .counter()
            .drop()
            .named("drop:flood")
    });
    meters.into_iter().chain(then).collect()
}

fn path_found(layout: &Layout<'_>, pass: impl Fn(RuleText) -> RuleText) -> Vec<Rule> {
    let mut rules = begun(layout);
    rules.push(pass(rule().counter()).accept().named("step1:path"));
    rules
}

/// Remembers a connection whose first packet was right, for the later ones.
pub(super) fn begun(layout: &Layout<'_>) -> Vec<Rule> {
    let later = u32::from(layout.settings.global.step1_segments) - 1;
    if later == 0 {
        return Vec::new();
    }
    let lookups = match layout.settings.global.step1_reply {
        Step1Reply::Silent => 2,
        Step1Reply::Http => 1,
    };
    let limit = Limit { rate: 1, unit_secs: 60, burst: 1 + lookups * later, over: false };
    let update = |family| rule().update_flow(family, &flow_set(family), FLOW_MS, limit);
    Family::BOTH.map(|family| update(family).done().named("step1:flow")).into()
}

fn later_segments(layout: &Layout<'_>) -> impl Iterator<Item = RuleText> {
    let max = layout.settings.global.step1_max_bytes;
    let families: &[Family] = if layout.settings.global.step1_segments > 1 { &Family::BOTH } else { &[] };
    families.iter().map(move |&family| rule().flow_in(family, &flow_set(family)).length_at_most(max))
}

/// `POST <path> ` at the beginning of what TCP carries; one rule per path, or one per path and length of
/// the TCP header where the kernel does not know where the header ends.
pub(super) fn right_path(layout: &Layout<'_>) -> impl Iterator<Item = RuleText> {
    let max = layout.settings.global.step1_max_bytes;
    let inner_header = layout.options.inner_header;
    request_line_starts(layout).into_iter().flat_map(move |wanted| {
        data_starts(inner_header)
            .map(move |(text, base, at)| text.length_at_most(max).payload_begins(base, at, &wanted))
    })
}

fn with_payload(layout: &Layout<'_>) -> impl Iterator<Item = RuleText> {
    data_starts(layout.options.inner_header).map(|(text, base, at)| text.has_payload(base, at))
}

/// Where the data of a TCP packet starts: base and offset in bytes, with the rule that finds it.
fn data_starts(inner_header: bool) -> impl Iterator<Item = (RuleText, Base, u32)> {
    data_at(inner_header).into_iter().map(|(words, base, at)| {
        let text = rule().l4proto(Protocol::Tcp);
        (words.into_iter().fold(text, RuleText::tcp_header_words), base, at)
    })
}

/// The same, with the length of the TCP header for which it holds, in words; none: whatever that is.
pub(super) fn data_at(inner_header: bool) -> Vec<(Option<u8>, Base, u32)> {
    if inner_header {
        return vec![(None, Base::Inner, 0)];
    }
    TCP_HEADER_WORDS.map(|words| (Some(words), Base::Transport, u32::from(words) * 4)).collect()
}

/// Requests, or new connections, per source and minute beyond which step 1 is a flood.
pub(in crate::ruleset) fn meter_rate(layout: &Layout<'_>) -> u32 {
    layout.settings.global.step1_2_rate_limit_per_minute.saturating_mul(METER_FACTOR).max(METER_LEAST)
}

/// The bytes a right first packet begins with: any of these, which are as many as there are paths.
pub(in crate::ruleset) fn request_line_starts(layout: &Layout<'_>) -> Vec<Vec<u8>> {
    let paths = &layout.settings.global.step1_paths;
    paths.iter().map(|path| format!("POST {} ", path.expose()).into_bytes()).collect()
}

fn flow_set(family: Family) -> String {
    format!("{FLOW_SET}_{}", family.digit())
}
