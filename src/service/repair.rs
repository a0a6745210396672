//! Somebody else changed our table: notice it, and how often to put it right.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::ruleset::model::TABLE;
use crate::ruleset::wire::{Touched, Transactions};
use crate::sys::netlink::{Events, NetlinkError};

/// This many repairs of our table within [`WINDOW`] are a fight with another program.
const MANY: usize = 10;
/// The same for the host's chains, which others make anew without meaning us: VyOS at each commit.
const MANY_RELOADS: usize = 40;
const WINDOW: Duration = Duration::from_secs(60);
/// In a fight, the wait before the next repair: what was taken away leaves ports open that long, or keeps out who was
/// let in, so that it must not grow.
const PAUSE: Duration = Duration::from_secs(1);
/// After a repair that the kernel refused.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// What happened to our table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    /// Somebody's transaction touched it.
    Touched(Touched),
    /// There was more than could be heard: anything may have happened.
    Lost,
}

/// Hears of changes to our table by others.
pub(super) struct Watch {
    events: AsyncFd<Events>,
    transactions: Transactions,
    heard: VecDeque<Happened>,
    own_port: u32,
    /// Tables of the host's that matter too.
    hosts: Vec<String>,
    /// After a failure, when to listen again.
    again: Option<Instant>,
}

impl Watch {
    /// Watches for everybody's changes to our table and these of the host's but those from `own_port`. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the runtime would not.
    pub(super) fn new(events: Events, own_port: u32, hosts: Vec<String>) -> std::io::Result<Self> {
        if let Err(error) = events.ignore(own_port) {
            tracing::debug!(%error, "our own changes are heard of, too");
        }
        let events = events.watched()?;
        Ok(Self {
            events,
            transactions: Transactions::default(),
            heard: VecDeque::new(),
            own_port,
            hosts,
            again: None,
        })
    }

    /// The next thing that happened. May be dropped and called again without loss. Where the kernel cannot be heard for a
    /// moment, anything may have happened, and it is listened to again.
    ///
    /// # Errors
    /// When the runtime ends.
    pub(super) async fn next(&mut self) -> Result<Happened, NetlinkError> {
        loop {
            if let Some(happened) = self.heard.pop_front() {
                return Ok(happened);
            }
            if let Some(again) = self.again {
                sleep_until(again).await;
                self.again = None;
            }
            let mut ready = self
                .events
                .readable_mut()
                .await
                .map_err(|error| NetlinkError::Open(std::io::Error::other(error)))?;
            ready.clear_ready();
            self.hear();
        }
    }

    /// What happened until now and was not told yet.
    pub(super) fn heard_now(&mut self) -> Vec<Happened> {
        self.hear();
        self.heard.drain(..).collect()
    }

    fn hear(&mut self) {
        let Self { events, transactions, heard, own_port, hosts, again } = self;
        let whole = events.get_mut().drain(|message| {
            let touched = transactions.on_message(message, TABLE, hosts);
            heard.extend(touched.filter(|touched| touched.port != *own_port).map(Happened::Touched));
        });
        let whole = whole.unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel's events cannot be read: trying again");
            *again = Some(Instant::now() + AGAIN);
            false
        });
        if !whole {
            *transactions = Transactions::default();
            heard.push_back(Happened::Lost);
        }
    }
}

/// How long to wait with a repair: not at all, unless there were many of late.
#[derive(Debug)]
pub(super) struct Patience {
    /// So many within the window are too many.
    many: usize,
    repairs: VecDeque<Duration>,
    fight: Option<Fight>,
}

/// Somebody undoes what was repaired, again and again.
#[derive(Debug)]
struct Fight {
    told_at: Duration,
    untold: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { many: MANY, repairs: VecDeque::new(), fight: None }
    }
}

impl Patience {
    /// Patience with those who make the host's chains anew.
    pub(super) fn with_reloads() -> Self {
        Self { many: MANY_RELOADS, ..Self::default() }
    }

    /// The wait before a repair that is needed at `now` (time since some start); at most [`PAUSE`].
    pub(super) fn wait(&self, now: Duration) -> Duration {
        let lately = self.repairs.back().is_some_and(|&last| now < last + WINDOW);
        if lately && self.fight.is_some() { PAUSE } else { Duration::ZERO }
    }

    /// Notes a repair at `now`. Gives how many there were since this was last given, if it is to be told that there is
    /// a fight: at its beginning, and then once per minute. A fight is over after a minute of peace.
    pub(super) fn on_repair(&mut self, now: Duration) -> Option<u32> {
        if self.wait(now).is_zero() {
            self.fight = None;
        }
        self.repairs.push_back(now);
        while self.repairs.front().is_some_and(|&at| at + WINDOW < now) {
            self.repairs.pop_front();
        }
        self.repairs.drain(..self.repairs.len().saturating_sub(self.many));
        let Some(fight) = &mut self.fight else {
            let begins = self.repairs.len() >= self.many;
            self.fight = begins.then_some(Fight { told_at: now, untold: 0 });
            return begins.then(|| u32::try_from(self.repairs.len()).unwrap_or(u32::MAX));
        };
        fight.untold = fight.untold.saturating_add(1);
        let due = now >= fight.told_at + WINDOW;
        due.then(|| {
            fight.told_at = now;
            std::mem::take(&mut fight.untold)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repairs what is broken again at once, for so long; when each was made and what was told.
    fn fought(patience: &mut Patience, start: Duration, length: Duration) -> Vec<(Duration, Option<u32>)> {
        let (mut now, mut all) = (start, Vec::new());
        while now < start + length {
            now += patience.wait(now).max(Duration::from_millis(10));
            all.push((now, patience.on_repair(now)));
        }
        all
    }

    #[test]
    fn repairs_are_immediate_until_they_are_many_and_then_once_per_second() {
        let mut patience = Patience::default();
        let repairs = fought(&mut patience, Duration::ZERO, Duration::from_secs(30));
        assert!(repairs[..10].iter().all(|(at, _)| *at <= Duration::from_millis(100)), "{repairs:?}");
        for pair in repairs[9..].windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, PAUSE, "{repairs:?}");
        }
    }

    #[test]
    fn a_fight_is_told_when_it_begins_and_then_every_minute() {
        let mut patience = Patience::default();
        let repairs = fought(&mut patience, Duration::ZERO, Duration::from_secs(200));
        let told: Vec<u32> = repairs.into_iter().filter_map(|(_, told)| told).collect();
        assert_eq!(told, [10, 60, 60, 60]);
    }

    #[test]
    fn rare_repairs_never_wait_and_a_fight_is_forgotten() {
        let mut patience = Patience::default();
        for minute in 0..100 {
            let now = Duration::from_secs(10 * minute);
            assert_eq!(patience.wait(now), Duration::ZERO);
            assert_eq!(patience.on_repair(now), None);
        }
        let start = Duration::from_secs(10_000);
        fought(&mut patience, start, Duration::from_secs(20));
        assert_eq!(patience.wait(start + Duration::from_secs(70)), PAUSE, "still at it");
        let peace = start + Duration::from_secs(90);
        assert_eq!(patience.wait(peace), Duration::ZERO, "the first after a peace is immediate");
        assert_eq!(patience.on_repair(peace), None);
        assert_eq!(patience.wait(peace), Duration::ZERO);
    }
}
