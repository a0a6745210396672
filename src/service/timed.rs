//! Knocks that change with time: the daemon puts each time step's into the kernel, which judges them by itself.
//!
//! Nothing of that is read back at a change of step. What was used is known from the kernel's log, from its sets, and
//! from a file; where something may have been used that nobody knows of, those knocks are not taken any more.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::last_use::LastUse;
use super::operations::{OperationError, Operations};
use super::used_knocks::{Opened, UsedKnocksFile};
use crate::backend::Firewall;
use crate::grant::{How, Note};
use crate::ruleset::diff::{Change, SetRef};
use crate::ruleset::knocking::{Knocking, TimedRules};
use crate::ruleset::plan::{SPENT, TIMED_OPEN, USED};
use crate::ruleset::timed::{Advance, Refill, TimedKnocks, shorten};
use crate::units::{ClientAddr, Now, step_at};

/// The calendar was set, if it differs by more from what it was to be.
const SET: Duration = Duration::from_secs(1);
/// Replays that are told of in a time step.
const TOLD: usize = 100;

/// What the daemon knows of knocks that change with time. Printing it for debugging does not tell them.
#[derive(Default)]
pub(super) struct Timed {
    knocks: TimedKnocks,
    /// Transactions that are still to be carried out.
    queue: VecDeque<Vec<Change>>,
    /// From when on their times count, on the clock that never goes back.
    counted: Duration,
    /// Whether what is in the kernel is what it should be.
    sound: bool,
    /// Whether the maps were filled since the start.
    begun: bool,
    /// Whether some of what was used may not have been heard of.
    missed: bool,
    /// When 1970 began, as far as both clocks can tell together: since the fixed start of the other one.
    epoch: Option<Duration>,
    replayed: BTreeSet<u32>,
    file: Option<UsedKnocksFile>,
    /// Of the uses, those of which it was told when there were any.
    told_uses: u64,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("knocks", &self.knocks).finish_non_exhaustive()
    }
}

impl Timed {
    /// Whose knocks lead to this mark.
    pub(super) fn who(&self, mark: u32) -> Option<Arc<str>> {
        self.knocks.who(mark)
    }
}

/// The calendar's time at the start of the clock that never goes back.
fn epoch(now: Now) -> Duration {
    now.wall.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(now.boot)
}

impl Operations {
    /// Takes over what a daemon before knew. Where that is not known, what could be used until the last use is not taken: the
    /// calendar may be behind that now.
    pub(super) fn resume_timed(&mut self, runtime_dir: &Path, state_dir: &Path, now: Now) {
        let mut file = UsedKnocksFile::read(runtime_dir);
        if let Some(until) = file.refuse_until(LastUse::read(state_dir).until()) {
            self.timed.knocks.refuse_until(until);
        }
        for (who, step) in file.used() {
            self.timed.knocks.remember(&who, step);
        }
        if let Err(error) = self.resume_opened(file.opened(), now) {
            tracing::error!(%error, "what clients opened who are no more may go on until its end");
        }
        self.timed.file = Some(file);
    }

    /// Whether knocks were used since this was last asked.
    pub(super) fn take_knocks_used(&mut self) -> bool {
        let uses = self.timed.knocks.uses();
        std::mem::replace(&mut self.timed.told_uses, uses) != uses
    }

    /// Has everything be filled in again.
    pub(super) fn doubt_timed(&mut self) {
        self.timed.sound = false;
    }

    /// The same, if somebody has emptied the sets.
    pub(super) fn suspect_timed(&mut self) {
        let spent =
            self.settings.time_sequence.is_some().then(|| self.firewall.elements(&SetRef::plain(SPENT)));
        match spent {
            Some(Ok(spent)) if !TimedKnocks::is_witnessed(&spent) => self.timed.sound = false,
            Some(Err(_)) => self.timed.sound = false,
            Some(Ok(_)) | None => {}
        }
    }

    /// How long until something is to be done; none where nothing changes with time.
    pub(super) fn timed_left(&self, now: Now) -> Option<Duration> {
        let by_nftables = matches!(self.firewall, Firewall::Nftables(_));
        let sequence = self.settings.time_sequence.as_ref().filter(|_| by_nftables)?;
        if !self.timed.queue.is_empty() || !self.timed.sound {
            return Some(Duration::ZERO);
        }
        let every = sequence.every.as_duration();
        let next =
            every.saturating_mul(u32::try_from(step_at(now.wall, sequence.every) + 1).unwrap_or(u32::MAX));
        Some(next.saturating_sub(now.wall.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// Whether everything is going to be filled in again.
    pub(super) fn timed_is_unsound(&self, now: Now) -> bool {
        let set = self.timed.epoch.is_some_and(|before| before.abs_diff(epoch(now)) > SET);
        self.settings.time_sequence.is_some() && (set || !self.timed.sound)
    }

    /// Puts the knocks of this moment in force, or the next part of them. `listening`: everything that was told was
    /// heard.
    ///
    /// # Errors
    /// [`OperationError`]; what is not in force opens nothing, and is tried again.
    pub(super) fn follow_timed(&mut self, listening: bool, now: Now) -> Result<(), OperationError> {
        if self.settings.time_sequence.is_none() || !matches!(self.firewall, Firewall::Nftables(_)) {
            self.timed.queue.clear();
            return Ok(());
        }
        if self.timed_is_unsound(now) {
            self.refill_timed(listening, now)?;
        } else if self.timed.queue.is_empty() {
            self.timed.epoch = Some(epoch(now));
            match self.timed.knocks.advance(&self.settings, &self.knocking, now) {
                Advance::Nothing => {}
                Advance::Grow(Refill { transactions, left_out }) => {
                    (self.timed.queue, self.timed.counted) = (transactions, now.boot);
                    self.timed.replayed.clear();
                    tell_left_out(left_out);
                }
                Advance::Rebuild => self.refill_timed(listening, now)?,
            }
        }
        let Some(changes) = self.timed.queue.front_mut() else { return Ok(()) };
        // Many transactions take their time, and a process may be stopped between two of them.
        shorten(changes, now.boot.saturating_sub(self.timed.counted));
        if let Err(error) = self.firewall.apply(changes) {
            self.timed.sound = false;
            return Err(error.into());
        }
        self.timed.queue.pop_front();
        Ok(())
    }

    /// Works everything out anew, after what was used is known.
    fn refill_timed(&mut self, listening: bool, now: Now) -> Result<(), OperationError> {
        self.timed.queue.clear();
        self.timed.sound = false;
        let (spent, used) =
            (self.firewall.elements(&SetRef::plain(SPENT))?, self.firewall.elements(&SetRef::plain(USED))?);
        let timed = &mut self.timed;
        if !timed.begun && TimedKnocks::is_doubted(&spent) {
            // The daemon before did not know it either.
            timed.knocks.doubt(now.boot);
        }
        if !TimedKnocks::is_witnessed(&spent) {
            // The sets are new: what is in them is not all that was used.
            let unheard = match timed.begun {
                false => timed.file.as_ref().is_none_or(UsedKnocksFile::was_there),
                true => !listening || timed.missed,
            };
            if unheard {
                tracing::warn!(
                    "which knocks were used is not known: those are taken that can be used from now on only"
                );
                timed.knocks.doubt(now.boot);
            }
        }
        let read = |knocks: &mut TimedKnocks| [&used, &spent].into_iter().for_each(|all| knocks.on_read(all));
        read(&mut timed.knocks);
        let left_out = timed.knocks.rebuild(&self.settings, &self.knocking, now);
        read(&mut timed.knocks);
        tell_left_out(left_out);
        (timed.queue, timed.counted) = (timed.knocks.refill(&self.knocking, now), now.boot);
        (timed.sound, timed.begun, timed.missed, timed.epoch) = (true, true, false, Some(epoch(now)));
        timed.replayed.clear();
        self.keep_used(now);
        Ok(())
    }

    /// Learns from the kernel what was used, before its sets may go, or because the log lost some of it.
    pub(super) fn learn_used_knocks(&mut self, lost: bool, now: Now) {
        if self.settings.time_sequence.is_none() {
            return;
        }
        self.timed.missed |= lost;
        match (self.firewall.elements(&SetRef::plain(SPENT)), self.firewall.elements(&SetRef::plain(USED))) {
            (Ok(spent), Ok(used)) => {
                self.timed.knocks.on_read(&used);
                self.timed.missed &= !TimedKnocks::is_witnessed(&spent);
                self.keep_used(now);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "which knocks were used cannot be read from the kernel");
                self.timed.missed = true;
            }
        }
    }

    /// From now on somebody listens, after nobody did: what was used meanwhile the kernel's sets know, or nobody.
    pub(super) fn doubt_the_unheard(&mut self, now: Now) {
        if self.timed.begun {
            self.learn_used_knocks(true, now);
        }
    }

    /// Before the rules become others: no element may lead to a chain that goes.
    pub(super) fn let_go_of_deeds(&mut self, before: &Knocking, now: Now) {
        let Some(rules) = &before.timed else { return };
        self.learn_used_knocks(false, now);
        self.timed.sound = false;
        let stays = |timed: &TimedRules| rules.deeds.iter().all(|(name, _)| timed.has_deed(name));
        if self.knocking.timed.as_ref().is_some_and(stays) {
            return;
        }
        if let Err(error) = self.firewall.apply(&[Change::FlushSet(TIMED_OPEN.to_owned())]) {
            tracing::debug!(%error, "nothing to let go of");
        }
    }

    /// Takes note that knocks were used, if it is such a mark.
    pub(super) fn on_knocks_used(&mut self, mark: u32, now: Now) {
        if let Some((_, true)) = self.timed.knocks.on_used(mark) {
            self.keep_used(now);
        }
    }

    /// Takes note that knocks were right, and used before.
    pub(super) fn on_replayed(&mut self, mark: u32, source: IpAddr) {
        let Some(by) = self.timed.knocks.who(mark) else { return };
        if self.timed.replayed.len() < TOLD && self.timed.replayed.insert(mark) {
            let client = ClientAddr::new(source);
            tracing::warn!(%client, of = &*by, "knocks that had been used were knocked again: nothing opens");
        }
    }

    /// Writes down what was used, and what is open by that.
    pub(super) fn keep_used(&self, now: Now) {
        let (Some(file), Some(sequence)) = (&self.timed.file, &self.settings.time_sequence) else { return };
        // Whatever could be right again if the calendar was set back by an hour or some steps.
        let back = sequence.steps().saturating_mul(2) + 3_600 / sequence.every.as_secs().max(1);
        let from = step_at(now.wall, sequence.every).saturating_sub(back);
        // They are sorted.
        let is_client = |note: &Note| {
            let place = sequence.clients.binary_search_by(|client| client.name.as_str().cmp(&note.by));
            note.how == How::Sequence && place.is_ok()
        };
        let opened = self.ledger.longest(now).filter(|(_, _, note, ..)| is_client(note));
        let opened = opened.map(|(key, address, note, ..)| Opened {
            key: key.to_owned(),
            address,
            who: note.by.clone(),
        });
        file.write(self.timed.knocks.used_since(from), opened.collect());
    }
}

fn tell_left_out(left_out: usize) {
    if left_out > 0 {
        tracing::warn!(
            left_out,
            "clients have the same knocks by chance: some are not taken in this time step"
        );
    }
}
