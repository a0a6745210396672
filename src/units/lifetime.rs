use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MAX_SECS: u64 = 10 * 365 * 86_400;

/// How long something lasts: 1 second to 10 years, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime(u32);

/// Why a text or number is not a [`Lifetime`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeError {
    /// Not a whole number, alone or followed by `s`, `m`, `h` or `d`.
    #[error(
        "`{0}` is not a duration: write whole seconds, or a number and a unit such as 90s, 15m, 24h or 30d"
    )]
    Syntax(String),
    /// Zero, or longer than ten years.
    #[error("{0} is outside 1 second to 10 years")]
    OutOfRange(String),
}

impl Lifetime {
    /// The longest there is: ten years.
    pub const MAX: Self = Self(MAX_SECS as u32);

    /// A lifetime of `secs` seconds.
    ///
    /// # Errors
    /// [`LifetimeError::OutOfRange`] for zero or more than ten years.
    pub fn from_secs(secs: u64) -> Result<Self, LifetimeError> {
        match u32::try_from(secs) {
            Ok(s) if s > 0 && secs <= MAX_SECS => Ok(Self(s)),
            Ok(_) | Err(_) => Err(LifetimeError::OutOfRange(format!("{secs} s"))),
        }
    }

    /// The length in seconds.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        u64::from(self.0)
    }

    /// The length for people, what is less than its two largest units left out: `90s`, `2h`, `39d 23h`.
    #[must_use]
    pub fn rounded(self) -> String {
        let secs = self.as_secs();
        let two = |(unit, size): (&str, u64), (less, part): (&str, u64)| match secs % size / part {
            0 => format!("{}{unit}", secs / size),
            rest => format!("{}{unit} {rest}{less}", secs / size),
        };
        match secs {
            0..120 => format!("{secs}s"),
            120..3_600 => two(("m", 60), ("s", 1)),
            3_600..86_400 => two(("h", 3_600), ("m", 60)),
            _ => two(("d", 86_400), ("h", 3_600)),
        }
    }

    /// The length as a [`Duration`].
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_secs(self.as_secs())
    }
}

impl FromStr for Lifetime {
    type Err = LifetimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let syntax = || LifetimeError::Syntax(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match trimmed.strip_prefix(digits).unwrap_or_default() {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(syntax()),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(syntax());
        }
        let too_long = || LifetimeError::OutOfRange(text.to_owned());
        let number: u64 = digits.parse().map_err(|_| too_long())?;
        let secs = number.checked_mul(factor).ok_or_else(too_long)?;
        Self::from_secs(secs).map_err(|_| too_long())
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.as_secs();
        for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
            if secs.is_multiple_of(size) {
                return write!(f, "{}{unit}", secs / size);
            }
        }
        write!(f, "{secs}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_are_seconds_and_units_multiply() {
        for (text, secs) in [("10", 10), ("90s", 90), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(text.parse::<Lifetime>().unwrap().as_secs(), secs, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "s", "1.5h", "-1", "1w", "1 h", "10ss", "0", "0s", "4000d", "99999999999999999999"] {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_are_told_two_units() {
        for (secs, text) in [
            (1, "1s"),
            (90, "90s"),
            (119, "119s"),
            (120, "2m"),
            (306, "5m 6s"),
            (3_600, "1h"),
            (11_041, "3h 4m"),
            (86_400, "1d"),
            (86_401, "1d"),
            (3_455_999, "39d 23h"),
            (315_359_999, "3649d 23h"),
        ] {
            assert_eq!(Lifetime::from_secs(secs).unwrap().rounded(), text);
        }
    }

    #[test]
    fn display_parses_back() {
        for secs in [1, 59, 60, 61, 3_600, 86_400, 86_401] {
            let lifetime = Lifetime::from_secs(secs).unwrap();
            assert_eq!(lifetime.to_string().parse(), Ok(lifetime));
        }
    }
}
