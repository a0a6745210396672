//! Tables that iptables-nft does not show: somebody put a rule of nftables there for which it has no words. What of ours is in
//! them cannot be told, and what was written there once more would be there twice.

use super::steps::{set_changes, steps};
use super::{Iptables, IptablesError};
use crate::backend::nftables::Nftables;
use crate::ruleset::iptables::model::Tables;
use crate::ruleset::iptables::names;
use crate::ruleset::iptables::save::Listing;
use crate::units::Family;

/// Whether all is shown that this plan has to do with; without one, all that is ours.
///
/// # Errors
/// [`IptablesError::Hidden`] names the first table that is not.
pub(super) fn all_shown(listings: &[Listing; 2], wanted: Option<&Tables>) -> Result<(), IptablesError> {
    for (family, listing) in Family::BOTH.into_iter().zip(listings) {
        let asked = |name: &str| {
            wanted.is_some_and(|wanted| wanted.of(family).iter().any(|table| table.name == name))
        };
        if let Some(table) = listing.hidden.iter().find(|name| asked(name) || has_ours(family, name)) {
            return Err(IptablesError::Hidden { family: word(family), table: table.clone() });
        }
    }
    Ok(())
}

/// Whether the rules that close are there, in each of these families that this host has.
///
/// # Errors
/// [`IptablesError::Hidden`] where that cannot be told.
pub(super) fn closes(
    listings: &[Listing; 2],
    asked: &[Family],
    has_ipv6: bool,
) -> Result<bool, IptablesError> {
    let mut all = true;
    for (family, listing) in Family::BOTH.into_iter().zip(listings).filter(|(f, _)| asked.contains(f)) {
        if listing.hidden.contains("mangle") {
            return Err(IptablesError::Hidden { family: word(family), table: "mangle".to_owned() });
        }
        let none = family == Family::V6 && !has_ipv6 && *listing == Listing::default();
        all &= none || listing.is_whole();
    }
    Ok(all)
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Whether the kernel has a chain of ours there; where it does not tell, it may.
fn has_ours(family: Family, table: &str) -> bool {
    let stem = match table {
        "mangle" => "gate",
        "filter" => "mark_out",
        "raw" => "raw_in",
        _ => "dstnat",
    };
    let number = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    Nftables::open().and_then(|mut nft| nft.has_chain(number, table, &names::chain(stem))).unwrap_or(true)
}

impl Iptables {
    /// Puts the gates in place, which close, as far as the tables they are in can be told, and nothing else.
    ///
    /// # Errors
    /// [`IptablesError`].
    pub fn close(&mut self, wanted: &Tables) -> Result<(), IptablesError> {
        if !wanted.is_sound() {
            return Err(IptablesError::OtherPlan);
        }
        self.observe()?;
        self.close_over(wanted)
    }

    /// The same over what was read just now.
    pub(super) fn close_over(&self, wanted: &Tables) -> Result<(), IptablesError> {
        let [v4, v6] = &self.seen.listings;
        let mut gates = steps(&self.seen, wanted);
        gates.retain(|(family, change)| {
            let listing = if *family == Family::V4 { v4 } else { v6 };
            change.table == "mangle" && !listing.hidden.contains("mangle")
        });
        if gates.is_empty() {
            return Ok(());
        }
        self.tools.sets(&set_changes(&self.seen, wanted, &self.tools.boot))?;
        self.carry_out(&gates)
    }
}
