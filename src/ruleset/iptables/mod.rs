//! The same firewall for hosts without nf_tables: iptables rules and ipsets, as text.
//!
//! The gate sits where it does in nftables: the mangle table's PREROUTING is priority -150, the raw table
//! -300. What a rule asks is kept in ipsets, whose elements the kernel ends by itself. A packet that we let
//! through returns to the host's own rules; nothing of ours accepts it for good.

pub mod adopted;
mod behind;
pub mod counters;
pub mod elements;
mod forward;
mod gate;
mod knock;
pub mod live;
mod marks;
pub mod model;
pub mod names;
mod path;
pub mod permitted;
mod phrase;
pub mod plan;
pub mod recent;
mod replies;
pub mod restore;
pub mod save;
pub mod sets;
mod step1;
