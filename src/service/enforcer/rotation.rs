//! Paths of step 1 that change with time.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::front::Step1Config;
use super::super::link::serving::Serving;
use super::super::operations::{OperationError, Operations};
use super::super::repair::AGAIN;
use super::Enforcer;
use crate::sys::clock;
use crate::units::Now;

/// Where the front learns what to serve with.
pub type ServingSender = watch::Sender<Serving>;

impl Enforcer {
    /// Has kernel and listener take the paths of this moment; nothing where they do not change.
    pub(super) fn follow_path(&mut self, now: Now) {
        if self.path_again_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.path_again_at = None;
        match self.operations.follow_path(now) {
            Ok(false) => {}
            Ok(true) => {
                tracing::debug!("step 1 takes the paths of the new time step");
                self.tell_listener();
            }
            Err(error) => {
                tracing::error!(%error, "the paths of the new time step are not taken yet: trying again");
                self.path_again_at = Some(Instant::now() + AGAIN);
            }
        }
    }

    /// Has the listener of step 1 expect what the kernel lets through.
    pub(super) fn tell_listener(&self) {
        if let Some(listener) = &self.listener {
            let step1 = Arc::new(Step1Config::of(self.operations.settings()));
            listener.send_modify(|serving| {
                serving.version += 1;
                serving.step1 = step1;
            });
        }
    }

    /// When the paths change next, if they do.
    pub(super) fn path_due(&self) -> Option<Instant> {
        let rotation = self.operations.settings().global.path_rotation.as_ref()?;
        let next = Instant::now() + rotation.left(clock::now().wall);
        Some(self.path_again_at.map_or(next, |again| again.min(next)))
    }
}

impl Operations {
    /// Puts the paths of a moment in force, in one transaction; false where they are so already.
    ///
    /// # Errors
    /// [`OperationError`]; everything is then as it was.
    pub(super) fn follow_path(&mut self, now: Now) -> Result<bool, OperationError> {
        // Asked at each turn of the enforcer: nothing is copied unless something changes.
        let global = &self.settings().global;
        let Some(rotation) = &global.path_rotation else { return Ok(false) };
        if rotation.taken(&global.http_post_path, now.wall) == global.step1_paths {
            return Ok(false);
        }
        let mut settings = self.settings().clone();
        settings.follow_time(now.wall);
        self.put_in_force(settings)?;
        Ok(true)
    }
}
