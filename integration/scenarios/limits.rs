//! Brute force, lock-outs and what is told of them.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use knock_agent::units::Network;
use serde_json::Value;

use super::two_factor;
use crate::agent::{Agent, Installation};
use crate::backend::on_every_firewall;
use crate::configuration::{Config, STEP1_PATH, http_key};
use crate::firewall::admission_left;
use crate::forge::Forge;
use crate::knocking::{STEP1_PORT, TIMED_OUT, form, knock, post_step1, step1, step2};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_echoes, assert_silent};
use crate::process::Background;
use crate::server::{Habit, Server, in_url};
use crate::topology::{Family, Topology};
use crate::usage::{Remembered, assert_forgets, forget_soon};

/// Sends wrong keys as fast as it can: TARGETS separated by commas, SECONDS, then source addresses, one a line. Says how
/// many requests went out.
const FLOOD: &str = r#"
import itertools, socket, sys, threading, time
target4, target6, port, path, seconds = sys.argv[1:6]
sources, guesses = itertools.cycle(sys.stdin.read().split()), itertools.count()
lock, end, sent = threading.Lock(), time.time() + float(seconds), [0]
def work():
    while time.time() < end:
        with lock:
            source = next(sources)
            number = next(guesses)
        six = ":" in source
        s = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
        s.settimeout(1)
        body = "app=ssh&access_key=a-guess-%08d" % number
        head = "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n"
        try:
            s.bind((source, 0))
            s.connect((target6 if six else target4, int(port)))
            s.sendall((head % (path, len(body)) + body).encode())
            time.sleep(0.02)
            with lock:
                sent[0] += 1
        except OSError:
            pass
        s.close()
threads = [threading.Thread(target=work) for _ in range(32)]
[t.start() for t in threads]
[t.join() for t in threads]
print(sent[0])
"#;

/// Starts a flood from these addresses; its number of requests goes to a file.
fn flood(from: &Namespace, home: &Installation, seconds: u32, sources: &str) -> Background {
    home.folder().write("sources", sources);
    home.folder().write("flood.py", FLOOD);
    let (v4, v6) = (Family::V4.router().to_string(), Family::V6.router().to_string());
    let port = STEP1_PORT.to_string();
    let mut command = Command::new("sh");
    let script = "exec python3 \"$1\" \"$2\" \"$3\" \"$4\" \"$5\" \"$6\" <\"$7\" >\"$8\"";
    command.args(["-c", script, "flood"]).arg(home.path("flood.py")).args([&v4, &v6, &port, STEP1_PATH]);
    command.arg(seconds.to_string()).arg(home.path("sources")).arg(home.path("sent"));
    from.background(command)
}

/// Waits for the end of a flood; how many requests went out.
fn ended(mut flood: Background, home: &Installation) -> u32 {
    let end = Instant::now() + Duration::from_secs(90);
    while flood.is_alive() {
        assert!(Instant::now() < end, "the flood does not end");
        sleep(Duration::from_millis(200));
    }
    fs::read_to_string(home.path("sent")).unwrap().trim().parse().unwrap()
}

/// Lets `b` send from 1,000 IPv4 addresses and 64 IPv6 networks; one address of each.
fn many_sources(net: &Topology) -> String {
    for (family, network) in [("-4", "198.18.0.0/22"), ("-6", "2001:db8:77::/48")] {
        net.b.run("ip", &[family, "route", "add", "local", network, "dev", "lo"]).success();
        let via = if family == "-4" { Family::V4.client_b() } else { Family::V6.client_b() };
        net.router.run("ip", &[family, "route", "add", network, "via", &via.to_string()]).success();
    }
    net.b.sysctl("net/ipv6/ip_nonlocal_bind", "1");
    let v4 = (0..1_000).map(|n| format!("198.18.{}.{}\n", n / 250, n % 250 + 1));
    v4.chain((0..64).map(|n| format!("2001:db8:77:{n:x}::7\n"))).collect()
}

/// Memory of the agent, in KiB.
fn memory(agent: &Agent) -> i64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn status(home: &Installation, host: &Namespace) -> Value {
    serde_json::from_str(&home.verb(host, &["status", "--json"]).success().text()).unwrap()
}

/// Who is locked out, for how long in all, and how often.
pub fn locked_out(home: &Installation, host: &Namespace) -> Vec<(String, u64, u64)> {
    let rows = status(home, host)["locked_out"].as_array().unwrap().clone();
    let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
    let row = |row: &Value| {
        let address = row["address"].as_str().unwrap().to_owned();
        assert!(row["expires_in_s"].as_f64().unwrap() <= row["lifetime_s"].as_f64().unwrap());
        (address, number(row, "lifetime_s"), number(row, "times"))
    };
    rows.iter().map(row).collect()
}

/// Presents wrong keys at step 1, another one each time.
pub fn fail(from: &Namespace, to: IpAddr, times: u32) {
    for n in 0..times {
        post_step1(from, to, STEP1_PATH, &form("ssh", &format!("a-wrong-key-{n}")));
    }
}

/// Knocks until it is let in, as a client does that meets a crowd.
fn knock_patiently(net: &Topology, home: &Installation) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        step1(&net.a, Family::V4.router(), "ssh");
        if step2(&net.a, Family::V4.router(), "ssh").is_some_and(|reply| reply.status == 200) {
            return;
        }
        assert!(Instant::now() < end, "a client with the right keys is not let in\n{}", home.log());
    }
}

fn grants(home: &Installation, host: &Namespace) -> Vec<String> {
    let grants = status(home, host)["grants"].as_array().unwrap().clone();
    grants.iter().map(|row| row["address"].as_str().unwrap().to_owned()).collect()
}

on_every_firewall! {
    syns_in_somebody_s_name_do_not_keep_him_from_knocking,
}

fn syns_in_somebody_s_name_do_not_keep_him_from_knocking() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::new(&[]).app("ssh", "2222", "tcp", "local", &[]));
    let _agent = home.start(&net.router);
    let forge = Forge::new(&net.b);
    for family in Family::BOTH {
        let to = (family.router(), STEP1_PORT).into();
        // More than what is left of ten minutes of the limit, and then on and on.
        let stop = AtomicBool::new(false);
        let sent = std::thread::scope(|threads| {
            let forging = threads.spawn(|| {
                let ports = (1_024..60_000).cycle().take_while(|_| !stop.load(Ordering::Relaxed));
                let send = |port| forge.syn((family.client_a(), port).into(), to);
                ports.filter(|&port| send(port)).inspect(|_| sleep(Duration::from_micros(300))).count()
            });
            sleep(Duration::from_secs(1));
            knock(&net.a, family.router(), "ssh");
            stop.store(true, Ordering::Relaxed);
            forging.join().unwrap()
        });
        assert!(sent > 300, "{sent} forged packets are hardly a flood");
        assert_echoes(&net.a, family.router(), 2222);
    }
}

#[test]
fn guessing_from_one_address_opens_nothing_and_keeps_nobody_else_out() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&["lockout: {after: 5, first: 10m, longest: 1d}"]);
    let home = Installation::new(&config.app("ssh", "2222", "tcp", "local", &["duration: 60"]));
    let agent = home.start(&net.router);
    let flood = flood(&net.b, &home, 10, &Family::V4.client_b().to_string());
    knock_patiently(&net, &home);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    let sent = ended(flood, &home);
    assert!(sent > 100, "{sent} requests are no flood");
    assert_eq!(grants(&home, &net.router), [Family::V4.client_a().to_string()]);
    assert_eq!(locked_out(&home, &net.router), [(Family::V4.client_b().to_string(), 600, 1)]);
    let status = status(&home, &net.router);
    assert_eq!(status["refused"]["wrong-key"], 5, "{status}");
    step1(&net.b, Family::V4.router(), "ssh");
    assert_eq!(admission_left(&net.router, Family::V4.client_b()), None, "the right key while locked out");
    assert_silent(&net.b, Family::V4.router(), 2222);
    assert!(home.log().lines().count() < 40, "{}", home.log());
    assert!(!home.log().contains("a-guess"));
    drop(agent);
}

#[test]
fn guessing_from_a_thousand_addresses_opens_nothing_fills_no_memory_and_keeps_nobody_out() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&["lockout: {after: 3, first: 10m, longest: 1d}"]);
    let home = Installation::new(&config.app("ssh", "2222", "tcp", "local", &["duration: 90"]));
    let agent = home.start(&net.router);
    let sources = many_sources(&net);
    forget_soon(&net.router);
    let (before, remembered) = (memory(&agent), Remembered::by(&net.router));
    let first = flood(&net.b, &home, 15, &sources);
    knock_patiently(&net, &home);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    let sent = ended(first, &home);
    let between = memory(&agent);
    assert!(sent > 1_500, "{sent} requests are no flood");
    let sent = ended(flood(&net.b, &home, 15, &sources), &home);
    let after = memory(&agent);
    assert!(sent > 1_500, "{sent} requests are no flood");
    assert!(between - before < 16_000 && after - between < 4_000, "{before}, {between}, {after} KiB");
    assert_forgets(&net.router, remembered, Duration::from_secs(40));
    assert_eq!(grants(&home, &net.router), [Family::V4.client_a().to_string()]);
    let locked = locked_out(&home, &net.router);
    assert!(locked.iter().any(|row| row.0.starts_with("198.18.")), "{locked:?}");
    assert!(locked.iter().any(|row| row.0.ends_with("::/64")), "{locked:?}");
    assert!(home.log().lines().count() < 600, "{}", home.log());
    assert_silent(&net.b, Family::V4.router(), 2222);
    assert_eq!(
        home.verb(&net.router, &["unblock", "--all"]).success().text().split(' ').next(),
        Some(&*locked.len().to_string())
    );
    assert_eq!(locked_out(&home, &net.router), []);
}

#[test]
fn what_status_shows_of_ipv6_can_be_named_to_unblock_and_to_revoke() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&["lockout: {after: 3, first: 1h, longest: 1h}", "ipv6_prefix: 64"]);
    let home = Installation::new(&config.app("ssh", "2222", "tcp", "local", &[]));
    let agent = home.start(&net.router);
    let (to, client) = (Family::V6.router(), Family::V6.client_a());
    let network = Network::around(client, 64).unwrap().to_string();
    fail(&net.a, to, 3);
    let table = home.verb(&net.router, &["status"]).success().text();
    assert!(table.contains(&network), "{table}");
    let wider = Network::around(client, 63).unwrap().to_string();
    assert!(home.verb(&net.router, &["unblock", &wider]).exits(2).stderr.contains("/64 each"));
    assert_eq!(locked_out(&home, &net.router).len(), 1);
    home.verb(&net.router, &["unblock", &network]).success();
    assert_eq!(locked_out(&home, &net.router), []);
    let let_in = || {
        home.verb(&net.router, &["grant", "ssh", &client.to_string()]).success();
        assert_echoes(&net.a, to, 2222);
    };
    let_in();
    for other in [&wider, "192.0.2.0/24"] {
        let refused = home.verb(&net.router, &["revoke", "ssh", other]).exits(2).stderr;
        assert!(refused.contains("IPv6 /64"), "{refused}");
    }
    assert_echoes(&net.a, to, 2222);
    home.verb(&net.router, &["revoke", "ssh", &network]).success();
    assert_silent(&net.a, to, 2222);
    let_in();
    agent.kill();
    // Without a daemon and without a configuration, the kernel's rules say it.
    for broken in [false, true] {
        if broken {
            home.rewrite_config("global: nonsense\n");
        }
        assert!(home.verb(&net.router, &["revoke", "ssh", &wider]).exits(2).stderr.contains("IPv6 /64"));
        assert_echoes(&net.a, to, 2222);
    }
    home.verb(&net.router, &["revoke", "ssh", &network]).success();
    assert_silent(&net.a, to, 2222);
}

#[test]
fn a_lock_out_grows_is_listed_outlasts_a_reload_and_is_lifted_by_an_operator() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&["lockout: {after: 3, first: 8s, longest: 1h}"]);
    let home = Installation::new(&config.app("ssh", "2222", "tcp", "local", &["duration: 90"]));
    let agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    knock(&net.a, to, "ssh");
    fail(&net.a, to, 3);
    assert_eq!(locked_out(&home, &net.router), [(client.to_string(), 8, 1)]);
    assert_echoes(&net.a, to, 2222);
    let end = Instant::now() + Duration::from_secs(40);
    while !locked_out(&home, &net.router).is_empty() {
        assert!(Instant::now() < end, "the lock-out does not end");
        sleep(Duration::from_millis(300));
    }
    fail(&net.a, to, 3);
    assert_eq!(locked_out(&home, &net.router), [(client.to_string(), 16, 2)]);
    agent.reload();
    let table = home.verb(&net.router, &["status"]).success().text();
    assert!(table.contains("LOCKED OUT") && table.contains("wrong-key 6"), "{table}");
    home.verb(&net.router, &["revoke", "--all"]).success();
    assert_eq!(locked_out(&home, &net.router).len(), 1);
    step1(&net.a, to, "ssh");
    assert_eq!(admission_left(&net.router, client), None, "the right key while locked out");
    home.verb(&net.router, &["unblock", &client.to_string()]).success();
    assert_eq!(locked_out(&home, &net.router), []);
    knock(&net.a, to, "ssh");
    assert_echoes(&net.a, to, 2222);
    agent.terminate();
    assert!(home.verb(&net.router, &["unblock", "--all"]).exits(69).stderr.contains("no daemon"));
}

#[test]
fn a_wrong_request_counts_once_where_syn_cookies_have_it_come_again_and_again() {
    let net = Topology::new();
    let config = Config::new(&["lockout: {after: 3, first: 10m, longest: 1d}"]);
    let home = Installation::new(&config.app("ssh", "2222", "tcp", "local", &[]));
    let _agent = home.start(&net.router);
    // As when forged SYNs fill the queue: whatever segment of a client's comes, it makes a connection.
    net.router.sysctl("net/ipv4/tcp_syncookies", "2");
    let refused = || status(&home, &net.router)["refused"]["wrong-key"].as_u64().unwrap_or_default();
    for family in Family::BOTH {
        let (before, url) =
            (refused(), format!("http://{}:{STEP1_PORT}{STEP1_PATH}", in_url(family.router())));
        let wrong = form("ssh", "a-mistyped-key");
        net.a.run("curl", &["-sS", "-g", "-m", "4", "-d", &wrong, &url]).exits(TIMED_OUT);
        assert!(refused() >= before + 3, "the client's kernel repeats what nobody answers\n{}", home.log());
        assert_eq!(locked_out(&home, &net.router), [], "one request is one failure\n{}", home.log());
    }
    fail(&net.b, Family::V4.router(), 1);
    assert_eq!(locked_out(&home, &net.router).len(), 0);
    net.router.sysctl("net/ipv4/tcp_syncookies", "1");
    fail(&net.a, Family::V4.router(), 2);
    assert_eq!(locked_out(&home, &net.router), [(Family::V4.client_a().to_string(), 600, 1)]);
}

#[test]
fn a_one_time_code_used_from_two_addresses_at_once_opens_once() {
    let net = Topology::new();
    let home = two_factor::install(&http_key("ssh"), &["step2_https_duration: 4"]);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    for step in [0, 1] {
        let token = two_factor::code(&net.a, step);
        let form = format!("{}&token={token}", form("ssh", &http_key("ssh")));
        std::thread::scope(|scope| {
            for from in [&net.a, &net.b] {
                let form = &form;
                scope.spawn(move || post_step1(from, to, STEP1_PATH, form));
            }
        });
        let clients = [Family::V4.client_a(), Family::V4.client_b()];
        let admitted = clients.map(|client| admission_left(&net.router, client).is_some());
        assert_ne!(admitted[0], admitted[1], "exactly one is admitted\n{}", home.log());
        sleep(Duration::from_secs(5));
    }
}

#[test]
fn a_daemon_is_as_small_after_reloads_as_before() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    // What belongs to no file: the program's own pages come and go.
    let own = || {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap()
    };
    let before = own();
    for _ in 0..8 {
        let said = agent.reload();
        assert!(!said.contains("refused"), "{said}");
    }
    // Tables that nobody fills would be some eight megabytes.
    let end = Instant::now() + GENEROUS;
    while own() - before > 4_000 {
        assert!(Instant::now() < end, "{before} kB, then {} kB", own());
        sleep(Duration::from_millis(100));
    }
}
