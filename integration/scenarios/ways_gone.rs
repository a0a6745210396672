//! Ports that lead to a LAN host no more: who was let in by them does not stay connected to it.

use std::time::Duration;

use crate::agent::Installation;
use crate::backend::{on_every_firewall, without_ipset};
use crate::configuration::Config;
use crate::probe::GENEROUS;
use crate::scenarios::shut_out::{Open, addresses};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_reload_that_takes_a_way_to_a_lan_host_ends_what_came_by_it,
    a_way_that_goes_while_the_address_is_away_leaves_nobody_connected,
    a_start_without_a_way_of_before_ends_what_came_by_it,
    a_guard_between_two_daemons_ends_what_came_by_a_way_that_is_gone,
}

without_ipset! {
    a_reload_that_takes_a_way_to_a_lan_host_ends_what_came_by_it,
}

/// As on every router: without any chain of NAT the kernel translates nothing any more.
fn router(net: &Topology) {
    net.router.nft(
        "table inet others {\n\
         \tchain pre { type nat hook prerouting priority -90; }\n\
         \tchain post { type nat hook postrouting priority 90; oifname \"eth0\" masquerade; }\n\
         }",
    );
}

/// Both protocols of these ports on the LAN host.
fn services(net: &Topology, ports: &[u16]) -> Vec<Server> {
    let both =
        |&port: &u16| [Server::tcp(&net.lan, port, Habit::Echo), Server::udp(&net.lan, port, Habit::Echo)];
    ports.iter().flat_map(both).collect()
}

fn a_reload_that_takes_a_way_to_a_lan_host_ends_what_came_by_it() {
    let net = Topology::new();
    router(&net);
    let _services = services(&net, &[7004, 7005, 7006, 7007]);
    let [lan4, lan6] = Family::BOTH.map(|family| format!("\"{}\"", family.lan()));
    let more = ["duration: 600"];
    let config = |ports: &str, protocol: &str| {
        let twin = Config::new(&[]).app("twin", "7007", "both", &lan4, &more);
        if ports.is_empty() { twin } else { twin.app("lan4", ports, protocol, &lan4, &more) }
    };
    let keep = ["duration: 600", "established: keep"];
    let whole = config("[7004, 7005, 7007]", "both").app("lan6", "7006", "both", &lan6, &keep);
    let home = Installation::new(&whole);
    let agent = home.start(&net.router);
    let (v4, v6) = (Family::V4, Family::V6);
    home.grant(&net.router, "lan4", v4.client_a(), 600);
    home.grant(&net.router, "lan6", v6.client_a(), 600);
    home.grant(&net.router, "twin", v4.client_b(), 600);
    let open = |port| Open::new(&net.a, v4.router(), port);
    let (four, five, seven) = (open(7004), open(7005), open(7007));
    let six = Open::new(&net.a, v6.router(), 7006);
    let others = Open::new(&net.b, v4.router(), 7007);
    let reload = |config: &Config| {
        home.rewrite_config(config.text());
        assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    };

    reload(&config("[7005, 7007]", "both"));
    four.assert_cut("after its port was taken from the app");
    six.assert_cut("after its app was removed");
    five.assert_lives("by another port of the app");
    seven.assert_lives("by a port that two apps share");

    reload(&config("[7005, 7007]", "tcp"));
    assert_eq!(five.live(Duration::from_secs(1)), [true, false], "only its conversation by UDP ends");

    reload(&config("", ""));
    five.assert_cut("after its app was removed");
    seven.assert_cut("at the port of an app that stays, which does not let it in");
    others.assert_lives("whoever else was thrown out");
    assert_eq!(others.live(GENEROUS), [true; 2]);
}

fn a_way_that_goes_while_the_address_is_away_leaves_nobody_connected() {
    let net = Topology::new();
    router(&net);
    let _services = services(&net, &[7004, 7005]);
    let [lan4, lan6] = Family::BOTH.map(|family| format!("\"{}\"", family.lan()));
    let more = ["duration: 600"];
    let config = |ports: &str| {
        let config = Config::new(&[]).app("lan4", ports, "both", &lan4, &more);
        config.app("lan6", ports, "both", &lan6, &more)
    };
    let home = Installation::new(&config("[7004, 7005]"));
    let agent = home.start(&net.router);
    let open = Family::BOTH.map(|family| {
        home.grant(&net.router, if family == Family::V4 { "lan4" } else { "lan6" }, family.client_a(), 600);
        [7004, 7005].map(|port| Open::new(&net.a, family.router(), port))
    });
    addresses(&net, "del");
    home.rewrite_config(config("7005").text());
    assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    addresses(&net, "add");
    for [four, five] in &open {
        four.assert_cut("after its port was taken from the app while the address was away");
        five.assert_lives("by a port that stays");
    }
}

fn a_start_without_a_way_of_before_ends_what_came_by_it() {
    let net = Topology::new();
    router(&net);
    let _services = services(&net, &[7004, 7005]);
    let lan4 = format!("\"{}\"", Family::V4.lan());
    let config = |ports: &str| Config::new(&[]).app("lan4", ports, "both", &lan4, &["duration: 600"]);
    let home = Installation::new(&config("[7004, 7005]"));
    let agent = home.start(&net.router);
    home.grant(&net.router, "lan4", Family::V4.client_a(), 600);
    let [four, five] = [7004, 7005].map(|port| Open::new(&net.a, Family::V4.router(), port));
    agent.terminate();
    four.assert_lives("without a daemon");
    home.rewrite_config(config("7005").text());
    let _agent = home.start(&net.router);
    four.assert_cut("after a start without its port");
    five.assert_lives("by a port that stays");
}

fn a_guard_between_two_daemons_ends_what_came_by_a_way_that_is_gone() {
    let net = Topology::new();
    router(&net);
    let _services = services(&net, &[7004, 7005]);
    let lan4 = format!("\"{}\"", Family::V4.lan());
    let config = |ports: &str| Config::new(&[]).app("lan4", ports, "both", &lan4, &["duration: 600"]);
    let home = Installation::new(&config("[7004, 7005]"));
    let agent = home.start(&net.router);
    home.grant(&net.router, "lan4", Family::V4.client_a(), 600);
    home.grant(&net.router, "lan4", Family::V4.client_b(), 600);
    let [four, five] = [7004, 7005].map(|port| Open::new(&net.a, Family::V4.router(), port));
    let revoked = Open::new(&net.b, Family::V4.router(), 7004);
    home.verb(&net.router, &["revoke", "lan4", &Family::V4.client_b().to_string()]).success();
    revoked.assert_cut("after its grant was taken back");
    agent.terminate();
    home.rewrite_config(config("7005").text());
    let done = home.guard(&net.router).success();
    assert!(done.stderr.contains("by ports that lead there no more are cut"), "{}", done.stderr);
    four.assert_cut("after a guard without its port");
    five.assert_lives("by a port that stays");
    let _agent = home.start(&net.router);
    four.assert_cut("after the start that follows");
    revoked.assert_cut("after a start without the port at which it was taken back");
    five.assert_lives("by a port that stays");
}
