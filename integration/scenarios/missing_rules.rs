//! What operators take back, and how the daemon ends, between the moment in which somebody removes its rules and the one
//! in which it puts them back.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::{Agent, Installation};
use crate::backend::{Backend, on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::firewall::{elements, is_guarded, time_left};
use crate::probe::{assert_open, assert_silent};
use crate::process::{Finished, wait};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    what_is_taken_back_while_the_rules_are_missing_stays_taken_back,
    what_is_opened_while_the_rules_are_missing_is_open_or_the_reason_is_told,
    a_daemon_that_ends_while_its_rules_are_missing_puts_them_back_first,
    without_a_daemon_status_says_that_rules_are_missing,
}

without_ipset! {
    what_is_taken_back_while_the_rules_are_missing_stays_taken_back,
    a_daemon_that_ends_while_its_rules_are_missing_puts_them_back_first,
    without_a_daemon_status_says_that_rules_are_missing,
}

/// What is in a fight with somebody else, so that repairs wait.
struct Fight {
    net: Topology,
    home: Installation,
    agent: Agent,
    _service: Server,
}

fn until_guarded(net: &Topology) {
    let start = Instant::now();
    while !is_guarded(&net.router) {
        assert!(start.elapsed() < Duration::from_secs(20), "the guard is not put back");
        sleep(Duration::from_millis(5));
    }
}

/// Loads a ruleset of somebody's, in which nothing of ours is.
fn flush(net: &Topology) {
    let backend = Backend::current();
    if !backend.is_iptables() {
        net.router.run("nft", &["flush", "ruleset"]).success();
        return;
    }
    for family in ['4', '6'] {
        let empty: String =
            ["mangle", "raw", "nat", "filter"].map(|table| format!("*{table}\nCOMMIT\n")).concat();
        net.router.feed(&backend.program(family, "restore"), &[], empty.as_bytes()).success();
    }
    // Those that the agent has just made again are asked by its rules.
    net.router.run("ipset", &["destroy"]);
}

impl Fight {
    fn new() -> Self {
        let net = Topology::new();
        let service = Server::tcp(&net.router, 2222, Habit::Echo);
        let home = Installation::new(&Config::ssh(&["duration: 600"]));
        let agent = home.start(&net.router);
        let fight = Self { net, home, agent, _service: service };
        for _ in 0..12 {
            flush(&fight.net);
            until_guarded(&fight.net);
        }
        fight
    }

    /// Removes the rules; for about a second nobody puts them back.
    fn begin_gap(&self) {
        until_guarded(&self.net);
        flush(&self.net);
        until_guarded(&self.net);
        flush(&self.net);
    }

    fn end_gap(&self) {
        until_guarded(&self.net);
        // With iptables, rules of one family are there before those of the other.
        sleep(Duration::from_secs(if Backend::current().is_iptables() { 2 } else { 0 }));
    }

    fn verb(&self, words: &[&str]) -> Finished {
        self.home.verb(&self.net.router, words)
    }

    /// Whether there is a grant for the first client.
    fn has_grant(&self) -> bool {
        time_left(&self.net.router, "ssh", Family::V4.client_a()).is_some()
    }
}

fn what_is_taken_back_while_the_rules_are_missing_stays_taken_back() {
    let fight = Fight::new();
    let (net, to, a) = (&fight.net, Family::V4.router(), Family::V4.client_a().to_string());
    for (words, told) in [
        (&["revoke", "ssh", &a][..], "may no longer reach"),
        (&["revoke", "--all"], "1 grant ended"),
        (&["revoke", "--all", "--app", "ssh"], "1 grant ended"),
    ] {
        until_guarded(net);
        fight.home.grant(&net.router, "ssh", &a, 600);
        fight.begin_gap();
        let done = fight.verb(words).success().text();
        assert!(done.contains(told), "{words:?}: {done}");
        fight.end_gap();
        assert!(!fight.has_grant(), "{words:?}");
        assert_silent(&net.a, to, 2222);
    }
    // Without ipset, only the configuration allows networks.
    if !Backend::current().is_recent() {
        fight.verb(&["allow", "203.0.113.0/24"]).success();
        fight.begin_gap();
        let done = fight.verb(&["allow", "--flush"]).success().text();
        assert!(done.contains("1 allowed network removed"), "{done}");
        fight.end_gap();
        assert_silent(&net.a, to, 2222);
    }
    // Somebody who has none is told so.
    fight.begin_gap();
    let done = fight.verb(&["revoke", "ssh", &a]).success().text();
    assert!(done.contains("had no grant"), "{done}");
}

fn what_is_opened_while_the_rules_are_missing_is_open_or_the_reason_is_told() {
    let fight = Fight::new();
    let (net, to) = (&fight.net, Family::V4.router());
    for words in [&["grant", "ssh", "203.0.113.2"][..], &["allow", "203.0.113.0/24"], &["status"]] {
        fight.begin_gap();
        let done = fight.verb(words);
        // Where the rules were back by then.
        let opened = done.code == Some(0);
        if !opened {
            let told = &done.exits(69).stderr;
            assert!(told.contains("being put back") && !told.contains("start knock-agent"), "{told}");
        }
        fight.end_gap();
        match opened && words != ["status"] {
            true => assert_open(&net.a, to, 2222),
            false => assert_silent(&net.a, to, 2222),
        }
        fight.verb(&["revoke", "--all"]).success();
        fight.verb(&["allow", "--flush"]).success();
    }
}

fn a_daemon_that_ends_while_its_rules_are_missing_puts_them_back_first() {
    let fight = Fight::new();
    fight.home.grant(&fight.net.router, "ssh", Family::V4.client_b(), 600);
    fight.begin_gap();
    let Fight { net, home, agent, _service } = fight;
    agent.terminate();
    assert!(is_guarded(&net.router), "{}", home.log());
    assert_silent(&net.a, Family::V4.router(), 2222);
    // Without ipset, grants that were lost are not put back.
    if !Backend::current().is_recent() {
        assert_open(&net.b, Family::V4.router(), 2222);
    }
    assert!(home.log().contains("stopped; the guard stays"), "{}", home.log());
}

#[test]
fn a_daemon_that_cannot_put_its_rules_back_does_not_say_that_they_stay() {
    let Fight { net, home, agent, _service } = Fight::new();
    // What belongs to a program, nobody else changes; it is gone with that program.
    let mut owner = std::process::Command::new("nft");
    owner.arg("-i").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut owner = net.router.background(owner);
    let rules = "delete table inet knock_agent; add table inet knock_agent { flags owner; }\n";
    std::io::Write::write_all(owner.0.stdin.as_mut().unwrap(), rules.as_bytes()).unwrap();
    let start = Instant::now();
    while !net.router.run("nft", &["list", "ruleset"]).text().contains("owner") {
        assert!(start.elapsed() < Duration::from_secs(10), "nft makes an owned table");
        sleep(Duration::from_millis(20));
    }
    agent.signal(Signal::SIGTERM);
    let status = wait(&mut agent.into_process().0, Duration::from_secs(10));
    assert_eq!(status.and_then(|status| status.code()), Some(69), "{}", home.log());
    let log = home.log();
    assert!(log.contains("THE GUARD DOES NOT STAY") && !log.contains("the guard stays"), "{log}");
    drop(owner);
}

fn without_a_daemon_status_says_that_rules_are_missing() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    home.start(&net.router).kill();
    let line = || {
        let text = home.verb(&net.router, &["status"]).success().text();
        text.lines().find(|line| line.contains("guard  ")).unwrap_or_default().to_owned()
    };
    assert!(line().starts_with("ok") && line().contains("closed by"), "{}", line());
    let backend = Backend::current();
    if backend.is_iptables() {
        // Of one family; the other one is closed.
        let gate = ["-w", "-t", "mangle", "-F", "PREROUTING"];
        net.router.run(&backend.program('6', ""), &gate).success();
    } else {
        net.router.run("nft", &["flush", "chain", "inet", "knock_agent", "gate"]).success();
    }
    assert!(line().starts_with("BAD") && line().contains("ports may stand open"), "{}", line());
    let json: serde_json::Value =
        serde_json::from_str(&home.verb(&net.router, &["status", "--json"]).success().text()).unwrap();
    assert_eq!(json["rules_missing"], true);
    if !backend.is_iptables() {
        net.router.run("nft", &["flush", "table", "inet", "knock_agent"]).success();
        assert!(line().starts_with("BAD"), "{}", line());
    }
    home.guard(&net.router).success();
    assert!(line().starts_with("ok"), "{}", line());
    if !backend.is_iptables() {
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        net.router.run("nft", &["flush", "set", "inet", "knock_agent", "ext"]).success();
        assert_open(&net.a, Family::V4.router(), 2222);
        assert!(line().starts_with("BAD"), "{}", line());
        home.guard(&net.router).success();
        assert_silent(&net.a, Family::V4.router(), 2222);
        net.router.run("nft", &["insert", "rule", "inet", "knock_agent", "gate", "accept"]).success();
        assert!(line().starts_with("BAD"), "{}", line());
    }
    assert!(elements(&net.router, "app_ssh_4").is_empty());
}
