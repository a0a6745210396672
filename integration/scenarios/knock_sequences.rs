//! Knock sequences that the kernel enforces by itself.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use crate::agent::{Installation, PROGRAM};
use crate::backend::{Backend, on_both_iptables, on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::firewall::{elements, is_guarded};
use crate::knocks::{knock_at, knock_from_port, once, slowly};
use crate::probe::{
    assert_echoes, assert_on_time, assert_silent, assert_udp_open, assert_udp_silent, when_silent,
};
use crate::server::{Habit, Server};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_wrong_an_extra_or_a_missing_knock_does_not_open,
    a_repeated_syn_is_no_further_knock_however_late_it_comes,
    with_a_dead_agent_sequences_open_and_close,
    a_sequence_from_a_link_local_address_opens_for_no_neighbours,
}

on_both_iptables! {
    who_is_too_slow_or_says_too_little_has_to_begin_again,
}

without_ipset! {
    a_wrong_an_extra_or_a_missing_knock_does_not_open,
    with_a_dead_agent_sequences_open_and_close,
    who_is_too_slow_or_says_too_little_has_to_begin_again,
}

const V4: Family = Family::V4;

/// The seed's defaults, with what its rules did besides: 1234, 5678, 9012 open port 2222 within and for 10 s, and a
/// wrong knock closes it again.
fn seed() -> Config {
    ssh("{knocks: [1234, 5678, 9012], window: 10, strict: true}")
}

fn ssh(sequence: &str) -> Config {
    Config::ssh(&[&format!("sequence: {sequence}")])
}

/// How many addresses of both families a kind of set holds.
fn open(net: &Topology, stem: &str) -> usize {
    Family::BOTH.iter().map(|family| elements(&net.router, &format!("{stem}_{}", family.digit())).len()).sum()
}

#[test]
fn the_right_order_opens_for_the_one_who_knocked_and_ends_on_time() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&seed());
    let _agent = home.start(&net.router);
    let mut due = Vec::new();
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        slowly(&net.a, family.router(), "1234,5678", Duration::from_millis(300));
        assert_silent(&net.a, family.router(), 2222);
        let before = Instant::now();
        knock_at(&net.a, family.router(), "9012");
        due.push((family, before + Duration::from_secs(10), Instant::now() + Duration::from_secs(10)));
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
        for port in [1234, 5678, 9012] {
            assert_silent(&net.b, family.router(), port);
        }
    }
    for (family, earliest, latest) in due {
        let closed = when_silent(&net.a, family.router(), 2222, latest + Duration::from_secs(3));
        assert_on_time(closed, closed.clamp(earliest, latest));
    }
}

fn a_wrong_an_extra_or_a_missing_knock_does_not_open() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&seed());
    let _agent = home.start(&net.router);
    let sources = [(&net.a, V4), (&net.b, V4), (&net.a, Family::V6), (&net.b, Family::V6)];
    // In turns, because a source that knocks faster than four times a second is wrong anyway.
    let wrongs = [
        // The seed's demonstration: an extra knock closes the door again.
        "1234,5678,9012,5676",
        "1234,5678,5676,9012",
        "1234,9012,5678",
        "1234,5678,udp/9012",
        "1234,5678,udp/53,9012",
        "5678,9012",
        "1234,5678",
        "9012,5678,1234",
        "1234,5678,9012,9012,5678",
    ];
    let some = if Backend::current().is_iptables() { sources.len() } else { wrongs.len() };
    for ((client, family), wrong) in sources.into_iter().cycle().zip(wrongs).take(some) {
        knock_at(client, family.router(), wrong);
        assert_silent(client, family.router(), 2222);
        // Somewhere else, so that the next one begins anew.
        knock_at(client, family.router(), "4444");
    }
    for (client, family) in sources {
        knock_at(client, family.router(), "9012,1234,1234,5678,1234,5678,5678,9012");
        assert_echoes(client, family.router(), 2222);
    }
}

/// Knocks at the router's address of the link, from the address of the link.
const ON_THE_LINK: &str = r#"
import socket, sys, time
scope = socket.if_nametoindex("eth0")
for port in (1234, 5678, 9012):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    s.setblocking(False)
    s.connect_ex((sys.argv[1], port, 0, scope))
    time.sleep(0.2)
    s.close()
"#;

fn a_sequence_from_a_link_local_address_opens_for_no_neighbours() {
    for (prefix, opens) in [(64, 0), (128, 1)] {
        let net = Topology::new();
        let home = Installation::new(&Config::new(&[&format!("ipv6_prefix: {prefix}")]).app(
            "ssh",
            "2222",
            "tcp",
            "local",
            &["sequence: {knocks: [1234, 5678, 9012], window: 10}"],
        ));
        let _agent = home.start(&net.router);
        let listing = net.router.run("ip", &["-6", "addr", "show", "dev", "ext0", "scope", "link"]).success();
        let listing = listing.text();
        let to = listing.split_whitespace().find(|word| word.starts_with("fe80")).expect("an address");
        let to = to.split('/').next().unwrap();
        net.a.run("python3", &["-c", ON_THE_LINK, to]).success();
        assert_eq!(elements(&net.router, "seq_ssh_6").len(), opens, "with ipv6_prefix {prefix}");
        knock_at(&net.b, Family::V6.router(), "1234,5678,9012");
        assert_eq!(elements(&net.router, "seq_ssh_6").len(), opens + 1, "with ipv6_prefix {prefix}");
    }
}

#[test]
fn the_window_is_for_the_whole_sequence() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&seed());
    let agent = home.start(&net.router);
    slowly(&net.a, V4.router(), "1234,5678,9012", Duration::from_secs(7));
    assert_silent(&net.a, V4.router(), 2222);
    // Who begins again has the whole time again.
    slowly(&net.a, V4.router(), "1234,1234", Duration::from_secs(6));
    slowly(&net.a, V4.router(), "5678,9012", Duration::from_secs(6));
    assert_echoes(&net.a, V4.router(), 2222);
    home.rewrite_config(ssh("{knocks: [1234, 5678, 9012], window: 60, knock_window: 2}").text());
    agent.reload();
    slowly(&net.b, V4.router(), "1234,5678,9012", Duration::from_secs(3));
    assert_silent(&net.b, V4.router(), 2222);
}

fn who_is_too_slow_or_says_too_little_has_to_begin_again() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&ssh(
        "[{knocks: [1234, udp/5678/3, 9012], window: 5}, {knocks: [77, udp/78/0], window: 60, knock_window: 2}]",
    ));
    let _agent = home.start(&net.router);
    let to = [V4.router(), Family::V6.router()];
    scope(|threads| {
        threads.spawn(|| slowly(&net.a, to[0], "1234,udp/5678/3,9012", Duration::from_secs(3)));
        threads.spawn(|| slowly(&net.b, to[1], "77,udp/78/0", Duration::from_secs(3)));
    });
    knock_at(&net.a, to[0], "1234,udp/5678/4,9012");
    knock_at(&net.b, to[1], "77,udp/78/1");
    assert_silent(&net.a, to[0], 2222);
    assert_silent(&net.b, to[1], 2222);
    knock_at(&net.a, to[0], "1234,udp/5678/3,9012");
    assert_echoes(&net.a, to[0], 2222);
    knock_at(&net.b, to[1], "77,udp/78/0");
    assert_echoes(&net.b, to[1], 2222);
}

#[test]
fn datagrams_lengths_both_protocols_repeated_ports_and_shared_beginnings() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let _dns = Server::udp(&net.router, 5353, Habit::Echo);
    let config = Config::new(&[])
        .app(
            "ssh",
            "2222",
            "tcp",
            "local",
            &[
                "duration: 600",
                "sequence: [{knocks: [udp/7000, 8000, udp/9000]}, {knocks: [udp/7000, 8000, 7000]}]",
            ],
        )
        .app("lan", "2223", "tcp", "10.0.0.5:22", &["duration: 600", "sequence: {knocks: [7, 7, 9, 7]}"])
        .app("dns", "5353", "udp", "local", &["duration: 600", "sequence: {knocks: [udp/77/20, udp/77/0]}"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let to = V4.router();
    knock_at(&net.a, Family::V6.router(), "udp/7000,8000,7000");
    assert_echoes(&net.a, Family::V6.router(), 2222);
    knock_at(&net.b, Family::V6.router(), "udp/7000,8000,udp/9000");
    assert_echoes(&net.b, Family::V6.router(), 2222);
    knock_at(&net.a, to, "7,9,7");
    assert_silent(&net.a, to, 2223);
    knock_at(&net.a, to, "7,7,9,7");
    assert_echoes(&net.a, to, 2223);
    assert_silent(&net.a, to, 2222);
    for wrong in ["udp/77/19,udp/77/0", "udp/77/20,udp/77/1", "udp/77/0,udp/77/20", "77,udp/77/0"] {
        knock_at(&net.a, to, wrong);
        assert_udp_silent(&net.a, to, 5353);
    }
    knock_at(&net.a, to, "udp/77/20,udp/77/0");
    assert_udp_open(&net.a, to, 5353);
    assert_udp_silent(&net.b, to, 5353);
}

fn a_repeated_syn_is_no_further_knock_however_late_it_comes() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&ssh("{knocks: [1234, 1234, 9012], duration: 600}"));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router();
        for (source, knock) in [(40_001, "1234"), (40_001, "1234"), (40_002, "9012")] {
            knock_from_port(&net.a, source, to, knock);
        }
        assert_silent(&net.a, to, 2222);
        let late = [(40_003, "1234"), (40_004, "1234"), (40_003, "1234"), (40_004, "1234"), (40_005, "9012")];
        for (source, knock) in late {
            knock_from_port(&net.a, source, to, knock);
        }
        assert_echoes(&net.a, to, 2222);
    }
}

fn with_a_dead_agent_sequences_open_and_close() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&ssh("{knocks: [1234, 5678, 9012], window: 60, duration: 5}"));
    let agent = home.start(&net.router);
    knock_at(&net.a, V4.router(), "1234,5678");
    agent.kill();
    knock_at(&net.a, V4.router(), "9012");
    let due = Instant::now() + Duration::from_secs(5);
    assert_echoes(&net.a, V4.router(), 2222);
    assert_silent(&net.b, V4.router(), 2222);
    assert_on_time(when_silent(&net.a, V4.router(), 2222, due + Duration::from_secs(3)), due);
}

#[test]
fn a_scan_of_all_ports_opens_nothing_and_hinders_nobody_else() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let sequences = "[{knocks: [1234, 5678, 9012], duration: 600}, {knocks: [udp/1234, udp/5678, udp/9012], duration: 600}]";
    let home = Installation::new(&ssh(sequences));
    let _agent = home.start(&net.router);
    let scan = |protocol: &str| {
        net.b.enter(|| {
            for port in 1..=u16::MAX {
                once(None, V4.router(), format!("{protocol}/{port}").parse().unwrap());
            }
        });
    };
    scan("tcp");
    assert_eq!(open(&net, "seq_ssh"), 0);
    let done = AtomicBool::new(false);
    scope(|threads| {
        threads.spawn(|| {
            scan("udp");
            done.store(true, Ordering::Relaxed);
        });
        knock_at(&net.a, V4.router(), "1234,5678,9012");
        assert_echoes(&net.a, V4.router(), 2222);
    });
    assert!(done.load(Ordering::Relaxed));
    assert_eq!(open(&net, "seq_ssh"), 1);
    assert_silent(&net.b, V4.router(), 2222);
    // A scan from the address itself may spoil a knock, but takes nothing back that is not strict.
    net.a.enter(|| {
        for port in 9000..9100 {
            once(None, V4.router(), format!("tcp/{port}").parse().unwrap());
        }
    });
    assert_echoes(&net.a, V4.router(), 2222);
}

#[test]
fn clients_behind_one_address_may_disturb_each_other_and_never_open_wrongly() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&ssh("{knocks: [1234, 5678, 9012], duration: 600}"));
    let _agent = home.start(&net.router);
    // Two behind `a`, one of whom knocks something else meanwhile.
    knock_at(&net.a, V4.router(), "1234,443,5678,9012");
    assert_silent(&net.a, V4.router(), 2222);
    // Two at the same time: both want the same.
    knock_at(&net.a, V4.router(), "1234,1234,5678,5678,9012,9012");
    assert_echoes(&net.a, V4.router(), 2222);
    // From two addresses, one after the other.
    knock_at(&net.b, V4.router(), "1234");
    knock_at(&net.a, V4.router(), "1234,5678");
    knock_at(&net.b, V4.router(), "5678");
    assert_silent(&net.b, V4.router(), 2222);
    knock_at(&net.b, V4.router(), "9012");
    assert_echoes(&net.b, V4.router(), 2222);
}

#[test]
fn without_a_configuration_it_guards_one_port_and_listens_nowhere() {
    guards_one_port_and_listens_nowhere();
}

#[test]
fn without_a_configuration_it_guards_one_port_by_iptables() {
    Backend::IptablesNft.run(guards_one_port_and_listens_nowhere);
}

fn guards_one_port_and_listens_nowhere() {
    let net = Topology::new();
    let _services =
        [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 8080, Habit::Echo)];
    let folder = TempDir::new();
    let folder = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--sequence", "1234,5678,9012", "--protected-port", "2222", "--window", "6.0"]);
    command.args(Backend::current().flags());
    command.args(["--runtime-dir", &folder("run"), "--state-dir", &folder("state")]).stdin(Stdio::null());
    let _agent = net.router.background(command);
    let end = Instant::now() + Duration::from_secs(20);
    while !is_guarded(&net.router) {
        assert!(Instant::now() < end);
    }
    let to = V4.router();
    assert_silent(&net.a, to, 2222);
    assert_echoes(&net.a, to, 8080);
    // There is no file that could be wrong, and no step that could be missing.
    let beside = ["--runtime-dir", &folder("run"), "--config", &folder("none.yaml")];
    let health = [&["health"], beside.as_slice(), Backend::current().flags()].concat();
    let well = net.router.run(PROGRAM, &health).success().text();
    assert!(well.starts_with("ok: "), "{well}");
    let client = V4.client_a().to_string();
    let shut_out = net.router.run(PROGRAM, &[&["explain", &client, "--json"], beside.as_slice()].concat());
    assert!(!shut_out.text().contains("step-not-listening"), "{}", shut_out.text());
    assert!(!shut_out.text().contains("bad-configuration"), "{}", shut_out.text());
    assert!(!shut_out.stderr.contains("none.yaml"), "{}", shut_out.stderr);
    knock_at(&net.a, to, "1234,5678,9012,5676");
    assert_silent(&net.a, to, 2222);
    knock_at(&net.b, to, "1234,5678,9012");
    let due = Instant::now() + Duration::from_secs(6);
    assert_echoes(&net.b, to, 2222);
    assert_silent(&net.a, to, 2222);
    let listeners = net.router.run("ss", &["-Hltunp"]).success().text();
    assert!(!listeners.contains("knock-agent"), "{listeners}");
    assert_on_time(when_silent(&net.b, to, 2222, due + Duration::from_secs(3)), due);
    let vain = net.router.run(PROGRAM, &["run", "--sequence", "1234,2222"]).exits(2);
    assert!(
        vain.stderr.contains("guarded for `protected`") && !vain.stderr.contains("1234"),
        "{}",
        vain.stderr
    );
    for words in ["", "1234,", "1234,x", "tcp/1234/5"] {
        let vain = net.router.run(PROGRAM, &["run", "--sequence", words]).exits(2);
        assert!(
            vain.stderr.contains("not a list of knocks") && !vain.stderr.contains("1234,x"),
            "{}",
            vain.stderr
        );
    }
}
