//! iptables without ipset: what lists of `-m recent` cannot do is refused or ends, and opens nothing.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::Backend;
use crate::configuration::Config;
use crate::firewall::{everything, is_guarded, remove_guard, time_left};
use crate::knocking::{knock, step1};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent};
use crate::recent;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

macro_rules! without_ipset_in_both {
    ($($scenario:ident),+ $(,)?) => { $(
        mod $scenario {
            use crate::backend::Backend;

            #[test]
            fn legacy() {
                Backend::RecentLegacy.run(super::$scenario);
            }

            #[test]
            fn nft() {
                Backend::RecentNft.run(super::$scenario);
            }
        }
    )+ };
}

without_ipset_in_both! {
    other_times_than_the_apps_are_refused,
    only_the_configuration_allows_networks,
    what_is_lost_is_not_put_back,
    an_ended_entry_never_opens_again_under_a_longer_duration,
    a_full_list_lets_nobody_else_in_and_pushes_nobody_out,
    a_grant_covers_the_ipv6_prefix_and_no_more,
    an_app_with_an_ipv6_destination_alone_is_told_and_revoked,
    the_limits_are_told,
    where_ipset_is_not_installed_lists_are_used,
    nothing_is_left_after_teardown,
}

fn other_times_than_the_apps_are_refused() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60", "max_duration: 600"]));
    let agent = home.start(&net.router);
    let mut agent = Some(agent);
    for daemon in [true, false] {
        for time in ["30", "61", "600"] {
            let done = home.verb(&net.router, &["grant", "ssh", "203.0.113.2", "--for", time]).exits(2);
            assert!(done.stderr.contains("60 s") && done.stderr.contains("ipset"), "{}", done.stderr);
        }
        assert_silent(&net.a, Family::V4.router(), 2222);
        home.verb(&net.router, &["grant", "ssh", "203.0.113.2"]).success();
        assert_echoes(&net.a, Family::V4.router(), 2222);
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).unwrap() <= Duration::from_secs(60));
        home.verb(&net.router, &["revoke", "ssh", "203.0.113.2"]).success();
        assert_silent(&net.a, Family::V4.router(), 2222);
        if daemon {
            agent.take().unwrap().terminate();
        }
    }
}

fn only_the_configuration_allows_networks() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::ssh(&["duration: 60", "allow: [203.0.113.3, \"2001:db8:1::3\"]"]);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        assert_echoes(&net.b, family.router(), 2222);
    }
    // iptables lists one address as a network of one.
    home.check(&net.router, &["health"]).success();
    for more in [&["--for", "60"][..], &[]] {
        let mut words = vec!["allow", "203.0.113.0/24"];
        words.extend(more);
        let done = home.verb(&net.router, &words).exits(2);
        assert!(done.stderr.contains("without ipset"), "{}", done.stderr);
    }
    assert_silent(&net.a, Family::V4.router(), 2222);
    let status = home.verb(&net.router, &["status", "--json"]).success().text();
    assert!(status.contains("203.0.113.3"), "{status}");
    agent.terminate();
}

fn what_is_lost_is_not_put_back() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    for way in ["flushed", "removed"] {
        knock(&net.a, Family::V4.router(), "ssh");
        assert_echoes(&net.a, Family::V4.router(), 2222);
        if way == "flushed" {
            recent::command(&net.router, "app_ssh_4", "/");
        } else {
            remove_guard(&net.router);
        }
        let end = Instant::now() + Duration::from_secs(15);
        while !is_guarded(&net.router) {
            assert!(Instant::now() < end, "the guard is not put back");
            sleep(Duration::from_millis(50));
        }
        assert_silent(&net.a, Family::V4.router(), 2222);
        sleep(Duration::from_secs(3));
        assert_silent(&net.a, Family::V4.router(), 2222);
        let status = home.verb(&net.router, &["status", "--json"]).success().text();
        assert!(!status.contains("203.0.113.2"), "{way}: {status}");
    }
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

fn an_ended_entry_never_opens_again_under_a_longer_duration() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 5"]));
    let agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    agent.kill();
    sleep(Duration::from_secs(7));
    assert_silent(&net.a, Family::V4.router(), 2222);
    home.rewrite_config(Config::ssh(&["duration: 600"]).text());
    let agent = home.start(&net.router);
    assert_silent(&net.a, Family::V4.router(), 2222);
    agent.terminate();
}

fn a_full_list_lets_nobody_else_in_and_pushes_nobody_out() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 300"]));
    let _agent = home.start(&net.router);
    let room: usize =
        fs::read_to_string("/sys/module/xt_recent/parameters/ip_list_tot").unwrap().trim().parse().unwrap();
    knock(&net.a, Family::V4.router(), "ssh");
    // As the agent itself would.
    for number in 1..room {
        let address = format!("+198.51.{}.{}", 100 + number / 200, number % 200 + 1);
        recent::command(&net.router, "app_ssh_4", &address);
    }
    let done = home.verb(&net.router, &["grant", "ssh", "203.0.113.3"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains(&room.to_string()), "{}", done.stderr);
    assert_silent(&net.b, Family::V4.router(), 2222);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    // Strangers' packets take no room at all.
    step1(&net.b, Family::V4.router(), "nothing-of-ours");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    recent::command(&net.router, "app_ssh_4", "-198.51.100.2");
    home.verb(&net.router, &["grant", "ssh", "203.0.113.3"]).success();
    assert_echoes(&net.b, Family::V4.router(), 2222);
    assert!(home.log().contains("nearly full"), "{}", home.log());
}

fn a_grant_covers_the_ipv6_prefix_and_no_more() {
    for (prefix, with) in [(64, true), (128, false)] {
        let net = Topology::new();
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        let global = format!("ipv6_prefix: {prefix}");
        let home = Installation::new(&Config::new(&[&global]).app("ssh", "2222", "tcp", "local", &[]));
        let _agent = home.start(&net.router);
        knock(&net.a, Family::V6.router(), "ssh");
        assert_echoes(&net.a, Family::V6.router(), 2222);
        if with {
            assert_echoes(&net.b, Family::V6.router(), 2222);
        } else {
            assert_silent(&net.b, Family::V6.router(), 2222);
        }
        home.verb(&net.router, &["revoke", "ssh", &Family::V6.client_b().to_string()]);
        home.verb(&net.router, &["revoke", "ssh", &Family::V6.client_a().to_string()]);
        assert_silent(&net.a, Family::V6.router(), 2222);
    }
}

fn an_app_with_an_ipv6_destination_alone_is_told_and_revoked() {
    let net = Topology::new();
    let _service = Server::tcp(&net.lan, 22, Habit::Echo);
    let home = Installation::new(&Config::new(&[]).app("lan6", "2222", "tcp", "\"[fd00:5::5]:22\"", &[]));
    let agent = home.start(&net.router);
    let client = Family::V6.client_a().to_string();
    let allowed = home.verb(&net.router, &["allow", "192.0.2.0/24", "--app", "lan6"]).exits(2).stderr;
    assert!(allowed.contains("different address families"), "{allowed}");
    home.verb(&net.router, &["grant", "lan6", &client]).success();
    assert_echoes(&net.a, Family::V6.router(), 2222);
    let told = || home.verb(&net.router, &["status"]).success().text();
    assert!(told().contains(&client), "{}", told());
    agent.kill();
    assert!(told().contains(&client), "{}", told());
    home.rewrite_config("global: nonsense\n");
    home.verb(&net.router, &["revoke", "lan6", &client]).success();
    assert_silent(&net.a, Family::V6.router(), 2222);
}

fn the_limits_are_told() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let done = home.guard(&net.router).success();
    assert!(done.stderr.contains("without ipset"), "{}", done.stderr);
    let checked = home.check(&net.router, &["check-ruleset", "--diff-exit"]).success().text();
    assert!(checked.contains("[no-ipset]"), "{checked}");
    let agent = home.start(&net.router);
    assert!(home.log().contains("without ipset"), "{}", home.log());
    let status = home.verb(&net.router, &["status"]).success().text();
    assert!(status.contains("addresses at most"), "{status}");
    agent.terminate();
    let status = home.verb(&net.router, &["status"]).success().text();
    assert!(status.contains("addresses at most"), "{status}");
    let bob =
        "users: {bob: {access_key_http: k1-of-bob-here, access_key_https: k2-of-bob-here, duration: 30}}";
    let other = Installation::new(&Config::new(&[bob]).app("ssh", "2222", "tcp", "local", &["duration: 60"]));
    let done = other.check(&net.router, &["check-ruleset"]);
    assert_eq!(done.code, Some(78), "{}", done.stderr);
    assert!(done.stderr.contains("durations of users"), "{}", done.stderr);
}

/// What runs a program where ipset is not installed.
fn without_the_program(home: &Installation, multi: &str) -> String {
    let sbin = home.path("sbin");
    fs::create_dir(&sbin).unwrap();
    for stem in ["iptables", "ip6tables"] {
        for verb in ["restore", "save"] {
            let link = sbin.join(format!("{stem}-{multi}-{verb}"));
            std::os::unix::fs::symlink(format!("xtables-{multi}-multi"), link).unwrap();
        }
    }
    let program = Path::new("/usr/sbin").join(format!("xtables-{multi}-multi"));
    assert!(Command::new("cp").arg(program).arg(&sbin).status().unwrap().success());
    format!("mount --bind {} /usr/sbin && exec \"$@\"", sbin.display())
}

fn where_ipset_is_not_installed_lists_are_used() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let multi = if Backend::current() == Backend::RecentNft { "nft" } else { "legacy" };
    let mount = without_the_program(&home, multi);
    // Without the flag: nobody said that there is no ipset.
    let home = home.wrapper(&["unshare", "-m", "sh", "-c", &mount, "sh"]).without_flag("--without-ipset");
    let agent = home.start(&net.router);
    assert!(home.log().contains("apt-get install ipset"), "{}", home.log());
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
    agent.terminate();
}

fn nothing_is_left_after_teardown() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    agent.terminate();
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(everything(&net.router), "");
    assert_eq!(lists(&net.router), "");
}

fn lists(host: &Namespace) -> String {
    host.run("ls", &["/proc/net/xt_recent"]).text()
}

#[test]
fn a_last_good_plan_that_was_made_for_ipset_closes_where_that_is_gone() {
    Backend::IptablesLegacy.run(|| {
        let net = Topology::new();
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        let home = Installation::new(&Config::ssh(&[]));
        home.guard(&net.router).success();
        crate::firewall::remove_guard(&net.router);
        assert_echoes(&net.a, Family::V4.router(), 2222);
        home.rewrite_config("global: {");
        let mount = without_the_program(&home, "legacy");
        let command = home.guard_command(&["unshare", "-m", "sh", "-c", &mount, "sh"]);
        let done = net.router.finish(command, b"", std::time::Duration::from_secs(60)).success();
        assert!(done.text().contains("the last good plan"), "{done:?}");
        for family in Family::BOTH {
            assert_silent(&net.a, family.router(), 2222);
        }
    });
}
