//! Taking over what was reloaded.

use super::super::reload::{Reload, TakeOver};
use super::Enforcer;
use crate::units::Now;

impl Enforcer {
    pub(super) fn on_reload(&mut self, reload: Reload, now: Now) {
        match reload {
            Reload::InForce(asked) => drop(asked.send(self.operations.settings().clone())),
            Reload::To(order) => self.take_over(*order, now),
        }
    }

    fn take_over(&mut self, order: TakeOver, now: Now) {
        let TakeOver { mut settings, two_factor, random, done } = order;
        // It was read a moment ago.
        settings.follow_time(now.wall);
        let outcome = self.operations.reload(settings, now);
        if outcome.is_ok() {
            self.operations.follow_mark();
            self.gatekeeper.reload(self.operations.settings(), &two_factor, random);
            self.follow_state_file(now);
            self.follow_notify(now);
            self.tell_listener();
            self.outside.look(self.operations.settings());
            self.expiring.forget();
        }
        let _ = done.send(outcome);
    }
}
