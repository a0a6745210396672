//! Settings of every shape, for property tests.

use std::num::NonZeroU16;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::config::{Behind, Settings, StepPorts, parse_behind};
use crate::ruleset::layout::Options;

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
        select(&["", "  interface_ext: wan2\n"][..]),
    );
    (global, vec(app, 0..5), select(&["cut", "keep"][..])).prop_map(|(global, apps, established)| {
        let (reply, segments, mark, prefix, ext, input, allow, proxies) = global;
        let reply = if proxies.is_empty() { reply } else { "http" };
        let mut text = format!(
            "global:\n  interface_ext: {ext}\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n  step1_reply: {reply}\n  step1_segments: {segments}\n  mark: {mark}\n  ipv6_prefix: {prefix}\n  default_input: {input}\n  allow: {allow}\n"
        );
        for (index, (ports, protocol, destination, masquerade, more)) in apps.into_iter().enumerate() {
            let mut last = 0;
            let mut list = Vec::new();
            for (gap, width) in ports {
                let first = last + gap + 1;
                last = first + width;
                list.push(format!("\"{first}-{last}\""));
            }
            text += &format!(
                "app{index}:\n  port: [{}]\n  protocol: {protocol}\n  destination: {destination}\n  masquerade: {masquerade}\n  established: {established}\n  duration: 10\n  access_key_http: [first-key-{index}]\n  access_key_https: [second-key-{index}]\n{more}",
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
    any::<bool>().prop_map(|inner_header| Options {
        http_port: NonZeroU16::new(60_001).unwrap(),
        https_port: NonZeroU16::new(60_002).unwrap(),
        inner_header,
    })
}
