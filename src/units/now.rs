use std::time::{Duration, SystemTime};

/// One moment on both clocks; made by `sys::clock` only and passed to whoever decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since some fixed start; never goes back and counts suspend (`CLOCK_BOOTTIME`).
    pub boot: Duration,
    /// The calendar, for one-time codes and for people.
    pub wall: SystemTime,
}

impl Now {
    /// A moment for tests: `secs` after an arbitrary start on both clocks.
    #[must_use]
    pub fn at_secs(secs: u64) -> Self {
        Self {
            boot: Duration::from_secs(secs),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + secs),
        }
    }
}
