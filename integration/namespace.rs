use std::fs::File;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::process::{Background, Finished, finish};
use crate::temporary::unique;

/// `ip netns add` prepares `/run/netns` the first time; two at once disturb each other.
static ADDING: Mutex<()> = Mutex::new(());

const LIMIT: Duration = Duration::from_secs(30);

/// A network namespace of this test, removed when dropped.
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    /// Makes one with `lo` up and without duplicate address detection, so that addresses work at once.
    pub fn new(role: &str) -> Self {
        crate::requirements::demand();
        let name = format!("ka{}-{}-{role}", std::process::id(), unique());
        {
            let _one_at_a_time = ADDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut add = Command::new("ip");
            add.args(["netns", "add", &name]);
            finish(add, b"", LIMIT).success();
        }
        let handle = File::open(format!("/run/netns/{name}")).unwrap();
        let namespace = Self { name, handle };
        for family in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{family}/accept_dad"), "0");
        }
        namespace.run("ip", &["link", "set", "lo", "up"]).success();
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there, and processes started there, belong
    /// to the namespace wherever they are used later.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{name}");
        self.enter(|| std::fs::write(&path, value)).unwrap_or_else(|e| panic!("cannot write {path}: {e}"));
    }

    /// Runs a command to its end, at most 30 s.
    pub fn run(&self, program: &str, args: &[&str]) -> Finished {
        self.feed(program, args, b"")
    }

    /// Runs a command to its end, at most 30 s, with this on its standard input.
    pub fn feed(&self, program: &str, args: &[&str], input: &[u8]) -> Finished {
        let mut command = Command::new(program);
        command.args(args);
        self.finish(command, input, LIMIT)
    }

    pub fn finish(&self, command: Command, input: &[u8], limit: Duration) -> Finished {
        self.enter(|| finish(command, input, limit))
    }

    /// Starts a command that is killed when the test ends.
    pub fn background(&self, mut command: Command) -> Background {
        let shown = format!("{command:?}");
        let child = self.enter(|| command.spawn());
        Background(child.unwrap_or_else(|e| panic!("cannot start {shown}: {e}")))
    }

    /// Loads rules with `nft -f`.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        self.feed("nft", &["-f", "-"], rules.as_bytes()).success();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
