//! Has system calls of a running agent fail, as a kernel does that is out of something.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::namespace::Namespace;
use crate::process::Background;
use crate::usage::family;

const LIMIT: Duration = Duration::from_secs(60);

/// Until it is dropped, has calls of whoever talks to the kernel's firewall fail as strace's `inject` says, such as
/// `sendmsg:error=ENOBUFS:when=2`.
pub fn tamper(host: &Namespace, agent: &Agent, inject: &str) -> Background {
    let calls = inject.split(':').next().unwrap();
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={inject}")]);
    let enforcers: Vec<u32> = family(agent.pid()).into_iter().flat_map(enforcers).collect();
    assert!(!enforcers.is_empty(), "the agent has no thread that is called enforcer");
    for task in &enforcers {
        command.arg("-p").arg(task.to_string());
    }
    let tracing = host.background({
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    });
    let end = Instant::now() + LIMIT;
    while enforcers.iter().any(|&task| is_untraced(task)) {
        assert!(Instant::now() < end, "strace does not get hold of the agent");
        sleep(Duration::from_millis(2));
    }
    tracing
}

/// The threads of a process that are called so.
fn enforcers(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let named = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "enforcer")
    });
    named.map(|task| task.file_name().to_str().unwrap().parse().unwrap()).collect()
}

fn is_untraced(task: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{task}/status"));
    status.is_ok_and(|text| text.contains("TracerPid:\t0\n"))
}
