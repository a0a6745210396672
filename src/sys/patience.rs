//! Waits for what is typed, or for a signal that ends this process: then the question ends instead, and what it changed is put back.
#![expect(unsafe_code, reason = "what a signal does to a process is said by a handler")]

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Whether one of these signals came since the question was asked.
static TOLD: AtomicBool = AtomicBool::new(false);

const ENDINGS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

extern "C" fn on_ending(_: c_int) {
    TOLD.store(true, Ordering::Relaxed);
}

/// Signals that would end this process end a question instead, until this is dropped.
pub(super) struct Patience(Vec<(Signal, SigAction)>);

impl Patience {
    /// Begins with it; signals that are ignored go on being so.
    pub fn begin() -> Self {
        TOLD.store(false, Ordering::Relaxed);
        // Without SA_RESTART, so that who reads is woken.
        let action = SigAction::new(SigHandler::Handler(on_ending), SaFlags::empty(), SigSet::empty());
        let mut before = Vec::new();
        for signal in ENDINGS {
            // SAFETY: the handler stores into an atomic and nothing else, which is async-signal-safe (signal-safety(7)).
            let Ok(old) = (unsafe { sigaction(signal, &action) }) else { continue };
            before.push((signal, old));
            if matches!(old.handler(), SigHandler::SigIgn) {
                // SAFETY: it puts back what was there.
                let _ = unsafe { sigaction(signal, &old) };
            }
        }
        Self(before)
    }

    /// What is typed at that terminal, byte by byte.
    pub fn typed<'t>(&'t self, tty: &'t mut File) -> impl Read + 't {
        Typed { _since: self, tty }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        for (signal, old) in &self.0 {
            // SAFETY: it puts back what was there.
            let _ = unsafe { sigaction(*signal, old) };
        }
    }
}

struct Typed<'t> {
    _since: &'t Patience,
    tty: &'t mut File,
}

impl Read for Typed<'_> {
    /// [`io::ErrorKind::Interrupted`] where a signal came.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        wait(self.tty)?;
        self.tty.read(into)
    }
}

/// Until something is typed. A signal may come to another thread, or just before this one sleeps: so it looks again and again.
#[cfg(target_os = "linux")]
fn wait(tty: &File) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    const LOOK_AGAIN_MS: u8 = 100;
    loop {
        told()?;
        let mut awaited = [PollFd::new(tty.as_fd(), PollFlags::POLLIN)];
        match poll(&mut awaited, PollTimeout::from(LOOK_AGAIN_MS)) {
            Ok(0) | Err(nix::Error::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Elsewhere poll(2) may know no terminals; reading is interrupted by the signal.
#[cfg(not(target_os = "linux"))]
fn wait(_: &File) -> io::Result<()> {
    told()
}

fn told() -> io::Result<()> {
    if TOLD.load(Ordering::Relaxed) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}
