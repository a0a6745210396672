//! Networks that may pass without knocking, for ever or for a while.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::{on_both_iptables, on_every_firewall};
use crate::configuration::Config;
use crate::probe::{assert_echoes, assert_on_time, assert_silent, when_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    a_wide_network_and_networks_inside_it_may_all_be_configured,
    an_operator_allows_networks_for_a_while_while_the_daemon_runs,
    an_operator_allows_networks_for_a_while_without_a_daemon,
    where_networks_overlap_the_longest_wins,
    a_network_that_is_narrowed_lets_nobody_else_in,
    what_operators_allowed_ends_with_one_flush_however_it_overlaps,
}

on_both_iptables! {
    networks_that_another_version_left_in_the_kernel_end_with_a_start,
}

fn two_apps(global: &[&str], ssh: &[&str]) -> Config {
    Config::new(global).app("ssh", "2222", "tcp", "local", ssh).app("web", "3333", "tcp", "local", &[])
}

fn services(net: &Topology) -> [Server; 2] {
    [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 3333, Habit::Echo)]
}

#[test]
fn networks_of_the_configuration_pass_without_knocking() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(
        &["allow: [203.0.113.2, \"2001:db8:1::3/128\"]"],
        &["allow: [\"203.0.113.3/32\", \"2001:db8:1::2\"]"],
    ));
    let _agent = home.start(&net.router);
    // (client, family): everywhere by `global`, or to ssh alone.
    for (client, family, web) in [
        (&net.a, Family::V4, true),
        (&net.b, Family::V6, true),
        (&net.b, Family::V4, false),
        (&net.a, Family::V6, false),
    ] {
        assert_echoes(client, family.router(), 2222);
        if web {
            assert_echoes(client, family.router(), 3333);
        } else {
            assert_silent(client, family.router(), 3333);
        }
    }
}

fn a_wide_network_and_networks_inside_it_may_all_be_configured() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(
        &["allow: [203.0.113.0/24, 203.0.113.2/32, 203.0.112.0/23, \"2001:db8:1::/64\", \"2001:db8::/32\"]"],
        &[],
    ));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_echoes(&net.a, family.router(), 2222);
        assert_echoes(&net.b, family.router(), 3333);
    }
}

fn allow_for_a_while(daemon: bool) {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(&[], &[]));
    let _agent = if daemon {
        Some(home.start(&net.router))
    } else {
        home.start(&net.router).terminate();
        None
    };
    let to = Family::V4.router();
    home.verb(&net.router, &["allow", "203.0.113.2/31", "--app", "ssh", "--for", "6s"]).success();
    let due = Instant::now() + Duration::from_secs(6);
    home.verb(&net.router, &["allow", "2001:db8:1::2", "--for", "60s"]).success();
    assert_echoes(&net.a, to, 2222);
    assert_echoes(&net.b, to, 2222);
    assert_silent(&net.a, to, 3333);
    assert_echoes(&net.a, Family::V6.router(), 2222);
    assert_echoes(&net.a, Family::V6.router(), 3333);
    assert_silent(&net.b, Family::V6.router(), 3333);
    let list = home.verb(&net.router, &["allow", "--list"]).success().text();
    assert!(list.contains("203.0.113.2/31") && list.contains("2001:db8:1::2"), "{list}");
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
    assert_silent(&net.b, to, 2222);
    let list = home.verb(&net.router, &["allow", "--list"]).success().text();
    assert!(!list.contains("203.0.113.2/31") && list.contains("2001:db8:1::2"), "{list}");
    home.verb(&net.router, &["allow", "--flush"]).success();
    assert_silent(&net.a, Family::V6.router(), 2222);
    let list = home.verb(&net.router, &["allow", "--list"]).success().text();
    assert_eq!(list, "no networks are allowed\n", "whoever has a grant, too");
}

fn an_operator_allows_networks_for_a_while_while_the_daemon_runs() {
    allow_for_a_while(true);
}

fn an_operator_allows_networks_for_a_while_without_a_daemon() {
    allow_for_a_while(false);
}

#[test]
fn flushing_keeps_what_the_configuration_allows() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(&["allow: [203.0.113.2]"], &["allow: [\"203.0.113.3\"]"]));
    let _agent = home.start(&net.router);
    let told = |words: &[&str]| home.verb(&net.router, &[&["allow"], words].concat()).success().text();
    assert_eq!(told(&["203.0.113.3", "--for", "10m"]).trim(), "203.0.113.3 may reach every app for 10m");
    assert!(
        told(&["203.0.113.3", "--for", "10m", "--app", "ssh"]).contains("the configuration allows it, too")
    );
    assert!(told(&["203.0.113.2"]).contains("until it is flushed; the configuration allows it, too"));
    told(&["203.0.113.2/31", "--for", "2h"]);
    let longer = told(&["203.0.113.3", "--for", "2s"]);
    assert!(longer.contains("for 2h: it was allowed for longer before"), "{longer}");
    assert_echoes(&net.b, Family::V4.router(), 3333);
    home.verb(&net.router, &["allow", "--flush"]).success();
    assert_echoes(&net.a, Family::V4.router(), 3333);
    assert_echoes(&net.b, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 3333);
}

fn where_networks_overlap_the_longest_wins() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(&[], &[]));
    let agent = home.start(&net.router);
    let allow = |words: &[&str]| {
        let mut all = vec!["allow"];
        all.extend(words);
        home.verb(&net.router, &all).success();
    };
    // IPv4: a wide network for long, then a part of it for a moment. IPv6: a part for long, then all for a moment.
    allow(&["203.0.113.0/24", "--app", "ssh", "--for", "90s"]);
    allow(&["203.0.113.2", "--app", "ssh", "--for", "3s"]);
    allow(&["2001:db8:1::2", "--app", "ssh", "--for", "90s"]);
    allow(&["2001:db8:1::/64", "--app", "ssh", "--for", "3s"]);
    for family in Family::BOTH {
        assert_echoes(&net.a, family.router(), 2222);
    }
    sleep(Duration::from_millis(4600));
    let as_it_should_be = || {
        assert_echoes(&net.a, Family::V4.router(), 2222);
        assert_echoes(&net.b, Family::V4.router(), 2222);
        assert_echoes(&net.a, Family::V6.router(), 2222);
        assert_silent(&net.b, Family::V6.router(), 2222);
    };
    as_it_should_be();
    agent.terminate();
    let _agent = home.start(&net.router);
    as_it_should_be();
}

fn a_network_that_is_narrowed_lets_nobody_else_in() {
    let net = Topology::new();
    let _services = services(&net);
    let allowing = |v4: &str, v6: &str| two_apps(&[], &[&format!("allow: [{v4}\"{v6}\"]")]);
    let home = Installation::new(&allowing("203.0.113.2/31, ", "2001:db8:1::2/127"));
    let agent = home.start(&net.router);
    let reload = |config: &Config| {
        home.rewrite_config(config.text());
        agent.reload();
    };
    let both = |family: Family, b: bool| {
        assert_echoes(&net.a, family.router(), 2222);
        if b {
            assert_echoes(&net.b, family.router(), 2222);
        } else {
            assert_silent(&net.b, family.router(), 2222);
        }
    };
    Family::BOTH.into_iter().for_each(|family| both(family, true));
    reload(&allowing("203.0.113.2, ", "2001:db8:1::2"));
    Family::BOTH.into_iter().for_each(|family| both(family, false));
    reload(&allowing("203.0.113.2/31, ", "2001:db8:1::2/127"));
    Family::BOTH.into_iter().for_each(|family| both(family, true));
    reload(&two_apps(&[], &[]));
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
}

fn what_operators_allowed_ends_with_one_flush_however_it_overlaps() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(&[], &[]));
    let _agent = home.start(&net.router);
    for words in [
        &["allow", "203.0.113.2/31", "--for", "1h"][..],
        &["allow", "203.0.113.2", "--for", "2h"],
        &["allow", "2001:db8:1::2", "--for", "1h"],
        &["allow", "2001:db8:1::2/127", "--for", "2h"],
    ] {
        home.verb(&net.router, words).success();
    }
    for family in Family::BOTH {
        assert_echoes(&net.a, family.router(), 2222);
        assert_echoes(&net.b, family.router(), 2222);
    }
    home.verb(&net.router, &["allow", "--flush"]).success();
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
    assert!(listed(&net, &home).is_empty());
}

fn networks_that_another_version_left_in_the_kernel_end_with_a_start() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(&["allow: [203.0.113.2]"], &[]));
    home.start(&net.router).terminate();
    let left = "add ka_allow_all_4 203.0.113.2/31 timeout 0 comment \"config 203.0.113.2/31\"\n";
    net.router.feed("ipset", &["restore", "-exist"], left.as_bytes()).success();
    assert_echoes(&net.b, Family::V4.router(), 2222);
    let _agent = home.start(&net.router);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
    assert_eq!(listed(&net, &home), ["203.0.113.2"]);
}

/// The networks that `allow --list` shows, in the order of the listing.
fn listed(net: &Topology, home: &Installation) -> Vec<String> {
    let text = home.verb(&net.router, &["allow", "--list"]).success().text();
    text.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_list_shows_what_was_allowed_and_not_what_became_of_it_in_the_kernel() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&["allow: [203.0.112.0/22]"], &[]));
    let agent = home.start(&net.router);
    for words in [
        &["allow", "203.0.0.0/16", "--for", "1h"][..],
        &["allow", "203.0.113.2", "--for", "2h"],
        &["allow", "2001:db8:1::/64", "--app", "ssh", "--for", "2h"],
        &["allow", "2001:db8:1::2", "--app", "ssh"],
    ] {
        home.verb(&net.router, words).success();
    }
    let mut wanted = vec!["203.0.112.0/22", "203.0.0.0/16", "2001:db8:1::2", "2001:db8:1::/64"];
    wanted.sort_unstable();
    let sorted = || {
        let mut have = listed(&net, &home);
        have.sort();
        have
    };
    // The daemon tells also what the configuration covers, as it would be left without that.
    let with_covered = ["2001:db8:1::/64", "2001:db8:1::2", "203.0.0.0/16", "203.0.112.0/22", "203.0.113.2"];
    assert_eq!(sorted(), with_covered);
    agent.kill();
    assert_eq!(sorted(), wanted, "the kernel alone knows");
    let agent = home.start(&net.router);
    assert_eq!(sorted(), wanted, "a restart takes them over as they were");
    let wrong = home.verb(&net.router, &["allow", "--list", "--app", "nosuch"]).exits(2);
    assert!(wrong.stderr.contains("there is no app `nosuch`; the apps are: ssh, web"), "{}", wrong.stderr);
    home.verb(&net.router, &["allow", "--list", "--app", "web"]).success();
    agent.kill();
}

#[test]
fn what_an_operator_allowed_is_listed_also_where_the_configuration_allows_it() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(&["allow: [203.0.113.0/24]"], &[]));
    let agent = home.start(&net.router);
    home.verb(&net.router, &["allow", "203.0.113.2", "--for", "1h"]).success();
    let mut have = listed(&net, &home);
    have.sort();
    assert_eq!(have, ["203.0.113.0/24", "203.0.113.2"]);
    // As it was told before, it is what is left without the other one.
    home.rewrite_config(two_apps(&[], &[]).text());
    agent.reload();
    assert_eq!(listed(&net, &home), ["203.0.113.2"]);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
    home.verb(&net.router, &["allow", "--flush"]).success();
    assert!(listed(&net, &home).is_empty());
    assert_silent(&net.a, Family::V4.router(), 2222);
}

#[test]
fn an_element_that_an_administrator_removed_is_taken_back() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(&["allow: [203.0.113.3]"], &[]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    home.verb(&net.router, &["allow", "203.0.113.0/30", "--for", "1h"]).success();
    assert_echoes(&net.a, to, 2222);
    let remove = |set: &str, what: &str| {
        let what = format!("{{ {what} }}");
        net.router.run("nft", &["delete", "element", "inet", "knock_agent", set, &what]).success();
    };
    // What an operator allowed is gone; what the configuration allows comes back.
    remove("allow_all_4", "203.0.113.0-203.0.113.2");
    remove("allow_all_4", "203.0.113.3");
    sleep(Duration::from_millis(700));
    assert_silent(&net.a, to, 2222);
    assert_echoes(&net.b, to, 2222);
    assert_eq!(listed(&net, &home), ["203.0.113.3"]);
    net.router.run("nft", &["flush", "ruleset"]).success();
    sleep(Duration::from_millis(700));
    assert_silent(&net.a, to, 2222);
    assert_echoes(&net.b, to, 2222);
    // A part of a network leaves the others.
    home.verb(&net.router, &["allow", "2001:db8:1::/64", "--for", "1h"]).success();
    home.verb(&net.router, &["allow", "2001:db8:1::2", "--for", "2h"]).success();
    remove("allow_all_6", "2001:db8:1::2");
    sleep(Duration::from_millis(700));
    assert_silent(&net.a, Family::V6.router(), 2222);
    assert_echoes(&net.b, Family::V6.router(), 2222);
    agent.kill();
    let _agent = home.start(&net.router);
    assert_silent(&net.a, Family::V6.router(), 2222);
    assert_echoes(&net.b, Family::V6.router(), 2222);
}

#[test]
fn closing_does_not_wait_for_a_good_configuration() {
    let net = Topology::new();
    let _services = services(&net);
    let home = Installation::new(&two_apps(&["allow: [203.0.113.3]", "ipv6_prefix: 64"], &[]));
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
    home.grant(&net.router, "web", Family::V4.client_a(), 600);
    home.grant(&net.router, "ssh", Family::V6.client_a(), 600);
    home.verb(&net.router, &["allow", "2001:db8:1::3", "--for", "1h"]).success();
    home.verb(&net.router, &["allow", "203.0.113.2", "--app", "web"]).success();
    agent.kill();
    home.rewrite_config("global: nonsense\n");
    let (v4, v6) = (Family::V4.router(), Family::V6.router());
    assert_echoes(&net.b, v6, 2222);
    assert_echoes(&net.a, v6, 2222);
    home.verb(&net.router, &["revoke", "ssh", "203.0.113.2"]).success();
    home.verb(&net.router, &["revoke", "ssh", "2001:db8:1::2"]).success();
    assert_silent(&net.a, v4, 2222);
    assert_silent(&net.a, v6, 2222);
    assert_echoes(&net.b, v6, 2222);
    assert_echoes(&net.a, v4, 3333);
    home.verb(&net.router, &["revoke", "--all", "--app", "web"]).success();
    assert_echoes(&net.a, v4, 3333);
    home.verb(&net.router, &["allow", "--flush", "--app", "web"]).success();
    assert_silent(&net.a, v4, 3333);
    assert_echoes(&net.b, v6, 2222);
    home.verb(&net.router, &["allow", "--flush"]).success();
    assert_silent(&net.b, v6, 2222);
    assert_echoes(&net.b, v4, 2222);
    home.verb(&net.router, &["revoke", "nosuch", "203.0.113.2"]).exits(2);
    home.verb(&net.router, &["grant", "ssh", "203.0.113.2"]).exits(78);
    home.verb(&net.router, &["allow", "203.0.113.2"]).exits(78);
    assert_silent(&net.a, v4, 2222);
}
