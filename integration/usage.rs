//! What the agent uses, and what strangers leave in the kernel.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::namespace::Namespace;

/// What all processes of an agent use.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub memory: i64,
    /// Time of the processor since the start, in hundredths of a second.
    pub ticks: u64,
    /// Open files and sockets.
    pub files: usize,
}

impl Usage {
    pub fn of(agent: &Agent) -> Self {
        let pids = family(agent.pid());
        Self {
            memory: pids.iter().map(|&pid| memory(pid)).sum(),
            ticks: pids.iter().map(|&pid| ticks(pid)).sum(),
            files: pids.iter().map(|pid| count(&format!("/proc/{pid}/fd"))).sum(),
        }
    }
}

/// A process and its children, and theirs.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
        }
        at += 1;
    }
    all
}

fn memory(pid: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name, which may hold anything, come the state and ten numbers before these two.
    let rest = stat.rsplit_once(')').unwrap().1;
    rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

fn count(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// What the kernel of a host remembers of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Entries of connection tracking.
    pub tracked: usize,
    /// Sockets of TCP, half-open connections among them; but those that listen, and those that the kernel keeps for a
    /// minute after this side has closed first.
    pub sockets: usize,
}

impl Remembered {
    pub fn by(host: &Namespace) -> Self {
        let lines = |program: &str, words: &[&str]| host.run(program, words).success().text().lines().count();
        // By listing them: the kernel's own number counts those that are over until it collects them.
        let tracked = ["ipv4", "ipv6"].map(|family| lines("conntrack", &["-L", "-f", family]));
        let sockets = lines("ss", &["-Htan", "exclude", "listening", "exclude", "time-wait"]);
        let tracked = tracked.iter().sum();
        Self { tracked, sockets }
    }
}

/// Has a host forget closed connections after a second, so that a test need not wait for minutes.
pub fn forget_soon(host: &Namespace) {
    for state in ["time_wait", "close", "close_wait", "fin_wait", "last_ack"] {
        host.sysctl(&format!("net/netfilter/nf_conntrack_tcp_timeout_{state}"), "1");
    }
    for family in ["udp_timeout", "icmp_timeout", "icmpv6_timeout"] {
        host.sysctl(&format!("net/netfilter/nf_conntrack_{family}"), "1");
    }
}

/// Stops the test unless, within so long, a host remembers no more than before.
#[track_caller]
pub fn assert_forgets(host: &Namespace, before: Remembered, limit: Duration) {
    let end = Instant::now() + limit;
    loop {
        let now = Remembered::by(host);
        if now.tracked <= before.tracked && now.sockets <= before.sockets {
            return;
        }
        assert!(Instant::now() < end, "{now:?} after {limit:?}, {before:?} before");
        sleep(Duration::from_millis(200));
    }
}
