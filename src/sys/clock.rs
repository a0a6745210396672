//! The clocks; everybody else is given [`Now`].

use std::time::{Duration, SystemTime};

use crate::units::Now;

/// Microseconds of `CLOCK_MONOTONIC`, by which systemd orders notifications.
#[must_use]
pub fn monotonic_usec() -> u128 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(Duration::ZERO, Duration::from)
        .as_micros()
}

/// How long the host has slept since it was started, as far as that can be told: between these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slept {
    least: Duration,
    most: Duration,
}

impl Slept {
    /// Reads the two clocks of which one stands still meanwhile.
    #[must_use]
    pub fn until_now() -> Self {
        use nix::time::{ClockId, clock_gettime};
        let read = |clock| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
        let before = read(ClockId::CLOCK_MONOTONIC);
        let boot = read(ClockId::CLOCK_BOOTTIME);
        let after = read(ClockId::CLOCK_MONOTONIC);
        Self { least: boot.saturating_sub(after), most: boot.saturating_sub(before) }
    }

    /// Whether it surely slept between the other reading and this one.
    #[must_use]
    pub fn is_longer_than(&self, other: &Self) -> bool {
        self.least > other.most
    }

    /// How long it slept between the other reading and this one, at most.
    #[must_use]
    pub fn since(&self, other: &Self) -> Duration {
        self.most.saturating_sub(other.least)
    }
}

/// Reads both clocks.
#[must_use]
pub fn now() -> Now {
    // CLOCK_BOOTTIME, because grants go on ending while the host sleeps.
    let boot =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    Now { boot, wall: SystemTime::now() }
}
