//! The section `global` and what is in it.

use super::app::SEQUENCE;
use super::notify::NOTIFY;
use super::shape::{Entry, Shape, TIME, Table};
use super::texts::{
    ANY, FILE, HTTP_PATH, INTERFACE, MARK, METRICS_ADDRESS, MONITOR, NETWORK, PROM_FILE, USER_NAME,
    WHOLE_PATH, WIDE_RANGE,
};
use super::user::{SECRET, USER};

/// One interface, or several.
pub(super) const INTERFACES: Shape = Shape::List(&Shape::Text(&INTERFACE), 1, 1_000);
/// Networks; there may be none.
pub(super) const NETWORKS: Shape = Shape::List(&Shape::Text(&NETWORK), 0, 10_000);
/// At which step a code is asked for.
pub(super) const CODE_STEP: Shape = Shape::Words(&["http", "https", "both"]);
const HOUR: u64 = 3_600;
/// The longest time that knocks are remembered.
pub(super) const WINDOW: Shape = Shape::Time(1, HOUR);

/// The section `global`.
pub static GLOBAL: Table = Table::new(
    "global",
    "THE SECTION GLOBAL",
    "What all apps share.",
    &[
        Entry::new("http_post_path", Shape::Text(&HTTP_PATH), "The secret path of step 1, of `A-Z a-z 0-9 . _ ~ -` in parts separated by `/`. Whoever watches the network sees it. Needed unless `steps` is `off`."),
        Entry::new("https_post_path", Shape::Text(&HTTP_PATH), "The secret path of step 2, another one than that of step 1. Needed unless `steps` is `off`."),
        Entry::new("http_post_path_secret", Shape::Either(&[Shape::Text(&ANY), Shape::Section(&PATH_SECRET)]), "With this secret of 16 to 128 characters the path of step 1 changes with time; `http_post_path`, at most 67 characters, is how all of them begin."),
        Entry::new("http_post_path_every", Shape::Time(10, 86_400), "How long each path is the right one; the one before and the one after are taken too. `5m` where there is a secret."),
        Entry::new("interface_ext", INTERFACES, "The interface towards the internet, or a list of them. Only there are ports guarded.").needed(),
        Entry::new("interface_int", INTERFACES, "The interface towards LAN hosts. Needed where an app is not local."),
        Entry::new("step1_2_rate_limit_per_minute", Shape::Number(1, 100_000), "How many requests of one client address each step judges in a minute.").usually("10"),
        Entry::new("lockout", Shape::Either(&[Shape::Words(&["off"]), Shape::Section(&LOCKOUT)]), "When an address (IPv6: a /64) that fails is locked out. `off`: never.").usually("{after: 5, first: 1m, longest: 1d}"),
        Entry::new("step1_reply", Shape::Words(&["silent", "http"]), "`silent`: step 1 answers nobody, ever. `http`: it answers those who know the path, which is needed behind a proxy.").usually("silent"),
        Entry::new("proxy_header", Shape::Words(&["x-real-ip", "x-forwarded-for", "forwarded", "proxy-protocol"]), "Behind a proxy (`--waf-http-port`, `--waf-https-port`), where it says who the client is. `x-real-ip` unless something else is said."),
        Entry::new("proxy_step2", Shape::Words(&["https", "http"]), "Behind a proxy, what it speaks to step 2: `https`, the usual, or `http` where TLS ends at the proxy."),
        Entry::new("step1_max_bytes", Shape::Number(100, 1_400), "The longest packet, and the longest request in all, that step 1 takes, in bytes; paths and keys must fit.").usually("500"),
        Entry::new("step1_segments", Shape::Number(1, 16), "How many packets with data one connection to step 1 may have; some clients send head and body apart.").usually("3"),
        Entry::new("step1_proof", Shape::Words(&["accept", "require", "require_address"]), "`accept`: step 1 takes keys, and proofs that do not tell the key. `require`: proofs only. `require_address`: only proofs that name the address they come from.").usually("accept"),
        Entry::new("mark", Shape::Mixed(0, 4_294_967_295, &MARK), "The mark on packets that are let through, for hosts whose own rules drop by default.").usually("24107"),
        Entry::new("ipv6_prefix", Shape::Number(32, 128), "How many leading bits of an IPv6 address a grant covers: 128 is the one address, 64 a whole network.").usually("128"),
        Entry::new("allow", NETWORKS, "Networks that reach every app without a knock.").usually("[]"),
        Entry::new("2fa_config_folder", Shape::Text(&FILE), "A folder of files `<access_key>.json`, each `{\"secret\": \"<base32>\", \"interval\": 30}`: a key that has one needs a one-time code."),
        Entry::new("2fa_step", CODE_STEP, "At which step a one-time code is asked for.").usually("http"),
        Entry::new("token_window", TIME, "How long step 2 stays open for a person who has to type a code.").usually("60s"),
        Entry::new("users", Shape::Named(&USER_NAME, &Shape::Section(&USER)), "People with keys of their own, by name. Apps then need no keys themselves."),
        Entry::new("users_folder", Shape::Text(&WHOLE_PATH), "A folder with a file `NAME.yaml` for each user, watched for changes."),
        Entry::new("healthcheck_app_name", Shape::Text(&MONITOR), "A name for monitors, which no app may have: a request for it is answered as a right one, whatever key of 10 to 50 characters it shows, opens nothing and is not logged."),
        Entry::new("metrics", Shape::Either(&[Shape::Section(&METRICS), Shape::Section(&METRICS_FILE)]), "Where figures for Prometheus are shown: at an address, in a file, or both. Nowhere unless this says so."),
        Entry::new("notify", Shape::Section(&NOTIFY), "Programs, web servers and people that are told what happens."),
        Entry::new("state_file", Shape::Text(&WHOLE_PATH), "A file in which grants outlast a reboot, such as `/var/lib/knock-agent/grants`. Without it a reboot ends them."),
        Entry::new("adopt_established", Shape::Switch, "Whether connections live on that are open when their port becomes guarded, until they end.").usually("true"),
        Entry::new("default_input", Shape::Words(&["accept", "drop"]), "`drop`: the whole host is closed to new connections from `interface_ext`, but for what is let in and what a network needs (answers, ICMP, neighbour discovery, DHCP).").usually("accept"),
        Entry::new("steps", Shape::Words(&["on", "off"]), "`off`: knock sequences only; then there are no paths and no certificate, and nothing listens.").usually("on"),
        Entry::new("sequence", Shape::List(&Shape::Section(&SEQUENCE), 1, 20_000), "Knock sequences that open the ports of the steps, or other sequences."),
        Entry::new("time_sequence", Shape::Section(&TIME_SEQUENCE), "Knocks that change with time, each client's by a secret of its own, and that open once."),
        Entry::new("log_knocks", Shape::List(&Shape::Words(&["accepted", "ignored", "invalid", "transient"]), 1, 4), "Which knocks the kernel writes into its log, at most ten lines a minute of each; `transient` are packets from networks that need not knock."),
        Entry::new("log_knocks_group", Shape::Number(0, 65_535), "Tell this group of netfilter's log instead of the kernel's log. 24107 is the agent's own."),
    ],
);

/// `global.lockout`.
pub static LOCKOUT: Table = Table::new(
    "lockout",
    "lockout",
    "When an address that fails too often is locked out, and for how long.",
    &[
        Entry::new("after", Shape::Number(1, 1_000), "After how many failures.").usually("5"),
        Entry::new("first", TIME, "How long the first time; each time is twice as long as the one before.")
            .usually("1m"),
        Entry::new("longest", TIME, "How long at most.").usually("1d"),
    ],
);

/// `global.metrics`, where they can be fetched.
pub static METRICS: Table = Table {
    name: "metrics",
    title: "metrics",
    about: "Where figures for Prometheus are shown: `listen`, `textfile`, or both.",
    entries: &[
        Entry::new("listen", Shape::Text(&METRICS_ADDRESS), LISTEN).needed(),
        Entry::new("open_to_network", Shape::Switch, OPEN).usually("false"),
        Entry::new("textfile", Shape::Text(&PROM_FILE), TEXTFILE),
        Entry::new("textfile_every", Shape::Time(1, HOUR), EVERY),
    ],
    one_of: &[],
    with: &[("textfile_every", "textfile")],
};

/// The same, in a file.
pub static METRICS_FILE: Table = Table {
    name: "metrics_file",
    title: "metrics, in a file",
    about: "The same, with a file and perhaps nothing to fetch.",
    entries: &[
        Entry::new("textfile", Shape::Text(&PROM_FILE), TEXTFILE).needed(),
        Entry::new("textfile_every", Shape::Time(1, HOUR), EVERY),
        Entry::new("listen", Shape::Text(&METRICS_ADDRESS), LISTEN),
        Entry::new("open_to_network", Shape::Switch, OPEN).usually("false"),
    ],
    one_of: &[],
    with: &[],
};

const LISTEN: &str =
    "An address of this host with a port, such as `127.0.0.1:9469`, or the whole path of a socket.";
const OPEN: &str =
    "Whether the address may be one that other hosts reach: nothing is asked of who fetches the figures.";
const TEXTFILE: &str = "A file for the textfile collector of a node exporter; its name ends in `.prom`, and its folder is writable for the daemon.";
const EVERY: &str = "How often the file is written. `15s` unless something else is said.";

/// `global.http_post_path_secret`, and other secrets in the same form.
pub static PATH_SECRET: Table = Table {
    name: "path_secret",
    title: "http_post_path_secret",
    about: "The secret by which the path changes, or where it is.",
    entries: SECRET.entries,
    one_of: SECRET.one_of,
    with: &[],
};

/// `global.time_sequence`.
pub static TIME_SEQUENCE: Table = Table::new(
    "time_sequence",
    "time_sequence",
    "Knocks that change with time. With the kind `knock-knock`, `ports`, `protocol`, `lengths` and `every` are always the same and not written.",
    &[
        Entry::new("clients", Shape::Text(&WHOLE_PATH), "A folder with a file `NAME.yaml` for each client, as `knock-agent enroll --sequence` makes it; watched for changes.").usually("/etc/knock-agent/sequence-clients"),
        Entry::new("kind", Shape::Words(&["secret", "knock-knock"]), "The rule that the knocks follow; `knock-knock` is for clients of the program of that name.").usually("secret"),
        Entry::new("ports", Shape::Mixed(1, 65_535, &WIDE_RANGE), "One range of at least 1000 ports, all of which are dropped always. `20000-31999` unless something else is said."),
        Entry::new("protocol", Shape::Words(&["udp", "tcp"]), "Whether the knocks are UDP or TCP. `udp` unless something else is said."),
        Entry::new("lengths", Shape::Switch, "Whether a length of 0 to 15 bytes is part of every datagram. `false` unless something else is said."),
        Entry::new("every", Shape::Time(10, HOUR), "How often the knocks change. `30s` unless something else is said."),
        Entry::new("drift", Shape::Number(0, 10), "How many time steps before and after the present one are taken, for clocks that differ.").usually("1"),
        Entry::new("window", WINDOW, "The longest time from the first knock to the last.").usually("10s"),
        Entry::new("knock_window", WINDOW, "The longest time from one knock to the next; as `window` unless something else is said."),
    ],
);
