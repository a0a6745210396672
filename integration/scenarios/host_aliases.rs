//! Rules of others by which strangers come to a guarded port in another way: the dry run names each, and not those that
//! lead elsewhere.

use std::net::IpAddr;
use std::time::Duration;

use crate::agent::Installation;
use crate::audit::{assert_quiet, findings, obstacles, remedy};
use crate::configuration::Config;
use crate::machine::Machine;
use crate::probe::{assert_echoes, assert_silent, assert_udp_silent, udp_echoes};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

/// Each by a port of its own, which is in its comment. Who knocks at none of them gets to the service.
const WAYS: &str = r#"
table inet others {
    map ports { type inet_service : inet_service; elements = { 9000 : 2222, 9900 : 9999 }; }
    map ranges { type inet_service : inet_service; flags interval; elements = { 9001-9010 : 2222 }; }
    map whole { type inet_service : ipv4_addr . inet_service; elements = { 9011 : 203.0.113.1 . 2222 }; }
    chain aside { tcp dport 9999 return; }
    chain beyond { meta l4proto tcp redirect to :2222 comment "9017"; }
    chain pre {
        type nat hook prerouting priority dstnat;
        meta l4proto tcp redirect to : tcp dport map @ports comment "9000"
        meta l4proto tcp redirect to : tcp dport map @ranges comment "9001"
        dnat ip addr . port to tcp dport map @whole comment "9011"
        dnat ip to tcp dport map { 9012 : 203.0.113.1 }:2222 comment "9012"
        dnat ip to ip saddr . tcp dport map { 203.0.113.2 . 9013 : 203.0.113.1 . 2222 } comment "9013"
        tcp dport 9014 dnat ip to ip daddr : tcp dport map { 9014 : 2222 } comment "9014"
        tcp dport 9015 dnat ip to numgen inc mod 2 map { 0 : 203.0.113.1, 1 : 203.0.113.1 }:2222 comment "9015"
        tcp dport 9016 redirect to : jhash ip saddr mod 1 map { 0 : 2222 } comment "9016"
        tcp dport vmap { 1 : jump aside, 9017 : jump beyond }
        tcp dport 9018 ip ttl 64 redirect to :2222 comment "9018"
        tcp dport 9019 limit rate over 1/hour burst 1 packets redirect to :2222 comment "9019"
        tcp dport 9020 redirect to :2222-2230 comment "9020"
        tcp dport 9021 dnat ip to 203.0.113.1-203.0.113.2:2220-2222 persistent comment "9021"
        tcp dport 9022 tcp option sack-perm exists redirect to :2222 comment "9022"
        tcp dport 9023 dnat ip to 127.0.0.1:2222 random comment "9023"
    }
    chain divert {
        type filter hook prerouting priority mangle;
        tcp dport 9024 tproxy ip to :2222 comment "9024"
    }
}
"#;

/// What hosts translate every day, none of which leads to a port of ours.
const ORDINARY: &str = r#"
table inet others {
    map published { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.5 . 8080, 2200 : 10.0.0.5 . 2222 }; }
    map moved { type inet_service : inet_service; elements = { 80 : 8081, 9000 : 9001 }; }
    map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 198.51.100.9 . tcp . 443 : goto service }; }
    chain service { numgen random mod 2 vmap { 0 : goto one, 1 : goto two }; }
    chain one { meta l4proto tcp dnat ip to 10.0.0.5:6443; }
    chain two { meta l4proto tcp dnat ip to 10.0.0.6:2222; }
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr . meta l4proto . th dport vmap @services
        fib daddr type local dnat ip addr . port to tcp dport map @published
        meta l4proto tcp redirect to : tcp dport map @moved
        tcp dport 443 dnat ip to numgen random mod 100 map { 0-49 : 10.0.0.5, 50-99 : 10.0.0.6 }:2222
        tcp dport 9002 redirect to :3000-4000 random
        dnat ip prefix to ip daddr map { 198.51.100.64/26 : 10.0.0.64/26 }
        ip daddr 198.51.100.8 dnat ip to 10.0.0.5
        meta l4proto { tcp, udp } th dport 53 redirect to :5353
    }
    chain mangle {
        type filter hook prerouting priority mangle;
        tcp flags syn tcp option maxseg size set 1400
        ip dscp set cs1
        ip ttl set 64
        udp dport 9003 udp dport set 9004
    }
    chain near { type filter hook input priority 5; udp dport 9005 udp sport set 9006; udp dport 9006 udp checksum set 0; }
}
"#;

const STRANGER: Family = Family::V4;

/// The rule of a finding, by what is written beside it.
fn told(net: &Topology, messages: &[String], comment: &str) -> bool {
    let listing = net.router.run("nft", &["-a", "list", "ruleset"]).success().text();
    let line =
        listing.lines().find(|line| line.contains(&format!("\"{comment}\""))).expect("the rule is loaded");
    let handle = line.rsplit("# handle ").next().unwrap();
    messages.iter().any(|message| message.starts_with(&format!("rule {handle} of chain inet others ")))
}

#[test]
fn each_way_to_a_guarded_port_is_told_and_its_removal_closes_it() {
    let net = Topology::new();
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let machine = Machine::new(&net.router);
    net.router.sysctl("net/ipv4/conf/all/route_localnet", "1");
    net.router.nft(WAYS);
    for target in ["REDIRECT --to-ports 2200-2300 --random", "DNAT --to-destination 203.0.113.1:2222-2223"] {
        let line = format!("-t nat -A PREROUTING -p tcp --dport 9025 -j {target}");
        net.router.run("iptables", &line.split(' ').collect::<Vec<_>>()).success();
    }
    let found = obstacles(&home, &net.router);
    assert!(found.iter().all(|finding| finding.code == "guarded-port-alias"), "{found:#?}");
    assert!(found.iter().all(|finding| !finding.message.contains("may bring")), "{found:#?}");
    let messages: Vec<String> = found.iter().map(|finding| finding.message.clone()).collect();
    let ports = (9000..=9001).chain(9011..=9024).map(|port| port.to_string());
    let missed: Vec<String> = ports.filter(|comment| !told(&net, &messages, comment)).collect();
    assert!(missed.is_empty(), "{missed:?} are not told: {found:#?}");
    let compat = messages.iter().filter(|message| message.contains("of chain ip nat PREROUTING"));
    assert!(compat.count() >= 2, "{found:#?}");
    let _agent = home.start(&net.router);
    assert_silent(&net.a, STRANGER.router(), 2222);
    // Those that lead there at the first attempt, so that each finding is true.
    let sure: Vec<u16> = (9000..=9001).chain(9011..=9018).chain([9020, 9023]).collect();
    for &port in &sure {
        assert_echoes(&net.a, STRANGER.router(), port);
    }
    let mut rules = found.clone();
    let mut seen = std::collections::BTreeSet::new();
    rules.retain(|finding| seen.insert(finding.fix.clone()));
    remedy(&machine, &rules);
    assert_quiet(&home, &net.router);
    for &port in &sure[..2] {
        assert_silent_or_refused(&net, STRANGER.router(), port);
    }
}

fn assert_silent_or_refused(net: &Topology, to: IpAddr, port: u16) {
    use crate::probe::{Reach, tcp};
    assert_ne!(tcp(&net.a, (to, port).into(), Duration::from_secs(1)), Reach::Open);
}

#[test]
fn what_hosts_translate_every_day_is_not_told() {
    let net = Topology::new();
    let _servers = (Server::tcp(&net.router, 2222, Habit::Echo), Server::udp(&net.router, 1194, Habit::Echo));
    let config = Config::ssh(&["duration: 60"]).app("vpn", "1194", "udp", "local", &["duration: 60"]);
    let home = Installation::new(&config);
    net.router.nft(ORDINARY);
    let found = findings(&home, &net.router);
    let aliases: Vec<_> = found.iter().filter(|finding| finding.severity != "info").collect();
    assert!(aliases.is_empty(), "{aliases:#?}");
}

#[test]
fn a_translation_whose_target_depends_on_the_packet_is_told_as_one_that_may() {
    let net = Topology::new();
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let machine = Machine::new(&net.router);
    net.router.nft(
        "table inet others { chain pre { type nat hook prerouting priority dstnat; \
         tcp dport 9000 redirect to : tcp sport; tcp dport 2222 dnat ip to 10.0.0.5:22; }; }",
    );
    let found = obstacles(&home, &net.router);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity.as_str(), found[0].code.as_str()), ("warning", "guarded-port-alias"));
    assert!(found[0].message.contains("may bring"), "{found:#?}");
    assert!(found[0].fix.lines().all(|line| line.starts_with('#')), "{found:#?}");
    remedy(&machine, &found);
    assert_eq!(obstacles(&home, &net.router).len(), 1, "nothing is removed that may be right");
}

#[test]
fn datagrams_that_are_rewritten_behind_the_gate_are_told_and_the_removal_closes_the_way() {
    let net = Topology::new();
    let _server = Server::udp(&net.router, 1194, Habit::Echo);
    let machine = Machine::new(&net.router);
    let home = Installation::new(&Config::new(&[]).app("vpn", "1194", "udp", "local", &["duration: 60"]));
    let _agent = home.start(&net.router);
    net.router.nft(
        "table inet others {\n\
         map to { type inet_service : inet_service; elements = { 9002 : 1194 }; }\n\
         chain pre { type filter hook prerouting priority mangle + 10; udp dport 9000 udp dport set 1194; }\n\
         chain in { type filter hook input priority 5; udp dport 9001 @th,16,16 set 1194; udp dport set udp dport map @to; }\n\
         chain out { type filter hook output priority raw; \
         udp sport 1194 udp sport set udp dport map { 40000 : 9000, 40001 : 9001, 40002 : 9002 }; }\n}",
    );
    let found = obstacles(&home, &net.router);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found.iter().all(|finding| finding.code == "stateless-translation"), "{found:#?}");
    assert_udp_silent(&net.a, STRANGER.router(), 1194);
    let reaches = |port: u16| {
        let source = port - 9000 + 40000;
        crate::probe::udp_echoes_from(&net.a, source, STRANGER.router(), port, Duration::from_secs(2))
    };
    for port in 9000..=9002 {
        assert!(reaches(port), "{port}");
    }
    remedy(&machine, &found);
    assert_quiet(&home, &net.router);
    for port in 9000..=9002 {
        assert!(!udp_echoes(&net.a, STRANGER.router(), port, Duration::from_millis(500)), "{port}");
    }
}
