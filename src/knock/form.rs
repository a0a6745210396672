use std::mem;

use zeroize::{Zeroize, Zeroizing};

use crate::units::Secret;

const MAX_APP: usize = 50;
const KEY: std::ops::RangeInclusive<usize> = 10..=50;
const TOKEN: std::ops::RangeInclusive<usize> = 6..=8;

/// The fields of a knock, well formed and otherwise unverified.
#[derive(Clone, Debug)]
pub struct Form {
    /// `app`: 1 to 50 characters, none of them a control character.
    pub app: String,
    /// `access_key`: 10 to 50 characters, none of them a control character.
    pub access_key: Secret,
    /// `token`: 6 to 8 digits.
    pub token: Option<Secret>,
}

impl Form {
    /// The form in an `application/x-www-form-urlencoded` body; nothing when a field is
    /// unknown, repeated, missing, empty, outside its length, or not plain UTF-8 text.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (mut app, mut access_key, mut token) = (None, None, None);
        for pair in body.split(|&b| b == b'&') {
            let at = pair.iter().position(|&b| b == b'=')?;
            let (name, value) = (pair.get(..at)?, pair.get(at + 1..)?);
            let field = match name {
                b"app" => &mut app,
                b"access_key" => &mut access_key,
                b"token" => &mut token,
                _ => return None,
            };
            if field.replace(decode(value)?).is_some() {
                return None;
            }
        }
        let (app, access_key) = (app?, access_key?);
        if !(1..=MAX_APP).contains(&chars(&app)) || !KEY.contains(&chars(&access_key)) {
            return None;
        }
        if let Some(code) = &token
            && !(TOKEN.contains(&chars(code)) && code.expose().bytes().all(|b| b.is_ascii_digit()))
        {
            return None;
        }
        let app = app.expose().to_owned();
        Some(Self { app, access_key, token })
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
    match String::from_utf8(mem::take(&mut *plain)) {
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

    #[test]
    fn fields_come_in_any_order_and_are_decoded() {
        let form = Form::parse(b"access_key=a%2Bb+c%3d%C3%A4%26xyz&token=012345&app=my+app%21").unwrap();
        assert_eq!(form.app, "my app!");
        assert_eq!(form.access_key.expose(), "a+b c=ä&xyz");
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
            assert_eq!(form.access_key.expose(), "ä".repeat(key));
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
            prop_assert_eq!(form.access_key.expose(), key);
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&body);
        }
    }
}
