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
    /// When it got in last, and as whom since it was unknown.
    known: Option<u64>,
    known_as: Vec<String>,
}

/// Requests a second, of which as many may come at once.
#[derive(Clone, Debug)]
struct Share {
    a_second: u64,
    /// What is left at that moment, in thousandths of a request.
    left: u64,
    at: u64,
}

#[derive(Clone, Debug)]
pub struct Defence {
    limit: u32,
    rule: Option<LockOut>,
    records: Vec<Record>,
    /// Networks (IPv4: addresses; IPv6: /48), how much came of them in vain, and when last.
    crowds: Vec<(ClientAddr, u32, u64)>,
    /// For those who are known, for steps 2 of others whose step 1 is live, for others, for those who failed.
    shares: [Share; 4],
    /// The same without the first: comparisons with slow hashes.
    hashes: [Share; 3],
}

impl Defence {
    pub fn new(limit: u32, rule: Option<LockOut>) -> Self {
        let share = |a_second: u64| Share { a_second, left: a_second * 1_000, at: 0 };
        let shares = [share(150), share(50), share(100), share(50)];
        Self {
            limit,
            rule,
            records: Vec::new(),
            crowds: Vec::new(),
            shares,
            hashes: [share(2), share(3), share(1)],
        }
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
            self.records.push(Record {
                site,
                judged,
                failures: 0,
                until: 0,
                times: 0,
                failed,
                with,
                known,
                known_as: vec![],
            });
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
        if !taken {
            self.record(client).judged.pop();
        }
        (!taken).then_some(Refusal::Busy)
    }

    /// Asked right after the request was counted, which it is not where this is false. Of those who got in only who did
    /// as the user who is named is better off.
    pub fn takes_hash(&mut self, client: ClientAddr, user: Option<&str>, live: bool, now: u64) -> bool {
        let known = self.is_known(client, now);
        let record = self.record(client);
        if known && record.known_as.iter().any(|name| Some(&**name) == user) {
            return true;
        }
        let since = std::mem::take(&mut record.known);
        let shares = self.may_use(client, live, now);
        self.record(client).known = since;
        let taken = shares.into_iter().any(|share| self.hashes[share - 1].take(now));
        if !taken {
            self.record(client).judged.pop();
        }
        taken
    }

    fn is_known(&mut self, client: ClientAddr, now: u64) -> bool {
        const WEEK: u64 = 7 * 86_400;
        self.record(client).known.is_some_and(|at| now / 1_000 - at / 1_000 < WEEK)
    }

    /// The shares that an address may draw on: its own, and those of lower standing.
    fn may_use(&mut self, client: ClientAddr, live: bool, now: u64) -> std::ops::Range<usize> {
        let rule = self.rule;
        let known = self.is_known(client, now);
        let of_a_crowd = self.crowd(client, now).1 >= if cfg!(fuzzing) { 8 } else { 100 };
        let record = self.record(client);
        let failed = rule.is_some_and(|rule| record.failed.is_some() && !record.is_past(rule, now));
        match (known, of_a_crowd, live, failed) {
            (true, ..) => 0..4,
            (false, true, ..) => 3..4,
            (false, false, true, _) => 1..4,
            (false, false, false, false) => 2..4,
            (false, false, false, true) => 3..4,
        }
    }

    /// The network of an address; what was an hour ago is forgotten.
    fn crowd(&mut self, client: ClientAddr, now: u64) -> &mut (ClientAddr, u32, u64) {
        let network = client.masked_v6(48);
        let at = self.crowds.iter().position(|crowd| crowd.0 == network).unwrap_or_else(|| {
            self.crowds.push((network, 0, now));
            self.crowds.len() - 1
        });
        let crowd = &mut self.crowds[at];
        if now / 1_000 - crowd.2 / 1_000 >= 3_600 {
            crowd.1 = 0;
        }
        crowd
    }

    /// The same that fails again within a minute is what the client's kernel repeats.
    pub fn repeats(&mut self, client: ClientAddr, mark: &Mark, now: u64) -> bool {
        let record = self.record(client);
        record.with.as_ref() == Some(mark) && record.failed.is_some_and(|at| now < at + 60_000)
    }

    pub fn learns(&mut self, client: ClientAddr, verdict: &Verdict, mark: Mark, now: u64) {
        let again = self.repeats(client, &mark, now);
        let (rule, was_known) = (self.rule, self.is_known(client, now));
        let crowd = self.crowd(client, now);
        match verdict {
            Verdict::Grant { .. } => crowd.1 = 0,
            Verdict::Close { .. } => {}
            _ => (crowd.1, crowd.2) = (crowd.1 + 1, now),
        }
        let record = self.record(client);
        match (verdict, rule) {
            (Verdict::Grant { user, .. }, _) => {
                record.forgive();
                if !was_known {
                    record.known_as.clear();
                }
                record.known_as.retain(|name| name != user);
                record.known_as.push(user.clone());
                // The last four.
                record.known_as = record.known_as.iter().rev().take(4).rev().cloned().collect();
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
        self.left = (self.left + (now - self.at) * self.a_second).min(self.a_second * 1_000);
        self.at = now;
        let there_is_one = self.left >= 1_000;
        if there_is_one {
            self.left -= 1_000;
        }
        there_is_one
    }
}
