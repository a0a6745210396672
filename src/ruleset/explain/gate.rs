//! Our own gate: by what right it let an address in, or why it did not.

use std::net::IpAddr;

use super::answer::{Finding, Verdict};
use super::cause::Cause;
use super::facts::Daemon;
use super::judge::{Trial, for_more, other, word};
use super::member::{begun_once, covered, goes_on_once, is_in_ours, our_table, some_of, value_of};
use super::recalled::Holder;
use super::walk::Walk;
use super::{heard, history, newer, ways};
use crate::config::{App, User};
use crate::ruleset::audit::machine::Place;
use crate::ruleset::plan::{allow_set, app_set};
use crate::units::{Family, Network};

/// Others who are let in are named up to this many.
const FEW: usize = 3;

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
            format!(
                "the rules in force do not guard {}: the configuration is newer than they are, or somebody took rules away",
                app.name
            ),
        )
        .next(newer::remedy(trial)),
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
        )
        .next(format!(
            "# does anything of it arrive at all? tcpdump -ni {} host {} and {} port {}",
            trial.question.by.as_ref().map_or("any", |by| by.name.as_str()),
            trial.question.client,
            trial.question.protocol,
            trial.question.port
        ));
        if prefix < 128 && trial.question.family() == Family::V6 {
            found.message.push_str(&format!(", as everybody in its /{prefix} has"));
        }
        let begun = begun_once(&facts.situation.host, &app.slug, trial.question.client);
        if app.once && begun > 0 {
            found.message.push_str(&format!(
                "; {begun} were begun in its name of late and not completed: by somebody else, or our answers do not reach it"
            ));
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
    if trial.question.app.is_none() && ["svc_", "lan_"].iter().any(|of| place.chain.starts_with(of)) {
        return vec![newer::still_guarded(trial)];
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
    let host = &trial.facts.situation.host;
    let once = trial.question.app.filter(|app| goes_on_once(host, &app.slug, trial.question.client));
    if let Some(app) = once {
        let goes_on = Finding::open(
            Cause::EstablishedLives,
            "a connection of it that used up its grant (`once`) may go on; only new ones need a grant",
        );
        found.push(
            goes_on.next(format!("# to end it: knock-agent revoke {} {}", app.name, trial.question.client)),
        );
    }
    let mut flows = trial.facts.flows.iter();
    if flows.any(|flow| flow.open && ways::lives_on(trial, flow)) {
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
    found.extend(ways::private(trial));
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
    let mut told = Vec::new();
    if let Daemon::Says(recalled) = &trial.facts.daemon {
        if steps {
            told.extend(heard::unheard(trial, recalled));
        }
        let history = history::told(recalled, app, trial.question.client);
        let history = history.map(|finding| heard::gone_on(trial, recalled, finding));
        told.extend(history.map(|finding| knock(trial, disabled(trial, app, finding))));
    }
    let mut blocked = if steps { heard::way(trial, heard::stands_at(&told)) } else { Vec::new() };
    // Whoever has nothing but its first step behind it was kept from going on.
    // Of a client with two addresses, one did step 1, and this one nothing or step 2.
    let nothing_of_its_own = told.iter().all(|finding| finding.cause == Cause::Step1Missing);
    if told.is_empty() || heard::stands_at(&told).is_some() {
        found.append(&mut blocked);
    }
    found.append(&mut told);
    found.extend(in_a_sequence(trial));
    found.append(&mut blocked);
    if steps {
        found.extend(heard::certificate(trial));
    }
    found.extend(elsewhere(trial, app));
    // What became of it when it was let in, or came too often, is no matter of keys and paths.
    let settled = |finding: &Finding| {
        use Cause::{GrantExpired, GrantFailed, GrantRevoked, LockedOut, OnceUsed, RateLimited};
        [GrantExpired, GrantFailed, GrantRevoked, LockedOut, OnceUsed, RateLimited].contains(&finding.cause)
    };
    match newer::keeps_out(trial) {
        Some(changed) if !found.iter().any(settled) => found.insert(0, changed),
        changed => found.extend(changed.or_else(|| newer::beside(trial))),
    }
    let other = step1_of_others(trial, app).filter(|_| nothing_of_its_own);
    // What cannot be told of its knocks is no reason.
    if !found.iter().any(|finding| finding.verdict == Verdict::Closed) {
        let mut not_knocked = not_knocked(trial, app, steps);
        let knock_alike = other.as_ref().and_then(|other| other.next.first().cloned());
        not_knocked.next.splice(0..0, knock_alike);
        found.insert(0, not_knocked);
    }
    found.extend(other);
    found
}

/// It has not knocked, as far as anybody knows: wrong paths and wrong ports are dropped without a trace.
fn not_knocked(trial: &Trial<'_>, app: &App, steps: bool) -> Finding {
    let ports = match &trial.facts.daemon {
        Daemon::Says(recalled) => recalled.ports.filter(|_| steps),
        Daemon::Absent | Daemon::Mute(_) => None,
    };
    let at = ports.map(|(http, https)| format!(" at tcp/{http} and tcp/{https}")).unwrap_or_default();
    let mut message = match &trial.facts.daemon {
        Daemon::Says(recalled) => {
            format!(
                "it has not knocked{at}, as far as the daemon remembers ({})",
                super::span(recalled.since_s)
            )
        }
        Daemon::Absent | Daemon::Mute(_) => "it has no grant".to_owned(),
    };
    let others: Vec<String> = granted_now(trial, app, trial.question.family());
    if !others.is_empty() {
        message.push_str(&format!("; let in now is {}", others.join(", ")));
    }
    let mut found = Finding::closed(Cause::NotKnocked, message)
        .next("# have the client knock: knock-agent knock PROFILE");
    if let Some((http, _)) = ports {
        found = found.next(without_a_trace(http));
    }
    if !others.is_empty() {
        found = found.next(
            "# if one of those let in is the same client: it comes from another address than it knocked from (a proxy, a VPN, a mobile network)",
        );
    }
    found.next(by_hand(trial, app))
}

fn without_a_trace(http: u16) -> String {
    format!(
        "# if it has knocked: compare its http_post_path and the port of step 1 (tcp/{http}); what is wrong there the kernel drops without a trace"
    )
}

/// A few of those who are let in by packets of that family.
fn granted_now(trial: &Trial<'_>, app: &App, family: Family) -> Vec<String> {
    let host = &trial.facts.situation.host;
    let sets = grant_sets(trial, app, family);
    sets.iter().flat_map(|set| some_of(host, set, FEW)).take(FEW).map(|addr| addr.to_string()).collect()
}

/// Who of those who may reach the app is disabled, where a key was wrong: the daemon tells neither them nor strangers.
fn disabled(trial: &Trial<'_>, app: &App, finding: Finding) -> Finding {
    if finding.cause != Cause::KnockRefused || !finding.message.contains("disabled") {
        return finding;
    }
    let of_app =
        |user: &&User| user.apps.iter().any(|of| of.app == app.name && (user.disabled || of.disabled));
    let users = trial.question.layout.settings.users.iter().filter(of_app);
    let names: Vec<&str> = users.map(|user| user.name.as_str()).take(FEW).collect();
    match names.as_slice() {
        [] => finding,
        names => finding.next(format!("# disabled for {}: {}", app.name, names.join(", "))),
    }
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
    let (address, ago) = (waits.address, super::span(waits.ago_s));
    // Where many knock, it is mostly somebody else.
    let found = Finding::open(
        Cause::Step1Elsewhere,
        format!(
            "{address} did step 1 {ago} ago and has not gone on: the same client, perhaps, which comes {how}"
        ),
    );
    let digit = this.digit();
    Some(found.next(format!(
        "# if {address} is the same client: have it knock and connect by the same: knock-agent knock -{digit}"
    )))
}
