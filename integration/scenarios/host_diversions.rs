//! Rules of others that take our packets elsewhere, or bring others' to guarded ports: the dry run names them.

use std::time::Duration;

use crate::agent::Installation;
use crate::audit::{assert_quiet, find, findings, obstacles, remedy};
use crate::configuration::Config;
use crate::knocking::{knock, step1};
use crate::machine::Machine;
use crate::probe::{Reach, assert_echoes, assert_silent, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

fn ssh() -> (Topology, Installation, Server) {
    let net = Topology::new();
    let server = Server::tcp(&net.router, 2222, Habit::Echo);
    (net, Installation::new(&Config::ssh(&["duration: 60"])), server)
}

#[test]
fn a_translation_of_step_2s_port_is_an_error_and_its_removal_helps() {
    let (net, home, _server) = ssh();
    let machine = Machine::new(&net.router);
    net.router.nft(
        "table ip others { map to { type inet_service : ipv4_addr . inet_service; elements = { 8443 : 10.0.0.5 . 443 }; }; \
         chain pre { type nat hook prerouting priority dstnat; iifname ext0 dnat ip to tcp dport map @to; }; }",
    );
    let found = obstacles(&home, &net.router);
    let taken = find(&found, "step-port-redirected");
    assert_eq!(taken.severity, "error");
    assert!(taken.message.contains("8443") && taken.message.contains("10.0.0.5 port 443"), "{taken:#?}");
    let _agent = home.start(&net.router);
    step1(&net.a, Family::V4.router(), "ssh");
    assert_eq!(
        tcp(&net.a, (Family::V4.router(), 8443).into(), Duration::from_secs(2)),
        Reach::Refused,
        "the LAN host answers instead of us"
    );
    remedy(&machine, &found);
    assert_quiet(&home, &net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

#[test]
fn another_port_that_leads_to_a_guarded_one_is_told_and_its_removal_closes_it() {
    let (net, home, _server) = ssh();
    let machine = Machine::new(&net.router);
    for (tool, port) in [("iptables", "2000"), ("ip6tables", "2001")] {
        let rule =
            ["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", port, "-j", "REDIRECT", "--to-ports"];
        net.router.run(tool, &[&rule[..], &["2222"]].concat()).success();
    }
    net.router.nft(
        "table inet others { chain pre { type nat hook prerouting priority dstnat + 5; tcp dport 2002 redirect to :8443; }; }",
    );
    let found = obstacles(&home, &net.router);
    let aliases = found.iter().filter(|finding| finding.code == "guarded-port-alias");
    assert_eq!(aliases.count(), 3, "{found:#?}");
    let _agent = home.start(&net.router);
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert_echoes(&net.a, Family::V4.router(), 2000);
    assert_echoes(&net.a, Family::V6.router(), 2001);
    remedy(&machine, &found);
    assert_quiet(&home, &net.router);
    for (family, port) in [(Family::V4, 2000), (Family::V6, 2001), (Family::V4, 2002)] {
        assert_ne!(tcp(&net.a, (family.router(), port).into(), Duration::from_secs(1)), Reach::Open);
    }
}

#[test]
fn a_port_that_others_forward_is_told_and_guarded() {
    let (net, home, _server) = ssh();
    net.router.nft(
        "table ip others { chain pre { type nat hook prerouting priority dstnat; tcp dport 2222 dnat to 10.0.0.5:22; }; }",
    );
    let found = findings(&home, &net.router);
    assert!(found.iter().all(|finding| finding.severity == "info"), "{found:#?}");
    assert!(find(&found, "port-forwarded").message.contains("10.0.0.5 port 22"));
    let _agent = home.start(&net.router);
    assert_silent(&net.a, Family::V4.router(), 2222);
}

#[test]
fn a_transparent_proxy_and_rewritten_packets_are_told() {
    let (net, home, server) = ssh();
    let machine = Machine::new(&net.router);
    net.router.nft(
        "table inet others {\n\
         chain divert {\n type filter hook prerouting priority mangle\n tcp dport 2222 tproxy to :9999 accept\n }\n\
         chain rewrite {\n type filter hook prerouting priority raw\n tcp dport 3000 tcp dport set 2222 notrack\n }\n\
         }",
    );
    let found = obstacles(&home, &net.router);
    assert!(find(&found, "tproxy").message.contains("2222"));
    let words = find(&found, "stateless-translation").message;
    assert!(words.contains("the gate judges by what it writes"), "{words}");
    remedy(&machine, &found);
    assert_quiet(&home, &net.router);
    drop(server);
}

#[test]
fn a_host_that_tracks_nothing_cannot_forward() {
    let net = Topology::new();
    let _server = Server::tcp(&net.lan, 22, Habit::Echo);
    let machine = Machine::new(&net.router);
    let home = Installation::new(&Config::new(&[]).app("lan", "2223", "tcp", "10.0.0.5:22", &[]));
    net.router.nft("table ip others { chain pre { type filter hook prerouting priority raw; notrack; }; }");
    let found = obstacles(&home, &net.router);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity.as_str(), found[0].code.as_str()), ("error", "host-untracks"));
    let _agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "lan");
    assert_ne!(tcp(&net.a, (Family::V4.router(), 2223).into(), Duration::from_secs(1)), Reach::Open);
    remedy(&machine, &found);
    assert_quiet(&home, &net.router);
    home.grant(&net.router, "lan", Family::V4.client_a(), 20);
    assert_echoes(&net.a, Family::V4.router(), 2223);
}

#[test]
fn a_file_that_flushes_everything_is_told_and_mended() {
    let (net, home, _server) = ssh();
    let machine = Machine::new(&net.router);
    net.router.nft("table inet filter { chain input { type filter hook input priority filter; }; }");
    let file = "flush ruleset\n\ntable inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n";
    let setup = format!(
        "mkdir -p /etc/systemd/system/sysinit.target.wants\n\
         ln -sf /lib/systemd/system/nftables.service /etc/systemd/system/sysinit.target.wants/nftables.service\n\
         cat > /etc/nftables.conf <<'END'\n{file}END\n"
    );
    machine.sh(&setup).success();
    let check = format!(
        "{} check-ruleset --json --config {}",
        crate::agent::PROGRAM,
        home.path("config.yaml").display()
    );
    let told = machine.sh(&check).success().text();
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    let flush =
        report["findings"].as_array().unwrap().iter().find(|finding| finding["code"] == "flush-on-reload");
    let fix = flush.expect("the file is named")["fix"].as_str().unwrap().to_owned();
    let _agent = home.start(&net.router);
    let table = || net.router.run("nft", &["-a", "list", "table", "inet", "knock_agent"]).success().text();
    let before = table();
    machine.sh(&fix).success();
    machine.sh("nft -f /etc/nftables.conf && nft -f /etc/nftables.conf").success();
    assert_eq!(table().lines().next(), before.lines().next(), "the table has not been made anew");
    assert!(!machine.sh(&check).success().text().contains("flush-on-reload"));
}
