//! One rule of ours in chains of the host: where it goes, what it does, that it stays and that it goes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, http_key};
use crate::firewall::{admission_left, everything, is_guarded};
use crate::hosts::{assert_flow, assert_stream_cut, config, load, our_chains, our_rules};
use crate::knocking::{STEP1_PORT, form, knock};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const NONE: [String; 0] = [];

/// Waits until our rules are in these chains, once each.
#[track_caller]
fn until_in(host: &Namespace, chains: &[&str]) {
    let start = Instant::now();
    loop {
        let mut found = our_chains(host);
        found.sort();
        if found == chains {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{found:#?} instead of {chains:#?}");
        sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn nft(host: &Namespace, words: &str) {
    host.run("nft", &words.split(' ').collect::<Vec<_>>()).success();
}

/// The findings and the changes of `check-ruleset --json`.
#[track_caller]
fn checked(home: &Installation, host: &Namespace, words: &[&str]) -> (Vec<String>, Vec<String>, bool) {
    let words = [&["check-ruleset", "--json"], words].concat();
    let text = home.check(host, &words).text();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let texts = |of: &serde_json::Value| of.as_str().unwrap_or_default().to_owned();
    let codes = report["findings"].as_array().unwrap().iter().map(|finding| texts(&finding["code"]));
    let changes = report["changes"].as_array().unwrap().iter().map(texts);
    (codes.collect(), changes.collect(), report["ok"] == true)
}

fn flow_on(name: &str, flags: &[&str], chains: &[&str]) {
    let net = Topology::new();
    load(&net.router, name);
    let closed = Installation::new(&config());
    let (codes, ..) = checked(&closed, &net.router, &[]);
    assert!(codes.iter().any(|code| code == "host-drops-by-default"), "{name} is closed: {codes:?}");
    let home = Installation::new(&config()).flags(flags);
    let (codes, changes, ok) = checked(&home, &net.router, &[]);
    assert!(ok && !codes.iter().any(|code| code == "host-drops-by-default"), "{codes:?}");
    assert_eq!(
        changes.iter().filter(|change| change.contains("ka:host-")).count(),
        chains.len(),
        "{changes:#?}"
    );
    let before = net.router.run("nft", &["-s", "list", "ruleset"]).text();
    let _agent = home.start(&net.router);
    until_in(&net.router, chains);
    home.check(&net.router, &["check-ruleset", "--diff-exit"]).success();
    assert_flow(&net, true);
    // Its own reload, as an administrator or an interface brings it about.
    load(&net.router, name);
    until_in(&net.router, chains);
    assert_stream_cut(&net, &home, true);
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(net.router.run("nft", &["-s", "list", "ruleset"]).text(), before, "nothing else was touched");
}

#[test]
fn a_debian_host_that_drops_by_default_lets_in_who_knocked() {
    flow_on(
        "debian.nft",
        &["--nftables-chain-input", "input", "--nftables-chain-forward", "forward"],
        &["inet filter forward", "inet filter input"],
    );
}

#[test]
fn on_openwrt_the_table_is_enough_to_say() {
    flow_on(
        "openwrt.nft",
        &["--nftables-table-filter", "fw4"],
        &["inet fw4 forward", "inet fw4 input", "inet fw4 output"],
    );
}

#[test]
fn firewalld_s_chains_get_the_rule_behind_what_they_drop_as_invalid() {
    let net = Topology::new();
    load(&net.router, "firewalld.nft");
    let flags = [
        "--nftables-table-filter",
        "firewalld",
        "--nftables-chain-input",
        "filter_INPUT",
        "--nftables-chain-forward",
        "filter_FORWARD",
    ];
    let home = Installation::new(&config()).flags(&flags);
    let _agent = home.start(&net.router);
    let listing = net.router.run("nft", &["-s", "list", "chain", "inet", "firewalld", "filter_INPUT"]).text();
    let at = |text: &str| listing.find(text).unwrap_or_else(|| panic!("no {text} in {listing}"));
    assert!(at("invalid drop") < at("ka:host-input") && at("ka:host-input") < at("jump"), "{listing}");
    assert_flow(&net, true);
    assert_stream_cut(&net, &home, true);
}

#[test]
fn a_table_that_belongs_to_a_program_is_left_alone_and_the_reason_told() {
    let net = Topology::new();
    // firewalld keeps its table for itself like this; the table lasts as long as the socket that made it.
    let mut owner = std::process::Command::new("nft");
    owner.arg("-i").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut owner = net.router.background(owner);
    let rules = "add table inet firewalld { flags owner; }; add chain inet firewalld filter_INPUT { type filter hook input priority 10; policy accept; }\n";
    std::io::Write::write_all(owner.0.stdin.as_mut().unwrap(), rules.as_bytes()).unwrap();
    let start = Instant::now();
    while !net.router.run("nft", &["list", "tables"]).text().contains("firewalld") {
        assert!(start.elapsed() < Duration::from_secs(10), "nft makes an owned table");
        sleep(Duration::from_millis(20));
    }
    let flags = ["--nftables-table-filter", "firewalld", "--nftables-chain-input", "filter_INPUT"];
    let home = Installation::new(&Config::ssh(&[])).flags(&flags);
    let (codes, changes, ok) = checked(&home, &net.router, &[]);
    assert!(!ok && codes.iter().any(|code| code == "host-table-owned"), "{codes:?}");
    assert!(!changes.iter().any(|change| change.contains("ka:host-")), "{changes:?}");
    let mut agent = home.start(&net.router);
    assert!(is_guarded(&net.router) && agent.is_alive());
    assert_eq!(our_rules(&net.router), NONE);
    assert!(home.log().contains("belongs to a program"), "{}", home.log());
}

#[test]
fn docker_s_bridges_let_in_who_knocked_for_a_published_port() {
    let net = Topology::new();
    load(&net.router, "docker.nft");
    let _service = Server::tcp(&net.lan, 22, Habit::Echo);
    let config = Config::new(&[]).app("published", "8088", "tcp", "local", &["duration: 60"]);
    let flags =
        ["--nftables-table-filter", "docker-bridges", "--nftables-chain-default-forward", "filter-FORWARD"];
    let home = Installation::new(&config).flags(&flags);
    let _agent = home.start(&net.router);
    until_in(&net.router, &["ip docker-bridges filter-FORWARD"]);
    let to = Family::V4.router();
    assert_silent(&net.a, to, 8088);
    knock(&net.a, to, "published");
    assert_echoes(&net.a, to, 8088);
    assert_silent(&net.b, to, 8088);
}

#[test]
fn the_answers_of_step_1_pass_an_output_chain_that_drops() {
    let net = Topology::new();
    let chain = |hook: &str, more: &str| {
        format!(
            "chain {hook} {{ type filter hook {hook} priority filter; policy drop; {more}; \
             icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept; }}"
        )
    };
    let out = chain("output", "oif lo accept; ct state established accept");
    let [input, forward] = ["input", "forward"].map(|hook| chain(hook, "ct state established accept"));
    net.router.nft(&format!("table inet filter {{\n{input}\n{forward}\n{out}\n}}\n"));
    let flags = ["--nftables-chain-default-input", "input", "--nftables-chain-default-forward", "forward"];
    let without = Installation::new(&config()).flags(&flags);
    let agent = without.start(&net.router);
    let done = post_step1_in_vain(&net.a);
    assert_eq!(done, Some(28), "not even a handshake");
    assert_eq!(admission_left(&net.router, Family::V4.client_a()), None);
    agent.terminate();
    let home =
        Installation::new(&config()).flags(&flags).flags(&["--nftables-chain-default-output", "output"]);
    let _agent = home.start(&net.router);
    until_in(&net.router, &["inet filter forward", "inet filter input", "inet filter output"]);
    assert_flow(&net, true);
}

/// The right step 1 of `ssh`; curl's exit code.
fn post_step1_in_vain(from: &Namespace) -> Option<i32> {
    let url = format!("http://{}:{STEP1_PORT}{STEP1_PATH}", Family::V4.router());
    from.run("curl", &["-sS", "-m", "2", "-d", &form("ssh", &http_key("ssh")), &url]).code
}

/// A host with a chain of its own that is jumped to behind a ban.
const OWN_CHAIN: &str = "table ip filter {\n\
    set banned {\n\ttype ipv4_addr\n}\n\
    chain services {\n\tcounter\n\ttcp dport 9999 drop\n}\n\
    chain INPUT {\n\ttype filter hook input priority 0; policy drop;\n\tiif lo accept\n\
    ip saddr @banned drop\n\ticmp type echo-request accept\n\tjump services\n}\n}\n";

fn own_chain() -> Installation {
    Installation::new(&Config::ssh(&["duration: 60"])).flags(&["--nftables-chain-input", "services"])
}

#[test]
fn the_rule_follows_its_chain_when_that_comes_and_goes() {
    let net = Topology::new();
    let home = own_chain();
    let (codes, _, ok) = checked(&home, &net.router, &[]);
    assert!(!ok && codes.iter().any(|code| code == "no-host-chain"), "nothing is there: {codes:?}");
    let _agent = home.start(&net.router);
    assert_eq!(our_rules(&net.router), NONE);
    net.router.nft(OWN_CHAIN);
    until_in(&net.router, &["ip filter services"]);
    nft(&net.router, "flush chain ip filter services");
    until_in(&net.router, &["ip filter services"]);
    // Nobody jumps to it any more: the rule goes where it helps, behind the ban.
    nft(&net.router, "flush chain ip filter INPUT");
    until_in(&net.router, &["ip filter INPUT"]);
    nft(&net.router, "delete chain ip filter services");
    net.router.nft("table ip filter { chain INPUT { ip saddr @banned drop; tcp dport 80 drop; }; }");
    // It is there already, and moves behind the ban.
    let list = || net.router.run("nft", &["-s", "list", "chain", "ip", "filter", "INPUT"]).text();
    let places = |rules: &str| ["@banned", "ka:host-input", "dport 80"].map(|rule| rules.find(rule));
    let end = Instant::now() + Duration::from_secs(30);
    while !places(&list()).iter().all(Option::is_some) || !places(&list()).is_sorted() {
        assert!(Instant::now() < end, "{}", list());
        sleep(Duration::from_millis(20));
    }
    until_in(&net.router, &["ip filter INPUT"]);
    let (codes, _, ok) = checked(&home, &net.router, &["--diff-exit"]);
    assert!(ok && codes.iter().any(|code| code == "no-host-chain"), "a warning: {codes:?}");
    nft(&net.router, "delete table ip filter");
    sleep(Duration::from_millis(300));
    net.router.nft(OWN_CHAIN);
    until_in(&net.router, &["ip filter services"]);
}

#[test]
fn whoever_the_host_bans_stays_out_although_granted() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    net.router.nft(OWN_CHAIN);
    let home = own_chain();
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    assert_echoes(&net.a, to, 2222);
    nft(&net.router, "add element ip filter banned { 203.0.113.2 }");
    assert_silent(&net.a, to, 2222);
}

#[test]
fn it_is_there_once_and_rules_that_look_like_it_stay() {
    let net = Topology::new();
    net.router.nft(OWN_CHAIN);
    let alike = "meta mark 24107 counter accept";
    net.router.nft(&format!(
        "insert rule ip filter services {alike} comment \"my own\"\nadd rule ip filter services {alike}\n"
    ));
    let home = own_chain();
    let agent = home.start(&net.router);
    until_in(&net.router, &["ip filter services"]);
    // Saved rules loaded twice; one with another mark; a duplicate in another chain of the table.
    for rule in [
        format!("add rule ip filter services {alike} comment \"ka:host-input\""),
        format!("insert rule ip filter services {alike} comment \"ka:host-input\""),
        "insert rule ip filter services meta mark 1 counter accept comment \"ka:host-input\"".to_owned(),
        format!("add rule ip filter INPUT {alike} comment \"ka:host-forward\""),
    ] {
        net.router.nft(&rule);
        until_in(&net.router, &["ip filter services"]);
    }
    assert!(our_rules(&net.router)[0].contains("0x00005e2b"), "{:?}", our_rules(&net.router));
    let mine = || {
        let listing = net.router.run("nft", &["-s", "list", "chain", "ip", "filter", "services"]).text();
        listing.matches("0x00005e2b").count()
    };
    assert_eq!(mine(), 3, "ours and two of somebody else's");
    // Its own changes are no reason for another one.
    let settled = everything(&net.router);
    sleep(Duration::from_millis(700));
    assert_eq!(everything(&net.router), settled);
    // SIGTERM leaves it, as it leaves the guard.
    agent.terminate();
    until_in(&net.router, &["ip filter services"]);
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(our_rules(&net.router), NONE);
    assert_eq!(mine(), 2);
    assert!(!is_guarded(&net.router));
}

#[test]
fn a_rule_of_an_earlier_run_goes_with_its_flags_and_by_a_teardown_without_a_daemon() {
    let net = Topology::new();
    net.router.nft(OWN_CHAIN);
    let home = own_chain();
    home.start(&net.router).kill();
    until_in(&net.router, &["ip filter services"]);
    let without = Installation::new(&Config::ssh(&[]));
    let (_, changes, _) = checked(&without, &net.router, &[]);
    assert!(changes.iter().any(|change| change.starts_with("delete rule ka:host-input")), "{changes:?}");
    let _agent = without.start(&net.router);
    assert_eq!(our_rules(&net.router), NONE);
    drop(_agent);
    home.start(&net.router).kill();
    until_in(&net.router, &["ip filter services"]);
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(our_rules(&net.router), NONE);
}

#[test]
fn a_copy_that_iptables_saved_and_restored_is_known_as_ours() {
    let net = Topology::new();
    net.router.run("iptables-nft", &["-A", "INPUT", "-j", "DROP"]).success();
    let home = Installation::new(&Config::ssh(&[])).flags(&["--nftables-chain-input", "INPUT"]);
    let agent = home.start(&net.router);
    until_in(&net.router, &["ip filter INPUT"]);
    let saved = net.router.run("iptables-nft-save", &[]).success().text();
    assert!(saved.contains("ka:host-input"), "{saved}");
    // nft does not show where iptables keeps a comment: our rule is one without any then.
    let alike = || {
        let listing = net.router.run("nft", &["list", "chain", "ip", "filter", "INPUT"]).text();
        listing.matches("0x00005e2b").count()
    };
    agent.terminate();
    net.router.feed("iptables-nft-restore", &[], saved.as_bytes()).success();
    assert_eq!((alike(), our_rules(&net.router)), (1, vec![]));
    let _agent = home.start(&net.router);
    until_in(&net.router, &["ip filter INPUT"]);
    assert_eq!(alike(), 1);
    net.router.feed("iptables-nft-restore", &[], saved.as_bytes()).success();
    until_in(&net.router, &["ip filter INPUT"]);
    assert_eq!(alike(), 1);
    net.router.feed("iptables-nft-restore", &["--noflush"], saved.as_bytes()).success();
    until_in(&net.router, &["ip filter INPUT"]);
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(alike(), 0);
}

#[test]
fn a_cleanup_on_shutdown_closes_the_services_and_leaves_the_rule_with_the_guard() {
    let net = Topology::new();
    net.router.nft(OWN_CHAIN);
    let home = own_chain().flags(&["--service-rule-cleanup-on-shutdown"]);
    home.start(&net.router).terminate();
    until_in(&net.router, &["ip filter services"]);
    assert!(is_guarded(&net.router));
}

#[test]
fn guard_puts_the_rule_in_place_and_a_reload_follows_the_mark() {
    let net = Topology::new();
    net.router.nft(OWN_CHAIN);
    let home = own_chain();
    let mut guard = home.guard_command(&[]);
    guard.args(["--nftables-chain-input", "services"]);
    net.router.finish(guard, b"", Duration::from_secs(20)).success();
    until_in(&net.router, &["ip filter services"]);
    let agent = home.start(&net.router);
    let marked = Config::new(&["mark: 0x100/0xff00"]).app("ssh", "2222", "tcp", "local", &["duration: 60"]);
    home.rewrite_config(marked.text());
    agent.reload();
    let rules = our_rules(&net.router);
    assert!(rules.len() == 1 && rules[0].contains("& 0x0000ff00 == 0x00000100"), "{rules:?}");
    home.check(&net.router, &["check-ruleset", "--diff-exit"]).success();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

#[test]
fn nothing_that_was_let_in_is_lost_while_a_reload_changes_the_mark() {
    let net = Topology::new();
    let (to, lost) = (Family::V4.router(), "udp dport 2222 counter");
    net.router.nft(&format!(
        "table inet site {{\nchain in {{ type filter hook input priority 0; policy drop;\n{lost}\n}}\n}}"
    ));
    let config = |mark: u32| {
        Config::new(&[&format!("mark: {mark}")]).app("ssh", "2222", "udp", "local", &["duration: 600"])
    };
    let home = Installation::new(&config(1)).flags(&["--nftables-table-filter", "site"]);
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
    let socket = crate::probe::udp_socket(&net.a, to, 0);
    let ends = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = socket.send_to(b"x", (to, 2222));
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let _stopping = crate::process::Stop(&ends);
        for mark in 2..6 {
            home.rewrite_config(config(mark).text());
            agent.reload();
        }
    });
    let chain = net.router.run("nft", &["list", "chain", "inet", "site", "in"]).success().text();
    assert!(chain.contains(&format!("{lost} packets 0 bytes 0")), "{chain}");
    assert_eq!(chain.matches("ka:host-input").count(), 1, "{chain}");
    assert!(
        chain.contains("meta mark 0x00000005") && !chain.contains("counter packets 0 bytes 0 accept"),
        "{chain}"
    );
}

#[test]
fn without_a_mark_there_is_nothing_to_accept() {
    let net = Topology::new();
    let config = Config::new(&["mark: 0"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config).flags(&["--nftables-chain-input", "services"]);
    for done in [
        home.run_in_vain(&net.router),
        home.check(&net.router, &["check-config"]),
        home.check(&net.router, &["check-ruleset"]),
    ] {
        let done = done.exits(78);
        assert!(done.stderr.contains("global.mark"), "{done:?}");
    }
}

#[test]
fn a_program_that_keeps_taking_the_rule_out_is_fought_once_per_second() {
    let net = Topology::new();
    net.router.nft(OWN_CHAIN);
    let home = own_chain();
    let mut agent = home.start(&net.router);
    let (start, mut removals) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(12) {
        if !our_rules(&net.router).is_empty() {
            nft(&net.router, "flush chain ip filter services");
            removals += 1;
        }
        sleep(Duration::from_millis(5));
    }
    assert!((40..=60).contains(&removals), "{removals} repairs in 12 s");
    assert!(agent.is_alive() && is_guarded(&net.router));
    assert!(home.log().contains("keeps taking our rule out"), "{}", home.log());
    agent.signal(Signal::SIGTERM);
}

#[test]
fn knock_port_s_flags_about_nat_are_accepted_and_said_to_be_needless() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[])).flags(&[
        "--nftables-table-nat",
        "nat",
        "--nftables-chain-default-prerouting",
        "PREROUTING",
        "--nftables-chain-default-postrouting",
        "POSTROUTING",
    ]);
    let done = home.check(&net.router, &["check-ruleset"]).success();
    let told = done.stderr.clone();
    assert_eq!(
        told.matches("is not needed: addresses are translated in a table of our own").count(),
        3,
        "{told}"
    );
    let _agent = home.start(&net.router);
    assert!(is_guarded(&net.router));
}
