use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::namespace::Namespace;
use crate::probe::{Reach, tcp};

/// Whether a scenario runs over IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The router's address towards the clients.
    pub fn router(self) -> IpAddr {
        self.public(1)
    }

    pub fn client_a(self) -> IpAddr {
        self.public(2)
    }

    pub fn client_b(self) -> IpAddr {
        self.public(3)
    }

    /// The LAN host's own address.
    pub fn lan(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 0, 0, 5).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 5, 0, 0, 0, 0, 0, 5).into(),
        }
    }

    /// The ending of the names of sets of this family.
    pub fn digit(self) -> char {
        match self {
            Self::V4 => '4',
            Self::V6 => '6',
        }
    }

    fn public(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(203, 0, 113, host).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host.into()).into(),
        }
    }
}

/// Two clients and a router on one segment (`ext0` of the router), a LAN host behind it (`int0`).
pub struct Topology {
    pub a: Namespace,
    pub b: Namespace,
    pub router: Namespace,
    pub lan: Namespace,
    /// Holds the bridge.
    pub switch: Namespace,
}

impl Topology {
    /// Builds it and waits until it carries packets in both families.
    pub fn new() -> Self {
        Self::named("ext0", "int0")
    }

    /// The same with other names for the router's interfaces.
    pub fn named(outside: &str, inside: &str) -> Self {
        let [a, b, router, lan, switch] = ["a", "b", "router", "lan", "switch"].map(Namespace::new);
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        configure(
            &switch,
            &format!(
                "link add br0 type bridge mcast_snooping 0\n\
                 link add pa type veth peer name eth0 netns {}\n\
                 link add pb type veth peer name eth0 netns {}\n\
                 link add pr type veth peer name {outside} netns {}\n\
                 link set pa master br0\nlink set pb master br0\nlink set pr master br0\n\
                 link set br0 up\nlink set pa up\nlink set pb up\nlink set pr up\n",
                a.name(),
                b.name(),
                router.name()
            ),
        );
        configure(
            &router,
            &format!(
                "link add {inside} type veth peer name eth0 netns {}\n\
                 addr add 203.0.113.1/24 dev {outside}\naddr add 2001:db8:1::1/64 dev {outside} nodad\n\
                 addr add 10.0.0.1/24 dev {inside}\naddr add fd00:5::1/64 dev {inside} nodad\n\
                 link set {outside} up\nlink set {inside} up\n",
                lan.name()
            ),
        );
        join(&lan, "10.0.0.5/24", "fd00:5::5/64", "10.0.0.1", "fd00:5::1");
        join(&a, "203.0.113.2/24", "2001:db8:1::2/64", "203.0.113.1", "2001:db8:1::1");
        join(&b, "203.0.113.3/24", "2001:db8:1::3/64", "203.0.113.1", "2001:db8:1::1");
        let topology = Self { a, b, router, lan, switch };
        topology.await_packets();
        topology
    }

    fn await_packets(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        for client in [&self.a, &self.b] {
            for to in [Family::V4.router(), Family::V6.router(), Family::V4.lan(), Family::V6.lan()] {
                // Nobody listens on port 9: a refusal is a packet there and one back.
                while tcp(client, (to, 9).into(), Duration::from_millis(500)) != Reach::Refused {
                    assert!(Instant::now() < end, "{to} cannot be reached from {}", client.name());
                }
            }
        }
    }
}

fn join(host: &Namespace, v4: &str, v6: &str, gateway4: &str, gateway6: &str) {
    configure(
        host,
        &format!(
            "link set eth0 up\naddr add {v4} dev eth0\naddr add {v6} dev eth0 nodad\n\
             route add default via {gateway4}\nroute add default via {gateway6}\n"
        ),
    );
}

fn configure(namespace: &Namespace, batch: &str) {
    namespace.feed("ip", &["-batch", "-"], batch.as_bytes()).success();
}
