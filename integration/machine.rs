use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;
use crate::process::{Background, Finished};

/// What a router has beside its network: files of its own over those of the system, processes of its own. What is
/// written to `/etc`, `/run` and `/usr/share/nftables.d` is gone with it.
pub struct Machine<'n> {
    host: &'n Namespace,
    keeper: Background,
    inside: u32,
}

/// The files of `/etc` stay readable, changes go to memory.
const SETUP: &str = "set -e\n\
    mount -t tmpfs none /mnt\n\
    mkdir /mnt/etc /mnt/etc-work\n\
    mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/etc-work /etc\n\
    mkdir /mnt/share /mnt/share-work\n\
    mount -t overlay overlay -o lowerdir=/usr/share,upperdir=/mnt/share,workdir=/mnt/share-work /usr/share\n\
    mount -t tmpfs none /run\n\
    mkdir -p /run/dbus /run/lock\n\
    touch /mnt/ready\n\
    exec sleep infinity\n";

impl<'n> Machine<'n> {
    pub fn new(host: &'n Namespace) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", SETUP])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let keeper = host.background(command);
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(inside) = child_of(keeper.0.id())
                && Path::new(&format!("/proc/{inside}/root/mnt/ready")).exists()
            {
                return Self { host, keeper, inside };
            }
            assert!(Instant::now() < end, "no machine within 20 s");
            sleep(Duration::from_millis(20));
        }
    }

    /// Runs a script in it, line by line as an operator types it.
    pub fn sh(&self, script: &str) -> Finished {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.inside)).args(["--mount", "--pid", "bash", "-c", script]);
        self.host.finish(command, b"", Duration::from_secs(60))
    }

    /// Where a file of it is seen from outside.
    pub fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{file}", self.inside))
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // `--kill-child` ends the first process inside, and with it all others there.
        let _ = self.keeper.0.kill();
    }
}

fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
