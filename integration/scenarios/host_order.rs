//! In which order chains see a packet, and what it is by then: the dry run and `explain` say what the kernel does.

use super::explain::{Scene, two_apps};
use crate::agent::Installation;
use crate::audit::{assert_quiet, find, obstacles, remedy};
use crate::configuration::Config;
use crate::machine::Machine;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, Reach, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

fn lan(global: &[&str]) -> Config {
    Config::new(global).app("lan", "2223", "tcp", "10.0.0.5:22", &["duration: 600"])
}

/// Loads a table `z` of these chains.
fn load(host: &Namespace, chains: &[(&str, &str)]) {
    let chains: String =
        chains.iter().map(|(name, rules)| format!("chain {name} {{ {rules}; }}\n")).collect();
    host.nft(&format!("table inet z {{\n{chains}}}"));
}

#[test]
fn answers_of_lan_hosts_are_this_host_s_behind_the_translation() {
    const AT: &str = "type filter hook postrouting priority 200";
    for global in [&[][..], &["mark: 0"]] {
        let net = Topology::new();
        let machine = Machine::new(&net.router);
        let home = Installation::new(&lan(global));
        let scene = Scene { net: &net, home: &home };
        let _agent = home.start(&net.router);
        let _server = Server::tcp(&net.lan, 22, Habit::Echo);
        let (router, a) = (&net.router, Family::V4.client_a());
        home.grant(router, "lan", a, 600);
        load(router, &[("late", &format!("{AT}; tcp sport 22 drop; ip saddr 10.0.0.5 drop"))]);
        assert_quiet(&home, router);
        scene.says(&net.a, a, "lan", 2223, "granted");
        router.nft("delete table inet z");
        for rule in ["tcp sport 2223 drop", "ip saddr 203.0.113.1 tcp sport 2223 drop"] {
            load(router, &[("late", &format!("{AT}; oifname ext0 {rule}"))]);
            let found = obstacles(&home, router);
            let told = find(&found, "host-drops-output");
            assert_eq!((told.severity.as_str(), found.len()), ("error", 1), "{found:#?}");
            let value = scene.says(&net.a, a, "lan", 2223, "host-drops-reply");
            assert!(value["message"].as_str().unwrap().contains("inet z late"), "{value:#}");
            remedy(&machine, &found);
            assert_quiet(&home, router);
            scene.says(&net.a, a, "lan", 2223, "granted");
            router.nft("delete table inet z");
        }
    }
}

#[test]
fn of_chains_of_one_priority_the_newer_one_comes_first() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, a) = (&net.router, Family::V4.client_a());
    home.grant(router, "ssh", a, 600);
    let writes = ("writes", "type filter hook input priority 5; tcp dport 2222 meta mark set 7");
    let drops = ("drops", "type filter hook input priority 5; tcp dport 2222 meta mark 7 drop");
    load(router, &[writes, drops]);
    assert_quiet(&home, router);
    scene.a("granted");
    router.nft("delete table inet z");
    load(router, &[drops, writes]);
    let found = obstacles(&home, router);
    assert!(found.len() == 1 && found[0].severity == "error", "{found:#?}");
    scene.a("host-drops");
    router.nft("delete table inet z");
    // Which of two tables comes first is not told by the kernel: here it is the host's, which sees no mark of ours yet.
    let closed = "type filter hook input priority -10; policy drop; iif lo accept; meta l4proto icmpv6 accept; meta mark 24107 accept";
    load(router, &[("early", closed)]);
    let value = scene.a("cannot-tell");
    assert_eq!(value["verdict"], "unknown");
    assert!(value["message"].as_str().unwrap().contains("inet z early"), "{value:#}");
    find(&obstacles(&home, router), "host-drops-early");
}

#[test]
fn a_quota_that_a_map_names_may_be_used_up_or_not() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, a) = (&net.router, Family::V4.client_a());
    home.grant(router, "ssh", a, 600);
    router.nft(
        "table inet z {\nquota q { over 100 mbytes\n}\n\
         map m { type ipv4_addr : quota; elements = { 203.0.113.2 : \"q\" }\n}\n\
         chain i { type filter hook input priority 0; quota name ip saddr map @m drop\n}\n}",
    );
    assert_eq!(scene.explain(a, "ssh")["cause"], "cannot-tell");
    assert_eq!(tcp(&net.a, (Family::V4.router(), 2222).into(), GENEROUS), Reach::Open);
    let found = obstacles(&home, router);
    assert!(found.iter().all(|finding| finding.severity == "warning"), "{found:#?}");
    find(&found, "host-drops-by-default");
}

#[test]
fn the_remedy_stands_before_the_rule_that_leaves_the_chain() {
    for leaves in ["-g aside", "-p tcp --dport 2222 -j RETURN"] {
        let net = Topology::new();
        let machine = Machine::new(&net.router);
        let home = Installation::new(&two_apps(&[]));
        let scene = Scene { net: &net, home: &home };
        let _agent = home.start(&net.router);
        let _server = Server::tcp(&net.router, 2222, Habit::Echo);
        let (router, a) = (&net.router, Family::V4.client_a());
        home.grant(router, "ssh", a, 600);
        machine
            .sh(&format!(
                "iptables -N aside; iptables -A INPUT -p tcp -m multiport --dports 8080,8443 -j ACCEPT; iptables -A INPUT {leaves}; iptables -P INPUT DROP"
            ))
            .success();
        let found = obstacles(&home, router);
        find(&found, "host-drops-by-default");
        let value = scene.a("host-drops");
        assert!(super::explain::next(&value).contains("-I INPUT"), "{value:#}");
        remedy(&machine, &found);
        assert_quiet(&home, router);
        scene.a("granted");
    }
}
