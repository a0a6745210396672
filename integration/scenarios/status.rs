//! What `status` shows a person, and how it is watched.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::{Installation, PROGRAM};
use crate::configuration::Config;
use crate::firewall::add_foreign_rule;
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::assert_echoes;
use crate::process::{finish, wait};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const LIMIT: Duration = Duration::from_secs(30);

fn config() -> Config {
    Config::new(&[]).app("ssh", "2222", "tcp", "local", &[])
}

fn json(home: &Installation, host: &Namespace) -> Value {
    serde_json::from_str(&home.verb(host, &["status", "--json"]).success().text()).unwrap()
}

/// The line about something, with the word in front of it.
#[track_caller]
fn line<'t>(text: &'t str, about: &str) -> &'t str {
    let found = text
        .lines()
        .find(|line| line.split_once("  ").is_some_and(|(_, rest)| rest.trim_start().starts_with(about)));
    found.unwrap_or_else(|| panic!("nothing about {about}:\n{text}"))
}

#[test]
fn status_shows_who_is_in_for_how_long_what_passed_and_how_all_parts_are() {
    let net = Topology::new();
    let home = Installation::new(&config());
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let agent = home.start(&net.router);
    let text = || home.verb(&net.router, &["status"]).success().text();
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    let before = json(&home, &net.router);
    let of_ssh =
        before["traffic"].as_array().unwrap().iter().find(|row| row["app"] == "ssh").unwrap().clone();
    let count = |row: &Value, key: &str| row[key].as_u64().unwrap();
    // The kernel's own listing is the judge: what passed the rule for granted clients.
    let chain =
        net.router.run("nft", &["list", "chain", "inet", "knock_agent", "svc_tcp_2222"]).success().text();
    let packets: u64 = chain
        .lines()
        .filter(|line| line.contains("ka:grant:ssh"))
        .map(|line| line.split("packets ").nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(packets >= 3 && count(&of_ssh, "packets_in") == packets, "{of_ssh} {chain}");
    assert!(count(&of_ssh, "bytes_in") >= 40 * packets && count(&of_ssh, "packets_out") >= 2, "{of_ssh}");

    let shown = text();
    for about in ["daemon", "guard", "hears knocks", "front", "certificate", "configuration"] {
        assert!(line(&shown, about).starts_with("ok"), "{shown}");
    }
    assert!(line(&shown, "hears knocks").contains("tcp/8080 and tcp/8443"), "{shown}");
    let row = shown.lines().find(|line| line.contains("203.0.113.2")).unwrap();
    assert!(
        row.contains("ssh") && row.contains("tcp/2222") && row.contains("key 1") && row.contains("two-step")
    );
    assert!(shown.contains("FROM CLIENTS") && !shown.contains('\u{1b}'), "{shown}");
    assert_eq!(before["daemon"]["rules_as_wanted"], true);

    // What ends soon, and what was refused.
    let soon = finish(cert(&home, 20), b"", LIMIT);
    soon.success();
    home.rewrite_config("global: nonsense");
    agent.signal(Signal::SIGHUP);
    let end = Instant::now() + LIMIT;
    while line(&text(), "configuration").starts_with("ok") || line(&text(), "certificate").starts_with("ok") {
        assert!(Instant::now() < end, "{}", text());
        sleep(Duration::from_millis(100));
    }
    let shown = text();
    assert!(
        line(&shown, "configuration").starts_with("BAD") && line(&shown, "certificate").starts_with("look"),
        "{shown}"
    );
    assert_eq!(json(&home, &net.router)["daemon"]["configuration"]["refused"], 1);

    agent.kill();
    add_foreign_rule(&net.router);
    let shown = text();
    assert!(line(&shown, "daemon").starts_with("BAD") && shown.contains("nobody can knock"), "{shown}");
    assert!(
        shown.contains("203.0.113.2") && shown.contains("FROM CLIENTS"),
        "the kernel tells alone: {shown}"
    );
    assert!(json(&home, &net.router)["daemon"].is_null());
}

#[test]
fn a_certificate_and_key_that_cannot_be_used_are_told_while_those_of_before_are_served() {
    let net = Topology::new();
    let home = Installation::new(&config());
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let agent = home.start(&net.router);
    let [good_cert, good_key] = ["cert.pem", "key.pem"].map(|name| fs::read(home.path(name)).unwrap());
    finish(cert(&home, 300), b"", LIMIT).success();
    let other = fs::read(home.path("cert.pem")).unwrap();
    let files = home.folder();
    files.write("key.pem", &good_key);

    let half = &good_cert[..good_cert.len() / 2];
    for (chain, why) in [
        (Some(other.as_slice()), "does not belong to the certificate"),
        (Some(half), "not PEM"),
        (None, "cert.pem: No such file"),
    ] {
        match chain {
            Some(chain) => drop(files.write("cert.pem", chain)),
            None => fs::remove_file(home.path("cert.pem")).unwrap(),
        }
        let said = agent.reload();
        assert!(said.contains("certificate of before"), "systemd shows it: {said}");
        let health = home.check(&net.router, &["health"]).exits(1).text();
        assert!(health.lines().all(|line| line.starts_with("certificate: ")), "{health}");
        let shown = home.verb(&net.router, &["status"]).success().text();
        let shown = line(&shown, "certificate");
        assert!(shown.starts_with("BAD"), "{shown}");
        for told in [health.as_str(), shown] {
            for word in [why, "those of before are served", "a restart would fail", "check-config"] {
                assert!(told.contains(word), "{word}: {told}");
            }
        }
        let status = json(&home, &net.router);
        assert!(status["daemon"]["certificate_refused"].as_str().unwrap().contains(why), "{status}");
        assert_eq!(status["daemon"]["problems"][0]["part"], "certificate");
        knock(&net.a, Family::V4.router(), "ssh");
        assert_echoes(&net.a, Family::V4.router(), 2222);
    }

    files.write("cert.pem", &good_cert);
    let said = agent.reload();
    assert!(!said.contains("certificate of before"), "{said}");
    home.check(&net.router, &["health"]).success();
    let shown = home.verb(&net.router, &["status"]).success().text();
    assert!(line(&shown, "certificate").starts_with("ok"), "{shown}");
    assert!(json(&home, &net.router)["daemon"].get("certificate_refused").is_none());
}

/// Makes the certificate anew, for so many days.
fn cert(home: &Installation, days: u32) -> Command {
    for name in ["cert.pem", "key.pem"] {
        fs::remove_file(home.path(name)).unwrap();
    }
    let mut command = Command::new(PROGRAM);
    command.arg("cert").arg("--cert").arg(home.path("cert.pem")).arg("--key").arg(home.path("key.pem"));
    command.args(["--days", &days.to_string(), "--config"]).arg(home.path("config.yaml"));
    command
}

#[test]
fn status_is_watched_in_a_pipe_and_on_a_terminal_until_ctrl_c_or_until_nobody_reads() {
    let net = Topology::new();
    let home = Installation::new(&config());
    let _agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_b(), 300);
    let (config, run) = (home.path("config.yaml"), home.path("run"));
    let words = [
        "status",
        "--watch",
        "1",
        "--config",
        config.to_str().unwrap(),
        "--runtime-dir",
        run.to_str().unwrap(),
    ];
    let begin = |mut command: Command| {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        net.router.background(command)
    };
    let plain = || {
        let mut command = Command::new(PROGRAM);
        command.args(words);
        command
    };
    // Reads until it was shown so often.
    let shown = |from: &mut dyn Read, often: usize| {
        let (mut text, mut bytes) = (String::new(), [0; 4_096]);
        let end = Instant::now() + LIMIT;
        while text.matches("203.0.113.3").count() < often {
            let length = from.read(&mut bytes).unwrap();
            assert!(length > 0 && Instant::now() < end, "{text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
        text
    };
    let mut piped = begin(plain());
    let mut out = piped.0.stdout.take().unwrap();
    let text = shown(&mut out, 2);
    assert!(!text.contains('\u{1b}') && text.contains("every 1 s"), "{text}");
    piped.signal(Signal::SIGINT);
    assert_eq!(wait(&mut piped.0, LIMIT).unwrap().code(), Some(0), "Ctrl-C is how it ends");

    let mut left = begin(plain());
    drop(left.0.stdout.take());
    assert_eq!(wait(&mut left.0, LIMIT).unwrap().code(), Some(0), "nobody reads");

    // On a terminal, made by script(1).
    let line = [&[PROGRAM], &words[..]].concat().join(" ");
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm");
    let mut terminal = begin(command);
    let mut out = terminal.0.stdout.take().unwrap();
    let text = shown(&mut out, 2);
    assert!(
        text.contains("\u{1b}[H") && text.contains("\u{1b}[J") && text.contains("\u{1b}[32mok"),
        "{text:?}"
    );
    terminal.signal(Signal::SIGTERM);
    wait(&mut terminal.0, LIMIT).unwrap();
}
