//! Every key of the configuration and of a client's profile: what it may be, what it is by default, what it means.
//!
//! The manual page `knock-agent.yaml(5)` and the JSON schemas are made from these tables. What reads a configuration has
//! its own lists of keys; `config/tests/manual.rs` holds both against each other, key by key and bound by bound.

mod app;
mod global;
mod notify;
mod profile;
mod schema;
mod shape;
mod texts;
mod user;

pub use app::{APP, SEQUENCE};
pub use global::{GLOBAL, LOCKOUT, METRICS, METRICS_FILE, PATH_SECRET, TIME_SEQUENCE};
pub use notify::{EXEC, MAIL, NOTIFY, WEBHOOK};
pub use profile::{KNOCK_PROFILE, PROFILE, PROFILE_CODE, PROFILE_SECRET, TIMED_KNOCKS};
pub use schema::{configuration, profile};
pub use shape::{Entry, Shape, Table, Text};
pub use user::{ACCESS_KEY, SECRET, SEQUENCE_CLIENT, TOTP, USER, USER_APP};

/// The sections of a configuration and of the files that it names, in the order of the manual page.
pub const CONFIGURATION: &[&Table] = &[
    &GLOBAL,
    &LOCKOUT,
    &PATH_SECRET,
    &APP,
    &SEQUENCE,
    &USER,
    &USER_APP,
    &ACCESS_KEY,
    &TOTP,
    &SECRET,
    &TIME_SEQUENCE,
    &SEQUENCE_CLIENT,
    &METRICS,
    &METRICS_FILE,
    &NOTIFY,
    &EXEC,
    &WEBHOOK,
    &MAIL,
];

/// The sections of a client's profile, in the order of the manual page.
pub const CLIENT_PROFILE: &[&Table] =
    &[&PROFILE, &PROFILE_SECRET, &PROFILE_CODE, &KNOCK_PROFILE, &TIMED_KNOCKS];
