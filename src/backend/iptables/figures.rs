//! What is known without running a program.

use super::hidden::closes;
use super::{Iptables, IptablesError};
use crate::backend::Commits;
use crate::ruleset::wire::RuleCounter;
use crate::units::Family;

impl Iptables {
    /// What was counted at our rules when they were last listed; none where sudo is between.
    #[must_use]
    pub fn counters(&self) -> Option<&[RuleCounter]> {
        (!self.tools.uses_sudo()).then_some(self.counted.as_slice())
    }

    /// Whether the rules that close were all there when they were last listed, as far as that could be told.
    #[must_use]
    pub fn guarded(&self) -> bool {
        self.closes().unwrap_or(false)
    }

    /// The same.
    ///
    /// # Errors
    /// [`IptablesError::Hidden`] where it could not be told.
    pub fn closes(&self) -> Result<bool, IptablesError> {
        closes(&self.seen.listings, &Family::BOTH, self.has_ipv6())
    }

    /// How long changes of elements took.
    #[must_use]
    pub fn commits(&self) -> &Commits {
        &self.commits
    }
}
