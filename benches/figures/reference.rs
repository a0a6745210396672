//! knock-port, the tool whose place this takes, where somebody has it: in the folder that `KNOCK_PORT_DIR` names, run by the
//! Python that `KNOCK_PORT_PYTHON` names.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::gateway::{Home, SERVICE, STEP1, STEP2};
use crate::knocker::dial;
use crate::namespace::Namespace;
use crate::net::{Net, source};
use crate::process::Background;
use crate::temporary::TempDir;

/// What is said in its place where it is missing.
pub const MISSING: &str = "not installed";

/// The reference tool's sources.
pub struct Reference {
    folder: PathBuf,
    python: PathBuf,
}

impl Reference {
    /// None where it is not named, or not there.
    pub fn find() -> Option<Self> {
        let folder = PathBuf::from(std::env::var_os("KNOCK_PORT_DIR")?);
        let python =
            std::env::var_os("KNOCK_PORT_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
        if !folder.join("src/main.py").is_file() {
            eprintln!("KNOCK_PORT_DIR: {} holds no src/main.py", folder.display());
            return None;
        }
        let able = Command::new(&python)
            .args(["-c", "import flask, flask_limiter, flask_wtf, sh, pyotp, yaml"])
            .output();
        if !able.is_ok_and(|output| output.status.success()) {
            eprintln!(
                "KNOCK_PORT_PYTHON: {} lacks what knock-port's requirements.txt names",
                python.display()
            );
            return None;
        }
        Some(Self { folder, python })
    }

    /// Starts it with the same app, keys and certificate; how long until it takes connections.
    pub fn start(&self, net: &Net, home: &Home) -> (Running, Duration) {
        let folder = TempDir::new();
        let (path1, path2) = (STEP1.1, STEP2.1);
        folder.write(
            "config.yaml",
            format!(
                "global:\n  http_post_path: {path1}\n  https_post_path: {path2}\n  step1_2_rate_limit_per_minute: 100000\n  \
                 interface_ext: ext0\n  interface_int: ext0\n  2fa_config_folder: 2fa\n  healthcheck_app_name: healthcheck\n\
                 ssh:\n  port: {SERVICE}\n  protocol: tcp\n  destination: local\n  access_key_http: [first-key-of-ssh]\n  \
                 access_key_https: [second-key-of-ssh]\n  duration: 3600\n  step2_https_duration: 5\n"
            ),
        );
        for name in ["cert.pem", "key.pem"] {
            folder.write(name, home.read(name));
        }
        for name in ["cache", "2fa"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        host_tables(&net.router);
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(&self.python);
        command.arg(self.folder.join("src/main.py")).current_dir(folder.path());
        command.args([
            "-c",
            "config.yaml",
            "--firewall-type",
            "nftables",
            "--cert",
            "cert.pem",
            "--key",
            "key.pem",
        ]);
        command.args(["--http-port", &STEP1.0.to_string(), "--https-port", &STEP2.0.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let begin = Instant::now();
        let mut process = net.router.background(command);
        while !net
            .client
            .enter(|| dial(source(0), STEP1.0, Duration::from_millis(2)).is_ok_and(|s| s.is_some()))
        {
            let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            let patience = begin.elapsed() < Duration::from_secs(30);
            assert!(process.is_alive() && patience, "knock-port did not start:\n{}", log());
        }
        (Running { process, _folder: folder }, begin.elapsed())
    }
}

/// It adds to the chains that iptables makes.
fn host_tables(host: &Namespace) {
    let base = |name: &str, kind: &str, hook: &str, priority: &str| {
        format!("chain {name} {{ type {kind} hook {hook} priority {priority}; }}\n")
    };
    host.nft(&format!(
        "table ip filter {{\n{}{}{}}}\ntable ip nat {{\n{}{}}}\n",
        base("INPUT", "filter", "input", "0"),
        base("FORWARD", "filter", "forward", "0"),
        base("OUTPUT", "filter", "output", "0"),
        base("PREROUTING", "nat", "prerouting", "-100"),
        base("POSTROUTING", "nat", "postrouting", "100"),
    ));
}

/// It runs; killed when dropped.
pub struct Running {
    pub process: Background,
    _folder: TempDir,
}
