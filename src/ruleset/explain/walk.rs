//! One packet of one client past everybody's chains, our own included, as the kernel has them now.
//!
//! What a chain does with it is told by [`pass`]; where it goes is told by the kernel's own routing.

use std::net::IpAddr;

use super::facts::{Path, PathTrouble, Routes};
use crate::ruleset::audit::host::{HostBase, HostChain, HostChainKind, HostFamily, HostHook, TableRef};
use crate::ruleset::audit::journey::loss;
use crate::ruleset::audit::machine::{Deed, Fate, Passage, Place, pass};
use crate::ruleset::audit::packet::{Interface, Packet, Tracking};
use crate::ruleset::audit::situation::Situation;
use crate::ruleset::expr::CT_STATUS_DNAT;
use crate::ruleset::model::TABLE;
use crate::units::Family;

/// Connection tracking comes at this priority of prerouting and output.
const TRACKING: i32 = -200;
/// All chains that translate run at these priorities, whatever their own; theirs put them in order.
const NAT_DESTINATION: i32 = -100;
const NAT_SOURCE: i32 = 100;

/// A base chain that the packet came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its table.
    pub table: TableRef,
    /// Its name.
    pub chain: String,
    /// Its hook.
    pub hook: HostHook,
    /// Its priority.
    pub priority: i32,
    /// The packet as it came there.
    pub packet: Packet,
    /// What became of it there.
    pub passage: Passage,
}

impl Met {
    /// Whether it is a chain of our own table.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        is_ours(&self.table)
    }

    /// Where the packet may be lost, and whether it certainly is.
    #[must_use]
    pub fn loss(&self) -> Option<(&Place, bool)> {
        loss(&self.passage)
    }

    /// Where it is certainly let pass, if it is.
    #[must_use]
    pub fn accepted_at(&self) -> Option<&Place> {
        let end = self.passage.ends.iter().find(|end| end.certain)?;
        (end.fate == Fate::Accepted).then_some(&end.place)
    }

    /// What is certainly done to it beside.
    pub fn deeds(&self) -> impl Iterator<Item = (&Deed, &Place)> {
        self.passage.deeds.iter().filter(|(.., certain)| *certain).map(|(deed, place, _)| (deed, place))
    }
}

/// Whether a table is our own.
#[must_use]
pub fn is_ours(table: &TableRef) -> bool {
    table.family == HostFamily::Inet && table.table == TABLE
}

/// How a way ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It comes to a program on this host.
    Here,
    /// It leaves by an interface.
    Out,
    /// The last chain met drops it.
    Dropped,
    /// Routing has no way for it.
    NoWay(PathTrouble),
}

/// A packet's way as far as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The packet as it began.
    pub first: Packet,
    /// The chains it met, in order.
    pub met: Vec<Met>,
    /// How it ends.
    pub end: End,
    /// The packet as it ends.
    pub last: Packet,
    /// Where its connection was sent to, if somewhere else than it asked for.
    pub translated: Option<(IpAddr, u16)>,
}

impl Walk {
    /// The chain that may drop it, though that cannot be told.
    pub fn doubts(&self) -> impl Iterator<Item = (&Met, &Place)> {
        self.met.iter().filter_map(|met| match met.loss() {
            Some((place, false)) => Some((met, place)),
            Some((_, true)) | None => None,
        })
    }

    /// The chain that drops it.
    #[must_use]
    pub fn dropper(&self) -> Option<(&Met, &Place)> {
        let met = self.met.last().filter(|_| self.end == End::Dropped)?;
        met.loss().map(|(place, _)| (met, place))
    }
}

/// Sends a packet on its way that comes in by an interface; `translated` is what became of the first packet of its
/// connection.
#[must_use]
pub fn arrive(
    situation: &Situation,
    routes: &dyn Routes,
    packet: Packet,
    translated: Option<(IpAddr, u16)>,
) -> Walk {
    let mut walker = Walker::new(situation, routes, packet, translated);
    let end = match walker.incoming() {
        Ok(end) | Err(end) => end,
    };
    walker.finish(end)
}

/// The same of a packet that our own rules let pass, whatever they say now.
#[must_use]
pub(super) fn arrive_admitted(situation: &Situation, routes: &dyn Routes, packet: Packet) -> Walk {
    let mut walker = Walker::new(situation, routes, packet, None);
    walker.admitted = true;
    let end = match walker.incoming() {
        Ok(end) | Err(end) => end,
    };
    walker.finish(end)
}

/// Sends a packet on its way that this host makes.
#[must_use]
pub fn depart(situation: &Situation, routes: &dyn Routes, packet: Packet) -> Walk {
    let mut walker = Walker::new(situation, routes, packet, None);
    let end = match walker.outgoing() {
        Ok(end) | Err(end) => end,
    };
    walker.finish(end)
}

struct Walker<'a> {
    situation: &'a Situation,
    routes: &'a dyn Routes,
    first: Packet,
    packet: Packet,
    /// As connection tracking will see it.
    tracking: Tracking,
    untracked: bool,
    /// Whether our own rules let it pass in any case.
    admitted: bool,
    met: Vec<Met>,
    translated: Option<(IpAddr, u16)>,
}

impl<'a> Walker<'a> {
    fn new(
        situation: &'a Situation,
        routes: &'a dyn Routes,
        packet: Packet,
        translated: Option<(IpAddr, u16)>,
    ) -> Self {
        let tracking = packet.tracking;
        Self {
            situation,
            routes,
            first: packet.clone(),
            packet,
            tracking,
            untracked: false,
            admitted: false,
            met: Vec::new(),
            translated,
        }
    }

    fn finish(self, end: End) -> Walk {
        Walk { first: self.first, met: self.met, end, last: self.packet, translated: self.translated }
    }

    fn incoming(&mut self) -> Result<End, End> {
        self.hook(HostHook::Ingress)?;
        self.bridge(&[HostHook::Prerouting, HostHook::Input], true)?;
        self.hook(HostHook::Prerouting)?;
        self.route()?;
        if self.packet.for_here {
            self.hook(HostHook::Input)?;
            return Ok(End::Here);
        }
        self.hook(HostHook::Forward)?;
        self.hook(HostHook::Postrouting)?;
        self.bridge(&[HostHook::Output, HostHook::Postrouting], false)?;
        self.hook(HostHook::Egress)?;
        Ok(End::Out)
    }

    fn outgoing(&mut self) -> Result<End, End> {
        self.hook(HostHook::Output)?;
        self.hook(HostHook::Postrouting)?;
        self.bridge(&[HostHook::Output, HostHook::Postrouting], false)?;
        self.hook(HostHook::Egress)?;
        Ok(End::Out)
    }

    /// As the kernel's routing decides.
    fn route(&mut self) -> Result<(), End> {
        let (Some(from), Some(to)) = (self.packet.ip(false), self.packet.ip(true)) else {
            return Ok(());
        };
        let inside = self.packet.iif.clone().unwrap_or(Interface { name: String::new(), index: None });
        let ports = self.packet.port(false).zip(self.packet.port(true));
        let ports = ports.map(|(from, to)| (self.packet.protocol, from, to));
        match self.routes.path(from, to, ports, &inside) {
            Path::Here => self.packet.for_here = true,
            Path::Through(interface) => {
                self.packet.for_here = false;
                self.packet.oif = Some(interface);
            }
            Path::Nowhere(trouble) => return Err(End::NoWay(trouble)),
            Path::Unknown => {
                self.packet.for_here = self.situation.is_own(to);
                if !self.packet.for_here {
                    let towards = self.situation.towards(to);
                    let name = towards.map(|interface| interface.name.clone()).unwrap_or_default();
                    self.packet.oif = Some(Interface { name, index: towards.map(|found| found.index) });
                }
            }
        }
        Ok(())
    }

    fn hook(&mut self, hook: HostHook) -> Result<(), End> {
        let situation = self.situation;
        let mut chains: Vec<(&HostChain, &HostBase)> = situation.host.on(hook);
        chains.retain(|(chain, base)| self.is_concerned(chain, base));
        chains.sort_by_key(|(_, base)| (effective(base), base.priority));
        let translates = matches!(hook, HostHook::Prerouting);
        let mut translation_is_over = false;
        // The packet as it came to the first chain of a priority.
        let mut level = (i32::MIN, self.packet.clone());
        for (at, &(chain, base)) in chains.iter().enumerate() {
            if translates && !translation_is_over && effective(base) > NAT_DESTINATION {
                self.translate_later();
                translation_is_over = true;
            }
            if hook == HostHook::Postrouting && effective(base) > NAT_SOURCE {
                self.answer_as_asked();
            }
            if base.kind == HostChainKind::Nat {
                if translation_is_over || self.packet.tracking.state != Tracking::NEW.state {
                    continue;
                }
                let is_done = self.meet(chain, base, None)?;
                translation_is_over = is_done && !translates || self.follow_translation(translates);
                continue;
            }
            self.packet.tracking = self.tracking_at(hook, base);
            if level.0 != base.priority {
                level = (base.priority, self.packet.clone());
            }
            let otherwise = self.in_another_order(&chains, at, &level.1);
            self.meet(chain, base, otherwise)?;
        }
        if hook == HostHook::Postrouting {
            self.answer_as_asked();
        }
        if translates && !translation_is_over {
            self.translate_later();
        }
        self.packet.tracking = self.tracking_after();
        Ok(())
    }

    /// Of chains of one priority the kernel runs the newest first, and does not tell which one of two tables that is: the
    /// packet as it comes to a chain if it is the other way round between tables.
    fn in_another_order(
        &self,
        chains: &[(&HostChain, &HostBase)],
        at: usize,
        start: &Packet,
    ) -> Option<Packet> {
        let &(chain, base) = chains.get(at)?;
        let equal = |is: &HostBase| is.kind == HostChainKind::Filter && is.priority == base.priority;
        let other_table = |of: &HostChain| of.table != chain.table;
        if !chains.iter().any(|(of, is)| equal(is) && other_table(of)) {
            return None;
        }
        let mut packet = start.clone();
        for (index, (of, is)) in chains.iter().enumerate() {
            if index != at && equal(is) && other_table(of) == (index > at) {
                let _ = pass(&self.situation.host, of, &mut packet);
            }
        }
        Some(packet)
    }

    /// An answer leaves as that of the address and port that the client turned to.
    fn answer_as_asked(&mut self) {
        let Tracking { tracked, direction, .. } = self.packet.tracking;
        if let (true, Some(original)) =
            (tracked && direction == Tracking::REPLY.direction, &self.packet.original)
        {
            let (addr, port) = original.to;
            self.packet.put_address(false, Some(addr));
            self.packet.put_port(false, Some(port));
        }
    }

    /// Later packets go where the first one went, or where it is known to go beforehand.
    fn translate_later(&mut self) {
        if let Some((addr, port)) = self.translated {
            self.readdress(Some(addr), Some(port));
        }
    }

    /// Whether the chain passed last has translated the packet.
    fn follow_translation(&mut self, destination: bool) -> bool {
        let Some(met) = self.met.last().filter(|_| destination) else { return false };
        let deed = met.deeds().find_map(|(deed, _)| match deed {
            Deed::Dnat { addr, port } => Some((addr.clone(), *port, false)),
            Deed::Redirect { port } => Some((None, *port, true)),
            Deed::Tproxy | Deed::FlowAdd(_) | Deed::Notrack => None,
        });
        let Some((addr, port, redirected)) = deed else { return false };
        let here = || {
            let interface = self.situation.interface(&self.packet.iif.as_ref()?.name)?;
            interface.address(self.packet.family)
        };
        let addr = match addr {
            Some(bytes) => address(&bytes, self.packet.family),
            None if redirected => here(),
            None => self.packet.ip(true),
        };
        self.readdress(addr, port);
        self.translated = self.packet.ip(true).zip(self.packet.port(true));
        true
    }

    fn readdress(&mut self, addr: Option<IpAddr>, port: Option<u16>) {
        let port = port.or(self.packet.port(true));
        self.packet.put_address(true, addr);
        self.packet.put_port(true, port);
        self.tracking.status |= CT_STATUS_DNAT;
        self.packet.tracking.status |= CT_STATUS_DNAT;
        self.packet.for_here = addr.is_some_and(|addr| self.situation.is_own(addr));
    }

    /// Sends the packet through a chain, to which it may come otherwise; whether that chain has come to an end with it
    /// by a rule.
    fn meet(&mut self, chain: &HostChain, base: &HostBase, otherwise: Option<Packet>) -> Result<bool, End> {
        let before = self.packet.clone();
        let mut passage = pass(&self.situation.host, chain, &mut self.packet);
        if matches!(base.hook, HostHook::Prerouting | HostHook::Output) && base.priority == TRACKING {
            self.or_as(chain, Packet { tracking: Tracking::NOT_YET, ..before.clone() }, &mut passage);
        }
        if let Some(other) = otherwise.filter(|other| *other != before) {
            self.or_as(chain, other, &mut passage);
        }
        self.untracked |= passage.deeds.iter().any(|(deed, _, sure)| *sure && *deed == Deed::Notrack);
        let ended = passage.ends.iter().any(|end| end.certain && end.place.rule.is_some());
        self.met.push(Met {
            table: chain.table.clone(),
            chain: chain.name.clone(),
            hook: base.hook,
            priority: base.priority,
            packet: before,
            passage,
        });
        match self.met.last().and_then(Met::loss) {
            Some((_, true)) if !(self.admitted && is_ours(&chain.table)) => Err(End::Dropped),
            Some(_) | None => Ok(ended),
        }
    }

    /// What comes at the same priority as connection tracking, or as a chain of another table, may come before it: then
    /// the chain sees another packet.
    fn or_as(&self, chain: &HostChain, mut packet: Packet, passage: &mut Passage) {
        let other = pass(&self.situation.host, chain, &mut packet);
        if other.ends != passage.ends {
            passage.ends.extend(other.ends);
            passage.ends.iter_mut().for_each(|end| end.certain = false);
        }
    }

    /// A bridge's own chains: they see ports of the bridge where others see the bridge.
    fn bridge(&mut self, hooks: &[HostHook], coming: bool) -> Result<(), End> {
        let interface = if coming { &self.packet.iif } else { &self.packet.oif };
        let name = interface.as_ref().map_or("", |interface| interface.name.as_str());
        if !self.situation.interface(name).is_some_and(|interface| interface.is_bridge) {
            return Ok(());
        }
        let outside = self.packet.clone();
        self.packet.enter_bridge(coming);
        if coming {
            self.packet.tracking = Tracking::NOT_YET;
        }
        for &hook in hooks {
            for (chain, base) in self.situation.host.on(hook) {
                if chain.table.family == HostFamily::Bridge {
                    self.meet(chain, base, None)?;
                }
            }
        }
        self.packet = outside;
        Ok(())
    }

    fn tracking_at(&self, hook: HostHook, base: &HostBase) -> Tracking {
        match hook {
            HostHook::Ingress => Tracking::NOT_YET,
            HostHook::Prerouting | HostHook::Output if base.priority < TRACKING && !self.untracked => {
                Tracking::NOT_YET
            }
            _ => self.tracking_after(),
        }
    }

    fn tracking_after(&self) -> Tracking {
        if self.untracked { Tracking::UNTRACKED } else { self.tracking }
    }

    /// Whether the packet passes the chain at all.
    fn is_concerned(&self, chain: &HostChain, base: &HostBase) -> bool {
        use HostFamily::{Bridge, Inet, Ip, Ip6, Netdev};
        let interface = match base.hook {
            HostHook::Egress | HostHook::Postrouting | HostHook::Output => self.packet.oif.as_ref(),
            HostHook::Ingress | HostHook::Prerouting | HostHook::Input | HostHook::Forward => {
                self.packet.iif.as_ref()
            }
        };
        let name = interface.map_or("", |interface| interface.name.as_str());
        match chain.table.family {
            Inet | Netdev => base.devices.is_empty() || base.devices.iter().any(|device| device == name),
            Ip => self.packet.family == Family::V4,
            Ip6 => self.packet.family == Family::V6,
            Bridge => false,
        }
    }
}

/// At what priority of its hook a chain really runs.
fn effective(base: &HostBase) -> i32 {
    match (base.kind, base.hook) {
        (HostChainKind::Nat, HostHook::Prerouting | HostHook::Output) => NAT_DESTINATION,
        (HostChainKind::Nat, _) => NAT_SOURCE,
        (HostChainKind::Filter, _) => base.priority,
    }
}

/// iptables keeps an IPv4 address at the beginning of a longer field.
fn address(bytes: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => bytes.first_chunk::<4>().map(|&bytes| IpAddr::from(bytes)),
        Family::V6 => bytes.first_chunk::<16>().map(|&bytes| IpAddr::from(bytes)),
    }
}
