//! Real proxies in front of the agent, set up by the files in `integration/proxy` as they are.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, elements, time_left};
use crate::knocking::{Reply, form, parse_reply};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent};
use crate::process::{Background, wait};
use crate::server::in_url;
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

/// The agent's own ports behind the proxy, those of the examples.
pub const BACKEND: [u16; 2] = [8081, 8444];
/// The proxy's ports.
pub const PUBLIC: [u16; 2] = [80, 443];

const READY_LIMIT: Duration = Duration::from_secs(30);

/// The flags of the examples.
const FLAGS: [&str; 8] =
    ["--waf-http-port", "80", "--waf-https-port", "443", "--http-port", "8081", "--https-port", "8444"];

/// A file of `integration/proxy`.
pub fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/proxy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A configuration for a proxy in front, with a service on port 2222 called `ssh`.
pub fn config(more: &[&str]) -> Config {
    let mut lines = vec!["step1_reply: http"];
    lines.extend(more);
    Config::new(&lines).app("ssh", "2222", "tcp", "local", &["duration: 60", "step2_https_duration: 10"])
}

/// An agent behind a proxy.
pub fn installation(config: &Config, more: &[&str]) -> Installation {
    Installation::new(config).flags(&FLAGS).flags(more)
}

/// A running proxy; ended when dropped.
pub struct Proxy {
    folder: TempDir,
    process: Background,
}

impl Proxy {
    #[track_caller]
    pub fn nginx(host: &Namespace, text: &str) -> Self {
        let folder = prepared("nginx.conf", text);
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder.path()).arg("-c").arg(folder.path().join("nginx.conf"));
        command.args(["-e", "stderr", "-g", "daemon off;"]);
        Self::start(host, folder, command)
    }

    #[track_caller]
    pub fn haproxy(host: &Namespace, text: &str) -> Self {
        let folder = prepared("haproxy.cfg", text);
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(folder.path().join("haproxy.cfg"));
        Self::start(host, folder, command)
    }

    #[track_caller]
    pub fn caddy(host: &Namespace, text: &str) -> Self {
        let folder = prepared("Caddyfile", text);
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.path().join("Caddyfile"));
        command.env("HOME", folder.path()).env("XDG_DATA_HOME", folder.path());
        command.current_dir(folder.path());
        Self::start(host, folder, command)
    }

    #[track_caller]
    fn start(host: &Namespace, folder: TempDir, mut command: Command) -> Self {
        let log = File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut proxy = Self { process: host.background(command), folder };
        let end = Instant::now() + READY_LIMIT;
        while !PUBLIC.iter().all(|port| listens(host, *port)) {
            let alive = proxy.process.is_alive();
            assert!(alive && Instant::now() < end, "the proxy did not get ready:\n{}", proxy.log());
            sleep(Duration::from_millis(50));
        }
        proxy
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Killed, nginx would leave its workers behind.
        if self.process.is_alive() {
            self.process.signal(Signal::SIGTERM);
        }
        let _ = wait(&mut self.process.0, Duration::from_secs(5));
    }
}

fn prepared(name: &str, text: &str) -> TempDir {
    let folder = TempDir::new();
    folder.write(name, text);
    let (certificate, key) = crate::agent::certificate();
    folder.write("cert.pem", certificate);
    folder.write("key.pem", key);
    folder.write("both.pem", [&certificate[..], &key[..]].concat());
    folder
}

/// Whether anybody listens on a TCP port, in both families.
fn listens(host: &Namespace, port: u16) -> bool {
    let found = host.run("ss", &["-Htln", &format!("sport = :{port}")]).success().text();
    found.contains(&format!("[::]:{port}")) || found.contains(&format!("*:{port}"))
}

/// Posts by way of the proxy; none where nothing came back.
pub fn post(
    from: &Namespace,
    scheme: &str,
    to: IpAddr,
    path: &str,
    form: &str,
    headers: &[&str],
) -> Option<Reply> {
    let url = format!("{scheme}://{}{path}", in_url(to));
    let mut args =
        vec!["-sS", "-k", "-g", "-i", "--http1.1", "-m", "8", "--connect-timeout", "2", "-d", form];
    for header in headers {
        args.extend(["-H", header]);
    }
    args.push(&url);
    let done = from.run("curl", &args);
    (done.code == Some(0)).then(|| parse_reply(&done.text()))
}

/// The right step 1.
pub fn step1(from: &Namespace, to: IpAddr, headers: &[&str]) -> Option<Reply> {
    post(from, "http", to, STEP1_PATH, &form("ssh", &http_key("ssh")), headers)
}

/// The right step 2.
pub fn step2(from: &Namespace, to: IpAddr, headers: &[&str]) -> Option<Reply> {
    post(from, "https", to, STEP2_PATH, &form("ssh", &https_key("ssh")), headers)
}

/// The status of an answer, 0 where there was none.
pub fn status(reply: &Option<Reply>) -> u16 {
    reply.as_ref().map_or(0, |reply| reply.status)
}

/// Both steps, which must be answered with 200.
#[track_caller]
pub fn knock(from: &Namespace, to: IpAddr) {
    for (step, reply) in [(1, step1(from, to, &[])), (2, step2(from, to, &[]))] {
        assert_eq!(status(&reply), 200, "step {step} from {}: {reply:?}", from.name());
    }
}

/// Stops the test if this address was let to step 2 or to the service.
#[track_caller]
pub fn assert_nothing_for(host: &Namespace, address: IpAddr, what: &str) {
    assert_eq!(admission_left(host, address), None, "step 2 for {address}: {what}");
    assert_eq!(time_left(host, "ssh", address), None, "the service for {address}: {what}");
}

/// Both steps with everything that must not work on the way.
#[track_caller]
pub fn the_whole_story(net: &Topology) {
    for family in Family::BOTH {
        let to = family.router();
        assert_silent(&net.a, to, PUBLIC[1]);
        assert_silent(&net.a, family.router(), 2222);
        let right = form("ssh", &http_key("ssh"));
        // The kernel lets nothing but the path through, as it does without a proxy.
        for (path, form) in [("/", right.clone()), (STEP2_PATH, form("ssh", &https_key("ssh")))] {
            assert_eq!(post(&net.a, "http", to, path, &form, &[]), None, "{path}");
        }
        let wrong = post(&net.a, "http", to, STEP1_PATH, &form("ssh", "not-the-key-of-anything"), &[]);
        assert_eq!(status(&wrong), 403);
        assert_silent(&net.a, to, PUBLIC[1]);
        let first = step1(&net.a, to, &[]).expect("an answer to step 1");
        assert_eq!((first.status, first.body.as_str()), (200, "OK\n"));
        assert!(admission_left(&net.router, family.client_a()).is_some());
        assert_nothing_for(&net.router, family.client_b(), "another client's step 1");
        assert_silent(&net.b, to, PUBLIC[1]);
        let wrong = post(&net.a, "https", to, STEP2_PATH, &form("ssh", "not-the-key-of-anything"), &[]);
        assert_eq!(status(&wrong), 403);
        let missed = post(&net.a, "https", to, STEP1_PATH, &right, &[]);
        assert_eq!(status(&missed), 404);
        assert_nothing_opened(net, family);
        assert_eq!(status(&step2(&net.a, to, &[])), 200);
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
    // Only these four, and neither a proxy nor this host.
    for (set, client) in [("app_ssh_4", "203.0.113.2"), ("app_ssh_6", "2001:db8:1::2")] {
        let found: Vec<String> = elements(&net.router, set).into_iter().map(|e| e.key).collect();
        assert_eq!(found, [client]);
    }
}

#[track_caller]
fn assert_nothing_opened(net: &Topology, family: Family) {
    for client in [family.client_a(), family.client_b()] {
        assert_eq!(time_left(&net.router, "ssh", client), None);
    }
}
