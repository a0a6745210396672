use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::service::record::{NAMES, Record};
use crate::units::{Family, Lifetime, Network, Timestamp};

/// What the names of fields begin with in the journal.
const OURS: &str = "KNOCK_AGENT_";

/// One event as it was logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// When, in microseconds since 1970 began.
    pub(super) micros: u64,
    pub(super) record: Record,
    level: String,
    message: String,
}

impl Entry {
    /// Reads a line of the daemon's own, or of `journalctl -o json`; none where it is no event.
    pub(super) fn read(line: &str) -> Option<Self> {
        let object: Map<String, Value> = serde_json::from_str(line).ok()?;
        if object.contains_key("__REALTIME_TIMESTAMP") {
            Self::of_journal(&object)
        } else {
            Self::of_daemon(object)
        }
    }

    fn of_daemon(mut object: Map<String, Value>) -> Option<Self> {
        let text = |object: &Map<String, Value>, name: &str| object.get(name)?.as_str().map(str::to_owned);
        let micros = micros(&text(&object, "time")?)?;
        let (level, message) = (text(&object, "level")?, text(&object, "message")?);
        object.retain(|name, _| NAMES.contains(&name.as_str()));
        let record: Record = serde_json::from_value(Value::Object(object)).ok()?;
        (!record.event.is_empty()).then_some(Self { micros, record, level, message })
    }

    fn of_journal(object: &Map<String, Value>) -> Option<Self> {
        let message = journal_text(object.get("MESSAGE")?)?;
        if message.starts_with('{') {
            return Self::of_daemon(serde_json::from_str(&message).ok()?);
        }
        let micros = journal_text(object.get("__REALTIME_TIMESTAMP")?)?.parse().ok()?;
        let mut fields = Map::new();
        for name in NAMES {
            let Some(value) = object.get(&format!("{OURS}{}", name.to_ascii_uppercase())) else { continue };
            fields.insert(name.to_owned(), value_of(name, journal_text(value)?));
        }
        let record: Record = serde_json::from_value(Value::Object(fields)).ok()?;
        let priority = object.get("PRIORITY").and_then(Value::as_str);
        let level = match priority {
            Some("0" | "1" | "2" | "3") => "error",
            Some("4") => "warn",
            Some("7") => "debug",
            Some(_) | None => "info",
        };
        (!record.event.is_empty()).then_some(Self { micros, record, level: level.to_owned(), message })
    }

    /// Whether it is about an address of that network.
    pub(super) fn concerns(&self, wanted: Network) -> bool {
        let inside = |network: Network| network.holds(wanted) || wanted.holds(network);
        let address = self.record.address.as_deref().and_then(network_of);
        address.into_iter().chain(self.record.client.map(Network::host)).any(inside)
    }

    /// `2026-01-31 18:00:00`.
    pub(super) fn time(&self) -> String {
        let at = Timestamp::from_secs(self.micros / 1_000_000).map(|at| at.to_string()).unwrap_or_default();
        at.replace('T', " ").trim_end_matches('Z').to_owned()
    }

    /// What happened, for people.
    pub(super) fn sentence(&self) -> String {
        let Record { address, client, app, by, how, lifetime_s, .. } = &self.record;
        let mut words = Vec::new();
        let who = client.map(|client| client.to_string()).or_else(|| address.clone());
        words.extend(app.clone());
        words.extend(who);
        words.extend(lifetime_s.map(lifetime));
        words.extend(by.as_ref().map(|by| format!("by {by}")));
        words.extend(how.as_ref().map(|how| format!("({how})")));
        let named = ["event", "address", "client", "app", "by", "how", "lifetime_s", "services"];
        let rest = self.record.pairs().into_iter().filter(|(name, _)| !named.contains(&name.as_str()));
        words.extend(rest.map(|(name, value)| format!("{name}: {value}")));
        words.join("  ")
    }

    /// The line of a daemon with `--log-format json`.
    pub(super) fn json(&self) -> String {
        let at = Timestamp::from_secs(self.micros / 1_000_000).map(|at| at.to_string()).unwrap_or_default();
        let time = format!("{}.{:06}Z", at.trim_end_matches('Z'), self.micros % 1_000_000);
        let mut line = Map::new();
        line.insert("time".to_owned(), time.into());
        line.insert("level".to_owned(), self.level.as_str().into());
        line.insert("message".to_owned(), self.message.as_str().into());
        if let Ok(Value::Object(fields)) = serde_json::to_value(&self.record) {
            line.extend(fields);
        }
        Value::Object(line).to_string()
    }
}

/// Its text, or the bytes that stand for one that is not plain.
fn journal_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(bytes) => {
            let bytes: Option<Vec<u8>> =
                bytes.iter().map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}

/// A field of the journal, where everything is text, as a [`Record`] has it.
fn value_of(name: &str, text: String) -> Value {
    match name {
        "services" => text.split_whitespace().collect(),
        "lifetime_s" | "step" | "count" | "addresses" | "changes" | "grants" => {
            text.parse::<u64>().map_or(Value::Null, Value::from)
        }
        _ => text.into(),
    }
}

/// The network that an address stands for: one of IPv6 that ends in zeros for all that begin like it.
fn network_of(text: &str) -> Option<Network> {
    let network: Network = text.parse().ok()?;
    match network.first() {
        IpAddr::V6(first) if network.prefix_len() == Family::V6.bits() => {
            let zeros = u128::from(first).trailing_zeros().min(128 - SHORTEST);
            Network::around(network.first(), u8::try_from(128 - zeros).ok()?).ok()
        }
        _ => Some(network),
    }
}

/// No grant is for more than that: what ends in more zeros is an address of its own.
const SHORTEST: u32 = 48;

fn micros(time: &str) -> Option<u64> {
    let (whole, fraction) = time.strip_suffix('Z')?.split_once('.')?;
    let secs = format!("{whole}Z").parse::<Timestamp>().ok()?.as_secs();
    let micros: u64 = (fraction.len() == 6).then(|| fraction.parse().ok())??;
    secs.checked_mul(1_000_000)?.checked_add(micros)
}

fn lifetime(secs: u64) -> String {
    Lifetime::from_secs(secs).map_or_else(|_| format!("{secs}s"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"{"time":"2027-01-31T18:00:00.000042Z","level":"info","message":"granted","event":"granted","address":"2001:db8:1::","client":"2001:db8:1::7","app":"ssh","by":"alice","how":"two-step","lifetime_s":3600,"services":["tcp/22"]}"#;

    fn journal() -> String {
        r#"{"__REALTIME_TIMESTAMP":"1801418400000042","PRIORITY":"6","MESSAGE":"granted","KNOCK_AGENT_EVENT":"granted","KNOCK_AGENT_ADDRESS":"2001:db8:1::","KNOCK_AGENT_CLIENT":"2001:db8:1::7","KNOCK_AGENT_APP":"ssh","KNOCK_AGENT_BY":[97,108,105,99,101],"KNOCK_AGENT_HOW":"two-step","KNOCK_AGENT_LIFETIME_S":"3600","KNOCK_AGENT_SERVICES":"tcp/22"}"#.to_owned()
    }

    #[test]
    fn the_same_event_is_read_from_a_file_and_from_the_journal() {
        let own = Entry::read(OWN).unwrap();
        assert_eq!(Entry::read(&journal()).unwrap(), own);
        assert_eq!(Entry::read(&own.json()).unwrap(), own);
        let escaped = serde_json::to_string(OWN).unwrap();
        let inside = format!(r#"{{"__REALTIME_TIMESTAMP":"1","MESSAGE":{escaped}}}"#);
        assert_eq!(Entry::read(&inside).unwrap(), own, "JSON lines that went into the journal");
        assert_eq!(own.time(), "2027-01-31 18:00:00");
        assert_eq!(own.sentence(), "ssh  2001:db8:1::7  1h  by alice  (two-step)");
    }

    #[test]
    fn what_is_no_event_is_passed_over() {
        for line in [
            "",
            "INFO granted",
            "[1]",
            r#"{"time":"2027-01-31T18:00:00.000042Z","level":"info","message":"x"}"#,
            r#"{"time":"soon","level":"info","message":"x","event":"granted"}"#,
            r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":"Started knock-agent."}"#,
            r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":null}"#,
        ] {
            assert_eq!(Entry::read(line), None, "{line}");
        }
    }

    #[test]
    fn an_address_is_found_in_its_prefix_and_in_networks() {
        let entry = |address: &str| {
            Entry::read(&OWN.replace(",\"client\":\"2001:db8:1::7\"", "").replace("2001:db8:1::", address))
                .unwrap()
        };
        for (address, wanted, is) in [
            ("2001:db8:1::", "2001:db8:1::9", true),
            ("2001:db8:1::", "2001:db8:2::9", false),
            ("2001:db8:1::7", "2001:db8:1::9", false),
            ("203.0.113.7", "203.0.113.7", true),
            ("203.0.113.7", "203.0.113.0/24", true),
            ("203.0.113.0", "203.0.113.7", false),
            ("203.0.113.0/24", "203.0.113.7", true),
            ("203.0.113.7", "::/0", false),
        ] {
            assert_eq!(entry(address).concerns(wanted.parse().unwrap()), is, "{address} {wanted}");
        }
    }
}
