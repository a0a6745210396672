use std::fmt;
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::units::{Secret, is_placeholder_base32};

/// Six is what authenticator apps show; RFC 4226 goes up to eight.
const DIGITS: RangeInclusive<u8> = 6..=8;
/// How many time steps a clock may be off.
const DRIFT: RangeInclusive<u8> = 0..=10;
const INTERVAL: RangeInclusive<u64> = 15..=300;
/// 80 bits is what the oldest authenticators hand out; RFC 4226 asks for 128 and recommends 160.
const SECRET_BYTES: RangeInclusive<usize> = 10..=128;

/// A secret for time-based one-time codes (RFC 6238 with HMAC-SHA-1).
#[derive(Clone)]
pub struct TotpSecret {
    key: hmac::Key,
    kind: TotpKind,
}

/// What kind of codes a secret makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotpKind {
    /// Seconds that a code is shown, 15 to 300.
    pub interval: u64,
    /// Digits of a code, 6 to 8.
    pub digits: u8,
    /// How many codes before and after the present one are taken, 0 to 10, for clocks that differ.
    pub drift: u8,
}

impl Default for TotpKind {
    /// What every authenticator app does: six digits every 30 s; a clock may be one step off.
    fn default() -> Self {
        Self { interval: 30, digits: 6, drift: 1 }
    }
}

/// Why a 2FA file cannot be used; never repeats the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TotpError {
    /// Not the JSON of a 2FA file.
    #[error(
        "not a 2FA file: write {{\"secret\": \"<base32>\", \"interval\": 30}} (problem at line {line}, column {column})"
    )]
    Syntax {
        /// Where the text stops making sense, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
    },
    /// The secret is not base32.
    #[error("the secret is not base32: it has letters A-Z and digits 2-7 only")]
    Base32,
    /// The secret is one that documentation shows.
    #[error(
        "this secret comes from an example, so everybody knows it: `knock-agent enroll` makes one, or `head -c 20 /dev/urandom | base32`"
    )]
    Shown,
    /// The secret is too short or too long.
    #[error("the secret has {0} bytes: make one of 20 bytes (32 base32 characters)")]
    Length(usize),
    /// The interval is outside its bounds.
    #[error("an interval of {0} s is outside 15 to 300 s")]
    Interval(u64),
    /// The number of digits is outside its bounds.
    #[error("a code of {0} digits is outside 6 to 8")]
    Digits(u8),
    /// The number of steps is outside its bounds.
    #[error("a drift of {0} steps is outside 0 to 10")]
    Drift(u8),
}

/// What is in a 2FA file; further keys (such as name or issuer) say nothing about codes.
#[derive(Deserialize)]
struct File {
    secret: Zeroized,
    interval: Option<u64>,
    digits: Option<u8>,
    drift: Option<u8>,
}

#[derive(Deserialize)]
#[serde(from = "String")]
struct Zeroized(Zeroizing<String>);

impl From<String> for Zeroized {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl TotpSecret {
    /// The secret in the text of a 2FA file: JSON with `secret` in base32 and, each unless it is the usual one,
    /// `interval` in seconds, `digits` and `drift`.
    ///
    /// # Errors
    /// [`TotpError`] says what to write instead.
    pub fn parse(text: &str) -> Result<Self, TotpError> {
        let file: File = serde_json::from_str(text)
            .map_err(|e| TotpError::Syntax { line: e.line(), column: e.column() })?;
        let usual = TotpKind::default();
        let kind = TotpKind {
            interval: file.interval.unwrap_or(usual.interval),
            digits: file.digits.unwrap_or(usual.digits),
            drift: file.drift.unwrap_or(usual.drift),
        };
        Self::from_base32(&file.secret.0, kind)
    }

    /// The secret written in base32; lower case, blanks between groups and missing padding are fine.
    ///
    /// # Errors
    /// [`TotpError`] says what to write instead.
    pub fn from_base32(text: &str, kind: TotpKind) -> Result<Self, TotpError> {
        if is_placeholder_base32(text) {
            return Err(TotpError::Shown);
        }
        Self::new(&base32(text)?, kind)
    }

    /// A secret of these bytes, 10 to 128.
    ///
    /// # Errors
    /// [`TotpError`] for what is outside its bounds.
    pub fn new(bytes: &[u8], kind: TotpKind) -> Result<Self, TotpError> {
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(TotpError::Length(bytes.len()));
        }
        if !INTERVAL.contains(&kind.interval) {
            return Err(TotpError::Interval(kind.interval));
        }
        if !DIGITS.contains(&kind.digits) {
            return Err(TotpError::Digits(kind.digits));
        }
        if !DRIFT.contains(&kind.drift) {
            return Err(TotpError::Drift(kind.drift));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, bytes);
        Ok(Self { key, kind })
    }

    /// The code for a moment.
    #[must_use]
    pub fn code_at(&self, wall: SystemTime) -> Secret {
        Secret::new(self.code(self.counter(wall)))
    }

    /// For how many seconds a code is shown.
    #[must_use]
    pub fn interval(&self) -> u64 {
        self.kind.interval
    }

    /// Whether this is a code that is taken at this moment.
    #[must_use]
    pub fn is_current(&self, code: &Secret, wall: SystemTime) -> bool {
        self.matching(code, wall).is_some()
    }

    /// The time step whose code this is, one of those that are taken now.
    ///
    /// All of them are always compared, and the time it takes does not tell which one fits.
    pub(crate) fn matching(&self, code: &Secret, wall: SystemTime) -> Option<u64> {
        let mut found = None;
        for counter in self.present(wall) {
            let expected = Secret::new(self.code(counter));
            if bool::from(expected.expose().as_bytes().ct_eq(code.expose().as_bytes())) {
                found = Some(counter);
            }
        }
        found
    }

    /// A name for the secret that tells nothing of it, the same after every start: 32 hexadecimal digits.
    pub(crate) fn fingerprint(&self) -> String {
        let tag = hmac::sign(&self.key, b"knock-agent: the name of this secret");
        tag.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The time steps whose codes are taken at this moment.
    pub(crate) fn present(&self, wall: SystemTime) -> RangeInclusive<u64> {
        let (present, drift) = (self.counter(wall), u64::from(self.kind.drift));
        present.saturating_sub(drift)..=present.saturating_add(drift)
    }

    fn counter(&self, wall: SystemTime) -> u64 {
        // Before 1970 every code is that of the first step: wrong, and harmless.
        wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) / self.kind.interval
    }

    fn code(&self, counter: u64) -> String {
        let tag = hmac::sign(&self.key, &counter.to_be_bytes());
        let bytes = tag.as_ref();
        let offset = usize::from(bytes.last().copied().unwrap_or(0) & 0x0f);
        let number = bytes
            .get(offset..)
            .and_then(|tail| tail.first_chunk::<4>())
            .map_or(0, |four| u32::from_be_bytes(*four) & 0x7fff_ffff);
        let digits = usize::from(self.kind.digits);
        format!("{:0digits$}", number % 10_u32.pow(self.kind.digits.into()))
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TotpSecret(***, {:?})", self.kind)
    }
}

/// Base32 (RFC 4648); lower case, blanks between groups and missing padding are fine.
pub(super) fn base32(text: &str) -> Result<Zeroizing<Vec<u8>>, TotpError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in text.trim_end_matches(['=', ' ']).bytes() {
        let value = match byte.to_ascii_uppercase() {
            b' ' | b'-' => continue,
            letter @ b'A'..=b'Z' => letter - b'A',
            digit @ b'2'..=b'7' => digit - b'2' + 26,
            _ => return Err(TotpError::Base32),
        };
        held = held << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).unwrap_or_default());
            held &= (1 << bits) - 1;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn codes_are_those_of_rfc_6238() {
        let secret = TotpSecret::new(b"12345678901234567890", TotpKind::default()).unwrap();
        // Appendix B lists eight digits; six are the last six of them.
        for (secs, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret.code_at(at(secs)).expose(), code, "{secs}");
        }
    }

    #[test]
    fn base32_is_that_of_rfc_4648() {
        for (text, bytes) in [
            ("MZXW6YTBOI======", "foobar"),
            ("mzxw 6ytb oi", "foobar"),
            ("MZXW6YTB", "fooba"),
            ("MY======", "f"),
            ("", ""),
        ] {
            assert_eq!(base32(text).unwrap().as_slice(), bytes.as_bytes(), "{text}");
        }
        for bad in ["M1", "M8", "MZ=XW", "ä", "M\n"] {
            assert_eq!(base32(bad), Err(TotpError::Base32), "{bad}");
        }
    }

    #[test]
    fn a_file_may_say_more_than_we_need() {
        let full =
            r#"{"secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "interval": 60, "name": "x", "issuer": "y"}"#;
        let secret = TotpSecret::parse(full).unwrap();
        assert_eq!(secret.kind.interval, 60);
        assert_eq!(secret.code_at(at(118)).expose(), "287082");
        let short = r#"{"secret": "gezd gnbv gy3t qojq gezd gnbv gy3t qojq"}"#;
        assert_eq!(TotpSecret::parse(short).unwrap().kind, TotpKind::default());
    }

    #[test]
    fn a_file_that_is_not_right_is_refused_without_telling_its_secret() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"secret": 5, "interval": 30}"#,
            r#"{"secret": "SECRETSECRETSECRET1", "interval": 30}"#,
            r#"{"secret": "MZXW6YTB", "interval": 30}"#,
            r#"{"secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "interval": 14}"#,
            r#"{"secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "interval": 301}"#,
            r#"{"secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "digits": 5}"#,
            r#"{"secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "drift": 11}"#,
            r#"{"secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "interval": -30}"#,
            r#"{"secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "interval": "30"}"#,
        ] {
            let error = TotpSecret::parse(bad).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("GEZD") && !text.contains("SECRETS"), "{text}");
        }
    }

    #[test]
    fn a_clock_may_be_one_step_off_and_not_two() {
        let secret = TotpSecret::new(&[7; 20], TotpKind::default()).unwrap();
        let code = secret.code_at(at(3_000));
        for (secs, matches) in [(2_969, false), (2_970, true), (3_029, true), (3_059, true), (3_060, false)] {
            assert_eq!(secret.matching(&code, at(secs)).is_some(), matches, "{secs}");
        }
        assert_eq!(secret.matching(&code, at(2_970)), Some(100));
    }

    #[test]
    fn codes_have_the_digits_and_live_as_long_as_the_kind_says() {
        // Appendix B of RFC 6238.
        let kind = TotpKind { digits: 8, drift: 0, ..TotpKind::default() };
        let secret = TotpSecret::new(b"12345678901234567890", kind).unwrap();
        let code = secret.code_at(at(1_111_111_109));
        assert_eq!(code.expose(), "07081804");
        assert!(secret.matching(&code, at(1_111_111_109)).is_some());
        assert_eq!(secret.matching(&code, at(1_111_111_111)), None);
        let wide = TotpSecret::new(b"12345678901234567890", TotpKind { drift: 3, ..kind }).unwrap();
        assert!(wide.matching(&code, at(1_111_111_109 + 90)).is_some());
        assert_eq!(wide.matching(&code, at(1_111_111_109 + 120)), None);
    }

    #[test]
    fn a_longer_code_is_another_code() {
        let secret = TotpSecret::new(&[7; 20], TotpKind::default()).unwrap();
        let longer = Secret::new(format!("{}0", secret.code_at(at(0)).expose()));
        assert_eq!(secret.matching(&longer, at(0)), None);
    }
}
