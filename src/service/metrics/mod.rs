//! Figures for Prometheus: by HTTP at an address of this host or a socket, or in a file.
//!
//! What comes in by HTTP is thrown away unread: whoever connects and sends anything at all gets the same page.

mod document;
mod exposition;
mod families;
mod file;
mod listener;
mod source;

pub(super) use file::keep_file;
pub(super) use listener::Listener;
pub(super) use source::{Source, ask};
