//! When things close and how renewal moves that.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::configuration::{Config, STEP2_PATH, https_key};
use crate::firewall::{admission_left, time_left};
use crate::knocking::{STEP2_PORT, assert_step2_opens, form, knock, parse_reply, request, step1};
use crate::probe::{assert_echoes, assert_on_time, assert_open, assert_udp_open, udp_echoes, when_silent};
use crate::server::{Habit, Server};
use crate::tls::Tls;
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_service_closes_ten_seconds_after_step_2_over_ipv4,
    a_udp_service_closes_ten_seconds_after_step_2,
    step_2_stays_open_for_its_window_and_no_longer,
    knocking_again_moves_the_end,
    knocking_again_never_shortens,
}

without_ipset! {
    a_service_closes_ten_seconds_after_step_2_over_ipv4,
    a_udp_service_closes_ten_seconds_after_step_2,
    step_2_stays_open_for_its_window_and_no_longer,
    knocking_again_moves_the_end,
}

#[track_caller]
fn assert_about(left: Duration, seconds: f64) {
    let off = (left.as_secs_f64() - seconds).abs();
    assert!(off <= 1.5, "{left:?} left instead of about {seconds} s");
}

fn closes_after_ten_seconds(family: Family) {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 10", "step2_https_duration: 5"]));
    let _agent = home.start(&net.router);
    step1(&net.a, family.router(), "ssh");
    assert_step2_opens(&net.a, family.router(), "ssh");
    let due = Instant::now() + Duration::from_secs(10);
    let left = time_left(&net.router, "ssh", family.client_a()).expect("a grant");
    assert_about(left, 10.0);
    assert!(left <= Duration::from_secs(10), "never longer than configured: {left:?}");
    let closed = when_silent(&net.a, family.router(), 2222, due + Duration::from_secs(3));
    assert_on_time(closed, due);
}

fn a_service_closes_ten_seconds_after_step_2_over_ipv4() {
    closes_after_ten_seconds(Family::V4);
}

#[test]
fn a_service_closes_ten_seconds_after_step_2_over_ipv6() {
    closes_after_ten_seconds(Family::V6);
}

fn a_udp_service_closes_ten_seconds_after_step_2() {
    let net = Topology::new();
    let _service = Server::udp(&net.router, 1194, Habit::Echo);
    let home = Installation::new(&Config::new(&[]).app("vpn", "1194", "udp", "local", &["duration: 10"]));
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "vpn");
    let due = Instant::now() + Duration::from_secs(10);
    assert_udp_open(&net.a, to, 1194);
    let mut last = Instant::now();
    while udp_echoes(&net.a, to, 1194, Duration::from_millis(300)) {
        last = Instant::now();
        assert!(last < due + Duration::from_secs(3), "udp port 1194 is still open");
    }
    assert_on_time(last, due);
}

fn step_2_stays_open_for_its_window_and_no_longer() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 5"]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        // curl spends a second listening in vain: the window began when its request arrived.
        let due = Instant::now() + Duration::from_secs(5);
        step1(&net.a, family.router(), "ssh");
        assert!(admission_left(&net.router, family.client_a()).is_some(), "an admission");
        assert_open(&net.a, family.router(), STEP2_PORT);
        let closed = when_silent(&net.a, family.router(), STEP2_PORT, due + Duration::from_secs(3));
        assert_on_time(closed, due);
        assert_eq!(admission_left(&net.router, family.client_a()), None);
    }
}

#[test]
fn a_second_step_that_began_within_the_window_may_finish_after_it() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 3"]));
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let mut connection = Tls::connect(&net.a, to, &[]);
    let whole = request(&format!("POST {STEP2_PATH}"), &form("ssh", &https_key("ssh")));
    let (first, second) = whole.as_bytes().split_at(40);
    connection.send(first);
    sleep(Duration::from_millis(3200));
    assert_eq!(admission_left(&net.router, Family::V4.client_a()), None, "the window is over");
    connection.send(second);
    let answer = connection.rest(Duration::from_secs(8));
    let reply = parse_reply(&String::from_utf8_lossy(&answer));
    assert!([200, 403].contains(&reply.status), "an answer to the whole request: {}", reply.head);
}

fn knocking_again_moves_the_end() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 10"]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let (to, client) = (family.router(), family.client_a());
        knock(&net.a, to, "ssh");
        sleep(Duration::from_secs(4));
        let before = time_left(&net.router, "ssh", client).expect("a grant");
        assert_about(before, 6.0);
        knock(&net.a, to, "ssh");
        let due = Instant::now() + Duration::from_secs(10);
        assert_about(time_left(&net.router, "ssh", client).expect("a grant"), 10.0);
        if family == Family::V4 {
            assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
        }
    }
}

fn knocking_again_never_shortens() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 4", "max_duration: 600"]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let (to, client) = (family.router(), family.client_a());
        home.grant(&net.router, "ssh", client, 300);
        assert_about(time_left(&net.router, "ssh", client).expect("a grant"), 300.0);
        knock(&net.a, to, "ssh");
        let left = time_left(&net.router, "ssh", client).expect("a grant");
        assert!(left > Duration::from_secs(280), "{left:?} left after a knock for 4 s");
        home.grant(&net.router, "ssh", client, 2);
        let left = time_left(&net.router, "ssh", client).expect("a grant");
        assert!(left > Duration::from_secs(280), "{left:?} left after a grant for 2 s");
        sleep(Duration::from_secs(5));
        assert_echoes(&net.a, to, 2222);
    }
}
