//! Services on a LAN host: reachable while granted, and no way around.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::capture::Capture;
use crate::configuration::Config;
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{
    Reach, assert_echoes, assert_on_time, assert_open, assert_silent, assert_udp_open, assert_udp_silent,
    tcp, when_silent,
};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_lan_service_is_reachable_while_granted_over_ipv4,
    a_lan_service_is_reachable_while_granted_over_ipv6,
    the_lan_hosts_own_address_and_port_is_no_way_around,
    the_lan_host_sees_the_router_unless_masquerade_is_off,
    of_two_apps_with_one_destination_each_has_its_own_masquerade,
    a_grant_for_one_family_forwards_nothing_of_the_other,
    hosts_of_the_lan_are_not_guarded_against_each_other_and_the_router,
}

without_ipset! {
    a_lan_service_is_reachable_while_granted_over_ipv4,
    a_lan_service_is_reachable_while_granted_over_ipv6,
    the_lan_hosts_own_address_and_port_is_no_way_around,
    the_lan_host_sees_the_router_unless_masquerade_is_off,
    of_two_apps_with_one_destination_each_has_its_own_masquerade,
    a_grant_for_one_family_forwards_nothing_of_the_other,
    hosts_of_the_lan_are_not_guarded_against_each_other_and_the_router,
}

/// One app per family, as a LAN destination has one: port 2222 to port 22, and udp 5555 to the same port.
fn forwarding(more: &[&str]) -> Config {
    Config::new(&[])
        .app("tcp4", "2222", "tcp", "10.0.0.5:22", more)
        .app("udp4", "5555", "udp", "10.0.0.5", more)
        .app("tcp6", "2222", "tcp", "\"[fd00:5::5]:22\"", more)
        .app("udp6", "5555", "udp", "\"fd00:5::5\"", more)
}

fn apps(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("tcp4", "udp4"),
        Family::V6 => ("tcp6", "udp6"),
    }
}

fn open_forwarded(family: Family) {
    let net = Topology::new();
    let _services = [Server::tcp(&net.lan, 22, Habit::Echo), Server::udp(&net.lan, 5555, Habit::Echo)];
    let home = Installation::new(&forwarding(&["duration: 8"]));
    let _agent = home.start(&net.router);
    let (to, (tcp_app, udp_app)) = (family.router(), apps(family));
    assert_silent(&net.a, to, 2222);
    assert_udp_silent(&net.a, to, 5555);
    knock(&net.a, to, udp_app);
    assert_udp_open(&net.a, to, 5555);
    assert_udp_silent(&net.b, to, 5555);
    assert_silent(&net.a, to, 2222);
    knock(&net.a, to, tcp_app);
    let due = Instant::now() + Duration::from_secs(8);
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
    assert_udp_silent(&net.a, to, 5555);
}

fn a_lan_service_is_reachable_while_granted_over_ipv4() {
    open_forwarded(Family::V4);
}

fn a_lan_service_is_reachable_while_granted_over_ipv6() {
    open_forwarded(Family::V6);
}

fn the_lan_hosts_own_address_and_port_is_no_way_around() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.lan, 22, Habit::Echo), Server::tcp(&net.lan, 80, Habit::Echo)];
    let udp = Server::udp(&net.lan, 5555, Habit::Echo);
    for family in Family::BOTH {
        assert_echoes(&net.b, family.lan(), 22);
        assert_udp_open(&net.b, family.lan(), 5555);
    }
    let home = Installation::new(&forwarding(&["duration: 60"]));
    let _agent = home.start(&net.router);
    // Not only do no answers come back: what needs none must not arrive either.
    let heard = udp.last_heard();
    let capture = Capture::start(&net.lan, "eth0", "port 22 or port 5555");
    for family in Family::BOTH {
        assert_silent(&net.b, family.lan(), 22);
        assert_udp_silent(&net.b, family.lan(), 5555);
        assert_silent(&net.b, family.router(), 2222);
        assert_udp_silent(&net.b, family.router(), 5555);
    }
    assert_eq!(udp.last_heard(), heard);
    assert_eq!(capture.stop(), []);
    for family in Family::BOTH {
        let (tcp_app, udp_app) = apps(family);
        knock(&net.a, family.router(), tcp_app);
        knock(&net.a, family.router(), udp_app);
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.lan(), 22);
        assert_udp_silent(&net.b, family.lan(), 5555);
        assert_silent(&net.b, family.router(), 2222);
        // What is not a guarded destination is routed as before.
        assert_echoes(&net.b, family.lan(), 80);
    }
}

/// The address that a connection from client A has when it arrives at the LAN host.
pub fn address_seen(net: &Topology, family: Family, port: u16) -> IpAddr {
    let end = Instant::now() + Duration::from_secs(20);
    // A process that another test is just about to start may have the last listener for a moment.
    let listener = loop {
        match net.lan.enter(|| std::net::TcpListener::bind(("::", 22))) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(50));
            }
            bound => break bound.unwrap(),
        }
    };
    assert_eq!(tcp(&net.a, (family.router(), port).into(), Duration::from_secs(4)), Reach::Open);
    listener.accept().unwrap().1.ip().to_canonical()
}

fn the_lan_host_sees_the_router_unless_masquerade_is_off() {
    for (masquerade, expected) in [(true, "10.0.0.1"), (false, "203.0.113.2")] {
        let net = Topology::new();
        let line = format!("masquerade: {masquerade}");
        let more: &[&str] = if masquerade { &[] } else { &[&line] };
        let home = Installation::new(&forwarding(more));
        let _agent = home.start(&net.router);
        home.grant(&net.router, "tcp4", Family::V4.client_a(), 10);
        home.grant(&net.router, "tcp6", Family::V6.client_a(), 10);
        assert_eq!(address_seen(&net, Family::V4, 2222).to_string(), expected);
        let seen = address_seen(&net, Family::V6, 2222);
        assert_eq!(seen == Family::V6.client_a(), !masquerade, "{seen}");
    }
}

fn of_two_apps_with_one_destination_each_has_its_own_masquerade() {
    let net = Topology::new();
    let usual = ["duration: 60"];
    let own = ["duration: 60", "masquerade: false"];
    let config = Config::new(&[])
        .app("as_us4", "2222", "tcp", "10.0.0.5:22", &usual)
        .app("as_them4", "2224", "tcp", "10.0.0.5:22", &own)
        .app("as_us6", "2222", "tcp", "\"[fd00:5::5]:22\"", &usual)
        .app("as_them6", "2224", "tcp", "\"[fd00:5::5]:22\"", &own);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let client = family.client_a();
        for app in ["as_us", "as_them"] {
            home.grant(&net.router, &format!("{app}{}", family.digit()), client, 60);
        }
        assert_ne!(address_seen(&net, family, 2222), client);
        assert_eq!(address_seen(&net, family, 2224), client);
    }
}

fn a_grant_for_one_family_forwards_nothing_of_the_other() {
    let net = Topology::new();
    let _service = Server::tcp(&net.lan, 22, Habit::Echo);
    let config = Config::new(&[]).app("tcp4", "2222", "tcp", "10.0.0.5:22", &["duration: 60"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "tcp4");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_ne!(
        tcp(&net.a, (Family::V6.router(), 2222).into(), Duration::from_secs(1)),
        Reach::Open,
        "the service has no IPv6 address"
    );
}

fn hosts_of_the_lan_are_not_guarded_against_each_other_and_the_router() {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.lan, 22, Habit::Echo),
        Server::udp(&net.lan, 5555, Habit::Echo),
        Server::tcp(&net.router, 3333, Habit::Echo),
    ];
    let config = forwarding(&[]).app("local", "3333", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let inside = |from: &Namespace, to: &str, port: u16| assert_open(from, to.parse().unwrap(), port);
    for family in Family::BOTH {
        assert_open(&net.router, family.lan(), 22);
        assert_udp_open(&net.router, family.lan(), 5555);
    }
    inside(&net.lan, "10.0.0.1", 3333);
    inside(&net.lan, "fd00:5::1", 3333);
    inside(&net.router, "127.0.0.1", 3333);
    inside(&net.router, "203.0.113.1", 3333);
    inside(&net.router, "::1", 3333);
    assert_silent(&net.a, Family::V4.router(), 3333);
}
