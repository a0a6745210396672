//! The same packet otherwise: one too many for a rate, or as another client's system sends it.

use super::answer::{Finding, Verdict};
use super::cause::Cause;
use super::judge::Trial;
use super::obstacle;
use super::walk::{Met, Walk, arrive};
use crate::ruleset::audit::journey::loss;
use crate::ruleset::audit::machine::{Place, pass};
use crate::ruleset::audit::packet::{Habits, Packet};
use crate::ruleset::audit::step::Room;
use crate::units::Family;

/// Whether the first packet of `what` is lost where rates and numbers are used up by what came before it.
#[must_use]
pub(super) fn too_many(trial: &Trial<'_>, first: &Walk, what: &str) -> Option<Finding> {
    too_many_by(first, what, |packet| {
        arrive(trial.facts.situation, trial.facts.routes, packet, trial.forwarded())
    })
}

/// The same of a packet that takes another way.
#[must_use]
pub(super) fn too_many_by(first: &Walk, what: &str, way: impl Fn(Packet) -> Walk) -> Option<Finding> {
    let again = |used_up| way(Packet { used_up, ..first.first.clone() });
    let (walk, verdict) = [(again(Room::Narrow), Verdict::Unknown), (again(Room::Wide), Verdict::Open)]
        .into_iter()
        .find(|(walk, _)| walk.dropper().is_some_and(|(met, _)| !met.is_ours()))?;
    let (met, dropped_at) = walk.dropper()?;
    // Up to the rate a rule accepts it; beyond it, the packet goes on to whatever drops it.
    let calm = first.met.iter().find(|other| is_same(other, met)).and_then(Met::accepted_at);
    let rule = calm.filter(|place| place.rule.is_some() && dropped_at != *place).unwrap_or(dropped_at);
    let mut found = Finding::unknown(
        Cause::RateRule,
        format!(
            "{} lets only so many new connections pass (a rate, a number or a quota), and whether {what} is one too many cannot be told",
            obstacle::place_of(met, rule)
        ),
    )
    .next(obstacle::look(met, rule))
    .next("# close its other connections, wait as long as the rule says, and try once");
    found.verdict = verdict;
    Some(found)
}

/// The rules that drop the first packet as some clients' systems send it, and as others do not.
#[must_use]
pub(super) fn by_habit(trial: &Trial<'_>, first: &Walk) -> Vec<Finding> {
    let mut packet = first.first.clone();
    packet.put_habits(None);
    let walk = arrive(trial.facts.situation, trial.facts.routes, packet, trial.forwarded());
    let lost = walk.met.iter().filter_map(|met| met.loss().map(|(place, _)| (met, place)));
    let new = lost.filter(|(met, place)| {
        let told = first.met.iter().find(|other| is_same(other, met)).and_then(Met::loss);
        told.map(|(place, _)| place) != Some(*place)
    });
    new.filter(|(met, place)| !met.is_ours() && some_client_is_lost(trial, met, place))
        .map(|(met, place)| {
            Finding::unknown(
                Cause::CannotTell,
                format!(
                    "{} drops packets by their length, TTL or segment size, and what this client sends cannot be told",
                    obstacle::place_of(met, place)
                ),
            )
            .next(obstacle::look(met, place))
        })
        .collect()
}

fn is_same(one: &Met, other: &Met) -> bool {
    one.table == other.table && one.chain == other.chain
}

fn some_client_is_lost(trial: &Trial<'_>, met: &Met, place: &Place) -> bool {
    let host = &trial.facts.situation.host;
    let Some(chain) = host.chain(&met.table, &met.chain) else { return false };
    habits(met.packet.family).any(|habits| {
        let mut packet = met.packet.clone();
        packet.put_habits(Some(habits));
        loss(&pass(host, chain, &mut packet)).is_some_and(|(at, _)| at == place)
    })
}

/// How the first packets of the systems that there are look, after up to thirty routers.
fn habits(family: Family) -> impl Iterator<Item = Habits> {
    let (least, usual) = match family {
        Family::V4 => (40, 1_460),
        Family::V6 => (60, 1_440),
    };
    let usual = Habits { len: least + 20, ttl: 60, segment: usual };
    let lengths = (least..=least + 24).step_by(4).map(move |len| Habits { len, ..usual });
    let hops = [34..=64, 98..=128, 225..=255].into_iter().flatten().map(move |ttl| Habits { ttl, ..usual });
    let segments = (1_200..=1_460).chain([536, 8_960]).map(move |segment| Habits { segment, ..usual });
    lengths.chain(hops).chain(segments)
}

/// The packet as the usual system sends it.
pub(super) fn usual(packet: &mut Packet) {
    let habits = match packet.family {
        Family::V4 => Habits { len: 60, ttl: 60, segment: 1_460 },
        Family::V6 => Habits { len: 80, ttl: 60, segment: 1_440 },
    };
    packet.put_habits(Some(habits));
}
