//! The packets that must get through, and the ways they take past the chains of others.

use std::net::IpAddr;

use super::host::{Host, HostBase, HostChain, HostChainKind, HostFamily, HostHook, TableRef};
use super::machine::{Deed, End, Fate, Passage, Place, pass};
use super::packet::{Interface, Packet, Tracking};
use super::situation::Situation;
use crate::ruleset::expr::CT_STATUS_DNAT;
use crate::units::{Family, Mark, PortRange};

/// Connection tracking comes at this priority of prerouting and output.
const TRACKING_PRIORITY: i32 = -200;
/// Our `raw_in` and `raw_out`.
const RAW_PRIORITY: i32 = -300;
/// At this priority of postrouting, answers get back the address and port that the client turned to.
pub const SOURCE_PRIORITY: i32 = 100;
/// Chains that translate destinations run at this priority of prerouting, whatever their own: what comes behind it
/// sees where a packet goes.
pub const TRANSLATION_PRIORITY: i32 = -100;
/// Our chains that set the mark.
pub const MARK_PRIORITY: i32 = -10;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// To this host.
    In,
    /// Through this host.
    Through,
    /// From this host.
    Out,
}

/// A packet that must get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// What it is, for people: `step 1`, `ssh`.
    pub what: String,
    /// The ports it stands for, as a client uses them.
    pub ports: PortRange,
    /// The packet as it starts.
    pub packet: Packet,
    /// Its way.
    pub route: Route,
    /// Whether our table keeps it out of connection tracking.
    pub untracked: bool,
    /// Where our table sends it: LAN host and port there.
    pub forwarded: Option<(IpAddr, u16)>,
}

/// A base chain that a packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// Its table.
    pub table: TableRef,
    /// Its name.
    pub chain: String,
    /// Its hook.
    pub hook: HostHook,
    /// When it comes on that hook.
    pub priority: i32,
    /// Whether it sees our mark.
    pub sees_mark: bool,
    /// What became of the packet there.
    pub passage: Passage,
    /// What would have become of it without our mark, where that is something else.
    pub unmarked: Option<Passage>,
    /// Who wrote another mark over ours before it was lost.
    pub overwritten: Option<Overwritten>,
    /// Whether it is the answer of a LAN host, and already says that it is this host's.
    pub as_ours: bool,
}

/// A rule that writes another mark over ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overwritten {
    /// Its table.
    pub table: TableRef,
    /// Where.
    pub place: Place,
    /// Whether the chain that loses the packet would accept it but for that.
    pub accepts: bool,
}

/// Whether a chain would accept a packet, as it comes there, if a rule did not write another mark over ours.
#[must_use]
pub fn accepts_but_for(
    host: &Host,
    chain: &HostChain,
    before: &Packet,
    mark: Mark,
    (table, writer): (&TableRef, &Place),
) -> bool {
    let mut host = host.clone();
    if let Some((handle, _)) = &writer.rule {
        host.forget(table, &writer.chain, *handle);
    }
    let mut packet = before.clone();
    packet.put_mark(mark);
    let chain = host.chain(&chain.table, &chain.name);
    chain.is_some_and(|chain| !matches!(loss(&pass(&host, chain, &mut packet)), Some((_, true))))
}

impl Meeting {
    /// The first place where the packet may be lost, and whether it is lost in any case.
    #[must_use]
    pub fn loss(&self) -> Option<(&Place, bool)> {
        loss(&self.passage)
    }
}

/// The first place where a packet may be lost, and whether it is lost in any case.
#[must_use]
pub fn loss(passage: &Passage) -> Option<(&Place, bool)> {
    let lost = |end: &&End| matches!(end.fate, Fate::Dropped | Fate::SentOn | Fate::Queued);
    let certain = passage.ends.iter().all(|end| matches!(end.fate, Fate::Dropped | Fate::SentOn));
    let sure = passage.ends.iter().find(|end| lost(end) && end.certain);
    sure.or_else(|| passage.ends.iter().rev().find(lost)).map(|end| (&end.place, certain))
}

/// Sends a packet on its way, past every chain, even those behind one that drops it.
#[must_use]
pub fn travel(situation: &Situation, journey: &Journey, mark: Option<Mark>) -> Vec<Meeting> {
    let mut traveller = Traveller {
        situation,
        mark,
        packet: journey.packet.clone(),
        journey,
        writer: None,
        as_ours: false,
        met: Vec::new(),
    };
    traveller.go();
    traveller.met
}

struct Traveller<'a> {
    situation: &'a Situation,
    journey: &'a Journey,
    mark: Option<Mark>,
    packet: Packet,
    /// Who wrote another mark over ours.
    writer: Option<(TableRef, Place)>,
    /// Whether the answer of a LAN host has become this host's.
    as_ours: bool,
    met: Vec<Meeting>,
}

impl Traveller<'_> {
    fn go(&mut self) {
        match self.journey.route {
            Route::In => {
                self.arrive();
                match self.packet.for_here {
                    true => self.hook(HostHook::Input),
                    false => self.leave_through(),
                }
            }
            Route::Through => {
                self.arrive();
                self.leave_through();
            }
            Route::Out => {
                self.hook(HostHook::Output);
                self.hook(HostHook::Postrouting);
                self.depart();
            }
        }
    }

    fn arrive(&mut self) {
        self.hook(HostHook::Ingress);
        self.bridge(&[HostHook::Prerouting, HostHook::Input], true);
        self.hook(HostHook::Prerouting);
    }

    fn depart(&mut self) {
        self.bridge(&[HostHook::Output, HostHook::Postrouting], false);
        self.hook(HostHook::Egress);
    }

    /// A bridge's own chains: they see ports of the bridge where others see the bridge.
    fn bridge(&mut self, hooks: &[HostHook], coming: bool) {
        let interface = if coming { &self.packet.iif } else { &self.packet.oif };
        let name = interface.as_ref().map_or("", |interface| interface.name.as_str());
        if !self.situation.interface(name).is_some_and(|interface| interface.is_bridge) {
            return;
        }
        let host = &self.situation.host;
        let mut frame = self.packet.clone();
        frame.enter_bridge(coming);
        if coming {
            frame.tracking = Tracking::NOT_YET;
        }
        for hook in hooks {
            for (chain, base) in host.on(*hook) {
                if chain.table.family == HostFamily::Bridge {
                    let passage = pass(host, chain, &mut frame);
                    self.note(chain, base, passage, None, !coming);
                }
            }
        }
    }

    fn leave_through(&mut self) {
        self.route();
        self.hook(HostHook::Forward);
        self.hook(HostHook::Postrouting);
        self.depart();
    }

    /// Sends the packet where our table, or somebody else, translates it to.
    fn send_on(&mut self) {
        match (self.journey.route, self.journey.forwarded) {
            (Route::In, _) => self.translate(),
            (Route::Through, Some((host, port))) => self.readdress(Some(host), Some(port)),
            (Route::Through, None) | (Route::Out, _) => {}
        }
    }

    /// What somebody else's translation does to the first packet of a connection.
    fn translate(&mut self) {
        if self.packet.tracking != Tracking::NEW {
            return;
        }
        let host = &self.situation.host;
        for (chain, base) in host.on(HostHook::Prerouting) {
            if base.kind != HostChainKind::Nat || !self.is_concerned(chain, base) {
                continue;
            }
            let passage = pass(host, chain, &mut self.packet);
            let deed = passage.deeds.iter().find_map(|(deed, _, certain)| certain.then(|| deed.clone()));
            self.note(chain, base, passage, None, false);
            match deed {
                Some(Deed::Dnat { addr, port }) => {
                    let addr = addr.and_then(|bytes| address(&bytes, self.packet.family));
                    return self.readdress(addr, port);
                }
                Some(Deed::Redirect { port }) => {
                    self.packet.put_port(true, port.or(self.packet.port(true)));
                    self.packet.tracking.status |= CT_STATUS_DNAT;
                    return;
                }
                Some(Deed::Tproxy | Deed::FlowAdd(_) | Deed::Notrack) | None => {}
            }
        }
    }

    fn readdress(&mut self, addr: Option<IpAddr>, port: Option<u16>) {
        let port = port.or(self.packet.port(true));
        self.packet.put_address(true, addr);
        self.packet.put_port(true, port);
        self.packet.tracking.status |= CT_STATUS_DNAT;
        self.packet.for_here = addr.is_some_and(|addr| self.situation.is_own(addr));
    }

    /// By which interface a packet leaves that has been translated.
    fn route(&mut self) {
        if self.packet.oif.is_some() || self.packet.tracking.status & CT_STATUS_DNAT == 0 {
            return;
        }
        let towards = self.packet.ip(true).and_then(|addr| self.situation.towards(addr));
        self.packet.oif = Some(match towards {
            Some(interface) => Interface { name: interface.name.clone(), index: Some(interface.index) },
            None => Interface { name: String::new(), index: None },
        });
    }

    fn hook(&mut self, hook: HostHook) {
        let host: &Host = &self.situation.host;
        let tracked = self.packet.tracking;
        let mut after = tracked;
        let may_mark = matches!(hook, HostHook::Input | HostHook::Forward | HostHook::Output);
        let mut marked = !may_mark && self.packet.mark != [Some(0); 4];
        let mut sent_on = hook != HostHook::Prerouting;
        for (chain, base) in host.on(hook) {
            if base.kind == HostChainKind::Nat || !self.is_concerned(chain, base) {
                continue;
            }
            if !sent_on && base.priority > TRANSLATION_PRIORITY {
                self.packet.tracking = after;
                self.send_on();
                (after, sent_on) = (self.packet.tracking, true);
            }
            if may_mark && !marked && base.priority > MARK_PRIORITY {
                self.put_mark();
                marked = true;
            }
            if hook == HostHook::Postrouting && base.priority > SOURCE_PRIORITY {
                self.translate_back();
            }
            self.packet.tracking = self.tracking_at(hook, base, after);
            let before = self.packet.clone();
            let passage = pass(host, chain, &mut self.packet);
            let untracked = passage.deeds.iter().any(|(deed, _, sure)| *sure && *deed == Deed::Notrack);
            if untracked {
                after = Tracking::UNTRACKED;
            }
            let overwritten = if marked { self.overwritten(chain, &before, &passage) } else { None };
            let unmarked = marked.then(|| {
                let mut packet = before;
                packet.mark = self.journey.packet.mark;
                pass(host, chain, &mut packet)
            });
            self.note(chain, base, passage, unmarked, marked);
            self.met.last_mut().into_iter().for_each(|met| met.overwritten.clone_from(&overwritten));
        }
        if may_mark && !marked {
            self.put_mark();
        }
        self.packet.tracking = after;
        if !sent_on {
            self.send_on();
        }
        if hook == HostHook::Postrouting {
            self.translate_back();
        }
    }

    /// Gives the answer of a LAN host the address and port that the client turned to.
    fn translate_back(&mut self) {
        let Tracking { tracked, direction, status, .. } = self.packet.tracking;
        let is_answer = tracked && direction == Tracking::REPLY.direction && status & CT_STATUS_DNAT != 0;
        if self.as_ours || self.journey.route != Route::Through || !is_answer {
            return;
        }
        let out = self.packet.oif.as_ref().and_then(|out| self.situation.interface(&out.name));
        let mut own = out.into_iter().flat_map(|out| out.reachable(self.packet.family));
        // Of several addresses or ports, any may be the one.
        let address = own.next().filter(|_| own.next().is_none());
        let ports = self.journey.ports;
        self.packet.put_address(false, address);
        self.packet.put_port(false, ports.is_single().then(|| ports.first()));
        self.as_ours = true;
    }

    /// Before connection tracking has seen a packet, only our own table can have kept it out.
    fn tracking_at(&self, hook: HostHook, base: &HostBase, after: Tracking) -> Tracking {
        match hook {
            HostHook::Ingress => Tracking::NOT_YET,
            HostHook::Prerouting | HostHook::Output if base.priority < TRACKING_PRIORITY => {
                let ours = self.journey.untracked && base.priority > RAW_PRIORITY;
                if ours || after == Tracking::UNTRACKED && !self.journey.untracked {
                    Tracking::UNTRACKED
                } else {
                    Tracking::NOT_YET
                }
            }
            _ => after,
        }
    }

    fn put_mark(&mut self) {
        let Some(mark) = self.mark else { return };
        self.packet.put_mark(mark);
        self.writer = None;
    }

    /// Who has written another mark over ours, where the packet is lost without it.
    fn overwritten(&mut self, chain: &HostChain, before: &Packet, passage: &Passage) -> Option<Overwritten> {
        let mark = self.mark.filter(|mark| self.packet.lacks(*mark))?;
        if let Some(place) = passage.marked.last() {
            self.writer = Some((chain.table.clone(), place.clone()));
        }
        let (table, place) = self.writer.clone()?;
        loss(passage)?;
        let accepts = accepts_but_for(&self.situation.host, chain, before, mark, (&table, &place));
        Some(Overwritten { table, place, accepts })
    }

    fn note(
        &mut self,
        chain: &HostChain,
        base: &HostBase,
        passage: Passage,
        unmarked: Option<Passage>,
        sees_mark: bool,
    ) {
        self.met.push(Meeting {
            table: chain.table.clone(),
            chain: chain.name.clone(),
            hook: base.hook,
            priority: base.priority,
            sees_mark,
            passage,
            unmarked,
            overwritten: None,
            as_ours: self.as_ours,
        });
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
        let device = base.devices.is_empty() || base.devices.iter().any(|device| device == name);
        match chain.table.family {
            Inet | Netdev => device,
            Ip => self.packet.family == Family::V4,
            Ip6 => self.packet.family == Family::V6,
            Bridge => false,
        }
    }
}

/// iptables keeps an IPv4 address at the beginning of a longer field.
fn address(bytes: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => bytes.first_chunk::<4>().map(|&bytes| IpAddr::from(bytes)),
        Family::V6 => bytes.first_chunk::<16>().map(|&bytes| IpAddr::from(bytes)),
    }
}
