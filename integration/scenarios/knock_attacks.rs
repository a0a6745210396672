//! What must not happen to knock sequences: that something else opens, that somebody loses what is open, that a
//! program of the host is cut off without a word.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::{Backend, on_both_iptables, on_every_firewall};
use crate::configuration::Config;
use crate::firewall::{elements, flush_host, is_guarded, remove_guard};
use crate::forge::Forge;
use crate::knocking::knock;
use crate::knocks::{knock_at, knock_from_port};
use crate::probe::{GENEROUS, assert_echo, assert_echoes, assert_open, assert_silent, dial};
use crate::server::{Habit, Server};
use crate::strangers::Stranger;
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_connection_of_before_to_a_port_that_is_knocked_at_lives_on_and_none_is_made_there,
}

on_both_iptables! {
    a_shorter_duration_at_a_reload_takes_nothing_away,
}

const TO: Family = Family::V4;

#[test]
fn nothing_but_syns_and_datagrams_to_this_host_is_a_knock() {
    only_syns_and_datagrams_to_this_host_are_knocks();
}

#[test]
fn nothing_but_syns_and_datagrams_is_a_knock_with_iptables() {
    Backend::IptablesLegacy.run(only_syns_and_datagrams_to_this_host_are_knocks);
}

fn only_syns_and_datagrams_to_this_host_are_knocks() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[
        "duration: 600",
        "sequence: [{knocks: [1234, 5678, 9012]}, {knocks: [udp/7001, udp/7002]}]",
    ]));
    let _agent = home.start(&net.router);
    let craft = |packets: &str| {
        let script = format!(
            "from scapy.all import *\nimport time\nto='203.0.113.1'; six='2001:db8:1::1'\n\
             def go(*all):\n  for p in all:\n    send(p, verbose=0); time.sleep(.1)\n\
             def tcp(make):\n  go(*[make(p) for p in (1234, 5678, 9012)])\n\
             def udp(make):\n  go(*[make(p) for p in (7001, 7002)])\n{packets}\n"
        );
        net.a.run("python3", &["-c", &script]).success();
    };
    let revoked = || home.verb(&net.router, &["revoke", "--all", "--app", "ssh"]).success();
    let opened = || elements(&net.router, "seq_ssh_4").len() + elements(&net.router, "seq_ssh_6").len();
    craft(
        "for flags in ('A', 'F', '', 'FPU', 'SA', 'SR', 'SF', 'R'):\n  tcp(lambda p: IP(dst=to)/TCP(dport=p, flags=flags))\n\
         # To everybody, to a group, to other protocols, inside errors, cut short, with a foreign port in front.\n\
         udp(lambda p: IP(dst='224.0.0.1', ttl=1)/UDP(dport=p))\n\
         udp(lambda p: IPv6(dst='ff02::1')/UDP(dport=p))\n\
         udp(lambda p: IP(dst=to, proto=136)/UDP(dport=p))\n\
         udp(lambda p: IP(dst=to)/ICMP(type=3, code=3)/IP(src=to, dst='203.0.113.2')/UDP(sport=p, dport=p))\n\
         tcp(lambda p: IP(dst=to, flags='MF')/Raw(bytes(TCP(dport=p, flags='S'))[:16]))\n\
         tcp(lambda p: IP(dst=to, frag=1)/Raw(bytes(TCP(dport=p, flags='S'))))\n\
         tcp(lambda p: IPv6(dst=six, nh=59)/Raw(bytes(TCP(dport=p, flags='S'))))",
    );
    let keys = |set: &str| format!("{:?}", elements(&net.router, set));
    assert_eq!(opened(), 0, "{} {}", keys("seq_ssh_4"), keys("seq_ssh_6"));
    // An address of the other family in disguise: the one it names is not let in, also not by what is put back.
    craft(
        "tcp(lambda p: IPv6(src='::ffff:203.0.113.3', dst=six)/TCP(dport=p, sport=RandShort(), flags='S'))",
    );
    knock_at(&net.a, Family::V6.router(), "1234,5678,9012");
    let end = Instant::now() + Duration::from_secs(20);
    while !home.log().contains(&Family::V6.client_a().to_string()) {
        assert!(Instant::now() < end);
    }
    flush_host(&net.router);
    while !is_guarded(&net.router) {
        assert!(Instant::now() < end);
    }
    assert_echoes(&net.a, Family::V6.router(), 2222);
    assert_silent(&net.b, TO.router(), 2222);
    revoked();
    // The same tools, with the right packets: in pieces, with options and with headers between, they count.
    for (right, family) in [
        (
            "tcp(lambda p: IP(dst=to, options=IPOption_NOP())/TCP(dport=p, sport=RandShort(), flags='SEC'))",
            TO,
        ),
        (
            "tcp(lambda p: IPv6(dst=six)/IPv6ExtHdrDestOpt()/TCP(dport=p, sport=RandShort(), flags='S'))",
            Family::V6,
        ),
    ] {
        assert_silent(&net.a, family.router(), 2222);
        craft(right);
        assert_echoes(&net.a, family.router(), 2222);
    }
    revoked();
    craft("udp(lambda p: fragment(IP(dst=to)/UDP(dport=p, sport=RandShort())/(b'k' * 600), 304))");
    assert_echoes(&net.a, TO.router(), 2222);
}

#[test]
fn a_syn_is_known_again_as_long_as_connect_repeats_it() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["sequence: {knocks: [1234, 5678], strict: true}"]));
    let _agent = home.start(&net.router);
    knock_from_port(&net.a, 40_001, TO.router(), "1234");
    let listing =
        net.router.run("nft", &["list", "set", "inet", "knock_agent", "knock_seen4"]).success().text();
    assert!(listing.contains("203.0.113.2 . 40001 . 1234 timeout 1m10s"), "{listing}");
}

fn a_connection_of_before_to_a_port_that_is_knocked_at_lives_on_and_none_is_made_there() {
    let net = Topology::new();
    let _services =
        [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 5678, Habit::Echo)];
    for family in Family::BOTH {
        let to = family.router();
        let before = dial(&net.a, (to, 5678).into(), GENEROUS).unwrap();
        let home =
            Installation::new(&Config::ssh(&["duration: 600", "sequence: {knocks: [1234, 5678, 9012]}"]));
        let told = home.check(&net.router, &["check-ruleset"]);
        let text = told.text() + &told.stderr;
        assert!(text.contains("-> a port of a knock sequence"), "{text}");
        // With iptables, nobody looks who listens.
        let said = text.contains("tcp port that a sequence knocks at: nobody outside");
        assert!(said || Backend::current().is_iptables(), "{text}");
        let agent = home.start(&net.router);
        assert_silent(&net.a, to, 5678);
        assert_echo(before.try_clone().unwrap());
        // Its packets are no knocks, and disturb none.
        knock_at(&net.a, to, "1234");
        assert_echo(before);
        knock_at(&net.a, to, "5678,9012");
        assert_echoes(&net.a, to, 2222);
        agent.terminate();
        let log = home.log_without_times();
        assert!(!log.contains("5678"), "{log}");
        remove_guard(&net.router);
    }
}

#[test]
fn other_durations_and_once_at_a_reload_take_nothing_away() {
    let net = Topology::new();
    let _services =
        [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 2223, Habit::Echo)];
    let config = |ssh: &str, more: &str| {
        Config::new(&[])
            .app("ssh", "2222", "tcp", "local", &["duration: 600", &format!("sequence: [{ssh}]"), more])
            .app(
                "one",
                "2223",
                "tcp",
                "local",
                &["duration: 600", "once: true", "sequence: {knocks: [77, 78]}"],
            )
    };
    let both = "{knocks: [1234, 5678], duration: 1h}, {knocks: [1234, 9012]}";
    let home = Installation::new(&config(both, "once: false"));
    let agent = home.start(&net.router);
    let to = TO.router();
    knock_at(&net.a, to, "1234,5678");
    knock_at(&net.b, to, "1234,9012");
    knock_at(&net.b, to, "77,78");
    let once = dial(&net.b, (to, 2223).into(), GENEROUS).unwrap();
    // The longer one goes, and with it the name of the set that it shared with nobody.
    home.rewrite_config(config("{knocks: [1234, 9012]}", "once: false").text());
    agent.reload();
    assert_echoes(&net.a, to, 2222);
    assert_echoes(&net.b, to, 2222);
    let status = home.verb(&net.router, &["status", "--json"]).success().text();
    let told: serde_json::Value = serde_json::from_str(&status).unwrap();
    for address in [TO.client_a(), TO.client_b()] {
        let is = |row: &serde_json::Value| row["app"] == "ssh" && row["address"] == address.to_string();
        assert!(told["grants"].as_array().unwrap().iter().any(is), "{status}");
    }
    // What was given for an hour is not cut down by a knock for ten minutes.
    knock_at(&net.a, to, "1234,9012");
    let left = crate::firewall::time_left(&net.router, "ssh", TO.client_a()).unwrap();
    assert!(left.as_secs() > 3_000, "{left:?}");
    // `once` makes the table anew: connections that closed a door behind them go on, and so do grants.
    home.rewrite_config(config("{knocks: [1234, 9012]}", "once: true").text());
    agent.reload();
    assert_echo(once.try_clone().unwrap());
    assert_silent(&net.b, to, 2223);
    // Two grants, by two sequences, are one connection all the same.
    let first = dial(&net.a, (to, 2222).into(), GENEROUS).unwrap();
    assert_silent(&net.a, to, 2222);
    assert_echo(first.try_clone().unwrap());
    home.rewrite_config(config("{knocks: [1234, 9012]}", "once: false").text());
    agent.reload();
    assert_open(&net.b, to, 2222);
    assert_silent(&net.a, to, 2222);
    knock_at(&net.a, to, "1234,9012");
    assert_echo(first);
    assert_echo(once);
}

fn a_shorter_duration_at_a_reload_takes_nothing_away() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = |sequences: &str| Config::ssh(&["duration: 60", &format!("sequence: [{sequences}]")]);
    let home = Installation::new(&config("{knocks: [1234, 5678], duration: 1h}, {knocks: [1234, 9012]}"));
    let agent = home.start(&net.router);
    let to = TO.router();
    knock_at(&net.a, to, "1234,5678");
    knock_at(&net.b, to, "1234,9012");
    home.rewrite_config(config("{knocks: [1234, 9012]}").text());
    agent.reload();
    assert_echoes(&net.a, to, 2222);
    assert_echoes(&net.b, to, 2222);
    // What was given for an hour is not cut down by a knock for a minute.
    knock_at(&net.a, to, "1234,9012");
    let left = crate::firewall::time_left(&net.router, "ssh", TO.client_a()).unwrap();
    assert!(left.as_secs() > 3_000, "{left:?}");
    home.rewrite_config(Config::ssh(&["duration: 60"]).text());
    agent.reload();
    assert!(!crate::firewall::has_set(&net.router, "seq_ssh_4"));
}

#[test]
fn what_a_family_cannot_reach_is_not_opened_nor_told() {
    let net = Topology::new();
    let lan = ["duration: 600", "sequence: {knocks: [1234, 5678]}"];
    let home = Installation::new(&Config::new(&[]).app("lan", "2223", "tcp", "10.0.0.5:22", &lan));
    let _agent = home.start(&net.router);
    knock_at(&net.a, Family::V6.router(), "1234,5678");
    knock_at(&net.a, TO.router(), "1234,5678");
    let end = Instant::now() + Duration::from_secs(20);
    while !home.log().contains("granted by a knock sequence") {
        assert!(Instant::now() < end);
    }
    assert!(elements(&net.router, "seq_lan_6").is_empty());
    assert!(!home.log().contains(&Family::V6.client_a().to_string()), "{}", home.log());
}

#[test]
fn a_burst_of_a_known_sequence_keeps_nobody_from_being_heard_where_grants_are_kept() {
    const MANY: u32 = 8_000;
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let state = home.path("state/grants");
    let kept = format!("state_file: {}", state.display());
    let sequence = ["duration: 600", "sequence: {knocks: [udp/7001, udp/7002]}"];
    home.rewrite_config(Config::new(&[&kept]).app("ssh", "2222", "tcp", "local", &sequence).text());
    let _agent = home.start(&net.router);
    Stranger::settle(&net);
    let forge = Forge::new(&net.b);
    for stranger in 0..MANY {
        for port in [7001, 7002] {
            let source = (Stranger(stranger).address(TO), 40_000).into();
            while !forge.datagram(source, (TO.router(), port).into(), b"k") {
                sleep(Duration::from_millis(1));
            }
        }
    }
    let begin = Instant::now();
    knock(&net.a, TO.router(), "ssh");
    assert_echoes(&net.a, TO.router(), 2222);
    let one = Stranger(MANY / 2).address(TO).to_string();
    home.verb(&net.router, &["revoke", "ssh", &one]).success();
    // Whoever is told that something was taken back can rely on it.
    let quoted = format!("\"{one}\"");
    assert!(!fs::read_to_string(&state).unwrap().contains(&quoted));
    home.verb(&net.router, &["status"]).success();
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}\n{}", home.log());
    let last = format!("\"{}\"", Stranger(MANY - 1).address(TO));
    while !fs::read_to_string(&state).is_ok_and(|text| text.contains(&last)) {
        assert!(begin.elapsed() < Duration::from_secs(25), "what packets opened is not kept\n{}", home.log());
        sleep(Duration::from_millis(50));
    }
    assert!(!fs::read_to_string(&state).unwrap().contains(&quoted));
}
