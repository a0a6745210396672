use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::journal::{End, Journal};
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

/// Grants by app (slug), address and user, so that two users behind one address keep apart.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<(String, IpAddr), BTreeMap<String, Entry>>,
    changes: u64,
    journal: Journal,
    /// No grant ends earlier; one that would have may be gone.
    earliest: Option<Duration>,
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
        let users = self.entries.entry((app.to_owned(), addr)).or_default();
        let had = users.get(&note.by).copied();
        if had.is_none_or(|had| had.until <= entry.until) {
            users.insert(note.by.clone(), entry);
            self.earliest = Some(self.earliest.map_or(entry.until, |earliest| earliest.min(entry.until)));
            if had != Some(entry) {
                self.changes += 1;
                self.journal.on_put(app, addr, note, had, entry);
            }
        }
    }

    /// Forgets an address's grants for an app.
    pub fn revoke(&mut self, app: &str, addr: IpAddr) {
        if let Some(users) = self.entries.remove(&(app.to_owned(), addr)) {
            self.changes += 1;
            self.journal.on_gone(app, addr, &users, End::Revoked);
        }
    }

    /// Says who somebody is whom nobody had named, at an address with a grant for an app.
    pub fn name(&mut self, app: &str, addr: IpAddr, by: &str) {
        let Some(users) = self.entries.get_mut(&(app.to_owned(), addr)) else { return };
        if !by.is_empty()
            && let Some(entry) = users.remove("")
        {
            users.entry(by.to_owned()).or_insert(entry);
            self.changes += 1;
        }
    }

    /// Forgets all grants.
    pub fn revoke_everything(&mut self) {
        if !self.entries.is_empty() {
            for ((app, addr), users) in std::mem::take(&mut self.entries) {
                self.journal.on_gone(&app, addr, &users, End::Revoked);
            }
            self.changes += 1;
        }
    }

    /// Forgets all grants for an app.
    pub fn revoke_app(&mut self, app: &str) {
        let before = self.entries.len();
        let journal = &mut self.journal;
        self.entries.retain(|(of, addr), users| {
            if of == app {
                journal.on_gone(of, *addr, users, End::Revoked);
            }
            of != app
        });
        if self.entries.len() < before {
            self.changes += 1;
        }
    }

    /// Has the grants for an app, at one address or all, follow its keys: renamed with those that moved, gone with
    /// those that went.
    pub fn succeed(&mut self, app: &str, addr: Option<IpAddr>, succession: &Succession) {
        if succession.changes_nothing() {
            return;
        }
        let concerned = |of: &str, at: IpAddr| of == app && addr.is_none_or(|addr| addr == at);
        for ((_, at), users) in self.entries.iter_mut().filter(|((of, at), _)| concerned(of, *at)) {
            for (by, entry) in std::mem::take(users) {
                let Some(note) = succession.note(&Note { by: by.clone(), how: entry.how }) else {
                    self.journal.on_gone(app, *at, &BTreeMap::from([(by, entry)]), End::Revoked);
                    continue;
                };
                if users.get(&note.by).is_none_or(|had| had.until <= entry.until) {
                    users.insert(note.by, entry);
                }
            }
        }
        self.entries.retain(|_, users| !users.is_empty());
        self.changes += 1;
    }

    /// Forgets what has ended.
    pub fn expire(&mut self, now: Now) {
        if self.earliest.is_none_or(|earliest| earliest > now.boot) {
            return;
        }
        let (journal, mut earliest) = (&mut self.journal, None);
        self.entries.retain(|(app, addr), users| {
            let mut ended = BTreeMap::new();
            users.retain(|by, entry| {
                if entry.until > now.boot {
                    earliest = Some(earliest.map_or(entry.until, |first: Duration| first.min(entry.until)));
                    return true;
                }
                ended.insert(by.clone(), *entry);
                false
            });
            journal.on_gone(app, *addr, &ended, End::Expired);
            !users.is_empty()
        });
        self.earliest = earliest;
    }

    /// When [`Ledger::expire`] may have something to forget, at the latest.
    #[must_use]
    pub fn next_end(&self) -> Option<Duration> {
        self.earliest
    }

    /// The journal of what changes from its [`Journal::begin`] on.
    pub fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Who has a grant for an app at an address, with what is left of it; longest first.
    #[must_use]
    pub fn users(&self, app: &str, addr: IpAddr, now: Now) -> Vec<(Note, Duration, Duration)> {
        let mut out: Vec<_> = self
            .entries
            .get(&(app.to_owned(), addr))
            .into_iter()
            .flatten()
            .filter(|(_, entry)| entry.until > now.boot)
            .map(|(by, entry)| {
                let note = Note { by: by.clone(), how: entry.how };
                (note, entry.until.saturating_sub(now.boot), entry.lifetime)
            })
            .collect();
        out.sort_by_key(|&(_, left, _)| std::cmp::Reverse(left));
        out
    }

    /// Every address with a grant: app, address, who has it longest, what is left and what was given.
    pub fn longest(&self, now: Now) -> impl Iterator<Item = (&str, IpAddr, Note, Duration, Duration)> {
        self.entries.iter().filter_map(move |((app, addr), users)| {
            let (by, entry) = users.iter().max_by_key(|(_, entry)| entry.until)?;
            let left = entry.until.checked_sub(now.boot).filter(|left| !left.is_zero())?;
            Some((app.as_str(), *addr, Note { by: by.clone(), how: entry.how }, left, entry.lifetime))
        })
    }

    /// Who has grants for an app by both steps of a knock.
    #[must_use]
    pub fn knockers(&self, app: &str) -> BTreeSet<&str> {
        let of_app = self.entries.iter().filter(|((of, _), _)| of == app);
        of_app
            .flat_map(|(_, users)| users)
            .filter(|(by, entry)| entry.how == How::TwoStep && !by.is_empty())
            .map(|(by, _)| by.as_str())
            .collect()
    }

    /// How often it was changed, by anything but the passing of time.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many addresses have grants.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody has a grant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 2));

    fn note(by: &str) -> Note {
        Note { by: by.into(), how: How::TwoStep }
    }

    fn secs(secs: u64) -> Lifetime {
        Lifetime::from_secs(secs).unwrap()
    }

    fn left(ledger: &Ledger, at: u64) -> Vec<(String, u64)> {
        ledger
            .users("ssh", ADDR, Now::at_secs(at))
            .into_iter()
            .map(|(note, left, _)| (note.by, left.as_secs()))
            .collect()
    }

    #[test]
    fn renewing_extends_and_never_shortens() {
        let mut ledger = Ledger::default();
        ledger.grant("ssh", ADDR, &note("alice"), secs(100), Now::at_secs(0));
        ledger.grant("ssh", ADDR, &note("alice"), secs(10), Now::at_secs(5));
        assert_eq!(left(&ledger, 5), [("alice".into(), 95)]);
        ledger.grant("ssh", ADDR, &note("alice"), secs(100), Now::at_secs(50));
        assert_eq!(left(&ledger, 50), [("alice".into(), 100)]);
    }

    #[test]
    fn users_behind_one_address_keep_apart() {
        let mut ledger = Ledger::default();
        ledger.grant("ssh", ADDR, &note("alice"), secs(100), Now::at_secs(0));
        ledger.grant("ssh", ADDR, &note("bob"), secs(200), Now::at_secs(0));
        assert_eq!(left(&ledger, 0), [("bob".into(), 200), ("alice".into(), 100)]);
        assert_eq!(left(&ledger, 150), [("bob".into(), 50)]);
    }

    #[test]
    fn grants_follow_the_keys_they_were_made_with() {
        let keys = |names: &[&str]| -> Vec<crate::units::AccessKey> {
            names.iter().map(|name| format!("the-key-of-{name}").parse().unwrap()).collect()
        };
        let mut ledger = Ledger::default();
        for (by, secs_left) in [("key 1", 100), ("key 2", 200), ("key 3", 300)] {
            ledger.grant("ssh", ADDR, &note(by), secs(secs_left), Now::at_secs(0));
        }
        ledger.grant("web", ADDR, &note("key 1"), secs(100), Now::at_secs(0));
        let before = ledger.changes();
        ledger.succeed(
            "ssh",
            None,
            &Succession::between(&keys(&["a", "b", "c"]), &keys(&["c", "b"]), BTreeSet::new()),
        );
        assert_eq!(left(&ledger, 0), [("key 1".into(), 300), ("key 2".into(), 200)]);
        assert!(ledger.changes() > before, "the state file has to follow");
        ledger.succeed("ssh", None, &Succession::between(&keys(&["c", "b"]), &[], BTreeSet::new()));
        assert_eq!(left(&ledger, 0), []);
        assert_eq!(ledger.len(), 1, "the other app's grant is nobody's business");
    }

    #[test]
    fn the_journal_tells_each_opening_renewal_and_end_once() {
        let mut ledger = Ledger::default();
        let (alice, bob) = (note("alice"), note("bob"));
        ledger.grant("ssh", ADDR, &note("before"), secs(500), Now::at_secs(0));
        ledger.journal().begin();
        ledger.grant("ssh", ADDR, &alice, secs(100), Now::at_secs(0));
        ledger.grant("ssh", ADDR, &alice, secs(100), Now::at_secs(0));
        ledger.grant("ssh", ADDR, &alice, secs(10), Now::at_secs(20));
        ledger.grant("ssh", ADDR, &alice, secs(100), Now::at_secs(20));
        ledger.grant("web", ADDR, &bob, secs(60), Now::at_secs(20));
        assert_eq!(ledger.next_end(), Some(Duration::from_secs(80)));
        ledger.expire(Now::at_secs(90));
        assert_eq!(ledger.next_end(), Some(Duration::from_secs(120)));
        ledger.revoke("ssh", ADDR);
        ledger.expire(Now::at_secs(1_000));
        let told: Vec<String> = ledger
            .journal()
            .take()
            .iter()
            .map(|turn| format!("{} {} {:?}", turn.app, turn.note.by, turn.what))
            .collect();
        assert_eq!(
            told,
            [
                "ssh alice Opened",
                "ssh alice Renewed",
                "web bob Opened",
                "web bob Closed(Expired)",
                "ssh alice Closed(Revoked)",
                "ssh before Closed(Revoked)",
            ]
        );
        assert!(ledger.journal().take().is_empty());
    }

    #[test]
    fn what_ended_is_forgotten() {
        let mut ledger = Ledger::default();
        ledger.grant("ssh", ADDR, &note("alice"), secs(10), Now::at_secs(0));
        ledger.expire(Now::at_secs(9));
        assert_eq!(ledger.len(), 1);
        ledger.expire(Now::at_secs(10));
        assert!(ledger.is_empty());
    }
}
