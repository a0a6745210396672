//! `run --confirm`: a small process of its own waits with what was in force before, and puts it back unless it
//! is told that all is well. It does so too when the daemon dies; nothing does when both are killed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;
use serde::{Deserialize, Serialize};

use super::last_good::LastGood;
use super::snapshot::Snapshot;
use crate::backend::{BackendError, Firewall};
use crate::sys::{clock, process, signals};

/// The first argument of the process that waits; not for people.
pub const WATCHER: &str = "put-back-unless-confirmed";
const READY: &str = "ready";
const CONFIRMED: u8 = b'c';
/// How much later than the daemon the other process gives up waiting for it.
const GRACE: Duration = Duration::from_secs(5);

/// What the waiting process is told.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    before: Snapshot,
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
    pub fn order(&mut self, before: Snapshot, limit: Duration) -> Result<(), TrialError> {
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
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::BrokenPipe).into())
        }
    }

    /// All is well: it ends and changes nothing.
    fn confirm(mut self) -> io::Result<()> {
        self.pipe.write_all(&[CONFIRMED])?;
        drop(self.pipe);
        self.child.wait().map(drop)
    }

    /// Has it put everything back and waits until it has.
    fn put_back(mut self) -> Result<(), TrialError> {
        drop(self.pipe);
        if self.child.wait()?.success() { Ok(()) } else { Err(TrialError::NotPutBack) }
    }
}

/// What is tried: a reload changes it.
struct InForce {
    good: LastGood,
    confirmed: bool,
}

/// A start that waits for its confirmation.
pub struct Trial {
    watcher: Mutex<Option<Watcher>>,
    plan: Mutex<InForce>,
    on_confirmed: Box<dyn Fn(&LastGood) + Send + Sync>,
    /// How long it waits.
    pub limit: Duration,
    started: Instant,
}

impl Trial {
    /// A trial of a plan that begins now; `on_confirmed` is called with the plan in force when it is over and went well.
    #[must_use]
    pub fn new(
        watcher: Watcher,
        limit: Duration,
        good: LastGood,
        on_confirmed: Box<dyn Fn(&LastGood) + Send + Sync>,
    ) -> Self {
        let plan = Mutex::new(InForce { good, confirmed: false });
        Self { watcher: Mutex::new(Some(watcher)), plan, on_confirmed, limit, started: Instant::now() }
    }

    /// Takes note that a reload put another plan in force; false: it is not confirmed, so it is not to be kept yet.
    pub fn reloaded(&self, good: &LastGood) -> bool {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.good = good.clone();
        plan.confirmed
    }

    /// Whether somebody said that all is well.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).confirmed
    }

    fn take(&self) -> Option<Watcher> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps everything as it is; false if that was said before.
    ///
    /// # Errors
    /// When it is too late.
    pub fn confirm(&self) -> io::Result<bool> {
        let Some(watcher) = self.take() else { return Ok(false) };
        watcher.confirm()?;
        // Held while it is kept, so that a reload keeps its plan later than this one.
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.confirmed = true;
        (self.on_confirmed)(&plan.good);
        Ok(true)
    }

    /// Lets go of what was before, without a word on how it went.
    pub fn dismiss(&self) {
        if let Some(watcher) = self.take() {
            let _ = watcher.confirm();
        }
    }

    /// Waits until the time is over without a confirmation; for ever if there is one.
    pub async fn overdue(&self) {
        tokio::time::sleep(self.limit.saturating_sub(self.started.elapsed())).await;
        if self.watcher.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Puts everything back unless it was confirmed; returns whether it did.
    ///
    /// # Errors
    /// When that failed.
    pub fn end(&self) -> Result<bool, TrialError> {
        self.take().map_or(Ok(false), |watcher| watcher.put_back().map(|()| true))
    }
}

/// The life of the process that waits: true if all is as it should be then.
#[must_use]
pub fn watch() -> bool {
    // Whoever ends the daemon ends the whole group; this one has something to do then.
    if signals::hold_endings().is_err() || process::harden(false).is_err() {
        return false;
    }
    let daemon = getppid();
    let mut pipe = BufReader::new(io::stdin());
    let mut text = zeroize::Zeroizing::new(String::new());
    // The daemon gave up before it changed anything.
    if pipe.read_line(&mut text).is_err() || text.is_empty() {
        return true;
    }
    let Ok(order) = serde_json::from_str::<Order>(&text) else { return false };
    let Ok(mut firewall) = Firewall::nftables() else { return false };
    let mut out = io::stdout();
    if writeln!(out, "{READY}").and_then(|()| out.flush()).is_err() {
        return false;
    }
    match confirmed(&mut pipe, Duration::from_secs(order.seconds) + GRACE) {
        Some(true) => return true,
        Some(false) => {}
        // It should have ended by now, and would put back what is changed under it.
        None if getppid() == daemon => {
            let _ = kill(daemon, Signal::SIGKILL);
        }
        None => {}
    }
    put_back(&order.before, &mut firewall).is_ok()
}

fn put_back(before: &Snapshot, firewall: &mut Firewall) -> Result<bool, BackendError> {
    let mut result = before.put_back(firewall, clock::now());
    // A daemon that is just ending may be putting right what it takes for a fault.
    for _ in 0..20 {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(250));
        result = before.put_back(firewall, clock::now());
    }
    result
}

/// Whether the daemon says that all is well (true) or ended without a word (false); none when the time is over.
fn confirmed(pipe: &mut BufReader<io::Stdin>, limit: Duration) -> Option<bool> {
    let end = Instant::now() + limit;
    loop {
        if pipe.buffer().is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            let stdin = io::stdin();
            let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(millis)) {
                Ok(0) if left.is_zero() => return None,
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(_) => return Some(false),
            }
        }
        let mut byte = [0];
        return match pipe.read(&mut byte) {
            Ok(1) => Some(byte == [CONFIRMED]),
            Ok(_) | Err(_) => Some(false),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_nothing_is_an_order_that_can_be_read() {
        let before = Snapshot::of(None, clock::now()).unwrap();
        let text = serde_json::to_string(&Order { before, seconds: 60 }).unwrap();
        let order: Order = serde_json::from_str(&text).unwrap();
        assert_eq!(order.seconds, 60);
        assert!(!text.contains('\n'));
    }
}
