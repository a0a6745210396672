//! Apps whose door closes with the first connection.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::Config;
use crate::firewall::{elements, flush_host, is_guarded, time_left};
use crate::forge::{FIRST_NUMBER, Forge, Said};
use crate::knocking::knock;
use crate::knocks::knock_at;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, PATIENCE, assert_echo, assert_silent, dial, udp_echoes_from};
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
            used_up(&net.router, app, family);
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

/// Waits until the last packet of a handshake of client A has come to the gate.
#[track_caller]
fn used_up(host: &Namespace, app: &str, family: Family) {
    let end = Instant::now() + 3 * GENEROUS;
    while elements(host, &format!("once_{app}_{}", family.digit())).is_empty() {
        assert!(Instant::now() < end, "no connection to {app} has closed the door");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const PUSH: u8 = 8;

/// Packets in the name of a client whose own host never hears of it.
fn forged(forge: &Forge, source: SocketAddr, to: SocketAddr, flags: u8, acknowledged: u32, data: &[u8]) {
    let sequence = if flags & SYN == 0 { FIRST_NUMBER + 1 } else { FIRST_NUMBER };
    while !forge.segment(source, to, &Said { flags, sequence, acknowledged }, data) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn packets_in_a_client_s_name_do_not_use_up_its_door() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let once = ["duration: 600", "once: true"];
    let config = Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &["duration: 600", "once: true", "established: keep"])
        .app("lan4", "2223", "tcp", "10.0.0.5:22", &once)
        .app("lan6", "2223", "tcp", "\"[fd00:5::5]:22\"", &once);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    // A firewall before the client keeps it from resetting what it did not begin; and the first answer to itself is lost.
    net.a.nft(
        "table inet quiet { chain out { type filter hook output priority 0; tcp flags rst drop; }; \
         chain in { type filter hook input priority 0; tcp sport 2222 tcp dport >= 20000 \
         tcp flags & (syn|ack) == (syn|ack) limit rate 1/hour burst 1 packets drop; }; }",
    );
    let forge = Forge::new(&net.b);
    for family in Family::BOTH {
        let lan = if family == Family::V4 { "lan4" } else { "lan6" };
        for (app, port) in [("ssh", 2222), (lan, 2223)] {
            home.grant(&net.router, app, family.client_a(), 600);
            let to = (family.router(), port).into();
            let at = |port| SocketAddr::new(family.client_a(), port);
            for source in 10_000..10_010 {
                forged(&forge, at(source), to, SYN, 0, b"");
            }
            wait_for_ends(&net.router, &format!("tried_{app}_{}", family.digit()), 10);
            for source in 10_000..10_010 {
                for guess in [0, 1, FIRST_NUMBER, FIRST_NUMBER + 1, u32::MAX] {
                    forged(&forge, at(source), to, ACK, guess, b"");
                    forged(&forge, at(source), to, ACK | PUSH, guess, b"a guess");
                }
            }
            // Among these are some that connection tracking takes for right.
            if (app, family) == ("ssh", Family::V4) {
                for step in 0..=u32::from(u16::MAX) {
                    forged(&forge, at(10_000), to, ACK, step << 16 | 0x4321, b"");
                }
            }
            // Nor does the service hear data with a first packet.
            forged(&forge, at(10_100), to, SYN, 0, b"hello");
            assert!(time_left(&net.router, app, family.client_a()).is_some(), "{app}");
            assert_eq!(wait_for_ends(&net.router, &format!("tried_{app}_{}", family.digit()), 10), 10);
            let first = dial(&net.a, to, 3 * GENEROUS).unwrap();
            used_up(&net.router, app, family);
            assert_eq!(time_left(&net.router, app, family.client_a()), None);
            assert_silent(&net.a, family.router(), port);
            assert_echo(first);
        }
    }
}

/// Waits for so many elements; how many there are then.
#[track_caller]
fn wait_for_ends(host: &Namespace, set: &str, least: usize) -> usize {
    let end = Instant::now() + 3 * GENEROUS;
    loop {
        let found = elements(host, set).len();
        if found >= least {
            return found;
        }
        assert!(Instant::now() < end, "{found} in {set}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Of those who are halfway in, which get an answer now.
fn answered(begun: &mut [TcpStream]) -> usize {
    for stream in begun.iter_mut() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"it is me").unwrap();
    }
    let end = Instant::now() + 3 * GENEROUS;
    let mut got = vec![false; begun.len()];
    loop {
        for (stream, got) in begun.iter_mut().zip(&mut got) {
            *got |= matches!(stream.read(&mut [0; 64]), Ok(1..));
        }
        if got.contains(&true) || Instant::now() > end {
            break;
        }
    }
    for (stream, got) in begun.iter_mut().zip(&mut got) {
        *got |= matches!(stream.read(&mut [0; 64]), Ok(1..));
    }
    got.iter().filter(|&&got| got).count()
}

#[test]
fn of_several_that_begin_together_one_gets_in_and_none_of_one_who_is_shut_out() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let keep = ["duration: 600", "once: true", "established: keep", SEQUENCE];
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &keep).app(
        "lan4",
        "2223",
        "tcp",
        "10.0.0.5:22",
        &["duration: 600", "once: true", "masquerade: false"],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let halfway = |to: IpAddr, port: u16| -> Vec<TcpStream> {
        net.a.nft(
            "table inet mute { chain out { type filter hook output priority 0; \
             tcp dport { 2222, 2223 } tcp flags & (syn|ack) == ack drop; }; }",
        );
        let begun = (0..3).map(|_| dial(&net.a, (to, port).into(), GENEROUS).unwrap()).collect();
        net.a.nft("delete table inet mute");
        begun
    };
    for (family, app, port) in
        [(Family::V4, "ssh", 2222), (Family::V6, "ssh", 2222), (Family::V4, "lan4", 2223)]
    {
        home.grant(&net.router, app, family.client_a(), 600);
        if app == "ssh" {
            knock_at(&net.a, family.router(), "1234,5678,9012");
        }
        let mut begun = halfway(family.router(), port);
        assert_eq!(answered(&mut begun), 1, "{app} {}", family.router());
        assert_silent(&net.a, family.router(), port);
    }
    let a = Family::V6.client_a();
    home.grant(&net.router, "ssh", a, 600);
    net.a.nft("table inet mute { chain out { type filter hook output priority 0; tcp dport 2222 tcp flags & (syn|ack) == ack drop; }; }");
    let mut begun = [dial(&net.a, (Family::V6.router(), 2222).into(), GENEROUS).unwrap()];
    home.verb(&net.router, &["revoke", "ssh", &a.to_string()]).success();
    net.a.nft("delete table inet mute");
    begun[0].write_all(b"too late").unwrap();
    begun[0].set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    assert!(!matches!(begun[0].read(&mut [0; 64]), Ok(1..)), "who was shut out in between");
}

#[test]
fn a_connection_that_is_not_tracked_closes_the_door_as_well() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 600", "once: true"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    net.router.nft(
        "table inet bare { chain in { type filter hook prerouting priority -300; tcp dport 2222 notrack; }; \
         chain out { type filter hook output priority -300; tcp sport 2222 notrack; }; }",
    );
    for family in Family::BOTH {
        home.grant(&net.router, "ssh", family.client_a(), 600);
        let first = dial(&net.a, (family.router(), 2222).into(), GENEROUS).unwrap();
        used_up(&net.router, "ssh", family);
        assert_silent(&net.a, family.router(), 2222);
        assert_echo(first);
    }
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
