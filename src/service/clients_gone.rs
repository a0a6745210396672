//! Clients of knocks that change with time who are no more, and apps that have moved to other ports: what was opened by
//! them, or for those, ends with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::bare;
use super::knocked::{GrantSet, name, slug_of};
use super::operations::{OperationError, Operations};
use super::shut_out::ShutOut;
use super::used_knocks::Opened;
use crate::config::{App, KnockSequence, Settings};
use crate::grant::{How, Note};
use crate::ruleset::allow::key_address;
use crate::ruleset::diff::{Change, Live, SetRef};
use crate::ruleset::expr::Expr;
use crate::ruleset::model::Elements;
use crate::ruleset::plan::app_set;
use crate::units::{Family, Now};

/// Who may not open which app any more, by its slug.
pub(super) type ClientsGone = BTreeMap<String, BTreeSet<String>>;

/// Slugs of apps that have none of their ports any more: what was granted is not there.
pub(super) type Moved = BTreeSet<String>;

/// Grants that end: by what name the ledger keeps them, and the address.
pub(super) type Ended = Vec<(String, IpAddr)>;

/// Those who could before, and cannot now, or by another secret.
pub(super) fn clients_gone(before: &Settings, after: &Settings, now: Now) -> ClientsGone {
    let stay = may(after, now);
    let mut out = ClientsGone::new();
    for (slug, who, _) in may(before, now).difference(&stay) {
        out.entry(slug.clone()).or_default().insert(who.clone());
    }
    out
}

/// Apps that stay, on other ports than before.
pub(super) fn moved(before: &Settings, after: &Settings) -> Moved {
    let meet = |old: &App, new: &App| {
        old.protocol.each().iter().any(|protocol| new.protocol.each().contains(protocol))
            && old
                .ports
                .iter()
                .any(|had| new.ports.iter().any(|has| had.first() <= has.last() && has.first() <= had.last()))
    };
    let stay = before.apps.iter().filter_map(|old| {
        let new = after.apps.iter().find(|new| new.slug == old.slug)?;
        Some((old, new))
    });
    stay.filter(|(old, new)| !meet(old, new)).map(|(old, _)| old.slug.clone()).collect()
}

/// App, client, and a name for its secret.
fn may(settings: &Settings, now: Now) -> BTreeSet<(String, String, String)> {
    let clients = settings.time_sequence.iter().flat_map(|sequence| &sequence.clients);
    let active = clients
        .filter(|client| !client.disabled && client.expires.is_none_or(|at| at.left(now.wall).is_some()));
    let each = active.flat_map(|client| {
        let apps = client.apps.iter().filter_map(|&app| settings.apps.get(app));
        apps.map(|app| (app.slug.clone(), client.name.to_string(), client.secret.fingerprint()))
    });
    each.collect()
}

/// Whether a sequence of that name may open an app, or a client of knocks that change with time; by notes of grants nobody
/// knows them apart.
pub(super) fn may_knock(settings: &Settings, slug: &str, by: &str, now: Now) -> bool {
    let of_app = |sequence: &KnockSequence| {
        let app = sequence.app.and_then(|place| settings.apps.get(place));
        app.is_some_and(|app| app.slug == slug)
    };
    let named = |(place, sequence): (usize, &KnockSequence)| {
        // What has no name is called by its place, which may be another one by now.
        of_app(sequence) && (name(settings, place) == by || by.starts_with("sequence "))
    };
    by.is_empty()
        || settings.sequences.iter().enumerate().any(named)
        || may(settings, now).iter().any(|(app, who, _)| app == slug && who == by)
}

impl Operations {
    /// At a start: says whose grants are open, and ends those of clients who went meanwhile.
    ///
    /// # Errors
    /// [`OperationError`] when the kernel would not; they then go on.
    pub(super) fn resume_opened(&mut self, opened: &[Opened], now: Now) -> Result<(), OperationError> {
        let connected = self.end_connected_of_gone(now);
        let (stay, sets) = (may(&self.settings, now), self.grant_sets());
        let mut gone = ClientsGone::new();
        for Opened { key, address, who } in opened {
            self.ledger.name(key, *address, who);
            let slug = slug_of(key);
            if !sets.iter().any(|set| set.key == *key) {
                self.ledger.name(slug, *address, who);
            }
            if !stay.iter().any(|(app, name, _)| app == slug && name == who) {
                gone.entry(slug.to_owned()).or_default().insert(who.clone());
            }
        }
        if gone.is_empty() {
            return connected;
        }
        let live = self.live()?;
        let (changes, ended) = self.end_of_clients(&gone, &Moved::new(), &live, now);
        if !changes.is_empty() {
            self.on_trial.takes(&changes, &self.settings, now.wall);
            self.firewall.apply(&changes)?;
            self.cut_open(&ShutOut::all_of(&self.grant_sets(), &live));
        }
        for (key, addr) in ended {
            self.ledger.revoke(&key, addr);
        }
        connected
    }

    /// Takes what only these have opened out of what was read of sets that go, whose grants else would go on among
    /// the agent's own, where nobody knows whose they are. How many end by that.
    pub(super) fn let_go_with_clients(
        &self,
        gone: &ClientsGone,
        moved: &Moved,
        before: &[GrantSet],
        live: &mut Live,
        now: Now,
    ) -> usize {
        let stay = self.grant_sets();
        let mut ended = 0;
        for grants in before.iter().filter(|set| set.how == How::Sequence && !stay.contains(set)) {
            let names = gone.get(&grants.slug);
            let all = moved.contains(&grants.slug);
            for set in Family::BOTH.map(|family| grants.set(family)) {
                let Some(elements) = live.elements.get_mut(&set) else { continue };
                let had = elements.len();
                elements.retain(|key, _| {
                    let Some(names) = names.filter(|_| !all) else { return !all };
                    let addr = key_address(key);
                    let users =
                        addr.map(|addr| self.ledger.users(&grants.key, addr, now)).unwrap_or_default();
                    users.is_empty() || !users.iter().all(|(note, ..)| names.contains(&note.by))
                });
                ended += had - elements.len();
            }
        }
        ended
    }

    /// The changes that end what only these have opened, and everything of apps that have moved. Under another length of
    /// prefix than the rules have, a grant for IPv6 is for others, or for nobody until the old length is back: it ends, too.
    pub(super) fn end_of_clients(
        &self,
        gone: &ClientsGone,
        moved: &Moved,
        live: &Live,
        now: Now,
    ) -> (Vec<Change>, Ended) {
        let (mut changes, mut ended) = (Vec::new(), Ended::new());
        // Among the agent's own, too, are some that packets made.
        for grants in self.grant_sets() {
            let names = gone.get(&grants.slug);
            let moved = moved.contains(&grants.slug);
            let other = self.has_other_prefix(&grants.slug, live);
            for family in Family::BOTH {
                let name = grants.set(family);
                let all = moved || family == Family::V6 && other;
                let mut elements = Elements::new();
                for (key, element) in live.elements.get(&name).into_iter().flatten() {
                    let Some(addr) = key_address(key) else { continue };
                    let users = self.ledger.users(&grants.key, addr, now);
                    let only = |names: &BTreeSet<String>| {
                        let theirs = |note: &Note| note.how == How::Sequence && names.contains(&note.by);
                        !users.is_empty() && users.iter().all(|(note, ..)| theirs(note))
                    };
                    if all || names.is_some_and(only) {
                        elements.insert(key.clone(), element.clone());
                        ended.push((grants.key.clone(), addr));
                    }
                }
                if !elements.is_empty() {
                    let set = SetRef::plain(name);
                    changes.push(Change::DeleteElements { set, elements });
                }
            }
        }
        (changes, ended)
    }

    /// Whether the rules compare other bits of an address with the grants of an app than the settings want.
    fn has_other_prefix(&self, slug: &str, live: &Live) -> bool {
        let set = app_set(slug, Family::V6);
        let asks = |expr: &Expr| matches!(expr, Expr::Lookup { set: asked, .. } if *asked == set);
        let mut rules = live.ruleset.chains.iter().flat_map(|chain| &chain.rules);
        rules.any(|rule| rule.exprs.iter().any(asks))
            && bare::prefix(live, &set) != self.settings.global.ipv6_prefix
    }
}
