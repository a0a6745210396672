//! Telling others what happens.

use std::time::Duration;

use super::super::herald::Message;
use super::super::knocked::slug_of;
use super::Enforcer;
use crate::grant::{End, Turn, What};
use crate::units::{ClientAddr, EventKind, Now};

impl Enforcer {
    /// Begins to write down who is let in, and to tell whom the settings name.
    pub(super) fn begin_telling(&mut self, now: Now) {
        self.operations.journal().begin();
        self.follow_notify(now);
    }

    pub(super) fn follow_notify(&mut self, now: Now) {
        let notify = &self.operations.settings().notify;
        self.herald.follow(notify, now.boot);
    }

    /// When a grant ends that nobody was told the end of.
    pub(super) fn end_due(&self) -> Option<tokio::time::Instant> {
        let end = self.operations.ledger().next_end()?;
        let left = end.saturating_sub(crate::sys::clock::now().boot);
        Some(tokio::time::Instant::now() + left)
    }

    /// Tells what became of grants. The kernel has closed what has expired; this says so.
    pub(super) fn tell_turns(&mut self, now: Now) {
        self.operations.forget_expired(now);
        for turn in self.operations.journal().take() {
            self.remember_turn(&turn, now);
            let Turn { what, app, addr, note, lifetime } = turn;
            let app = slug_of(&app).to_owned();
            let kind = match what {
                What::Opened => EventKind::Opened,
                What::Renewed => EventKind::Renewed,
                What::Closed(end) => {
                    log_end(&app, addr, &note.by, end);
                    EventKind::Closed
                }
            };
            if self.herald.is_idle() {
                continue;
            }
            let reason = match what {
                What::Closed(end) => Some(end.word().to_owned()),
                What::Opened | What::Renewed => None,
            };
            let message = Message {
                app: Some(app),
                address: Some(addr.to_string()),
                by: (!note.by.is_empty()).then(|| note.by.clone()),
                how: Some(note.how.word().to_owned()),
                reason,
                lifetime_s: Some(lifetime.as_secs()),
                ..Message::new(kind, now)
            };
            self.herald.tell(message, now.boot);
        }
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

fn log_end(app: &str, addr: std::net::IpAddr, user: &str, end: End) {
    let reason = end.word();
    tracing::info!(client = %addr, app, user, reason, "a grant is over");
}
