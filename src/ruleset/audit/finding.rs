//! What an audit tells.

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It will not work.
    Error,
    /// It may not work, or not as wanted.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// Something an operator should know before the rules are applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is, for programs; `docs/check-ruleset.md` lists them all.
    pub code: &'static str,
    /// What it is, for people.
    pub message: String,
    /// What to do about it: commands for a shell, and lines for people that begin with `#`; empty where there
    /// is nothing to do.
    pub fix: String,
}
