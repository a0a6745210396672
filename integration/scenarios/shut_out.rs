//! Who is thrown out of an app whose connections outlive their grants (`established: keep`).

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::configuration::{Config, https_key};
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_silent, dial, udp_echoes_from, udp_socket};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    who_is_shut_out_keeps_no_connection_and_all_others_keep_theirs,
    who_is_shut_out_while_the_address_is_away_keeps_no_connection_either,
    what_goes_by_the_router_to_ports_of_the_same_number_is_nobody_s_client,
    udp_of_one_port_comes_to_the_app_that_is_left,
}

without_ipset! {
    who_is_shut_out_keeps_no_connection_and_all_others_keep_theirs,
}

/// A connection to a port of each protocol, both of which the service has answered on.
pub struct Open {
    what: String,
    tcp: TcpStream,
    udp: UdpSocket,
}

impl Open {
    #[track_caller]
    pub fn new(from: &Namespace, to: IpAddr, port: u16) -> Self {
        let tcp = dial(from, (to, port).into(), GENEROUS).expect("a grant");
        let udp = udp_socket(from, to, 0);
        udp.connect((to, port)).unwrap();
        let out = Self { what: format!("{} to {to} {port}", from.name()), tcp, udp };
        out.assert_lives("at first");
        out
    }

    pub fn live(&self, patience: Duration) -> [bool; 2] {
        self.tcp.set_read_timeout(Some(patience)).unwrap();
        self.udp.set_read_timeout(Some(patience)).unwrap();
        let _ = (&self.tcp).write_all(b"x");
        let _ = self.udp.send(b"x");
        let mut byte = [0; 1];
        let tcp = matches!((&self.tcp).read(&mut byte), Ok(1));
        [tcp, self.udp.recv(&mut byte).is_ok()]
    }

    #[track_caller]
    pub fn assert_lives(&self, when: &str) {
        assert_eq!(self.live(GENEROUS), [true; 2], "{} {when}", self.what);
    }

    #[track_caller]
    pub fn assert_cut(&self, when: &str) {
        assert_eq!(self.live(Duration::from_millis(400)), [false; 2], "{} {when}", self.what);
    }
}

fn who_is_shut_out_keeps_no_connection_and_all_others_keep_theirs() {
    let net = Topology::new();
    let mut services =
        vec![Server::tcp(&net.router, 2223, Habit::Echo), Server::udp(&net.router, 2223, Habit::Echo)];
    for port in [7004, 7006] {
        services.push(Server::tcp(&net.lan, port, Habit::Echo));
        services.push(Server::udp(&net.lan, port, Habit::Echo));
    }
    let keep = ["duration: 600", "established: keep"];
    let [lan4, lan6] = Family::BOTH.map(|family| format!("\"{}\"", family.lan()));
    let config = Config::new(&[])
        .app("here", "2223", "both", "local", &keep)
        .app("twin", "2223", "both", "local", &keep)
        .app("lan4", "7004", "both", &lan4, &keep)
        .app("lan6", "7006", "both", &lan6, &keep);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    let (a, b) = (&net.a, &net.b);
    let open = |from: &Namespace, family: Family| {
        let lan = if family == Family::V4 { 7004 } else { 7006 };
        [2223, lan].map(|port| Open::new(from, family.router(), port))
    };
    let mut of_b = Vec::new();
    for family in Family::BOTH {
        let lan = if family == Family::V4 { "lan4" } else { "lan6" };
        for app in ["here", lan] {
            home.grant(&net.router, app, family.client_a(), 600);
            home.grant(&net.router, app, family.client_b(), 600);
        }
        home.grant(&net.router, "twin", family.client_a(), 600);
        let [here, inside] = open(a, family);
        of_b.extend(open(b, family));
        let revoke = |app: &str| {
            home.verb(&net.router, &["revoke", app, &family.client_a().to_string()]).success();
        };
        revoke(lan);
        inside.assert_cut("after its grant was revoked");
        revoke("here");
        here.assert_lives("although one of two grants for its port was revoked");
        revoke("twin");
        here.assert_cut("after the other was revoked, too");
    }
    of_b.iter().for_each(|open| open.assert_lives("whoever else was thrown out"));

    // A key that a reload removes.
    let to = Family::V4.router();
    knock(a, to, "here");
    let by_key = Open::new(a, to, 2223);
    home.rewrite_config(&config.text().replace(&https_key("here"), "another-second-key"));
    assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    assert_silent(a, to, 2223);
    by_key.assert_cut("after its key was removed");
    of_b.iter().for_each(|open| open.assert_lives("whatever key was removed"));

    home.verb(&net.router, &["revoke", "--all", "--app", "here"]).success();
    for open in &of_b {
        if open.what.ends_with("2223") {
            open.assert_cut("after all grants of its app were revoked");
        } else {
            open.assert_lives("although all grants of another app were revoked");
        }
    }
    home.verb(&net.router, &["revoke", "--all"]).success();
    of_b.iter().for_each(|open| open.assert_cut("after all grants were revoked"));
}

fn who_is_shut_out_while_the_address_is_away_keeps_no_connection_either() {
    let net = Topology::new();
    let _services =
        [Server::tcp(&net.router, 2223, Habit::Echo), Server::udp(&net.router, 2223, Habit::Echo)];
    let keep = ["duration: 600", "established: keep"];
    let home = Installation::new(&Config::new(&[]).app("here", "2223", "both", "local", &keep));
    let _agent = home.start(&net.router);
    let mut open = Vec::new();
    for family in Family::BOTH {
        for client in [family.client_a(), family.client_b()] {
            home.grant(&net.router, "here", client, 600);
        }
        open.extend([&net.a, &net.b].map(|from| Open::new(from, family.router(), 2223)));
    }
    addresses(&net, "del");
    for family in Family::BOTH {
        home.verb(&net.router, &["revoke", "here", &family.client_a().to_string()]).success();
    }
    addresses(&net, "add");
    for open in &open {
        if open.what.starts_with(net.a.name()) {
            open.assert_cut("after its grant was revoked while the address was away");
        } else {
            open.assert_lives("although the address was away for a moment");
        }
    }
    addresses(&net, "del");
    home.verb(&net.router, &["revoke", "--all"]).success();
    addresses(&net, "add");
    open.iter().for_each(|open| open.assert_cut("after all grants were revoked"));
}

/// Takes the router's addresses outside away, or gives them back.
pub fn addresses(net: &Topology, what: &str) {
    let of_both = format!(
        "addr {what} 203.0.113.1/24 dev ext0\naddr {what} 2001:db8:1::1/64 dev ext0 {}\n",
        if what == "add" { "nodad" } else { "" }
    );
    net.router.feed("ip", &["-batch", "-"], of_both.as_bytes()).success();
}

fn what_goes_by_the_router_to_ports_of_the_same_number_is_nobody_s_client() {
    let net = Topology::new();
    // A home router's LAN: nobody outside sees its addresses.
    net.router.nft("table inet masquerading { chain post { type nat hook postrouting priority srcnat; iifname int0 masquerade; }; }");
    let mut services = Vec::new();
    for (host, ports) in
        [(&net.router, &[2223][..]), (&net.lan, &[7104, 7106]), (&net.a, &[2223, 7004, 7104])]
    {
        for &port in ports {
            services.push(Server::tcp(host, port, Habit::Echo));
            services.push(Server::udp(host, port, Habit::Echo));
        }
    }
    let keep = ["duration: 600", "established: keep"];
    let config = Config::new(&["allow: [10.0.0.0/8, \"fd00::/8\", 203.0.113.3]"])
        .app("here", "2223", "both", "local", &keep)
        .app("lan4", "7004", "both", "\"10.0.0.5:7104\"", &keep)
        .app("lan6", "7006", "both", "\"[fd00:5::5]:7106\"", &keep);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    let (mut others, mut of_a) = (Vec::new(), Vec::new());
    for family in Family::BOTH {
        let (outside, router) = (family.client_a(), family.router());
        others.extend([2223, 7004, 7104].map(|port| Open::new(&net.lan, outside, port)));
        let inside = if family == Family::V4 { "10.0.0.1" } else { "fd00:5::1" };
        others.push(Open::new(&net.lan, inside.parse().unwrap(), 2223));
        let (lan, port) = if family == Family::V4 { ("lan4", 7004) } else { ("lan6", 7006) };
        for app in ["here", lan] {
            home.grant(&net.router, app, outside, 600);
        }
        of_a.extend([2223, port].map(|port| Open::new(&net.a, router, port)));
    }
    let to = Family::V4.router();
    let live = |opens: &[Open], when: &str| opens.iter().for_each(|open| open.assert_lives(when));

    let of_b = Open::new(&net.b, to, 2223);
    home.rewrite_config(
        &config.text().replace("allow: [10.0.0.0/8, \"fd00::/8\", 203.0.113.3]", "allow: []"),
    );
    assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    of_b.assert_cut("after the configuration allowed it no more");
    live(&others, "whatever the configuration allowed");
    live(&of_a, "whomever else the configuration allowed");

    for network in ["10.0.0.0/8", "fd00::/8", "203.0.113.3"] {
        home.verb(&net.router, &["allow", network]).success();
    }
    let of_b = Open::new(&net.b, to, 2223);
    home.verb(&net.router, &["allow", "--flush"]).success();
    of_b.assert_cut("after no network was allowed any more");
    live(&others, "whatever networks were allowed");
    live(&of_a, "whatever networks were allowed");

    home.verb(&net.router, &["revoke", "--all"]).success();
    of_a.iter().for_each(|open| open.assert_cut("after all grants were revoked"));
    live(&others, "whatever grants were revoked");
}

#[test]
fn connections_in_a_zone_end_like_those_of_others() {
    let net = Topology::new();
    let _services =
        [Server::tcp(&net.router, 2223, Habit::Echo), Server::udp(&net.router, 2223, Habit::Echo)];
    // As routers with more than one line have it; for both directions, and for that of the first packet.
    for (zone, back) in [("ct zone set 5", "ct zone set 5"), ("ct original zone set 7", "counter")] {
        net.router.nft(&format!(
            "table inet zones\ndelete table inet zones\ntable inet zones {{\n chain pre {{\n  type filter hook prerouting priority raw\n  iifname ext0 {zone}\n }}\n \
             chain out {{\n  type filter hook output priority raw\n  oifname ext0 {back}\n }}\n}}\n"
        ));
        let home = Installation::new(&Config::new(&[]).app(
            "here",
            "2223",
            "both",
            "local",
            &["duration: 600", "established: keep"],
        ));
        let agent = home.start(&net.router);
        for family in Family::BOTH {
            home.grant(&net.router, "here", family.client_a(), 600);
            let open = Open::new(&net.a, family.router(), 2223);
            home.verb(&net.router, &["revoke", "--all"]).success();
            open.assert_cut(zone);
        }
        agent.terminate();
    }
}

fn udp_of_one_port_comes_to_the_app_that_is_left() {
    let net = Topology::new();
    let _services = [7001, 7002].map(|port| Server::udp(&net.lan, port, Habit::Echo));
    let lan = |port: u16| format!("\"{}:{port}\"", Family::V4.lan());
    let config = Config::new(&[]).app("one", "2223", "udp", &lan(7001), &["duration: 600"]).app(
        "other",
        "2223",
        "udp",
        &lan(7002),
        &["duration: 600"],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let (to, a) = (Family::V4.router(), Family::V4.client_a());
    for (first, second) in [("one", "other"), ("other", "one")] {
        home.grant(&net.router, first, a, 600);
        assert!(udp_echoes_from(&net.a, 4000, to, 2223, GENEROUS), "{first}");
        home.grant(&net.router, second, a, 600);
        home.verb(&net.router, &["revoke", first, &a.to_string()]).success();
        assert!(udp_echoes_from(&net.a, 4000, to, 2223, GENEROUS), "{second}");
        home.verb(&net.router, &["revoke", second, &a.to_string()]).success();
        assert!(!udp_echoes_from(&net.a, 4000, to, 2223, Duration::from_millis(400)));
    }
}
