use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::audit::host_rules;
use crate::namespace::Namespace;
use crate::probe::{Reach, tcp};
use crate::process::Background;
use crate::topology::Topology;

/// How dockerd writes its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Nftables,
    Iptables,
}

/// Whether a process of dockerd's listens on published ports as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxy {
    /// The default: IPv6 reaches a container without IPv6 through it.
    On,
    /// `userland-proxy: false`; the container has IPv6 itself.
    Off,
}

/// The port of the router that is published, and the container's.
pub const PUBLISHED: u16 = 3080;
pub const INSIDE: u16 = 80;

/// A container behind `docker0` of the router, with one port published as dockerd does it.
pub struct Docker {
    pub container: Namespace,
    _proxy: Option<Background>,
}

impl Docker {
    pub fn new(net: &Topology, backend: Backend, proxy: Proxy) -> Self {
        let router = &net.router;
        let container = Namespace::new("container");
        let links = format!(
            "link add docker0 type bridge\n\
             addr add 172.17.0.1/16 dev docker0\naddr add fd00:17::1/64 dev docker0 nodad\n\
             link add veth0 type veth peer name eth0 netns {}\n\
             link set veth0 master docker0\nlink set veth0 up\nlink set docker0 up\n",
            container.name()
        );
        router.feed("ip", &["-batch", "-"], links.as_bytes()).success();
        let inside = "link set eth0 up\naddr add 172.17.0.2/16 dev eth0\naddr add fd00:17::2/64 dev eth0 nodad\n\
             route add default via 172.17.0.1\nroute add default via fd00:17::1\n";
        container.feed("ip", &["-batch", "-"], inside.as_bytes()).success();
        match backend {
            Backend::Nftables => {
                let rules = here(&host_rules("docker.nft"));
                let (v4, _) = rules.split_once("table ip6").unwrap();
                router.nft(if proxy == Proxy::On { v4 } else { &rules });
            }
            Backend::Iptables => {
                let rules = here(&host_rules("docker-iptables.rules"));
                router.feed("iptables-restore", &[], rules.as_bytes()).success();
                if proxy == Proxy::Off {
                    let rules = rules
                        .replace("172.17.0.2:80", "[fd00:17::2]:80")
                        .replace("172.17.0.2/32", "fd00:17::2/128")
                        .replace("172.17.0.0/16", "fd00:17::/64")
                        .replace("127.0.0.0/8", "::1/128");
                    router.feed("ip6tables-restore", &[], rules.as_bytes()).success();
                }
            }
        }
        let proxy = (proxy == Proxy::On).then(|| start_proxy(router));
        Self { container, _proxy: proxy }
    }
}

fn here(rules: &str) -> String {
    rules
        .replace("int0", "docker0")
        .replace("10.0.0.5", "172.17.0.2")
        .replace("10.0.0.0/24", "172.17.0.0/16")
        .replace("fd00:5::5", "fd00:17::2")
        .replace("fd00:5::/64", "fd00:17::/64")
}

/// What docker-proxy does: it listens on the published port and passes on what comes.
const DOCKER_PROXY: &str = "
import socket, threading
listener = socket.create_server(('::', 3080), family=socket.AF_INET6, dualstack_ipv6=True)
def pump(a, b):
    try:
        while data := a.recv(4096):
            b.sendall(data)
    except OSError:
        pass
    for s in (a, b):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
while True:
    client, _ = listener.accept()
    try:
        service = socket.create_connection(('172.17.0.2', 80))
    except OSError:
        client.close()
        continue
    for pair in ((client, service), (service, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
";

fn start_proxy(router: &Namespace) -> Background {
    let mut command = Command::new("python3");
    command.args(["-c", DOCKER_PROXY]).stdin(Stdio::null());
    let process = router.background(command);
    let end = Instant::now() + Duration::from_secs(20);
    while tcp(router, ([127, 0, 0, 1], PUBLISHED).into(), Duration::from_secs(1)) != Reach::Open {
        assert!(Instant::now() < end, "the proxy does not listen");
    }
    process
}
