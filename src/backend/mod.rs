//! A ruleset made real in a kernel.

mod closes;
mod commits;
mod error;
mod firewall;
pub mod iptables;
pub mod nftables;
mod planned;
pub mod survey;

pub use commits::{BOUNDS, Commits};
pub use error::BackendError;
pub use firewall::{Choice, Firewall};
pub use nftables::{HostReading, Scope};
pub use planned::{Kind, Plan};
