//! The running daemon.

pub mod link;
pub mod operations;
pub mod status;
