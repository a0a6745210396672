//! Stops, crashes and restarts with open grants.

use std::process::Stdio;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::firewall::{everything, has_set, is_guarded, remove_element, table, time_left};
use crate::front::{child_of, status_line};
use crate::knocking::{STEP2_PORT, knock};
use crate::probe::{assert_echoes, assert_on_time, assert_open, assert_silent, when_silent};
use crate::process::wait;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    grants_end_on_time_with_nobody_alive_after_kill_9,
    a_restart_after_kill_9_keeps_the_time_that_is_left,
    with_cleanup_sigterm_ends_the_grants_and_keeps_the_guard,
    a_daemon_that_was_stopped_and_started_ten_times_still_guards_and_opens,
    somebody_else_who_removes_a_grant_is_obeyed,
    a_restart_with_another_configuration_keeps_the_grants_it_still_knows,
}

without_ipset! {
    grants_end_on_time_with_nobody_alive_after_kill_9,
    a_restart_after_kill_9_keeps_the_time_that_is_left,
    with_cleanup_sigterm_ends_the_grants_and_keeps_the_guard,
    a_daemon_that_was_stopped_and_started_ten_times_still_guards_and_opens,
    somebody_else_who_removes_a_grant_is_obeyed,
}

fn grants_end_on_time_with_nobody_alive_after_kill_9() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 8"]).app(
        "lan",
        "2223",
        "tcp",
        "10.0.0.5:22",
        &["duration: 8"],
    );
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    knock(&net.a, Family::V6.router(), "ssh");
    let due6 = Instant::now() + Duration::from_secs(8);
    knock(&net.a, Family::V4.router(), "lan");
    let due4 = Instant::now() + Duration::from_secs(8);
    agent.kill();
    assert_echoes(&net.a, Family::V6.router(), 2222);
    assert_echoes(&net.a, Family::V4.router(), 2223);
    assert_silent(&net.b, Family::V6.router(), 2222);
    let late = Duration::from_secs(3);
    assert_on_time(when_silent(&net.a, Family::V6.router(), 2222, due6 + late), due6);
    assert_on_time(when_silent(&net.a, Family::V4.router(), 2223, due4 + late), due4);
    assert!(is_guarded(&net.router), "the guard stays");
    for family in Family::BOTH {
        assert_silent(&net.b, family.router(), 2222);
    }
}

fn a_restart_after_kill_9_keeps_the_time_that_is_left() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 14"]));
    let agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    knock(&net.a, to, "ssh");
    let due = Instant::now() + Duration::from_secs(14);
    home.grant(&net.router, "ssh", Family::V6.client_b(), 14);
    let guard = table(&net.router);
    agent.kill();
    sleep(Duration::from_secs(2));
    let before = time_left(&net.router, "ssh", client).expect("a grant");
    let then = Instant::now();
    let _agent = home.start(&net.router);
    let after = time_left(&net.router, "ssh", client).expect("the grant is still there after the restart");
    let passed = then.elapsed();
    assert!(after <= before, "{after:?} left after the restart, {before:?} before it");
    let lost = before.saturating_sub(passed).saturating_sub(after);
    assert!(lost <= Duration::from_millis(1500), "the restart cost {lost:?}");
    assert!(time_left(&net.router, "ssh", Family::V6.client_b()).is_some(), "the other one as well");
    assert_eq!(table(&net.router), guard, "the guard is the same");
    assert_echoes(&net.a, to, 2222);
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
}

#[test]
fn a_connection_survives_a_restart_within_its_grant() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let stream = crate::probe::dial(&net.a, (to, 2222).into(), Duration::from_secs(4)).unwrap();
    crate::probe::assert_echo(stream.try_clone().unwrap());
    agent.terminate();
    crate::probe::assert_echo(stream.try_clone().unwrap());
    let _agent = home.start(&net.router);
    crate::probe::assert_echo(stream);
}

#[test]
fn sigterm_leaves_guard_and_grants_in_place() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 10"]));
    let agent = home.start(&net.router);
    for family in Family::BOTH {
        knock(&net.a, family.router(), "ssh");
    }
    let due = Instant::now() + Duration::from_secs(10);
    agent.terminate();
    for family in Family::BOTH {
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
        assert_silent(&net.b, family.router(), STEP2_PORT);
    }
    let closed = when_silent(&net.a, Family::V6.router(), 2222, due + Duration::from_secs(3));
    assert_on_time(closed, due);
    assert!(is_guarded(&net.router), "the guard stays");
}

fn with_cleanup_sigterm_ends_the_grants_and_keeps_the_guard() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home =
        Installation::new(&Config::ssh(&["duration: 600"])).flags(&["--service-rule-cleanup-on-shutdown"]);
    let agent = home.start(&net.router);
    for family in Family::BOTH {
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
    }
    agent.terminate();
    assert!(is_guarded(&net.router), "the guard stays");
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
        assert_eq!(time_left(&net.router, "ssh", family.client_a()), None);
    }
}

fn a_daemon_that_was_stopped_and_started_ten_times_still_guards_and_opens() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 120"]));
    home.start(&net.router).terminate();
    let guard = table(&net.router);
    for round in 0..10 {
        let agent = home.start(&net.router);
        assert_eq!(table(&net.router), guard, "round {round}");
        if round % 2 == 0 { agent.kill() } else { agent.terminate() }
    }
    let _agent = home.start(&net.router);
    assert_silent(&net.a, Family::V4.router(), 2222);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

#[test]
fn a_second_daemon_does_not_disturb_the_first() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let mut agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    let second = home.run_in_vain(&net.router);
    assert!(second.code.is_some_and(|code| code != 0), "{second:?}");
    assert!(agent.is_alive());
    assert_echoes(&net.a, Family::V4.router(), 2222);
    home.verb(&net.router, &["status", "--json"]).success();
    knock(&net.b, Family::V4.router(), "ssh");
}

#[test]
fn a_second_daemon_with_other_files_gives_up_before_it_touches_anything() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let mut agent = home.start(&net.router);
    let before = everything(&net.router);
    let other = Installation::new(&Config::new(&[]).app("web", "3333", "tcp", "local", &[]));
    let other = other.flags(&["--http-port", "8081", "--https-port", "8444"]);
    // Also while the first one is busy with repairs.
    for round in 0..6 {
        if round > 2 {
            net.router.nft("delete table inet knock_agent");
        }
        let second = other.run_in_vain(&net.router).exits(69);
        assert!(second.stderr.contains(&format!("pid {}", agent.pid())), "{}", second.stderr);
        other.guard(&net.router).success();
        assert!(!table(&net.router).contains("3333"), "round {round}");
    }
    assert!(agent.is_alive());
    agent.kill();
    // The name dies with its owner, and a user who holds it does not keep the ports open.
    net.router.nft("delete table inet knock_agent");
    // Nor does root without power over the network, as in a container that shares it.
    let powerless = ["--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let stranger = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let squatter = "import socket,time; s=socket.socket(socket.AF_UNIX); s.bind('\\0knock-agent'); LISTEN time.sleep(60)";
    let listening = ["", "s.listen(0);"].map(|listen| (listen, squatter.replace("LISTEN", listen)));
    for ((listens, script), who) in [
        (&listening[0], &stranger[..]),
        (&listening[1], &stranger[..]),
        (&(listening[1].0, listening[1].1.replace("listen(0)", "listen(9)")), &powerless[..]),
    ] {
        let mut command = std::process::Command::new("setpriv");
        command.args(who).args(["/usr/bin/python3", "-c", script]);
        let _squatter = net.router.background(command);
        let named = || net.router.run("ss", &["-xa"]).text().contains("@knock-agent");
        let end = Instant::now() + Duration::from_secs(10);
        while !named() {
            assert!(Instant::now() < end, "nobody took the name");
            sleep(Duration::from_millis(20));
        }
        let agent = home.start(&net.router);
        assert!(home.log().contains("ignored"), "{listens}: {}", home.log());
        agent.kill();
    }
    assert!(before.contains("2222") && table(&net.router).contains("2222"));
}

#[test]
fn a_start_beside_others_who_flush_the_rules_gets_there() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let client = Family::V4.client_a();
    for _ in 0..3 {
        let agent = thread::scope(|scope| {
            // Some twenty times, as services do at boot, and over before patience is.
            scope.spawn(|| {
                for _ in 0..20 {
                    net.router.nft("flush ruleset");
                    sleep(Duration::from_millis(30));
                }
            });
            home.start(&net.router)
        });
        // Who keeps removing the rules is answered once a second.
        let end = Instant::now() + Duration::from_secs(10);
        while !is_guarded(&net.router) {
            assert!(Instant::now() < end, "it does not come back");
            sleep(Duration::from_millis(50));
        }
        assert_silent(&net.b, Family::V4.router(), 2222);
        home.grant(&net.router, "ssh", client, 60);
        assert_echoes(&net.a, Family::V4.router(), 2222);
        assert_silent(&net.b, Family::V4.router(), 2222);
        agent.terminate();
    }
}

#[test]
fn a_reload_that_is_asked_for_during_a_start_comes_after_it() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let mut command = home.run_command();
    let file = home.path("early.log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&file).unwrap());
    let mut agent = net.router.background(command);
    let log = || std::fs::read_to_string(&file).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(20);
    // Which is started before the configuration is read.
    let launcher = loop {
        if let Some(launcher) = child_of(agent.0.id(), "start-others") {
            break launcher;
        }
        assert!(Instant::now() < end && agent.is_alive(), "{}", log());
    };
    agent.signal(Signal::SIGHUP);
    while !log().contains("reloaded: the new configuration is in force") {
        assert!(agent.is_alive(), "it ended: {}", log());
        assert!(Instant::now() < end, "{}", log());
        sleep(Duration::from_millis(20));
    }
    assert!(is_guarded(&net.router));
    assert_eq!(log().matches("reloaded: ").count(), 1, "{}", log());
    let front = child_of(launcher, "hear-strangers").expect("a front");
    // SIGHUP, SIGINT, SIGQUIT and SIGTERM, for those that end with the daemon.
    for (pid, held) in [(agent.0.id(), 0), (launcher, 0x4007), (front, 0x4007)] {
        let blocked = status_line(pid, "SigBlk").unwrap();
        assert_eq!(u64::from_str_radix(&blocked, 16), Ok(held), "of {pid}");
    }
    agent.signal(Signal::SIGTERM);
    assert_eq!(wait(&mut agent.0, Duration::from_secs(10)).and_then(|status| status.code()), Some(0));
}

#[test]
fn a_daemon_that_is_told_to_end_while_its_first_front_is_being_started_ends_and_leaves_the_guard() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    // A machine that is quick may have it serve before it is seen.
    for attempt in 0..20 {
        let notify = home.path("notify");
        let _ = std::fs::remove_file(&notify);
        let socket = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut command = home.run_command();
        command.env("NOTIFY_SOCKET", &notify).stdin(std::process::Stdio::null());
        let log = std::fs::File::create(home.path("agent.log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = net.router.background(command);
        let pid = daemon.0.id();
        let end = Instant::now() + Duration::from_secs(30);
        let front = loop {
            let launcher = crate::front::child_of(pid, "start-others");
            if let Some(front) = launcher.and_then(|pid| crate::front::child_of(pid, "hear-strangers")) {
                break front;
            }
            assert!(daemon.is_alive() && Instant::now() < end, "no front:\n{}", home.log());
        };
        let front = nix::unistd::Pid::from_raw(i32::try_from(front).unwrap());
        nix::sys::signal::kill(front, nix::sys::signal::Signal::SIGSTOP).unwrap();
        // The rest goes on as far as it can without it.
        let end = Instant::now() + Duration::from_secs(20);
        while !is_guarded(&net.router) || !home.path("run/control.sock").exists() {
            assert!(daemon.is_alive() && Instant::now() < end, "{}", home.log());
            sleep(Duration::from_millis(10));
        }
        sleep(Duration::from_millis(300));
        if socket.recv(&mut [0; 64]).is_ok() {
            assert!(attempt < 19, "its front always served before it could be stopped");
            continue;
        }
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        let status = crate::process::wait(&mut daemon.0, Duration::from_secs(20));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "it ends: {}", home.log());
        let gone = || !std::path::Path::new(&format!("/proc/{front}")).exists();
        while !gone() {
            assert!(Instant::now() < end + Duration::from_secs(20), "its front stays");
            sleep(Duration::from_millis(20));
        }
        assert!(is_guarded(&net.router), "the guard stays");
        return;
    }
}

fn somebody_else_who_removes_a_grant_is_obeyed() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 600"]));
    let agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    remove_element(&net.router, "app_ssh_4", "203.0.113.2");
    assert_silent(&net.a, Family::V4.router(), 2222);
    sleep(Duration::from_secs(2));
    assert_eq!(time_left(&net.router, "ssh", Family::V4.client_a()), None, "it is not repaired");
    agent.terminate();
    let _agent = home.start(&net.router);
    assert_eq!(time_left(&net.router, "ssh", Family::V4.client_a()), None, "nor by a restart");
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

fn a_restart_with_another_configuration_keeps_the_grants_it_still_knows() {
    let net = Topology::new();
    let _services = [2222, 3333, 4444].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let before = Config::ssh(&["duration: 120"]).app("old", "4444", "tcp", "local", &["duration: 120"]);
    let home = Installation::new(&before);
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    knock(&net.a, to, "old");
    let left = time_left(&net.router, "ssh", Family::V4.client_a()).expect("a grant");
    assert_open(&net.b, to, 3333);
    assert_silent(&net.b, to, 4444);
    agent.terminate();
    let after = Config::ssh(&["duration: 120"]).app("web", "3333", "tcp", "local", &[]);
    home.rewrite_config(after.text());
    let _agent = home.start(&net.router);
    let kept = time_left(&net.router, "ssh", Family::V4.client_a()).expect("the grant stays");
    assert!(kept <= left && kept + Duration::from_secs(20) > left, "{kept:?} left, {left:?} before");
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.a, to, 3333);
    assert_open(&net.b, to, 4444);
    assert!(!has_set(&net.router, "app_old_4"), "what is no longer configured is gone");
    knock(&net.b, to, "web");
    assert_echoes(&net.b, to, 3333);
}

#[test]
fn a_bad_configuration_at_a_restart_leaves_the_guard_and_the_grants() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 120"]));
    let agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    agent.kill();
    let guard = table(&net.router);
    home.rewrite_config("global: nonsense\n");
    home.run_in_vain(&net.router).exits(78);
    assert_eq!(table(&net.router), guard);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_daemon() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[])).wrapper(&["sh", "-c", "exec \"$0\" \"$@\" 2>/dev/full"]);
    let mut agent = home.start(&net.router);
    for _ in 0..3 {
        home.grant(&net.router, "ssh", Family::V6.client_b(), 60);
    }
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert!(agent.is_alive(), "the daemon died of its log");
}

#[test]
fn a_daemon_whose_starter_held_its_end_back_can_be_ended() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[])).wrapper(&["env", "--block-signal=TERM,INT"]);
    let agent = home.start(&net.router);
    assert_eq!(status_line(agent.pid(), "SigBlk").as_deref(), Some("0000000000000000"));
    agent.terminate();
    assert!(is_guarded(&net.router));
}

#[test]
fn where_no_file_may_grow_the_host_is_guarded_and_clients_get_in() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[])).wrapper(&["prlimit", "--fsize=0"]);
    let mut agent = home.start(&net.router);
    assert!(is_guarded(&net.router));
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert!(agent.is_alive(), "the daemon died of a file");
}
