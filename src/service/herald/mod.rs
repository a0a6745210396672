//! Telling others: programs, web servers and people. It is done by processes of their own without any privilege, so that
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

/// Those who tell others, as the enforcer knows them.
pub struct Herald {
    launcher: Arc<Launcher>,
    notify: Notify,
    lines: Vec<Line>,
}

/// A process that tells, and whom.
struct Line {
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
        Self { launcher, notify: Notify::default(), lines: Vec::new() }
    }

    /// Tells these from now on. What others were to be told before is still told.
    pub fn follow(&mut self, notify: &Notify, now: Duration) {
        if *notify == self.notify {
            return;
        }
        self.notify = notify.clone();
        let missed = self.lines.iter().map(|line| line.missed).max().unwrap_or(0);
        let line = |notify| Line { notify, teller: None, started_at: None, missed };
        // The pipes of before are closed: who reads them tells what is in them.
        self.lines = apart(notify).into_iter().map(line).collect();
        self.lines.iter_mut().for_each(|line| line.start(&self.launcher, now));
    }

    /// Whether anybody is told of anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.notify.is_empty()
    }

    /// Counts events that were too many to be told.
    pub fn miss(&mut self, count: u64) {
        self.lines.iter_mut().for_each(|line| line.missed += count);
    }

    /// Has others told of this; never waits. What cannot be told now is counted, and the count is told later.
    pub fn tell(&mut self, message: Message, now: Duration) {
        let Some((last, others)) = self.lines.split_last_mut() else { return };
        others.iter_mut().for_each(|line| line.tell(message.clone(), &self.launcher, now));
        last.tell(message, &self.launcher, now);
    }
}

/// Whom one process each tells. What a mail server answers may end the one that reads it, which is nobody else's loss.
fn apart(notify: &Notify) -> Vec<Notify> {
    let mails = notify.mails.iter().map(|mail| Notify { mails: vec![mail.clone()], ..Notify::default() });
    let others = Notify { mails: Vec::new(), ..notify.clone() };
    std::iter::once(others).chain(mails).filter(|part| !part.is_empty()).collect()
}

impl Line {
    fn start(&mut self, launcher: &Launcher, now: Duration) {
        if self.started_at.is_some_and(|at| now < at + PAUSE) {
            return;
        }
        self.started_at = Some(now);
        match Teller::start(launcher, &self.notify) {
            Ok(teller) => self.teller = Some(teller),
            Err(error) => tracing::error!(%error, "others cannot be told of what happens"),
        }
    }

    fn tell(&mut self, mut message: Message, launcher: &Launcher, now: Duration) {
        if self.teller.is_none() {
            self.start(launcher, now);
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

#[cfg(all(test, feature = "notify"))]
mod tests {
    use super::*;
    use crate::config::{Mail, MailSecurity};

    #[test]
    fn each_mail_server_has_a_process_of_its_own() {
        let mail = |host: &str| Mail {
            host: host.to_owned(),
            port: 25,
            security: MailSecurity::None,
            ca_file: None,
            login: None,
            from: "a@b".to_owned(),
            to: vec!["c@d".to_owned()],
            whois: false,
            events: std::collections::BTreeSet::new(),
        };
        let exec = crate::config::ExecHook {
            command: vec!["/bin/true".to_owned()],
            events: std::collections::BTreeSet::new(),
            timeout: "10s".parse().unwrap(),
        };
        let (one, two) = (mail("one.example"), mail("two.example"));
        let all = Notify { exec: vec![exec], mails: vec![one.clone(), two], ..Notify::default() };
        let parts = apart(&all);
        assert_eq!(parts.iter().map(|part| part.mails.len()).collect::<Vec<_>>(), [0, 1, 1]);
        assert_eq!(parts.iter().map(|part| part.exec.len()).collect::<Vec<_>>(), [1, 0, 0]);
        assert_eq!(apart(&Notify { mails: vec![one], ..Notify::default() }).len(), 1);
        assert!(apart(&Notify::default()).is_empty());
    }
}
