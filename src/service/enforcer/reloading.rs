//! What a reload asks for, and what follows it.

use super::super::reload::Reload;
use super::super::state::{StateFile, resumed};
use super::Enforcer;
use crate::sys::resident;
use crate::units::Now;

impl Enforcer {
    pub(super) fn on_reload(&mut self, reload: Reload, now: Now) {
        match reload {
            Reload::InForce(asked) => drop(asked.send(self.operations.settings().clone())),
            Reload::To(order) => {
                self.take_over(*order, now);
                resident::give_back_work();
            }
        }
    }

    /// Keeps grants where the settings say, as a restart would.
    pub(super) fn follow_state_file(&mut self, now: Now) {
        let wanted = self.operations.settings().global.state_file.as_deref();
        if self.state.as_ref().map(StateFile::path) != wanted {
            let on_trial = self.trial.as_ref().is_some_and(|trial| !trial.is_confirmed());
            // What it says is soon out of date, unless all is put back as it was.
            if !on_trial {
                self.forget();
            }
            let had = self.state.take();
            self.state = StateFile::resume(&mut self.operations, now).and_then(resumed);
            if let Some(state) = &mut self.state {
                state.succeed(had, on_trial);
            }
        }
    }
}
