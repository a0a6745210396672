//! When a certificate ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// When the first certificate of a chain in PEM ends (the server's own); none where that cannot be read.
#[must_use]
pub(super) fn end_of_chain(pem: &[u8]) -> Option<SystemTime> {
    let first = CertificateDer::from_pem_slice(pem).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(end_of(&first)?))
}

/// `notAfter` of a certificate in DER (RFC 5280), in seconds since 1970.
fn end_of(der: &[u8]) -> Option<u64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = item(der)?;
    let (_, mut rest, _) = item(certificate)?;
    // Version (perhaps), serial number, algorithm, issuer.
    if let Some((VERSION, _, after)) = item(rest) {
        rest = after;
    }
    for _ in 0..3 {
        rest = item(rest)?.2;
    }
    let (SEQUENCE, validity, _) = item(rest)? else { return None };
    let (_, _, rest) = item(validity)?;
    let (kind, text, _) = item(rest)?;
    moment(kind, std::str::from_utf8(text).ok()?)
}

/// Tag, content and what follows.
fn item(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `UTCTime` (`YYMMDDHHMMSSZ`, up to 2049) or `GeneralizedTime` (`YYYYMMDDHHMMSSZ`).
fn moment(kind: u8, text: &str) -> Option<u64> {
    const UTC: u8 = 0x17;
    let number = |at: usize, len: usize| text.get(at..at + len)?.parse::<u64>().ok();
    let (year, at) = match kind {
        UTC => match number(0, 2)? {
            short @ 0..=49 => (2_000 + short, 2),
            short => (1_900 + short, 2),
        },
        _ => (number(0, 4)?, 4),
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || year < 1_970 {
        return None;
    }
    // Years that begin in March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    // From 1 March of year 0 to 1970.
    let days = days.checked_sub(719_468)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::certificate::self_signed;

    #[test]
    fn the_end_of_a_certificate_is_the_one_it_was_made_with() {
        for (now, days) in [(1_763_700_000, 30), (1_709_164_800, 1), (4_102_444_800, 900)] {
            let begun = UNIX_EPOCH + Duration::from_secs(now);
            let made = self_signed(&["gate.example.com".to_owned()], days, begun).unwrap();
            let ends = end_of_chain(made.certificate_pem.as_bytes()).unwrap();
            assert_eq!(ends, begun + Duration::from_secs(u64::from(days) * 86_400));
        }
        assert_eq!(end_of(b"nonsense"), None);
        assert_eq!(end_of_chain(b"nonsense"), None);
        assert_eq!(end_of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
