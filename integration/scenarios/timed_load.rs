//! What thousands of clients of knocks that change with time cost, against one in the same run. Not run by default:
//! its figures are to be read, with a release build.
#![expect(clippy::print_stdout, reason = "its figures are to be read")]

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use knock_agent::backend::nftables::Nftables;
use knock_agent::config::{Outside, SecretFrom, SequenceClient, Settings, UserFile, parse};
use knock_agent::ruleset::knocking::Knocking;
use knock_agent::ruleset::layout::Options;
use knock_agent::ruleset::plan::plan;
use knock_agent::ruleset::timed::{Advance, TimedKnocks};
use knock_agent::units::{Now, Secret, knocks, step_at};

use crate::topology::{Family, Topology};

const MANY: usize = 5_000;
const PACKETS: u32 = 200_000;

/// So many clients.
struct Clients(usize);

impl Outside for Clients {
    fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
        Err("none".to_owned())
    }

    fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
        let letter = |n: usize| char::from(b'A' + u8::try_from(n % 26).unwrap());
        let file = |n: usize| {
            let number: String = [n, n / 26, n / 676].map(letter).iter().collect();
            UserFile {
                name: format!("client{n}"),
                file: format!("client{n}.yaml"),
                text: format!("app: ssh\nsecret: {number}{}\n", "A".repeat(29)).into(),
            }
        };
        Ok((0..self.0).map(file).collect())
    }
}

fn settings(clients: usize) -> Settings {
    let text = "global:\n  interface_ext: ext0\n  steps: off\n  time_sequence: {}\nssh: {port: 2222, duration: 1h}\n";
    parse("x", text, None, &Clients(clients)).unwrap_or_else(|problems| panic!("{problems}")).settings
}

fn now(later: u64) -> Now {
    let boot: f64 =
        std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let later = Duration::from_secs(later);
    Now { boot: Duration::from_secs_f64(boot) + later, wall: SystemTime::now() + later }
}

/// How long a datagram takes from one host to the rules of the other, on one processor.
fn each(net: &Topology, ports: &[u16]) -> Duration {
    net.a.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let to = Family::V4.router();
        let send = |count: u32| {
            for port in ports.iter().cycle().take(usize::try_from(count).unwrap()) {
                let _ = socket.send_to(b"k", (to, *port));
            }
        };
        send(PACKETS / 10);
        (0..3)
            .map(|_| {
                let begin = Instant::now();
                send(PACKETS);
                begin.elapsed() / PACKETS
            })
            .min()
            .unwrap()
    })
}

/// Loads so many clients, and says what it took: everything, the next time step, and a datagram that is no knock and
/// one that is somebody's first.
fn load(clients: usize) -> [Duration; 4] {
    let net = Topology::new();
    let settings = settings(clients);
    let knocking = Knocking::of(&settings);
    let port = 1.try_into().unwrap();
    let options = Options { http_port: port, https_port: port, inner_header: true, log: true };
    let (all, next) = net.router.enter(|| {
        let mut nft = Nftables::open().unwrap();
        nft.install(&plan(&settings, options)).unwrap();
        let mut timed = TimedKnocks::default();
        let begin = Instant::now();
        assert_eq!(timed.rebuild(&settings, &knocking, now(0)), 0);
        let transactions = timed.refill(&knocking, now(0));
        let planned = begin.elapsed();
        for changes in &transactions {
            nft.apply(changes).unwrap();
        }
        let all = begin.elapsed();
        println!("{clients} clients: planned in {planned:?}, {} transactions", transactions.len());
        let begin = Instant::now();
        let Advance::Grow(refill) = timed.advance(&settings, &knocking, now(30)) else {
            panic!("no next step")
        };
        let planned = begin.elapsed();
        let mut longest = Duration::ZERO;
        for changes in &refill.transactions {
            let begin = Instant::now();
            nft.apply(changes).unwrap();
            longest = longest.max(begin.elapsed());
        }
        println!("  a time step planned in {planned:?}, the longest transaction {longest:?}");
        (all, begin.elapsed())
    });
    let sequence = settings.time_sequence.as_ref().unwrap();
    let step = step_at(SystemTime::now(), sequence.every) + 1;
    let first = |client: &SequenceClient| {
        knocks(&client.secret, client.pin.as_ref(), step, &sequence.shape(client))[0].port()
    };
    let firsts: Vec<u16> = sequence.clients.iter().take(1_000).map(first).collect();
    let wrong: Vec<u16> = (20_000..32_000).filter(|port| !firsts.contains(port)).collect();
    [all, next, each(&net, &wrong), each(&net, &firsts)]
}

#[test]
#[ignore = "figures, not a judgement: cargo test --release --test integration -- --ignored --nocapture thousands_of_clients"]
fn thousands_of_clients_cost_a_packet_what_one_does() {
    let floor = {
        let net = Topology::new();
        each(&net, &[9])
    };
    let [one, many] = [1, MANY].map(load);
    println!("a datagram to a host without rules: {floor:?}");
    for (what, one, many) in [
        ("everything filled in", one[0], many[0]),
        ("the next time step", one[1], many[1]),
        ("a wrong knock", one[2], many[2]),
        ("a first knock", one[3], many[3]),
    ] {
        let ratio = many.as_secs_f64() / one.as_secs_f64();
        println!("{what}: 1 client {one:?}, {MANY} clients {many:?}, ratio {ratio:.2}");
    }
    assert!(many[2] < one[2] * 2 && many[3] < one[3] * 2, "the cost of a packet grows with the clients");
}
