use std::collections::BTreeSet;

use crate::config::manual::{self, CLIENT_PROFILE, CONFIGURATION, Table};
use crate::config::{
    app, global, keys, lockout, metrics, notify, sequence, sequence_client, time_sequence, user,
};
#[cfg(feature = "client")]
use crate::config::{profile, profile_knocks};

/// What the reader of each section takes, by the section's table.
fn readers() -> Vec<(&'static Table, &'static [&'static str])> {
    let mut out: Vec<(&'static Table, &'static [&'static str])> = vec![
        (&manual::GLOBAL, global::KEYS),
        (&manual::LOCKOUT, lockout::KEYS),
        (&manual::PATH_SECRET, keys::PLACES),
        (&manual::APP, app::KEYS),
        (&manual::SEQUENCE, sequence::KEYS),
        (&manual::USER, user::KEYS),
        (&manual::USER_APP, user::APP_KEYS),
        (&manual::ACCESS_KEY, keys::KEYS),
        (&manual::TOTP, user::TOTP_KEYS),
        (&manual::SECRET, keys::PLACES),
        (&manual::TIME_SEQUENCE, time_sequence::KEYS),
        (&manual::SEQUENCE_CLIENT, sequence_client::KEYS),
        (&manual::METRICS, metrics::KEYS),
        (&manual::METRICS_FILE, metrics::KEYS),
        (&manual::NOTIFY, notify::KEYS),
        (&manual::EXEC, notify::EXEC),
        (&manual::WEBHOOK, notify::WEBHOOK),
        (&manual::MAIL, notify::MAIL),
    ];
    #[cfg(feature = "client")]
    out.extend([
        (&manual::PROFILE, profile::KEYS),
        (&manual::PROFILE_SECRET, profile::SOURCES),
        (&manual::PROFILE_CODE, profile::CODE_SOURCES),
        (&manual::KNOCK_PROFILE, profile_knocks::KEYS),
        (&manual::TIMED_KNOCKS, profile_knocks::TIMED_KEYS),
    ] as [(&'static Table, &'static [&'static str]); 5]);
    out
}

#[test]
fn the_manual_and_the_schemas_have_every_key_that_is_read_and_no_other() {
    for (table, read) in readers() {
        let read: BTreeSet<&str> = read.iter().copied().collect();
        let told: BTreeSet<&str> = table.entries.iter().map(|entry| entry.key).collect();
        assert_eq!(told, read, "config/manual, section {}, and what reads it", table.name);
        assert_eq!(told.len(), table.entries.len(), "{}: a key twice", table.name);
        for key in table.one_of.iter().chain(table.with.iter().flat_map(|(a, b)| [a, b])) {
            assert!(told.contains(key), "{}: {key}", table.name);
        }
    }
}

#[test]
fn every_section_of_the_manual_has_a_reader() {
    let read: BTreeSet<&str> = readers().iter().map(|(table, _)| table.name).collect();
    let profiles: &[&Table] = if cfg!(feature = "client") { CLIENT_PROFILE } else { &[] };
    let told: BTreeSet<&str> = CONFIGURATION.iter().chain(profiles).map(|table| table.name).collect();
    assert_eq!(told, read);
}
