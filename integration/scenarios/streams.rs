//! Streams that run when their grant ends: cut or kept, pushed by either side, local and on the LAN.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_on_time, assert_silent, assert_udp_silent, dial, udp_socket};
use crate::server::{Habit, Server, TICK, last_piece};
use crate::topology::{Family, Topology};

on_every_firewall! {
    tcp_streams_are_cut_at_the_end_of_their_grant_over_ipv4,
    tcp_streams_are_cut_at_the_end_of_their_grant_over_ipv6,
    udp_streams_are_cut_at_the_end_of_their_grant_over_ipv4,
    udp_streams_are_cut_at_the_end_of_their_grant_over_ipv6,
    tcp_streams_live_on_where_established_is_kept,
    udp_streams_live_on_where_established_is_kept,
}

without_ipset! {
    tcp_streams_are_cut_at_the_end_of_their_grant_over_ipv4,
    tcp_streams_are_cut_at_the_end_of_their_grant_over_ipv6,
    udp_streams_are_cut_at_the_end_of_their_grant_over_ipv4,
    udp_streams_are_cut_at_the_end_of_their_grant_over_ipv6,
    tcp_streams_live_on_where_established_is_kept,
    udp_streams_live_on_where_established_is_kept,
}

/// How long each grant lasts.
const GRANT: Duration = Duration::from_secs(5);
/// How long each stream is watched.
const WATCH: Duration = Duration::from_secs(9);

/// What is to happen to the streams.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Cut,
    Kept,
}

/// Ports: 7001 and 7002 are pushed by the server, 7003 and 7004 by the client; odd ones are local.
fn config(family: Family, protocol: &str, fate: Fate) -> Config {
    let established = match fate {
        Fate::Cut => "established: cut",
        Fate::Kept => "established: keep",
    };
    let lan = format!("\"{}\"", family.lan());
    let duration = format!("duration: {}", GRANT.as_secs());
    let more = [duration.as_str(), established];
    Config::new(&[]).app("local", "[7001, 7003]", protocol, "local", &more).app(
        "lan",
        "[7002, 7004]",
        protocol,
        &lan,
        &more,
    )
}

fn run(family: Family, protocol: &str, fate: Fate) {
    let net = Topology::new();
    let serve = if protocol == "tcp" { Server::tcp } else { Server::udp };
    let _pushing = [serve(&net.router, 7001, Habit::Push), serve(&net.lan, 7002, Habit::Push)];
    let hearing = [serve(&net.router, 7003, Habit::Echo), serve(&net.lan, 7004, Habit::Echo)];
    let home = Installation::new(&config(family, protocol, fate));
    let _agent = home.start(&net.router);
    let seconds = u32::try_from(GRANT.as_secs()).unwrap();
    for app in ["local", "lan"] {
        home.grant(&net.router, app, family.client_a(), seconds);
    }
    let due = Instant::now() + GRANT;
    let end = due - GRANT + WATCH;
    let to = family.router();

    let last = thread::scope(|scope| {
        let net = &net;
        let listeners: Vec<_> = [7001, 7002]
            .map(|port| scope.spawn(move || listen(&net.a, to, port, protocol, end)))
            .into_iter()
            .collect();
        let senders: Vec<_> = [7003, 7004]
            .map(|port| scope.spawn(move || push(&net.a, to, port, protocol, end)))
            .into_iter()
            .collect();
        senders.into_iter().for_each(|s| s.join().unwrap());
        listeners.into_iter().map(|l| l.join().unwrap()).collect::<Vec<_>>()
    });
    let heard = hearing.iter().map(Server::last_heard);
    let streams =
        ["pushed by the router", "pushed by the LAN host", "pushed to the router", "pushed to the LAN host"];
    for (stream, last) in streams.iter().zip(last.into_iter().chain(heard)) {
        let last = last.unwrap_or_else(|| panic!("the stream {stream} never ran"));
        match fate {
            Fate::Cut => assert_on_time(last, due),
            Fate::Kept => assert!(last + Duration::from_secs(1) > end, "the stream {stream} ended early"),
        }
    }
    for port in [7001, 7002, 7003, 7004] {
        match protocol {
            "tcp" => assert_silent(&net.a, to, port),
            _ => assert_udp_silent(&net.a, to, port),
        }
    }
}

/// Listens to a stream that the server pushes; when its last piece came.
fn listen(from: &Namespace, to: IpAddr, port: u16, protocol: &str, end: Instant) -> Option<Instant> {
    if protocol == "tcp" {
        let mut stream = connect(from, to, port);
        last_piece(|piece| stream.read(piece), end)
    } else {
        let socket = datagrams(from, to, port);
        socket.send(b"begin").unwrap();
        last_piece(|piece| socket.recv(piece), end)
    }
}

/// Pushes a stream until `end`, whatever comes back.
fn push(from: &Namespace, to: IpAddr, port: u16, protocol: &str, end: Instant) {
    if protocol == "tcp" {
        let mut stream = connect(from, to, port);
        while Instant::now() < end {
            let _ = stream.write(b"tick");
            thread::sleep(TICK);
        }
    } else {
        let socket = datagrams(from, to, port);
        while Instant::now() < end {
            let _ = socket.send(b"tick");
            thread::sleep(TICK);
        }
    }
}

fn connect(from: &Namespace, to: IpAddr, port: u16) -> TcpStream {
    let stream = dial(from, (to, port).into(), GENEROUS).unwrap();
    stream.set_read_timeout(Some(TICK)).unwrap();
    stream.set_write_timeout(Some(TICK)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn datagrams(from: &Namespace, to: IpAddr, port: u16) -> UdpSocket {
    let socket = udp_socket(from, to, 0);
    socket.connect((to, port)).unwrap();
    socket.set_read_timeout(Some(TICK)).unwrap();
    socket
}

fn tcp_streams_are_cut_at_the_end_of_their_grant_over_ipv4() {
    run(Family::V4, "tcp", Fate::Cut);
}

fn tcp_streams_are_cut_at_the_end_of_their_grant_over_ipv6() {
    run(Family::V6, "tcp", Fate::Cut);
}

fn udp_streams_are_cut_at_the_end_of_their_grant_over_ipv4() {
    run(Family::V4, "udp", Fate::Cut);
}

fn udp_streams_are_cut_at_the_end_of_their_grant_over_ipv6() {
    run(Family::V6, "udp", Fate::Cut);
}

fn tcp_streams_live_on_where_established_is_kept() {
    run(Family::V4, "tcp", Fate::Kept);
}

#[test]
fn tcp_streams_live_on_where_established_is_kept_over_ipv6() {
    run(Family::V6, "tcp", Fate::Kept);
}

fn udp_streams_live_on_where_established_is_kept() {
    run(Family::V4, "udp", Fate::Kept);
}

#[test]
fn udp_streams_live_on_where_established_is_kept_over_ipv6() {
    run(Family::V6, "udp", Fate::Kept);
}
