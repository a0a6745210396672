//! What must hold whatever the bytes are: the laws that fuzzers try to break, and ordinary tests as well.
//!
//! Each takes bytes, makes something of them, and panics where a law does not hold. It is part of the library in tests and
//! under a fuzzer only (`cfg(fuzzing)`), never in what is released. `docs/fuzzing.md` says how to run them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a law that is broken panics; that is all these do"
)]

pub(crate) mod choices;
mod configuration;
mod events;
mod forwarded;
mod host;
mod iptables;
mod knocks;
mod link;
mod netlink;
mod packet_log;
mod plan;
mod request;
pub(crate) mod table;
mod texts;

/// A law with its name, which is also that of its fuzz target and of the folder with its corpus.
pub type Law = (&'static str, fn(&[u8]));

/// All of them, in the order of a packet's way and then of what is kept.
pub const ALL: &[Law] = &[
    ("request", request::request),
    ("forwarded", forwarded::forwarded),
    ("proxy_line", forwarded::proxy_line),
    ("link", link::link),
    ("knocks", knocks::knocks),
    ("netlink", netlink::netlink),
    ("host", host::host),
    ("events", events::events),
    ("packet_log", packet_log::packet_log),
    ("plans", plan::plans),
    ("iptables", iptables::iptables),
    ("configuration", configuration::configuration),
    #[cfg(feature = "client")]
    ("profile", configuration::profile),
    ("texts", texts::texts),
    ("kept", crate::service::laws::kept),
];

/// Has one law judge these bytes.
///
/// # Panics
/// Where it does not hold, or there is none of that name.
pub fn hold(name: &str, bytes: &[u8]) {
    let (_, law) = ALL.iter().find(|(known, _)| *known == name).expect("a law of that name");
    law(bytes);
}

#[cfg(test)]
mod tests;
