//! The filter and the jail that are shipped for fail2ban, read by fail2ban itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::limits::fail;
use crate::agent::Installation;
use crate::configuration::Config;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, Reach, assert_echoes, tcp};
use crate::process::{Background, Finished, finish, wait};
use crate::server::{Habit, Server};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

fn installation() -> Installation {
    let global = ["lockout: {after: 2, first: 1m, longest: 1h}"];
    Installation::new(&Config::new(&global).app("ssh", "2222", "tcp", "local", &[]))
}

/// A file of the package.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/fail2ban").join(name)
}

/// The addresses that fail2ban finds in a log.
fn found(log: &Path, mode: &str) -> Vec<String> {
    let filter = shipped("filter.d/knock-agent.conf");
    let mut command = Command::new("fail2ban-regex");
    command.args(["-o", "<ip>"]).arg(log).arg(format!("{}[mode={mode}]", filter.display()));
    let done = finish(command, b"", Duration::from_secs(60));
    done.text().lines().map(str::to_owned).collect()
}

#[test]
fn fail2ban_finds_those_who_are_locked_out_in_a_file_and_in_the_journal() {
    let net = Topology::new();
    let [a4, a6, b4] = [Family::V4.client_a(), Family::V6.client_a(), Family::V4.client_b()];
    for (journal, format) in [(false, "text"), (true, "text"), (false, "json"), (true, "json")] {
        let mut home = installation().flags(&["--log-format", format]);
        if journal {
            home = home.variable("JOURNAL_STREAM", "1:1");
        }
        let _agent = home.start(&net.router);
        fail(&net.a, Family::V4.router(), 3);
        fail(&net.a, Family::V6.router(), 2);
        fail(&net.b, Family::V4.router(), 1);
        let log = home.path("agent.log");
        if journal {
            let line = |line: &str| format!("Nov 21 09:00:00 gate knock-agent[77]: {line}\n");
            home.folder().write("journal.log", home.log().lines().map(line).collect::<String>());
        }
        let log = if journal { home.path("journal.log") } else { log };
        assert_eq!(found(&log, "lockout"), [a4, a6].map(|a| a.to_string()), "{}", home.log());
        let guesses = [a4, a4, a6, a6, b4].map(|a| a.to_string());
        assert_eq!(found(&log, "aggressive"), guesses, "{}", home.log());
    }
}

/// fail2ban with its own files, ours as they are shipped, and nothing of this host's state.
struct Fail2ban {
    folder: TempDir,
    server: Option<Background>,
}

impl Fail2ban {
    /// `local` is what the operator writes into `jail.d/knock-agent.local`.
    fn new(local: &str) -> Self {
        let folder = TempDir::new();
        let copied = Command::new("cp").arg("-r").arg("/etc/fail2ban/.").arg(folder.path()).status().unwrap();
        assert!(copied.success());
        let jails = folder.path().join("jail.d");
        fs::remove_dir_all(&jails).unwrap();
        fs::create_dir(&jails).unwrap();
        for name in ["filter.d/knock-agent.conf", "jail.d/knock-agent.conf"] {
            fs::copy(shipped(name), folder.path().join(name)).unwrap();
        }
        folder.write("jail.d/knock-agent.local", local);
        folder.write("fail2ban.local", "[Definition]\ndbfile = :memory:\n");
        Self { folder, server: None }
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        let place = |name: &str| self.folder.path().join(name);
        command.arg("-c").arg(self.folder.path()).arg("-s").arg(place("sock")).arg("-p").arg(place("pid"));
        command.arg("--logtarget").arg(place("log")).args(words);
        command
    }

    fn client(&self, host: &Namespace, words: &[&str]) -> Finished {
        host.finish(self.command("fail2ban-client", words), b"", Duration::from_secs(60))
    }

    fn start(&mut self, host: &Namespace) {
        let mut command = self.command("fail2ban-server", &["-f", "start"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(host.background(command));
        let end = Instant::now() + Duration::from_secs(60);
        while self.client(host, &["status", "knock-agent"]).code != Some(0) {
            assert!(Instant::now() < end, "fail2ban does not start\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Fail2ban {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            server.signal(nix::sys::signal::Signal::SIGTERM);
            let _ = wait(&mut server.0, Duration::from_secs(20));
        }
    }
}

#[test]
fn the_shipped_jail_bans_who_is_locked_out_from_every_port() {
    let net = Topology::new();
    let to = Family::V4.router();
    let _other = Server::tcp(&net.router, 3333, Habit::Echo);
    let home = installation();
    let _agent = home.start(&net.router);
    // There is no journal here; the rest is the jail's own.
    let log = home.path("agent.log");
    let local = format!("[knock-agent]\nenabled = true\nbackend = polling\nlogpath = {}\n", log.display());
    let mut fail2ban = Fail2ban::new(&local);
    fail2ban.start(&net.router);
    assert_echoes(&net.a, to, 3333);
    fail(&net.a, to, 2);
    fail(&net.a, Family::V6.router(), 2);
    fail(&net.b, to, 1);
    let end = Instant::now() + Duration::from_secs(60);
    let banned = |client: &str| {
        let told = fail2ban.client(&net.router, &["get", "knock-agent", "banned"]).success().text();
        told.contains(&format!("'{client}'"))
    };
    for client in [Family::V4.client_a(), Family::V6.client_a()] {
        while !banned(&client.to_string()) {
            assert!(Instant::now() < end, "{client} is not banned\n{}\n{}", fail2ban.log(), home.log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    for family in Family::BOTH {
        while tcp(&net.a, (family.router(), 3333).into(), GENEROUS) != Reach::Refused {
            assert!(Instant::now() < end, "a ban that changes nothing\n{}", fail2ban.log());
        }
        assert_echoes(&net.b, family.router(), 3333);
    }
    assert!(!banned("203.0.113.3"));
    fail2ban.client(&net.router, &["unban", "--all"]).success();
    assert_echoes(&net.a, to, 3333);
}

#[test]
fn the_shipped_jail_is_understood_as_it_is_and_off_until_it_is_wanted() {
    let host = Namespace::new("fail2ban");
    let off = Fail2ban::new("").client(&host, &["-d"]).success().text();
    assert!(!off.contains("knock-agent"), "{off}");
    let on = Fail2ban::new("[knock-agent]\nenabled = true\n").client(&host, &["-d"]).success();
    let told = on.text();
    for part in ["'systemd'", "_SYSTEMD_UNIT=knock-agent.service", "'maxretry', 1]", "nftables"] {
        assert!(told.contains(part), "{part}: {told}\n{}", on.stderr);
    }
}
