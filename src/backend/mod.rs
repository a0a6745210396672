//! A ruleset made real in a kernel.

mod error;
mod firewall;
pub mod nftables;
pub mod survey;

pub use error::BackendError;
pub use firewall::{Firewall, Plan};
pub use nftables::{HostReading, Scope};
