//! Whether the other end of the link can find this host at all: neighbour discovery of IPv6.

use std::net::IpAddr;

use super::answer::Finding;
use super::cause::Cause;
use super::facts::{Path, PathTrouble, Ports, Routes};
use super::judge::Trial;
use super::walk::{Walk, arrive, depart};
use super::{legacy, obstacle};
use crate::ruleset::audit::neighbours::{Message, beside, messages};
use crate::ruleset::audit::packet::Interface;
use crate::ruleset::remedy;
use crate::units::Family;

/// What is on the link is for this host.
struct OnLink;

impl Routes for OnLink {
    fn path(&self, _: IpAddr, _: IpAddr, _: Option<Ports>, _: &Interface) -> Path {
        Path::Here
    }

    fn towards(&self, _: IpAddr, _: Option<IpAddr>, _: Option<Ports>) -> Result<Interface, PathTrouble> {
        Err(PathTrouble::NoRoute)
    }
}

/// Where the host's chains drop one of the messages in every way that it may look.
#[must_use]
pub(super) fn lost(trial: &Trial<'_>, by: &Interface) -> Option<Finding> {
    let situation = trial.facts.situation;
    let interface = situation.interface(&by.name).filter(|at| at.has_neighbours)?;
    let (IpAddr::V6(client), IpAddr::V6(own)) = (trial.question.client, interface.address(Family::V6)?)
    else {
        return None;
    };
    if situation.is_own(trial.question.client) {
        return None;
    }
    let at_home = situation.towards(client.into()).is_some_and(|at| at.name == by.name);
    let other = if at_home { client } else { beside(own) };
    messages(interface, own, other).iter().find_map(|message| dropped(trial, message))
}

fn dropped(trial: &Trial<'_>, message: &Message) -> Option<Finding> {
    let situation = trial.facts.situation;
    let walks: Vec<Walk> = message
        .packets
        .iter()
        .map(|packet| match message.comes {
            true => arrive(situation, &OnLink, packet.clone(), None),
            false => depart(situation, &OnLink, packet.clone()),
        })
        .collect();
    let all = walks.iter().all(|walk| walk.dropper().is_some_and(|(met, _)| !met.is_ours()));
    let (met, place) = walks.first().filter(|_| all)?.dropper()?;
    let which = obstacle::place_of(met, place);
    let found = Finding::unknown(
        Cause::NeighbourDrops,
        format!(
            "the host drops neighbour discovery of IPv6 ({}), {}: {which}; it is reached only as long as the other end remembers where it is",
            super::hook_word(met.hook),
            message.what
        ),
    );
    if let Some(command) = legacy::command(&met.table) {
        let lines = [135, 136]
            .map(|kind| format!("{command} -I {} -p ipv6-icmp --icmpv6-type {kind} -j ACCEPT", met.chain));
        return Some(lines.into_iter().fold(found, Finding::next));
    }
    Some(found.next(remedy::admit_neighbours(&situation.host, (&met.table, &met.chain), place)))
}
