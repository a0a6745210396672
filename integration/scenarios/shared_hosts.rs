//! Hosts with a firewall of their own that drops by default.

use std::time::{Duration, Instant};

use super::forwarding::address_seen;
use crate::agent::Installation;
use crate::audit::{assert_quiet, obstacles};
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::knocking::{assert_step2_opens, knock, step1};
use crate::probe::{
    Reach, assert_echoes, assert_on_time, assert_silent, assert_udp_open, assert_udp_silent, tcp, when_silent,
};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    all_works_on_a_host_that_accepts_only_established_output_and_our_mark,
    all_works_on_a_host_that_accepts_established_packets_and_our_mark,
    a_stream_is_cut_on_a_host_that_accepts_established_packets,
    a_client_granted_one_lan_host_does_not_get_another_by_the_mark,
}

/// Everything is dropped but loopback, neighbour discovery, what `output` lets out, and our mark.
fn drop_by_default(established_in: bool) -> String {
    let established = if established_in { "ct state established accept\n" } else { "" };
    format!(
        "table inet host {{\n\
         chain input {{\ntype filter hook input priority filter; policy drop;\n\
         iif lo accept\n{established}\
         icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n\
         meta mark 24107 accept\n}}\n\
         chain forward {{\ntype filter hook forward priority filter; policy drop;\n{established}\
         icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n\
         meta mark 24107 accept\n}}\n\
         chain output {{\ntype filter hook output priority filter; policy drop;\n\
         oif lo accept\nct state established accept\n\
         icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n\
         meta mark 24107 accept\n}}\n}}\n"
    )
}

fn everything_works_through_the_mark(established_in: bool) {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.router, 2222, Habit::Echo),
        Server::udp(&net.router, 1194, Habit::Echo),
        Server::tcp(&net.lan, 22, Habit::Echo),
    ];
    net.router.nft(&drop_by_default(established_in));
    let config = Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &["duration: 60"])
        .app("vpn", "1194", "udp", "local", &["duration: 60"])
        .app("lan4", "2223", "tcp", "10.0.0.5:22", &["duration: 10"])
        .app("lan6", "2223", "tcp", "\"[fd00:5::5]:22\"", &["duration: 10"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for (family, lan) in [(Family::V4, "lan4"), (Family::V6, "lan6")] {
        let to = family.router();
        assert_silent(&net.a, to, 2222);
        step1(&net.a, to, "ssh");
        assert_step2_opens(&net.a, to, "ssh");
        assert_echoes(&net.a, to, 2222);
        assert_silent(&net.b, to, 2222);
        knock(&net.a, to, "vpn");
        assert_udp_open(&net.a, to, 1194);
        assert_udp_silent(&net.b, to, 1194);
        knock(&net.a, to, lan);
        let due = Instant::now() + Duration::from_secs(10);
        assert_echoes(&net.a, to, 2223);
        assert_silent(&net.b, to, 2223);
        assert_on_time(when_silent(&net.a, to, 2223, due + Duration::from_secs(3)), due);
    }
}

fn all_works_on_a_host_that_accepts_only_established_output_and_our_mark() {
    everything_works_through_the_mark(false);
}

fn all_works_on_a_host_that_accepts_established_packets_and_our_mark() {
    everything_works_through_the_mark(true);
}

fn a_stream_is_cut_on_a_host_that_accepts_established_packets() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Push), Server::tcp(&net.lan, 22, Habit::Push)];
    net.router.nft(&drop_by_default(true));
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &[]).app(
        "lan",
        "2223",
        "tcp",
        "10.0.0.5:22",
        &[],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    for (app, port) in [("ssh", 2222), ("lan", 2223)] {
        home.grant(&net.router, app, Family::V4.client_a(), 4);
        let due = Instant::now() + Duration::from_secs(4);
        let mut stream = crate::probe::dial(&net.a, (to, port).into(), Duration::from_secs(3)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let end = due + Duration::from_secs(4);
        let last = crate::server::last_piece(|piece| std::io::Read::read(&mut stream, piece), end);
        assert_on_time(last.expect("a stream"), due);
    }
}

fn a_client_granted_one_lan_host_does_not_get_another_by_the_mark() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.lan, 22, Habit::Echo), Server::tcp(&net.lan, 80, Habit::Echo)];
    net.router.nft(&drop_by_default(false));
    net.lan.run("ip", &["addr", "add", "10.0.0.6/24", "dev", "eth0"]).success();
    let config = Config::new(&[]).app("lan", "2223", "tcp", "10.0.0.5:22", &["duration: 60"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "lan");
    assert_echoes(&net.a, Family::V4.router(), 2223);
    for (host, port) in [("10.0.0.5", 80), ("10.0.0.6", 22), ("10.0.0.6", 2223), ("10.0.0.5", 2223)] {
        let to = (host.parse::<std::net::IpAddr>().unwrap(), port).into();
        assert_eq!(tcp(&net.a, to, Duration::from_millis(700)), Reach::Silent, "{host} port {port}");
    }
}

#[test]
fn without_a_mark_a_host_that_drops_by_default_stays_closed_and_the_audit_says_so() {
    let net = Topology::new();
    net.router.nft(
        "table inet host { chain input { type filter hook input priority filter; policy drop; iif lo accept; }; }",
    );
    let home = Installation::new(&Config::ssh(&[]));
    let checked = home.check(&net.router, &["check-ruleset", "--json"]);
    let report: serde_json::Value =
        serde_json::from_str(&checked.text()).unwrap_or_else(|e| panic!("{e}: {checked:?}"));
    let codes: Vec<&str> =
        report["findings"].as_array().unwrap().iter().filter_map(|f| f["code"].as_str()).collect();
    assert!(codes.contains(&"host-drops-by-default"), "{report:#}");
    let finding =
        report["findings"].as_array().unwrap().iter().find(|f| f["code"] == "host-drops-by-default").unwrap();
    assert!(
        finding["fix"].as_str().is_some_and(|fix| fix.contains("24107") || fix.contains("0x5e2b")),
        "{finding:#}"
    );
}

/// As kube-proxy has it: what it marked itself is sent on in the host's own name; a port of the host leads to a pod, which
/// is to see the client.
const KUBE_PROXY: &str = "*nat
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-NODEPORTS -p tcp --dport 30080 -j DNAT --to-destination 10.0.0.5:22
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE
COMMIT
";

#[test]
fn a_host_that_gives_a_bit_of_our_mark_a_meaning_is_told_and_the_mark_it_is_told_of_keeps_off() {
    let net = Topology::new();
    net.router.feed("iptables-nft-restore", &[], KUBE_PROXY.as_bytes()).success();
    let config = |global: &[&str]| Config::new(global).app("pod", "30080", "tcp", "local", &["duration: 60"]);
    let seen_by_the_pod = |home: &Installation| {
        home.grant(&net.router, "pod", Family::V4.client_a(), 60);
        address_seen(&net, Family::V4, 30_080)
    };
    let home = Installation::new(&config(&[]));
    let agent = home.start(&net.router);
    assert_ne!(seen_by_the_pod(&home), Family::V4.client_a(), "this is what is warned of");
    let found = obstacles(&home, &net.router);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity.as_str(), found[0].code.as_str()), ("warning", "mark-taken"));
    assert!(found[0].message.contains("bits 0x4000") && found[0].message.contains("ip nat KUBE-POSTROUTING"));
    let line = found[0].fix.lines().next().unwrap();
    let mark = line.split_once("mark: ").expect("a mark").1;
    drop(agent);
    home.rewrite_config(config(&[&format!("mark: {mark}")]).text());
    let _agent = home.start(&net.router);
    assert_quiet(&home, &net.router);
    assert_eq!(seen_by_the_pod(&home), Family::V4.client_a());
}
