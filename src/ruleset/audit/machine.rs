//! Follows a packet through a chain, as the kernel would, with three answers: it matches,
//! it does not, or that cannot be told beforehand.
//!
//! After a rule that may match, both ways are followed at once: what it may decide is noted, and the
//! packet goes on. So the work is that of one pass through the rules, and nothing is certain any more.

use super::compat;
use super::host::{Host, HostChain, HostElement, HostRule, HostSet, TableRef};
use super::leads::{self, Lead};
use super::packet::{Byte, Packet, Tracking};
pub use super::registers::Tri;
use super::registers::{
    Registers, all_known, compare, fetch, in_range, note_destination, port_in, store, store_one_of,
};
use super::step::{Comparison, Step, Then};
use crate::ruleset::expr::Verdict;

/// How far jumps are followed (`NFT_JUMP_STACK_SIZE` in the kernel).
const DEPTH: u8 = 16;
/// Rules that are looked at for one packet in one base chain.
const PATIENCE: u32 = 200_000;

/// How a packet leaves a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On to the next base chain.
    Accepted,
    /// Dropped or rejected.
    Dropped,
    /// Dropped unless a program says otherwise.
    Queued,
    /// Sent out of another interface.
    SentOn,
}

/// Where that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chain.
    pub chain: String,
    /// The rule: its handle and comment; none: the policy.
    pub rule: Option<(u64, Option<String>)>,
}

/// One possible way out of a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub fate: Fate,
    /// Where.
    pub place: Place,
    /// Whether no other way out is possible.
    pub certain: bool,
    /// The rules that led to that chain, the first one first.
    pub by: Vec<Place>,
}

/// An element of a set or map that a rule found for certain, for a packet of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which rule.
    pub place: Place,
    /// Name of the set.
    pub set: String,
    /// What was found there.
    pub element: HostElement,
}

/// What a chain does to a packet beside letting it pass or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Translates its destination; none: not known, or not changed.
    Dnat {
        /// New address, in network byte order.
        addr: Option<Vec<u8>>,
        /// New port.
        port: Option<u16>,
    },
    /// Sends it to this host, perhaps at another port.
    Redirect {
        /// New port.
        port: Option<u16>,
    },
    /// Gives it to a socket of somebody's.
    Tproxy,
    /// Takes its connection past all chains.
    FlowAdd(String),
    /// Keeps it out of connection tracking.
    Notrack,
}

/// What becomes of a packet in one base chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// The ways out.
    pub ends: Vec<End>,
    /// What is done to it, where, and whether that is certain.
    pub deeds: Vec<(Deed, Place, bool)>,
    /// Where it may be sent.
    pub leads: Vec<Lead>,
    /// The chains it comes through.
    pub visited: Vec<String>,
    /// What was found in sets and maps.
    pub found: Vec<Found>,
    /// Who wrote another mark on it.
    pub marked: Vec<Place>,
    /// Whether it may leave the base chain before its end, for the policy.
    pub left: bool,
}

/// Sends a packet through a base chain; its mark and tracking are as they are afterwards.
#[must_use]
pub fn pass(host: &Host, chain: &HostChain, packet: &mut Packet) -> Passage {
    let passage = Passage::default();
    let mut machine =
        Machine { host, table: &chain.table, packet, passage, jumps: Vec::new(), patience: PATIENCE };
    let left = machine.chain(chain, true, DEPTH);
    if left != Tri::No {
        let drops = chain.base.as_ref().is_some_and(|base| base.drops);
        let fate = if drops { Fate::Dropped } else { Fate::Accepted };
        let place = Place { chain: chain.name.clone(), rule: None };
        machine.passage.ends.push(End { fate, place, certain: left == Tri::Yes, by: Vec::new() });
    }
    machine.passage
}

/// Whether a packet matches a rule.
pub(super) fn matches(host: &Host, table: &TableRef, rule: &HostRule, packet: &mut Packet) -> Tri {
    let (passage, place) = (Passage::default(), Place { chain: String::new(), rule: None });
    Machine { host, table, packet, passage, jumps: Vec::new(), patience: PATIENCE }
        .rule(rule, false, &place)
        .0
}

struct Machine<'h, 'p> {
    host: &'h Host,
    table: &'h TableRef,
    packet: &'p mut Packet,
    passage: Passage,
    /// The rules that led to where it is.
    jumps: Vec<Place>,
    patience: u32,
}

/// What a rule that matches does in the end.
enum Outcome {
    GoOn,
    End(Fate),
    Return,
    Jump(String),
    Goto(String),
    /// One of these.
    OneOf(Vec<Self>),
}

impl<'h> Machine<'h, '_> {
    /// Whether the packet comes out of the chain at its end, or by a return.
    fn chain(&mut self, chain: &'h HostChain, sure: bool, depth: u8) -> Tri {
        self.passage.visited.push(chain.name.clone());
        // Whether some way may have ended, or left the chain, before the rule looked at.
        let (mut ended, mut left) = (false, false);
        for rule in &chain.rules {
            if self.patience == 0 {
                return Tri::Maybe;
            }
            self.patience -= 1;
            let place = Place { chain: chain.name.clone(), rule: Some((rule.handle, rule.comment.clone())) };
            let sure = sure && !ended && !left;
            let (matches, outcome) = self.rule(rule, sure, &place);
            if matches == Tri::No {
                continue;
            }
            let (on, out, end) = self.follow(outcome, sure && matches == Tri::Yes, depth, place);
            ended |= end;
            left |= out;
            self.passage.left |= out && self.jumps.is_empty();
            if matches == Tri::Yes && !on {
                return match (ended, left) {
                    (_, false) => Tri::No,
                    (false, true) => Tri::Yes,
                    (true, true) => Tri::Maybe,
                };
            }
        }
        if ended { Tri::Maybe } else { Tri::Yes }
    }

    /// Whether the packet may go on to the next rule, may leave the chain, may end.
    fn follow(&mut self, outcome: Outcome, certain: bool, depth: u8, place: Place) -> (bool, bool, bool) {
        match outcome {
            Outcome::GoOn => (true, false, false),
            Outcome::End(fate) => {
                self.passage.ends.push(End { fate, place, certain, by: self.jumps.clone() });
                (false, false, true)
            }
            Outcome::Return => (false, true, false),
            Outcome::Jump(name) => {
                let back = self.enter(&name, certain, depth, place);
                (back != Tri::No, false, back != Tri::Yes)
            }
            Outcome::Goto(name) => {
                let back = self.enter(&name, certain, depth, place);
                (false, back != Tri::No, back != Tri::Yes)
            }
            Outcome::OneOf(outcomes) => {
                let mut all = (false, false, false);
                for outcome in outcomes {
                    let (on, out, end) = self.follow(outcome, false, depth, place.clone());
                    all = (all.0 || on, all.1 || out, all.2 || end);
                }
                all
            }
        }
    }

    fn enter(&mut self, name: &str, certain: bool, depth: u8, by: Place) -> Tri {
        match self.host.chain(self.table, name) {
            Some(chain) if depth > 0 => {
                self.jumps.push(by);
                let back = self.chain(chain, certain, depth - 1);
                self.jumps.pop();
                back
            }
            Some(_) | None => Tri::Maybe,
        }
    }

    fn rule(&mut self, rule: &HostRule, sure: bool, place: &Place) -> (Tri, Outcome) {
        let mut registers = Registers::UNKNOWN;
        let mut matches = Tri::Yes;
        for step in &rule.steps {
            match self.step(step, &mut registers, sure && matches == Tri::Yes, place) {
                Went::On(tri) => matches = matches.min(compat::in_rule(tri, step, rule)),
                Went::Out(tri, outcome) => return (matches.min(tri), outcome),
            }
            if matches == Tri::No {
                break;
            }
        }
        (matches, Outcome::GoOn)
    }

    fn step(&mut self, step: &Step, registers: &mut Registers, sure: bool, place: &Place) -> Went {
        let yes = Went::On(Tri::Yes);
        if let Some((way, targets)) = leads::of_step(step, registers, self.packet) {
            self.passage.leads.push(Lead { way, targets, place: place.clone() });
        }
        match step {
            Step::Load { source, to, len } => match self.packet.load(*source, *len) {
                Some(bytes) => {
                    let bytes = bytes.get(..len.unwrap_or(bytes.len())).unwrap_or(&bytes).to_vec();
                    store(registers, *to, &bytes);
                    if self.packet.is_destination(*source, bytes.len()) {
                        note_destination(registers, *to);
                    }
                    yes
                }
                None => Went::On(Tri::No),
            },
            Step::Constant { to, data } => {
                store(registers, *to, &super::packet::known(data));
                yes
            }
            Step::Compare { at, how, data } => {
                Went::On(compare(fetch(registers, *at, data.len()), *how, data))
            }
            Step::Range { at, outside, first, last } => {
                let bytes = fetch(registers, *at, first.len());
                let inside = compare(bytes, Comparison::Ge, first).min(compare(bytes, Comparison::Le, last));
                Went::On(if *outside { inside.not() } else { inside })
            }
            Step::Mask { from, to, mask, xor } => {
                let bytes: Vec<Byte> = fetch(registers, *from, mask.len())
                    .iter()
                    .zip(mask.iter().zip(xor))
                    .map(|(byte, (mask, xor))| match byte {
                        Some(byte) => Some((byte & mask) ^ xor),
                        None if *mask == 0 => Some(*xor),
                        None => None,
                    })
                    .collect();
                store(registers, *to, &bytes);
                yes
            }
            Step::Swap { from, to, len, size } => {
                let mut bytes = fetch(registers, *from, *len).to_vec();
                bytes.chunks_mut((*size).max(1)).for_each(<[Byte]>::reverse);
                store(registers, *to, &bytes);
                yes
            }
            Step::Lookup { set, at, inverted, into } => {
                self.lookup(set, *at, (*inverted, *into), registers, place)
            }
            Step::Verdict(verdict) => Went::Out(Tri::Yes, outcome(verdict)),
            Step::Reject => Went::Out(Tri::Yes, Outcome::End(Fate::Dropped)),
            Step::Limit { .. } if self.packet.crafted => Went::On(Tri::Maybe),
            Step::Limit { over, room } => Went::On(Tri::of(*over == self.packet.is_too_many(*room))),
            Step::SetMark { from } => {
                let mark = fetch(registers, *from, 4).to_vec();
                self.mark(&mark, sure, place);
                yes
            }
            Step::SetConnectionMark { from } => {
                if self.packet.tracking.tracked {
                    set_mark(&mut self.packet.connection_mark, fetch(registers, *from, 4), sure);
                }
                yes
            }
            Step::AddTo(set) if self.host.is_full(self.table, set) => Went::On(Tri::Maybe),
            Step::Write { .. } | Step::AddTo(_) | Step::Nothing => yes,
            Step::Never if self.packet.crafted => Went::On(Tri::Maybe),
            Step::Never => Went::On(Tri::No),
            Step::Notrack => {
                self.notrack(sure, place);
                yes
            }
            Step::Dnat { addr, v6, port, .. } => {
                let addr = addr.and_then(|at| all_known(fetch(registers, at, if *v6 { 16 } else { 4 })));
                let port = port.and_then(|at| port_in(registers, at));
                self.deed(Deed::Dnat { addr, port }, place, sure);
                Went::Out(Tri::Yes, Outcome::End(Fate::Accepted))
            }
            Step::Redirect { port, .. } => {
                let port = port.and_then(|at| port_in(registers, at));
                self.deed(Deed::Redirect { port }, place, sure);
                Went::Out(Tri::Yes, Outcome::End(Fate::Accepted))
            }
            Step::Translated => Went::Out(Tri::Yes, Outcome::End(Fate::Accepted)),
            Step::Tproxy { .. } => {
                self.deed(Deed::Tproxy, place, sure);
                yes
            }
            Step::Forward => Went::Out(Tri::Yes, Outcome::End(Fate::SentOn)),
            Step::Queue => Went::Out(Tri::Yes, Outcome::End(Fate::Queued)),
            Step::FlowAdd(name) => {
                self.deed(Deed::FlowAdd(name.clone()), place, sure);
                yes
            }
            Step::CompatMatch { name, revision, info } => {
                Went::On(compat::matches(name, *revision, info, self.packet))
            }
            Step::CompatTarget { name, revision, info } => {
                match compat::target(name, *revision, info, self.packet) {
                    compat::Target::Nothing => yes,
                    compat::Target::Ends => Went::Out(Tri::Yes, Outcome::End(Fate::Accepted)),
                    compat::Target::Drops => Went::Out(Tri::Yes, Outcome::End(Fate::Dropped)),
                    compat::Target::Queues => Went::Out(Tri::Yes, Outcome::End(Fate::Queued)),
                    compat::Target::Marks(mark) => {
                        self.mark(&mark, sure, place);
                        yes
                    }
                    compat::Target::MarksConnection(mark) => {
                        set_mark(&mut self.packet.connection_mark, &mark, sure);
                        yes
                    }
                    compat::Target::Notracks => {
                        self.notrack(sure, place);
                        yes
                    }
                    compat::Target::Does(deed) => {
                        self.deed(deed, place, sure);
                        Went::Out(Tri::Yes, Outcome::End(Fate::Accepted))
                    }
                    compat::Target::Unknown => Went::Out(Tri::Maybe, Outcome::End(Fate::Queued)),
                }
            }
            Step::Unknown(_) => Went::On(Tri::Maybe),
        }
    }

    fn deed(&mut self, deed: Deed, place: &Place, sure: bool) {
        self.passage.deeds.push((deed, place.clone(), sure));
    }

    fn mark(&mut self, mark: &[Byte], sure: bool, place: &Place) {
        let before = self.packet.mark;
        set_mark(&mut self.packet.mark, mark, sure);
        if self.packet.mark != before {
            self.passage.marked.push(place.clone());
        }
    }

    fn notrack(&mut self, sure: bool, place: &Place) {
        if sure {
            self.packet.tracking = Tracking::UNTRACKED;
        }
        self.deed(Deed::Notrack, place, sure);
    }

    fn lookup(
        &mut self,
        name: &str,
        at: usize,
        (inverted, into): (bool, Then),
        registers: &mut Registers,
        place: &Place,
    ) -> Went {
        let host: &'h Host = self.host;
        let set = host.sets.get(&(self.table.clone(), name.to_owned()));
        let Some((set, elements)) = set.and_then(|set| Some((set, set.elements.as_ref()?))) else {
            return self.lookup_in_the_dark(set, inverted, into, registers);
        };
        let key = fetch(registers, at, set.key_len).to_vec();
        let mut found = Tri::No;
        let mut possible = Vec::new();
        for element in set.candidates(&key, elements) {
            let hit = match (&element.first, &element.last) {
                (None, _) => continue,
                (Some(first), None) => compare(&key, Comparison::Eq, first),
                (Some(first), Some(last)) => in_range(set, &key, first, last),
            };
            if hit != Tri::No {
                possible.push(element);
                found = found.max(hit);
            }
        }
        if let ([one], Tri::Yes, true) = (possible.as_slice(), found, self.packet.of_one_client) {
            let (set, element) = (name.to_owned(), (*one).clone());
            self.passage.found.push(Found { place: place.clone(), set, element });
        }
        if found != Tri::Yes {
            let others = elements.iter().filter(|element| element.first.is_none());
            for element in others {
                possible.push(element);
                found = if found == Tri::No { Tri::Yes } else { Tri::Maybe };
            }
        }
        match into {
            Then::Nothing => Went::On(if inverted { found.not() } else { found }),
            Then::Register(to) => {
                if let ([one], Tri::Yes) = (possible.as_slice(), found) {
                    store(registers, to, &super::packet::known(&one.data));
                } else {
                    let values = possible.iter().map(|element| element.data.clone()).collect();
                    store_one_of(registers, to, set.data_len, values);
                }
                Went::On(found)
            }
            Then::Verdict => {
                let mut verdicts: Vec<&Verdict> =
                    possible.iter().filter_map(|e| e.verdict.as_ref()).collect();
                verdicts.sort();
                verdicts.dedup();
                match (verdicts.as_slice(), found) {
                    ([], _) => Went::On(Tri::No),
                    ([one], found) => Went::Out(found, outcome(one)),
                    (several, _) => {
                        let all = several.iter().map(|verdict| outcome(verdict)).collect();
                        Went::Out(Tri::Maybe, Outcome::OneOf(all))
                    }
                }
            }
        }
    }

    /// A set that is too large to be read is a list of strangers' addresses, and honest clients are on none.
    fn lookup_in_the_dark(
        &self,
        set: Option<&HostSet>,
        inverted: bool,
        into: Then,
        registers: &mut Registers,
    ) -> Went {
        match into {
            Then::Nothing if self.packet.of_one_client => Went::On(Tri::Maybe),
            Then::Verdict if self.packet.of_one_client => Went::Out(Tri::Maybe, Outcome::End(Fate::Queued)),
            Then::Nothing => Went::On(if inverted { Tri::Yes } else { Tri::No }),
            Then::Register(to) => {
                store(registers, to, &vec![None; set.map_or(16, |set| set.data_len)]);
                Went::On(Tri::Maybe)
            }
            Then::Verdict => Went::On(Tri::No),
        }
    }
}

fn set_mark(have: &mut [Byte; 4], mark: &[Byte], sure: bool) {
    for (have, new) in have.iter_mut().zip(mark) {
        if sure || have == new {
            *have = *new;
        } else {
            *have = None;
        }
    }
}

enum Went {
    On(Tri),
    Out(Tri, Outcome),
}

fn outcome(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Accept => Outcome::End(Fate::Accepted),
        Verdict::Drop => Outcome::End(Fate::Dropped),
        Verdict::Return => Outcome::Return,
        Verdict::Jump(name) => Outcome::Jump(name.clone()),
        Verdict::Goto(name) => Outcome::Goto(name.clone()),
    }
}
