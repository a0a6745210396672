//! The running daemon.

pub mod link;
