//! Rulesets that nobody would write: what the dry run says about them is what the kernel does.

use std::time::Duration;

use crate::agent::Installation;
use crate::audit::obstacles;
use crate::configuration::Config;
use crate::knocking::{step1, step2};
use crate::probe::{Reach, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// Each is certain for every client: whether it matches depends on nothing that the dry run cannot know.
const MATCHES: &[&str] = &[
    "",
    "",
    "tcp dport 8080",
    "tcp dport { 8443, 2000-3000 }",
    "tcp dport { 22, 80 }",
    "tcp dport != 8080",
    "tcp dport < 3000",
    "meta mark 24107",
    "meta mark & 0xff == 0x2b",
    "meta mark != 24107",
    "ct state new",
    "ct state established,related",
    "ct state untracked",
    "ct state invalid",
    "ct direction reply",
    "iifname \"ext*\"",
    "iifname != \"ext0\"",
    "iif \"ext0\"",
    "ip protocol != tcp",
    "meta l4proto { tcp, udp }",
    "ip saddr 10.0.0.0/8",
    "ip saddr != 10.0.0.0/8",
    "ip daddr 203.0.113.1",
    "ip daddr { 203.0.113.0/24, 10.0.0.0/8 }",
    "tcp flags & (syn | ack) == syn",
    "tcp flags ack",
    "fib daddr type local",
    "tcp sport 1024-65535",
    "meta l4proto . th dport { tcp . 8080, udp . 53, tcp . 2000-2500 }",
    "ip daddr . tcp dport { 203.0.113.1 . 8443, 203.0.113.1 . 2222 }",
    "limit rate 100000/second",
    "limit rate over 100000/second",
];

fn ruleset(seed: u64) -> String {
    const CHAINS: [&str; 3] = ["one", "two", "three"];
    let mut dice = Dice(seed);
    let mut text = String::from("table ip dice {\n");
    // The later ones first, as those before them name them.
    for level in (0..=3).rev() {
        let name = if level == 0 { "input" } else { CHAINS[level - 1] };
        text += &format!("chain {name} {{\n");
        if level == 0 {
            let (priority, policy) = (dice.of(&["filter", "filter", "10"]), dice.of(&["accept", "drop"]));
            text += &format!("type filter hook input priority {priority}; policy {policy};\n");
            text += "meta l4proto icmp accept\niifname != \"ext0\" accept\n";
        }
        for _ in 0..2 + dice.below(4) {
            text += dice.of(MATCHES);
            text += " ";
            let further: Vec<&str> = CHAINS.iter().skip(level).copied().collect();
            match dice.below(11) {
                0..=2 => text += "accept",
                3 => text += "drop",
                4 => text += "return",
                5 => text += "counter meta mark set 7",
                6 | 7 if !further.is_empty() => text += &format!("jump {}", dice.of(&further)),
                8 if !further.is_empty() => text += &format!("goto {}", dice.of(&further)),
                9 if !further.is_empty() => {
                    let to = dice.of(&further);
                    text +=
                        &format!("tcp dport vmap {{ 8080 : jump {to}, 2000-3000 : accept, 1-100 : drop }}");
                }
                10 => text += "ct state vmap { established : accept, invalid : drop, untracked : continue }",
                _ => text += "counter",
            }
            text += "\n";
        }
        text += "}\n";
    }
    text + "}\n"
}

fn works(net: &Topology) -> bool {
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    step2(&net.a, to, "ssh").is_some_and(|reply| reply.status == 200)
        && tcp(&net.a, (to, 2222).into(), Duration::from_secs(1)) == Reach::Open
}

fn agrees(seeds: std::ops::Range<u64>) {
    let net = Topology::new();
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    assert!(works(&net), "without any other rules");
    let (mut passing, mut total) = (0, 0);
    for seed in seeds {
        home.verb(&net.router, &["revoke", "--all"]).success();
        let text = ruleset(seed);
        net.router.nft(&text);
        let mut found = obstacles(&home, &net.router);
        // Some ask for a part of our mark.
        found.retain(|finding| finding.code != "mark-taken");
        let works = works(&net);
        assert_eq!(found.is_empty(), works, "{seed}: {text}\n{found:#?}");
        assert!(found.iter().all(|finding| finding.severity == "error"), "{seed}: {text}\n{found:#?}");
        net.router.nft("delete table ip dice");
        total += 1;
        passing += usize::from(works);
    }
    assert!(passing > total / 10 && passing < total, "{passing} of {total} let everything pass");
}

#[test]
fn the_kernel_agrees_about_random_rules() {
    agrees(1..14);
}

#[test]
fn the_kernel_agrees_about_more_random_rules() {
    agrees(20..34);
}
