//! What an operator does so that a host's own rules let our packets through, in the language of
//! whoever owns those rules.

mod docker;
mod firewalld;
mod fw4;
mod iptables;
mod libvirt;
mod nft;
mod program;
mod proxmox;
#[cfg(test)]
mod tests;
mod ufw;
mod vyos;

use std::net::IpAddr;

use crate::ruleset::audit::host::{Host, HostFamily, HostHook, TableRef};
use crate::ruleset::audit::journey::{Journey, Route, TRANSLATION_PRIORITY};
use crate::ruleset::audit::machine::Place;
use crate::ruleset::audit::packet::Packet;
use crate::units::{Mark, PortRange, Protocol};

pub use program::{Program, program_of, programs};

/// By what a host's chain can tell what we let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// By our mark.
    Mark(Mark),
    /// By ports: the gate has let through only what may be there.
    Ports,
}

/// A base chain that must let packets of ours through, and does not.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// Its table.
    pub table: &'a TableRef,
    /// Its name.
    pub chain: &'a str,
    /// Its hook.
    pub hook: HostHook,
    /// When it comes on that hook.
    pub priority: i32,
    /// Where packets are lost first.
    pub place: Option<&'a Place>,
    /// Whether that is the only place, and certain: a rule right before it does, and what the host decides
    /// earlier, such as bans, stays as it is.
    pub only_place: bool,
    /// The chains that lost packets came through.
    pub visited: &'a [String],
    /// How it can tell them.
    pub admission: Admission,
    /// What is lost.
    pub journeys: &'a [Journey],
}

/// A place in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Before all other rules.
    First,
    /// Before the rule with this handle.
    Before(u64),
    /// After all other rules.
    Last,
}

/// A port that must be let through: from or to it, of this host or of a LAN host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Passer {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whether it is the source port.
    pub is_source: bool,
    /// The ports.
    pub ports: PortRange,
    /// Whose they are: rules in front of others' hosts must not open them as well.
    pub owner: Owner,
    /// By which interface: what is guarded on one must not be opened on others, where nobody guards it.
    pub door: Option<Door>,
}

/// An outside interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Door {
    /// Whether it goes out there, rather than comes in.
    pub is_out: bool,
    /// Its name.
    pub name: String,
}

impl Door {
    /// That of a packet, where a rule on that hook can ask for it: before routing nobody knows where an answer goes.
    #[must_use]
    pub fn of(hook: HostHook, packet: &Packet, is_out: bool) -> Option<Self> {
        use HostHook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
        let interface = match (is_out, hook) {
            (false, Ingress | Prerouting | Input | Forward) => packet.iif.as_ref(),
            (true, Forward | Output | Postrouting | Egress) => packet.oif.as_ref(),
            (false, Output | Postrouting | Egress) | (true, Ingress | Prerouting | Input) => None,
        };
        let bridge = packet.bridge.as_ref().filter(|(_, comes)| *comes != is_out);
        let name = bridge.map(|(name, _)| name).or(interface.map(|interface| &interface.name))?;
        (!name.is_empty()).then(|| Self { is_out, name: name.clone() })
    }
}

/// Whose port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// This host's, where only packets to or from this host come by.
    Plain,
    /// This host's, where others' packets come by as well.
    Here,
    /// A LAN host's.
    Host(IpAddr),
}

impl Need<'_> {
    /// The ports of what is lost, as packets have them at that chain.
    #[must_use]
    pub fn passers(&self) -> Vec<Passer> {
        let mut out: Vec<Passer> = self.journeys.iter().map(|journey| self.passer(journey)).collect();
        out.sort();
        out.dedup();
        out
    }

    /// Where in the chain itself the rule belongs.
    #[must_use]
    pub fn spot(&self) -> Spot {
        match self.place {
            Some(Place { chain, rule }) if self.only_place && chain == self.chain => {
                rule.as_ref().map_or(Spot::Last, |(handle, _)| Spot::Before(*handle))
            }
            Some(_) | None => Spot::First,
        }
    }

    /// On ingress, tables of family inet cannot ask routing (tried on Linux 6.18).
    fn here(&self) -> Owner {
        match (self.hook, self.table.family) {
            (HostHook::Ingress, HostFamily::Inet) => Owner::Plain,
            (HostHook::Ingress | HostHook::Prerouting, HostFamily::Bridge) => Owner::Plain,
            (HostHook::Ingress | HostHook::Prerouting, _) => Owner::Here,
            _ => Owner::Plain,
        }
    }

    /// Whether packets to a LAN host come there with that host as their destination: in a bridge, nothing has been
    /// translated yet.
    fn sees_translated(&self) -> bool {
        let after = match self.hook {
            HostHook::Ingress => false,
            HostHook::Prerouting => self.priority > TRANSLATION_PRIORITY,
            _ => true,
        };
        after && self.table.family != HostFamily::Bridge
    }

    fn passer(&self, journey: &Journey) -> Passer {
        let packet = &journey.packet;
        let protocol = packet.protocol;
        let one = |port: Option<u16>| {
            port.and_then(|port| PortRange::new(port, port).ok()).unwrap_or(journey.ports)
        };
        // One port of a range stands for all of it, where each is the same at the LAN host.
        let there = |port: Option<u16>| match port {
            Some(port) if journey.ports.contains(port) => journey.ports,
            other => one(other),
        };
        let host = |addr: Option<IpAddr>| addr.map_or(Owner::Plain, Owner::Host);
        let (is_source, ports, owner) = match (journey.route, journey.forwarded) {
            (Route::Out, _) => (true, journey.ports, Owner::Plain),
            (Route::Through, None) => (true, there(packet.port(false)), host(packet.ip(false))),
            (Route::Through, Some((addr, port))) if self.sees_translated() => {
                let kept = packet.port(true) == Some(port);
                (false, if kept { there(Some(port)) } else { one(Some(port)) }, Owner::Host(addr))
            }
            (Route::In | Route::Through, _) => (false, journey.ports, self.here()),
        };
        let door = Door::of(self.hook, packet, is_source);
        Passer { protocol, is_source, ports, owner, door }
    }
}

/// What matches our mark, in nft's words.
#[must_use]
pub fn mark_matcher(mark: Mark) -> String {
    nft::matcher(mark)
}

/// How neighbour discovery of IPv6 gets past a base chain.
#[must_use]
pub fn admit_neighbours(host: &Host, (table, chain): (&TableRef, &str), place: &Place) -> String {
    let program = program_of(host, table, chain);
    if host.owned.contains_key(table) && program != Program::Firewalld {
        return format!(
            "# have the program that owns table {table} accept neighbour discovery (ICMPv6 types 135 and 136) in {chain}"
        );
    }
    match program {
        Program::Iptables | Program::DockerIptables | Program::Proxmox => {
            let of = if table.table == "filter" { String::new() } else { format!("-t {} ", table.table) };
            [135, 136]
                .map(|kind| format!("ip6tables {of}-I {chain} -p icmpv6 --icmpv6-type {kind} -j ACCEPT"))
                .join("\n")
        }
        Program::PlainNft | Program::Fail2ban | Program::Crowdsec => {
            let rule = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept";
            let line = match &place.rule {
                Some((handle, _)) if place.chain == *chain => {
                    format!("nft insert rule {table} {chain} position {handle} '{rule}'")
                }
                Some(_) => format!("nft insert rule {table} {chain} '{rule}'"),
                None => format!("nft add rule {table} {chain} '{rule}'"),
            };
            format!(
                "{line}\n# to keep it, write it into chain {chain} of table {table} where that is defined"
            )
        }
        other => format!(
            "# have {} accept neighbour discovery (ICMPv6 types 135 and 136) in {chain}",
            other.name()
        ),
    }
}

/// What to do about a rule that writes another mark over ours.
#[must_use]
pub fn keep_mark(table: &TableRef, place: &Place, mark: Mark) -> String {
    let chain = &place.chain;
    let unlike = match mark.mask() {
        u32::MAX => format!("meta mark != {}", mark.value()),
        mask => format!("meta mark and {mask:#x} != {:#x}", mark.value()),
    };
    format!(
        "nft -a list chain {table} {chain}\n# have that rule leave alone what has our mark ({unlike}), or write other bits than ours: global.mark takes a mask"
    )
}

/// What asks for the interface, in iptables' words, with a blank behind it.
#[must_use]
pub fn iptables_door(door: Option<&Door>) -> String {
    iptables::by_door(door)
}

/// What matches our mark, in iptables' words.
#[must_use]
pub fn iptables_mark(mark: Mark) -> String {
    iptables::by_mark(mark)
}

/// What to do, as lines for a shell; lines for people begin with `#`.
#[must_use]
pub fn admit(host: &Host, need: &Need<'_>) -> String {
    let lines = match program_of(host, need.table, need.chain) {
        // It opens ports by asking firewalld, not by writing to its table.
        program if program != Program::Firewalld && host.owned.contains_key(need.table) => {
            nft::admit_owned(need, host.owned.get(need.table).copied().flatten())
        }
        Program::Vyos14 => vyos::admit_14(host, need),
        Program::Vyos13 => vyos::admit_13(need),
        Program::Fw4 => fw4::admit(host, need),
        Program::Ufw => ufw::admit(need),
        Program::Firewalld => firewalld::admit(need),
        Program::DockerNft => docker::admit_nft(need),
        Program::DockerIptables if need.hook == HostHook::Forward => docker::admit_iptables(need),
        Program::Proxmox => proxmox::admit(need),
        Program::ProxmoxNft => proxmox::admit_nft(need),
        Program::Libvirt => libvirt::admit(need),
        Program::Iptables | Program::DockerIptables => iptables::admit(need, "iptables", need.chain),
        Program::Fail2ban | Program::Crowdsec | Program::PlainNft => nft::admit(need),
    };
    lines.join("\n")
}
