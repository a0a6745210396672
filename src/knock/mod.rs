//! What a request means and whether it opens anything: decisions without I/O, `now` given.

mod attempt;
mod cap;
mod crowds;
mod defence;
mod form;
mod forwarded;
mod gatekeeper;
mod guesses;
mod keyring;
mod known;
mod lockout;
mod message;
mod pending;
mod places;
mod proof;
mod proxy_protocol;
mod rate_limit;
mod request;
mod used_codes;

pub use attempt::{Action, Attempt, Credential, Refusal, Step, Verdict};
pub use defence::Defence;
pub use form::Form;
pub use forwarded::{NoClient, forwarded_client};
pub use gatekeeper::Gatekeeper;
pub use guesses::Guesses;
pub use keyring::{NoCode, TwoFactor};
pub use lockout::{LockedOut, Lockout};
pub use message::MAX_ATTEMPT;
pub use places::Places;
pub use proof::{Claim, INTERVAL as PROOF_INTERVAL, Proof};
pub use proxy_protocol::{MAX_PROXY_HEADER, ProxyLine, read_proxy_line};
pub use rate_limit::{Counted, RateLimit};
pub use request::{LIFETIME_HEADER, Limits, Problem, Progress, read_request};
pub use used_codes::{OwnSite, Proved, UsedUp};
