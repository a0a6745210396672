//! What the log tells of, as programs read it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

use crate::agent::{Installation, PROGRAM};
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{flush_host, is_guarded, remove_guard};
use crate::knocking::{assert_step2_opens, form, knock, post_step1, step1};
use crate::process::finish;
use crate::topology::{Family, Topology};

const LIMIT: Duration = Duration::from_secs(30);

/// The program outside every network.
fn plain(words: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(words);
    command
}

fn config() -> Config {
    let global = ["lockout: {after: 2, first: 1m, longest: 1h}"];
    Config::new(&global).app("ssh", "2222", "tcp", "local", &["duration: 3"])
}

/// The lines of the log, each of which is an object.
fn lines(home: &Installation) -> Vec<Value> {
    home.log().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// The events of one kind, when there are so many.
#[track_caller]
fn events(home: &Installation, event: &str, least: usize) -> Vec<Value> {
    let end = Instant::now() + LIMIT;
    loop {
        let found: Vec<Value> = lines(home).into_iter().filter(|line| line["event"] == event).collect();
        if found.len() >= least {
            return found;
        }
        assert!(Instant::now() < end, "not {least} times {event}:\n{}", home.log());
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_wrong_with_the_configuration_is_an_object_a_line_too() {
    let net = Topology::new();
    let warned = config().text().replace("duration: 3", "masquerade: false\n  duration: 3");
    let home = Installation::with_text(&warned).flags(&["--log-format", "json"]);
    let agent = home.start(&net.router);
    let all = lines(&home);
    let of = |level: &str, part: &str| {
        let has = |line: &&Value| line["message"].as_str().is_some_and(|text| text.contains(part));
        all.iter().find(has).is_some_and(|line| line["level"].as_str().unwrap().eq_ignore_ascii_case(level))
    };
    assert!(of("warn", "client's address anyway"), "{}", home.log());
    agent.terminate();

    home.rewrite_config(&warned.replace("masquerade", "masqerade"));
    let refused = home.run_in_vain(&net.router).exits(78);
    let told: Vec<Value> = refused.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors = told.iter().filter(|line| line["level"].as_str().unwrap().eq_ignore_ascii_case("error"));
    assert!(errors.count() >= 2 && refused.stderr.contains("did you mean"), "{}", refused.stderr);
}

#[test]
fn the_end_of_a_grant_whose_app_a_reload_took_away_has_its_name() {
    let net = Topology::new();
    let both = config().app("We.b-X", "8000", "tcp", "local", &[]);
    let home = Installation::new(&both).flags(&["--log-format", "json"]);
    let agent = home.start(&net.router);
    home.grant(&net.router, "We.b-X", Family::V4.client_b(), 60);
    home.rewrite_config(config().text());
    agent.signal(Signal::SIGHUP);
    let revoked = &events(&home, "revoked", 1)[0];
    assert_eq!(
        (&revoked["app"], &events(&home, "granted", 1)[0]["app"]),
        (&"We.b-X".into(), &"We.b-X".into())
    );
    agent.terminate();
}

#[test]
fn every_grant_renewal_end_refusal_repair_and_reload_is_one_object_and_holds_no_secret() {
    let net = Topology::new();
    let home = Installation::new(&config()).flags(&["--log-format", "json", "--log-level", "debug"]);
    let agent = home.start(&net.router);
    let started = &events(&home, "started", 1)[0];
    assert_eq!((started["level"].as_str(), started["grants"].as_u64()), (Some("info"), Some(0)));
    events(&home, "ready", 1);

    knock(&net.a, Family::V6.router(), "ssh");
    let granted = &events(&home, "granted", 1)[0];
    assert_eq!(granted["services"], serde_json::json!(["tcp/2222"]));
    assert_eq!((granted["app"].as_str(), granted["by"].as_str()), (Some("ssh"), Some("key 1")));
    assert_eq!((granted["how"].as_str(), granted["lifetime_s"].as_u64()), (Some("two-step"), Some(3)));
    let client = Family::V6.client_a().to_string();
    assert!(granted["client"] == client.as_str() || granted["address"] == client.as_str(), "{granted}");
    let expired = &events(&home, "expired", 1)[0];
    assert_eq!((&expired["address"], &expired["by"]), (&granted["address"], &granted["by"]));
    assert_eq!(events(&home, "admitted", 1).len(), 1);

    let b = Family::V4.client_b();
    home.grant(&net.router, "ssh", b, 60);
    home.grant(&net.router, "ssh", b, 90);
    home.verb(&net.router, &["revoke", "ssh", &b.to_string()]).success();
    assert_eq!(events(&home, "renewed", 1)[0]["lifetime_s"], 90);
    assert_eq!(events(&home, "revoked", 1)[0]["address"], b.to_string());
    let actions: Vec<Value> =
        events(&home, "operator", 3).iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, ["grant", "grant", "revoke"]);

    for n in 0..3 {
        post_step1(&net.b, Family::V4.router(), STEP1_PATH, &form("ssh", &format!("a-guess-of-mine-{n}")));
    }
    let denied = &events(&home, "denied", 1)[0];
    assert_eq!(
        (denied["address"].as_str(), denied["reason"].as_str()),
        (Some("203.0.113.3"), Some("wrong-key"))
    );
    assert_eq!(events(&home, "locked-out", 1)[0]["lifetime_s"], 60);
    home.verb(&net.router, &["unblock", "--all"]).success();
    events(&home, "unlocked", 1);

    flush_host(&net.router);
    assert!(events(&home, "repaired", 1)[0]["by"].as_str().unwrap().starts_with("nft"), "{}", home.log());
    assert!(is_guarded(&net.router));
    agent.signal(Signal::SIGHUP);
    events(&home, "reloaded", 1);
    home.rewrite_config("global: nonsense");
    agent.signal(Signal::SIGHUP);
    assert!(!events(&home, "not-reloaded", 1)[0]["reason"].as_str().unwrap().is_empty());
    agent.terminate();
    events(&home, "stopped", 1);

    let log = home.log();
    for secret in [&http_key("ssh"), &https_key("ssh"), "a-guess-of-mine", STEP1_PATH, STEP2_PATH] {
        assert!(!log.contains(secret.trim_start_matches('/')), "a secret in the log: {log}");
    }
    let file = home.path("agent.log");
    let shown = |more: &[&str]| {
        let words = [&["log", "--file", file.to_str().unwrap()], more].concat();
        finish(plain(&words), b"", LIMIT).success().text()
    };
    let of_b = shown(&["--address", "203.0.113.0/24", "--app", "ssh", "--event", "granted,renewed,revoked"]);
    let kinds: Vec<&str> = of_b.lines().map(|line| line.split("  ").nth(1).unwrap().trim()).collect();
    assert_eq!(kinds, ["granted", "renewed", "revoked"], "{of_b}");
    assert!(of_b.contains("ssh  203.0.113.3  1m  by root  (operator)") && !of_b.contains('\u{1b}'), "{of_b}");
    let of_client = shown(&["--address", &client, "--json", "--since", "1h"]);
    let of_client: Vec<Value> = of_client.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(of_client.iter().filter(|line| line["event"] == "granted").collect::<Vec<_>>(), [granted]);
    assert_eq!(shown(&["--since", "2099-01-01"]), "");
    assert_eq!(shown(&["-n", "1"]).split("  ").nth(1).map(str::trim), Some("stopped"));

    let whole = |line: &Value| ["time", "level", "message"].iter().all(|key| line[key].is_string());
    assert!(lines(&home).iter().all(whole), "{log}");
    assert!(log.contains("\"level\":\"debug\""), "{log}");
}

#[test]
fn systemd_s_journal_gets_the_fields_of_events_from_the_sealed_daemon_and_they_are_read_there() {
    let net = Topology::new();
    let home = Installation::new(&config());
    // A journal of our own, which tells nobody that it is ready, in a file system of our own; what is there is seen through the process in it.
    let begin = "mount -t tmpfs none /run && mount -t tmpfs none /var/log && mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal && \
         printf '[Journal]\\nReadKMsg=no\\nRateLimitIntervalSec=0\\n' > /run/systemd/journald.conf.d/ours.conf && \
         { env -u NOTIFY_SOCKET setpriv --pdeathsig KILL /lib/systemd/systemd-journald & } && \
         for try in $(seq 200); do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done && \
         JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) && export JOURNAL_STREAM && exec \"$@\"";
    let home = home.wrapper(&["unshare", "-m", "sh", "-c", begin, "sh"]);
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_b(), 60);
    let inside = format!("/proc/{}/ns/mnt", agent.pid());
    let journal = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={inside}")).args(["journalctl", "--no-pager", "-q"]).args(words);
        finish(command, b"", LIMIT).text()
    };
    let end = Instant::now() + LIMIT;
    let entries = loop {
        let entries = journal(&["-o", "json", "KNOCK_AGENT_EVENT=granted", "KNOCK_AGENT_APP=ssh"]);
        if !entries.is_empty() {
            break entries;
        }
        assert!(Instant::now() < end, "{}\n{}", journal(&[]), home.log());
        sleep(Duration::from_millis(100));
    };
    let entry: Value = serde_json::from_str(&entries).unwrap();
    assert_eq!(
        (entry["PRIORITY"].as_str(), entry["_PID"].as_str()),
        (Some("6"), Some(&*agent.pid().to_string()))
    );
    assert_eq!(entry["KNOCK_AGENT_SERVICES"], "tcp/2222");
    assert!(entry["MESSAGE"].as_str().unwrap().starts_with("INFO granted address=203.0.113.3"), "{entry}");
    assert!(!home.log().contains("granted"), "nothing is told twice: {}", home.log());
    let shown =
        finish(plain(&["log", "--file", "-"]), journal(&["-o", "json"]).as_bytes(), LIMIT).success().text();
    assert!(shown.contains("  granted       ssh  203.0.113.3  1m  by root  (operator)"), "{shown}");
    agent.terminate();
}

/// Reads a pipe dry, until that was in it; the line that says so, with its end.
#[track_caller]
fn read_until(pipe: &mut File, word: &str) -> String {
    let (mut said, end) = (Vec::new(), Instant::now() + LIMIT);
    loop {
        let _ = pipe.read_to_end(&mut said);
        let text = String::from_utf8_lossy(&said);
        if let Some(line) =
            text.split_inclusive('\n').find(|line| line.contains(word) && line.ends_with('\n'))
        {
            return line.to_owned();
        }
        assert!(Instant::now() < end, "no {word} in:\n{text}");
        sleep(Duration::from_millis(20));
    }
}

/// A pipe as the log of what is started next, of which nobody reads anything.
fn unread_log(home: &Installation) -> File {
    mkfifo(&home.path("agent.log"), Mode::S_IRWXU).unwrap();
    let mut both = File::options();
    both.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
    both.open(home.path("agent.log")).unwrap()
}

#[test]
fn a_client_is_answered_and_the_guard_repaired_though_nobody_reads_the_log() {
    const PAGE: usize = 4_096;
    let net = Topology::new();
    let home = Installation::new(&config());
    let mut log = unread_log(&home);
    let _agent = home.start(&net.router);
    read_until(&mut log, "listening");
    fcntl(&log, FcntlArg::F_SETPIPE_SZ(PAGE.try_into().unwrap())).unwrap();
    let router = Family::V4.router();
    step1(&net.a, router, "ssh");
    let admitted = read_until(&mut log, "step 2 is open");
    assert_step2_opens(&net.a, router, "ssh");
    let granted = read_until(&mut log, " granted ");

    // Room for the line of step 1, and not for that of step 2 as well.
    let room = admitted.len() + granted.len() / 2;
    log.write_all(&vec![b'x'; PAGE - room]).unwrap();
    knock(&net.a, router, "ssh");
    remove_guard(&net.router);
    let end = Instant::now() + LIMIT;
    while !is_guarded(&net.router) {
        assert!(Instant::now() < end, "the guard is not put back");
        sleep(Duration::from_millis(20));
    }
    for _ in 0..3 {
        knock(&net.a, router, "ssh");
    }
    let mut said = vec![0; PAGE];
    let length = log.read(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said[..length]).into_owned();
    assert!(said.contains("step 2 is open") && !said.contains(" renewed "), "{said}");
    knock(&net.a, router, "ssh");
    let missing = read_until(&mut log, "lines are missing here");
    assert!(missing.contains(" WARN ") && missing.contains(" count="), "{missing}");
}

#[test]
fn a_log_that_is_full_from_the_beginning_keeps_no_guard_away() {
    let net = Topology::new();
    let home = Installation::new(&config());
    let mut log = unread_log(&home);
    let mut filled = log.write(&[b'x'; 1 << 20]);
    while filled.is_ok() {
        filled = log.write(b"x");
    }
    let _agent = home.start(&net.router);
    assert!(is_guarded(&net.router));
    knock(&net.a, Family::V4.router(), "ssh");
}
