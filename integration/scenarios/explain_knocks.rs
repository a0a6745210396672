//! `knock-agent explain` of knocks that went wrong, and of what the agent itself was told wrong.

use std::thread::sleep;
use std::time::Duration;

use super::explain::{Scene, has_also, next, two_apps};
use super::two_factor::{code, install};
use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::knocking::{form, post_step1, post_step2, step1, step2};
use crate::proxies;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

fn message(value: &serde_json::Value) -> &str {
    value["message"].as_str().unwrap()
}

#[test]
fn wrong_paths_wrong_keys_other_addresses_and_steps_that_come_too_late() {
    let net = Topology::new();
    let config =
        Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 60", "step2_https_duration: 1"]);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (to, b) = (Family::V4.router(), Family::V4.client_b());

    // The kernel dropped it, and nobody but the kernel knows.
    post_step1(&net.a, to, "/another-path", &form("ssh", &http_key("ssh")));
    let value = scene.a("step1-unheard");
    assert!(message(&value).contains("wrong path") && next(&value).contains("http_post_path"), "{value:#}");
    post_step1(&net.a, to, STEP1_PATH, &form("ssh", "a-key-that-is-wrong"));
    let value = scene.a("knock-refused");
    assert!(message(&value).contains("step 1 was refused: wrong key"), "{value:#}");
    post_step1(&net.a, to, STEP1_PATH, &form("shh", &http_key("ssh")));
    let value = scene.a("knock-refused");
    assert!(message(&value).contains("no app of the name"), "{value:#}");

    // By IPv6, while the service is asked for by IPv4.
    step1(&net.a, Family::V6.router(), "ssh");
    let value = scene.says(&net.b, b, "ssh", 2222, "not-knocked");
    let v6 = Family::V6.client_a().to_string();
    assert!(has_also(&value, "step1-elsewhere") && next(&value).contains("knock -4"), "{value:#}");
    assert!(next(&value).contains(&v6), "{value:#}");

    step1(&net.b, to, "ssh");
    sleep(Duration::from_millis(1_500));
    assert!(step2(&net.b, to, "ssh").is_none(), "step 2 came in time");
    let value = scene.says(&net.b, b, "ssh", 2222, "step2-missing");
    assert!(message(&value).contains("it was open for 1 s, so that it came too late"), "{value:#}");
}

#[test]
fn a_one_time_code_that_was_used_before() {
    let net = Topology::new();
    let home = install(&http_key("ssh"), &["step2_https_duration: 8"]);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _ssh = Server::tcp(&net.router, 2222, Habit::Echo);
    let to = Family::V4.router();
    let with = format!("{}&token={}", form("ssh", &http_key("ssh")), code(&net.a, 0));
    post_step1(&net.a, to, STEP1_PATH, &with);
    post_step2(&net.a, to, STEP2_PATH, &form("ssh", &https_key("ssh")), &[]).expect("an answer");
    scene.a("granted");
    post_step1(&net.b, to, STEP1_PATH, &with);
    let value = scene.says(&net.b, Family::V4.client_b(), "ssh", 2222, "knock-refused");
    assert!(message(&value).contains("used before") && next(&value).contains("next code"), "{value:#}");
}

#[test]
fn the_address_of_a_proxy_and_an_interface_that_is_not_there() {
    let net = Topology::new();
    let b = Family::V4.client_b();
    let config = proxies::config(&["proxy_step2: http"]);
    let home = proxies::installation(&config, &["--waf-trusted-ips", &b.to_string()]).without_certificate();
    let agent = home.start(&net.router);
    let scene = Scene { net: &net, home: &home };
    let value = scene.says(&net.b, b, "ssh", 2222, "proxy-address");
    assert!(next(&value).contains("client's own address"), "{value:#}");
    agent.terminate();

    let home =
        Installation::with_text(&two_apps(&[]).text().replace("interface_ext: ext0", "interface_ext: wan9"));
    let _agent = home.start(&net.router);
    let _ssh = Server::tcp(&net.router, 2222, Habit::Echo);
    let scene = Scene { net: &net, home: &home };
    let value = scene.a("other-interface");
    assert!(message(&value).contains("this host has no interface wan9"), "{value:#}");
    assert!(!has_also(&value, "bad-configuration"), "{value:#}");
}
