//! What must never be seen outside the configuration.

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::knocking::{form, knock, post_step1, post_step2, request, step1};
use crate::tls::exchange;
use crate::topology::{Family, Topology};

const WRONG_KEY: &str = "a-wrong-key-that-is-secret-elsewhere";
const TOKEN: &str = "918273";

#[test]
fn keys_codes_and_paths_are_in_no_log_and_no_process_listing() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]))
        .variable("RUST_LOG", "trace")
        .flags(&["--log-level", "trace"]);
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    let with_token = format!("{}&token={TOKEN}", form("ssh", WRONG_KEY));
    post_step1(&net.a, to, STEP1_PATH, &with_token);
    post_step1(&net.a, to, STEP1_PATH, &form("unknown", WRONG_KEY));
    step1(&net.a, to, "ssh");
    let _ = post_step2(&net.a, to, STEP2_PATH, &with_token, &[]);
    let _ = post_step2(&net.a, to, STEP2_PATH, &format!("{with_token}&unknown=1"), &[]);
    let _ = post_step2(&net.a, to, &format!("{STEP2_PATH}/longer"), &with_token, &[]);
    let broken = request(&format!("POST {STEP2_PATH}"), &with_token).replace("HTTP/1.1", "HTTP/9.9");
    let _ = exchange(&net.a, to, broken.as_bytes());
    knock(&net.a, to, "ssh");
    let pid = agent.pid();
    let seen_by_others = ["cmdline", "environ", "comm"].map(|file| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned()
    });
    let status = home.verb(&net.router, &["status"]).success().text();
    let status_json = home.verb(&net.router, &["status", "--json"]).success().text();
    let checked = home.check(&net.router, &["check-ruleset", "--json"]).text();
    agent.terminate();
    let log = home.log();
    assert!(log.contains("203.0.113.2"), "the log tells of the grant: {log}");
    for secret in [&http_key("ssh"), &https_key("ssh"), WRONG_KEY, TOKEN, STEP2_PATH] {
        for (place, text) in
            [("log", &log), ("status", &status), ("status --json", &status_json), ("check", &checked)]
        {
            assert!(!text.contains(secret), "{secret} is in the {place}:\n{text}");
        }
        for text in &seen_by_others {
            assert!(!text.contains(secret), "{secret} is in /proc:\n{text}");
        }
    }
    assert!(!log.contains(STEP1_PATH), "the path of step 1 is in the log:\n{log}");
}

#[test]
fn a_broken_configuration_is_reported_without_its_keys() {
    let net = crate::namespace::Namespace::new("secrecy");
    let text = Config::ssh(&[])
        .text()
        .replace("second-key-of-ssh", "tooshort!")
        .replace("protocol: tcp", "protocol: x");
    let home = Installation::with_text(&text);
    let done = home.check(&net, &["check-config"]).exits(78);
    for secret in ["first-key-of-ssh", "tooshort!", STEP2_PATH] {
        assert!(!done.stderr.contains(secret) && !done.text().contains(secret), "{}", done.stderr);
    }
}

#[test]
fn private_files_that_the_agent_makes_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let (cert, key) = (home.path("new.pem"), home.path("new.key"));
    let args = ["cert", "--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    net.router.run(crate::agent::PROGRAM, &args).success();
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    net.router
        .run("openssl", &["x509", "-in", cert.to_str().unwrap(), "-noout", "-checkend", "86400"])
        .success();
    let again = net.router.run(crate::agent::PROGRAM, &args);
    assert!(again.code.is_some_and(|c| c != 0), "an existing key is not overwritten: {again:?}");
    let _agent = home.start(&net.router);
    let socket = std::fs::metadata(home.path("run/control.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o007, 0, "the control socket is not for everybody");
}
