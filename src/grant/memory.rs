//! What became lately of those who were let in, knocked or tried to: a bounded memory, for whoever asks why an address
//! is not let through.
//!
//! Those who had a right key are kept apart from those who had not, so that strangers push nobody out.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{ClientAddr, Now};

/// Addresses of those who had a right key.
const MEMBERS: usize = 4_096;
/// Addresses of those who had not.
const STRANGERS: usize = 2_048;
/// Things that are kept of one address.
const EVENTS: usize = 8;

/// Something that became of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Happening {
    /// Step 1 was right: step 2 was open for so many seconds.
    Step1 {
        /// How long.
        seconds: u64,
    },
    /// Step 2 was right but for a one-time code.
    CodeWanted {},
    /// It was let in.
    Opened {
        /// By whom.
        by: String,
        /// How: a word of `status --json`.
        how: String,
        /// For how long.
        seconds: u64,
    },
    /// That is over.
    Closed {
        /// By whom it had been opened.
        by: String,
        /// `expired` or `revoked`.
        end: String,
        /// What it had been given.
        seconds: u64,
    },
    /// It was refused.
    Refused {
        /// At which step.
        step: u8,
        /// Why: a word of the log, or a closer one.
        reason: String,
    },
    /// It was right, and could not be let in.
    Failed {
        /// At which step.
        step: u8,
        /// Why.
        error: String,
    },
}

impl Happening {
    /// Whether somebody was heard by it; who is let in no more was not, that moment.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    /// Whether only somebody with a right key can bring it about.
    fn is_members(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// The same thing, once or several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// When it was the last time, on the clock that never goes back.
    pub at: Duration,
    /// How often.
    pub times: u32,
    /// The slug of the app; none: of no app that there is.
    pub app: Option<String>,
    /// What.
    pub happening: Happening,
}

/// The memory.
#[derive(Clone, Debug)]
pub struct Memory {
    since: Duration,
    members: Shelf,
    strangers: Shelf,
}

impl Memory {
    /// An empty one.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self { since: now.boot, members: Shelf::new(MEMBERS), strangers: Shelf::new(STRANGERS) }
    }

    /// Since when it remembers, on the clock that never goes back.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Remembers what became of an address; of members, the first address of what their grants cover.
    pub fn note(&mut self, client: ClientAddr, app: Option<&str>, happening: Happening, now: Now) {
        match happening.is_members() {
            true => self.members.note(client.ip(), app, happening, now.boot),
            false => self.strangers.note(network(client), app, happening, now.boot),
        }
    }

    /// What became of an address, the last first; of strangers, that of any in its IPv6 network (/64).
    #[must_use]
    pub fn of(&self, client: ClientAddr) -> Vec<Remembered> {
        let (members, strangers) = (self.members.of(client.ip()), self.strangers.of(network(client)));
        let mut out: Vec<Remembered> = members.iter().chain(strangers).cloned().collect();
        out.sort_by_key(|event| std::cmp::Reverse(event.at));
        out
    }

    /// When anything was heard of an address or of any other of its IPv6 network (/64).
    #[must_use]
    pub fn last_of_network(&self, client: ClientAddr) -> Option<Duration> {
        let first = network(client);
        let same = |addr: IpAddr| network(ClientAddr::new(addr)) == first;
        let members = self.members.by.range(first..).take_while(|(addr, _)| same(**addr));
        let events = members.flat_map(|(_, events)| events).chain(self.strangers.of(first));
        events.filter(|event| event.happening.is_heard()).map(|event| event.at).max()
    }

    /// Those whose step 1 was right and nothing came after it, not even a wrong step 2, with the app and when.
    pub fn pending(&self) -> impl Iterator<Item = (IpAddr, &str, Duration)> {
        self.members.by.iter().filter_map(|(addr, events)| {
            let last = events.iter().max_by_key(|event| event.at)?;
            let refused = self.strangers.of(network(ClientAddr::new(*addr)));
            let waits = matches!(last.happening, Happening::Step1 { .. } | Happening::CodeWanted {})
                && refused.iter().all(|event| event.at < last.at);
            Some((*addr, last.app.as_deref().filter(|_| waits)?, last.at))
        })
    }
}

/// Whoever has a /64 has all its addresses.
fn network(client: ClientAddr) -> IpAddr {
    client.masked_v6(64).ip()
}

/// Events by address; the address that came in first goes first.
#[derive(Clone, Debug)]
struct Shelf {
    room: usize,
    by: BTreeMap<IpAddr, Vec<Remembered>>,
    order: VecDeque<IpAddr>,
}

impl Shelf {
    fn new(room: usize) -> Self {
        Self { room, by: BTreeMap::new(), order: VecDeque::new() }
    }

    fn note(&mut self, at: IpAddr, app: Option<&str>, happening: Happening, now: Duration) {
        if !self.by.contains_key(&at) {
            if self.order.len() >= self.room
                && let Some(first) = self.order.pop_front()
            {
                self.by.remove(&first);
            }
            self.order.push_back(at);
        }
        let events = self.by.entry(at).or_default();
        let same = |event: &Remembered| event.happening == happening && event.app.as_deref() == app;
        if let Some(event) = events.iter_mut().find(|event| same(event)) {
            (event.at, event.times) = (now, event.times.saturating_add(1));
            return;
        }
        if events.len() >= EVENTS
            && let Some(oldest) =
                events.iter().enumerate().min_by_key(|(_, event)| event.at).map(|(index, _)| index)
        {
            events.remove(oldest);
        }
        events.push(Remembered { at: now, times: 1, app: app.map(str::to_owned), happening });
    }

    fn of(&self, at: IpAddr) -> &[Remembered] {
        self.by.get(&at).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> ClientAddr {
        ClientAddr::new(text.parse().unwrap())
    }

    fn refused(reason: &str) -> Happening {
        Happening::Refused { step: 1, reason: reason.to_owned() }
    }

    #[test]
    fn the_same_thing_again_is_counted_and_the_last_thing_comes_first() {
        let mut memory = Memory::new(Now::at_secs(1));
        let a = client("203.0.113.2");
        memory.note(a, None, refused("wrong-key"), Now::at_secs(5));
        memory.note(a, Some("ssh"), Happening::Step1 { seconds: 20 }, Now::at_secs(7));
        memory.note(a, None, refused("wrong-key"), Now::at_secs(9));
        let found = memory.of(a);
        assert_eq!(
            found.iter().map(|event| (event.at.as_secs(), event.times)).collect::<Vec<_>>(),
            [(9, 2), (7, 1)]
        );
        assert!(memory.of(client("203.0.113.3")).is_empty());
    }

    #[test]
    fn strangers_push_no_member_out_and_neither_takes_more_than_its_room() {
        let mut memory = Memory::new(Now::at_secs(0));
        let member = client("203.0.113.2");
        memory.note(member, Some("ssh"), Happening::Step1 { seconds: 20 }, Now::at_secs(1));
        for n in 0..10_000_u32 {
            let stranger = ClientAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into());
            memory.note(stranger, None, refused("wrong-key"), Now::at_secs(2));
        }
        assert_eq!(memory.of(member).len(), 1);
        assert_eq!(memory.strangers.by.len(), STRANGERS);
        assert_eq!(memory.strangers.order.len(), STRANGERS);
        assert!(memory.of(client("10.0.0.1")).is_empty(), "the first one is forgotten first");
    }

    #[test]
    fn who_went_on_and_was_refused_waits_no_more_and_a_network_is_heard_of_by_any_of_its_addresses() {
        let mut memory = Memory::new(Now::at_secs(0));
        let (a, other) = (client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(memory.last_of_network(a), None);
        for at in [a, other] {
            memory.note(at, Some("ssh"), Happening::Step1 { seconds: 20 }, Now::at_secs(5));
        }
        memory.note(
            a,
            Some("ssh"),
            Happening::Refused { step: 2, reason: "wrong-key".into() },
            Now::at_secs(7),
        );
        assert_eq!(memory.pending().map(|(addr, ..)| addr).collect::<Vec<_>>(), [other.ip()]);
        assert_eq!(memory.last_of_network(client("2001:db8::77")), Some(Duration::from_secs(7)));
        assert_eq!(memory.last_of_network(client("2001:db8:0:1::77")), Some(Duration::from_secs(5)));
        assert_eq!(memory.last_of_network(client("2001:db8:0:2::1")), None);
    }

    #[test]
    fn of_one_address_a_bounded_number_of_things_is_kept() {
        let mut memory = Memory::new(Now::at_secs(0));
        let a = client("2001:db8::1");
        for n in 0..50 {
            memory.note(a, None, refused(&n.to_string()), Now::at_secs(n));
        }
        let found = memory.of(client("2001:db8::2"));
        assert_eq!(found.len(), EVENTS, "of a whole /64");
        assert_eq!(found.first().unwrap().at.as_secs(), 49);
    }
}
