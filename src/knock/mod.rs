//! What a request means and whether it opens anything: decisions without I/O, `now` given.

mod attempt;
mod form;
mod gatekeeper;
mod pending;
mod rate_limit;
mod request;
mod totp;

pub use attempt::{Attempt, Refusal, Step, Verdict};
pub use form::Form;
pub use gatekeeper::{Gatekeeper, TwoFactor};
pub use rate_limit::RateLimit;
pub use request::{Limits, Problem, Progress, read_request};
pub use totp::{TotpError, TotpSecret};
