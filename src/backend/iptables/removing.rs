//! Taking away what is not wanted any more.

use std::collections::BTreeSet;

use super::hidden::all_shown;
use super::{Iptables, IptablesError};
use crate::ruleset::iptables::restore::{TableChange, removal};
use crate::ruleset::iptables::save::Listing;
use crate::units::Family;

impl Iptables {
    /// Removes everything of ours: what opens first, the gates last, then the sets; false if there was nothing. What the
    /// other variant of iptables has goes too, as it asks the same sets.
    ///
    /// # Errors
    /// [`IptablesError`]; what was not removed is still there.
    pub fn teardown(&mut self) -> Result<bool, IptablesError> {
        let seen = self.observe()?.clone();
        all_shown(&seen.listings, None)?;
        self.in_force = None;
        let steps = removals(&seen.listings);
        self.carry_out(&steps)?;
        let mut removed = !steps.is_empty() || !seen.sets.is_empty();
        for other in self.tools.others() {
            // A kernel without the one or the other refuses even to list it.
            let Ok(listings) = other.listings() else { continue };
            for (family, change) in removals(&listings) {
                other.restore(family, &change.text)?;
                removed = true;
            }
        }
        let names: Vec<String> = seen.sets.keys().cloned().collect();
        self.destroy(&names)?;
        Ok(removed)
    }

    /// Destroys sets. One that somebody else's rule asks cannot be; it is emptied, so that it lets nobody in, and stays.
    pub(super) fn destroy(&mut self, names: &[String]) -> Result<(), IptablesError> {
        let each = |verb: &str| -> String { names.iter().map(|name| format!("{verb} {name}\n")).collect() };
        match self.tools.sets(&each("destroy")) {
            Err(IptablesError::Refused { .. }) => {}
            outcome => return outcome,
        }
        let there: BTreeSet<String> = self.tools.set_names()?.into_iter().collect();
        for name in names.iter().filter(|name| there.contains(*name)) {
            self.tools.sets(&format!("flush {name}\n"))?;
            if let Err(error) = self.tools.sets(&format!("destroy {name}\n")) {
                tracing::warn!(set = name, %error, "a set that is not needed any more cannot be removed: a rule that is none of ours asks it; it is empty now, and lets nobody in");
                self.in_use.insert(name.clone());
            }
        }
        Ok(())
    }
}

/// What removes everything of ours from tables: the gates of both families last.
fn removals(listings: &[Listing; 2]) -> Vec<(Family, TableChange)> {
    let mut steps = Vec::new();
    for (family, listing) in Family::BOTH.into_iter().zip(listings) {
        steps.extend(removal(listing).into_iter().map(|change| (family, change)));
    }
    steps.sort_by_key(|(_, change)| change.table == "mangle");
    steps
}
