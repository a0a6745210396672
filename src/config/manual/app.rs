//! The section of an app.

use super::global::{CODE_STEP, INTERFACES, NETWORKS, WINDOW};
use super::shape::{Entry, Shape, TIME, Table};
use super::texts::{DESTINATION, KNOCK, OPENS, PORT, SEQUENCE_NAME};
use super::user::KEYS;

/// Knocks: a list, or a text with commas between them.
pub(super) const KNOCKS: Shape = Shape::List(&Shape::Mixed(1, 65_535, &KNOCK), 1, 32);

/// The section of an app.
pub static APP: Table = Table {
    name: "app",
    title: "THE SECTION OF AN APP",
    about: "One service. The name of the section is what clients send as `app`; it has at most 50 characters and is not `global`.",
    entries: &[
        Entry::new("port", Shape::List(&PORT, 1, 1_000), "The ports of the service.").needed(),
        Entry::new("protocol", Shape::Words(&["tcp", "udp", "both"]), "TCP, UDP or both.").usually("tcp"),
        Entry::new("access_key_http", KEYS, "The keys of step 1; any of them goes with any key of step 2. Needed unless there are users, a sequence, or clients of `time_sequence`."),
        Entry::new("access_key_https", KEYS, "The keys of step 2, others than those of step 1. Needed likewise."),
        Entry::new("duration", TIME, "How long the service stays open for the client's address, counted by the kernel. Needed unless nothing but sequences opens it, each with a `duration` of its own: then it is the longest of these."),
        Entry::new("max_duration", TIME, "The longest time that a client may ask for with `duration=`; as `duration` unless something else is said."),
        Entry::new("destination", Shape::Text(&DESTINATION), "Where the service is: on this host, or on a LAN host.").usually("local"),
        Entry::new("step2_https_duration", TIME, "How long after step 1 step 2 may begin.").usually("5s"),
        Entry::new("established", Shape::Words(&["cut", "keep"]), "What happens to open connections when the time is over.").usually("cut"),
        Entry::new("masquerade", Shape::Switch, "Whether a LAN host sees the gateway's address instead of the client's, whose replies would have to come back this way.").usually("true"),
        Entry::new("once", Shape::Switch, "Whether the first connection closes the door behind it; it goes on itself, for `duration` at most.").usually("false"),
        Entry::new("allow", NETWORKS, "Networks that reach this app without a knock.").usually("[]"),
        Entry::new("2fa_step", CODE_STEP, "At which step a one-time code is asked for; as in `global` unless something else is said."),
        Entry::new("interface_ext", INTERFACES, "Other interfaces towards the internet than those of `global`."),
        Entry::new("interface_int", INTERFACES, "Other interfaces towards LAN hosts than those of `global`."),
        Entry::new("sequence", Shape::List(&Shape::Section(&SEQUENCE), 1, 20_000), "Knock sequences that open this app; carried out by the kernel alone. Anybody on the way can read them."),
    ],
    one_of: &[],
    with: &[("access_key_http", "access_key_https"), ("access_key_https", "access_key_http")],
};

/// A knock sequence, of an app or of `global`.
pub static SEQUENCE: Table = Table::new(
    "sequence",
    "sequence",
    "Knocks that open something. In `global`, `opens` is needed and `closing` refused.",
    &[
        Entry::new("knocks", KNOCKS, "The knocks, 1 to 32, in their order.").needed(),
        Entry::new("window", WINDOW, "The longest time from the first knock to the last.").usually("10s"),
        Entry::new(
            "knock_window",
            WINDOW,
            "The longest time from one knock to the next; as `window` unless something else is said.",
        ),
        Entry::new("strict", Shape::Switch, "Whether any wrong knock afterwards takes back what it opened.")
            .usually("false"),
        Entry::new(
            "duration",
            TIME,
            "How long what it opens stays open; in an app, the app's `duration` unless something else is said.",
        ),
        Entry::new(
            "opens",
            Shape::Text(&OPENS),
            "What it opens: in an app `service` or the name of another sequence, in `global` `step-1`, `step-2` or that name.",
        ),
        Entry::new("closing", KNOCKS, "Knocks that close again what sequences have opened of the app."),
        Entry::new("name", Shape::Text(&SEQUENCE_NAME), "What other sequences and the log call it."),
    ],
);
