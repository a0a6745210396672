//! Grants that packets made by themselves, by finished knock sequences: kept apart from the agent's own, in the kernel
//! as in the ledger, so that neither shortens the other.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::operations::{OperationError, Operations};
use super::repair::AGAIN;
use super::shut_out::ShutOut;
use crate::config::{App, KnockEffect, KnockSequence, Settings};
use crate::grant::{How, Note};
use crate::ruleset::allow::{address_key, key_address};
use crate::ruleset::diff::Live;
use crate::ruleset::iptables::names;
use crate::ruleset::knocking::{
    KnockGrants, LOG_BYTES, LOG_CLOSED, LOG_GROUP, LOG_OPENED, LOG_REPLAYED, LOG_USED,
};
use crate::ruleset::model::KNOCKED_SETS;
use crate::ruleset::plan::app_set;
use crate::ruleset::wire::{Logged, logged, subscription};
use crate::sys::packet_log::PacketLog;
use crate::units::{ClientAddr, Family, Lifetime, Now};

/// Grants for an app, in a set a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GrantSet {
    /// By what name the ledger keeps them.
    pub key: String,
    /// What the names of the sets begin with.
    stem: String,
    /// The app's slug.
    pub slug: String,
    /// How a grant came about that says nothing of it.
    pub how: How,
}

impl GrantSet {
    /// Those that the agent makes.
    pub fn of_agent(app: &App) -> Self {
        let (key, slug) = (app.slug.clone(), app.slug.clone());
        Self { key, stem: format!("app_{slug}"), slug, how: How::Unknown }
    }

    /// Those that packets make.
    fn of_packets(grants: &KnockGrants, app: &App) -> Self {
        let (key, stem) = (grants.ledger_key(), grants.stem.clone());
        Self { key, stem, slug: app.slug.clone(), how: How::Sequence }
    }

    /// The set of a family.
    pub fn set(&self, family: Family) -> String {
        format!("{}_{}", self.stem, family.digit())
    }
}

/// What happened to what sequences open.
pub(super) enum Heard {
    /// A log rule told of a packet.
    Logged(Logged),
    /// There was more than could be heard.
    Lost,
}

/// Hears of finished sequences.
#[derive(Debug)]
pub(super) struct Knocks {
    log: PacketLog,
    waiting: std::collections::VecDeque<Logged>,
    lost: bool,
    /// After a failure, when to listen again.
    again: Option<Instant>,
}

impl Knocks {
    /// Begins to listen; none where no sequence is configured, or nobody could tell.
    pub fn listen(operations: &mut Operations) -> Option<Self> {
        let told = operations.options.log;
        let settings = &operations.settings;
        let sequences = !settings.sequences.is_empty() || settings.time_sequence.is_some();
        if !sequences && !settings.apps.iter().any(|app| app.once) {
            return None;
        }
        if !told {
            tracing::warn!(
                "this kernel lacks nfnetlink_log: what packets open and close is known to the kernel only"
            );
            return None;
        }
        PacketLog::open(&subscription(LOG_GROUP, LOG_BYTES))
            .map(|log| Self { log, waiting: std::collections::VecDeque::new(), lost: false, again: None })
            .inspect_err(|error| {
                tracing::warn!(%error, group = LOG_GROUP, "finished knock sequences open, but cannot be heard of");
            })
            .ok()
    }

    /// What was told by now and not heard yet.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub fn heard_now(&mut self) -> io::Result<Vec<Heard>> {
        let Self { log, waiting, lost, .. } = self;
        *lost |= !log.heard_now(|message| waiting.extend(logged(message)))?;
        let lost = std::mem::take(lost).then_some(Heard::Lost);
        Ok(waiting.drain(..).map(Heard::Logged).chain(lost).collect())
    }

    /// The next thing heard. May be dropped and called again without loss. Where the kernel cannot be heard for a moment,
    /// there may have been more than was heard, and it is listened to again.
    pub async fn next(&mut self) -> Heard {
        loop {
            if let Some(logged) = self.waiting.pop_front() {
                return Heard::Logged(logged);
            }
            if std::mem::take(&mut self.lost) {
                return Heard::Lost;
            }
            if let Some(again) = self.again {
                sleep_until(again).await;
                self.again = None;
            }
            let Self { log, waiting, lost, again } = self;
            let whole = log.heard(|message| waiting.extend(logged(message))).await;
            *lost |= !whole.unwrap_or_else(|error| {
                tracing::warn!(%error, "finished knock sequences cannot be heard of: trying again");
                *again = Some(Instant::now() + AGAIN);
                false
            });
        }
    }
}

/// Whether a packet made it, and the kernel does not know whose.
pub(super) fn is_nobodys(note: &Note) -> bool {
    note.how == How::Sequence && note.by.is_empty()
}

/// The slug of the app that the ledger keeps by this name.
pub(super) fn slug_of(key: &str) -> &str {
    key.strip_prefix('.').and_then(|stem| stem.strip_prefix(KNOCKED_SETS)?.split('.').next()).unwrap_or(key)
}

impl Operations {
    /// Every kind of grants there is.
    pub(super) fn grant_sets(&self) -> Vec<GrantSet> {
        let by_packets =
            self.knocking.grants.iter().filter_map(|grants| {
                Some(GrantSet::of_packets(grants, self.settings.apps.get(grants.app?)?))
            });
        self.settings.apps.iter().map(GrantSet::of_agent).chain(by_packets).collect()
    }

    /// Those of one app.
    pub(super) fn grant_sets_of(&self, slug: &str) -> Vec<GrantSet> {
        self.grant_sets().into_iter().filter(|set| set.slug == slug).collect()
    }

    /// Who is let in by an address, or the first one of an IPv6 prefix: for which app (slug), who, for how much longer.
    pub(super) fn grants_of(&self, addr: IpAddr, now: Now) -> Vec<(String, Note, Duration)> {
        let of_set = |set: GrantSet| {
            let users = self.ledger.users(&set.key, addr, now);
            users.into_iter().map(move |(note, left, _)| (set.slug.clone(), note, left))
        };
        self.grant_sets().into_iter().flat_map(of_set).collect()
    }

    /// Has the ledger say what the kernel does of grants that packets made.
    ///
    /// # Errors
    /// [`OperationError`] when it cannot be read.
    pub(super) fn look_at_knocked(&mut self, now: Now) -> Result<(), OperationError> {
        let live = self.live()?;
        for set in self.grant_sets().into_iter().filter(|set| set.how == How::Sequence) {
            let is_open = |addr: IpAddr| {
                let elements = live.elements.get(&set.set(Family::of(addr)));
                elements.is_some_and(|elements| elements.contains_key(&address_key(addr)))
            };
            let of_set = self.ledger.longest_of(&set.key, now);
            let closed: Vec<IpAddr> =
                of_set.map(|(_, addr, ..)| addr).filter(|&addr| !is_open(addr)).collect();
            for addr in closed {
                self.ledger.revoke(&set.key, addr);
            }
        }
        self.adopt_grants(&live, now);
        Ok(())
    }

    /// Takes note of what packets granted in sets that are no more, which goes on among the agent's own grants.
    pub(super) fn note_kept(&mut self, live: &Live, now: Now) {
        for set in self.settings.apps.iter().map(GrantSet::of_agent) {
            let elements = Family::BOTH.map(|family| live.elements.get(&set.set(family)));
            for (key, element) in elements.into_iter().flatten().flatten() {
                let note = Note::parse(element.comment.as_deref());
                let (Some(addr), Some(timeout)) = (key_address(key), element.timeout) else { continue };
                if note.how == How::Sequence {
                    // Where the set stays that it was copied from, the name is found there only.
                    let sets = self.grant_sets_of(&set.slug);
                    let mut known = sets
                        .iter()
                        .flat_map(|set| self.ledger.users(&set.key, addr, now))
                        .map(|(known, ..)| known);
                    let known = known.find(|known| is_nobodys(&note) && known.how == How::Sequence);
                    let note = known.unwrap_or(note);
                    let [left, total] = [timeout.left_ms, timeout.total_ms].map(Duration::from_millis);
                    self.ledger.adopt(&set.key, addr, &note, left, total, now);
                }
            }
        }
    }

    /// Forgets grants of sets that are no more.
    pub(super) fn forget_gone_sets(&mut self, before: &[GrantSet], now: Now) {
        let stay = self.grant_sets();
        for gone in before.iter().filter(|set| !stay.contains(set)) {
            let of_set = self.ledger.longest_of(&gone.key, now);
            let names: Vec<(IpAddr, String)> = of_set.map(|(_, addr, note, ..)| (addr, note.by)).collect();
            // What goes on elsewhere is theirs still.
            names.iter().for_each(|(addr, by)| self.ledger.name(&gone.slug, *addr, by));
            self.ledger.revoke_app(&gone.key);
        }
        self.keep_used(now);
    }

    /// Takes note of what a packet did.
    pub(super) fn on_logged(&mut self, logged: &Logged, now: Now) {
        let Logged { prefix, mark, source, .. } = logged;
        if prefix.starts_with(LOG_OPENED) {
            self.on_knocks_used(*mark, now);
        }
        // An IPv4 address in an IPv6 header is nobody's: the grant must not come back for whom it names.
        if source.to_canonical() != *source {
            return;
        }
        if prefix == LOG_REPLAYED {
            self.on_replayed(*mark, *source);
        } else if let Some(stem) = prefix.strip_prefix(LOG_OPENED) {
            self.on_opened(stem, *mark, *source, now);
        } else if let Some(stem) = prefix.strip_prefix(LOG_CLOSED) {
            if let Some(grants) = self.grant_sets().into_iter().find(|grants| is_told(&grants.stem, stem)) {
                self.on_closed(&grants.slug, std::slice::from_ref(&grants), *source);
                let addr = ClientAddr::new(*source).masked_v6(self.settings.global.ipv6_prefix);
                self.end_connected_at(&grants.slug, addr.ip());
                self.cut_open(&ShutOut::one(&grants.slug, addr.ip()));
            }
        } else if let Some(slug) = prefix.strip_prefix(LOG_USED) {
            self.name_connected(slug, logged, now);
            self.on_closed(slug, &self.grant_sets_of(slug), *source);
            // What used it up may live on.
            let addr = ClientAddr::new(*source).masked_v6(self.settings.global.ipv6_prefix);
            self.note_over(ShutOut::one(slug, addr.ip()), now);
        }
    }

    fn on_opened(&mut self, stem: &str, mark: u32, source: IpAddr, now: Now) {
        let Some(grants) = self.knocking.grants.iter().find(|grants| is_told(&grants.stem, stem)) else {
            return;
        };
        let complete = self.knocking.complete.get(&mark).map(Vec::as_slice).unwrap_or_default();
        let did = |place: &&usize| {
            let sequence = self.settings.sequences.get(**place);
            sequence.is_some_and(|sequence| opens(sequence, grants))
        };
        let by = match self.timed.who(mark) {
            Some(client) => client.to_string(),
            None => complete.iter().find(did).map(|&place| name(&self.settings, place)).unwrap_or_default(),
        };
        let client = ClientAddr::new(source);
        let is_app = grants.app.is_some_and(|index| index < self.settings.apps.len());
        if !is_app {
            tracing::info!(%client, sequence = by, opened = stem, "a knock sequence was right");
            return;
        }
        let Ok(lifetime) = Lifetime::from_secs(grants.secs) else { return };
        let addr = client.masked_v6(self.settings.global.ipv6_prefix);
        let note = Note { by, how: How::Sequence };
        self.ledger.expire(now);
        // Read from the kernel before it was told by whom.
        self.ledger.name(&grants.ledger_key(), addr.ip(), &note.by);
        self.clients.insert((grants.ledger_key(), addr.ip()), client);
        self.ledger.grant(&grants.ledger_key(), addr.ip(), &note, lifetime, now);
        if self.timed.who(mark).is_some() {
            self.keep_used(now);
        }
    }

    fn on_closed(&mut self, slug: &str, all: &[GrantSet], source: IpAddr) {
        let client = ClientAddr::new(source);
        let addr = client.masked_v6(self.settings.global.ipv6_prefix);
        tracing::info!(%client, app = slug, "closed by a packet of the client's");
        self.ended_by_hand(slug, Some(addr.ip()));
        for grants in all {
            self.ledger.revoke(&grants.key, addr.ip());
        }
    }
}

/// Whether it is these grants that were told of: iptables cuts long names.
fn is_told(stem: &str, told: &str) -> bool {
    stem == told || names::logged(stem) == told
}

/// Whether it is this sequence that fills these grants.
fn opens(sequence: &KnockSequence, grants: &KnockGrants) -> bool {
    let same_app = (sequence.effect == KnockEffect::Service) == grants.service && sequence.app == grants.app;
    let gate = !matches!(sequence.effect, KnockEffect::Closes | KnockEffect::Service) && !grants.service;
    sequence.duration.as_secs() == grants.secs && (same_app || gate)
}

/// What a sequence is called: its name, or its place where its app has several.
pub(super) fn name(settings: &Settings, place: usize) -> String {
    let Some(sequence) = settings.sequences.get(place) else { return String::new() };
    if let Some(name) = &sequence.name {
        return name.to_string();
    }
    let beside = |other: &&KnockSequence| other.app == sequence.app && other.effect != KnockEffect::Closes;
    let before = settings.sequences.iter().take(place).filter(beside).count();
    match settings.sequences.iter().filter(beside).count() {
        0 | 1 => String::new(),
        _ => format!("sequence {}", before + 1),
    }
}

/// How many grants there are for these apps.
pub(super) fn grants_of_apps(slugs: &[&str], live: &Live) -> usize {
    let of_app = |set: &str, slug: &str| {
        let knocked = set.strip_prefix(KNOCKED_SETS).and_then(|rest| rest.strip_prefix(slug));
        Family::BOTH.iter().any(|&family| set == app_set(slug, family))
            || knocked.is_some_and(|rest| rest.starts_with('.') || matches!(rest, "_4" | "_6"))
    };
    let gone = |set: &String| slugs.iter().any(|slug| of_app(set, slug));
    live.elements.iter().filter(|(set, _)| gone(set)).map(|(_, elements)| elements.len()).sum()
}
