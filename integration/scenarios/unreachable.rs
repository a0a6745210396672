//! A daemon that guards, but whose control socket is gone: nobody is told that none runs, and nothing is opened beside it.
//! And who is let in all the same after a revocation is told so.

use std::fs;
use std::process::Command;
use std::thread::{scope, sleep};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::agent::{Installation, PROGRAM};
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::{is_guarded, time_left};
use crate::namespace::Namespace;
use crate::probe::{assert_open, assert_silent};
use crate::process::Finished;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_daemon_without_its_socket_is_not_taken_for_none,
    a_daemon_that_hangs_keeps_nobody_from_looking_and_taking_back,
    a_revocation_tells_what_lets_the_address_in_all_the_same,
}

fn a_daemon_without_its_socket_is_not_taken_for_none() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 600"]));
    let agent = home.start(&net.router);
    let (to, a) = (Family::V4.router(), Family::V4.client_a().to_string());
    home.grant(&net.router, "ssh", &a, 600);
    fs::remove_file(home.path("run/control.sock")).unwrap();
    let process = format!("process {}", agent.pid());
    for words in [
        &["teardown"][..],
        &["grant", "ssh", "203.0.113.3"],
        &["allow", "203.0.113.0/24"],
        &["unblock", "--all"],
        &["confirm"],
    ] {
        let told = home.verb(&net.router, words).exits(69).stderr;
        assert!(told.contains("does not answer") && told.contains(&process), "{words:?}: {told}");
    }
    assert!(is_guarded(&net.router));
    assert_silent(&net.b, to, 2222);
    assert_open(&net.a, to, 2222);
    let text = home.verb(&net.router, &["status"]).success().text();
    assert!(text.contains(&process) && !text.contains("does not run"), "{text}");
    let text = home.check(&net.router, &["health"]).exits(1).text();
    assert!(text.contains(&process) && !text.contains("no daemon runs"), "{text}");
    // What is taken back, it notices.
    let told = home.verb(&net.router, &["revoke", "ssh", &a]).success();
    assert!(told.text().contains("may no longer reach") && told.stderr.contains(&process), "{told:?}");
    sleep(Duration::from_millis(2_500));
    assert_eq!(time_left(&net.router, "ssh", Family::V4.client_a()), None);
    assert_silent(&net.a, to, 2222);
    // Whoever means another folder hears the same.
    let other = home.path("state");
    let words = ["teardown", "--runtime-dir", other.to_str().unwrap(), "--config"];
    let config = home.path("config.yaml");
    let words = [&words[..], &[config.to_str().unwrap()]].concat();
    let told = net.router.run(crate::agent::PROGRAM, &words).exits(69).stderr;
    assert!(told.contains("--runtime-dir"), "{told}");
    agent.terminate();
    home.verb(&net.router, &["teardown"]).success();
    assert!(!is_guarded(&net.router));
}

/// Calls until there is no room for more, and hangs up.
const CALLS: &str = "import socket,sys\ntry:\n while True:\n  s=socket.socket(socket.AF_UNIX); s.setblocking(False); s.connect(sys.argv[1]); s.close()\nexcept BlockingIOError: pass";

fn patiently(home: &Installation, host: &Namespace, words: &[&str]) -> Finished {
    let mut command = Command::new(PROGRAM);
    command.args(words).arg("--config").arg(home.path("config.yaml"));
    command.arg("--runtime-dir").arg(home.path("run"));
    host.finish(command, b"", Duration::from_secs(60))
}

fn a_daemon_that_hangs_keeps_nobody_from_looking_and_taking_back() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 600"]));
    let agent = home.start(&net.router);
    let (to, a, b) = (Family::V4.router(), Family::V4.client_a(), Family::V4.client_b());
    let [a_text, b_text] = [a, b].map(|client| client.to_string());
    home.grant(&net.router, "ssh", a, 600);
    home.grant(&net.router, "ssh", b, 600);
    assert_open(&net.a, to, 2222);
    agent.signal(Signal::SIGSTOP);
    let ask = |words: &[&str]| patiently(&home, &net.router, words);
    scope(|scope| {
        let revoked = scope.spawn(|| ask(&["revoke", "ssh", &a_text]));
        let refused = scope.spawn(|| ask(&["grant", "ssh", "203.0.113.9"]));
        let looks = [&["status"][..], &["status", "--json"]].map(|words| scope.spawn(move || ask(words)));
        // They wait for an answer by then. Who calls from now on is not even heard.
        sleep(Duration::from_secs(3));
        let socket = home.path("run/control.sock");
        net.router.run("/usr/bin/python3", &["-c", CALLS, socket.to_str().unwrap()]).success();
        let unheard = scope.spawn(|| ask(&["revoke", "ssh", &b_text]));
        let ill = home.check(&net.router, &["health"]).exits(1).text();
        assert!(ill.contains("does not answer within 5 s"), "{ill}");
        for revoked in [revoked, unheard] {
            let told = revoked.join().unwrap().success();
            assert!(told.text().contains("may no longer reach"), "{told:?}");
            assert!(told.stderr.contains("no reply within 30 s"), "{told:?}");
        }
        let told = refused.join().unwrap().exits(69).stderr;
        assert!(told.contains("no reply within 30 s; what it has not begun by now"), "{told}");
        for look in looks {
            let told = look.join().unwrap().success().text();
            assert!(told.contains("no reply within 30 s") && told.contains("203.0.113.3"), "{told}");
        }
    });
    for (client, address) in [(&net.a, a), (&net.b, b)] {
        assert_eq!(time_left(&net.router, "ssh", address), None);
        assert_silent(client, to, 2222);
    }
    // It notices, and does nothing that nobody waits for.
    agent.signal(Signal::SIGCONT);
    sleep(Duration::from_millis(2_500));
    assert!(home.verb(&net.router, &["status"]).success().text().contains("nobody is let in"));
    agent.terminate();
}

fn a_revocation_tells_what_lets_the_address_in_all_the_same() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &["duration: 600", "allow: [198.51.100.0/24]"])
        .app("also", "\"2000-2300\"", "tcp", "local", &["duration: 600"])
        .app("other", "2223", "tcp", "local", &["duration: 600"]);
    let home = Installation::new(&config);
    let mut agent = Some(home.start(&net.router));
    let (to, a) = (Family::V4.router(), Family::V4.client_a().to_string());
    let revoke = |words: &[&str]| home.verb(&net.router, words).success().text();
    for with_daemon in [true, false] {
        if !with_daemon {
            agent.take().unwrap().kill();
        }
        home.grant(&net.router, "other", &a, 600);
        home.grant(&net.router, "ssh", &a, 600);
        let told = revoke(&["revoke", "ssh", &a]);
        assert!(told.contains("may no longer reach ssh"), "{told}");
        assert_silent(&net.a, to, 2222);

        home.grant(&net.router, "ssh", &a, 600);
        home.grant(&net.router, "also", &a, 600);
        home.verb(&net.router, &["allow", "203.0.113.0/24"]).success();
        for had in ["has no grant for ssh any more", "had no grant for ssh"] {
            let told = revoke(&["revoke", "ssh", &a]);
            let all = [had, "let in all the same", "203.0.113.0/24", "allow --list", "revoke also"];
            assert!(all.iter().all(|word| told.contains(word)), "{told}");
            assert!(!told.contains("may no longer") && !told.contains("other"), "{told}");
            assert_open(&net.a, to, 2222);
        }
        let told = revoke(&["revoke", "--all"]);
        assert!(told.contains("2 grants ended; 2 allowed networks"), "{told}");
        revoke(&["allow", "--flush"]);
        assert_silent(&net.a, to, 2222);
        let told = revoke(&["revoke", "ssh", "198.51.100.7"]);
        assert!(told.contains("had no grant") && told.contains("198.51.100.0/24"), "{told}");
    }
    // Without a configuration the kernel tells.
    home.grant(&net.router, "ssh", &a, 600);
    home.grant(&net.router, "also", &a, 600);
    home.verb(&net.router, &["allow", "203.0.113.0/24", "--app", "ssh"]).success();
    home.rewrite_config("global: [\n");
    let told = revoke(&["revoke", "ssh", &a]);
    let all = ["has no grant for ssh any more", "203.0.113.0/24", "revoke also"];
    assert!(all.iter().all(|word| told.contains(word)), "{told}");
}
