//! How clients call this host: what a certificate can be made for, and what they can be told.

use std::net::IpAddr;

/// The longest part between two dots (RFC 1035).
const LABEL: usize = 63;
/// The longest name.
const NAME: usize = 253;

/// A name or an address by which clients reach this host.
///
/// # Errors
/// What to write instead.
pub(super) fn host(text: &str) -> Result<String, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        Ok(bare.to_owned())
    } else if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("write a name such as gate.example.com, or an address, without port or path".to_owned())
    }
}

/// The same, or every name below one: `*.example.com`.
///
/// # Errors
/// As above.
pub(super) fn certified(text: &str) -> Result<String, String> {
    match text.strip_prefix("*.") {
        Some(domain) if is_name(domain) && domain.parse::<IpAddr>().is_err() => Ok(text.to_owned()),
        Some(_) | None => host(text),
    }
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        (1..=LABEL).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    // What ends with a number is an address, and not a right one.
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    text.len() <= NAME && text.split('.').all(is_label) && !text.rsplit('.').next().is_some_and(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_as_certificates_and_profiles_can_carry() {
        let longest = format!("{}.example", "a".repeat(63));
        for good in [
            "gate.example.com",
            "gate",
            "1.example.com",
            "a-b.c",
            "my_host.lan",
            "203.0.113.1",
            "::1",
            &longest,
        ] {
            assert_eq!((host(good), certified(good)), (Ok(good.to_owned()), Ok(good.to_owned())), "{good}");
        }
        assert_eq!(host("[2001:db8::1]").as_deref(), Ok("2001:db8::1"));
        assert_eq!(certified("*.example.com").as_deref(), Ok("*.example.com"));
        let too_long = format!("{}.example", "a".repeat(64));
        for wrong in [
            "",
            "a b",
            "http://gate/",
            "203.0.113.1:443",
            "203.0.113.0/24",
            "a\nb",
            "a..b",
            ".a",
            "a.",
            "-a.b",
            "a-.b",
            "203.0.113.256",
            "*.203.0.113.1",
            "*.",
            "*.*.a",
            "a.*.b",
            "gät.example",
            &too_long,
            &"x.".repeat(150),
        ] {
            assert!(host(wrong).is_err() && certified(wrong).is_err(), "{wrong:?}");
        }
        assert!(host("*.example.com").is_err());
    }
}
