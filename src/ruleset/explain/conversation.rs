//! Whether the packets of a knock pass the rules of the host: the first one, the answers to it, and what follows.

use std::net::IpAddr;

use super::answer::{Finding, Verdict};
use super::cause::Cause;
use super::judge::{Question, Trial};
use super::walk::{Walk, arrive_admitted, depart};
use super::{obstacle, variants, ways};
use crate::config::Step1Reply;
use crate::ruleset::audit::packet::{Habits, Interface, Original, Packet, TcpFlags, Tracking};
use crate::ruleset::plan::request_line_starts;
use crate::units::Protocol;

/// The port from which knocks happen to come.
const KNOCKS_FROM: u16 = 51_516;
/// How long the packet may be that carries a request of step 1: by a short client, and by one that says more.
const REQUESTS: [u16; 2] = [160, 400];
/// The same of the first words of TLS.
const HELLOS: [u16; 2] = [260, 1_400];
/// A handshake of TLS begins so.
const HELLO: &[u8] = &[0x16, 0x03, 0x01];

/// What keeps knocks from a step, alone where that is certain; or else what may.
pub(super) fn obstacles(
    trial: &mut Trial<'_>,
    by: &Interface,
    host: IpAddr,
    step: u8,
    port: u16,
) -> Vec<Finding> {
    let global = &trial.question.layout.settings.global;
    let untracked = step == 1 && global.step1_reply == Step1Reply::Silent;
    let question = Question { port, protocol: Protocol::Tcp, ..trial.question.clone() };
    let talk = Talk { trial, question, by, host, step, untracked };
    match talk.held() {
        Ok(may) => may,
        Err(lost) => {
            let (found, mut walk) = *lost;
            // What ours drop now they let pass when its turn comes.
            walk.met.retain(|met| !met.is_ours() || met.loss().is_none());
            trial.take_down("knock", &walk);
            vec![found]
        }
    }
}

/// A knock at one step.
struct Talk<'t> {
    trial: &'t Trial<'t>,
    /// As if the port of the step had been asked about.
    question: Question<'t>,
    by: &'t Interface,
    host: IpAddr,
    step: u8,
    /// Whether connection tracking never sees it.
    untracked: bool,
}

/// What keeps a packet away, and its way.
type Lost = Box<(Finding, Walk)>;

impl Talk<'_> {
    /// What may keep it away, where nothing certainly does.
    fn held(&self) -> Result<Vec<Finding>, Lost> {
        let mut may = Vec::new();
        let first = self.arrives(self.packet(TcpFlags::Syn, false));
        self.note(&first, "its knocks do not arrive at", &mut may)?;
        // What is in front of the steps may well be reached by a translation, and has a way of its own.
        if self.question.layout.settings.global.proxy.is_some() {
            return Ok(may);
        }
        if let Some(found) = obstacle::redirected(&first, true).into_iter().next() {
            return Err(Box::new((self.blocked(found, "its knocks do not arrive at"), first)));
        }
        let what = format!("its step {} (tcp/{})", self.step, self.question.port);
        may.extend(variants::too_many_by(&first, &what, |packet| self.arrives(packet)));
        self.answers(&first, &mut may)?;
        self.goes_on(&first, &mut may)?;
        Ok(may)
    }

    /// What this host says to it: without connection tracking, nothing but the answer to the first packet.
    fn answers(&self, first: &Walk, may: &mut Vec<Finding>) -> Result<(), Lost> {
        let (out, _) = ways::back(self.trial, first, self.by);
        let all = [TcpFlags::SynAck, TcpFlags::Data];
        for flags in all.into_iter().take(if self.untracked { 1 } else { 2 }) {
            let mut packet = self.packet(flags, true);
            packet.oif = Some(out.clone());
            packet.connection_mark = first.last.connection_mark;
            let walk = depart(self.trial.facts.situation, self.trial.facts.routes, packet);
            self.note(&walk, "it gets no answer of", may)?;
        }
        Ok(())
    }

    /// What it sends when it is answered, which is of one length or another.
    fn goes_on(&self, first: &Walk, may: &mut Vec<Finding>) -> Result<(), Lost> {
        const WHAT: &str = "what it sends does not arrive at";
        let [short, long] = self.lengths().map(|len| {
            let mut packet = self.packet(TcpFlags::Data, false);
            packet.put_habits(Some(Habits { len, ttl: 60, segment: 1_440 }));
            packet.put_data(&self.first_words());
            packet.connection_mark = first.last.connection_mark;
            self.arrives(packet)
        });
        match (self.lost(&short, WHAT), self.lost(&long, WHAT)) {
            (Some(found), Some(_)) => return Err(Box::new((found, short))),
            (None, None) => {}
            (Some(found), None) | (None, Some(found)) => may.push(Finding {
                verdict: Verdict::Unknown,
                cause: Cause::CannotTell,
                message: format!("of some lengths, {}", found.message),
                ..found
            }),
        }
        self.doubts(&short, may);
        self.doubts(&long, may);
        Ok(())
    }

    fn lengths(&self) -> [u16; 2] {
        match self.step {
            1 => REQUESTS.map(|len| len.min(self.question.layout.settings.global.step1_max_bytes)),
            _ => HELLOS,
        }
    }

    fn first_words(&self) -> Vec<u8> {
        match self.step {
            1 => request_line_starts(self.question.layout)
                .into_iter()
                .next()
                .unwrap_or_else(|| b"POST /".to_vec()),
            _ => HELLO.to_vec(),
        }
    }

    fn packet(&self, flags: TcpFlags, back: bool) -> Packet {
        let client = (self.question.client, KNOCKS_FROM);
        let here = (self.host, self.question.port);
        let known = |(addr, port)| (Some(addr), Some(port));
        let (from, to) = if back { (here, client) } else { (client, here) };
        let mut packet = Packet::new(self.question.family(), Protocol::Tcp, known(from), known(to), flags);
        packet.of_one_client = true;
        variants::usual(&mut packet);
        packet.tracking = match (self.untracked, back, flags) {
            (true, ..) => Tracking::UNTRACKED,
            (false, true, _) => Tracking::REPLY,
            (false, false, TcpFlags::Syn) => Tracking::NEW,
            (false, false, TcpFlags::SynAck | TcpFlags::Data) => Tracking::ESTABLISHED,
        };
        packet.original = (!self.untracked).then_some(Original { from: client, to: here });
        if !back {
            packet.iif = Some(self.by.clone());
        }
        self.trial.mark(packet)
    }

    fn arrives(&self, packet: Packet) -> Walk {
        arrive_admitted(self.trial.facts.situation, self.trial.facts.routes, packet)
    }

    /// Whether a rule of others drops the packet, or may.
    fn note(&self, walk: &Walk, what: &str, may: &mut Vec<Finding>) -> Result<(), Lost> {
        if let Some(found) = self.lost(walk, what) {
            return Err(Box::new((found, walk.clone())));
        }
        self.doubts(walk, may);
        Ok(())
    }

    fn lost(&self, walk: &Walk, what: &str) -> Option<Finding> {
        let (met, place) = walk.dropper()?;
        Some(self.blocked(obstacle::drops(self.trial.facts, &self.question, walk, met, place), what))
    }

    fn blocked(&self, mut found: Finding, what: &str) -> Finding {
        found.cause = Cause::KnockBlocked;
        found.message = format!("{what} step {} (tcp/{}): {}", self.step, self.question.port, found.message);
        found
    }

    fn doubts(&self, walk: &Walk, may: &mut Vec<Finding>) {
        for (met, place) in walk.doubts().filter(|(met, _)| !met.is_ours()) {
            let at = obstacle::place_of(met, place);
            let message =
                format!("cannot tell whether {at} drops its step {} (tcp/{})", self.step, self.question.port);
            let doubt = Finding::unknown(Cause::CannotTell, message).next(obstacle::look(met, place));
            if !may.contains(&doubt) {
                may.push(doubt);
            }
        }
    }
}
