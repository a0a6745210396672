//! Being told to end, and programs that we start not being kept from it.
#![expect(unsafe_code, reason = "frees the signals of a program before it begins, and ignores one")]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

#[cfg(feature = "gateway")]
use nix::sys::signal::{SigHandler, signal};
use nix::sys::signal::{SigSet, Signal};

/// Has a program begin without signals held back: it would inherit those that its parent's thread holds back
/// (signal(7)), and nobody could end it by them.
pub fn free(command: &mut Command) -> &mut Command {
    let free = || SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: only async-signal-safe calls may be made between fork and exec; pthread_sigmask is one
    // (signal-safety(7)), and an error number becomes an error without memory being asked for.
    unsafe { command.pre_exec(free) }
}

/// Has a process that lasts begin as if nobody had started it: nothing is held back, which it would inherit, and nobody could
/// end it; and a file that must not grow any more (`RLIMIT_FSIZE`) is an error like a full disk, and no end without a word.
///
/// To be called before any other thread is started.
///
/// # Errors
/// What the kernel says.
#[cfg(feature = "gateway")]
pub fn begin_afresh() -> nix::Result<()> {
    SigSet::empty().thread_set_mask()?;
    // SAFETY: nothing is called when the signal comes: it is ignored.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.map(drop)
}

/// Holds back what ends the daemon and its whole group, for a process that ends when the daemon has.
///
/// To be called before any other thread is started.
///
/// # Errors
/// What the kernel says.
#[cfg(feature = "gateway")]
pub fn hold_endings() -> nix::Result<()> {
    endings_of_a_group().thread_block()
}

#[cfg(feature = "gateway")]
fn endings_of_a_group() -> SigSet {
    let mut held = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        held.add(signal);
    }
    held
}

/// Lets pass again what [`hold_endings`] holds back; what came meanwhile ends this process now.
///
/// # Errors
/// What the kernel says.
#[cfg(all(feature = "gateway", feature = "client"))]
pub fn let_endings_pass() -> nix::Result<()> {
    endings_of_a_group().thread_unblock()
}

/// Holds back SIGHUP, which ends a process that does not know what to do with it yet; a program that is started is to be
/// freed of that ([`free`]), or has to hold it back itself.
///
/// To be called before any other thread is started.
///
/// # Errors
/// What the kernel says.
#[cfg(feature = "gateway")]
pub fn hold_hangup() -> nix::Result<()> {
    hangup().thread_block()
}

/// Lets it pass, now that there is a handler: one that came meanwhile comes now.
///
/// # Errors
/// What the kernel says.
#[cfg(feature = "gateway")]
pub fn let_hangup_pass() -> nix::Result<()> {
    hangup().thread_unblock()
}

#[cfg(feature = "gateway")]
fn hangup() -> SigSet {
    let mut held = SigSet::empty();
    held.add(Signal::SIGHUP);
    held
}

/// From now on SIGINT, SIGTERM and SIGHUP arrive at the receiver instead of ending the process.
///
/// To be called before any other thread is started, as those take over which signals are held back.
///
/// # Errors
/// What the kernel says.
pub fn endings() -> nix::Result<Receiver<()>> {
    let mut held = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        held.add(signal);
    }
    held.thread_block()?;
    let (tell, told) = channel();
    thread::spawn(move || while held.wait().is_ok() && tell.send(()).is_ok() {});
    Ok(told)
}
