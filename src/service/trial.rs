//! `run --confirm`: a small process of its own waits with what was in force before, and puts it back unless it
//! is told that all is well. It does so too when the daemon dies, and the daemon does it where that process cannot;
//! nobody does when both are killed.

mod watching;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::watching::watch;
use self::watching::{line, put_back};
use super::last_good::LastGood;
use super::snapshot::Snapshot;
use super::taken::Deed;
use crate::backend::{BackendError, Firewall};
use crate::sys::pipes;

/// The first argument of the process that waits; not for people.
pub const WATCHER: &str = "put-back-unless-confirmed";
const READY: &str = "ready";
/// There is nothing to put back, whatever was said before.
const LEAVE: u8 = b'c';
const PUT_BACK: u8 = b'b';
/// What has ended, and by whom, in the rest of the line.
const ENDED: u8 = b't';
/// How much later than the daemon the other process gives up waiting for it.
const GRACE: Duration = Duration::from_secs(5);
/// How long the daemon waits for the other process to have put everything back, before it does so itself.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);
/// How long it may read nothing of what it is told.
const STILL: Duration = Duration::from_secs(1);
/// How often it is looked whether the other process is still there.
const LOOK: Duration = Duration::from_secs(1);

/// What the waiting process is told.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order<S> {
    before: S,
    seconds: u64,
}

/// Why there is no going back.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The process cannot be started or does not answer.
    #[error("the process that would put everything back does not work: {0}")]
    Process(#[from] io::Error),
    /// There are rules in the table that this program cannot write.
    #[error(
        "somebody else's rules are in table inet knock_agent, which could not be put back: remove them, or start without --confirm"
    )]
    Foreign,
    /// What was in force is not in force again.
    #[error(
        "NOT EVERYTHING WAS PUT BACK: look at `knock-agent status`, or remove all of it with `knock-agent teardown`"
    )]
    NotPutBack,
}

/// Why it was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum NotConfirmed {
    /// The time is over, or the daemon ends.
    #[error("too late: everything is being put back")]
    TooLate,
    /// Then it would put everything back.
    #[error("the process that would put everything back cannot be told: {0}")]
    Untold(#[from] io::Error),
}

/// The process that waits, as the daemon knows it.
#[derive(Debug)]
pub struct Watcher {
    child: Child,
    pipe: ChildStdin,
}

impl Watcher {
    /// Starts it, while this process has all its privileges; without an order it does nothing.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Self, TrialError> {
        let mut child = Command::new("/proc/self/exe")
            .arg(WATCHER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipe = child.stdin.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(Self { child, pipe })
    }

    /// Tells it what to put back, and by when; waits until it has understood.
    ///
    /// # Errors
    /// When it has not.
    pub fn order(&mut self, before: &Snapshot, limit: Duration) -> Result<(), TrialError> {
        let mut text = serde_json::to_string(&Order { before, seconds: limit.as_secs() })
            .map(zeroize::Zeroizing::new)
            .map_err(io::Error::other)?;
        text.push('\n');
        self.pipe.write_all(text.as_bytes())?;
        let mut answer = String::new();
        if let Some(stdout) = self.child.stdout.take() {
            BufReader::new(stdout.take(64)).read_line(&mut answer)?;
        }
        if answer.trim_end() == READY {
            Ok(pipes::never_block(&self.pipe)?)
        } else {
            Err(io::Error::from(io::ErrorKind::BrokenPipe).into())
        }
    }

    /// Has it change nothing, also where it reads that later than now: nobody waits for it. One that is gone
    /// changes nothing either.
    fn leave(&mut self) -> io::Result<()> {
        match self.pipe.write_all(&[LEAVE, b'\n']) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }

    /// Tells it what has ended, and by whom. One that stands still would put something else back: it is ended, and the daemon
    /// is left to do it. Of many grants there is more than the pipe holds: it reads at once, and is waited for as long as it does.
    fn tell(&mut self, deed: &Deed) {
        let Some(line) = line(deed) else { return };
        if pipes::write_patiently(&mut self.pipe, &line, STILL).is_err() {
            let _ = self.child.kill();
        }
    }

    /// Takes note of its end, whenever that is.
    fn let_go(self) {
        let Self { mut child, pipe } = self;
        drop(pipe);
        // Without a thread, it is a zombie until the daemon ends.
        let _ = std::thread::Builder::new().spawn(move || child.wait());
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Has it put everything back; whether it has done so in time.
    fn put_back(&mut self) -> bool {
        if self.pipe.write_all(&[PUT_BACK, b'\n']).is_err() {
            return false;
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(PAUSE),
                Ok(Some(status)) => return status.success(),
                Err(_) => return false,
            }
        }
        false
    }
}

/// What there is for going back: two who can.
struct Undo {
    watcher: Watcher,
    before: Snapshot,
}

impl Undo {
    fn put_back(mut self) -> Result<(), TrialError> {
        if self.watcher.put_back() {
            return Ok(());
        }
        tracing::warn!("the process that was to put everything back did not: the daemon does");
        let failed = |error: BackendError| {
            tracing::error!(%error, "it cannot be put back");
            TrialError::NotPutBack
        };
        let mut firewall = Firewall::nftables().map_err(failed)?;
        put_back(&self.before, &mut firewall).map_err(failed)?;
        // One that is only held up must not do it again, when there may be another guard.
        let _ = self.watcher.leave();
        Ok(())
    }
}

/// How far it is.
enum Phase {
    /// It can be confirmed.
    Waiting(Undo),
    /// Its time is over: it is put back next.
    Late(Undo),
    /// Somebody said that all is well.
    Confirmed,
    /// It was put back, or an operator had everything removed.
    Over,
}

/// What is tried: a reload changes it.
struct Tried {
    good: LastGood,
    phase: Phase,
}

/// What is done with the plan in force and the file that keeps grants.
type OnConfirmed = Box<dyn Fn(&LastGood, Option<&Path>) + Send + Sync>;

/// A start that waits for its confirmation.
pub struct Trial {
    tried: Mutex<Tried>,
    on_confirmed: OnConfirmed,
    /// How long it waits.
    pub limit: Duration,
    started: Instant,
}

impl Trial {
    /// A trial of a plan that begins now; `on_confirmed` is called with the plan in force, and the file that keeps grants, when it
    /// is over and went well.
    #[must_use]
    pub fn new(
        (watcher, before): (Watcher, Snapshot),
        limit: Duration,
        good: LastGood,
        on_confirmed: OnConfirmed,
    ) -> Self {
        let phase = Phase::Waiting(Undo { watcher, before });
        Self { tried: Mutex::new(Tried { good, phase }), on_confirmed, limit, started: Instant::now() }
    }

    fn tried(&self) -> MutexGuard<'_, Tried> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note that a reload put another plan in force; false: it is not confirmed, so it is not to be kept yet.
    pub fn reloaded(&self, good: &LastGood) -> bool {
        let mut tried = self.tried();
        tried.good = good.clone();
        matches!(tried.phase, Phase::Confirmed)
    }

    /// Notes what ends, and by whom.
    pub(super) fn note(&self, deed: impl FnOnce(&Snapshot) -> Deed) {
        if let Phase::Waiting(undo) = &mut self.tried().phase {
            let deed = deed(&undo.before);
            if undo.before.taken.note(&deed) {
                undo.watcher.tell(&deed);
            }
        }
    }

    /// Whether somebody said that all is well.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        matches!(self.tried().phase, Phase::Confirmed)
    }

    /// How long there still is to confirm it; none: it is not waited for.
    #[must_use]
    pub fn ends_in(&self) -> Option<Duration> {
        match self.tried().phase {
            Phase::Waiting(_) | Phase::Late(_) => Some(self.limit.saturating_sub(self.started.elapsed())),
            Phase::Confirmed | Phase::Over => None,
        }
    }

    /// Whether only the daemon is left to put everything back.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        match &mut self.tried().phase {
            Phase::Waiting(undo) => undo.watcher.has_ended(),
            Phase::Late(_) | Phase::Confirmed | Phase::Over => false,
        }
    }

    /// Keeps everything as it is, with that file for grants; false if that was said before.
    ///
    /// # Errors
    /// [`NotConfirmed`]; it is then put back as if nothing had been said.
    pub fn confirm(&self, state_file: Option<&Path>) -> Result<bool, NotConfirmed> {
        // Held while the plan is kept, so that a reload keeps its plan later than this one.
        let mut tried = self.tried();
        match &mut tried.phase {
            // Before the other process gives up waiting, whoever of the daemon is behind time.
            Phase::Waiting(_) if self.started.elapsed() >= self.limit => return Err(NotConfirmed::TooLate),
            Phase::Waiting(undo) => undo.watcher.leave()?,
            Phase::Confirmed => return Ok(false),
            Phase::Late(_) | Phase::Over => return Err(NotConfirmed::TooLate),
        }
        if let Phase::Waiting(undo) = std::mem::replace(&mut tried.phase, Phase::Confirmed) {
            undo.watcher.let_go();
        }
        (self.on_confirmed)(&tried.good, state_file);
        Ok(true)
    }

    /// Lets go of what was before, without a word on how it went.
    pub fn dismiss(&self) {
        let phase = std::mem::replace(&mut self.tried().phase, Phase::Over);
        if let Phase::Waiting(mut undo) | Phase::Late(mut undo) = phase {
            let _ = undo.watcher.leave();
            undo.watcher.let_go();
        }
    }

    /// Waits until the time is over without a confirmation; for ever if there is one.
    pub async fn overdue(&self) {
        let mut told = false;
        loop {
            let left = self.limit.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(LOOK)).await;
            if !told && self.is_alone() {
                told = true;
                tracing::error!("{ALONE}");
            }
        }
        if !self.close() {
            std::future::pending::<()>().await;
        }
    }

    /// Takes note that the time is over: whoever confirms it from now on is told so. False if it was confirmed before.
    fn close(&self) -> bool {
        let mut tried = self.tried();
        match std::mem::replace(&mut tried.phase, Phase::Over) {
            Phase::Waiting(undo) | Phase::Late(undo) => tried.phase = Phase::Late(undo),
            other @ (Phase::Confirmed | Phase::Over) => tried.phase = other,
        }
        matches!(tried.phase, Phase::Late(_))
    }

    /// Puts everything back unless it was confirmed; returns whether it did.
    ///
    /// # Errors
    /// When that failed.
    pub fn end(&self) -> Result<bool, TrialError> {
        let mut tried = self.tried();
        match std::mem::replace(&mut tried.phase, Phase::Over) {
            Phase::Waiting(undo) | Phase::Late(undo) => {
                drop(tried);
                undo.put_back().map(|()| true)
            }
            other @ (Phase::Confirmed | Phase::Over) => {
                tried.phase = other;
                Ok(false)
            }
        }
    }
}

/// What there is to say where [`Trial::is_alone`].
pub const ALONE: &str = "the process that would put everything back is gone: the daemon does it, unless `knock-agent confirm` is said; if the daemon is killed before that, nobody does";

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::front::settings_for_tests;
    use super::*;
    use crate::backend::Plan;
    use crate::config::Step1Reply;
    use crate::ruleset::model::Ruleset;
    use crate::sys::clock;

    /// A trial with another program as the process that waits, and how often it was confirmed.
    fn trial(words: &[&str], limit: Duration) -> (Trial, Arc<AtomicUsize>) {
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pipe = child.stdin.take().unwrap();
        pipes::never_block(&pipe).unwrap();
        let before = Snapshot::of(None, clock::now()).unwrap();
        let good = LastGood::of(&settings_for_tests(Step1Reply::Silent), Plan::Nftables(Ruleset::default()));
        let count = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&count);
        let on_confirmed = Box::new(move |_: &LastGood, _: Option<&Path>| {
            let _ = counted.fetch_add(1, Ordering::Relaxed);
        });
        (Trial::new((Watcher { child, pipe }, before), limit, good, on_confirmed), count)
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_snapshot_of_nothing_is_an_order_that_can_be_read() {
        let before = Snapshot::of(None, clock::now()).unwrap();
        let text = serde_json::to_string(&Order { before: &before, seconds: 60 }).unwrap();
        let order: Order<Snapshot> = serde_json::from_str(&text).unwrap();
        assert_eq!(order.seconds, 60);
        assert!(!text.contains('\n'));
    }

    #[test]
    fn what_was_confirmed_once_stays_whatever_became_of_the_process_that_waits() {
        for words in [&["head", "-c", "1"][..], &["true"], &["sleep", "3"]] {
            let (trial, count) = trial(words, LONG);
            while words == ["true"] && !trial.is_alone() {
                std::thread::sleep(PAUSE);
            }
            let begun = Instant::now();
            assert!(trial.confirm(None).unwrap());
            assert!(begun.elapsed() < Duration::from_secs(2), "{words:?}");
            assert!(!trial.confirm(None).unwrap() && trial.is_confirmed() && !trial.is_alone());
            assert!(!trial.close() && !trial.end().unwrap());
            assert_eq!(count.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn however_much_is_told_who_reads_it_stays_and_who_stands_still_is_not_waited_for_long() {
        let keys: BTreeSet<Vec<u8>> = (0..50_000_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        for (words, stays) in [(&["cat"][..], true), (&["sleep", "60"], false)] {
            let (trial, _) = trial(words, LONG);
            let begun = Instant::now();
            trial.note(|_| Deed::Ended(BTreeMap::from([("app_ssh_4".to_owned(), keys.clone())])));
            assert!(begun.elapsed() < STILL * 15, "{words:?}");
            while !stays && !trial.is_alone() {
                assert!(begun.elapsed() < STILL * 15, "{words:?}");
                std::thread::sleep(PAUSE);
            }
            assert_eq!(trial.is_alone(), !stays, "{words:?}");
            trial.dismiss();
        }
    }

    #[test]
    fn whoever_confirms_too_late_is_told_so() {
        let is_late = |trial: &Trial| matches!(trial.confirm(None), Err(NotConfirmed::TooLate));
        let (over, count) = trial(&["head", "-c", "1"], Duration::ZERO);
        assert!(is_late(&over), "also before anybody took note that the time is over");
        let (closed, _) = trial(&["head", "-c", "1"], LONG);
        assert!(closed.close() && is_late(&closed));
        for trial in [over, closed] {
            assert!(trial.end().unwrap(), "it was put back");
            assert!(is_late(&trial) && !trial.is_confirmed() && !trial.end().unwrap());
        }
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}
