//! Routers with the tables of VyOS, through boots, commits and flushes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::Config;
use crate::firewall::{is_guarded, time_left};
use crate::hosts::{Vyos, assert_flow, assert_stream_cut, config, load, our_chains, our_rules};
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent, dial};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

/// Where the rule belongs on the routers of the fixtures.
const CHAINS_14: [&str; 5] = [
    "ip vyos_filter NAME_FWD-KnockPort",
    "ip vyos_filter NAME_IN-KnockPort",
    "ip vyos_filter VYOS_OUTPUT_filter",
    "ip6 vyos_filter NAME6_FWD-KnockPort",
    "ip6 vyos_filter VYOS_IPV6_INPUT_filter",
];

fn chains(version: &str) -> Vec<String> {
    let mut all: Vec<String> = CHAINS_14.iter().map(|&c| c.to_owned()).collect();
    if version == "15" {
        let zones = ["VYOS_ZONE_FORWARD", "VYOS_ZONE_LOCAL", "VYOS_ZONE_OUTPUT"];
        all.extend(zones.map(|zone| format!("ip vyos_filter {zone}")));
    }
    all.sort();
    all
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}

fn installation(config: &Config) -> Installation {
    Installation::new(config).flags(&["--firewall-type", "vyos"])
}

/// How long until our rules are where they belong, once each.
#[track_caller]
fn until_in_place(host: &Namespace, version: &str) -> Duration {
    let start = Instant::now();
    loop {
        let found = sorted(our_chains(host));
        if found == chains(version) {
            return start.elapsed();
        }
        assert!(start.elapsed() < Duration::from_secs(5), "not in place: {found:#?}");
        sleep(Duration::from_millis(2));
    }
}

fn flow_on(version: &'static str, state: &'static str) {
    let net = Topology::new();
    let vyos = Vyos::boot(&net.router, version, state);
    vyos.commit(&net.router, "all");
    let home = installation(&config());
    let _agent = home.start(&net.router);
    assert_eq!(sorted(our_chains(&net.router)), chains(version));
    // Without connection tracking nothing can be translated, so that there is no forwarding.
    let lan = state == "stateful";
    assert_flow(&net, lan);
    assert_stream_cut(&net, &home, lan);
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(our_rules(&net.router), Vec::<String>::new());
}

#[test]
fn the_whole_flow_works_on_vyos_1_4_stateful() {
    flow_on("14", "stateful");
}

#[test]
fn the_whole_flow_works_on_vyos_1_4_stateless() {
    flow_on("14", "stateless");
}

#[test]
fn the_whole_flow_works_on_vyos_1_5_with_zones() {
    flow_on("15", "stateful");
}

#[test]
fn the_whole_flow_works_on_vyos_1_5_stateless_with_zones() {
    flow_on("15", "stateless");
}

#[test]
fn the_whole_flow_works_on_the_chains_of_vyos_1_3() {
    let net = Topology::new();
    load(&net.router, "vyos/13.nft");
    let home = installation(&config());
    let _agent = home.start(&net.router);
    let hooks = ["VYATTA_PRE_FW_FWD_HOOK", "VYATTA_PRE_FW_IN_HOOK", "VYATTA_PRE_FW_OUT_HOOK"];
    let wanted: Vec<String> =
        ["ip", "ip6"].iter().flat_map(|f| hooks.map(|hook| format!("{f} filter {hook}"))).collect();
    assert_eq!(sorted(our_chains(&net.router)), wanted);
    // Before the rule that returns.
    assert!(our_rules(&net.router).iter().all(|rule| rule.contains(": 0 ")), "{:#?}", our_rules(&net.router));
    assert_flow(&net, true);
    assert_stream_cut(&net, &home, true);
}

/// Sends a word over a stream and waits for it.
#[track_caller]
fn exchange(stream: &mut TcpStream, word: &str) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(word.as_bytes()).unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).unwrap_or_else(|error| panic!("the stream broke at {word}: {error}"));
    assert_eq!(back, word.as_bytes());
}

fn survives_commits(version: &'static str, state: &'static str) {
    let net = Topology::new();
    let vyos = Vyos::boot(&net.router, version, state);
    vyos.commit(&net.router, "all");
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let lan = state == "stateful";
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 600"]).app(
        "lan4",
        "2223",
        "tcp",
        "10.0.0.5:22",
        &["duration: 600"],
    );
    let home = installation(&config);
    let _agent = home.start(&net.router);
    let (to, to6) = (Family::V4.router(), Family::V6.router());
    knock(&net.a, to, "ssh");
    knock(&net.a, to6, "ssh");
    let connect = |to, port| dial(&net.a, (to, port).into(), Duration::from_secs(3)).unwrap();
    let mut streams = vec![connect(to, 2222), connect(to6, 2222)];
    if lan {
        knock(&net.a, to, "lan4");
        streams.push(connect(to, 2223));
    }
    let mut repairs = Vec::new();
    let mut after = |what: &str| {
        repairs.push(until_in_place(&net.router, version));
        for stream in &mut streams {
            exchange(stream, what);
        }
        for client in [Family::V4.client_a(), Family::V6.client_a()] {
            assert!(time_left(&net.router, "ssh", client).is_some(), "the grant of {client} after {what}");
        }
    };
    for what in ["firewall", "nat", "conntrack", "groups", "all"].iter().cycle().take(20) {
        vyos.commit(&net.router, what);
        after(what);
    }
    // All of it away, ours too; VyOS loads its own again when it boots.
    net.router.run("nft", &["flush", "ruleset"]).success();
    let start = Instant::now();
    while !is_guarded(&net.router) || time_left(&net.router, "ssh", Family::V4.client_a()).is_none() {
        assert!(start.elapsed() < Duration::from_secs(5), "the guard is back after a flush");
        sleep(Duration::from_millis(2));
    }
    let guard = start.elapsed();
    vyos.forget();
    for what in ["boot", "all"] {
        vyos.commit(&net.router, what);
    }
    after("flush");
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
    repairs.sort();
    let median = repairs[repairs.len() / 2];
    assert!(median < Duration::from_secs(1) && guard < Duration::from_secs(5), "{repairs:?} {guard:?}");
}

#[test]
fn twenty_commits_and_a_flush_cost_no_grant_and_no_stream_on_vyos_1_4() {
    survives_commits("14", "stateful");
}

#[test]
fn twenty_commits_and_a_flush_cost_no_grant_and_no_stream_on_stateless_vyos_1_4() {
    survives_commits("14", "stateless");
}

#[test]
fn twenty_commits_and_a_flush_cost_no_grant_and_no_stream_on_vyos_1_5() {
    survives_commits("15", "stateful");
}

#[test]
fn twenty_commits_and_a_flush_cost_no_grant_and_no_stream_on_stateless_vyos_1_5() {
    survives_commits("15", "stateless");
}

#[test]
fn an_agent_that_starts_before_the_firewall_needs_no_delay() {
    let net = Topology::new();
    let home = installation(&config());
    let _agent = home.start(&net.router);
    assert_eq!(our_rules(&net.router), Vec::<String>::new());
    let vyos = Vyos::boot(&net.router, "14", "stateful");
    sleep(Duration::from_millis(300));
    vyos.commit(&net.router, "firewall");
    until_in_place(&net.router, "14");
    assert_flow(&net, true);
}

#[test]
fn an_operator_can_name_other_chains_of_vyos() {
    let net = Topology::new();
    let vyos = Vyos::boot(&net.router, "15", "stateful");
    vyos.commit(&net.router, "firewall");
    let home = Installation::new(&config()).flags(&[
        "--firewall-type",
        "vyos",
        "--nftables-chain-forward",
        "NAME_WAN-LAN",
        "--nftables-chain-default-forward",
        "VYOS_ZONE_FORWARD",
    ]);
    let _agent = home.start(&net.router);
    let found = our_chains(&net.router);
    assert!(found.contains(&"ip vyos_filter NAME_WAN-LAN".to_owned()), "{found:#?}");
    assert!(!found.iter().any(|chain| chain.contains("FWD-KnockPort")), "{found:#?}");
}

#[test]
fn the_commands_for_the_permanent_way_fit_what_is_loaded() {
    let net = Topology::new();
    let home = installation(&config());
    let printed = || home.check(&net.router, &["check-ruleset", "--print", "vyos"]).success().text();
    assert!(printed().contains("VYATTA_PRE_FW_IN_HOOK"), "nothing is known: {}", printed());
    let vyos = Vyos::boot(&net.router, "15", "stateful");
    vyos.commit(&net.router, "firewall");
    let text = printed();
    for line in [
        // Before rules 5 and 20, and in a zone's rule-set that has none.
        "set firewall ipv4 input filter rule 2 mark '24107'",
        "set firewall ipv4 forward filter rule 10 mark '24107'",
        "set firewall ipv4 name WAN-LAN rule 10 action 'accept'",
        "set firewall ipv6 input filter rule 2 mark '24107'",
    ] {
        assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
    }
    assert!(!text.contains("VYATTA"), "{text}");
    net.router.run("nft", &["flush", "ruleset"]).success();
    load(&net.router, "vyos/13.nft");
    let text = printed();
    assert!(text.contains("ip6tables -I VYATTA_PRE_FW_FWD_HOOK -m mark --mark 24107 -j ACCEPT"), "{text}");
    assert!(!text.contains("set firewall"), "{text}");
}
