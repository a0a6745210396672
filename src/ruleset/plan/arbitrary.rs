//! Settings of every shape, for property tests and fuzzing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "for tests and fuzzers only: what cannot be made panics"
)]

use std::num::NonZeroU16;
use std::path::Path;

use crate::config::{Behind, Outside, SecretFrom, Settings, StepPorts, UserFile, parse_behind};
use crate::laws::choices::Choices;
use crate::ruleset::layout::Options;
use crate::units::Secret;

/// Sequences of the app number N.
const SEQUENCES: &[&str] = &[
    "",
    "",
    "  sequence: {knocks: [200N, 3000]}\n",
    "  sequence: {knocks: [udp/200N, 201N, 200N, udp/200N], window: 30, knock_window: 7, strict: true, closing: [3001, 202N]}\n",
    "  sequence: [{knocks: [203N, 3000, 3002]}, {knocks: [203N, 3000, 3002, 3002], duration: 2m}, {knocks: [udp/4000/2N, udp/4000/1N], name: inner_N, window: 5}, {knocks: [204N, 3002], opens: inner_N}]\n",
    "  sequence: [{knocks: [205N, 3000, 3003]}, {knocks: [3000, 3003, 205N]}, {knocks: [206N, 205N, 3000, 3003], strict: true}]\n",
];
const GLOBAL_SEQUENCES: &[&str] = &[
    "",
    "",
    "  sequence: {knocks: [5000, 5001, 5000], opens: step-1}\n",
    "  log_knocks: [accepted, ignored, invalid, transient]\n",
    "  log_knocks: [invalid, accepted]\n  log_knocks_group: 7\n",
    "  sequence: [{knocks: [5000, udp/5001], opens: step-2}, {knocks: [5002, 5001], opens: step-1, duration: 90}, {knocks: [5003, 5001], opens: step-1, duration: 9}]\n",
];

const TIME_SEQUENCES: &[&str] = &[
    "",
    "",
    "  time_sequence: {}\n",
    "  time_sequence: {protocol: tcp, ports: 30000-31000, window: 20, knock_window: 5, drift: 2}\n",
    "  time_sequence: {lengths: true, every: 60}\n",
    "  time_sequence: {kind: knock-knock, window: 30}\n",
];

/// Clients of knocks that change with time: one of the first app, one of all, and one who is disabled.
struct Clients(usize);

impl Outside for Clients {
    fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
        Err("none".to_owned())
    }

    fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
        let all: Vec<String> = (0..self.0).map(|app| format!("app{app}")).collect();
        let file = |name: &str, letter: char, more: String| UserFile {
            name: name.to_owned(),
            file: format!("{name}.yaml"),
            text: format!("secret: {}\n{more}", letter.to_string().repeat(32)).into(),
        };
        Ok(vec![
            file("alice", 'A', "app: app0\npin: \"1234\"\n".to_owned()),
            file("bob", 'B', format!("apps: [{}]\nknocks: 7\nduration: 5\n", all.join(", "))),
            file("carol", 'C', "app: app0\ndisabled: true\n".to_owned()),
        ])
    }
}

const REPLIES: &[&str] = &["silent", "http"];
const MARKS: &[&str] = &["0", "24107", "\"0x100/0xff00\""];
const PREFIXES: &[u8] = &[128, 64, 61];
const INTERFACES: &[&str] = &["eth0", "[eth0, ppp0]"];
const INPUTS: &[&str] = &["accept", "drop"];
const ALLOWED: &[&str] = &["[]", "[10.0.0.0/8]", "[192.0.2.1, \"2001:db8::/32\"]"];
const PROXIES: &[&str] = &["", "127.0.0.1,::1", "10.0.0.9,10.1.0.0/16,fd00::/64"];
const ESTABLISHED: &[&str] = &["cut", "keep"];
const PROTOCOLS: &[&str] = &["tcp", "udp", "both"];
const DESTINATIONS: &[&str] =
    &["local", "10.0.0.5", "10.0.0.5:22", "\"fd00::5\"", "\"[fd00::5]:22\"", "10.0.0.6"];
const EXTRAS: &[&str] = &["", "  interface_ext: wan2\n", "  once: true\n"];

/// What settings are made of.
#[derive(Clone, Debug)]
struct Parts {
    reply: &'static str,
    segments: u8,
    mark: &'static str,
    prefix: u8,
    ext: &'static str,
    input: &'static str,
    allow: &'static str,
    proxies: &'static str,
    apps: Vec<AppParts>,
    established: &'static str,
    gates: &'static str,
    timed: &'static str,
}

#[derive(Clone, Debug)]
struct AppParts {
    /// The gap before each range of ports, and its width.
    ports: Vec<(u16, u16)>,
    protocol: &'static str,
    destination: &'static str,
    masquerade: bool,
    more: &'static str,
    sequence: &'static str,
}

impl Parts {
    fn chosen(choices: &mut Choices<'_>) -> Self {
        let app = |choices: &mut Choices<'_>| AppParts {
            ports: (0..=choices.below(3))
                .map(|_| (1 + choices.number() % 300, choices.number() % 21))
                .collect(),
            protocol: choices.pick(PROTOCOLS),
            destination: choices.pick(DESTINATIONS),
            masquerade: choices.flag(),
            more: choices.pick(EXTRAS),
            sequence: choices.pick(SEQUENCES),
        };
        Self {
            reply: choices.pick(REPLIES),
            segments: 1 + choices.byte() % 4,
            mark: choices.pick(MARKS),
            prefix: PREFIXES[choices.below(PREFIXES.len())],
            ext: choices.pick(INTERFACES),
            input: choices.pick(INPUTS),
            allow: choices.pick(ALLOWED),
            proxies: choices.pick(PROXIES),
            apps: (0..choices.below(5)).map(|_| app(choices)).collect(),
            established: choices.pick(ESTABLISHED),
            gates: choices.pick(GLOBAL_SEQUENCES),
            timed: choices.pick(TIME_SEQUENCES),
        }
    }

    /// Settings that the configuration accepts, by way of its text.
    fn settings(self) -> Settings {
        let Self { segments, mark, prefix, ext, input, allow, proxies, established, .. } = self;
        let reply = if proxies.is_empty() { self.reply } else { "http" };
        let without = self.apps.is_empty() && proxies.is_empty() && self.gates.is_empty();
        let gates = if without { "  steps: off\n" } else { self.gates };
        let clients = Clients(self.apps.len());
        let timed = if self.apps.is_empty() { "" } else { self.timed };
        let mut text = format!(
            "global:\n  interface_ext: {ext}\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n  step1_reply: {reply}\n  step1_segments: {segments}\n  mark: {mark}\n  ipv6_prefix: {prefix}\n  default_input: {input}\n  allow: {allow}\n{gates}{timed}"
        );
        for (index, app) in self.apps.into_iter().enumerate() {
            let AppParts { ports, protocol, destination, masquerade, more, sequence } = app;
            let sequence = sequence.replace('N', &index.to_string());
            let mut last = 0;
            let mut list = Vec::new();
            for (gap, width) in ports {
                let first = last + gap + 1;
                last = first + width;
                list.push(format!("\"{first}-{last}\""));
            }
            text += &format!(
                "app{index}:\n  port: [{}]\n  protocol: {protocol}\n  destination: {destination}\n  masquerade: {masquerade}\n  established: {established}\n  duration: 10\n  access_key_http: [first-key-{index}]\n  access_key_https: [second-key-{index}]\n{more}{sequence}",
                list.join(", ")
            );
        }
        let ports = StepPorts { http: 60_001, https: 60_002 };
        let own = |port| NonZeroU16::new(port).unwrap();
        let behind = (!proxies.is_empty()).then(|| Behind {
            http: own(60_003),
            https: own(60_004),
            trusted: proxies.parse().unwrap(),
        });
        let checked = parse_behind("generated", &text, Some(ports), behind.as_ref(), &clients);
        checked.unwrap_or_else(|problems| panic!("{problems}\n{text}")).settings
    }
}

/// Settings as these decisions have it.
pub(crate) fn chosen(choices: &mut Choices<'_>) -> Settings {
    Parts::chosen(choices).settings()
}

fn options_of(inner_header: bool, log: bool) -> Options {
    Options {
        http_port: NonZeroU16::new(60_001).unwrap(),
        https_port: NonZeroU16::new(60_002).unwrap(),
        inner_header,
        log,
    }
}

/// Options as these decisions have it.
pub(crate) fn chosen_options(choices: &mut Choices<'_>) -> Options {
    options_of(choices.flag(), choices.flag())
}

#[cfg(test)]
pub(crate) use strategies::{options, settings};

#[cfg(test)]
mod strategies {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Settings that the configuration accepts, by way of its text.
    pub(crate) fn settings() -> impl Strategy<Value = Settings> {
        let global = (
            select(REPLIES),
            1_u8..=4,
            select(MARKS),
            select(PREFIXES),
            select(INTERFACES),
            select(INPUTS),
            select(ALLOWED),
            select(PROXIES),
        );
        let app = (
            vec((1_u16..=300, 0_u16..=20), 1..4),
            select(PROTOCOLS),
            select(DESTINATIONS),
            any::<bool>(),
            select(EXTRAS),
            select(SEQUENCES),
        );
        let app = app.prop_map(|(ports, protocol, destination, masquerade, more, sequence)| AppParts {
            ports,
            protocol,
            destination,
            masquerade,
            more,
            sequence,
        });
        let rest = (select(ESTABLISHED), select(GLOBAL_SEQUENCES), select(TIME_SEQUENCES));
        (global, vec(app, 0..5), rest).prop_map(|(global, apps, (established, gates, timed))| {
            let (reply, segments, mark, prefix, ext, input, allow, proxies) = global;
            let parts = Parts {
                reply,
                segments,
                mark,
                prefix,
                ext,
                input,
                allow,
                proxies,
                apps,
                established,
                gates,
                timed,
            };
            parts.settings()
        })
    }

    pub(crate) fn options() -> impl Strategy<Value = Options> {
        any::<(bool, bool)>().prop_map(|(inner_header, log)| options_of(inner_header, log))
    }
}
