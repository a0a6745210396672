//! The values that cannot be wrong, out of text.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use crate::config::Trusted;
use crate::units::{
    AccessKey, AppName, EventKind, HttpPath, IfName, KeyCheck, Knock, KnockSecret, Lifetime, Mark, Network,
    PortRange, Secret, SequenceName, Timestamp, TotpKind, TotpSecret, UserName, Verifier,
};

use super::choices::Choices;

/// What is read and shown is read as the same.
fn shown<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let shown = value.to_string();
        let again = shown.parse::<T>();
        assert!(again.as_ref().is_ok_and(|again| *again == value), "{text:?} is shown as {shown:?}");
    }
}

/// The first byte says what the rest is.
pub fn texts(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let what = choices.below(19);
    let Ok(text) = std::str::from_utf8(choices.rest()) else { return };
    match what {
        0 => shown::<AppName>(text),
        1 => shown::<UserName>(text),
        2 => shown::<SequenceName>(text),
        3 => shown::<IfName>(text),
        4 => shown::<Lifetime>(text),
        5 => shown::<Mark>(text),
        6 => network(text),
        7 => shown::<PortRange>(text),
        8 => timestamp(text),
        9 => shown::<Knock>(text),
        10 => {
            let _ = text.parse::<EventKind>();
        }
        11 => path(text),
        12 => access_key(text),
        13 => {
            let _ = text.parse::<Trusted>();
        }
        14 => two_factor(TotpSecret::parse(text).ok()),
        15 => two_factor(TotpSecret::from_base32(text, TotpKind::default()).ok()),
        16 => {
            let _ = KnockSecret::from_base32(text);
        }
        17 => {
            let _ = crate::knock::Proof::parse(text).map(|proof| assert_eq!(proof.text().expose(), text));
        }
        _ => {
            if let Ok(slug) = text.parse::<AppName>().map(|name| name.slug()) {
                assert!(!slug.is_empty() && slug.len() <= 48, "{slug}");
                assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
            }
        }
    }
}

fn network(text: &str) {
    shown::<Network>(text);
    if let Ok(network) = text.parse::<Network>() {
        let json = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
        assert!(network.first() <= network.last());
    }
}

fn timestamp(text: &str) {
    shown::<Timestamp>(text);
    if let Ok(time) = text.parse::<Timestamp>() {
        let at = UNIX_EPOCH + Duration::from_secs(time.as_secs());
        assert_eq!(time.left(at), None);
        assert_eq!(time.left(at - Duration::from_millis(1)), Some(Duration::from_millis(1)));
    }
}

/// A path has to fit into a request line and into rules, whole.
fn path(text: &str) {
    let Ok(path) = text.parse::<HttpPath>() else { return };
    assert_eq!(path.expose(), text);
    assert!(
        text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\?#%".contains(&b)),
        "{text}"
    );
    assert!(!format!("{path:?}").contains(text) || text.len() < 4, "a path shows itself");
}

fn access_key(text: &str) {
    let Ok(key) = text.parse::<AccessKey>() else { return };
    let debug = format!("{key:?}");
    match &key.check {
        KeyCheck::Plain(plain) => {
            assert_eq!(plain.expose(), text);
            let verifier = key.verifier().unwrap();
            assert_eq!(verifier.expose(), Verifier::of(&Secret::new(text.to_owned())).expose());
            assert!(key.id.is_some() || !debug.contains(text) || text.len() < 10, "a key shows itself");
        }
        KeyCheck::Stored(verifier) => {
            let hex: String = verifier.expose().iter().map(|b| format!("{b:02x}")).collect();
            assert!(text.to_ascii_lowercase().ends_with(&hex));
        }
        KeyCheck::Slow(_) => assert!(text.starts_with("$argon2id$")),
    }
}

fn two_factor(secret: Option<TotpSecret>) {
    let Some(secret) = secret else { return };
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let code = secret.code_at(at);
    assert!((6..=8).contains(&code.expose().len()) && code.expose().bytes().all(|b| b.is_ascii_digit()));
    assert!(secret.is_current(&code, at));
}
