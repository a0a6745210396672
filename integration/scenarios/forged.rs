//! Packets of strangers in the name of the gateway or of a LAN host, by which connections would be begun the wrong way
//! round: what the stranger sends next would be an answer.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::Installation;
use crate::backend::{Backend, on_every_firewall};
use crate::configuration::{Config, STEP1_PATH, http_key};
use crate::firewall::{admission_left, is_guarded, remove_guard};
use crate::forge::{FIRST_NUMBER, Forge, Said};
use crate::knocking::{STEP1_PORT, STEP2_PORT, form, knock};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, PATIENCE, assert_echoes, dial_from_port, udp_echoes, udp_echoes_from};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

use super::asymmetric::second_way;

on_every_firewall! {
    a_packet_in_the_name_of_a_guarded_port_turns_no_stranger_into_an_answer,
    nor_does_one_from_before_the_guard_or_from_while_it_was_missing,
    nor_does_one_from_before_a_guard_that_the_daemon_finds,
    nor_does_one_from_before_its_interface_was_outside,
    what_is_really_begun_from_a_guarded_range_outlasts_a_repair,
}

/// Connections that are tracked and that this port seems to have begun.
fn begun_by(host: &Namespace, address: IpAddr, port: u16) -> usize {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    let listed = host.run("conntrack", &["-L", "-f", family]).success().text();
    let address = address.to_string();
    let begins = |line: &str| {
        // The first of each is that of the first packet.
        let value =
            |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned);
        value("src=") == Some(address.clone()) && value("sport=") == Some(port.to_string())
    };
    listed.lines().filter(|line| begins(line)).count()
}

/// Tries both protocols from a port of the stranger's for which the packet was forged.
fn try_as(net: &Topology, service: SocketAddr, at: u16) {
    let forge = Forge::new(&net.b);
    let router = if service.is_ipv4() { Family::V4 } else { Family::V6 }.router();
    let me = if service.is_ipv4() { Family::V4 } else { Family::V6 }.client_b();
    assert!(forge.datagram_by(router, service, (me, at).into(), b"as if you had asked"));
    assert!(forge.syn_by(router, service, (me, at).into()));
    sleep(Duration::from_millis(200));
    assert_eq!(
        begun_by(&net.router, service.ip(), service.port()),
        0,
        "{service} seems to have begun something"
    );
    assert!(!udp_echoes_from(&net.b, at, service.ip(), service.port(), PATIENCE), "UDP {service}");
    let tcp = dial_from_port(&net.b, (me, at).into(), service);
    assert!(tcp.is_err(), "TCP {service}");
}

fn prepare(net: &Topology) {
    // IPv4 has checks of its own against this, which are not everywhere.
    for interface in ["all", "ext0"] {
        net.router.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0");
        net.router.sysctl(&format!("net/ipv4/conf/{interface}/accept_local"), "1");
    }
}

fn a_packet_in_the_name_of_a_guarded_port_turns_no_stranger_into_an_answer() {
    let net = Topology::new();
    prepare(&net);
    let _services = [
        Server::tcp(&net.router, 2222, Habit::Echo),
        Server::udp(&net.router, 2222, Habit::Echo),
        Server::tcp(&net.lan, 7000, Habit::Echo),
        Server::udp(&net.lan, 7000, Habit::Echo),
        Server::udp(&net.b, 9000, Habit::Echo),
    ];
    let config = Config::new(&[])
        .app("ssh", "[2222, 3333]", "both", "local", &[])
        .app("four", "6000", "both", "10.0.0.5:7000", &["masquerade: false"])
        .app("six", "6001", "both", "\"[fd00:5::5]:7000\"", &["masquerade: false"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for (family, at) in [(Family::V4, 21_000), (Family::V6, 21_100)] {
        try_as(&net, (family.router(), 2222).into(), at);
        try_as(&net, (family.router(), STEP2_PORT).into(), at + 1);
        try_as(&net, (family.lan(), 7000).into(), at + 2);
        if !Backend::current().is_iptables() {
            let counted =
                net.router.run("nft", &["list", "chain", "inet", "knock_agent", "forged"]).success().text();
            assert!(!counted.contains("packets 0 "), "{counted}");
        }
    }
    // Those that really begin, of the LAN host from another port and of this one from any, go on.
    let b = Family::V4.client_b();
    assert!(udp_echoes_from(&net.router, 3333, b, 9000, GENEROUS), "this host's own, from the guarded port");
    assert!(udp_echoes(&net.lan, b, 9000, GENEROUS), "the LAN host's own");
    knock(&net.a, Family::V6.router(), "ssh");
    assert_echoes(&net.a, Family::V6.router(), 2222);
}

fn nor_does_one_from_before_the_guard_or_from_while_it_was_missing() {
    let net = Topology::new();
    prepare(&net);
    let _services = [Server::udp(&net.router, 2222, Habit::Echo), Server::udp(&net.lan, 7000, Habit::Echo)];
    let config = Config::new(&["adopt_established: false"])
        .app("ssh", "2222", "both", "local", &[])
        .app("four", "6000", "both", "10.0.0.5:7000", &["masquerade: false"])
        .app("six", "6001", "both", "\"[fd00:5::5]:7000\"", &["masquerade: false"]);
    let home = Installation::new(&config);
    // Rules of the host's own by which connections are tracked, with the guard and without.
    net.router.nft("table inet of_the_host { chain forward { type filter hook forward priority 0; ct state new counter; }; chain input { type filter hook input priority 0; ct state new counter; }; }");
    let forge = Forge::new(&net.b);
    let claim = |at: u16| {
        for family in Family::BOTH {
            for service in [(family.router(), 2222), (family.lan(), 7000)] {
                let me = (family.client_b(), at).into();
                assert!(forge.datagram_by(family.router(), service.into(), me, b"as if you had asked"));
                eventually(|| begun_by(&net.router, service.0, service.1) > 0, "it passes without a guard");
            }
        }
    };
    let are_shut = |at: u16| {
        for family in Family::BOTH {
            for (ip, port) in [(family.router(), 2222), (family.lan(), 7000)] {
                eventually(|| begun_by(&net.router, ip, port) == 0, "it is forgotten");
                assert!(!udp_echoes_from(&net.b, at, ip, port, PATIENCE), "{ip} {port}");
            }
        }
    };
    claim(21_000);
    let agent = home.start(&net.router);
    are_shut(21_000);
    agent.signal(Signal::SIGSTOP);
    remove_guard(&net.router);
    claim(21_001);
    agent.signal(Signal::SIGCONT);
    are_shut(21_001);
    assert!(home.log().contains("in this host's name"), "{}", home.log());
}

fn nor_does_one_from_before_a_guard_that_the_daemon_finds() {
    let net = Topology::new();
    prepare(&net);
    let _service = Server::udp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::new(&[]).app("ssh", "2222", "both", "local", &[]));
    net.router.nft("table inet of_the_host { chain input { type filter hook input priority 0; ct state new counter; }; }");
    let (to, me) = (Family::V6.router(), Family::V6.client_b());
    let forge = Forge::new(&net.b);
    assert!(forge.datagram_by(to, (to, 2222).into(), (me, 21_000).into(), b"as if you had asked"));
    eventually(|| begun_by(&net.router, to, 2222) > 0, "it passes without a guard");
    let done = home.guard(&net.router).success();
    assert!(done.stderr.contains("in this host's name"), "{}", done.stderr);
    assert_eq!(begun_by(&net.router, to, 2222), 0);
    assert!(!udp_echoes_from(&net.b, 21_000, to, 2222, PATIENCE));
    let _agent = home.start(&net.router);
    assert!(!udp_echoes_from(&net.b, 21_000, to, 2222, PATIENCE));
}

fn nor_does_one_from_before_its_interface_was_outside() {
    let net = Topology::new();
    prepare(&net);
    let _service = Server::udp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&[]).app("ssh", "2222", "both", "local", &[]);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    // By then it has looked twice for what was there before its start.
    sleep(Duration::from_millis(1_500));
    let (inside, me) = ("fd00:5::1".parse().unwrap(), Family::V6.lan());
    let forge = Forge::new(&net.lan);
    assert!(forge.datagram_by(inside, (inside, 2222).into(), (me, 21_000).into(), b"as if you had asked"));
    eventually(|| begun_by(&net.router, inside, 2222) > 0, "it passes where nothing is guarded");
    let of_both = "interface_ext: [ext0, int0]\n";
    home.rewrite_config(&config.text().replace("interface_ext: ext0\n  interface_int: int0\n", of_both));
    assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    eventually(|| begun_by(&net.router, inside, 2222) == 0, "it is forgotten");
    assert!(!udp_echoes_from(&net.lan, 21_000, inside, 2222, PATIENCE));
}

fn echoes(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    stream.write_all(b"x").unwrap();
    matches!(stream.read(&mut [0; 1]), Ok(1))
}

/// Connections of TCP that the router and a LAN host began, from ports that happen to be guarded.
fn what_is_really_begun_from_a_guarded_range_outlasts_a_repair() {
    let net = Topology::new();
    let _server = Server::tcp(&net.b, 9001, Habit::Echo);
    let config = Config::new(&[])
        .app("ftp", "[21, 40000-41000]", "tcp", "local", &[])
        .app("four", "45000-46000", "tcp", "10.0.0.5", &["masquerade: false"])
        .app("six", "45000-46000", "tcp", "\"fd00:5::5\"", &["masquerade: false"]);
    let home = Installation::new(&config);
    let begun: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| {
            let to = (family.client_b(), 9001).into();
            let own = dial_from_port(&net.router, (family.router(), 40_848).into(), to).unwrap();
            let of_lan = dial_from_port(&net.lan, (family.lan(), 45_123).into(), to).unwrap();
            [own, of_lan]
        })
        .collect();
    let go_on = |when: &str| {
        for stream in &begun {
            assert!(echoes(stream), "{} {when}", stream.local_addr().unwrap());
        }
    };
    // Connection tracking knows it only where somebody asks it to.
    net.router.nft("table inet of_the_host { chain forward { type filter hook forward priority 0; ct state new counter; }; chain output { type filter hook output priority 0; ct state new counter; }; }");
    go_on("before");
    let _agent = home.start(&net.router);
    go_on("after the first start");
    remove_guard(&net.router);
    eventually(|| is_guarded(&net.router), "the guard comes back");
    sleep(Duration::from_millis(1500));
    go_on("after a repair");
}

/// Where answers go another way than the main one, by marks for example, nothing is to be told by that.
#[test]
fn nor_does_one_to_somebody_to_whom_the_main_way_leads_inside() {
    let net = Topology::new();
    prepare(&net);
    let _service = Server::udp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&[]).app("ssh", "2222", "udp", "local", &[]).app(
        "four",
        "6000",
        "udp",
        "10.0.0.5:7000",
        &["masquerade: false"],
    );
    let home = Installation::new(&config);
    net.router.nft("table inet of_the_host { chain forward { type filter hook forward priority 0; ct state new counter; }; }");
    // A tunnel by which everything goes.
    let tunnel = "link add vpn0 type veth peer name vpn1\nlink set vpn0 up\nlink set vpn1 up\nroute add 192.0.2.0/24 dev vpn0\n";
    net.router.feed("ip", &["-batch", "-"], tunnel.as_bytes()).success();
    let (me, router) = (IpAddr::from([192, 0, 2, 9]), Family::V4.router());
    for (ip, port) in [(router, 2222), (Family::V4.lan(), 7000)] {
        assert!(Forge::new(&net.b).datagram_by(router, (ip, port).into(), (me, 21_000).into(), b"as if"));
        eventually(|| begun_by(&net.router, ip, port) > 0, "it passes without a guard");
    }
    let _agent = home.start(&net.router);
    for (ip, port) in [(router, 2222), (Family::V4.lan(), 7000)] {
        eventually(|| begun_by(&net.router, ip, port) == 0, "it is forgotten");
    }
}

fn eventually(holds: impl Fn() -> bool, what: &str) {
    let end = Instant::now() + GENEROUS;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(100));
    }
}

/// A container of Docker's, which drops what comes straight to it: the port that is guarded here leads there.
fn publish(net: &Topology) {
    for (ip, lan, at, network) in
        [("ip", "10.0.0.5", "10.0.0.5", "10.0.0.0/24"), ("ip6", "fd00:5::5", "[fd00:5::5]", "fd00:5::/64")]
    {
        net.router.nft(&format!(
            "table {ip} of_docker {{\n\
             chain direct {{\ntype filter hook prerouting priority raw;\niifname != int0 {ip} daddr {lan} drop\n}}\n\
             chain prerouting {{\ntype nat hook prerouting priority dstnat;\n\
             fib daddr type local tcp dport 3080 dnat to {at}:80\n\
             fib daddr type local udp dport 3080 dnat to {at}:80\n}}\n\
             chain postrouting {{\ntype nat hook postrouting priority srcnat;\n\
             {ip} saddr {network} oifname != int0 masquerade\n}}\n}}\n"
        ));
    }
}

/// What the host sends on in its own name seems to be its own.
#[test]
fn nor_does_one_in_the_name_of_where_others_translate_a_guarded_port_to() {
    let net = Topology::new();
    prepare(&net);
    publish(&net);
    let _services = [
        Server::tcp(&net.lan, 80, Habit::Echo),
        Server::udp(&net.lan, 80, Habit::Echo),
        Server::udp(&net.b, 9000, Habit::Echo),
    ];
    let forge = Forge::new(&net.b);
    let begin = |family: Family, at: u16| {
        let (container, me) = ((family.lan(), 80).into(), (family.client_b(), at).into());
        assert!(forge.datagram_by(family.router(), container, me, b"as if you had asked"));
        assert!(forge.syn_by(family.router(), container, me));
        sleep(Duration::from_millis(200));
    };
    for family in Family::BOTH {
        begin(family, 21_000);
        assert!(udp_echoes_from(&net.b, 21_000, family.router(), 80, GENEROUS), "without a guard");
    }
    let home = Installation::new(&Config::new(&[]).app("web", "3080", "both", "local", &[]));
    let _agent = home.start(&net.router);
    net.router.run("conntrack", &["-F"]).success();
    for family in Family::BOTH {
        begin(family, 21_001);
        assert_eq!(begun_by(&net.router, family.lan(), 80), 0, "{family:?}");
        assert!(!udp_echoes_from(&net.b, 21_001, family.router(), 80, PATIENCE), "{family:?}");
        // What it really begins goes on, and so does who is let in.
        assert!(udp_echoes_from(&net.lan, 81, family.client_b(), 9000, GENEROUS), "the container's own");
        knock(&net.a, family.router(), "web");
        assert_echoes(&net.a, family.router(), 3080);
    }
}

#[test]
fn nor_where_rules_of_routing_ask_for_the_incoming_interface() {
    let net = Topology::new();
    prepare(&net);
    publish(&net);
    let (beyond, at) = (IpAddr::from([192, 0, 2, 9]), 21_000);
    net.b.run("ip", &["addr", "add", "192.0.2.9", "dev", "lo"]).success();
    let rules = ["ext0", "int0"].map(|name| format!("rule add iif {name} lookup 100\n")).concat();
    let routes = format!("{rules}route add 192.0.2.9 via 203.0.113.3 table 100\n");
    net.router.feed("ip", &["-batch", "-"], routes.as_bytes()).success();
    let _service = Server::udp(&net.b, 9000, Habit::Echo);
    let forge = Forge::new(&net.b);
    let container = SocketAddr::from(([10, 0, 0, 5], 80));
    let begin = || {
        let router = Family::V4.router();
        assert!(forge.datagram_by(router, container, (beyond, at).into(), b"as if you had asked"));
        sleep(Duration::from_millis(200));
        begun_by(&net.router, container.ip(), container.port())
    };
    assert_eq!(begin(), 1, "without a guard");
    let home = Installation::new(&Config::new(&[]).app("web", "3080", "both", "local", &[]));
    let _agent = home.start(&net.router);
    net.router.run("conntrack", &["-F"]).success();
    assert_eq!(begin(), 0, "with it");
    assert!(udp_echoes_from(&net.lan, 81, Family::V4.client_b(), 9000, GENEROUS), "the container's own");
    assert!(udp_echoes(&net.a, beyond, 9000, GENEROUS), "of others outside");
}

/// A host beyond client b, by way of the router and out by where it came in.
fn beyond(net: &Topology, family: Family) -> IpAddr {
    let (beyond, here): (IpAddr, _) = match family {
        Family::V4 => ([192, 0, 2, 9].into(), "203.0.113.3"),
        Family::V6 => ("2001:db8:9::9".parse().unwrap(), "2001:db8:1::3"),
    };
    let text = beyond.to_string();
    net.b.run("ip", &["addr", "add", &text, "dev", "lo"]).success();
    net.router.run("ip", &["route", "add", &text, "via", here]).success();
    // Nobody tells the client of the shorter way.
    for (sysctl, interface) in [("ipv4", "all"), ("ipv4", "eth0"), ("ipv6", "eth0")] {
        net.a.sysctl(&format!("net/{sysctl}/conf/{interface}/accept_redirects"), "0");
    }
    beyond
}

#[track_caller]
fn assert_passes_by(net: &Topology, to: IpAddr) {
    net.router.run("conntrack", &["-F"]).success();
    assert!(udp_echoes(&net.a, to, 9000, GENEROUS), "{to}");
    assert_echoes(&net.a, to, 9001);
    let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
    let seen = net.router.run("conntrack", &["-L", "-f", family]).success().text();
    assert!(seen.contains(&format!("dst={to} ")), "by the router: {seen}");
}

/// What passes from outside to outside is dropped only where it claims to be from inside.
#[test]
fn what_goes_out_again_is_let_through_whichever_outside_way_leads_back() {
    let net = Topology::new();
    let _services = [Server::udp(&net.b, 9000, Habit::Echo), Server::tcp(&net.b, 9001, Habit::Echo)];
    let config = Config::new(&[]).app("web", "3080", "both", "local", &[]);
    let both = config.text().replacen("interface_ext: ext0", "interface_ext: [ext0, ext1]", 1);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    let hosts = Family::BOTH.map(|family| beyond(&net, family));
    hosts.into_iter().for_each(|to| assert_passes_by(&net, to));
    second_way(&net);
    home.rewrite_config(&both);
    agent.reload();
    hosts.into_iter().for_each(|to| assert_passes_by(&net, to));
    let counted = net.router.run("nft", &["list", "chain", "inet", "knock_agent", "forged"]).success().text();
    assert!(counted.contains("packets 0 "), "{counted}");
}

/// A guest on a bridge of the router, whose outside interface it is; client b speaks to it from an address of the inside network.
fn bridge(net: &Topology) -> Namespace {
    let guest = Namespace::new("guest");
    let feed = |host: &Namespace, text: &str| {
        host.feed("ip", &["-batch", "-"], text.as_bytes()).success();
    };
    let port = format!("link add vm0 type veth peer name eth0 netns {}\n", guest.name());
    let bridge = "link add br9 type bridge mcast_snooping 0\nlink set br9 up\naddr flush dev ext0\n\
        link set ext0 master br9\nlink set vm0 master br9\nlink set vm0 up\n\
        addr add 203.0.113.1/24 dev br9\naddr add 2001:db8:1::1/64 dev br9 nodad\n";
    feed(&net.router, &format!("{port}{bridge}"));
    let inside = "link set eth0 up\naddr add 203.0.113.60/24 dev eth0\naddr add 2001:db8:1::60/64 dev eth0 nodad\n\
        route add 10.0.0.77 via 203.0.113.3\nroute add fd00:5::77 via 2001:db8:1::3\n";
    feed(&guest, inside);
    let client = "addr add 10.0.0.77 dev lo\naddr add fd00:5::77 dev lo nodad\n\
        route add 203.0.113.60 dev eth0 src 10.0.0.77\nroute add 2001:db8:1::60 dev eth0 src fd00:5::77\n";
    feed(&net.b, client);
    guest
}

/// A packet between two others that a bridge of this host carries, and rules see all the same.
#[test]
fn what_is_bridged_is_let_through_whatever_our_routes_say() {
    let net = Topology::new();
    let guest = bridge(&net);
    let _service = Server::udp(&guest, 9000, Habit::Echo);
    for tables in ["iptables", "ip6tables"] {
        let seen = format!("net.bridge.bridge-nf-call-{tables}=1");
        assert_eq!(
            net.router.run("sysctl", &["-w", &seen]).code,
            Some(0),
            "this test cannot run here: no rule sees what is bridged (modprobe br_netfilter, which changes that for all bridges)"
        );
    }
    let config = Config::new(&[]).app("web", "3080", "both", "local", &[]);
    let home = Installation::with_text(&config.text().replace("interface_ext: ext0", "interface_ext: br9"));
    let _agent = home.start(&net.router);
    for to in ["203.0.113.60", "2001:db8:1::60"] {
        assert!(udp_echoes(&net.b, to.parse().unwrap(), 9000, GENEROUS), "{to}");
    }
    let seen = net.router.run("conntrack", &["-L"]).success().text();
    assert!(seen.contains("src=10.0.0.77 dst=203.0.113.60 "), "{seen}");
}

/// A helper that the host uses waits for the connection that a stranger's request for a file announces: from any port of
/// the gateway's to where the request came from.
#[test]
fn nor_does_one_that_a_helper_of_connection_tracking_waits_for() {
    let net = Topology::new();
    prepare(&net);
    net.router.nft(
        "table inet helpers {\n ct helper files { type \"tftp\" protocol udp; }\n chain before { \
         type filter hook prerouting priority 0; policy accept; udp dport 69 ct helper set \"files\"; }\n}\n",
    );
    let _services = [Server::udp(&net.router, 2222, Habit::Echo), Server::udp(&net.router, 69, Habit::Echo)];
    let home = Installation::new(&Config::new(&[]).app("dns", "2222", "udp", "local", &[]));
    let _agent = home.start(&net.router);
    for (family, at) in [(Family::V4, 21_000), (Family::V6, 21_100)] {
        let (me, router) = (family.client_b(), family.router());
        net.b.enter(|| {
            let socket = UdpSocket::bind((me, at)).unwrap();
            socket.send_to(b"\0\x01file\0octet\0", (router, 69)).unwrap();
        });
        let end = Instant::now() + GENEROUS;
        let of = if me.is_ipv4() { "ipv4" } else { "ipv6" };
        while !net
            .router
            .run("conntrack", &["-L", "expect", "-f", of])
            .text()
            .contains(&format!("dport={at}"))
        {
            assert!(Instant::now() < end, "the helper waits for nothing");
            sleep(Duration::from_millis(20));
        }
        assert!(Forge::new(&net.b).datagram_by(router, (router, 2222).into(), (me, at).into(), b"as if"));
        sleep(Duration::from_millis(200));
        assert!(!udp_echoes_from(&net.b, at, router, 2222, PATIENCE), "UDP {router}");
    }
    let counted = net.router.run("nft", &["list", "chain", "inet", "knock_agent", "forged"]).success().text();
    assert!(!counted.contains("packets 0 "), "{counted}");
}

#[test]
fn nor_does_one_in_the_name_of_any_port_where_the_whole_host_is_closed() {
    let net = Topology::new();
    prepare(&net);
    let _services =
        [Server::tcp(&net.router, 9999, Habit::Echo), Server::udp(&net.router, 9999, Habit::Echo)];
    let config = Config::new(&["default_input: drop"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for (family, at) in [(Family::V4, 21_000), (Family::V6, 21_100)] {
        try_as(&net, (family.router(), 9999).into(), at);
    }
    // The address that all routers of the network have.
    let anycast: IpAddr = "2001:db8:1::".parse().unwrap();
    try_as(&net, (anycast, 9999).into(), 21_200);
}

#[test]
fn a_first_packet_that_holds_a_request_makes_no_step_whatever_fast_open_is_told() {
    let net = Topology::new();
    // A server, without cookies, on all sockets that listen (ip-sysctl).
    net.router.sysctl("net/ipv4/tcp_fastopen", "1539");
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    let body = form("ssh", &http_key("ssh"));
    let request = format!(
        "POST {STEP1_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let begin = Said { flags: 2, sequence: FIRST_NUMBER, acknowledged: 0 };
    let forge = Forge::new(&net.b);
    for (family, somebody) in [(Family::V4, "203.0.113.77"), (Family::V6, "2001:db8:1::77")] {
        let source: IpAddr = somebody.parse().unwrap();
        let to = (family.router(), STEP1_PORT).into();
        assert!(forge.segment((source, 20_000).into(), to, &begin, request.as_bytes()));
        sleep(Duration::from_secs(1));
        assert!(admission_left(&net.router, source).is_none(), "{somebody} never said anything");
        knock(&net.a, family.router(), "ssh");
    }
}
