//! The running daemon, and what the command line does without one.

mod allowed;
pub mod bare;
pub mod certificate;
pub mod check;
mod close;
pub mod control;
pub mod daemon;
mod enforcer;
pub mod front;
mod hasher;
pub mod host_chains;
pub mod last_good;
pub mod link;
mod operate;
pub mod operations;
mod outside;
mod own;
pub mod reload;
mod repair;
mod sealed;
pub mod state;
pub mod status;
pub mod two_factor;
mod used_codes;
