//! Where nobody tells of changes that others make (iptables, ipset): looking for them.

use std::net::IpAddr;
use std::time::Duration;

use super::host_chains::Repaired;
use super::operations::{OperationError, Operations};
use super::own;
use crate::backend::HostReading;
use crate::ruleset::allow::address_key;
use crate::ruleset::diff::Live;
use crate::ruleset::plan::own_set;
use crate::units::{Family, Now};

/// What has no longer than this may have ended by itself already.
const ENDING: Duration = Duration::from_secs(2);

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
            let sets = self.grant_sets();
            let gone: Vec<(String, IpAddr)> = self
                .ledger
                .longest(now)
                .filter(|(app, addr, _, left, _)| {
                    let Some(set) = sets.iter().find(|set| set.key == *app) else { return false };
                    let set = set.set(Family::of(*addr));
                    let elements = live.ruleset.set(&set).and_then(|_| live.elements.get(&set));
                    *left > ENDING && elements.is_some_and(|all| !all.contains_key(&address_key(*addr)))
                })
                .map(|(app, addr, ..)| (app.to_owned(), addr))
                .collect();
            for (app, address) in gone {
                tracing::info!(app, %address, "somebody removed a grant: it is taken back");
                self.ledger.revoke(&app, address);
            }
            for (set, key) in self.networks_gone(live, now) {
                tracing::info!(
                    set,
                    "somebody removed an allowed network: what an operator allowed is taken back"
                );
                self.on_network_removed(&set, &key, now);
            }
        }
        self.mend(live.as_ref(), false, None, now)
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
        let repaired = self.mend_with_host(live, &wanted, more, host)?;
        if !removed {
            self.adopt_grants(have, now);
            self.adopted.learn(have, now);
        }
        Ok(repaired)
    }
}
