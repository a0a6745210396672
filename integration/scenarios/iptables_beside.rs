//! What others do beside us in the tables and sets of iptables.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::agent::Installation;
use crate::backend::{Backend, on_both_iptables};
use crate::configuration::Config;
use crate::firewall::{elements, has_set, is_guarded};
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_open, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_both_iptables! {
    gates_of_one_family_only_are_not_taken_for_a_guard,
    a_set_that_a_rule_of_others_asks_keeps_neither_a_reload_nor_a_start_from_its_work,
    a_guard_by_the_other_variant_is_refused_and_torn_down_with_ours,
}

fn iptables(host: &Namespace, line: &str) {
    let words: Vec<&str> = ["-w"].into_iter().chain(line.split(' ')).collect();
    host.run(&Backend::current().program('4', ""), &words).success();
}

/// Takes what leads to our rules out of IPv4's table.
fn without_gates(host: &Namespace) {
    for chain in ["PREROUTING", "INPUT", "FORWARD", "OUTPUT"] {
        iptables(host, &format!("-t mangle -F {chain}"));
    }
}

fn gates_of_one_family_only_are_not_taken_for_a_guard() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 600"]));
    let agent = home.start(&net.router);
    let explained = |family: Family| {
        let asked = ["explain", &family.client_b().to_string(), "ssh", "--json"];
        home.check(&net.router, &asked).text()
    };
    assert!(!explained(Family::V4).contains("no-guard"), "{}", explained(Family::V4));
    // It does not answer, and puts nothing right.
    agent.signal(Signal::SIGSTOP);
    without_gates(&net.router);
    assert_open(&net.b, Family::V4.router(), 2222);
    let done = home.guard(&net.router).success().text();
    assert!(done.contains("the guard is in place"), "{done}");
    assert_silent(&net.b, Family::V4.router(), 2222);
    let beside = home.guard(&net.router).success().text();
    assert!(beside.contains("nothing was changed"), "{beside}");
    agent.signal(Signal::SIGCONT);
    agent.kill();
    without_gates(&net.router);
    assert!(explained(Family::V4).contains("no-guard"), "{}", explained(Family::V4));
    assert!(!explained(Family::V6).contains("no-guard"), "{}", explained(Family::V6));
}

fn a_set_that_a_rule_of_others_asks_keeps_neither_a_reload_nor_a_start_from_its_work() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = || Config::ssh(&["duration: 600"]);
    let home = Installation::new(&config().app("lan", "2223", "tcp", "10.0.0.5", &[]));
    let agent = home.start(&net.router);
    iptables(&net.router, "-A INPUT -p tcp --dport 9100 -m set --match-set ka_app_lan_4 src -j ACCEPT");
    home.grant(&net.router, "lan", Family::V4.client_b(), 60);
    home.rewrite_config(config().text());
    let said = agent.reload();
    assert!(!home.log().contains("not reloaded"), "{said}\n{}", home.log());
    // It cannot go, and lets nobody in any more.
    assert!(has_set(&net.router, "app_lan_4") && elements(&net.router, "app_lan_4").is_empty());
    assert!(home.log().contains("ka_app_lan_4"), "{}", home.log());
    let lines = home.log().lines().count();
    sleep(Duration::from_secs(3));
    assert_eq!(home.log().lines().count(), lines, "{}", home.log());
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    agent.terminate();
    let _agent = home.start(&net.router);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    home.verb(&net.router, &["teardown"]).success();
    assert!(!is_guarded(&net.router));
    assert_open(&net.b, Family::V4.router(), 2222);
}

fn a_guard_by_the_other_variant_is_refused_and_torn_down_with_ours() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let (own, other) = match Backend::current() {
        Backend::IptablesNft => (Backend::IptablesNft, Backend::IptablesLegacy),
        _ => (Backend::IptablesLegacy, Backend::IptablesNft),
    };
    let home = Installation::new(&Config::ssh(&["duration: 600"]));
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 60);
    agent.kill();
    other.run(|| {
        let vain = home.guard(&net.router).exits(78);
        assert!(vain.stderr.contains("remove it first"), "{}", vain.stderr);
    });
    assert_echoes(&net.a, Family::V4.router(), 2222);
    let rules = |variant: Backend| {
        ['4', '6'].map(|family| net.router.run(&variant.program(family, "save"), &[]).success().text())
    };
    // As an earlier version left them.
    for (family, text) in ['4', '6'].into_iter().zip(rules(own)) {
        net.router.feed(&other.program(family, "restore"), &["--noflush"], text.as_bytes()).success();
    }
    let _agent = home.start(&net.router);
    home.verb(&net.router, &["teardown"]).success();
    for variant in [own, other] {
        assert!(!rules(variant).concat().contains("KA-"), "{}", rules(variant).concat());
    }
    assert!(!has_set(&net.router, "app_ssh_4"));
    assert_open(&net.b, Family::V4.router(), 2222);
}

#[test]
fn a_rule_of_nftables_in_a_table_of_iptables_is_named_and_nothing_is_written_twice() {
    Backend::IptablesNft.run(|| {
        let net = Topology::new();
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        let home = Installation::new(&Config::ssh(&["duration: 600"]));
        let agent = home.start(&net.router);
        let filter = || net.router.run("nft", &["list", "table", "ip", "filter"]).success().text();
        let jumps = || filter().matches("jump KA-").count();
        let before = jumps();
        assert!(before > 0, "{}", filter());
        net.router.nft("add rule ip filter OUTPUT tcp dport 25 ct count over 20 reject");
        sleep(Duration::from_secs(4));
        assert_eq!(jumps(), before, "{}", filter());
        let said = |text: &str| text.contains("iptables cannot show the table ip filter");
        assert!(said(&home.log()), "{}", home.log());
        assert!(home.log().lines().filter(|line| said(line)).count() <= 2, "{}", home.log());
        let status = home.verb(&net.router, &["status"]).success().text();
        assert!(said(&status) && status.contains("BAD   guard"), "{status}");
        // What closes is put back all the same, and who knocks gets in.
        without_gates(&net.router);
        sleep(Duration::from_secs(3));
        assert_silent(&net.b, Family::V4.router(), 2222);
        knock(&net.a, Family::V4.router(), "ssh");
        assert_echoes(&net.a, Family::V4.router(), 2222);
        let report = home.check(&net.router, &["check-ruleset"]);
        assert!(said(&report.stderr) && report.code == Some(69), "{}", report.stderr);
        let vain = home.verb(&net.router, &["teardown"]).exits(69);
        assert!(said(&vain.stderr), "{}", vain.stderr);
        agent.kill();
        let vain = home.run_in_vain(&net.router).exits(69);
        assert!(said(&vain.stderr) || said(&home.log()), "{}", vain.stderr);
        assert_eq!(jumps(), before, "{}", filter());
        assert_silent(&net.b, Family::V4.router(), 2222);
        let status = home.verb(&net.router, &["status"]).success().text();
        assert!(status.contains("closed by iptables"), "{status}");
        // Without ours, as after a boot: the plan of before closes as far as it can.
        net.router.run("nft", &["flush", "ruleset"]).success();
        net.router.nft("table ip filter { chain OUTPUT { type filter hook output priority filter; tcp dport 25 ct count over 20 reject; }; }");
        assert_open(&net.b, Family::V4.router(), 2222);
        let vain = home.guard(&net.router).exits(69);
        assert!(said(&vain.stderr), "{}", vain.stderr);
        assert_silent(&net.b, Family::V4.router(), 2222);
        // Without the rule it goes on.
        net.router.run("nft", &["delete", "table", "ip", "filter"]).success();
        let _agent = home.start(&net.router);
        assert_echoes(&net.a, Family::V4.router(), 2222);
        home.verb(&net.router, &["teardown"]).success();
        assert_open(&net.b, Family::V4.router(), 2222);
    });
}
