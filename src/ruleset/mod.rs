//! The firewall as data: what must be enforced, how it differs from what is, and how it reads.
//!
//! [`plan`] decides every rule. [`text`] renders the same plan from the reviewable
//! templates in `nft-templates/`; a test loads both into a kernel and requires one listing.

pub mod allow;
pub mod audit;
pub mod diff;
pub mod explain;
pub mod expr;
mod hex;
pub mod host_chain;
mod host_place;
pub mod iptables;
pub mod keeping;
pub mod knocking;
pub mod layout;
pub mod lockout;
pub mod model;
mod new_outside;
pub mod plan;
pub mod remedy;
mod rule;
pub mod swap;
pub mod text;
pub mod timed;
pub mod transition;
pub mod wire;
