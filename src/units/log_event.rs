use std::fmt;
use std::str::FromStr;

/// How much an event matters to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It stops, or something is not protected.
    Error,
    /// Somebody should look.
    Warn,
    /// It is as it should be.
    Info,
}

/// What the log can tell, each under a word that never changes; `docs/events.md` says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogEvent {
    /// The guard is in the kernel.
    Started,
    /// Both steps are served, or nothing is to be.
    Ready,
    /// The daemon was told to stop; the guard stays.
    Stopped,
    /// The daemon ends because of an error.
    Failed,
    /// An operator had everything removed.
    TornDown,
    /// Nobody confirmed: everything is as it was before.
    PutBack,
    /// An operator confirmed.
    Confirmed,
    /// A right step 1: step 2 may begin.
    Admitted,
    /// A service was opened for an address.
    Granted,
    /// It stays open longer than it would have.
    Renewed,
    /// The kernel closed it: its time was over.
    Expired,
    /// It was closed before its time.
    Revoked,
    /// The client asked to close it.
    ClosedByClient,
    /// A grant could not be made although the knock was right.
    NotGranted,
    /// A knock was refused; or, folded, many were.
    Denied,
    /// An address is locked out.
    LockedOut,
    /// One-time codes of a secret are held back: too many wrong ones came after a right key.
    CodesHeld,
    /// An operator lifted lock-outs.
    Unlocked,
    /// An operator changed what is let in.
    Operator,
    /// Grants of before a reboot are back.
    Restored,
    /// Somebody had changed our table, which is as it should be again.
    Repaired,
    /// It cannot be put right.
    NotRepaired,
    /// The rule that accepts our mark is back in the host's chains.
    HostRepaired,
    /// Another program keeps undoing what is put right.
    Fight,
    /// A new configuration is in force.
    Reloaded,
    /// A new configuration was refused.
    NotReloaded,
    /// Step 2 is served with another certificate.
    CertificateChanged,
    /// A new certificate cannot be used.
    CertificateRefused,
    /// The process that hears strangers ended and is started anew.
    FrontRestarted,
    /// The host slept.
    Slept,
    /// Lines could not be written, as nobody read the log.
    LinesMissing,
}

/// Why a text is not a [`LogEvent`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no event; the events are: {words}", words = words())]
pub struct LogEventError(String);

fn words() -> String {
    LogEvent::ALL.map(LogEvent::word).join(", ")
}

impl LogEvent {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::Started,
        Self::Ready,
        Self::Stopped,
        Self::Failed,
        Self::TornDown,
        Self::PutBack,
        Self::Confirmed,
        Self::Admitted,
        Self::Granted,
        Self::Renewed,
        Self::Expired,
        Self::Revoked,
        Self::ClosedByClient,
        Self::NotGranted,
        Self::Denied,
        Self::LockedOut,
        Self::CodesHeld,
        Self::Unlocked,
        Self::Operator,
        Self::Restored,
        Self::Repaired,
        Self::NotRepaired,
        Self::HostRepaired,
        Self::Fight,
        Self::Reloaded,
        Self::NotReloaded,
        Self::CertificateChanged,
        Self::CertificateRefused,
        Self::FrontRestarted,
        Self::Slept,
        Self::LinesMissing,
    ];

    /// Its word, which others may rely on.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.entry().0
    }

    /// How much it matters.
    #[must_use]
    pub fn severity(self) -> Severity {
        self.entry().1
    }

    fn entry(self) -> (&'static str, Severity) {
        use Severity::{Error, Info, Warn};
        match self {
            Self::Started => ("started", Info),
            Self::Ready => ("ready", Info),
            Self::Stopped => ("stopped", Info),
            Self::Failed => ("failed", Error),
            Self::TornDown => ("torn-down", Warn),
            Self::PutBack => ("put-back", Warn),
            Self::Confirmed => ("confirmed", Info),
            Self::Admitted => ("admitted", Info),
            Self::Granted => ("granted", Info),
            Self::Renewed => ("renewed", Info),
            Self::Expired => ("expired", Info),
            Self::Revoked => ("revoked", Info),
            Self::ClosedByClient => ("closed-by-client", Info),
            Self::NotGranted => ("not-granted", Warn),
            Self::Denied => ("denied", Info),
            Self::LockedOut => ("locked-out", Info),
            Self::CodesHeld => ("codes-held", Warn),
            Self::Unlocked => ("unlocked", Info),
            Self::Operator => ("operator", Info),
            Self::Restored => ("restored", Info),
            Self::Repaired => ("repaired", Warn),
            Self::NotRepaired => ("not-repaired", Error),
            Self::HostRepaired => ("host-repaired", Info),
            Self::Fight => ("fight", Error),
            Self::Reloaded => ("reloaded", Info),
            Self::NotReloaded => ("not-reloaded", Warn),
            Self::CertificateChanged => ("certificate-changed", Info),
            Self::CertificateRefused => ("certificate-refused", Warn),
            Self::FrontRestarted => ("front-restarted", Error),
            Self::Slept => ("slept", Info),
            Self::LinesMissing => ("lines-missing", Warn),
        }
    }
}

impl Severity {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for LogEvent {
    type Err = LogEventError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|event| event.word() == text);
        found.ok_or_else(|| LogEventError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_word_of_its_own_that_reads_as_it() {
        for event in LogEvent::ALL {
            assert_eq!(event.word().parse::<LogEvent>(), Ok(event));
            assert!(event.word().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{event}");
        }
        assert!("nothing".parse::<LogEvent>().unwrap_err().to_string().contains("granted, renewed"));
    }
}
