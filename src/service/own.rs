//! This host's own addresses, where the kernel has not learned them from packets: in a table that was just made.
//!
//! Without them, a conversation that somebody forwards (a port published by Docker) would not be cut at the end of
//! its grant before somebody else began a new one with the same address.

use super::operations::Operations;
use crate::backend::Plan;
use crate::ruleset::allow::address_key;
use crate::ruleset::diff::{Change, Live, SetRef, makes_anew};
use crate::ruleset::model::{Element, Elements, Timeout};
use crate::ruleset::plan::{SPOKEN_MS, own_set};
use crate::sys::interfaces;
use crate::units::Family;

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
    /// Has the kernel know this host's addresses, of which it otherwise learns by packets.
    pub(super) fn make_addresses_known(&mut self, plan: &Plan) {
        let changes: Vec<Change> =
            Family::BOTH.into_iter().filter_map(|family| known(plan, family)).collect();
        if let Err(error) = self.firewall().apply(&changes) {
            tracing::warn!(%error, "the addresses of this host are not known before packets come to them");
        }
    }
}
