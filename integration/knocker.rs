use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::agent::{Installation, PROGRAM};
use crate::configuration::{STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::knocking::{STEP1_PORT, STEP2_PORT};
use crate::namespace::Namespace;
use crate::process::{Background, Finished};
use crate::temporary::TempDir;

/// A name that leads to the router over both families, for whoever is started through [`Knocker`].
pub const NAME: &str = "gate.test";

const LIMIT: Duration = Duration::from_secs(60);

/// A home folder with profiles and keys, and the program as a client of the agent.
pub struct Knocker {
    home: TempDir,
}

impl Knocker {
    pub fn new() -> Self {
        let home = TempDir::new();
        home.write("hosts", format!("127.0.0.1 localhost\n203.0.113.1 {NAME}\n2001:db8:1::1 {NAME}\n"));
        Self { home }
    }

    pub fn home(&self) -> &TempDir {
        &self.home
    }

    /// Writes the profile `gate` for the app `ssh`, keys in files, with these further lines.
    pub fn profile(self, host: &str, more: &[&str]) -> Self {
        self.with_keys(host, (&http_key("ssh"), &https_key("ssh")), more)
    }

    pub fn with_keys(self, host: &str, keys: (&str, &str), more: &[&str]) -> Self {
        self.home.write("key1", format!("{}\n", keys.0));
        self.home.write("key2", format!("{}\n", keys.1));
        let lines: String = more.iter().map(|line| format!("{line}\n")).collect();
        self.home.write(
            ".config/knock-agent/gate.yaml",
            format!(
                "host: \"{host}\"\nhttp_port: {STEP1_PORT}\nhttps_port: {STEP2_PORT}\nhttp_post_path: {STEP1_PATH}\n\
                 https_post_path: {STEP2_PATH}\napp: ssh\naccess_key_http: {{file: ~/key1}}\n\
                 access_key_https: {{file: ~/key2}}\n{lines}"
            ),
        );
        self
    }

    /// A command line of the program, in this home, where [`NAME`] is known and there is no terminal.
    pub fn command(&self, words: &[&str]) -> Command {
        self.program(&[&[PROGRAM], words].concat())
    }

    /// The same for any program.
    pub fn program(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setsid");
        command.args([
            "-w",
            "unshare",
            "-m",
            "sh",
            "-c",
            "mount --bind \"$HOME/hosts\" /etc/hosts && exec \"$@\"",
            "sh",
        ]);
        command.args(words).env("HOME", self.home.path()).env_remove("XDG_CONFIG_HOME");
        command
    }

    pub fn run(&self, from: &Namespace, words: &[&str]) -> Finished {
        self.feed(from, words, b"")
    }

    pub fn feed(&self, from: &Namespace, words: &[&str], input: &[u8]) -> Finished {
        from.finish(self.command(words), input, LIMIT)
    }

    pub fn start(&self, from: &Namespace, words: &[&str]) -> Background {
        let log = std::fs::File::create(self.home.path().join("log")).unwrap();
        let mut command = self.command(words);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        from.background(command)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

/// The line of a profile that pins the certificate of an installation, as openssl tells it.
pub fn pin(home: &Installation) -> String {
    format!("pin: \"{}\"", fingerprint(&home.path("cert.pem")))
}

fn fingerprint(certificate: &Path) -> String {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(certificate);
    let told = crate::process::finish(command, b"", LIMIT).success().text();
    told.trim().split_once('=').unwrap().1.to_owned()
}

/// Gives an installation a certificate for these names.
pub fn certify(home: &Installation, names: &[&str]) {
    let mut command = Command::new(PROGRAM);
    command.args(["cert", "--force", "--cert"]).arg(home.path("cert.pem"));
    command.arg("--key").arg(home.path("key.pem"));
    for name in names {
        command.args(["--name", name]);
    }
    crate::process::finish(command, b"", LIMIT).success();
}
