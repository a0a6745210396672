//! Traffic that only looks like that of a guarded service, and services that somebody else's rules forward.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::elements;
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{
    GENEROUS, assert_echo, assert_echoes, assert_on_time, assert_open, assert_silent, assert_udp_open,
    assert_udp_silent, dial_from_port, udp_echoes_from, udp_socket, when_silent,
};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    outgoing_connections_may_use_a_guarded_port_as_their_source,
    a_routed_lan_host_may_use_a_guarded_port_as_its_source,
    a_service_that_another_table_forwards_is_guarded,
    ports_that_nobody_asked_to_guard_are_left_alone,
    an_address_that_others_forward_is_not_ours_even_at_a_guarded_port_number,
    what_the_host_sends_to_many_comes_back_to_its_own_programs,
}

#[track_caller]
fn assert_reaches_from(from: &Namespace, source: u16, to: IpAddr) {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let stream = dial_from_port(from, (any.ip(), source).into(), (to, 7).into())
        .unwrap_or_else(|e| panic!("tcp from port {source} of {} to {to}: {e}", from.name()));
    assert_echo(stream);
    assert!(
        udp_echoes_from(from, source, to, 7, GENEROUS),
        "udp from port {source} of {} to {to}",
        from.name()
    );
}

fn outgoing_connections_may_use_a_guarded_port_as_their_source() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.a, 7, Habit::Echo), Server::udp(&net.a, 7, Habit::Echo)];
    net.router.nft(
        "table inet of_the_host { chain out { type nat hook postrouting priority srcnat; oifname ext0 masquerade; }; }",
    );
    let config = Config::new(&[])
        .app("local", "40000", "both", "local", &[])
        .app("lan4", "40001", "both", "10.0.0.5", &[])
        .app("lan6", "40001", "both", "\"fd00:5::5\"", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        for port in [40000, 40001, 8080, 8443] {
            assert_reaches_from(&net.lan, port, family.client_a());
        }
        for port in [40000, 40001] {
            assert_reaches_from(&net.router, port, family.client_a());
        }
        assert_silent(&net.a, family.router(), 40000);
        assert_udp_silent(&net.a, family.router(), 40000);
    }
}

fn a_routed_lan_host_may_use_a_guarded_port_as_its_source() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.a, 7, Habit::Echo), Server::udp(&net.a, 7, Habit::Echo)];
    let config = Config::new(&[])
        .app("local", "40000", "both", "local", &[])
        .app("lan4", "40001", "both", "10.0.0.5", &[])
        .app("lan6", "40001", "both", "\"fd00:5::5\"", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_reaches_from(&net.lan, 40000, family.client_a());
        assert_reaches_from(&net.lan, 40001, family.client_a());
    }
}

fn a_service_that_another_table_forwards_is_guarded() {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.lan, 80, Habit::Echo),
        Server::udp(&net.lan, 53, Habit::Echo),
        Server::tcp(&net.lan, 81, Habit::Echo),
    ];
    for (table, lan) in [("ip", "10.0.0.5"), ("ip6", "[fd00:5::5]")] {
        net.router.nft(&format!(
            "table {table} of_docker {{\n\
             \tchain prerouting {{\n\t\ttype nat hook prerouting priority dstnat\n\
             \t\tfib daddr type local tcp dport 3080 dnat to {lan}:80\n\
             \t\tfib daddr type local udp dport 3053 dnat to {lan}:53\n\
             \t\tfib daddr type local tcp dport 3081 dnat to {lan}:81\n\t}}\n\
             \tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat\n\
             \t\toifname int0 masquerade\n\t}}\n}}\n"
        ));
    }
    assert_echoes(&net.a, Family::V4.router(), 3080);
    let config = Config::new(&[]).app("web", "3080", "tcp", "local", &["duration: 8"]).app(
        "dns",
        "3053",
        "udp",
        "local",
        &["duration: 60"],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router();
        assert_silent(&net.a, to, 3080);
        assert_udp_silent(&net.a, to, 3053);
        assert_echoes(&net.a, to, 3081);
        knock(&net.a, to, "web");
        let due = Instant::now() + Duration::from_secs(8);
        assert_echoes(&net.a, to, 3080);
        assert_silent(&net.b, to, 3080);
        knock(&net.a, to, "dns");
        assert_udp_open(&net.a, to, 3053);
        assert_udp_silent(&net.b, to, 3053);
        assert_on_time(when_silent(&net.a, to, 3080, due + Duration::from_secs(3)), due);
    }
}

fn ports_that_nobody_asked_to_guard_are_left_alone() {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.router, 80, Habit::Echo),
        Server::udp(&net.router, 80, Habit::Echo),
        Server::udp(&net.router, 2222, Habit::Echo),
        Server::udp(&net.router, 8080, Habit::Echo),
        Server::udp(&net.router, 8443, Habit::Echo),
    ];
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_open(&net.a, family.router(), 80);
        for port in [80, 2222, 8080, 8443] {
            assert_udp_open(&net.a, family.router(), port);
        }
    }
}

fn an_address_that_others_forward_is_not_ours_even_at_a_guarded_port_number() {
    let net = Topology::new();
    let _server = Server::tcp(&net.lan, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    net.a.run("ip", &["route", "add", "198.51.100.7/32", "via", "203.0.113.1"]).success();
    net.router.nft(
        "table ip one_to_one { chain pre { type nat hook prerouting priority dstnat; ip daddr 198.51.100.7 dnat to 10.0.0.5; }; }",
    );
    let there: IpAddr = [198, 51, 100, 7].into();
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_echoes(&net.a, there, 2222);
}

/// A prefix that is delegated to this host and not in use is unreachable; so is what nobody may use in IPv4.
#[test]
fn strangers_cannot_fill_the_memory_of_this_host_s_addresses() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    for (family, prefix) in [("-4", "198.51.100.0/24"), ("-6", "2001:db8:51::/48")] {
        net.router.run("ip", &[family, "route", "add", "unreachable", prefix]).success();
    }
    net.a.run("ip", &["-4", "route", "replace", "198.51.100.0/24", "via", "203.0.113.1"]).success();
    net.a.run("ip", &["-6", "route", "replace", "2001:db8:51::/48", "via", "2001:db8:1::1"]).success();
    let known = || ["own_4", "own_6"].map(|set| elements(&net.router, set).len());
    let before = known();
    for family in Family::BOTH {
        let socket = udp_socket(&net.a, family.client_a(), 0);
        for host in 1..100_u16 {
            let to: IpAddr = match family {
                Family::V4 => [198, 51, 100, host as u8].into(),
                Family::V6 => [0x2001, 0xdb8, 0x51, 0, 0, 0, 0, host].into(),
            };
            for port in [9, 2222] {
                let _ = socket.send_to(b"x", (to, port));
            }
        }
    }
    let counters = net.router.run("nft", &["list", "chain", "inet", "knock_agent", "svc_tcp_2222"]).success();
    assert!(
        known().iter().zip(before).all(|(now, before)| *now <= before + 8),
        "{before:?} became {:?}: {}",
        known(),
        counters.text()
    );
}

fn what_the_host_sends_to_many_comes_back_to_its_own_programs() {
    let net = Topology::new();
    let home = Installation::new(&Config::new(&[]).app("ssh", "2222", "both", "local", &[]));
    let _agent = home.start(&net.router);
    let listed = net.router.run("ip", &["-o", "link", "show", "ext0"]).success().text();
    let index: u32 = listed.split(':').next().unwrap().parse().unwrap();
    let (group, six): (Ipv4Addr, Ipv6Addr) = ("239.1.2.3".parse().unwrap(), "ff02::1234".parse().unwrap());
    net.router.run("ip", &["route", "add", "239.0.0.0/8", "dev", "ext0"]).success();
    net.router.enter(|| {
        let four = UdpSocket::bind("0.0.0.0:7777").unwrap();
        four.join_multicast_v4(&group, &"203.0.113.1".parse().unwrap()).unwrap();
        four.set_broadcast(true).unwrap();
        let sixth = UdpSocket::bind("[::]:7778").unwrap();
        sixth.join_multicast_v6(&six, index).unwrap();
        let tries: [(&UdpSocket, SocketAddr); 3] = [
            (&four, (group, 7777).into()),
            (&four, ([203, 0, 113, 255], 7777).into()),
            (&sixth, SocketAddrV6::new(six, 7778, 0, index).into()),
        ];
        for (socket, to) in tries {
            socket.set_read_timeout(Some(GENEROUS)).unwrap();
            socket.send_to(b"to many", to).unwrap();
            let mut heard = [0; 16];
            let (length, from) = socket.recv_from(&mut heard).unwrap_or_else(|e| panic!("{to}: {e}"));
            assert_eq!(&heard[..length], b"to many", "{to} from {from}");
        }
    });
}
