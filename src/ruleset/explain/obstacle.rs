//! Chains of others that lose the packet: which rule, why this address, and what to do about it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::answer::{Finding, Verdict};
use super::cause::Cause;
use super::facts::Facts;
use super::judge::Question;
use super::legacy;
use super::member::{Membership, is_about};
use super::walk::{Met, Walk};
use crate::ruleset::audit::host::{HostFamily, HostHook, HostRule};
use crate::ruleset::audit::journey::{Journey, MARK_PRIORITY, Route, accepts_but_for, loss};
use crate::ruleset::audit::machine::{Deed, Place, pass};
use crate::ruleset::audit::step::{Comparison, Source, Step};
use crate::ruleset::remedy::{self, Admission, Door, Need, Program, program_of};
use crate::units::{Family, Mark, PortRange};

/// Addresses of others, far from each other.
const OTHERS_4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(45, 83, 12, 7), Ipv4Addr::new(93, 201, 77, 21), Ipv4Addr::new(178, 20, 55, 90)];
const OTHERS_6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2a01, 0x4f8, 0x1c17, 0x4c2, 0, 0, 0, 7),
    Ipv6Addr::new(0x2600, 0x1700, 0x51, 0x9d, 0, 0, 0, 0x21),
    Ipv6Addr::new(0x2401, 0xfa00, 0x8, 0x17, 0, 0, 0, 0x90),
];

/// `rule 12 of chain inet filter input`, `the policy of chain ...`.
#[must_use]
pub(super) fn place_of(met: &Met, place: &Place) -> String {
    match &place.rule {
        Some((number, comment)) => {
            let comment = comment.as_ref().map_or_else(String::new, |comment| format!(" (\"{comment}\")"));
            // nft counts by handles, iptables-legacy by places.
            let word = if legacy::command(&met.table).is_some() { "rule" } else { "the rule with handle" };
            format!("{word} {number}{comment} of chain {} {}", met.table, place.chain)
        }
        None => format!("the policy of chain {} {}", met.table, place.chain),
    }
}

/// What a chain of the host's does to the packet, and what to do about that.
#[must_use]
pub(super) fn drops(
    facts: &Facts<'_>,
    question: &Question<'_>,
    walk: &Walk,
    met: &Met,
    place: &Place,
) -> Finding {
    let hook = super::hook_word(met.hook);
    let which = place_of(met, place);
    if is_about_address(facts, question, met) {
        let reason = reason(facts, question, met, place);
        let whose = match &reason {
            Reason::Listed(Membership { kind, name: Some(name), .. }) => {
                format!(", as it is in {kind} {name}")
            }
            Reason::Listed(Membership { name: None, .. }) | Reason::Named(_) | Reason::Other => String::new(),
        };
        let found = Finding::closed(
            Cause::HostBans,
            format!("the host drops what has its address ({hook}): {which}{whose}"),
        );
        return unban(facts, question, met, place, &reason, found);
    }
    let mut found = Finding::closed(Cause::HostDrops, format!("the host drops it ({hook}): {which}"));
    let Some((mark, by, writer)) = overwriter(question, walk, met) else {
        return found.next(admit(facts, question, walk, met, place));
    };
    found.message.push_str(&format!(", after {} has written another mark over ours", place_of(by, writer)));
    let found = match legacy::command(&by.table) {
        Some(_) => found
            .next(look(by, writer))
            .next("# have that rule write other bits than ours (--set-xmark with a mask): global.mark takes one, too"),
        None => found.next(remedy::keep_mark(&by.table, writer, mark)),
    };
    let host = &facts.situation.host;
    let accepts = host
        .chain(&met.table, &met.chain)
        .is_some_and(|chain| accepts_but_for(host, chain, &met.packet, mark, (&by.table, writer)));
    if accepts { found } else { found.next(admit(facts, question, walk, met, place)) }
}

/// Our mark, where a chain could tell by it what we let through.
fn mark_at(question: &Question<'_>, met: &Met) -> Option<Mark> {
    let of_bridge = met.table.family == HostFamily::Bridge;
    let marked = !of_bridge && marks(met) || met.hook == HostHook::Postrouting;
    question.layout.settings.global.mark.filter(|_| marked && question.app.is_some())
}

/// Whether our mark is there by then.
fn marks(met: &Met) -> bool {
    matches!(met.hook, HostHook::Input | HostHook::Forward | HostHook::Output) && met.priority > MARK_PRIORITY
}

/// Who has written another mark over ours, before the chain that drops the packet could see it.
fn overwriter<'w>(question: &Question<'_>, walk: &'w Walk, met: &Met) -> Option<(Mark, &'w Met, &'w Place)> {
    let mark = mark_at(question, met).filter(|mark| walk.last.lacks(*mark))?;
    let after_ours = |by: &&Met| marks(by) || by.hook == HostHook::Postrouting;
    let mut writers = walk.met.iter().rev().filter(|by| !by.is_ours() && after_ours(by));
    writers.find_map(|by| by.passage.marked.last().map(|place| (mark, by, place)))
}

/// Whether others would get through where this one does not.
fn is_about_address(facts: &Facts<'_>, question: &Question<'_>, met: &Met) -> bool {
    let others: Vec<IpAddr> = match question.family() {
        Family::V4 => OTHERS_4.into_iter().map(IpAddr::from).collect(),
        Family::V6 => OTHERS_6.into_iter().map(IpAddr::from).collect(),
    };
    // On the way back, the client is the destination.
    let destination = met.packet.ip(true) == Some(question.client);
    let Some(chain) = facts.situation.host.chain(&met.table, &met.chain) else { return false };
    others.into_iter().all(|other| {
        let mut packet = met.packet.clone();
        packet.put_address(destination, Some(other));
        let passage = pass(&facts.situation.host, chain, &mut packet);
        !matches!(loss(&passage), Some((_, true)))
    })
}

/// Why a rule is about the address.
enum Reason {
    /// It, or one that leads to it, finds it in a set or map.
    Listed(Membership),
    /// It, or one that leads to it, names this address and no other.
    Named(Place),
    /// Something else.
    Other,
}

/// The rule that drops and those that led to it, the nearest first.
fn led_to<'m>(met: &'m Met, place: &'m Place) -> Vec<&'m Place> {
    let end = met.passage.ends.iter().find(|end| end.place == *place);
    let by = end.map(|end| end.by.as_slice()).unwrap_or_default();
    std::iter::once(place).chain(by.iter().rev()).collect()
}

fn reason(facts: &Facts<'_>, question: &Question<'_>, met: &Met, place: &Place) -> Reason {
    let host = &facts.situation.host;
    for at in led_to(met, place) {
        let mut found = met.passage.found.iter().filter(|found| found.place == *at);
        let listed = found.find_map(|found| is_about(host, &met.table, found, question.client, &met.packet));
        if let Some(listed) = listed {
            return Reason::Listed(listed);
        }
        if rule_of(facts, met, at).is_some_and(|rule| names_only(rule, question.client)) {
            return Reason::Named(at.clone());
        }
    }
    Reason::Other
}

fn rule_of<'f>(facts: &'f Facts<'_>, met: &Met, place: &Place) -> Option<&'f HostRule> {
    let (handle, _) = place.rule.as_ref()?;
    let chain = facts.situation.host.chain(&met.table, &place.chain)?;
    chain.rules.iter().find(|rule| rule.handle == *handle)
}

/// Whether a rule asks for that one address, as source or destination: whoever takes it away does so for nobody else.
fn names_only(rule: &HostRule, addr: IpAddr) -> bool {
    let (sides, own) = match addr {
        IpAddr::V4(v4) => ([12, 16], v4.octets().to_vec()),
        IpAddr::V6(v6) => ([8, 24], v6.octets().to_vec()),
    };
    let mut loaded = None;
    rule.steps.iter().any(|step| match step {
        Step::Load { source: Source::Payload { base: 1, offset }, to, .. } if sides.contains(offset) => {
            loaded = Some(*to);
            false
        }
        Step::Mask { from, to, mask, .. }
            if loaded == Some(*from) && mask.iter().all(|bits| *bits == u8::MAX) =>
        {
            loaded = Some(*to);
            false
        }
        Step::Compare { at, how: Comparison::Eq, data } => loaded == Some(*at) && *data == own,
        Step::Load { .. } | Step::Mask { .. } | Step::Swap { .. } | Step::Constant { .. } => {
            loaded = None;
            false
        }
        _ => false,
    })
}

fn unban(
    facts: &Facts<'_>,
    question: &Question<'_>,
    met: &Met,
    place: &Place,
    reason: &Reason,
    found: Finding,
) -> Finding {
    let (client, table) = (question.client, &met.table);
    let program = program_of(&facts.situation.host, table, &met.chain);
    let fail2ban = program == Program::Fail2ban || place.chain.starts_with("f2b-");
    let found = match program {
        _ if fail2ban => found.next(format!("fail2ban-client unban {client}")),
        Program::Crowdsec => found.next(format!("cscli decisions delete --ip {client}")),
        _ => found,
    };
    match reason {
        Reason::Listed(Membership { name: Some(name), element: Some(element), .. }) => {
            found.next(format!("nft delete element {table} {name} '{{ {element} }}'"))
        }
        Reason::Listed(Membership { kind, name: Some(name), element: None }) => {
            found.next(format!("nft list {kind} {table} {name}  # it is in an element of that"))
        }
        Reason::Named(at) => found.next(delete_rule(met, at).unwrap_or_else(|| look(met, at))),
        // Whoever takes such a rule away does so for everybody.
        Reason::Listed(_) | Reason::Other => {
            let mut looks: Vec<String> = led_to(met, place).into_iter().map(|at| look(met, at)).collect();
            looks.dedup();
            let found = looks.into_iter().fold(found, Finding::next);
            found.next(format!(
                "# that is about more than {client}: take the address out there, or let it pass by a rule before it"
            ))
        }
    }
}

/// How to take a rule away; none: it is a policy.
fn delete_rule(met: &Met, place: &Place) -> Option<String> {
    let (number, _) = place.rule.as_ref()?;
    Some(match legacy::command(&met.table) {
        Some(command) => format!("{command} -D {} {number}", place.chain),
        None => format!("nft delete rule {} {} handle {number}", met.table, place.chain),
    })
}

/// The rules of others that send the packet elsewhere; `lost`: where nobody takes it.
#[must_use]
pub(super) fn redirected(walk: &Walk, lost: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    for met in walk.met.iter().filter(|met| !met.is_ours()) {
        for (deed, place) in met.deeds() {
            let what = match deed {
                Deed::Tproxy => "a socket of another program".to_owned(),
                Deed::Dnat { .. } | Deed::Redirect { .. } => match walk.translated {
                    Some((addr, port)) => format!("{addr} port {port}"),
                    None => "somewhere else".to_owned(),
                },
                Deed::FlowAdd(_) | Deed::Notrack => continue,
            };
            let found =
                Finding::open(Cause::Redirected, format!("{} sends it to {what}", place_of(met, place)));
            out.push(match (lost, delete_rule(met, place)) {
                (true, Some(delete)) => Finding { verdict: Verdict::Closed, ..found }
                    .next(format!("{delete}  # if that is not meant"))
                    .next(look(met, place)),
                _ => found,
            });
        }
    }
    out
}

/// How to look at a chain.
#[must_use]
pub(super) fn look(met: &Met, place: &Place) -> String {
    match legacy::command(&met.table) {
        Some(command) => format!("{command} -L {} -n -v --line-numbers", place.chain),
        None => format!("nft -a list chain {} {}", met.table, place.chain),
    }
}

/// A rule of iptables-legacy before the one that drops; nftables' sets of ours cannot be asked there.
fn admit_legacy(question: &Question<'_>, met: &Met, place: &Place, mark: Option<Mark>) -> Option<String> {
    let command = legacy::command(&met.table)?;
    let at = place.rule.as_ref().map_or(1, |(number, _)| *number);
    let client_is_target = met.packet.ip(true) == Some(question.client);
    let by = remedy::iptables_door(Door::of(met.hook, &met.packet, client_is_target).as_ref());
    let what = match (mark, client_is_target) {
        (Some(mark), _) => format!("-m mark --mark {mark}"),
        (None, false) => format!("{by}-p {} --dport {}", question.protocol, met.packet.port(true)?),
        (None, true) => format!("{by}-p {} --sport {}", question.protocol, met.packet.port(false)?),
    };
    let note = if mark.is_some() { "" } else { "  # the gate before it lets in nobody else" };
    let insert =
        if place.rule.is_some() { format!("-I {} {at}", place.chain) } else { format!("-A {}", place.chain) };
    Some(format!("{command} {insert} {what} -j ACCEPT{note}"))
}

/// As `check-ruleset` has it.
fn admit(facts: &Facts<'_>, question: &Question<'_>, walk: &Walk, met: &Met, place: &Place) -> String {
    let mark = mark_at(question, met);
    if let Some(line) = admit_legacy(question, met, place, mark) {
        return line;
    }
    let route = match (&walk.first.iif, met.hook, walk.first.for_here && walk.last.for_here) {
        (None, ..) => Route::Out,
        (Some(_), HostHook::Forward, _) | (Some(_), _, false) => Route::Through,
        (Some(_), _, true) => Route::In,
    };
    let Ok(ports) = PortRange::new(question.port, question.port) else { return String::new() };
    let journey = Journey {
        what: question.name(),
        ports,
        packet: met.packet.clone(),
        route,
        untracked: false,
        forwarded: walk.translated,
    };
    let need = Need {
        table: &met.table,
        chain: &met.chain,
        hook: met.hook,
        priority: met.priority,
        place: Some(place),
        only_place: place.rule.is_some() || !met.passage.left,
        visited: &met.passage.visited,
        admission: mark.map_or(Admission::Ports, Admission::Mark),
        journeys: std::slice::from_ref(&journey),
    };
    remedy::admit(&facts.situation.host, &need)
}
