//! What a request means and whether it opens anything: decisions without I/O, `now` given.

mod attempt;
pub mod automaton;
mod form;
mod gatekeeper;
mod keyring;
mod pending;
mod proof;
mod rate_limit;
mod request;
mod used_codes;

pub use attempt::{Action, Attempt, Credential, Refusal, Step, Verdict};
pub use form::Form;
pub use gatekeeper::{Gatekeeper, UsedUp};
pub use keyring::TwoFactor;
pub use proof::{Claim, INTERVAL as PROOF_INTERVAL, Proof};
pub use rate_limit::RateLimit;
pub use request::{Limits, Problem, Progress, read_request};
