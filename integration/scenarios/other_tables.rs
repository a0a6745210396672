//! Addresses that are this host's by a routing table of the operator's own (anycast, a load balancer), not by `local`.

use std::io::Write;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::{Config, STEP1_PATH, http_key};
use crate::knocking::{STEP1_PORT, STEP2_PORT, assert_step2_opens, form, request, step1};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_silent, dial};
use crate::topology::Topology;

on_every_firewall! {
    the_steps_are_guarded_there_as_elsewhere,
}

const ADDRESS: &str = "2001:db8:77::9";

/// Linux answers from such an address with IPv6 only.
fn routed_here(router: &Namespace) -> IpAddr {
    let route = format!("-6 route add local {ADDRESS}/128 dev lo table 100");
    // Without a route to everywhere the address is nobody's before routing.
    let everywhere = "-6 route add default via 2001:db8:1::3";
    for line in [route.as_str(), "-6 rule add iif ext0 lookup 100", everywhere] {
        router.run("ip", &line.split(' ').collect::<Vec<_>>()).success();
    }
    ADDRESS.parse().expect("an address")
}

fn the_steps_are_guarded_there_as_elsewhere() {
    for reply in ["silent", "http"] {
        let net = Topology::new();
        let to = routed_here(&net.router);
        let home = Installation::new(&Config::new(&[&format!("step1_reply: {reply}")]).app(
            "ssh",
            "22",
            "tcp",
            "local",
            &[],
        ));
        let _agent = home.start(&net.router);
        assert_silent(&net.b, to, STEP2_PORT);
        if reply == "silent" {
            let says_nothing = dial(&net.b, (to, STEP1_PORT).into(), GENEROUS).expect("a handshake");
            sleep(Duration::from_millis(300));
            let filter = format!("sport = :{STEP1_PORT}");
            let sockets = net.router.run("ss", &["-Htan", &filter]).success().text();
            let begun =
                sockets.lines().find(|line| !line.starts_with("LISTEN") && !line.starts_with("SYN-RECV"));
            assert_eq!(begun, None, "without the path");
            drop(says_nothing);
            step1(&net.a, to, "ssh");
            assert_step2_opens(&net.a, to, "ssh");
        }
        // As libraries send it, in two packets.
        let text = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
        let (head, body) = text.split_at(text.find("\r\n\r\n").expect("a head") + 4);
        let mut stream = dial(&net.b, (to, STEP1_PORT).into(), GENEROUS).expect("a handshake");
        // What waits for an answer to the first would never be sent.
        stream.set_nodelay(true).expect("an option");
        for part in [head, body] {
            stream.write_all(part.as_bytes()).expect("sent");
            sleep(Duration::from_millis(300));
        }
        assert_step2_opens(&net.b, to, "ssh");
    }
}
