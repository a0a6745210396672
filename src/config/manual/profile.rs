//! A client's profile.

use super::app::KNOCKS;
use super::global::CODE_STEP;
use super::shape::{Entry, Shape, TIME, Table};
use super::texts::{
    ANY, APP_NAME, HOME_PATH, HOST, HTTP_PATH, PAUSE, PIN_OF_CERTIFICATE, PROGRAM, PROOF_ADDRESS, USER_NAME,
    WIDE_RANGE,
};

const PORT: Shape = Shape::Number(1, 65_535);
/// A secret: `prompt`, the secret itself, or where it is.
const SOURCE: Shape = Shape::Either(&[Shape::Text(&ANY), Shape::Section(&PROFILE_SECRET)]);
const COMMAND: Shape =
    Shape::List(&Shape::Either(&[Shape::Text(&PROGRAM), Shape::Number(i64::MIN, i64::MAX)]), 1, 100);
const HOST_KEY: Entry =
    Entry::new("host", Shape::Text(&HOST), "The gateway's name or address, without brackets, port or path.")
        .needed();
const FAMILY: Entry = Entry::new(
    "family",
    Shape::Either(&[Shape::Words(&["both", "4", "6"]), Shape::Number(4, 4), Shape::Number(6, 6)]),
    "Over which address families to knock.",
)
.usually("both");
const CHECK: Entry = Entry::new("check", PORT, "The service's TCP port, for `--check` and `--wait`.");
const THEN: Entry =
    Entry::new("then", COMMAND, "A program and its arguments, started after a knock. No shell is involved.");

/// A profile of the two steps.
pub static PROFILE: Table = Table::new(
    "profile",
    "A PROFILE",
    "One file for each gateway and app, `~/.config/knock-agent/NAME.yaml`, mode 0600. A profile with `sequence` knocks at ports instead.",
    &[
        HOST_KEY,
        Entry::new("http_port", PORT, "The port of step 1.").usually("80"),
        Entry::new("https_port", PORT, "The port of step 2.").usually("443"),
        Entry::new("http_post_path", Shape::Text(&HTTP_PATH), "The secret path of step 1, or how all of them begin where it changes with time.").needed(),
        Entry::new("http_post_path_secret", SOURCE, "The gateway's secret where the path of step 1 changes with time."),
        Entry::new("http_post_path_every", TIME, "How often it changes there. `5m` unless something else is said."),
        Entry::new("https_post_path", Shape::Text(&HTTP_PATH), "The secret path of step 2.").needed(),
        Entry::new("app", Shape::Text(&APP_NAME), "What to open.").needed(),
        Entry::new("user", Shape::Text(&USER_NAME), "Your name there, or the id of your key."),
        Entry::new("access_key_http", SOURCE, "The key of step 1.").usually("prompt"),
        Entry::new("access_key_https", SOURCE, "The key of step 2.").usually("prompt"),
        Entry::new("step1", Shape::Words(&["key", "proof"]), "`proof`: step 1 proves the key without sending it, which needs a `user`; `key`: it sends it, in plain text. `proof` where there is a user."),
        Entry::new("proof_address", Shape::Text(&PROOF_ADDRESS), "The address that a proof is good for: your own where the gateway sees it, none, or one that you know, such as your NAT's.").usually("auto"),
        Entry::new("totp", Shape::Either(&[Shape::Words(&["prompt"]), Shape::Section(&PROFILE_CODE)]), "Where one-time codes come from.").usually("prompt"),
        Entry::new("2fa_step", CODE_STEP, "At which step a code is given unasked. Without it one is given when step 2 asks."),
        Entry::new("pin", Shape::List(&Shape::Text(&PIN_OF_CERTIFICATE), 1, 16), "The certificate that is the right one, or a list for a change of certificates. Not with `ca`."),
        Entry::new("ca", Shape::Text(&HOME_PATH), "A PEM file of the authority, or the self-signed certificate itself. Without it and `pin` the system's authorities are asked."),
        FAMILY,
        Entry::new("duration", TIME, "How long it shall stay open; the gateway may allow less."),
        CHECK,
        THEN,
    ],
);

/// Where a secret of a profile is.
pub static PROFILE_SECRET: Table = Table {
    name: "profile_secret",
    title: "A secret of a profile",
    about: "`prompt`, which asks at the terminal, the secret itself, or a section with exactly one of these.",
    entries: &[
        Entry::new("key", Shape::Text(&ANY), "The secret itself."),
        Entry::new("file", Shape::Text(&HOME_PATH), "A file whose first line it is, mode 0600."),
        Entry::new("command", COMMAND, "A program and its arguments that print it as their first line."),
        Entry::new("keyring", Shape::Text(&ANY), "Its name in the system's keyring."),
    ],
    one_of: &["key", "file", "command", "keyring"],
    with: &[],
};

/// Where the codes of a profile come from.
pub static PROFILE_CODE: Table = Table {
    name: "profile_code",
    title: "totp of a profile",
    about: "`prompt`, or a section with exactly one of these. With `secret` or `file`, whoever has this computer has both factors.",
    entries: &[
        Entry::new("secret", Shape::Text(&ANY), "The secret in base32."),
        Entry::new("file", Shape::Text(&HOME_PATH), "A file as `knock-agent enroll` writes it."),
        Entry::new("command", COMMAND, "A program and its arguments that print a code."),
    ],
    one_of: &["secret", "file", "command"],
    with: &[],
};

/// A profile that knocks at ports.
pub static KNOCK_PROFILE: Table = Table::new(
    "knock_profile",
    "A PROFILE WITH A SEQUENCE",
    "It knocks at ports instead of taking the two steps.",
    &[
        HOST_KEY,
        Entry::new(
            "sequence",
            Shape::Either(&[KNOCKS, Shape::Section(&TIMED_KNOCKS)]),
            "The knocks, or how they are made.",
        )
        .needed(),
        Entry::new("delay", Shape::Mixed(0, 3_600, &PAUSE), "The time from one knock to the next.")
            .usually("300ms"),
        FAMILY,
        CHECK,
        THEN,
    ],
);

/// Knocks that change with time.
pub static TIMED_KNOCKS: Table = Table {
    name: "timed_knocks",
    title: "sequence of a profile",
    about: "Knocks that change with time; as the gateway's `time_sequence` says. There is exactly one of `secret` and `code`.",
    entries: &[
        Entry::new("secret", SOURCE, "The client's secret, as `knock-agent enroll --sequence` prints it."),
        Entry::new(
            "code",
            Shape::Words(&["prompt"]),
            "Ask for the code that an authenticator app shows, with the kind `knock-knock`.",
        ),
        Entry::new("pin", SOURCE, "The PIN, if there is one; `prompt` asks for it."),
        Entry::new(
            "kind",
            Shape::Words(&["secret", "knock-knock"]),
            "The rule that the knocks follow; `knock-knock` where there is a `code`.",
        ),
        Entry::new(
            "knocks",
            Shape::Number(1, 8),
            "How many there are. 4 unless something else is said; with `knock-knock` 3.",
        ),
        Entry::new(
            "ports",
            Shape::Mixed(1, 65_535, &WIDE_RANGE),
            "Their range. `20000-31999` unless something else is said.",
        ),
        Entry::new(
            "protocol",
            Shape::Words(&["udp", "tcp"]),
            "Whether they are UDP or TCP. `udp` unless something else is said.",
        ),
        Entry::new("lengths", Shape::Switch, "Whether a length of 0 to 15 bytes is part of every datagram."),
        Entry::new("every", TIME, "How often they change. `30s` unless something else is said."),
    ],
    one_of: &["secret", "code"],
    with: &[],
};
