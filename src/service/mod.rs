//! The running daemon, and what the command line does without one.

mod adopted;
mod allowed;
pub mod certificate;
pub mod check;
pub mod control;
pub mod daemon;
mod enforcer;
pub mod front;
pub mod last_good;
pub mod link;
pub mod lockout;
mod operate;
pub mod operations;
pub mod reload;
mod repair;
mod sealed;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod trial;
pub mod two_factor;
mod used_codes;
