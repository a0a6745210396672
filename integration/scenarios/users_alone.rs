//! Files of users are taken over by themselves: what is being written beside them comes into force by no change of theirs, and
//! keeps none of theirs out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::knocking::{post_step1, post_step2};
use crate::probe::{assert_echoes, assert_silent, when_silent};
use crate::server::{Habit, Server};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

const ALICE: (&str, &str) = ("alice-first-key", "alice-second-key");

fn user(more: &str) -> String {
    format!("apps: [ssh]\naccess_key_http: {}\naccess_key_https: {}\n{more}", ALICE.0, ALICE.1)
}

/// Writes a file as a whole.
fn put(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&new, file).unwrap();
}

fn knock(net: &Topology, app: &str, keys: (&str, &str)) -> Option<u16> {
    let to = Family::V4.router();
    post_step1(&net.a, to, STEP1_PATH, &format!("app={app}&access_key={}", keys.0));
    let second = format!("app={app}&access_key={}", keys.1);
    post_step2(&net.a, to, STEP2_PATH, &second, &[]).map(|reply| reply.status)
}

/// Waits until the log says so once more than before.
fn said(home: &Installation, text: &str, times: usize, within: u64) {
    let end = Instant::now() + Duration::from_secs(within);
    while home.log().matches(text).count() < times {
        assert!(Instant::now() < end, "{times} times `{text}`\n{}", home.log());
        sleep(Duration::from_millis(100));
    }
}

const TAKEN: &str = "the files of users and clients are in force";

#[test]
fn a_configuration_that_is_being_written_neither_comes_with_a_user_nor_keeps_one_in() {
    let net = Topology::new();
    let (to, host) = (Family::V4.router(), &net.router);
    let _services = [Server::tcp(host, 2222, Habit::Echo), Server::tcp(host, 3333, Habit::Echo)];
    let folder = TempDir::new();
    let file = folder.path().join("users/alice.yaml");
    fs::create_dir(folder.path().join("users")).unwrap();
    let line = format!("users_folder: {}/users", folder.path().display());
    let half = Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &["duration: 600"]);
    let half_text = half.text().to_owned();
    let whole = half.app("web", "3333", "tcp", "local", &[]);
    let home = Installation::new(&whole);
    let agent = home.start(host);
    assert_silent(&net.b, to, 3333);

    // Valid, and without the app whose section comes later.
    home.rewrite_config(&half_text);
    put(&file, &user(""));
    said(&home, TAKEN, 1, 20);
    assert_silent(&net.b, to, 3333);
    assert_eq!(knock(&net, "ssh", ALICE), Some(200), "{}", home.log());
    assert_echoes(&net.a, to, 2222);
    let health = home.verb(host, &["health"]).exits(1).text();
    assert!(health.contains("says something else than what is in force"), "{health}");

    home.rewrite_config("web: {port: 80");
    put(&file, &user("disabled: true\n"));
    let due = Instant::now() + Duration::from_secs(20);
    assert!(when_silent(&net.a, to, 2222, due) < due, "her grant ends with her\n{}", home.log());
    said(&home, TAKEN, 2, 5);
    assert_ne!(knock(&net, "ssh", ALICE), Some(200));
    assert_silent(&net.b, to, 3333);

    // Somebody asks for a reload meanwhile, which is refused; what alice's file says counts all the same.
    put(&file, &user(""));
    assert!(agent.reload().contains("the new one was refused"), "{}", home.log());
    said(&home, TAKEN, 3, 20);
    assert_eq!(knock(&net, "ssh", ALICE), Some(200), "{}", home.log());

    // As it is in force: there is nothing to reload, and nothing is wrong once that is known.
    home.rewrite_config(whole.text());
    put(&file, &user("disabled: true\n"));
    said(&home, TAKEN, 4, 20);
    home.verb(host, &["health"]).exits(0);
    assert_silent(&net.b, to, 3333);
}

#[test]
fn a_second_factor_that_is_being_replaced_is_not_lost_by_a_change_of_users() {
    let net = Topology::new();
    let folder = TempDir::new();
    fs::create_dir(folder.path().join("users")).unwrap();
    let factor = folder.write(
        &format!("codes/{}.json", https_key("ssh")),
        "{\"secret\": \"GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\", \"interval\": 30}",
    );
    fs::set_permissions(&factor, fs::Permissions::from_mode(0o600)).unwrap();
    let (users, codes) = (folder.path().join("users"), folder.path().join("codes"));
    let lines =
        [format!("users_folder: {}", users.display()), format!("2fa_config_folder: {}", codes.display())];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let home =
        Installation::new(&Config::new(&lines).app("ssh", "2222", "tcp", "local", &["2fa_step: https"]));
    let _agent = home.start(&net.router);
    let (first, second) = (http_key("ssh"), https_key("ssh"));
    assert_eq!(knock(&net, "ssh", (&first, &second)), Some(401));

    fs::remove_file(&factor).unwrap();
    put(&users.join("alice.yaml"), &user(""));
    said(&home, TAKEN, 1, 20);
    assert_eq!(knock(&net, "ssh", (&first, &second)), Some(401), "{}", home.log());
    assert_eq!(knock(&net, "ssh", ALICE), Some(200), "{}", home.log());
    // Not even where the whole folder is away is anybody kept in.
    fs::remove_dir(&codes).unwrap();
    put(&users.join("alice.yaml"), &user("disabled: true\n"));
    said(&home, TAKEN, 2, 20);
    assert_ne!(knock(&net, "ssh", ALICE), Some(200), "{}", home.log());
    assert_eq!(knock(&net, "ssh", (&first, &second)), Some(401), "{}", home.log());
}

#[test]
fn users_whose_files_were_refused_are_tried_again_and_told_once() {
    let net = Topology::new();
    let folder = TempDir::new();
    let users = folder.path().join("users");
    fs::create_dir(&users).unwrap();
    let line = format!("users_folder: {}", users.display());
    let config = Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &["duration: 60"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    fs::write(users.join("bob.yml"), "disabled: true\n").unwrap();
    said(&home, "bob.yml is not read: only files NAME.yaml are", 1, 20);
    let first = folder.path().join("first-key");
    let text = user("").replace(ALICE.0, &format!("{{file: {}}}", first.display()));
    put(&users.join("alice.yaml"), &text);
    said(&home, "not reloaded: users and clients stay as they were", 1, 20);
    let health = home.verb(&net.router, &["health"]).exits(78).text();
    assert!(health.contains("first-key: No such file"), "{health}");
    assert!(health.contains("files of users or clients cannot be put in force"), "{health}");
    sleep(Duration::from_secs(35));
    assert_eq!(home.log().matches("not reloaded: users and clients").count(), 1, "{}", home.log());

    // Nothing in the folder has changed.
    put(&first, ALICE.0);
    said(&home, TAKEN, 2, 45);
    assert_eq!(knock(&net, "ssh", ALICE), Some(200), "{}", home.log());
    home.verb(&net.router, &["health"]).exits(0);
}
