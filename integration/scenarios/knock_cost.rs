//! What ten thousand knock sequences cost, against one of them in the same run.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::Config;
use crate::knocks::knock_at;
use crate::probe::assert_echoes;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const MANY: u32 = 10_000;
const PACKETS: u32 = 40_000;
const TURNS: usize = 5;
const TO: Family = Family::V4;

/// The first of them is the same, whatever their number.
fn sequences(number: u32) -> Config {
    let one = |n: u32| {
        let (first, second, third) = (10_000 + n % 30_000, 41_000 + n * 7 % 20_000, 10_000 + n);
        format!("{{knocks: [{first}, {second}, udp/{third}]}}")
    };
    let list: Vec<String> = (0..number).map(one).collect();
    Config::ssh(&["duration: 600", &format!("sequence: [{}]", list.join(", "))])
}

/// The median time of a packet: a right first knock too many, a wrong one, one to a port that nobody knocks at.
fn packets(net: &Topology) -> [Duration; 3] {
    [10_000, 9_999, 9].map(|port| {
        let mut turns: Vec<Duration> = (0..TURNS)
            .map(|_| {
                net.a.enter(|| {
                    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                    let begin = Instant::now();
                    for _ in 0..PACKETS {
                        let _ = socket.send_to(b"knock", (TO.router(), port));
                    }
                    begin.elapsed()
                })
            })
            .collect();
        turns.sort();
        turns[TURNS / 2] / PACKETS
    })
}

#[test]
#[ignore = "measures and prints, for a minute: cargo test --test integration -- --ignored --nocapture knock_cost"]
fn ten_thousand_sequences_cost_a_packet_what_one_costs() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&sequences(1));
    let agent = home.start(&net.router);
    let one = packets(&net);
    home.rewrite_config(sequences(MANY).text());
    let begin = Instant::now();
    agent.reload();
    let loaded = begin.elapsed();
    let many = packets(&net);
    home.rewrite_config(sequences(1).text());
    agent.reload();
    let again = packets(&net);
    home.rewrite_config(sequences(MANY).text());
    agent.reload();
    knock_at(&net.a, TO.router(), "19999,50993,udp/19999");
    assert_echoes(&net.a, TO.router(), 2222);
    println!("{MANY} sequences are loaded in {loaded:?} (reload, debug build)");
    for (what, n) in [("right first knocks", 0), ("wrong knocks", 1), ("other ports", 2)] {
        let base = one[n].min(again[n]).as_secs_f64();
        let ratio = many[n].as_secs_f64() / base;
        println!("{what}: {:?} and {:?} with one, {:?} with {MANY}: {ratio:.2}", one[n], again[n], many[n]);
        assert!(ratio < 2.0, "{what}: {ratio}");
    }
}
