//! Multipath TCP: a connection that was let in may want more ways than one, and each way has an address of its own.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::agent::Installation;
use crate::configuration::Config;
use crate::namespace::Namespace;
use crate::topology::{Family, Topology};

/// A server that sends back what it gets, in Multipath TCP, as is its client.
const SERVER: &str = "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_STREAM,262)\ns.setsockopt(1,2,1)\ns.bind(('',2222))\ns.listen()\nprint('ready',flush=True)\nwhile True:\n c,_=s.accept()\n while True:\n  b=c.recv(100)\n  if not b: break\n  c.sendall(b)";
const CLIENT: &str = "import socket,sys,time\ns=socket.socket(socket.AF_INET,socket.SOCK_STREAM,262)\ns.settimeout(10)\ns.connect(('203.0.113.1',2222))\nend=time.time()+float(sys.argv[1])\nwhile time.time()<end:\n s.sendall(b'x')\n assert s.recv(1)==b'x'\n time.sleep(0.05)";

/// A counter of Multipath TCP in that namespace.
fn count(host: &Namespace, name: &str) -> u64 {
    let text = host.run("cat", &["/proc/net/netstat"]).success().text();
    let mut lines = text.lines().filter(|line| line.starts_with("MPTcpExt:"));
    let (names, values) = (lines.next().expect("this kernel has no MPTCP"), lines.next().unwrap());
    let mut all = names.split(' ').zip(values.split(' '));
    all.find(|(have, _)| *have == name).unwrap_or_else(|| panic!("no {name} in {names}")).1.parse().unwrap()
}

#[test]
fn a_further_way_of_a_connection_needs_a_grant_for_its_address() {
    let net = Topology::new();
    net.a.run("ip", &["addr", "add", "203.0.113.9/24", "dev", "eth0"]).success();
    net.a.run("ip", &["mptcp", "endpoint", "add", "203.0.113.9", "dev", "eth0", "subflow"]).success();
    for host in [&net.a, &net.router] {
        host.run("ip", &["mptcp", "limits", "set", "subflow", "4", "add_addr_accepted", "4"]).success();
    }
    let mut command = Command::new("python3");
    command.args(["-c", SERVER]).stdout(Stdio::piped());
    let mut server = net.router.background(command);
    server.0.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let home = Installation::new(&Config::ssh(&["established: keep"]));
    let _agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 60);
    net.a.run("python3", &["-c", CLIENT, "2"]).success();
    assert_eq!(count(&net.router, "MPCapableSYNRX"), 1, "it is Multipath TCP");
    assert_eq!(count(&net.router, "MPJoinSynRx"), 0, "nothing came by an address that was not let in");
    let dropped = net.router.run("nft", &["list", "chain", "inet", "knock_agent", "svc_tcp_2222"]).text();
    let rule = dropped.lines().find(|line| line.contains("ka:drop:tcp_2222")).unwrap();
    assert!(!rule.contains("packets 0 "), "it was tried: {rule}");
    // With a grant for that address as well, it is another matter.
    home.grant(&net.router, "ssh", "203.0.113.9", 60);
    net.a.run("python3", &["-c", CLIENT, "1"]).success();
    assert!(count(&net.router, "MPJoinSynRx") > 0);
}
