//! What is told of strangers: counters for `status`, and a log that no flood can fill.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::link::Answer;
use super::record::Record;
use crate::knock::{Attempt, Places, Refusal, Step};
use crate::units::{ClientAddr, LogEvent};

/// One summary at most in this time.
const MINUTE: Duration = Duration::from_secs(60);
/// Lines about single addresses in that time.
const LINES: u32 = 100;
/// So many refusals in a minute are more than somebody who mistypes.
const BURST: u64 = 5;
/// An address that was told of is told of again after this time.
const TOLD_FOR: u64 = 3_600;

/// Counts refusals by reason and folds what is logged of them.
pub(super) struct Refusals {
    counts: BTreeMap<Refusal, u64>,
    /// When an address was told of in seconds, for which reasons, and in which minute it was last folded.
    told: Places<3>,
    minute: u64,
    lines: u32,
    attempts: u64,
    addresses: u64,
    /// All of this minute.
    refused: u64,
    /// Step 1s that were right in this minute.
    admitted: u32,
    summary_at: Option<Instant>,
}

/// What to log of one refusal.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Alone,
    Folded,
}

impl Refusals {
    pub(super) fn new(random: &[u8; 16]) -> Self {
        Self {
            counts: BTreeMap::new(),
            told: Places::new(random),
            minute: 1,
            lines: 0,
            attempts: 0,
            addresses: 0,
            refused: 0,
            admitted: 0,
            summary_at: None,
        }
    }

    /// How often each reason was given since the start.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.iter().map(|(reason, &count)| (reason.word().to_owned(), count)).collect()
    }

    /// When [`Refusals::summarise`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.summary_at
    }

    /// Counts a refusal, logs it if it is the first of its address and reason for a while, and says what the client is
    /// told. `lockout` is the length of the lock-out that begins with it.
    pub(super) fn on_refusal(
        &mut self,
        attempt: &Attempt,
        reason: Refusal,
        lockout: Option<Duration>,
        now: Duration,
    ) -> Answer {
        let client = attempt.client;
        *self.counts.entry(reason).or_default() += 1;
        self.refused += 1;
        self.begin_minute();
        match self.judge(client, reason, now) {
            Line::Alone => {
                let step = match attempt.step {
                    Step::One => 1,
                    Step::Two => 2,
                };
                let record = Record {
                    address: Some(client.to_string()),
                    step: Some(step),
                    reason: Some(reason.word().to_owned()),
                    ..Record::of(LogEvent::Denied)
                };
                // Filters of other programs read this.
                record.log_as(&format!("refused: client={client} step={step} reason={}", reason.word()));
            }
            Line::Folded => tracing::debug!("refused again: client={client} reason={}", reason.word()),
        }
        if let Some(lasts) = lockout {
            self.on_lockout(client, lasts);
        }
        match reason {
            Refusal::TooMany | Refusal::LockedOut => Answer::TooMany,
            Refusal::Busy => Answer::Unavailable,
            // The same for whatever is wrong.
            _ => Answer::Refused,
        }
    }

    /// Counts a right step 1; whether it gets a line of its own. Whoever saw a plain one can repeat it from any number of
    /// addresses.
    pub(super) fn on_admission(&mut self) -> bool {
        self.begin_minute();
        self.admitted = self.admitted.saturating_add(1);
        self.admitted <= LINES
    }

    fn on_lockout(&mut self, client: ClientAddr, lasts: Duration) {
        if self.lines < LINES {
            self.lines += 1;
            let record = Record {
                address: Some(client.to_string()),
                lifetime_s: Some(lasts.as_secs()),
                ..Record::of(LogEvent::LockedOut)
            };
            record.log_as(&format!("locked out: client={client} seconds={}", lasts.as_secs()));
        }
    }

    /// Tells whose one-time codes are held back; it takes a right key and many codes to come to that.
    pub(super) fn on_held(app: &str, whose: &str, lasts: Duration) {
        let record = Record {
            app: Some(app.to_owned()),
            by: Some(whose.to_owned()),
            lifetime_s: Some(lasts.as_secs()),
            ..Record::of(LogEvent::CodesHeld)
        };
        record.log_as(&format!(
            "wrong one-time codes after a right key: codes are held back, app={app} by={whose} seconds={}",
            lasts.as_secs()
        ));
    }

    /// Whether single addresses are still told of in this minute.
    pub(super) fn lines_left(&self) -> bool {
        self.lines < LINES
    }

    /// Logs what was folded in the minute that is over. Gives how many attempts were refused in it if they were many.
    pub(super) fn summarise(&mut self) -> Option<u64> {
        if self.attempts > 0 {
            let (count, addresses) = (Some(self.attempts), Some(self.addresses));
            let record = Record { count, addresses, ..Record::of(LogEvent::Denied) };
            record.log_as(&format!("refused {} attempts of {} addresses", self.attempts, self.addresses));
        }
        let more = std::mem::take(&mut self.admitted).saturating_sub(LINES);
        if more > 0 {
            let record = Record { count: Some(more.into()), ..Record::of(LogEvent::Admitted) };
            record.log_as(&format!("step 1 was right {more} times more"));
        }
        (self.attempts, self.addresses, self.lines, self.summary_at) = (0, 0, 0, None);
        self.minute += 1;
        let refused = std::mem::take(&mut self.refused);
        (refused >= BURST).then_some(refused)
    }

    fn begin_minute(&mut self) {
        self.summary_at.get_or_insert_with(|| Instant::now() + MINUTE);
    }

    fn judge(&mut self, client: ClientAddr, reason: Refusal, now: Duration) -> Line {
        let (secs, bit) = (now.as_secs(), 1 << (reason as u64));
        let place = self.told.take(client, |&[at, ..]| (at + TOLD_FOR <= secs).then_some(at));
        let Some([at, reasons, minute]) = place else {
            // Its neighbours were all told of within the hour.
            self.attempts += 1;
            self.addresses += 1;
            return Line::Folded;
        };
        if *at + TOLD_FOR <= secs {
            *reasons = 0;
        }
        // Whoever is refused because of what was told already is no news.
        let news = *reasons & bit == 0 && reason != Refusal::LockedOut;
        if news && self.lines < LINES {
            self.lines += 1;
            (*at, *reasons) = (secs, *reasons | bit);
            return Line::Alone;
        }
        self.attempts += 1;
        if *minute != self.minute {
            *minute = self.minute;
            self.addresses += 1;
        }
        Line::Folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u32) -> ClientAddr {
        ClientAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into())
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_first_of_an_address_and_reason_is_told_and_the_rest_is_folded() {
        let mut refusals = Refusals::new(&[1; 16]);
        let mut judge = |n, reason, at| refusals.judge(client(n), reason, secs(at));
        assert_eq!(judge(1, Refusal::WrongKey, 10), Line::Alone);
        assert_eq!(judge(1, Refusal::WrongKey, 11), Line::Folded);
        assert_eq!(judge(1, Refusal::UnknownApp, 12), Line::Alone);
        assert_eq!(judge(2, Refusal::WrongKey, 12), Line::Alone);
        assert_eq!(judge(2, Refusal::LockedOut, 12), Line::Folded);
        assert_eq!(judge(1, Refusal::WrongKey, 3_700), Line::Alone, "an hour later");
        assert_eq!((refusals.attempts, refusals.addresses), (2, 2));
    }

    #[test]
    fn a_flood_of_addresses_makes_a_bounded_number_of_lines() {
        let mut refusals = Refusals::new(&[1; 16]);
        let alone = |refusals: &mut Refusals, at| {
            let all = (0..50_000).map(|n| refusals.judge(client(n), Refusal::WrongKey, secs(at)));
            all.filter(|line| *line == Line::Alone).count()
        };
        assert_eq!(alone(&mut refusals, 5_000), LINES as usize);
        assert_eq!(refusals.attempts, 50_000 - u64::from(LINES));
        refusals.summarise();
        assert_eq!((refusals.attempts, refusals.addresses, refusals.due()), (0, 0, None));
        assert!(alone(&mut refusals, 5_060) <= LINES as usize);
    }

    #[test]
    fn a_flood_of_right_step_1s_makes_a_bounded_number_of_lines() {
        let mut refusals = Refusals::new(&[1; 16]);
        for _ in 0..2 {
            let told = (0..50_000).filter(|_| refusals.on_admission()).count();
            assert_eq!((told, refusals.due().is_some()), (LINES as usize, true));
            assert_eq!(refusals.summarise(), None, "nobody was refused");
        }
    }
}
