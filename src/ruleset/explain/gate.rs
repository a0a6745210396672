//! Our own gate: by what right it let an address in, or why it did not.

use std::net::IpAddr;

use super::answer::{Finding, Verdict};
use super::cause::Cause;
use super::facts::Daemon;
use super::history;
use super::judge::{Trial, for_more, other, word};
use super::member::{covered, is_in_ours, our_table, some_of, value_of};
use super::obstacle;
use super::recalled::{Holder, Recalled};
use super::walk::{Walk, arrive};
use super::ways;
use crate::config::App;
use crate::ruleset::audit::machine::Place;
use crate::ruleset::audit::packet::{Interface, Packet, TcpFlags, Tracking};
use crate::ruleset::plan::{METER_SECS, METER_SET, METER_V6_PREFIX, allow_set, app_set};
use crate::units::{Family, Network, Protocol};

/// Others who are let in are named up to this many.
const FEW: usize = 3;
/// How many seconds later than the kernel the daemon may have seen a knock.
const AT_ONCE_S: u64 = 5;

/// The sets of grants of an app.
fn grant_sets(trial: &Trial<'_>, app: &App, family: Family) -> Vec<String> {
    let by_packets = trial.question.layout.knocking.of_app(app).map(|grants| grants.set(family));
    std::iter::once(app_set(&app.slug, family)).chain(by_packets).collect()
}

/// The set by which the address is granted, if it is.
fn granted_by(trial: &Trial<'_>, app: &App) -> Option<String> {
    let host = &trial.facts.situation.host;
    let addr = covered(trial.question.client, trial.question.layout.settings.global.ipv6_prefix);
    let family = trial.question.family();
    let found = grant_sets(trial, app, family).into_iter().find(|set| is_in_ours(host, set, addr));
    found.or_else(|| held(trial, app).map(|_| app_set(&app.slug, family)))
}

/// Who is let in by that address, as the daemon says.
fn held<'t>(trial: &'t Trial<'_>, app: &App) -> Option<&'t Holder> {
    let Daemon::Says(recalled) = &trial.facts.daemon else { return None };
    recalled.grants.iter().find(|holder| holder.app == app.slug)
}

/// The set of networks that need not knock which has the address.
fn allowed_by(trial: &Trial<'_>, app: &App) -> Option<String> {
    let host = &trial.facts.situation.host;
    let (addr, family) = (trial.question.client, trial.question.family());
    let sets = [allow_set(&app.slug, family), allow_set("all", family)];
    let configured = || {
        let global = &trial.question.layout.settings.global;
        app.allow.iter().chain(&global.allow).any(|network| contains(*network, addr))
    };
    let found = sets.iter().find(|set| is_in_ours(host, set, addr)).cloned();
    found.or_else(|| (trial.facts.by_iptables && configured()).then(|| allow_set(&app.slug, family)))
}

fn contains(network: Network, addr: IpAddr) -> bool {
    network.family() == Family::of(addr) && network.first() <= addr && addr <= network.last()
}

/// Whether the address is let in, as far as sets say.
pub(super) fn is_member(trial: &Trial<'_>) -> bool {
    trial.question.app.is_some_and(|app| granted_by(trial, app).is_some() || allowed_by(trial, app).is_some())
}

/// By what right the gate let the packet pass.
pub(super) fn opened(trial: &Trial<'_>, first: &Walk) -> Finding {
    let (facts, question) = (trial.facts, trial.question);
    let by = question.by.as_ref().map_or("", |by| by.name.as_str());
    if !facts.guards {
        return ways::no_guard(trial);
    }
    if facts.situation.is_own(question.client) {
        return Finding::open(
            Cause::OwnAddress,
            format!(
                "{} is an address of this host, and what this host sends itself is not guarded",
                question.client
            ),
        );
    }
    if let Some(app) = question.app {
        if !question.is_outside() {
            return elsewhere_inside(trial, app, by);
        }
        if let Some(found) = right_of(trial, app) {
            return found;
        }
    }
    let chains = first.met.iter().filter(|met| met.is_ours()).flat_map(|met| &met.passage.visited);
    let guarded = chains.into_iter().any(|chain| chain.starts_with("svc_") || chain.starts_with("lan_"));
    match (guarded || facts.by_iptables && question.app.is_some(), question.app) {
        (true, _) => Finding::open(Cause::Granted, "our rules let it pass"),
        (false, Some(app)) => Finding::open(
            Cause::NotInForce,
            format!("the rules in force do not guard {}: the configuration is newer than they are", app.name),
        )
        .next("systemctl reload knock-agent  # or: kill -HUP the daemon"),
        (false, None) => Finding::open(
            Cause::NotGuarded,
            format!("no app guards {}: only the host's own rules decide", question.service()),
        )
        .next("# to guard it: write an app with that port into the configuration"),
    }
}

/// It comes in where the app is not guarded.
fn elsewhere_inside(trial: &Trial<'_>, app: &App, by: &str) -> Finding {
    let ext: Vec<&str> = app.interface_ext.iter().map(|name| name.as_str()).collect();
    let absent = |name: &&&str| trial.facts.situation.interface(name).is_none();
    let absent: Vec<&str> = ext.iter().filter(absent).copied().collect();
    let mut found = Finding::open(
        Cause::OtherInterface,
        format!("it comes in by {by}, where {} is not guarded (interface_ext: {})", app.name, ext.join(", ")),
    );
    if !absent.is_empty() {
        let absent = absent.join(", ");
        found.message.push_str(&format!(": this host has no interface {absent}"));
        found = found.next("ip -brief link  # what the interfaces are called");
    }
    found.next(format!("# to guard it there as well: add {by} to interface_ext"))
}

/// The grant or the network that lets it in.
fn right_of(trial: &Trial<'_>, app: &App) -> Option<Finding> {
    let facts = trial.facts;
    if let Some(set) = granted_by(trial, app) {
        let prefix = trial.question.layout.settings.global.ipv6_prefix;
        let holder = held(trial, app);
        let left =
            (facts.ends)(&set, covered(trial.question.client, prefix)).or(holder.map(|holder| holder.left_s));
        let who = holder.map_or(String::new(), |holder| match holder.by.as_str() {
            "" => format!(" ({})", holder.how),
            by => format!(" (by {by}, {})", holder.how),
        });
        let once = if app.once { ", for one connection" } else { "" };
        let mut found = Finding::open(
            Cause::Granted,
            format!("it has a grant{who}{}{once}", for_more(left)),
        )
        .next(
            "# if it does not work all the same: look at the service's own log, and whether the client really has this address",
        );
        if prefix < 128 && trial.question.family() == Family::V6 {
            found.message.push_str(&format!(", as everybody in its /{prefix} has"));
        }
        return Some(found);
    }
    let set = allowed_by(trial, app)?;
    let whose = if set.starts_with("allow_all_") { "every app" } else { app.name.as_str() };
    Some(
        Finding::open(Cause::Allowed, format!("its network need not knock: it is allowed to reach {whose}"))
            .next("knock-agent allow --list"),
    )
}

/// Why a rule of ours dropped the packet.
pub(super) fn closed(trial: &mut Trial<'_>, place: &Place) -> Vec<Finding> {
    let comment = place.rule.as_ref().and_then(|(_, comment)| comment.clone()).unwrap_or_default();
    if trial.question.app.is_none() && place.chain.starts_with("default_in") {
        return vec![
            Finding::closed(
                Cause::OurRuleDrops,
                format!(
                    "no app guards {}, and with `default_input: drop` nothing else comes in",
                    trial.question.service()
                ),
            )
            .next("# write an app with that port into the configuration, or set default_input: accept"),
        ];
    }
    if !comment.starts_with("ka:drop:") || is_member(trial) || trial.question.app.is_none() {
        let by = trial.question.by.as_ref().map_or("", |by| by.name.as_str());
        return vec![
            Finding::closed(
                Cause::OurRuleDrops,
                format!("our rule {comment} of chain {} drops it, coming in by {by}", place.chain),
            )
            .next(format!("nft -a list chain {} {}", our_table(), place.chain)),
        ];
    }
    let mut found = why_not_granted(trial);
    let question = trial.question;
    let lives = trial
        .facts
        .flows
        .iter()
        .any(|flow| flow.answered && flow.protocol == question.protocol && flow.port == question.port);
    if lives {
        found.push(Finding::open(
            Cause::EstablishedLives,
            "a connection of it that is open lives on (`established: keep`, or it was there before the guard); only new ones need a grant",
        ));
    }
    found
}

/// Why there is no grant: the true reason first, then what else is to be known.
pub(super) fn why_not_granted(trial: &mut Trial<'_>) -> Vec<Finding> {
    let Some(app) = trial.question.app else {
        return Vec::new();
    };
    let knocks = !app.access_key_http.is_empty() || has_users(trial, app);
    let steps = trial.question.layout.settings.global.steps && knocks;
    let mut found = Vec::new();
    found.extend(proxy(trial));
    if steps && trial.facts.daemon == Daemon::Absent {
        found.push(
            Finding::closed(
                Cause::DaemonNotRunning,
                "it has no grant, and no daemon runs that could hear a knock",
            )
            .next("systemctl start knock-agent; journalctl -u knock-agent -n 50")
            .next(by_hand(trial, app)),
        );
    }
    if let (true, Daemon::Mute(why)) = (steps, &trial.facts.daemon) {
        found.push(ways::mute(why).next(by_hand(trial, app)));
    }
    if let Daemon::Says(recalled) = &trial.facts.daemon {
        if steps {
            found.extend(unheard(trial, recalled));
        }
        found
            .extend(history::told(recalled, app, trial.question.client).map(|finding| knock(trial, finding)));
    }
    found.extend(in_a_sequence(trial));
    if steps {
        found.extend(knock_way(trial));
        found.extend(certificate(trial));
    }
    found.extend(elsewhere(trial, app));
    let message = match (&trial.facts.daemon, found.is_empty()) {
        (_, false) => None,
        (Daemon::Says(recalled), true) => {
            let at = recalled.ports.filter(|_| steps);
            let at = at.map(|(http, https)| format!(" at tcp/{http} and tcp/{https}")).unwrap_or_default();
            Some(format!(
                "it has not knocked{at}, as far as the daemon remembers ({})",
                super::span(recalled.since_s)
            ))
        }
        (Daemon::Absent | Daemon::Mute(_), true) => Some("it has no grant".to_owned()),
    };
    found.extend(message.map(|message| knock(trial, Finding::closed(Cause::NotKnocked, message))));
    found
}

/// Whether what came to step 1 lately was not step 1. Who sends anything else there is left in the middle of a beginning, or
/// counted by its source; what is heard comes to the daemon at once.
fn unheard(trial: &Trial<'_>, recalled: &Recalled) -> Option<Finding> {
    let (http, _) = recalled.ports?;
    let set = format!("{METER_SET}_{}", trial.question.family().digit());
    let source = covered(trial.question.client, METER_V6_PREFIX);
    let counted =
        is_in_ours(&trial.facts.situation.host, &set, source).then(|| (trial.facts.ends)(&set, source));
    let ago = match counted.flatten() {
        Some(left) => METER_SECS.saturating_sub(left),
        None if trial.facts.begun.contains(&http) => METER_SECS,
        None => return None,
    };
    if recalled.events.iter().any(|event| event.ago_s <= ago.saturating_add(AT_ONCE_S)) {
        return None;
    }
    Some(
        Finding::closed(
            Cause::Step1Unheard,
            format!(
                "it came to step 1 (tcp/{http}) within the last minute, and what it sent was not step 1: a wrong path, or something else than a knock"
            ),
        )
        .next("# compare the client's step-1 path (http_post_path) with the configuration; it is POST, and plain HTTP"),
    )
}

fn has_users(trial: &Trial<'_>, app: &App) -> bool {
    let users = &trial.question.layout.settings.users;
    users.iter().any(|user| user.apps.iter().any(|of| of.app == app.name))
}

/// What to try: to knock, or to be let in by hand.
fn knock(trial: &Trial<'_>, finding: Finding) -> Finding {
    if !finding.next.is_empty() {
        return finding;
    }
    match trial.question.app {
        Some(app) => {
            finding.next("# have the client knock: knock-agent knock PROFILE").next(by_hand(trial, app))
        }
        None => finding,
    }
}

fn by_hand(trial: &Trial<'_>, app: &App) -> String {
    format!("knock-agent grant {} {}  # lets it in by hand", app.name, trial.question.client)
}

fn proxy(trial: &Trial<'_>) -> Option<Finding> {
    let proxy = trial.question.layout.settings.global.proxy.as_ref()?;
    let networks = proxy.trusted.networks();
    networks.iter().any(|network| contains(*network, trial.question.client)).then(|| {
        Finding::closed(
            Cause::ProxyAddress,
            "it is the address of the proxy in front: grants are made out to the clients that the proxy names",
        )
        .next("# ask about the client's own address")
    })
}

/// Where the source stands in a knock sequence. What is knocked is a secret; how much of it is not.
fn in_a_sequence(trial: &Trial<'_>) -> Option<Finding> {
    let host = &trial.facts.situation.host;
    let family = trial.question.family();
    let source = covered(trial.question.client, 64);
    let find = |addr| value_of(host, &format!("knock_at{}", family.digit()), addr);
    let state = u32::from_ne_bytes(find(source).or_else(|| find(trial.question.client))?.try_into().ok()?);
    let knocking = &trial.question.layout.knocking;
    let settings = trial.question.layout.settings;
    let reached = knocking.reached(settings, state);
    let done = match reached {
        Some((done, of)) => format!("{done} of {of} knocks were right"),
        None => "it has begun".to_owned(),
    };
    Some(
        Finding::closed(
            Cause::SequenceUnfinished,
            format!("it is in the middle of a knock sequence: {done}, and the next one has not come"),
        )
        .next("# have it knock again from the beginning; a wrong knock or too long a pause loses what was reached"),
    )
}

/// Whether knocks can get through at all.
fn knock_way(trial: &mut Trial<'_>) -> Option<Finding> {
    let question = trial.question;
    let (by, host) = (question.by.clone()?, question.host?);
    let options = question.layout.options;
    let mut ports = (options.http_port.get(), options.https_port.get());
    if let Daemon::Says(recalled) = &trial.facts.daemon {
        ports = recalled.ports.unwrap_or(ports);
    }
    let (http, https) = ports;
    for (step, port) in [(1, http), (2, https)] {
        let walk = knock_walk(trial, &by, host, port);
        if let Some((met, place)) = walk.dropper().filter(|(met, _)| !met.is_ours()) {
            let mut found = obstacle::drops(trial.facts, question, &walk, met, place);
            found.cause = Cause::KnockBlocked;
            found.message =
                format!("its knocks do not arrive at step {step} (tcp/{port}): {}", found.message);
            trial.take_down("knock", &walk);
            return Some(found);
        }
    }
    let proxied = question.layout.settings.global.proxy.is_some();
    let listeners = trial.facts.situation.listeners.as_ref().filter(|_| !proxied)?;
    let heard = |port| listeners.iter().any(|at| at.protocol == Protocol::Tcp && at.port == port);
    let deaf = [(1, http), (2, https)].into_iter().find(|(_, port)| !heard(*port))?;
    (trial.facts.daemon != Daemon::Absent).then(|| {
        Finding::closed(
            Cause::StepNotListening,
            format!("nothing listens at tcp/{}, where step {} should be heard", deaf.1, deaf.0),
        )
        .next("journalctl -u knock-agent -n 50; systemctl restart knock-agent")
    })
}

fn knock_walk(trial: &Trial<'_>, by: &Interface, host: IpAddr, port: u16) -> Walk {
    let question = trial.question;
    let from = (Some(question.client), Some(51_516));
    let to = (Some(host), Some(port));
    let mut packet = Packet::new(question.family(), Protocol::Tcp, from, to, TcpFlags::Syn);
    packet.iif = Some(by.clone());
    packet.tracking = Tracking::NEW;
    packet.of_one_client = true;
    arrive(trial.facts.situation, trial.facts.routes, packet, None)
}

fn certificate(trial: &Trial<'_>) -> Option<Finding> {
    let Daemon::Says(recalled) = &trial.facts.daemon else { return None };
    let ended = recalled.certificate_ended_s?;
    Some(history::expired_certificate(ended))
}

/// Whether somebody who may be the same client is let in elsewhere or otherwise.
fn elsewhere(trial: &Trial<'_>, app: &App) -> Vec<Finding> {
    let host = &trial.facts.situation.host;
    let question = trial.question;
    let (client, family) = (question.client, question.family());
    let prefix = question.layout.settings.global.ipv6_prefix;
    let mut out = Vec::new();
    let apps = question.layout.settings.apps.iter().filter(|other| other.slug != app.slug);
    let others: Vec<&str> =
        apps.filter(|other| granted_by(trial, other).is_some()).map(|other| other.name.as_str()).collect();
    if !others.is_empty() {
        let mut found = Finding::closed(
            Cause::GrantedOtherApp,
            format!(
                "it is let in for {}, not for {}: each app is knocked for by itself",
                others.join(", "),
                app.name
            ),
        );
        found = knock(trial, found);
        out.push(found);
    }
    let names = |sets: Vec<String>| -> Vec<IpAddr> {
        sets.iter().flat_map(|set| some_of(host, set, 1_000)).collect()
    };
    let same_net =
        |addr: &IpAddr| covered(*addr, 64) == covered(client, 64) && *addr != covered(client, prefix);
    let here = names(grant_sets(trial, app, family));
    if family == Family::V6
        && let Some(neighbour) = here.iter().find(|addr| same_net(addr))
    {
        out.push(
            Finding::closed(
                Cause::GrantedOtherAddress,
                format!("{neighbour} of the same /64 is let in, and {client} is not: the client may have changed its address"),
            )
            .next("# global.ipv6_prefix: 64 would let in the whole network of whoever knocks")
            .next(by_hand(trial, app)),
        );
    }
    let across = names(grant_sets(trial, app, other(family)));
    if app.families().len() > 1 && !across.is_empty() {
        let some: Vec<String> = across.iter().take(FEW).map(IpAddr::to_string).collect();
        let (this, that) = (word(family), word(other(family)));
        let finding = Finding::closed(
            Cause::GrantedOtherFamily,
            format!(
                "it has not knocked by {this}; let in by {that} is {}: the same client, perhaps, which knocked by {that} and connects by {this}",
                some.join(", ")
            ),
        );
        out.push(
            finding
                .next(format!(
                    "# have the client knock and connect by the same: knock-agent knock -{}",
                    family.digit()
                ))
                .next(by_hand(trial, app)),
        );
    }
    out.extend(step1_of_others(trial, app));
    if out.is_empty() && !here.is_empty() {
        let some: Vec<String> = here.iter().take(FEW).map(IpAddr::to_string).collect();
        let mut note = Finding::closed(
            Cause::NotKnocked,
            format!("it has not knocked; let in now is {}", some.join(", ")),
        );
        note.next.push(
            "# if that is the same client: it comes from another address than it knocked from (a proxy, a VPN, a mobile network)".to_owned(),
        );
        note.next.push(by_hand(trial, app));
        note.verdict = Verdict::Closed;
        out.push(note);
    }
    out
}

/// Somebody else's step 1, after which no step 2 came: of the same client, perhaps, which comes from two addresses.
fn step1_of_others(trial: &Trial<'_>, app: &App) -> Option<Finding> {
    let Daemon::Says(recalled) = &trial.facts.daemon else { return None };
    let client = trial.question.client;
    let waits = recalled.pending.iter().find(|waits| waits.app == app.slug)?;
    let (this, that) = (Family::of(client), Family::of(waits.address));
    let how = match this == that {
        true => "over two ways (a proxy, a VPN, a provider that shares addresses)".to_owned(),
        false => format!("by {} and {}", word(that), word(this)),
    };
    let found = Finding::closed(
        Cause::Step1Elsewhere,
        format!(
            "it has not knocked; {} did step 1 {} ago and has not gone on: the same client, perhaps, which comes {how}",
            waits.address,
            super::span(waits.ago_s)
        ),
    );
    let digit = this.digit();
    Some(
        found
            .next(format!("# have the client knock and connect by the same: knock-agent knock -{digit}"))
            .next(by_hand(trial, app)),
    )
}
