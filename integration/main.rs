//! End-to-end tests: a real agent, a real kernel, real clients, each test in network namespaces of its own.
//!
//! They need root and a few tools; `integration/test` installs what is missing and runs them. A test that
//! cannot run fails and says what it needs. What is asserted is what packets do and what the kernel lists,
//! never what the agent says about itself.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test harness stops at the first thing that is not as it should be"
)]

mod agent;
mod audit;
mod backend;
mod calendar;
mod capture;
mod configuration;
mod docker;
mod firewall;
mod forge;
mod front;
mod handmade;
mod hosts;
mod ipset;
mod knocker;
mod knocking;
mod knocks;
mod machine;
mod namespace;
mod pages;
mod probe;
mod process;
mod proxies;
mod recent;
mod requirements;
mod scenarios;
mod server;
mod strangers;
mod tamper;
mod temporary;
mod tls;
mod topology;
mod usage;
