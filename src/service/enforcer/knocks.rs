//! Hearing of what finished knock sequences did in the kernel, and writing it down.

use super::super::knocked::{Heard, Knocks};
use super::Enforcer;
use crate::sys::clock;
use crate::units::Now;

impl Enforcer {
    /// Listens where there is anything to hear, and goes on listening where it does already.
    pub(super) fn listen(&mut self, knocks: Option<Knocks>) -> Option<Knocks> {
        if knocks.is_some() {
            return knocks;
        }
        let knocks = Knocks::listen(&mut self.operations);
        if knocks.is_some() {
            self.operations.doubt_the_unheard(clock::now());
            // What was opened before anybody listened.
            self.look_at_knocked(clock::now());
        }
        knocks
    }

    pub(super) fn on_heard(&mut self, heard: Heard, now: Now) {
        match heard {
            Heard::Logged(logged) => self.operations.on_logged(&logged, now),
            Heard::Lost => {
                tracing::warn!(
                    "more was knocked than could be followed: what is open is read from the kernel"
                );
                self.operations.learn_used_knocks(true, now);
                self.look_at_knocked(now);
                // A door that was used up must not open again with what is put back later.
                self.operations.doubt_grants();
            }
        }
    }

    fn look_at_knocked(&mut self, now: Now) {
        if let Err(error) = self.operations.look_at_knocked(now) {
            tracing::warn!(%error, "what knock sequences opened cannot be read from the kernel");
        }
    }
}

/// What is heard next, where somebody listens; else nothing ever is.
pub(super) async fn heard(knocks: &mut Option<Knocks>) -> Heard {
    match knocks {
        Some(listening) => listening.next().await,
        None => std::future::pending().await,
    }
}
