//! The running daemon.

pub mod certificate;
pub mod front;
pub mod link;
