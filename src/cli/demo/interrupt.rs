//! Ctrl-C in the middle of the story: nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// What must be ended when we are; shared by whoever starts and ends it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ward(Arc<AtomicI32>);

impl Ward {
    /// Takes a process under watch.
    pub(super) fn set(&self, pid: u32) {
        self.0.store(i32::try_from(pid).unwrap_or_default(), Ordering::SeqCst);
    }

    /// It has ended.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::SeqCst);
    }
}

/// From now on, signals that end this process first end the ward and remove the folder.
///
/// Threads that begin later leave the signals to the one that waits here; processes are started with none blocked.
pub(super) fn watch(ward: &Ward, folder: &Path) -> Result<(), nix::Error> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let (ward, folder): (Ward, PathBuf) = (ward.clone(), folder.to_owned());
    std::thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        let pid = ward.0.load(Ordering::SeqCst);
        if pid > 0 {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = fs::remove_dir_all(&folder);
        process::exit(128 + signal as i32);
    });
    Ok(())
}
