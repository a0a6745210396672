//! Being told to end.

use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

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
