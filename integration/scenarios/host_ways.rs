//! What the host's chains see of a packet depends on where they come on its way, on the port and on the address it
//! is for: the dry run knows it.

use std::net::IpAddr;
use std::time::Duration;

use crate::agent::{Agent, Installation};
use crate::audit::{assert_quiet, obstacles, remedy};
use crate::configuration::Config;
use crate::knocking::knock;
use crate::machine::Machine;
use crate::probe::{Reach, assert_echoes, assert_silent, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

struct Site {
    net: Topology,
    home: Installation,
    _agent: Agent,
    _services: Vec<Server>,
}

impl Site {
    fn new(config: &Config, here: &[u16], lan: &[u16]) -> Self {
        let net = Topology::new();
        let here = here.iter().map(|&port| Server::tcp(&net.router, port, Habit::Echo));
        let lan = lan.iter().map(|&port| Server::tcp(&net.lan, port, Habit::Echo));
        let services = here.chain(lan).collect();
        let home = Installation::new(config);
        let agent = home.start(&net.router);
        Self { net, home, _agent: agent, _services: services }
    }

    fn grant(&self, app: &str, family: Family) {
        self.home.grant(&self.net.router, app, family.client_a(), 600);
    }

    fn opens(&self, to: IpAddr, port: u16) -> bool {
        tcp(&self.net.a, (to, port).into(), Duration::from_secs(1)) == Reach::Open
    }
}

fn lan() -> Config {
    Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &["duration: 60"])
        .app("lan4", "2223", "tcp", "10.0.0.5:22", &["duration: 60"])
        .app("lan6", "2223", "tcp", "\"[fd00:5::5]:22\"", &["duration: 60"])
}

#[test]
fn behind_the_translation_the_remedy_names_the_lan_host() {
    let site = Site::new(&lan(), &[2222], &[22]);
    let machine = Machine::new(&site.net.router);
    site.net.router.nft(
        "table inet host { chain pre { type filter hook prerouting priority filter; policy drop; iif lo accept; \
         ct state established accept; iifname int0 accept; meta l4proto ipv6-icmp accept; }; }",
    );
    let found = obstacles(&site.home, &site.net.router);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity.as_str(), found[0].code.as_str()), ("error", "host-drops-early"));
    for (family, app) in [(Family::V4, "lan4"), (Family::V6, "lan6")] {
        site.grant(app, family);
        assert!(!site.opens(family.router(), 2223));
    }
    site.home.verb(&site.net.router, &["revoke", "--all"]).success();
    remedy(&machine, &found);
    assert_quiet(&site.home, &site.net.router);
    for (family, app) in [(Family::V4, "lan4"), (Family::V6, "lan6")] {
        assert_silent(&site.net.a, family.router(), 2223);
        knock(&site.net.a, family.router(), app);
        assert_echoes(&site.net.a, family.router(), 2223);
        knock(&site.net.a, family.router(), "ssh");
        assert_echoes(&site.net.a, family.router(), 2222);
        assert_silent(&site.net.b, family.router(), 2223);
        assert_silent(&site.net.b, family.lan(), 22);
    }
}

#[test]
fn what_is_dropped_before_routing_is_told_as_it_looks_there() {
    let site = Site::new(&lan(), &[2222], &[22]);
    site.grant("lan4", Family::V4);
    for (priority, rule, lost) in [
        ("filter", "ip daddr 10.0.0.5 tcp dport 22 drop", true),
        ("filter", "tcp dport 2223 drop", false),
        ("filter", "fib daddr . iif type != { local, broadcast, multicast } drop", true),
        ("dstnat + 1", "tcp dport 22 drop", true),
        ("dstnat - 1", "tcp dport 22 drop", false),
        ("dstnat - 1", "tcp dport 2223 drop", true),
    ] {
        site.net.router.nft(&format!(
            "table inet host {{ chain pre {{ type filter hook prerouting priority {priority}; iifname ext0 {rule}; }}; }}"
        ));
        assert_eq!(site.opens(Family::V4.router(), 2223), !lost, "{priority} {rule}");
        let found = obstacles(&site.home, &site.net.router);
        assert_eq!(!found.is_empty(), lost, "{priority} {rule}: {found:#?}");
        site.net.router.nft("delete table inet host");
    }
}

#[test]
fn one_port_of_a_range_and_one_address_of_several_are_told() {
    let config = Config::new(&[]).app("ssh", "[22, \"3330-3339\"]", "tcp", "local", &["duration: 60"]).app(
        "many",
        "\"2225-2234\"",
        "tcp",
        "10.0.0.5",
        &["duration: 60"],
    );
    let site = Site::new(&config, &[22, 3335], &[2227, 2229]);
    let [first, second] = ["203.0.113.1", "203.0.113.9"].map(|addr| addr.parse::<IpAddr>().unwrap());
    site.net.router.run("ip", &["addr", "add", "203.0.113.9/24", "dev", "ext0"]).success();
    assert_quiet(&site.home, &site.net.router);
    let machine = Machine::new(&site.net.router);
    for app in ["ssh", "many"] {
        site.grant(app, Family::V4);
    }
    for (hook, rule, open, shut) in [
        ("input", "tcp dport 3335 drop", (first, 22), (first, 3335)),
        ("forward", "tcp dport 2227 drop", (first, 2229), (first, 2227)),
        ("prerouting", "ip daddr 10.0.0.5 tcp dport 2227 drop", (first, 2229), (first, 2227)),
        ("input", "ip daddr 203.0.113.9 tcp dport 22 drop", (first, 22), (second, 22)),
    ] {
        site.net.router.nft(&format!(
            "table inet host {{ chain c {{ type filter hook {hook} priority filter; {rule}; }}; }}"
        ));
        assert!(site.opens(open.0, open.1) && !site.opens(shut.0, shut.1), "{hook} {rule}");
        let found = obstacles(&site.home, &site.net.router);
        assert_eq!(found.len(), 1, "{hook} {rule}: {found:#?}");
        assert_eq!(found[0].severity, "warning");
        let what = format!("({} port {})", shut.0, shut.1);
        assert!(found[0].message.contains(&what), "{hook} {rule}: {found:#?}");
        remedy(&machine, &found);
        assert_quiet(&site.home, &site.net.router);
        assert!(site.opens(shut.0, shut.1), "{hook} {rule}");
        site.net.router.nft("delete table inet host");
    }
}

#[test]
fn what_is_in_an_ipset_is_not_known_but_a_list_that_bans_is_of_strangers() {
    let site = Site::new(&Config::ssh(&["duration: 60"]), &[2222], &[]);
    let machine = Machine::new(&site.net.router);
    site.grant("ssh", Family::V4);
    let sets = "ipset create ports bitmap:port range 1-65535; ipset add ports 2222; ipset add ports 8080; ipset add ports 8443\n\
                ipset create good hash:net; ipset add good 203.0.113.2\n\
                ipset create bad hash:net; ipset add bad 192.0.2.0/24";
    machine.sh(sets).success();
    const ADMITTED: &str = "-m conntrack --ctstate ESTABLISHED -j ACCEPT";
    for (rules, opens, told) in [
        (&["-m set --match-set ports dst -j DROP"][..], false, true),
        (&["-m set ! --match-set good src -j DROP"], true, true),
        (&[ADMITTED, "-m set --match-set ports dst -j ACCEPT", "-p tcp -j DROP"], true, true),
        (&[ADMITTED, "-m set --match-set good src -j ACCEPT", "-p tcp -j DROP"], true, true),
        (&["-m set --match-set bad src -j DROP"], true, false),
    ] {
        for rule in rules {
            machine.sh(&format!("iptables -A INPUT {rule}")).success();
        }
        assert_eq!(site.opens(Family::V4.router(), 2222), opens, "{rules:?}");
        let found = obstacles(&site.home, &site.net.router);
        assert!(
            found.iter().all(|one| one.severity == "warning" && one.message.contains("may drop")),
            "{found:#?}"
        );
        assert_eq!(!found.is_empty(), told, "{rules:?}: {found:#?}");
        machine.sh("iptables -F INPUT").success();
    }
}
