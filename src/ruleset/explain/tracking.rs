//! What connection tracking makes of the packets that follow, where a rule of the host's keeps some of them out of it.

use super::answer::Finding;
use super::cause::Cause;
use super::judge::Trial;
use super::obstacle;
use super::walk::{End, Walk, depart};
use crate::ruleset::audit::machine::Deed;
use crate::ruleset::audit::packet::{Packet, TcpFlags, Tracking};
use crate::units::Protocol;

fn is_untracked(walk: &Walk) -> bool {
    walk.last.tracking.state == Tracking::UNTRACKED.state
}

/// How the first answer is seen. An answer of TCP to what nobody saw belongs to no connection.
#[must_use]
pub(super) fn of_answer(first: &Walk) -> Tracking {
    match (is_untracked(first), first.first.protocol) {
        (false, _) => Tracking::REPLY,
        (true, Protocol::Tcp) => Tracking::NOT_YET,
        (true, Protocol::Udp) => Tracking::NEW,
    }
}

/// How the client's later packets are seen.
#[must_use]
pub(super) fn of_later(first: &Walk, answer: Option<&Walk>) -> Tracking {
    match (is_untracked(first), answer.is_some_and(is_untracked), first.first.protocol) {
        (false, false, _) => Tracking::ESTABLISHED,
        // To connection tracking, the client goes on without an answer.
        (false, true, Protocol::Tcp) => Tracking::NOT_YET,
        (true, ..) | (false, true, Protocol::Udp) => Tracking::NEW,
    }
}

/// What the service sends later, where its packets alone are tracked: in the middle of a connection that nobody saw begin.
#[must_use]
pub(super) fn stray(trial: &mut Trial<'_>, first: &Walk, later: &Walk, answer: &Walk) -> Option<Finding> {
    let tcp = trial.question.protocol == Protocol::Tcp;
    let one_way = first.end == End::Here && is_untracked(later) && !is_untracked(answer);
    if !(tcp && one_way && answer.end == End::Out && later.end == End::Here) {
        return None;
    }
    let mut packet = Packet { tracking: Tracking::NEW, original: None, ..answer.first.clone() };
    packet.put_flags(TcpFlags::Data);
    let walk = depart(trial.facts.situation, trial.facts.routes, packet);
    let ours = match walk.dropper() {
        Some((met, place)) if met.is_ours() => obstacle::place_of(met, place),
        Some(_) => {
            trial.loss_of("answer", &walk);
            return None;
        }
        // Our own chains of iptables are not followed; they do the same.
        None if trial.facts.by_iptables
            && trial.facts.guards
            && trial.question.app.is_some()
            && trial.question.is_outside() =>
        {
            "our rule ka:cut:stray".to_owned()
        }
        None => return None,
    };
    trial.take_down("answer", &walk);
    let keeps_out = later.met.iter().filter(|met| !met.is_ours()).find_map(|met| {
        let mut deeds = met.deeds();
        deeds.find(|(deed, _)| **deed == Deed::Notrack).map(|(_, place)| (met, place))
    });
    let by = keeps_out.map(|(met, place)| obstacle::place_of(met, place));
    let by = by.unwrap_or_else(|| "a rule of the host".to_owned());
    let port = first.last.port(true).unwrap_or(trial.question.port);
    let found = Finding::closed(
        Cause::OurRuleDrops,
        format!(
            "the connection is made, and nothing more comes back: {by} keeps what the client sends out of connection tracking, and not the answers, which {ours} drops"
        ),
    );
    let found =
        keeps_out.into_iter().fold(found, |found, (met, place)| found.next(obstacle::look(met, place)));
    Some(found.next(format!(
        "# take that rule away, or keep the answers out of connection tracking as well: tcp sport {port} notrack, at output"
    )))
}
