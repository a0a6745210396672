//! What the agent knows of what knock sequences opened, and what outlasts a reload, a flush and a restart.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::{elements, everything, flush_host, is_guarded};
use crate::forge::Forge;
use crate::knocks::knock_at;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_open, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    who_opened_what_is_told_and_revoked_and_outlasts_a_flush,
    reloads_and_restarts_keep_what_is_open_and_what_was_knocked_so_far,
    grants_by_knocks_can_be_taken_back_without_a_daemon_and_without_a_configuration,
}

const TO: Family = Family::V4;
const LIMIT: Duration = Duration::from_secs(20);

fn config(more: &str) -> Config {
    Config::ssh(&[
        "duration: 600",
        &format!(
            "sequence: [{{knocks: [1234, 5678, 9012], window: 60, closing: [9012, 9113]}}, {{knocks: [1111, 2223], name: short, duration: 300, strict: true}}{more}]"
        ),
    ])
}

/// The grants for an address: who and how, seconds left.
fn told(home: &Installation, host: &Namespace, address: IpAddr) -> Vec<(String, String, f64)> {
    let status: Value =
        serde_json::from_str(&home.verb(host, &["status", "--json"]).success().text()).unwrap();
    let rows = status["grants"].as_array().unwrap();
    rows.iter()
        .filter(|row| row["address"] == address.to_string())
        .map(|row| {
            assert_eq!((&row["kind"], &row["app"]), (&"service".into(), &"ssh".into()), "{row}");
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("by"), text("how"), row["expires_in_s"].as_f64().unwrap())
        })
        .collect()
}

/// Waits until what is told of an address has these names in front.
#[track_caller]
fn await_told(home: &Installation, host: &Namespace, address: IpAddr, wanted: &[(&str, &str)]) {
    let end = Instant::now() + LIMIT;
    loop {
        let told = told(home, host, address);
        let told: Vec<(&str, &str)> = told.iter().map(|(by, how, _)| (by.as_str(), how.as_str())).collect();
        if told == wanted {
            return;
        }
        assert!(Instant::now() < end, "{told:?} instead of {wanted:?}\n{}", home.log());
    }
}

#[test]
fn who_knocks_from_an_ipv4_address_in_ipv6_packets_is_revoked_by_that_address() {
    let net = Topology::new();
    let config = Config::ssh(&["duration: 600", "sequence: {knocks: [udp/1234, udp/5678, udp/4321]}"]);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    let to = Family::V6.router();
    let source: IpAddr = "::ffff:192.0.2.77".parse().unwrap();
    let open = || {
        let forge = Forge::new(&net.b);
        for (at, port) in [1234, 5678, 4321].into_iter().enumerate() {
            let from = (source, 4000 + u16::try_from(at).unwrap()).into();
            assert!(forge.datagram_by(to, from, (to, port).into(), b"k"));
            sleep(Duration::from_millis(100));
        }
        assert_eq!(elements(&net.router, "seq_ssh_6").len(), 1, "{}", home.log());
    };
    let revoke = || home.verb(&net.router, &["revoke", "ssh", &source.to_string()]).success();
    open();
    revoke();
    assert!(elements(&net.router, "seq_ssh_6").is_empty(), "{}", home.log());
    open();
    agent.kill();
    home.rewrite_config("nonsense");
    revoke();
    assert!(elements(&net.router, "seq_ssh_6").is_empty());
}

fn who_opened_what_is_told_and_revoked_and_outlasts_a_flush() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&config(""));
    let mut agent = home.start(&net.router);
    let (host, a, b) = (&net.router, TO.client_a(), TO.client_b());
    knock_at(&net.a, TO.router(), "1234,5678,9012");
    knock_at(&net.b, TO.router(), "1111,2223");
    knock_at(&net.b, Family::V6.router(), "1234,5678,9012");
    await_told(&home, host, a, &[("sequence 1", "sequence")]);
    await_told(&home, host, b, &[("short", "sequence")]);
    await_told(&home, host, Family::V6.client_b(), &[("sequence 1", "sequence")]);
    let log = home.log();
    assert!(log.contains("granted by a knock sequence") && log.contains(&a.to_string()), "{log}");
    // The port that was opened is told, those that were knocked at are not.
    let knocked = ["1234,", "tcp/1234", "tcp/5678", "tcp/9012", "tcp/1111", "tcp/2223"];
    assert!(knocked.iter().all(|port| !log.contains(port)), "{log}");
    // A strict one that ends is forgotten, also by what is put back.
    knock_at(&net.b, TO.router(), "4444");
    await_told(&home, host, b, &[]);
    home.grant(host, "ssh", b, 100);
    let left = |address| told(&home, host, address)[0].2;
    let before = left(a);
    let then = Instant::now();
    flush_host(host);
    let end = Instant::now() + LIMIT;
    while !is_guarded(host) {
        assert!(agent.is_alive() && Instant::now() < end);
    }
    assert_echoes(&net.a, TO.router(), 2222);
    assert_echoes(&net.b, Family::V6.router(), 2222);
    let after = left(a);
    assert!(after <= before && after >= before - then.elapsed().as_secs_f64() - 1.5, "{before} {after}");
    assert_eq!(elements(host, "seq_ssh_4").len(), 1);
    assert!(elements(host, "seq_ssh.300_4").is_empty());
    await_told(&home, host, a, &[("sequence 1", "sequence")]);
    // What was put back is a packet's to close, as before.
    knock_at(&net.b, Family::V6.router(), "9012,9113");
    assert_silent(&net.b, Family::V6.router(), 2222);
    assert_open(&net.b, TO.router(), 2222);
    home.verb(host, &["revoke", "ssh", &a.to_string()]).success();
    assert_silent(&net.a, TO.router(), 2222);
    await_told(&home, host, a, &[]);
    knock_at(&net.a, TO.router(), "1234,5678,9012");
    assert_open(&net.a, TO.router(), 2222);
    home.verb(host, &["revoke", "--all", "--app", "ssh"]).success();
    assert!(elements(host, "seq_ssh_4").is_empty() && elements(host, "app_ssh_4").is_empty());
    assert_silent(&net.a, TO.router(), 2222);
}

fn reloads_and_restarts_keep_what_is_open_and_what_was_knocked_so_far() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&config(""));
    let agent = home.start(&net.router);
    let (host, a, b) = (&net.router, TO.client_a(), TO.client_b());
    knock_at(&net.a, TO.router(), "1234,5678,9012");
    let ends = |address: IpAddr| {
        let all = elements(host, "seq_ssh_4");
        let found = all.into_iter().find(|element| element.key == address.to_string());
        Instant::now() + found.unwrap().expires.unwrap()
    };
    let due = ends(a);
    knock_at(&net.b, TO.router(), "1234");
    // Others before and after it move its place in every list.
    let more = ", {knocks: [77, 78, 1]}, {knocks: [1234, 99], window: 60}, {knocks: [5, udp/6]}";
    home.rewrite_config(config(more).text());
    agent.reload();
    knock_at(&net.b, TO.router(), "5678");
    agent.kill();
    let agent = home.start(host);
    knock_at(&net.b, TO.router(), "9012");
    assert_echoes(&net.b, TO.router(), 2222);
    assert_echoes(&net.a, TO.router(), 2222);
    let off = ends(a).max(due) - ends(a).min(due);
    assert!(off < Duration::from_secs(2), "the grant moved by {off:?}");
    await_told(&home, host, a, &[("", "sequence")]);
    await_told(&home, host, b, &[("sequence 1", "sequence")]);
    knock_at(&net.b, Family::V6.router(), "5,udp/6");
    assert_echoes(&net.b, Family::V6.router(), 2222);
    // Without sequences nothing is left of them, nor open by them.
    home.rewrite_config(Config::ssh(&["duration: 600"]).text());
    agent.reload();
    let listing = everything(host);
    assert!(!listing.contains("knock_at") && !listing.contains("ka:knock") && !listing.contains("seq_"));
    assert_silent(&net.a, TO.router(), 2222);
    await_told(&home, host, a, &[]);
}

fn grants_by_knocks_can_be_taken_back_without_a_daemon_and_without_a_configuration() {
    let net = Topology::new();
    let home = Installation::new(&config(""));
    let agent = home.start(&net.router);
    agent.kill();
    let (host, a) = (&net.router, TO.client_a());
    knock_at(&net.a, TO.router(), "1234,5678,9012,1111,2223");
    assert_eq!(told(&home, host, a).len(), 2);
    home.verb(host, &["revoke", "ssh", &a.to_string()]).success();
    assert_eq!(told(&home, host, a), []);
    knock_at(&net.b, TO.router(), "1234,5678,9012,1111,2223");
    home.rewrite_config("not: [good");
    home.verb(host, &["revoke", "ssh", &TO.client_b().to_string()]).success();
    for set in ["seq_ssh_4", "seq_ssh.300_4"] {
        assert!(elements(host, set).is_empty(), "{set}");
    }
    home.rewrite_config(Config::ssh(&[]).text());
}
