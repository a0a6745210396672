//! Attacks on knocks that change with time: knocks that were used, after everything that could make it forgotten.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::timed_knocks::{CAROL, Home, TO, filled, forget, granted, listed, until};
use crate::agent::Agent;
use crate::calendar;
use crate::firewall::{elements, flush_host, has_set, is_guarded};
use crate::knocks::knock_at;
use crate::namespace::Namespace;
use crate::probe::{assert_echo, assert_echoes, assert_silent, dial};
use crate::server::{Habit, Server};
use crate::tamper::Tamper;
use crate::topology::Topology;

const NOBODY: [&str; 0] = [];

fn rewrite(home: &Home, from: &str, to: &str) {
    let text = fs::read_to_string(home.home.path("config.yaml")).unwrap();
    assert!(text.contains(from), "{text}");
    home.home.rewrite_config(&text.replace(from, to));
}

/// Neither who knocked nor another opens anything by these.
#[track_caller]
fn assert_used(net: &Topology, knocks: &str, when: &str) {
    for client in [&net.a, &net.b] {
        knock_at(client, TO.router(), knocks);
    }
    sleep(Duration::from_millis(100));
    assert_eq!(granted(&net.router), NOBODY, "{when}");
}

fn started_again(home: &Home, agent: Agent, host: &Namespace, meanwhile: impl FnOnce()) -> Agent {
    agent.kill();
    meanwhile();
    let agent = home.home.start(host);
    filled(host);
    agent
}

#[test]
fn knocks_that_were_used_stay_so_whatever_is_flushed_changed_damaged_or_taken_down() {
    let net = Topology::new();
    let home = Home::every(600);
    let mut agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    filled(host);
    let path = home.alice(home.step());
    knock_at(&net.a, to, &path);
    assert_eq!(granted(host), [TO.client_a().to_string()]);
    let file = home.home.path("run/used-knocks.json");
    until("it is written down", || fs::read_to_string(&file).is_ok_and(|text| text.contains("alice")));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    forget(&home, host);
    assert_used(&net, &path, "at once");
    // The set alone.
    host.run("nft", &["flush", "set", "inet", "knock_agent", "knock_used"]).success();
    until("it is known again", || listed(host, "set", "knock_spent").matches("expires").count() > 1);
    assert_used(&net, &path, "its set was flushed");
    // Other rules, with a table that is made anew, and back; and none in between.
    for (from, with) in [(", every: 600", ", every: 600, lengths: true"), (", lengths: true", "")] {
        rewrite(&home, from, with);
        agent.reload();
        filled(host);
        assert_used(&net, &path, with);
    }
    let section = fs::read_to_string(home.home.path("config.yaml")).unwrap();
    let line = section.lines().find(|line| line.contains("time_sequence")).unwrap().to_owned();
    rewrite(&home, &line, "");
    agent.reload();
    assert!(!has_set(host, "knock_used"));
    home.home.rewrite_config(&section);
    agent.reload();
    filled(host);
    assert_used(&net, &path, "there were no such knocks for a moment");
    // Another name for the same secret.
    home.rename("alice", "alicia");
    agent.reload();
    filled(host);
    assert_used(&net, &path, "renamed");
    // A crash, a flush, and a file that says nothing.
    agent = started_again(&home, agent, host, || {
        fs::write(&file, "{\"used\": {\"ali").unwrap();
        flush_host(host);
    });
    assert_used(&net, &path, "damaged");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    agent = started_again(&home, agent, host, || ());
    assert_used(&net, &path, "the next daemon does not know more");
    agent = started_again(&home, agent, host, || fs::remove_file(&file).unwrap());
    assert_used(&net, &path, "the kernel says so without the file");
    home.home.verb(host, &["teardown"]).success();
    until("it is gone", || !is_guarded(host));
    drop(agent);
    let agent = home.home.start(host);
    filled(host);
    assert_used(&net, &path, "taken down");
    drop(agent);
}

#[test]
fn knocks_that_were_used_open_nothing_after_a_reboot_with_a_calendar_that_is_behind() {
    let net = Topology::new();
    let mut tamper = None;
    let home = Home::every(30).with(|home| {
        let (home, orders) = Tamper::with(home);
        tamper = Some(orders);
        home
    });
    let tamper = tamper.unwrap();
    let (host, to) = (&net.router, TO.router());
    let agent = home.home.start(host);
    filled(host);
    let path = home.alice(home.step_with(5));
    knock_at(&net.a, to, &path);
    assert_eq!(granted(host), [TO.client_a().to_string()]);
    let file = home.home.path("state/last-use");
    until("it is written down", || file.exists());
    // The power fails, and a host without a clock of its own starts.
    agent.kill();
    host.run("nft", &["delete", "table", "inet", "knock_agent"]).success();
    home.home.lose_runtime_folder();
    tamper.behind(70);
    let agent = home.home.start(host);
    filled(host);
    assert!(home.home.log().contains("the calendar is behind"), "{}", home.home.log());
    assert_used(&net, &path, "not right by the calendar of now");
    // Its calendar comes to the time of the knocks.
    tamper.behind(1);
    home.home.verb(host, &["status"]).success();
    sleep(Duration::from_millis(500));
    assert_used(&net, &path, "by a calendar that was behind");
    let agent = started_again(&home, agent, host, || ());
    assert_used(&net, &path, "the next daemon does not know more");
    until("who knocks later gets in", || {
        knock_at(&net.b, to, &home.bob(home.step() + 1));
        granted(host) == [TO.client_b().to_string()]
    });
    drop(agent);
}

#[test]
fn who_goes_with_a_duration_of_their_own_or_in_the_middle_of_their_knocks_has_nothing_open() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Home::every(600);
    home.client("carol", CAROL, "duration: 1800\n");
    let agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    filled(host);
    knock_at(&net.a, to, &home.carol(home.step()));
    knock_at(&net.b, to, &home.bob(home.step()));
    assert_echoes(&net.a, to, 2222);
    until("it is told who they are", || {
        let status = home.home.verb(host, &["status", "--json"]).success().text();
        status.contains("carol") && status.contains("bob")
    });
    // Whose they are is known after a crash, too.
    let agent = started_again(&home, agent, host, || ());
    let path = home.alice(home.step());
    let (begun, last) = path.rsplit_once(',').unwrap();
    knock_at(&net.a, to, begun);
    for name in ["alice", "carol"] {
        home.remove(name);
    }
    agent.signal(Signal::SIGHUP);
    until("carol's set is gone", || !has_set(host, "seq_ssh.1800_4"));
    filled(host);
    knock_at(&net.a, to, last);
    assert_eq!(granted(host), [TO.client_b().to_string()]);
    for set in ["app_ssh_4", "app_ssh_6"] {
        assert!(elements(host, set).is_empty(), "{set} has inherited it");
    }
    assert_silent(&net.a, to, 2222);
    assert_echoes(&net.b, to, 2222);
    // Who goes while no daemon is there.
    let agent = started_again(&home, agent, host, || home.remove("bob"));
    assert_eq!(granted(host), NOBODY);
    assert_silent(&net.b, to, 2222);
    // Whose grant has become one of the agent's own, as its set is no more.
    home.client("erin", CAROL, "duration: 1800\n");
    agent.reload();
    filled(host);
    knock_at(&net.a, to, &home.carol(home.step() + 1));
    assert_echoes(&net.a, to, 2222);
    until("it is told who it is", || {
        home.home.verb(host, &["status", "--json"]).success().text().contains("erin")
    });
    home.client("erin", CAROL, "duration: 2400\n");
    agent.reload();
    filled(host);
    assert_eq!(elements(host, "app_ssh_4").len(), 1);
    let agent = started_again(&home, agent, host, || ());
    assert_echoes(&net.a, to, 2222);
    home.remove("erin");
    agent.reload();
    assert!(elements(host, "app_ssh_4").is_empty(), "{}", home.home.log());
    assert_silent(&net.a, to, 2222);
    drop(agent);
}

#[test]
fn who_goes_after_the_duration_was_shortened_has_nothing_open() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Home::every(600);
    home.client("carol", CAROL, "");
    let agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    filled(host);
    knock_at(&net.a, to, &home.carol(home.step()));
    assert_echoes(&net.a, to, 2222);
    until("it is told who it is", || {
        home.home.verb(host, &["status", "--json"]).success().text().contains("carol")
    });
    rewrite(&home, "duration: 3600", "duration: 1800");
    agent.reload();
    assert_eq!((elements(host, "app_ssh_4").len(), granted(host).len()), (1, 1));
    let agent = started_again(&home, agent, host, || ());
    let status = home.home.verb(host, &["status", "--json"]).success().text();
    assert_eq!(status.matches("carol").count(), 2, "{status}");
    home.remove("carol");
    agent.reload();
    assert!(elements(host, "app_ssh_4").is_empty() && granted(host).is_empty(), "{}", home.home.log());
    assert_silent(&net.a, to, 2222);
    drop(agent);
}

#[test]
fn who_went_while_no_daemon_ran_has_nothing_open_after_a_reboot() {
    let net = Topology::new();
    let mut home = Home::every(600);
    home.client("carol", CAROL, "");
    let (state, boot_id) = (home.home.path("state/grants"), home.home.path("boot-id"));
    rewrite(&home, "global:\n", &format!("global:\n  state_file: {}\n", state.display()));
    let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    home.home = home.home.wrapper(&["unshare", "-m", "sh", "-c", mount, boot_id.to_str().unwrap()]);
    let boot =
        |number| fs::write(&boot_id, format!("0000000{number}-0000-4000-8000-000000000000\n")).unwrap();
    boot(1);
    let agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    filled(host);
    knock_at(&net.a, to, &home.carol(home.step()));
    knock_at(&net.b, to, &home.bob(home.step()));
    until("it is written down who they are", || {
        fs::read_to_string(&state).is_ok_and(|text| text.contains("carol") && text.contains("bob"))
    });
    agent.terminate();
    home.remove("carol");
    flush_host(host);
    home.home.lose_runtime_folder();
    boot(2);
    let _agent = home.home.start(host);
    assert_eq!(granted(host), [TO.client_b().to_string()], "{}", home.home.log());
}

#[test]
fn where_no_use_can_be_remembered_nothing_opens_and_what_was_open_in_the_range_lives_on() {
    let net = Topology::new();
    let (host, to) = (&net.router, TO.router());
    let _other = Server::tcp(host, 25_000, Habit::Echo);
    let before = dial(&net.a, (to, 25_000).into(), Duration::from_secs(10)).unwrap();
    let home = Home::new(600, "protocol: tcp, every: 600", &["duration: 3600"]);
    let agent = home.home.start(host);
    filled(host);
    assert_echo(before);
    assert_silent(&net.b, to, 25_000);
    assert!(home.home.log().contains("an open connection to a port that is guarded"), "{}", home.home.log());
    // The daemon would put it right.
    agent.signal(Signal::SIGSTOP);
    let all: Vec<String> = (1..=65_536_u32).map(|mark| format!("{mark} timeout 1h")).collect();
    let script = home.home.folder().write(
        "full.nft",
        all.chunks(8_192)
            .map(|some| format!("add element inet knock_agent knock_used {{ {} }}\n", some.join(", ")))
            .collect::<String>(),
    );
    host.run("nft", &["-f", script.to_str().unwrap()]);
    knock_at(&net.a, to, &home.bob(home.step()));
    assert_eq!(granted(host), NOBODY);
    agent.signal(Signal::SIGCONT);
    drop(agent);
}

#[test]
#[ignore = "sets the machine's calendar: for a machine of its own, such as that of integration/kernel-6.1"]
fn knocks_follow_a_calendar_that_is_set_and_open_once() {
    let net = Topology::new();
    let home = Home::every(30);
    home.client("carol", CAROL, "");
    let _agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    filled(host);
    for jump in [90, -90] {
        let then = home.step_with(20);
        knock_at(&net.a, to, &home.alice(then));
        assert_eq!(granted(host), [TO.client_a().to_string()], "{jump}");
        forget(&home, host);
        calendar::shift(jump);
        // What is right by the new time opens as soon as the daemon has filled the maps anew.
        until("the knocks of the new time open", || {
            knock_at(&net.a, to, &home.carol(home.step_with(15)));
            !granted(host).is_empty()
        });
        forget(&home, host);
        knock_at(&net.b, to, &home.bob(then));
        assert_eq!(granted(host), NOBODY, "{jump}: what was right before");
        calendar::shift(-jump);
        until("knocks that were not used are right again", || {
            knock_at(&net.b, to, &home.bob(then));
            !granted(host).is_empty()
        });
        forget(&home, host);
        assert_used(&net, &home.alice(then), "set to and fro");
        // The next round's are others.
        let due = home.step() + 1;
        until("the next step", || home.step() >= due);
    }
}
