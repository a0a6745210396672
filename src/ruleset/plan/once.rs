//! Apps whose grants end with the first connection (`once`): what stays open is that connection, known by the client's
//! end of it, which is the same before and after a translation.
//!
//! With TCP, whoever begins is only noted: anybody can write an address on a first packet. The door is used up by
//! whoever acknowledges the number that the service answered with, as only those can who hear at that address.

use crate::config::App;
use crate::ruleset::expr::Side;
use crate::ruleset::knocking::{LOG_BYTES, LOG_GROUP, LOG_USED};
use crate::ruleset::layout::{Layout, Segment};
use crate::ruleset::model::{Chain, KeyPart, ONCE_SETS, Rule, Set, TRIED_SETS};
use crate::ruleset::rule::{RuleText, rule};
use crate::units::{Family, Protocol};

use super::chain;
use super::sets::{address, from_packets};
use super::step1::data_at;

/// Stem of the sets of what clients have to acknowledge, and of the chains that work it out.
const AWAITED: &str = "awaited";
/// How long both are remembered after the last packet of a handshake: longer than services keep it open, and than a SYN
/// cookie is good.
const TRIED_MS: u64 = 180_000;

/// What the names of the sets of an app's connections begin with.
fn stem(app: &App) -> String {
    format!("{ONCE_SETS}{}", app.slug)
}

/// The set of an app's connections.
fn once_set(app: &App, family: Family) -> String {
    format!("{}_{}", stem(app), family.digit())
}

fn tried_stem(app: &App) -> String {
    format!("{TRIED_SETS}{}", app.slug)
}

/// The set of an app's connections that are begun and not used.
fn tried_set(app: &App, family: Family) -> String {
    format!("{}_{}", tried_stem(app), family.digit())
}

fn awaited_set(family: Family) -> String {
    format!("{AWAITED}_{}", family.digit())
}

fn has_tcp(app: &App) -> bool {
    app.protocol.each().contains(&Protocol::Tcp)
}

/// The apps whose connections have a handshake.
fn with_handshake<'l>(layout: &Layout<'l>) -> impl Iterator<Item = &'l App> + use<'l> {
    layout.settings.apps.iter().filter(|app| app.once && has_tcp(app))
}

pub(super) fn sets(layout: &Layout<'_>) -> Vec<Set> {
    let end = |family| vec![KeyPart::Protocol, address(family), KeyPart::Port];
    let mut out = Vec::new();
    for app in layout.settings.apps.iter().filter(|app| app.once) {
        out.extend(Family::BOTH.map(|family| from_packets(&stem(app), end(family), family)));
        if has_tcp(app) {
            out.extend(Family::BOTH.map(|family| from_packets(&tried_stem(app), end(family), family)));
        }
    }
    if with_handshake(layout).next().is_some() {
        out.extend(Family::BOTH.map(|family| {
            let key = [end(family), vec![KeyPart::TcpAck]].concat();
            from_packets(AWAITED, key, family)
        }));
    }
    out
}

/// The sets of grants of an app: stems and families.
fn grants<'l>(layout: &Layout<'l>, app: &'l App) -> Vec<(String, &'l [Family])> {
    let own = (format!("app_{}", app.slug), app.families());
    let by_packets = layout.knocking.of_app(app).map(|grants| (grants.stem.clone(), grants.families));
    std::iter::once(own).chain(by_packets).collect()
}

/// The name of the rules that let an app's connections pass.
pub(super) fn named(app: &App) -> String {
    format!("once:{}", app.slug)
}

/// What lets in, by what `begin` begins with: the connections there are and those on the way there; and where first
/// packets are met, what makes a grant into one.
pub(super) fn clients(
    layout: &Layout<'_>,
    app: &App,
    protocol: Protocol,
    side: Side,
    first: bool,
    begin: impl Fn() -> RuleText,
    finish: impl Fn(RuleText, &str) -> Rule,
) -> Vec<Rule> {
    let what = named(app);
    let done = |text: RuleText| finish(text, &what);
    let mut rules: Vec<Rule> =
        app.families().iter().flat_map(|&family| known(app, family, side, &begin)).map(done).collect();
    match (protocol, first) {
        (Protocol::Udp, false) => {}
        (Protocol::Udp, true) => rules.extend(used_up(layout, app, protocol, &begin).map(done)),
        (Protocol::Tcp, false) => rules.extend(
            app.families().iter().flat_map(|&family| trying(layout, app, family, side, &begin)).map(done),
        ),
        (Protocol::Tcp, true) => {
            rules.extend(too_early(layout, app, &begin));
            rules.extend(tries(layout, app, &begin).map(done));
            rules.extend(used_up(layout, app, protocol, &begin).map(done));
            let reset = || begin().any_reset();
            rules.extend(
                app.families().iter().flat_map(|&family| trying(layout, app, family, side, reset)).map(done),
            );
        }
    }
    rules
}

/// What translates an app's first packets, which have passed the gate.
pub(super) fn forwarded(
    layout: &Layout<'_>,
    app: &App,
    family: Family,
    protocol: Option<Protocol>,
    begin: impl Fn() -> RuleText,
) -> Vec<RuleText> {
    let mut out: Vec<RuleText> = known(app, family, Side::Source, &begin).collect();
    if protocol != Some(Protocol::Udp) {
        out.extend(trying(layout, app, family, Side::Source, begin));
    }
    out
}

fn known(
    app: &App,
    family: Family,
    side: Side,
    begin: impl Fn() -> RuleText,
) -> impl Iterator<Item = RuleText> {
    std::iter::once(begin().end_in(family, side, &once_set(app, family)))
}

/// Those who begin while their grant stands.
fn trying(
    layout: &Layout<'_>,
    app: &App,
    family: Family,
    side: Side,
    begin: impl Fn() -> RuleText,
) -> Vec<RuleText> {
    if !has_tcp(app) {
        return Vec::new();
    }
    let prefix = layout.settings.global.ipv6_prefix;
    let of_family = grants(layout, app).into_iter().filter(|(_, families)| families.contains(&family));
    of_family
        .map(|(stem, _)| {
            let text = begin().end_in(family, side, &tried_set(app, family));
            text.addr_in_here(family, side, prefix, &format!("{stem}_{}", family.digit()))
        })
        .collect()
}

/// A first packet with data (TCP Fast Open) would be heard by the service before it is known who sent it: those who send
/// one send another without.
fn too_early(layout: &Layout<'_>, app: &App, begin: &impl Fn() -> RuleText) -> Vec<Rule> {
    let prefix = layout.settings.global.ipv6_prefix;
    let mut rules = Vec::new();
    for (stem, families) in grants(layout, app) {
        for &family in families {
            for (words, base, at) in data_at(layout.options.inner_header) {
                let text = begin().beginning();
                let text = words.into_iter().fold(text, RuleText::tcp_header_words);
                let text = text.addr_in(family, Side::Source, prefix, &format!("{stem}_{}", family.digit()));
                let what = format!("drop:early:{}", app.slug);
                rules.push(text.has_payload(base, at).counter().drop().named(&what));
            }
        }
    }
    rules
}

/// Notes who begins. Where there is no room, nobody begins, and the grant stands.
fn tries(layout: &Layout<'_>, app: &App, begin: &impl Fn() -> RuleText) -> impl Iterator<Item = RuleText> {
    let prefix = layout.settings.global.ipv6_prefix;
    let mut out = Vec::new();
    for (stem, families) in grants(layout, app) {
        for &family in families {
            // What is left of a connection of before begins nothing.
            let text = begin().beginning();
            let text = text.addr_in(family, Side::Source, prefix, &format!("{stem}_{}", family.digit()));
            out.push(text.update_end_here(family, &tried_set(app, family), TRIED_MS));
        }
    }
    out.into_iter()
}

/// Ends the grant, with every other one that the client has for the app, and keeps the connection for as long as a
/// grant lasts.
fn used_up(
    layout: &Layout<'_>,
    app: &App,
    protocol: Protocol,
    begin: &impl Fn() -> RuleText,
) -> impl Iterator<Item = RuleText> {
    let prefix = layout.settings.global.ipv6_prefix;
    let kinds = grants(layout, app);
    let mut out = Vec::new();
    for (stem, families) in &kinds {
        for &family in *families {
            let set = |stem: &str| format!("{stem}_{}", family.digit());
            let proven = match protocol {
                Protocol::Udp => begin().addr_in(family, Side::Source, prefix, &set(stem)),
                Protocol::Tcp => begin()
                    .acknowledging()
                    .end_in(family, Side::Source, &tried_set(app, family))
                    .acknowledged_in_here(family, &awaited_set(family))
                    .addr_in_here(family, Side::Source, prefix, &set(stem)),
            };
            let lasting = app.duration.as_secs() * 1_000;
            let mut text = proven.update_end_here(family, &once_set(app, family), lasting);
            for (stem, _) in kinds.iter().filter(|(_, families)| families.contains(&family)) {
                text = text.forget_source_here(family, prefix, &set(stem));
            }
            if protocol == Protocol::Tcp {
                text = text.forget_end_here(family, &tried_set(app, family));
            }
            out.push(told(layout, app, text));
        }
    }
    out.into_iter()
}

fn told(layout: &Layout<'_>, app: &App, text: RuleText) -> RuleText {
    if layout.options.log { text.log(&format!("{LOG_USED}{}", app.slug), LOG_GROUP, LOG_BYTES) } else { text }
}

/// Those who began and were too late, before a rule that lets established connections live on: connection tracking
/// holds theirs for established.
pub(super) fn losers(layout: &Layout<'_>, segment: &Segment, begin: impl Fn(&App) -> RuleText) -> Vec<Rule> {
    if segment.protocol != Protocol::Tcp {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for app in layout.apps(segment).filter(|app| app.once) {
        for &family in app.families() {
            let set = tried_set(app, family);
            let text = begin(app).end_in(family, Side::Source, &set);
            let text = text.update_end_here(family, &set, TRIED_MS).counter();
            rules.push(text.drop().named(&format!("drop:late:{}", app.slug)));
        }
    }
    rules
}

/// Where services' answers to first packets are looked at, whatever interface they leave by.
pub(super) fn answers_here(layout: &Layout<'_>) -> Vec<Rule> {
    if with_handshake(layout).next().is_none() {
        return Vec::new();
    }
    vec![answer(rule())]
}

/// The same for what is sent on: answers of a connection that is tracked, and else only those of the services' hosts.
pub(super) fn answers_forwarded(layout: &Layout<'_>) -> Vec<Rule> {
    if with_handshake(layout).next().is_none() {
        return Vec::new();
    }
    let mut hosts: Vec<_> = with_handshake(layout).filter_map(|app| app.destination.host()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let untracked = hosts.into_iter().map(|host| answer(rule().untracked().addr_is(Side::Source, host)));
    std::iter::once(answer(rule().reply_direction())).chain(untracked).collect()
}

fn answer(text: RuleText) -> Rule {
    text.l4proto(Protocol::Tcp).syn_ack().jump("awaits").named("once:answer")
}

pub(super) fn chains(layout: &Layout<'_>) -> Vec<Chain> {
    let mut rules = Vec::new();
    for app in with_handshake(layout) {
        for &family in app.families() {
            let text = rule().end_in(family, Side::Destination, &tried_set(app, family));
            rules.push(text.jump(&awaited_set(family)).named(&named(app)));
        }
    }
    if rules.is_empty() {
        return Vec::new();
    }
    let mut out = vec![chain("awaits", rules)];
    out.extend(Family::BOTH.map(|family| chain(awaited_set(family), next_number(family))));
    out
}

/// Remembers the number after that of the packet. Rules cannot add; what adding one does is to flip the last bits, up to
/// the first that is not set.
fn next_number(family: Family) -> Vec<Rule> {
    let set = awaited_set(family);
    let one_of = |bits: u32| {
        let flip = u32::MAX >> (32 - bits);
        let text = rule().l4proto(Protocol::Tcp).sequence_ends_in(flip, flip >> 1);
        text.expect_acknowledged(family, &set, flip, TRIED_MS).back().named("once:awaited")
    };
    let all = rule().l4proto(Protocol::Tcp).expect_acknowledged(family, &set, u32::MAX, TRIED_MS);
    (1..32).map(one_of).chain([all.done().named("once:awaited")]).collect()
}
