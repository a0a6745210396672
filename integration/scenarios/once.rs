//! Apps whose door closes with the first connection.

use std::time::Duration;

use crate::agent::Installation;
use crate::configuration::Config;
use crate::firewall::{elements, flush_host, is_guarded, time_left};
use crate::knocking::knock;
use crate::knocks::knock_at;
use crate::probe::{GENEROUS, assert_echo, assert_silent, dial, udp_echoes_from};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const SEQUENCE: &str = "sequence: {knocks: [1234, 5678, 9012]}";

#[test]
fn the_first_connection_closes_the_door_and_goes_on() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let once = ["duration: 600", "once: true", SEQUENCE];
    let config = Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &once)
        .app("lan4", "2223", "tcp", "10.0.0.5:22", &["duration: 600", "once: true"])
        .app("lan6", "2223", "tcp", "\"[fd00:5::5]:22\"", &["duration: 600", "once: true"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let lan = |family: Family| if family == Family::V4 { "lan4" } else { "lan6" };
    for family in Family::BOTH {
        let to = family.router();
        for (app, port, by_sequence) in
            [("ssh", 2222, true), ("ssh", 2222, false), (lan(family), 2223, false)]
        {
            if by_sequence {
                knock_at(&net.a, to, "1234,5678,9012");
            } else {
                knock(&net.a, to, app);
            }
            let first = dial(&net.a, (to, port).into(), GENEROUS).unwrap();
            assert_silent(&net.a, to, port);
            assert_echo(first.try_clone().unwrap());
            assert_silent(&net.b, to, port);
            assert_eq!(time_left(&net.router, app, family.client_a()), None);
            assert_echo(first);
        }
        assert!(elements(&net.router, &format!("seq_ssh_{}", family.digit())).is_empty());
    }
    // What somebody's flush removes comes back without what was used up.
    home.grant(&net.router, "ssh", Family::V4.client_b(), 600);
    flush_host(&net.router);
    while !is_guarded(&net.router) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(time_left(&net.router, "ssh", Family::V4.client_b()).is_some());
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.a, Family::V4.router(), 2223);
}

#[test]
fn with_datagrams_the_first_one_makes_the_conversation() {
    let net = Topology::new();
    let _service = Server::udp(&net.router, 5353, Habit::Echo);
    let config =
        Config::new(&[]).app("dns", "5353", "udp", "local", &["duration: 600", "once: true", SEQUENCE]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = family.router();
        knock_at(&net.a, to, "1234,5678,9012");
        for _ in 0..2 {
            assert!(udp_echoes_from(&net.a, 40_001, to, 5353, GENEROUS));
        }
        assert!(!udp_echoes_from(&net.a, 40_002, to, 5353, Duration::from_millis(700)));
        assert!(udp_echoes_from(&net.a, 40_001, to, 5353, GENEROUS));
    }
}
