use std::num::NonZeroU16;

use super::*;
use crate::config::{Alone, Settings, StepPorts, parse};
use crate::ruleset::diff::diff;
use crate::ruleset::layout::Options;
use crate::ruleset::model::Content;
use crate::ruleset::plan::plan;

fn settings(more: &str) -> Settings {
    let keys = "  duration: 10\n  access_key_http: [first-key-N]\n  access_key_https: [second-key-N]\n";
    let text = format!(
        "global:\n  interface_ext: eth0\n  interface_int: eth1\n  http_post_path: /quiet-door\n  https_post_path: /second-door\n{more}ssh:\n  port: [22, 6000-6010]\n{}lan:\n  port: 2222\n  destination: 10.0.0.5:22\n{}vpn:\n  port: 1194\n  protocol: udp\n{}",
        keys.replace('N', "1"),
        keys.replace('N', "2"),
        keys.replace('N', "3"),
    );
    parse("test", &text, Some(StepPorts { http: 8080, https: 8443 }), &Alone).unwrap().settings
}

fn options() -> Options {
    let port = |n| NonZeroU16::new(n).unwrap();
    Options { http_port: port(8080), https_port: port(8443), inner_header: true, log: true }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn seen() -> Seen {
    let socket = |local, remote| Socket { local: at(local), remote: at(remote), listens: false };
    let listener = |local| Socket { listens: true, ..socket(local, "0.0.0.0:0") };
    let tracked = |protocol, client, server, there| Tracked {
        protocol,
        client: at(client),
        server: at(server),
        there: at(there),
        zone: 0,
    };
    Seen {
        sockets: vec![
            listener("0.0.0.0:22"),
            listener("0.0.0.0:80"),
            socket("203.0.113.1:22", "198.51.100.1:4000"),
            socket("203.0.113.1:22", "10.0.0.9:4001"),
            socket("127.0.0.1:22", "127.0.0.1:4002"),
            socket("203.0.113.1:80", "198.51.100.1:4003"),
            socket("203.0.113.1:50000", "198.51.100.1:443"),
            // Begun here, from a port that happens to be guarded.
            socket("203.0.113.1:6005", "198.51.100.1:25"),
        ],
        tracked: Some(vec![
            tracked(Protocol::Tcp, "203.0.113.1:6005", "198.51.100.1:25", "198.51.100.1:25"),
            tracked(Protocol::Tcp, "198.51.100.1:4004", "203.0.113.1:2222", "10.0.0.5:22"),
            tracked(Protocol::Tcp, "198.51.100.1:4005", "10.0.0.5:22", "10.0.0.5:22"),
            tracked(Protocol::Tcp, "198.51.100.1:4006", "10.0.0.5:80", "10.0.0.5:80"),
            tracked(Protocol::Udp, "198.51.100.1:4007", "203.0.113.1:1194", "203.0.113.1:1194"),
            tracked(Protocol::Udp, "203.0.113.1:4008", "198.51.100.1:53", "198.51.100.1:53"),
        ]),
        own: ["203.0.113.1".parse().unwrap(), "10.0.0.1".parse().unwrap()].into(),
    }
}

fn found(more: &str, live: Option<&Live>) -> Vec<(u16, String)> {
    let settings = settings(more);
    let layout = Layout::new(&settings, options());
    let way = |addr: IpAddr| {
        let name = if addr.to_string().starts_with("10.") { "eth1" } else { "eth0" };
        Some(name.parse().unwrap())
    };
    let flows = endangered(&layout, live, &seen(), way);
    let mut out: Vec<(u16, String)> =
        flows.iter().map(|flow| (flow.client.port(), flow.closed_by.to_string())).collect();
    out.sort();
    out
}

fn live(more: &str) -> Live {
    let ruleset = plan(&settings(more), options());
    assert!(!diff(None, &ruleset).is_empty());
    let mut live = Live { ruleset, ..Live::default() };
    for set in &live.ruleset.sets {
        if let Content::Planned(elements) = &set.content {
            live.elements.insert(set.name.clone(), elements.clone());
        }
    }
    live
}

#[test]
fn only_flows_from_outside_to_ports_that_become_guarded_are_in_danger() {
    let expected = [(4000, "ssh"), (4004, "lan"), (4005, "lan"), (4007, "vpn")];
    assert_eq!(found("", None), expected.map(|(port, app)| (port, app.to_owned())));
}

#[test]
fn a_closed_host_endangers_what_comes_in_and_not_what_goes_out() {
    let ports: Vec<u16> = found("  default_input: drop\n", None).iter().map(|(port, _)| *port).collect();
    assert_eq!(ports, [4000, 4003, 4004, 4005, 4007]);
    let ports = found("  default_input: drop\n", Some(&live("")));
    assert_eq!(ports, [(4003, "default_input".to_owned())]);
}

#[test]
fn flows_to_ports_that_will_be_knocked_at_are_in_danger_and_their_port_is_not_told() {
    let more = "  sequence: {knocks: [80, 81], opens: step-1}\n";
    let mut expected =
        [(4000, "ssh"), (4003, "a knock sequence"), (4004, "lan"), (4005, "lan"), (4007, "vpn")];
    expected.sort_unstable();
    assert_eq!(found(more, None), expected.map(|(port, app)| (port, app.to_owned())));
    assert_eq!(found(more, Some(&live(more))), []);
    let (client, server) = (at("198.51.100.1:4003"), at("203.0.113.1:80"));
    let flow = Flow { protocol: Protocol::Tcp, client, server, there: server, closed_by: ClosedBy::Knocks };
    assert_eq!(flow.to_string(), "198.51.100.1:4003 -> a port of a knock sequence");
}

#[test]
fn a_port_is_guarded_here_and_on_its_lan_host() {
    let live = live("");
    let guarded = |protocol, server, there| is_guarded(&live, protocol, at(server), at(there));
    assert!(guarded(Protocol::Tcp, "203.0.113.1:6005", "203.0.113.1:6005"));
    assert!(guarded(Protocol::Tcp, "203.0.113.7:9", "10.0.0.5:22"));
    assert!(!guarded(Protocol::Udp, "203.0.113.1:22", "203.0.113.1:22"));
    assert!(!guarded(Protocol::Tcp, "203.0.113.1:80", "10.0.0.6:22"));
    assert!(!is_guarded(&Live::default(), Protocol::Tcp, at("203.0.113.1:22"), at("203.0.113.1:22")));
    let leads = |server, there| leads_to_lan(&live, Protocol::Tcp, at(server), at(there));
    assert!(leads("203.0.113.7:2222", "10.0.0.5:22"));
    assert!(!leads("203.0.113.7:9", "10.0.0.5:22") && !leads("203.0.113.1:6005", "203.0.113.1:6005"));
}

#[test]
fn what_is_guarded_already_is_in_no_danger() {
    assert_eq!(found("", Some(&live(""))), []);
    let mut part = live("");
    part.elements.insert("services".into(), Elements::new());
    let expected = [(4000, "ssh"), (4004, "lan"), (4007, "vpn")];
    assert_eq!(found("", Some(&part)), expected.map(|(port, app)| (port, app.to_owned())));
}

#[test]
fn what_comes_by_an_interface_that_becomes_outside_is_in_danger_whatever_was_guarded() {
    let mut elsewhere = live("");
    let of_eth7 = Elements::from([(interface_key(&"eth7".parse().unwrap()), Element::default())]);
    elsewhere.elements.insert("ext".into(), of_eth7);
    let expected = [(4000, "ssh"), (4004, "lan"), (4005, "lan"), (4007, "vpn")];
    assert_eq!(found("", Some(&elsewhere)), expected.map(|(port, app)| (port, app.to_owned())));
    elsewhere.elements.remove("ext");
    assert_eq!(found("", Some(&elsewhere)), [], "where that cannot be told");
}

#[test]
fn flows_live_on_by_their_exact_ends_before_and_after_translation() {
    let flow = Flow {
        protocol: Protocol::Tcp,
        client: at("198.51.100.1:4004"),
        server: at("203.0.113.1:2222"),
        there: at("10.0.0.5:22"),
        closed_by: ClosedBy::App("lan"),
    };
    let changes = adoption(&[flow]);
    let [Change::AddElements { set, elements }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!((set.name.as_str(), elements.len()), ("adopted_4", 2));
    let ends: Vec<_> = elements.keys().filter_map(|key| ends_of(key)).collect();
    let expected = [at("10.0.0.5:22"), at("203.0.113.1:2222")].map(|server| (6, flow.client, server));
    assert_eq!(ends, expected);
    let (client, server) = (at("[2001:db8::2]:1"), at("[2001:db8::1]:22"));
    let six = Flow { client, server, there: server, ..flow };
    let changes = adoption(&[six]);
    let [Change::AddElements { set, elements }] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!((set.name.as_str(), elements.len()), ("adopted_6", 1));
    let key = elements.keys().next().unwrap();
    assert_eq!((key.len(), ends_of(key)), (44, Some((6, client, server))));
    assert_eq!(ends_of(&[6, 0, 0]), None);
}

#[test]
fn the_finding_names_some_and_counts_the_rest() {
    assert!(finding(&[], true).is_none());
    let flow = |port| Flow {
        protocol: Protocol::Tcp,
        client: SocketAddr::new([198, 51, 100, 1].into(), port),
        server: at("203.0.113.1:22"),
        there: at("203.0.113.1:22"),
        closed_by: ClosedBy::App("ssh"),
    };
    let flows: Vec<_> = (1..=7).map(flow).collect();
    let message = finding(&flows, false).unwrap().message;
    assert!(message.contains("7 connections") && message.contains("198.51.100.1:1 -> tcp port 22 (ssh)"));
    assert!(message.ends_with("and 2 more") && message.contains("are cut"), "{message}");
}
