//! What a trial (`run --confirm`) ends because its configuration has no place for it comes back; what somebody ends does not.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::trial::{code, eventually, log, start};
use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH};
use crate::firewall::{elements, flush_host, is_guarded, table, time_left};
use crate::knocking::{form, post_step1, post_step2};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_echo, assert_echoes, assert_silent, dial};
use crate::process::Background;
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
    two_steps_to(from, "ssh", user);
}

fn two_steps_to(from: &Namespace, app: &str, user: &str) {
    let form = |step: &str| form(app, &format!("{user}-{step}-key"));
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

#[test]
fn what_somebody_takes_back_stays_so_also_for_an_app_that_the_tried_configuration_leaves_out() {
    let net = Topology::new();
    let _services = [2222, 3333].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let (host, a, b, to) = (&net.router, TO.client_a(), TO.client_b(), TO.router());
    let both =
        |users: &[(&str, &str)]| config("2222", users).app("web", "3333", "tcp", "local", &["duration: 600"]);
    let home = Installation::new(&both(&BOTH));
    let begin = |tried: &Config| {
        home.rewrite_config(both(&BOTH).text());
        let agent = home.start(host);
        for (from, user) in [(&net.a, "alice"), (&net.b, "bobby")] {
            two_steps_to(from, "web", user);
        }
        home.verb(host, &["allow", "203.0.113.77", "--app", "web"]).success();
        agent.terminate();
        home.rewrite_config(tried.text());
        start(&home, host, "600s")
    };
    let end = |mut trial: Background| {
        trial.signal(Signal::SIGTERM);
        assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
        let web = |address| time_left(host, "web", address).is_some();
        (web(a), web(b), !elements(host, "allow_web_4").is_empty())
    };
    let reload = |trial: &Background, to: &Config| {
        home.rewrite_config(to.text());
        trial.signal(Signal::SIGHUP);
        eventually("it is reloaded", || log(&home).contains("the new configuration is in force"));
    };
    let without = config("2222", &BOTH);

    // Nobody did anything: all of it comes back.
    assert_eq!(end(begin(&without)), (true, true, true), "{}", log(&home));
    assert_echoes(&net.a, to, 3333);
    // Whoever is disabled stays out, and whoever is only missing does not.
    let disabled = (
        config("2222", &[("bobby", ", disabled: true")]),
        config("2222", &[("alice", ""), ("bobby", ", disabled: true")]),
    );
    assert_eq!(end(begin(&disabled.0)), (true, false, true), "{}", log(&home));
    assert_silent(&net.b, to, 3333);
    let trial = begin(&without);
    reload(&trial, &disabled.1);
    assert_eq!(end(trial), (true, false, true), "{}", log(&home));
    // Networks, and then everybody; also where the daemon is killed.
    let trial = begin(&without);
    home.verb(host, &["allow", "--flush"]).success();
    assert_eq!(end(trial), (true, true, false), "{}", log(&home));
    let mut trial = begin(&without);
    home.verb(host, &["revoke", "--all"]).success();
    trial.signal(Signal::SIGKILL);
    assert_eq!(code(&mut trial), None);
    eventually("it is put back", || is_guarded(host) && table(host).contains("allow_web_4"));
    assert!(elements(host, "app_web_4").is_empty());
    assert_silent(&net.a, to, 3333);
    // What was revoked while the app was there, before a reload left it out.
    let trial = begin(&both(&BOTH));
    home.verb(host, &["revoke", "web", &b.to_string()]).success();
    reload(&trial, &without);
    assert_eq!(end(trial), (true, false, true), "{}", log(&home));
}

#[test]
fn a_trial_that_ends_thousands_of_grants_keeps_the_process_that_puts_them_back() {
    let net = Topology::new();
    let home = Installation::new(&config("2222", &BOTH));
    let host = &net.router;
    home.start(host).terminate();
    let many: Vec<String> =
        (0..6_000).map(|n| format!("10.9.{}.{} timeout 600s", n / 250, n % 250)).collect();
    host.nft(&format!("add element inet knock_agent app_ssh_4 {{ {} }}", many.join(", ")));
    home.rewrite_config(config("2300", &BOTH).text());
    let mut trial = start(&home, host, "600s");
    assert!(elements(host, "app_ssh_4").is_empty(), "{}", log(&home));
    assert!(!log(&home).contains("is gone"), "{}", log(&home));
    trial.signal(Signal::SIGKILL);
    assert_eq!(code(&mut trial), None);
    eventually("it is put back", || elements(host, "app_ssh_4").len() == 6_000);
}
