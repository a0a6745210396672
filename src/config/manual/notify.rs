//! `global.notify`.

use super::shape::{Entry, Shape, Table};
use super::texts::{ANY, COMMAND_WORD, CREDENTIAL, MAIL_ADDRESS, SERVER, URL, WHOLE_PATH};
use super::user::SAID_SECRET;

const EVENTS: Entry = Entry::new(
    "events",
    Shape::List(&Shape::Words(&["opened", "renewed", "closed", "denied", "locked-out", "repaired"]), 1, 16),
    "For what. Without it everything.",
);
const CA_FILE: Entry = Entry::new(
    "ca_file",
    Shape::Text(&WHOLE_PATH),
    "A PEM file with the authorities that the server's certificate is judged by; the system's unless something else is said.",
);

/// Who else is told.
pub static NOTIFY: Table = Table::new(
    "notify",
    "notify",
    "Who else is told of what happens. Each key may be a list of up to 16.",
    &[
        Entry::new("exec", Shape::List(&Shape::Section(&EXEC), 1, 16), "Programs."),
        Entry::new("webhook", Shape::List(&Shape::Section(&WEBHOOK), 1, 16), "Web servers."),
        Entry::new("mail", Shape::List(&Shape::Section(&MAIL), 1, 16), "People."),
    ],
);

/// A program.
pub static EXEC: Table = Table::new(
    "exec",
    "notify.exec",
    "A program that is run for each event, which it gets as a line of JSON on its standard input. No shell is involved.",
    &[
        Entry::new(
            "command",
            Shape::List(&Shape::Text(&COMMAND_WORD), 1, 64),
            "The whole path of the program, and its arguments.",
        )
        .needed(),
        EVENTS,
        Entry::new("timeout", Shape::Time(1, 300), "When it is ended, with what it has started.")
            .usually("10s"),
    ],
);

/// A web server.
pub static WEBHOOK: Table = Table {
    name: "webhook",
    title: "notify.webhook",
    about: "A web server that gets each event as JSON by POST. There is exactly one of `url`, `file` and `credential`.",
    entries: &[
        Entry::new("url", Shape::Text(&URL), "Where; a secret, as whoever knows it can often use it."),
        Entry::new("file", Shape::Text(&WHOLE_PATH), "A file whose first line is the address."),
        Entry::new(
            "credential",
            Shape::Text(&CREDENTIAL),
            "A credential of systemd whose first line is the address.",
        ),
        Entry::new("authorization", SAID_SECRET, "What stands in the header `Authorization`."),
        CA_FILE,
        EVENTS,
    ],
    one_of: &["url", "file", "credential"],
    with: &[],
};

/// Mail.
pub static MAIL: Table = Table {
    name: "mail",
    title: "notify.mail",
    about: "Mail by SMTP.",
    entries: &[
        Entry::new("server", Shape::Text(&SERVER), "The server.").needed(),
        Entry::new("security", Shape::Words(&["starttls", "tls", "none"]), "`starttls` (port 587), `tls` (465), or `none` (25), for a server on this host or a network that is trusted.").usually("starttls"),
        CA_FILE,
        Entry::new("user", Shape::Text(&ANY), "With what name the server is asked to take it."),
        Entry::new("password", SAID_SECRET, "The password that goes with `user`."),
        Entry::new("from", Shape::Text(&MAIL_ADDRESS), "The sender.").needed(),
        Entry::new("to", Shape::List(&Shape::Text(&MAIL_ADDRESS), 1, 64), "The recipients.").needed(),
        Entry::new("whois", Shape::Switch, "Whether `whois` is asked whose the address is.").usually("false"),
        EVENTS,
    ],
    one_of: &[],
    with: &[("user", "password"), ("password", "user")],
};
