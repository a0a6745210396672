//! Floods of strangers: nothing opens, nothing is left behind, the agent hears nothing of it, and who knocks in the
//! middle of it gets in.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::agent::{Agent, Installation};
use crate::configuration::{Config, STEP2_PATH, http_key};
use crate::firewall::{add_elements, time_left};
use crate::forge::Forge;
use crate::knocking::{STEP1_PORT, STEP2_PORT, form, request, step1, step2};
use crate::probe::{assert_echoes, assert_silent};
use crate::process::Stop;
use crate::server::{Habit, Server};
use crate::strangers::{Stranger, hold, send_and_reset, shake_hands};
use crate::topology::{Family, Topology};
use crate::usage::{Remembered, Usage, assert_forgets, forget_soon};

/// Packets or requests of a flood, in four parts: of one source and of many, in both families.
const FLOOD: u32 = 50_000;
/// Sources of a flood that has many: as many IPv6 networks.
const SOURCES: u32 = 20_000;
/// Memory that may come and go without a reason in strangers, in KiB.
const SLACK: i64 = 4_000;

struct Flooded {
    net: Topology,
    home: Installation,
    agent: Agent,
    _tcp: Server,
    udp: Server,
    before: Remembered,
}

impl Flooded {
    fn new() -> Self {
        let net = Topology::new();
        let tcp = Server::tcp(&net.router, 2222, Habit::Echo);
        let udp = Server::udp(&net.router, 5353, Habit::Echo);
        let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 300"]);
        let config = config.app("dns", "5353", "udp", "local", &[]);
        let home = Installation::new(&config);
        let agent = home.start(&net.router);
        Stranger::settle(&net);
        forget_soon(&net.router);
        // What was needed to get ready ends first.
        sleep(Duration::from_millis(1_500));
        let before = Remembered::by(&net.router);
        Self { net, home, agent, _tcp: tcp, udp, before }
    }

    /// Knocks until it is let in, as a client does that meets a crowd.
    #[track_caller]
    fn knock(&self, family: Family) {
        let end = Instant::now() + Duration::from_secs(60);
        let to = family.router();
        loop {
            step1(&self.net.a, to, "ssh");
            if step2(&self.net.a, to, "ssh").is_some_and(|reply| reply.status == 200) {
                return assert_echoes(&self.net.a, to, 2222);
            }
            assert!(Instant::now() < end, "a client with the right keys is not let in\n{}", self.home.log());
        }
    }

    /// Has `one` sent by its number until there were so many and who knocks meanwhile is in; how many there were.
    fn while_knocking(&self, count: usize, threads: usize, one: impl Fn(usize) + Sync) -> usize {
        let (knocked, next) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let _stop = Stop(&knocked);
            for _ in 0..threads {
                scope.spawn(|| {
                    self.net.b.enter(|| {
                        loop {
                            let number = next.fetch_add(1, Ordering::Relaxed);
                            if number >= count && knocked.load(Ordering::Relaxed) {
                                return;
                            }
                            one(number);
                            if number.is_multiple_of(100) {
                                // Room for who knocks, on a machine with few processors.
                                sleep(Duration::from_millis(2));
                            }
                        }
                    })
                });
            }
            for family in Family::BOTH {
                self.knock(family);
            }
        });
        next.into_inner() - threads
    }

    /// Nobody got in but who knocked, nothing is left of the strangers, and the agent is as large as before.
    #[track_caller]
    fn assert_untouched(&mut self, usage: Usage) {
        assert_forgets(&self.net.router, self.before, Duration::from_secs(40));
        let now = Usage::of(&self.agent);
        assert!(now.memory < usage.memory + SLACK, "{now:?} after, {usage:?} before");
        assert!(now.files <= usage.files, "{now:?} after, {usage:?} before");
        assert_eq!(self.udp.last_heard(), None, "a datagram of a stranger reached the guarded port");
        for family in Family::BOTH {
            assert_silent(&self.net.b, family.router(), 2222);
            assert!(time_left(&self.net.router, "ssh", family.client_a()).is_some());
            assert_eq!(time_left(&self.net.router, "ssh", family.client_b()), None);
        }
        assert!(self.agent.is_alive());
    }
}

/// Who sends the packet of that number: a quarter each is of one source and of many, of either family.
fn source(number: u32) -> SocketAddr {
    let (family, port) =
        (if number.is_multiple_of(2) { Family::V4 } else { Family::V6 }, 1_024 + number % 60_000);
    let many = number / 2 % 2 == 1;
    let ip = if many { Stranger(number / 4 % SOURCES).address(family) } else { family.client_b() };
    (ip, u16::try_from(port).unwrap()).into()
}

fn router_of(source: SocketAddr, port: u16) -> SocketAddr {
    let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
    (family.router(), port).into()
}

#[test]
fn two_hundred_thousand_packets_are_dropped_in_the_kernel_and_wake_nobody() {
    let mut flooded = Flooded::new();
    let forge = Forge::new(&flooded.net.b);
    // Once before it is measured: what is needed to answer anybody is there then.
    for family in Family::BOTH {
        flooded.knock(family);
    }
    let (usage, lines) = (Usage::of(&flooded.agent), flooded.home.log().lines().count());
    let send = |number: u32, kind: u32| {
        let from = source(number);
        match kind {
            0 => forge.syn(from, router_of(from, STEP1_PORT)),
            1 => forge.syn(from, router_of(from, 2222)),
            2 => forge.syn(from, router_of(from, STEP2_PORT)),
            _ => {
                let ports = [5353, STEP1_PORT, STEP2_PORT, 2222];
                forge.datagram(from, router_of(from, ports[number as usize % 4]), b"noise")
            }
        }
    };
    for kind in 0..4 {
        let mut took = Vec::new();
        for part in 0..5 {
            let begun = Instant::now();
            let sent = (0..FLOOD / 5).filter(|number| send(part * FLOOD / 5 + number, kind)).count();
            took.push(begun.elapsed());
            assert!(sent > 9_000, "only {sent} of 10,000 packets were sent");
        }
        // Whoever sends does the work of whoever receives: the last packets cost what the first ones did.
        let (first, last) = (took[..2].iter().min().unwrap(), took[3..].iter().min().unwrap());
        assert!(*last < *first * 3 + Duration::from_millis(50), "kind {kind}: {took:?}");
    }
    let idle = Usage::of(&flooded.agent).ticks - usage.ticks;
    assert!(idle <= 20, "the agent was busy for {} ms", 10 * idle);
    assert_eq!(flooded.home.log().lines().count(), lines, "{}", flooded.home.log());
    // The same again while somebody knocks.
    flooded.while_knocking(FLOOD as usize, 1, |number| {
        send(u32::try_from(number).unwrap(), u32::try_from(number / 8 % 4).unwrap());
    });
    flooded.assert_untouched(usage);
}

#[test]
fn fifty_thousand_complete_requests_for_other_paths_wake_nobody() {
    let mut flooded = Flooded::new();
    for family in Family::BOTH {
        flooded.knock(family);
    }
    let usage = Usage::of(&flooded.agent);
    let wrong = request("POST /a-first-step-that-nobody-guesses-4712", &form("ssh", &http_key("ssh")));
    let begun = Instant::now();
    let sent = AtomicUsize::new(0);
    let sent_in_all = flooded.while_knocking(FLOOD as usize, 3, |number| {
        // Few of the one source: the kernel meters it, so that most of its connections do not come about.
        let number = u32::try_from(number).unwrap();
        let from =
            source(if number.is_multiple_of(100) { number } else { number * 4 + 2 + number / 100 % 2 });
        let whole = send_and_reset(from.ip(), router_of(from, STEP1_PORT), wrong.as_bytes());
        sent.fetch_add(usize::from(whole), Ordering::Relaxed);
    });
    let (sent, took) = (sent.into_inner(), begun.elapsed());
    assert!(sent > sent_in_all * 8 / 10, "{sent} of {sent_in_all} requests were sent in {took:?}");
    // Two knocks are all that it has done.
    let busy = Usage::of(&flooded.agent).ticks - usage.ticks;
    assert!(busy <= 150, "the agent was busy for {} ms", 10 * busy);
    flooded.assert_untouched(usage);
}

#[test]
fn handshakes_without_requests_of_a_hundred_admitted_addresses_keep_nobody_out() {
    let mut flooded = Flooded::new();
    for family in Family::BOTH {
        flooded.knock(family);
        let addresses: Vec<String> = (0..50).map(|n| Stranger(n).address(family).to_string()).collect();
        add_elements(&flooded.net.router, &format!("step2_{}", family.digit()), &addresses, 120);
    }
    let stranger = |number: usize| {
        let family = Family::BOTH[number % 2];
        (
            Stranger(u32::try_from(number / 2 % 50).unwrap()).address(family),
            SocketAddr::from((family.router(), STEP2_PORT)),
        )
    };
    let net = &flooded.net;
    let mut usage = Vec::new();
    for round in 0..2 {
        let held = AtomicUsize::new(0);
        // Each holds on to what it has for a while; the third part finishes TLS, and asks nothing or not all.
        flooded.while_knocking(300, 40, |number| {
            let (from, to) = stranger(number);
            let half = request(&format!("POST {STEP2_PATH}"), "app=ssh").into_bytes();
            let done = match number % 3 {
                0 => hold(from, to, b""),
                1 => hold(from, to, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
                _ => shake_hands(from, to, &half[..half.len() - 3]),
            };
            held.fetch_add(usize::from(done), Ordering::Relaxed);
        });
        assert!(held.into_inner() > 100, "hardly a flood in round {round}");
        assert_forgets(&net.router, flooded.before, Duration::from_secs(40));
        usage.push(Usage::of(&flooded.agent));
    }
    flooded.assert_untouched(usage[0]);
}
