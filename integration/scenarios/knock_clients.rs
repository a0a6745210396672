//! Knock sequences by the clients there are.

use std::time::Duration;

use crate::agent::Installation;
use crate::agent::PROGRAM;
use crate::configuration::Config;
use crate::firewall::remove_element;
use crate::knocker::Knocker;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

/// With 300 ms between knocks, as the seed's client has it.
const TCP: &[(&str, &str)] = &[
    ("knock", "knock -4 -d 300 203.0.113.1 1234:tcp 5678:tcp 9012:tcp"),
    (
        "nmap",
        "for port in 1234 5678 9012; do nmap -n -Pn --max-retries 0 -p $port 203.0.113.1; sleep 0.3; done",
    ),
    ("hping3", "for port in 1234 5678 9012; do hping3 -q -S -c 1 -p $port 203.0.113.1; sleep 0.3; done"),
    (
        "bash",
        "for port in 1234 5678 9012; do timeout 0.3 bash -c \"echo > /dev/tcp/203.0.113.1/$port\"; done",
    ),
    // Each repeats its SYN after a second, which is after the next knock.
    (
        "netcat",
        "for port in 1234 5678 9012; do nc -w 5 203.0.113.1 $port & sleep 0.8; done; sleep 0.5; kill %1 %2 %3",
    ),
    (
        "the seed's client",
        "python3 -c 'import socket, time\nfor port in (1234, 5678, 9012):\n  try: socket.create_connection((\"203.0.113.1\", port), timeout=1.0)\n  except OSError: pass\n  time.sleep(0.3)'",
    ),
];
const MIXED: &[(&str, &str)] = &[
    ("knock", "knock -4 -d 300 203.0.113.1 7000:udp 8000:tcp 9000:udp"),
    (
        "bash",
        "echo > /dev/udp/203.0.113.1/7000; sleep 0.3; timeout 0.3 bash -c 'echo > /dev/tcp/203.0.113.1/8000'; echo > /dev/udp/203.0.113.1/9000",
    ),
    (
        "hping3",
        "hping3 -q -2 -c 1 -p 7000 203.0.113.1; hping3 -q -S -c 1 -p 8000 203.0.113.1; hping3 -q -2 -c 1 -p 9000 203.0.113.1",
    ),
];

fn run(from: &Namespace, script: &str) {
    let mut command = std::process::Command::new("bash");
    command.args(["-mc", &script.replace("\\n", "\n")]);
    from.finish(command, b"", Duration::from_secs(30));
}

#[test]
fn every_client_that_sends_packets_can_knock() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[
        "duration: 600",
        "sequence: [{knocks: [1234, 5678, 9012], strict: true}, {knocks: [udp/7000, 8000, udp/9000]}]",
    ]));
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    for (name, script) in TCP.iter().chain(MIXED) {
        assert_silent(&net.a, to, 2222);
        run(&net.a, script);
        let open = crate::firewall::elements(&net.router, "seq_ssh_4").len();
        assert_eq!(open, 1, "{name}");
        assert_echoes(&net.a, to, 2222);
        remove_element(&net.router, "seq_ssh_4", &Family::V4.client_a().to_string());
    }
}

#[test]
fn the_program_itself_knocks_in_both_families_and_tells_whether_the_port_opened() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[
        "duration: 600",
        "sequence: {knocks: [1234, udp/5678/20, udp/9012], strict: true}",
    ]));
    let _agent = home.start(&net.router);
    let knock = |from: &Namespace, words: &str| {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["knock", "--target"]).args(words.split(' '));
        from.finish(command, b"", Duration::from_secs(30))
    };
    let check = "--check --port 2222 --delay 0.25";
    for target in ["203.0.113.1", "2001:db8:1::1"] {
        let wrong = knock(&net.a, &format!("{target} --sequence 1234,udp/5678,9012 {check}")).exits(1);
        assert!(wrong.stderr.contains("nothing answers on port 2222"), "{}", wrong.stderr);
        knock(&net.a, &format!("{target} --sequence tcp/1234,u:5678,9012")).exits(0);
        knock(&net.a, &format!("{target} --sequence 1234,udp/5678/20,9012:udp {check}")).exits(0);
        assert_echoes(&net.a, target.parse().unwrap(), 2222);
    }
    knock(&net.a, "203.0.113.1 --sequence 1234,udp/5678/1401").exits(2);
    knock(&net.a, "no-such-host.invalid --sequence 1234").exits(10);
}

#[test]
fn a_profile_may_knock_and_connect_does_so_where_the_port_is_closed() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home =
        Installation::new(&Config::ssh(&["duration: 600", "sequence: {knocks: [1234, udp/5678/20, 9012]}"]));
    let _agent = home.start(&net.router);
    let knocker = Knocker::new();
    let profile = "host: 203.0.113.1\nsequence: [tcp/1234, udp/5678/20, 9012]\ndelay: 50ms\ncheck: 2222\n";
    knocker.home().write(".config/knock-agent/door.yaml", profile);
    assert_silent(&net.a, Family::V4.router(), 2222);
    let done = knocker.feed(&net.a, &["connect", "door", "203.0.113.1", "2222"], b"hello\n").success();
    assert_eq!(done.text(), "hello\n");
    assert_silent(&net.b, Family::V4.router(), 2222);
    knocker.run(&net.b, &["knock", "door", "--check"]).success();
    assert_echoes(&net.b, Family::V4.router(), 2222);
    for words in [&["--close"][..], &["--for", "1h"], &["--watch"], &["--ask-pin"]] {
        knocker.run(&net.b, &[&["knock", "door"], words].concat()).exits(2);
    }
}

/// The commands that the documentation has for clients.
fn documented() -> Vec<String> {
    let (_, clients) = include_str!("../../docs/sequences.md").split_once("\n## Clients\n").unwrap();
    let (clients, _) = clients.split_once("\n## ").unwrap();
    let blocks = clients.split("```sh on=client\n").skip(1).map(|block| block.split("```").next().unwrap());
    let here = |line: &str| {
        line.replace("knock-agent", PROGRAM)
            .replace("gate.example.com", "203.0.113.1")
            .replace("--port 22", "--port 2222")
    };
    blocks.flat_map(str::lines).map(here).collect()
}

#[test]
fn every_command_of_the_documentation_opens() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::ssh(&[
        "duration: 600",
        "sequence: [{knocks: [tcp/1234, udp/7000, tcp/9012]}, {knocks: [1234, 5678, 9012]}]",
    ])
    .app("one", "2223", "tcp", "local", &["duration: 600", "sequence: {knocks: udp/7000}"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let opened = |app: &str| crate::firewall::elements(&net.router, &format!("seq_{app}_4")).len();
    let commands = documented();
    assert_eq!(commands.len(), 5, "{commands:?}");
    for (number, command) in (1..).zip(&commands) {
        run(&net.a, command);
        let app = if number == commands.len() { "one" } else { "ssh" };
        assert_eq!(opened(app), 1, "{command}");
        net.router.nft("flush set inet knock_agent seq_ssh_4; flush set inet knock_agent seq_one_4");
        // So that the knocks of one command are none of the next one's.
        net.router.nft("flush map inet knock_agent knock_at4");
    }
}
