//! Networks that need not knock, as the configuration and operators allow them.

use std::collections::BTreeSet;
use std::time::Duration;

use super::operation_error::is_reached_from;
use super::operations::{OperationError, Operations, TRIES};
use super::shut_out::ShutOut;
use super::status::{Kind, Row, services};
use crate::backend::BackendError;
use crate::grant::How;
use crate::ruleset::allow::{self, Origin, Span, key_address};
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::model::{Element, Elements};
use crate::ruleset::plan::allow_set;
use crate::units::{Family, Lifetime, Network, Now};

/// Networks that operators may allow at a time: each change looks at all of them.
const MOST: usize = 4_096;

/// A network an operator allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) network: Network,
    /// Slug of the app; none: every app.
    pub(super) app: Option<String>,
    /// On the clock that never goes back; none: for ever.
    pub(super) until: Option<Duration>,
}

/// How long a network is allowed, whoever allowed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lasting {
    /// By operators; none: until it is flushed.
    pub(super) left: Option<Duration>,
    /// Whether the configuration allows it, too.
    pub(super) by_config: bool,
}

impl Operations {
    pub(super) fn adopt_allowed(&mut self, live: &Live, now: Now) {
        let apps = self.settings.apps.iter().map(|app| Some(app.slug.clone()));
        let apps: Vec<Option<String>> = apps.chain([None]).collect();
        for app in apps {
            for family in Family::BOTH {
                let set = allow_set(app.as_deref().unwrap_or("all"), family);
                for (first, element) in live.elements.get(&set).into_iter().flatten() {
                    let origin = Origin::parse(element.comment.as_deref());
                    let Some(origin) = origin.filter(|origin| !origin.by_config) else { continue };
                    let last = element.last.as_ref().unwrap_or(first);
                    let until = element.timeout.map(|t| now.boot + Duration::from_millis(t.left_ms));
                    for network in origin.networks(first, last) {
                        self.remember(Allowed { network, app: app.clone(), until });
                    }
                }
            }
        }
    }

    /// The same network again replaces itself, unless it lasts longer as it is.
    pub(super) fn remember(&mut self, new: Allowed) {
        let lasts = |until: Option<Duration>| until.unwrap_or(Duration::MAX);
        let same = |a: &Allowed| a.network == new.network && a.app == new.app;
        if !self.allowed.iter().any(|have| same(have) && lasts(have.until) >= lasts(new.until)) {
            self.allowed.retain(|have| !same(have));
            self.allowed.push(new);
        }
    }

    /// Allows a network to reach an app, or all of them; where networks overlap, the longest time wins. Returns which
    /// time that is.
    ///
    /// # Errors
    /// [`OperationError`]; nothing was opened then.
    pub(super) fn allow(
        &mut self,
        network: Network,
        app: Option<&str>,
        lifetime: Option<Lifetime>,
        now: Now,
    ) -> Result<Lasting, OperationError> {
        let app = app.map(|name| self.app(name)).transpose()?;
        if let Some(app) = app {
            is_reached_from(app, network)?;
        }
        let app = app.map(|app| app.slug.clone());
        let until = lifetime.map(|lifetime| now.boot + lifetime.as_duration());
        let new = Allowed { network, app: app.clone(), until };
        self.expire_allowed(now);
        if !has_room(&self.allowed, &new) {
            return Err(OperationError::TooManyNetworks(MOST));
        }
        let before = self.allowed.clone();
        self.remember(new);
        self.sync_allowed(now).inspect_err(|_| self.allowed = before)?;
        Ok(self.lasting(network, app.as_deref(), now))
    }

    /// The networks of operators of which the kernel has nothing, as the configuration or a longer permission is around
    /// them in these rows: they go on where that one is taken away.
    pub(super) fn covered(&self, rows: &[Row], live: &Live, now: Now) -> Vec<Row> {
        let names = self.names();
        let rows = rows.iter().filter(|row| row.kind == Kind::Allow);
        let told: BTreeSet<(&str, &str, &str)> =
            rows.clone().map(|row| (row.app.as_str(), row.address.as_str(), row.how.as_str())).collect();
        let wide: Vec<(&str, Network)> =
            rows.filter_map(|row| Some((row.app.as_str(), row.address.parse().ok()?))).collect();
        let left = |have: &Allowed| have.until.map(|until| until.saturating_sub(now.boot));
        let how = How::Operator.word();
        let hidden =
            self.allowed.iter().filter(|have| left(have) != Some(Duration::ZERO)).filter_map(|have| {
                let slug = have.app.as_deref();
                let app = slug.map_or("*", |slug| names.get(slug).map_or(slug, String::as_str));
                let address = have.network.to_string();
                let covers = |(of, network): &(&str, Network)| *of == app && network.holds(have.network);
                if told.contains(&(app, address.as_str(), how)) || !wide.iter().any(covers) {
                    return None;
                }
                let time = left(have).map(|left| left.as_secs());
                Some(Row {
                    kind: Kind::Allow,
                    app: app.to_owned(),
                    address,
                    services: slug.map(|slug| services(live, slug)).unwrap_or_default(),
                    expires_in_s: time.map(|secs| f64::from(u32::try_from(secs).unwrap_or(u32::MAX))),
                    lifetime_s: time,
                    by: String::new(),
                    how: how.to_owned(),
                })
            });
        hidden.collect()
    }

    fn lasting(&self, network: Network, app: Option<&str>, now: Now) -> Lasting {
        let around = |wide: Network| wide.holds(network);
        let counts =
            |have: &&Allowed| around(have.network) && (have.app.is_none() || have.app.as_deref() == app);
        let ends = self.allowed.iter().filter(counts).map(|have| have.until.unwrap_or(Duration::MAX));
        let until = ends.max().filter(|until| *until < Duration::MAX);
        let own = self.settings.apps.iter().filter(|own| Some(own.slug.as_str()) == app);
        let mut configured = own.flat_map(|own| &own.allow).chain(&self.settings.global.allow);
        Lasting {
            left: until.map(|until| until.saturating_sub(now.boot)),
            by_config: configured.any(|wide| around(*wide)),
        }
    }

    /// Forgets the networks that operators allowed, for one app or all; those of the configuration stay.
    /// Returns how many.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub fn flush_allowed(&mut self, app: Option<&str>, now: Now) -> Result<usize, OperationError> {
        let slug = app.map(|name| self.app(name).map(|app| app.slug.clone())).transpose()?;
        self.expire_allowed(now);
        let before = self.allowed.clone();
        self.allowed.retain(|have| slug.is_some() && have.app != slug);
        let gone: Vec<_> = before.iter().filter(|had| !self.allowed.contains(had)).cloned().collect();
        let count = gone.len();
        match self.sync_allowed(now) {
            // Somebody removed the rules a moment ago: what is put back is what is allowed by then.
            Ok(()) | Err(OperationError::NoTable) => {}
            Err(error) => {
                self.allowed = before;
                return Err(error);
            }
        }
        self.on_trial.emptied(|before| match &slug {
            None => before.sets(true),
            Some(slug) => Family::BOTH.map(|family| allow_set(slug, family)).into(),
        });
        self.cut_open(&ShutOut::networks(gone.into_iter().map(|had| (had.app, had.network)).collect()));
        Ok(count)
    }

    /// Makes the kernel's sets what the configuration and the operators allow.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not.
    pub fn sync_allowed(&mut self, now: Now) -> Result<(), OperationError> {
        self.expire_allowed(now);
        let mut result = Ok(());
        let apps = self.settings.apps.iter().map(|app| app.slug.as_str());
        let sets: BTreeSet<String> =
            apps.chain(["all"]).flat_map(|app| Family::BOTH.map(|family| allow_set(app, family))).collect();
        for _ in 0..TRIES {
            let live = self.firewall.read_sets(|set| sets.contains(set))?.ok_or(OperationError::NoTable)?;
            let changes = self.allowed_changes(&live, now);
            result = self.firewall.apply(&changes);
            if !matches!(result, Err(BackendError::Refused { .. })) {
                break;
            }
        }
        Ok(result?)
    }

    pub(super) fn allowed_changes(&self, live: &Live, now: Now) -> Vec<Change> {
        let global = (None, &self.settings.global.allow);
        let apps = self.settings.apps.iter().map(|app| (Some(app.slug.as_str()), &app.allow));
        let mut changes = Vec::new();
        for (app, configured) in apps.chain([global]) {
            let spans = self.spans(app, configured, now);
            for family in Family::BOTH {
                let name = allow_set(app.unwrap_or("all"), family);
                let wanted = self.firewall.as_held(allow::elements(&spans, family));
                let empty = Elements::new();
                let have = live.elements.get(&name).unwrap_or(&empty);
                let set = SetRef { name, interval: true, concatenated: false };
                changes.extend(replace(&set, have, wanted, self.firewall.slack_ms()));
            }
        }
        changes
    }

    /// The elements that should be in sets which are there, and are not.
    pub(super) fn networks_gone(&self, live: &Live, now: Now) -> Vec<(String, Vec<u8>)> {
        let global = (None, &self.settings.global.allow);
        let apps = self.settings.apps.iter().map(|app| (Some(app.slug.as_str()), &app.allow));
        let mut out = Vec::new();
        for (app, configured) in apps.chain([global]) {
            let spans = self.spans(app, configured, now);
            for family in Family::BOTH {
                let set = allow_set(app.unwrap_or("all"), family);
                let Some(have) = live.ruleset.set(&set).and_then(|_| live.elements.get(&set)) else {
                    continue;
                };
                let ending = |element: &Element| {
                    element.timeout.is_some_and(|left| left.left_ms <= self.firewall.slack_ms())
                };
                let wanted = self.firewall.as_held(allow::elements(&spans, family));
                let gone =
                    wanted.into_iter().filter(|(key, element)| !ending(element) && !have.contains_key(key));
                out.extend(gone.map(|(key, _)| (set.clone(), key)));
            }
        }
        out
    }

    fn spans(&self, app: Option<&str>, configured: &[Network], now: Now) -> Vec<Span> {
        let mut spans: Vec<Span> = configured.iter().map(|&network| Span::configured(network)).collect();
        spans.extend(self.allowed.iter().filter(|have| have.app.as_deref() == app).map(|have| {
            let left = have.until.map(|until| until.saturating_sub(now.boot));
            let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            Span::by_operator(have.network, left_ms)
        }));
        spans
    }

    /// Takes note that somebody removed an element from a set of allowed networks: what an operator allowed is taken
    /// back, as far as the element went, also what lay under the configuration's. What that allows, it goes on allowing.
    pub(super) fn on_network_removed(&mut self, set: &str, key: &[u8], now: Now) {
        let global = (None, &self.settings.global.allow);
        let apps = self.settings.apps.iter().map(|app| (Some(app.slug.as_str()), &app.allow));
        let Some(family) = key_address(key).map(Family::of) else { return };
        let named = |app: Option<&str>| allow_set(app.unwrap_or("all"), family) == set;
        let Some((app, configured)) = apps.chain([global]).find(|&(app, _)| named(app)) else { return };
        let pieces = self.firewall.as_held(allow::elements(&self.spans(app, configured, now), family));
        let Some(piece) = pieces.get(key) else { return };
        if Origin::parse(piece.comment.as_deref()).is_none() {
            return;
        }
        let last = piece.last.as_deref().unwrap_or(key);
        let app = app.map(str::to_owned);
        self.allowed = std::mem::take(&mut self.allowed)
            .into_iter()
            .flat_map(|have| match have.app == app {
                true => allow::without(have.network, key, last)
                    .into_iter()
                    .map(|network| Allowed { network, ..have.clone() })
                    .collect(),
                false => vec![have],
            })
            .collect();
    }
}

/// Whether one more may be allowed; one that is there takes its own place.
fn has_room(allowed: &[Allowed], new: &Allowed) -> bool {
    allowed.len() < MOST || allowed.iter().any(|have| have.network == new.network && have.app == new.app)
}

/// Removes what is not wanted before adding what is not there; times up to `slack_ms` apart are the same.
pub(super) fn replace(set: &SetRef, have: &Elements, want: Elements, slack_ms: u64) -> Vec<Change> {
    let same = |a: &Element, b: &Element| {
        let times = match (a.timeout, b.timeout) {
            (None, None) => true,
            (Some(a), Some(b)) => a.left_ms.abs_diff(b.left_ms) <= slack_ms,
            (None, Some(_)) | (Some(_), None) => false,
        };
        times && a.last == b.last && a.comment == b.comment
    };
    let only = |a: &Elements, b: &Elements| -> Elements {
        let missing =
            |key: &Vec<u8>, element: &Element| !b.get(key).is_some_and(|other| same(element, other));
        a.iter().filter(|(key, element)| missing(key, element)).map(|(k, e)| (k.clone(), e.clone())).collect()
    };
    let (gone, new) = (only(have, &want), only(&want, have));
    let mut out = Vec::new();
    if !gone.is_empty() {
        out.push(Change::DeleteElements { set: set.clone(), elements: gone });
    }
    if !new.is_empty() {
        out.push(Change::AddElements { set: set.clone(), elements: new });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_allow_only_so_many_networks_at_a_time() {
        let network = |n: usize| Network::host(std::net::Ipv4Addr::from(u32::try_from(n).unwrap()).into());
        let allowed = |n| Allowed { network: network(n), app: Some("ssh".to_owned()), until: None };
        let mut all: Vec<Allowed> = (1..MOST).map(allowed).collect();
        assert!(has_room(&all, &allowed(MOST)));
        all.push(allowed(MOST));
        assert!(!has_room(&all, &allowed(MOST + 1)) && !has_room(&all, &Allowed { app: None, ..allowed(1) }));
        assert!(has_room(&all, &Allowed { until: Some(Duration::MAX), ..allowed(1) }), "a longer time");
    }
}
