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

/// Reads both clocks.
#[must_use]
pub fn now() -> Now {
    // CLOCK_BOOTTIME, because grants go on ending while the host sleeps.
    let boot =
        nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    Now { boot, wall: SystemTime::now() }
}
