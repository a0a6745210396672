use std::collections::BTreeSet;
use std::time::Duration;

use super::note::{How, Note};
use crate::units::AccessKey;

/// What becomes of those who can open an app when its configuration changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Succession {
    /// Where each of the app's keys of step 2 is afterwards.
    keys: Vec<Option<usize>>,
    /// Who is no longer there.
    gone: BTreeSet<String>,
    /// Whether a key that could open is no longer there.
    loses_a_key: bool,
}

/// Somebody who has a grant, what is left of it, and what it was given.
pub type User = (Note, Duration, Duration);

impl Succession {
    /// From the keys before to the keys after, without the users who are gone.
    #[must_use]
    pub fn between(before: &[AccessKey], after: &[AccessKey], gone: BTreeSet<String>) -> Self {
        let place = |key: &AccessKey| after.iter().position(|other| other.same_as(key) && !other.disabled);
        let loses_a_key = before.iter().any(|key| !key.disabled && place(key).is_none());
        Self { keys: before.iter().map(place).collect(), gone, loses_a_key }
    }

    /// Somebody goes, and everybody else stays.
    #[must_use]
    pub fn without(user: &str) -> Self {
        Self::leaving(BTreeSet::from([user.to_owned()]))
    }

    /// These go, users by their names and keys as notes call them, and everybody else stays.
    #[must_use]
    pub fn leaving(gone: BTreeSet<String>) -> Self {
        Self { gone, ..Self::default() }
    }

    /// Whether every key is where it was.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        self.gone.is_empty() && self.keys.iter().enumerate().all(|(at, now)| *now == Some(at))
    }

    /// Whether somebody goes.
    #[must_use]
    pub fn takes_somebody(&self) -> bool {
        self.loses_a_key || !self.gone.is_empty()
    }

    /// The note of a grant as it reads afterwards; none if it was made with a key that is no more.
    ///
    /// Grants that were not made with a key, or with one that was unknown before, stay as they are.
    #[must_use]
    pub fn note(&self, note: &Note) -> Option<Note> {
        if note.how == How::TwoStep && self.gone.contains(&note.by) {
            return None;
        }
        let number = || note.by.strip_prefix("key ")?.parse::<usize>().ok()?.checked_sub(1);
        let moved = match note.how {
            How::TwoStep => number().and_then(|at| self.keys.get(at)),
            How::Sequence | How::Operator | How::Config | How::Unknown => None,
        };
        match moved {
            Some(Some(now)) => Some(Note { by: format!("key {}", now + 1), how: note.how }),
            Some(None) => None,
            None => Some(note.clone()),
        }
    }

    /// Those of an address's users who keep their grant, and whether anybody does not.
    #[must_use]
    pub fn heirs(&self, users: Vec<User>) -> (Vec<User>, bool) {
        let count = users.len();
        let heirs: Vec<User> = users
            .into_iter()
            .filter_map(|(note, left, lifetime)| Some((self.note(&note)?, left, lifetime)))
            .collect();
        let less = heirs.len() < count;
        (heirs, less)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Vec<AccessKey> {
        names.iter().map(|name| format!("the-key-of-{name}").parse().unwrap()).collect()
    }

    fn between(before: &[AccessKey], after: &[AccessKey]) -> Succession {
        Succession::between(before, after, BTreeSet::new())
    }

    fn note(by: &str) -> Note {
        Note { by: by.to_owned(), how: How::TwoStep }
    }

    #[test]
    fn a_key_that_moved_is_renamed_and_one_that_went_ends_its_grants() {
        let moved = between(&keys(&["a", "b", "c"]), &keys(&["new", "c", "a"]));
        assert_eq!(moved.note(&note("key 1")), Some(note("key 3")));
        assert_eq!(moved.note(&note("key 2")), None);
        assert_eq!(moved.note(&note("key 3")), Some(note("key 2")));
    }

    #[test]
    fn grants_that_no_known_key_made_are_nobodys_business() {
        let gone = between(&keys(&["a"]), &[]);
        assert_eq!(gone.note(&note("key 1")), None);
        for by in ["key 2", "key 0", "key", "key x", "alice", "", "key 18446744073709551616"] {
            assert_eq!(gone.note(&note(by)), Some(note(by)), "{by}");
        }
        let operator = Note { by: "key 1".to_owned(), how: How::Operator };
        assert_eq!(gone.note(&operator), Some(operator));
    }

    #[test]
    fn only_the_same_keys_in_the_same_places_change_nothing() {
        let before = keys(&["a", "b"]);
        for (after, nothing) in [
            (keys(&["a", "b"]), true),
            (keys(&["a", "b", "c"]), true),
            (keys(&["b", "a"]), false),
            (keys(&["a"]), false),
        ] {
            assert_eq!(between(&before, &after).changes_nothing(), nothing, "{after:?}");
        }
    }

    #[test]
    fn who_shares_an_address_with_a_key_that_went_keeps_its_own_time() {
        let succession = between(&keys(&["a", "b"]), &keys(&["b"]));
        let secs = Duration::from_secs;
        let users = vec![(note("key 1"), secs(100), secs(200)), (note("key 2"), secs(50), secs(60))];
        assert_eq!(succession.heirs(users), (vec![(note("key 1"), secs(50), secs(60))], true));
        let alone = vec![(note("key 1"), secs(100), secs(200))];
        assert_eq!(succession.heirs(alone), (Vec::new(), true));
    }

    #[test]
    fn a_user_who_is_gone_keeps_nothing_and_an_operator_of_that_name_does() {
        let gone = Succession::without("alice");
        assert!(!gone.changes_nothing());
        assert_eq!(gone.note(&note("alice")), None);
        for note in [note("bob"), note("key 1"), Note { by: "alice".to_owned(), how: How::Operator }] {
            assert_eq!(gone.note(&note), Some(note));
        }
    }

    #[test]
    fn a_key_that_is_disabled_ends_its_grants() {
        let mut after = keys(&["a", "b"]);
        after[0].disabled = true;
        let succession = between(&keys(&["a", "b"]), &after);
        assert!(succession.takes_somebody() && !between(&after, &after).takes_somebody());
        assert_eq!(succession.note(&note("key 1")), None);
        assert_eq!(succession.note(&note("key 2")), Some(note("key 2")));
    }
}
