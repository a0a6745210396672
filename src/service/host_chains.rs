//! The rule that accepts our mark in chains of the host, kept there while the daemon runs.

use super::operations::{OperationError, Operations};
use crate::backend::nftables::{BackendError, HostReading, Scope};
use crate::ruleset::diff::Change;
use crate::ruleset::host_chain::{HostChains, HostPlan, Trouble};

/// Which chains of the host are kept, and what was last said about them.
#[derive(Debug, Default)]
pub(super) struct HostKept {
    wanted: HostChains,
    troubles: Vec<Trouble>,
    /// Whether something is left to do that could not be done.
    pending: bool,
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
        let put = self.nft.put_host(&self.host.wanted, self.settings.global.mark, scope);
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
        match self.nft.read_host(&self.host.wanted, self.settings.global.mark, Scope::Named) {
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

    /// Changes our table and, with it, the host's chains; adds what was done to these to `changes`.
    pub(super) fn apply_with_host(
        &mut self,
        changes: &mut Vec<Change>,
        host: Option<HostReading>,
    ) -> Result<(), BackendError> {
        let Some(host) = host.filter(|host| !host.plan.changes.is_empty()) else {
            return self.nft.apply(changes);
        };
        changes.extend(host.changes());
        self.host.pending = true;
        self.nft.apply_at(changes, Some(host.generation))?;
        self.host.pending = false;
        Ok(())
    }

    /// Says what is new about the host's chains.
    fn note(&mut self, plan: &HostPlan) {
        for trouble in plan.troubles.iter().filter(|trouble| !self.host.troubles.contains(trouble)) {
            tracing::warn!("{trouble}");
        }
        self.host.troubles.clone_from(&plan.troubles);
    }
}

/// Which of these changes concern our own table, and how many the host's.
pub(super) fn apart(changes: Vec<Change>) -> (Vec<Change>, usize) {
    let all = changes.len();
    let own: Vec<Change> = changes.into_iter().filter(|change| !matches!(change, Change::Host(_))).collect();
    let host = all - own.len();
    (own, host)
}
