//! What came in by a door that closed behind it ends with the grant that it came by.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::timed_knocks::{CAROL, Home, TO, filled, until};
use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key};
use crate::firewall::{Element, elements, flush_host, is_guarded};
use crate::forge::Forge;
use crate::knocking::{form, knock, post_step1, post_step2};
use crate::knocks::knock_at;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_echo, assert_silent, dial, udp_echoes_from};
use crate::server::{Habit, Server};
use crate::tamper::Tamper;
use crate::topology::{Family, Topology};

/// Waits until so many ends are known of an app.
#[track_caller]
fn connected(host: &Namespace, app: &str, count: usize) -> Vec<Element> {
    let end = Instant::now() + 3 * GENEROUS;
    loop {
        let found: Vec<Element> =
            ["4", "6"].iter().flat_map(|digit| elements(host, &format!("once_{app}_{digit}"))).collect();
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < end, "{} connections to {app}", found.len());
        sleep(Duration::from_millis(20));
    }
}

/// Nothing that it says is answered any more.
#[track_caller]
fn assert_cut(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let _ = stream.write_all(b"is anybody there");
    assert!(!matches!(stream.read(&mut [0; 64]), Ok(1..)), "it goes on");
}

/// What `status` says of those who are connected: app, address, by and how.
fn told(home: &Installation, host: &Namespace) -> Vec<String> {
    let status = home.verb(host, &["status", "--json"]).success().text();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let rows = status["grants"].as_array().unwrap().iter().filter(|row| row["kind"] == "once");
    let word = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.map(|row| ["app", "address", "by", "how"].map(|key| word(row, key)).join(" ")).collect()
}

#[track_caller]
fn assert_told(home: &Installation, host: &Namespace, wanted: &[&str]) {
    until(&format!("status says {wanted:?}"), || told(home, host) == wanted);
}

#[test]
fn who_is_shut_out_is_not_connected_any_more_and_others_are() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let (host, to, a) = (&net.router, Family::V4.router(), Family::V4.client_a());
    for established in ["established: cut", "established: keep"] {
        let once = ["duration: 600", "once: true", established];
        let config = Config::new(&["ipv6_prefix: 64"]).app("ssh", "2222", "tcp", "local", &once).app(
            "lan4",
            "2223",
            "tcp",
            "10.0.0.5:22",
            &once,
        );
        let home = Installation::new(&config);
        let agent = home.start(host);
        for (app, port) in [("ssh", 2222), ("lan4", 2223)] {
            let begin = |count: usize| {
                home.grant(host, app, a, 600);
                let stream = dial(&net.a, (to, port).into(), GENEROUS).unwrap();
                connected(host, app, count);
                stream
            };
            home.grant(host, app, Family::V4.client_b(), 600);
            let other = dial(&net.b, (to, port).into(), GENEROUS).unwrap();
            connected(host, app, 1);
            for words in [&["revoke", app, "203.0.113.77"][..], &["revoke", app, &a.to_string()]] {
                let stream = begin(2);
                assert_echo(stream.try_clone().unwrap());
                let said = home.verb(host, words).success().text();
                if words[2] != a.to_string() {
                    assert!(said.contains("had no grant"), "{said}");
                    home.verb(host, &["revoke", app, &a.to_string()]).success();
                } else {
                    assert!(said.contains("may no longer reach"), "{said}");
                }
                assert_cut(stream);
                connected(host, app, 1);
                assert_echo(other.try_clone().unwrap());
            }
            for words in [&["revoke", "--all", "--app", app][..], &["revoke", "--all"]] {
                let stream = begin(if words.len() == 4 { 2 } else { 1 });
                let said = home.verb(host, words).success().text();
                assert!(said.ends_with("ended\n") && !said.starts_with('0'), "{said}");
                assert_cut(stream);
                connected(host, app, 0);
            }
            assert_cut(other);
        }
        // By the other family, in the same prefix.
        home.grant(host, "ssh", Family::V6.client_a(), 600);
        let stream = dial(&net.a, (Family::V6.router(), 2222).into(), GENEROUS).unwrap();
        connected(host, "ssh", 1);
        let said = home.verb(host, &["explain", &Family::V6.client_a().to_string(), "ssh"]).text();
        assert!(said.contains("used up its grant"), "{said}");
        home.verb(host, &["revoke", "ssh", &Family::V6.client_a().to_string()]).success();
        assert_cut(stream);
        drop(agent);
        home.verb(host, &["teardown"]).success();
    }
}

#[test]
fn without_a_daemon_and_without_a_configuration_what_a_door_let_in_ends() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let (host, to, a) = (&net.router, Family::V4.router(), Family::V4.client_a());
    let config = Config::ssh(&["duration: 600", "once: true"]);
    let home = Installation::new(&config);
    home.start(host).kill();
    let begin = || {
        home.rewrite_config(config.text());
        home.grant(host, "ssh", a, 600);
        let stream = dial(&net.a, (to, 2222).into(), GENEROUS).unwrap();
        connected(host, "ssh", 1);
        stream
    };
    let a = a.to_string();
    let revocations =
        [&["revoke", "ssh", &a][..], &["revoke", "--all", "--app", "ssh"], &["revoke", "--all"]];
    for text in [config.text(), "global: {"] {
        for words in revocations {
            let stream = begin();
            assert_told(&home, host, &[&format!("ssh {a}  unknown")]);
            home.rewrite_config(text);
            home.verb(host, words).success();
            assert_cut(stream);
            connected(host, "ssh", 0);
        }
    }
}

const ALICE: &str = "alice: {access_key_http: alice-first-key, access_key_https: alice-second-key}";
const BOB: &str = "bob: {access_key_http: bobby-first-key, access_key_https: bobby-second-key}";

fn two_steps(from: &Namespace, family: Family, user: &str, more: &str) {
    let form = |step: &str| form("ssh", &format!("{user}-{step}-key{more}"));
    post_step1(from, family.router(), STEP1_PATH, &form("first"));
    let reply = post_step2(from, family.router(), STEP2_PATH, &form("second"), &[]).unwrap();
    assert_eq!(reply.status, 200);
}

#[test]
fn what_a_user_is_connected_to_ends_with_the_user_and_with_a_close() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let host = &net.router;
    let of = |users: &[&str], established: &str| {
        let users = format!("users: {{{}}}", users.join(", "));
        Config::new(&[&users]).app(
            "ssh",
            "2222",
            "tcp",
            "local",
            &["duration: 600", "once: true", established],
        )
    };
    for established in ["established: cut", "established: keep"] {
        let home = Installation::new(&of(&[ALICE, BOB], established));
        let mut agent = home.start(host);
        let begin = |from: &Namespace, family: Family, user: &str, count: usize| {
            two_steps(from, family, user, "");
            let stream = dial(from, (family.router(), 2222).into(), GENEROUS).unwrap();
            connected(host, "ssh", count);
            stream
        };
        let bobs = begin(&net.b, Family::V4, "bobby", 1);
        let by_key = {
            knock(&net.b, Family::V6.router(), "ssh");
            dial(&net.b, (Family::V6.router(), 2222).into(), GENEROUS).unwrap()
        };
        connected(host, "ssh", 2);
        let [b4, b6] = Family::BOTH.map(|family| family.client_b());
        let others = [format!("ssh {b4} bob two-step"), format!("ssh {b6} key 1 two-step")];
        let with = |more: &str| -> Vec<String> {
            let mut all = vec![more.to_owned()];
            all.extend(others.clone());
            all
        };
        let a4 = Family::V4.client_a();
        let alices = with(&format!("ssh {a4} alice two-step"));
        let alices: Vec<&str> = alices.iter().map(String::as_str).collect();
        let alone: Vec<&str> = others.iter().map(String::as_str).collect();

        let stream = begin(&net.a, Family::V4, "alice", 3);
        assert_told(&home, host, &alices);
        two_steps(&net.a, Family::V4, "alice", "&action=close");
        assert_cut(stream);
        assert_told(&home, host, &alone);

        let stream = begin(&net.a, Family::V4, "alice", 3);
        assert_told(&home, host, &alices);
        // Somebody else's close ends nothing.
        two_steps(&net.a, Family::V4, "bobby", "&action=close");
        assert_echo(stream.try_clone().unwrap());
        home.rewrite_config(of(&[&ALICE.replace('{', "{disabled: true, "), BOB], established).text());
        agent.reload();
        assert_cut(stream);
        assert_told(&home, host, &alone);

        // The kernel knows whose they are, after a crash as well.
        home.rewrite_config(of(&[ALICE, BOB], established).text());
        agent.reload();
        let stream = begin(&net.a, Family::V4, "alice", 3);
        assert_told(&home, host, &alices);
        agent.kill();
        agent = home.start(host);
        assert_told(&home, host, &alices);
        agent.kill();
        home.rewrite_config(of(&[BOB], established).text());
        agent = home.start(host);
        assert_cut(stream);
        assert_told(&home, host, &alone);

        // A key that is replaced.
        home.rewrite_config(
            &of(&[BOB], established).text().replace("second-key-of-ssh", "another-key-of-ssh"),
        );
        agent.reload();
        assert_cut(by_key);
        assert_told(&home, host, &alone[..1]);
        assert_echo(bobs);
        // Other ports.
        home.rewrite_config(&of(&[BOB], established).text().replace("port: 2222", "port: 2230"));
        agent.reload();
        assert_told(&home, host, &[]);
        drop(agent);
        home.verb(host, &["teardown"]).success();
    }
}

#[test]
fn what_a_client_of_changing_knocks_is_connected_to_ends_with_it() {
    let net = Topology::new();
    let _service = Server::udp(&net.router, 2222, Habit::Echo);
    let home = Home::new(600, "every: 600", &["duration: 3600", "once: true"]);
    let text = std::fs::read_to_string(home.home.path("config.yaml")).unwrap();
    home.home.rewrite_config(&text.replace("protocol: tcp", "protocol: udp"));
    let (host, to) = (&net.router, TO.router());
    let mut agent = home.home.start(host);
    let goes_on = |port| udp_echoes_from(&net.b, port, to, 2222, Duration::from_millis(700));
    for (port, restarts) in [(40_001, false), (40_002, true)] {
        home.client("carol", CAROL, "");
        agent.reload();
        filled(host);
        knock_at(&net.b, to, &home.carol(home.step() + u64::from(restarts)));
        assert!(udp_echoes_from(&net.b, port, to, 2222, GENEROUS));
        assert_told(&home.home, host, &[&format!("ssh {} carol sequence", TO.client_b())]);
        if restarts {
            agent.kill();
            home.remove("carol");
            agent = home.home.start(host);
        } else {
            home.remove("carol");
            agent.reload();
        }
        assert!(!goes_on(port), "restarted: {restarts}");
        assert_told(&home.home, host, &[]);
    }
    drop(agent);
}

#[test]
fn what_came_by_a_door_ends_in_time_although_the_host_slept() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 600", "once: true"]).app(
        "web",
        "2223",
        "tcp",
        "local",
        &["duration: 600"],
    );
    let (home, tamper) = Tamper::with(Installation::new(&config));
    let _agent = home.start(&net.router);
    let (host, to) = (&net.router, Family::V4.router());
    home.grant(host, "ssh", Family::V4.client_a(), 600);
    let open = dial(&net.a, (to, 2222).into(), GENEROUS).unwrap();
    post_step1(&net.b, to, STEP1_PATH, &form("web", &http_key("web")));
    until("step 2 may begin", || elements(host, "step2_4").len() == 1);
    let ends = connected(host, "ssh", 1);
    let left = |found: &[Element]| found[0].expires.expect("an end");
    // In the kernel, timeouts stood still meanwhile.
    tamper.sleep(Duration::from_secs(300));
    home.verb(host, &["status"]).success();
    until("the time is taken off", || {
        left(&connected(host, "ssh", 1)) + Duration::from_secs(300) <= left(&ends)
    });
    until("nobody may begin step 2", || elements(host, "step2_4").is_empty());
    tamper.sleep(Duration::from_secs(300));
    home.verb(host, &["status"]).success();
    connected(host, "ssh", 0);
    assert_cut(open);
}

#[test]
fn a_door_that_was_used_up_unheard_stays_shut_after_a_flush() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let sequence = "sequence: {knocks: [udp/1234, udp/5678]}";
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 600", "once: true"]).app(
        "web",
        "2223",
        "udp",
        "local",
        &["duration: 600", sequence],
    );
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    let (host, to) = (&net.router, Family::V4.router());
    home.grant(host, "ssh", Family::V4.client_a(), 600);
    agent.signal(Signal::SIGSTOP);
    // More than the socket holds.
    let forge = Forge::new(&net.b);
    for source in 0..50_000_u32 {
        let source = SocketAddr::from((Ipv4Addr::from(0xc612_0001 + source), 4_000));
        for port in [1234, 5678] {
            while !forge.datagram(source, (to, port).into(), b"k") {
                sleep(Duration::from_millis(1));
            }
        }
    }
    let first = dial(&net.a, (to, 2222).into(), GENEROUS).unwrap();
    connected(host, "ssh", 1);
    agent.signal(Signal::SIGCONT);
    until("it is known that something was lost", || home.log().contains("more was knocked than"));
    until("the grant is taken back", || home.log().contains("somebody removed a grant"));
    assert_echo(first);
    flush_host(host);
    until("it is guarded again", || is_guarded(host));
    assert_silent(&net.a, to, 2222);
    drop(agent);
}

#[test]
fn a_closing_sequence_ends_what_sequences_let_in_and_nobody_elses_connection() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let host = &net.router;
    let sequence = "sequence: {knocks: [1234, 5678, 9012], closing: [9012, 9013]}";
    let config = Config::new(&[&format!("users: {{{ALICE}}}")]).app(
        "ssh",
        "2222",
        "tcp",
        "local",
        &["duration: 600", "once: true", sequence],
    );
    let home = Installation::new(&config);
    let _agent = home.start(host);
    let begin = |count: usize| {
        let stream = dial(&net.a, (TO.router(), 2222).into(), GENEROUS).unwrap();
        connected(host, "ssh", count);
        stream
    };
    two_steps(&net.a, Family::V4, "alice", "");
    let alices = begin(1);
    let a = Family::V4.client_a();
    let alone = format!("ssh {a} alice two-step");
    assert_told(&home, host, &[&alone]);
    knock_at(&net.a, TO.router(), "1234,5678,9012");
    let by_sequence = begin(2);
    // One that is used up already closes unheard.
    knock_at(&net.a, TO.router(), "1234,5678,9012");
    knock_at(&net.a, TO.router(), "9012,9013");
    assert_cut(by_sequence);
    assert_told(&home, host, &[&alone]);
    assert_echo(alices);
}

#[test]
fn whose_time_was_over_long_ago_takes_nobody_along_at_a_reload_and_whose_time_comes_does() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let host = &net.router;
    let of = |expires: &str| {
        let dave = format!(
            "dave: {{expires: {expires}, access_key_http: daves-first-key, access_key_https: daves-second-key}}"
        );
        let users = format!("users: {{{ALICE}, {BOB}, {dave}}}");
        Config::new(&[&users]).app("ssh", "2222", "tcp", "local", &["duration: 600", "once: true"])
    };
    let home = Installation::new(&of("1971-01-01"));
    let agent = home.start(host);
    let a = Family::V4.client_a();
    // It may be either's.
    two_steps(&net.a, Family::V4, "alice", "");
    two_steps(&net.a, Family::V4, "bobby", "");
    let stream = dial(&net.a, (TO.router(), 2222).into(), GENEROUS).unwrap();
    let unnamed = format!("ssh {a}  unknown");
    assert_told(&home, host, &[&unnamed]);
    agent.reload();
    agent.reload();
    assert_told(&home, host, &[&unnamed]);
    assert_echo(stream.try_clone().unwrap());
    let soon = std::time::SystemTime::now() + Duration::from_secs(5);
    let soon = soon.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let date = std::process::Command::new("date").args(["-u", "-d", &format!("@{soon}"), "+%FT%TZ"]).output();
    let date = String::from_utf8(date.unwrap().stdout).unwrap();
    home.rewrite_config(of(&format!("\"{}\"", date.trim())).text());
    agent.reload();
    assert_told(&home, host, &[&unnamed]);
    connected(host, "ssh", 0);
    assert_cut(stream);
}
