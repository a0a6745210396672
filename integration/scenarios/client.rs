//! `knock-agent knock` against the agent, and against what is not the agent.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::{Config, https_key};
use crate::firewall::time_left;
use crate::knocker::{Knocker, NAME, certify, pin};
use crate::knocking::STEP1_PORT;
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const ALICE: (&str, &str) = ("alice-first-key", "alice-second-key");

fn users(more: &[&str]) -> Config {
    let alice = format!("users: {{alice: {{access_key_http: {}, access_key_https: {}}}}}", ALICE.0, ALICE.1);
    let mut global = vec![alice.as_str()];
    global.extend(more);
    Config::new(&global).app("ssh", "2222", "tcp", "local", &["duration: 60", "max_duration: 90"])
}

#[test]
fn a_name_is_knocked_over_both_of_its_families_and_step_1_is_not_waited_out() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    certify(&home, &[NAME]);
    let _agent = home.start(&net.router);
    let ca = format!("ca: {}", home.path("cert.pem").display());
    let knocker = Knocker::new().profile(NAME, &[&ca, "check: 2222"]);
    let begun = Instant::now();
    let told = knocker.run(&net.a, &["knock", "gate", "--check"]).success().stderr;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(told.contains("IPv4 203.0.113.1: open") && told.contains("IPv6 2001:db8:1::1: open"), "{told}");
    assert!(told.contains("port 2222 can be reached"), "{told}");
    for family in Family::BOTH {
        assert!(time_left(&net.router, "ssh", family.client_a()).is_some(), "{family:?}");
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
    let only = knocker.run(&net.b, &["knock", "-6"]).success().stderr;
    assert!(only.contains("IPv6") && !only.contains("IPv4"), "{only}");
    assert!(time_left(&net.router, "ssh", Family::V4.client_b()).is_none());
}

#[test]
fn a_user_sends_a_proof_and_asks_and_closes() {
    let net = Topology::new();
    let home = Installation::new(&users(&["step1_proof: require_address"]));
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().with_keys("203.0.113.1", ALICE, &["user: alice", &pin(&home)]);
    knocker.run(&net.a, &["knock", "gate", "--for", "20s"]).success();
    let left = time_left(&net.router, "ssh", Family::V4.client_a()).expect("a grant");
    assert!(left <= Duration::from_secs(20), "{left:?}");
    knocker.run(&net.a, &["knock", "gate", "--close"]).success();
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_none());
    assert_silent(&net.a, Family::V4.router(), 2222);
    let key = Knocker::new().with_keys("203.0.113.1", ALICE, &["user: alice", "step1: key", &pin(&home)]);
    // From elsewhere: step 2 may still be open to the first one.
    key.run(&net.b, &["knock", "gate"]).exits(11);
}

#[test]
fn what_failed_is_told_by_the_exit_code() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let pinned = pin(&home);
    let absent = Knocker::new().profile("203.0.113.1", &[&pinned]);
    absent.run(&net.a, &["knock", "gate"]).exits(10);
    Knocker::new().profile("no-such-host.invalid", &[&pinned]).run(&net.a, &["knock"]).exits(10);
    let _agent = home.start(&net.router);
    let keys = |one: &str, two: &str| Knocker::new().with_keys("203.0.113.1", (one, two), &[&pinned]);
    let wrong1 = keys("not-the-first-key", &https_key("ssh")).run(&net.a, &["knock"]).exits(11);
    assert!(!wrong1.stderr.contains("not-the-first-key"), "{}", wrong1.stderr);
    let wrong2 = keys(&crate::configuration::http_key("ssh"), "not-the-second-key");
    wrong2.run(&net.a, &["knock"]).exits(13);
    absent.run(&net.b, &["knock", "--app", "vpn"]).exits(11);
    absent.run(&net.a, &["knock", "gate", "--wait=1s", "--port", "2222"]).exits(1);
}

#[test]
fn a_certificate_that_is_not_the_right_one_gets_no_key() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    certify(&home, &["other.test"]);
    let _agent = home.start(&net.router);
    let ca = format!("ca: {}", home.path("cert.pem").display());
    let wrong = format!("pin: {}", "ab".repeat(32));
    for trust in [ca.as_str(), &wrong, ""] {
        let knocker = Knocker::new().profile(NAME, &[trust]);
        let told = knocker.run(&net.a, &["knock", "gate"]).exits(12).stderr;
        assert!(told.contains("not trusted"), "{trust}: {told}");
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_none());
    }
    Knocker::new().profile(NAME, &[&pin(&home)]).run(&net.a, &["knock", "gate"]).success();
}

#[test]
fn a_server_that_takes_connections_and_says_nothing_is_given_up() {
    let net = Topology::new();
    let listen = |port| net.router.enter(|| TcpListener::bind(("0.0.0.0", port))).unwrap();
    let _open = (listen(8080), listen(8443));
    let knocker = Knocker::new().profile("203.0.113.1", &[&format!("pin: {}", "ab".repeat(32))]);
    let begun = Instant::now();
    knocker.run(&net.a, &["knock", "gate"]).exits(16);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn of_a_server_that_speaks_no_tls_just_that_is_said() {
    let net = Topology::new();
    let listen = |port| net.router.enter(|| TcpListener::bind(("0.0.0.0", port))).unwrap();
    let (_step1, step2) = (listen(8080), listen(8443));
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = step2.accept() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    let knocker = Knocker::new().profile("203.0.113.1", &[&format!("pin: {}", "ab".repeat(32))]);
    let told = knocker.run(&net.a, &["knock", "gate"]).exits(16).stderr;
    assert!(told.contains("not TLS") && told.contains("https_port"), "{told}");
}

#[test]
fn a_slow_gateway_is_waited_for() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let agent = home.start(&net.router);
    let knocker = Knocker::new().profile("203.0.113.1", &[&pin(&home)]);
    let stopped = nix::unistd::Pid::from_raw(agent.pid().cast_signed());
    nix::sys::signal::kill(stopped, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let mut knocking = knocker.start(&net.a, &["knock", "gate"]);
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(knocking.is_alive(), "{}", knocker.log());
    nix::sys::signal::kill(stopped, nix::sys::signal::Signal::SIGCONT).unwrap();
    let status = crate::process::wait(&mut knocking.0, Duration::from_secs(30)).expect("an end");
    assert_eq!(status.code(), Some(0), "{}", knocker.log());
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
}

#[test]
fn secrets_are_taken_from_no_command_line_and_no_open_file() {
    let net = Topology::new();
    let knocker = Knocker::new().profile("203.0.113.1", &[]);
    for words in [
        &["knock", "gate", "--access-key", "my-secret-key"][..],
        &["knock", "gate", "--key=my-secret-key"],
        &["knock", "gate", "--token", "918273"],
        &["connect", "gate", "x", "22", "--password=my-secret-key"],
    ] {
        let told = knocker.run(&net.a, words).exits(2).stderr;
        assert!(
            told.contains("profile") && !told.contains("my-secret") && !told.contains("918273"),
            "{told}"
        );
    }
    let profile = knocker.home().path().join(".config/knock-agent/gate.yaml");
    for (file, mode) in [("key1", 0o644), ("key2", 0o640), (".config/knock-agent/gate.yaml", 0o604)] {
        let path = knocker.home().path().join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let told = knocker.run(&net.a, &["knock", "gate"]).exits(78).stderr;
        assert!(told.contains("chmod 600") && told.contains(path.to_str().unwrap()), "{told}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    fs::write(&profile, "host: x\nhtpp_port: 80\n").unwrap();
    let told = knocker.run(&net.a, &["knock", "gate"]).exits(78).stderr;
    assert!(told.contains("gate.yaml:2:1: error: htpp_port"), "{told}");
    let told = knocker.run(&net.a, &["knock", "office"]).exits(78).stderr;
    assert!(told.contains("there are gate"), "{told}");
}

#[test]
fn a_program_is_started_afterwards_and_its_exit_code_is_ours() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile("203.0.113.1", &[&pin(&home)]);
    let done =
        knocker.run(&net.a, &["knock", "gate", "--then", "sh", "-c", "echo \"$0\"; exit 7", "a b"]).exits(7);
    assert_eq!(done.text(), "a b\n");
    knocker
        .run(&net.a, &["knock", "gate", "--watch", "--for", "9s", "--then", "sh", "-c", "exit 5"])
        .exits(5);
    let watch = ["knock", "gate", "--watch", "--for", "9s", "--then", "cat", "/proc/self/status"];
    let status = knocker.run(&net.a, &watch).success().text();
    assert!(status.contains("\nSigBlk:\t0000000000000000\n"), "it can be ended by signals: {status}");
}

#[test]
fn a_program_that_runs_meanwhile_can_tidy_up_when_watching_is_ended() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile("203.0.113.1", &[&pin(&home)]);
    let program = "trap 'echo tidied up; exit' TERM; echo begun; while :; do sleep 0.1; done";
    let mut watch =
        knocker.start(&net.a, &["knock", "gate", "--watch", "--for", "60s", "--then", "sh", "-c", program]);
    let end = Instant::now() + Duration::from_secs(20);
    while !knocker.log().contains("begun") {
        assert!(Instant::now() < end, "{}", knocker.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let own = watch.0.id().cast_signed();
    let is_client = fs::read_to_string(format!("/proc/{own}/comm")).unwrap().starts_with("knock-agent");
    let pid = if is_client { own } else { pid_of(&watch) };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(crate::process::wait(&mut watch.0, Duration::from_secs(10)).is_some(), "{}", knocker.log());
    assert!(knocker.log().contains("tidied up"), "{}", knocker.log());
}

#[test]
fn watching_renews_within_what_the_gateway_allows_follows_a_change_of_address_and_ends_with_a_signal() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let text = users(&[])
        .text()
        .replace("duration: 60", "duration: 8")
        .replace("max_duration: 90", "max_duration: 8");
    let home = Installation::with_text(&text);
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().with_keys("203.0.113.1", ALICE, &["user: alice", &pin(&home)]);
    let mut watch = knocker.start(&net.a, &["knock", "gate", "--watch", "--for", "1h"]);
    let until = |what: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(30);
        while !what() {
            assert!(Instant::now() < end, "{}", knocker.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    until(&|| time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
    let pid = pid_of(&watch);
    let seen: String = ["cmdline", "environ"]
        .map(|file| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned())
        .concat();
    assert!(seen.contains("--watch"), "{seen}");
    for secret in [ALICE.0, ALICE.1, crate::configuration::STEP1_PATH] {
        assert!(!seen.contains(secret) && !knocker.log().contains(secret), "{secret}");
    }
    std::thread::sleep(Duration::from_secs(10));
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some(), "renewed: {}", knocker.log());
    assert!(knocker.log().contains("open for 8s, the gateway allows no more"), "{}", knocker.log());
    net.a.run("ip", &["addr", "del", "203.0.113.2/24", "dev", "eth0"]).success();
    net.a.run("ip", &["addr", "add", "203.0.113.22/24", "dev", "eth0"]).success();
    let moved = "203.0.113.22".parse().unwrap();
    until(&|| time_left(&net.router, "ssh", moved).is_some());
    assert_echoes(&net.a, Family::V4.router(), 2222);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = crate::process::wait(&mut watch.0, Duration::from_secs(20)).expect("an end");
    assert_eq!(status.code(), Some(0), "{}", knocker.log());
    assert!(knocker.log().contains("ended"), "{}", knocker.log());
}

#[test]
fn watching_keeps_one_family_open_however_long_the_other_one_takes_to_fail() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 20"]));
    let _agent = home.start(&net.router);
    let silent = format!("add rule inet silent out meta nfproto ipv6 tcp dport {STEP1_PORT} drop");
    let rules = format!(
        "add table inet silent; add chain inet silent out {{ type filter hook output priority 0; }}; {silent}"
    );
    net.a.run("nft", &[&rules]).success();
    let knocker = Knocker::new().profile(NAME, &[&pin(&home)]);
    let _watch = knocker.start(&net.a, &["knock", "gate", "--watch"]);
    let is_open = || time_left(&net.router, "ssh", Family::V4.client_a()).is_some();
    let (mut end, mut was_open) = (Instant::now() + Duration::from_secs(30), false);
    while Instant::now() < end {
        match (was_open, is_open()) {
            (false, true) => (was_open, end) = (true, Instant::now() + Duration::from_secs(35)),
            (true, false) => panic!("it was not renewed in time\n{}", knocker.log()),
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(was_open, "{}", knocker.log());
    assert!(knocker.log().matches("IPv6").count() > 1, "{}", knocker.log());
}

#[test]
fn watching_looks_a_name_up_for_a_knock_only() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile(NAME, &[&pin(&home)]);
    let _watch = knocker.start(&net.a, &["knock", "gate", "--watch", "--for", "60s"]);
    let end = Instant::now() + Duration::from_secs(30);
    while !Family::BOTH.iter().all(|family| time_left(&net.router, "ssh", family.client_a()).is_some()) {
        assert!(Instant::now() < end, "{}", knocker.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    // Whoever asked now would find another way.
    knocker.home().write("hosts", format!("127.0.0.1 {NAME}\n"));
    std::thread::sleep(Duration::from_secs(6));
    assert!(!knocker.log().contains("network has changed"), "{}", knocker.log());
    // The kernel is asked as before.
    net.a.run("ip", &["addr", "del", "203.0.113.2/24", "dev", "eth0"]).success();
    net.a.run("ip", &["addr", "add", "203.0.113.22/24", "dev", "eth0"]).success();
    while !knocker.log().contains("network has changed") {
        assert!(Instant::now() < end, "{}", knocker.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A name whose first address of IPv4 is that of a host that is no gateway.
fn two_hosts(knocker: &Knocker) {
    let hosts = format!("127.0.0.1 localhost\n203.0.113.3 {NAME}\n203.0.113.1 {NAME}\n");
    knocker.home().write("hosts", hosts);
}

#[test]
fn where_nothing_listens_at_one_address_the_next_is_knocked_with_the_same_code() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let seed = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
    let home = Installation::with_text("");
    let name = format!("2fa/{}.json", crate::configuration::http_key("ssh"));
    home.folder().write(&name, format!("{{\"secret\": \"{seed}\", \"interval\": 30}}"));
    let folder = format!("2fa_config_folder: \"{}\"", home.path("2fa").display());
    let config = Config::new(&[&folder]);
    home.rewrite_config(
        config.app("ssh", "2222", "tcp", "local", &["2fa_step: http", "duration: 60"]).text(),
    );
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile(NAME, &[&pin(&home), "2fa_step: http", "check: 2222"]);
    two_hosts(&knocker);
    // Nobody is asked twice.
    let code = net.a.run("oathtool", &["--totp", "-b", seed]).success().text();
    let knocked = knocker.feed(&net.a, &["knock", "gate", "--check"], code.as_bytes()).success();
    assert!(knocked.stderr.contains("nothing answers at 203.0.113.3:8080"), "{}", knocked.stderr);
    assert!(knocked.stderr.contains("IPv4 203.0.113.1: open"), "{}", knocked.stderr);
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
    let connected = knocker.feed(&net.a, &["connect", "gate", NAME, "2222"], b"hello\n").success();
    assert_eq!(connected.text(), "hello\n");
}

#[test]
fn where_step_1_was_sent_nobody_else_gets_it() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile(NAME, &[&pin(&home)]);
    two_hosts(&knocker);
    let _other = net.b.enter(|| TcpListener::bind(("0.0.0.0", 8080))).unwrap();
    let told = knocker.run(&net.a, &["knock", "gate"]).exits(11).stderr;
    assert!(told.contains("203.0.113.3:8443") && !told.contains("203.0.113.1"), "{told}");
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_none());
}

#[test]
fn for_a_certificate_that_is_an_authority_s_it_is_said_what_helps() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let (cert, key) = (home.path("cert.pem"), home.path("key.pem"));
    let mut command = std::process::Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "9",
    ]);
    command.args(["-subj", "/CN=gate.test", "-addext", &format!("subjectAltName=DNS:{NAME}")]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&cert);
    crate::process::finish(command, b"", Duration::from_secs(20)).success();
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile(NAME, &[&format!("ca: {}", cert.display())]);
    let told = knocker.run(&net.a, &["knock", "gate", "-4"]).exits(12).stderr;
    assert!(told.contains("`pin:`") && told.contains("CA:TRUE") && !told.contains("Other"), "{told}");
    Knocker::new().profile(NAME, &[&pin(&home)]).run(&net.a, &["knock", "gate", "-4"]).success();
}

/// The client itself: everything before it in its command line was replaced by it, but setsid may have forked.
fn pid_of(started: &crate::process::Background) -> i32 {
    let own = started.0.id();
    let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    children.split_whitespace().next().map_or(own.cast_signed(), |child| child.parse().unwrap())
}
