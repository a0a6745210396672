//! Names and addresses by which clients reach this host, as they are given on the command line.

use std::net::IpAddr;

/// The longest host name and the longest part of one (RFC 1035, section 2.3.4), in bytes.
const LONGEST: (usize, usize) = (253, 63);

/// A name or an address by which clients reach this host; an address comes without brackets.
///
/// # Errors
/// What is to be written instead.
pub(in crate::cli) fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err("write a name such as gate.example.com, or an address, without port or path".to_owned())
}

/// The same for a certificate, which may also stand for all names of a domain: `*.example.com`.
///
/// # Errors
/// What is to be written instead.
pub(in crate::cli) fn certified(text: &str) -> Result<String, String> {
    match text.strip_prefix("*.") {
        Some(domain) if is_name(domain) && domain.contains('.') => Ok(text.to_owned()),
        _ => host(text),
    }
}

/// Whether clients would ask a resolver for it: no dot at the end, as certificates have none. Digits and dots alone are an
/// address that is wrong.
fn is_name(text: &str) -> bool {
    let (longest, longest_part) = LONGEST;
    let part = |part: &str| {
        (1..=longest_part).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    text.len() <= longest && text.split('.').all(part) && !text.rsplit('.').next().is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_taken_and_nothing_that_no_client_could_ask_for() {
        for right in [
            "gate",
            "gate.example.com",
            "my_box",
            "xn--4gbrim.example",
            "203.0.113.1",
            "2001:db8::1",
            "1and1.com",
        ] {
            assert_eq!(host(right).as_deref(), Ok(right));
            assert_eq!(certified(right).as_deref(), Ok(right));
        }
        assert_eq!(host("[2001:db8::1]").as_deref(), Ok("2001:db8::1"));
        assert_eq!(certified("*.example.com").as_deref(), Ok("*.example.com"));
        let long = [&*"x".repeat(64), &"abc.".repeat(64)].map(str::to_owned);
        for wrong in [
            "",
            ".",
            "a b",
            "a..b",
            "gate.",
            "http://gate/",
            "gate:443",
            "203.0.113.1:443",
            "203.0.113.0/24",
            "a\nb",
            "-gate",
            "gate-.example",
            "203.0.113",
            "203.0.113.256",
            "[gate]",
            "*",
            "*.com",
            "a.*.example.com",
            "höhle",
        ]
        .into_iter()
        .chain(long.iter().map(String::as_str))
        {
            assert!(certified(wrong).is_err(), "{wrong}");
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }
}
