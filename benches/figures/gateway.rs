//! A knock-agent in a namespace, as it is installed: its own process, its own files.

use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::namespace::Namespace;
use crate::process::{Background, finish, wait};
use crate::temporary::TempDir;

/// The program that is measured.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_knock-agent");
pub const STEP1: (u16, &str) = (8080, "/stepone1");
pub const STEP2: (u16, &str) = (8443, "/steptwo2");
/// The guarded ports: a TCP service, and a UDP service of the same app.
pub const SERVICE: u16 = 2222;
pub const FORM1: &str = "app=ssh&access_key=first-key-of-ssh";
pub const FORM2: &str = "app=ssh&access_key=second-key-of-ssh";
/// The app's set of IPv4 grants.
pub const GRANTS: &str = "app_ssh_4";
pub const TABLE: &str = "knock_agent";
const READY_LIMIT: Duration = Duration::from_secs(600);

/// The files of an installation.
pub struct Home {
    folder: TempDir,
}

impl Home {
    pub fn new(more: &str) -> Self {
        let folder = TempDir::new();
        let (path1, path2) = (STEP1.1, STEP2.1);
        let config = format!(
            "global:\n  http_post_path: {path1}\n  https_post_path: {path2}\n  interface_ext: ext0\n  \
             step1_2_rate_limit_per_minute: 100000\n{more}ssh:\n  port: {SERVICE}\n  protocol: both\n  \
             destination: local\n  access_key_http: [first-key-of-ssh]\n  access_key_https: [second-key-of-ssh]\n  \
             duration: 3600\n  step2_https_duration: 5\n"
        );
        folder.write("config.yaml", config);
        let mut command = Command::new(PROGRAM);
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        command.arg("cert").arg("--cert").arg(&certificate).arg("--key").arg(&key);
        finish(command, b"", Duration::from_secs(20)).success();
        for name in ["run", "state"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).unwrap()
    }

    fn command(&self, verb: &str) -> Command {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(PROGRAM);
        command.arg(verb).arg("--config").arg(at("config.yaml"));
        command.arg("--runtime-dir").arg(at("run")).arg("--state-dir").arg(at("state"));
        command
    }

    /// Puts the guard in place, without a daemon.
    pub fn guard(&self, host: &Namespace) {
        host.finish(self.command("guard"), b"", Duration::from_secs(60)).success();
    }

    /// Removes everything.
    pub fn teardown(&self, host: &Namespace) {
        let mut command = Command::new(PROGRAM);
        command.arg("teardown").arg("--runtime-dir").arg(self.folder.path().join("run"));
        host.finish(command, b"", Duration::from_secs(60)).success();
    }

    /// Starts the daemon; how long until it says that it is ready.
    pub fn start(&self, host: &Namespace) -> (Gateway, Duration) {
        let notify = self.folder.path().join("notify");
        let _ = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command("run");
        command.arg("--cert").arg(self.folder.path().join("cert.pem"));
        command.arg("--key").arg(self.folder.path().join("key.pem"));
        command.env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let begin = Instant::now();
        let mut process = host.background(command);
        let mut message = [0; 4096];
        loop {
            let heard = socket.recv(&mut message).map(|length| &message[..length]);
            if heard.is_ok_and(|said| said.split(|&b| b == b'\n').any(|line| line == b"READY=1")) {
                return (Gateway(process), begin.elapsed());
            }
            let log = || String::from_utf8_lossy(&self.read("log")).into_owned();
            assert!(process.is_alive() && begin.elapsed() < READY_LIMIT, "it did not get ready:\n{}", log());
        }
    }
}

/// A running daemon, killed when dropped.
pub struct Gateway(pub Background);

impl Gateway {
    /// Its processes: itself and those it started.
    pub fn processes(&self) -> Vec<u32> {
        family(self.0.0.id())
    }

    pub fn stop(mut self) {
        self.0.signal(Signal::SIGTERM);
        assert!(wait(&mut self.0.0, Duration::from_secs(60)).is_some(), "it did not stop");
    }
}

/// A process and all its descendants.
pub fn family(of: u32) -> Vec<u32> {
    let mut out = vec![of];
    let children =
        std::fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten().flat_map(|task| {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        });
    for child in children.collect::<Vec<_>>() {
        out.extend(family(child));
    }
    out
}
