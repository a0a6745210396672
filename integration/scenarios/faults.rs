//! What a kernel and a machine can refuse: what must hold is that nothing opens that should not, that no grant is lost or
//! longer, and that the agent recovers by itself.

use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::two_factor;
use crate::agent::{Agent, Installation};
use crate::configuration::{Config, STEP1_PATH, http_key};
use crate::firewall::{
    add_elements, admission_left, elements, is_guarded, remove_element, sorted_table, time_left,
};
use crate::knocking::{STEP2_PORT, form, knock, post_step1, step1};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::strangers::{Stranger, hold};
use crate::tamper::{Failing, Tamper};
use crate::temporary::Disk;
use crate::topology::{Family, Topology};
use crate::usage::{Usage, family};

const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn soon(what: impl Fn() -> bool, law: &str) {
    let end = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < end, "not within {SOON:?}: {law}");
        sleep(Duration::from_millis(10));
    }
}

fn signal(agent: &Agent, signal: Signal) {
    for pid in family(agent.pid()) {
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }
}

/// Messages that the agent's socket for events had no room for.
fn lost(agent: &Agent) -> u64 {
    let sockets = fs::read_to_string(format!("/proc/{}/net/netlink", agent.pid())).unwrap();
    // Netfilter's protocol is 12, the group of nf_tables is 7.
    let lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let drops = lines
        .filter(|line| line[1] == "12" && line[3] == "00000040")
        .map(|line| line[8].parse::<u64>().unwrap());
    drops.sum()
}

/// Changes another table until a stopped agent has lost some of what it would be told of that.
fn overflow(host: &Namespace, agent: &Agent) {
    let many: Vec<String> =
        (0..30_000_u32).map(|n| std::net::Ipv4Addr::from(0x0b00_0000 + n).to_string()).collect();
    let noise = format!(
        "table inet noise {{ set many {{ type ipv4_addr; elements = {{ {} }}; }}; }}\ndelete table inet noise\n",
        many.join(", ")
    );
    let (before, end) = (lost(agent), Instant::now() + Duration::from_secs(60));
    while lost(agent) == before {
        assert!(Instant::now() < end, "there is always room");
        host.nft(&noise);
    }
}

#[test]
fn events_that_were_lost_are_made_up_for() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 300"]));
    let agent = home.start(&net.router);
    let (host, a, b) = (&net.router, Family::V4.client_a(), Family::V6.client_b());
    knock(&net.a, Family::V4.router(), "ssh");
    let due = Instant::now() + Duration::from_secs(301);
    for address in [b.to_string(), "198.51.100.7".to_owned()] {
        home.grant(host, "ssh", address, 300);
    }
    home.verb(host, &["allow", "192.0.2.0/24"]).success();
    home.verb(host, &["allow", "198.51.100.0/24"]).success();
    let before = sorted_table(host);
    // What an administrator takes back while nobody hears of it stays taken back; what nobody may add goes.
    signal(&agent, Signal::SIGSTOP);
    overflow(host, &agent);
    remove_element(host, "app_ssh_4", "198.51.100.7");
    remove_element(host, "allow_all_4", "198.51.100.0/24");
    host.nft("insert rule inet knock_agent gate accept");
    signal(&agent, Signal::SIGCONT);
    soon(|| sorted_table(host) == before, "the rules are as before");
    assert!(home.log().contains("more changes to nftables than could be followed"), "{}", home.log());
    host.nft("flush ruleset");
    soon(|| is_guarded(host), "the guard is back");
    assert!(
        time_left(host, "ssh", a).is_some() && time_left(host, "ssh", b).is_some(),
        "the grants are back"
    );
    assert_eq!(time_left(host, "ssh", "198.51.100.7".parse().unwrap()), None, "taken back, and came again");
    let allowed: Vec<String> = elements(host, "allow_all_4").into_iter().map(|element| element.key).collect();
    assert_eq!(allowed, ["192.0.2.0/24"]);
    // A ruleset that was saved and loaded meanwhile, with other times: the ledger's time counts.
    let listed = host.run("nft", &["list", "ruleset"]).success().text();
    let longer = listed.replace("timeout 5m", "timeout 1h").replace("expires 4m", "expires 59m");
    assert_ne!(longer, listed);
    signal(&agent, Signal::SIGSTOP);
    overflow(host, &agent);
    host.nft(&format!("flush ruleset\n{longer}"));
    signal(&agent, Signal::SIGCONT);
    soon(
        || {
            let left = time_left(host, "ssh", a).expect("the grant stays");
            left <= due.saturating_duration_since(Instant::now())
        },
        "nobody gets more time",
    );
    assert!(time_left(host, "ssh", b).is_some());
    assert_silent(&net.b, Family::V4.router(), 2222);
}

const FAILURES: [Failing; 2] = [Failing::Message, Failing::Answer];

struct Tampered {
    net: Topology,
    home: Installation,
    tamper: Tamper,
    agent: Agent,
}

impl Tampered {
    fn new() -> Self {
        let net = Topology::new();
        let (home, tamper) = Tamper::with(Installation::new(&Config::ssh(&["duration: 300"])));
        let agent = home.start(&net.router);
        Self { net, home, tamper, agent }
    }

    fn has(&self, address: &str) -> bool {
        time_left(&self.net.router, "ssh", address.parse().unwrap()).is_some()
    }

    /// Has everything removed, and waits until it is back.
    fn flush(&self, case: &str) {
        self.net.router.nft("flush ruleset");
        soon(|| is_guarded(&self.net.router), case);
    }

    /// What was asked for is done or not done, and agent and kernel agree on it, whatever failed.
    fn operate_with(&self, failure: Failing, nth: i64) -> usize {
        let (host, address) = (&self.net.router, "198.51.100.9");
        let mut failed = 0;
        for verb in [&["grant", "ssh", address, "--for", "300s"][..], &["revoke", "ssh", address]] {
            let case = format!("{} with {failure:?} {nth}", verb[0]);
            self.tamper.fail(failure, nth);
            let told = self.home.verb(host, verb).code;
            failed += usize::from(self.tamper.stop());
            let wanted = verb[0] == "grant";
            if told == Some(0) {
                assert_eq!(self.has(address), wanted, "{case}");
            }
            // It looks again by itself.
            sleep(Duration::from_millis(300));
            let has = self.has(address);
            self.flush(&case);
            assert_eq!(self.has(address), has, "{case}: told {told:?}");
            self.home.verb(host, verb).success();
            assert_eq!(self.has(address), wanted, "{case}");
            self.flush(&case);
            assert_eq!(self.has(address), wanted, "{case}");
        }
        failed
    }
}

#[test]
fn operators_and_the_kernel_agree_whatever_message_or_answer_is_lost() {
    let mut all = Tampered::new();
    for failure in FAILURES {
        let failed: usize = (1..=3).map(|nth| all.operate_with(failure, nth)).sum();
        assert!(failed >= 3, "{failure:?}: only {failed} calls failed");
    }
    assert!(all.agent.is_alive());
}

#[test]
fn repairs_reloads_and_knocks_come_about_whatever_message_or_answer_is_lost() {
    let mut all = Tampered::new();
    let _service = Server::tcp(&all.net.router, 2222, Habit::Echo);
    let (host, stays) = (&all.net.router, "198.51.100.8");
    all.home.grant(host, "ssh", stays, 300);
    let [old, new] = [
        Config::ssh(&["duration: 300"]),
        Config::ssh(&["duration: 300"]).app("web", "3333", "tcp", "local", &[]),
    ];
    let mut tables = vec![sorted_table(host)];
    all.home.rewrite_config(new.text());
    all.agent.reload();
    tables.push(sorted_table(host));
    for failure in FAILURES {
        for nth in [1, 2, 4, 7, 11] {
            let case = format!("{failure:?} {nth}");
            all.tamper.fail(failure, nth);
            host.nft("flush ruleset");
            soon(|| is_guarded(host) && sorted_table(host) == tables[1], &case);
            assert!(all.tamper.stop() || nth > 2, "{case}: the repair was not hit");
            assert!(all.has(stays), "{case}: lost by a repair");
            // To the other configuration and back; the first may fail, and then nothing has changed.
            all.home.rewrite_config(old.text());
            all.tamper.fail(failure, nth);
            all.agent.reload();
            all.tamper.stop();
            soon(|| tables.contains(&sorted_table(host)), &case);
            for config in [&old, &new] {
                all.home.rewrite_config(config.text());
                all.agent.reload();
            }
            assert_eq!(sorted_table(host), tables[1], "{case}");
            assert!(all.has(stays), "{case}: lost by a reload");
        }
        all.tamper.fail(failure, 1);
        step1(&all.net.a, Family::V4.router(), "ssh");
        all.tamper.stop();
        knock(&all.net.a, Family::V4.router(), "ssh");
        assert_echoes(&all.net.a, Family::V4.router(), 2222);
        assert_silent(&all.net.b, Family::V4.router(), 2222);
        all.home.verb(host, &["revoke", "ssh", &Family::V4.client_a().to_string()]).success();
    }
    assert!(all.agent.is_alive());
}

#[test]
fn a_set_that_is_full_lets_nobody_else_in_and_pushes_nobody_out() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let _agent = home.start(&net.router);
    let all: Vec<String> = (0..65_536).map(|n| Stranger(n).address(Family::V4).to_string()).collect();
    add_elements(&net.router, "step2_4", &all, 600);
    step1(&net.a, Family::V4.router(), "ssh");
    assert_eq!(admission_left(&net.router, Family::V4.client_a()), None);
    assert_eq!(elements(&net.router, "step2_4").len(), all.len(), "all that were in it still are");
    assert!(home.log().contains("the set is full"), "{}", home.log());
    knock(&net.a, Family::V6.router(), "ssh");
    remove_element(&net.router, "step2_4", &all[7]);
    knock(&net.a, Family::V4.router(), "ssh");
}

#[test]
#[ignore = "fills a set with a million grants, which takes minutes"]
fn a_million_grants_leave_no_room_for_another_and_each_of_them_stays() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    signal(&agent, Signal::SIGSTOP);
    for part in 0..16_u32 {
        let some: Vec<String> = (0..65_536)
            .map(|n| std::net::Ipv4Addr::from(0x0b00_0000 + (part << 16) + n).to_string())
            .collect();
        add_elements(&net.router, "app_ssh_4", &some, 7_200);
    }
    signal(&agent, Signal::SIGCONT);
    // Until all of it is read, which takes the kernel long.
    let end = Instant::now() + Duration::from_secs(600);
    loop {
        step1(&net.a, Family::V4.router(), "ssh");
        if admission_left(&net.router, Family::V4.client_a()).is_some() {
            break;
        }
        assert!(Instant::now() < end, "{}", home.log());
    }
    let reply = crate::knocking::step2(&net.a, Family::V4.router(), "ssh").expect("an answer");
    assert_eq!(reply.status, 503, "{}", reply.head);
    assert!(home.log().contains("the set is full"), "{}", home.log());
    let told = home.verb(&net.router, &["grant", "ssh", "198.51.100.1"]).exits(69).stderr;
    assert!(told.contains("full"), "{told}");
    assert_silent(&net.a, Family::V4.router(), 2222);
    let last = ["get", "element", "inet", "knock_agent", "app_ssh_4", "{ 11.0.0.0 }"];
    net.router.run("nft", &last).success();
    remove_element(&net.router, "app_ssh_4", "11.15.255.255");
    home.grant(&net.router, "ssh", Family::V4.client_a(), 60);
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

fn limit(agent: &Agent, words: impl Fn(u32) -> String) {
    for pid in family(agent.pid()) {
        let status =
            Command::new("prlimit").arg("--pid").arg(pid.to_string()).arg(words(pid)).status().unwrap();
        assert!(status.success());
    }
}

#[test]
fn without_any_more_files_nothing_breaks_for_good() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 300"]));
    let mut agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    Stranger::settle(&net);
    let strangers: Vec<String> = (0..4).map(|n| Stranger(n).address(Family::V4).to_string()).collect();
    add_elements(&net.router, "step2_4", &strangers, 60);
    limit(&agent, |pid| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        format!("--nofile={}", files + 4)
    });
    std::thread::scope(|scope| {
        for number in 0..32 {
            let net = &net;
            scope.spawn(move || {
                let from = Stranger(number % 4).address(Family::V4);
                net.b.enter(|| hold(from, (Family::V4.router(), STEP2_PORT).into(), b""))
            });
        }
        sleep(Duration::from_millis(500));
        assert_echoes(&net.a, Family::V4.router(), 2222);
        net.router.nft("flush ruleset");
        soon(|| is_guarded(&net.router), "the guard is back");
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
    });
    assert!(home.log().contains("raise the limit of open files"), "{}", home.log());
    soon(
        || {
            step1(&net.a, Family::V6.router(), "ssh");
            crate::knocking::step2(&net.a, Family::V6.router(), "ssh")
                .is_some_and(|reply| reply.status == 200)
        },
        "who knocks gets in again",
    );
    home.verb(&net.router, &["revoke", "ssh", &Family::V6.client_a().to_string()]).success();
    assert!(agent.is_alive());
}

#[test]
fn without_any_more_memory_the_guard_and_its_grants_stay_and_a_start_takes_over() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 300"]));
    let mut agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    limit(&agent, |pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let size = status.lines().find(|line| line.starts_with("VmData:")).unwrap();
        let kib: u64 = size.split_whitespace().nth(1).unwrap().parse().unwrap();
        format!("--data={}", (kib + 1_000) * 1024)
    });
    let many: Vec<String> = (0..30_000).map(|n| Stranger(n).address(Family::V4).to_string()).collect();
    add_elements(&net.router, "app_ssh_4", &many, 60);
    net.router.nft("insert rule inet knock_agent svc_tcp_2222 counter");
    // It has to read more than it has room for.
    let end = Instant::now() + Duration::from_secs(10);
    while agent.is_alive() && Instant::now() < end {
        sleep(Duration::from_millis(50));
    }
    assert!(!agent.is_alive(), "there was memory enough: {:?}", Usage::of(&agent));
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
    drop(agent);
    let _agent = home.start(&net.router);
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
    knock(&net.b, Family::V4.router(), "ssh");
}

#[test]
fn a_code_that_was_used_while_the_disk_was_full_stays_used() {
    let net = Topology::new();
    let home = two_factor::install(&http_key("ssh"), &["step2_https_duration: 60"]);
    let disk = Disk::over(home.path("run"));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    let try_code = |from: &Namespace, token: &str| {
        post_step1(from, to, STEP1_PATH, &format!("{}&token={token}", form("ssh", &http_key("ssh"))));
    };
    disk.fill();
    let token = two_factor::code(&net.a, 0);
    try_code(&net.a, &token);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "{}", home.log());
    assert!(home.log().contains("used one-time codes are not kept"), "{}", home.log());
    agent.kill();
    disk.free();
    let agent = home.start(&net.router);
    try_code(&net.b, &token);
    assert_eq!(admission_left(&net.router, Family::V4.client_b()), None, "used twice\n{}", home.log());
    agent.kill();
}

#[test]
fn a_host_that_slept_has_nothing_open_that_ended_meanwhile() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let (home, tamper) = Tamper::with(Installation::new(&Config::ssh(&["duration: 300"])));
    let _agent = home.start(&net.router);
    let (a, b) = (Family::V4.client_a(), Family::V6.client_b());
    knock(&net.a, Family::V4.router(), "ssh");
    home.grant(&net.router, "ssh", b, 3_600);
    home.verb(&net.router, &["allow", "192.0.2.0/24", "--for", "10m"]).success();
    let before = sorted_table(&net.router);
    // In the kernel, timeouts stood still meanwhile.
    tamper.sleep(Duration::from_secs(1_000));
    assert_echoes(&net.a, Family::V4.router(), 2222);
    // It is told of by the kernel when it wakes up; here, whatever else happens will do.
    home.verb(&net.router, &["status"]).success();
    soon(|| time_left(&net.router, "ssh", a).is_none(), "a grant ended while the host slept");
    assert_silent(&net.a, Family::V4.router(), 2222);
    let left = time_left(&net.router, "ssh", b).expect("this one did not");
    assert!(left <= Duration::from_secs(2_600) && left > Duration::from_secs(2_500), "{left:?}");
    soon(|| elements(&net.router, "allow_all_4").is_empty(), "nor did the network last");
    assert_eq!(sorted_table(&net.router), before);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}
