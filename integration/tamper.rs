//! Has an agent's talk with the kernel fail, and its clock jump as that of a host that slept, by a library that is loaded
//! into it. strace cannot do that: it replaces a call that is to fail by one that the agent's filter of calls kills for.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;

use crate::agent::Installation;
use crate::process::finish;
use crate::temporary::TempDir;

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// A message to the kernel, which has no room for it: nothing is carried out.
    Message,
    /// What the kernel says: it may have carried out what it was told.
    Answer,
}

/// What the library in an agent is told.
pub struct Tamper(File);

impl Tamper {
    /// Has an installation's agent start with the library.
    pub fn with(home: Installation) -> (Installation, Self) {
        let path = home.folder().write("orders", [0; 48]);
        let orders = File::options().write(true).read(true).open(&path).unwrap();
        let home = home
            .variable("LD_PRELOAD", library().to_str().unwrap())
            .variable("KNOCK_AGENT_TEST_ORDERS", path.to_str().unwrap());
        (home, Self(orders))
    }

    /// Has the host sleep, as far as the agent can see.
    pub fn sleep(&self, time: Duration) {
        let slept = self.get(0) + i64::try_from(time.as_secs()).unwrap();
        self.put(0, slept);
    }

    /// Has the agent's calendar be so many seconds behind.
    pub fn behind(&self, seconds: i64) {
        self.put(5, -seconds);
    }

    /// Has the `nth` message or answer from now on fail.
    pub fn fail(&self, what: Failing, nth: i64) {
        let (at, errno) = match what {
            Failing::Message => (1, Errno::ENOBUFS),
            Failing::Answer => (3, Errno::ENOMEM),
        };
        self.put(at + 1, errno as i64);
        self.put(at, nth);
    }

    /// Nothing fails any more; whether something did.
    pub fn stop(&self) -> bool {
        let failed = self.get(1) <= 0 && self.get(3) <= 0;
        self.put(1, 0);
        self.put(3, 0);
        failed
    }

    fn put(&self, at: u64, value: i64) {
        self.0.write_all_at(&value.to_ne_bytes(), at * 8).unwrap();
    }

    fn get(&self, at: u64) -> i64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at * 8).unwrap();
        i64::from_ne_bytes(bytes)
    }
}

/// The library, made once.
fn library() -> &'static PathBuf {
    static MADE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let folder = TempDir::new();
        let source = folder.write("tamper.c", include_str!("lib/tamper.c"));
        let path = folder.path().join("tamper.so");
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&path).arg(source).arg("-ldl");
        finish(command, b"", Duration::from_secs(60)).success();
        assert!(fs::metadata(&path).is_ok());
        (folder, path)
    });
    path
}
