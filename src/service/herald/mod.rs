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
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

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
    notify: Notify,
    teller: Option<Teller>,
    started_at: Option<Duration>,
    missed: u64,
}

struct Teller {
    child: Child,
    pipe: ChildStdin,
}

impl Herald {
    /// Nobody is told of anything before [`Herald::follow`].
    #[must_use]
    pub fn new() -> Self {
        Self { notify: Notify::default(), teller: None, started_at: None, missed: 0 }
    }

    /// Tells these from now on. What others were to be told before is still told.
    pub fn follow(&mut self, notify: &Notify, now: Duration) {
        if *notify == self.notify {
            return;
        }
        self.notify = notify.clone();
        self.started_at = None;
        if let Some(teller) = self.teller.take() {
            teller.dismiss();
        }
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
        match Teller::start(&self.notify) {
            Ok(teller) => self.teller = Some(teller),
            Err(error) => tracing::error!(%error, "others cannot be told of what happens"),
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
                if let Some(teller) = self.teller.take() {
                    teller.dismiss();
                }
            }
            None => self.missed += 1,
        }
    }
}

impl Default for Herald {
    fn default() -> Self {
        Self::new()
    }
}

impl Teller {
    fn start(notify: &Notify) -> io::Result<Self> {
        let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        let order = Order::of(notify, host);
        let mut text = zeroize::Zeroizing::new(serde_json::to_string(&order).map_err(io::Error::other)?);
        text.push('\n');
        let mut child = Command::new("/proc/self/exe")
            .arg(TELLER)
            .arg(tracing::level_filters::LevelFilter::current().to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut pipe = child.stdin.take().ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        // An order fits into an empty pipe as a rule; where it does not, it is read while it is written.
        pipe.write_all(text.as_bytes())?;
        pipes::never_block(&pipe)?;
        Ok(Self { child, pipe })
    }

    fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_string(message).map_err(io::Error::other)?;
        line.push('\n');
        if line.len() > LONGEST_LINE {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.pipe.write_all(line.as_bytes())
    }
}

impl Teller {
    /// Lets it tell what it knows already; it ends by itself then, of which somebody has to take note.
    fn dismiss(self) {
        let Self { mut child, pipe } = self;
        drop(pipe);
        std::thread::spawn(move || child.wait());
    }
}
