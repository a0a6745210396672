//! What it was measured on.

use std::fs::{read_dir, read_to_string};
use std::process::Command;
use std::time::Duration;

use crate::stats::thousands;

pub fn describe() -> String {
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, name)| name);
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024;
    let buckets = read_to_string("/proc/sys/net/netfilter/nf_conntrack_buckets").unwrap_or_default();
    let buckets = thousands(buckets.trim().parse().unwrap_or(0));
    format!(
        "The machine: {count} processors ({model}){}, {} MiB of memory, Linux {}, {}, {}; a connection tracking table of \
         {buckets} buckets.",
        if cpus.contains("hypervisor") { " of a virtual machine" } else { "" },
        thousands(memory),
        said("uname", &["-r"]),
        said("nft", &["--version"]).split(" (").next().unwrap_or_default(),
        said("rustc", &["--version"]).split(" (").next().unwrap_or_default(),
    )
}

/// How much else is running, by the average of the last minute.
pub fn load() -> String {
    read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.trim().to_owned()
}

/// Processor time that processes have used, all their threads together.
pub fn cpu(processes: &[u32]) -> Duration {
    let threads = processes
        .iter()
        .flat_map(|pid| read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    let used = threads.map(|thread| {
        let text = read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(used.sum())
}

/// Processor time of the processes that it started and that have ended, to a hundredth of a second.
pub fn cpu_of_ended(pid: u32) -> Duration {
    let text = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: the 16th and 17th field of all, in hundredths of a second.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        rest.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// A process's memory, in KiB: resident, its share of it, and what belongs to no file.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    pub rss: u64,
    pub pss: u64,
    pub anonymous: u64,
}

impl Memory {
    /// Of all of these together.
    pub fn of(processes: &[u32]) -> Self {
        let mut out = Self::default();
        for pid in processes {
            let text = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let field = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
            };
            out.rss += field("Rss:");
            out.pss += field("Pss:");
            out.anonymous += field("Anonymous:");
        }
        out
    }

    /// The cells of a row.
    pub fn cells(self) -> [String; 3] {
        [self.rss, self.pss, self.anonymous].map(mib)
    }
}

pub fn mib(kib: u64) -> String {
    let mib = kib as f64 / 1024.0;
    if mib < 100.0 { format!("{mib:.1} MiB") } else { format!("{mib:.0} MiB") }
}
