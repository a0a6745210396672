//! `expires` of users and keys ends what they have open, whenever it was said.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key};
use crate::knocking::{assert_step2_answers, post_step1, post_step2};
use crate::probe::{assert_echoes, assert_silent, when_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const ALICE: (&str, &str) = ("alice-first-key", "alice-second-key");

/// A moment of the calendar, as a configuration has it.
fn moment(from_now: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let then = now.checked_add_signed(from_now).unwrap();
    let done = std::process::Command::new("date").args(["-u", "-d", &format!("@{then}"), "+%FT%TZ"]).output();
    String::from_utf8(done.unwrap().stdout).unwrap().trim().to_owned()
}

/// An app with a key, and alice; each with what follows.
fn config(key: &str, alice: &str) -> Config {
    let alice =
        format!("users: {{alice: {{access_key_http: {}, access_key_https: {}{alice}}}}}", ALICE.0, ALICE.1);
    let text = Config::new(&[&alice]).text().to_owned();
    Config::with_text(&format!(
        "{text}ssh:\n  port: 2222\n  destination: local\n  duration: 600\n  access_key_http: {}\n  \
         access_key_https: [{{key: second-key-of-ssh{key}}}]\n",
        http_key("ssh")
    ))
}

fn knock(net: &Topology, keys: (&str, &str)) {
    let to = Family::V4.router();
    post_step1(&net.a, to, STEP1_PATH, &format!("app=ssh&access_key={}", keys.0));
    let second = format!("app=ssh&access_key={}", keys.1);
    assert_step2_answers(post_step2(&net.a, to, STEP2_PATH, &second, &[]), 200);
    assert_echoes(&net.a, to, 2222);
}

#[test]
fn what_was_opened_before_ends_with_a_reload_with_a_start_and_when_the_moment_comes() {
    let net = Topology::new();
    let to = Family::V4.router();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&config("", ""));
    let agent = home.start(&net.router);
    let reload = |config: &Config| {
        home.rewrite_config(config.text());
        assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    };
    let key = (http_key("ssh"), "second-key-of-ssh");
    let (past, none) = (format!(", expires: \"{}\"", moment(-2)), "");

    // At once.
    knock(&net, ALICE);
    reload(&config(none, &past));
    assert_silent(&net.a, to, 2222);
    reload(&config(none, none));
    knock(&net, (&key.0, key.1));
    reload(&config(&past, none));
    assert_silent(&net.a, to, 2222);
    // When the moment comes.
    for by_key in [false, true] {
        reload(&config(none, none));
        knock(&net, if by_key { (&key.0, key.1) } else { ALICE });
        let soon = format!(", expires: \"{}\"", moment(5));
        reload(&if by_key { config(&soon, none) } else { config(none, &soon) });
        assert_echoes(&net.a, to, 2222);
        let due = Instant::now() + Duration::from_secs(12);
        assert!(when_silent(&net.a, to, 2222, due) < due, "{}", home.log());
    }
    // While no daemon runs.
    reload(&config(none, none));
    knock(&net, ALICE);
    agent.terminate();
    home.rewrite_config(config(none, &past).text());
    let _agent = home.start(&net.router);
    assert_silent(&net.a, to, 2222);
}
