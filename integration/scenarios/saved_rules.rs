//! Rules and sets that somebody saved while grants ran, and that are loaded at the next boot, or while no daemon runs.

use std::fs;
use std::time::Duration;

use crate::agent::{Installation, PROGRAM};
use crate::backend::{Backend, on_every_firewall};
use crate::configuration::Config;
use crate::firewall::{elements, remove_guard, time_left};
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    what_was_saved_lets_nobody_in_after_a_reboot,
    grants_that_run_outlast_every_restart,
}

/// What the programs of persistent firewalls save, each with the program that loads it again.
struct Saved(Vec<(String, Vec<String>, String)>);

impl Saved {
    fn of(host: &Namespace) -> Self {
        let backend = Backend::current();
        let text = |program: &str, args: &[&str]| host.run(program, args).success().text();
        let part = |program: &str, args: &[&str], text: String| {
            (program.to_owned(), args.iter().map(|&word| word.to_owned()).collect(), text)
        };
        if !backend.is_iptables() {
            let rules = format!("flush ruleset\n{}", text("nft", &["list", "ruleset"]));
            return Self(vec![part("nft", &["-f", "-"], rules)]);
        }
        let mut out = Vec::new();
        if !backend.is_recent() {
            out.push(part("ipset", &["restore", "-exist"], text("ipset", &["save"])));
        }
        for family in ['4', '6'] {
            let rules = text(&backend.program(family, "save"), &[]);
            out.push(part(&backend.program(family, "restore"), &[], rules));
        }
        Self(out)
    }

    #[track_caller]
    fn load(&self, host: &Namespace) {
        for (program, args, text) in &self.0 {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            host.feed(program, &args, text.as_bytes()).success();
        }
    }
}

/// The words before a command by which it sees another boot id.
fn in_another_boot(home: &Installation) -> Vec<String> {
    let id = home.path("boot-id");
    fs::write(&id, "00000001-0000-4000-8000-000000000000\n").unwrap();
    let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    ["unshare", "-m", "sh", "-c", mount, id.to_str().unwrap()].map(str::to_owned).to_vec()
}

fn what_was_saved_lets_nobody_in_after_a_reboot() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 3600", "allow: [\"2001:db8:1::3\"]"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    if !Backend::current().is_recent() {
        home.verb(&net.router, &["allow", "203.0.113.3", "--app", "ssh"]).success();
    }
    let saved = Saved::of(&net.router);
    home.verb(&net.router, &["revoke", "--all"]).success();
    home.verb(&net.router, &["allow", "--flush"]);
    agent.terminate();
    let words = in_another_boot(&home);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let after_a_reboot = || {
        remove_guard(&net.router);
        home.lose_runtime_folder();
        saved.load(&net.router);
    };
    let let_in = || elements(&net.router, "app_ssh_4").len();
    after_a_reboot();
    if !Backend::current().is_recent() {
        assert_echoes(&net.a, to, 2222);
        assert_eq!(let_in(), 1, "the test loads what was saved");
    }
    // By the guard, before any daemon.
    let done = net.router.finish(home.guard_command(&words), b"", Duration::from_secs(20)).success();
    let told = Backend::current().is_recent() || done.stderr.contains("were loaded from a file");
    assert!(told, "{}", done.stderr);
    assert_eq!(let_in(), 0);
    for client in [&net.a, &net.b] {
        assert_silent(client, to, 2222);
    }
    assert_echoes(&net.b, Family::V6.router(), 2222);
    // By the daemon, where nobody runs the guard.
    after_a_reboot();
    let home = home.wrapper(&words);
    let agent = home.start(&net.router);
    assert_eq!(let_in(), 0, "{}", home.log());
    for client in [&net.a, &net.b] {
        assert_silent(client, to, 2222);
    }
    assert_echoes(&net.b, Family::V6.router(), 2222);
    knock(&net.a, to, "ssh");
    assert_echoes(&net.a, to, 2222);
    agent.kill();
    let _agent = home.start(&net.router);
    assert_eq!(let_in(), 1, "and what is opened now outlasts a restart");
}

fn grants_that_run_outlast_every_restart() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 3600"]));
    home.guard(&net.router).success();
    let agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    knock(&net.a, to, "ssh");
    let saved = Saved::of(&net.router);
    let is_in = |what: &str| {
        assert!(time_left(&net.router, "ssh", client).is_some(), "{what}\n{}", home.log());
    };
    agent.kill();
    home.guard(&net.router).success();
    is_in("killed, and the guard again");
    home.lose_runtime_folder();
    let agent = home.start(&net.router);
    is_in("without what was in the runtime folder");
    // Somebody loads what was saved: the running daemon makes it its own again.
    saved.load(&net.router);
    home.verb(&net.router, &["grant", "ssh", &Family::V6.client_b().to_string()]).success();
    std::thread::sleep(Duration::from_secs(3));
    is_in("loaded while the daemon runs");
    agent.terminate();
    let agent = home.start(&net.router);
    is_in("loaded while the daemon ran before");
    assert!(time_left(&net.router, "ssh", Family::V6.client_b()).is_some(), "{}", home.log());
    agent.terminate();
    home.guard(&net.router).success();
    let _agent = home.start(&net.router);
    is_in("stopped and started");
}

/// Within one boot, while no daemon runs: a package is upgraded, and nftables.service started anew.
#[test]
fn nor_after_nftables_was_started_anew_while_no_daemon_ran() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 3600"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let saved = Saved::of(&net.router);
    home.verb(&net.router, &["revoke", "--all"]).success();
    agent.terminate();
    saved.load(&net.router);
    assert_echoes(&net.a, to, 2222);
    let _agent = home.start(&net.router);
    assert_silent(&net.a, to, 2222);
    assert!(home.log().contains("was loaded from a file"), "{}", home.log());
    assert_eq!(
        home.verb(&net.router, &["status", "--json"]).success().text().matches("203.0.113.2").count(),
        0
    );
}

/// As above, by somebody who flushes nothing before: what is in force stays, and what was saved is added to it.
#[test]
fn nor_after_it_was_added_to_what_is_in_force() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 3600"]));
    let mut agent = home.start(&net.router);
    let (to, b) = (Family::V4.router(), Family::V4.client_b());
    knock(&net.a, to, "ssh");
    home.verb(&net.router, &["allow", "203.0.113.3", "--app", "ssh"]).success();
    let saved = net.router.run("nft", &["list", "ruleset"]).success().stdout;
    let load = || net.router.feed("nft", &["-f", "-"], &saved).success();
    let take_back = || {
        home.verb(&net.router, &["revoke", "--all"]).success();
        home.verb(&net.router, &["allow", "--flush"]).success();
    };
    let nobody_is_in = |what: &str| {
        for client in [&net.a, &net.b] {
            assert_silent(client, to, 2222);
        }
        let let_in = elements(&net.router, "app_ssh_4").len() + elements(&net.router, "allow_ssh_4").len();
        assert_eq!(let_in, 0, "{what}\n{}", home.log());
    };
    for guard in [false, true] {
        take_back();
        agent.terminate();
        load();
        for client in [&net.a, &net.b] {
            assert_echoes(client, to, 2222);
        }
        if guard {
            let told = home.guard(&net.router).success().stderr;
            assert!(told.contains("were loaded from a file"), "{told}");
            nobody_is_in("the guard");
        }
        agent = home.start(&net.router);
        nobody_is_in("a start");
        // What the guard made anew is believed.
        assert_eq!(home.log().matches("was loaded from a file").count(), 1, "{}", home.log());
    }
    // While a daemon runs, what it knows counts.
    home.grant(&net.router, "ssh", b, 600);
    load();
    std::thread::sleep(Duration::from_secs(3));
    assert_silent(&net.a, to, 2222);
    assert_echoes(&net.b, to, 2222);
    assert!(time_left(&net.router, "ssh", b).unwrap() < Duration::from_secs(600));
    assert_eq!(elements(&net.router, "allow_ssh_4").len(), 0, "{}", home.log());
    agent.terminate();
    let _agent = home.start(&net.router);
    assert_eq!(elements(&net.router, "app_ssh_4").len(), 1, "and what it made of that outlasts a restart");
}

#[test]
fn files_that_are_loaded_at_boot_and_have_our_rules_are_told() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    home.start(&net.router).terminate();
    let rules = net.router.run("nft", &["list", "ruleset"]).success().text();
    let etc = home.path("etc");
    let wants = etc.join("systemd/system/sysinit.target.wants");
    let lib = home.path("lib");
    for folder in ["nftables.d", "iptables", "conf.d"].map(|name| etc.join(name)) {
        fs::create_dir_all(folder).unwrap();
    }
    for folder in [wants.clone(), lib.join("nftables"), lib.join("iptables")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(wants.join("nftables.service"), "").unwrap();
    fs::write(etc.join("nftables.conf"), "include \"/etc/nftables.d/*.nft\"  # all of \"them\"\n").unwrap();
    for file in [etc.join("nftables.d/all.nft"), lib.join("nftables/rules-save")] {
        fs::write(file, &rules).unwrap();
    }
    // What OpenRC saves whenever it stops, as Alpine and Gentoo have it.
    for file in [etc.join("iptables/rules6-save"), lib.join("iptables/rules-save")] {
        fs::write(file, "*mangle\n:KA-gate - [0:0]\nCOMMIT\n").unwrap();
    }
    for name in ["iptables", "ip6tables", "nftables"] {
        fs::write(etc.join("conf.d").join(name), "SAVE_ON_STOP=\"yes\"\n").unwrap();
    }
    fs::write(etc.join("iptables/rules.v4"), "*mangle\n:KA-gate - [0:0]\nCOMMIT\n").unwrap();
    fs::write(etc.join("iptables/rules.v6"), "*filter\n:INPUT DROP [0:0]\nCOMMIT\n").unwrap();
    fs::write(etc.join("iptables/ipsets"), "create ka_step2_4 hash:ip\n").unwrap();
    let mount = "mount --bind \"$0\" /etc && mount --bind \"$1\" /var/lib && shift && exec \"$@\"";
    let words = ["unshare", "-m", "sh", "-c", mount, etc.to_str().unwrap(), lib.to_str().unwrap()];
    let check = |words: &[&str]| {
        let mut all = words.to_vec();
        let config = home.path("config.yaml");
        let (cert, key) = (home.path("cert.pem"), home.path("key.pem"));
        all.extend([PROGRAM, "check-ruleset", "--config", config.to_str().unwrap()]);
        all.extend(["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()]);
        net.router.run(all[0], &all[1..]).success().text()
    };
    let told = check(&words);
    for file in [
        "/etc/nftables.d/all.nft",
        "/etc/iptables/rules.v4",
        "/etc/iptables/ipsets",
        "/etc/iptables/rules6-save",
        "/var/lib/iptables/rules-save",
        "/var/lib/nftables/rules-save",
    ] {
        assert!(told.contains(&format!("in {file}, saved with the host's own")), "{file}: {told}");
    }
    assert!(!told.contains("rules.v6"), "{told}");
    // What it says to do is enough.
    let fixes = told.lines().filter_map(|line| line.trim().strip_prefix("fix: ").or(Some(line.trim())));
    let fixes: Vec<&str> = fixes.filter(|line| line.starts_with("sed -i")).collect();
    assert_eq!(fixes.len(), 6 + 3, "{told}");
    for fix in fixes {
        let words: Vec<&str> = words[1..].iter().copied().chain(["sh", "-c", fix]).collect();
        net.router.run("unshare", &words).success();
    }
    assert!(!check(&words).contains("saved with"), "{}", check(&words));
    for name in ["iptables", "ip6tables", "nftables"] {
        assert_eq!(fs::read_to_string(etc.join("conf.d").join(name)).unwrap(), "SAVE_ON_STOP=\"no\"\n");
    }
}
