//! Grants across a reboot: another boot id, and a kernel that has lost everything.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::{Installation, PROGRAM};
use crate::backend::on_every_firewall;
use crate::calendar;
use crate::configuration::Config;
use crate::firewall::{elements, remove_element, remove_guard, time_left};
use crate::knocking::knock;
use crate::knocks::knock_at;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_on_time, assert_silent, when_silent};
use crate::server::{Habit, Server};
use crate::temporary::{Disk, mount};
use crate::topology::{Family, Topology};

on_every_firewall! {
    grants_come_back_after_a_reboot_with_the_time_they_have_left,
    what_was_taken_back_does_not_come_back,
}

/// An installation with a state file, whose agents see another boot id after each [`Rebooting::reboot`].
struct Rebooting {
    home: Installation,
    boots: u32,
}

impl Rebooting {
    fn new(config: impl Fn(&str) -> Config) -> Self {
        // The configuration names a file in the folder that the installation makes.
        let mut home = Installation::new(&Config::ssh(&[]));
        let state = home.path("state/grants");
        home.rewrite_config(config(&format!("state_file: {}", state.display())).text());
        let boot_id = home.path("boot-id");
        let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        home = home.wrapper(&["unshare", "-m", "sh", "-c", mount, boot_id.to_str().unwrap()]);
        let new = Self { home, boots: 0 };
        new.write_boot_id();
        new
    }

    fn ssh(more: &[&str]) -> Self {
        Self::new(|state| Config::new(&[state]).app("ssh", "2222", "tcp", "local", more))
    }

    /// Everything in the kernel is gone, and the boot id is another one.
    fn reboot(&mut self, host: &Namespace) {
        remove_guard(host);
        self.boots += 1;
        self.write_boot_id();
    }

    /// In the same boot as the daemon: ipset's sets say in which one they were made.
    fn revoke_without_a_daemon(&self, host: &Namespace, client: &str) {
        let (config, run, id) =
            (self.home.path("config.yaml"), self.home.path("run"), self.home.path("boot-id"));
        let mount = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
        let words = ["-m", "sh", "-c", mount, id.to_str().unwrap(), PROGRAM, "revoke", "ssh", client];
        let flags = ["--config", config.to_str().unwrap(), "--runtime-dir", run.to_str().unwrap()];
        host.run("unshare", &[&words[..], &flags].concat()).success();
    }

    fn write_boot_id(&self) {
        let id = format!("{:08x}-0000-4000-8000-000000000000\n", self.boots);
        fs::write(self.home.path("boot-id"), id).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.home.path("state/grants")
    }

    /// Whoever looks after the daemon is told that nothing would outlast a reboot.
    #[track_caller]
    fn assert_not_kept(&self, host: &Namespace) {
        let told = self.home.check(host, &["health"]).exits(1).text();
        assert!(told.starts_with("state-file: ") && told.contains("not outlast a reboot"), "{told}");
        let status = self.home.verb(host, &["status"]).success().text();
        assert!(status.contains("not outlast a reboot"), "{status}");
    }

    /// Waits until the file names this, or does not any more.
    #[track_caller]
    fn await_state(&self, text: &str, named: bool) {
        let end = Instant::now() + Duration::from_secs(5);
        while fs::read_to_string(self.state()).is_ok_and(|state| state.contains(text)) != named {
            assert!(Instant::now() < end, "{text} in the state file: not {named}\n{}", self.home.log());
            sleep(Duration::from_millis(5));
        }
    }
}

fn granted(host: &Namespace) -> usize {
    elements(host, "app_ssh_4").len() + elements(host, "app_ssh_6").len()
}

fn grants_come_back_after_a_reboot_with_the_time_they_have_left() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let mut host = Rebooting::ssh(&["duration: 20"]);
    let agent = host.home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    knock(&net.a, to, "ssh");
    let due = Instant::now() + Duration::from_secs(20);
    host.home.grant(&net.router, "ssh", Family::V6.client_b(), 3600);
    host.await_state(&Family::V6.client_b().to_string(), true);
    let before = time_left(&net.router, "ssh", client).expect("a grant");
    agent.kill();
    host.reboot(&net.router);
    sleep(Duration::from_secs(2));
    // The guard is there first, as at a real boot.
    host.home.guard(&net.router).success();
    assert_silent(&net.a, to, 2222);
    let agent = host.home.start(&net.router);
    let after = time_left(&net.router, "ssh", client).expect("the grant is restored");
    assert!(after + Duration::from_secs(2) <= before, "{after:?} left, {before:?} before 2 s of reboot");
    assert!(time_left(&net.router, "ssh", Family::V6.client_b()).is_some(), "{}", host.home.log());
    let status = host.home.verb(&net.router, &["status", "--json"]).success().text();
    assert!(status.contains("\"how\":\"two-step\"") && status.contains("\"lifetime_s\":20"), "{status}");
    assert_echoes(&net.a, to, 2222);
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
    agent.kill();
    // Without a reboot the kernel knows better.
    remove_guard(&net.router);
    let _agent = host.home.start(&net.router);
    assert_eq!(granted(&net.router), 0, "restored within one boot");
}

fn what_was_taken_back_does_not_come_back() {
    let net = Topology::new();
    let mut host = Rebooting::ssh(&["duration: 600"]);
    let [a4, a6] = Family::BOTH.map(|family| family.client_a().to_string());
    let [b4, b6] = Family::BOTH.map(|family| family.client_b().to_string());
    let agent = host.home.start(&net.router);
    for client in [&a4, &a6, &b4, &b6] {
        host.home.grant(&net.router, "ssh", client, 600);
    }
    host.home.verb(&net.router, &["revoke", "ssh", &a4]).success();
    host.await_state(&a4, false);
    remove_element(&net.router, "app_ssh_6", &a6);
    host.await_state(&a6, false);
    agent.terminate();
    host.revoke_without_a_daemon(&net.router, &b4);
    host.reboot(&net.router);
    let agent = host.home.start(&net.router);
    assert_eq!(granted(&net.router), 1, "{}", host.home.log());
    assert!(time_left(&net.router, "ssh", Family::V6.client_b()).is_some());
    host.await_state(&b6, true);
    agent.kill();
    host.home.verb(&net.router, &["teardown"]).success();
    assert!(!host.state().exists(), "nothing is left after a teardown");
    host.reboot(&net.router);
    let _agent = host.home.start(&net.router);
    assert_eq!(granted(&net.router), 0);
}

#[test]
fn a_state_file_that_was_left_out_meanwhile_brings_nothing_back() {
    let net = Topology::new();
    let mut host = Rebooting::ssh(&["duration: 600"]);
    let with = fs::read_to_string(host.home.path("config.yaml")).unwrap();
    let without = Config::ssh(&["duration: 600"]);
    let elsewhere = with.replace("state/grants", "state/elsewhere");
    // By a restart without it, by one with another file, and by a restart after a reload had put it in.
    for (meanwhile, by_reload) in [(without.text(), false), (&elsewhere, false), (without.text(), true)] {
        host.home.rewrite_config(if by_reload { without.text() } else { &with });
        let agent = host.home.start(&net.router);
        if by_reload {
            host.home.rewrite_config(&with);
            assert!(agent.reload().contains("STATUS=guarding\n"), "{}", host.home.log());
        }
        host.home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
        host.home.verb(&net.router, &["allow", "203.0.113.0/24"]).success();
        host.await_state("203.0.113.0/24", true);
        agent.kill();
        host.home.rewrite_config(meanwhile);
        let agent = host.home.start(&net.router);
        assert!(!host.state().exists(), "{}", host.home.log());
        assert_eq!(granted(&net.router), 1, "they go on until they end");
        host.home.verb(&net.router, &["revoke", "--all"]).success();
        host.home.verb(&net.router, &["allow", "--flush"]).success();
        agent.kill();
        host.reboot(&net.router);
        host.home.rewrite_config(&with);
        let agent = host.home.start(&net.router);
        assert_eq!(granted(&net.router), 0, "{}", host.home.log());
        assert_eq!(elements(&net.router, "allow_all_4").len(), 0, "{}", host.home.log());
        assert!(!host.home.path("state/elsewhere").exists());
        agent.kill();
        remove_guard(&net.router);
    }
}

#[test]
fn a_grant_does_not_come_back_for_other_ports_than_it_was_made_for() {
    let net = Topology::new();
    let _services = [2222, 3333, 6000].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let mut host = Rebooting::ssh(&["duration: 600"]);
    let mut agent = host.home.start(&net.router);
    let a = Family::V4.client_a();
    host.home.grant(&net.router, "ssh", a, 600);
    for (from, to, comes) in
        [("port: 2222", "port: [2222, 3333]", true), ("[2222, 3333]", "3333", true), ("3333", "6000", false)]
    {
        host.await_state(&a.to_string(), true);
        agent.kill();
        let config = fs::read_to_string(host.home.path("config.yaml")).unwrap();
        host.home.rewrite_config(&config.replace(from, to));
        host.reboot(&net.router);
        agent = host.home.start(&net.router);
        assert_eq!(time_left(&net.router, "ssh", a).is_some(), comes, "{to}: {}", host.home.log());
    }
    assert_silent(&net.a, Family::V4.router(), 6000);
    drop(agent);
}

#[test]
fn a_state_file_by_another_name_is_still_the_same() {
    let net = Topology::new();
    let mut host = Rebooting::ssh(&["duration: 600"]);
    let agent = host.home.start(&net.router);
    host.home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
    host.await_state(&Family::V4.client_a().to_string(), true);
    agent.kill();
    symlink(host.home.path("state"), host.home.path("link")).unwrap();
    let config = fs::read_to_string(host.home.path("config.yaml")).unwrap();
    host.home.rewrite_config(&config.replace("state/grants", "link/grants"));
    host.reboot(&net.router);
    let _agent = host.home.start(&net.router);
    assert_eq!(granted(&net.router), 1, "{}", host.home.log());
}

#[test]
fn what_knock_sequences_opened_comes_back_after_a_reboot_and_what_they_closed_does_not() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let mut host = Rebooting::ssh(&[
        "duration: 600",
        "sequence: [{knocks: [1234, 5678], closing: [7, 8]}, {knocks: [1234, 9012], duration: 60}]",
    ]);
    let agent = host.home.start(&net.router);
    let to = Family::V4.router();
    knock_at(&net.b, to, "1234,9012");
    host.await_state(&Family::V4.client_b().to_string(), true);
    knock_at(&net.b, to, "7,8");
    host.await_state(&Family::V4.client_b().to_string(), false);
    knock_at(&net.a, to, "1234,9012");
    host.await_state(&Family::V4.client_a().to_string(), true);
    agent.kill();
    host.reboot(&net.router);
    let _agent = host.home.start(&net.router);
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
    assert_eq!((granted(&net.router), elements(&net.router, "seq_ssh.60_4").len()), (0, 1));
}

#[test]
fn networks_that_operators_allowed_come_back_and_those_that_were_taken_back_do_not() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let mut host = Rebooting::ssh(&[]);
    let agent = host.home.start(&net.router);
    for words in [
        &["allow", "203.0.113.2", "--for", "6s"][..],
        &["allow", "2001:db8:1::2", "--app", "ssh"],
        &["allow", "2001:db8:1::/64", "--app", "ssh", "--for", "1h"],
        &["allow", "203.0.113.3", "--for", "1h"],
    ] {
        host.home.verb(&net.router, words).success();
    }
    let due = Instant::now() + Duration::from_secs(6);
    net.router.nft("delete element inet knock_agent allow_all_4 { 203.0.113.3 }");
    host.await_state("203.0.113.3", false);
    agent.kill();
    host.reboot(&net.router);
    let agent = host.home.start(&net.router);
    for family in Family::BOTH {
        assert_echoes(&net.a, family.router(), 2222);
    }
    assert_echoes(&net.b, Family::V6.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
    let to = Family::V4.router();
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
    host.home.verb(&net.router, &["allow", "--flush"]).success();
    agent.kill();
    host.reboot(&net.router);
    let _agent = host.home.start(&net.router);
    assert_silent(&net.a, Family::V6.router(), 2222);
    assert_silent(&net.b, Family::V6.router(), 2222);
}

#[test]
fn an_app_that_is_gone_gets_no_grant_and_a_shorter_maximum_holds() {
    let net = Topology::new();
    let mut host = Rebooting::new(|state| {
        let config = Config::new(&[state]).app("ssh", "2222", "tcp", "local", &["duration: 600"]);
        config.app("old", "4444", "tcp", "local", &["duration: 600"])
    });
    let agent = host.home.start(&net.router);
    for app in ["ssh", "old"] {
        knock(&net.a, Family::V4.router(), app);
    }
    host.await_state("\"old\"", true);
    agent.kill();
    let state = format!("state_file: {}", host.state().display());
    let after = Config::new(&[&state]).app("ssh", "2222", "tcp", "local", &["duration: 60"]);
    host.home.rewrite_config(after.text());
    host.reboot(&net.router);
    let _agent = host.home.start(&net.router);
    let left = time_left(&net.router, "ssh", Family::V4.client_a()).expect("a grant");
    assert!(left <= Duration::from_secs(60), "{left:?}");
    host.await_state("\"old\"", false);
}

#[test]
fn a_state_file_that_is_damaged_anywhere_opens_nothing() {
    let net = Topology::new();
    let mut host = Rebooting::ssh(&["duration: 600"]);
    let agent = host.home.start(&net.router);
    for client in [Family::V4.client_a(), Family::V6.client_b()] {
        host.home.grant(&net.router, "ssh", client, 600);
        host.await_state(&client.to_string(), true);
    }
    agent.kill();
    let whole = fs::read(host.state()).unwrap();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..20 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(random >> 33).unwrap() % whole.len();
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << (random >> 20 & 7),
            _ => bytes.insert(at, b'0'),
        }
        fs::write(host.state(), &bytes).unwrap();
        host.reboot(&net.router);
        let agent = host.home.start(&net.router);
        assert_eq!(granted(&net.router), 0, "round {round}, damaged at {at}");
        assert!(host.home.log().contains("state_file is refused"), "{}", host.home.log());
        agent.kill();
    }
    fs::write(host.state(), &whole).unwrap();
    host.reboot(&net.router);
    let _agent = host.home.start(&net.router);
    assert_eq!(granted(&net.router), 2, "what is whole is used");
}

#[test]
fn a_file_of_somebody_else_stays_as_it_is() {
    let net = Topology::new();
    let host = Rebooting::ssh(&["duration: 600"]);
    fs::write(host.state(), "notes of somebody\n").unwrap();
    let agent = host.home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    host.assert_not_kept(&net.router);
    assert_eq!(fs::read_to_string(host.state()).unwrap(), "notes of somebody\n");
    fs::remove_file(host.state()).unwrap();
    assert!(agent.reload().contains("STATUS=guarding\n"), "{}", host.home.log());
    host.home.check(&net.router, &["health"]).success();
    assert!(host.home.log().contains("not kept across a reboot"), "{}", host.home.log());
}

#[test]
fn a_state_file_that_others_may_have_written_opens_nothing_and_stays_as_it_is() {
    let net = Topology::new();
    let mut host = Rebooting::ssh(&["duration: 600"]);
    let agent = host.home.start(&net.router);
    host.home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
    host.home.verb(&net.router, &["allow", "203.0.113.0/24"]).success();
    host.await_state("203.0.113.0/24", true);
    agent.kill();
    let own = fs::read(host.state()).unwrap();
    let folder = host.home.path("state");
    fs::set_permissions(&folder, Permissions::from_mode(0o1777)).unwrap();
    let said = host.home.check(&net.router, &["check-config"]).success().stderr;
    assert!(said.contains("others can write to"), "{said}");
    for (owner, mode) in [(65534, 0o600), (0, 0o666), (0, 0o620)] {
        chown(host.state(), Some(owner), None).unwrap();
        fs::set_permissions(host.state(), Permissions::from_mode(mode)).unwrap();
        host.reboot(&net.router);
        let agent = host.home.start(&net.router);
        assert_eq!(granted(&net.router), 0, "{owner} {mode:o}");
        assert_eq!(elements(&net.router, "allow_all_4").len(), 0, "{owner} {mode:o}");
        host.assert_not_kept(&net.router);
        agent.kill();
        let said = host.home.verb(&net.router, &["grant", "ssh", "203.0.113.9", "--for", "60s"]).success();
        assert!(said.stderr.contains("belongs to another user"), "{}", said.stderr);
        assert_eq!(granted(&net.router), 1, "by the verb alone");
        assert_eq!(fs::read(host.state()).unwrap(), own, "{owner} {mode:o}");
    }
    fs::set_permissions(host.state(), Permissions::from_mode(0o600)).unwrap();
    host.reboot(&net.router);
    let _agent = host.home.start(&net.router);
    assert_eq!(granted(&net.router), 1, "root's own\n{}", host.home.log());
}

#[test]
fn kill_9_at_any_moment_of_a_write_leaves_a_file_that_is_whole() {
    let net = Topology::new();
    let mut host = Rebooting::ssh(&["duration: 600"]);
    let mut sure = 0;
    for round in 0_u8..12 {
        let agent = host.home.start(&net.router);
        assert!(granted(&net.router) >= sure, "round {round}");
        assert!(!host.home.log().contains("refused"), "{}", host.home.log());
        for client in 0..3 {
            let address = format!("198.51.100.{}", round * 3 + client);
            host.home.grant(&net.router, "ssh", &address, 600);
            if client < 2 {
                host.await_state(&format!("\"{address}\""), true);
            }
        }
        sleep(Duration::from_micros(u64::from(round) * 150));
        agent.kill();
        sure += 2;
        host.reboot(&net.router);
    }
}

#[test]
fn a_disk_that_is_full_brings_nothing_back_that_was_taken_back() {
    let net = Topology::new();
    let mut host = Rebooting::ssh(&["duration: 600"]);
    let disk = Disk::over(host.home.path("state"));
    let agent = host.home.start(&net.router);
    let [gone, stays] = ["198.51.100.1", "198.51.100.2"];
    for client in [gone, stays] {
        host.home.grant(&net.router, "ssh", client, 600);
    }
    host.await_state(stays, true);
    disk.fill();
    host.home.verb(&net.router, &["revoke", "ssh", gone]).success();
    assert!(!host.state().exists(), "what it says is no longer so");
    host.assert_not_kept(&net.router);
    assert!(host.home.log().contains("not kept across a reboot"), "{}", host.home.log());
    assert_eq!(granted(&net.router), 1, "the daemon goes on");
    agent.kill();
    host.reboot(&net.router);
    let agent = host.home.start(&net.router);
    assert_eq!(granted(&net.router), 0, "{}", host.home.log());
    agent.kill();
}

#[test]
fn a_disk_that_cannot_be_written_is_told_to_whoever_takes_something_back() {
    let net = Topology::new();
    let host = Rebooting::ssh(&["duration: 600"]);
    let _disk = Disk::over(host.home.path("state"));
    let agent = host.home.start(&net.router);
    host.home.grant(&net.router, "ssh", "198.51.100.1", 600);
    host.await_state("198.51.100.1", true);
    mount(&["-o", "remount,ro"], &host.home.path("state"));
    let said = host.home.verb(&net.router, &["revoke", "ssh", "198.51.100.1"]).success().text();
    assert!(said.contains("cannot be changed: a reboot brings back"), "{said}");
    assert_eq!(granted(&net.router), 0);
    mount(&["-o", "remount,rw"], &host.home.path("state"));
    agent.terminate();
}

#[test]
#[ignore = "sets the machine's calendar: for a machine of its own, such as that of integration/kernel-6.1"]
fn a_calendar_that_is_set_to_and_fro_lengthens_nothing() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let mut host = Rebooting::ssh(&["duration: 30"]);
    let agent = host.home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let due = Instant::now() + Duration::from_secs(30);
    let mut agent = Some(agent);
    for jump in [-86_400, 3_600, -7] {
        let before = fs::read_to_string(host.state()).unwrap();
        calendar::shift(jump);
        let end = Instant::now() + Duration::from_secs(2);
        while fs::read_to_string(host.state()).is_ok_and(|now| now == before) {
            assert!(Instant::now() < end, "the file is not written when the calendar is set by {jump} s");
            sleep(Duration::from_millis(5));
        }
        assert_echoes(&net.a, to, 2222);
        // A crash and a reboot right after the calendar was set.
        agent.take().unwrap().kill();
        host.reboot(&net.router);
        agent = Some(host.home.start(&net.router));
        let left = time_left(&net.router, "ssh", Family::V4.client_a()).expect("the grant is restored");
        let really = due.saturating_duration_since(Instant::now());
        assert!(left <= really + Duration::from_millis(1500), "{left:?} left of {really:?}, {jump}");
    }
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
}
