//! Which run of the kernel sets were made in: what `ipset save` wrote in another one, and somebody loaded at boot, lets in
//! who was let in then.

use std::collections::BTreeMap;

use crate::ruleset::iptables::elements::{self, signed};
use crate::ruleset::iptables::save::ListedSet;
use crate::sys::kernel;

/// The set that is always there.
const ALWAYS: &str = "ka_allow_all_4";

/// The word for this run of the kernel that sets are signed with; none where the kernel does not say.
#[derive(Clone, Debug)]
pub(super) struct Boot(Option<String>);

impl Boot {
    pub(super) fn this() -> Self {
        Self(kernel::boot_id().ok().map(|id| format!("boot {id}")))
    }

    /// Takes everything out of sets that were made in another run of the kernel; whether they were. Those of versions that
    /// signed nothing are believed: an upgrade ends no grant.
    pub(super) fn disown(&self, sets: &mut BTreeMap<String, ListedSet>) -> bool {
        let another = self.is_another(sets);
        if another {
            sets.values_mut().for_each(|set| set.elements.clear());
        }
        another
    }

    fn is_another(&self, sets: &BTreeMap<String, ListedSet>) -> bool {
        let sign = sets.get(ALWAYS).and_then(elements::sign);
        self.0.as_deref().zip(sign).is_some_and(|(word, sign)| word != sign)
    }

    /// Whether the sign is missing in a set that can have one.
    pub(super) fn is_missing(&self, set: &ListedSet) -> bool {
        self.0.is_some() && elements::sign(set).is_none()
    }

    /// Commands for ipset that sign what they make.
    pub(super) fn sign(&self, commands: String) -> String {
        match &self.0 {
            Some(word) => signed(&commands, word),
            None => commands,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::iptables::save::sets;

    const SAVED: &str = "create ka_allow_all_4 hash:net family inet maxelem 65536 timeout 0 comment\nadd ka_allow_all_4 224.0.0.0 timeout 0\n";

    #[test]
    fn sets_of_another_boot_are_told_from_those_of_this_and_of_older_versions() {
        let [this, other] = ["boot a", "boot b"].map(|word| Boot(Some(word.to_owned())));
        let found = |text: &str| sets(text);
        let unsigned = found(SAVED);
        assert!(!this.is_another(&unsigned) && this.is_missing(&unsigned[ALWAYS]));
        let signed = found(&other.sign(SAVED.to_owned()));
        assert!(this.is_another(&signed) && !this.is_missing(&signed[ALWAYS]));
        assert!(!other.is_another(&signed));
        assert!(!Boot(None).is_another(&signed) && !Boot(None).is_missing(&unsigned[ALWAYS]));
        assert_eq!(Boot(None).sign(SAVED.to_owned()), SAVED);
    }
}
