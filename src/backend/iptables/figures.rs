//! What is known without running a program.

use super::Iptables;
use crate::backend::Commits;
use crate::ruleset::iptables::save::Listing;
use crate::ruleset::wire::RuleCounter;

impl Iptables {
    /// What was counted at our rules when they were last listed; none where sudo is between.
    #[must_use]
    pub fn counters(&self) -> Option<&[RuleCounter]> {
        (!self.tools.uses_sudo()).then_some(self.counted.as_slice())
    }

    /// Whether a gate was in force in either family when they were last listed.
    #[must_use]
    pub fn guarded(&self) -> bool {
        self.seen.listings.iter().any(Listing::guards)
    }

    /// How long changes of elements took.
    #[must_use]
    pub fn commits(&self) -> &Commits {
        &self.commits
    }
}
