//! `knock-agent explain` where the configuration on the disk is not the one in force.

use super::explain::{Scene, has_also, next, two_apps};
use crate::agent::Installation;
use crate::configuration::STEP1_PATH;
use crate::configuration::http_key;
use crate::knocking::{form, post_step1, step2};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const NEW_KEY: &str = "a-key-that-was-changed-in-the-file";

#[test]
fn a_file_that_was_changed_and_not_reloaded_is_named_and_nothing_that_it_says() {
    let net = Topology::new();
    let config = two_apps(&[]);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, to) = (&net.router, Family::V4.router());
    let status = || home.verb(router, &["status"]).success().text();
    assert!(!status().contains("file on the disk"));

    // A remark changes nothing.
    home.rewrite_config(&format!("# a remark\n{}", config.text()));
    let value = scene.a("not-knocked");
    assert!(!has_also(&value, "not-reloaded"), "{value:#}");

    let changed = config.text().replace(&http_key("ssh"), NEW_KEY);
    home.rewrite_config(&changed);
    post_step1(&net.a, to, STEP1_PATH, &form("ssh", NEW_KEY));
    let value = scene.a("not-reloaded");
    assert!(value["message"].as_str().unwrap().contains("(ssh.access_key_http)"), "{value:#}");
    assert!(has_also(&value, "knock-refused") && next(&value).contains("reload knock-agent"), "{value:#}");
    assert!(!value.to_string().contains(NEW_KEY), "{value:#}");
    // It is nothing to another app.
    let value = scene.says(&net.b, Family::V4.client_b(), "web", 3333, "not-knocked");
    assert!(has_also(&value, "not-reloaded"), "{value:#}");
    for told in [status(), home.check(router, &["health"]).exits(1).text()] {
        assert!(told.contains("file on the disk") && told.contains("(ssh.access_key_http)"), "{told}");
        assert!(!told.contains(NEW_KEY), "{told}");
    }

    agent.reload();
    assert!(!status().contains("file on the disk"));
    post_step1(&net.a, to, STEP1_PATH, &form("ssh", NEW_KEY));
    step2(&net.a, to, "ssh").expect("an answer");
    scene.a("granted");

    // Its port was guarded before, and is until the reload.
    home.rewrite_config(&changed.replace("2222", "4444"));
    let value = scene.says(&net.b, Family::V4.client_b(), "tcp/2222", 2222, "not-reloaded");
    assert!(next(&value).contains("reload knock-agent"), "{value:#}");
}
