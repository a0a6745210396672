//! Puts together what the packets met, what they found at the end of their way, and what the daemon remembers.

use std::net::IpAddr;

use super::answer::{Answer, Finding, Outcome, Step, Verdict};
use super::cause::Cause;
use super::facts::{Daemon, Facts, PathTrouble};
use super::walk::{End, Met, Walk, arrive, depart};
use super::{arrival, gate, neighbours, newer, obstacle, span, tracking, variants, ways};
use crate::config::App;
use crate::ruleset::audit::machine::Deed;
use crate::ruleset::audit::packet::{Interface, Original, Packet, TcpFlags, Tracking};
use crate::ruleset::expr::CT_STATUS_DNAT;
use crate::ruleset::layout::Layout;
use crate::units::{Family, Protocol};

/// The port that a client happens to use.
pub const CLIENT_PORT: u16 = 51_515;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The settings.
    pub layout: &'a Layout<'a>,
    /// The app; none: whatever is at that port.
    pub app: Option<&'a App>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
    /// The client.
    pub client: IpAddr,
    /// The interface by which it comes in; none: it cannot be reached at all.
    pub by: Option<Interface>,
    /// The address of this host that it turns to; none: there is none of its family.
    pub host: Option<IpAddr>,
}

impl Question<'_> {
    /// The service, such as `tcp/22`.
    #[must_use]
    pub fn service(&self) -> String {
        format!("{}/{}", self.protocol, self.port)
    }

    /// What it is called: the app's name, or the port.
    #[must_use]
    pub fn name(&self) -> String {
        self.app.map_or_else(|| self.service(), |app| app.name.to_string())
    }

    pub(super) fn family(&self) -> Family {
        Family::of(self.client)
    }

    /// Whether the interface is one that the app, or any, is guarded on.
    pub(super) fn is_outside(&self) -> bool {
        let by = self.by.as_ref().map_or("", |by| by.name.as_str());
        match self.app {
            Some(app) => app.interface_ext.iter().any(|name| name.as_str() == by),
            None => self.layout.ext.iter().any(|name| name.as_str() == by),
        }
    }

    pub(super) fn packet(&self, host: IpAddr, port: u16, flags: TcpFlags, tracking: Tracking) -> Packet {
        let from = (Some(self.client), Some(CLIENT_PORT));
        let mut packet = Packet::new(self.family(), self.protocol, from, (Some(host), Some(port)), flags);
        packet.iif = self.by.clone();
        packet.tracking = tracking;
        packet.of_one_client = true;
        variants::usual(&mut packet);
        packet.original = Some(Original { from: (self.client, CLIENT_PORT), to: (host, port) });
        packet
    }
}

/// Explains.
#[must_use]
pub fn explain(facts: &Facts<'_>, question: &Question<'_>) -> Answer {
    let mut trial = Trial { facts, question, findings: Vec::new(), steps: Vec::new() };
    trial.hold();
    let (app, service) = (question.app.map(|app| app.name.to_string()), question.service());
    let Trial { findings, steps, .. } = trial;
    let nothing = || Finding::unknown(Cause::CannotTell, "nothing was found out");
    Answer::of(app.clone(), service.clone(), findings, steps.clone()).unwrap_or_else(|| Answer {
        app,
        service,
        finding: nothing(),
        also: Vec::new(),
        steps,
    })
}

pub(super) struct Trial<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) question: &'a Question<'a>,
    /// What was found, what weighs most first.
    pub(super) findings: Vec<Finding>,
    steps: Vec<Step>,
}

impl Trial<'_> {
    fn hold(&mut self) {
        let question = self.question;
        if let Some(app) = question.app
            && !app.families().contains(&question.family())
        {
            let host = app.destination.host().map(|host| host.to_string()).unwrap_or_default();
            self.findings.push(
                Finding::closed(
                    Cause::WrongFamily,
                    format!("{} is at {host}, which is not reached by {}", app.name, word(question.family())),
                )
                .next(format!("# have the client use {}", word(other(question.family())))),
            );
            return;
        }
        let (Some(by), Some(host)) = (&question.by, question.host) else {
            self.findings.push(ways::none_here(self));
            return;
        };
        self.surroundings(by);
        let mut packet = self.mark(question.packet(host, question.port, TcpFlags::Syn, Tracking::NEW));
        packet.reached_by = self.reached_by(by);
        let first = arrive(self.facts.situation, self.facts.routes, packet, self.forwarded());
        self.take_down("first", &first);
        self.judge_first(&first, by, host);
        let told = self.findings.iter().any(|finding| finding.cause == Cause::DaemonMute);
        if let (false, Daemon::Mute(why)) = (told, &self.facts.daemon) {
            self.findings.push(Finding::open(
                Cause::DaemonMute,
                format!("the daemon does not say what it knows: {why}"),
            ));
        }
    }

    /// The interface by which routing expects the client, where that is another one.
    fn reached_by(&self, by: &Interface) -> Option<Interface> {
        let client = self.question.client;
        let at = self.facts.routes.towards(client, None, None).ok()?;
        (at.name != by.name && !self.facts.situation.is_own(client)).then_some(at)
    }

    /// With iptables, our own chains are not followed: where they send a packet is told beforehand.
    pub(super) fn forwarded(&self) -> Option<(IpAddr, u16)> {
        let app = self.question.app.filter(|_| self.facts.by_iptables && self.question.is_outside())?;
        Some((app.destination.host()?, app.destination.port().unwrap_or(self.question.port)))
    }

    /// The same for our mark.
    pub(super) fn mark(&self, mut packet: Packet) -> Packet {
        let mark = self.question.layout.settings.global.mark.filter(|_| self.facts.by_iptables);
        if let Some(mark) = mark.filter(|_| self.question.app.is_some() && self.question.is_outside()) {
            packet.mark = mark.value().to_ne_bytes().map(Some);
        }
        packet
    }

    /// What is beside rules.
    fn surroundings(&mut self, by: &Interface) {
        let Facts { situation, tracked, .. } = self.facts;
        self.findings.extend(ways::down(self, &[by.name.as_str()]));
        if let Some((count, most)) = tracked.filter(|(count, most)| count >= most && *most > 0) {
            self.findings.push(
                Finding::closed(
                    Cause::ConntrackFull,
                    format!(
                        "connection tracking is full ({count} of {most}): the kernel drops new connections of everybody"
                    ),
                )
                .next(format!("sysctl -w net.netfilter.nf_conntrack_max={}", most.saturating_mul(4)))
                .next("conntrack -L | awk '{print $1, $4}' | sort | uniq -c | sort -rn | head  # who fills it"),
            );
        }
        self.findings.extend(neighbours::lost(self, by));
        if situation.interface(&by.name).is_some_and(|interface| interface.has_xdp) {
            self.findings.push(
                Finding::unknown(
                    Cause::Xdp,
                    format!("a program on {} (XDP) sees packets before all rules, and what it does cannot be told", by.name),
                )
                .next(format!("ip link show dev {}; bpftool net", by.name)),
            );
        }
        if !situation.legacy_tables.is_empty() && !self.facts.by_iptables {
            self.findings.push(
                Finding::unknown(
                    Cause::LegacyRules,
                    format!(
                        "tables of iptables-legacy are loaded ({}), which cannot be read here and may drop it",
                        situation.legacy_tables.join(", ")
                    ),
                )
                .next("iptables-legacy-save; ip6tables-legacy-save"),
            );
        }
    }

    fn judge_first(&mut self, first: &Walk, by: &Interface, host: IpAddr) {
        match (&first.end, first.dropper()) {
            (End::Dropped, Some((met, place))) if met.is_ours() => {
                let found = gate::closed(self, place);
                self.findings.extend(found);
                self.further_on(first);
            }
            (End::Dropped, dropper) => {
                let found =
                    dropper.map(|(met, place)| obstacle::drops(self.facts, self.question, first, met, place));
                self.findings.extend(found);
                self.further_on(first);
                // What comes before the gate says nothing of the gate.
                if !self.was_at_gate(first) && self.question.app.is_some() && !gate::is_member(self) {
                    let also = gate::why_not_granted(self);
                    self.findings.extend(also);
                }
            }
            (End::NoWay(trouble), _) => {
                let inside: Vec<&str> = self
                    .question
                    .app
                    .map_or(Vec::new(), |app| app.interface_int.iter().map(|name| name.as_str()).collect());
                let lost = *trouble == PathTrouble::NoRoute;
                let down = lost.then(|| ways::down(self, &inside)).flatten();
                self.findings.extend(down);
                let found = arrival::no_way(self, first, *trouble);
                self.findings.push(found);
            }
            (End::Here | End::Out, _) => self.judge_arrived(first, by, host),
        }
        self.doubts(first);
        // Rules that may be why are named first.
        if first.end == End::Here && !self.findings.iter().any(|finding| finding.verdict == Verdict::Closed) {
            self.findings.extend(arrival::half_way(self, first));
        }
    }

    /// What would keep it out next, for services on this host.
    fn further_on(&mut self, first: &Walk) {
        let here = self.question.app.is_some_and(|app| app.destination.host().is_none());
        if here && first.last.for_here && first.translated.is_none() {
            self.findings.extend(arrival::here(self.facts, self.question, first));
        }
    }

    fn was_at_gate(&self, walk: &Walk) -> bool {
        walk.met.iter().any(|met| met.is_ours() && met.chain == "gate")
    }

    fn judge_arrived(&mut self, first: &Walk, by: &Interface, host: IpAddr) {
        let guarded = self.question.app.is_some() && self.question.is_outside();
        // With iptables, our sets tell by themselves, and our chains are not followed.
        let by_sets = self.facts.by_iptables && self.facts.guards && guarded;
        let mut ways = match by_sets && !gate::is_member(self) {
            true => gate::why_not_granted(self),
            false => vec![gate::opened(self, first)],
        };
        let closed = ways.iter().any(|finding| finding.verdict == Verdict::Closed);
        if closed {
            self.findings.extend(ways);
            return;
        }
        let ended = match first.end {
            End::Here => arrival::here(self.facts, self.question, first).into_iter().collect(),
            _ => arrival::there(self, first),
        };
        let lost = ended.iter().any(|finding| finding.verdict == Verdict::Closed);
        // It is not sent on, or its port is another one: whatever is missing here is missing for that.
        for way in ways.iter_mut().filter(|way| way.cause == Cause::NotInForce && lost) {
            way.verdict = Verdict::Closed;
        }
        let redirected = obstacle::redirected(first, lost);
        // What is or is not where a rule of others sends it is that rule's doing.
        if lost {
            self.findings.splice(0..0, redirected.iter().cloned());
        }
        self.findings.extend(ended);
        self.further_packets(first, by, host);
        self.findings.extend(variants::too_many(self, first, "this"));
        self.findings.extend(variants::by_habit(self, first));
        if !self.findings.iter().chain(&ways).any(|finding| finding.cause == Cause::NotReloaded) {
            self.findings.extend(newer::beside(self));
        }
        if !lost {
            self.findings.extend(redirected);
        }
        self.findings.splice(0..0, ways);
    }

    /// The packets after the first one, there and back.
    fn further_packets(&mut self, first: &Walk, by: &Interface, host: IpAddr) {
        let before = self.findings.len();
        let answer = self.answer(first, by, host);
        let of_answer = self.findings.split_off(before);
        let later = self.later(first, answer.as_ref(), host);
        self.findings.extend(of_answer);
        if let Some(answer) = answer {
            let stray = tracking::stray(self, first, &later, &answer);
            self.findings.extend(stray);
        }
    }

    /// Packets after the first one, which rules may treat otherwise.
    fn later(&mut self, first: &Walk, answer: Option<&Walk>, host: IpAddr) -> Walk {
        let tracking = tracking::of_later(first, answer);
        let packet = self.question.packet(host, self.question.port, TcpFlags::Data, tracking);
        let mut packet = self.mark(packet);
        packet.connection_mark = first.last.connection_mark;
        let walk = arrive(self.facts.situation, self.facts.routes, packet, first.translated);
        self.loss_of("later", &walk);
        walk
    }

    /// The way back.
    fn answer(&mut self, first: &Walk, by: &Interface, host: IpAddr) -> Option<Walk> {
        let question = self.question;
        let from = (first.last.ip(true), first.last.port(true));
        let to = (Some(question.client), Some(CLIENT_PORT));
        let translated = first.translated.is_some();
        let status = if translated { CT_STATUS_DNAT } else { 0 };
        let mut packet = Packet::new(question.family(), question.protocol, from, to, TcpFlags::SynAck);
        packet.tracking = Tracking { status, ..tracking::of_answer(first) };
        packet.of_one_client = true;
        packet.original = Some(Original { from: (question.client, CLIENT_PORT), to: (host, question.port) });
        let mut packet = self.mark(packet);
        packet.connection_mark = first.last.connection_mark;
        let walk = match first.end {
            End::Here => {
                let back = ways::back(self, first, by);
                packet.oif = Some(back.0);
                self.findings.extend(back.1);
                depart(self.facts.situation, self.facts.routes, packet)
            }
            _ => {
                packet.iif = first.last.oif.clone();
                packet.for_here = false;
                arrive(self.facts.situation, self.facts.routes, packet, None)
            }
        };
        if let End::NoWay(trouble) = walk.end {
            let found = arrival::no_way_back(self, &walk, trouble);
            self.findings.push(found);
            return None;
        }
        self.loss_of("answer", &walk);
        Some(walk)
    }

    /// What a walk after the first one lost.
    pub(super) fn loss_of(&mut self, what: &'static str, walk: &Walk) {
        // A grant that the first connection uses up is another set by then.
        let once = self.question.app.is_some_and(|app| app.once);
        if let Some((met, place)) = walk.dropper().filter(|(met, _)| !(once && met.is_ours())) {
            self.take_down(what, walk);
            let mut found = match met.is_ours() {
                true => Finding::closed(
                    Cause::OurRuleDrops,
                    format!("{} drops its {what} packets", obstacle::place_of(met, place)),
                ),
                false => obstacle::drops(self.facts, self.question, walk, met, place),
            };
            if what == "answer" && !met.is_ours() {
                found.cause = Cause::HostDropsReply;
                found.message = format!("the answers to it are lost: {}", found.message);
            }
            self.findings.push(found);
        }
        self.doubts(walk);
        for met in &walk.met {
            for (deed, place) in met.deeds() {
                if let Deed::FlowAdd(name) = deed {
                    let place = obstacle::place_of(met, place);
                    self.findings.push(Finding::open(
                        Cause::Flowtable,
                        format!("{place} takes the connection into flowtable {name}, past all rules: it may outlive its grant"),
                    ));
                }
            }
        }
    }

    /// Rules that may drop the packet, of which it cannot be told.
    fn doubts(&mut self, walk: &Walk) {
        let doubts: Vec<Finding> = walk
            .doubts()
            .map(|(met, place)| {
                Finding::unknown(
                    Cause::CannotTell,
                    format!("cannot tell whether {} drops it", obstacle::place_of(met, place)),
                )
                .next(obstacle::look(met, place))
            })
            .collect();
        for doubt in doubts {
            if !self.findings.contains(&doubt) {
                self.findings.push(doubt);
            }
        }
    }

    /// Writes a walk down, where something became of the packet.
    pub(super) fn take_down(&mut self, packet: &'static str, walk: &Walk) {
        let steps = walk.met.iter().filter_map(|met| step(packet, met));
        self.steps.extend(steps);
    }
}

fn step(packet: &'static str, met: &Met) -> Option<Step> {
    let of = |chain: &str, handle: Option<u64>, rule: Option<String>, outcome| Step {
        packet,
        hook: met.hook,
        table: met.table.clone(),
        chain: chain.to_owned(),
        handle,
        rule: rule.filter(|_| met.is_ours()),
        outcome,
    };
    let at = |place: &crate::ruleset::audit::machine::Place, outcome| match &place.rule {
        Some((handle, comment)) => of(&place.chain, Some(*handle), comment.clone(), outcome),
        None => of(&place.chain, None, None, outcome),
    };
    if let Some((place, certain)) = met.loss() {
        return Some(at(place, if certain { Outcome::Dropped } else { Outcome::Doubtful }));
    }
    for (deed, place) in met.deeds() {
        if let Deed::Dnat { addr, port } = deed {
            let addr = addr.as_deref().and_then(|bytes| octets(bytes, met.packet.family));
            let to = match (addr, port) {
                (Some(addr), Some(port)) => format!("{addr} port {port}"),
                (Some(addr), None) => addr.to_string(),
                (None, Some(port)) => format!("port {port}"),
                (None, None) => "somewhere else".to_owned(),
            };
            return Some(at(place, Outcome::Translated(to)));
        }
    }
    // A policy that accepts tells nothing.
    let place = met.accepted_at().filter(|place| place.rule.is_some())?;
    Some(at(place, Outcome::Passes))
}

fn octets(bytes: &[u8], family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => bytes.first_chunk::<4>().map(|&bytes| IpAddr::from(bytes)),
        Family::V6 => bytes.first_chunk::<16>().map(|&bytes| IpAddr::from(bytes)),
    }
}

pub(super) fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

pub(super) fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// ` for 3 min more`; nothing where that is not known.
pub(super) fn for_more(seconds: Option<u64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!(" for {} more", span(seconds)))
}
