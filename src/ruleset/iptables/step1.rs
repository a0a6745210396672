//! Step 1, as in nftables: untracked and silent, or tracked and answering; data only after the right path.
//!
//! Later segments of a connection are counted by its element: once in the raw table, where it exists.

use super::knock::step_gate;
use super::model::{Chain, Hook, Table};
use super::names;
use super::path::{begins, has_data};
use super::phrase::{Phrase, for_this_host, rule};
use super::plan::{Draft, Keeping, port, table};
use crate::config::Step1Reply;
use crate::ruleset::plan::{meter_rate, request_line_starts};
use crate::units::{Family, Protocol};

pub(super) const METER: &str = "step1_meter";
pub(super) const FLOW: &str = "step1_flow";

/// Seconds that later segments of a connection may take: longer than in nftables, because here a repeated first
/// packet does not begin them anew.
pub(super) const FLOW_SECS: u32 = 10;

/// The raw table of a silent step 1.
pub(super) fn raw(draft: &Draft<'_>, family: Family) -> Option<Table> {
    if draft.reply() == Step1Reply::Http {
        return None;
    }
    let http = port(draft.layout.options.http_port);
    let here = for_this_host(family)
        .into_iter()
        .map(|text| text.protocol(Protocol::Tcp).goto("step1_raw", "step1"))
        .collect();
    let chains = vec![
        Chain::new("raw_in", vec![rule().dport(Protocol::Tcp, http).goto("raw_here", "step1")]),
        Chain::new("raw_here", here),
        Chain::new("raw_out", vec![rule().sport(Protocol::Tcp, http).goto("raw_answer", "step1")]),
        // Ports and flags apart: the two kinds of iptables list both in one rule differently.
        Chain::new(
            "raw_answer",
            vec![rule().tcp_state("SYN,ACK").goto("notrack", "step1:synack"), rule().drop("step1:silence")],
        ),
        Chain::new("step1_raw", step1_raw(draft, family)),
        Chain::new("step1_path", metered(draft, family, path_found(draft, family, Some(notrack())))),
        Chain::new("notrack", vec![notrack()]),
    ];
    let hooks = vec![hook("PREROUTING", "raw_in"), hook("OUTPUT", "raw_out")];
    Some(table("raw", hooks, chains))
}

/// The chains of the mangle table: after connection tracking, nothing else may pass.
pub(super) fn gate(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    match draft.reply() {
        Step1Reply::Silent => {
            let mut rules = vec![rule().tcp_state("SYN").pass("step1:syn")];
            rules.extend(right_path(draft, family).map(|text| text.pass("step1:path")));
            rules.extend(later_segment(draft, family, false).map(|text| text.pass("step1:segment")));
            rules.push(rule().drop("drop:step1"));
            vec![Chain::new("step1_gate", rules)]
        }
        Step1Reply::Http => {
            let mut rules = vec![rule().tcp_state("SYN").goto("step1_syn", "step1:syn")];
            rules.extend(right_path(draft, family).map(|text| text.goto("step1_path", "step1:path")));
            rules.extend(later_segment(draft, family, true).map(|text| text.pass("step1:segment")));
            let payload = has_data(draft.matcher, family);
            rules.extend(payload.map(|data| rule().protocol(Protocol::Tcp).with(data).drop("drop:step1")));
            rules.push(rule().state("ESTABLISHED,UNTRACKED").pass("step1:ack"));
            rules.push(rule().drop("drop:step1"));
            vec![
                Chain::new("step1_gate", rules),
                Chain::new("step1_syn", metered(draft, family, Vec::new())),
                Chain::new("step1_path", path_found(draft, family, None)),
            ]
        }
    }
}

/// Where the gate could not tell that an address is this host's, by another routing table, what arrives here is judged as
/// there; where the gate relies on what the raw table remembers of a connection, after that.
pub(super) fn here(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    let options = draft.layout.options;
    let remembers = draft.reply() == Step1Reply::Silent && draft.segments() > 1;
    let gate = step_gate(draft, 1);
    let first = if remembers { "step1_here" } else { gate.as_str() };
    let to = |number, chain: &str| rule().dport(Protocol::Tcp, port(number)).goto(chain, "routed");
    let rules = vec![
        rule().reply().pass("own"),
        to(options.http_port, first),
        to(options.https_port, &step_gate(draft, 2)),
    ];
    let mut out = vec![Chain::new("steps_here", rules)];
    if remembers {
        let mut rules: Vec<String> =
            right_path(draft, family).map(|text| text.jump("step1_begun", "step1:path")).collect();
        rules.push(rule().goto(&gate, "routed"));
        out.push(Chain::new("step1_here", rules));
        out.push(Chain::new("step1_begun", path_found(draft, family, None)));
    }
    out
}

fn step1_raw(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let mut rules = vec![rule().tcp_state("SYN").goto("notrack", "step1:syn")];
    rules.extend(right_path(draft, family).map(|text| text.goto("step1_path", "step1:path")));
    rules.extend(later_segment(draft, family, true).map(|text| text.goto("notrack", "step1:segment")));
    rules
}

/// Beyond the rate of their source, packets do not come to these rules: first segments with the right path, or where
/// step 1 answers SYNs. What is counted began within a minute of the first. A full set stops nobody.
fn metered(draft: &Draft<'_>, family: Family, then: Vec<String>) -> Vec<String> {
    if draft.keeping == Keeping::Recent {
        return then;
    }
    let set = names::set(&format!("{METER}_{}", family.digit()));
    let rate = meter_rate(&draft.layout);
    let mut rules = vec![
        rule().with(format!("-m set --match-set {set} src --packets-gt {rate}")).drop("drop:flood"),
        rule().target(&format!("-j SET --add-set {set} src"), "step1:meter"),
    ];
    rules.extend(then);
    rules
}

fn path_found(draft: &Draft<'_>, family: Family, then: Option<String>) -> Vec<String> {
    let mut rules = Vec::new();
    if draft.segments() > 1 {
        let set = names::set(&format!("{FLOW}_{}", family.digit()));
        // Only where it is not: adding it again would begin to count anew.
        rules.push(
            rule()
                .protocol(Protocol::Tcp)
                .with(format!("-m set ! --match-set {set} src,src ! --update-counters"))
                .target(&format!("-j SET --add-set {set} src,src --timeout {FLOW_SECS}"), "step1:flow"),
        );
    }
    rules.extend(then);
    rules
}

/// One per path.
fn right_path(draft: &Draft<'_>, family: Family) -> impl Iterator<Item = Phrase> {
    let max = draft.layout.settings.global.step1_max_bytes;
    let matcher = draft.matcher;
    let wanted =
        request_line_starts(&draft.layout).into_iter().filter_map(move |w| begins(matcher, family, &w));
    wanted.map(move |wanted| rule().protocol(Protocol::Tcp).length_at_most(max).with(wanted))
}

/// The element is made with the first packet counted in.
fn later_segment(draft: &Draft<'_>, family: Family, counts: bool) -> Option<Phrase> {
    let segments = u64::from(draft.segments());
    if segments <= 1 {
        return None;
    }
    let set = names::set(&format!("{FLOW}_{}", family.digit()));
    let asked = if counts {
        format!("-m set --match-set {set} src,src --packets-lt {}", segments + 1)
    } else {
        format!("-m set --match-set {set} src,src ! --update-counters --packets-lt {}", segments + 1)
    };
    let max = draft.layout.settings.global.step1_max_bytes;
    Some(rule().protocol(Protocol::Tcp).length_at_most(max).with(asked))
}

fn notrack() -> String {
    rule().target("-j CT --notrack", "step1:notrack")
}

pub(super) fn hook(builtin: &str, stem: &str) -> Hook {
    Hook { builtin: builtin.to_owned(), chain: names::chain(stem) }
}
