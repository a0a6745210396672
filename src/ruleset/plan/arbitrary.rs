//! Settings of every shape, for property tests.

use std::num::NonZeroU16;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::config::{Behind, Settings, StepPorts, parse_behind};
use crate::ruleset::layout::Options;

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

/// Settings that the configuration accepts, by way of its text.
pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    let global = (
        select(&["silent", "http"][..]),
        1_u8..=4,
        select(&["0", "24107", "\"0x100/0xff00\""][..]),
        select(&[128_u8, 64, 61][..]),
        select(&["eth0", "[eth0, ppp0]"][..]),
        select(&["accept", "drop"][..]),
        select(&["[]", "[10.0.0.0/8]", "[192.0.2.1, \"2001:db8::/32\"]"][..]),
        select(&["", "127.0.0.1,::1", "10.0.0.9,10.1.0.0/16,fd00::/64"][..]),
    );
    let app = (
        vec((1_u16..=300, 0_u16..=20), 1..4),
        select(&["tcp", "udp", "both"][..]),
        select(&["local", "10.0.0.5", "10.0.0.5:22", "\"fd00::5\"", "\"[fd00::5]:22\"", "10.0.0.6"][..]),
        any::<bool>(),
        select(&["", "  interface_ext: wan2\n", "  once: true\n"][..]),
        select(SEQUENCES),
    );
    let sequences = select(GLOBAL_SEQUENCES);
    (global, vec(app, 0..5), select(&["cut", "keep"][..]), sequences).prop_map(|(global, apps, established, gates)| {
        let (reply, segments, mark, prefix, ext, input, allow, proxies) = global;
        let reply = if proxies.is_empty() { reply } else { "http" };
        let without = apps.is_empty() && proxies.is_empty() && gates.is_empty();
        let gates = if without { "  steps: off\n" } else { gates };
        let mut text = format!(
            "global:\n  interface_ext: {ext}\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n  step1_reply: {reply}\n  step1_segments: {segments}\n  mark: {mark}\n  ipv6_prefix: {prefix}\n  default_input: {input}\n  allow: {allow}\n{gates}"
        );
        for (index, (ports, protocol, destination, masquerade, more, sequence)) in apps.into_iter().enumerate() {
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
        parse_behind("generated", &text, Some(ports), behind.as_ref(), &crate::config::Alone).unwrap_or_else(|problems| panic!("{problems}\n{text}")).settings
    })
}

pub(crate) fn options() -> impl Strategy<Value = Options> {
    any::<(bool, bool)>().prop_map(|(inner_header, log)| Options {
        http_port: NonZeroU16::new(60_001).unwrap(),
        https_port: NonZeroU16::new(60_002).unwrap(),
        inner_header,
        log,
    })
}
