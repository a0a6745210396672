//! Other ports by which rules of others bring strangers to what is guarded.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::finding::{Finding, Severity};
use super::host::HostHook;
use super::itinerary::strangers;
use super::journey::{Journey, Meeting, travel};
use super::leads::{Lead, Target, Value, Way};
use super::redirects::{GATE_PRIORITY, delete, rule_of};
use super::situation::Situation;
use crate::ruleset::layout::Layout;
use crate::units::{Family, PortRange, Protocol};

/// A guarded port of this host: what it is, for people.
type Guarded = (String, Protocol, PortRange);

/// Judges where strangers may be sent to.
#[must_use]
pub(super) fn aliases(layout: &Layout<'_>, situation: &Situation) -> Vec<Finding> {
    let guarded = guarded(layout);
    let mut found = Found::default();
    for stranger in strangers(layout, situation) {
        for meeting in travel(situation, &stranger, None) {
            for lead in meeting.passage.leads.iter().filter(|lead| matters(&meeting, lead)) {
                let judge =
                    Judge { situation, stranger: &stranger, guarded: &guarded, meeting: &meeting, lead };
                for target in &lead.targets {
                    judge.target(target, &mut found);
                }
            }
        }
    }
    // Of a rule that certainly leads to something, it need not be said that it may.
    found.doubtful.retain(|rule, _| !found.certain.keys().any(|(certain, ..)| certain == rule));
    let certain = found.certain.into_iter().map(|((rule, way), told)| told.finding(&rule, way));
    certain.chain(found.doubtful.into_values()).collect()
}

/// What is found, by rule.
#[derive(Default)]
struct Found {
    certain: BTreeMap<(String, Way), Told>,
    doubtful: BTreeMap<String, Finding>,
}

/// What a rule leads to, and what takes it away.
struct Told {
    ports: BTreeSet<String>,
    delete: String,
}

fn guarded(layout: &Layout<'_>) -> Vec<Guarded> {
    let mut out: Vec<Guarded> = Vec::new();
    if layout.settings.global.steps {
        out.push(("step 1".to_owned(), Protocol::Tcp, layout.options.http_port.into()));
        out.push(("step 2".to_owned(), Protocol::Tcp, layout.options.https_port.into()));
    }
    for segment in &layout.local {
        let names: Vec<&str> = layout.apps(segment).map(|app| app.name.as_str()).collect();
        out.push((names.join(", "), segment.protocol, segment.ports));
    }
    out
}

/// Whether something that is done on this hook goes past the gate. What is written before the gate is told in any case.
fn matters(meeting: &Meeting, lead: &Lead) -> bool {
    match (lead.way, meeting.hook) {
        (Way::Translated, HostHook::Prerouting) => true,
        (Way::Diverted | Way::Written, HostHook::Prerouting) => meeting.priority >= GATE_PRIORITY,
        (Way::Written, HostHook::Input) => true,
        (Way::Translated | Way::Diverted | Way::Written, _) => false,
    }
}

/// Whether a target is this host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Here {
    Yes,
    Perhaps,
    No,
}

struct Judge<'a> {
    situation: &'a Situation,
    stranger: &'a Journey,
    guarded: &'a [Guarded],
    meeting: &'a Meeting,
    lead: &'a Lead,
}

impl Judge<'_> {
    fn target(&self, target: &Target, found: &mut Found) {
        let here = self.here(&target.addr);
        if here == Here::No {
            return;
        }
        let packet = &self.stranger.packet;
        let (first, last) = match &target.port {
            Value::Within(first, last) => (*first, *last),
            // By the port that the client used, the gate holds the packets and the way back holds the answers.
            Value::Kept => return,
            Value::Any | Value::Ours => (0, u16::MAX),
        };
        let rule = rule_of(&self.meeting.table, &self.lead.place);
        let met = self.guarded.iter().filter(|(_, protocol, ports)| {
            *protocol == packet.protocol && ports.first() <= last && first <= ports.last()
        });
        let is_known = here == Here::Yes && matches!(target.port, Value::Within(..));
        for (what, _, ports) in met {
            if is_known {
                let port = format!("{} port {} ({what})", packet.protocol, first.max(ports.first()));
                let delete = || delete(&self.meeting.table, &self.lead.place);
                let told = found
                    .certain
                    .entry((rule.clone(), self.lead.way))
                    .or_insert_with(|| Told { ports: BTreeSet::new(), delete: delete() });
                told.ports.insert(port);
            } else {
                found.doubtful.entry(rule.clone()).or_insert_with(|| self.doubt(&rule));
            }
        }
    }

    fn here(&self, addr: &Value<IpAddr>) -> Here {
        match addr {
            Value::Ours => Here::Yes,
            Value::Kept if self.stranger.packet.for_here => Here::Yes,
            Value::Kept => Here::No,
            Value::Any => Here::Perhaps,
            Value::Within(first, last) => {
                let family = Family::of(*first);
                let loopback: IpAddr = match family {
                    Family::V4 => Ipv4Addr::LOCALHOST.into(),
                    Family::V6 => Ipv6Addr::LOCALHOST.into(),
                };
                let own = self.situation.interfaces.iter().flat_map(|interface| &interface.addresses);
                let mut own = own.map(|&(addr, _)| addr).chain([loopback, *first]);
                let is_one = |addr: IpAddr| {
                    Family::of(addr) == family
                        && (*first..=*last).contains(&addr)
                        && self.situation.is_own(addr)
                };
                if own.any(is_one) { Here::Yes } else { Here::No }
            }
        }
    }

    /// Where a rule leads cannot be told.
    fn doubt(&self, rule: &str) -> Finding {
        let (table, place) = (&self.meeting.table, &self.lead.place);
        let code = match self.lead.way {
            Way::Translated | Way::Diverted => "guarded-port-alias",
            Way::Written => "stateless-translation",
        };
        let message = format!(
            "{rule} may bring packets for other ports to a guarded port, which is then reached without a grant: where it sends them cannot be told beforehand"
        );
        let mut fix =
            format!("# see what addresses and ports it takes: nft list chain {table} {}", place.chain);
        for line in delete(table, place).lines() {
            fix += &format!("\n# if a guarded port can be one of them: {line}");
        }
        Finding { severity: Severity::Warning, code, message, fix }
    }
}

impl Told {
    fn finding(self, rule: &str, way: Way) -> Finding {
        let ports = self.ports.into_iter().collect::<Vec<_>>().join(", ");
        let (code, does) = match way {
            Way::Written => (
                "stateless-translation",
                format!("rewrites packets that our gate saw with another port to {ports}"),
            ),
            Way::Translated | Way::Diverted => {
                ("guarded-port-alias", format!("brings packets for other ports to {ports}"))
            }
        };
        Finding {
            severity: Severity::Warning,
            code,
            message: format!("{rule} {does}: by those ports it is reached without a grant"),
            fix: format!("{}\n# or guard those ports as well: add them to port: of the app", self.delete),
        }
    }
}
