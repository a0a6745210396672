use std::mem;

use zeroize::{Zeroize, Zeroizing};

use super::attempt::{Action, Credential};
use super::proof::Proof;
use crate::units::{Lifetime, Secret};

const MAX_APP: usize = 50;
const KEY: std::ops::RangeInclusive<usize> = 10..=50;
const TOKEN: std::ops::RangeInclusive<usize> = 6..=8;

const MAX_USER: usize = 32;
const MAX_DURATION: usize = 12;

/// The fields of a knock, well formed and otherwise unverified.
#[derive(Clone, Debug)]
pub struct Form {
    /// `app`: 1 to 50 characters, none of them a control character.
    pub app: String,
    /// `access_key`: 10 to 50 characters, none of them a control character. Or `proof`.
    pub credential: Credential,
    /// `user`: 1 to 32 characters; a proof needs it.
    pub user: Option<String>,
    /// `token`: 6 to 8 digits.
    pub token: Option<Secret>,
    /// `duration`: as configurations write it.
    pub duration: Option<Lifetime>,
    /// `action`: `open` unless it says `close`.
    pub action: Action,
}

/// The values of a form as they come.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) app: Option<Secret>,
    pub(super) access_key: Option<Secret>,
    pub(super) proof: Option<Secret>,
    pub(super) user: Option<Secret>,
    pub(super) token: Option<Secret>,
    pub(super) duration: Option<Secret>,
    pub(super) action: Option<Secret>,
}

impl Raw {
    fn field(&mut self, name: &[u8]) -> Option<&mut Option<Secret>> {
        Some(match name {
            b"app" => &mut self.app,
            b"access_key" => &mut self.access_key,
            b"proof" => &mut self.proof,
            b"user" => &mut self.user,
            b"token" => &mut self.token,
            b"duration" => &mut self.duration,
            b"action" => &mut self.action,
            _ => return None,
        })
    }
}

impl Form {
    /// The form in an `application/x-www-form-urlencoded` body; nothing when a field is
    /// unknown, repeated, missing, empty, outside its length, or not plain UTF-8 text.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut raw = Raw::default();
        for pair in body.split(|&b| b == b'&') {
            let at = pair.iter().position(|&b| b == b'=')?;
            let (name, value) = (pair.get(..at)?, pair.get(at + 1..)?);
            if raw.field(name)?.replace(decode(value)?).is_some() {
                return None;
            }
        }
        Self::of(raw)
    }

    /// The form that these values are; nothing where one is missing, empty or outside its bounds.
    pub(super) fn of(raw: Raw) -> Option<Self> {
        let app = raw.app.filter(|app| (1..=MAX_APP).contains(&chars(app)))?;
        let user = optional(raw.user, |user| {
            let name = user.expose();
            (!name.is_empty() && name.len() <= MAX_USER && !name.contains(char::is_whitespace))
                .then(|| name.to_owned())
        })?;
        let credential = match (raw.access_key, raw.proof) {
            (Some(key), None) if KEY.contains(&chars(&key)) => Credential::Key(key),
            (None, Some(proof)) if user.is_some() => Credential::Proof(Proof::parse(proof.expose())?),
            (Some(_) | None, Some(_) | None) => return None,
        };
        let digits = |code: &Secret| code.expose().bytes().all(|b| b.is_ascii_digit());
        let token =
            optional(raw.token, |code| (TOKEN.contains(&chars(&code)) && digits(&code)).then_some(code))?;
        let duration = optional(raw.duration, |text| {
            let text = text.expose();
            if text.len() <= MAX_DURATION { text.parse::<Lifetime>().ok() } else { None }
        })?;
        let action = optional(raw.action, |text| match text.expose() {
            "open" => Some(Action::Open),
            "close" => Some(Action::Close),
            _ => None,
        })?;
        let app = app.expose().to_owned();
        Some(Self { app, credential, user, token, duration, action: action.unwrap_or(Action::Open) })
    }
}

/// What `read` makes of a field that may be missing; nothing where it is there and wrong.
fn optional<T>(field: Option<Secret>, read: impl FnOnce(Secret) -> Option<T>) -> Option<Option<T>> {
    match field {
        None => Some(None),
        Some(text) => read(text).map(Some),
    }
}

fn chars(text: &Secret) -> usize {
    text.expose().chars().count()
}

/// Undoes `+` and `%XX`; the text is written once, into memory that is wiped.
fn decode(value: &[u8]) -> Option<Secret> {
    // The whole length at once: a vector that grows would leave copies behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'+', _) => (b' ', after),
            (b'%', [high, low, after @ ..]) => (hex(*high)? << 4 | hex(*low)?, after),
            (b'%', _) => return None,
            (b'!'..=b'~', _) => (first, after),
            // A form is ASCII; what is not comes as %XX, and a space as `+`.
            _ => return None,
        };
        plain.push(byte);
        rest = after;
    }
    plain_text(mem::take(&mut *plain))
}

/// The text that bytes are; nothing where they are no UTF-8 or hold a control character. They are wiped.
pub(super) fn plain_text(bytes: Vec<u8>) -> Option<Secret> {
    match String::from_utf8(bytes) {
        Ok(text) => {
            let secret = Secret::new(text);
            (!secret.expose().chars().any(char::is_control)).then_some(secret)
        }
        Err(bad) => {
            bad.into_bytes().zeroize();
            None
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key_of(form: &Form) -> &str {
        match &form.credential {
            Credential::Key(key) => key.expose(),
            Credential::Proof(_) => panic!("a proof"),
        }
    }

    #[test]
    fn fields_come_in_any_order_and_are_decoded() {
        let form = Form::parse(b"access_key=a%2Bb+c%3d%C3%A4%26xyz&token=012345&app=my+app%21").unwrap();
        assert_eq!(form.app, "my app!");
        assert!(matches!(&form.credential, Credential::Key(key) if key.expose() == "a+b c=ä&xyz"));
        assert_eq!(form.token.unwrap().expose(), "012345");
    }

    #[test]
    fn a_form_that_is_not_exactly_right_is_refused() {
        let long_app = format!("app={}&access_key=0123456789", "a".repeat(51));
        let long_key = format!("app=ssh&access_key={}", "k".repeat(51));
        for bad in [
            "",
            "app=ssh",
            "access_key=0123456789",
            "app=&access_key=0123456789",
            "app=ssh&access_key=",
            "app=ssh&access_key=012345678",
            "app=ssh&access_key=0123456789&",
            "&app=ssh&access_key=0123456789",
            "app=ssh&&access_key=0123456789",
            "app=ssh&access_key=0123456789&app=ssh",
            "app=ssh&access_key=0123456789&access_key=0123456789",
            "app=ssh&access_key=0123456789&token=123456&token=123456",
            "app=ssh&access_key=0123456789&more=1",
            "app=ssh&access_key=0123456789&App=ssh",
            "%61pp=ssh&access_key=0123456789",
            "app=ssh&access_key",
            "app=ssh&access_key=0123456789&token=",
            "app=ssh&access_key=0123456789&token=12345",
            "app=ssh&access_key=0123456789&token=123456789",
            "app=ssh&access_key=0123456789&token=12345a",
            "app=ssh&access_key=0123456789&token=+23456",
            "app=ssh&access_key=0123456789&token=%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1%D9%A1",
            "app=ssh&access_key=0123456789%",
            "app=ssh&access_key=0123456789%4",
            "app=ssh&access_key=0123456789%G0",
            "app=ssh&access_key=0123456789%+1",
            "app=ssh&access_key=0123456789%00",
            "app=ssh&access_key=0123456789%0A",
            "app=s%7Fh&access_key=0123456789",
            "app=ssh&access_key=0123456789%FF",
            "app=ssh&access_key=0123456789%ED%A0%80",
            "app=ssh&access_key=0123456789%C0%AF",
            "app=ssh&access_key=01234567 89",
            "app=ssh&access_key=0123456789ä",
            "app=ssh&access_key=0123456789\r\n",
            "app=ssh;access_key=0123456789",
            "{\"app\":\"ssh\",\"access_key\":\"0123456789\"}",
            &long_app,
            &long_key,
        ] {
            assert!(Form::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn lengths_count_characters_and_reach_both_ends() {
        for (app, key) in [(1, 10), (50, 50)] {
            let body = format!("app={}&access_key={}", "%C3%A4".repeat(app), "%C3%A4".repeat(key));
            let form = Form::parse(body.as_bytes()).unwrap();
            assert_eq!(key_of(&form), "ä".repeat(key));
        }
    }

    #[test]
    fn a_form_does_not_print_its_secrets() {
        let form = Form::parse(b"app=ssh&access_key=0123456789&token=123456").unwrap();
        let printed = format!("{form:?}");
        assert!(!printed.contains("0123456789") && !printed.contains("123456"), "{printed}");
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_comes_back(key in "[^\\p{Cc}]{10,50}") {
            let encoded: String = key.bytes().map(|b| format!("%{b:02X}")).collect();
            let form = Form::parse(format!("app=x&access_key={encoded}").as_bytes()).unwrap();
            prop_assert_eq!(key_of(&form), key);
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&body);
        }
    }
}
