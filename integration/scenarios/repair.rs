//! What others do to our table, and what becomes of it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::{Backend, on_every_firewall};
use crate::configuration::Config;
use crate::firewall::{everything, flush_host, is_guarded, remove_element, table, time_left};
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{
    assert_echo, assert_echoes, assert_on_time, assert_open, assert_silent, dial, when_silent,
};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_flushed_ruleset_is_restored_with_its_grants_and_their_time,
    an_element_an_administrator_removed_stays_removed,
}

fn nft(host: &Namespace, words: &[&str]) {
    host.run("nft", words).success();
}

/// Waits until `what` holds, at most a second; where the kernel tells of nothing, the agent looks every second.
fn within_a_second(what: impl Fn() -> bool, law: &str) -> Duration {
    let start = Instant::now();
    let limit = Duration::from_secs(if Backend::current().is_iptables() { 4 } else { 1 });
    while !what() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {law}");
        sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

fn a_flushed_ruleset_is_restored_with_its_grants_and_their_time() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 9"]));
    let _agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    knock(&net.a, to, "ssh");
    let due = Instant::now() + Duration::from_secs(9);
    home.grant(&net.router, "ssh", Family::V6.client_b(), 60);
    home.verb(&net.router, &["allow", "198.51.100.0/24", "--for", "1h"]).success();
    let stream = dial(&net.a, (to, 2222).into(), Duration::from_secs(2)).expect("open while granted");
    let before = table(&net.router);
    for _ in 0..3 {
        flush_host(&net.router);
        within_a_second(|| is_guarded(&net.router), "the guard is back");
        within_a_second(|| time_left(&net.router, "ssh", client).is_some(), "the grant is back");
        assert_silent(&net.b, to, 2222);
    }
    assert_eq!(table(&net.router), before, "rules and allowed networks as before");
    assert!(time_left(&net.router, "ssh", Family::V6.client_b()).is_some(), "the operator's grant as well");
    assert_echo(stream);
    assert_echoes(&net.a, to, 2222);
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
}

fn an_element_an_administrator_removed_stays_removed() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    home.grant(&net.router, "ssh", Family::V4.client_b(), 60);
    remove_element(&net.router, "app_ssh_4", &Family::V4.client_a().to_string());
    assert_silent(&net.a, to, 2222);
    // As long as it takes to notice.
    sleep(Duration::from_millis(if Backend::current().is_iptables() { 2_500 } else { 500 }));
    flush_host(&net.router);
    within_a_second(|| is_guarded(&net.router), "the guard is back");
    within_a_second(
        || time_left(&net.router, "ssh", Family::V4.client_b()).is_some(),
        "the other grant is back",
    );
    assert_silent(&net.a, to, 2222);
    assert_open(&net.b, to, 2222);
}

#[test]
fn what_others_edit_is_put_right_and_then_left_alone() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 60);
    let listing = || net.router.run("nft", &["-s", "list", "ruleset"]).text();
    let before = listing();
    for edit in [
        &["flush", "chain", "inet", "knock_agent", "svc_tcp_2222"][..],
        &["insert", "rule", "inet", "knock_agent", "gate", "accept"],
        &["delete", "element", "inet", "knock_agent", "services", "{ tcp . 2222 }"],
        &["add", "element", "inet", "knock_agent", "ext", "{ \"other0\" }"],
        &["add", "chain", "inet", "knock_agent", "foreign"],
        &["add", "table", "inet", "knock_agent", "{ flags dormant; }"],
        &["chain", "inet", "knock_agent", "mark_in", "{ policy drop; }"],
        &["flush", "table", "inet", "knock_agent"],
        &["delete", "table", "inet", "knock_agent"],
    ] {
        nft(&net.router, edit);
        within_a_second(|| listing() == before, &edit.join(" "));
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some(), "{edit:?}");
    }
    // Its own changes are no reason for another one.
    let generation = || everything(&net.router);
    let settled = generation();
    sleep(Duration::from_millis(700));
    assert_eq!(generation(), settled, "handles change although nobody does anything");
}

#[test]
fn a_ruleset_saved_with_our_elements_gives_nobody_more_time() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 6"]));
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let due = Instant::now() + Duration::from_secs(6);
    let listed = net.router.run("nft", &["list", "ruleset"]).success().text();
    assert!(listed.contains("203.0.113.2"), "{listed}");
    // An administrator's reload: everything gone, and what was saved loaded again, with other times.
    let listed = listed.replace("timeout 6s", "timeout 1h").replace("expires 5s", "expires 59m");
    let file = home.path("saved.nft");
    std::fs::write(&file, format!("flush ruleset\n{listed}")).expect("a file");
    sleep(Duration::from_secs(2));
    nft(&net.router, &["-f", file.to_str().expect("a path")]);
    within_a_second(
        || {
            time_left(&net.router, "ssh", Family::V4.client_a())
                .is_none_or(|left| left < Duration::from_secs(6))
        },
        "the ledger's time counts",
    );
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
}

/// How long it takes from the end of `nft flush ruleset` until the last of so many grants is back, and in how many
/// transactions if they are to be counted: nft is too slow to show very many.
fn repair_time(grants: u32, counted: bool) -> (Duration, usize) {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 3600"]));
    home.guard(&net.router).success();
    let address = |n: u32| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
    let all: Vec<String> = (0..grants).map(|n| format!("{} timeout 1h", address(n))).collect();
    for some in all.chunks(10_000) {
        net.router.nft(&format!("add element inet knock_agent app_ssh_4 {{ {} }}\n", some.join(", ")));
    }
    let _agent = home.start(&net.router);
    let heard = home.path("monitor");
    let mut monitor = std::process::Command::new("stdbuf");
    monitor.args(["-oL", "nft", "monitor"]).stdout(std::fs::File::create(&heard).expect("a file"));
    let monitor = counted.then(|| net.router.background(monitor));
    sleep(Duration::from_millis(500));
    nft(&net.router, &["flush", "ruleset"]);
    let start = Instant::now();
    // One transaction brings table and grants; to ask nft for an element of a large set takes longer than a repair.
    while !is_guarded(&net.router) {
        assert!(start.elapsed() < Duration::from_secs(60), "{grants} grants are not back");
        sleep(Duration::from_millis(1));
    }
    let took = start.elapsed();
    let last = format!("{{ {} }}", address(grants - 1));
    nft(&net.router, &["get", "element", "inet", "knock_agent", "app_ssh_4", &last]);
    assert_silent(&net.b, Family::V4.router(), 2222);
    if !counted {
        return (took, 0);
    }
    // nft needs long to print what it hears of many elements.
    let text = || std::fs::read_to_string(&heard).expect("text");
    while text().matches("new generation").count() < 2 {
        assert!(start.elapsed() < Duration::from_secs(120), "nft hears nothing");
        sleep(Duration::from_millis(50));
    }
    sleep(Duration::from_millis(500));
    drop(monitor);
    let heard = text();
    let generations: Vec<&str> = heard.lines().filter(|line| line.contains("new generation")).collect();
    assert!(generations.iter().any(|line| line.ends_with("(nft)")), "the flush itself was not heard");
    (took, generations.iter().filter(|line| !line.ends_with("(nft)")).count())
}

#[test]
fn ten_thousand_grants_are_back_within_a_second_in_one_transaction() {
    let (took, transactions) = repair_time(10_000, true);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(transactions, 1);
}

#[test]
#[ignore = "prints how long repairs take, up to 100,000 grants"]
fn how_long_repairs_take() {
    for grants in [1, 1_000, 10_000, 100_000] {
        let (took, _) = repair_time(grants, false);
        eprintln!("{grants} grants: back after {took:?}");
    }
}

#[test]
fn a_program_that_keeps_deleting_the_table_is_fought_once_per_second() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let mut agent = home.start(&net.router);
    let (start, mut open_since) = (Instant::now(), Instant::now());
    let (mut repairs, mut longest) = (0, Duration::ZERO);
    while start.elapsed() < Duration::from_secs(12) {
        if is_guarded(&net.router) {
            longest = longest.max(open_since.elapsed());
            nft(&net.router, &["delete", "table", "inet", "knock_agent"]);
            open_since = Instant::now();
            repairs += 1;
        }
        sleep(Duration::from_millis(20));
    }
    assert!((12..=24).contains(&repairs), "{repairs} repairs in 12 s");
    assert!(longest < Duration::from_secs(3), "without a guard for {longest:?}");
    assert!(agent.is_alive());
    assert_eq!(home.log().matches("another program keeps changing our table").count(), 1, "{}", home.log());
}
