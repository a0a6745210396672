//! What keeps guessers off, as the documentation has it. Times are in milliseconds.

use super::model::Mark;
use super::world::LockOut;
use crate::knock::{Refusal, Step, Verdict};
use crate::units::ClientAddr;

/// What is known of an address (IPv6: of a /64).
#[derive(Clone, Debug)]
struct Record {
    site: ClientAddr,
    /// At which step and when requests were judged.
    judged: Vec<(Step, u64)>,
    failures: u32,
    /// The end of the latest lock-out, and how many there were.
    until: u64,
    times: u32,
    /// The latest failure, if there is one that counts.
    failed: Option<u64>,
    /// What it failed with.
    with: Option<Mark>,
    /// When it got in last.
    known: Option<u64>,
}

/// Requests a second, of which as many may come at once.
#[derive(Clone, Debug)]
struct Share {
    each: u64,
    /// What is left, in milliseconds' worth, at that moment.
    left: u64,
    at: u64,
}

#[derive(Clone, Debug)]
pub struct Defence {
    limit: u32,
    rule: Option<LockOut>,
    records: Vec<Record>,
    /// For those who are known, for others, for those who failed.
    shares: [Share; 3],
    hashes: Share,
}

impl Defence {
    pub fn new(limit: u32, rule: Option<LockOut>) -> Self {
        let share = |a_second: u64| Share { each: 1_000 / a_second, left: 1_000, at: 0 };
        let shares = [share(200), share(100), share(50)];
        Self { limit, rule, records: Vec::new(), shares, hashes: share(4) }
    }

    pub fn reload(&mut self, limit: u32, rule: Option<LockOut>) {
        (self.limit, self.rule) = (limit, rule);
        if rule.is_none() {
            self.records.iter_mut().for_each(Record::forgive);
        }
        self.records.iter_mut().for_each(|record| record.with = None);
    }

    fn record(&mut self, client: ClientAddr) -> &mut Record {
        let site = client.masked_v6(64);
        let at = self.records.iter().position(|record| record.site == site).unwrap_or_else(|| {
            let (judged, failed, with, known) = (Vec::new(), None, None, None);
            self.records.push(Record { site, judged, failures: 0, until: 0, times: 0, failed, with, known });
            self.records.len() - 1
        });
        &mut self.records[at]
    }

    pub fn is_locked_out(&mut self, client: ClientAddr, now: u64) -> bool {
        self.record(client).until > now
    }

    pub fn locked_out(&self, now: u64) -> usize {
        self.records.iter().filter(|record| record.until > now).count()
    }

    pub fn unblock(&mut self, client: Option<ClientAddr>, now: u64) -> usize {
        let site = client.map(|client| client.masked_v6(64));
        let meant = |record: &&mut Record| site.is_none_or(|site| record.site == site);
        let mut count = 0;
        for record in self.records.iter_mut().filter(meant) {
            count += usize::from(record.until > now);
            record.forgive();
        }
        count
    }

    /// No minute sees more than the limit at either step; a request counts until all of its slot of 5 s is over a minute ago.
    pub fn turns_away(&mut self, client: ClientAddr, step: Step, live: bool, now: u64) -> Option<Refusal> {
        let (limit, slot) = (self.limit, now / 5_000);
        let record = self.record(client);
        let counted =
            record.judged.iter().filter(|&&(at_step, at)| at_step == step && at / 5_000 + 12 >= slot).count();
        if counted >= usize::try_from(limit).unwrap() {
            return Some(Refusal::TooMany);
        }
        record.judged.push((step, now));
        let shares = self.may_use(client, live, now);
        let taken = shares.into_iter().any(|share| self.shares[share].take(now));
        (!taken).then_some(Refusal::Busy)
    }

    pub fn takes_hash(&mut self, client: ClientAddr, live: bool, now: u64) -> bool {
        self.may_use(client, live, now).start == 0 || self.hashes.take(now)
    }

    /// The shares that an address may draw on: its own, and those of lower standing.
    fn may_use(&mut self, client: ClientAddr, live: bool, now: u64) -> std::ops::Range<usize> {
        const WEEK: u64 = 7 * 86_400;
        let rule = self.rule;
        let record = self.record(client);
        let known = record.known.is_some_and(|at| now / 1_000 - at / 1_000 < WEEK);
        let failed = rule.is_some_and(|rule| record.failed.is_some() && !record.is_past(rule, now));
        match (live || known, failed) {
            (true, _) => 0..3,
            (false, false) => 1..3,
            (false, true) => 2..3,
        }
    }

    /// The same that fails again within a minute is what the client's kernel repeats.
    pub fn repeats(&mut self, client: ClientAddr, mark: &Mark, now: u64) -> bool {
        let record = self.record(client);
        record.with.as_ref() == Some(mark) && record.failed.is_some_and(|at| now < at + 60_000)
    }

    pub fn learns(&mut self, client: ClientAddr, verdict: &Verdict, mark: Mark, now: u64) {
        let again = self.repeats(client, &mark, now);
        let rule = self.rule;
        let record = self.record(client);
        match (verdict, rule) {
            (Verdict::Grant { .. }, _) => {
                record.forgive();
                record.known = Some(now);
            }
            (Verdict::Refuse(Refusal::UnknownApp | Refusal::WrongKey | Refusal::WrongToken), Some(rule))
                if !again =>
            {
                record.fails(rule, mark, now);
            }
            _ => {}
        }
    }
}

const WEEK_MS: u64 = 7 * 86_400_000;

/// What is known of the wrong codes of a secret, from wherever they came.
#[derive(Clone, Debug, Default)]
pub struct Guesses {
    failures: u32,
    times: u32,
    last: u64,
    until: u64,
    /// Where right codes came from, until when that counts, and when it was by the calendar.
    own: Vec<(ClientAddr, u64, u64)>,
}

impl Guesses {
    pub fn holds_back(&self, client: ClientAddr, now: u64) -> bool {
        let site = client.masked_v6(64);
        let is_own = self.latest().into_iter().any(|(own, until, _)| own == site && now < until);
        now < self.until && !is_own
    }

    /// The eight sites that right codes came from last, the latest first.
    fn latest(&self) -> Vec<(ClientAddr, u64, u64)> {
        let mut latest: Vec<(ClientAddr, u64, u64)> = Vec::new();
        for &own in self.own.iter().rev() {
            if latest.len() < 8 && latest.iter().all(|(known, ..)| *known != own.0) {
                latest.push(own);
            }
        }
        latest
    }

    /// Only where the owner is may be known afterwards, for what is left of a week by the calendar; not what is to come.
    pub fn restart(&mut self, kept: bool, now: u64, calendar: u64) {
        let mut own = if kept { self.latest() } else { vec![] };
        own.reverse();
        own.retain(|(.., at)| *at <= calendar + 60_000 && calendar.saturating_sub(*at) < WEEK_MS);
        own.iter_mut().for_each(|(_, until, at)| *until = now + WEEK_MS - calendar.saturating_sub(*at));
        *self = Self { own, ..Self::default() };
    }

    pub fn fails(&mut self, rule: Option<LockOut>, now: u64) {
        let Some(rule) = rule.filter(|_| now >= self.until) else { return };
        if now >= self.last.max(self.until) + rule.longest * 1_000 {
            (self.failures, self.times) = (0, 0);
        }
        self.last = now;
        self.failures += 1;
        if self.failures >= rule.after * 2 {
            let length = (0..self.times).fold(rule.first, |length, _| (length * 2).min(rule.longest));
            self.until = now + length.min(rule.longest) * 1_000;
            self.times += 1;
            self.failures = 0;
        }
    }

    pub fn succeeds(&mut self, client: ClientAddr, now: u64, calendar: u64) {
        self.own.push((client.masked_v6(64), now + WEEK_MS, calendar));
    }

    pub fn reload(&mut self, is_there: bool, rule: Option<LockOut>) {
        if !is_there {
            *self = Self::default();
        } else if rule.is_none() {
            self.lift();
        }
    }

    pub fn lift(&mut self) {
        (self.failures, self.times, self.until) = (0, 0, 0);
    }
}

impl Record {
    fn forgive(&mut self) {
        (self.failures, self.until, self.times) = (0, 0, 0);
        (self.failed, self.with) = (None, None);
    }

    /// Whoever is quiet for as long as the longest lock-out begins anew.
    fn is_past(&self, rule: LockOut, now: u64) -> bool {
        now >= self.failed.unwrap_or(0).max(self.until) + rule.longest * 1_000
    }

    fn fails(&mut self, rule: LockOut, mark: Mark, now: u64) {
        if self.until > now {
            return;
        }
        if self.is_past(rule, now) {
            self.forgive();
        }
        (self.failed, self.with) = (Some(now), Some(mark));
        self.failures += 1;
        if self.failures >= rule.after {
            let length = (0..self.times).fold(rule.first, |length, _| (length * 2).min(rule.longest));
            self.until = now + length.min(rule.longest) * 1_000;
            self.times += 1;
            self.failures = 0;
        }
    }
}

impl Share {
    fn take(&mut self, now: u64) -> bool {
        self.left = (self.left + (now - self.at)).min(1_000);
        self.at = now;
        let there_is_one = self.left >= self.each;
        if there_is_one {
            self.left -= self.each;
        }
        there_is_one
    }
}
