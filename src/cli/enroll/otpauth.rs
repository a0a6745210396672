//! The URI that authenticator apps read from a QR code.

use crate::units::{Secret, TotpKind};

/// RFC 4648.
const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Bytes in base32 without padding, as authenticator apps want it.
pub fn base32(bytes: &[u8]) -> Secret {
    let mut text = String::with_capacity(bytes.len() * 2);
    let (mut held, mut bits) = (0_u32, 0_u32);
    let mut put = |five: u32| {
        let letter = usize::try_from(five & 31).ok().and_then(|at| LETTERS.get(at));
        text.push(letter.copied().unwrap_or(b'A').into());
    };
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            put(held >> bits);
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        put(held << (5 - bits));
    }
    Secret::new(text)
}

/// `otpauth://totp/ISSUER:USER?...`; interval and digits are named where they are not the usual ones.
pub fn uri(issuer: &str, user: &str, base32: &Secret, kind: TotpKind) -> Secret {
    let issuer = encoded(issuer);
    let mut text = String::with_capacity(512);
    text.push_str(&format!("otpauth://totp/{issuer}:{}?secret=", encoded(user)));
    text.push_str(base32.expose());
    text.push_str(&format!("&issuer={issuer}"));
    let usual = TotpKind::default();
    if kind.digits != usual.digits {
        text.push_str(&format!("&digits={}", kind.digits));
    }
    if kind.interval != usual.interval {
        text.push_str(&format!("&period={}", kind.interval));
    }
    Secret::new(text)
}

/// An issuer's name: a colon would end it.
pub fn issuer(text: &str) -> Result<String, &'static str> {
    let legal = !text.trim().is_empty() && text.len() <= 64 && !text.contains(':');
    let plain = !text.chars().any(char::is_control);
    if legal && plain { Ok(text.to_owned()) } else { Err("a name of 1 to 64 bytes without a colon") }
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_rfc_4648_without_padding() {
        for (bytes, text) in
            [("", ""), ("f", "MY"), ("fo", "MZXQ"), ("foo", "MZXW6"), ("foobar", "MZXW6YTBOI")]
        {
            assert_eq!(base32(bytes.as_bytes()).expose(), text);
        }
    }

    #[test]
    fn the_uri_names_what_is_unusual() {
        let secret = Secret::new("MZXW6YTBOI".to_owned());
        let usual = uri("my gate", "alice", &secret, TotpKind::default());
        assert_eq!(usual.expose(), "otpauth://totp/my%20gate:alice?secret=MZXW6YTBOI&issuer=my%20gate");
        let other = uri("x", "a@b", &secret, TotpKind { digits: 8, interval: 60, drift: 1 });
        assert_eq!(other.expose(), "otpauth://totp/x:a@b?secret=MZXW6YTBOI&issuer=x&digits=8&period=60");
        assert!(issuer("a:b").is_err() && issuer(" ").is_err() && issuer("my gate").is_ok());
    }
}
