use std::sync::Arc;

use super::ledger::Entry;

/// Who has a grant at one address, by name. There may be a million of these, and nearly all hold one.
#[derive(Clone, Debug)]
pub(super) enum Holders {
    /// One.
    One(Arc<str>, Entry),
    /// Any number, sorted by name.
    Many(Vec<(Arc<str>, Entry)>),
}

impl Holders {
    /// All of them, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        let (one, many) = match self {
            Self::One(by, entry) => (Some((by, entry)), &[][..]),
            Self::Many(all) => (None, all.as_slice()),
        };
        one.into_iter().chain(many.iter().map(|(by, entry)| (by, entry)))
    }

    /// What somebody has.
    pub(super) fn get(&self, by: &str) -> Option<Entry> {
        self.iter().find(|(name, _)| ***name == *by).map(|(_, entry)| *entry)
    }

    /// Gives somebody this, in place of what there was.
    pub(super) fn put(&mut self, by: Arc<str>, entry: Entry) {
        match self {
            Self::One(name, have) if *name == by => *have = entry,
            Self::One(name, have) => {
                let mut all = vec![(Arc::clone(name), *have), (by, entry)];
                all.sort_by(|a, b| a.0.cmp(&b.0));
                *self = Self::Many(all);
            }
            Self::Many(all) => match all.binary_search_by(|(name, _)| name.cmp(&by)) {
                Ok(at) => {
                    if let Some((_, have)) = all.get_mut(at) {
                        *have = entry;
                    }
                }
                Err(at) => all.insert(at, (by, entry)),
            },
        }
    }

    /// Keeps those that are wanted and gives the others; none of them may be left.
    pub(super) fn split(
        self,
        mut keep: impl FnMut(&str, &Entry) -> bool,
    ) -> (Option<Self>, Vec<(Arc<str>, Entry)>) {
        match self {
            Self::One(by, entry) if keep(&by, &entry) => (Some(Self::One(by, entry)), Vec::new()),
            Self::One(by, entry) => (None, vec![(by, entry)]),
            Self::Many(all) => {
                let (stay, go): (Vec<_>, Vec<_>) = all.into_iter().partition(|(by, entry)| keep(by, entry));
                (Self::of(stay), go)
            }
        }
    }

    fn of(mut all: Vec<(Arc<str>, Entry)>) -> Option<Self> {
        match all.len() {
            0 => None,
            1 => all.pop().map(|(by, entry)| Self::One(by, entry)),
            _ => Some(Self::Many(all)),
        }
    }
}
