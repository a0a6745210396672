//! What this host sends to itself is not the agent's to drop; what only says that it is from there is.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::time_left;
use crate::forge::Forge;
use crate::knocking::{STEP2_PORT, step2};
use crate::namespace::Namespace;
use crate::probe::assert_silent;
use crate::topology::{Family, Topology};

on_every_firewall! {
    step_2_can_be_reached_from_this_host_and_by_nobody_who_only_says_so,
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([127, 0, 0, 1]),
        Family::V6 => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    }
}

/// Connections that are being begun at step 2.
fn begun(host: &Namespace) -> String {
    host.run("ss", &["-Htn", "state", "syn-recv"]).success().text()
}

fn step_2_can_be_reached_from_this_host_and_by_nobody_who_only_says_so() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    for family in Family::BOTH {
        for to in [loopback(family), family.router()] {
            // A whole TLS conversation; without step 1 its key opens nothing.
            let reply = step2(&net.router, to, "ssh");
            let status = reply.unwrap_or_else(|| panic!("nothing came back from {to}")).status;
            assert!((400..500).contains(&status), "{status}");
            assert_eq!(time_left(&net.router, "ssh", to), None);
        }
        assert_silent(&net.a, family.router(), STEP2_PORT);
    }
    // The kernel's own checks of such sources are out of the way.
    for interface in ["all", "ext0"] {
        for (key, value) in [("rp_filter", "0"), ("accept_local", "1"), ("route_localnet", "1")] {
            net.router.sysctl(&format!("net/ipv4/conf/{interface}/{key}"), value);
        }
    }
    let forge = Forge::new(&net.a);
    for family in Family::BOTH {
        for source in [loopback(family), family.router()] {
            let (from, to): (SocketAddr, SocketAddr) =
                ((source, 40_000).into(), (family.router(), STEP2_PORT).into());
            assert!(forge.syn_by(family.router(), from, to));
        }
    }
    sleep(Duration::from_millis(300));
    assert_eq!(begun(&net.router), "", "a connection from outside that says it is from here");

    // Where apps are guarded against this host as well, so are the steps.
    agent.terminate();
    home.rewrite_config(&Config::ssh(&[]).text().replace("interface_ext: ext0", "interface_ext: [ext0, lo]"));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_silent(&net.router, loopback(family), STEP2_PORT);
    }
}
