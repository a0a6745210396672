//! Users, their keys and codes, and the clients whose knocks change with time.

use super::shape::{Entry, Shape, TIME, Table};
use super::texts::{ANY, APP_NAME, BASE32, CREDENTIAL, DATE, PIN, PLAIN_KEY, STORED_KEY, WHOLE_PATH};

const KEY: Shape =
    Shape::Either(&[Shape::Text(&PLAIN_KEY), Shape::Text(&STORED_KEY), Shape::Section(&ACCESS_KEY)]);
/// Access keys of an app.
pub(super) const KEYS: Shape = Shape::List(&KEY, 1, 1_000);
const USER_KEYS: Shape = Shape::List(&KEY, 1, 8);
const APPS: Shape = Shape::List(&Shape::Text(&APP_NAME), 1, 1_000);
/// A secret, or where it is.
pub(super) const SAID_SECRET: Shape = Shape::Either(&[Shape::Text(&ANY), Shape::Section(&SECRET)]);
const FROM_FILE: Entry = Entry::new("file", Shape::Text(&WHOLE_PATH), "A file whose first line it is.");
const FROM_CREDENTIAL: Entry = Entry::new(
    "credential",
    Shape::Text(&CREDENTIAL),
    "A credential that systemd hands over (`LoadCredential=`), whose first line it is.",
);
const EXPIRES: Entry = Entry::new(
    "expires",
    Shape::Text(&DATE),
    "From when on nothing opens any more; no grant lasts beyond it.",
);
const DISABLED: Entry = Entry::new(
    "disabled",
    Shape::Switch,
    "Whether nothing opens until somebody changes that; what is open ends.",
)
.usually("false");

/// A user, in `global.users` or in a file of `global.users_folder`.
pub static USER: Table = Table::new(
    "user",
    "A user",
    "Somebody with keys of their own: a section of `global.users`, or a file `NAME.yaml` in `global.users_folder`. A user's step 1 goes with no other's step 2.",
    &[
        Entry::new(
            "access_key_http",
            USER_KEYS,
            "This user's keys of step 1, at most 8. Needed here or for each app.",
        ),
        Entry::new("access_key_https", USER_KEYS, "This user's keys of step 2, likewise."),
        Entry::new(
            "apps",
            Shape::Either(&[
                APPS,
                Shape::Named(&APP_NAME, &Shape::Either(&[Shape::Section(&USER_APP), Shape::Nothing])),
            ]),
            "What the user may open: a list of apps, or a section for each. Without it every app.",
        ),
        Entry::new("duration", TIME, "How long grants last; the app's unless something else is said."),
        Entry::new("max_duration", TIME, "The longest time that this user may ask for; at most the app's."),
        EXPIRES,
        DISABLED,
        Entry::new(
            "totp",
            Shape::Section(&TOTP),
            "One-time codes that this user has to give, at the step that `2fa_step` says.",
        ),
    ],
);

/// What a user has with one app.
pub static USER_APP: Table = Table::new(
    "user_app",
    "An app of a user",
    "What is said here holds for this app instead of what is said for all.",
    &[
        Entry::new("access_key_http", USER_KEYS, "Keys of step 1 for this app, at most 8."),
        Entry::new("access_key_https", USER_KEYS, "Keys of step 2 for this app, at most 8."),
        Entry::new("duration", TIME, "How long grants last."),
        Entry::new("max_duration", TIME, "The longest time that may be asked for; at most the app's."),
        EXPIRES,
        DISABLED,
    ],
);

/// A key that is more than its text.
pub static ACCESS_KEY: Table = Table {
    name: "access_key",
    title: "A key",
    about: "Instead of a text, a key may be a section, which has exactly one of `key`, `file` and `credential`.",
    entries: &[
        Entry::new(
            "key",
            Shape::Either(&[Shape::Text(&PLAIN_KEY), Shape::Text(&STORED_KEY)]),
            "The key itself, or what `knock-agent hash-key` prints.",
        ),
        FROM_FILE,
        FROM_CREDENTIAL,
        EXPIRES,
        DISABLED,
    ],
    one_of: &["key", "file", "credential"],
    with: &[],
};

/// The codes of a user.
pub static TOTP: Table = Table {
    name: "totp",
    title: "totp",
    about: "One-time codes (RFC 6238). There is exactly one of `secret`, `file` and `credential`.",
    entries: &[
        Entry::new("secret", Shape::Text(&BASE32), "The secret of the codes."),
        FROM_FILE,
        FROM_CREDENTIAL,
        Entry::new("interval", Shape::Number(15, 300), "For how many seconds a code is the right one.")
            .usually("30"),
        Entry::new("digits", Shape::Number(6, 8), "How many digits a code has.").usually("6"),
        Entry::new(
            "drift",
            Shape::Number(0, 10),
            "How many codes before and after the present one are taken, for clocks that differ.",
        )
        .usually("1"),
    ],
    one_of: &["secret", "file", "credential"],
    with: &[],
};

/// A secret that is elsewhere.
pub static SECRET: Table = Table {
    name: "secret",
    title: "A secret",
    about: "Instead of a text, a secret may be a section, which has exactly one of these.",
    entries: &[Entry::new("value", Shape::Text(&ANY), "The secret itself."), FROM_FILE, FROM_CREDENTIAL],
    one_of: &["value", "file", "credential"],
    with: &[],
};

/// A client of `time_sequence`: a file of its own.
pub static SEQUENCE_CLIENT: Table = Table {
    name: "sequence_client",
    title: "A client of time_sequence",
    about: "A file `NAME.yaml` in the folder that `time_sequence.clients` names. There is exactly one of `app` and `apps`.",
    entries: &[
        Entry::new("app", APPS, "What the knocks open."),
        Entry::new("apps", APPS, "The same."),
        Entry::new(
            "secret",
            Shape::Either(&[Shape::Text(&BASE32), Shape::Section(&SECRET)]),
            "What the knocks are made from, at least 16 bytes.",
        )
        .needed(),
        Entry::new(
            "pin",
            Shape::Either(&[Shape::Text(&PIN), Shape::Section(&SECRET)]),
            "What else they are made from, where the client has to type something; in quotes if it is digits.",
        ),
        Entry::new(
            "knocks",
            Shape::Number(1, 8),
            "How many there are. 4 unless something else is said; with `knock-knock` 3.",
        ),
        Entry::new(
            "duration",
            TIME,
            "How long it is open; at most the app's `max_duration`, and the app's `duration` unless something else is said.",
        ),
        EXPIRES,
        DISABLED,
    ],
    one_of: &["app", "apps"],
    with: &[],
};
