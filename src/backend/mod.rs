//! A ruleset made real in a kernel.

mod error;
mod firewall;
pub mod iptables;
pub mod nftables;
pub mod survey;

pub use error::BackendError;
pub use firewall::{Choice, Firewall, Kind, Plan};
pub use nftables::{HostReading, Scope};
