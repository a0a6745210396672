//! Two ways to the world: requests come in by one outside interface, replies leave by the other.

use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::probe::{assert_echoes, assert_on_time, assert_silent, udp_socket};
use crate::server::{Habit, Server, TICK, last_piece};
use crate::topology::{Family, Topology};

on_every_firewall! {
    replies_by_another_interface_reach_who_was_let_in_and_end_with_the_grant,
}

/// The router's second way out, straight to client a.
pub(super) fn second_way(net: &Topology) {
    let link = format!("link add ext1 type veth peer name eth1 netns {}\n", net.a.name());
    let here =
        "addr add 198.51.100.1/24 dev ext1\naddr add 2001:db8:2::1/64 dev ext1 nodad\nlink set ext1 up\n";
    let there = "addr add 198.51.100.2/24 dev eth1\naddr add 2001:db8:2::2/64 dev eth1 nodad\nlink set eth1 up\n\
                 route add 198.51.100.1/32 dev eth1 src 203.0.113.2\nroute add 2001:db8:2::1/128 dev eth1 src 2001:db8:1::2\n";
    // What is for the client's usual address goes the other way.
    let back = "route add 203.0.113.2/32 via 198.51.100.2 src 203.0.113.1\nroute add 2001:db8:1::2/128 via 2001:db8:2::2 src 2001:db8:1::1\n";
    let batch = |host: &crate::namespace::Namespace, text: &str| {
        host.feed("ip", &["-batch", "-"], text.as_bytes()).success();
    };
    batch(&net.router, &format!("{link}{here}"));
    batch(&net.a, there);
    batch(&net.router, back);
    for name in ["all", "ext0", "ext1"] {
        net.router.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
    }
    for name in ["all", "eth0", "eth1"] {
        net.a.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
    }
}

fn config() -> Config {
    let (first, second) = (["interface_ext: ext0", "duration: 60"], ["interface_ext: ext1", "duration: 60"]);
    let config = Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &first)
        .app("other", "2222", "tcp", "local", &second)
        .app("stream", "7001", "udp", "local", &first);
    Config::with_text(&config.text().replacen("interface_ext: ext0", "interface_ext: [ext0, ext1]", 1))
}

fn replies_by_another_interface_reach_who_was_let_in_and_end_with_the_grant() {
    let net = Topology::new();
    second_way(&net);
    let _services =
        [Server::tcp(&net.router, 2222, Habit::Echo), Server::udp(&net.router, 7001, Habit::Push)];
    let home = Installation::new(&config());
    let _agent = home.start(&net.router);
    for (family, by_the_other) in [(Family::V4, "198.51.100.1"), (Family::V6, "2001:db8:2::1")] {
        let (to, a) = (family.router(), family.client_a());
        home.grant(&net.router, "ssh", a, 60);
        assert_echoes(&net.a, to, 2222);
        assert_silent(&net.b, to, 2222);
        // Let in by one interface is not let in by the other.
        assert_silent(&net.a, by_the_other.parse().unwrap(), 2222);

        let asked = Instant::now();
        home.grant(&net.router, "stream", a, 5);
        let due = Instant::now() + Duration::from_secs(5);
        let socket = udp_socket(&net.a, to, 0);
        socket.connect((to, 7001)).unwrap();
        socket.set_read_timeout(Some(TICK)).unwrap();
        socket.send(b"begin").unwrap();
        let last = last_piece(|piece| socket.recv(piece), due + Duration::from_secs(4));
        let last = last.expect("the stream ran");
        // The grant began between the two.
        assert_on_time(last, due.min(last.max(asked + Duration::from_secs(5))));
    }
}
