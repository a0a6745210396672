//! What else knock sequences open, and what closes it.

use std::time::Duration;

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::elements;
use crate::knocking::{STEP1_PORT, STEP2_PORT, knock};
use crate::knocks::knock_at;
use crate::probe::{GENEROUS, Reach, assert_echoes, assert_open, assert_silent, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_closing_sequence_takes_back_what_sequences_opened_and_no_more,
    a_sequence_may_open_the_port_of_step_1_which_nobody_else_sees,
    a_sequence_behind_another_counts_for_those_only_who_knocked_that_one,
}

const TO: Family = Family::V4;

fn a_closing_sequence_takes_back_what_sequences_opened_and_no_more() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[
        "duration: 600",
        "sequence: [{knocks: [1234, 5678, 9012], closing: [9012, 9013]}, {knocks: [1234, 5678, 7777], duration: 60}]",
    ]));
    let _agent = home.start(&net.router);
    knock_at(&net.a, TO.router(), "1234,5678,9012");
    knock_at(&net.b, TO.router(), "1234,5678,7777,1234,5678,9012");
    assert_echoes(&net.a, TO.router(), 2222);
    assert_echoes(&net.b, TO.router(), 2222);
    // A short one beside a long one shortens nothing.
    knock_at(&net.b, TO.router(), "1234,5678,7777");
    let left = |set: &str, address: &str| {
        let found = elements(&net.router, set).into_iter().find(|element| element.key == address);
        found.and_then(|element| element.expires)
    };
    let address = TO.client_b().to_string();
    assert!(left("seq_ssh_4", &address) > Some(Duration::from_secs(500)));
    assert!(left("seq_ssh.60_4", &address) <= Some(Duration::from_secs(60)));
    knock_at(&net.b, TO.router(), "9012,9013");
    assert_silent(&net.b, TO.router(), 2222);
    assert_echoes(&net.a, TO.router(), 2222);
    // A grant by the agent is not the sequence's to take.
    home.grant(&net.router, "ssh", TO.client_a(), 600);
    knock_at(&net.a, TO.router(), "9012,9013");
    assert!(elements(&net.router, "seq_ssh_4").is_empty());
    assert_echoes(&net.a, TO.router(), 2222);
}

fn a_sequence_may_open_the_port_of_step_1_which_nobody_else_sees() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let gate = "sequence: {knocks: [1234, 5678], opens: step-1, duration: 30}";
    let home = Installation::new(&Config::new(&[gate]).app("ssh", "2222", "tcp", "local", &[]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), STEP1_PORT);
        knock_at(&net.a, family.router(), "1234,5678");
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), STEP1_PORT);
    }
}

#[test]
fn a_sequence_may_be_needed_besides_step_1_for_the_port_of_step_2() {
    let net = Topology::new();
    let gate = "sequence: {knocks: [1234, 5678], opens: step-2, duration: 30}";
    let home = Installation::new(&Config::new(&[gate]).app(
        "ssh",
        "2222",
        "tcp",
        "local",
        &["step2_https_duration: 30"],
    ));
    let _agent = home.start(&net.router);
    let to = TO.router();
    knock_at(&net.a, to, "1234,5678");
    assert_silent(&net.a, to, STEP2_PORT);
    crate::knocking::step1(&net.a, to, "ssh");
    assert_open(&net.a, to, STEP2_PORT);
    crate::knocking::step1(&net.b, to, "ssh");
    assert_silent(&net.b, to, STEP2_PORT);
    knock_at(&net.b, to, "1234,5678");
    assert_eq!(tcp(&net.b, (to, STEP2_PORT).into(), GENEROUS), Reach::Open);
}

fn a_sequence_behind_another_counts_for_those_only_who_knocked_that_one() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[
        "duration: 600",
        "sequence: [{knocks: [1111, 3333], opens: inner, duration: 60}, {knocks: [1234, 5678], name: inner}]",
    ]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router();
        let vain = ["1234,5678", "1111,1234,5678", "3333,1111,1234,5678"];
        let some = if family == TO { vain.len() } else { 1 };
        for vain in vain.into_iter().take(some) {
            knock_at(&net.a, to, vain);
            assert_silent(&net.a, to, 2222);
        }
        knock_at(&net.a, to, "1111,3333");
        assert_silent(&net.a, to, 2222);
        knock_at(&net.b, to, "1234,5678");
        assert_silent(&net.b, to, 2222);
        knock_at(&net.a, to, "1234,5678");
        assert_echoes(&net.a, to, 2222);
    }
}

#[test]
fn iptables_refuses_what_it_cannot_enforce_before_it_touches_anything() {
    let net = Topology::new();
    let many: Vec<String> = (1..=22).map(|n| format!("{{knocks: [{n}01, {n}02, {n}03]}}")).collect();
    let many = format!("sequence: [{}]", many.join(", "));
    for (more, wanted) in [(many.as_str(), "these have 66"), ("once: true", "once of ssh")] {
        let home = Installation::new(&Config::ssh(&[more])).flags(&[
            "--firewall-type",
            "iptables",
            "--iptables-variant",
            "legacy",
        ]);
        let vain = home.run_in_vain(&net.router).exits(78);
        assert!(vain.stderr.contains(wanted) && vain.stderr.contains("use nftables"), "{}", vain.stderr);
        let rules = net.router.run("iptables-legacy", &["-t", "mangle", "-S"]).success().text();
        assert!(!rules.contains("KA-"), "{rules}");
    }
}
