//! A path of step 1 that changes with time.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, time_left};
use crate::knocker::{Knocker, NAME, certify};
use crate::knocking::{assert_step2_opens, form, post_step1, step1};
use crate::probe::assert_silent;
use crate::server::{Habit, Server};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

const SECRET: &str = "the secret of the paths, which nobody guesses";
const EVERY: u64 = 10;

fn config(more: &[&str]) -> Config {
    let secret = format!("http_post_path_secret: \"{SECRET}\"");
    let all = [&[secret.as_str(), "http_post_path_every: 10s"], more].concat();
    Config::new(&all).app("ssh", "2222", "tcp", "local", &["duration: 600", "step2_https_duration: 5"])
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The path of a time step, by somebody else's arithmetic.
fn path(step: u64) -> String {
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-hmac", SECRET]);
    let text = format!("knock-agent path 1\n{step}");
    let done = crate::process::finish(command, text.as_bytes(), Duration::from_secs(20)).success().text();
    let digest = done.split_whitespace().last().unwrap();
    format!("{STEP1_PATH}/{}", &digest[..32])
}

/// Waits until a time step has just begun, so that what follows happens within it.
fn at_the_beginning_of_a_step() -> u64 {
    let step = seconds() / EVERY + 1;
    while seconds() < step * EVERY {
        sleep(Duration::from_millis(20));
    }
    // The kernel's rules follow at once, but not before.
    sleep(Duration::from_millis(500));
    step
}

on_every_firewall! {
    the_path_of_the_moment_and_its_neighbours_are_let_in_and_no_others,
    knocks_go_through_while_paths_change_and_ports_stay_closed,
}

fn the_path_of_the_moment_and_its_neighbours_are_let_in_and_no_others() {
    let net = Topology::new();
    let home = Installation::new(&config(&[]));
    let _agent = home.start(&net.router);
    let form = form("ssh", &http_key("ssh"));
    // Another time of the day is as good as another time step.
    for (family, client, address, steps) in [
        (Family::V4, &net.a, Family::V4.client_a(), [-2_i64, 2, 100]),
        (Family::V6, &net.b, Family::V6.client_b(), [-2, -3, 2]),
    ] {
        let to = family.router();
        let now = at_the_beginning_of_a_step();
        for step in steps {
            post_step1(client, to, &path(now.checked_add_signed(step).unwrap()), &form);
            assert_eq!(admission_left(&net.router, address), None, "step {step}");
        }
        // Without what is put behind it, it is nothing; nor with more.
        step1(client, to, "ssh");
        post_step1(client, to, &format!("{}0", path(now)), &form);
        assert_eq!(admission_left(&net.router, address), None);
    }
    let now = at_the_beginning_of_a_step();
    for (step, client, address) in [(0, &net.a, Family::V4.client_a()), (-1, &net.b, Family::V4.client_b())] {
        post_step1(client, Family::V4.router(), &path(now.checked_add_signed(step).unwrap()), &form);
        assert!(admission_left(&net.router, address).is_some(), "step {step}");
        assert_step2_opens(client, Family::V4.router(), "ssh");
    }
    post_step1(&net.a, Family::V6.router(), &path(now + 1), &form);
    assert_step2_opens(&net.a, Family::V6.router(), "ssh");
}

fn knocks_go_through_while_paths_change_and_ports_stay_closed() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&config(&[]));
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", "198.51.100.7", 600);
    let form = form("ssh", &http_key("ssh"));
    let (client, to) = (Family::V4.client_a(), Family::V4.router());
    let first = seconds() / EVERY;
    let done = AtomicBool::new(false);
    scope(|scope| {
        let probes = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                assert_silent(&net.b, to, 2222);
                count += 1;
            }
            count
        });
        while seconds() / EVERY < first + 3 {
            post_step1(&net.a, to, &path(seconds() / EVERY), &form);
            let left = admission_left(&net.router, client);
            assert!(left.is_some_and(|left| left > Duration::from_secs(2)), "{left:?}\n{}", home.log());
        }
        done.store(true, Ordering::Relaxed);
        assert!(probes.join().unwrap() > 10);
    });
    let left = time_left(&net.router, "ssh", "198.51.100.7".parse().unwrap());
    assert!(left.is_some_and(|left| left > Duration::from_secs(500)), "{left:?}");
    // What is in force is what a dry run says, whenever it is asked; a reload changes nothing of that.
    at_the_beginning_of_a_step();
    home.check(&net.router, &["check-ruleset", "--diff-exit"]).success();
    agent.reload();
    home.check(&net.router, &["check-ruleset", "--diff-exit"]).success();
    assert!(!home.log().contains("somebody changed our table"), "{}", home.log());
    for secret in [SECRET, &path(seconds() / EVERY)] {
        assert!(!home.log().contains(secret), "a secret in the log");
    }
}

#[test]
fn a_repair_and_a_restart_have_the_path_of_the_moment() {
    let net = Topology::new();
    let home = Installation::new(&config(&[]));
    let agent = home.start(&net.router);
    at_the_beginning_of_a_step();
    net.router.run("nft", &["flush", "ruleset"]).success();
    let form = form("ssh", &http_key("ssh"));
    sleep(Duration::from_millis(1_500));
    post_step1(&net.a, Family::V4.router(), &path(seconds() / EVERY), &form);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "{}", home.log());
    agent.kill();
    // The paths of before are long over when it comes back.
    sleep(Duration::from_secs(2 * EVERY + 2));
    let now = seconds() / EVERY;
    let _agent = home.start(&net.router);
    post_step1(&net.b, Family::V4.router(), &path(now - 2), &form);
    assert_eq!(admission_left(&net.router, Family::V4.client_b()), None);
    post_step1(&net.b, Family::V4.router(), &path(seconds() / EVERY), &form);
    assert!(admission_left(&net.router, Family::V4.client_b()).is_some(), "{}", home.log());
}

#[test]
fn the_client_and_the_script_find_the_path_by_themselves() {
    let net = Topology::new();
    let home = Installation::new(&config(&[]));
    certify(&home, &[NAME, "203.0.113.1"]);
    let _agent = home.start(&net.router);
    let ca = home.path("cert.pem").display().to_string();
    let more = [
        "http_post_path_secret: {file: ~/path}".to_owned(),
        "http_post_path_every: 10".to_owned(),
        format!("ca: {ca}"),
    ];
    let knocker = Knocker::new().profile(NAME, &more.each_ref().map(String::as_str));
    knocker.home().write("path", format!("{SECRET}\n"));
    knocker.run(&net.a, &["knock", "gate"]).success();
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
    assert!(time_left(&net.router, "ssh", Family::V6.client_a()).is_some());

    let folder = TempDir::new();
    folder.write("key1", http_key("ssh"));
    folder.write("key2", https_key("ssh"));
    folder.write("path", SECRET);
    let at = folder.path().display();
    folder.write(
        "gate",
        format!(
            "host=203.0.113.1\nhttp_port=8080\nhttps_port=8443\nhttp_path={STEP1_PATH}\nhttps_path={STEP2_PATH}\n\
             app=ssh\nkey_http={at}/key1\nkey_https={at}/key2\nca={ca}\npath_secret={at}/path\npath_every=10\n"
        ),
    );
    let script = format!("{}/integration/clients/knock.sh", env!("CARGO_MANIFEST_DIR"));
    let gate = folder.path().join("gate");
    net.b.run("dash", &[&script, gate.to_str().unwrap()]).success();
    assert!(time_left(&net.router, "ssh", Family::V4.client_b()).is_some());
}
