//! Chains of others that lose what we let through.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Trip;
use super::finding::{Finding, Severity};
use super::host::{HostHook, TableRef};
use super::journey::{Journey, Meeting, Overwritten, Route, loss};
use super::machine::Place;
use super::situation::Situation;
use crate::ruleset::layout::Layout;
use crate::ruleset::remedy::{self, Admission, Need};
use crate::units::{Family, PortRange, Protocol};

/// A base chain: its table, its name, its hook.
type ChainKey = (TableRef, String, HostHook);

/// What became of one kind of packet for the clients that were tried.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    tried: u32,
    lost: u32,
    doubtful: u32,
}

/// A kind of packet: the same but for the client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    what: String,
    route: Route,
    family: Family,
    protocol: Protocol,
    ports: PortRange,
    state: u32,
    flags: Option<u8>,
}

/// The end of a connection that is guarded, as clients see it: address and port.
type End = (Option<IpAddr>, Option<u16>);

/// What became of one kind of packet.
#[derive(Clone, Debug, Default)]
struct Tallies(BTreeMap<End, Tally>);

impl Tallies {
    fn certainty(&self) -> Option<Certainty> {
        let all = || self.0.values();
        let lost = |tally: &Tally| tally.lost == tally.tried;
        if all().all(|tally| tally.lost + tally.doubtful == 0) {
            None
        } else if all().all(lost) {
            Some(Certainty::All)
        } else if all().any(lost) {
            Some(Certainty::SomeEnds)
        } else if all().all(|tally| tally.doubtful == 0) {
            Some(Certainty::SomeClients)
        } else {
            Some(Certainty::Doubtful)
        }
    }
}

/// What a chain does to everything that must get through.
#[derive(Clone, Debug, Default)]
struct Obstacle {
    priority: i32,
    sees_mark: bool,
    tallies: BTreeMap<Kind, Tallies>,
    lost: Vec<Journey>,
    places: Vec<Place>,
    visited: Vec<String>,
    /// Whether the chain is left before its end, so that what stands there is not reached.
    left: bool,
    saved_by_mark: bool,
    overwritten: Vec<Overwritten>,
}

/// Judges every base chain that a packet of ours meets.
#[must_use]
pub(super) fn drops(layout: &Layout<'_>, situation: &Situation, trips: &[Trip]) -> Vec<Finding> {
    let mut obstacles: BTreeMap<ChainKey, Obstacle> = BTreeMap::new();
    for Trip { journey, met } in trips {
        for meeting in met {
            let key = (meeting.table.clone(), meeting.chain.clone(), meeting.hook);
            obstacles.entry(key).or_default().note(journey, meeting);
        }
    }
    obstacles.iter().filter_map(|(key, obstacle)| obstacle.finding(layout, situation, key)).collect()
}

impl Obstacle {
    fn note(&mut self, journey: &Journey, meeting: &Meeting) {
        self.sees_mark |= meeting.sees_mark;
        self.priority = meeting.priority;
        let packet = &journey.packet;
        let kind = Kind {
            what: journey.what.clone(),
            route: journey.route,
            family: packet.family,
            protocol: packet.protocol,
            ports: journey.ports,
            state: packet.tracking.state,
            flags: packet.transport.get(13).copied().flatten(),
        };
        let is_answer = journey.route == Route::Out || packet.tracking.direction == 1;
        let end = (packet.ip(!is_answer), packet.port(!is_answer));
        let tally = self.tallies.entry(kind).or_default().0.entry(end).or_default();
        tally.tried += 1;
        match meeting.loss() {
            Some((place, certain)) => {
                if certain {
                    tally.lost += 1;
                } else {
                    tally.doubtful += 1;
                }
                self.lost.push(as_it_came(journey, meeting));
                self.left |= meeting.passage.left;
                let overwritten = meeting.overwritten.as_ref();
                self.overwritten.extend(overwritten.filter(|by| !self.overwritten.contains(by)).cloned());
                if !self.places.contains(place) {
                    self.places.push(place.clone());
                }
                for chain in &meeting.passage.visited {
                    if !self.visited.contains(chain) {
                        self.visited.push(chain.clone());
                    }
                }
            }
            None => {
                let without = meeting.unmarked.as_ref().and_then(loss);
                self.saved_by_mark |= matches!(without, Some((_, true)));
            }
        }
    }

    fn finding(&self, layout: &Layout<'_>, situation: &Situation, key: &ChainKey) -> Option<Finding> {
        let (table, chain, hook) = key;
        let which = format!("chain {table} {chain}");
        if self.lost.is_empty() {
            return self.saved_by_mark.then(|| Finding {
                severity: Severity::Info,
                code: "host-accepts-mark",
                message: format!("{which} drops by default and accepts our mark"),
                fix: String::new(),
            });
        }
        let certainty = self.tallies.values().filter_map(Tallies::certainty).max();
        let certainty = certainty.unwrap_or(Certainty::Doubtful);
        let tallies = || self.tallies.values().flat_map(|tallies| tallies.0.values());
        let by_mark = layout.settings.global.mark.filter(|_| self.sees_mark);
        let need = Need {
            table,
            chain,
            hook: *hook,
            priority: self.priority,
            place: self.places.first(),
            only_place: self.places.len() == 1
                && tallies().all(|tally| tally.doubtful == 0)
                && !(self.left && self.places.iter().any(|place| place.rule.is_none())),
            visited: &self.visited,
            admission: by_mark.map_or(Admission::Ports, Admission::Mark),
            journeys: &self.lost,
        };
        Some(Finding {
            severity: match certainty {
                Certainty::All => Severity::Error,
                Certainty::SomeEnds | Certainty::SomeClients | Certainty::Doubtful => Severity::Warning,
            },
            code: code(*hook, self.sees_mark),
            message: self.message(&which, *hook, certainty, layout),
            fix: match certainty {
                // Whoever wrote that rule may have meant it.
                Certainty::SomeClients => format!(
                    "# only if those clients, too, shall be able to knock:\n{}",
                    self.fix(situation, &need)
                ),
                Certainty::SomeEnds => {
                    format!("# only if it shall be reached there, too:\n{}", self.fix(situation, &need))
                }
                Certainty::All | Certainty::Doubtful => self.fix(situation, &need),
            },
        })
    }

    /// A chain that accepts our mark need not be told so again, where another rule takes that away.
    fn fix(&self, situation: &Situation, need: &Need<'_>) -> String {
        let Admission::Mark(mark) = need.admission else { return remedy::admit(&situation.host, need) };
        let keep = self.overwritten.iter().map(|by| remedy::keep_mark(&by.table, &by.place, mark));
        let mut lines: Vec<String> = keep.collect();
        if lines.is_empty() || self.overwritten.iter().any(|by| !by.accepts) {
            lines.push(remedy::admit(&situation.host, need));
        }
        lines.join("\n")
    }

    /// An end where something is lost for everybody, and elsewhere not.
    fn such_as(&self) -> String {
        let some = |tallies: &&Tallies| tallies.certainty() == Some(Certainty::SomeEnds);
        let ends = self.tallies.values().filter(some).flat_map(|tallies| &tallies.0);
        let lost = ends.filter(|(_, tally)| tally.lost == tally.tried).map(|(end, _)| end).next();
        match lost {
            Some((Some(addr), Some(port))) => format!(" ({addr} port {port})"),
            Some((None, Some(port))) => format!(" (port {port})"),
            Some((_, None)) | None => String::new(),
        }
    }

    fn message(&self, which: &str, hook: HostHook, certainty: Certainty, layout: &Layout<'_>) -> String {
        let names: BTreeSet<&str> = self.lost.iter().map(|journey| journey.what.as_str()).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let victims = match self.lost.iter().all(|journey| journey.route == Route::Out) {
            true => format!("the answers of {names}"),
            false => names,
        };
        let verb = match certainty {
            Certainty::All => "drops".to_owned(),
            Certainty::SomeEnds => format!("drops, at some ports or addresses{},", self.such_as()),
            Certainty::SomeClients => "drops, for some clients,".to_owned(),
            Certainty::Doubtful => "may drop".to_owned(),
        };
        let why = self.places.iter().map(describe).collect::<Vec<_>>().join("; ");
        let mut out = format!("{which} {verb} {victims}: {why}");
        for Overwritten { table, place, .. } in &self.overwritten {
            let rule = super::redirects::rule_of(table, place);
            out.push_str(&format!(", after {rule} has written another mark over ours"));
        }
        if layout.settings.global.mark.is_none() {
            out.push_str(", and with global.mark: 0 it cannot tell what we let through");
        } else if !self.sees_mark {
            out.push_str(match hook {
                HostHook::Ingress | HostHook::Prerouting => ", before routing, where nothing is marked yet",
                _ => ", before our chains at priority -10 can mark anything",
            });
        }
        out
    }
}

/// The answer of a LAN host is this host's by then, at the ports that clients use.
fn as_it_came(journey: &Journey, meeting: &Meeting) -> Journey {
    let mut out = journey.clone();
    if meeting.as_ours {
        out.packet.put_address(false, None);
        out.packet.put_port(false, None);
    }
    out
}

/// How sure it is that packets are lost; the last is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Certainty {
    Doubtful,
    SomeClients,
    SomeEnds,
    All,
}

fn code(hook: HostHook, sees_mark: bool) -> &'static str {
    match hook {
        HostHook::Output | HostHook::Postrouting | HostHook::Egress => "host-drops-output",
        HostHook::Ingress | HostHook::Prerouting => "host-drops-early",
        HostHook::Input | HostHook::Forward if sees_mark => "host-drops-by-default",
        HostHook::Input | HostHook::Forward => "host-drops-early",
    }
}

fn describe(place: &Place) -> String {
    let Place { chain, rule } = place;
    match rule {
        None => "no rule of it accepts them and its policy is drop".to_owned(),
        Some((handle, Some(comment))) => format!("the rule \"{comment}\" of {chain} (handle {handle})"),
        Some((handle, None)) => format!("the rule with handle {handle} of {chain}"),
    }
}
