//! This host's own addresses, where the kernel has not learned them from packets: in a table that was just made.
//!
//! Without them, a conversation that somebody forwards (a port published by Docker) would not be cut at the end of
//! its grant before somebody else began a new one with the same address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::operations::Operations;
use crate::backend::Plan;
use crate::ruleset::allow::{address_key, key_address};
use crate::ruleset::diff::{Change, Live, SetRef, makes_anew};
use crate::ruleset::model::{Element, Elements, Timeout};
use crate::ruleset::plan::{SPOKEN_MS, own_set};
use crate::sys::interfaces;
use crate::units::{Family, Now};

/// So many addresses are remembered: those of before are forgotten where there are more.
const MOST: usize = 4_096;
/// How long nobody looks anew.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The addresses that this host has or had lately: what came by one that is away for a moment (a lease that is renewed, a
/// link that flaps, a gateway that takes turns) goes on when it is back.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    seen: BTreeSet<IpAddr>,
    looked_at: Option<Duration>,
}

impl OwnAddresses {
    /// Remembers those that clients turned to, as the kernel knows them.
    pub(super) fn learn(&mut self, live: Option<&Live>) {
        let sets = Family::BOTH.into_iter().filter_map(|family| live?.elements.get(&own_set(family)));
        self.remember(sets.flat_map(addresses_in).collect());
    }

    /// Remembers those that there are now, where nobody has looked for a while.
    pub(super) fn look(&mut self, now: Now) {
        if self.looked_at.is_none_or(|at| now.boot >= at + LOOK_EVERY) {
            self.looked_at = Some(now.boot);
            self.remember(interfaces::addresses().unwrap_or_default());
        }
    }

    /// All that are remembered.
    pub(super) fn all(&self) -> BTreeSet<IpAddr> {
        self.seen.clone()
    }

    fn remember(&mut self, addresses: Vec<IpAddr>) {
        self.seen.extend(&addresses);
        if self.seen.len() > MOST {
            self.seen = addresses.into_iter().take(MOST).collect();
        }
    }
}

fn addresses_in(elements: &Elements) -> Vec<IpAddr> {
    elements.keys().filter_map(|key| key_address(key)).collect()
}

/// The change that has the set of one family know the addresses that this host has now; none where the plan has no
/// such set.
///
/// Addresses it gets later are learned from their first packets.
pub(super) fn known(plan: &Plan, family: Family) -> Option<Change> {
    if !matches!(plan, Plan::Nftables(ruleset) if ruleset.set(&own_set(family)).is_some()) {
        return None;
    }
    let addresses = interfaces::addresses().unwrap_or_else(|error| {
        tracing::warn!(%error, "the addresses of this host are not known before packets come to them");
        Vec::new()
    });
    let element = Element { timeout: Some(Timeout::fresh_ms(SPOKEN_MS)), ..Element::default() };
    let elements: Elements = addresses
        .into_iter()
        .filter(|&addr| Family::of(addr) == family)
        .map(|addr| (address_key(addr), element.clone()))
        .collect();
    let set = SetRef::plain(own_set(family));
    (!elements.is_empty()).then_some(Change::AddElements { set, elements })
}

/// Whether what the kernel learned from packets is lost when the plan is put in force over what is live.
pub(super) fn is_forgotten(live: Option<&Live>, plan: &Plan) -> bool {
    match plan {
        Plan::Nftables(wanted) => live.is_none_or(|live| makes_anew(live, wanted)),
        Plan::Iptables(_) => false,
    }
}

impl Operations {
    /// The addresses that this host has or had.
    pub(super) fn own_addresses(&mut self) -> BTreeSet<IpAddr> {
        for set in Family::BOTH.map(|family| SetRef::plain(own_set(family))) {
            match self.firewall.elements(&set) {
                Ok(elements) => self.own.remember(addresses_in(&elements)),
                Err(error) => tracing::debug!(%error, "the addresses that clients turned to are not known"),
            }
        }
        self.own.all()
    }

    /// Has the kernel know this host's addresses, of which it otherwise learns by packets.
    pub(super) fn make_addresses_known(&mut self, plan: &Plan) {
        let changes: Vec<Change> =
            Family::BOTH.into_iter().filter_map(|family| known(plan, family)).collect();
        if let Err(error) = self.firewall().apply(&changes) {
            tracing::warn!(%error, "the addresses of this host are not known before packets come to them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_away_is_remembered_until_there_are_too_many() {
        let addr = |n: u32| IpAddr::from(n.to_be_bytes());
        let [here, gone] = [addr(1), addr(2)];
        let mut own = OwnAddresses::default();
        own.remember(vec![here, gone]);
        own.remember(vec![here]);
        assert_eq!(own.all(), BTreeSet::from([here, gone]));
        for n in 3..10_000 {
            own.remember(vec![here, addr(n)]);
        }
        assert!(own.all().len() <= MOST && own.all().contains(&here));

        let elements = Elements::from([(address_key(gone), Element::default())]);
        let mut live = Live::default();
        live.elements.insert(own_set(Family::V4), elements);
        let mut own = OwnAddresses::default();
        own.learn(None);
        own.learn(Some(&live));
        assert_eq!(own.all(), BTreeSet::from([gone]));
    }
}
