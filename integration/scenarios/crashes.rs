//! kill -9 at every moment: while a configuration is put in force, while the state file is written, at the start
//! and during a repair. strace ends the agent at a chosen system call, so that no moment is left to luck.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::{Agent, Installation};
use crate::configuration::Config;
use crate::firewall::{elements, is_guarded, sorted_table, time_left};
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_on_time, assert_silent, dial, udp_socket, when_silent};
use crate::process::Background;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const LIMIT: Duration = Duration::from_secs(60);
/// Every call by which a file is replaced, and how often a write of the state file makes it at least.
const FILE_CALLS: [(&str, usize); 5] =
    [("unlink", 1), ("openat", 2), ("write", 1), ("fsync", 2), ("rename", 1)];

/// The words that have strace end whoever makes the system call for the `nth` time (each thread counts for itself).
fn ending(calls: &str, nth: usize) -> Vec<String> {
    let inject = format!("inject={calls}:signal=KILL:when={nth}");
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject];
    words.map(str::to_owned).to_vec()
}

/// Has strace end a running agent that way.
fn end_at(host: &Namespace, agent: &Agent, calls: &str, nth: usize) -> Background {
    let words = ending(calls, nth);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg("-p").arg(agent.pid().to_string());
    let tracing = host.background(command);
    let status = format!("/proc/{}/task", agent.pid());
    let traced = || {
        let tasks = fs::read_dir(&status).ok()?.map(|task| task.unwrap().path().join("status"));
        let untraced = |status: std::path::PathBuf| {
            fs::read_to_string(status).is_ok_and(|text| text.contains("TracerPid:\t0\n"))
        };
        Some(!tasks.into_iter().any(untraced))
    };
    let end = Instant::now() + LIMIT;
    while traced() != Some(true) {
        assert!(Instant::now() < end, "strace does not get hold of the agent");
        sleep(Duration::from_millis(2));
    }
    tracing
}

/// Starts an agent that strace ends at the `nth` of these calls; true if it got ready before that.
fn start_ended_at(home: &Installation, host: &Namespace, calls: &str, nth: usize) -> bool {
    let run = home.run_command();
    let words = ending(calls, nth);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(run.get_program()).args(run.get_args());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut tracing = host.background(command);
    let socket = home.path("run/control.sock");
    let end = Instant::now() + LIMIT;
    loop {
        if !tracing.is_alive() {
            return false;
        }
        let answers = std::os::unix::net::UnixStream::connect(&socket).is_ok();
        if answers {
            kill_children(tracing.0.id());
            return true;
        }
        assert!(Instant::now() < end, "neither ready nor dead");
        sleep(Duration::from_millis(5));
    }
}

/// Ends what strace started: by itself it would go on without strace.
fn kill_children(parent: u32) {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        let pid = nix::unistd::Pid::from_raw(child.parse().unwrap());
        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    }
}

/// Waits until the agent has died, or has done what it was told.
#[track_caller]
fn died(agent: &mut Agent, done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + LIMIT;
    loop {
        if !agent.is_alive() {
            return true;
        }
        if done() {
            return false;
        }
        assert!(Instant::now() < end, "neither dead nor done");
        sleep(Duration::from_millis(2));
    }
}

/// Two configurations between which everything changes but the guarded ports that are probed.
fn configs(state: &str) -> [Config; 2] {
    let base = |global: &[&str], ports: &str| {
        let state = format!("state_file: {state}");
        let global: Vec<&str> = global.iter().copied().chain([state.as_str()]).collect();
        let config = Config::new(&global).app("ssh", ports, "tcp", "local", &["duration: 3000"]);
        config.app("dns", "5353", "both", "local", &["duration: 3000"])
    };
    [
        base(&["mark: 0"], "2222"),
        base(&["mark: 77", "allow: [198.51.100.0/24]"], "[\"2220-2230\", 4000]")
            .app("web", "2225", "tcp", "local", &[])
            .app("lan", "7000-7009", "both", "10.0.0.5", &["established: keep"]),
    ]
}

/// Two services, strangers who try to reach them all the time, and one client who may.
struct Siege {
    net: Topology,
    home: Installation,
    configs: [Config; 2],
    tables: Vec<Vec<String>>,
    udp: Server,
    _tcp: Server,
}

impl Siege {
    fn new() -> Self {
        let net = Topology::new();
        let tcp = Server::tcp(&net.router, 2222, Habit::Echo);
        let udp = Server::udp(&net.router, 5353, Habit::Echo);
        let home = Installation::new(&Config::ssh(&[]));
        let configs = configs(home.path("state/grants").to_str().unwrap());
        let mut tables = Vec::new();
        for config in &configs {
            home.rewrite_config(config.text());
            let agent = home.start(&net.router);
            tables.push(sorted_table(&net.router));
            agent.kill();
            net.router.nft("delete table inet knock_agent");
        }
        home.rewrite_config(configs[0].text());
        home.guard(&net.router).success();
        Self { net, home, configs, tables, udp, _tcp: tcp }
    }

    /// Does something while strangers try.
    fn hold(&self, work: impl FnOnce()) {
        let (net, to) = (&self.net, Family::V4.router());
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let flooding = scope.spawn(|| {
                let socket = udp_socket(&net.b, to, 0);
                let mut sent = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    sent += u64::from(socket.send_to(b"let me in", (to, 5353)).is_ok());
                    // Room for what is tested, on a machine with few processors.
                    if sent.is_multiple_of(64) {
                        sleep(Duration::from_micros(300));
                    }
                }
                sent
            });
            let dialling = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let reached = dial(&net.b, (to, 2222).into(), Duration::from_millis(20));
                    assert!(reached.is_err(), "a probe reached the guarded port");
                }
            });
            // The strangers have to be stopped also when the work fails.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            stop.store(true, Ordering::Relaxed);
            dialling.join().unwrap();
            assert!(flooding.join().unwrap() > 1_000, "hardly a flood");
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        assert_eq!(self.udp.last_heard(), None, "a datagram of a stranger reached the guarded port");
    }

    /// Whatever the crash left: it guards, nobody lost a grant or got more, and a start tidies up.
    #[track_caller]
    fn assert_sound(&self, config: usize, given: Duration, case: &str) {
        let (host, client) = (&self.net.router, Family::V6.client_a());
        assert!(is_guarded(host), "{case}");
        let left = time_left(host, "ssh", client).unwrap_or_else(|| panic!("{case}: the grant is lost"));
        assert!(left <= given, "{case}: {left:?} left of {given:?}");
        let agent = self.home.start(host);
        assert_eq!(sorted_table(host), self.tables[config], "{case}");
        assert!(!self.home.log().contains("refused"), "{case}: {}", self.home.log());
        assert!(time_left(host, "ssh", client).is_some(), "{case}: lost by the start");
        agent.kill();
    }

    /// Grants something whose time only runs down from now on; returns what is left of it, as a function of time.
    fn client(&self) -> impl Fn() -> Duration + use<> {
        let client = Family::V6.client_a();
        self.home.grant(&self.net.router, "ssh", client, 3000);
        let end = Instant::now() + Duration::from_secs(3000);
        move || end.saturating_duration_since(Instant::now()) + Duration::from_millis(500)
    }

    /// Ends the agent at the `nth` message to the kernel of a reload; false if the reload has fewer.
    fn reload_ended_at(&self, nth: usize, given: &dyn Fn() -> Duration) -> bool {
        let (host, next) = (&self.net.router, nth % 2);
        self.home.rewrite_config(self.configs[1 - next].text());
        let mut agent = self.home.start(host);
        let tracing = end_at(host, &agent, "sendmsg", nth);
        self.home.rewrite_config(self.configs[next].text());
        let before = self.home.log().matches("new configuration is in force").count();
        agent.signal(Signal::SIGHUP);
        let log = || self.home.log().matches("new configuration is in force").count() > before;
        let died = died(&mut agent, log);
        drop((tracing, agent));
        self.assert_sound(next, given(), &format!("killed at message {nth} of a reload: {died}"));
        died
    }

    fn start_ended_at(&self, nth: usize, given: &dyn Fn() -> Duration) -> bool {
        let (host, next) = (&self.net.router, nth % 2);
        self.home.rewrite_config(self.configs[next].text());
        let ready = start_ended_at(&self.home, host, "sendmsg", nth);
        self.assert_sound(next, given(), &format!("killed at message {nth} of a start: {}", !ready));
        !ready
    }
}

#[test]
fn kill_9_at_some_messages_of_reloads_and_starts_opens_nothing() {
    let siege = Siege::new();
    let given = siege.client();
    siege.hold(|| {
        let ended = [3, 9, 16, 23].map(|nth| siege.reload_ended_at(nth, &given));
        assert!(ended[..3].iter().all(|&ended| ended), "the reload was not hit: {ended:?}");
        let ended = [4, 15, 22].map(|nth| siege.start_ended_at(nth, &given));
        assert!(ended.iter().all(|&ended| ended), "the start was not hit: {ended:?}");
    });
}

#[test]
#[ignore = "takes minutes: every message to the kernel of a reload and of a start"]
fn kill_9_at_every_message_of_reloads_and_starts_opens_nothing() {
    let siege = Siege::new();
    let given = siege.client();
    siege.hold(|| {
        let reloads = (1..500).take_while(|&nth| siege.reload_ended_at(nth, &given)).count();
        let starts = (1..500).take_while(|&nth| siege.start_ended_at(nth, &given)).count();
        assert!(reloads > 15 && starts > 15, "{reloads} and {starts} messages");
        eprintln!("killed at each of {reloads} messages of a reload and {starts} of a start");
    });
}

#[test]
fn kill_9_at_random_moments_of_reloads_opens_nothing() {
    let siege = Siege::new();
    let given = siege.client();
    let host = &siege.net.router;
    siege.hold(|| {
        for round in 0..12_u64 {
            let next = usize::try_from(round % 2).unwrap();
            siege.home.rewrite_config(siege.configs[1 - next].text());
            let agent = siege.home.start(host);
            siege.home.rewrite_config(siege.configs[next].text());
            agent.signal(Signal::SIGHUP);
            sleep(Duration::from_micros(1_500 * round + 7_919 * round % 1_000));
            agent.kill();
            siege.assert_sound(next, given(), &format!("round {round}"));
        }
    });
}

#[test]
fn kill_9_at_messages_of_a_guard_leaves_a_whole_guard_or_none_and_a_whole_plan() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let configs = [Config::ssh(&[]), Config::ssh(&[]).app("web", "3333", "tcp", "local", &[])];
    let home = Installation::new(&configs[0]);
    let whole = configs.each_ref().map(|config| {
        home.rewrite_config(config.text());
        home.guard(&net.router).success();
        sorted_table(&net.router)
    });
    // On a host without a guard, and over the guard of the other configuration.
    for over in [false, true] {
        for nth in (1..).step_by(3) {
            let case = format!("killed at message {nth}, over a guard: {over}");
            if !over {
                net.router.nft("delete table inet knock_agent");
            }
            home.rewrite_config(configs[nth % 2].text());
            let words = ending("sendmsg", nth);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let done = net.router.finish(home.guard_command(&words), b"", LIMIT);
            // Amid a change the same rules are there in other words.
            if (over || is_guarded(&net.router)) && !whole.contains(&sorted_table(&net.router)) {
                assert!(over, "{case}");
                assert_silent(&net.a, Family::V4.router(), 2222);
            }
            home.rewrite_config("global: nonsense\n");
            home.guard(&net.router).success();
            assert!(whole.contains(&sorted_table(&net.router)), "{case}: the plan that is kept");
            home.rewrite_config(configs[nth % 2].text());
            home.guard(&net.router).success();
            assert_eq!(sorted_table(&net.router), whole[nth % 2], "{case}");
            if done.code == Some(0) {
                assert!(nth > 10, "{case}: hardly a message");
                break;
            }
        }
    }
}

#[test]
fn grants_end_on_their_second_whatever_dies_around_them() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 8"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let due = Instant::now() + Duration::from_secs(8);
    agent.kill();
    while due.saturating_duration_since(Instant::now()) > Duration::from_secs(4) {
        home.start(&net.router).kill();
    }
    assert_echoes(&net.a, to, 2222);
    assert_on_time(when_silent(&net.a, to, 2222, due + Duration::from_secs(3)), due);
}

#[test]
fn kill_9_during_a_repair_leaves_a_table_that_the_next_start_completes() {
    let siege = Siege::new();
    let host = &siege.net.router;
    for nth in [1, 4, 8, 12, 16, 20] {
        let mut agent = siege.home.start(host);
        siege.home.grant(host, "ssh", Family::V4.client_a(), 600);
        let tracing = end_at(host, &agent, "sendmsg", nth);
        host.run("nft", &["delete", "table", "inet", "knock_agent"]).success();
        died(&mut agent, || is_guarded(host));
        drop((tracing, agent));
        if is_guarded(host) {
            // One transaction: whoever is guarded again has everything again.
            assert_eq!(sorted_table(host), siege.tables[0], "message {nth}");
            let left = time_left(host, "ssh", Family::V4.client_a()).expect("a repair brings grants back");
            assert!(left <= Duration::from_secs(600), "message {nth}: {left:?}");
        }
        let agent = siege.home.start(host);
        assert_eq!(sorted_table(host), siege.tables[0], "message {nth}");
        assert_silent(&siege.net.b, Family::V4.router(), 2222);
        agent.kill();
    }
}

#[test]
fn kill_9_at_every_step_of_writing_the_state_file_leaves_one_that_is_whole() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let state = home.path("state/grants");
    let (boot_id, mount) =
        (home.path("boot-id"), "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"");
    let home = home.wrapper(&["unshare", "-m", "sh", "-c", mount, boot_id.to_str().unwrap()]);
    let text = format!("state_file: {}", state.display());
    let config = Config::new(&[&text]).app("ssh", "2222", "tcp", "local", &["duration: 600"]);
    home.rewrite_config(config.text());
    let saved = || fs::read_to_string(&state).unwrap_or_default();
    let granted = || if is_guarded(&net.router) { elements(&net.router, "app_ssh_4").len() } else { 0 };
    let mut round = 0;
    for (call, times) in FILE_CALLS {
        for nth in 30.. {
            round += 1;
            let case = format!("killed at {call} {nth}");
            fs::write(&boot_id, format!("{round:08x}-0000-4000-8000-000000000000\n")).unwrap();
            let mut agent = home.start(&net.router);
            let sure = format!("198.51.100.{round}");
            home.grant(&net.router, "ssh", &sure, 600);
            let end = Instant::now() + LIMIT;
            while !saved().contains(&sure) {
                assert!(Instant::now() < end, "the state file is not written");
                sleep(Duration::from_millis(2));
            }
            let tracing = end_at(&net.router, &agent, call, nth);
            let maybe = format!("192.0.2.{round}");
            let revoked = round % 2 == 0;
            let words = match revoked {
                true => vec!["revoke", "ssh", sure.as_str()],
                false => vec!["grant", "ssh", maybe.as_str(), "--for", "600s"],
            };
            // It may die before it answers; what it has answered holds.
            let answered = home.verb(&net.router, &words).code == Some(0);
            if answered && revoked {
                assert!(!saved().contains(&sure), "{case}: taken back, and would return");
            }
            let done = || if revoked { !saved().contains(&sure) } else { saved().contains(&maybe) };
            let quiet = Instant::now() + Duration::from_millis(700);
            let hit = died(&mut agent, || done() && Instant::now() > quiet);
            drop((tracing, agent));
            let (in_kernel, kept) = (granted(), saved());
            // The reboot, and what comes back.
            net.router.nft("delete table inet knock_agent");
            fs::write(&boot_id, format!("{round:08x}-0000-4000-8000-00000000000f\n")).unwrap();
            let agent = home.start(&net.router);
            assert!(!home.log().contains("refused"), "{case}: {}", home.log());
            let back = granted();
            assert_eq!(kept.matches("\"address\"").count(), back, "{case}: {kept}");
            // The file is one change behind the kernel at most.
            assert!(back.abs_diff(in_kernel) <= 1, "{case}: {back}, {in_kernel} before");
            agent.kill();
            if !hit {
                assert!(nth > times, "{call} {nth} was not hit");
                break;
            }
        }
    }
}
