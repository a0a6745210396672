//! `knock-agent explain` of knocks that are lost on their way: the host's rules drop what follows the first packet, or the
//! answers, or the daemon understands nothing of what comes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::explain::{Scene, has_also, next, two_apps};
use super::users::proof_of;
use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::hosts::{Vyos, load};
use crate::knocking::{STEP1_PORT, STEP2_PORT, form, knock, post_step1, post_step2, step1, step2};
use crate::probe::{GENEROUS, assert_echo, dial};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    answers_to_a_knock_that_the_host_drops_with_every_firewall,
}

const OFTEN: &str = "step1_2_rate_limit_per_minute: 60";

fn message(value: &Value) -> &str {
    value["message"].as_str().unwrap()
}

fn also<'v>(value: &'v Value, cause: &str) -> &'v Value {
    let all = value["also"].as_array().unwrap();
    all.iter().find(|note| note["cause"] == cause).unwrap_or_else(|| panic!("{value:#}"))
}

fn in_table(hook: &str, rules: &str) -> String {
    format!("table inet t {{ chain c {{ type filter hook {hook} {rules}; }}\n}}")
}

/// A rule of the host, the step that it disturbs, and what is said of it.
type Case = (&'static str, &'static str, u8, &'static str);

const LOST: [Case; 9] = [
    ("output priority 0; policy drop;", "ct state established accept", 1, "it gets no answer of step 1"),
    ("output priority 0;", "ct state untracked drop", 1, "it gets no answer of step 1"),
    ("postrouting priority 0;", "tcp sport 8080 drop", 1, "it gets no answer of step 1"),
    ("output priority 0;", "ip daddr 203.0.113.2 drop", 1, "what has its address (output)"),
    ("input priority 0;", "tcp dport 8080 ip length > 100 drop", 1, "what it sends does not arrive"),
    ("input priority 0;", "tcp dport 8080 @ih,0,32 0x504f5354 drop", 1, "what it sends does not arrive"),
    ("output priority 0;", "tcp sport 8443 drop", 2, "it gets no answer of step 2"),
    ("output priority 0;", "tcp sport 8443 tcp flags & psh == psh drop", 2, "it gets no answer of step 2"),
    ("input priority 0;", "tcp dport 8443 tcp flags & psh == psh drop", 2, "what it sends does not arrive"),
];

#[test]
fn a_host_that_drops_the_answer_to_a_knock_or_what_follows_it() {
    let net = Topology::new();
    let config = Config::new(&[OFTEN]).app(
        "ssh",
        "2222",
        "tcp",
        "local",
        &["duration: 60", "step2_https_duration: 3"],
    );
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _ssh = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, to, a) = (&net.router, Family::V4.router(), Family::V4.client_a());
    // What is lost is not sent again when the rule is gone and its client as well.
    net.a.sysctl("net/ipv4/tcp_orphan_retries", "1");
    for (hook, rule, step, text) in LOST {
        router.nft(&in_table(hook, rule));
        // Before it knocks, and afterwards.
        let value = scene.explain(a, "ssh");
        assert!(value["cause"] == "knock-blocked" || has_also(&value, "knock-blocked"), "{rule} {value:#}");
        step1(&net.a, to, "ssh");
        assert_eq!(step2(&net.a, to, "ssh"), None, "{rule}");
        let value = scene.a("knock-blocked");
        let heard = if step == 1 { "step1-unheard" } else { "step2-missing" };
        let beside = has_also(&value, heard) || step == 2 && has_also(&value, "step2-unheard");
        let place = format!("step {step} (tcp/");
        assert!(message(&value).contains(text) && message(&value).contains(&place), "{rule} {value:#}");
        assert!(message(&value).contains("chain inet t c") && beside, "{rule} {value:#}");
        let remedy = next(&value);
        let line =
            remedy.lines().find(|line| line.starts_with("nft ")).unwrap_or_else(|| panic!("{value:#}"));
        router.run("sh", &["-c", line]).success();
        knock(&net.a, to, "ssh");
        scene.a("granted");
        home.verb(router, &["revoke", "ssh", &a.to_string()]).success();
        router.nft("delete table inet t");
        // Step 2 is closed again, so that the next case begins anew.
        std::thread::sleep(Duration::from_secs(3));
    }
}

fn answers_to_a_knock_that_the_host_drops_with_every_firewall() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[OFTEN, "mark: 0x5e2b"]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _ssh = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, to) = (&net.router, Family::V4.router());
    router.nft(&in_table("output priority 0; policy drop;", "ct state established accept"));
    step1(&net.a, to, "ssh");
    let value = scene.a("knock-blocked");
    assert!(message(&value).contains("it gets no answer of step 1"), "{value:#}");
    router.nft("delete table inet t");
    // What accepts our mark, there and back, keeps nothing away; iptables marks at priority 0.
    router.nft(&in_table(
        "input priority 10; policy drop;",
        "ct state established accept; meta mark 0x5e2b accept; icmpv6 type nd-neighbor-solicit accept",
    ));
    router.nft("table inet t { chain o { type filter hook output priority 10; policy drop; ct state established accept; meta mark 0x5e2b accept; }\n}");
    let value = scene.explain(Family::V4.client_a(), "ssh");
    assert!(value["cause"] != "knock-blocked" && !has_also(&value, "knock-blocked"), "{value:#}");
    knock(&net.a, to, "ssh");
    scene.a("granted");
}

#[test]
fn a_rule_with_a_rate_that_may_have_taken_a_knock_comes_before_a_wrong_path() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[OFTEN]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (router, to) = (&net.router, Family::V4.router());
    router.nft(&in_table("input priority 0;", "tcp dport 8080 limit rate over 1/hour burst 1 packets drop"));
    let value = scene.a("not-knocked");
    assert!(has_also(&value, "rate-rule"), "{value:#}");
    for _ in 0..2 {
        post_step1(&net.a, to, "/another-path", &form("ssh", &http_key("ssh")));
    }
    let value = scene.a("rate-rule");
    assert!(message(&value).contains("chain inet t c"), "{value:#}");
    let beside = also(&value, "step1-unheard");
    let what = beside["next"].to_string();
    assert!(message(beside).contains("wrong path") && what.contains("step1_max_bytes"), "{value:#}");
    assert!(!what.contains("clock"), "{value:#}");
}

#[test]
fn a_step_2_that_is_not_understood_and_a_proof_by_a_wrong_clock() {
    let net = Topology::new();
    let global = [
        OFTEN,
        "http_post_path_secret: abcdefghijklmnop0123",
        "users: {alice: {access_key_http: alice-http-key-1, access_key_https: alice-https-key-1}}",
    ];
    let changing =
        Installation::new(&Config::new(&global).app("ssh", "2222", "tcp", "local", &["duration: 60"]));
    let net_scene = Scene { net: &net, home: &changing };
    let agent = changing.start(&net.router);
    let to = Family::V4.router();
    post_step1(&net.a, to, STEP1_PATH, &form("ssh", &http_key("ssh")));
    let value = net_scene.a("step1-unheard");
    assert!(next(&value).contains("http_post_path_secret") && next(&value).contains("date -u"), "{value:#}");
    agent.terminate();

    let home = Installation::new(&Config::new(&[global[0], global[2]]).app(
        "ssh",
        "2222",
        "tcp",
        "local",
        &["duration: 60", "step2_https_duration: 30"],
    ));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (a, b) = (Family::V4.client_a(), Family::V4.client_b());
    step1(&net.a, to, "ssh");
    scene.a("step2-missing");
    let reply = post_step2(&net.a, to, "/another-path", &form("ssh", &https_key("ssh")), &[]).unwrap();
    assert_eq!(reply.status, 404);
    let value = scene.a("step2-unheard");
    assert!(message(&value).contains("wrong path") && next(&value).contains("https_post_path"), "{value:#}");
    assert!(!has_also(&value, "step1-elsewhere"), "{value:#}");
    // In plain text, to another client's step 2.
    step1(&net.b, to, "ssh");
    let url = format!("http://{to}:{STEP2_PORT}{STEP2_PATH}");
    net.b.run("curl", &["-sS", "-m", "4", "-d", &form("ssh", &https_key("ssh")), &url]);
    let value = scene.says(&net.b, b, "ssh", 2222, "step2-unheard");
    assert!(message(&value).contains("plain HTTP"), "{value:#}");
    // What was understood is told as before.
    post_step2(&net.a, to, STEP2_PATH, &form("ssh", "a-key-that-is-wrong"), &[]);
    let value = scene.a("knock-refused");
    assert!(!has_also(&value, "step1-elsewhere"), "{value:#}");

    // A proof of another time is one of no key.
    let nonce = "00112233445566778899aabbccddeeff";
    let late = proof_of(&net.a, "alice-http-key-1", "alice", &a.to_string(), nonce);
    let (start, end) = late.split_at(late.len() - 1);
    let wrong = format!("{start}{}", if end == "0" { "1" } else { "0" });
    post_step1(&net.a, to, STEP1_PATH, &wrong);
    let value = scene.a("knock-refused");
    assert!(message(&value).contains("a proof of no key") && message(&value).contains("clock"), "{value:#}");
    assert!(next(&value).contains("date -u"), "{value:#}");
}

#[test]
fn nobody_is_blamed_for_what_others_did() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[OFTEN]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _ssh = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, a) = (&net.router, Family::V4.client_a());
    // Another address of a network of which one knocked.
    knock(&net.a, Family::V6.router(), "ssh");
    let value = scene.says(&net.b, Family::V6.client_b(), "ssh", 2222, "granted-other-address");
    assert!(!has_also(&value, "step1-unheard"), "{value:#}");
    // One that sent something else is spoken of as any of its network.
    std::thread::sleep(Duration::from_secs(6));
    post_step1(&net.a, Family::V6.router(), "/another-path", &form("ssh", &http_key("ssh")));
    let value = scene.says(&net.b, Family::V6.client_b(), "web", 3333, "step1-unheard");
    assert!(message(&value).starts_with("it, or another address of its /64,"), "{value:#}");

    // Who never came is told of another one's step 1 beside that, and who was let in and is no more is not.
    step1(&net.b, Family::V4.router(), "web");
    let value = scene.says(&net.a, a, "web", 3333, "not-knocked");
    assert!(message(also(&value, "step1-elsewhere")).starts_with("203.0.113.3 did step 1"), "{value:#}");
    assert!(next(&value).contains("knock -4"), "{value:#}");

    // What is cut does not live on.
    home.grant(router, "ssh", a, 60);
    let mut stream = dial(&net.a, (Family::V4.router(), 2222).into(), GENEROUS).unwrap();
    assert_echo(stream.try_clone().unwrap());
    home.verb(router, &["revoke", "ssh", &a.to_string()]).success();
    let value = scene.a("grant-revoked");
    assert!(!has_also(&value, "established-lives"), "{value:#}");
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    std::io::Write::write_all(&mut stream, b"x").unwrap();
    let heard = std::io::Read::read(&mut stream, &mut [0; 1]);
    assert!(heard.is_err(), "it is cut: {heard:?}");
}

#[test]
fn what_a_program_takes_from_the_kernel_is_told_as_such() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (router, a): (_, IpAddr) = (&net.router, Family::V4.client_a());
    home.grant(router, "ssh", a, 60);
    router.nft(&format!("delete element inet knock_agent app_ssh_4 {{ {a} }}"));
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let value = scene.explain(a, "ssh");
        if value["cause"] == "grant-revoked" && message(&value).contains("removed") {
            break;
        }
        assert!(Instant::now() < end, "{value:#}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn on_each_host_knocks_open_unless_they_are_said_to_be_blocked() {
    let net = Topology::new();
    let (router, to, b) = (&net.router, Family::V4.router(), Family::V4.client_b());
    for name in ["debian.nft", "docker.nft", "firewalld.nft", "openwrt.nft", "vyos 14", "vyos 15"] {
        match name.strip_prefix("vyos ") {
            Some(version) => Vyos::boot(router, version, "stateful").commit(router, "all"),
            None => load(router, name),
        }
        let home = Installation::new(&two_apps(&[OFTEN]));
        let scene = Scene { net: &net, home: &home };
        let agent = home.start(router);
        let value = scene.explain(b, "ssh");
        let blocked = value["cause"] == "knock-blocked";
        assert!(blocked || value["cause"] == "not-knocked", "{name} {value:#}");
        // Some refuse what they do not take.
        let url = format!("http://{to}:{STEP1_PORT}{STEP1_PATH}");
        net.b.run("curl", &["-sS", "-m", "1", "-d", &form("ssh", &http_key("ssh")), &url]);
        let opened = step2(&net.b, to, "ssh").is_some_and(|reply| reply.status == 200);
        assert_eq!(opened, !blocked, "{name} {value:#}");
        agent.terminate();
        router.run("nft", &["flush", "ruleset"]).success();
    }
}
