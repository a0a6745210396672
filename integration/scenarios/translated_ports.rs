//! Several guarded ports that others translate (Docker, a rule of the host's own), and places that change their port.

use std::net::UdpSocket;
use std::time::Duration;

use crate::agent::{Agent, Installation};
use crate::backend::{Backend, on_every_firewall};
use crate::configuration::Config;
use crate::namespace::Namespace;
use crate::probe::udp_socket;
use crate::server::receive;
use crate::topology::{Family, Topology};

on_every_firewall! {
    two_ports_that_lead_to_one_place_do_not_shut_each_other_s_clients_out,
    who_may_use_the_port_that_a_place_had_before_may_not_use_the_one_it_has_now,
    another_range_of_ports_forgets_nothing,
    the_ports_of_one_client_leave_room_for_others,
}

const ONE: u16 = 5000;
const TWO: u16 = 5002;
/// Where the services are.
const PLACES: [u16; 2] = [5080, 5082];
const CLIENT: u16 = 7777;

/// Each port leads to one of the places.
fn publish(net: &Topology, one: u16, two: u16) {
    let mut rules = String::new();
    for (port, inside) in [(ONE, one), (TWO, two)] {
        let [lan4, lan6] = Family::BOTH.map(Family::lan);
        rules += &format!(
            "  meta nfproto ipv4 fib daddr type local udp dport {port} dnat ip to {lan4}:{inside}\n  \
             meta nfproto ipv6 fib daddr type local udp dport {port} dnat ip6 to [{lan6}]:{inside}\n"
        );
    }
    net.router.nft(&format!(
        "table inet publishing\ndelete table inet publishing\ntable inet publishing {{\n chain pre {{\n  type nat hook prerouting priority dstnat\n{rules} }}\n \
         chain post {{\n  type nat hook postrouting priority srcnat\n  iifname int0 oifname ext0 masquerade\n }}\n}}\n"
    ));
}

struct Host {
    net: Topology,
    home: Installation,
    agent: Agent,
}

impl Host {
    fn start(one: u16, two: u16) -> Self {
        let net = Topology::new();
        publish(&net, one, two);
        let home = Installation::new(&config("5000"));
        let agent = home.start(&net.router);
        Self { net, home, agent }
    }

    fn grant(&self, app: &str, client: std::net::IpAddr) {
        self.home.grant(&self.net.router, app, client, 600);
    }

    fn revoke(&self, app: &str, client: std::net::IpAddr) {
        self.home.verb(&self.net.router, &["revoke", app, &client.to_string()]).success();
    }

    fn tracking_forgets(&self) {
        self.net.router.run("conntrack", &["-F"]).success();
    }
}

fn config(one: &str) -> Config {
    let lasts = ["duration: 600"];
    Config::new(&[]).app("one", one, "udp", "local", &lasts).app("two", "5002", "udp", "local", &lasts)
}

fn socket(space: &Namespace, addr: std::net::IpAddr, port: u16) -> UdpSocket {
    let out = udp_socket(space, addr, port);
    out.set_read_timeout(Some(Duration::from_millis(400))).expect("a time limit");
    out
}

/// Whether what one sends there arrives at the other.
fn reaches(from: &UdpSocket, to: &UdpSocket, addr: std::net::IpAddr, port: u16) -> bool {
    let _ = from.send_to(b"hello", (addr, port));
    let first = receive(to, &mut [0; 64]).is_ok();
    while first && receive(to, &mut [0; 64]).is_ok() {}
    first
}

fn two_ports_that_lead_to_one_place_do_not_shut_each_other_s_clients_out() {
    for family in Family::BOTH {
        let host = Host::start(PLACES[0], PLACES[0]);
        let service = socket(&host.net.lan, family.lan(), PLACES[0]);
        let other = socket(&host.net.b, family.client_b(), CLIENT);
        let client = socket(&host.net.a, family.client_a(), CLIENT);
        host.grant("one", family.client_b());
        host.grant("two", family.client_a());
        assert!(reaches(&other, &service, family.router(), ONE));
        assert!(reaches(&client, &service, family.router(), TWO));
        host.tracking_forgets();
        assert!(reaches(&service, &client, family.client_a(), CLIENT), "it has a grant");
        assert!(reaches(&client, &service, family.router(), PLACES[0]), "its answer, too");
        // The same client by both ports: either will do, and none will not.
        host.grant("one", family.client_a());
        host.tracking_forgets();
        assert!(reaches(&client, &service, family.router(), ONE));
        for (gone, still) in [("one", true), ("two", false)] {
            host.revoke(gone, family.client_a());
            host.tracking_forgets();
            assert_eq!(reaches(&service, &client, family.client_a(), CLIENT), still, "without {gone}");
            assert_eq!(reaches(&client, &service, family.router(), PLACES[0]), still, "without {gone}");
        }
    }
}

fn who_may_use_the_port_that_a_place_had_before_may_not_use_the_one_it_has_now() {
    for family in Family::BOTH {
        let host = Host::start(PLACES[0], PLACES[1]);
        let services = PLACES.map(|port| socket(&host.net.lan, family.lan(), port));
        let client = socket(&host.net.a, family.client_a(), CLIENT);
        let other = socket(&host.net.b, family.client_b(), CLIENT);
        host.grant("one", family.client_a());
        let before = socket(&host.net.a, family.client_a(), 7000);
        assert!(reaches(&before, &services[0], family.router(), ONE));

        publish(&host.net, PLACES[1], PLACES[0]);
        host.tracking_forgets();
        host.grant("two", family.client_a());
        host.grant("two", family.client_b());
        assert!(reaches(&client, &services[0], family.router(), TWO));
        assert!(reaches(&other, &services[0], family.router(), TWO));
        host.tracking_forgets();
        assert!(reaches(&services[0], &other, family.client_b(), CLIENT), "it never had the other app");
        assert!(reaches(&other, &services[0], family.router(), PLACES[0]), "its answer, too");

        host.revoke("two", family.client_a());
        for _ in 0..3 {
            assert!(!reaches(&services[0], &client, family.client_a(), CLIENT), "to the client, {family:?}");
            assert!(
                !reaches(&client, &services[0], family.router(), PLACES[0]),
                "to the service, {family:?}"
            );
        }
    }
}

fn another_range_of_ports_forgets_nothing() {
    for family in Family::BOTH {
        let host = Host::start(PLACES[0], PLACES[1]);
        let service = socket(&host.net.lan, family.lan(), PLACES[0]);
        let client = socket(&host.net.a, family.client_a(), CLIENT);
        host.grant("one", family.client_a());
        assert!(reaches(&client, &service, family.router(), ONE));
        for range in ["\"4990-5001\"", "[\"4990-4999\", \"5000-5001\"]"] {
            host.home.rewrite_config(config(range).text());
            assert!(host.agent.reload().contains("STATUS=guarding\n"), "{}", host.home.log());
            host.tracking_forgets();
            assert!(reaches(&service, &client, family.client_a(), CLIENT), "the grant still counts");
        }
        host.revoke("one", family.client_a());
        host.tracking_forgets();
        for _ in 0..3 {
            assert!(!reaches(&service, &client, family.client_a(), CLIENT), "to the client, {family:?}");
            assert!(!reaches(&client, &service, family.router(), PLACES[0]), "to the service, {family:?}");
        }
    }
}

fn the_ports_of_one_client_leave_room_for_others() {
    let family = Family::V4;
    let host = Host::start(PLACES[0], PLACES[1]);
    let service = socket(&host.net.lan, family.lan(), PLACES[0]);
    host.grant("one", family.client_b());
    for port in 1..=u16::MAX {
        let one = udp_socket(&host.net.b, family.client_b(), port);
        one.send_to(b"and from here", (family.router(), ONE)).expect("sent");
    }
    while receive(&service, &mut [0; 64]).is_ok() {}
    host.grant("one", family.client_a());
    let clients = [9_000, 9_001, CLIENT].map(|port| socket(&host.net.a, family.client_a(), port));
    for client in &clients {
        assert!(reaches(client, &service, family.router(), ONE));
    }
    let list: &[&str] = match Backend::current() {
        Backend::Nftables => &["nft", "list", "set", "inet", "knock_agent", "behind_by_udp_5000_4"],
        _ => &["ipset", "list", "ka_behind_by_udp_5000_4"],
    };
    let without_room = host.net.router.run(list[0], &list[1..]).success().text();
    assert!(without_room.contains(&family.client_a().to_string()), "there was room: {without_room}");
    host.tracking_forgets();
    let [.., client] = &clients;
    assert!(reaches(&service, client, family.client_a(), CLIENT), "the grant still counts");
    host.revoke("one", family.client_a());
    host.tracking_forgets();
    assert!(!reaches(&service, client, family.client_a(), CLIENT), "to the client");
    assert!(!reaches(client, &service, family.router(), PLACES[0]), "to the service");
}
