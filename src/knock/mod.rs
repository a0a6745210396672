//! What a request means and whether it opens anything: decisions without I/O, `now` given.

mod attempt;

pub use attempt::{Attempt, Refusal, Step, Verdict};
