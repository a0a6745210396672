//! What a packet costs, however many are let in.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::gateway::{GRANTS, Home, SERVICE, TABLE};
use crate::net::{CLIENT, Net, ROUTER, others};
use crate::report::{Report, Section, Verdict};
use crate::stats::{Sample, significant, thousands};
use crate::wire::Wire;

/// One turn lasts about this long.
const TURN: Duration = Duration::from_millis(60);
/// So many packets are timed together.
const FEW: u32 = 8;
/// A port that nobody guards.
const OTHER: u16 = 7777;
const PAYLOAD: &[u8] = &[0; 64];

/// A host with rules, and what its packets cost.
struct Host {
    name: String,
    net: Net,
    _ears: [UdpSocket; 2],
    mouth: UdpSocket,
    /// From an address that is not let in.
    stranger: UdpSocket,
    let_in: bool,
    costs: [Sample; 3],
}

impl Host {
    fn new(name: String, let_in: bool, prepare: impl FnOnce(&Net)) -> Self {
        eprintln!("   preparing: {name}");
        let net = Net::new();
        prepare(&net);
        let ear = |port| net.router.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        let from = |addr: Ipv4Addr| net.client.enter(|| UdpSocket::bind((addr, 0)).unwrap());
        let (ears, mouth, stranger) = ([ear(SERVICE), ear(OTHER)], from(CLIENT), from(crate::net::source(7)));
        Self { name, net, _ears: ears, mouth, stranger, let_in, costs: Default::default() }
    }

    fn turn(&mut self) {
        let ways = [(&self.mouth, SERVICE), (&self.stranger, SERVICE), (&self.mouth, OTHER)];
        for (cost, (socket, port)) in self.costs.iter_mut().zip(ways) {
            let begin = Instant::now();
            let mut few = Sample::default();
            while begin.elapsed() < TURN {
                let from = Instant::now();
                for _ in 0..FEW {
                    let _ = socket.send_to(PAYLOAD, (ROUTER, port));
                }
                few.push(from.elapsed() / FEW);
            }
            // Most of these are over before somebody else has the processor.
            cost.push(Duration::from_secs_f64(few.median() / 1e6));
        }
    }

    fn cells(&self) -> [String; 4] {
        let [granted, stranger, other] = &self.costs;
        let granted = if self.let_in { granted.text() } else { "-".to_owned() };
        [self.name.clone(), granted, stranger.text(), other.text()]
    }
}

pub fn measure(report: &mut Report, turns: usize, most: u32) {
    let mut hosts = vec![Host::new("no rules at all".to_owned(), true, |_| {})];
    let numbers: Vec<u32> = [0, 1, 1_000, 100_000, 1_000_000].into_iter().filter(|&n| n <= most).collect();
    let mut homes = Vec::new();
    for &number in &numbers {
        let home = Home::new("");
        let name = format!("knock-agent, {} granted", thousands(number.into()));
        hosts.push(Host::new(name, number > 0, |net| {
            home.guard(&net.router);
            let mut wire = net.router.enter(Wire::open);
            let mut keys = others(number.saturating_sub(1));
            keys.extend((number > 0).then_some(CLIENT.octets()));
            wire.add(TABLE, GRANTS, &keys, 86_400_000, "key 1 two-step");
        }));
        homes.push(home);
    }
    for number in [1, 1_000, 10_000] {
        let name = format!("nft, one rule per client, {} granted", thousands(number.into()));
        hosts.push(Host::new(name, true, |net| net.router.nft(&one_rule_each(number))));
    }
    // The first turn of each warms up.
    for _ in 0..=turns {
        hosts.iter_mut().for_each(Host::turn);
    }
    let mut section = Section::new(
        "A packet",
        "Microseconds from sending a UDP packet of 64 bytes to its end in the router, over a veth pair, so that most of it is the \
         way there: the first row is that way without a rule. The layout of one rule per client is knock-port's; there, the \
         granted client is the one granted first, whose rule comes last.",
        &["", "a granted client's", "a stranger's, dropped", "to another port"],
    );
    for host in &hosts {
        section.row(&host.cells().each_ref().map(String::as_str));
    }
    report.sections.push(section);
    let cost = |number: u32| {
        let at = numbers.iter().position(|&n| n == number)?;
        Some(hosts.get(at + 1)?.costs[0].median())
    };
    for (many, target) in [(100_000, 1.1), (1_000_000, 1.1)] {
        let (Some(one), Some(all)) = (cost(1), cost(many)) else { continue };
        let what = if many == 100_000 {
            "A packet with 100,000 grants against 1"
        } else {
            "A packet with 1,000,000 grants against 1"
        };
        let ratio = all / one;
        report.verdicts.push(Verdict {
            what,
            target: format!("at most {target}"),
            reached: significant(ratio),
            met: ratio <= target,
            why: "the work is the same; what differs is where the set lies in the processor's caches.",
        });
    }
    for host in hosts {
        drop(host.net);
    }
}

/// What knock-port makes of as many clients, without what it has around it.
fn one_rule_each(number: u32) -> String {
    let mut out = format!(
        "table inet each {{\nchain input {{\ntype filter hook input priority 0\njump clients\nudp dport {SERVICE} drop\n}}\n\
         chain clients {{\n"
    );
    for key in others(number.saturating_sub(1)) {
        out += &format!("ip saddr {} udp dport {SERVICE} accept\n", Ipv4Addr::from(key));
    }
    out + &format!("ip saddr {CLIENT} udp dport {SERVICE} accept\n}}\n}}\n")
}
