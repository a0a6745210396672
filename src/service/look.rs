//! Where nobody tells of changes that others make (iptables, ipset): looking for them.

use super::host_chains::Repaired;
use super::operations::{OperationError, Operations};
use super::own;
use crate::backend::HostReading;
use crate::ruleset::diff::Live;
use crate::ruleset::plan::own_set;
use crate::units::{Family, Now};

impl Operations {
    /// Looks what others did where nobody tells, and puts it right; returns how much had to be done. A grant that
    /// is gone from a set that is there was taken back by somebody.
    ///
    /// # Errors
    /// As [`Operations::repair`].
    pub fn look(&mut self, now: Now) -> Result<Repaired, OperationError> {
        self.ledger.expire(now);
        let live = self.firewall.read()?;
        if let Some(live) = &live {
            self.take_back_gone(live, now);
        }
        let slept = self.has_slept();
        let mended = self.mend(live.as_ref(), slept, None, now)?;
        self.slept_off();
        Ok(mended)
    }

    /// Makes it what the ledger and the settings say, given what is live.
    pub(super) fn mend(
        &mut self,
        live: Option<&Live>,
        removed: bool,
        host: Option<HostReading>,
        now: Now,
    ) -> Result<Repaired, OperationError> {
        let lost = |set: &str| removed || live.is_none_or(|live| live.ruleset.set(set).is_none());
        let wanted = self.firewall.plan(&self.settings, self.options)?;
        let mut more = Vec::new();
        for grants in self.grant_sets() {
            for family in Family::BOTH {
                if lost(&grants.set(family)) {
                    more.extend(self.regrant(&grants, family, now));
                }
            }
        }
        let forgotten = own::is_forgotten(live, &wanted);
        if wanted.adopts() {
            more.extend(self.adopted.restored(|set| forgotten || lost(set), now));
        }
        let own = Family::BOTH.into_iter().filter(|&family| forgotten || lost(&own_set(family)));
        more.extend(own.filter_map(|family| own::known(&wanted, family)));
        let none = Live::default();
        let have = live.unwrap_or(&none);
        more.extend(self.allowed_changes(have, now));
        more.extend(self.sleep_taken_off(have));
        let repaired = self.mend_with_host(live, &wanted, more, host)?;
        if !removed {
            self.adopt_grants(have, now);
            self.adopted.learn(have, now);
        }
        if repaired.own > 0 {
            self.end_claimed(now);
            self.end_strangers(now);
        }
        Ok(repaired)
    }
}
