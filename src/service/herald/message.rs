//! What others are told.

use std::fmt::Write;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::units::{EventKind, Now, Timestamp};

/// An event in the form in which programs and servers get it. What does not belong to an event is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Of this form: 1.
    pub version: u32,
    /// The word of an [`EventKind`].
    pub event: String,
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// The name of this host.
    pub host: String,
    /// The app's slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The client, or the IPv6 network that a grant is for, in CIDR notation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The address of that network from which the client came, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Who: a user, a key, an operator; or the program that changed our rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How a grant came about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// Why it is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether another grant goes on, so that the app stays open for that address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub still_open: bool,
    /// What a grant was given, or how long a lock-out lasts, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
    /// Refused attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// Addresses that made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<u64>,
    /// Differences that were put right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    /// Events before this one that could not be told, because there were too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

impl Message {
    /// A message about an event that happens now; the name of the host is added by who tells it.
    #[must_use]
    pub fn new(kind: EventKind, now: Now) -> Self {
        let secs = now.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let time = Timestamp::from_secs(secs).map(|time| time.to_string()).unwrap_or_default();
        Self { version: 1, event: kind.word().to_owned(), time, ..Self::default() }
    }

    /// Its kind; none where it was not made by this version.
    #[must_use]
    pub fn kind(&self) -> Option<EventKind> {
        self.event.parse().ok()
    }

    /// A sentence for people.
    #[must_use]
    pub fn sentence(&self) -> String {
        let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
        let app = or(&self.app, "an app");
        let address = or(&self.address, "somebody");
        let by = or(&self.by, "nobody knows whom");
        let seconds = self.lifetime_s.unwrap_or(0);
        let mut text = match self.kind() {
            Some(EventKind::Opened) => {
                format!("{app} is open for {address} for {seconds} s ({by}, {})", or(&self.how, "unknown"))
            }
            Some(EventKind::Renewed) => {
                format!("{app} stays open for {address} for {seconds} s from now ({by})")
            }
            Some(EventKind::Closed) if self.still_open => {
                let reason = or(&self.reason, "unknown");
                format!("a grant of {app} for {address} is over ({by}): {reason}; another one goes on")
            }
            Some(EventKind::Closed) => {
                format!("{app} is closed for {address} ({by}): {}", or(&self.reason, "unknown"))
            }
            Some(EventKind::Denied) => format!(
                "{} attempts of {} addresses were refused",
                self.attempts.unwrap_or(0),
                self.addresses.unwrap_or(0)
            ),
            Some(EventKind::LockedOut) => format!("{address} is locked out for {seconds} s"),
            Some(EventKind::Repaired) => {
                format!("our rules were changed by {by}: they are as they should be again")
            }
            None => self.event.clone(),
        };
        if let Some(missed) = self.missed {
            let _ = write!(text, " (before that, {missed} events could not be told)");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_reads_as_it_was_written() {
        let mut message = Message::new(EventKind::Opened, Now::at_secs(5));
        (message.app, message.by) = (Some("ssh".to_owned()), Some("a\n\"b\"".to_owned()));
        let line = serde_json::to_string(&message).unwrap();
        assert!(!line.contains('\n') && line.contains("\"event\":\"opened\""), "{line}");
        let others = ["attempts", "client", "still_open"];
        assert!(
            !others.iter().any(|key| line.contains(key)),
            "what does not belong to it is left out: {line}"
        );
        assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
    }

    #[test]
    fn every_event_has_a_sentence_of_its_own() {
        let sentences: std::collections::BTreeSet<String> =
            EventKind::ALL.into_iter().map(|kind| Message::new(kind, Now::at_secs(5)).sentence()).collect();
        assert_eq!(sentences.len(), EventKind::ALL.len());
        let closed = Message::new(EventKind::Closed, Now::at_secs(5));
        let text = Message { still_open: true, ..closed }.sentence();
        assert!(!text.contains("closed") && text.contains("goes on"), "{text}");
        assert!(sentences.iter().all(|sentence| sentence.contains(' ')), "{sentences:?}");
    }
}
