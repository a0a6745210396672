//! Whether this host itself gets past its own rules to a LAN host: if not, what it learns by asking says nothing of the
//! LAN host.

use std::net::IpAddr;

use super::answer::Finding;
use super::cause::Cause;
use super::judge::{CLIENT_PORT, Trial};
use super::walk::{Met, Walk, depart};
use super::{obstacle, variants};
use crate::ruleset::audit::machine::Place;
use crate::ruleset::audit::packet::{Packet, TcpFlags};
use crate::units::{Family, Protocol};

/// What keeps this host's own connection to a LAN host from leaving, or may do so; the client's is forwarded and does not
/// meet it.
#[must_use]
pub(super) fn hindered(trial: &Trial<'_>, addr: IpAddr, port: u16) -> Option<Finding> {
    let walk = walk(trial, addr, port)?;
    let stopped = walk.dropper();
    let (met, place) = stopped.or_else(|| walk.doubts().next())?;
    let service = format!("{}/{port} of {addr}", Protocol::Tcp);
    let found = match stopped {
        Some(_) => Finding::open(Cause::LanSilent, message(&service, "drops", met, place)),
        None => Finding::unknown(Cause::LanSilent, message(&service, "may drop", met, place)),
    };
    Some(found.next(obstacle::look(met, place)))
}

fn message(service: &str, does: &str, met: &Met, place: &Place) -> String {
    format!(
        "whether {service} answers cannot be told: {} {does} what this host itself sends there",
        obstacle::place_of(met, place)
    )
}

/// The first packet of a connection that a program on this host begins; none where no route leads there.
fn walk(trial: &Trial<'_>, addr: IpAddr, port: u16) -> Option<Walk> {
    let facts = trial.facts;
    let family = Family::of(addr);
    let out = facts.routes.towards(addr, None, None).ok()?;
    let own = facts.situation.interface(&out.name).and_then(|interface| interface.address(family));
    // A port that this host might take as well.
    let (from, to) = ((own, Some(CLIENT_PORT)), (Some(addr), Some(port)));
    let mut packet = Packet::new(family, Protocol::Tcp, from, to, TcpFlags::Syn);
    packet.oif = Some(out);
    packet.of_one_client = true;
    variants::usual(&mut packet);
    Some(depart(facts.situation, facts.routes, packet))
}
