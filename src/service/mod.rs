//! The running daemon, and what the command line does without one.

pub mod check;
pub mod control;
pub mod link;
mod operate;
pub mod operations;
pub mod status;
