//! `knock-agent explain` and `check-ruleset` where the remedy matters: bans of many, marks of others, connections that are
//! tracked one way only, services that hang, and ends of a link that do not find each other.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::explain::{Scene, has_also, next, two_apps};
use super::explain_hosts::run;
use crate::agent::Installation;
use crate::audit::{find, findings, obstacles};
use crate::configuration::Config;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, PATIENCE, Reach, dial, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

/// Does the first command that is named as a remedy.
fn obey(host: &Namespace, value: &Value) {
    let next = next(value);
    let line = next.lines().find(|line| !line.starts_with('#')).unwrap_or_else(|| panic!("{value:#}"));
    run(host, line);
}

#[test]
fn who_is_let_out_of_a_ban_leaves_the_others_in_it() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, a, b) = (&net.router, Family::V4.client_a(), Family::V4.client_b());
    home.grant(router, "ssh", a, 900);
    home.grant(router, "ssh", b, 900);
    let input = "type filter hook input priority -1;";
    let both = "203.0.113.2, 203.0.113.3";
    for rules in [
        format!(
            "set bad {{ type ipv4_addr; elements = {{ {both} }}; }} chain out {{ counter drop; }} chain i {{ {input} ip saddr @bad jump out; }}"
        ),
        format!(
            "set bad {{ type ipv4_addr; elements = {{ {both} }}; }} chain out {{ drop; }} chain via {{ goto out; }} chain i {{ {input} ip saddr @bad goto via; }}"
        ),
        format!(
            "map bad {{ type ipv4_addr : verdict; elements = {{ 203.0.113.2 : drop, 203.0.113.3 : drop }}; }} chain i {{ {input} ip saddr vmap @bad; }}"
        ),
        format!(
            "map bad {{ type ipv4_addr : verdict; elements = {{ 203.0.113.2 : goto out, 203.0.113.3 : goto out }}; }} chain i {{ {input} ip saddr vmap @bad; }} chain out {{ drop; }}"
        ),
        format!(
            "set bad {{ type ipv4_addr . inet_service; elements = {{ 203.0.113.2 . 2222, 203.0.113.3 . 2222 }}; }} chain i {{ {input} ip saddr . tcp dport @bad drop; }}"
        ),
        format!(
            "chain out {{ drop; }} chain i {{ {input} ip saddr 203.0.113.2 jump out; ip saddr 203.0.113.3 jump out; }}"
        ),
    ] {
        router.nft(&format!("table inet bans {{ {} }}", rules.replace("; }", ";\n}\n")));
        let value = scene.a("host-bans");
        obey(router, &value);
        scene.a("granted");
        scene.says(&net.b, b, "ssh", 2222, "host-bans");
        router.nft("delete table inet bans");
    }
    // What is about more than this address is only shown.
    for (rules, shows) in [
        (
            format!(
                "set bad {{ type ipv4_addr; flags interval; elements = {{ 203.0.113.0/24 }}; }} chain out {{ drop; }} chain i {{ {input} ip saddr @bad jump out; }}"
            ),
            "nft list set inet bans bad",
        ),
        (
            format!("chain out {{ drop; }} chain i {{ {input} ip saddr 203.0.113.0/24 jump out; }}"),
            "nft -a list chain inet bans i",
        ),
        (format!("chain i {{ {input} ip saddr {{ {both} }} drop; }}"), "nft -a list chain inet bans i"),
        (
            format!(
                "chain i {{ {input} ip saddr . tcp dport vmap {{ 203.0.113.2 . 2222 : drop, 203.0.113.3 . 2222 : drop }}; }}"
            ),
            "nft -a list chain inet bans i",
        ),
    ] {
        router.nft(&format!("table inet bans {{ {} }}", rules.replace("; }", ";\n}\n")));
        let value = scene.a("host-bans");
        let next = next(&value);
        assert!(next.contains(shows) && next.contains('#') && !next.contains("delete"), "{value:#}");
        router.nft("delete table inet bans");
    }
}

/// Whether what is sent over a connection comes back.
fn echoes(from: &Namespace, to: IpAddr) -> bool {
    let Ok(mut stream) = dial(from, (to, 2222).into(), GENEROUS) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = [0; 3];
    stream.write_all(b"hey").is_ok() && stream.read_exact(&mut answer).is_ok()
}

#[test]
fn connections_that_are_tracked_one_way_only_are_told_where_our_table_cuts_them() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, to, a) = (&net.router, Family::V4.router(), Family::V4.client_a());
    home.grant(router, "ssh", a, 900);
    let there = "chain i { type filter hook prerouting priority raw; tcp dport 2222 notrack;\n}\n";
    let back = "chain o { type filter hook output priority raw; tcp sport 2222 notrack;\n}\n";
    for (rules, cause) in [
        (String::new(), "granted"),
        (there.to_owned(), "our-rule-drops"),
        (format!("{there}{back}"), "granted"),
        (back.to_owned(), "granted"),
    ] {
        router.nft(&format!("table inet raw {{ {rules} }}"));
        let value = scene.explain(a, "ssh");
        assert_eq!(value["cause"], cause, "{rules} {value:#}");
        assert_eq!(echoes(&net.a, to), cause == "granted", "{rules}");
        let told: Vec<String> = obstacles(&home, router).into_iter().map(|found| found.code).collect();
        let wanted: &[&str] = if cause == "granted" { &[] } else { &["host-untracks"] };
        assert_eq!(told, wanted, "{rules}");
        if cause != "granted" {
            let message = value["message"].as_str().unwrap();
            assert!(message.contains("inet raw i") && message.contains("ka:cut:stray"), "{message}");
            let found = find(&findings(&home, router), "host-untracks");
            run(router, &found.fix);
            scene.a("granted");
            assert!(echoes(&net.a, to));
        }
        router.nft("delete table inet raw");
    }
    run(router, "iptables-legacy -t raw -A PREROUTING -p tcp --dport 2222 -j NOTRACK");
    assert_eq!(scene.explain(a, "ssh")["cause"], "our-rule-drops");
    assert!(!echoes(&net.a, to));
}

#[test]
fn who_writes_another_mark_over_ours_is_named_and_not_a_rule_that_is_there() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let router = &net.router;
    home.grant(router, "ssh", Family::V4.client_a(), 900);
    let wall = "chain i { type filter hook input priority 0; policy drop; ct state established accept; tcp dport 8080-8443 accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; MARK accept;\n}\n";
    let ours = wall.replace("MARK", "meta mark 24107");
    for (rules, writer) in [
        (
            format!("chain m {{ type filter hook input priority -5; meta mark set 0x1;\n}}\n{ours}"),
            "chain inet t m",
        ),
        (
            format!("chain m {{ type filter hook input priority -5; meta mark set ct mark;\n}}\n{ours}"),
            "chain inet t m",
        ),
        (
            ours.replace("meta mark 24107", "tcp dport 2222 meta mark set 0x1; meta mark 24107"),
            "chain inet t i",
        ),
    ] {
        router.nft(&format!("table inet t {{ {rules} }}"));
        let value = scene.a("host-drops");
        let message = value["message"].as_str().unwrap();
        assert!(message.contains(writer) && message.contains("another mark"), "{value:#}");
        let remedy = next(&value);
        assert!(remedy.contains("nft -a list chain") && !remedy.contains("nft add"), "{value:#}");
        assert!(!remedy.contains("nft insert"), "{value:#}");
        let found = findings(&home, router);
        let found = found.iter().find(|found| found.message.contains("another mark")).unwrap();
        assert!(found.message.contains(writer) && !found.fix.contains("nft add"), "{found:#?}");
        router.nft("delete table inet t");
    }
    // Bits of its own are no matter, and a wall that does not know our mark needs its rule as well.
    router.nft(&format!(
        "table inet t {{ chain m {{ type filter hook input priority -20; meta mark set 0x1;\n}}\n{ours} }}"
    ));
    scene.a("granted");
    router.nft(&format!("delete table inet t; table inet t {{ chain m {{ type filter hook input priority -5; meta mark set 0x1;\n}}\n{} }}", wall.replace("MARK", "tcp dport 1")));
    let value = scene.a("host-drops");
    assert!(
        next(&value).contains("nft -a list chain inet t m") && next(&value).contains("24107 accept"),
        "{value:#}"
    );
}

#[test]
fn a_service_that_hangs_a_black_hole_and_one_port_of_many() {
    let net = Topology::new();
    let lan = Family::V4.lan();
    let config = Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &["duration: 900"])
        .app("range", "6000-6010", "both", "local", &["duration: 900"])
        .app("lan", "3333", "tcp", &format!("{lan}:22"), &["duration: 900"]);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (router, a) = (&net.router, Family::V4.client_a());
    for app in ["ssh", "range", "lan"] {
        home.grant(router, app, a, 900);
    }
    // It takes nothing, and its queue has room for one.
    let mut hanging = std::process::Command::new("python3");
    hanging.args(["-c", "import socket, time\ns = socket.socket()\ns.bind(('0.0.0.0', 2222))\ns.listen(0)\nk = [socket.create_connection(('127.0.0.1', 2222))]\ntime.sleep(120)"]);
    let hanging = router.background(hanging);
    let end = Instant::now() + Duration::from_secs(30);
    while scene.explain(a, "ssh")["cause"] != "no-answer" {
        assert!(Instant::now() < end, "{:#}", scene.explain(a, "ssh"));
    }
    let value = scene.a("no-answer");
    assert!(value["message"].as_str().unwrap().contains("queue is full"), "{value:#}");
    assert!(next(&value).contains("ss -tlnp"), "{value:#}");
    drop(hanging);

    let _far = Server::tcp(&net.lan, 22, Habit::Echo);
    scene.says(&net.a, a, "lan", 3333, "granted");
    for key in ["all", "ext0"] {
        router.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "0");
    }
    run(router, &format!("ip route add blackhole {lan}/32"));
    scene.says(&net.a, a, "lan", 3333, "route-forbids");
    run(router, &format!("ip route del blackhole {lan}/32"));
    scene.says(&net.a, a, "lan", 3333, "granted");

    let value = scene.explain(a, "range");
    assert_eq!(value["cause"], "nothing-listens", "{value:#}");
    assert!(next(&value).contains("6000-6010 (tcp and udp)"), "{value:#}");
    let _tcp = Server::tcp(router, 6005, Habit::Echo);
    let _udp = Server::udp(router, 6007, Habit::Echo);
    let value = scene.says(&net.a, a, "range", 6005, "granted");
    assert!(next(&value).contains("that is about tcp/6005"), "{value:#}");
    assert!(!next(&scene.explain(a, "6005")).contains("that is about"));
}

#[test]
fn a_host_that_drops_neighbour_discovery_is_told() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, a6) = (&net.router, Family::V6.client_a());
    for family in Family::BOTH {
        home.grant(router, "ssh", family.client_a(), 900);
    }
    let forget = || {
        run(router, "ip -6 neigh flush all");
        run(&net.a, "ip -6 neigh flush all");
    };
    let to = (Family::V6.router(), 2222).into();
    let rest =
        "ct state established accept; meta mark 24107 accept; tcp dport 8080-8443 accept; iif lo accept;";
    for more in ["", "icmpv6 type nd-neighbor-solicit accept;", "icmpv6 type echo-request accept;"] {
        router.nft(&format!(
            "table inet t {{ chain i {{ type filter hook input priority 0; policy drop; {rest} {more}\n}}\n}}"
        ));
        forget();
        let value = scene.explain(a6, "ssh");
        assert_eq!(
            (&value["verdict"], &value["cause"]),
            (&"unknown".into(), &"neighbour-drops".into()),
            "{value:#}"
        );
        assert!(more.contains("solicit") || tcp(&net.a, to, PATIENCE) != Reach::Open);
        // IPv4 is not concerned.
        scene.a("granted");
        let told = obstacles(&home, router);
        assert_eq!(
            told.iter().map(|found| found.code.as_str()).collect::<Vec<_>>(),
            ["host-drops-neighbours"],
            "{told:#?}"
        );
        obey(router, &value);
        forget();
        scene.says(&net.a, a6, "ssh", 2222, "granted");
        assert!(obstacles(&home, router).is_empty());
        router.nft("delete table inet t");
    }
    for rules in [
        "ip6 nexthdr icmpv6 accept;",
        "meta l4proto ipv6-icmp accept;",
        "ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;",
        "ip6 saddr fe80::/10 accept; ip6 saddr 2001:db8::/32 icmpv6 type nd-neighbor-advert accept;",
    ] {
        router.nft(&format!("table inet t {{ chain i {{ type filter hook input priority 0; policy drop; {rest} {rules}\n}}\n}}"));
        assert!(obstacles(&home, router).is_empty(), "{rules} {:#?}", obstacles(&home, router));
        assert!(!has_also(&scene.explain(a6, "ssh"), "neighbour-drops"), "{rules}");
        router.nft("delete table inet t");
    }
    run(
        router,
        "ip6tables-nft -P INPUT DROP; ip6tables-nft -A INPUT -m mark --mark 24107 -j ACCEPT; ip6tables-nft -A INPUT -p tcp --dport 8080:8443 -j ACCEPT; ip6tables-nft -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
    );
    let told = find(&findings(&home, router), "host-drops-neighbours");
    forget();
    let value = scene.explain(a6, "ssh");
    assert_eq!(value["cause"], "neighbour-drops", "{value:#}");
    run(router, &told.fix);
    scene.says(&net.a, a6, "ssh", 2222, "granted");
    assert!(obstacles(&home, router).is_empty());
}

#[test]
fn a_rule_that_asks_where_a_source_is_reached_and_an_interface_without_an_address() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, a) = (&net.router, Family::V4.client_a());
    home.grant(router, "ssh", a, 900);
    router.nft("table inet t { chain p { type filter hook prerouting priority -160; fib saddr . iif oif missing drop;\n}\n}");
    scene.a("granted");
    for key in ["all", "ext0"] {
        router.sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "0");
    }
    run(router, "ip route add 203.0.113.2/32 dev int0");
    let value = scene.a("host-drops");
    assert!(value["message"].as_str().unwrap().contains("chain inet t p"), "{value:#}");
    run(router, "ip route del 203.0.113.2/32 dev int0; nft delete table inet t");
    router.sysctl("net/ipv6/conf/ext0/disable_ipv6", "1");
    let value = scene.explain(Family::V6.client_a(), "ssh");
    assert_eq!(value["cause"], "no-address", "{value:#}");
    assert!(next(&value).contains("disable_ipv6"), "{value:#}");
}
