//! Rules of others that send elsewhere what is meant for our ports, or rewrite it before the gate.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Trip;
use super::finding::{Finding, Severity};
use super::host::{HostHook, TableRef};
use super::journey::{Journey, Meeting, Route};
use super::machine::{Deed, Place};
use super::packet::Tracking;
use super::situation::Situation;
use super::step::Step;
use crate::config::Proxy;
use crate::ruleset::layout::Layout;
use crate::ruleset::remedy::{Program, program_of};
use crate::units::{ClientAddr, Family, Protocol};

/// Our gate.
pub(super) const GATE_PRIORITY: i32 = -150;

/// Judges what others do with packets beside dropping them.
#[must_use]
pub(super) fn redirects(layout: &Layout<'_>, situation: &Situation, trips: &[Trip]) -> Vec<Finding> {
    let proxy = layout.settings.global.proxy.as_ref();
    let mut out = Vec::new();
    for Trip { journey, met } in trips {
        for meeting in met {
            for (deed, place, _) in &meeting.passage.deeds {
                let found = match deed {
                    Deed::Dnat { .. } | Deed::Redirect { .. } if meeting.hook == HostHook::Prerouting => {
                        translated(situation, proxy, journey, meeting, place, deed)
                    }
                    Deed::Tproxy => Some(diverted(journey, &meeting.table, place)),
                    Deed::Notrack if meeting.hook == HostHook::Prerouting => {
                        untracked(journey, &meeting.table, place)
                    }
                    Deed::Dnat { .. } | Deed::Redirect { .. } | Deed::FlowAdd(_) | Deed::Notrack => None,
                };
                out.extend(found);
            }
        }
    }
    out.extend(trips.iter().filter_map(|trip| untracked_here(trip, trips)));
    out.extend(rewritten(situation));
    let mut seen = BTreeSet::new();
    out.retain(|finding| seen.insert(finding.message.clone()));
    out
}

pub(super) fn rule_of(table: &TableRef, place: &Place) -> String {
    match &place.rule {
        Some((handle, _)) => format!("rule {handle} of chain {table} {}", place.chain),
        None => format!("chain {table} {}", place.chain),
    }
}

/// VyOS writes the number of its rule beside it.
pub(super) fn delete(table: &TableRef, place: &Place) -> String {
    match &place.rule {
        Some((_, Some(comment))) if comment.starts_with("DST-NAT-") => format!(
            "configure\ndelete nat destination rule {}\ncommit\nsave",
            comment.trim_start_matches("DST-NAT-")
        ),
        Some((handle, _)) => format!("nft delete rule {table} {} handle {handle}", place.chain),
        None => String::new(),
    }
}

fn target(deed: &Deed, family: Family) -> String {
    match deed {
        Deed::Dnat { addr, port } => {
            let addr = addr.as_deref().and_then(|bytes| address(bytes, family));
            let addr = addr.map_or_else(|| "another address".to_owned(), |addr| addr.to_string());
            port.map_or(addr.clone(), |port| format!("{addr} port {port}"))
        }
        Deed::Redirect { port: Some(port) } => format!("port {port} of this host"),
        Deed::Redirect { port: None } | Deed::Tproxy | Deed::FlowAdd(_) | Deed::Notrack => {
            "this host".to_owned()
        }
    }
}

/// Whether the translation leads to where the proxy is, as far as that can be told.
fn leads_to(proxy: &Proxy, deed: &Deed, family: Family) -> bool {
    match deed {
        Deed::Dnat { addr: Some(bytes), .. } => {
            address(bytes, family).is_none_or(|addr| proxy.trusted.contains(ClientAddr::new(addr)))
        }
        Deed::Dnat { addr: None, .. }
        | Deed::Redirect { .. }
        | Deed::Tproxy
        | Deed::FlowAdd(_)
        | Deed::Notrack => true,
    }
}

fn translated(
    situation: &Situation,
    proxy: Option<&Proxy>,
    journey: &Journey,
    meeting: &Meeting,
    place: &Place,
    deed: &Deed,
) -> Option<Finding> {
    if journey.route != Route::In {
        return None;
    }
    let Meeting { table, chain, .. } = meeting;
    let Journey { what, ports, packet, .. } = journey;
    let rule = rule_of(table, place);
    let to = target(deed, packet.family);
    if what == "step 1" || what == "step 2" {
        if let Some(proxy) = proxy {
            return (!leads_to(proxy, deed, packet.family)).then(|| Finding {
                severity: Severity::Warning,
                code: "step-port-redirected",
                message: format!(
                    "{rule} sends {} port {ports} of {what} to {to}, from where no proxy is trusted",
                    packet.protocol
                ),
                fix: "# if the proxy is there, name the address that it speaks from: --waf-trusted-ips"
                    .to_owned(),
            });
        }
        return Some(Finding {
            severity: Severity::Error,
            code: "step-port-redirected",
            message: format!("{rule} sends {} port {ports}, where {what} listens, to {to}", packet.protocol),
            fix: format!(
                "{}\n# or choose another port for {what}: --http-port, --https-port",
                delete(table, place)
            ),
        });
    }
    let program = program_of(&situation.host, table, chain);
    let docker = matches!(program, Program::DockerNft | Program::DockerIptables);
    let subject = format!("{} port {ports} of {what}", packet.protocol);
    let message = if docker {
        format!("{subject} is published by Docker ({rule}) to {to}: the gate comes first and guards it")
    } else {
        format!("{subject} is forwarded by {rule} to {to}: the gate comes first and guards it")
    };
    let code = if docker { "docker-published" } else { "port-forwarded" };
    Some(Finding { severity: Severity::Info, code, message, fix: String::new() })
}

fn diverted(journey: &Journey, table: &TableRef, place: &Place) -> Finding {
    let rule = rule_of(table, place);
    Finding {
        severity: Severity::Warning,
        code: "tproxy",
        message: format!(
            "{rule} gives packets to {} port {} ({}) to a socket of another program",
            journey.packet.protocol, journey.ports, journey.what
        ),
        fix: delete(table, place),
    }
}

/// Without connection tracking, nothing is forwarded to a LAN host.
fn untracked(journey: &Journey, table: &TableRef, place: &Place) -> Option<Finding> {
    journey.forwarded?;
    let rule = rule_of(table, place);
    let message = format!(
        "{rule} keeps packets out of connection tracking, without which {} cannot be forwarded to its LAN host",
        journey.what
    );
    let fix = if table.table == "vyos_conntrack" {
        "# VyOS tracks connections as soon as something needs it:\nconfigure\nset firewall global-options state-policy established action accept\ncommit\nsave".to_owned()
    } else {
        delete(table, place)
    };
    Some(Finding { severity: Severity::Error, code: "host-untracks", message, fix })
}

/// Where what a client sends is not tracked and the answers are, those are in the middle of a connection that nobody saw
/// begin, and our table drops them.
fn untracked_here(trip: &Trip, all: &[Trip]) -> Option<Finding> {
    let Journey { what, route, packet, untracked, .. } = &trip.journey;
    let is_app = !matches!(what.as_str(), "step 1" | "step 2");
    if !(is_app && *route == Route::In && !untracked && packet.tracking == Tracking::ESTABLISHED) {
        return None;
    }
    let (table, place) = notrack(trip, HostHook::Prerouting).filter(|_| packet.protocol == Protocol::Tcp)?;
    let answers = all.iter().filter(|other| {
        let (of, back) = (&other.journey, &other.journey.packet);
        of.route == Route::Out
            && of.what == *what
            && (back.address(true), back.address(false)) == (packet.address(false), packet.address(true))
            && back.port(false) == packet.port(true)
    });
    let tracked = answers.filter(|other| notrack(other, HostHook::Output).is_none()).count();
    (tracked > 0).then(|| Finding {
        severity: Severity::Error,
        code: "host-untracks",
        message: format!(
            "{} keeps what clients send to {what} out of connection tracking, and not the answers: connections are made, and our table drops what comes back on them",
            rule_of(table, place)
        ),
        fix: format!(
            "{}\n# or keep the answers out of it as well: tcp sport {} notrack, at output",
            delete(table, place),
            trip.journey.ports
        ),
    })
}

/// The rule that certainly keeps a packet out of connection tracking.
fn notrack(trip: &Trip, hook: HostHook) -> Option<(&TableRef, &Place)> {
    trip.met.iter().filter(|meeting| meeting.hook == hook).find_map(|meeting| {
        let mut deeds = meeting.passage.deeds.iter();
        let (_, place, _) = deeds.find(|(deed, _, certain)| *certain && *deed == Deed::Notrack)?;
        Some((&meeting.table, place))
    })
}

/// Rules that write other ports or addresses into packets before the gate sees them.
fn rewritten(situation: &Situation) -> Vec<Finding> {
    let host = &situation.host;
    let early = |table: &TableRef| {
        host.chains.iter().any(|chain| {
            chain.table == *table
                && chain.base.as_ref().is_some_and(|base| match base.hook {
                    HostHook::Ingress => true,
                    HostHook::Prerouting => base.priority < GATE_PRIORITY,
                    _ => false,
                })
        })
    };
    let mut out = Vec::new();
    for chain in host.chains.iter().filter(|chain| early(&chain.table)) {
        for rule in &chain.rules {
            let writes = rule.steps.iter().any(|step| match step {
                Step::Write { base: 2, offset, .. } => *offset == 2,
                Step::Write { base: 1, offset, .. } => *offset == 16 || *offset == 24,
                _ => false,
            });
            if writes {
                let place =
                    Place { chain: chain.name.clone(), rule: Some((rule.handle, rule.comment.clone())) };
                out.push(Finding {
                    severity: Severity::Warning,
                    code: "stateless-translation",
                    message: format!(
                        "{} writes other destinations into packets before our gate sees them: the gate judges by what it writes, so that what was sent to a guarded port and goes to another one needs no grant",
                        rule_of(&chain.table, &place)
                    ),
                    fix: delete(&chain.table, &place),
                });
            }
        }
    }
    out
}

fn address(bytes: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => bytes.first_chunk::<4>().map(|&bytes| IpAddr::from(bytes)),
        Family::V6 => bytes.first_chunk::<16>().map(|&bytes| IpAddr::from(bytes)),
    }
}
