//! Somebody else changed our table: notice it, and how often to put it right.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use crate::ruleset::model::TABLE;
use crate::ruleset::wire::{Touched, Transactions};
use crate::sys::netlink::{Events, NetlinkError};

/// This many repairs of our table within [`WINDOW`] are a fight with another program.
const MANY: usize = 10;
/// The same for the host's chains, which others make anew without meaning us: VyOS at each commit.
const MANY_RELOADS: usize = 40;
const WINDOW: Duration = Duration::from_secs(60);
/// In a fight, the longest wait before the next repair.
const LONGEST: Duration = Duration::from_secs(60);
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
}

impl Watch {
    /// Watches for everybody's changes to our table and these of the host's but those from `own_port`. Needs a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the runtime would not.
    pub(super) fn new(events: Events, own_port: u32, hosts: Vec<String>) -> std::io::Result<Self> {
        let events = events.watched()?;
        Ok(Self { events, transactions: Transactions::default(), heard: VecDeque::new(), own_port, hosts })
    }

    /// The next thing that happened. May be dropped and called again without loss.
    ///
    /// # Errors
    /// When the socket fails for good.
    pub(super) async fn next(&mut self) -> Result<Happened, NetlinkError> {
        loop {
            if let Some(happened) = self.heard.pop_front() {
                return Ok(happened);
            }
            let mut ready = self
                .events
                .readable_mut()
                .await
                .map_err(|error| NetlinkError::Open(std::io::Error::other(error)))?;
            let Self { transactions, heard, own_port, hosts, .. } = self;
            let whole = ready.get_inner_mut().drain(|message| {
                let touched = transactions.on_message(message, TABLE, hosts);
                heard.extend(touched.filter(|touched| touched.port != *own_port).map(Happened::Touched));
            })?;
            if !whole {
                *transactions = Transactions::default();
                heard.push_back(Happened::Lost);
            }
            ready.clear_ready();
        }
    }
}

/// How long to wait with a repair: not at all, unless there were many of late.
#[derive(Debug)]
pub(super) struct Patience {
    /// So many within the window are too many.
    many: usize,
    repairs: VecDeque<Duration>,
    wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { many: MANY, repairs: VecDeque::new(), wait: Duration::ZERO }
    }
}

impl Patience {
    /// Patience with those who make the host's chains anew.
    pub(super) fn with_reloads() -> Self {
        Self { many: MANY_RELOADS, ..Self::default() }
    }

    /// The wait before a repair that is needed at `now` (time since some start).
    pub(super) fn wait(&self, now: Duration) -> Duration {
        match self.repairs.back() {
            Some(&last) if now < last + WINDOW + self.wait => self.wait,
            Some(_) | None => Duration::ZERO,
        }
    }

    /// Notes a repair at `now`; gives the wait before another one soon after. A fight is over when there was
    /// peace for a minute longer than the wait.
    pub(super) fn on_repair(&mut self, now: Duration) -> Duration {
        let fighting = !self.wait(now).is_zero();
        self.repairs.push_back(now);
        while self.repairs.front().is_some_and(|&at| at + WINDOW < now) {
            self.repairs.pop_front();
        }
        self.repairs.drain(..self.repairs.len().saturating_sub(self.many));
        self.wait = if fighting || self.repairs.len() >= self.many {
            (self.wait * 2).clamp(Duration::from_secs(1), LONGEST)
        } else {
            Duration::ZERO
        };
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_are_immediate_until_they_are_many_and_then_ever_rarer() {
        let mut patience = Patience::default();
        let mut now = Duration::ZERO;
        let waits: Vec<u64> = (0..16)
            .map(|_| {
                let wait = patience.on_repair(now);
                now += wait.max(Duration::from_millis(100));
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60]);
    }

    #[test]
    fn rare_repairs_never_wait_and_a_fight_is_forgotten() {
        let mut patience = Patience::default();
        for minute in 0..100 {
            assert_eq!(patience.on_repair(Duration::from_secs(10 * minute)), Duration::ZERO);
        }
        let mut now = Duration::from_secs(10_000);
        for _ in 0..20 {
            now += patience.on_repair(now).max(Duration::from_millis(1));
        }
        assert_eq!(patience.wait(now + Duration::from_secs(10)), LONGEST, "still at it");
        let peace = now + Duration::from_secs(1_000);
        assert_eq!(patience.wait(peace), Duration::ZERO, "the first after a long peace is immediate");
        assert_eq!(patience.on_repair(peace), Duration::ZERO);
    }
}
