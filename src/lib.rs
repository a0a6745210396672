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
//! - [`client`]: who knocks;
//! - [`backend`]: a ruleset made real in a kernel;
//! - [`service`]: the daemon;
//! - [`cli`]: the command line; the only place that prints.
//!
//! With the feature `client` alone there is the client and what it is made of, without netlink and on other systems
//! than Linux: `units`, `config`, `knock`, `client` and parts of `sys` and `cli`.

#![cfg_attr(
    not(feature = "gateway"),
    allow(dead_code, reason = "what only the daemon asks of the shared layers")
)]

#[cfg(not(any(feature = "gateway", feature = "client")))]
compile_error!("build the feature `gateway`, `client`, or both");
#[cfg(all(feature = "gateway", not(target_os = "linux")))]
compile_error!("the gateway needs Linux: build with `--no-default-features --features client`");

#[cfg(feature = "gateway")]
pub mod backend;
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod config;
#[cfg(feature = "gateway")]
pub mod grant;
pub mod knock;
#[cfg(feature = "gateway")]
pub mod ruleset;
#[cfg(feature = "gateway")]
pub mod service;
pub mod sys;
pub mod units;

#[cfg(all(any(test, fuzzing), feature = "gateway"))]
#[path = "../fuzz/laws/mod.rs"]
pub mod laws;
