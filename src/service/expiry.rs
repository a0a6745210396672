//! When certificates end, read from their DER form (X.509, RFC 5280): nothing else of them is looked at.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::units::Timestamp;

/// Tags of DER (X.690).
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The version of a certificate, which comes first where it is there.
const VERSION: u8 = 0xa0;

/// When the first of the certificates in a PEM text ends; none where that cannot be read of all of them.
#[must_use]
pub fn expiry(chain_pem: &[u8]) -> Option<SystemTime> {
    let ends = CertificateDer::pem_slice_iter(chain_pem).map(|certificate| not_after(&certificate.ok()?));
    ends.collect::<Option<Vec<_>>>()?.into_iter().min()
}

fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = value(certificate, SEQUENCE)?;
    let (mut fields, _) = value(certificate, SEQUENCE)?;
    if let Some((_, after)) = value(fields, VERSION) {
        fields = after;
    }
    // Serial number, algorithm of the signature, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, fields) = value(fields, tag)?;
    }
    let (validity, _) = value(fields, SEQUENCE)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    moment(tag, std::str::from_utf8(text).ok()?)
}

/// `YYMMDDhhmmssZ` of the years 1950 to 2049, or `YYYYMMDDhhmmssZ`.
fn moment(tag: u8, text: &str) -> Option<SystemTime> {
    let full = match tag {
        UTC_TIME => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    if full.len() != 15 || !full.ends_with('Z') {
        return None;
    }
    let part = |range: std::ops::Range<usize>| full.get(range);
    let (date, time) = (
        [part(0..4)?, part(4..6)?, part(6..8)?].join("-"),
        [part(8..10)?, part(10..12)?, part(12..14)?].join(":"),
    );
    let moment: Timestamp = format!("{date}T{time}Z").parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(moment.as_secs()))
}

/// The content of the first element, which must have that tag, and what follows it.
fn value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::service::certificate::self_signed;

    fn after_epoch(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn both_ways_of_writing_a_time_are_read() {
        assert_eq!(moment(UTC_TIME, "270131180000Z"), Some(after_epoch(1_801_418_400)));
        assert_eq!(moment(GENERALIZED_TIME, "20270131180000Z"), Some(after_epoch(1_801_418_400)));
        assert_eq!(moment(UTC_TIME, "700101000000Z"), Some(after_epoch(0)));
        for wrong in ["", "2701311800Z", "270131180000", "270231180000Z", "2701311800+0100", "äää131180000Z"]
        {
            assert_eq!(moment(UTC_TIME, wrong), None, "{wrong}");
        }
        assert_eq!(moment(INTEGER, "270131180000Z"), None);
    }

    #[test]
    fn the_end_of_a_certificate_is_the_one_it_was_made_with() {
        // The last one is written with four digits of its year.
        for (now, days) in [(1_763_700_000, 30), (1_709_164_800, 1), (4_102_444_800, 900)] {
            let made = self_signed(&["gate.example".to_owned()], days, after_epoch(now)).unwrap();
            let ends = after_epoch(now + u64::from(days) * 86_400);
            assert_eq!(expiry(made.certificate_pem.as_bytes()), Some(ends));
        }
        assert_eq!(not_after(b"nonsense"), None);
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn the_certificate_that_ends_first_counts() {
        let now = after_epoch(1_700_000_000);
        let make = |days| self_signed(&["gate.example".to_owned()], days, now).unwrap();
        let (long, short) = (make(3_650), make(30));
        let ends = |days: u64| Some(now + Duration::from_secs(days * 86_400));
        assert_eq!(expiry(long.certificate_pem.as_bytes()), ends(3_650));
        assert_eq!(expiry(short.certificate_pem.as_bytes()), ends(30));
        let chain = format!("{}{}", long.certificate_pem, short.certificate_pem);
        assert_eq!(expiry(chain.as_bytes()), ends(30));
        assert_eq!(expiry(b"no certificate"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = not_after(&bytes);
        }

        #[test]
        fn a_certificate_that_was_cut_or_changed_does_no_harm(at in 0_usize..400, byte: u8, end in 0_usize..400) {
            let made = self_signed(&["x".to_owned()], 30, after_epoch(1_700_000_000)).unwrap();
            let mut der = CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap().to_vec();
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            let _ = not_after(&der);
            let _ = not_after(&der[..end.min(der.len())]);
        }
    }
}
