//! The last good plan: what is guarded when the configuration cannot say it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::allowed::replace;
use super::operations::TRIES;
use super::sealed::Kind;
pub use super::sealed::SealError;
use crate::backend::Kind as FirewallKind;
use crate::backend::{BackendError, Firewall, Plan};
use crate::config::Settings;
use crate::ruleset::allow::{self, Origin, Span};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::iptables::plan::Keeping;
use crate::ruleset::model::Elements;
use crate::ruleset::plan::allow_set;
use crate::sys::files;
use crate::units::{Family, Network};

pub(super) const KIND: Kind = Kind { name: "plan", version: 1, max_bytes: 16 << 20 };
const FILE: &str = "last-good-plan";

/// A plan that was in force, with the networks that need not knock: all it takes to guard without a
/// configuration. It holds the secret path of step 1.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastGood {
    ruleset: Plan,
    allow: Vec<AllowedByConfig>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowedByConfig {
    /// Slug of the app, or `all`.
    app: String,
    networks: Vec<Network>,
}

impl LastGood {
    /// A plan for these settings.
    #[must_use]
    pub fn of(settings: &Settings, plan: Plan) -> Self {
        let apps = settings.apps.iter().map(|app| (app.slug.as_str(), &app.allow));
        let allow = apps
            .chain([("all", &settings.global.allow)])
            .map(|(app, networks)| AllowedByConfig { app: app.to_owned(), networks: networks.clone() })
            .collect();
        Self { ruleset: plan, allow }
    }

    /// The rules and sets.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.ruleset
    }

    /// The kind of firewall that it is for.
    #[must_use]
    pub fn kind(&self) -> FirewallKind {
        self.ruleset.kind()
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// Reads what is kept in the state directory.
    ///
    /// # Errors
    /// [`SealError`] where there is none, or not exactly what was kept.
    pub fn read(state_dir: &Path) -> Result<Self, SealError> {
        KIND.open(&KIND.read_beside(&Self::path(state_dir))?)
    }

    /// Keeps it in the state directory, which is made if it is missing. Writes nothing where it is kept
    /// already.
    ///
    /// # Errors
    /// The reason; what was kept before is then still there.
    pub fn keep(&self, state_dir: &Path) -> io::Result<()> {
        let text = KIND.seal(self).map_err(io::Error::other)?;
        let path = Self::path(state_dir);
        if KIND.read_beside(&path).is_ok_and(|kept| kept == text) {
            return Ok(());
        }
        files::make_directory(state_dir, 0o700)?;
        files::replace(&path, 0o600, text.as_bytes())
    }

    /// Puts in place what closes, where the rest cannot be.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel would not.
    pub fn close(&self, firewall: &mut Firewall) -> Result<(), BackendError> {
        firewall.close(&self.ruleset)
    }

    /// Puts the plan in force, by the difference only; grants and what operators allowed stay. Returns how much was
    /// changed.
    ///
    /// # Errors
    /// [`BackendError`] when the kernel would not.
    pub fn install(&self, firewall: &mut Firewall) -> Result<usize, BackendError> {
        if let (Plan::Iptables(tables), Firewall::Iptables(iptables)) = (&self.ruleset, &*firewall)
            && !tables.ipsets.is_empty()
            && iptables.keeping() == Keeping::Recent
        {
            tracing::warn!("the plan was made for ipset, which is gone: nobody is let in");
            return firewall.install(&Plan::Iptables(tables.without_sets()));
        }
        let mut changes = firewall.install(&self.ruleset)?;
        let mut result = Ok(());
        for _ in 0..TRIES {
            let allowed = self.allowed_changes(&firewall.read()?.unwrap_or_default(), firewall);
            result = firewall.apply(&allowed);
            match &result {
                Ok(()) => {
                    changes += allowed.len();
                    return Ok(changes);
                }
                // What an operator allowed may have ended between being read and being replaced.
                Err(BackendError::Refused { .. }) => {}
                Err(_) => break,
            }
        }
        result.map(|()| changes)
    }

    fn allowed_changes(&self, live: &Live, firewall: &Firewall) -> Vec<Change> {
        let mut changes = Vec::new();
        for AllowedByConfig { app, networks: configured } in &self.allow {
            for family in Family::BOTH {
                let name = allow_set(app, family);
                let Some(have) = live.elements.get(&name) else { continue };
                let mut spans: Vec<Span> =
                    configured.iter().map(|&network| Span::configured(network)).collect();
                spans.extend(by_operators(have));
                let wanted = firewall.as_held(allow::elements(&spans, family));
                let set = SetRef { name, interval: true, concatenated: false };
                changes.extend(replace(&set, have, wanted, firewall.slack_ms()));
            }
        }
        changes
    }
}

fn by_operators(have: &Elements) -> Vec<Span> {
    have.iter()
        .filter_map(|(first, element)| {
            let origin = Origin::parse(element.comment.as_deref()).filter(|origin| !origin.by_config)?;
            let left_ms = element.timeout.map(|timeout| timeout.left_ms);
            let found = origin.networks(first, element.last.as_ref().unwrap_or(first));
            Some(found.into_iter().map(move |network| Span::by_operator(network, left_ms)))
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ruleset::plan::{arbitrary, plan};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_plan_is_read_as_it_was_written(
            settings in arbitrary::settings(),
            options in arbitrary::options(),
        ) {
            let wanted = Plan::Nftables(plan(&settings, options));
            let good = LastGood::of(&settings, wanted.clone());
            let text = KIND.seal(&good).unwrap();
            let read: LastGood = KIND.open(&text).unwrap();
            prop_assert_eq!(&read.ruleset, &wanted);
            prop_assert!(read == good);
        }

        #[test]
        fn a_damaged_plan_is_refused_and_harms_nobody(
            settings in arbitrary::settings(),
            options in arbitrary::options(),
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
            cut in any::<bool>(),
        ) {
            let mut bytes = KIND.seal(&LastGood::of(&settings, Plan::Nftables(plan(&settings, options)))).unwrap().into_bytes();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(KIND.open::<LastGood>(&text).is_err());
            }
        }
    }

    #[test]
    fn what_is_well_sealed_but_no_plan_is_refused() {
        for body in ["null", "[]", "{}", r#"{"ruleset":{"sets":[],"chains":[]}}"#] {
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            assert!(KIND.open::<LastGood>(&KIND.seal(&value).unwrap()).is_err(), "{body}");
        }
        let more = serde_json::json!({"ruleset": {"sets": [], "chains": []}, "allow": [], "table": "filter"});
        assert!(KIND.open::<LastGood>(&KIND.seal(&more).unwrap()).is_err());
    }
}
