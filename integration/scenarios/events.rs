//! What the log tells of, as programs read it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{flush_host, is_guarded};
use crate::knocking::{form, knock, post_step1};
use crate::topology::{Family, Topology};

const LIMIT: Duration = Duration::from_secs(30);

fn config() -> Config {
    let global = ["lockout: {after: 2, first: 1m, longest: 1h}"];
    Config::new(&global).app("ssh", "2222", "tcp", "local", &["duration: 3"])
}

/// The lines of the log, each of which is an object.
fn lines(home: &Installation) -> Vec<Value> {
    home.log().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// The events of one kind, when there are so many.
#[track_caller]
fn events(home: &Installation, event: &str, least: usize) -> Vec<Value> {
    let end = Instant::now() + LIMIT;
    loop {
        let found: Vec<Value> = lines(home).into_iter().filter(|line| line["event"] == event).collect();
        if found.len() >= least {
            return found;
        }
        assert!(Instant::now() < end, "not {least} times {event}:\n{}", home.log());
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn every_grant_renewal_end_refusal_repair_and_reload_is_one_object_and_holds_no_secret() {
    let net = Topology::new();
    let home = Installation::new(&config()).flags(&["--log-format", "json", "--log-level", "debug"]);
    let agent = home.start(&net.router);
    let started = &events(&home, "started", 1)[0];
    assert_eq!((started["level"].as_str(), started["grants"].as_u64()), (Some("info"), Some(0)));
    events(&home, "ready", 1);

    knock(&net.a, Family::V6.router(), "ssh");
    let granted = &events(&home, "granted", 1)[0];
    assert_eq!(granted["services"], serde_json::json!(["tcp/2222"]));
    assert_eq!((granted["app"].as_str(), granted["by"].as_str()), (Some("ssh"), Some("key 1")));
    assert_eq!((granted["how"].as_str(), granted["lifetime_s"].as_u64()), (Some("two-step"), Some(3)));
    let client = Family::V6.client_a().to_string();
    assert!(granted["client"] == client.as_str() || granted["address"] == client.as_str(), "{granted}");
    let expired = &events(&home, "expired", 1)[0];
    assert_eq!((&expired["address"], &expired["by"]), (&granted["address"], &granted["by"]));
    assert_eq!(events(&home, "admitted", 1).len(), 1);

    let b = Family::V4.client_b();
    home.grant(&net.router, "ssh", b, 60);
    home.grant(&net.router, "ssh", b, 90);
    home.verb(&net.router, &["revoke", "ssh", &b.to_string()]).success();
    assert_eq!(events(&home, "renewed", 1)[0]["lifetime_s"], 90);
    assert_eq!(events(&home, "revoked", 1)[0]["address"], b.to_string());
    let actions: Vec<Value> =
        events(&home, "operator", 3).iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, ["grant", "grant", "revoke"]);

    for _ in 0..3 {
        post_step1(&net.b, Family::V4.router(), STEP1_PATH, &form("ssh", "a-guess-of-mine"));
    }
    let denied = &events(&home, "denied", 1)[0];
    assert_eq!(
        (denied["address"].as_str(), denied["reason"].as_str()),
        (Some("203.0.113.3"), Some("wrong-key"))
    );
    assert_eq!(events(&home, "locked-out", 1)[0]["lifetime_s"], 60);
    home.verb(&net.router, &["unblock", "--all"]).success();
    events(&home, "unlocked", 1);

    flush_host(&net.router);
    assert!(events(&home, "repaired", 1)[0]["by"].as_str().unwrap().starts_with("nft"), "{}", home.log());
    assert!(is_guarded(&net.router));
    agent.signal(Signal::SIGHUP);
    events(&home, "reloaded", 1);
    home.rewrite_config("global: nonsense");
    agent.signal(Signal::SIGHUP);
    assert!(!events(&home, "not-reloaded", 1)[0]["reason"].as_str().unwrap().is_empty());
    agent.terminate();
    events(&home, "stopped", 1);

    let log = home.log();
    for secret in [&http_key("ssh"), &https_key("ssh"), "a-guess-of-mine", STEP1_PATH, STEP2_PATH] {
        assert!(!log.contains(secret.trim_start_matches('/')), "a secret in the log: {log}");
    }
    let whole = |line: &Value| ["time", "level", "message"].iter().all(|key| line[key].is_string());
    assert!(lines(&home).iter().all(whole), "{log}");
    assert!(log.contains("\"level\":\"debug\""), "{log}");
}

#[test]
fn systemd_s_journal_gets_the_fields_of_events_from_the_sealed_daemon() {
    let net = Topology::new();
    let home = Installation::new(&config());
    let folder = home.path("journal");
    fs::create_dir(&folder).unwrap();
    let journal = UnixDatagram::bind(folder.join("socket")).unwrap();
    journal.set_read_timeout(Some(LIMIT)).unwrap();
    let mounts = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {} /run/systemd/journal && \
         JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) && export JOURNAL_STREAM && exec \"$@\"",
        folder.display()
    );
    let home = home.wrapper(&["unshare", "-m", "sh", "-c", &mounts, "sh"]);
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_b(), 60);
    let mut bytes = [0; 65_536];
    let entry = loop {
        let length = journal.recv(&mut bytes).unwrap_or_else(|error| panic!("{error}\n{}", home.log()));
        let entry = String::from_utf8(bytes[..length].to_vec()).unwrap();
        if entry.contains("KNOCK_AGENT_EVENT=granted\n") {
            break entry;
        }
    };
    let has = |line: &str| assert!(entry.lines().any(|have| have == line), "{line} in\n{entry}");
    has("PRIORITY=6");
    has("SYSLOG_IDENTIFIER=knock-agent");
    has("KNOCK_AGENT_ADDRESS=203.0.113.3");
    has("KNOCK_AGENT_APP=ssh");
    has("KNOCK_AGENT_HOW=operator");
    has("KNOCK_AGENT_LIFETIME_S=60");
    has("KNOCK_AGENT_SERVICES=tcp/2222");
    assert!(entry.contains("MESSAGE=INFO granted address=203.0.113.3"), "{entry}");
    assert!(!home.log().contains("granted"), "nothing is told twice: {}", home.log());
    agent.terminate();
}
