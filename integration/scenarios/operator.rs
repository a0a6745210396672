//! The verbs of the operator, with the daemon and without.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::Installation;
use crate::backend::{Backend, on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::firewall::{add_foreign_rule, is_guarded, time_left};
use crate::knocking::{knock, step1, step2};
use crate::probe::{assert_echoes, assert_on_time, assert_open, assert_silent, when_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    an_operator_grants_and_revokes_while_the_daemon_runs,
    an_operator_grants_and_revokes_without_a_daemon,
    a_revocation_cuts_a_running_connection,
    status_tells_who_is_in_how_and_for_how_long,
    teardown_without_a_daemon_removes_everything_of_ours_and_nothing_else,
    teardown_after_the_daemon_was_stopped_removes_everything,
    operators_who_ask_without_end_keep_nobody_out,
}

without_ipset! {
    a_revocation_cuts_a_running_connection,
    teardown_without_a_daemon_removes_everything_of_ours_and_nothing_else,
    teardown_after_the_daemon_was_stopped_removes_everything,
}

#[test]
fn addresses_that_no_client_has_are_refused_with_the_reason() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    for running in [true, false] {
        for (address, why) in [
            ("0.0.0.0", "no address of a host"),
            ("127.0.0.1", "loopback"),
            ("224.0.0.251", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("::", "no address of a host"),
            ("::1", "loopback"),
            ("ff02::fb", "multicast"),
            ("::ffff:127.0.0.1", "loopback"),
        ] {
            let told = home.verb(&net.router, &["grant", "ssh", address]).exits(2).stderr;
            assert!(told.contains(why), "{address}: {told}");
        }
        let told = home.verb(&net.router, &["allow", "224.0.0.0/4"]).exits(2).stderr;
        assert!(told.contains("multicast"), "{told}");
        if running {
            agent.signal(nix::sys::signal::Signal::SIGKILL);
        }
    }
    let left = status(&net, &home);
    assert_eq!(left["grants"], serde_json::json!([]), "nothing of it is in the kernel");
}

/// Connects to the control socket so often as a user, says nothing, and prints a line when all are there.
const SILENT_CALLERS: &str = "import socket,sys,time\nall=[]\nfor _ in range(int(sys.argv[2])):\n s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); all.append(s)\nprint('all',flush=True)\ntime.sleep(60)";

#[test]
fn callers_who_say_nothing_hold_up_neither_root_nor_for_long_other_operators() {
    let net = Topology::new();
    let caps = "+net_admin,+net_bind_service";
    let (inherited, ambient) = (format!("--inh-caps=-all,{caps}"), format!("--ambient-caps=-all,{caps}"));
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &inherited, &ambient];
    let home = Installation::new(&Config::ssh(&[])).for_nobody().wrapper(&nobody);
    let _agent = home.start(&net.router);
    let socket = home.path("run/control.sock");
    let mut command = std::process::Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        SILENT_CALLERS,
    ]);
    command.arg(&socket).arg("60").stdout(std::process::Stdio::piped());
    let mut silent = net.router.background(command);
    let mut line = [0; 3];
    std::io::Read::read_exact(silent.0.stdout.as_mut().unwrap(), &mut line).unwrap();
    // Root has room of its own. Before, three batches of sixteen were waited for, ten seconds each.
    let begun = Instant::now();
    home.verb(&net.router, &["status"]).success();
    let of_root = begun.elapsed();
    // Another one of theirs comes after all of them, a second for each batch.
    let program = home.path("knock-agent");
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).arg("status");
    command.arg("--config").arg(home.path("config.yaml")).arg("--runtime-dir").arg(home.path("run"));
    net.router.finish(command, b"", Duration::from_secs(60)).success();
    let of_other = begun.elapsed();
    assert!(silent.is_alive(), "they would wait for a minute");
    assert!(of_root < Duration::from_secs(5), "root waited {of_root:?}");
    assert!(of_other < Duration::from_secs(20), "others waited {of_other:?}");
}

/// Asks for what the second argument is, and waits for the reply where the third is not 0.
const CALLS: &str = "import socket,sys\ns=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()+b'\\n'); int(sys.argv[3]) and s.recv(1)";

#[test]
fn what_nobody_waits_for_any_more_is_not_carried_out() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let (a, b) = (Family::V4.client_a(), Family::V4.client_b());
    let socket = home.path("run/control.sock");
    let grant = |address, bytes| {
        let asked =
            format!("{{\"verb\":\"grant\",\"app\":\"ssh\",\"address\":\"{address}\",\"seconds\":60}}");
        net.router.run("/usr/bin/python3", &["-c", CALLS, socket.to_str().unwrap(), &asked, bytes]).success();
    };
    grant(b, "1");
    assert!(time_left(&net.router, "ssh", b).is_some(), "who waits is let in");
    agent.signal(Signal::SIGSTOP);
    grant(a, "0");
    agent.signal(Signal::SIGCONT);
    // Comes after it, and is answered.
    home.verb(&net.router, &["revoke", "ssh", &b.to_string()]).success();
    assert_eq!(time_left(&net.router, "ssh", b), None);
    assert_eq!(time_left(&net.router, "ssh", a), None, "nobody waits for that one");
}

fn status(net: &Topology, home: &Installation) -> Value {
    let done = home.verb(&net.router, &["status", "--json"]).success();
    let value: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    assert_eq!(value["version"], 1);
    let backend = if Backend::current().is_iptables() { "iptables" } else { "nftables" };
    assert_eq!(value["backend"], backend);
    value
}

fn services_of(status: &Value) -> Vec<&Value> {
    status["grants"].as_array().unwrap().iter().filter(|g| g["kind"] == "service").collect()
}

fn set_up(daemon: bool) -> (Topology, Installation, Option<crate::agent::Agent>, [Server; 2]) {
    let net = Topology::new();
    let services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 3333, Habit::Echo)];
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 60"]).app(
        "web",
        "3333",
        "tcp",
        "local",
        &["duration: 60"],
    );
    let home = Installation::new(&config);
    let agent = if daemon {
        Some(home.start(&net.router))
    } else {
        home.start(&net.router).terminate();
        None
    };
    (net, home, agent, services)
}

fn grant_and_revoke(daemon: bool) {
    let (net, home, _agent, _services) = set_up(daemon);
    for family in Family::BOTH {
        let (to, a, b) = (family.router(), family.client_a(), family.client_b());
        home.grant(&net.router, "ssh", a, 60);
        home.verb(&net.router, &["grant", "web", &b.to_string()]).success();
        assert_echoes(&net.a, to, 2222);
        assert_silent(&net.a, to, 3333);
        assert_echoes(&net.b, to, 3333);
        assert_silent(&net.b, to, 2222);
        let left = time_left(&net.router, "web", b).expect("a grant");
        assert!(
            left > Duration::from_secs(55) && left <= Duration::from_secs(60),
            "the app's duration: {left:?}"
        );
        home.verb(&net.router, &["revoke", "ssh", &a.to_string()]).success();
        assert_silent(&net.a, to, 2222);
        assert_eq!(time_left(&net.router, "ssh", a), None);
        assert_echoes(&net.b, to, 3333);
    }
    home.grant(&net.router, "ssh", Family::V4.client_a(), 60);
    home.verb(&net.router, &["revoke", "--all", "--app", "web"]).success();
    for family in Family::BOTH {
        assert_silent(&net.b, family.router(), 3333);
    }
    assert_echoes(&net.a, Family::V4.router(), 2222);
    home.verb(&net.router, &["revoke", "--all"]).success();
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_eq!(services_of(&status(&net, &home)).len(), 0);

    // What is left of a longer one, as people say it.
    let for_time = |time: &str| {
        let b = Family::V4.client_b().to_string();
        home.verb(&net.router, &["grant", "web", &b, "--for", time]).success().text()
    };
    for_time("20d");
    let left = for_time("1h");
    assert!(left.contains(" for 19d 23h") || left.contains(" for 20d"), "{left}");

    home.grant(&net.router, "ssh", Family::V4.client_a(), 4);
    let due = Instant::now() + Duration::from_secs(4);
    assert_on_time(when_silent(&net.a, Family::V4.router(), 2222, due + Duration::from_secs(3)), due);
}

fn an_operator_grants_and_revokes_while_the_daemon_runs() {
    grant_and_revoke(true);
}

fn an_operator_grants_and_revokes_without_a_daemon() {
    grant_and_revoke(false);
}

fn a_revocation_cuts_a_running_connection() {
    let (net, home, _agent, _services) = set_up(true);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let stream = crate::probe::dial(&net.a, (to, 2222).into(), Duration::from_secs(3)).unwrap();
    crate::probe::assert_echo(stream.try_clone().unwrap());
    home.verb(&net.router, &["revoke", "ssh", "203.0.113.2"]).success();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    std::io::Write::write_all(&mut &stream, b"anybody").unwrap();
    assert!(std::io::Read::read(&mut &stream, &mut [0; 16]).is_err(), "nothing comes back");
}

fn status_tells_who_is_in_how_and_for_how_long() {
    let (net, home, agent, _services) = set_up(true);
    knock(&net.a, Family::V4.router(), "ssh");
    home.grant(&net.router, "web", Family::V6.client_b(), 30);
    let now = status(&net, &home);
    let services = services_of(&now);
    assert_eq!(services.len(), 2, "{now:#}");
    let of = |address: &str| {
        *services.iter().find(|g| g["address"] == address).unwrap_or_else(|| panic!("{now:#}"))
    };
    let knocked = of("203.0.113.2");
    assert_eq!(knocked["app"], "ssh");
    assert_eq!(knocked["how"], "two-step");
    assert_eq!(knocked["lifetime_s"].as_f64(), Some(60.0));
    assert_eq!(knocked["services"], serde_json::json!([{"protocol": "tcp", "first": 2222, "last": 2222}]));
    let left = knocked["expires_in_s"].as_f64().unwrap();
    let kernel = time_left(&net.router, "ssh", Family::V4.client_a()).unwrap().as_secs_f64();
    assert!((left - kernel).abs() < 1.5, "{left} s told, {kernel} s in the kernel");
    let given = of("2001:db8:1::2".replace("::2", "::3").as_str());
    assert_eq!((given["app"].as_str(), given["how"].as_str()), (Some("web"), Some("operator")));

    let text = home.verb(&net.router, &["status"]).success().text();
    assert!(text.contains("203.0.113.2") && text.contains("ssh") && !text.contains('\x1b'), "{text}");

    agent.unwrap().kill();
    let alone = status(&net, &home);
    let services = services_of(&alone);
    assert_eq!(services.len(), 2, "without the daemon, from the kernel: {alone:#}");
    assert!(
        services.iter().all(|g| g["expires_in_s"].as_f64().is_some_and(|s| s > 0.0 && s <= 60.0)),
        "{alone:#}"
    );
}

fn teardown_without_a_daemon_removes_everything_of_ours_and_nothing_else() {
    let (net, home, _, _services) = set_up(false);
    add_foreign_rule(&net.router);
    assert_silent(&net.a, Family::V4.router(), 2222);
    home.verb(&net.router, &["teardown"]).success();
    assert!(!is_guarded(&net.router));
    assert_open(&net.a, Family::V4.router(), 2222);
    let rest = crate::firewall::everything(&net.router);
    assert!(
        rest.contains("of_the_host") && !["knock_agent", "KA-", "ka_"].iter().any(|word| rest.contains(word)),
        "{rest}"
    );
    home.verb(&net.router, &["teardown"]).success();
}

fn teardown_after_the_daemon_was_stopped_removes_everything() {
    let (net, home, agent, _services) = set_up(true);
    knock(&net.a, Family::V4.router(), "ssh");
    agent.unwrap().terminate();
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(crate::firewall::everything(&net.router).trim(), "");
}

fn operators_who_ask_without_end_keep_nobody_out() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for caller in 0..6_u8 {
            let (home, net, over) = (&home, &net, &over);
            scope.spawn(move || {
                for n in (0..=250_u8).cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    home.verb(&net.router, &["grant", "ssh", &format!("198.51.{caller}.{n}")]);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(30);
        let mut replies = Vec::new();
        let is_in = loop {
            step1(&net.a, Family::V4.router(), "ssh");
            replies.push(step2(&net.a, Family::V4.router(), "ssh").map(|reply| reply.status));
            if replies.last() == Some(&Some(200)) || Instant::now() > end {
                break replies.last() == Some(&Some(200));
            }
        };
        over.store(true, Ordering::Relaxed);
        assert!(is_in, "{replies:?}\n{}", home.log());
    });
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

#[test]
fn what_does_not_exist_cannot_be_granted() {
    let (net, home, _agent, _services) = set_up(true);
    for (words, code) in [
        (&["grant", "nothing", "203.0.113.2"][..], None),
        (&["grant", "ssh", "not-an-address"][..], Some(2)),
        (&["grant", "ssh", "203.0.113.2", "--for", "soon"][..], Some(2)),
        (&["grant", "ssh"][..], Some(2)),
        (&["nonsense"][..], Some(2)),
    ] {
        let done = home.verb(&net.router, words);
        let expected = done.code.is_some_and(|c| code.map_or(c != 0, |code| c == code));
        assert!(expected && !done.stderr.is_empty(), "{done:?}");
    }
    assert_eq!(services_of(&status(&net, &home)).len(), 0);
}

#[test]
fn help_and_version_are_there_for_a_stranger() {
    let net = Topology::new();
    let help = net.a.run(crate::agent::PROGRAM, &["--help"]).success().text();
    for verb in [
        "run",
        "guard",
        "check-config",
        "check-ruleset",
        "status",
        "grant",
        "revoke",
        "allow",
        "teardown",
        "cert",
    ] {
        assert!(help.contains(verb), "{verb} in:\n{help}");
        let more = net.a.run(crate::agent::PROGRAM, &[verb, "--help"]).success().text();
        assert!(more.contains("Usage"), "{more}");
    }
    for name in ["", "a b", "gate:443", "http://gate/"] {
        let refused = net.a.run(
            crate::agent::PROGRAM,
            &["cert", "--name", name, "--cert", "/nowhere/c", "--key", "/nowhere/k"],
        );
        assert!(refused.exits(2).stderr.contains("without port or path"), "{name:?}");
    }
    let version = net.a.run(crate::agent::PROGRAM, &["--version"]).success().text();
    assert_eq!(version.trim(), format!("knock-agent {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn root_s_teardown_makes_no_file_where_somebody_s_link_leads() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let made = home.path("made-by-root");
    std::os::unix::fs::symlink(&made, home.path("run/lock")).unwrap();
    // Whoever took over the daemon answers in its place.
    let listener = std::os::unix::net::UnixListener::bind(home.path("run/control.sock")).unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"{\"reply\":\"done\",\"message\":\"removed\"}\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    assert!(home.verb(&net.router, &["teardown"]).success().text().contains("removed"));
    answering.join().unwrap();
    assert!(!made.exists());
}
