//! When it is not known any more what is in the kernel: events were lost, an answer was not read, the host slept.

use std::net::IpAddr;
use std::time::Duration;

use super::operations::Operations;
use super::state::ms;
use crate::backend::Firewall;
use crate::ruleset::allow::address_key;
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::model::{ONCE_SETS, Set};
use crate::ruleset::plan::step2_set;
use crate::sys::clock::Slept;
use crate::units::{Family, Now};

/// What has no longer than this may have ended by itself already.
const ENDING: Duration = Duration::from_secs(2);

/// What tells that the kernel may have something else than the ledger says.
#[derive(Debug)]
pub(super) struct Doubt {
    /// The kernel's number for the table that the ledger speaks of; none where it is not known.
    table: Option<u64>,
    /// Whether grants may have been taken back without anybody telling.
    unheard: bool,
    slept: Slept,
    /// How long the host slept since what is in the kernel was put right, if it did.
    overlong: Option<Duration>,
}

impl Default for Doubt {
    fn default() -> Self {
        Self { table: None, unheard: false, slept: Slept::until_now(), overlong: None }
    }
}

impl Operations {
    /// Notes that something may have happened to the grants in the kernel of which nobody told.
    pub(super) fn doubt_grants(&mut self) {
        self.doubt.unheard = true;
    }

    /// Whether that is so, or the outcome of a change is not known.
    pub(super) fn is_in_doubt(&mut self) -> bool {
        self.doubt.unheard |= self.firewall.take_unsure();
        self.doubt.unheard
    }

    /// Whether the host has slept since what is in the kernel was last put right: its timeouts stood still meanwhile, so that
    /// all of it lasts too long.
    pub(super) fn has_slept(&mut self) -> bool {
        let now = Slept::until_now();
        if now.is_longer_than(&self.doubt.slept) {
            let before = self.doubt.overlong.unwrap_or_default();
            self.doubt.overlong = Some(before + now.since(&self.doubt.slept));
        }
        self.doubt.slept = now;
        self.doubt.overlong.is_some()
    }

    /// What is in the kernel lasts as long as it is to again.
    pub(super) fn slept_off(&mut self) {
        self.doubt.overlong = None;
    }

    /// Takes the time that the host slept off what the ledger does not know: who came in by a door that closed behind it, and who
    /// may begin step 2.
    pub(super) fn sleep_taken_off(&self, live: &Live) -> Vec<Change> {
        let Some(slept) = self.doubt.overlong.filter(|_| matches!(self.firewall, Firewall::Nftables(_)))
        else {
            return Vec::new();
        };
        let is_meant = |name: &str| {
            name.starts_with(ONCE_SETS) || Family::BOTH.iter().any(|&family| *name == step2_set(family))
        };
        let shortened = |set: &Set| {
            let mut elements = live.elements.get(&set.name)?.clone();
            for timeout in elements.values_mut().filter_map(|element| element.timeout.as_mut()) {
                // What is over goes by itself: removing what has gone meanwhile would fail.
                timeout.left_ms = timeout.left_ms.saturating_sub(ms(slept)).max(1);
            }
            (!elements.is_empty()).then(|| Change::RenewElements { set: SetRef::from(set), elements })
        };
        live.ruleset.sets.iter().filter(|set| is_meant(&set.name)).filter_map(shortened).collect()
    }

    /// Remembers that it is this one whose grants the ledger knows.
    pub(super) fn know_table_of(&mut self, live: &Live) {
        self.doubt.table = Some(live.handle);
    }

    /// Remembers which table it is whose grants the ledger knows.
    pub(super) fn know_table(&mut self) {
        self.doubt.table = self.firewall.handle().ok().flatten();
    }

    /// Whether the ledger says what belongs into the table: it is another one than that of the ledger, whatever somebody put
    /// into it, or somebody loaded into it what he once saved. Else what nobody told of shows in what is missing, and is taken
    /// back.
    pub(super) fn settle_doubt(&mut self, live: Option<&Live>, now: Now) -> bool {
        let unheard = std::mem::take(&mut self.doubt.unheard);
        let known = |live: &Live| !live.loaded && self.doubt.table.is_none_or(|table| table == live.handle);
        match live {
            Some(live) if known(live) => {
                if unheard {
                    self.take_back_gone(live, now);
                }
                false
            }
            Some(_) | None => true,
        }
    }

    /// A grant that is gone from a set that is there was taken back by somebody.
    pub(super) fn take_back_gone(&mut self, live: &Live, now: Now) {
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
}
