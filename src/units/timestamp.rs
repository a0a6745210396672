use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;
/// The first second after year 9999.
const END: u64 = 253_402_300_800;
/// Year 9999 ends the calendar of RFC 3339.
const YEARS: std::ops::RangeInclusive<u64> = 1970..=9999;

/// A moment of the calendar in whole seconds, from 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Why a text is not a [`Timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a date: write 2027-01-31 (the end of that day in UTC), or a moment such as 2027-01-31T18:00:00Z"
)]
pub struct TimestampError(String);

impl Timestamp {
    /// What is left until then; nothing once it has passed.
    #[must_use]
    pub fn left(self, wall: SystemTime) -> Option<Duration> {
        let end = UNIX_EPOCH + Duration::from_secs(self.0);
        end.duration_since(wall).ok().filter(|left| !left.is_zero())
    }

    /// The moment of so many seconds since 1970 began, UTC; none after the year 9999.
    #[must_use]
    pub fn from_secs(secs: u64) -> Option<Self> {
        (secs < END).then_some(Self(secs))
    }

    /// Seconds since 1970 began, UTC.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        read(text).map(Self).ok_or_else(|| TimestampError(text.to_owned()))
    }
}

/// `YYYY-MM-DD`, whose end counts, or `YYYY-MM-DDThh:mm:ss` with `Z` or an offset (RFC 3339).
fn read(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let start = days(date)? * DAY;
    let Some(time) = time else { return Some(start + DAY) };
    let (clock, offset) = zone(time)?;
    let within = seconds(clock)?;
    (start + within).checked_add_signed(-offset)
}

/// Days from 1970-01-01 to a date.
fn days(date: &str) -> Option<u64> {
    let mut parts = date.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    let length = *lengths.get(before)?;
    if parts.next().is_some() || !YEARS.contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let years: u64 = (*YEARS.start()..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let months: u64 = lengths.iter().take(before).sum();
    Some(years + months + day - 1)
}

/// The clock part, and by how many seconds its zone is ahead of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let at = time.rfind(['+', '-'])?;
    let (clock, zone) = (time.get(..at)?, time.get(at + 1..)?);
    let (hours, minutes) = zone.split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    let ahead = i64::try_from(hours * 3_600 + minutes * 60).ok()?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    Some((clock, if time.get(at..=at) == Some("-") { -ahead } else { ahead }))
}

fn seconds(clock: &str) -> Option<u64> {
    let mut parts = clock.split(':');
    let (hours, minutes) = (number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let seconds = parts.next().map_or(Some(0), |text| number(text, 2))?;
    (parts.next().is_none() && hours < 24 && minutes < 60 && seconds < 60)
        .then_some(hours * 3_600 + minutes * 60 + seconds)
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Days to a date: Howard Hinnant's civil_from_days, for years after 1970.
        let (days, rest) = (self.0 / DAY, self.0 % DAY);
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hours, minutes, seconds) = (rest / 3_600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(text: &str) -> Option<u64> {
        text.parse::<Timestamp>().ok().map(Timestamp::as_secs)
    }

    #[test]
    fn dates_end_with_their_day_and_moments_are_exact() {
        // `date -u -d ... +%s`
        for (text, wanted) in [
            ("1970-01-01", 86_400),
            ("2024-02-29", 1_709_251_200),
            ("2027-01-31", 1_801_440_000),
            ("2027-01-31T18:00:00Z", 1_801_418_400),
            ("2027-01-31T18:00:00+01:00", 1_801_414_800),
            ("2027-01-31 18:00-00:30", 1_801_420_200),
            ("9999-12-31", 253_402_300_800),
        ] {
            assert_eq!(secs(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for bad in [
            "",
            "2027",
            "2027-1-31",
            "2027-13-01",
            "2027-00-10",
            "2027-02-29",
            "2027-01-32",
            "2027-01-00",
            "1969-12-31",
            "10000-01-01",
            "2027-01-31T18:00:00",
            "2027-01-31T24:00:00Z",
            "2027-01-31T18:60:00Z",
            "2027-01-31T18Z",
            "2027-01-31-01",
            "+027-01-31",
            "2027-01-31T18:00:00+24:00",
            "1970-01-01T00:00:00+01:00",
            "morgen",
        ] {
            assert_eq!(secs(bad), None, "{bad}");
        }
    }

    #[test]
    fn time_left_ends_with_the_moment() {
        let end: Timestamp = "2027-01-31T18:00:00Z".parse().unwrap();
        let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
        assert_eq!(end.left(at(1_801_418_390)), Some(Duration::from_secs(10)));
        assert_eq!(end.left(at(1_801_418_400)), None);
        assert_eq!(end.left(at(1_901_418_400)), None);
    }

    proptest! {
        #[test]
        fn a_moment_reads_as_it_is_written(secs in 0_u64..253_402_300_800) {
            let text = Timestamp(secs).to_string();
            prop_assert_eq!(text.parse(), Ok(Timestamp(secs)), "{}", text);
        }
    }
}
