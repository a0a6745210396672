//! Users with keys of their own, proofs instead of keys, and clients that ask and close.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::{on_both_iptables, on_every_firewall};
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH};
use crate::firewall::{remove_guard, time_left};
use crate::knocking::{assert_step2_answers, post_step1, post_step2};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent, when_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

use super::two_factor::{SECRET, code};

on_both_iptables! {
    who_goes_in_the_last_second_of_another_behind_its_address_leaves_nothing_open,
}

on_every_firewall! {
    a_guard_between_two_daemons_ends_the_grants_of_who_is_gone_disabled_or_expired,
}

const ALICE: (&str, &str) = ("alice-first-key", "alice-second-key");
const BOB: (&str, &str) = ("bobby-first-key", "bobby-second-key");

fn config(global: &[&str]) -> Config {
    Config::new(global).app("ssh", "2222", "tcp", "local", &["duration: 60", "max_duration: 90"])
}

fn user(keys: (&str, &str)) -> String {
    format!("access_key_http: {}\naccess_key_https: {}\n", keys.0, keys.1)
}

fn in_line(name: &str, keys: (&str, &str)) -> String {
    format!("users: {{{name}: {{access_key_http: {}, access_key_https: {}}}}}", keys.0, keys.1)
}

fn try_knock(net: &Topology, keys: (&str, &str), more: &str) -> Option<u16> {
    let to = Family::V4.router();
    post_step1(&net.a, to, STEP1_PATH, &format!("app=ssh&access_key={}", keys.0));
    post_step2(&net.a, to, STEP2_PATH, &format!("app=ssh&access_key={}{more}", keys.1), &[])
        .map(|reply| reply.status)
}

fn grants(home: &Installation, host: &Namespace) -> Vec<(String, u64)> {
    let status: serde_json::Value =
        serde_json::from_str(&home.verb(host, &["status", "--json"]).success().text()).unwrap();
    let grants = status["grants"].as_array().unwrap();
    let service = grants.iter().filter(|grant| grant["kind"] == "service");
    service
        .map(|g| (g["by"].as_str().unwrap().to_owned(), g["lifetime_s"].as_f64().unwrap() as u64))
        .collect()
}

#[test]
fn a_user_is_named_by_status_and_kernel_and_gets_the_time_asked_for_within_the_limit() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&config(&[&in_line("alice", ALICE)]));
    let _agent = home.start(&net.router);
    assert_eq!(try_knock(&net, ALICE, "&duration=30"), Some(200));
    assert_eq!(grants(&home, &net.router), [("alice".to_owned(), 30)]);
    assert!(
        net.router
            .run("nft", &["list", "set", "inet", "knock_agent", "app_ssh_4"])
            .success()
            .text()
            .contains("alice two-step")
    );
    assert_eq!(try_knock(&net, ALICE, "&duration=1d"), Some(200));
    assert_eq!(grants(&home, &net.router), [("alice".to_owned(), 90)]);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
}

#[test]
fn a_client_closes_what_was_opened_for_it_and_nothing_of_others_behind_its_address() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let users = format!(
        "users: {{alice: {{access_key_http: {}, access_key_https: {}}}, bob: {{access_key_http: {}, access_key_https: {}}}}}",
        ALICE.0, ALICE.1, BOB.0, BOB.1
    );
    let home = Installation::new(&config(&[&users]));
    let _agent = home.start(&net.router);
    for keys in [ALICE, BOB] {
        assert_eq!(try_knock(&net, keys, ""), Some(200));
    }
    assert_eq!(try_knock(&net, ALICE, "&action=close"), Some(200));
    assert_eq!(grants(&home, &net.router), [("bob".to_owned(), 60)]);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_eq!(try_knock(&net, BOB, "&action=close"), Some(200));
    assert_eq!(grants(&home, &net.router), []);
    assert_silent(&net.a, Family::V4.router(), 2222);
}

/// ipset counts whole seconds: what is to be left to the other is less than it can be told.
fn who_goes_in_the_last_second_of_another_behind_its_address_leaves_nothing_open() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let with = |alice: (&str, &str)| {
        config(&[&format!(
            "users: {{alice: {{access_key_http: {}, access_key_https: {}}}, bob: {{access_key_http: {}, access_key_https: {}}}}}",
            alice.0, alice.1, BOB.0, BOB.1
        )])
    };
    let home = Installation::new(&with(ALICE));
    let agent = home.start(&net.router);
    assert_eq!(try_knock(&net, ALICE, ""), Some(200));
    assert_eq!(try_knock(&net, BOB, "&duration=6"), Some(200));
    let knocked = Instant::now();
    home.rewrite_config(with(("another-first-key", "another-second-key")).text());
    assert_echoes(&net.a, Family::V4.router(), 2222);
    std::thread::sleep(Duration::from_millis(5_350).saturating_sub(knocked.elapsed()));
    agent.reload();
    std::thread::sleep(Duration::from_millis(7_500).saturating_sub(knocked.elapsed()));
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_eq!(grants(&home, &net.router), []);
}

#[test]
fn who_is_in_without_a_code_is_asked_for_one_once_a_second_factor_is_added() {
    let net = Topology::new();
    let with = |totp: &str| {
        let user = format!("alice: {{access_key_http: {}, access_key_https: {}{totp}}}", ALICE.0, ALICE.1);
        config(&["2fa_step: https", &format!("users: {{{user}}}")])
    };
    let home = Installation::new(&with(""));
    let agent = home.start(&net.router);
    let knock = |token: &str| try_knock(&net, ALICE, token);
    assert_eq!((knock(""), knock("")), (Some(200), Some(200)));
    home.rewrite_config(with(&format!(", totp: {{secret: {SECRET}}}")).text());
    agent.reload();
    assert_eq!(grants(&home, &net.router), [("alice".to_owned(), 60)], "what runs goes on");
    assert_eq!(knock(""), Some(401));
    agent.terminate();
    let agent = home.start(&net.router);
    assert_eq!(knock(""), Some(401));
    assert_eq!(knock(&format!("&token={}", code(&net.a, 0))), Some(200), "{}", home.log());
    assert_eq!(knock(""), Some(200));
    agent.terminate();
    let _agent = home.start(&net.router);
    assert_eq!(knock(""), Some(200), "a code was given for what runs: {}", home.log());
}

#[test]
fn who_was_removed_while_no_daemon_ran_has_no_access_afterwards() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let both = format!(
        "users: {{alice: {{access_key_http: {}, access_key_https: {}}}, bob: {{access_key_http: {}, access_key_https: {}}}}}",
        ALICE.0, ALICE.1, BOB.0, BOB.1
    );
    let home = Installation::new(&config(&[&both]));
    let agent = home.start(&net.router);
    for keys in [ALICE, BOB] {
        assert_eq!(try_knock(&net, keys, "&duration=90"), Some(200));
    }
    home.grant(&net.router, "ssh", Family::V4.client_b(), 90);
    agent.terminate();
    home.rewrite_config(config(&[&in_line("bob", BOB)]).text());
    let agent = home.start(&net.router);
    let left: Vec<String> = grants(&home, &net.router).into_iter().map(|(by, _)| by).collect();
    assert_eq!(left, ["bob", "root"], "{}", home.log());
    agent.terminate();
    home.rewrite_config(config(&[]).text());
    let _agent = home.start(&net.router);
    let left: Vec<String> = grants(&home, &net.router).into_iter().map(|(by, _)| by).collect();
    assert_eq!(left, ["root"], "{}", home.log());
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_echoes(&net.b, Family::V4.router(), 2222);
}

fn a_guard_between_two_daemons_ends_the_grants_of_who_is_gone_disabled_or_expired() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let with = |alice: &str| {
        let bob = format!("bob: {{access_key_http: {}, access_key_https: {}}}", BOB.0, BOB.1);
        config(&[&format!("users: {{{bob}{alice}}}")])
    };
    let alice = |more: &str| {
        with(&format!(", alice: {{access_key_http: {}, access_key_https: {}{more}}}", ALICE.0, ALICE.1))
    };
    let home = Installation::new(&alice(""));
    let (host, to, a, b) = (&net.router, Family::V4.router(), Family::V4.client_a(), Family::V4.client_b());
    for after in [with(""), alice(", disabled: true"), alice(", expires: 1971-01-01")] {
        home.rewrite_config(alice("").text());
        let agent = home.start(host);
        assert_eq!(try_knock(&net, ALICE, "&duration=90"), Some(200));
        home.grant(host, "ssh", b, 90);
        agent.terminate();
        home.rewrite_config(after.text());
        let done = home.guard(host).success();
        assert!(done.stderr.contains("grants of users and keys that are not in"), "{}", done.stderr);
        assert!(time_left(host, "ssh", a).is_none());
        assert_silent(&net.a, to, 2222);
        assert_echoes(&net.b, to, 2222);
    }
    // Who stays keeps what he has.
    home.rewrite_config(with("").text());
    let agent = home.start(host);
    assert_eq!(try_knock(&net, BOB, "&duration=90"), Some(200));
    agent.terminate();
    home.guard(host).success();
    assert_echoes(&net.a, to, 2222);
}

#[test]
fn files_of_users_come_and_go_without_a_restart() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let folder = crate::temporary::TempDir::new();
    let line = format!("users_folder: {}/users", folder.path().display());
    fs::create_dir(folder.path().join("users")).unwrap();
    let home = Installation::new(&config(&[&line]));
    let _agent = home.start(&net.router);
    assert_ne!(try_knock(&net, ALICE, ""), Some(200));

    let file = folder.path().join("users/alice.yaml");
    let write = |text: &str, mode: u32| {
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    let until = |wanted: Option<u16>| {
        let end = Instant::now() + Duration::from_secs(30);
        while try_knock(&net, ALICE, "") != wanted {
            assert!(Instant::now() < end, "{wanted:?}\n{}", home.log());
        }
    };
    write(&user(ALICE), 0o600);
    until(Some(200));
    assert_echoes(&net.a, Family::V4.router(), 2222);
    // A file that everybody can read is refused, and what was in force stays so.
    write(&(user(ALICE) + "disabled: true\n"), 0o644);
    let end = Instant::now() + Duration::from_secs(20);
    while !home.log().contains("everybody on this host can read") {
        assert!(Instant::now() < end, "{}", home.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_echoes(&net.a, Family::V4.router(), 2222);
    write(&(user(ALICE) + "disabled: true\n"), 0o600);
    let due = Instant::now() + Duration::from_secs(20);
    let closed = when_silent(&net.a, Family::V4.router(), 2222, due);
    assert!(closed < due, "her grant ends with her\n{}", home.log());
    until(None);
    let log = home.log();
    assert!(!log.contains(ALICE.0) && !log.contains(ALICE.1), "{log}");
}

#[test]
fn a_file_that_is_written_slowly_in_place_ends_no_grant_half_way() {
    let net = Topology::new();
    let folder = crate::temporary::TempDir::new();
    let file = folder.write("users/alice.yaml", user(ALICE));
    let line = format!("users_folder: {}/users", folder.path().display());
    let home = Installation::new(&config(&[&line]));
    let _agent = home.start(&net.router);
    assert_eq!(try_knock(&net, ALICE, ""), Some(200));
    // Valid at every moment, and without her key until the last line.
    let begun = Instant::now();
    let mut text = format!("access_key_http: {}\naccess_key_https:\n  - another-second-key\n", ALICE.0);
    while begun.elapsed() < Duration::from_secs(7) {
        text += "  # more to come\n";
        fs::write(&file, &text).unwrap();
        std::thread::sleep(Duration::from_millis(200));
    }
    fs::write(&file, format!("{text}  - {}\n", ALICE.1)).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while !home.log().contains("reloaded: ") {
        assert!(Instant::now() < end, "it is never taken over\n{}", home.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = home.log();
    let reloads: Vec<&str> = log.lines().filter(|line| line.contains("reloaded: ")).collect();
    assert!(reloads.len() == 1 && reloads[0].contains("grants=0"), "{reloads:?}");
    assert_eq!(grants(&home, &net.router), [("alice".to_owned(), 60)]);
    assert_eq!(try_knock(&net, (ALICE.0, "another-second-key"), ""), Some(200), "{log}");
}

#[test]
fn a_file_of_the_daemon_s_own_account_is_used_by_root_too_and_one_of_others_by_nobody() {
    let net = Namespace::new("owner");
    let folder = crate::temporary::TempDir::new();
    let totp =
        folder.write("alice.json", "{\"secret\": \"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\", \"interval\": 30}");
    let line = in_line("alice", ALICE);
    let line = line.replace("}}", &format!(", totp: {{file: {}}}}}}}", totp.display()));
    let home = Installation::new(&config(&[&line]));
    let passwd = |text: &str| folder.write("passwd", format!("root:x:0:0::/root:/bin/sh\n{text}"));
    let check = || {
        let script = "mount --bind \"$1\" /etc/passwd && exec \"$2\" check-config -c \"$3\"";
        let (passwd, config) = (folder.path().join("passwd"), home.path("config.yaml"));
        let mut words = vec!["-m", "sh", "-c", script, "sh", passwd.to_str().unwrap()];
        words.extend([crate::agent::PROGRAM, config.to_str().unwrap()]);
        net.run("unshare", &words)
    };
    let account = "knock-agent:x:991:991::/nonexistent:/usr/sbin/nologin\n";
    for (owner, accounts, good) in
        [(0, "", true), (991, account, true), (992, account, false), (991, "", false)]
    {
        passwd(accounts);
        std::os::unix::fs::chown(&totp, Some(owner), None).unwrap();
        let done = check().exits(if good { 0 } else { 78 });
        assert_eq!(done.stderr.contains("belongs to another user"), !good, "{owner}: {}", done.stderr);
    }
}

#[test]
fn keys_can_be_kept_in_files_and_credentials_and_as_hashes() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let made = net.router.run(crate::agent::PROGRAM, &["hash-key", "--generate"]).success().text();
    let part = |line: usize| made.lines().nth(line).unwrap().split_once(": ").unwrap().1.trim().to_owned();
    let (key, stored) = (part(0), part(1));
    let hashed = net.router.feed(crate::agent::PROGRAM, &["hash-key"], b"correct horse\n").success().text();
    let folder = crate::temporary::TempDir::new();
    folder.write("cred", "a key in a credential\n");
    fs::set_permissions(folder.path().join("cred"), fs::Permissions::from_mode(0o400)).unwrap();
    let users = format!(
        "users: {{alice: {{access_key_http: {stored}, access_key_https: \"{}\"}}, bob: {{access_key_http: {{credential: cred}}, access_key_https: {{file: {}/file}}}}}}",
        hashed.trim(),
        folder.path().display()
    );
    folder.write("file", "a key in a file");
    fs::set_permissions(folder.path().join("file"), fs::Permissions::from_mode(0o600)).unwrap();
    let home = Installation::new(&config(&[&users]))
        .variable("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap());
    let _agent = home.start(&net.router);
    assert_eq!(try_knock(&net, (&key, "correct+horse"), ""), Some(403), "a hash is found by the user's name");
    assert_eq!(try_knock(&net, (&key, "correct+horsf"), "&user=alice"), Some(403));
    assert_eq!(try_knock(&net, (&key, "correct+horse"), "&user=alice"), Some(200));
    assert_eq!(try_knock(&net, ("a+key+in+a+credential", "a+key+in+a+file"), ""), Some(200));
    let mut names: Vec<String> = grants(&home, &net.router).into_iter().map(|(by, _)| by).collect();
    names.sort();
    assert_eq!(names, ["alice", "bob"]);

    // Outside the unit: where the daemon's credentials are as long as it runs, and where they are not.
    let config = home.path("config.yaml");
    let verb = |words: &str, mount: &str| {
        let script = format!(
            "set -e; mount -t tmpfs none /run; mkdir -p /run/credentials; {mount}; exec '{}' {words} --config '{}'",
            crate::agent::PROGRAM,
            config.display()
        );
        net.router.run("unshare", &["-m", "sh", "-c", &script])
    };
    let there = format!("cp -r '{}' /run/credentials/knock-agent.service", folder.path().display());
    verb("check-config", &there).success();
    let health = format!("health --runtime-dir '{}'", home.path("run").display());
    verb(&health, &there).success();
    let told = verb("check-config", "true").exits(78).stderr;
    assert!(told.contains("while knock-agent.service runs"), "{told}");
}

fn proof(from: &Namespace, key: &str, address: &str, nonce: &str) -> String {
    proof_of(from, key, "alice", address, nonce)
}

/// The form with the proof that a shell script with openssl makes.
pub fn proof_of(from: &Namespace, key: &str, user: &str, address: &str, nonce: &str) -> String {
    let script = format!(
        "K=$(printf 'knock-agent key 1' | openssl dgst -sha256 -hmac '{key}' | sed 's/.* //')\n\
         T=$(( $(date +%s) / 30 ))\n\
         printf 'knock-agent proof 1\\nssh\\n{user}\\n{address}\\n%s\\n{nonce}' \"$T\" | openssl dgst -sha256 -mac HMAC -macopt hexkey:\"$K\" | sed 's/.* //'"
    );
    let code = from.run("sh", &["-c", &script]).success().text();
    format!("app=ssh&user={user}&proof={nonce}.{}", code.trim())
}

#[test]
fn what_was_recorded_of_a_proof_opens_nothing_from_the_same_or_another_address() {
    for family in Family::BOTH {
        let net = Topology::new();
        let to = family.router();
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        let more = ["step1_proof: require_address", &in_line("alice", ALICE)];
        let home = Installation::new(&config(&more));
        let agent = home.start(&net.router);
        let second = format!("app=ssh&access_key={}", ALICE.1);

        post_step1(&net.a, to, STEP1_PATH, &format!("app=ssh&access_key={}", ALICE.0));
        assert_eq!(post_step2(&net.a, to, STEP2_PATH, &second, &[]), None, "a key on the wire is not taken");
        let form = proof(&net.a, ALICE.0, &family.client_a().to_string(), "00112233445566778899aabbccddeeff");
        post_step1(&net.b, to, STEP1_PATH, &form);
        assert_eq!(post_step2(&net.b, to, STEP2_PATH, &second, &[]), None, "it names another address");
        post_step1(&net.a, to, STEP1_PATH, &form);
        assert_step2_answers(post_step2(&net.a, to, STEP2_PATH, &second, &[]), 200);
        assert_echoes(&net.a, to, 2222);

        // Longer than step 2 stays open, so that a replay would have to open it anew.
        std::thread::sleep(Duration::from_secs(6));
        for from in [&net.a, &net.b] {
            post_step1(from, to, STEP1_PATH, &form);
            assert_eq!(post_step2(from, to, STEP2_PATH, &second, &[]), None, "replayed");
        }
        agent.kill();
        let agent = home.start(&net.router);
        post_step1(&net.a, to, STEP1_PATH, &form);
        assert_eq!(post_step2(&net.a, to, STEP2_PATH, &second, &[]), None, "replayed after a restart");
        let fresh =
            proof(&net.a, ALICE.0, &family.client_a().to_string(), "ffeeddccbbaa99887766554433221100");
        post_step1(&net.a, to, STEP1_PATH, &fresh);
        assert_step2_answers(post_step2(&net.a, to, STEP2_PATH, &second, &[]), 200);
        agent.kill();
        remove_guard(&net.router);
        home.lose_runtime_folder();
        let _agent = home.start(&net.router);
        post_step1(&net.a, to, STEP1_PATH, &fresh);
        assert_eq!(post_step2(&net.a, to, STEP2_PATH, &second, &[]), None, "replayed after a reboot");
    }
}
