//! Random knocks from many sources: the kernel against the automaton in pure code.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use knock_agent::config::{Alone, KnockEffect, Settings, parse};
use knock_agent::units::{Knock, START};

use crate::agent::Installation;
use crate::backend::{Backend, on_both_iptables, without_ipset};
use crate::configuration::Config;
use crate::firewall::elements;
use crate::knocks::{knock_at, once};
use crate::probe::{GENEROUS, Reach, assert_echoes, assert_silent, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_both_iptables! {
    the_kernel_opens_what_the_automaton_says_for_many_sources,
    a_full_list_forgets_the_oldest_and_opens_nothing,
}

without_ipset! {
    a_full_list_forgets_the_oldest_and_opens_nothing,
}

/// As often as knocks count at once, each source knocks in a round, and again when they do so anew.
const AT_ONCE: usize = 7;
/// Ports that are knocked at, among them two that no sequence has.
const PORTS: &[&str] = &["1", "2", "3", "4", "udp/1", "udp/2", "7", "udp/7"];

/// Windows that no machine is too slow for.
fn config() -> Config {
    let app = |config: Config, name: &str, port: &str, sequence: &str| {
        config.app(name, port, "tcp", "local", &["duration: 3600", &format!("sequence: {sequence}")])
    };
    let config = Config::new(&[]);
    let config = app(config, "one", "2201", "{knocks: [1, 2, 3], window: 1h}");
    let config = app(
        config,
        "two",
        "2202",
        "[{knocks: [1, 2, 1, 4], window: 1h}, {knocks: [udp/1, 2, 3], window: 1h}]",
    );
    let config = app(config, "three", "2203", "{knocks: [2, 3, udp/2, 1], window: 1h, strict: true}");
    app(config, "four", "2204", "{knocks: [3, 3, 4], window: 1h, closing: [4, udp/1]}")
}

/// What stands open for one source, by the automaton.
#[derive(Default)]
struct Source {
    state: u32,
    open: BTreeSet<usize>,
}

impl Source {
    fn knock(&mut self, settings: &Settings, knock: Knock) {
        let before = self.state;
        self.state = settings.automaton.next(before, knock);
        if self.state == START {
            let strict = settings.sequences.iter().filter(|sequence| sequence.strict);
            for sequence in strict {
                self.open.remove(&sequence.app.unwrap());
            }
            return;
        }
        let done = settings.automaton.state(self.state).map(|state| state.opens.as_slice());
        for &number in done.filter(|_| self.state != before).unwrap_or_default() {
            let sequence = &settings.sequences[number];
            match sequence.effect {
                KnockEffect::Closes => self.open.remove(&sequence.app.unwrap()),
                _ => self.open.insert(sequence.app.unwrap()),
            };
        }
    }
}

/// A generator of numbers that is the same every time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % most
    }
}

#[test]
fn the_kernel_opens_what_the_automaton_says_for_a_thousand_sources_at_once() {
    opens_what_the_automaton_says(1_000, 5, 100);
}

/// A list of `-m recent` remembers a hundred addresses.
fn the_kernel_opens_what_the_automaton_says_for_many_sources() {
    opens_what_the_automaton_says(90, 3, 20);
}

fn opens_what_the_automaton_says(number_of_sources: u16, rounds: usize, at_least: usize) {
    let net = Topology::new();
    let config = config();
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let_a_be_many(&net);
    let settings = parse("x", config.text(), None, &Alone).unwrap().settings;
    let ports: Vec<Knock> = PORTS.iter().map(|port| port.parse().unwrap()).collect();
    let mut sources: BTreeMap<Ipv4Addr, Source> = BTreeMap::new();
    let mut dice = Dice(0x5eed_0fd1_ce00_0001);
    let mut port = 10_000;
    for round in 0..rounds {
        if round > 0 {
            sleep(Duration::from_secs(2));
        }
        let mut turns: Vec<u16> = (0..number_of_sources).flat_map(|source| [source; AT_ONCE]).collect();
        for place in (1..turns.len()).rev() {
            turns.swap(place, dice.below(place + 1));
        }
        for some in turns.chunks(100) {
            // A receiver's queue is short: what is sent faster than it is handled would be lost.
            assert_eq!(tcp(&net.a, (Family::V4.router(), 9).into(), GENEROUS), Reach::Refused);
            net.a.enter(|| {
                for number in some {
                    let [high, low] = number.to_be_bytes();
                    let address = Ipv4Addr::new(198, 18, high, low);
                    let source = sources.entry(address).or_default();
                    // Half of the knocks are right ones, as blind chance would open little.
                    let knock = match (dice.below(2), dice.below(settings.sequences.len())) {
                        (0, sequence) => {
                            let known = settings.automaton.state(source.state).map_or(0, |state| state.depth);
                            let knocks = &settings.sequences[sequence].knocks;
                            knocks.get(known).copied().unwrap_or(knocks[0])
                        }
                        _ => ports[dice.below(ports.len())],
                    };
                    port = if port == 60_000 { 10_000 } else { port + 1 };
                    once(Some(SocketAddr::from((address, port))), Family::V4.router(), knock);
                    source.knock(&settings, knock);
                }
            });
        }
    }
    let mut some = 0;
    for (index, app) in settings.apps.iter().enumerate() {
        let wanted: BTreeSet<String> = sources
            .iter()
            .filter(|(_, source)| source.open.contains(&index))
            .map(|(address, _)| IpAddr::from(*address).to_string())
            .collect();
        let found: BTreeSet<String> = elements(&net.router, &format!("seq_{}_4", app.slug))
            .into_iter()
            .map(|element| element.key)
            .collect();
        let wrongly: Vec<_> = found.difference(&wanted).collect();
        let missing: Vec<_> = wanted.difference(&found).collect();
        assert!(
            wrongly.is_empty() && missing.is_empty(),
            "{}: open {wrongly:?}, not open {missing:?}",
            app.name
        );
        assert!(wanted.len() < usize::from(number_of_sources), "{}", app.name);
        some += wanted.len();
    }
    assert!(some > at_least, "{some} are open");
}

/// 198.18.0.0/16 is behind `a`.
fn let_a_be_many(net: &Topology) {
    net.a.run("ip", &["route", "add", "local", "198.18.0.0/16", "dev", "lo"]).success();
    net.router.run("ip", &["route", "add", "198.18.0.0/16", "via", "203.0.113.2"]).success();
    for name in ["all", "ext0"] {
        net.router.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
    }
}

fn a_full_list_forgets_the_oldest_and_opens_nothing() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::ssh(&["duration: 3600", "sequence: {knocks: [1234, 5678], window: 1h}"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let_a_be_many(&net);
    let room = std::fs::read_to_string("/sys/module/xt_recent/parameters/ip_list_tot").unwrap();
    let room: u16 = room.trim().parse().unwrap();
    let to = Family::V4.router();
    let crowd = |knock: &str| {
        for number in 0..room + 20 {
            let [high, low] = number.to_be_bytes();
            let source = SocketAddr::from((Ipv4Addr::new(198, 18, high, low), 10_000));
            net.a.enter(|| once(Some(source), to, knock.parse().unwrap()));
        }
    };
    knock_at(&net.a, to, "1234,5678");
    assert_echoes(&net.a, to, 2222);
    knock_at(&net.b, to, "1234");
    crowd("1234");
    knock_at(&net.b, to, "5678");
    assert_silent(&net.b, to, 2222);
    crowd("5678");
    // With ipset only the progress is kept in lists; without, whoever opened first is forgotten.
    let recent = Backend::current().is_recent();
    let open = elements(&net.router, "seq_ssh_4").len();
    assert_eq!(open, usize::from(room) + usize::from(!recent));
    if recent {
        assert_silent(&net.a, to, 2222);
    } else {
        assert_echoes(&net.a, to, 2222);
    }
    knock_at(&net.b, to, "1234,5678");
    assert_echoes(&net.b, to, 2222);
}
