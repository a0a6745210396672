//! Why one address is or is not let through to one port right now, by the rules that the kernel really has: ours and
//! everybody else's.
//!
//! Packets of that address are followed by the same interpreter that audits a host
//! ([`audit::machine`](crate::ruleset::audit::machine)); what cannot be told is said to be so.

pub mod answer;
mod arrival;
pub mod cause;
mod conversation;
pub mod facts;
mod gate;
mod heard;
mod history;
mod judge;
pub mod legacy;
mod legacy_marks;
mod legacy_match;
pub mod member;
mod neighbours;
mod newer;
mod obstacle;
mod probe;
pub mod recalled;
#[cfg(test)]
mod tests;
mod tracking;
mod variants;
pub mod walk;
mod ways;

pub use answer::{Answer, Finding, Outcome, Step, Verdict, hook_word};
pub use cause::Cause;
pub use facts::{Daemon, Echo, Facts, Flow, Path, PathTrouble, Routes};
pub use judge::{CLIENT_PORT, Question, explain};
pub use recalled::{Event, Holder, Newer, Pending, Recalled, WRONG_PROOF};

/// A time for people: `45 s`, `3 min`, `2 h 05 min`, `4 days`.
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} days", seconds / 86_400),
    }
}
