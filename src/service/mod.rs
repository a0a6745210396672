//! The running daemon, and what the command line does without one.

mod adopted;
mod allowed;
pub mod bare;
pub mod certificate;
pub mod check;
pub mod check_iptables;
mod clients_gone;
mod close;
pub mod control;
pub mod daemon;
mod doubt;
mod enforcer;
pub mod front;
mod front_log;
mod gone;
mod hasher;
pub mod herald;
pub mod host_chains;
pub mod keeper;
pub mod knocked;
pub mod last_good;
pub mod launcher;
#[cfg(any(test, fuzzing))]
#[path = "../../fuzz/laws/kept.rs"]
pub(crate) mod laws;
pub mod link;
pub mod lockout;
mod look;
mod operate;
pub mod operations;
mod outside;
mod own;
mod refusals;
pub mod reload;
mod repair;
mod sealed;
mod served;
pub mod snapshot;
pub mod state;
pub mod status;
mod timed;
pub mod trial;
pub mod two_factor;
mod unblock;
mod used_codes;
mod used_knocks;
pub mod user_files;
