//! Knocks that change with time: who gets in, once, and for how long they are right.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use knock_agent::units::{
    Knock, KnockKind, KnockSecret, KnockShape, Lifetime, Protocol, Secret, knocks, step_at,
};
use nix::sys::signal::Signal;

use crate::agent::{Installation, PROGRAM};
use crate::configuration::Config;
use crate::firewall::{elements, flush_host, is_guarded, table};
use crate::knocks::{knock_at, once};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_open, assert_silent};
use crate::server::{Habit, Server};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

const ALICE: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const BOB: &str = "MZXW6YTBOJRGC6RRGIZTINJWG44DSMBR";
/// Alice's, which is no part of a number that a log may have.
const PIN: &str = "8-26-40-19";
pub(super) const CAROL: &str = "KRUGKIDROVUWG2ZAMJZG653OEBTG66BA";
const LIMIT: Duration = Duration::from_secs(60);
pub(super) const TO: Family = Family::V4;

/// A gateway whose clients have files of their own.
pub(super) struct Home {
    clients: TempDir,
    pub(super) home: Installation,
    every: u64,
    kind: KnockKind,
    protocol: Protocol,
}

impl Home {
    pub(super) fn new(every: u64, more: &str, app: &[&str]) -> Self {
        let clients = TempDir::new();
        let section = format!("time_sequence: {{clients: {}, {more}}}", clients.path().display());
        let home = Installation::new(&Config::new(&[&section]).app("ssh", "2222", "tcp", "local", app));
        let kind = if more.contains("knock-knock") { KnockKind::KnockKnock } else { KnockKind::Secret };
        let protocol = if more.contains("tcp") { Protocol::Tcp } else { Protocol::Udp };
        let home = Self { clients, home, every, kind, protocol };
        home.client("alice", ALICE, &format!("pin: \"{PIN}\"\n"));
        home.client("bob", BOB, "");
        home
    }

    pub(super) fn every(secs: u64) -> Self {
        Self::new(secs, &format!("every: {secs}"), &["duration: 3600", "sequence: {knocks: [1234, 5678]}"])
    }

    /// With another installation of the same.
    pub(super) fn with(self, change: impl FnOnce(Installation) -> Installation) -> Self {
        Self { home: change(self.home), ..self }
    }

    pub(super) fn client(&self, name: &str, secret: &str, more: &str) {
        let knocks = if more.contains("knocks: ") { "" } else { "knocks: 4\n" };
        let text = format!("app: ssh\nsecret: {secret}\n{knocks}{more}");
        self.clients.write(&format!("{name}.yaml"), text);
    }

    pub(super) fn rename(&self, name: &str, other: &str) {
        let file = |name| self.clients.path().join(format!("{name}.yaml"));
        fs::rename(file(name), file(other)).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.clients.path().join(format!("{name}.yaml"))).unwrap();
    }

    pub(super) fn step(&self) -> u64 {
        step_at(SystemTime::now(), Lifetime::from_secs(self.every).unwrap())
    }

    /// The present time step, of which so much is left.
    pub(super) fn step_with(&self, left: u64) -> u64 {
        let end = Instant::now() + LIMIT;
        loop {
            let secs = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            if self.every - secs % self.every >= left {
                return self.step();
            }
            assert!(Instant::now() < end);
            sleep(Duration::from_millis(100));
        }
    }

    fn path(&self, secret: &str, pin: Option<&str>, step: u64) -> Vec<Knock> {
        let secret = KnockSecret::from_base32(secret).unwrap();
        let pin = pin.map(|pin| Secret::new(pin.to_owned()));
        let (ports, lengths) = ("20000-31999".parse().unwrap(), false);
        let (kind, protocol) = (self.kind, self.protocol);
        knocks(&secret, pin.as_ref(), step, &KnockShape { kind, count: 4, ports, protocol, lengths })
    }

    pub(super) fn alice(&self, step: u64) -> String {
        text(&self.path(ALICE, Some(PIN), step))
    }

    pub(super) fn carol(&self, step: u64) -> String {
        text(&self.path(CAROL, None, step))
    }

    pub(super) fn bob(&self, step: u64) -> String {
        text(&self.path(BOB, None, step))
    }
}

fn text(knocks: &[Knock]) -> String {
    knocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whose grants the kernel has.
pub(super) fn granted(host: &Namespace) -> Vec<String> {
    ["seq_ssh_4", "seq_ssh_6"].iter().flat_map(|set| elements(host, set)).map(|element| element.key).collect()
}

pub(super) fn forget(home: &Home, host: &Namespace) {
    home.home.verb(host, &["revoke", "--all", "--app", "ssh"]).success();
    assert_eq!(granted(host), [""; 0]);
}

#[track_caller]
pub(super) fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(50));
    }
}

/// Waits until the daemon has filled the maps.
#[track_caller]
pub(super) fn filled(host: &Namespace) {
    until("the maps are filled", || listed(host, "set", "knock_spent").contains("0xffffffff"));
}

pub(super) fn listed(host: &Namespace, kind: &str, name: &str) -> String {
    host.run("nft", &["list", kind, "inet", "knock_agent", name]).text()
}

#[test]
fn knocks_of_the_steps_beside_the_present_one_open_once_for_one_address() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Home::every(30);
    let agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    filled(host);
    assert_silent(&net.a, to, 2222);
    let now = home.step_with(20);
    // Too early, too late, without the PIN, and in a wrong order.
    for wrong in [home.bob(now - 2), home.bob(now + 2), text(&home.path(ALICE, None, now))] {
        knock_at(&net.b, to, &wrong);
    }
    let mut turned = home.path(BOB, None, now);
    turned.swap(1, 2);
    knock_at(&net.b, to, &text(&turned));
    assert_eq!(granted(host), [""; 0]);
    knock_at(&net.a, to, &home.alice(now - 1));
    assert_echoes(&net.a, to, 2222);
    assert_eq!(granted(host), [TO.client_a().to_string()]);
    let status = home.home.verb(host, &["status", "--json"]).success().text();
    assert!(status.contains("\"alice\"") && status.contains("\"sequence\""), "{status}");
    // Again, from another address, and from the same once it was taken back.
    knock_at(&net.b, to, &home.alice(now - 1));
    assert_silent(&net.b, to, 2222);
    forget(&home, host);
    knock_at(&net.a, to, &home.alice(now - 1));
    assert_eq!(granted(host), [""; 0]);
    until("a replay is told", || home.home.log().contains("had been used were knocked again"));
    // Somebody flushes everything: what was used stays so, and what was not is right again.
    flush_host(host);
    until("it is guarded again", || is_guarded(host));
    filled(host);
    knock_at(&net.b, to, &home.alice(now - 1));
    assert_eq!(granted(host), [""; 0]);
    // A reload, a crash and a start.
    agent.reload();
    filled(host);
    knock_at(&net.b, to, &home.alice(now - 1));
    agent.kill();
    knock_at(&net.b, to, &home.alice(now - 1));
    let agent = home.home.start(host);
    sleep(Duration::from_millis(500));
    knock_at(&net.b, to, &home.alice(now - 1));
    assert_eq!(granted(host), [""; 0], "{}", home.home.log());
    let v6 = Family::V6.router();
    let next = home.alice(home.step() + 1);
    let first = format!(" . {} ", next.split(',').next().unwrap().trim_start_matches("udp/"));
    until("the next step is there", || listed(host, "map", "knock_timed").contains(&first));
    knock_at(&net.b, v6, &next);
    assert_echoes(&net.b, v6, 2222);
    // No knock is in the log, and no secret.
    let (log, path) = (home.home.log_without_times(), home.alice(now));
    let first = path.split(',').next().unwrap().trim_start_matches("udp/");
    assert!(!log.contains(first) && !log.contains(ALICE) && !log.contains(PIN), "{log}");
    drop(agent);
}

#[test]
fn without_a_daemon_knocks_end_with_their_time_open_once_and_are_doubted_after_a_flush() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Home::every(10);
    let agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    filled(host);
    let now = home.step_with(4);
    // The last of the steps that are put there, a moment after this one began.
    let path = home.bob(now + 1);
    let first = format!(" . {} ", path.split(',').next().unwrap().trim_start_matches("udp/"));
    until("the next step is there", || listed(host, "map", "knock_timed").contains(&first));
    agent.kill();
    let killed = Instant::now();
    knock_at(&net.a, to, &home.alice(now));
    assert_eq!(granted(host).len(), 1);
    knock_at(&net.b, to, &home.alice(now));
    assert_eq!(granted(host).len(), 1);
    assert!(listed(host, "map", "knock_timed").contains(&first));
    until("the kernel lets go of it", || !listed(host, "map", "knock_timed").contains(&first));
    assert!(killed.elapsed() < Duration::from_secs(35));
    for step in [now + 1, home.step(), home.step() + 1] {
        knock_at(&net.b, to, &home.bob(step));
    }
    assert_eq!(granted(host).len(), 1);
    knock_at(&net.b, to, "1234,5678");
    assert_echoes(&net.b, to, 2222);
    // Who flushes while nobody is there makes it forgotten what was used.
    flush_host(host);
    let agent = home.home.start(host);
    filled(host);
    let now = home.step_with(4);
    for step in [now - 1, now] {
        knock_at(&net.a, to, &home.bob(step));
    }
    assert_eq!(granted(host), [""; 0], "{}", home.home.log());
    sleep(Duration::from_secs(20));
    knock_at(&net.a, to, &home.bob(home.step()));
    assert_echoes(&net.a, to, 2222);
    drop(agent);
}

#[test]
fn clients_come_and_go_with_their_files() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Home::every(30);
    let agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    filled(host);
    let now = home.step_with(15);
    knock_at(&net.a, to, &home.alice(now));
    knock_at(&net.b, to, &home.bob(now));
    assert_eq!(granted(host).len(), 2);
    until("it is told who they are", || {
        let status = home.home.verb(host, &["status", "--json"]).success().text();
        status.contains("alice") && status.contains("bob")
    });
    home.client("alice", ALICE, &format!("pin: \"{PIN}\"\ndisabled: true\n"));
    home.client("carol", CAROL, "duration: 60\n");
    agent.signal(Signal::SIGHUP);
    until("carol has a set", || elements_of(host, "seq_ssh.60_4"));
    filled(host);
    assert_eq!(granted(host), [TO.client_b().to_string()]);
    assert_silent(&net.a, to, 2222);
    knock_at(&net.a, to, &home.alice(home.step() + 1));
    assert_silent(&net.a, to, 2222);
    // Carol has the client that belongs to it.
    let secret = TempDir::new();
    let file = secret.write("secret", CAROL);
    let (file, target) = (file.to_str().unwrap(), to.to_string());
    let words = ["knock", "--sequence-secret-file", file, "--target", &target, "--check", "--port", "2222"];
    net.a.run(PROGRAM, &words).success();
    assert_open(&net.a, to, 2222);
    assert_eq!(elements(host, "seq_ssh.60_4").len(), 1);
    drop(agent);
}

fn elements_of(host: &Namespace, set: &str) -> bool {
    table(host).contains(&format!("set {set} "))
}

/// Sources that all stand before the last knock of one path, and make it at the same instant.
#[test]
fn of_a_hundred_who_race_with_the_same_knocks_one_gets_in() {
    const SOURCES: u8 = 50;
    let net = Topology::new();
    let home = Home::every(30);
    let agent = home.home.start(&net.router);
    let (host, to) = (&net.router, TO.router());
    for (client, network, via) in
        [(&net.a, "198.18.0.0/16", "203.0.113.2"), (&net.b, "198.19.0.0/16", "203.0.113.3")]
    {
        client.run("ip", &["route", "add", "local", network, "dev", "lo"]).success();
        host.run("ip", &["route", "add", network, "via", via]).success();
    }
    for name in ["all", "ext0"] {
        host.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
    }
    filled(host);
    for (round, secret) in [(0, ALICE), (1, BOB)] {
        let pin = (round == 0).then_some(PIN);
        let path = home.path(secret, pin, home.step_with(10));
        let (last, before) = path.split_last().unwrap();
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            for (client, second) in [(&net.a, 18), (&net.b, 19)] {
                let (barrier, path) = (&barrier, before);
                scope.spawn(move || {
                    let from = |n| SocketAddr::from((Ipv4Addr::new(198, second, round, n), 40_000));
                    client.enter(|| {
                        for &knock in path {
                            for n in 1..=SOURCES {
                                once(Some(from(n)), to, knock);
                            }
                        }
                        let sockets: Vec<UdpSocket> =
                            (1..=SOURCES).map(|n| UdpSocket::bind(from(n)).unwrap()).collect();
                        barrier.wait();
                        for socket in &sockets {
                            socket.send_to(b"k", SocketAddr::from((to, last.port()))).unwrap();
                        }
                    });
                });
            }
        });
        sleep(Duration::from_millis(300));
        assert_eq!(granted(host).len(), usize::from(round) + 1, "{:?}", granted(host));
    }
    let replays = listed(host, "chain", "knock_replayed");
    assert!(replays.contains(&format!("packets {}", 2 * (2 * u32::from(SOURCES) - 1))), "{replays}");
    drop(agent);
}

#[test]
fn tcp_and_the_knocks_of_knock_knock_open_and_answers_to_this_host_pass_their_ports() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let (host, to) = (&net.router, TO.router());
    let home = Home::new(30, "protocol: tcp", &["duration: 3600"]);
    let agent = home.home.start(host);
    filled(host);
    knock_at(&net.a, to, &home.bob(home.step_with(10)));
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.a, to, 25_000);
    agent.terminate();
    let home = Home::new(30, "kind: knock-knock", &["duration: 3600"]);
    let _agent = home.home.start(host);
    filled(host);
    let now = home.step_with(10);
    knock_at(&net.a, to, &home.bob(now));
    assert_eq!(granted(host), [TO.client_a().to_string()]);
    // With other lengths they are other knocks.
    let path = home.path(ALICE, Some(PIN), now);
    let other: Vec<Knock> =
        path.iter().map(|knock| Knock::sized(knock.port().try_into().unwrap(), 20)).collect();
    knock_at(&net.b, to, &text(&other));
    assert_eq!(granted(host).len(), 1);
    // A port that is knocked at asks a name server and hears it; whoever speaks unasked is not heard.
    let server = net.b.enter(|| UdpSocket::bind((TO.client_b(), 53)).unwrap());
    let asks = host.enter(|| UdpSocket::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), 40_000)).unwrap());
    let stranger = net.a.enter(|| UdpSocket::bind((TO.client_a(), 53)).unwrap());
    asks.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    asks.send_to(b"name?", (TO.client_b(), 53)).unwrap();
    let mut heard = [0; 16];
    let (_, from) = server.recv_from(&mut heard).unwrap();
    stranger.send_to(b"lies!", (to, 40_000)).unwrap();
    sleep(Duration::from_millis(100));
    server.send_to(b"truth", from).unwrap();
    let (length, _) = asks.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"truth");
}
