use std::fmt;

/// How a grant came about; the words are part of `status --json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// By both steps of a knock.
    TwoStep,
    /// By a knock sequence.
    Sequence,
    /// By somebody on this host.
    Operator,
    /// By the configuration.
    Config,
    /// Nobody wrote it down.
    Unknown,
}

impl How {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::TwoStep => "two-step",
            Self::Sequence => "sequence",
            Self::Operator => "operator",
            Self::Config => "config",
            Self::Unknown => "unknown",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::TwoStep, Self::Sequence, Self::Operator, Self::Config, Self::Unknown]
            .into_iter()
            .find(|how| how.word() == word)
    }
}

/// Who and how, as it stands on an element in the kernel: `alice two-step`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Note {
    /// Who; may be empty.
    pub by: String,
    /// How.
    pub how: How,
}

impl Note {
    /// Reads the words on an element.
    #[must_use]
    pub fn parse(comment: Option<&str>) -> Self {
        let comment = comment.unwrap_or_default();
        let (by, last) = comment.rsplit_once(' ').unwrap_or(("", comment));
        match How::of(last) {
            Some(how) => Self { by: by.to_owned(), how },
            None => Self { by: comment.to_owned(), how: How::Unknown },
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by.is_empty() {
            f.write_str(self.how.word())
        } else {
            write!(f, "{} {}", self.by, self.how.word())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_the_kernel() {
        for (by, how) in
            [("alice", How::TwoStep), ("key 1", How::TwoStep), ("", How::Operator), ("", How::Config)]
        {
            let note = Note { by: by.into(), how };
            assert_eq!(Note::parse(Some(&note.to_string())), note);
        }
    }

    #[test]
    fn what_others_wrote_is_kept_as_who() {
        assert_eq!(Note::parse(Some("by hand")), Note { by: "by hand".into(), how: How::Unknown });
        assert_eq!(Note::parse(None), Note { by: String::new(), how: How::Unknown });
    }
}
