//! What the demonstration leaves behind.

use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::PROGRAM;
use crate::front::child_of;
use crate::namespace::Namespace;
use crate::temporary::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_demonstration_that_is_killed_leaves_no_daemon() {
    let host = Namespace::new("demo");
    let folder = TempDir::new();
    let mut command = std::process::Command::new(PROGRAM);
    command.arg("demo").env("TMPDIR", folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let demo = host.background(command);
    let end = Instant::now() + LIMIT;
    let [daemon, launcher] = loop {
        let daemon = child_of(demo.0.id(), "run");
        let launcher = daemon.and_then(|pid| child_of(pid, "start-others"));
        if let (Some(daemon), Some(launcher)) = (daemon, launcher) {
            break [daemon, launcher];
        }
        assert!(Instant::now() < end, "the demonstration starts no daemon");
        sleep(Duration::from_millis(10));
    };
    demo.signal(Signal::SIGKILL);
    for pid in [daemon, launcher] {
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < end, "{pid} is left");
            sleep(Duration::from_millis(20));
        }
    }
}
