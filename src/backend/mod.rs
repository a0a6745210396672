//! A ruleset made real in a kernel.

pub mod nftables;
pub mod survey;
