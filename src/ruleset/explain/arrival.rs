//! What is at the end of the way: a program here, a LAN host, or no way at all.

use std::net::IpAddr;

use super::answer::Finding;
use super::cause::Cause;
use super::facts::{Echo, Facts, PathTrouble};
use super::judge::{Question, Trial, other, word};
use super::probe;
use super::walk::Walk;
use crate::ruleset::audit::situation::Listener;
use crate::units::{Family, Protocol};

/// What was lost this long ago is lost now, too, unless somebody has just mended it.
const JUST_NOW_S: u64 = 30;

/// Whether a program on this host takes the packet.
#[must_use]
pub(super) fn here(facts: &Facts<'_>, question: &Question<'_>, walk: &Walk) -> Option<Finding> {
    let listeners = facts.situation.listeners.as_ref()?;
    let (addr, port) = (walk.last.ip(true)?, walk.last.port(true)?);
    let at_port: Vec<&Listener> = listeners
        .iter()
        .filter(|listener| listener.protocol == question.protocol && listener.port == port)
        .collect();
    let taking: Vec<&Listener> =
        at_port.iter().copied().filter(|listener| takes(facts, listener, addr)).collect();
    if let Some(first) = taking.first() {
        let hangs = |at: &&Listener| facts.full.contains(&(at.address.to_canonical(), port).into());
        let hang = question.protocol == Protocol::Tcp && taking.iter().all(hangs);
        return hang.then(|| hanging(question, first, port));
    }
    let service = format!("{}/{port}", question.protocol);
    let look = match question.protocol {
        Protocol::Tcp => format!("ss -tlnp 'sport = :{port}'"),
        Protocol::Udp => format!("ss -ulnp 'sport = :{port}'"),
    };
    let Some(first) = at_port.first() else {
        return Some(
            Finding::closed(
                Cause::NothingListens,
                format!("nothing listens on {service} of this host, which refuses what gets through"),
            )
            .next(look)
            .next(match question.app {
                Some(app) => format!("# start the service, or correct `port` of {}", app.name),
                None => "# start the service".to_owned(),
            }),
        );
    };
    let all =
        |test: &dyn Fn(IpAddr) -> bool| at_port.iter().all(|listener| test(listener.address.to_canonical()));
    let family = Family::of(addr);
    let (cause, what) = if all(&|at| at.is_loopback()) {
        (Cause::ListensLoopback, format!("on {} only, which nobody outside reaches", first.address))
    } else if all(&|at| Family::of(at) != family) {
        (
            Cause::ListensOtherFamily,
            format!("by {} only, and the client comes by {}", word(other(family)), word(family)),
        )
    } else {
        (Cause::ListensElsewhere, format!("on {} only, and the client turns to {addr}", first.address))
    };
    Some(
        Finding::closed(cause, format!("{} listens on {service} {what}", who(first)))
            .next(look)
            .next(format!("# have the service listen on all addresses, or on {addr}")),
    )
}

fn who(listener: &Listener) -> String {
    match &listener.process {
        Some(process) => format!("{} (pid {})", process.name, process.pid),
        None => "a program".to_owned(),
    }
}

/// It listens, and does not take what comes.
fn hanging(question: &Question<'_>, listener: &Listener, port: u16) -> Finding {
    let app = question.name();
    Finding::closed(
        Cause::NoAnswer,
        format!(
            "{} listens on tcp/{port} and does not take the connections that wait for it: its queue is full, and the kernel answers no more of them",
            who(listener)
        ),
    )
    .next(format!("ss -tlnp 'sport = :{port}'  # Recv-Q is above Send-Q"))
    .next(format!("# restart the service of {app}, or find out what it waits for"))
}

fn takes(facts: &Facts<'_>, listener: &Listener, addr: IpAddr) -> bool {
    let at = listener.address;
    if at.to_canonical() == addr {
        return true;
    }
    match (at.is_unspecified(), Family::of(at), Family::of(addr)) {
        (false, ..) | (true, Family::V4, Family::V6) => false,
        (true, Family::V4, Family::V4) | (true, Family::V6, Family::V6) => true,
        (true, Family::V6, Family::V4) => {
            listener.protocol == Protocol::Udp || !facts.only_v6.contains(&listener.port)
        }
    }
}

/// Whether a connection to this host that the client began within the last minute waits for it to go on: no answer of ours
/// reaches it, or what it sends then does not reach us.
#[must_use]
pub(super) fn half_way(trial: &Trial<'_>, walk: &Walk) -> Option<Finding> {
    let question = trial.question;
    let port = walk.last.port(true).filter(|_| walk.last.for_here && question.protocol == Protocol::Tcp)?;
    if !trial.facts.begun.contains(&port) || trial.facts.situation.is_own(question.client) {
        return None;
    }
    // One that went on since tells that it has been mended.
    let last = |half: bool| {
        let of = trial
            .facts
            .flows
            .iter()
            .filter(|flow| flow.protocol == Protocol::Tcp && flow.port == question.port);
        of.filter(|flow| flow.half == half && flow.answered).map(|flow| flow.idle_s).min()
    };
    if last(false).is_some_and(|went_on| last(true).is_none_or(|waits| went_on <= waits)) {
        return None;
    }
    let client = question.client;
    let by = question.by.as_ref().map_or("", |by| by.name.as_str());
    Some(
        Finding::unknown(
            Cause::NoAnswer,
            format!(
                "it began a connection to {} within the last minute, and got no further: our answer is lost on its way to it (a wrong hardware address of it or of the next router, another host with its address, a firewall on the way), or what it sends then is",
                question.service()
            ),
        )
        .next(format!("ip neigh show dev {by}; tcpdump -ni {by} host {client} and port {port}"))
        .next(format!("ip neigh flush dev {by}  # if a hardware address there is an old one; `ip neigh del` for one that is `PERMANENT`"))
        .next("# or try again: a connection that is answered makes this go away within a minute"),
    )
}

/// Whether the LAN host takes the packet.
#[must_use]
pub(super) fn there(trial: &Trial<'_>, walk: &Walk) -> Vec<Finding> {
    let (facts, question) = (trial.facts, trial.question);
    let Some((addr, port)) = walk.last.ip(true).zip(walk.last.port(true)) else { return Vec::new() };
    let mut out = Vec::new();
    let service = format!("{}/{port} of {addr}", question.protocol);
    let echo = match question.protocol {
        Protocol::Tcp => (facts.echo)(addr, port),
        Protocol::Udp => Echo::NotAsked,
    };
    let hindered = match echo {
        Echo::Refuses | Echo::Silent | Echo::Absent => probe::hindered(trial, addr, port),
        Echo::Takes | Echo::NotAsked => None,
    };
    // What a rule of this host answers, or drops, says nothing of the LAN host.
    let echo = if hindered.is_some() { Echo::NotAsked } else { echo };
    let masquerades = question.app.is_some_and(|app| app.masquerade && app.destination.host().is_some());
    if echo != Echo::Takes
        && let Some(found) = leads_elsewhere(question, walk, addr)
    {
        return vec![found];
    }
    match echo {
        Echo::Takes | Echo::NotAsked => {}
        Echo::Refuses => out.push(
            Finding::closed(
                Cause::LanRefuses,
                format!(
                    "it gets through this host, but {service} refuses connections: nothing listens there"
                ),
            )
            .next(format!("# start the service on {addr}, or correct `destination`")),
        ),
        Echo::Absent => out.push(
            Finding::closed(
                Cause::LanHostDown,
                format!(
                    "it gets through this host, but {addr} is not there: this host does not reach it either"
                ),
            )
            .next(format!("ip neigh show {addr}; ping -c 3 {addr}"))
            .next("# is it switched on, and is `destination` its address?"),
        ),
        Echo::Silent if unanswered(trial).is_none() && answered_lately(trial) => out.push(Finding::open(
            Cause::LanSilent,
            format!("{service} does not answer this host itself, and has answered the client within the last minute"),
        )),
        Echo::Silent => {
            let message =
                format!("it gets through this host, but {service} does not answer this host either");
            let found = match masquerades {
                true => Finding::closed(Cause::LanSilent, message),
                false => Finding::unknown(Cause::LanSilent, message),
            };
            out.push(found.next(is_it_on(addr, &service)));
        }
    }
    // To the LAN host, a masqueraded client is this host, which it has just answered.
    let served = masquerades && echo == Echo::Takes;
    if let Some(idle_s) = unanswered(trial).filter(|_| out.is_empty() && !served) {
        out.push(no_answer(trial, &service, addr, masquerades, idle_s));
    } else if out.is_empty()
        && !masquerades
        && question.app.is_some_and(|app| app.destination.host().is_some())
    {
        out.push(
            Finding::open(Cause::NoMasquerade, format!("if it does not work all the same: without `masquerade`, {addr} needs a route back to {} by this host", question.client))
                .next(no_masquerade(trial, addr)),
        );
    }
    out.extend(hindered);
    out
}

/// Whether the way to the LAN host is none by the interface towards it, but a default route to the outside, say.
fn leads_elsewhere(question: &Question<'_>, walk: &Walk, addr: IpAddr) -> Option<Finding> {
    let app = question.app.filter(|app| app.destination.host() == Some(addr))?;
    let out = walk.last.oif.as_ref()?.name.as_str();
    let towards: Vec<&str> = app.interface_int.iter().map(|name| name.as_str()).collect();
    if out.is_empty() || towards.contains(&out) {
        return None;
    }
    let towards = towards.join(", ");
    let message = format!(
        "this host has no route to {addr} by {towards} (interface_int): the way there leads out by {out}"
    );
    Some(
        Finding::closed(Cause::NoRoute, message)
            .next(format!("ip route get {addr}; ip -brief address show"))
            .next(format!("# is {towards} up, and has it an address of the network of {addr}?")),
    )
}

/// How many seconds ago the client's last packet went there, where nobody has answered it, nor any since.
fn unanswered(trial: &Trial<'_>) -> Option<u64> {
    let question = trial.question;
    let last = |answered| {
        let flows = trial.facts.flows.iter();
        flows
            .filter(|flow| flow.answered == answered)
            .filter(|flow| flow.protocol == question.protocol && flow.port == question.port)
            .map(|flow| flow.idle_s)
            .min()
    };
    last(false).filter(|lost_s| last(true).is_none_or(|answered_s| *lost_s <= answered_s))
}

/// Whether the client was answered within the last minute: what this host itself sends may have a way of its own.
fn answered_lately(trial: &Trial<'_>) -> bool {
    let question = trial.question;
    let mut of = trial
        .facts
        .flows
        .iter()
        .filter(|flow| flow.protocol == question.protocol && flow.port == question.port);
    of.any(|flow| flow.answered && !flow.half && flow.idle_s <= 60)
}

fn no_answer(trial: &Trial<'_>, service: &str, addr: IpAddr, masquerades: bool, idle_s: u64) -> Finding {
    let why =
        if masquerades { "" } else { ", as by a host that has no route back to the client by this one" };
    let message =
        format!("its packets went to {service} {} ago, and were not answered{why}", super::span(idle_s));
    let found = match idle_s <= JUST_NOW_S {
        true => Finding::closed(Cause::NoAnswer, message),
        false => {
            Finding::unknown(Cause::NoAnswer, format!("{message}; whether they would be now cannot be told"))
        }
    };
    found.next(if masquerades { is_it_on(addr, service) } else { no_masquerade(trial, addr) })
}

fn is_it_on(addr: IpAddr, service: &str) -> String {
    format!("# is {addr} on, and does its own firewall let {service} in?")
}

fn no_masquerade(trial: &Trial<'_>, addr: IpAddr) -> String {
    let app = trial.question.name();
    format!(
        "# on {addr}: ip route get {} must name this host; or set masquerade: true for {app}",
        trial.question.client
    )
}

/// Routing has no way for the first packet.
#[must_use]
pub(super) fn no_way(trial: &Trial<'_>, walk: &Walk, trouble: PathTrouble) -> Finding {
    let to = walk.last.ip(true).map_or_else(|| "its destination".to_owned(), |addr| addr.to_string());
    let by = walk.last.iif.as_ref().map_or("", |by| by.name.as_str());
    let client = trial.question.client;
    // There is always a route to oneself, unless a rule comes before it.
    let is_own = walk.last.ip(true).is_some_and(|addr| trial.facts.situation.is_own(addr));
    let forbidden = is_own
        && matches!(
            trouble,
            PathTrouble::NoRoute | PathTrouble::NotForwarding | PathTrouble::NotForwardingThere
        );
    let trouble = if forbidden { PathTrouble::Forbidden } else { trouble };
    describe(trouble, &client.to_string(), &to, by, "it")
}

/// The same for the answer.
#[must_use]
pub(super) fn no_way_back(trial: &Trial<'_>, walk: &Walk, trouble: PathTrouble) -> Finding {
    let from = walk.first.ip(false).map_or_else(String::new, |addr| addr.to_string());
    let by = walk.first.iif.as_ref().map_or("", |by| by.name.as_str());
    let client = trial.question.client.to_string();
    let mut found = describe(trouble, &from, &client, by, "the answer");
    if found.cause == Cause::NoRoute {
        found.cause = Cause::NoRouteBack;
    }
    found
}

fn describe(trouble: PathTrouble, from: &str, to: &str, by: &str, what: &str) -> Finding {
    let v6 = to.contains(':');
    match trouble {
        PathTrouble::NoRoute => {
            Finding::closed(Cause::NoRoute, format!("this host has no route to {to}, so {what} goes nowhere"))
                .next(format!("ip route get {to}"))
                .next("# is the interface up, and has it an address of that network?")
        }
        PathTrouble::NotForwarding | PathTrouble::NotForwardingThere => {
            let (key, how) = trouble.switch(v6, by).unwrap_or_default();
            let message = format!(
                "this host does not forward what comes in by {by} ({key} is off), so {what} does not get to {to}"
            );
            how.into_iter().fold(Finding::closed(Cause::ForwardingOff, message), Finding::next)
        }
        PathTrouble::ReversePath => Finding::closed(
            Cause::ReversePath,
            format!(
                "the kernel does not take {from} for an address behind {by} (rp_filter), so {what} is dropped"
            ),
        )
        .next(format!("ip route get {from}; sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.{by}.rp_filter"))
        .next(format!(
            "sysctl -w net.ipv4.conf.{by}.rp_filter=2  # and net.ipv4.conf.all.rp_filter, the larger counts"
        )),
        PathTrouble::Forbidden => Finding::closed(
            Cause::RouteForbids,
            format!("a route or a routing rule forbids the way from {from} to {to}"),
        )
        .next(format!(
            "ip rule; ip route show table all | grep -E 'blackhole|prohibit|unreachable'; ip route get {to}"
        )),
    }
}
