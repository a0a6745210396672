//! Keeping grants across a reboot, and when something was last used.

use super::Enforcer;
use crate::units::Now;

impl Enforcer {
    /// Has the state file say what the ledger says; what was only given may wait until it is due.
    pub(super) fn keep(&mut self, now: Now) {
        let written = self.state.as_mut().map(|state| state.keep(&self.operations, now));
        self.say_whether_kept(written);
        self.used_codes.keep_last_use(self.operations.take_knocks_used(), now);
    }

    /// The same, and nothing waits.
    pub(super) fn keep_at_once(&mut self, now: Now) {
        let written = self.state.as_mut().map(|state| state.keep_at_once(&self.operations, now));
        self.say_whether_kept(written);
        self.used_codes.keep_last_use(self.operations.take_knocks_used(), now);
    }

    fn say_whether_kept(&self, written: Option<std::io::Result<()>>) {
        if let (Some(state), Some(Err(error))) = (&self.state, written) {
            tracing::error!(file = %state.path().display(), %error, "grants are not kept across a reboot");
        }
    }
}
