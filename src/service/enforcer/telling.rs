//! Telling others what happens.

use std::net::IpAddr;
use std::time::Duration;

use super::super::herald::Message;
use super::super::knocked::slug_of;
use super::super::record::Record;
use super::super::state::StateFile;
use super::super::two_factor::Found;
use super::Enforcer;
use crate::grant::{End, How, Turn, What};
use crate::knock::NoCode;
use crate::units::{ClientAddr, EventKind, LogEvent, Now};

/// Of so many keys it is told one by one that they need no code any more.
const CODES_GONE: usize = 50;

impl Enforcer {
    /// Begins to write down who is let in, and to tell whom the settings name.
    pub(super) fn begin_telling(&mut self, now: Now) {
        self.operations.journal().begin();
        self.follow_notify(now);
    }

    /// Goes by the keys of a reload, and tells which of them need less than before.
    pub(super) fn follow_keys(&mut self, files: &Found, random: [u8; 16]) {
        let gone = self.gatekeeper.reload(self.operations.settings(), &files.factors, random);
        self.around.codes_looked_at(files.troubles());
        for NoCode { app, by, step } in gone.iter().take(CODES_GONE) {
            tracing::warn!(%app, by, step, "this key needs no one-time code any more");
        }
        if let Some(more) = gone.len().checked_sub(CODES_GONE).filter(|more| *more > 0) {
            tracing::warn!(more, "further keys need no one-time code any more");
        }
    }

    pub(super) fn follow_notify(&mut self, now: Now) {
        let notify = &self.operations.settings().notify;
        self.herald.follow(notify, now.boot);
    }

    /// When a grant ends that nobody was told the end of, or what was folded is to be told; what outlasts grants is to be
    /// looked at, or the state file to be written.
    pub(super) fn end_due(&self) -> Option<tokio::time::Instant> {
        let (end, lines) = (self.operations.ledger().next_end(), self.lines.due());
        let file = self.state.as_ref().and_then(StateFile::due);
        let end = end.into_iter().chain(lines).chain(file).chain(self.operations.outlasting_due()).min()?;
        let left = end.saturating_sub(crate::sys::clock::now().boot);
        Some(tokio::time::Instant::now() + left)
    }

    /// Tells what became of grants. The kernel has closed what has expired; this says so.
    pub(super) fn tell_turns(&mut self, now: Now) {
        for (record, words) in self.later.drain(..) {
            record.log(words);
        }
        self.operations.forget_expired(now);
        let turns = self.operations.journal().take();
        let clients = self.operations.take_clients();
        let room = self.lines.room(now.boot);
        for (place, turn) in turns.into_iter().enumerate() {
            self.remember_turn(&turn, now);
            self.tally.on_turns(slug_of(&turn.app), turn.what, turn.note.how, 1);
            let key = (turn.app.clone(), turn.addr);
            let client = clients.get(&key).map(|client| client.ip()).filter(|client| *client != turn.addr);
            if place < room {
                self.log_turn(&turn, client);
                self.lines.wrote();
            } else {
                self.lines.fold(turn.what, &turn.app, 1);
            }
            self.tell_turn(turn, client, now);
        }
        for ((what, app, how), count) in self.operations.journal().take_more() {
            self.tally.on_turns(slug_of(&app), what, how, count);
            self.lines.fold(what, &app, count);
            self.herald.miss(count);
        }
        for ((what, app), count) in self.lines.take_due(now.boot) {
            let app = Some(self.app_of(&app).0);
            Record { app, count: Some(count), ..Record::of(event_of(what)) }
                .log(&format!("further ones {}", words(what)));
        }
    }

    fn log_turn(&self, turn: &Turn, client: Option<IpAddr>) {
        let (app, services) = self.app_of(&turn.app);
        let over = matches!(turn.what, What::Closed(_));
        let record = Record {
            address: Some(turn.addr.to_string()),
            client,
            app: Some(app),
            by: (!turn.note.by.is_empty()).then(|| turn.note.by.clone()),
            how: Some(turn.note.how.word().to_owned()),
            lifetime_s: Some(turn.lifetime.as_secs()),
            services: if over { Vec::new() } else { services },
            ..Record::of(event_of(turn.what))
        };
        record.log(match (turn.what, turn.note.how) {
            (What::Opened, How::Sequence) => "granted by a knock sequence",
            (what, _) => words(what),
        });
    }

    /// What an app of the ledger is called, and its guarded ports.
    fn app_of(&self, key: &str) -> (String, Vec<String>) {
        let slug = slug_of(key);
        let found = self.operations.settings().apps.iter().find(|app| app.slug == slug);
        found.map_or_else(
            || (self.lines.former_name(slug).unwrap_or_else(|| slug.to_owned()), Vec::new()),
            |app| (app.name.to_string(), app.services()),
        )
    }

    fn tell_turn(&mut self, turn: Turn, client: Option<IpAddr>, now: Now) {
        if self.herald.is_idle() {
            return;
        }
        let Turn { what, app, addr, note, lifetime } = turn;
        let (kind, reason) = match what {
            What::Opened => (EventKind::Opened, None),
            What::Renewed => (EventKind::Renewed, None),
            What::Closed(end) => (EventKind::Closed, Some(end.word().to_owned())),
        };
        let message = Message {
            app: Some(slug_of(&app).to_owned()),
            address: Some(self.what_is_open(addr)),
            client: client.map(|client| client.to_string()),
            still_open: matches!(what, What::Closed(_)) && self.is_still_open(&app, addr, now),
            by: (!note.by.is_empty()).then(|| note.by.clone()),
            how: Some(note.how.word().to_owned()),
            reason,
            lifetime_s: Some(lifetime.as_secs()),
            ..Message::new(kind, now)
        };
        self.herald.tell(message, now.boot);
    }

    /// For whom a grant opens, as `status` lists it.
    fn what_is_open(&self, addr: IpAddr) -> String {
        match self.operations.settings().global.ipv6_prefix {
            prefix if addr.is_ipv6() && prefix < 128 => format!("{addr}/{prefix}"),
            _ => addr.to_string(),
        }
    }

    /// Whether somebody has a grant of the app for that address, by whichever way.
    fn is_still_open(&self, key: &str, addr: IpAddr, now: Now) -> bool {
        let ledger = self.operations.ledger();
        let mut ways = ledger.counts().map(|(way, _)| way).filter(|way| slug_of(way) == slug_of(key));
        ways.any(|way| !ledger.users(way, addr, now).is_empty())
    }

    pub(super) fn tell_lockout(&mut self, client: ClientAddr, lasts: Duration, now: Now) {
        let message = Message {
            address: Some(client.to_string()),
            lifetime_s: Some(lasts.as_secs()),
            ..Message::new(EventKind::LockedOut, now)
        };
        self.herald.tell(message, now.boot);
    }

    pub(super) fn tell_denials(&mut self, attempts: u64, now: Now) {
        let message = Message { attempts: Some(attempts), ..Message::new(EventKind::Denied, now) };
        self.herald.tell(message, now.boot);
    }

    pub(super) fn tell_repair(&mut self, changes: usize, now: Now) {
        let message = Message {
            by: Some(self.by.clone()),
            changes: u64::try_from(changes).ok(),
            ..Message::new(EventKind::Repaired, now)
        };
        self.herald.tell(message, now.boot);
    }
}

fn event_of(what: What) -> LogEvent {
    match what {
        What::Opened => LogEvent::Granted,
        What::Renewed => LogEvent::Renewed,
        What::Closed(End::Expired) => LogEvent::Expired,
        What::Closed(End::Revoked) => LogEvent::Revoked,
    }
}

fn words(what: What) -> &'static str {
    match what {
        What::Opened => "granted",
        What::Renewed => "renewed",
        What::Closed(End::Expired) => "a grant is over: its time had come",
        What::Closed(End::Revoked) => "a grant is over: it was taken back",
    }
}
