//! Users and keys that expire: a grant that was made before somebody said so ends then, too.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::expired::next_end;
use super::super::repair::AGAIN;
use super::Enforcer;
use crate::sys::clock;
use crate::units::{Now, Timestamp};

/// What was granted after that was known ends by itself, and what is open by it may go on: it is no more there then.
const SLACK: Duration = Duration::from_secs(2);

/// When to look next who has expired.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    /// When that was last worked out, by a calendar that may be set back.
    known: Option<SystemTime>,
    next: Option<Timestamp>,
    /// When to try again what the kernel refused.
    again_at: Option<Instant>,
}

impl Expiring {
    /// Has it worked out anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Enforcer {
    /// Ends the grants of users and keys that have expired since.
    pub(super) fn follow_expiring(&mut self, now: Now) {
        let Expiring { known, next, again_at } = &self.expiring;
        let Some(wall) = now.wall.checked_sub(SLACK) else { return };
        if known.is_none_or(|known| wall < known) {
            let next = next_end(self.operations.settings(), wall);
            self.expiring = Expiring { known: Some(wall), next, again_at: None };
            return;
        }
        let over = next.is_some_and(|next| next.left(wall).is_none());
        // What is to be put right first may be the table itself.
        if !over || self.repair_at.is_some() || again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        match self.operations.end_grants_of_those_gone(now) {
            Ok(ended) => {
                if ended > 0 {
                    tracing::info!(ended, "grants of users and keys that have expired end");
                }
                let next = next_end(self.operations.settings(), wall);
                self.expiring = Expiring { known: Some(wall), next, again_at: None };
            }
            Err(error) => {
                tracing::error!(%error, "grants of users and keys that have expired do not end yet: trying again");
                self.expiring.again_at = Some(Instant::now() + AGAIN);
            }
        }
    }

    /// When somebody expires next.
    pub(super) fn expiring_due(&self) -> Option<Instant> {
        if self.repair_at.is_some() {
            return None;
        }
        let left = self.expiring.next?.left(clock::now().wall).unwrap_or_default();
        let due = Instant::now() + left + SLACK;
        Some(self.expiring.again_at.map_or(due, |again| again.max(due)))
    }
}
