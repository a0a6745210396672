use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::Entry;
use super::note::{How, Note};

/// Why a grant is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Its time was over.
    Expired,
    /// Somebody or a change of the configuration took it back, or the client closed it.
    Revoked,
}

impl End {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// It is new.
    Opened,
    /// It lasts longer than before.
    Renewed,
    /// It is no more.
    Closed(End),
}

/// One change of who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What happened.
    pub what: What,
    /// The app's slug.
    pub app: String,
    /// The address, or the first one of an IPv6 prefix.
    pub addr: IpAddr,
    /// Who, and how.
    pub note: Note,
    /// What the grant was given, the last time it was renewed.
    pub lifetime: Duration,
}

/// So many turns are kept one by one until they are read: a million grants that end together must not take up
/// memory again, nor as many lines.
const MOST: usize = 1_000;

const MOST_RAN_OUT: usize = 65_536;

/// An end that moves by less was not renewed: the kernel's clock is read in steps, and while others count on.
const MOMENT: Duration = Duration::from_secs(1);

/// The changes of a ledger that nobody has read yet.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// None: nobody will.
    turns: Option<Vec<Turn>>,
    /// How many more there were, by what happened, the app, and how the grants had come about.
    more: BTreeMap<(What, String, How), u64>,
    /// Where grants ran out. None: nobody asks.
    ran_out: Option<Vec<(String, IpAddr)>>,
}

impl Journal {
    /// Writes down what happens from now on.
    pub fn begin(&mut self) {
        self.turns.get_or_insert_default();
    }

    /// What was written down since this was called last, in the order in which it happened.
    pub fn take(&mut self) -> Vec<Turn> {
        self.turns.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many more turns there were than [`Journal::take`] gives, since this was called last.
    pub fn take_more(&mut self) -> BTreeMap<(What, String, How), u64> {
        std::mem::take(&mut self.more)
    }

    /// Where the time of a grant was over, by the ledger's name of the app, since this was called last; from the first call
    /// on. At most 65,536 at a time.
    pub fn take_ran_out(&mut self) -> Vec<(String, IpAddr)> {
        self.ran_out.replace(Vec::new()).unwrap_or_default()
    }

    pub(super) fn on_put(&mut self, app: &str, addr: IpAddr, note: &Note, had: Option<Entry>, has: Entry) {
        let what = match had {
            None => What::Opened,
            // The same, as it was read from the kernel once more.
            Some(had) if had.lifetime == has.lifetime && has.until < had.until + MOMENT => return,
            Some(_) => What::Renewed,
        };
        if self.has_room(what, app, note.how) {
            self.write(what, app, addr, note.clone(), has);
        }
    }

    pub(super) fn on_gone<'e>(
        &mut self,
        app: &str,
        addr: IpAddr,
        users: impl Iterator<Item = (&'e Arc<str>, &'e Entry)>,
        end: End,
    ) {
        if let Some(all) = self.ran_out.as_mut().filter(|all| end == End::Expired && all.len() < MOST_RAN_OUT)
        {
            all.push((app.to_owned(), addr));
        }
        for (by, entry) in users {
            if self.has_room(What::Closed(end), app, entry.how) {
                let note = Note { by: by.to_string(), how: entry.how };
                self.write(What::Closed(end), app, addr, note, *entry);
            }
        }
    }

    /// Whether one more is written down; else it is counted.
    fn has_room(&mut self, what: What, app: &str, how: How) -> bool {
        let Some(turns) = &self.turns else { return false };
        if turns.len() < MOST {
            return true;
        }
        match self.more.iter_mut().find(|((had, of, by), _)| *had == what && of == app && *by == how) {
            Some((_, count)) => *count += 1,
            None => {
                self.more.insert((what, app.to_owned(), how), 1);
            }
        }
        false
    }

    fn write(&mut self, what: What, app: &str, addr: IpAddr, note: Note, entry: Entry) {
        if let Some(turns) = &mut self.turns {
            turns.push(Turn { what, app: app.to_owned(), addr, note, lifetime: entry.lifetime });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Ledger;
    use crate::units::{Lifetime, Now};

    #[test]
    fn what_ran_out_is_told_once_and_what_was_taken_back_is_not() {
        let mut ledger = Ledger::default();
        let note = Note { by: "alice".to_owned(), how: How::TwoStep };
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|addr| addr.parse().unwrap());
        assert_eq!(ledger.journal().take_ran_out(), []);
        for (addr, secs) in [(a, 5), (b, 5), (c, 9)] {
            ledger.grant("ssh", addr, &note, Lifetime::from_secs(secs).unwrap(), Now::at_secs(0));
        }
        ledger.revoke("ssh", b);
        ledger.expire(Now::at_secs(6));
        assert_eq!(ledger.journal().take_ran_out(), [("ssh".to_owned(), a)]);
        ledger.expire(Now::at_secs(9));
        assert_eq!(ledger.journal().take_ran_out(), [("ssh".to_owned(), c)]);
        assert_eq!(ledger.journal().take_ran_out(), []);
    }

    #[test]
    fn of_very_many_turns_the_first_are_kept_and_the_rest_is_counted_by_kind_and_app() {
        let mut ledger = Ledger::default();
        ledger.journal().begin();
        let note = Note { by: "alice".to_owned(), how: How::TwoStep };
        for (app, count) in [("ssh", 1_500_u32), ("web", 10)] {
            for n in 0..count {
                let addr = std::net::Ipv4Addr::from(0x0a00_0000 + n).into();
                ledger.grant(app, addr, &note, Lifetime::from_secs(60).unwrap(), Now::at_secs(0));
            }
        }
        assert_eq!(ledger.journal().take().len(), MOST);
        let more: Vec<_> = ledger.journal().take_more().into_iter().collect();
        let opened = |app: &str, count| ((What::Opened, app.to_owned(), How::TwoStep), count);
        assert_eq!(more, [opened("ssh", 500), opened("web", 10)]);
        assert!(ledger.journal().take_more().is_empty());
        ledger.expire(Now::at_secs(60));
        assert_eq!(ledger.journal().take().len(), MOST, "those who were read make room");
        assert_eq!(ledger.journal().take_more().values().sum::<u64>(), 510);
    }
}
