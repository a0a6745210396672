//! `step1_reply: http`: the first step answers those who know the path, and nobody else.

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, time_left};
use crate::knocking::{STEP1_PORT, assert_step2_opens, form, parse_reply};
use crate::server::{Habit, Server, in_url};
use crate::topology::{Family, Topology};

on_every_firewall! {
    the_first_step_answers_those_who_know_its_path,
    too_many_answered_first_steps_are_turned_away,
}

fn the_first_step_answers_those_who_know_its_path() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&["step1_reply: http"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let (to, client) = (family.router(), family.client_a());
        let post = |path: &str, form: &str| {
            let url = format!("http://{}:{STEP1_PORT}{path}", in_url(to));
            net.a.run("curl", &["-sS", "-g", "-i", "-m", "2", "-d", form, &url])
        };
        let status = |form: &str| parse_reply(&post(STEP1_PATH, form).success().text()).status;
        assert_eq!(status(&form("ssh", "not-the-key-of-anything")), 403);
        assert_eq!(status(&form("nothing", &http_key("ssh"))), 403);
        assert_eq!(status("app=ssh"), 400);
        assert_eq!(admission_left(&net.router, client), None);
        post("/another-path", &form("ssh", &http_key("ssh"))).exits(28);
        post(STEP2_PATH, &form("ssh", &https_key("ssh"))).exits(28);
        assert_eq!(admission_left(&net.router, client), None);
        let right = parse_reply(&post(STEP1_PATH, &form("ssh", &http_key("ssh"))).success().text());
        assert_eq!((right.status, right.body.trim_end()), (200, "OK"));
        assert_step2_opens(&net.a, to, "ssh");
        assert!(time_left(&net.router, "ssh", client).is_some(), "a grant");
        crate::probe::assert_echoes(&net.a, to, 2222);
    }
}

fn too_many_answered_first_steps_are_turned_away() {
    let net = Topology::new();
    let config = Config::new(&["step1_reply: http", "step1_2_rate_limit_per_minute: 3"]).app(
        "ssh",
        "2222",
        "tcp",
        "local",
        &[],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let url = format!("http://203.0.113.1:{STEP1_PORT}{STEP1_PATH}");
    let statuses: Vec<u16> = (0..5)
        .map(|_| {
            let form = form("ssh", "not-the-key-of-anything");
            let done = net.a.run("curl", &["-sS", "-i", "-m", "3", "-d", &form, &url]).success();
            parse_reply(&done.text()).status
        })
        .collect();
    assert_eq!(statuses, [403, 403, 403, 429, 429]);
    let form = form("ssh", &http_key("ssh"));
    let done = net.b.run("curl", &["-sS", "-i", "-m", "3", "-d", &form, &url]).success();
    assert_eq!(parse_reply(&done.text()).status, 200, "another address is not concerned");
}
