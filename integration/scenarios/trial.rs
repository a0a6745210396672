//! `run --confirm`: everything is put back unless somebody says that all is well; and the way back without it.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::agent::{Installation, PROGRAM};
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::{elements, everything, is_guarded, table, time_left};
use crate::front::child_of;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent};
use crate::process::{Background, wait};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

pub(super) fn start(home: &Installation, host: &Namespace, limit: &str) -> Background {
    let mut command = home.run_command();
    command.args(["--confirm", limit]).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(home.path("trial.log")).unwrap());
    let process = host.background(command);
    let end = Instant::now() + Duration::from_secs(20);
    while !log(home).contains("listening") {
        assert!(Instant::now() < end, "it does not start: {}", log(home));
        sleep(Duration::from_millis(50));
    }
    process
}

pub(super) fn log(home: &Installation) -> String {
    std::fs::read_to_string(home.path("trial.log")).unwrap_or_default()
}

/// Sets and chains in the order of their names: what is made again is listed last.
fn parts(host: &Namespace) -> Vec<String> {
    let table = table(host);
    // The last brace is the table's, whichever part comes last.
    let body = table.trim_end().strip_suffix('}').unwrap_or_default();
    let mut parts: Vec<String> = body.split("\n\n").map(|part| part.trim().to_owned()).collect();
    parts.sort();
    parts
}

pub(super) fn code(process: &mut Background) -> Option<i32> {
    wait(&mut process.0, Duration::from_secs(30)).expect("it ends").code()
}

pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(50));
    }
}

on_every_firewall! {
    the_documented_way_back_outlives_the_terminal,
}

/// What docs/operations.md says for a change that takes itself back is typed at a terminal, which then goes away.
fn the_documented_way_back_outlives_the_terminal() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let page = std::fs::read_to_string("docs/operations.md").unwrap();
    let line = page.lines().find(|line| line.starts_with("sudo sh -c 'trap")).unwrap();
    let [file, run] = ["trial", "run"].map(|name| home.path(name).display().to_string());
    let line = line
        .replace("sudo ", "")
        .replace("/run/knock-agent-trial", &file)
        .replace("sleep 300", "sleep 3")
        .replace("knock-agent teardown", &format!("{PROGRAM} teardown --runtime-dir {run}"));
    let lost = home.path("lost");
    let plain = format!("(sleep 2; touch {}) &", lost.display());

    home.guard(&net.router).success();
    assert_silent(&net.a, Family::V4.router(), 2222);
    let mut command = Command::new("integration/lib/at-terminal");
    command.args(["bash", "--norc", "--noprofile", "-i"]).env("PS1", "at-the-gate# ");
    let prompt = "at-the-gate# ";
    let talk = json!([[prompt, format!("{plain}\n")], [prompt, format!("{line}\n")], [prompt, "{hangup}"]]);
    net.router.finish(command, talk.to_string().as_bytes(), Duration::from_secs(60));
    assert!(is_guarded(&net.router), "not yet");
    eventually("the guard is not taken down", || !is_guarded(&net.router));
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert!(!lost.exists(), "what is only put in the background goes with the terminal");
}

#[test]
fn without_a_confirmation_a_first_start_leaves_nothing() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let before = everything(&net.router);
    let begin = Instant::now();
    let mut agent = start(&home, &net.router, "4s");
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_eq!(code(&mut agent), Some(1), "{}", log(&home));
    assert!(begin.elapsed() >= Duration::from_secs(4), "too early");
    assert!(log(&home).contains("everything was put back"), "{}", log(&home));
    assert_eq!(everything(&net.router), before);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    let plan = home.path("state").join("last-good-plan");
    assert!(!plan.exists(), "an unconfirmed plan is no good one");
    home.verb(&net.router, &["confirm"]).exits(69);
}

#[test]
fn what_was_confirmed_stays() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let mut agent = start(&home, &net.router, "10s");
    let left = || {
        let text = home.verb(&net.router, &["status", "--json"]).success().text();
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        status["daemon"]["trial_ends_in_s"].as_u64()
    };
    assert!(left().is_some_and(|left| left < 10));
    let status = home.verb(&net.router, &["status"]).success().text();
    assert!(status.lines().any(|line| line.starts_with("look  trial")), "{status}");
    home.verb(&net.router, &["confirm"]).success();
    home.verb(&net.router, &["confirm"]).success();
    assert_eq!(left(), None);
    sleep(Duration::from_secs(11));
    assert!(agent.is_alive() && is_guarded(&net.router));
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert!(home.path("state").join("last-good-plan").exists());
    agent.signal(Signal::SIGTERM);
    assert_eq!(code(&mut agent), Some(0));
    assert!(log(&home).contains("stopped; the guard stays"), "{}", log(&home));
    assert!(is_guarded(&net.router), "a stop is no end of the guard");
    let plain = home.start(&net.router);
    let vain = home.verb(&net.router, &["confirm"]).exits(2);
    assert!(vain.stderr.contains("nothing to confirm"), "{}", vain.stderr);
    plain.terminate();
}

#[test]
fn ending_or_killing_the_daemon_before_a_confirmation_puts_everything_back() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let before = everything(&net.router);
    let mut agent = start(&home, &net.router, "600s");
    agent.signal(Signal::SIGTERM);
    assert_eq!(code(&mut agent), Some(1), "{}", log(&home));
    assert_eq!(everything(&net.router), before);
    assert!(log(&home).contains("stopped") && !log(&home).contains("guard stays"), "{}", log(&home));

    let mut agent = start(&home, &net.router, "600s");
    assert!(is_guarded(&net.router));
    agent.signal(Signal::SIGKILL);
    assert_eq!(code(&mut agent), None);
    eventually("it is put back", || !is_guarded(&net.router));

    // A daemon that hangs is ended.
    let mut agent = start(&home, &net.router, "2s");
    agent.signal(Signal::SIGSTOP);
    eventually("it is put back", || !is_guarded(&net.router));
    assert_eq!(code(&mut agent), None);

    // What an operator removed does not come back, and what he removed stays so.
    let mut agent = start(&home, &net.router, "600s");
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(code(&mut agent), Some(0), "{}", log(&home));
    assert_eq!(everything(&net.router), before);
}

#[test]
fn an_earlier_guard_comes_back_with_its_grants() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = || Config::ssh(&["duration: 600"]);
    let home = Installation::new(&config().app("web", "8081", "tcp", "local", &["allow: [192.0.2.0/24]"]));
    let agent = home.start(&net.router);
    let (a, b) = (Family::V4.client_a(), Family::V4.client_b());
    home.grant(&net.router, "ssh", a, 300);
    home.grant(&net.router, "web", a, 300);
    home.grant(&net.router, "ssh", b, 300);
    home.verb(&net.router, &["allow", "198.51.100.0/24", "--app", "ssh", "--for", "1h"]).success();
    agent.terminate();
    let before = parts(&net.router);

    home.rewrite_config(
        Config::new(&["mark: 77"]).app("ssh", "[2222, 2300-2400]", "tcp", "local", &[]).text(),
    );
    let mut trial = start(&home, &net.router, "600s");
    assert_ne!(parts(&net.router), before);
    home.verb(&net.router, &["revoke", "ssh", &b.to_string()]).success();
    home.grant(&net.router, "ssh", "203.0.113.77", 300);
    home.grant(&net.router, "ssh", a, 3000);
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
    assert_eq!(parts(&net.router), before);
    let left = |app, address| time_left(&net.router, app, address);
    for app in ["ssh", "web"] {
        let rest = left(app, a).unwrap_or_else(|| panic!("the grant of {app}"));
        assert!(rest < Duration::from_secs(300) && rest > Duration::from_secs(200), "{rest:?}");
    }
    assert_eq!(left("ssh", b), None, "revoked in the meantime");
    assert_eq!(left("ssh", "203.0.113.77".parse().unwrap()), None, "granted in the meantime");
    let allowed = |set| elements(&net.router, set).into_iter().map(|e| e.key).collect::<Vec<_>>();
    assert_eq!(allowed("allow_web_4"), ["192.0.2.0/24"]);
    assert_eq!(allowed("allow_ssh_4"), ["198.51.100.0/24"]);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
}

#[test]
fn networks_that_were_taken_back_during_a_trial_do_not_come_back_with_the_guard_of_before() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["allow: [198.51.100.0/24]"]));
    let first = home.start(&net.router);
    let (a, b) = (Family::V4.client_a().to_string(), Family::V4.client_b().to_string());
    home.verb(&net.router, &["allow", &a, "--app", "ssh"]).success();
    home.verb(&net.router, &["allow", &b]).success();
    first.terminate();
    let mut trial = start(&home, &net.router, "600s");
    home.verb(&net.router, &["allow", "--flush", "--app", "ssh"]).success();
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_echoes(&net.b, Family::V4.router(), 2222);
    let stays = elements(&net.router, "allow_ssh_4");
    assert_eq!(stays.len(), 1, "what the configuration of before allows: {stays:?}");
}

#[test]
fn what_was_taken_back_stays_so_where_the_rules_are_gone_when_all_is_put_back() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 600", "allow: [198.51.100.0/24]"]));
    let (a, b) = (Family::V4.client_a(), Family::V4.client_b());
    let flush = || net.router.run("nft", &["flush", "ruleset"]).success();
    let tried = || {
        let first = home.start(&net.router);
        home.grant(&net.router, "ssh", a, 300);
        home.grant(&net.router, "ssh", b, 300);
        first.terminate();
        let trial = start(&home, &net.router, "600s");
        home.verb(&net.router, &["revoke", "ssh", &a.to_string()]).success();
        trial
    };
    // In a fight repairs wait a second.
    let mut trial = tried();
    for _ in 0..14 {
        flush();
        sleep(Duration::from_millis(150));
    }
    flush();
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
    assert!(is_guarded(&net.router), "{}", log(&home));
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_echoes(&net.b, Family::V4.router(), 2222);

    // Nobody is there any more who would know.
    let mut trial = tried();
    trial.signal(Signal::SIGSTOP);
    flush();
    trial.signal(Signal::SIGKILL);
    assert_eq!(code(&mut trial), None);
    eventually("it is put back", || is_guarded(&net.router));
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_eq!(elements(&net.router, "app_ssh_4").len(), 0);
    let allowed: Vec<String> = elements(&net.router, "allow_ssh_4").into_iter().map(|e| e.key).collect();
    assert_eq!(allowed, ["198.51.100.0/24"], "of the configuration");
}

#[test]
fn what_an_unconfirmed_trial_let_in_is_not_kept_for_after_a_reboot() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let file = home.path("state/grants");
    let line = format!("state_file: {}", file.display());
    home.rewrite_config(Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &["duration: 600"]).text());
    let [a, b] = [Family::V4.client_a(), Family::V4.client_b()].map(|client| client.to_string());
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", &a, 300);
    agent.terminate();
    let kept = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        [&a, &b].map(|client| text.contains(client.as_str()))
    };
    assert_eq!(kept(), [true, false]);
    let mut trial = start(&home, &net.router, "600s");
    home.grant(&net.router, "ssh", &b, 300);
    sleep(Duration::from_millis(500));
    assert_eq!(kept(), [true, false], "not before it is confirmed");
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
    assert_eq!(kept(), [true, false]);
    let mut trial = start(&home, &net.router, "600s");
    home.grant(&net.router, "ssh", &b, 300);
    home.verb(&net.router, &["confirm"]).success();
    eventually("it is kept", || kept() == [true, true]);
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(0));
}

#[test]
fn the_state_file_of_before_goes_only_when_another_is_confirmed() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let [before, other] = ["before", "other"].map(|name| home.path("state").join(name));
    let keeping_in = |file: &std::path::Path| {
        let line = format!("state_file: {}", file.display());
        Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &["duration: 600"])
    };
    home.rewrite_config(keeping_in(&before).text());
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 300);
    agent.terminate();
    let is_kept = || std::fs::read_to_string(&before).is_ok_and(|text| text.contains("203.0.113.2"));
    assert!(is_kept());
    for text in [keeping_in(&other).text(), Config::ssh(&[]).text()] {
        home.rewrite_config(text);
        let mut trial = start(&home, &net.router, "600s");
        assert!(is_kept(), "as long as it may be put back");
        home.rewrite_config(keeping_in(&home.path("state").join("third")).text());
        trial.signal(Signal::SIGHUP);
        eventually("it is reloaded", || log(&home).contains("the new configuration is in force"));
        trial.signal(Signal::SIGTERM);
        assert_eq!(code(&mut trial), Some(1), "{}", log(&home));
        assert!(is_kept(), "it was put back");
    }
    home.rewrite_config(keeping_in(&other).text());
    let mut trial = start(&home, &net.router, "600s");
    home.verb(&net.router, &["confirm"]).success();
    eventually("it goes", || !before.exists() && other.exists());
    trial.signal(Signal::SIGTERM);
    assert_eq!(code(&mut trial), Some(0));
}

#[test]
fn a_reload_before_the_confirmation_keeps_no_plan_and_one_that_is_confirmed_is_kept() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let kept = || std::fs::read_to_string(home.path("state").join("last-good-plan")).unwrap_or_default();
    let reload = |agent: &Background| {
        home.rewrite_config(Config::ssh(&[]).app("web", "3333", "tcp", "local", &[]).text());
        agent.signal(Signal::SIGHUP);
        eventually("it is reloaded", || log(&home).contains("the new configuration is in force"));
        // What is kept is written after that is in force.
        sleep(Duration::from_millis(500));
    };
    let mut agent = start(&home, &net.router, "600s");
    reload(&agent);
    assert!(kept().is_empty(), "an unconfirmed plan is no good one");
    agent.signal(Signal::SIGTERM);
    assert_eq!(code(&mut agent), Some(1), "{}", log(&home));
    assert!(kept().is_empty(), "an unconfirmed plan is no good one");

    home.rewrite_config(Config::ssh(&[]).text());
    let mut agent = start(&home, &net.router, "600s");
    reload(&agent);
    home.verb(&net.router, &["confirm"]).success();
    assert!(kept().contains("3333"), "the plan in force is kept, not the one it began with");
    agent.signal(Signal::SIGTERM);
    assert_eq!(code(&mut agent), Some(0), "{}", log(&home));
}

/// The process that waits beside the daemon; it does not stand still for longer than its test.
struct Watcher(Pid);

impl Watcher {
    #[track_caller]
    fn of(agent: &Background) -> Self {
        let pid = child_of(agent.0.id(), "put-back-unless-confirmed").expect("a process that waits");
        Self(Pid::from_raw(pid.cast_signed()))
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        kill(self.0, signal).unwrap();
    }

    fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = kill(self.0, Signal::SIGCONT);
        }
    }
}

#[test]
fn without_the_process_that_waits_the_daemon_puts_everything_back_and_says_so_before() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 600"]));
    let before = everything(&net.router);
    let mut agent = start(&home, &net.router, "600s");
    home.check(&net.router, &["health"]).success();
    Watcher::of(&agent).signal(Signal::SIGKILL);
    eventually("the log says so", || log(&home).contains("the daemon does it"));
    let ill = home.check(&net.router, &["health"]).exits(1).text();
    assert!(ill.starts_with("daemon: the process that would put everything back is gone"), "{ill}");
    agent.signal(Signal::SIGTERM);
    assert_eq!(code(&mut agent), Some(1), "{}", log(&home));
    assert_eq!(everything(&net.router), before);

    // Also a guard of before with its grants, when nobody confirmed in time.
    let first = home.start(&net.router);
    let a = Family::V4.client_a();
    home.grant(&net.router, "ssh", a, 300);
    first.terminate();
    let before = parts(&net.router);
    home.rewrite_config(
        Config::new(&["mark: 77"]).app("ssh", "[2222, 2300-2400]", "tcp", "local", &[]).text(),
    );
    let mut agent = start(&home, &net.router, "3s");
    Watcher::of(&agent).signal(Signal::SIGKILL);
    home.grant(&net.router, "ssh", "203.0.113.77", 300);
    assert_eq!(code(&mut agent), Some(1), "{}", log(&home));
    assert!(log(&home).contains("everything was put back"), "{}", log(&home));
    assert_eq!(parts(&net.router), before);
    let rest = time_left(&net.router, "ssh", a).expect("the grant of before");
    assert!(rest < Duration::from_secs(300) && rest > Duration::from_secs(200), "{rest:?}");
    assert_eq!(
        time_left(&net.router, "ssh", "203.0.113.77".parse().unwrap()),
        None,
        "granted in the meantime"
    );
}

#[test]
fn without_the_process_that_waits_a_confirmation_counts() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let mut agent = start(&home, &net.router, "4s");
    Watcher::of(&agent).signal(Signal::SIGKILL);
    for _ in 0..2 {
        let told = home.verb(&net.router, &["confirm"]).success().text();
        assert!(told.contains("confirmed: the guard stays"), "{told}");
    }
    home.check(&net.router, &["health"]).success();
    assert!(home.path("state").join("last-good-plan").exists());
    sleep(Duration::from_secs(6));
    assert!(agent.is_alive() && is_guarded(&net.router), "{}", log(&home));
    agent.signal(Signal::SIGTERM);
    assert_eq!(code(&mut agent), Some(0), "{}", log(&home));
    assert!(is_guarded(&net.router), "a stop is no end of the guard");
}

#[test]
fn a_process_that_waits_and_stands_still_holds_up_nobody_and_undoes_nothing_later() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let mut agent = start(&home, &net.router, "3s");
    let watcher = Watcher::of(&agent);
    watcher.signal(Signal::SIGSTOP);
    let begin = Instant::now();
    home.verb(&net.router, &["confirm"]).success();
    home.check(&net.router, &["health"]).success();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // Later than it would have given up waiting for the daemon.
    sleep(Duration::from_secs(9));
    watcher.signal(Signal::SIGCONT);
    eventually("it ends", || watcher.has_ended());
    assert!(agent.is_alive() && is_guarded(&net.router), "{}", log(&home));
    agent.signal(Signal::SIGTERM);
    assert_eq!(code(&mut agent), Some(0), "{}", log(&home));
    assert!(is_guarded(&net.router));
    home.verb(&net.router, &["teardown"]).success();

    let mut agent = start(&home, &net.router, "2s");
    let watcher = Watcher::of(&agent);
    watcher.signal(Signal::SIGSTOP);
    assert_eq!(code(&mut agent), Some(1), "{}", log(&home));
    assert!(!is_guarded(&net.router), "{}", log(&home));
    let next = home.start(&net.router);
    watcher.signal(Signal::SIGCONT);
    eventually("it ends", || watcher.has_ended());
    sleep(Duration::from_millis(500));
    assert!(is_guarded(&net.router) && !home.log().contains("somebody changed our table"), "{}", home.log());
    next.terminate();
}

#[test]
fn a_process_that_waits_and_stands_still_does_its_work_when_it_goes_on_and_the_daemon_was_killed() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let mut agent = start(&home, &net.router, "600s");
    let watcher = Watcher::of(&agent);
    watcher.signal(Signal::SIGSTOP);
    agent.signal(Signal::SIGKILL);
    assert_eq!(code(&mut agent), None);
    watcher.signal(Signal::SIGCONT);
    eventually("it is put back", || !is_guarded(&net.router));
}
