//! Where connections are kept beyond their grant, none begins there: to connection tracking the first packet of another one
//! between the same ports belongs to the one before, which the service may have forgotten long ago.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_silent, dial_from_port};
use crate::topology::{Family, Topology};

on_every_firewall! {
    nothing_begins_in_the_place_of_a_kept_connection_that_the_service_has_ended,
}

without_ipset! {
    nothing_begins_in_the_place_of_a_kept_connection_that_the_service_has_ended,
}

const GRANT: u32 = 4;
/// The client's end of the connections.
const SOURCE: u16 = 30_011;

/// A service that ends each conversation, itself and first, after one line; how many came.
fn brief(host: &Namespace, port: u16) -> Arc<AtomicUsize> {
    // As long as the socket waits for the client's end, it would answer by itself.
    host.sysctl("net/ipv4/tcp_fin_timeout", "1");
    let at = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = host.enter(|| TcpListener::bind(at)).unwrap();
    let came = Arc::new(AtomicUsize::new(0));
    let count = came.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                stream.set_read_timeout(Some(GENEROUS)).unwrap();
                let _ = stream.read(&mut [0; 64]);
                let _ = stream.write_all(b"bye\n");
            });
        }
    });
    came
}

/// What ends a connection for connection tracking never comes.
fn mute(client: &Namespace) {
    client.nft("table inet mute { chain output { type filter hook output priority 0; tcp flags & (fin|rst) != 0 drop; }; }");
}

/// Served, and left by the service; the client's own end stays open.
fn left(mut stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    stream.write_all(b"hello\n").unwrap();
    // It is not taken out, so that closing the socket sends a RST, and no FIN that it waits for an answer to.
    assert_eq!(stream.peek(&mut [0; 4]).unwrap(), 4);
    stream
}

fn nothing_begins_in_the_place_of_a_kept_connection_that_the_service_has_ended() {
    let net = Topology::new();
    let came = [brief(&net.router, 7001), brief(&net.lan, 7002)];
    let more = [&*format!("duration: {GRANT}"), "established: keep"];
    let mut config = Config::new(&[]).app("local", "7001", "tcp", "local", &more);
    for (app, family) in [("lan4", Family::V4), ("lan6", Family::V6)] {
        config = config.app(app, "7002", "tcp", &format!("\"{}\"", family.lan()), &more);
    }
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    mute(&net.a);

    let ways: Vec<(SocketAddr, SocketAddr)> = Family::BOTH
        .into_iter()
        .flat_map(|family| {
            [7001, 7002].map(|port| ((family.client_a(), SOURCE).into(), (family.router(), port).into()))
        })
        .collect();
    for (app, family) in
        [("local", Family::V4), ("local", Family::V6), ("lan4", Family::V4), ("lan6", Family::V6)]
    {
        home.grant(&net.router, app, family.client_a(), GRANT);
    }
    let due = Instant::now() + Duration::from_secs(GRANT.into());
    let open: Vec<TcpStream> =
        ways.iter().map(|&(source, to)| left(dial_from_port(&net.a, source, to).unwrap())).collect();
    assert!(Instant::now() < due, "the machine is too slow for this test");
    thread::sleep(due.saturating_duration_since(Instant::now()) + Duration::from_secs(3));
    drop(open);

    let before = came.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(before, [2, 2]);
    let control: [IpAddr; 2] = Family::BOTH.map(Family::router);
    control.into_iter().for_each(|to| assert_silent(&net.a, to, 7001));
    ways.into_iter().for_each(|(source, to)| assert_begins_nothing(&net.a, source, to));
    assert_eq!(came.map(|count| count.load(Ordering::Relaxed)), before);
}

fn assert_begins_nothing(from: &Namespace, source: SocketAddr, to: SocketAddr) {
    let error = dial_from_port(from, source, to).expect_err("a connection began without a grant");
    // A time-out of sending is EINPROGRESS or EAGAIN.
    let silent = error.raw_os_error() == Some(nix::libc::EINPROGRESS)
        || [ErrorKind::TimedOut, ErrorKind::WouldBlock].contains(&error.kind());
    assert!(silent, "{to}: {error}");
}

/// There is no grant at all here: the clients were connected before the whole host was closed.
#[test]
fn nor_does_one_begin_in_the_place_of_one_from_before_the_whole_host_was_closed() {
    let net = Topology::new();
    let came = brief(&net.router, 7003);
    mute(&net.a);
    let ways: Vec<(SocketAddr, SocketAddr)> = Family::BOTH
        .map(|family| ((family.client_a(), SOURCE).into(), (family.router(), 7003).into()))
        .into();
    let open: Vec<TcpStream> =
        ways.iter().map(|&(source, to)| dial_from_port(&net.a, source, to).unwrap()).collect();
    let home =
        Installation::new(&Config::new(&["default_input: drop"]).app("ssh", "2222", "tcp", "local", &[]));
    let _agent = home.start(&net.router);
    let open: Vec<TcpStream> = open.into_iter().map(left).collect();
    thread::sleep(Duration::from_secs(3));
    drop(open);
    Family::BOTH.into_iter().for_each(|family| assert_silent(&net.a, family.router(), 7003));
    ways.into_iter().for_each(|(source, to)| assert_begins_nothing(&net.a, source, to));
    assert_eq!(came.load(Ordering::Relaxed), 2);
}
