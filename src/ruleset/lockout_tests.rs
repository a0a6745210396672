use std::num::NonZeroU16;

use super::*;
use crate::config::{Alone, Settings, StepPorts, parse};
use crate::ruleset::diff::diff;
use crate::ruleset::layout::Options;
use crate::ruleset::model::Content;
use crate::ruleset::plan::{interface_key, plan};

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
        interfaces: vec![
            interface("eth0", &["203.0.113.1/24", "fe80::1/64"]),
            interface("eth1", &["10.0.0.1/24"]),
        ],
    }
}

fn interface(name: &str, addresses: &[&str]) -> Interface {
    let address = |text: &&str| {
        let (addr, length) = text.split_once('/').unwrap();
        (addr.parse().unwrap(), length.parse().unwrap())
    };
    Interface { name: name.into(), addresses: addresses.iter().map(address).collect(), is_port: false }
}

fn found(more: &str, live: Option<&Live>) -> Vec<(u16, String)> {
    let settings = settings(more);
    let layout = Layout::new(&settings, options());
    let way = |addr: IpAddr| {
        let name = if addr.to_string().starts_with("10.") { "eth1" } else { "eth0" };
        Some(name.parse().unwrap())
    };
    let Endangered { flows, doubted } = endangered(&layout, live, &seen(), way);
    assert_eq!(doubted, []);
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

/// Ports of the clients of flows by eth1, which becomes an outside interface: those that live on, and those that are doubted.
fn by_eth1(live: &Live, change: impl FnOnce(&mut Seen)) -> (Vec<u16>, Vec<u16>) {
    let mut settings = settings("");
    settings.global.interface_ext.push("eth1".parse().unwrap());
    let layout = Layout::new(&settings, options());
    let mut seen = seen();
    change(&mut seen);
    let way = |addr: IpAddr| Some(if addr.to_string().starts_with("198.") { "eth0" } else { "eth1" });
    let way = |addr: IpAddr| way(addr).map(|name| name.parse().unwrap());
    let Endangered { flows, doubted } = endangered(&layout, Some(live), &seen, way);
    let ports = |flows: Vec<Flow<'_>>| flows.iter().map(|flow| flow.client.port()).collect();
    (ports(flows), ports(doubted))
}

fn add(seen: &mut Seen, local: &str, remote: &str) {
    seen.sockets.push(Socket { local: at(local), remote: at(remote), listens: false });
}

#[test]
fn what_came_by_an_interface_that_becomes_outside_lives_on_where_it_met_no_guard() {
    let live = live("");
    assert_eq!(by_eth1(&live, |_| ()), (vec![4001], vec![]));
    // From a network behind it, to its own address.
    assert_eq!(by_eth1(&live, |seen| add(seen, "10.0.0.1:22", "10.9.9.9:4100")), (vec![4001, 4100], vec![]));
    // As if the way to a client led elsewhere now.
    let moved = |seen: &mut Seen| add(seen, "203.0.113.1:22", "192.0.2.7:4100");
    assert_eq!(by_eth1(&live, moved), (vec![4001], vec![4100]));
    // Who is let in needs nothing else.
    let mut granted = live.clone();
    let key = address_key("192.0.2.7".parse().unwrap());
    granted.elements.insert("app_ssh_4".into(), Elements::from([(key, Element::default())]));
    assert_eq!(by_eth1(&granted, moved), (vec![4001], vec![]));
    // A network that both have.
    let both = |seen: &mut Seen| seen.interfaces[0].addresses.push((at("10.0.0.2:0").ip(), 16));
    assert_eq!(by_eth1(&live, both), (vec![], vec![4001]));
}

#[test]
fn nothing_lives_on_by_an_interface_that_may_take_the_place_of_one_that_was_guarded() {
    let live = live("");
    let doubted = (vec![], vec![4001]);
    // A port of it, without addresses of its own, gone.
    assert_eq!(by_eth1(&live, |seen| seen.interfaces[0].is_port = true), doubted);
    assert_eq!(
        by_eth1(&live, |seen| seen.interfaces[0].addresses.retain(|(addr, _)| addr.is_ipv6())),
        doubted
    );
    assert_eq!(by_eth1(&live, |seen| drop(seen.interfaces.remove(0))), doubted);
    // Not in the configuration any more.
    let mut elsewhere = live.clone();
    let of_eth7 = Elements::from([(interface_key(&"eth7".parse().unwrap()), Element::default())]);
    elsewhere.elements.get_mut("ext").unwrap().extend(of_eth7);
    assert_eq!(by_eth1(&elsewhere, |_| ()), doubted);
    elsewhere.elements.remove("ext");
    assert_eq!(by_eth1(&elsewhere, |_| ()), (vec![], vec![]), "where that cannot be told");
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
    assert_eq!(findings(&Endangered::default(), true).len(), 0);
    let flow = |port| Flow {
        protocol: Protocol::Tcp,
        client: SocketAddr::new([198, 51, 100, 1].into(), port),
        server: at("203.0.113.1:22"),
        there: at("203.0.113.1:22"),
        closed_by: ClosedBy::App("ssh"),
    };
    let flows: Vec<_> = (1..=7).map(flow).collect();
    let all = Endangered { flows: flows.clone(), doubted: Vec::new() };
    let message = findings(&all, false).remove(0).message;
    assert!(message.contains("7 connections") && message.contains("198.51.100.1:1 -> tcp port 22 (ssh)"));
    assert!(message.ends_with("and 2 more") && message.contains("are cut"), "{message}");
    let doubted = Endangered { flows: Vec::new(), doubted: flows };
    let told = findings(&doubted, true);
    assert!(told.len() == 1 && told[0].message.contains("with a grant that is over"), "{told:?}");
}
