//! The running daemon, and what the command line does without one.

mod allowed;
pub mod certificate;
pub mod check;
pub mod check_iptables;
pub mod control;
pub mod daemon;
mod enforcer;
pub mod front;
pub mod last_good;
pub mod link;
mod operate;
pub mod operations;
pub mod reload;
mod repair;
mod sealed;
pub mod state;
pub mod status;
pub mod two_factor;
mod used_codes;
