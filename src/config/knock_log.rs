//! What of knocks the kernel writes into a log, as `log_knocks` of the global section says it.

use std::collections::BTreeSet;

use crate::config::report::Report;
use crate::config::section::Section;

/// The group of netfilter's log by which the agent itself hears of packets.
pub const OWN_LOG_GROUP: u16 = 24_107;

const EVENTS: &[(&str, KnockEvent)] = &[
    ("accepted", KnockEvent::Accepted),
    ("ignored", KnockEvent::Ignored),
    ("invalid", KnockEvent::Invalid),
    ("transient", KnockEvent::Transient),
];

/// What may be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KnockEvent {
    /// The last knock of a sequence that opened something.
    Accepted,
    /// A knock that does not count: a SYN again, the same knock again, one too fast.
    Ignored,
    /// A wrong knock at a port of a sequence.
    Invalid,
    /// The first packet from a network that need not knock.
    Transient,
}

impl KnockEvent {
    /// Its name in the configuration, in the log and in chains.
    #[must_use]
    pub fn name(self) -> &'static str {
        EVENTS.iter().find(|(_, event)| *event == self).map_or("", |(name, _)| name)
    }
}

/// What is written down, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnockLog {
    /// What; nothing by default.
    pub events: BTreeSet<KnockEvent>,
    /// The group of netfilter's log that is told; none: the kernel's own log.
    pub group: Option<u16>,
}

/// Reads it; none where it is wrong.
pub(super) fn read(section: &Section<'_>, report: &mut Report) -> Option<KnockLog> {
    let events = match section.get("log_knocks") {
        None => Some(BTreeSet::new()),
        Some(field) => field
            .each(EVENTS.len(), report, |item, report| item.choice(EVENTS, report))
            .map(|all| all.into_iter().map(|(event, _)| event).collect()),
    };
    let group = match section.get("log_knocks_group") {
        None => Some(None),
        Some(field) => {
            let number: Option<u16> = field.number(0..=65_535, report);
            if number == Some(OWN_LOG_GROUP) {
                report.error_fix(
                    field.spot(),
                    "knock-agent itself listens to this group",
                    "choose another one",
                );
                return None;
            }
            number.map(Some)
        }
    };
    if let (Some(Some(_)), Some(field), None) =
        (group, section.get("log_knocks_group"), section.get("log_knocks"))
    {
        report.warning(
            field.spot(),
            "no knock is logged, so this group hears nothing",
            "add `log_knocks`, or remove this",
        );
    }
    Some(KnockLog { events: events?, group: group? })
}
