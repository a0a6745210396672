//! What is kept for those who are known while whole networks of strangers use up all they can.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Installation, PROGRAM};
use crate::configuration::{Config, STEP1_PATH, http_key, https_key};
use crate::knocking::{STEP1_PORT, form, request};
use crate::process::Stop;
use crate::server::{Habit, Server};
use crate::strangers::{Stranger, connect_and_send, knock_with};
use crate::topology::{Family, Topology};

/// For how long a stranger holds on to a connection: the request has to be read first.
const HELD: Duration = Duration::from_millis(200);
const THREADS: u32 = 4;

struct Crowded {
    net: Topology,
    home: Installation,
    _agent: Agent,
    _service: Server,
}

impl Crowded {
    /// With the limits that are usual, and these further lines of `global`.
    fn new(more: &[&str]) -> Self {
        let net = Topology::new();
        let service = Server::tcp(&net.router, 2222, Habit::Echo);
        let usual = ["lockout: {after: 5, first: 1m, longest: 1d}", "step1_2_rate_limit_per_minute: 10"];
        let config = Config::new(&[&usual, more].concat());
        let home = Installation::new(&config.app("ssh", "2222", "tcp", "local", &["duration: 60"]));
        let agent = home.start(&net.router);
        Stranger::settle(&net);
        // Of other people than the strangers.
        let (six, via) = ("2001:db8:78::/48", Family::V6.client_b().to_string());
        net.b.run("ip", &["-6", "route", "add", "local", six, "dev", "lo"]).success();
        net.router.run("ip", &["-6", "route", "add", six, "via", &via]).success();
        Self { net, home, _agent: agent, _service: service }
    }

    /// Which of these get in, each with two tries and all at once.
    fn get_in(&self, who: impl Iterator<Item = IpAddr>) -> Vec<bool> {
        self.get_in_with(who, [&form("ssh", &http_key("ssh")), &form("ssh", &https_key("ssh"))])
    }

    /// The same with these forms.
    fn get_in_with(&self, who: impl Iterator<Item = IpAddr>, forms: [&str; 2]) -> Vec<bool> {
        let to = |from: IpAddr| if from.is_ipv4() { Family::V4.router() } else { Family::V6.router() };
        let who: Vec<IpAddr> = who.collect();
        self.net.b.enter(|| {
            thread::scope(|scope| {
                let tries = |from| (0..2).any(|_| knock_with(from, to(from), forms));
                let knocks: Vec<_> = who.iter().map(|&from| scope.spawn(move || tries(from))).collect();
                knocks.into_iter().map(|knock| knock.join().unwrap()).collect()
            })
        })
    }

    /// Has so many IPv6 networks, one after the other and again, send this to step 1 as long as `meanwhile` takes; how many
    /// times it was sent.
    fn flooded(&self, networks: u32, a_second: u32, form: &str, meanwhile: impl FnOnce(&AtomicU32)) -> u32 {
        let (over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
        let bytes = request(&format!("POST {STEP1_PATH}"), form);
        let to = (Family::V6.router(), STEP1_PORT).into();
        let begun = Instant::now();
        let one = |next: &AtomicU32| {
            let mut held = VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                sleep(
                    (begun + Duration::from_secs(1) * number / a_second)
                        .saturating_duration_since(Instant::now()),
                );
                let from = Stranger(number % networks).address(Family::V6);
                if let Some(stream) = connect_and_send(from, to, bytes.as_bytes()) {
                    sent.fetch_add(1, Ordering::Relaxed);
                    held.push_back((Instant::now(), stream));
                }
                while held.front().is_some_and(|(at, _)| at.elapsed() > HELD) {
                    held.pop_front();
                }
            }
        };
        let next = AtomicU32::new(0);
        thread::scope(|scope| {
            let _stop = Stop(&over);
            for _ in 0..THREADS {
                scope.spawn(|| self.net.b.enter(|| one(&next)));
            }
            meanwhile(&sent);
        });
        sent.into_inner()
    }
}

/// IPv4 addresses that no flood is of.
fn people(from: u32, count: u32) -> impl Iterator<Item = IpAddr> {
    (from..from + count).map(|number| Stranger(number).address(Family::V4))
}

/// IPv6 addresses of another network than that of a flood.
fn neighbours(from: u16, count: u16) -> impl Iterator<Item = IpAddr> {
    (from..from + count).map(|number| Ipv6Addr::new(0x2001, 0xdb8, 0x78, number, 0, 0, 0, 7).into())
}

#[test]
fn right_step_1s_of_a_whole_network_keep_nobody_out_who_got_in_before() {
    let crowded = Crowded::new(&[]);
    assert_eq!(crowded.get_in(people(0, 6)), [true; 6], "{}", crowded.home.log());
    let sent = crowded.flooded(1_500, 1_000, &form("ssh", &http_key("ssh")), |_| {
        sleep(Duration::from_secs(2));
        assert_eq!(crowded.get_in(people(0, 6)), [true; 6], "{}", crowded.home.log());
    });
    let admitted = crowded.home.log().matches("step 1 was right: step 2 is open").count();
    println!("{sent} sent, {admitted} lines");
    assert!(admitted <= 200, "{admitted} lines for {sent} requests");
}

#[test]
fn wrong_keys_of_a_whole_network_keep_out_neither_who_got_in_before_nor_newcomers() {
    let crowded = Crowded::new(&[]);
    assert_eq!(crowded.get_in(neighbours(0, 6)), [true; 6], "{}", crowded.home.log());
    crowded.flooded(20_000, 1_000, &form("ssh", "a-wrong-key-1"), |sent| {
        // As many as there are places, and then some more.
        let end = Instant::now() + Duration::from_secs(60);
        while sent.load(Ordering::Relaxed) < 19_000 && Instant::now() < end {
            sleep(Duration::from_millis(100));
        }
        println!("{} sent", sent.load(Ordering::Relaxed));
        assert_eq!(crowded.get_in(neighbours(0, 6)), [true; 6], "known: {}", crowded.home.log());
        assert_eq!(
            crowded.get_in(neighbours(50, 4).chain(people(50, 4))),
            [true; 8],
            "{}",
            crowded.home.log()
        );
    });
}

#[test]
fn guesses_at_a_key_that_is_compared_slowly_keep_out_neither_its_owner_nor_newcomers() {
    let stored = {
        let host = Topology::new().router;
        host.feed(PROGRAM, &["hash-key"], b"correct horse\n").success().text()
    };
    let alice = format!("{{access_key_http: \"{}\", access_key_https: alice-key-2}}", stored.trim());
    let crowded = Crowded::new(&[&format!("users: {{alice: {alice}}}")]);
    let as_alice = |key: &str| format!("{}&user=alice", form("ssh", key));
    let (first, second) = (as_alice("correct+horse"), as_alice("alice-key-2"));
    let get_in = |who| crowded.get_in_with(who, [&first, &second]);
    assert_eq!(get_in(people(0, 1)), [true], "{}", crowded.home.log());
    crowded.flooded(3_000, 60, &as_alice("wrong+horse"), |_| {
        for _ in 0..3 {
            sleep(Duration::from_secs(2));
            assert_eq!(get_in(people(0, 1)), [true], "the owner: {}", crowded.home.log());
        }
        // Until it is noticed of which network they all are.
        sleep(Duration::from_secs(22));
        for n in 0..3 {
            assert_eq!(get_in(people(50 + n, 1)), [true], "newcomer {n}: {}", crowded.home.log());
        }
    });
    assert!(crowded.home.log().contains("reason=busy"), "{}", crowded.home.log());
}
