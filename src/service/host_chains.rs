//! The rule that accepts our mark in chains of the host, kept there while the daemon runs.

use super::operations::{OperationError, Operations};
use crate::backend::{BackendError, HostReading, Plan, Scope};
use crate::ruleset::diff::{Change, Live};
use crate::ruleset::host_chain::{HostChains, HostPlan, Trouble, Wish};
use crate::units::Mark;

/// Which chains of the host are kept, and what was last said about them.
#[derive(Debug, Default)]
pub(super) struct HostKept {
    wanted: HostChains,
    troubles: Vec<Trouble>,
    /// Whether something is left to do that could not be done.
    pending: bool,
}

/// How much a repair had to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// In our own table.
    pub own: usize,
    /// In chains of the host.
    pub host: usize,
}

impl Operations {
    /// Takes over the keeping of the host's chains: puts our rule into these, and clears it out of all others.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not; the chains are kept from now on all the same.
    pub fn keep_host(&mut self, wanted: HostChains) -> Result<usize, OperationError> {
        self.host.wanted = wanted;
        self.put_host(Scope::Everywhere)
    }

    /// The tables of the host whose changes concern us.
    #[must_use]
    pub fn host_tables(&self) -> Vec<String> {
        self.host.wanted.tables()
    }

    /// Whether a change to the host's chains is due that could not be made.
    #[must_use]
    pub fn host_is_pending(&self) -> bool {
        self.host.pending
    }

    /// Where our rule was asked for, whether a change is due, and what is wrong; none where nobody asked.
    pub(super) fn host_rule(&self) -> Option<(&[Wish], bool, Vec<String>)> {
        let HostKept { wanted, troubles, pending } = &self.host;
        (!wanted.is_empty())
            .then(|| (wanted.wishes.as_slice(), *pending, troubles.iter().map(ToString::to_string).collect()))
    }

    /// Before the mark becomes another one: has the host's chains accept both, so that nothing is lost in between.
    pub(super) fn expect_mark(&mut self, mark: Option<Mark>) {
        let (false, Some(mark)) = (self.host.wanted.is_empty(), mark) else { return };
        if self.settings.global.mark == Some(mark) {
            return;
        }
        if let Err(error) = self.firewall.add_to_host(&self.host.wanted, mark) {
            tracing::warn!(%error, "the host's chains accept the new mark a moment late");
        }
    }

    /// After a change of settings: the mark may be another one.
    pub(super) fn follow_mark(&mut self) {
        if self.host.wanted.is_empty() {
            return;
        }
        if let Err(error) = self.put_host(Scope::Named) {
            tracing::error!(%error, "the host's chains do not accept the new mark: what is let in may be dropped");
        }
    }

    fn put_host(&mut self, scope: Scope) -> Result<usize, OperationError> {
        let put = self.firewall.put_host(&self.host.wanted, self.settings.global.mark, scope);
        self.host.pending = put.is_err();
        let plan = put?;
        self.note(&plan);
        Ok(plan.changes.len())
    }

    /// What is to be done to the host's chains; none where there is nothing to keep, or it cannot be told.
    pub(super) fn read_host(&mut self) -> Option<HostReading> {
        if self.host.wanted.is_empty() {
            return None;
        }
        match self.firewall.read_host(&self.host.wanted, self.settings.global.mark, Scope::Named) {
            Ok(reading) => {
                self.note(&reading.plan);
                Some(reading)
            }
            Err(error) => {
                self.host.pending = true;
                tracing::error!(%error, "the host's chains cannot be read: trying again");
                None
            }
        }
    }

    /// Puts our table right and, in the same stroke, the host's chains.
    pub(super) fn mend_with_host(
        &mut self,
        live: Option<&Live>,
        wanted: &Plan,
        more: Vec<Change>,
        host: Option<HostReading>,
    ) -> Result<Repaired, BackendError> {
        let read = host.is_some();
        let count = host.as_ref().map_or(0, |host| host.plan.changes.len());
        self.host.pending |= count > 0;
        let own = self.firewall.mend(live, wanted, more, host)?;
        self.host.pending &= !read;
        Ok(Repaired { own, host: count })
    }

    /// Says what is new about the host's chains.
    fn note(&mut self, plan: &HostPlan) {
        for trouble in plan.troubles.iter().filter(|trouble| !self.host.troubles.contains(trouble)) {
            tracing::warn!("{trouble}");
        }
        self.host.troubles.clone_from(&plan.troubles);
    }
}
