//! What a trial (`run --confirm`) ends because its configuration has no place for it comes back; what somebody ends does not.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::trial::{code, eventually, log, start};
use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH};
use crate::firewall::{elements, flush_host, is_guarded, time_left};
use crate::knocking::{form, post_step1, post_step2};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_echo, assert_echoes, assert_silent, dial};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const TO: Family = Family::V4;

/// These users, with what else is said of them, and an app at a port.
fn config(port: &str, users: &[(&str, &str)]) -> Config {
    let each = users.iter().map(|(name, more)| {
        format!("{name}: {{access_key_http: {name}-first-key, access_key_https: {name}-second-key{more}}}")
    });
    let users = format!("users: {{{}}}", each.collect::<Vec<_>>().join(", "));
    Config::new(&[&users]).app("ssh", port, "tcp", "local", &["duration: 600"])
}

const BOTH: [(&str, &str); 2] = [("alice", ""), ("bobby", "")];

fn two_steps(from: &Namespace, user: &str) {
    let form = |step: &str| form("ssh", &format!("{user}-{step}-key"));
    post_step1(from, TO.router(), STEP1_PATH, &form("first"));
    assert_eq!(post_step2(from, TO.router(), STEP2_PATH, &form("second"), &[]).unwrap().status, 200);
}

#[test]
fn what_only_the_tried_configuration_takes_comes_back_and_what_somebody_takes_does_not() {
    let net = Topology::new();
    let _services = [2222, 2300].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let host = &net.router;
    let home = Installation::new(&config("2222", &BOTH));
    let kept = |address| time_left(host, "ssh", address).is_some();
    let begin = |tried: &Config| {
        home.rewrite_config(config("2222", &BOTH).text());
        let agent = home.start(host);
        two_steps(&net.a, "alice");
        two_steps(&net.b, "bobby");
        let stream = dial(&net.a, (TO.router(), 2222).into(), GENEROUS).unwrap();
        assert_echo(stream.try_clone().unwrap());
        agent.terminate();
        home.rewrite_config(tried.text());
        (start(&home, host, "600s"), stream)
    };
    let (a, b) = (TO.client_a(), TO.client_b());

    // Another port: who was let in for that of before is let in for that one again, unless it was taken back.
    let (mut trial, stream) = begin(&config("2300", &BOTH));
    assert!(!kept(a) && !kept(b), "{}", log(&home));
    assert_silent(&net.a, TO.router(), 2300);
    home.verb(host, &["revoke", "ssh", &b.to_string()]).success();
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
    assert!(log(&home).contains("everything was put back"), "{}", log(&home));
    assert!(time_left(host, "ssh", a).is_some_and(|left| left > Duration::from_secs(500)));
    assert!(!kept(b), "revoked in the meantime");
    assert_echo(stream);
    assert_silent(&net.b, TO.router(), 2222);

    // A user who is missing comes back, and one who is disabled does not; also where the daemon was killed.
    let (mut trial, _) = begin(&config("2222", &[("bobby", ", disabled: true")]));
    assert!(!kept(a) && !kept(b), "{}", log(&home));
    trial.signal(Signal::SIGKILL);
    assert_eq!(code(&mut trial), None);
    eventually("it is put back", || kept(a));
    assert_echoes(&net.a, TO.router(), 2222);
    assert!(!kept(b), "disabled");

    // A reload within the trial takes as little.
    let (mut trial, _) = begin(&config("2222", &BOTH));
    assert!(kept(a) && kept(b), "{}", log(&home));
    home.rewrite_config(config("2300", &BOTH).text());
    trial.signal(Signal::SIGHUP);
    eventually("it is reloaded", || log(&home).contains("the new configuration is in force"));
    assert!(!kept(a) && !kept(b), "{}", log(&home));
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
    assert!(kept(a) && kept(b), "{}", log(&home));
    // Somebody who goes by a reload stays out, and so does who is revoked with everybody.
    let (mut trial, _) = begin(&config("2222", &BOTH));
    home.rewrite_config(config("2222", &BOTH[..1]).text());
    trial.signal(Signal::SIGHUP);
    eventually("it is reloaded", || !kept(b));
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
    assert!(kept(a) && !kept(b), "{}", log(&home));
    let (mut trial, _) = begin(&config("2300", &BOTH));
    home.verb(host, &["revoke", "--all"]).success();
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
    assert!(elements(host, "app_ssh_4").is_empty());
    flush_host(host);
    assert!(!is_guarded(host));
}
