//! What texts look like.

use super::shape::{Shape, Text};

const fn text(what: &'static str, pattern: &'static str, example: &'static str, wrong: &'static str) -> Text {
    Text { what, pattern, least: 1, most: None, example, wrong }
}

pub(super) const ANY: Text = text("text", r"\S", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", " ");
pub(super) const HTTP_PATH: Text =
    Text { most: Some(100), ..text("a path", r"^(/[A-Za-z0-9._~-]+)+$", "/a1b2c3-your-own", "no slash") };
pub(super) const INTERFACE: Text = text("an interface", r"^[!#-)+-.0-9;-\[\]-~]{1,15}$", "eth0", "eth0:1");
pub(super) const FILE: Text = text("a file or folder", r"\S", "/etc/knock-agent/2fa", "   ");
pub(super) const WHOLE_PATH: Text =
    text("the whole path of a file or folder", r"^/.*[^/]", "/etc/knock-agent/some", "some/file");
pub(super) const HOME_PATH: Text =
    text("a whole path, or one that begins with ~/", r"^(/|~/)", "~/.config/knock-agent/key", "some/file");
pub(super) const CREDENTIAL: Text =
    text("the name of a credential of systemd", r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$", "step1-key", "a/b");
pub(super) const APP_NAME: Text =
    Text { most: Some(50), ..text("the name of an app", r"^\S([^\u0000-\u001f]*\S)?$", "ssh", " ssh") };
pub(super) const MONITOR: Text = Text { example: "healthcheck", ..APP_NAME };
pub(super) const USER_NAME: Text =
    text("the name of a user", r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,31}$", "alice", "al ice");
pub(super) const SEQUENCE_NAME: Text =
    text("the name of a sequence", r"^[a-z][a-z0-9_]{0,31}$", "first_gate", "First");
pub(super) const OPENS: Text = text(
    "service, step-1, step-2, or the name of another sequence",
    r"^(service|step-1|step-2|[a-z][a-z0-9_]{0,31})$",
    "service",
    "Step-1",
);
pub(super) const NETWORK: Text =
    text("an address or network", r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", "192.0.2.0/24", "everybody");
pub(super) const DATE: Text = text(
    "a date such as 2027-01-31, the end of that day in UTC, or 2027-01-31T18:00:00Z",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].+)?$",
    "2027-01-31",
    "soon",
);
pub(super) const DESTINATION: Text = text(
    "local, or a LAN host: 192.168.0.42, 192.168.0.42:22, fd00::42 or \"[fd00::42]:22\"",
    r"^(local|[0-9.]+(:[0-9]{1,5})?|[0-9A-Fa-f:.]+|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?)$",
    "192.168.0.42:22",
    "far-away",
);
pub(super) const PLAIN_KEY: Text = Text {
    least: 10,
    most: Some(50),
    ..text("a key of 10 to 50 characters", r"^[^$]", "a-key-of-some-length", "short")
};
pub(super) const STORED_KEY: Text = text(
    "what `knock-agent hash-key` prints",
    r"^\$(ka1|argon2id)\$",
    "$ka1$abcdefgh$abababababababababababababababababababababababababababababababab",
    "$",
);
pub(super) const BASE32: Text =
    text("text in base32", r"^\s*(\{.*|[A-Za-z2-7\s=-]+)$", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "0189");
pub(super) const PIN: Text =
    Text { most: Some(64), ..text("text of 1 to 64 characters", r"\S", "some words", "") };
pub(super) const PORT_TEXT: Text = text(
    "a port, or a range such as \"6000-6010\"",
    r"^ *[0-9]{1,5}( *- *[0-9]{1,5})? *$",
    "6000-6010",
    "ssh",
);
pub(super) const MARK: Text = text(
    "VALUE or VALUE/MASK, decimal or 0x...; 0 for none",
    r"^(0[xX][0-9A-Fa-f]{1,8}|[0-9]{1,10})(/(0[xX][0-9A-Fa-f]{1,8}|[0-9]{1,10}))?$",
    "0x100/0xff00",
    "red",
);
pub(super) const KNOCK: Text = text(
    "a knock: tcp/1234, udp/7000, udp/7000/20 for a datagram of 20 bytes; or several with commas",
    r"^ *[a-z]*[:/]?[0-9]+([:/][0-9a-z]+)*( *, *[a-z]*[:/]?[0-9]+([:/][0-9a-z]+)*)* *$",
    "tcp/1234",
    "a knock",
);
pub(super) const PROGRAM: Text =
    Text { least: 0, ..text("a word of a command", "", "/usr/local/sbin/on-knock", "") };
pub(super) const URL: Text =
    text("https://name/path", r"^https?://[^@:/?\s][^@\s]*", "https://hooks.example.net/knock", "ftp://x");
pub(super) const HOST: Text =
    text("a name or an address", r"^[A-Za-z0-9.:%_-]{1,253}$", "gate.example.com", "gate.example.com/x");
pub(super) const SERVER: Text =
    text("a name or an address, with or without :PORT", r"^[A-Za-z0-9.:_\[\]-]+$", "mail.example.net", "a b");
pub(super) const MAIL_ADDRESS: Text = text("a mail address", r"@", "admin@example.net", "admin");
pub(super) const PIN_OF_CERTIFICATE: Text = text(
    "a SHA-256 hash, of the certificate or of its public key: 64 hexadecimal digits, with or without colons, or sha256//...",
    r"^\s*(sha256//[A-Za-z0-9+/]{43}=*|([0-9A-Fa-f]:?){64})\s*$",
    "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "any",
);
pub(super) const PROOF_ADDRESS: Text =
    text("auto, none, or an address", r"^(auto|none|[0-9A-Fa-f:.]+)$", "none", "mine");
pub(super) const PAUSE: Text =
    text("a time such as 300ms or 2s, at most an hour", r"^ *[0-9]+ *(ms|s|m|h)?$", "50ms", "fast");

pub(super) const COMMAND_WORD: Text = text("text", r"\S", "/usr/local/sbin/on-knock", " ");
pub(super) const WIDE_RANGE: Text = Text { example: "20000-29999", ..PORT_TEXT };

/// One port, or a range.
pub(super) const PORT: Shape = Shape::Mixed(1, 65_535, &PORT_TEXT);

/// Where figures can be fetched.
pub(super) static METRICS_ADDRESS: Text = Text {
    what: "an address with a port, or the whole path of a socket",
    pattern: r"^(/.+|\[[0-9A-Fa-f:.%]+\]:[0-9]+|[0-9.]+:[0-9]+)$",
    least: 1,
    most: None,
    example: "127.0.0.1:9469",
    wrong: "localhost",
};

/// A file for a node exporter.
pub(super) static PROM_FILE: Text = Text {
    what: "the whole path of a file whose name ends in .prom",
    pattern: r"^/.*\.prom[/.]*$",
    least: 1,
    most: None,
    example: "/var/lib/prometheus/node-exporter/knock-agent.prom",
    wrong: "knock-agent.txt",
};
