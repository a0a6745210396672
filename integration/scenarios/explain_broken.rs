//! `knock-agent explain` where the configuration cannot be used: what is in force still tells.

use std::fs;

use super::explain::{Scene, has_also};
use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    without_a_configuration_the_rules_in_force_answer,
}

fn without_a_configuration_the_rules_in_force_answer() {
    let net = Topology::new();
    let router = &net.router;
    let more = ["duration: 600"];
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &more).app(
        "lan",
        "3333",
        "tcp",
        "10.0.0.5:22",
        &more,
    );
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let agent = home.start(router);
    let _ssh = Server::tcp(router, 2222, Habit::Echo);
    let _lan = Server::tcp(&net.lan, 22, Habit::Echo);
    let (a, b) = (Family::V4.client_a(), Family::V4.client_b());
    home.grant(router, "ssh", a, 600);
    home.grant(router, "lan", b, 600);

    home.rewrite_config(&config.text().replace("duration: 600", "duration: soon"));
    let told = |value: &serde_json::Value| {
        let note = value["also"].as_array().unwrap().iter().find(|note| note["cause"] == "bad-configuration");
        let message = note.unwrap_or_else(|| panic!("{value:#}"))["message"].as_str().unwrap();
        assert!(message.contains("config.yaml:") && message.contains("soon"), "{message}");
    };
    told(&scene.a("granted"));
    told(&scene.says(&net.b, b, "lan", 3333, "granted"));
    told(&scene.says(&net.a, a, "lan", 3333, "granted-other-app"));
    told(&scene.says(&net.b, b, "ssh", 2222, "granted-other-app"));

    agent.kill();
    told(&scene.a("granted"));
    let value = scene.says(&net.a, Family::V6.client_a(), "ssh", 2222, "daemon-not-running");
    told(&value);

    fs::remove_file(home.path("config.yaml")).unwrap();
    let value = scene.a("granted");
    assert!(has_also(&value, "bad-configuration"), "{value:#}");
    home.check(router, &["explain", &a.to_string(), "no-such-app"]).exits(2);
    home.verb(router, &["teardown"]).success();
    let value = scene.explain(a, "ssh");
    assert_eq!((&value["verdict"], &value["cause"]), (&"unknown".into(), &"bad-configuration".into()));
    assert_eq!(scene.explain(a, "tcp/2222")["cause"], "no-guard");
}
