use std::fmt;
use std::str::FromStr;

use ring::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::units::{Secret, Timestamp, is_placeholder};

/// How long an access key is, in characters.
const CHARS: std::ops::RangeInclusive<usize> = 10..=50;
/// What every verifier is made over; another version of the scheme would say another number.
const SCHEME: &[u8] = b"knock-agent key 1";
/// What a stored verifier begins with.
const STORED: &str = "$ka1$";
/// What a hash of a key that a person chose begins with.
const ARGON2: &str = "$argon2id$";
const MAX_ID: usize = 16;

/// What proves that somebody has a key, and what codes are made with instead of sending it: the HMAC-SHA-256 of
/// `knock-agent key 1` under the key.
#[derive(Clone)]
pub struct Verifier(Zeroizing<[u8; 32]>);

impl Verifier {
    /// The verifier of a key.
    #[must_use]
    pub fn of(key: &Secret) -> Self {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()), SCHEME);
        // The tag of SHA-256 has 32 bytes.
        Self(Zeroizing::new(tag.as_ref().first_chunk::<32>().copied().unwrap_or_default()))
    }

    /// The 32 bytes, for the few places that must have them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a presented key is checked.
#[derive(Clone, Debug)]
pub enum KeyCheck {
    /// The key itself is known.
    Plain(Secret),
    /// Its verifier is known, which does not tell the key.
    Stored(Verifier),
    /// An argon2id hash in the PHC string format, for keys that people chose.
    Slow(Secret),
}

/// A key of one of the two steps as the configuration has it.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// How a presented one is checked.
    pub check: KeyCheck,
    /// The name of a generated key, the part before its dot.
    pub id: Option<String>,
    /// From when on it opens nothing any more.
    pub expires: Option<Timestamp>,
    /// Whether it opens nothing until somebody changes that.
    pub disabled: bool,
}

/// Why a text is not an [`AccessKey`]; never repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessKeyError {
    /// Too short or too long.
    #[error("an access key has 10 to 50 characters, this one has {0}")]
    Length(usize),
    /// A character that cannot be seen.
    #[error("an access key has printable characters only: remove what cannot be seen")]
    Unseen,
    /// One that documentation shows.
    #[error(
        "this key comes from an example, so everybody knows it: put your own in its place, such as `openssl rand -hex 16` prints"
    )]
    Shown,
    /// A stored verifier that is none.
    #[error(
        "this is not a stored key: `knock-agent hash-key` makes one, `$ka1$<id>$<64 hexadecimal digits>`"
    )]
    Stored,
    /// An argon2id hash that is none.
    #[error(
        "this is not an argon2id hash that can be used: `knock-agent hash-key` makes one, `$argon2id$v=19$m=...,t=...,p=...$...$...` with m up to 262144, t up to 20 and p up to 8"
    )]
    Slow,
}

impl AccessKey {
    /// The key itself, where it is known.
    #[must_use]
    pub fn plain(&self) -> Option<&Secret> {
        match &self.check {
            KeyCheck::Plain(key) => Some(key),
            KeyCheck::Stored(_) | KeyCheck::Slow(_) => None,
        }
    }

    /// What a presented key's verifier must be; none for a hash that has to be worked out.
    #[must_use]
    pub fn verifier(&self) -> Option<Verifier> {
        match &self.check {
            KeyCheck::Plain(key) => Some(Verifier::of(key)),
            KeyCheck::Stored(verifier) => Some(verifier.clone()),
            KeyCheck::Slow(_) => None,
        }
    }

    /// Whether both are checked against the same thing, without telling by time where they differ.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        match (&self.check, &other.check) {
            (KeyCheck::Slow(one), KeyCheck::Slow(two)) => one.same_as(two),
            _ => match (self.verifier(), other.verifier()) {
                (Some(one), Some(two)) => one.expose().ct_eq(two.expose()).into(),
                (Some(_) | None, Some(_) | None) => false,
            },
        }
    }

    /// The most bytes a form needs for it, all but letters, digits and `-._~` percent-encoded.
    #[must_use]
    pub fn form_bytes(&self) -> usize {
        match &self.check {
            KeyCheck::Plain(key) => form_bytes(key.expose()),
            // Nobody knows how long it is; generated ones are shorter.
            KeyCheck::Stored(_) | KeyCheck::Slow(_) => *CHARS.end(),
        }
    }
}

/// How many bytes a text takes as the value of a form field.
#[must_use]
pub fn form_bytes(text: &str) -> usize {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { 1 } else { 3 }).sum()
}

impl FromStr for AccessKey {
    type Err = AccessKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (check, id) = if let Some(rest) = text.strip_prefix(STORED) {
            stored(rest).ok_or(AccessKeyError::Stored)?
        } else if text.starts_with(ARGON2) {
            (KeyCheck::Slow(phc(text).ok_or(AccessKeyError::Slow)?), None)
        } else {
            (KeyCheck::Plain(plain(text)?), id_of(text).map(str::to_owned))
        };
        Ok(Self { check, id, expires: None, disabled: false })
    }
}

fn plain(text: &str) -> Result<Secret, AccessKeyError> {
    let length = text.chars().count();
    if !CHARS.contains(&length) {
        return Err(AccessKeyError::Length(length));
    }
    let unseen = |c: char| c.is_control() || is_invisible(c) || (c.is_whitespace() && c != ' ');
    if text.chars().any(unseen) {
        return Err(AccessKeyError::Unseen);
    }
    if is_placeholder(text) {
        return Err(AccessKeyError::Shown);
    }
    Ok(Secret::new(text.to_owned()))
}

/// Characters that are not seen, or that change the order of others: separators, joiners, direction marks, fillers.
#[must_use]
pub fn is_invisible(ch: char) -> bool {
    matches!(ch,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e007f}')
}

/// The id of a key of the form `id.secret`, as generated ones have it: 4 to 16 of `a-z0-9`, a dot, 20 or more of them.
#[must_use]
pub fn id_of(key: &str) -> Option<&str> {
    let (id, secret) = key.split_once('.')?;
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    ((4..=MAX_ID).contains(&id.len()) && secret.len() >= 20 && plain(id) && plain(secret)).then_some(id)
}

fn stored(rest: &str) -> Option<(KeyCheck, Option<String>)> {
    let (id, digits) = rest.split_once('$')?;
    let plain = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain || id.len() > MAX_ID || digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    for (at, byte) in bytes.iter_mut().enumerate() {
        let pair =
            digits.get(2 * at..2 * at + 2).filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    let id = (!id.is_empty()).then(|| id.to_owned());
    Some((KeyCheck::Stored(Verifier(bytes)), id))
}

/// The text if it has the parts of the PHC string of argon2id; whoever verifies looks at what is in them.
fn phc(text: &str) -> Option<Secret> {
    let parts: Vec<&str> = text.split('$').collect();
    let [_, _, "v=19", parameters, salt, hash] = parts.as_slice() else { return None };
    let base64 = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    };
    let bounded = |parameter: &str| {
        let (name, number) = parameter.split_once('=')?;
        let number: u32 = number.parse().ok()?;
        // Kibibytes, passes and lanes: what one comparison may cost.
        let most = match name {
            "m" => 262_144,
            "t" => 20,
            "p" => 8,
            _ => return None,
        };
        (1..=most).contains(&number).then_some(())
    };
    let named = parameters.split(',').count() == 3 && parameters.split(',').all(|p| bounded(p).is_some());
    (text.len() <= 200 && named && base64(salt) && base64(hash)).then(|| Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> AccessKey {
        text.parse().unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn a_verifier_is_the_hmac_that_openssl_makes() {
        // printf 'knock-agent key 1' | openssl dgst -sha256 -hmac 'ab3d.abcdefghijklmnopqrstuvwxyz'
        let verifier = key("ab3d.abcdefghijklmnopqrstuvwxyz").verifier().unwrap();
        assert_eq!(
            hex(verifier.expose()),
            "86dcd27c1db0133d3f743598f9e14f658b800d6c2f6c7964783930cd9d447de9"
        );
    }

    #[test]
    fn a_stored_key_is_checked_like_the_key_itself_and_does_not_tell_it() {
        let plain = key("ab3d.abcdefghijklmnopqrstuvwxyz");
        assert_eq!(plain.id.as_deref(), Some("ab3d"));
        let text = format!("$ka1$ab3d${}", hex(plain.verifier().unwrap().expose()));
        let stored = key(&text);
        assert!(stored.same_as(&plain) && plain.same_as(&stored));
        assert_eq!((stored.id.as_deref(), stored.plain().is_some()), (Some("ab3d"), false));
        assert!(!stored.same_as(&key("ab3d.abcdefghijklmnopqrstuvwxy2")));
        let debug = format!("{stored:?} {plain:?}");
        assert!(!debug.contains("abcdefgh") && !debug.contains(&text[10..20]), "{debug}");
    }

    #[test]
    fn ids_are_those_of_generated_keys_only() {
        for (text, id) in [
            ("ab3d.abcdefghijklmnopqrst", Some("ab3d")),
            ("ab3.abcdefghijklmnopqrst", None),
            ("ab3d.abcdefghijklmnopqrs", None),
            ("ab3d.Abcdefghijklmnopqrst", None),
            ("my.secret.key", None),
            ("secret123_http", None),
        ] {
            assert_eq!(key(text).id.as_deref(), id, "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        use AccessKeyError::{Length, Shown, Slow, Stored, Unseen};
        let short = format!("$ka1$ab3d${}", "0".repeat(63));
        let sign = format!("$ka1$ab3d$+{}", "0".repeat(63));
        for (text, error) in [
            ("short-key", Length(9)),
            ("first\u{200b}secret", Unseen),
            ("first\tsecret", Unseen),
            ("replace-this-key-1", Shown),
            (short.as_str(), Stored),
            (sign.as_str(), Stored),
            ("$ka1$AB$00", Stored),
            ("$argon2id$v=19$m=1,t=1,p=1$salt", Slow),
            ("$argon2id$v=16$m=1,t=1,p=1$salt$hash", Slow),
            ("$argon2id$v=19$m=x,t=1,p=1$salt$hash", Slow),
            ("$argon2id$v=19$m=262145,t=1,p=1$salt$hash", Slow),
            ("$argon2id$v=19$m=64,t=1,t=1$salt$hash$", Slow),
        ] {
            assert_eq!(text.parse::<AccessKey>().unwrap_err(), error, "{text}");
        }
        let slow = key("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g");
        assert!(slow.verifier().is_none() && slow.same_as(&slow) && !slow.same_as(&key("first-secret")));
    }
}
