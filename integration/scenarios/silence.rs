//! What strangers and friends hear: SYN-ACKs from the step-1 port, nothing from closed ones.

use std::thread::sleep;
use std::time::Duration;

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::capture::{Capture, Packet};
use crate::configuration::{Config, STEP1_PATH, http_key};
use crate::firewall::admission_left;
use crate::knocking::{STEP1_PORT, STEP2_PORT, form, post_step1, step1};
use crate::server::{Habit, Server, in_url};
use crate::topology::{Family, Topology};

on_every_firewall! {
    nothing_but_syn_acks_ever_leaves_the_step_1_port,
    step_1_leaves_neither_a_conntrack_entry_nor_a_socket,
    closed_ports_answer_nothing_at_all,
}

fn from_router(packets: &[Packet], family: Family) -> Vec<&Packet> {
    packets.iter().filter(|p| p.source == family.router()).collect()
}

fn nothing_but_syn_acks_ever_leaves_the_step_1_port() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let _agent = home.start(&net.router);
    let capture = Capture::start(&net.router, "ext0", &format!("tcp port {STEP1_PORT} or icmp or icmp6"));
    for family in Family::BOTH {
        let to = family.router();
        step1(&net.a, to, "ssh");
        post_step1(&net.a, to, STEP1_PATH, &form("ssh", "not-the-key-of-anything"));
        post_step1(&net.a, to, "/another-path", &form("ssh", &http_key("ssh")));
        let url = format!("http://{}:{STEP1_PORT}{STEP1_PATH}", in_url(to));
        net.a.run("curl", &["-sS", "-g", "-m", "1", &url]).exits(28);
        // A connection that says nothing and ends in order.
        net.a.run("nc", &["-w", "1", "-N", &to.to_string(), &STEP1_PORT.to_string()]);
        net.a.feed("nc", &["-w", "1", "-N", &to.to_string(), &STEP1_PORT.to_string()], b"hello\r\n\r\n");
        assert!(admission_left(&net.router, family.client_a()).is_some(), "the right one was heard");
    }
    // Late answers count as well: retransmitted segments, timers of half-open connections.
    sleep(Duration::from_secs(4));
    let packets = capture.stop();
    for family in Family::BOTH {
        let answers: Vec<&Packet> = from_router(&packets, family)
            .into_iter()
            .filter(|p| !(p.protocol == 58 && p.destination.is_ipv6())) // neighbour discovery
            .collect();
        assert!(answers.len() >= 6, "the handshakes were seen: {answers:?}");
        let other: Vec<&&Packet> = answers.iter().filter(|p| !p.is_syn_ack()).collect();
        assert_eq!(other, Vec::<&&Packet>::new(), "packets other than SYN-ACK");
        let requests = packets.iter().filter(|p| p.source == family.client_a() && p.payload > 0).count();
        assert!(requests >= 4, "the requests were seen");
    }
}

fn step_1_leaves_neither_a_conntrack_entry_nor_a_socket() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router();
        step1(&net.a, to, "ssh");
        post_step1(&net.a, to, STEP1_PATH, &form("ssh", "not-the-key-of-anything"));
        post_step1(&net.a, to, "/another-path", &form("ssh", &http_key("ssh")));
        assert!(admission_left(&net.router, family.client_a()).is_some(), "the right one was heard");
    }
    for family in ["ipv4", "ipv6"] {
        let entries = net.router.run("conntrack", &["-L", "-f", family]).success().text();
        let ours: Vec<&str> =
            entries.lines().filter(|l| l.contains(&format!("port={STEP1_PORT} "))).collect();
        assert_eq!(ours, Vec::<&str>::new());
    }
    let filter = format!("sport = :{STEP1_PORT}");
    let sockets = net.router.run("ss", &["-Htan", &filter]).success().text();
    let lingering: Vec<&str> =
        sockets.lines().filter(|l| !l.starts_with("LISTEN") && !l.starts_with("SYN-RECV")).collect();
    assert_eq!(lingering, Vec::<&str>::new());
    // A service that is not ours shows that the table of connections is really in use.
    let _service = Server::tcp(&net.router, 80, Habit::Echo);
    crate::probe::assert_echoes(&net.a, Family::V4.router(), 80);
    let entries = net.router.run("conntrack", &["-L"]).success().text();
    assert!(entries.contains("dport=80 "), "{entries}");
}

fn closed_ports_answer_nothing_at_all() {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.router, 2222, Habit::Echo),
        Server::tcp(&net.lan, 22, Habit::Echo),
        Server::udp(&net.router, 1194, Habit::Echo),
    ];
    let config = Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &[])
        .app("lan", "2223", "tcp", "10.0.0.5:22", &[])
        .app("nobody", "2224", "tcp", "local", &[])
        .app("vpn", "1194", "udp", "local", &[])
        .app("silent", "1195", "udp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let guarded = format!("2222,2223,2224,{STEP2_PORT}");
    for family in Family::BOTH {
        let ports =
            "port 2222 or port 2223 or port 2224 or port 8443 or port 1194 or port 1195 or icmp or icmp6";
        let capture = Capture::start(&net.router, "ext0", ports);
        let errors = unreachable_count(&net, family);
        let to = family.router().to_string();
        let six: &[&str] = if family == Family::V6 { &["-6"] } else { &[] };
        for scan in ["-sS", "-sT", "-sA", "-sF", "-sX", "-sN"] {
            let mut args =
                vec!["-n", "-Pn", "--max-retries", "1", "--host-timeout", "15", scan, "-p", &guarded];
            args.extend(six);
            args.push(&to);
            let seen = net.a.run("nmap", &args).success().text();
            assert_nothing_heard(&seen);
        }
        let mut args =
            vec!["-n", "-Pn", "--max-retries", "1", "--host-timeout", "15", "-sU", "-p", "1194,1195"];
        args.extend(six);
        args.push(&to);
        let seen = net.a.run("nmap", &args).success().text();
        assert_nothing_heard(&seen);
        let packets = capture.stop();
        let answers: Vec<&Packet> =
            from_router(&packets, family).into_iter().filter(|p| p.protocol != 58).collect();
        assert_eq!(answers, Vec::<&Packet>::new());
        assert!(packets.iter().any(|p| p.source == family.client_a()), "the scan was seen");
        // ICMPv6 is left out above for neighbour discovery; an error would be counted by the client.
        assert_eq!(unreachable_count(&net, family), errors, "an ICMP error came back");
    }
}

/// Stops the test when nmap got an answer from any port.
#[track_caller]
fn assert_nothing_heard(report: &str) {
    let states: Vec<&str> = report
        .lines()
        .filter(|line| line.contains("/tcp") || line.contains("/udp"))
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert!(!states.is_empty() || report.contains("filtered"), "a report of ports: {report}");
    for state in states {
        assert!(["filtered", "open|filtered"].contains(&state), "{report}");
    }
}

/// How many ICMP destination-unreachable messages the client's kernel has counted.
fn unreachable_count(net: &Topology, family: Family) -> u64 {
    let file = if family == Family::V4 { "snmp" } else { "snmp6" };
    let text = net.a.enter(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))).unwrap();
    match family {
        Family::V4 => {
            let mut lines = text.lines().filter(|l| l.starts_with("Icmp:"));
            let names = lines.next().unwrap().split(' ');
            let mut named = names.zip(lines.next().unwrap().split(' '));
            named.find(|(name, _)| *name == "InDestUnreachs").unwrap().1.parse().unwrap()
        }
        Family::V6 => {
            let line = text.lines().find(|l| l.starts_with("Icmp6InDestUnreachs")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        }
    }
}
