//! One event of the log: what happened, with its fields, for people and for programs.

use std::fmt::Write;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::units::{LogEvent, Severity};

/// The field of a log line under which whoever writes the log finds a [`Record`], as JSON.
pub const FIELD: &str = "record";

/// An event with its fields; what does not belong to it is left out. None of them can hold a secret: they are names,
/// addresses, numbers and words of this program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The word of a [`LogEvent`].
    pub event: String,
    /// The client, or the first address of an IPv6 prefix, as `status` lists it; a network in CIDR notation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The address from which a client in such a prefix came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Who: a user, a key, a sequence, an operator; or the program that changed our rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// How a grant came about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// What a grant was given, or how long a lock-out or an admission lasts, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u64>,
    /// The guarded ports of the app, such as `tcp/22`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// What an operator did: the verb.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// At which step of a knock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u8>,
    /// Why, in a word or a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many of these there were, where one line stands for several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// From how many addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<u64>,
    /// Changes that were made to the firewall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<u64>,
    /// Grants that there are, or that ended by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grants: Option<u64>,
    /// The version of this program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What enforces: `nftables` or `iptables`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

impl Record {
    /// An event without fields.
    #[must_use]
    pub fn of(event: LogEvent) -> Self {
        Self { event: event.word().to_owned(), ..Self::default() }
    }

    /// Its kind; none where another version wrote it.
    #[must_use]
    pub fn kind(&self) -> Option<LogEvent> {
        self.event.parse().ok()
    }

    /// Logs it: `what` is what people read, followed by the fields.
    pub fn log(&self, what: &str) {
        self.log_as(&format!("{what}{}", self.fields()));
    }

    /// Logs it: people read `text` and nothing else.
    pub fn log_as(&self, text: &str) {
        let Some(kind) = self.kind() else { return };
        let record = serde_json::to_string(self).unwrap_or_default();
        let record = record.as_str();
        match kind.severity() {
            Severity::Error => tracing::error!(record, "{text}"),
            Severity::Warn => tracing::warn!(record, "{text}"),
            Severity::Info => tracing::info!(record, "{text}"),
        }
    }

    /// The fields but the event as ` name=value`; where a value would be taken for several, in quotation marks.
    #[must_use]
    pub fn fields(&self) -> String {
        let mut out = String::new();
        for (name, value) in self.pairs() {
            if name != "event" {
                let plain =
                    !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || "\"=".contains(c));
                let _ = if plain { write!(out, " {name}={value}") } else { write!(out, " {name}={value:?}") };
            }
        }
        out
    }

    /// Names and values of the fields it has, in their order; a list is its items with a blank between them.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        // In the order of this file, which a map of JSON would lose.
        let order = NAMES.iter();
        let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(self) else { return Vec::new() };
        order
            .filter_map(|&name| {
                let value = match fields.get(name)? {
                    serde_json::Value::String(text) => text.clone(),
                    serde_json::Value::Array(items) => {
                        items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(" ")
                    }
                    other => other.to_string(),
                };
                Some((name.to_owned(), value))
            })
            .collect()
    }
}

/// The names of all fields, in their order.
pub const NAMES: [&str; 17] = [
    "event",
    "address",
    "client",
    "app",
    "by",
    "how",
    "lifetime_s",
    "services",
    "action",
    "step",
    "reason",
    "count",
    "addresses",
    "changes",
    "grants",
    "version",
    "backend",
];

/// A number of things as fields have it.
#[must_use]
pub fn number(count: usize) -> Option<u64> {
    u64::try_from(count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that has every field.
    fn full() -> Record {
        Record {
            address: Some("2001:db8::".to_owned()),
            client: Some("2001:db8::7".parse().unwrap()),
            app: Some("ssh".to_owned()),
            by: Some("key 1".to_owned()),
            how: Some("two-step".to_owned()),
            lifetime_s: Some(60),
            services: vec!["tcp/22".to_owned(), "udp/22".to_owned()],
            action: Some("grant".to_owned()),
            step: Some(1),
            reason: Some("a \"reason\"".to_owned()),
            count: Some(1),
            addresses: Some(2),
            changes: Some(3),
            grants: Some(4),
            version: Some("1".to_owned()),
            backend: Some("nftables".to_owned()),
            ..Record::of(LogEvent::Granted)
        }
    }

    #[test]
    fn every_field_is_named_and_reads_as_it_was_written() {
        let pairs = full().pairs();
        assert_eq!(pairs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), NAMES);
        let text = serde_json::to_string(&full()).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), full());
        let text = serde_json::to_string(&Record::of(LogEvent::Ready)).unwrap();
        assert_eq!(text, "{\"event\":\"ready\"}", "what does not belong to it is left out");
    }

    #[test]
    fn the_document_on_events_names_every_field() {
        let document = include_str!("../../docs/events.md");
        let missing: Vec<&str> =
            NAMES.into_iter().filter(|name| !document.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn people_read_fields_as_words() {
        let text = full().fields();
        assert!(
            text.starts_with(" address=2001:db8:: client=2001:db8::7 app=ssh by=\"key 1\" how=two-step"),
            "{text}"
        );
        assert!(
            text.contains(" services=\"tcp/22 udp/22\"") && text.contains(" reason=\"a \\\"reason\\\"\""),
            "{text}"
        );
    }
}
