//! Faults that other gateways of this kind have, and that no other scenario would find here (docs/defects.md).

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::agent::{Agent, Installation};
use crate::backend::on_every_firewall;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{add_elements, elements, time_left};
use crate::knocking::{STEP1_PORT, STEP2_PORT, form, knock, step1};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_on_time, assert_open, assert_silent, when_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    an_address_whose_text_begins_another_s_is_somebody_else,
}

/// The addresses of a client, and others whose text begins with theirs.
fn an_address_whose_text_begins_another_s_is_somebody_else() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let pairs: [(Family, IpAddr); 2] =
        [(Family::V4, "203.0.113.20".parse().unwrap()), (Family::V6, "2001:db8:1::20".parse().unwrap())];
    for (family, longer) in pairs {
        home.grant(&net.router, "ssh", longer, 60);
        assert_silent(&net.a, family.router(), 2222);
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
        home.verb(&net.router, &["revoke", "ssh", &family.client_a().to_string()]).success();
        assert_silent(&net.a, family.router(), 2222);
        assert!(time_left(&net.router, "ssh", longer).is_some(), "{longer} went with {}", family.client_a());
    }
}

#[test]
fn a_thousand_grants_that_end_together_end_on_time_and_hold_up_no_knock() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    home.guard(&net.router).success();
    let mut all: Vec<String> = (0..1_000).map(|n| format!("10.9.{}.{}", n / 250, n % 250)).collect();
    all.push(Family::V4.client_b().to_string());
    let _agent = home.start(&net.router);
    let before = Instant::now();
    add_elements(&net.router, "app_ssh_4", &all, 8);
    let (due, latest) = (before + Duration::from_secs(8), Instant::now() + Duration::from_secs(8));
    let to = Family::V4.router();
    assert_open(&net.b, to, 2222);
    assert!(elements(&net.router, "app_ssh_4").len() > 1_000);
    // Its first step is over a second before the end, its second one comes when all end.
    std::thread::sleep((due - Duration::from_secs(2)).saturating_duration_since(Instant::now()));
    let knocked = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| knock(&net.a, to, "ssh"));
        let silent = when_silent(&net.b, to, 2222, latest + Duration::from_secs(3));
        assert_on_time(silent, silent.clamp(due, latest));
    });
    assert!(knocked.elapsed() < Duration::from_secs(20), "a knock took {:?}", knocked.elapsed());
    assert_echoes(&net.a, to, 2222);
    let left = elements(&net.router, "app_ssh_4");
    assert!(left.len() == 1 && left[0].key == Family::V4.client_a().to_string(), "{} are left", left.len());
}

#[test]
fn a_hundred_clients_who_knock_at_the_same_time_all_get_in() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 300", "step2_https_duration: 120"]));
    let _agent = home.start(&net.router);
    net.b.run("ip", &["route", "add", "local", "198.18.0.0/24", "dev", "lo"]).success();
    let via = Family::V4.client_b().to_string();
    net.router.run("ip", &["route", "add", "198.18.0.0/24", "via", &via]).success();
    let to = Family::V4.router();
    let script = format!(
        "curl -s -m 1 --interface $0 -d '{}' http://{to}:{STEP1_PORT}{STEP1_PATH}; \
         exec curl -sk -m 20 --interface $0 -d '{}' https://{to}:{STEP2_PORT}{STEP2_PATH}",
        form("ssh", &http_key("ssh")),
        form("ssh", &https_key("ssh")),
    );
    let all: String = (1..=100).map(|n| format!("198.18.0.{n}\n")).collect();
    let mut knocks = Command::new("xargs");
    knocks.args(["-P", "20", "-n", "1", "sh", "-c", &script]);
    let told = net.b.finish(knocks, all.as_bytes(), Duration::from_secs(120)).text();
    assert_eq!(told.matches("OK\n").count(), 100, "{told}");
    assert_eq!(elements(&net.router, "app_ssh_4").len(), 100);
}

#[test]
fn a_body_of_many_megabytes_is_turned_away_and_not_kept() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let before = most_memory(&agent);
    let body = home.path("body");
    fs::File::create(&body).unwrap().set_len(300 << 20).unwrap();
    let url = format!("https://{to}:{STEP2_PORT}{STEP2_PATH}");
    let upload =
        ["-sk", "-m", "20", "-X", "POST", "-H", "Expect:", "-w", "%{http_code} %{size_upload}", "-T"];
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
        let told =
            net.a.run("curl", &[&upload[..], &[body.to_str().unwrap()], more, &[&url]].concat()).text();
        let (status, sent) = told.rsplit('\n').next().unwrap().split_once(' ').unwrap();
        assert!(["413", "400", "411", "000"].contains(&status), "{told}");
        assert!(sent.parse::<u64>().unwrap() < 20 << 20, "it took {sent} bytes");
    }
    let after = most_memory(&agent);
    assert!(after < before + 8_192, "{before} KiB before, {after} KiB after");
}

/// The most memory that the daemon and the processes it started ever had, in KiB.
fn most_memory(agent: &Agent) -> u64 {
    let mut family = vec![agent.pid()];
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            Some((pid, number(&status, "PPid:")? as u32))
        })
        .collect();
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    let peak =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|s| number(&s, "VmHWM:"));
    family.iter().filter_map(peak).sum()
}

fn number(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[test]
fn bits_of_the_mark_that_are_not_ours_stay_as_they_are() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    // Somebody else's mark is set before ours, and looked for behind it.
    net.router.nft(
        "table inet vpn { chain before { type filter hook prerouting priority -200; tcp dport 2222 meta mark set 0x10203; }; \
         chain behind { type filter hook input priority 10; tcp dport 2222 meta mark 0x15e03 counter comment \"both\"; \
         tcp dport 2222 meta mark != 0x15e03 counter comment \"lost\"; }; }",
    );
    let config = Config::new(&["mark: 0x5e00/0xff00"]).app("ssh", "2222", "tcp", "local", &["duration: 60"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_eq!(counted(&net.router, "lost"), 0);
    assert!(counted(&net.router, "both") > 2);
}

/// How many packets the rule with this comment in our own table met.
fn counted(host: &Namespace, comment: &str) -> u64 {
    let listing = host.run("nft", &["list", "table", "inet", "vpn"]).success().text();
    let line = listing.lines().find(|line| line.contains(&format!("\"{comment}\""))).unwrap();
    line.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}
