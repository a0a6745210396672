//! Apps beside each other, and the ports an app may have.

use std::time::Duration;

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::knocking::knock;
use crate::probe::{assert_echoes, assert_silent, assert_udp_open, assert_udp_silent, dial};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    two_apps_share_a_port_with_keys_and_destinations_of_their_own,
    a_list_of_ports_and_ranges_opens_with_one_knock_in_both_protocols,
    a_range_is_forwarded_port_by_port,
    a_grant_for_a_lan_host_keeps_no_connection_to_this_host_at_the_same_port,
}

without_ipset! {
    two_apps_share_a_port_with_keys_and_destinations_of_their_own,
    a_list_of_ports_and_ranges_opens_with_one_knock_in_both_protocols,
    a_range_is_forwarded_port_by_port,
    a_grant_for_a_lan_host_keeps_no_connection_to_this_host_at_the_same_port,
}

/// What the service says first; a pushing server says `tick`, an echoing one nothing.
fn speaks_first(net: &Topology, from_a: bool, port: u16) -> bool {
    use std::io::Read;
    let from = if from_a { &net.a } else { &net.b };
    let to = (Family::V4.router(), port).into();
    let mut stream = dial(from, to, Duration::from_secs(4)).expect("an open port");
    stream.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    stream.read_exact(&mut [0]).is_ok()
}

fn two_apps_share_a_port_with_keys_and_destinations_of_their_own() {
    let net = Topology::new();
    let _local = Server::tcp(&net.router, 2222, Habit::Echo);
    let _lan = Server::tcp(&net.lan, 22, Habit::Push);
    let config = Config::new(&[]).app("here", "2222", "tcp", "local", &["duration: 60"]).app(
        "there",
        "2222",
        "tcp",
        "10.0.0.5:22",
        &["duration: 60"],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    assert_silent(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
    knock(&net.a, to, "here");
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
    knock(&net.b, to, "there");
    assert!(speaks_first(&net, false, 2222), "client B reaches the LAN host");
    assert!(!speaks_first(&net, true, 2222), "client A still reaches the router's own service");
    assert_echoes(&net.a, to, 2222);
}

fn a_list_of_ports_and_ranges_opens_with_one_knock_in_both_protocols() {
    let net = Topology::new();
    let ports = [5000, 6000, 6005, 6010];
    let outside = [4999, 5001, 5999, 6011];
    let _tcp: Vec<Server> =
        ports.iter().chain(&outside).map(|&p| Server::tcp(&net.router, p, Habit::Echo)).collect();
    let _udp: Vec<Server> =
        ports.iter().chain(&outside).map(|&p| Server::udp(&net.router, p, Habit::Echo)).collect();
    let config = Config::new(&[]).app("many", "[5000, \"6000-6010\"]", "both", "local", &["duration: 120"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router();
        for port in outside {
            assert_echoes(&net.a, to, port);
            assert_udp_open(&net.a, to, port);
        }
        for port in ports {
            assert_silent(&net.a, to, port);
            assert_udp_silent(&net.a, to, port);
        }
        knock(&net.a, to, "many");
        for port in ports {
            assert_echoes(&net.a, to, port);
            assert_udp_open(&net.a, to, port);
        }
        assert_silent(&net.b, to, 6005);
        assert_udp_silent(&net.b, to, 6005);
    }
}

fn a_range_is_forwarded_port_by_port() {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.lan, 6000, Habit::Echo),
        Server::tcp(&net.lan, 6003, Habit::Echo),
        Server::udp(&net.lan, 6003, Habit::Echo),
    ];
    let config = Config::new(&[]).app("range4", "\"6000-6003\"", "both", "10.0.0.5", &["duration: 60"]).app(
        "range6",
        "\"6000-6003\"",
        "both",
        "\"fd00:5::5\"",
        &["duration: 60"],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for (family, app) in [(Family::V4, "range4"), (Family::V6, "range6")] {
        assert_silent(&net.a, family.router(), 6003);
        knock(&net.a, family.router(), app);
        assert_echoes(&net.a, family.router(), 6000);
        assert_echoes(&net.a, family.router(), 6003);
        assert_udp_open(&net.a, family.router(), 6003);
        assert_silent(&net.b, family.router(), 6003);
    }
}

#[test]
fn any_first_key_of_an_app_goes_with_any_second_one() {
    use crate::configuration::{STEP1_PATH, STEP2_PATH};
    use crate::knocking::{assert_step2_answers, form, post_step1, post_step2};
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let text = Config::ssh(&[]).text().replace(
        "  access_key_https:",
        "    - another-first-key\n  access_key_https:\n    - another-second-key",
    );
    let home = Installation::with_text(&text);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    post_step1(&net.a, to, STEP1_PATH, &form("ssh", "another-first-key"));
    let reply = post_step2(&net.a, to, STEP2_PATH, &form("ssh", "second-key-of-ssh"), &[]);
    assert_step2_answers(reply, 200);
    assert_echoes(&net.a, to, 2222);
    post_step1(&net.b, to, STEP1_PATH, &form("ssh", "first-key-of-ssh"));
    let reply = post_step2(&net.b, to, STEP2_PATH, &form("ssh", "another-second-key"), &[]);
    assert_step2_answers(reply, 200);
    assert_echoes(&net.b, to, 2222);
}

fn a_grant_for_a_lan_host_keeps_no_connection_to_this_host_at_the_same_port() {
    use std::io::{Read, Write};
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let config = Config::new(&[]).app("here", "2222", "tcp", "local", &["duration: 3"]).app(
        "there",
        "2222",
        "tcp",
        "10.0.0.5:22",
        &["duration: 60"],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    home.grant(&net.router, "here", client, 3);
    let mut stream = dial(&net.a, (to, 2222).into(), Duration::from_secs(2)).expect("open");
    home.grant(&net.router, "there", client, 60);
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time limit");
    stream.write_all(b"one").expect("open while granted");
    stream.read_exact(&mut [0; 3]).expect("an echo while granted");
    std::thread::sleep(Duration::from_secs(4));
    let _ = stream.write_all(b"two");
    assert!(
        stream.read_exact(&mut [0]).is_err(),
        "the connection to this host lives on the other app's grant"
    );
    assert_echoes(&net.a, to, 2222);
}
