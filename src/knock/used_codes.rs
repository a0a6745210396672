use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::units::UsedSteps;

/// Secrets remembered that nobody has any more: whoever is removed or disabled may come back with the next reload.
const GONE: usize = 1_024;

/// Codes and proofs that are used up, by names that tell nothing of their secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsedUp {
    /// The time steps of the codes of each secret.
    pub codes: BTreeMap<String, Vec<u64>>,
    /// Up to which time step all codes of a secret count as used, where there was no room for all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub codes_upto: BTreeMap<String, u64>,
    /// The proofs.
    pub proofs: Vec<String>,
    /// No proof of an earlier time step is taken.
    #[serde(default)]
    pub proofs_from: u64,
    /// When it was not known what is used up, in milliseconds on the clock that never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubted_ms: Option<u64>,
    /// Until when everything counts as used, by the calendar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_until: Option<SystemTime>,
    /// From where right codes of each secret came: those are not held back there.
    #[serde(default)]
    pub own: BTreeMap<String, Vec<OwnSite>>,
    /// For which grants a code was given; earlier versions did not write it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proved: Vec<Proved>,
}

/// A grant for which a one-time code was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proved {
    /// The app.
    pub app: String,
    /// The address.
    pub address: IpAddr,
    /// Whose it is.
    pub by: String,
    /// The secrets of the codes, by their names.
    pub secrets: BTreeSet<String>,
    /// When it is over, in milliseconds on the clock that never goes back.
    pub until_ms: u64,
}

/// An address from which a right code came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnSite {
    /// The address, or the network of an IPv6 site by its first address.
    pub site: String,
    /// When the last code came, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The time steps whose codes have been accepted, by the secret's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UsedCodes(BTreeMap<String, UsedSteps>);

impl UsedCodes {
    pub(crate) fn contains(&self, secret: &str, step: u64) -> bool {
        self.0.get(secret).is_some_and(|steps| steps.contains(step))
    }

    pub(crate) fn remember(&mut self, secret: &str, step: u64) {
        self.0.entry(secret.to_owned()).or_default().remember(step);
    }

    /// Counts all codes of a secret up to a time step as used.
    pub(crate) fn forget_upto(&mut self, secret: &str, step: u64) {
        self.0.entry(secret.to_owned()).or_default().forget_upto(Some(step));
    }

    /// Up to which step that is so, where there was no room for all.
    pub(crate) fn upto(&self) -> BTreeMap<String, u64> {
        self.0.iter().filter_map(|(secret, steps)| Some((secret.clone(), steps.upto()?))).collect()
    }

    pub(crate) fn list(&self) -> BTreeMap<String, Vec<u64>> {
        self.0.iter().map(|(secret, steps)| (secret.clone(), steps.iter().collect())).collect()
    }

    /// Forgets secrets that nobody has, where there are too many of them.
    pub(crate) fn tidy(&mut self, known: &[&str]) {
        if self.0.len() > known.len() + GONE {
            self.0.retain(|secret, _| known.contains(&secret.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_codes_are_remembered_within_bounds() {
        let mut used = UsedCodes::default();
        for step in 0..200 {
            used.remember("a", step);
            used.remember("a", step);
        }
        assert!((0..200).all(|step| used.contains("a", step) && !used.contains("b", step)));
        assert_eq!((used.list()["a"].len(), used.upto()["a"]), (64, 135));
        let mut restarted = UsedCodes::default();
        restarted.forget_upto("a", 135);
        assert!(restarted.contains("a", 135) && !restarted.contains("a", 136));
    }

    #[test]
    fn of_many_secrets_that_are_gone_none_is_kept() {
        let mut used = UsedCodes::default();
        for secret in 0..=GONE {
            used.remember(&secret.to_string(), 7);
        }
        used.tidy(&["5"]);
        assert_eq!(used.list().len(), GONE + 1);
        used.remember("one more", 7);
        used.tidy(&["5"]);
        assert_eq!(used.list().keys().collect::<Vec<_>>(), ["5"]);
    }
}
