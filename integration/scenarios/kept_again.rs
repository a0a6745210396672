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

/// Connected, served, and left by the service; the client's own end stays open.
fn left(from: &Namespace, source: SocketAddr, to: SocketAddr) -> TcpStream {
    let mut stream = dial_from_port(from, source, to).unwrap();
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
    // What ends a connection for connection tracking never comes.
    net.a.nft("table inet mute { chain output { type filter hook output priority 0; tcp flags & (fin|rst) != 0 drop; }; }");

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
    let open: Vec<TcpStream> = ways.iter().map(|&(source, to)| left(&net.a, source, to)).collect();
    assert!(Instant::now() < due, "the machine is too slow for this test");
    thread::sleep(due.saturating_duration_since(Instant::now()) + Duration::from_secs(3));
    drop(open);

    let before = came.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert_eq!(before, [2, 2]);
    let control: [IpAddr; 2] = Family::BOTH.map(Family::router);
    control.into_iter().for_each(|to| assert_silent(&net.a, to, 7001));
    for (source, to) in ways {
        let error = dial_from_port(&net.a, source, to).expect_err("a connection began without a grant");
        // A time-out of sending is EINPROGRESS or EAGAIN.
        let silent = error.raw_os_error() == Some(nix::libc::EINPROGRESS)
            || [ErrorKind::TimedOut, ErrorKind::WouldBlock].contains(&error.kind());
        assert!(silent, "{to}: {error}");
    }
    assert_eq!(came.map(|count| count.load(Ordering::Relaxed)), before);
}
