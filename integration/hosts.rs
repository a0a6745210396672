//! Routers with a firewall of their own: the rulesets in `integration/hosts`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::Config;
use crate::knocking::{assert_step2_opens, knock, step1};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_on_time, assert_silent, dial, when_silent};
use crate::server::{Habit, Server, last_piece};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

/// The file of a host's ruleset.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/hosts").join(name)
}

/// Loads a host's ruleset.
#[track_caller]
pub fn load(host: &Namespace, name: &str) {
    host.run("nft", &["-f", file(name).to_str().unwrap()]).success();
}

/// A VyOS router, as far as nftables goes.
pub struct Vyos {
    version: &'static str,
    state: &'static str,
    folder: TempDir,
}

impl Vyos {
    /// A router of version `14` or `15`, `stateful` or `stateless`, that has booted and has no firewall yet.
    #[track_caller]
    pub fn boot(host: &Namespace, version: &'static str, state: &'static str) -> Self {
        let vyos = Self { version, state, folder: TempDir::new() };
        vyos.commit(host, "boot");
        vyos
    }

    /// Commits a change of the firewall, the nat, ...
    #[track_caller]
    pub fn commit(&self, host: &Namespace, what: &str) {
        let mut command = Command::new(file("vyos/commit"));
        command.args([self.version, what, self.state]).env("STATE", self.folder.path());
        host.finish(command, b"", Duration::from_secs(30)).success();
    }

    /// Forgets what it has loaded, as a reboot does; `nft flush ruleset` makes it necessary.
    pub fn forget(&self) {
        for name in ["filter", "nat", "conntrack"] {
            let _ = std::fs::remove_file(self.folder.path().join(name));
        }
    }
}

/// The rules of ours in chains of the host, each as `<family> <table> <chain>: <place> <rule>`; the place counts the
/// rules before it.
pub fn our_rules(host: &Namespace) -> Vec<String> {
    let listing = host.run("nft", &["-s", "list", "ruleset"]).success().text();
    let (mut table, mut chain, mut place) = (String::new(), String::new(), 0);
    let mut found = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {").to_owned();
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {").to_owned();
            place = 0;
        } else if line.contains("comment \"ka:host-") {
            found.push(format!("{table} {chain}: {place} {line}"));
            place += 1;
        } else if !line.starts_with("type ") {
            place += 1;
        }
    }
    found
}

/// The chains with a rule of ours, `<family> <table> <chain>`, once for each rule.
pub fn our_chains(host: &Namespace) -> Vec<String> {
    let chain = |rule: String| rule.split(':').next().unwrap_or_default().to_owned();
    our_rules(host).into_iter().map(chain).collect()
}

/// Services here, and on the LAN where the router tracks connections, for [`assert_flow`].
pub fn config() -> Config {
    let more = ["duration: 8"];
    Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &more)
        .app("lan4", "2223", "tcp", "10.0.0.5:22", &more)
        .app("lan6", "2223", "tcp", "\"[fd00:5::5]:22\"", &more)
        .app("push", "2224", "tcp", "local", &more)
        .app("lpush4", "2225", "tcp", "10.0.0.5:23", &more)
        .app("lpush6", "2225", "tcp", "\"[fd00:5::5]:23\"", &more)
}

/// Closed to all; both steps open to one client; closed again on time.
#[track_caller]
pub fn assert_flow(net: &Topology, lan: bool) {
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    for (family, app) in [(Family::V4, "lan4"), (Family::V6, "lan6")] {
        let to = family.router();
        assert_silent(&net.a, to, 2222);
        step1(&net.a, to, "ssh");
        assert_step2_opens(&net.a, to, "ssh");
        let mut due = vec![(2222, Instant::now() + Duration::from_secs(8))];
        assert_echoes(&net.a, to, 2222);
        assert_silent(&net.b, to, 2222);
        if lan {
            assert_silent(&net.b, to, 2223);
            knock(&net.a, to, app);
            due.push((2223, Instant::now() + Duration::from_secs(8)));
            assert_echoes(&net.a, to, 2223);
            assert_silent(&net.b, to, 2223);
        }
        for (port, due) in due {
            assert_on_time(when_silent(&net.a, to, port, due + Duration::from_secs(3)), due);
        }
    }
}

/// A stream that the service pushes ends with its grant.
#[track_caller]
pub fn assert_stream_cut(net: &Topology, home: &Installation, lan: bool) {
    let _services = [Server::tcp(&net.router, 2224, Habit::Push), Server::tcp(&net.lan, 23, Habit::Push)];
    for (family, app) in [(Family::V4, "lpush4"), (Family::V6, "lpush6")] {
        for (app, port) in [("push", 2224), (app, 2225)].into_iter().take(if lan { 2 } else { 1 }) {
            home.grant(&net.router, app, family.client_a(), 4);
            let due = Instant::now() + Duration::from_secs(4);
            let mut stream = dial(&net.a, (family.router(), port).into(), Duration::from_secs(3)).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let end = due + Duration::from_secs(3);
            let last = last_piece(|piece| std::io::Read::read(&mut stream, piece), end);
            assert_on_time(last.expect("a stream"), due);
        }
    }
}
