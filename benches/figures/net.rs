//! A client and a router, each in a network namespace of its own, joined by one cable.

use std::net::{Ipv4Addr, TcpListener};

use crate::namespace::Namespace;

/// The router, as clients see it.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The client's own address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The first of the 131,072 addresses that the client can speak from.
const SOURCES: u32 = u32::from_be_bytes([198, 18, 0, 0]);

pub struct Net {
    pub client: Namespace,
    pub router: Namespace,
}

impl Net {
    pub fn new() -> Self {
        let (client, router) = (Namespace::new("client"), Namespace::new("router"));
        let lines = format!(
            "link add ext0 type veth peer name eth0 netns {}\naddr add {ROUTER}/24 dev ext0\nlink set ext0 up\n",
            client.name()
        );
        router.feed("ip", &["-batch", "-"], lines.as_bytes()).success();
        let lines = format!(
            "link set eth0 up\naddr add {CLIENT}/24 dev eth0\nroute add default via {ROUTER}\n\
             route add local 198.18.0.0/15 dev lo\n"
        );
        client.feed("ip", &["-batch", "-"], lines.as_bytes()).success();
        let lines = format!("route add 198.18.0.0/15 via {CLIENT}\n");
        router.feed("ip", &["-batch", "-"], lines.as_bytes()).success();
        Self { client, router }
    }
}

/// Has a service take every connection, and end it, as long as this process lives.
pub fn serve(host: &Namespace, port: u16) {
    let listener = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || listener.incoming().for_each(drop));
}

/// One of the addresses that a client can speak from.
pub fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(SOURCES + number % (1 << 17))
}

/// Addresses of people whom nobody else is: 10.0.0.0 and on.
pub fn others(number: u32) -> Vec<[u8; 4]> {
    (0..number).map(|n| (u32::from_be_bytes([10, 0, 0, 0]) + n).to_be_bytes()).collect()
}
