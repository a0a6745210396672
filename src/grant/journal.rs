use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::Entry;
use super::note::Note;

/// Why a grant is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The changes of a ledger that nobody has read yet.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// None: nobody will.
    turns: Option<Vec<Turn>>,
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

    pub(super) fn on_put(&mut self, app: &str, addr: IpAddr, note: &Note, had: Option<Entry>, has: Entry) {
        let what = if had.is_none() { What::Opened } else { What::Renewed };
        self.write(what, app, addr, note, has);
    }

    pub(super) fn on_gone<'e>(
        &mut self,
        app: &str,
        addr: IpAddr,
        users: impl Iterator<Item = (&'e Arc<str>, &'e Entry)>,
        end: End,
    ) {
        for (by, entry) in users {
            let note = Note { by: by.to_string(), how: entry.how };
            self.write(What::Closed(end), app, addr, &note, *entry);
        }
    }

    fn write(&mut self, what: What, app: &str, addr: IpAddr, note: &Note, entry: Entry) {
        if let Some(turns) = &mut self.turns {
            let (app, note) = (app.to_owned(), note.clone());
            turns.push(Turn { what, app, addr, note, lifetime: entry.lifetime });
        }
    }
}
