//! Knocks that change with time: when to put the next ones in force.

use tokio::time::Instant;

use super::super::knocked::Knocks;
use super::super::repair::AGAIN;
use super::Enforcer;
use crate::sys::clock;
use crate::units::Now;

impl Enforcer {
    /// Has the kernel take the knocks of this moment; nothing where they do not change.
    pub(super) fn follow_timed(&mut self, knocks: &mut Option<Knocks>, now: Now) {
        // What is to be put right first may be the table itself.
        if self.repair_at.is_some() || self.timed_again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.timed_again_at = None;
        if self.operations.timed_is_unsound(now) {
            self.hear_now(knocks, now);
        }
        if let Err(error) = self.operations.follow_timed(knocks.is_some(), now) {
            tracing::error!(%error, "the knocks of the new time step are not taken yet: trying again");
            self.timed_again_at = Some(Instant::now() + AGAIN);
        }
    }

    /// Hears what was told by now, before something is done that depends on it.
    pub(super) fn hear_now(&mut self, knocks: &mut Option<Knocks>, now: Now) {
        match knocks.as_mut().map(Knocks::heard_now) {
            Some(Ok(all)) => all.into_iter().for_each(|heard| self.on_heard(heard, now)),
            // Whoever waits for the next thing learns the same, and says so.
            Some(Err(_)) => self.operations.learn_used_knocks(true, now),
            None => {}
        }
    }

    /// When there is something to do, if ever.
    pub(super) fn timed_due(&self) -> Option<Instant> {
        if self.repair_at.is_some() {
            return None;
        }
        let next = Instant::now() + self.operations.timed_left(clock::now())?;
        Some(self.timed_again_at.map_or(next, |again| again.max(next)))
    }
}
