//! An app that moves to other ports while somebody has a grant for it.

use std::time::Duration;

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::time_left;
use crate::knocking::knock;
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_grant_ends_when_its_app_moves_to_ports_that_were_never_granted,
    a_grant_ends_when_its_app_moves_while_no_daemon_runs,
    a_grant_ends_where_a_guard_between_two_daemons_moves_its_app,
}

fn a_grant_ends_when_its_app_moves_to_ports_that_were_never_granted() {
    let net = Topology::new();
    let _services = [2222, 3333, 6000].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let with = |ports: &str| {
        Config::new(&[]).app("ssh", ports, "tcp", "local", &["duration: 600"]).app(
            "web",
            "4444",
            "tcp",
            "local",
            &["duration: 600"],
        )
    };
    let home = Installation::new(&with("2222"));
    let agent = home.start(&net.router);
    let (to, a, b) = (Family::V4.router(), Family::V4.client_a(), Family::V4.client_b());
    knock(&net.a, to, "ssh");
    knock(&net.a, to, "web");
    home.grant(&net.router, "ssh", b, 600);
    assert_echoes(&net.a, to, 2222);
    // One of its ports stays: so do the grants.
    home.rewrite_config(with("[2222, 3333]").text());
    agent.reload();
    assert_echoes(&net.a, to, 3333);
    home.rewrite_config(with("\"3000-3999\"").text());
    agent.reload();
    assert_echoes(&net.a, to, 3333);
    // None stays.
    home.rewrite_config(with("6000").text());
    let said = agent.reload();
    assert!(said.contains("STATUS=guarding\n"), "{said}\n{}", home.log());
    assert!(time_left(&net.router, "ssh", a).is_none() && time_left(&net.router, "ssh", b).is_none());
    assert_silent(&net.a, to, 6000);
    assert!(time_left(&net.router, "web", a).is_some_and(|left| left > Duration::from_secs(60)));
    knock(&net.a, to, "ssh");
    assert_echoes(&net.a, to, 6000);
    assert_silent(&net.b, to, 6000);
}

fn a_grant_ends_when_its_app_moves_while_no_daemon_runs() {
    let net = Topology::new();
    let _services = [2222, 3333, 6000].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let with = |ports: &str| {
        let ten = ["duration: 600"];
        Config::new(&[]).app("ssh", ports, "tcp", "local", &ten).app("web", "4444", "tcp", "local", &ten)
    };
    let home = Installation::new(&with("2222"));
    let (host, to, a) = (&net.router, Family::V4.router(), Family::V4.client_a());
    let agent = home.start(host);
    home.grant(host, "ssh", a, 600);
    home.grant(host, "web", a, 600);
    agent.terminate();
    // One of its ports stays.
    home.rewrite_config(with("[2222, 3333]").text());
    let agent = home.start(host);
    assert_echoes(&net.a, to, 3333);
    agent.terminate();
    home.rewrite_config(with("6000").text());
    let _agent = home.start(host);
    assert!(time_left(host, "ssh", a).is_none(), "{}", home.log());
    assert_silent(&net.a, to, 6000);
    assert!(time_left(host, "web", a).is_some_and(|left| left > Duration::from_secs(60)));
    home.grant(host, "ssh", a, 600);
    assert_echoes(&net.a, to, 6000);
}

fn a_grant_ends_where_a_guard_between_two_daemons_moves_its_app() {
    let net = Topology::new();
    let _services = [2222, 6000].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let with = |ports: &str| {
        let ten = ["duration: 600"];
        Config::new(&[]).app("ssh", ports, "tcp", "local", &ten).app("web", "4444", "tcp", "local", &ten)
    };
    let home = Installation::new(&with("2222"));
    let (host, to, a) = (&net.router, Family::V4.router(), Family::V4.client_a());
    let agent = home.start(host);
    home.grant(host, "ssh", a, 600);
    home.grant(host, "web", a, 600);
    agent.terminate();
    home.rewrite_config(with("6000").text());
    let done = home.guard(host).success();
    assert!(done.stderr.contains("grants of apps that have other ports now end"), "{}", done.stderr);
    assert_silent(&net.a, to, 6000);
    let _agent = home.start(host);
    assert!(time_left(host, "ssh", a).is_none(), "{}", home.log());
    assert_silent(&net.a, to, 6000);
    assert!(time_left(host, "web", a).is_some_and(|left| left > Duration::from_secs(60)));
}
