//! What was open before the guard started lives on, and opens nothing new.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::agent::Installation;
use crate::backend::{Backend, on_every_firewall};
use crate::configuration::Config;
use crate::firewall::{Element, elements, everything, flush_host, is_guarded, table};
use crate::namespace::Namespace;
use crate::probe::{
    GENEROUS, assert_echo, assert_echoes, assert_silent, assert_udp_open, assert_udp_silent, dial,
    dial_from_port, udp_echoes_from,
};
use crate::process::{Background, wait};
use crate::server::{Habit, Server, last_piece};
use crate::topology::{Family, Topology};

on_every_firewall! {
    connections_of_before_live_on_over_ipv4,
    connections_of_before_live_on_over_ipv6,
    connections_of_before_live_on_where_the_guard_comes_before_the_daemon,
    forwarded_connections_and_udp_live_on_as_far_as_they_are_tracked,
    connections_by_an_interface_that_becomes_outside_live_on,
    what_was_cut_stays_so_when_its_interface_has_another_name,
}

/// The flows of before, each by its client's end.
fn adopted(host: &Namespace, digit: char) -> Vec<Element> {
    let stem = if Backend::current().is_iptables() { "flow_from" } else { "adopted" };
    elements(host, &format!("{stem}_{digit}"))
}

fn echoes(stream: &TcpStream) {
    assert_echo(stream.try_clone().unwrap());
}

/// Whether pieces still come; looks thrice, because a busy machine may pause for long.
fn still_comes(stream: &TcpStream) -> bool {
    let mut stream = stream.try_clone().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    (0..3).any(|_| {
        let begin = Instant::now();
        // What waited in buffers is read first.
        let last = last_piece(|piece| stream.read(piece), begin + Duration::from_secs(4));
        last.is_some_and(|last| last > begin + Duration::from_secs(3))
    })
}

/// Closes with a RST, so that the client's port is free at once.
fn abort(stream: TcpStream) -> SocketAddr {
    let local = stream.local_addr().unwrap();
    setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(stream);
    local
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(50));
    }
}

fn connections_by_an_interface_that_becomes_outside_live_on() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let of_ext0 = Config::ssh(&[]);
    let home = Installation::new(&of_ext0);
    let agent = home.start(&net.router);
    let to = "10.0.0.1".parse().unwrap();
    let stream = dial(&net.lan, (to, 2222).into(), GENEROUS).unwrap();
    echoes(&stream);
    let both = of_ext0
        .text()
        .replace("interface_ext: ext0\n  interface_int: int0\n", "interface_ext: [ext0, int0]\n");
    home.rewrite_config(&both);
    let checked = home.check(&net.router, &["check-ruleset"]).text();
    assert!(checked.contains("[lockout]") && checked.contains("10.0.0.5:"), "{checked}");
    assert!(!agent.reload().contains("refused"));
    echoes(&stream);
    assert_silent(&net.lan, to, 2222);
    drop(agent);
    let _agent = home.start(&net.router);
    echoes(&stream);
}

fn what_was_cut_stays_so_when_its_interface_has_another_name() {
    let net = Topology::new();
    let to = Family::V4.router();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let of_ext0 = Config::ssh(&["duration: 600"]);
    let home = Installation::new(&of_ext0);
    let agent = home.start(&net.router);
    let client = Family::V4.client_a();
    home.grant(&net.router, "ssh", client, 600);
    let cut = dial(&net.a, (to, 2222).into(), GENEROUS).unwrap();
    echoes(&cut);
    home.verb(&net.router, &["revoke", "ssh", &client.to_string()]).success();
    let rename = |from: &str, to: &str| {
        let batch = format!("link set {from} down\nlink set {from} name {to}\nlink set {to} up\n");
        net.router.feed("ip", &["-batch", "-"], batch.as_bytes()).success();
    };
    rename("ext0", "wan0");
    home.rewrite_config(&of_ext0.text().replace("interface_ext: ext0", "interface_ext: wan0"));
    let checked = home.check(&net.router, &["check-ruleset"]).text();
    assert!(checked.contains("with a grant that is over: 203.0.113.2:"), "{checked}");
    assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    assert_eq!(adopted(&net.router, '4').len(), 0, "{}", home.log());
    agent.terminate();
    rename("wan0", "ext0");
    home.rewrite_config(of_ext0.text());
    let _agent = home.start(&net.router);
    assert_eq!(adopted(&net.router, '4').len(), 0, "{}", home.log());
    cut.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let _ = (&cut).write_all(b"x");
    assert!((&cut).read(&mut [0; 1]).is_err(), "it goes on");
}

fn lives_on(family: Family) {
    let net = Topology::new();
    let (to, digit) = (family.router(), family.digit());
    let _services =
        [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 2223, Habit::Push)];
    let stream = dial(&net.a, (to, 2222).into(), GENEROUS).unwrap();
    let pushed = dial(&net.a, (to, 2223).into(), GENEROUS).unwrap();
    echoes(&stream);
    let config = Config::new(&[]).app("ssh", "[2222, 2223]", "tcp", "local", &["duration: 600"]);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    // One that only the service talks on, and one that both do.
    assert!(still_comes(&pushed), "{}", home.log());
    echoes(&stream);
    assert_silent(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
    assert_eq!(adopted(&net.router, digit).len(), 2);
    // A second start changes nothing, and adopts nothing more.
    let before = table(&net.router);
    agent.kill();
    let agent = home.start(&net.router);
    assert_eq!(table(&net.router), before);
    agent.reload();
    echoes(&stream);
    // A repair brings them back.
    flush_host(&net.router);
    eventually("the guard comes back", || is_guarded(&net.router));
    eventually("they come back", || adopted(&net.router, digit).len() == 2);
    echoes(&stream);
    assert!(still_comes(&pushed));
    // When it is over, the same ends do not open it again.
    let ended = abort(stream);
    assert!(dial_from_port(&net.a, ended, (to, 2222).into()).is_err(), "a new connection from the same port");
    let left = adopted(&net.router, digit);
    let soon = |e: &&Element| e.expires.unwrap() <= Duration::from_secs(300);
    assert_eq!(left.iter().filter(soon).count(), 1, "the one that ended: {left:?}");
    // Nor does what is left of it let anybody else in.
    assert_silent(&net.b, to, 2222);
    home.verb(&net.router, &["revoke", "--all"]).success();
    assert!(!still_comes(&pushed), "a revocation of everything ends it");
}

fn connections_of_before_live_on_over_ipv4() {
    lives_on(Family::V4);
}

fn connections_of_before_live_on_over_ipv6() {
    lives_on(Family::V6);
}

fn connections_of_before_live_on_where_the_guard_comes_before_the_daemon() {
    let net = Topology::new();
    let (to, digit) = (Family::V4.router(), Family::V4.digit());
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let stream = dial(&net.a, (to, 2222).into(), GENEROUS).unwrap();
    echoes(&stream);
    let home = Installation::new(&Config::new(&[]).app("ssh", "2222", "tcp", "local", &[]));
    let done = home.guard(&net.router).success();
    assert!(done.stderr.contains("it lives on until it ends"), "{}", done.stderr);
    echoes(&stream);
    assert_silent(&net.a, to, 2222);
    let _agent = home.start(&net.router);
    echoes(&stream);
    assert_silent(&net.a, to, 2222);
    assert_eq!(adopted(&net.router, digit).len(), 1);
}

#[test]
fn connections_of_before_are_cut_where_they_are_not_adopted() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Push);
    let stream = dial(&net.a, (Family::V4.router(), 2222).into(), GENEROUS).unwrap();
    let config = Config::new(&["adopt_established: false"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    assert!(!still_comes(&stream));
    assert!(home.log().contains("it is cut"), "{}", home.log());
}

fn forwarded_connections_and_udp_live_on_as_far_as_they_are_tracked() {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.lan, 22, Habit::Echo),
        Server::udp(&net.lan, 5555, Habit::Echo),
        Server::udp(&net.router, 5353, Habit::Echo),
    ];
    // What an operator had before: forwarding by rules of his own.
    net.router.nft(
        "table ip theirs {\n\
         chain pre { type nat hook prerouting priority -100\n tcp dport 2222 dnat to 10.0.0.5:22\n }\n\
         chain in { type filter hook input priority 0\n ct state established accept\n }\n}\n\
         table ip6 theirs {\nchain in { type filter hook input priority 0\n ct state established accept\n }\n}",
    );
    let (four, six) = (Family::V4, Family::V6);
    let translated = dial(&net.a, (four.router(), 2222).into(), GENEROUS).unwrap();
    let routed = dial(&net.a, (six.lan(), 22).into(), GENEROUS).unwrap();
    echoes(&translated);
    echoes(&routed);
    assert!(udp_echoes_from(&net.a, 4444, four.router(), 5353, GENEROUS));
    assert!(udp_echoes_from(&net.a, 4445, six.lan(), 5555, GENEROUS));
    let config = Config::new(&[])
        .app("tcp4", "2222", "tcp", "10.0.0.5:22", &["duration: 600"])
        .app("tcp6", "2222", "tcp", "\"[fd00:5::5]:22\"", &["duration: 600"])
        .app("udp6", "5555", "udp", "\"fd00:5::5\"", &["duration: 600"])
        .app("dns", "5353", "udp", "local", &["duration: 600"]);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    echoes(&translated);
    echoes(&routed);
    assert!(udp_echoes_from(&net.a, 4444, four.router(), 5353, GENEROUS));
    assert!(udp_echoes_from(&net.a, 4445, six.lan(), 5555, GENEROUS));
    assert_udp_silent(&net.a, four.router(), 5353);
    assert_udp_silent(&net.b, six.lan(), 5555);
    assert_silent(&net.a, four.router(), 2222);
    assert_silent(&net.a, six.lan(), 22);
    assert_silent(&net.a, four.lan(), 22);
    // A restart adopts nothing that needed a grant.
    let known = || ['4', '6'].map(|digit| adopted(&net.router, digit).len());
    let before = known();
    home.grant(&net.router, "tcp4", four.client_b(), 600);
    let granted = dial(&net.b, (four.router(), 2222).into(), GENEROUS).unwrap();
    echoes(&granted);
    agent.kill();
    let _agent = home.start(&net.router);
    assert_eq!(known(), before, "{}", home.log());
    echoes(&granted);
    echoes(&translated);
    for (stream, to) in [(translated, (four.router(), 2222)), (routed, (six.lan(), 22))] {
        let ended = abort(stream);
        assert!(dial_from_port(&net.a, ended, to.into()).is_err());
    }
}

#[test]
fn a_connection_between_hosts_of_the_inside_is_nobody_s_risk() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let inside = dial(&net.lan, "10.0.0.1:2222".parse().unwrap(), GENEROUS).unwrap();
    let home = Installation::new(&Config::ssh(&[]));
    let report = home.check(&net.router, &["check-ruleset", "--json"]).text();
    assert!(!report.contains("\"lockout\""), "{report}");
    let outside = dial(&net.a, (Family::V4.router(), 2222).into(), GENEROUS).unwrap();
    let report = home.check(&net.router, &["check-ruleset", "--json"]).text();
    let port = outside.local_addr().unwrap().port();
    assert!(
        report.contains("\"lockout\"")
            && report.contains(&format!("203.0.113.2:{port} -> tcp port 2222 (ssh)"))
    );
    let _agent = home.start(&net.router);
    echoes(&inside);
    assert_eq!(elements(&net.router, "adopted_4").len(), 1);
    let report = home.check(&net.router, &["check-ruleset", "--json"]).text();
    assert!(!report.contains("\"lockout\""), "it is guarded already: {report}");
}

#[test]
fn what_a_reload_adopted_outlasts_a_flush_and_what_the_table_lost_is_not_adopted() {
    let net = Topology::new();
    let to = Family::V4.router();
    let _services =
        [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 3333, Habit::Echo)];
    let home = Installation::new(&Config::ssh(&["duration: 600"]));
    let agent = home.start(&net.router);
    let stream = dial(&net.a, (to, 3333).into(), GENEROUS).unwrap();
    echoes(&stream);
    home.rewrite_config(Config::ssh(&["duration: 600"]).app("web", "3333", "tcp", "local", &[]).text());
    agent.reload();
    echoes(&stream);
    net.router.run("nft", &["flush", "ruleset"]).success();
    eventually("the guard comes back", || is_guarded(&net.router));
    echoes(&stream);

    // Where another program keeps flushing, repairs wait; a reload meanwhile takes nothing that is missing for new.
    home.grant(&net.router, "ssh", Family::V4.client_a(), 300);
    for flushed in 0.. {
        assert!(flushed < 60, "repairs never wait");
        net.router.run("nft", &["flush", "ruleset"]).success();
        sleep(Duration::from_millis(300));
        if !is_guarded(&net.router) {
            break;
        }
    }
    let stranger = dial(&net.b, (to, 2222).into(), GENEROUS).unwrap();
    agent.reload();
    assert_eq!(elements(&net.router, "adopted_4").len(), 1, "only the one that was adopted before");
    assert_eq!(elements(&net.router, "app_ssh_4").len(), 1, "the grant goes on");
    drop(stranger);
    agent.terminate();
}

#[test]
fn a_reload_adopts_what_is_open_to_ports_that_it_guards() {
    let net = Topology::new();
    let _services =
        [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 3333, Habit::Echo)];
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let stream = dial(&net.a, (Family::V4.router(), 3333).into(), GENEROUS).unwrap();
    home.rewrite_config(Config::ssh(&[]).app("more", "3333", "tcp", "local", &[]).text());
    agent.reload();
    assert_silent(&net.a, Family::V4.router(), 3333);
    echoes(&stream);
}

/// Runs a command on a pseudo-terminal, answers `argv[1]` to a question, and ends it when told to end.
const TERMINAL: &str = r#"
import os, pty, signal, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
said = b""
asked = False
while True:
    try:
        piece = os.read(fd, 4096)
    except OSError:
        break
    if not piece:
        break
    said += piece
    os.write(1, piece)
    if not asked and b"[y/N]" in said:
        asked = True
        os.write(fd, sys.argv[1].encode() + b"\n")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

struct Terminal {
    process: Background,
    out: std::thread::JoinHandle<String>,
}

impl Terminal {
    fn run(home: &Installation, host: &Namespace, answer: &str, more: &[&str], ssh: Option<&str>) -> Self {
        let run = home.run_command();
        let mut command = Command::new("python3");
        command.args(["-c", TERMINAL, answer, "setpriv", "--pdeathsig", "TERM"]);
        command.arg(run.get_program()).args(run.get_args()).args(more);
        if let Some(session) = ssh {
            command.env("SSH_CONNECTION", session);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = host.background(command);
        let mut stdout = process.0.stdout.take().unwrap();
        let out = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { process, out }
    }

    /// Waits for its end: the exit code and all it said.
    fn end(mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.process.0, Duration::from_secs(30)).expect("it ends");
        (status.code(), self.out.join().unwrap())
    }

    fn terminate(self) -> (Option<i32>, String) {
        self.process.signal(Signal::SIGTERM);
        self.end()
    }
}

#[test]
fn on_a_terminal_it_asks_before_it_locks_anybody_out() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    // Nobody is connected: there is nothing to ask.
    let quiet = Terminal::run(&home, &net.router, "n", &[], None);
    eventually("it guards", || home.path("run").join("control.sock").exists());
    let (code, said) = quiet.terminate();
    assert!(code == Some(0) && !said.contains("[y/N]"), "{code:?} {said}");
    home.verb(&net.router, &["teardown"]).success();

    let own = dial(&net.a, (Family::V4.router(), 2222).into(), GENEROUS).unwrap();
    let six = dial(&net.b, (Family::V6.router(), 2222).into(), GENEROUS).unwrap();
    let port = own.local_addr().unwrap().port();
    let session = format!("203.0.113.2 {port} 203.0.113.1 2222");
    let before = everything(&net.router);
    for answer in ["n", "", "yesss"] {
        let (code, said) = Terminal::run(&home, &net.router, answer, &[], Some(&session)).end();
        assert_eq!(code, Some(1), "{said}");
        let line = said.lines().find(|line| line.contains(&format!("203.0.113.2:{port}"))).unwrap();
        assert!(
            line.contains("tcp 2222") && line.contains("ssh") && line.contains("your own session"),
            "{said}"
        );
        let other = format!("[2001:db8:1::3]:{}", six.local_addr().unwrap().port());
        let line = said.lines().find(|line| line.contains(&other)).unwrap();
        assert!(!line.contains("your own"), "{said}");
        assert!(said.contains("nothing was changed"));
        assert_eq!(everything(&net.router), before);
    }
    for (answer, more) in [("y", &[][..]), ("n", &["--yes"][..])] {
        let agreed = Terminal::run(&home, &net.router, answer, more, Some(&session));
        eventually("it guards", || home.path("run").join("control.sock").exists());
        echoes(&own);
        echoes(&six);
        assert_silent(&net.a, Family::V4.router(), 2222);
        let (code, said) = agreed.terminate();
        assert_eq!((code, said.contains("[y/N]")), (Some(0), more.is_empty()), "{said}");
        home.verb(&net.router, &["teardown"]).success();
    }
    assert_echoes(&net.b, Family::V4.router(), 2222);
}

#[test]
fn ask_shows_the_rules_and_changes_nothing_without_a_yes() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let before = everything(&net.router);
    let (code, said) = Terminal::run(&home, &net.router, "n", &["--ask"], None).end();
    assert!(code == Some(1) && said.contains("chain svc_tcp_2222"), "{said}");
    assert_eq!(everything(&net.router), before);
    let vain = Installation::new(&Config::ssh(&[])).flags(&["--ask"]).run_in_vain(&net.router).exits(2);
    assert!(vain.stderr.contains("--ask needs a terminal"), "{}", vain.stderr);
    assert_eq!(everything(&net.router), before);
    let agreed = Terminal::run(&home, &net.router, "y", &["--ask"], None);
    eventually("it guards", || home.path("run").join("control.sock").exists());
    assert_eq!(agreed.terminate().0, Some(0));
    // With a guard in place it shows what would change.
    home.rewrite_config(Config::ssh(&[]).app("more", "3333", "udp", "local", &[]).text());
    let (code, said) = Terminal::run(&home, &net.router, "n", &["--ask"], None).end();
    assert!(code == Some(1) && said.contains("add chain svc_udp_3333"), "{said}");
    assert!(!table(&net.router).contains("svc_udp_3333"));
    assert_udp_open_nowhere(&net);
}

/// The port of the refused change is as it was: nobody listens, and nothing is dropped.
fn assert_udp_open_nowhere(net: &Topology) {
    let _service = Server::udp(&net.router, 3333, Habit::Echo);
    assert_udp_open(&net.a, Family::V4.router(), 3333);
}
