//! A small process that starts the others, so that the one which may change the firewall need not be able to start
//! any program. It is begun before the first secret is read, and has neither secrets nor privileges.

mod process;

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::handover;

pub use process::launch;

/// The first argument of the process that starts others; not for people.
pub const LAUNCHER: &str = "start-others";

/// What all of them are called, instead of the path by which they are started.
pub(super) const PROGRAM: &str = "knock-agent";

/// To start a process takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

const FRONT: u8 = b'f';
const TELLER: u8 = b't';
const END_FRONT: u8 = b'e';
const DONE: u8 = b'd';
const NOT_DONE: u8 = b'n';
/// Stands for the status of a front that had not ended; no status of `wait(2)` is negative.
const RUNNING: i32 = -1;

/// The process that starts others, as the daemon knows it; it ends with the daemon, and the front with it.
#[derive(Debug)]
pub struct Launcher {
    line: Mutex<Line>,
    _child: Child,
}

/// The way to it and back.
#[derive(Debug)]
struct Line {
    socket: UnixStream,
    /// Whether the reply to the order for a front is still to come.
    owed: bool,
    /// What it was, once it came.
    front: Option<io::Result<i32>>,
}

impl Launcher {
    /// Begins it. What it starts logs in this style, which is one word.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start(style: &str) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let child = Command::new("/proc/self/exe")
            .arg0(PROGRAM)
            .arg(LAUNCHER)
            .arg(style)
            .current_dir("/")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { line: Mutex::new(Line { socket, owed: false, front: None }), _child: child })
    }

    /// Starts the front with this socket as its link and this pipe for its log. There is one at a time.
    ///
    /// # Errors
    /// When it cannot be started, or the launcher is gone.
    pub fn start_front(&self, link: BorrowedFd<'_>, log: BorrowedFd<'_>) -> io::Result<()> {
        self.have(FRONT, &[link, log]).map(drop)
    }

    /// The same without waiting until it has been started, which [`Launcher::front_begun`] does.
    ///
    /// # Errors
    /// When the launcher is gone.
    pub fn begin_front(&self, link: BorrowedFd<'_>, log: BorrowedFd<'_>) -> io::Result<()> {
        let mut line = self.line();
        line.hear_of_front();
        line.order(FRONT, &[link, log])?;
        line.owed = true;
        Ok(())
    }

    /// Waits until the front that was begun has been started.
    ///
    /// # Errors
    /// As for [`Launcher::start_front`].
    pub fn front_begun(&self) -> io::Result<()> {
        let mut line = self.line();
        line.hear_of_front();
        line.front.take().transpose().map(drop)
    }

    /// Ends the front, whatever it does; how it ended, if that was before.
    ///
    /// # Errors
    /// When the launcher is gone: then the front is gone, too.
    pub fn end_front(&self) -> io::Result<Option<ExitStatus>> {
        let status = self.have(END_FRONT, &[])?;
        Ok((status != RUNNING).then(|| ExitStatus::from_raw(status)))
    }

    /// Starts the process that tells others, with this pipe as its standard input.
    ///
    /// # Errors
    /// As for [`Launcher::start_front`].
    pub fn start_teller(&self, input: &impl AsFd) -> io::Result<()> {
        self.have(TELLER, &[input.as_fd()]).map(drop)
    }

    fn have(&self, what: u8, descriptors: &[BorrowedFd<'_>]) -> io::Result<i32> {
        let mut line = self.line();
        line.hear_of_front();
        line.order(what, descriptors)?;
        line.reply()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn order(&mut self, what: u8, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sent = handover::send(&self.socket, &[what], descriptors);
        self.or_end(sent)
    }

    /// The reply to the order that is owed one, which comes before that to any later one.
    fn hear_of_front(&mut self) {
        if std::mem::take(&mut self.owed) {
            self.front = Some(self.reply());
        }
    }

    /// A late reply would be taken for that to the next order.
    fn or_end(&self, outcome: io::Result<()>) -> io::Result<()> {
        if outcome.is_err() {
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        outcome
    }

    fn reply(&mut self) -> io::Result<i32> {
        let mut reply = [0; 5];
        let heard = self.socket.read_exact(&mut reply);
        self.or_end(heard)?;
        match reply {
            [DONE, status @ ..] => Ok(i32::from_be_bytes(status)),
            [NOT_DONE, code @ ..] => Err(io::Error::from_raw_os_error(i32::from_be_bytes(code))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
