//! The dry run: it shows what `run` does and changes nothing.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::agent::Installation;
use crate::audit::{assert_quiet, obstacles, remedy};
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::{everything, table, time_left};
use crate::machine::Machine;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent};
use crate::process::wait;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    check_ruleset_changes_nothing_while_the_daemon_runs,
    a_difference_to_what_is_live_is_told,
}

/// A configuration with a bit of everything.
fn rich() -> Config {
    Config::new(&["allow: [198.51.100.0/24, \"2001:db8:9::/48\"]", "ipv6_prefix: 64"])
        .app("ssh", "2222", "tcp", "local", &["allow: [192.0.2.7]"])
        .app("many", "[5000, \"6000-6010\"]", "both", "local", &["established: keep"])
        .app("lan4", "2222", "tcp", "10.0.0.5:22", &[])
        .app("lan6", "2223", "both", "\"[fd00:5::5]:22\"", &["masquerade: false"])
        .app("Mixed-Case.name", "7000", "udp", "10.0.0.5", &["established: keep"])
}

/// A configuration with everything about knock sequences.
fn knocked() -> Config {
    let gates = "sequence: [{knocks: [7001, 9002], opens: step-1}, {knocks: [7003, 9002], opens: step-1, duration: 5}, \
         {knocks: [udp/7004, 9002], opens: step-2}, {knocks: [7005, 9002], opens: inner}]";
    Config::new(&[gates, "ipv6_prefix: 56"])
        .app(
            "ssh",
            "2222",
            "tcp",
            "local",
            &["sequence: [{knocks: [1234, 5678, 9012], strict: true, closing: [9012, 1234]}, {knocks: [1234, 5678, 9012, 1234], duration: 5m}]"],
        )
        .app(
            "lan4",
            "2223",
            "both",
            "10.0.0.5:22",
            &["once: true", "sequence: {knocks: [udp/7000/20, udp/7000/0], window: 30, knock_window: 9, name: inner}"],
        )
        .app("lan6", "2224", "udp", "\"fd00:5::5\"", &["sequence: {knocks: [5678, 9012], strict: true}"])
        .app("single", "4000", "both", "local", &["once: true", "established: keep"])
}

/// Knock sequences only.
fn without_steps() -> Config {
    Config::with_text(
        "global: {interface_ext: ext0, steps: off}\nssh: {port: 22, duration: 60, sequence: {knocks: [1234, udp/77]}}\n",
    )
}

/// What the kernel tells about changes of its ruleset while `work` is done.
fn changes_during(host: &Namespace, work: impl FnOnce()) -> String {
    let mut command = Command::new("nft");
    command.arg("monitor").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut monitor = host.background(command);
    sleep(Duration::from_millis(500));
    work();
    sleep(Duration::from_millis(500));
    monitor.signal(Signal::SIGINT);
    wait(&mut monitor.0, Duration::from_secs(5));
    let _ = monitor.0.kill();
    let mut told = String::new();
    monitor.0.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    told
}

#[test]
fn changes_of_the_ruleset_are_seen_by_these_tests() {
    let net = Topology::new();
    let told = changes_during(&net.router, || net.router.nft("add table inet something"));
    assert!(told.contains("something") || told.contains("generation"), "{told}");
}

#[test]
fn check_ruleset_changes_nothing_before_there_is_anything() {
    let net = Topology::new();
    let home = Installation::new(&rich());
    let before = everything(&net.router);
    let told = changes_during(&net.router, || {
        for words in [
            &["check-ruleset"][..],
            &["check-ruleset", "--json"],
            &["check-ruleset", "--print", "nft"],
            &["check-ruleset", "--offline"],
            &["check-config"],
        ] {
            home.check(&net.router, words).success();
        }
        home.check(&net.router, &["check-ruleset", "--diff-exit"]).exits(1);
    });
    assert_eq!(told, "");
    assert_eq!(everything(&net.router), before);
}

fn check_ruleset_changes_nothing_while_the_daemon_runs() {
    let net = Topology::new();
    let home = Installation::new(&rich());
    let mut agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
    let before = everything(&net.router);
    let told = changes_during(&net.router, || {
        home.check(&net.router, &["check-ruleset"]).success();
        home.check(&net.router, &["check-ruleset", "--diff-exit"]).success();
        home.check(&net.router, &["check-ruleset", "--json"]).success();
    });
    assert_eq!(told, "");
    assert_eq!(everything(&net.router), before);
    assert!(agent.is_alive());
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
}

#[test]
fn the_printed_text_loads_to_the_ruleset_that_run_makes() {
    for config in [
        rich(),
        knocked(),
        without_steps(),
        Config::ssh(&[]),
        Config::new(&["step1_reply: http"]).app("ssh", "22", "tcp", "local", &[]),
    ] {
        let net = Topology::new();
        let home = Installation::new(&config);
        let text = home.check(&net.router, &["check-ruleset", "--print", "nft"]).success().text();
        let offline =
            home.check(&net.router, &["check-ruleset", "--offline", "--print", "nft"]).success().text();
        assert_eq!(text, offline, "what is planned does not depend on this host's kernel");
        let _agent = home.start(&net.router);
        let fresh = Namespace::new("fresh");
        fresh.nft(&text);
        let (printed, running) = (table(&fresh), table(&net.router));
        let pairs = printed.lines().zip(running.lines());
        let first = pairs.enumerate().find(|(_, (printed, running))| printed != running);
        assert!(printed == running, "they differ in lines of their listings, first {first:?}");
        for map in ["services", "knock_next", "knock_sized", "knock_move", "knock_open", "knock_ports"] {
            let listed =
                |host: &Namespace| host.run("nft", &["-s", "list", "map", "inet", "knock_agent", map]);
            assert_eq!(listed(&fresh).text(), listed(&net.router).text(), "{map}");
        }
    }
}

fn a_difference_to_what_is_live_is_told() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    home.check(&net.router, &["check-ruleset", "--diff-exit"]).success();
    let other = Config::ssh(&[]).app("web", "3333", "tcp", "local", &[]);
    home.rewrite_config(other.text());
    let done = home.check(&net.router, &["check-ruleset", "--diff-exit"]).exits(1);
    assert!(done.text().contains("web"), "{}", done.text());
    let done = home.check(&net.router, &["check-ruleset", "--json"]).success();
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["version"], 1);
    assert_eq!(report["ok"], true);
    assert!(report["changes"].as_array().is_some_and(|c| !c.is_empty()), "{report:#}");
    assert!(report["findings"].is_array(), "{report:#}");
}

#[test]
fn a_host_that_does_not_forward_is_told_where_an_app_leads_to_a_lan_host() {
    let net = Topology::new();
    let machine = Machine::new(&net.router);
    let home = Installation::new(
        &Config::ssh(&[])
            .app("lan4", "2223", "tcp", "10.0.0.5:22", &["duration: 60"])
            .app("lan6", "2223", "tcp", "\"[fd00:5::5]:22\"", &["duration: 60"])
            .app("own", "2224", "tcp", "10.0.0.1:22", &[]),
    );
    let _service = Server::tcp(&net.lan, 22, Habit::Echo);
    let _agent = home.start(&net.router);
    assert_quiet(&home, &net.router);
    for (key, app, told) in [
        ("net/ipv4/ip_forward", "lan4", "does not forward IPv4 (net.ipv4.ip_forward is off)"),
        (
            "net/ipv6/conf/all/forwarding",
            "lan6",
            "does not forward IPv6 (net.ipv6.conf.all.forwarding is off)",
        ),
        (
            "net/ipv4/conf/ext0/forwarding",
            "lan4",
            "what comes in by ext0 (net.ipv4.conf.ext0.forwarding is off)",
        ),
        (
            "net/ipv4/conf/int0/forwarding",
            "lan4",
            "what comes in by int0 (net.ipv4.conf.int0.forwarding is off)",
        ),
    ] {
        net.router.sysctl(key, "0");
        let family = if app == "lan4" { Family::V4 } else { Family::V6 };
        home.grant(&net.router, app, family.client_a(), 60);
        assert_silent(&net.a, family.router(), 2223);
        let found = obstacles(&home, &net.router);
        assert_eq!(found.len(), 1, "{key}: {found:#?}");
        assert_eq!((found[0].severity.as_str(), found[0].code.as_str()), ("error", "forwarding-off"));
        assert!(found[0].message.contains(told) && found[0].message.contains(app), "{found:#?}");
        assert!(!found[0].message.contains("own"), "that is this host: {found:#?}");
        let ill = home.check(&net.router, &["health"]).exits(1).text();
        assert!(ill.contains("forwarding-off"), "{ill}");
        remedy(&machine, &found);
        assert_quiet(&home, &net.router);
        home.check(&net.router, &["health"]).success();
        assert_echoes(&net.a, family.router(), 2223);
    }
}
