//! `knock-agent explain` where several things come together, or the nearest answer is not the true one.

use std::net::IpAddr;

use serde_json::Value;

use super::explain::{Scene, has_also, next, two_apps};
use crate::agent::Installation;
use crate::configuration::Config;
use crate::knocking::{step1, step2};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, PATIENCE, Reach, dial, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

fn message(value: &Value) -> &str {
    value["message"].as_str().unwrap()
}

fn input(router: &Namespace, more: &str, policy: &str, rules: &str) {
    router.nft(&format!(
        "table inet t {{ {more} chain c {{ type filter hook input priority 0; policy {policy}; ct state established accept; tcp dport 8080-8443 accept; icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept; {rules}; }}\n}}"
    ));
}

#[test]
fn rates_numbers_and_options_of_packets_are_named_and_not_guessed_at() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let router = &net.router;
    let to = (Family::V4.router(), 2222).into();
    home.grant(router, "ssh", Family::V4.client_a(), 900);
    scene.a("granted");

    let meter = "set m { type ipv4_addr; flags dynamic; timeout 1h; }\n";
    for (more, policy, rule) in [
        ("", "drop", "tcp dport 2222 limit rate 1/hour burst 1 packets accept"),
        ("", "accept", "tcp dport 2222 limit rate over 1/hour burst 1 packets drop"),
        ("", "accept", "tcp dport 2222 ct count over 1 drop"),
        (meter, "accept", "tcp dport 2222 add @m { ip saddr limit rate over 1/hour burst 1 packets } drop"),
    ] {
        input(router, more, policy, rule);
        // This one uses it up.
        let open = dial(&net.a, to, GENEROUS).unwrap_or_else(|_| panic!("{rule}"));
        let value = scene.a("rate-rule");
        assert_eq!(value["verdict"], "unknown", "{rule} {value:#}");
        assert!(has_also(&value, "granted"), "{rule} {value:#}");
        let wanted = if policy == "drop" { "lets only so many" } else { "of chain inet t c" };
        assert!(message(&value).contains("handle") && message(&value).contains(wanted), "{rule} {value:#}");
        drop(open);
        router.nft("delete table inet t");
    }
    // Of a rate with a name only the name is known.
    let named = "tcp dport 2222 limit name \"l\" accept; tcp dport 2222 drop";
    input(router, "limit l { rate 1/hour burst 1 packets; }\n", "accept", named);
    assert_eq!(tcp(&net.a, to, GENEROUS), Reach::Open);
    scene.a("cannot-tell");
    router.nft("delete table inet t");
    let hashlimit = "iptables-nft -A INPUT -p tcp --dport 2222 --syn -m hashlimit --hashlimit-name a --hashlimit-above 1/hour --hashlimit-burst 1 --hashlimit-mode srcip -j DROP";
    router.run("sh", &["-c", hashlimit]).success();
    assert_eq!(tcp(&net.a, to, GENEROUS), Reach::Open);
    scene.a("rate-rule");
    router.run("iptables-nft", &["-F"]).success();

    // What this kernel's own clients send.
    for rule in
        ["tcp dport 2222 tcp option maxseg size 1460 drop", "tcp dport 2222 tcp flags syn ip length 60 drop"]
    {
        input(router, "", "accept", rule);
        scene.a("host-drops");
        router.nft("delete table inet t");
    }
    // What no client sends, as the rule that distributions had against SACK panics.
    input(router, "", "accept", "tcp dport 2222 tcp option maxseg size 1-500 drop; ip ttl < 5 drop");
    scene.a("granted");
    router.nft("delete table inet t");

    router.run("ip", &["rule", "add", "sport", "2222", "ipproto", "tcp", "prohibit", "pref", "10"]).success();
    let value = scene.a("route-forbids");
    assert!(next(&value).contains("ip rule"), "{value:#}");
    router.run("ip", &["rule", "del", "pref", "10"]).success();
    scene.a("granted");

    router.nft("table ip n { chain p { type nat hook prerouting priority -110; tcp dport 2222 redirect to :2299\n}\n}");
    let value = scene.a("redirected");
    assert!(has_also(&value, "nothing-listens"), "{value:#}");
    let remedy = next(&value);
    router.run("sh", &["-c", remedy.lines().next().unwrap()]).success();
    scene.a("granted");
    router.nft("delete table ip n");

    let client = Family::V4.client_a().to_string();
    for flags in [["--by", "nosuch0"], ["--to", "198.51.100.77"], ["--to", "2001:db8::77"]] {
        let words = [&["explain", client.as_str(), "ssh"], flags.as_slice()].concat();
        home.check(router, &words).exits(2);
    }
}

#[test]
fn a_step_2_that_is_kept_away_is_the_reason_why_it_has_not_come() {
    let net = Topology::new();
    let config =
        Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 60", "step2_https_duration: 30"]);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (router, to) = (&net.router, Family::V4.router());
    router.nft("table inet t { chain c { type filter hook input priority 0; tcp dport 8443 drop; }\n}");
    step1(&net.a, to, "ssh");
    assert!(step2(&net.a, to, "ssh").is_none());
    let value = scene.a("knock-blocked");
    assert!(message(&value).contains("step 2") && has_also(&value, "step2-missing"), "{value:#}");
    router.nft("delete table inet t; table ip n { chain p { type nat hook prerouting priority -110; tcp dport 8443 redirect to :9443\n}\n}");
    let value = scene.a("knock-blocked");
    assert!(message(&value).contains("sends it to") && !has_also(&value, "not-knocked"), "{value:#}");
    let remedy = next(&value);
    router.run("sh", &["-c", remedy.lines().next().unwrap()]).success();
    scene.a("step2-missing");
}

#[test]
fn lan_hosts_that_were_mended_ways_that_lead_outside_and_clients_that_routes_expect_inside() {
    let net = Topology::new();
    let lan = Family::V4.lan();
    let more = ["duration: 300"];
    let plain = ["duration: 300", "masquerade: false"];
    let config = Config::new(&[])
        .app("lan", "2222", "tcp", &format!("{lan}:22"), &more)
        .app("web", "3333", "tcp", &lan.to_string(), &plain)
        .app("far", "4444", "tcp", "10.77.0.5:22", &more)
        .app("own", "5555", "tcp", "local", &more);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (a, router): (IpAddr, _) = (Family::V4.client_a(), &net.router);
    let _ssh = Server::tcp(&net.lan, 22, Habit::Echo);
    let _web = Server::tcp(&net.lan, 3333, Habit::Echo);
    for app in ["lan", "web", "far"] {
        home.grant(router, app, a, 600);
    }
    // Its firewall drops, and then no more: what was lost is still remembered, and says nothing of what is now.
    net.lan
        .nft("table inet f { chain i { type filter hook input priority 0; tcp dport { 22, 3333 } drop; }\n}");
    for port in [2222, 3333] {
        let _ = dial(&net.a, (Family::V4.router(), port).into(), PATIENCE);
    }
    scene.says(&net.a, a, "lan", 2222, "lan-silent");
    net.lan.nft("delete table inet f");
    scene.says(&net.a, a, "lan", 2222, "granted");
    assert_eq!(tcp(&net.a, (Family::V4.router(), 3333).into(), GENEROUS), Reach::Open);
    scene.says(&net.a, a, "web", 3333, "granted");

    router.sysctl("net/ipv4/conf/ext0/forwarding", "0");
    let value = scene.says(&net.a, a, "lan", 2222, "forwarding-off");
    router.run("sh", &["-c", next(&value).lines().next().unwrap()]).success();
    scene.says(&net.a, a, "lan", 2222, "granted");

    // Nothing but the default route leads to it.
    router.run("ip", &["route", "replace", "default", "via", &a.to_string()]).success();
    let value = scene.says(&net.a, a, "far", 4444, "no-route");
    assert!(message(&value).contains("leads out by ext0"), "{value:#}");

    // From the internet, by the guarded interface, though the way back leads inside.
    router.run("ip", &["route", "add", "198.51.100.0/24", "via", &lan.to_string()]).success();
    let _own = Server::tcp(router, 5555, Habit::Echo);
    let value = scene.explain("198.51.100.9".parse().unwrap(), "own");
    assert!(value["cause"] == "not-knocked" && has_also(&value, "other-interface"), "{value:#}");
    // Of a private network it is believed.
    router.run("ip", &["route", "add", "10.99.0.0/16", "via", &lan.to_string()]).success();
    let value = scene.explain("10.99.0.9".parse().unwrap(), "own");
    assert_eq!(value["cause"], "other-interface", "{value:#}");
    assert!(value["also"][0]["message"].as_str().unwrap().contains("--by ext0"), "{value:#}");
}
