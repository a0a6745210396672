//! `default_input: drop`: the whole host closed, and the network works all the same.

use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use crate::agent::Installation;
use crate::configuration::Config;
use crate::firewall::time_left;
use crate::forge::Forge;
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{
    GENEROUS, assert_echo, assert_echoes, assert_open, assert_silent, assert_udp_open, assert_udp_silent,
    dial,
};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

fn config(more: &[&str]) -> Config {
    let mut all = vec!["default_input: drop"];
    all.extend(more);
    Config::new(&all).app("ssh", "2222", "tcp", "local", &["duration: 600"])
}

fn pings(from: &Namespace, to: IpAddr, more: &[&str]) -> bool {
    let to = to.to_string();
    let mut args = more.to_vec();
    args.extend(["-n", "-c", "3", "-i", "0.3", "-W", "2", &to]);
    from.run("ping", &args).code == Some(0)
}

#[test]
fn nothing_new_comes_in_but_what_was_knocked_for_and_nothing_else_is_disturbed() {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.router, 2222, Habit::Echo),
        Server::tcp(&net.router, 80, Habit::Echo),
        Server::udp(&net.router, 53, Habit::Echo),
        Server::tcp(&net.b, 25, Habit::Echo),
        Server::udp(&net.b, 123, Habit::Echo),
        Server::tcp(&net.lan, 8000, Habit::Echo),
    ];
    let open: Vec<_> =
        Family::BOTH.map(|family| dial(&net.a, (family.router(), 80).into(), GENEROUS).unwrap()).into();
    let home = Installation::new(&config(&[]));
    let agent = home.start(&net.router);
    for stream in &open {
        assert_echo(stream.try_clone().unwrap());
    }
    for family in Family::BOTH {
        let (router, b) = (family.router(), family.client_b());
        assert_silent(&net.a, router, 80);
        assert_silent(&net.a, router, 9);
        assert_udp_silent(&net.a, router, 53);
        // Not the router's inside address from the outside either.
        knock(&net.a, router, "ssh");
        assert_echoes(&net.a, router, 2222);
        assert_silent(&net.b, router, 2222);
        // The host's own connections, those of hosts behind it, and what is forwarded.
        assert_echoes(&net.router, b, 25);
        assert_udp_open(&net.router, b, 123);
        assert_echoes(&net.lan, b, 25);
        assert_udp_open(&net.lan, b, 123);
        assert_echoes(&net.b, family.lan(), 8000);
        assert!(pings(&net.a, router, &[]), "ping {router}");
        assert!(pings(&net.router, b, &[]), "ping {b} from the router");
    }
    // The inside and the loopback are not concerned.
    assert_open(&net.lan, "10.0.0.1".parse().unwrap(), 80);
    assert_open(&net.lan, "fd00:5::1".parse().unwrap(), 80);
    assert_udp_open(&net.lan, "10.0.0.1".parse().unwrap(), 53);
    assert_open(&net.router, "127.0.0.1".parse().unwrap(), 80);
    assert_open(&net.router, "203.0.113.1".parse().unwrap(), 80);
    // Neighbours are found anew.
    for (namespace, flags) in [(&net.a, "-4"), (&net.a, "-6"), (&net.router, "-4"), (&net.router, "-6")] {
        namespace.run("ip", &[flags, "neigh", "flush", "all"]).success();
    }
    for family in Family::BOTH {
        assert!(pings(&net.a, family.router(), &[]) && pings(&net.router, family.client_b(), &[]));
    }
    // Off and on again by reloading.
    home.rewrite_config(Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 600"]).text());
    agent.reload();
    for family in Family::BOTH {
        assert_echoes(&net.b, family.router(), 80);
        assert_silent(&net.b, family.router(), 2222);
    }
    home.rewrite_config(config(&["mark: 0"]).text());
    let open = dial(&net.b, (Family::V4.router(), 80).into(), GENEROUS).unwrap();
    agent.reload();
    assert_echo(open);
    for family in Family::BOTH {
        assert_silent(&net.b, family.router(), 80);
    }
}

#[test]
fn a_port_scan_finds_nothing_at_all() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 80, Habit::Echo), Server::tcp(&net.router, 22, Habit::Echo)];
    let home = Installation::new(&config(&[]));
    let _agent = home.start(&net.router);
    for kind in ["-sS", "-sF", "-sX", "-sN", "-sA", "-sM", "-sW"] {
        let ports = "1-100,2222,8080,8443";
        let args = [kind, "-Pn", "-n", "--max-retries", "1", "-T4", "-p", ports, "203.0.113.1"];
        let scan = net.b.run("nmap", &args).success().text();
        let odd: Vec<&str> = scan
            .lines()
            .filter(|line| line.contains("/tcp"))
            .filter(|line| !line.contains("filtered") || line.contains(" unfiltered"))
            .collect();
        // Only step 1 answers a SYN, and nothing else.
        let step1 = |line: &&str| kind == "-sS" && line.starts_with("8080/tcp");
        assert!(odd.iter().all(step1), "{kind}: {odd:?}");
    }
}

#[test]
fn pings_are_answered_but_not_floods() {
    let net = Topology::new();
    let home = Installation::new(&config(&[]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router().to_string();
        let flood = net.b.run("ping", &["-n", "-q", "-c", "300", "-i", "0.005", "-W", "1", &to]);
        let text = flood.text();
        let summary = text.lines().find(|line| line.contains("received")).expect("a summary");
        let received: u32 = summary
            .split(", ")
            .find(|part| part.contains("received"))
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!((10..100).contains(&received), "{summary}");
        assert!(pings(&net.a, family.router(), &[]), "another client is not concerned");
    }
}

/// Sends crafted packets and says which arrived at a socket or raw listener of the router.
const CRAFT: &str = r#"
import socket, sys
kind = sys.argv[1]
if kind == "dhcp4":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 67))
    s.sendto(b"offer", ("203.0.113.1", 68))
elif kind == "dhcp6":
    i = socket.if_nametoindex("eth0")
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("::", 547, 0, i))
    s.sendto(b"reply", (sys.argv[2], 546, 0, i))
elif kind == "fake6":
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.bind(("::", 547))
    s.sendto(b"reply", ("2001:db8:1::1", 546))
elif kind == "fake4":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 4067))
    s.sendto(b"offer", ("203.0.113.1", 68))
"#;

#[test]
fn answers_to_dhcp_come_in_from_where_they_come() {
    let net = Topology::new();
    let (four, six) = (Server::udp(&net.router, 68, Habit::Push), Server::udp(&net.router, 546, Habit::Push));
    let home = Installation::new(&config(&[]));
    let _agent = home.start(&net.router);
    let listing =
        net.router.run("ip", &["-6", "addr", "show", "dev", "ext0", "scope", "link"]).success().text();
    let link_local = listing.split_whitespace().find(|word| word.starts_with("fe80")).expect("an address");
    let link_local = link_local.split('/').next().unwrap();
    let send = |kind: &str| net.a.run("python3", &["-c", CRAFT, kind, link_local]).success();
    send("fake4");
    send("fake6");
    std::thread::sleep(Duration::from_millis(500));
    assert!(four.last_heard().is_none() && six.last_heard().is_none());
    send("dhcp4");
    send("dhcp6");
    std::thread::sleep(Duration::from_millis(500));
    assert!(four.last_heard().is_some(), "DHCP");
    assert!(six.last_heard().is_some(), "DHCPv6");
}

/// Listens to many on an interface, sends to them by it, and prints which of what it sent came back to it.
const TO_MANY: &str = r#"
import socket, struct
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
four.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
four.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
four.bind(("", 5353))
index = socket.if_nametoindex("ext0")
group = struct.pack("4s4si", socket.inet_aton("224.0.0.251"), bytes(4), index)
four.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
four.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", bytes(4), bytes(4), index))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
six.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
six.bind(("::", 5353))
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, "ff02::fb") + struct.pack("i", index))
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
def heard(s):
    s.settimeout(1)
    try:
        return s.recv(100).decode()
    except TimeoutError:
        return "-"
if __import__("sys").argv[1] == "own":
    four.sendto(b"group4", ("224.0.0.251", 5353))
    print(heard(four))
    four.sendto(b"all4", ("203.0.113.255", 5353))
    print(heard(four))
    six.sendto(b"group6", ("ff02::fb", 5353, 0, index))
    print(heard(six))
else:
    print("ready", flush=True)
    input()
    print(heard(four), heard(six))
"#;

#[test]
fn what_this_host_sends_to_many_comes_back_to_it_and_from_others_it_does_not_come_in() {
    let net = Topology::new();
    let home = Installation::new(&config(&[]));
    let _agent = home.start(&net.router);
    let own = || net.router.run("python3", &["-c", TO_MANY, "own"]).success().text();
    assert_eq!(own(), "group4\nall4\ngroup6\n");
    let mut command = std::process::Command::new("python3");
    command.args(["-c", TO_MANY, "others"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut listener = net.router.background(command);
    let mut lines = std::io::BufReader::new(listener.0.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let forge = Forge::new(&net.b);
    net.b.run("ip", &["route", "add", "224.0.0.0/4", "dev", "eth0"]).success();
    for port in [5353, 5999] {
        let six = "[ff02::fb]:5353".parse().unwrap();
        // In one's own name, and in the router's.
        for source in ["203.0.113.3", "203.0.113.1"] {
            let source = (source.parse::<IpAddr>().unwrap(), port).into();
            forge.datagram(source, "224.0.0.251:5353".parse().unwrap(), b"strange");
        }
        let source = ("2001:db8:1::3".parse::<IpAddr>().unwrap(), port).into();
        forge.datagram(source, six, b"strange");
    }
    forge.datagram("[2001:db8:1::1]:5999".parse().unwrap(), "[ff02::fb]:5353".parse().unwrap(), b"strange");
    listener.0.stdin.as_mut().unwrap().write_all(b"now\n").unwrap();
    line.clear();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "- -\n");
}

#[test]
fn the_path_mtu_is_learnt() {
    let net = Topology::new();
    let home = Installation::new(&config(&[]));
    let _agent = home.start(&net.router);
    // Behind client B lies a narrow link to an address of its own.
    for (flag, address) in [("-4", "192.0.2.9/32"), ("-6", "2001:db8:9::9/128")] {
        let (link, peer) = (format!("narrow{flag}"), format!("peer{flag}"));
        net.b.run("ip", &["link", "add", &link, "type", "veth", "peer", "name", &peer]).success();
        net.b.run("ip", &["link", "set", &peer, "up"]).success();
        net.b.run("ip", &["link", "set", &link, "mtu", "1300", "up"]).success();
        net.b.run("ip", &[flag, "route", "add", address, "dev", &format!("narrow{flag}")]).success();
        let via = if flag == "-4" { "203.0.113.3" } else { "2001:db8:1::3" };
        net.router.run("ip", &[flag, "route", "add", address, "via", via]).success();
    }
    net.b.sysctl("net/ipv4/ip_forward", "1");
    net.b.sysctl("net/ipv6/conf/all/forwarding", "1");
    for (flag, address) in [("-4", "192.0.2.9"), ("-6", "2001:db8:9::9")] {
        net.router.run("ping", &[flag, "-n", "-c", "2", "-W", "1", "-M", "do", "-s", "1400", address]);
        let route = net.router.run("ip", &[flag, "route", "get", address]).success().text();
        assert!(route.contains("mtu 1300"), "{flag}: {route}");
    }
}

/// Has the helper hear of a port, from a service that says what it is told, after a first line.
fn announce(control: &mut TcpStream, ports: &[u16]) {
    let mut say = |line: String| {
        control.write_all(line.as_bytes()).unwrap();
        let mut said = vec![0; line.len()];
        control.read_exact(&mut said).unwrap();
        assert_eq!(said, line.as_bytes());
    };
    say("220 ready\r\n".to_owned());
    for port in ports {
        say(format!("227 Entering Passive Mode (203,0,113,1,{},{}).\r\n", port >> 8, port & 255));
    }
}

/// The limit that decision 29 names, and where it ends.
#[test]
fn what_a_helper_waits_for_comes_in_for_who_was_let_in_where_nobody_guards_and_it_was_not_taken_back() {
    let net = Topology::new();
    net.router.nft(
        "table inet helpers {\n ct helper files { type \"ftp\" protocol tcp; }\n chain before { \
         type filter hook prerouting priority 0; policy accept; tcp dport 2222 ct helper set \"files\"; }\n}\n",
    );
    let _services = [2222, 3333, 50_000, 50_001].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let home = Installation::new(&config(&[]).app("web", "3333", "tcp", "local", &["established: keep"]));
    let _agent = home.start(&net.router);
    let (router, a) = (Family::V4.router(), Family::V4.client_a());
    let enter = |seconds| {
        home.grant(&net.router, "ssh", a, seconds);
        dial(&net.a, (router, 2222).into(), GENEROUS).unwrap()
    };
    announce(&mut enter(60), &[3333]);
    assert_silent(&net.a, router, 3333);
    home.verb(&net.router, &["revoke", "--all"]).success();

    let mut control = enter(2);
    announce(&mut control, &[50_000]);
    assert_silent(&net.a, router, 50_001);
    assert_silent(&net.b, router, 50_000);
    while time_left(&net.router, "ssh", a).is_some() {
        sleep(Duration::from_millis(100));
    }
    assert_silent(&net.a, router, 2222);
    let data = dial(&net.a, (router, 50_000).into(), GENEROUS).unwrap();
    home.verb(&net.router, &["revoke", "--all"]).success();
    assert_echo(data);
    assert_silent(&net.a, router, 50_000);

    announce(&mut enter(60), &[50_001]);
    home.verb(&net.router, &["revoke", "--all"]).success();
    assert_silent(&net.a, router, 50_001);
}
