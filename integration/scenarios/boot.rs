//! Before the network is up, after a reboot, and with a configuration that cannot be used.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::Config;
use crate::firewall::{elements, everything, is_guarded, remove_guard, table, time_left};
use crate::knocking::{STEP2_PORT, knock};
use crate::probe::{Reach, assert_echoes, assert_open, assert_silent, tcp};
use crate::process::Stop;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_every_firewall! {
    the_guard_alone_closes_the_ports,
    the_guard_is_there_before_its_interface_is,
    with_a_configuration_that_cannot_be_used_the_last_good_plan_guards,
    the_last_good_plan_keeps_what_operators_allowed_and_granted,
    beside_a_daemon_the_guard_changes_nothing,
}

fn the_guard_alone_closes_the_ports() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    assert_open(&net.a, Family::V4.router(), 2222);
    // It would live on.
    while !net.router.run("ss", &["-Htn", "sport", "=", ":2222"]).success().text().is_empty() {
        thread::sleep(Duration::from_millis(20));
    }
    let home = Installation::new(&Config::ssh(&["allow: [203.0.113.3, \"2001:db8:1::3\"]"]));
    let done = home.guard(&net.router).success();
    assert_eq!(done.stderr, "");
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        assert_silent(&net.a, family.router(), STEP2_PORT);
        assert_echoes(&net.b, family.router(), 2222);
    }
    let mode = fs::metadata(home.path("state/last-good-plan")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600, "it holds the secret path");
    let before = everything(&net.router);
    home.guard(&net.router).success();
    assert_eq!(everything(&net.router), before, "a second run changes nothing");
}

fn the_guard_is_there_before_its_interface_is() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::ssh(&[]).text().replace("interface_ext: ext0", "interface_ext: ppp0");
    let home = Installation::with_text(&config);
    home.guard(&net.router).success();
    let to = Family::V4.router();
    assert_open(&net.a, to, 2222);
    net.router.run("ip", &["link", "set", "ext0", "down"]).success();
    net.router.run("ip", &["link", "set", "ext0", "name", "ppp0"]).success();
    net.router.run("ip", &["link", "set", "ppp0", "up"]).success();
    assert_silent(&net.a, to, 2222);
    // That it is the guard and not a link that is still down: another port answers.
    assert_eq!(tcp(&net.a, (to, 9).into(), Duration::from_secs(4)), Reach::Refused);
    assert_silent(&net.a, to, 2222);
}

fn with_a_configuration_that_cannot_be_used_the_last_good_plan_guards() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let good = Config::ssh(&["allow: [203.0.113.3]"]);
    let home = Installation::new(&good);
    home.start(&net.router).terminate();
    let guard = table(&net.router);
    let config = home.path("config.yaml");
    for what in ["broken", "a user's file without end", "missing", "a directory"] {
        remove_guard(&net.router);
        let _ = fs::remove_file(&config);
        match what {
            "broken" => home.rewrite_config("global: nonsense\n"),
            "missing" => {}
            "a user's file without end" => {
                let folder = home.path("users");
                fs::create_dir(&folder).unwrap();
                let file = fs::File::options()
                    .create_new(true)
                    .write(true)
                    .mode(0o600)
                    .open(folder.join("eve.yaml"));
                file.unwrap().set_len(1 << 40).unwrap();
                let line = format!("users_folder: {}", folder.display());
                home.rewrite_config(Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &[]).text());
            }
            _ => fs::create_dir(&config).unwrap(),
        }
        let done = home.guard(&net.router).success();
        assert!(done.stderr.contains("NOT IN FORCE"), "{what}: {}", done.stderr);
        assert!(!done.stderr.contains("nobody-guesses"), "{what}: {}", done.stderr);
        assert_eq!(table(&net.router), guard, "{what}");
        assert_silent(&net.a, Family::V4.router(), 2222);
        assert_echoes(&net.b, Family::V4.router(), 2222);
    }
    fs::remove_dir(&config).unwrap();
    home.rewrite_config(good.text());
    let _agent = home.start(&net.router);
    assert_eq!(table(&net.router), guard, "the daemon takes over what is there");
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

#[test]
fn a_plan_that_somebody_else_may_have_written_is_not_put_in_place() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["allow: [203.0.113.3]"]));
    home.start(&net.router).terminate();
    home.rewrite_config("global: nonsense\n");
    remove_guard(&net.router);
    let plan = home.path("state/last-good-plan");
    chown(&plan, Some(65534), None).unwrap();
    let done = home.guard(&net.router).exits(78);
    assert!(done.stderr.contains("belongs to another user"), "{}", done.stderr);
    // As whoever runs as that user would find it, and root beside.
    chown(home.path("state"), Some(65534), None).unwrap();
    home.guard(&net.router).success();
}

fn the_last_good_plan_keeps_what_operators_allowed_and_granted() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["allow: [203.0.113.3]"]));
    home.start(&net.router).terminate();
    home.grant(&net.router, "ssh", Family::V6.client_a(), 600);
    home.verb(&net.router, &["allow", "203.0.113.2", "--for", "10m"]).success();
    let before = (elements(&net.router, "allow_ssh_4"), elements(&net.router, "allow_all_4").len());
    home.rewrite_config("global: nonsense\n");
    home.guard(&net.router).success();
    let after = (elements(&net.router, "allow_ssh_4"), elements(&net.router, "allow_all_4").len());
    assert_eq!((after, before.1), (before.clone(), 1));
    assert!(time_left(&net.router, "ssh", Family::V6.client_a()).is_some());
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_echoes(&net.a, Family::V6.router(), 2222);
}

#[test]
fn without_a_last_good_plan_nothing_is_changed() {
    let net = Topology::new();
    net.router.nft("table inet other { chain c { type filter hook input priority 0; counter; }; }");
    let home = Installation::with_text("global: nonsense\n");
    let before = everything(&net.router);
    home.guard(&net.router).exits(78);
    assert_eq!(everything(&net.router), before);
    // Nor with one that is damaged: every byte counts.
    let good = Installation::new(&Config::ssh(&[]));
    good.guard(&net.router).success();
    remove_guard(&net.router);
    let plan = fs::read(good.path("state/last-good-plan")).unwrap();
    for round in 0..12 {
        let mut bytes = plan.clone();
        let at = plan.len() * round / 12;
        if round % 2 == 0 {
            bytes.truncate(at)
        } else {
            bytes[at] ^= 0x04
        }
        fs::write(home.path("state/last-good-plan"), bytes).unwrap();
        home.guard(&net.router).exits(78);
        assert_eq!(everything(&net.router), before, "damaged at {at}");
    }
    fs::write(home.path("state/last-good-plan"), vec![b'a'; 20 << 20]).unwrap();
    home.guard(&net.router).exits(78);
    assert_eq!(everything(&net.router), before, "too large");
}

#[test]
fn the_daemon_takes_over_from_the_guard_without_a_gap() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 120"]));
    home.guard(&net.router).success();
    let guard = table(&net.router);
    let (stop, probes) = (AtomicBool::new(false), AtomicU32::new(0));
    let got_in = thread::scope(|scope| {
        let probing = scope.spawn(|| {
            let mut got_in = 0;
            while !stop.load(Ordering::Relaxed) {
                for family in Family::BOTH {
                    let reach = tcp(&net.a, (family.router(), 2222).into(), Duration::from_millis(10));
                    got_in += u32::from(reach != Reach::Silent);
                    probes.fetch_add(1, Ordering::Relaxed);
                }
            }
            got_in
        });
        let stopping = Stop(&stop);
        while probes.load(Ordering::Relaxed) < 200 && !probing.is_finished() {
            home.start(&net.router).terminate();
            home.guard(&net.router).success();
            home.start(&net.router).kill();
        }
        drop(stopping);
        probing.join().unwrap()
    });
    assert_eq!(got_in, 0, "of {} probes", probes.load(Ordering::Relaxed));
    assert_eq!(table(&net.router), guard);
    let _agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

fn beside_a_daemon_the_guard_changes_nothing() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    let before = everything(&net.router);
    home.rewrite_config(Config::ssh(&[]).app("web", "3333", "tcp", "local", &[]).text());
    home.guard(&net.router).success();
    assert_eq!(everything(&net.router), before);
}

#[test]
fn without_the_capability_the_guard_says_so() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let through = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    let command = home.guard_command(&through);
    net.router.finish(command, b"", Duration::from_secs(10)).exits(77);
    assert!(!is_guarded(&net.router));
    assert!(!home.path("state/last-good-plan").exists(), "a plan that is not in force is not kept");
}

#[test]
fn a_plan_that_the_kernel_refuses_is_no_reason_to_leave_the_ports_open() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    home.guard(&net.router).success();
    let guard = table(&net.router);
    // A hook takes 1024 chains (MAX_HOOK_COUNT), and forwarding takes one more.
    let chain = |n| {
        format!("add chain inet full c{n} {{ type filter hook prerouting priority 0; policy accept; }}\n")
    };
    net.router.nft(&format!("add table inet full\n{}", (0..1000).map(chain).collect::<String>()));
    let full =
        (1000..1024).find(|&n| net.router.feed("nft", &["-f", "-"], chain(n).as_bytes()).code != Some(0));
    assert!(full.is_some(), "the hook is full");
    net.router.nft("delete table inet knock_agent");
    let config = Config::ssh(&[]).app("lan", "7000", "tcp", "10.0.0.5", &[]);
    home.rewrite_config(config.text());
    let done = home.guard(&net.router).success();
    assert!(done.stderr.contains("the kernel refused to"), "{}", done.stderr);
    assert!(done.stderr.contains("NOT IN FORCE"), "{}", done.stderr);
    assert_eq!(table(&net.router), guard);
    assert_silent(&net.a, Family::V4.router(), 2222);
    // The plan that failed is not kept as a good one, and without a good one the failure is one.
    net.router.nft("delete table inet knock_agent");
    home.guard(&net.router).success();
    net.router.nft("delete table inet knock_agent");
    fs::remove_file(home.path("state/last-good-plan")).unwrap();
    home.guard(&net.router).exits(69);
    assert!(!is_guarded(&net.router));
}
