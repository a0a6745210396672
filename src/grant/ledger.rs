use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ends::Ends;
use super::holders::Holders;
use super::journal::{End, Journal};
use super::newest::newest;
use super::note::{How, Note};
use super::succession::Succession;
use crate::units::{Lifetime, Now};

/// One grant of one user at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// How it came about.
    pub how: How,
    /// When it ends, on the clock that never goes back.
    pub until: Duration,
    /// What it was given, the last time it was renewed.
    pub lifetime: Duration,
}

/// So many names are kept before those that nobody has any more are forgotten.
const NAMES: usize = 1_024;

/// Grants by app (slug), address and user, so that two users behind one address keep apart. A million of them must not
/// cost much each, nor their ends more than they are.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    apps: BTreeMap<String, OfApp>,
    /// The apps by their numbers.
    numbers: Vec<String>,
    /// Everybody who has or had a grant, once.
    names: BTreeSet<Arc<str>>,
    /// How many addresses have grants.
    len: usize,
    changes: u64,
    taken_back: u64,
    journal: Journal,
    ends: Ends,
}

/// The grants for one app.
#[derive(Clone, Debug, Default)]
struct OfApp {
    number: u32,
    holders: BTreeMap<IpAddr, Holders>,
}

impl Ledger {
    /// Notes a grant; a running one of the same user is renewed and never shortened.
    pub fn grant(&mut self, app: &str, addr: IpAddr, note: &Note, lifetime: Lifetime, now: Now) {
        let given = lifetime.as_duration();
        self.put(app, addr, note, Entry { how: note.how, until: now.boot + given, lifetime: given });
    }

    /// Notes a grant that was found in the kernel.
    pub fn adopt(&mut self, app: &str, addr: IpAddr, note: &Note, left: Duration, total: Duration, now: Now) {
        self.put(app, addr, note, Entry { how: note.how, until: now.boot + left, lifetime: total });
    }

    fn put(&mut self, app: &str, addr: IpAddr, note: &Note, entry: Entry) {
        let by = self.known(&note.by);
        let of_app = match self.apps.get_mut(app) {
            Some(known) => known,
            None => {
                let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
                self.numbers.push(app.to_owned());
                self.apps.entry(app.to_owned()).or_insert(OfApp { number, holders: BTreeMap::new() })
            }
        };
        let had = match of_app.holders.entry(addr) {
            Slot::Vacant(slot) => {
                slot.insert(Holders::One(by, entry));
                self.len += 1;
                None
            }
            Slot::Occupied(mut slot) => {
                let had = slot.get().get(&by);
                if had.is_some_and(|had| had.until > entry.until) {
                    return;
                }
                slot.get_mut().put(by, entry);
                had
            }
        };
        if had.is_none_or(|had| had.until != entry.until) {
            self.ends.push(entry.until, of_app.number, addr);
        }
        if had != Some(entry) {
            self.changes += 1;
            self.journal.on_put(app, addr, note, had, entry);
        }
        if self.ends.are_too_many(self.len) {
            self.sort_out_ends();
        }
    }

    /// One text for everybody of that name.
    fn known(&mut self, by: &str) -> Arc<str> {
        if let Some(known) = self.names.get(by) {
            return Arc::clone(known);
        }
        if self.names.len() >= NAMES {
            self.names.retain(|name| Arc::strong_count(name) > 1);
        }
        let name: Arc<str> = by.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    fn sort_out_ends(&mut self) {
        let all = self.apps.values().flat_map(|of_app| {
            of_app.holders.iter().flat_map(move |(addr, holders)| {
                holders.iter().map(move |(_, entry)| (entry.until, of_app.number, *addr))
            })
        });
        self.ends.replace(all);
    }

    /// Forgets an address's grants for an app; false if there was none.
    pub fn revoke(&mut self, app: &str, addr: IpAddr) -> bool {
        let holders = self.apps.get_mut(app).and_then(|of_app| of_app.holders.remove(&addr));
        if let Some(holders) = &holders {
            self.len -= 1;
            self.changes += 1;
            self.taken_back += 1;
            self.journal.on_gone(app, addr, holders.iter(), End::Revoked);
        }
        holders.is_some()
    }

    /// Says who somebody is whom nobody had named, at an address with a grant for an app.
    pub fn name(&mut self, app: &str, addr: IpAddr, by: &str) {
        let nameless = |of_app: &OfApp| of_app.holders.get(&addr).is_some_and(|all| all.get("").is_some());
        if by.is_empty() || !self.apps.get(app).is_some_and(nameless) {
            return;
        }
        let by = self.known(by);
        let Some(of_app) = self.apps.get_mut(app) else { return };
        let Some(holders) = of_app.holders.remove(&addr) else { return };
        let (others, nameless) = holders.split(|name, _| !name.is_empty());
        let Some((_, entry)) = nameless.into_iter().next() else { return };
        let holders = match others {
            None => Holders::One(by, entry),
            Some(mut others) => {
                if others.get(&by).is_none() {
                    others.put(by, entry);
                }
                others
            }
        };
        of_app.holders.insert(addr, holders);
        self.changes += 1;
    }

    /// Forgets all grants.
    pub fn revoke_everything(&mut self) {
        for app in self.numbers.clone() {
            self.revoke_app(&app);
        }
        self.ends = Ends::default();
    }

    /// Forgets all grants for an app; returns how many addresses had one.
    pub fn revoke_app(&mut self, app: &str) -> usize {
        let Some(of_app) = self.apps.get_mut(app) else { return 0 };
        let gone = std::mem::take(&mut of_app.holders);
        if gone.is_empty() {
            return 0;
        }
        let count = gone.len();
        self.len -= count;
        self.changes += 1;
        self.taken_back += 1;
        for (addr, holders) in gone {
            self.journal.on_gone(app, addr, holders.iter(), End::Revoked);
        }
        count
    }

    /// Has the grants for an app, at one address or all, follow its keys: renamed with those that moved, gone with
    /// those that went.
    pub fn succeed(&mut self, app: &str, addr: Option<IpAddr>, succession: &Succession) {
        if succession.changes_nothing() {
            return;
        }
        self.changes += 1;
        self.taken_back += 1;
        let Some(of_app) = self.apps.get_mut(app) else { return };
        let concerned: Vec<IpAddr> = match addr {
            Some(addr) => vec![addr],
            None => of_app.holders.keys().copied().collect(),
        };
        for at in concerned {
            let had = self.apps.get_mut(app).and_then(|of_app| of_app.holders.remove(&at));
            let Some(had) = had else { continue };
            let mut has: Option<Holders> = None;
            for (by, entry) in had.iter() {
                let before = Note { by: by.to_string(), how: entry.how };
                let Some(note) = succession.note(&before) else {
                    self.journal.on_gone(app, at, std::iter::once((by, entry)), End::Revoked);
                    continue;
                };
                let by = self.known(&note.by);
                match &mut has {
                    None => has = Some(Holders::One(by, *entry)),
                    Some(all) if all.get(&by).is_some_and(|other| other.until > entry.until) => {}
                    Some(all) => all.put(by, *entry),
                }
            }
            match (has, self.apps.get_mut(app)) {
                (Some(has), Some(of_app)) => {
                    of_app.holders.insert(at, has);
                }
                (None, _) | (_, None) => self.len -= 1,
            }
        }
    }

    /// Forgets what has ended.
    pub fn expire(&mut self, now: Now) {
        while let Some((end, number, addr)) = self.ends.next() {
            let app = usize::try_from(number).ok().and_then(|number| self.numbers.get(number));
            let of_app = app.and_then(|app| self.apps.get_mut(app).map(|of_app| (app, of_app)));
            let slot = of_app.and_then(|(app, of_app)| match of_app.holders.entry(addr) {
                Slot::Occupied(slot) => Some((app, slot)),
                Slot::Vacant(_) => None,
            });
            let is_so = |holders: &Holders| holders.iter().any(|(_, entry)| entry.until == end);
            // Taken back or renewed since, it is none.
            let Some((app, slot)) = slot.filter(|(_, slot)| is_so(slot.get())) else {
                self.ends.pop();
                continue;
            };
            if end > now.boot {
                return;
            }
            self.ends.pop();
            let (stay, ended) = slot.remove().split(|_, entry| entry.until > now.boot);
            match (stay, self.apps.get_mut(app)) {
                (Some(stay), Some(of_app)) => {
                    of_app.holders.insert(addr, stay);
                }
                (None, _) | (_, None) => self.len -= 1,
            }
            let ended = ended.iter().map(|(by, entry)| (by, entry));
            self.journal.on_gone(app, addr, ended, End::Expired);
        }
    }

    /// When [`Ledger::expire`] may have something to forget, at the latest.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        self.ends.next().map(|(end, ..)| end)
    }

    /// The journal of what changes from its [`Journal::begin`] on.
    pub fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Who has a grant for an app at an address, with what is left of it; longest first.
    #[must_use]
    pub fn users(&self, app: &str, addr: IpAddr, now: Now) -> Vec<(Note, Duration, Duration)> {
        let mut out: Vec<_> = self
            .apps
            .get(app)
            .and_then(|of_app| of_app.holders.get(&addr))
            .into_iter()
            .flat_map(Holders::iter)
            .filter(|(_, entry)| entry.until > now.boot)
            .map(|(by, entry)| {
                let note = Note { by: by.to_string(), how: entry.how };
                (note, entry.until.saturating_sub(now.boot), entry.lifetime)
            })
            .collect();
        out.sort_by_key(|&(_, left, _)| std::cmp::Reverse(left));
        out
    }

    /// Every address with a grant: app, address, who has it longest, what is left and what was given.
    pub fn longest(&self, now: Now) -> impl Iterator<Item = (&str, IpAddr, Note, Duration, Duration)> {
        self.apps.iter().flat_map(move |(app, of_app)| longest_of(app, of_app, now))
    }

    /// The same for one app.
    pub fn longest_of(
        &self,
        app: &str,
        now: Now,
    ) -> impl Iterator<Item = (&str, IpAddr, Note, Duration, Duration)> {
        self.apps.get_key_value(app).into_iter().flat_map(move |(app, of_app)| longest_of(app, of_app, now))
    }

    /// Who has grants for an app by both steps of a knock.
    #[must_use]
    pub fn knockers(&self, app: &str) -> BTreeSet<&str> {
        let of_app = self.apps.get(app).into_iter().flat_map(|of_app| of_app.holders.values());
        of_app
            .flat_map(Holders::iter)
            .filter(|(by, entry)| entry.how == How::TwoStep && !by.is_empty())
            .map(|(by, _)| &**by)
            .collect()
    }

    /// How often it was changed, by anything but the passing of time.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How often something was taken back: which of the changes made grants fewer.
    #[must_use]
    pub fn taken_back(&self) -> u64 {
        self.taken_back
    }

    /// The addresses that were let in or renewed last, newest first, with the app of each; at most so many.
    #[must_use]
    pub fn newest(&self, most: usize) -> Vec<(&str, IpAddr)> {
        let all = self.apps.iter().flat_map(|(app, of_app)| {
            of_app.holders.iter().map(move |(addr, holders)| {
                let begins = holders.iter().map(|(_, entry)| entry.until.saturating_sub(entry.lifetime));
                (begins.max().unwrap_or_default(), app.as_str(), *addr)
            })
        });
        newest(all, most)
    }

    /// How many addresses have grants for each app; takes as long as there are apps.
    pub fn counts(&self) -> impl Iterator<Item = (&str, usize)> {
        self.apps.iter().map(|(app, of_app)| (app.as_str(), of_app.holders.len()))
    }

    /// How many addresses have grants.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody has a grant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn longest_of<'l>(
    app: &'l str,
    of_app: &'l OfApp,
    now: Now,
) -> impl Iterator<Item = (&'l str, IpAddr, Note, Duration, Duration)> {
    of_app.holders.iter().filter_map(move |(addr, holders)| {
        let (by, entry) = holders.iter().max_by_key(|(_, entry)| entry.until)?;
        let left = entry.until.checked_sub(now.boot).filter(|left| !left.is_zero())?;
        Some((app, *addr, Note { by: by.to_string(), how: entry.how }, left, entry.lifetime))
    })
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
