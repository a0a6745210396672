//! The gate: every packet towards a guarded port needs a grant, whoever forwards it afterwards.

use super::adopted::Way;
use super::model::Chain;
use super::phrase::{Phrase, Side, for_this_host, rule};
use super::plan::{Draft, Keeping, port, stem};
use super::step1;
use super::{adopted, behind, knock, names, path};
use crate::ruleset::layout::Segment;
use crate::ruleset::plan::step2_set;
use crate::units::{Family, Protocol};

/// The client's ends of UDP conversations, for the case that the service takes one up by itself.
pub(super) const SPOKEN: &str = "spoken";
/// The client's ends of TCP connections to guarded ports, which tell ours from others that somebody forwards.
pub(super) const TALKED: &str = "talked";
/// Seconds that an end is remembered after its last packet: nearly all that an ipset can count.
pub(super) const SPOKEN_SECS: u32 = 2_147_000;
pub(super) const TALKED_SECS: u32 = 86_400;

pub(super) fn chains(draft: &Draft<'_>, family: Family) -> Vec<Chain> {
    let steps = draft.layout.settings.global.steps;
    let mut out = if steps { step1::gate(draft, family) } else { Vec::new() };
    out.push(Chain::new("gate", gate(draft, family)));
    out.push(Chain::new("gate_here", gate_here(draft)));
    out.push(Chain::new("gate_own", gate_own(draft, family)));
    out.push(Chain::new("turned", this_host(family, |text| text.goto("services", "turned"))));
    out.push(Chain::new("services", services(draft)));
    out.extend(knock::chains(draft, family));
    if steps {
        out.push(Chain::new("step2_gate", step2_gate(draft, family)));
    }
    out.push(Chain::new("spoke", remember(draft, SPOKEN, family, Protocol::Udp, SPOKEN_SECS)));
    out.push(Chain::new("talk", remember(draft, TALKED, family, Protocol::Tcp, TALKED_SECS)));
    out.extend(draft.layout.services.iter().map(|segment| service_chain(draft, family, segment)));
    out.push(Chain::new("forward", forward(draft, family)));
    out.push(Chain::new("forward_own", forward_own(draft, family)));
    out.extend(draft.lan(family).map(|segment| lan_chain(draft, family, segment)));
    out
}

fn this_host(family: Family, finish: impl Fn(Phrase) -> String) -> Vec<String> {
    for_this_host(family).into_iter().map(finish).collect()
}

fn gate(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let mut rules = vec![rule().reply().goto("gate_own", "own")];
    rules.extend(forged(draft, family));
    rules.extend(this_host(family, |text| text.goto("gate_here", "here")));
    rules
}

/// Connections from outside that claim to be begun by this host, or by a service on a LAN host: whoever began one so
/// could go on in the other direction, by which only answers come. A stranger can make a connection-tracking helper
/// wait for such a one, which is related then, and not new.
fn forged(draft: &Draft<'_>, family: Family) -> Vec<String> {
    // What this host sends to many comes back to its own programs, as if from outside. IPv6 knows no broadcasts.
    let (own, many) = match family {
        Family::V4 => ("LOCAL", "BROADCAST,MULTICAST"),
        Family::V6 => ("LOCAL,ANYCAST", "MULTICAST"),
    };
    let mut rules = Vec::new();
    for name in &draft.layout.ext {
        let begun = || rule().iif(name).state("NEW,RELATED");
        rules.push(begun().own_to_one_host(own, many).drop("drop:forged"));
        for segment in draft.lan(family) {
            let text = match segment.host {
                Some(host) => begun().sent_by(host),
                None => begun(),
            };
            rules.push(text.sport(segment.protocol, segment.ports).drop("drop:forged"));
        }
    }
    rules
}

fn gate_here(draft: &Draft<'_>) -> Vec<String> {
    let options = draft.layout.options;
    let mut rules = Vec::new();
    if draft.layout.settings.global.steps {
        for (number, step) in [(options.http_port, 1), (options.https_port, 2)] {
            let text = rule().dport(Protocol::Tcp, port(number));
            rules.push(text.goto(&knock::step_gate(draft, step), &format!("step{step}")));
        }
    }
    let next = if draft.layout.knocking.is_empty() { "services" } else { "knocks" };
    rules.extend(draft.layout.ext.iter().map(|name| rule().iif(name).goto(next, next)));
    rules
}

/// Answers to connections of this host's or a LAN host's own, from a port that happens to be guarded; but not
/// those of a client to whom a service began to talk by itself after connection tracking had forgotten it.
fn gate_own(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let turned = |text: Phrase| draft.remembered(text.protocol(Protocol::Udp), SPOKEN, family, Side::Source);
    let mut rules = Vec::new();
    for name in &draft.layout.ext {
        rules.extend(turned(rule().iif(name)).into_iter().map(|text| text.goto("turned", "turned")));
        // Connection tracking may learn of a flow of before from a packet of the service.
        let begin = rule().iif(name);
        rules.extend(adopted::turned(draft, &begin, family, Side::Source, "turned", "adopted:turned"));
    }
    rules
}

fn services(draft: &Draft<'_>) -> Vec<String> {
    let each =
        draft.layout.services.iter().map(|segment| {
            rule().dport(segment.protocol, segment.ports).goto(&stem("svc", segment), "services")
        });
    each.chain(knock::behind_services(draft)).collect()
}

fn step2_gate(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let here = || rule().on_loopback().pass("step2:here");
    let mut rules: Vec<String> = (!draft.layout.guards_loopback()).then(here).into_iter().collect();
    let admitted = draft.asked(&rule(), &step2_set(family), family, Side::Source).into_iter();
    rules.extend(admitted.map(|text| text.pass("step2:admitted")));
    rules.push(rule().going_on(Protocol::Tcp).pass("step2:begun"));
    rules.push(rule().drop("drop:step2"));
    rules
}

fn remember(draft: &Draft<'_>, stem: &str, family: Family, protocol: Protocol, secs: u32) -> Vec<String> {
    match draft.keeping {
        Keeping::Ipset => remembering(stem, family, protocol, secs),
        Keeping::Recent => Vec::new(),
    }
}

/// Remembers the client's end, or where there is no room for its ports, the client, which has one place. Who cannot be
/// remembered does not come in, as its grant might never end.
pub(super) fn remembering(stem: &str, family: Family, protocol: Protocol, secs: u32) -> Vec<String> {
    let [ends, clients] = ["", "_by"].map(|which| names::set(&format!("{stem}{which}_{}", family.digit())));
    let add = |set: &str, what: &str| format!("-j SET --add-set {set} {what} --exist --timeout {secs}");
    let new = || rule().protocol(protocol).with(format!("-m set ! --match-set {ends} src,src"));
    vec![
        rule().protocol(protocol).target(&add(&ends, "src,src"), stem),
        new().target(&add(&clients, "src"), stem),
        new().with(format!("-m set ! --match-set {clients} src")).drop(&format!("drop:{stem}")),
    ]
}

/// Where a granted packet goes: to the memory of conversations.
pub(super) fn spoke(segment: &Segment) -> &'static str {
    match segment.protocol {
        Protocol::Tcp => "talk",
        Protocol::Udp => "spoke",
    }
}

fn service_chain(draft: &Draft<'_>, family: Family, segment: &Segment) -> Chain {
    let mut rules =
        draft.for_clients(segment, family, Side::Source, |text, what| text.goto(spoke(segment), what));
    rules.extend(draft.keep(segment, Phrase::pass));
    rules.extend(adopted::pass(draft, family, segment.protocol, Way::Gate));
    rules.extend(draft.drop_the_rest(segment, family, Side::Source, "drop"));
    Chain { name: names::chain(&stem("svc", segment)), rules }
}

/// Packets from outside straight to a LAN host, whether somebody translated them or not.
fn forward(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let mut rules = vec![rule().reply().goto("forward_own", "own")];
    for name in &draft.layout.ext {
        // Only a source route takes a packet for this host elsewhere, and it names the LAN host too late to be seen.
        if let (Family::V4, Some(options)) = (family, path::ip_options(draft.matcher)) {
            let text = rule().iif(name).with(options).address_type(Side::Destination, "LOCAL");
            rules.push(text.drop("drop:source-route"));
        }
        for segment in draft.lan(family) {
            rules.push(to_lan(rule().iif(name), segment).goto(&stem("lan", segment), "lan"));
        }
    }
    rules
}

fn forward_own(draft: &Draft<'_>, family: Family) -> Vec<String> {
    let mut rules = behind::to_behind_own(draft, family);
    for name in &draft.layout.ext {
        for segment in draft.lan(family).filter(|segment| segment.protocol == Protocol::Udp) {
            let texts = draft.remembered(to_lan(rule().iif(name), segment), SPOKEN, family, Side::Source);
            rules.extend(texts.into_iter().map(|text| text.goto(&stem("lan", segment), "turned")));
        }
        for segment in draft.lan(family) {
            let text = to_lan(rule().iif(name), segment);
            rules.extend(adopted::turned_to_lan(draft, text, family, &stem("lan", segment)));
        }
    }
    rules
}

fn to_lan(text: Phrase, segment: &Segment) -> Phrase {
    let text = match segment.host {
        Some(host) => text.sent_to(host),
        None => text,
    };
    text.dport(segment.protocol, segment.ports)
}

fn lan_chain(draft: &Draft<'_>, family: Family, segment: &Segment) -> Chain {
    let mut rules = draft.for_clients(segment, family, Side::Source, |text, what| match segment.protocol {
        Protocol::Tcp => text.goto("mark", what),
        Protocol::Udp => text.goto("spoke_mark", what),
    });
    rules.extend(draft.keep(segment, |text, what| text.goto("mark", what)));
    rules.extend(adopted::pass(draft, family, segment.protocol, Way::Marked));
    rules.extend(draft.drop_the_rest(segment, family, Side::Source, "drop"));
    Chain { name: names::chain(&stem("lan", segment)), rules }
}
