//! Hears when the calendar is set: by a timer that the kernel cancels then (`TFD_TIMER_CANCEL_ON_SET`).
#![expect(unsafe_code, reason = "hands a descriptor of its own to the runtime")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// Far enough: whoever hears nothing for so long looks again by himself.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Watches the calendar; gradual corrections are none to it.
#[derive(Debug)]
pub struct Calendar {
    timer: TimerFd,
    /// The same timer, for the runtime to wait on.
    waiting: AsyncFd<OwnedFd>,
}

impl Calendar {
    /// Begins to watch. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel would not.
    pub fn watch() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags)?;
        arm(&timer)?;
        let waiting = timer.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is owned by what is registered, and is the same until that is dropped.
        let waiting =
            unsafe { AsyncFd::register(waiting) }.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { timer, waiting })
    }

    /// Waits until the calendar is set. May be dropped and called again without loss.
    ///
    /// # Errors
    /// When the timer fails for good.
    pub async fn set(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.waiting.readable().await?;
            let heard = read(&self.timer);
            ready.clear_ready();
            match heard {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Ok(()) | Err(Errno::ECANCELED) => {
                    arm(&self.timer)?;
                    return Ok(());
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn arm(timer: &TimerFd) -> nix::Result<()> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME)?;
    let far = TimeSpec::from(Duration::from(now) + FAR);
    let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
    match timer.set(Expiration::OneShot(far), flags) {
        // Set in the same moment: that is known now.
        Ok(()) | Err(Errno::ECANCELED) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn read(timer: &TimerFd) -> nix::Result<()> {
    let mut expirations = [0; 8];
    nix::unistd::read(timer, &mut expirations).map(|_| ())
}
