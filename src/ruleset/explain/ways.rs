//! Routing and interfaces around the rules: no way in, another way back, and what comes too fast.

use std::net::IpAddr;

use super::answer::Finding;
use super::cause::Cause;
use super::facts::{Daemon, Flow, PathTrouble};
use super::judge::{CLIENT_PORT, Question, Trial, word};
use super::member::our_table;
use super::walk::{Walk, arrive};
use crate::ruleset::audit::packet::{Interface, Original, TcpFlags, Tracking};
use crate::units::Family;

/// Nothing of ours is in force.
#[must_use]
pub(super) fn no_guard(trial: &Trial<'_>) -> Finding {
    if trial.facts.situation.host.dormant.contains(&our_table()) {
        return Finding::open(
            Cause::NoGuard,
            "the table of knock-agent is switched off (flags dormant): nothing is guarded, and the host's own rules decide",
        )
        .next(format!("nft 'add table {} {{ }}'; systemctl restart knock-agent", our_table()));
    }
    let text = match trial.facts.by_iptables {
        true => {
            "rules of knock-agent that close are missing: nothing is guarded, and the host's own rules decide"
        }
        false => "no rules of knock-agent are in force: nothing is guarded, and the host's own rules decide",
    };
    Finding::open(Cause::NoGuard, text)
    .next("systemctl start knock-agent-guard knock-agent  # or: knock-agent run, with the ports of its steps")
    .next("knock-agent check-ruleset")
}

/// The same of a daemon that does not speak, for an address without a grant.
#[must_use]
pub(super) fn mute(why: &str) -> Finding {
    Finding::closed(
        Cause::DaemonMute,
        format!("it has no grant, and the daemon that hears knocks does not say what it knows: {why}"),
    )
    .next("systemctl status knock-agent; journalctl -u knock-agent -n 50")
    .next("systemctl restart knock-agent  # grants stay")
}

/// Why the client cannot be reached at all.
#[must_use]
pub(super) fn none_here(trial: &Trial<'_>) -> Finding {
    let Question { client, by, app, layout, .. } = trial.question;
    let outside: Vec<&str> = match app {
        Some(app) => app.interface_ext.iter().map(|name| name.as_str()).collect(),
        None => layout.ext.iter().map(|name| name.as_str()).collect(),
    };
    if let (None, Some(found)) = (by, down(trial, &outside)) {
        return found;
    }
    if let (None, Some(name)) = (by, without_address(trial, &outside)) {
        return no_address(trial, name);
    }
    match by {
        None if trial.facts.routes.towards(*client, None, None) == Err(PathTrouble::Forbidden) => Finding::closed(
            Cause::RouteForbids,
            format!("a route of this host forbids the way to {client} (blackhole, prohibit or unreachable), so no answer would reach it"),
        )
        .next("ip route show table all | grep -E 'blackhole|prohibit|unreachable'; ip rule")
        .next(format!("# take away which of them it is: ip route del blackhole {client}; ip rule del pref NUMBER")),
        None => Finding::closed(
            Cause::NoRouteBack,
            format!("this host has no route to {client}, so no answer would reach it"),
        )
        .next(format!("ip route get {client}"))
        .next("# add the missing route (a default route, mostly)"),
        Some(by) => no_address(trial, &by.name),
    }
}

/// The interface by which clients of that IP version come, where none of them has an address of it.
fn without_address<'n>(trial: &Trial<'_>, names: &[&'n str]) -> Option<&'n str> {
    let family = trial.question.family();
    let known = |name: &&&str| trial.facts.situation.interface(name);
    let has_one = names.iter().any(|name| known(&name).is_some_and(|at| at.address(family).is_some()));
    names.iter().find(|name| !has_one && known(name).is_some()).copied()
}

fn no_address(trial: &Trial<'_>, name: &str) -> Finding {
    let family = trial.question.family();
    let found = Finding::closed(
        Cause::NoAddress,
        format!("{name} has no {} address that a client could turn to", word(family)),
    )
    .next(format!("ip address show dev {name}"));
    match family {
        Family::V4 => found,
        Family::V6 => {
            found.next(format!("sysctl net.ipv6.conf.{name}.disable_ipv6 net.ipv6.conf.{name}.accept_ra"))
        }
    }
}

/// That it is an address which does not come from the internet, on an interface that leads there.
#[must_use]
pub(super) fn private(trial: &Trial<'_>) -> Option<Finding> {
    let Question { client, by, .. } = trial.question;
    let heard_of = match &trial.facts.daemon {
        Daemon::Says(recalled) => !recalled.events.is_empty(),
        Daemon::Absent | Daemon::Mute(_) => false,
    };
    let situation = trial.facts.situation;
    let outside = situation.interface(&by.as_ref()?.name)?;
    let leads_out = outside.address(Family::of(*client)).is_some_and(|own| !is_private(own));
    let neighbour = situation.towards(*client).is_some_and(|at| at.name == outside.name);
    let strange = is_private(*client) && leads_out && !neighbour && !heard_of && trial.question.is_outside();
    strange.then(|| {
        Finding::closed(
            Cause::PrivateAddress,
            format!("{client} is an address of a private network, which does not come from the internet: here the client has that of its router, or of its provider"),
        )
        .next("# ask about the address that this host sees: `knock-agent log` names those that knocked, `knock-agent status` those that are let in")
    })
}

fn is_private(addr: IpAddr) -> bool {
    match addr {
        // The last of these are what providers share.
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || matches!(v4.octets(), [100, 64..=127, ..]),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// Whether nothing goes through one of these interfaces.
#[must_use]
pub(super) fn down(trial: &Trial<'_>, names: &[&str]) -> Option<Finding> {
    let situation = trial.facts.situation;
    let is_down = |name: &&&str| situation.interface(name).is_some_and(|interface| interface.is_down);
    let name = names.iter().find(is_down)?;
    Some(
        Finding::closed(
            Cause::InterfaceDown,
            format!("nothing goes through {name}: it is switched off, or it has no carrier"),
        )
        .next(format!("ip -brief link show dev {name}; ip link set {name} up"))
        .next("# is the cable in, and the other end on?"),
    )
}

/// The interface by which an answer leaves, and what there is to say of that.
#[must_use]
pub(super) fn back(trial: &Trial<'_>, first: &Walk, by: &Interface) -> (Interface, Option<Finding>) {
    let client = trial.question.client;
    let from = first.last.ip(true);
    let ports = first.last.port(true).map(|port| (trial.question.protocol, port, CLIENT_PORT));
    let as_it_came = (by.clone(), None);
    if trial.facts.situation.is_own(client) {
        return as_it_came;
    }
    let from_text = from.map_or_else(String::new, |from| format!(" from {from}"));
    match trial.facts.routes.towards(client, from, ports) {
        Ok(out) if out.name == by.name => as_it_came,
        Ok(out) => {
            let found = Finding::unknown(
                Cause::AsymmetricRoute,
                format!(
                    "it comes in by {}, and the answer leaves by {}: whoever is on that way may not take it",
                    by.name, out.name
                ),
            )
            .next(format!("ip route get {client}{from_text}; ip rule"))
            .next(format!("# a route or rule must lead to {client} by {}", by.name));
            (out, Some(found))
        }
        Err(PathTrouble::Forbidden) => {
            let found = Finding::closed(
                Cause::RouteForbids,
                format!("a route or a routing rule forbids the answer to {client}{from_text}"),
            )
            .next(format!("ip rule; ip route get {client}{from_text}"));
            (by.clone(), Some(found))
        }
        // A VRF has routes of its own, which are not asked.
        Err(_) => as_it_came,
    }
}

/// Whether the rules let the client go on with a connection of before, as one that its app keeps.
#[must_use]
pub(super) fn lives_on(trial: &Trial<'_>, flow: &Flow) -> bool {
    let Trial { facts, question, .. } = trial;
    let (Some(app), Some(host)) = (question.app, question.host) else { return false };
    if (flow.protocol, flow.port) != (question.protocol, question.port) {
        return false;
    }
    let mut packet = question.packet(host, question.port, TcpFlags::Data, Tracking::ESTABLISHED);
    packet.put_port(false, Some(flow.from));
    packet.original = Some(Original { from: (question.client, flow.from), to: (host, question.port) });
    let sent_on = app.destination.host().map(|to| (to, app.destination.port().unwrap_or(question.port)));
    let walk = arrive(facts.situation, facts.routes, packet, sent_on);
    !walk.dropper().is_some_and(|(met, _)| met.is_ours())
}
