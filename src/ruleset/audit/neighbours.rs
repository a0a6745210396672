//! Neighbour discovery of IPv6: where the host's chains drop it, nobody on the link finds this host, whatever is granted.

use std::net::{IpAddr, Ipv6Addr};

use super::finding::{Finding, Severity};
use super::host::{HostHook, TableRef};
use super::journey::{Journey, Meeting, Route, travel};
use super::machine::Place;
use super::packet::{Interface, Neighbour, Packet};
use super::situation::{HostInterface, Situation};
use crate::ruleset::layout::Layout;
use crate::ruleset::remedy;
use crate::units::Family;

/// The router of a network, as others see it.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// One of the four messages by which two ends of a link find each other, in all the ways that it may look.
#[derive(Clone, Debug)]
pub struct Message {
    /// Whether it comes in.
    pub comes: bool,
    /// What it is, for people.
    pub what: &'static str,
    /// The ways.
    pub packets: Vec<Packet>,
}

/// The messages between this host, by its address on an interface, and another end of the link.
#[must_use]
pub fn messages(interface: &HostInterface, own: Ipv6Addr, other: Ipv6Addr) -> [Message; 4] {
    let by = Interface { name: interface.name.clone(), index: Some(interface.index) };
    let link_local = interface.addresses.iter().find_map(|(addr, _)| match addr {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(*v6),
        IpAddr::V6(_) | IpAddr::V4(_) => None,
    });
    let ours: Vec<Ipv6Addr> = std::iter::once(own).chain(link_local).collect();
    let theirs = [other, ROUTER];
    let all = |comes: bool, kind: Neighbour, from: &[Ipv6Addr], to: &[Ipv6Addr]| -> Vec<Packet> {
        let each = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
        each.map(|(from, to)| {
            let mut packet = Packet::neighbour(kind, from, to);
            match comes {
                true => packet.iif = Some(by.clone()),
                false => packet.oif = Some(by.clone()),
            }
            packet
        })
        .collect()
    };
    use Neighbour::{Advertises, Solicits};
    [
        Message {
            comes: true,
            what: "what asks for its hardware address",
            packets: all(true, Solicits, &theirs, &[own, solicited(own)]),
        },
        Message {
            comes: false,
            what: "what tells its hardware address",
            packets: all(false, Advertises, &ours, &theirs),
        },
        Message {
            comes: false,
            what: "what asks for hardware addresses of others",
            packets: all(false, Solicits, &ours, &[other, solicited(other)]),
        },
        Message {
            comes: true,
            what: "what tells hardware addresses of others",
            packets: all(true, Advertises, &theirs, &ours),
        },
    ]
}

/// The group of those whose address ends so.
fn solicited(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b] = addr.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (a & 0xff), b)
}

/// Another address of the same network.
#[must_use]
pub fn beside(own: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(own.to_bits() ^ 3)
}

/// Judges every chain on the way of these messages, for the interfaces by which clients of IPv6 come.
#[must_use]
pub(super) fn neighbours(layout: &Layout<'_>, situation: &Situation) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    let mut told: Vec<(TableRef, String, HostHook)> = Vec::new();
    for name in &layout.ext {
        let serves = layout.settings.apps.iter().any(|app| {
            app.families().contains(&Family::V6) && app.interface_ext.iter().any(|of| *of == **name)
        });
        let interface = situation.interface(name.as_str()).filter(|found| serves && found.has_neighbours);
        let Some((interface, IpAddr::V6(own))) =
            interface.and_then(|found| Some((found, found.address(Family::V6)?)))
        else {
            continue;
        };
        for message in messages(interface, own, beside(own)) {
            for (meeting, place) in drops(situation, &message) {
                let key = (meeting.table.clone(), meeting.chain.clone(), meeting.hook);
                if told.contains(&key) {
                    continue;
                }
                out.push(finding(situation, &meeting, &place, message.what));
                told.push(key);
            }
        }
    }
    out
}

fn finding(situation: &Situation, meeting: &Meeting, place: &Place, what: &str) -> Finding {
    let Meeting { table, chain, .. } = meeting;
    let rule = match &place.rule {
        Some((handle, _)) => format!("rule {handle} of {}", place.chain),
        None => "its policy".to_owned(),
    };
    Finding {
        severity: Severity::Warning,
        code: "host-drops-neighbours",
        message: format!(
            "chain {table} {chain} drops neighbour discovery of IPv6, {what} ({rule}): clients that come by IPv6 do not find this host"
        ),
        fix: remedy::admit_neighbours(&situation.host, (table, chain), place),
    }
}

/// The chains that drop a message in every way that it may look.
fn drops(situation: &Situation, message: &Message) -> Vec<(Meeting, Place)> {
    let lost = |packet: &Packet| -> Vec<(Meeting, Place)> {
        let journey = Journey {
            what: "neighbour discovery".to_owned(),
            ports: crate::units::PortRange::from(std::num::NonZeroU16::MIN),
            packet: packet.clone(),
            route: if message.comes { Route::In } else { Route::Out },
            untracked: false,
            forwarded: None,
        };
        let met = travel(situation, &journey, None).into_iter();
        met.filter_map(|meeting| {
            let place = meeting.loss().filter(|(_, certain)| *certain).map(|(place, _)| place.clone())?;
            Some((meeting, place))
        })
        .collect()
    };
    let mut ways = message.packets.iter().map(lost);
    let mut out = ways.next().unwrap_or_default();
    for way in ways {
        out.retain(|(meeting, _)| {
            let same = |(other, _): &(Meeting, Place)| {
                (&other.table, &other.chain, other.hook) == (&meeting.table, &meeting.chain, meeting.hook)
            };
            way.iter().any(same)
        });
    }
    out
}
