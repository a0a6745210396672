use std::str::FromStr;

/// What others can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A service was opened for an address.
    Opened,
    /// It stays open longer than it would have.
    Renewed,
    /// It is closed again: by time, by somebody, or by the client.
    Closed,
    /// Attempts were refused, folded: once per minute at most.
    Denied,
    /// An address is locked out.
    LockedOut,
    /// Somebody had changed our rules, which are as they should be again.
    Repaired,
}

/// Why a text is not an [`EventKind`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no event: write opened, renewed, closed, denied, locked-out or repaired")]
pub struct EventKindError(String);

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Opened, Self::Renewed, Self::Closed, Self::Denied, Self::LockedOut, Self::Repaired];

    /// Its word, in configurations and in what others are told.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Renewed => "renewed",
            Self::Closed => "closed",
            Self::Denied => "denied",
            Self::LockedOut => "locked-out",
            Self::Repaired => "repaired",
        }
    }
}

impl FromStr for EventKind {
    type Err = EventKindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        found.ok_or_else(|| EventKindError(text.to_owned()))
    }
}
