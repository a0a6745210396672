use std::time::Duration;

use super::note::{How, Note};
use crate::units::Secret;

/// What becomes of an app's keys of step 2 when its configuration changes: where each of them is afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession(Vec<Option<usize>>);

/// Somebody who has a grant, what is left of it, and what it was given.
pub type User = (Note, Duration, Duration);

impl Succession {
    /// From the keys before to the keys after.
    #[must_use]
    pub fn between(before: &[Secret], after: &[Secret]) -> Self {
        Self(before.iter().map(|key| after.iter().position(|other| other.same_as(key))).collect())
    }

    /// Whether every key is where it was.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        self.0.iter().enumerate().all(|(at, now)| *now == Some(at))
    }

    /// The note of a grant as it reads afterwards; none if it was made with a key that is no more.
    ///
    /// Grants that were not made with a key, or with one that was unknown before, stay as they are.
    #[must_use]
    pub fn note(&self, note: &Note) -> Option<Note> {
        let number = || note.by.strip_prefix("key ")?.parse::<usize>().ok()?.checked_sub(1);
        let moved = match note.how {
            How::TwoStep => number().and_then(|at| self.0.get(at)),
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

    fn keys(names: &[&str]) -> Vec<Secret> {
        names.iter().map(|name| Secret::new(format!("the-key-of-{name}"))).collect()
    }

    fn note(by: &str) -> Note {
        Note { by: by.to_owned(), how: How::TwoStep }
    }

    #[test]
    fn a_key_that_moved_is_renamed_and_one_that_went_ends_its_grants() {
        let moved = Succession::between(&keys(&["a", "b", "c"]), &keys(&["new", "c", "a"]));
        assert_eq!(moved.note(&note("key 1")), Some(note("key 3")));
        assert_eq!(moved.note(&note("key 2")), None);
        assert_eq!(moved.note(&note("key 3")), Some(note("key 2")));
    }

    #[test]
    fn grants_that_no_known_key_made_are_nobodys_business() {
        let gone = Succession::between(&keys(&["a"]), &[]);
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
            assert_eq!(Succession::between(&before, &after).changes_nothing(), nothing, "{after:?}");
        }
    }

    #[test]
    fn who_shares_an_address_with_a_key_that_went_keeps_its_own_time() {
        let succession = Succession::between(&keys(&["a", "b"]), &keys(&["b"]));
        let secs = Duration::from_secs;
        let users = vec![(note("key 1"), secs(100), secs(200)), (note("key 2"), secs(50), secs(60))];
        assert_eq!(succession.heirs(users), (vec![(note("key 1"), secs(50), secs(60))], true));
        let alone = vec![(note("key 1"), secs(100), secs(200))];
        assert_eq!(succession.heirs(alone), (Vec::new(), true));
    }
}
