//! The process that hears strangers can do nothing but ask; whoever takes it over cannot either.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::{Config, STEP2_PATH, http_key, https_key};
use crate::firewall::{elements, table};
use crate::front::{ask, ask_without_listening, child_of, framed, pid_of, say, status_line, successor};
use crate::knocking::{form, knock, post_step2};
use crate::probe::{GENEROUS, assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const APP: u8 = 1;
const KEY: u8 = 2;
/// The answer to an ask: its length, kind, the number of the ask, the code, and seconds.
const ANSWER: usize = 4 + 14;
const REFUSED: u8 = 3;

/// Everything in the kernel that lets anybody in.
fn open(net: &Topology) -> usize {
    ["app_ssh_4", "app_ssh_6", "step2_4", "step2_6"].map(|set| elements(&net.router, set).len()).iter().sum()
}

#[test]
fn the_front_has_no_privileges_files_or_secrets_of_the_enforcer() {
    let net = Topology::new();
    // Whoever starts it has something open of its own.
    let open_file = ["sh", "-c", "exec 9</etc/passwd; exec \"$0\" \"$@\""];
    let home = Installation::new(&Config::ssh(&[])).wrapper(&open_file);
    let agent = home.start(&net.router);
    let front = pid_of(&agent).unwrap();
    assert!(fs::read_link(format!("/proc/{}/fd/9", agent.pid())).is_ok(), "nothing is inherited at all");
    let launcher = child_of(agent.pid(), "start-others").unwrap();
    for pid in [front, launcher] {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            assert_ne!(fs::read_link(entry.path()).unwrap().to_str(), Some("/etc/passwd"), "of {pid}");
        }
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(status_line(pid, set).as_deref(), Some("0000000000000000"), "{set} of {pid}");
        }
        assert_eq!(status_line(pid, "NoNewPrivs").as_deref(), Some("1"));
        assert!(fs::read_to_string(format!("/proc/{pid}/limits")).unwrap().lines().any(|line| {
            line.starts_with("Max core file size") && line.split_whitespace().nth(4) == Some("0")
        }));
    }
    // 2: a filter is in force (proc(5)).
    for pid in [front, agent.pid()] {
        assert_eq!(status_line(pid, "Seccomp").as_deref(), Some("2"), "{pid}");
    }
    // CAP_NET_ADMIN, and of root's what its files (CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) and its locked memory
    // take; nothing to bind ports with.
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(status_line(agent.pid(), set).as_deref(), Some("0000000000005007"), "{set}");
    }
    assert_eq!(status_line(front, "Threads").as_deref(), Some("1"));
    // Root may lock its memory, and does.
    assert_ne!(status_line(agent.pid(), "VmLck").as_deref(), Some("0 kB"));
    assert_eq!(fs::read(format!("/proc/{front}/environ")).unwrap(), b"");
    // The link, nothing, the log, the link once more, two ears, and what a runtime waits with: nothing of netlink.
    let netlink: Vec<String> = net
        .router
        .enter(|| fs::read_to_string("/proc/thread-self/net/netlink").unwrap())
        .lines()
        .filter_map(|line| line.split_whitespace().last().map(|inode| format!("socket:[{inode}]")))
        .collect();
    let mut listeners = 0;
    for entry in fs::read_dir(format!("/proc/{front}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        let known = ["socket:[", "pipe:[", "anon_inode:[event", "/dev/null"];
        assert!(known.iter().any(|known| target.starts_with(known)), "{target}");
        assert!(!netlink.contains(&target), "{target} is a netlink socket");
        listeners += usize::from(target.starts_with("socket:["));
    }
    assert!(listeners >= 4, "{listeners} sockets");
    // The keys of the configuration are not in its memory, and neither is its text.
    for secret in [http_key("ssh"), https_key("ssh")] {
        assert!(!remembers(front, secret.as_bytes()), "a key is in the front's memory");
        assert!(remembers(agent.pid(), secret.as_bytes()), "the search does not work");
    }
}

#[test]
fn nothing_of_what_clients_sent_stays_in_the_front() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let agent = home.start(&net.router);
    let front = pid_of(&agent).unwrap();
    for family in Family::BOTH {
        let to = family.router();
        knock(&net.a, to, "ssh");
        let wrong = form("ssh", "a-key-that-is-not-right");
        let _ = post_step2(&net.a, to, STEP2_PATH, &wrong, &[]);
        let _ = post_step2(&net.a, to, STEP2_PATH, &format!("{wrong}&unknown=1"), &[]);
    }
    let secrets = [http_key("ssh"), https_key("ssh"), "a-key-that-is-not-right".to_owned()];
    let end = Instant::now() + GENEROUS;
    let kept = || secrets.iter().filter(|secret| remembers(front, secret.as_bytes())).collect::<Vec<_>>();
    // Connections end a moment after their answers.
    while !kept().is_empty() {
        assert!(Instant::now() < end, "{:?}", kept());
        sleep(Duration::from_millis(100));
    }
    assert_eq!(pid_of(&agent), Some(front));
}

/// Whether bytes are in the memory of a process that it can write.
fn remembers(pid: u32, secret: &[u8]) -> bool {
    use std::os::unix::fs::FileExt;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains(" rw") && !line.contains("[v")).any(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let at = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(at(end) - at(start)).unwrap()];
        // What was never touched cannot always be read.
        memory.read_at(&mut bytes, at(start)).is_ok() && bytes.windows(secret.len()).any(|at| at == secret)
    })
}

#[test]
fn a_front_that_says_what_is_no_message_is_ended_and_another_one_takes_its_place() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 300"]));
    let agent = home.start(&net.router);
    let [v4, v6] = Family::BOTH;
    knock(&net.a, v4.router(), "ssh");
    let granted = elements(&net.router, "app_ssh_4").len();
    let good = ask(1, 2, v4.client_b(), &[(APP, "ssh"), (KEY, "not-a-key-of-ssh")]);
    let mut front = pid_of(&agent).unwrap();
    let broken: [Vec<u8>; 7] = [
        vec![0xff; 4],
        framed(b"x"),
        framed(&[16, 0, 0, 0, 0, 0]),
        framed(&good[4..good.len() - 1]),
        // An answer, which only the other end gives.
        framed(&[17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        // A good one, and then what is none.
        [&good[..], &framed(&[1])].concat(),
        // That it serves, more often than it was asked.
        framed(&[2, 0, 0, 0, 1]).repeat(3),
    ];
    for message in broken {
        let (_, closed) = say(&net.router, front, std::slice::from_ref(&message), 20.0);
        assert!(closed, "{message:?} is taken");
        let next = successor(&agent, front);
        assert!(!std::path::Path::new(&format!("/proc/{front}")).exists(), "the old one goes on");
        front = next;
        assert_eq!(elements(&net.router, "app_ssh_4").len(), granted, "{}", table(&net.router));
    }
    assert_echoes(&net.a, v4.router(), 2222);
    assert_silent(&net.b, v4.router(), 2222);
    knock(&net.a, v6.router(), "ssh");
    assert_echoes(&net.a, v6.router(), 2222);
    assert!(home.log().contains("is started anew"), "{}", home.log());
}

#[test]
fn a_front_that_asks_without_credentials_opens_nothing_for_anybody() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let (http, https) = (http_key("ssh"), https_key("ssh"));
    let mut asks = Vec::new();
    for family in Family::BOTH {
        let client = family.client_b();
        let mut add = |step: u8, fields: &[(u8, &str)]| {
            asks.push(ask(u32::try_from(asks.len()).unwrap(), step, client, fields));
        };
        // The key of step 2 without a step 1, at either step; that of step 1 at step 2.
        add(2, &[(APP, "ssh"), (KEY, &https)]);
        add(1, &[(APP, "ssh"), (KEY, &https)]);
        add(2, &[(APP, "ssh"), (KEY, &http)]);
        add(1, &[(APP, "other"), (KEY, &http)]);
        add(1, &[(APP, "ssh"), (KEY, "not-a-key-of-ssh")]);
        add(2, &[(APP, "ssh"), (KEY, "not-a-key-of-ssh")]);
    }
    let front = pid_of(&agent).unwrap();
    let (heard, closed) = say(&net.router, front, &asks, 3.0);
    assert!(!closed && heard.len() == asks.len() * ANSWER, "{} answers, {closed}", heard.len());
    for answer in heard.chunks(ANSWER) {
        assert_eq!(answer[9], REFUSED, "{answer:?}");
    }
    assert_eq!(open(&net), 0, "{}", table(&net.router));
    for family in Family::BOTH {
        assert_silent(&net.b, family.router(), 2222);
    }
    // What was taken over goes with him; others knock as ever.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(front.cast_signed()), nix::sys::signal::SIGKILL)
        .unwrap();
    successor(&agent, front);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
}

#[test]
fn a_front_that_asks_without_end_keeps_no_operator_from_being_heard() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let to = Family::V4.client_b();
    home.grant(&net.router, "ssh", to, 300);
    let front = pid_of(&agent).unwrap();
    let before = resident(agent.pid());
    // Twenty thousand at once: either it is ended, or each is judged; the one who takes grants back is heard at once.
    let one = ask(1, 1, Family::V4.client_a(), &[(APP, "ssh"), (KEY, "not-a-key-of-ssh")]);
    let flood = vec![one.repeat(20_000)];
    std::thread::scope(|threads| {
        let flooding = threads.spawn(|| say(&net.router, front, &flood, 1.0));
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        home.verb(&net.router, &["revoke", "ssh", &to.to_string()]).success();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        flooding.join().unwrap();
    });
    assert_eq!(open(&net), 0);
    let grown = resident(agent.pid()).saturating_sub(before);
    assert!(grown < 16 << 10, "the enforcer grew by {grown} KiB");
    if pid_of(&agent) == Some(front) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(front.cast_signed()), nix::sys::signal::SIGKILL)
            .unwrap();
    }
    successor(&agent, front);
    // Of its own address: that of the flood is over its limit.
    knock(&net.b, Family::V4.router(), "ssh");
}

#[test]
fn a_front_that_asks_and_hardly_listens_is_ended_before_it_fills_the_memory() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let front = pid_of(&agent).unwrap();
    let before = resident(agent.pid());
    let one = ask(1, 1, Family::V4.client_a(), &[(APP, "ssh"), (KEY, "not-a-key-of-ssh")]);
    assert!(ask_without_listening(&net.router, front, &one, 60), "it may go on");
    successor(&agent, front);
    let grown = resident(agent.pid()).saturating_sub(before);
    assert!(grown < 16 << 10, "the enforcer grew by {grown} KiB");
    knock(&net.b, Family::V4.router(), "ssh");
}

/// In KiB.
fn resident(pid: u32) -> u64 {
    let line = status_line(pid, "VmRSS").unwrap();
    line.trim_end_matches(" kB").trim().parse().unwrap()
}

#[test]
fn a_front_that_hangs_is_started_anew() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let front = pid_of(&agent).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(front.cast_signed()), nix::sys::signal::SIGSTOP)
        .unwrap();
    // Asked every ten seconds, it has ten to answer.
    let end = Instant::now() + Duration::from_secs(60);
    let mut told = false;
    while pid_of(&agent).is_none_or(|pid| pid == front) {
        assert!(Instant::now() < end, "{}", home.log());
        std::thread::sleep(Duration::from_millis(100));
        let status = home.verb(&net.router, &["status"]).success().text();
        told |= status.lines().any(|line| line.starts_with("BAD") && line.contains(" front "));
    }
    successor(&agent, front);
    assert!(told, "whoever looks meanwhile is told");
    let status = home.verb(&net.router, &["status"]).success().text();
    assert!(status.contains("started anew once"), "{status}");
    knock(&net.a, Family::V4.router(), "ssh");
}

#[test]
fn the_front_ends_with_a_daemon_that_is_killed_and_starts_with_the_next() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 300"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let front = pid_of(&agent).unwrap();
    let launcher = child_of(agent.pid(), "start-others").unwrap();
    agent.kill();
    // At once, while the port may still be held.
    let agent = home.start(&net.router);
    let end = Instant::now() + Duration::from_secs(10);
    while [front, launcher].iter().any(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()) {
        assert!(Instant::now() < end, "what belonged to the daemon goes on without it");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_echoes(&net.a, to, 2222);
    knock(&net.b, to, "ssh");
    assert_echoes(&net.b, to, 2222);
    agent.terminate();
}
