//! What opens a service and what does not.

use std::time::Duration;

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, elements, time_left};
use crate::knocking::{
    STEP2_PORT, assert_step2_answers, assert_step2_opens, form, knock, post_step1, post_step2, step1, step2,
};
use crate::probe::{assert_echoes, assert_silent, assert_udp_open, assert_udp_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    two_steps_open_a_local_tcp_service_over_ipv4_for_that_address_only,
    two_steps_open_a_local_tcp_service_over_ipv6_for_that_address_only,
    two_steps_open_a_local_udp_service_for_that_address_only,
    step_2_cannot_be_reached_before_step_1_and_opens_nothing,
    a_wrong_first_step_does_not_admit_to_the_second,
    the_first_step_of_one_app_does_not_open_the_second_of_another,
}

without_ipset! {
    two_steps_open_a_local_tcp_service_over_ipv4_for_that_address_only,
    two_steps_open_a_local_tcp_service_over_ipv6_for_that_address_only,
    two_steps_open_a_local_udp_service_for_that_address_only,
    step_2_cannot_be_reached_before_step_1_and_opens_nothing,
    a_wrong_first_step_does_not_admit_to_the_second,
    the_first_step_of_one_app_does_not_open_the_second_of_another,
}

fn open_local_tcp(family: Family) {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let to = family.router();
    assert_silent(&net.a, to, 2222);
    assert_silent(&net.a, to, STEP2_PORT);

    step1(&net.a, to, "ssh");
    assert_silent(&net.a, to, 2222);
    assert!(admission_left(&net.router, family.client_a()).is_some(), "step 1 admits to step 2");

    assert_step2_opens(&net.a, to, "ssh");
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
    let digit = family.digit();
    let granted = elements(&net.router, &format!("app_ssh_{digit}"));
    assert_eq!(granted.len(), 1, "one address and no other: {granted:?}");
    assert_eq!(granted[0].key, family.client_a().to_string());
    let other = if digit == '4' { "app_ssh_6" } else { "app_ssh_4" };
    assert_eq!(elements(&net.router, other), []);
}

fn two_steps_open_a_local_tcp_service_over_ipv4_for_that_address_only() {
    open_local_tcp(Family::V4);
}

fn two_steps_open_a_local_tcp_service_over_ipv6_for_that_address_only() {
    open_local_tcp(Family::V6);
}

fn two_steps_open_a_local_udp_service_for_that_address_only() {
    let net = Topology::new();
    let service = Server::udp(&net.router, 1194, Habit::Echo);
    let _other = Server::tcp(&net.router, 1194, Habit::Echo);
    let home = Installation::new(&Config::new(&[]).app("vpn", "1194", "udp", "local", &["duration: 60"]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let heard = service.last_heard();
        assert_udp_silent(&net.a, family.router(), 1194);
        assert_eq!(service.last_heard(), heard, "datagrams that want no answer do not arrive either");
        knock(&net.a, family.router(), "vpn");
        assert_udp_open(&net.a, family.router(), 1194);
        let heard = service.last_heard();
        assert_udp_silent(&net.b, family.router(), 1194);
        assert_eq!(service.last_heard(), heard);
        // The same port number with the other protocol is nobody's: the agent leaves it alone.
        assert_echoes(&net.b, family.router(), 1194);
    }
}

fn step_2_cannot_be_reached_before_step_1_and_opens_nothing() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_eq!(step2(&net.a, family.router(), "ssh"), None);
        step1(&net.b, family.router(), "ssh");
        assert_eq!(step2(&net.a, family.router(), "ssh"), None, "somebody else's step 1 is not ours");
        assert_silent(&net.a, family.router(), 2222);
        assert_eq!(time_left(&net.router, "ssh", family.client_a()), None);
    }
}

fn a_wrong_first_step_does_not_admit_to_the_second() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    let wrong = [
        form("ssh", "not-the-key-of-anything"),
        form("ssh", &https_key("ssh")),
        form("nothing", &http_key("ssh")),
        form("ssh", ""),
        format!("access_key={}", http_key("ssh")),
        "app=ssh".to_owned(),
        format!("{}&app=ssh", form("ssh", &http_key("ssh"))),
        format!("{}&more=1", form("ssh", &http_key("ssh"))),
        form("ssh", &http_key("ssh").to_uppercase()),
        form("ssh", &format!("{}x", http_key("ssh"))),
    ];
    for bad in &wrong {
        post_step1(&net.a, to, STEP1_PATH, bad);
        assert_eq!(admission_left(&net.router, Family::V4.client_a()), None, "step 1 with {bad}");
    }
    assert_silent(&net.a, to, STEP2_PORT);
    step1(&net.a, to, "ssh");
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "the right one still works");
}

#[test]
fn a_wrong_second_step_is_refused_alike_and_opens_nothing() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let _agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    let wrong = [
        form("ssh", "not-the-key-of-anything"),
        form("ssh", &http_key("ssh")),
        form("nothing", &https_key("ssh")),
        form("ssh", &https_key("ssh").to_uppercase()),
        form("ssh", &format!("{}x", https_key("ssh"))),
    ];
    let mut bodies = Vec::new();
    for bad in &wrong {
        step1(&net.a, to, "ssh");
        let reply = post_step2(&net.a, to, STEP2_PATH, bad, &[]);
        bodies.push(reply.clone().map(|r| r.body));
        assert_step2_answers(reply, 403);
        assert_eq!(time_left(&net.router, "ssh", client), None, "step 2 with {bad}");
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "every refusal reads the same: {bodies:?}");
    step1(&net.a, to, "ssh");
    assert_step2_opens(&net.a, to, "ssh");
}

fn the_first_step_of_one_app_does_not_open_the_second_of_another() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2223, Habit::Echo);
    let config = Config::new(&[]).app("one", "2222", "tcp", "local", &["step2_https_duration: 60"]).app(
        "two",
        "2223",
        "tcp",
        "local",
        &["step2_https_duration: 60"],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router();
        step1(&net.a, to, "one");
        assert_step2_answers(step2(&net.a, to, "two"), 403);
        let crossed = post_step2(&net.a, to, STEP2_PATH, &form("two", &https_key("one")), &[]);
        assert_step2_answers(crossed, 403);
        assert_silent(&net.a, to, 2223);
        assert_eq!(time_left(&net.router, "two", family.client_a()), None);
        // Each app its own step 1, both pending at once.
        step1(&net.a, to, "one");
        step1(&net.a, to, "two");
        assert_step2_opens(&net.a, to, "two");
        assert_echoes(&net.a, to, 2223);
    }
}

#[test]
fn neither_port_serves_the_other_step() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let _agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    step1(&net.a, to, "ssh");
    for path in [STEP1_PATH, STEP2_PATH] {
        for key in [http_key("ssh"), https_key("ssh")] {
            if (path, &key) != (STEP1_PATH, &http_key("ssh")) {
                post_step1(&net.a, to, path, &form("ssh", &key));
            }
        }
    }
    let wrong_path = post_step2(&net.a, to, STEP1_PATH, &form("ssh", &https_key("ssh")), &[]);
    assert_step2_answers(wrong_path, 404);
    let wrong_path = post_step2(&net.a, to, STEP1_PATH, &form("ssh", &http_key("ssh")), &[]);
    assert_step2_answers(wrong_path, 404);
    assert_eq!(time_left(&net.router, "ssh", client), None);

    // Step 1 over TLS on the step-2 port admits nobody: what is left only shrinks.
    let before = admission_left(&net.router, client).expect("the admission of step 1");
    std::thread::sleep(Duration::from_millis(1200));
    let _ = post_step2(&net.a, to, STEP1_PATH, &form("ssh", &http_key("ssh")), &[]);
    let after = admission_left(&net.router, client).expect("the admission of step 1");
    assert!(after < before, "{after:?} is not less than {before:?}");
}

#[test]
fn a_second_step_alone_opens_nothing_once_the_window_is_over() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 3", "step2_https_duration: 2"]));
    let _agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    knock(&net.a, to, "ssh");
    std::thread::sleep(Duration::from_millis(4600));
    assert_eq!(step2(&net.a, to, "ssh"), None, "step 2 alone, once the window of its step 1 is over");
    assert_eq!(time_left(&net.router, "ssh", client), None);
}
