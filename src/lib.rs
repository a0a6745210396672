//! knock-agent: a port-knocking gateway on nftables.
//!
//! The modules below are layers; each may name only those above it in this list
//! (`integration/architecture.rs` checks it):
//!
//! - [`units`]: values that cannot be wrong (addresses, durations, ports, names, secrets);
//! - [`config`]: YAML text to [`config::Settings`], every problem with its place;
//! - [`knock`]: what a request means and whether it opens anything;
//! - [`grant`]: the ledger of who was let in, how and until when;
//! - [`ruleset`]: the firewall as data: model, plan, difference, nft text, netlink decoding;
//! - [`sys`]: system calls, sockets, files; the only place with `unsafe`;
//! - [`backend`]: a ruleset made real in a kernel;
//! - [`service`]: the daemon;
//! - [`cli`]: the command line; the only place that prints.

pub mod backend;
pub mod cli;
pub mod config;
pub mod grant;
pub mod knock;
pub mod ruleset;
pub mod service;
pub mod sys;
pub mod units;
