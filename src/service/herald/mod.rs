//! Telling others: programs, web servers and people. It is done by a process of its own without any privilege, so that
//! nothing it waits for, and nothing that becomes of it, concerns the firewall.

#[cfg(feature = "notify")]
mod mail;
mod message;
mod order;
mod process;
mod ways;
#[cfg(feature = "notify")]
mod webhook;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::launcher::Launcher;
use crate::config::Notify;
use crate::sys::pipes;

pub use message::Message;
pub use process::tell;

use order::Order;

/// The first argument of the process that tells; not for people.
pub const TELLER: &str = "tell-others";

/// A line of this length is written to a pipe as a whole or not at all (`PIPE_BUF`, `pipe(7)`).
const LONGEST_LINE: usize = 4_096;
/// Between starts of the process, if it ends.
const PAUSE: Duration = Duration::from_secs(10);

/// The process that tells others, as the enforcer knows it.
pub struct Herald {
    launcher: Arc<Launcher>,
    notify: Notify,
    teller: Option<Teller>,
    started_at: Option<Duration>,
    missed: u64,
}

/// Its end; where this is closed it tells what it knows already, and ends by itself.
struct Teller(io::PipeWriter);

impl Herald {
    /// Nobody is told of anything before [`Herald::follow`].
    #[must_use]
    pub fn new(launcher: Arc<Launcher>) -> Self {
        Self { launcher, notify: Notify::default(), teller: None, started_at: None, missed: 0 }
    }

    /// Tells these from now on. What others were to be told before is still told.
    pub fn follow(&mut self, notify: &Notify, now: Duration) {
        if *notify == self.notify {
            return;
        }
        self.notify = notify.clone();
        self.started_at = None;
        self.teller = None;
        self.start(now);
    }

    /// Whether anybody is told of anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.notify.is_empty()
    }

    fn start(&mut self, now: Duration) {
        if self.notify.is_empty() || self.started_at.is_some_and(|at| now < at + PAUSE) {
            return;
        }
        self.started_at = Some(now);
        match Teller::start(&self.launcher, &self.notify) {
            Ok(teller) => self.teller = Some(teller),
            Err(error) => tracing::error!(%error, "others cannot be told of what happens"),
        }
    }

    /// Counts events that were too many to be told.
    pub fn miss(&mut self, count: u64) {
        if !self.notify.is_empty() {
            self.missed += count;
        }
    }

    /// Has others told of this; never waits. What cannot be told now is counted, and the count is told later.
    pub fn tell(&mut self, mut message: Message, now: Duration) {
        if self.notify.is_empty() {
            return;
        }
        if self.teller.is_none() {
            self.start(now);
        }
        message.missed = (self.missed > 0).then_some(self.missed);
        let told = self.teller.as_mut().map(|teller| teller.send(&message));
        match told {
            Some(Ok(())) => self.missed = 0,
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => self.missed += 1,
            Some(Err(error)) => {
                tracing::warn!(%error, "the process that tells others has ended: it is started again");
                self.missed += 1;
                self.teller = None;
            }
            None => self.missed += 1,
        }
    }
}

impl Teller {
    fn start(launcher: &Launcher, notify: &Notify) -> io::Result<Self> {
        let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        let order = Order::of(notify, host).to_line()?;
        let (theirs, mut pipe) = io::pipe()?;
        // Before anybody reads it: the order must not be waited for.
        pipes::have_room(&pipe, order.len())?;
        pipes::never_block(&pipe)?;
        pipe.write_all(order.as_bytes())?;
        launcher.start_teller(&theirs)?;
        Ok(Self(pipe))
    }

    fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_string(message).map_err(io::Error::other)?;
        line.push('\n');
        if line.len() > LONGEST_LINE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.write_all(line.as_bytes())
    }
}
