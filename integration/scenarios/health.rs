//! `knock-agent health`, the watchdog, and the name by which monitors ask.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::{Agent, Installation};
use crate::backend::Backend;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH};
use crate::firewall::elements;
use crate::knocking::{STEP1_PORT, form, post_step2};
use crate::namespace::Namespace;
use crate::probe::assert_silent;
use crate::process::Finished;
use crate::server::{Habit, Server};
use crate::temporary::Disk;
use crate::topology::{Family, Topology};

/// The parts that are told to be wrong.
#[track_caller]
fn parts(done: &Finished) -> Vec<String> {
    let told: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    assert_eq!(told["version"], 1);
    let problems = told["problems"].as_array().unwrap();
    assert_eq!(told["healthy"], problems.is_empty());
    problems.iter().map(|problem| problem["part"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_ill(home: &Installation, host: &Namespace, code: i32, wanted: &[&str]) {
    let done = home.check(host, &["health", "--json"]).exits(code);
    assert_eq!(parts(&done), wanted, "{done:?}");
    let lines = home.check(host, &["health"]).exits(code).text();
    if wanted.is_empty() {
        assert!(lines.starts_with("ok: ") && lines.lines().count() == 1, "{lines}");
        return;
    }
    let begun: Vec<&str> = lines.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(begun, wanted, "a line for each: {lines}");
}

#[test]
fn health_is_good_with_the_daemon_and_names_each_thing_that_is_wrong() {
    let net = Topology::new();
    let config =
        Config::new(&[]).app("ssh", "2222", "tcp", "local", &[]).app("web", "80", "tcp", "local", &[]);
    let home = Installation::new(&config);
    assert_ill(&home, &net.router, 1, &["guard", "daemon"]);
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
    assert_ill(&home, &net.router, 0, &[]);

    // What the configuration wants is not what is in force.
    home.rewrite_config(Config::ssh(&[]).text());
    assert_ill(&home, &net.router, 1, &["rules", "configuration"]);
    home.rewrite_config("global: {interface_ext: 7}\n");
    assert_ill(&home, &net.router, 78, &["configuration"]);
    let one = home.check(&net.router, &["health"]).exits(78).text();
    assert!(one.contains("; fix: "), "{one}");
    agent.reload();
    home.rewrite_config(config.text());
    assert_ill(&home, &net.router, 1, &["configuration"]);
    agent.reload();
    assert_ill(&home, &net.router, 0, &[]);

    // The host drops what is let in.
    net.router.nft(
        "table inet host {\n chain input {\n type filter hook input priority 0; policy drop;\n iifname lo accept\n }\n}\n",
    );
    assert_ill(&home, &net.router, 1, &["host"]);
    let shown = home.verb(&net.router, &["status"]).success().text();
    let host = shown.lines().find(|line| line.contains("host-drops-by-default"));
    assert!(host.is_some_and(|line| line.starts_with("BAD ")), "{shown}");
    net.router.run("nft", &["delete", "table", "inet", "host"]).success();

    // A certificate that ends within a day.
    let (cert, key) = (home.path("cert.pem"), home.path("key.pem"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let good = fs::read(cert).unwrap();
    net.router
        .run(crate::agent::PROGRAM, &["cert", "--cert", cert, "--key", key, "--days", "1", "--force"])
        .success();
    assert_ill(&home, &net.router, 1, &["certificate"]);
    fs::write(cert, good).unwrap();

    // Rules of somebody else's in our table, while nobody puts them right.
    agent.kill();
    assert_ill(&home, &net.router, 1, &["daemon"]);
    net.router.run("nft", &["add", "rule", "inet", "knock_agent", "gate", "accept"]).success();
    assert_ill(&home, &net.router, 1, &["rules", "daemon"]);
    net.router.run("nft", &["delete", "table", "inet", "knock_agent"]).success();
    assert_ill(&home, &net.router, 1, &["guard", "daemon"]);
}

#[test]
fn ports_that_nobody_says_are_those_of_the_daemon() {
    let proxy =
        ["--waf-http-port", "80", "--waf-https-port", "443", "--waf-trusted-ips", "10.0.0.5,fd00::/64"];
    let own = ["--http-port", "8081", "--https-port", "8444"];
    for (flags, more) in [
        (["--http-port", "80", "--https-port", "443"].as_slice(), ["step1_reply: silent"]),
        (&[own.as_slice(), &proxy].concat(), ["step1_reply: http"]),
    ] {
        let net = Topology::new();
        let home = Installation::new(&Config::new(&more).app("ssh", "2222", "tcp", "local", &[]));
        let firewall = Backend::current().flags();
        let (config, run) = (home.path("config.yaml"), home.path("run"));
        let health = |more: &[&str], code: i32| {
            let mut words = vec!["health", "--json", "--config", config.to_str().unwrap()];
            words.extend(["--runtime-dir", run.to_str().unwrap()]);
            let words = [words.as_slice(), firewall, more].concat();
            parts(&net.router.run(crate::agent::PROGRAM, &words).exits(code))
        };
        let home = home.flags(flags);
        let agent = home.start(&net.router);
        assert!(health(&[], 0).is_empty());
        assert!(health(flags, 0).is_empty());
        // What is said counts, be it what is usual.
        assert_eq!(health(&["--http-port", "8080"], 1), ["rules"]);
        agent.kill();
        assert_eq!(health(&[], 1), ["rules", "daemon"]);
        assert_eq!(health(flags, 1), ["daemon"]);
    }
}

/// Answers each caller with the next line.
const OTHER_DAEMON: &str = "import socket,sys\ns=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(9); print('on',flush=True)\nfor line in sys.argv[2:]:\n c,_=s.accept(); c.recv(9999); c.sendall((line+'\\n').encode()); c.close()";

#[test]
fn a_daemon_of_another_version_a_broken_configuration_and_a_missing_permission_are_told_apart() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[])).for_nobody();
    home.guard(&net.router).success();
    let answers = [
        r#"{"reply":"health","problems":[{"part":"antenna","message":"bent","more":1}],"more":{}}"#,
        r#"{"reply":"status","status":{"version":1,"backend":"nftables","grants":[],"moods":["good"]},"more":1}"#,
        // One of before, which is asked again for everything.
        r#"{"reply":"failed","failure":"request","message":"the request cannot be read: unknown variant"}"#,
        r#"{"reply":"status","status":{"version":1,"backend":"nftables","grants":[]}}"#,
        r#"{"reply":"sung","verse":1}"#,
    ];
    let mut command = std::process::Command::new("python3");
    command.args(["-c", OTHER_DAEMON]).arg(home.path("run/control.sock")).args(answers);
    command.stdout(std::process::Stdio::piped());
    let mut other = net.router.background(command);
    std::io::Read::read_exact(other.0.stdout.as_mut().unwrap(), &mut [0; 2]).unwrap();
    let ill = home.check(&net.router, &["health", "--json"]).exits(1);
    assert_eq!(parts(&ill), ["other"], "{ill:?}");
    for _ in 0..2 {
        let text = home.verb(&net.router, &["status"]).success().text();
        assert!(text.contains("nobody is let in"), "{text}");
    }
    let told = home.verb(&net.router, &["status"]).exits(69).stderr;
    assert!(told.contains("another version"), "{told}");
    drop(other);

    // Nobody answers any more: the kernel tells, whatever the configuration is.
    home.rewrite_config("global: nonsense\n");
    let text = home.verb(&net.router, &["status"]).success().text();
    assert!(text.contains("does not run") && text.contains("nobody is let in"), "{text}");
    let text = home.check(&net.router, &["health"]).exits(78).text();
    assert!(text.contains("configuration: ") && text.contains("daemon: "), "{text}");
    let (program, config, run) = (home.path("knock-agent"), home.path("config.yaml"), home.path("run"));
    let mut words =
        vec!["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
    words.extend([program.to_str().unwrap(), "status", "--config", config.to_str().unwrap()]);
    words.extend(["--runtime-dir", run.to_str().unwrap()]);
    let told = net.router.run("setpriv", &words).exits(77).stderr;
    assert!(
        told.contains("error: ") && told.to_lowercase().contains("permission") | told.contains("root"),
        "{told}"
    );
}

#[test]
fn health_without_permission_says_so() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[])).for_nobody();
    let _agent = home.start(&net.router);
    let program = home.path("knock-agent");
    let config = home.path("config.yaml");
    let run = home.path("run");
    let done = net.router.run(
        "setpriv",
        &[
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            program.to_str().unwrap(),
            "health",
            "--config",
            config.to_str().unwrap(),
            "--runtime-dir",
            run.to_str().unwrap(),
            "--json",
        ],
    );
    let done = done.exits(77);
    assert!(parts(&done).contains(&"kernel".to_owned()), "{done:?}");
}

/// What the daemon tells systemd, of which only feedings count.
struct Watchdog(UnixDatagram);

impl Watchdog {
    /// Forgets what was told before, and says whether it is fed within this time.
    fn is_fed_within(&self, time: Duration) -> bool {
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut [0; 4_096]).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.0.set_read_timeout(Some(left)).unwrap();
            let mut message = [0; 4_096];
            if self.0.recv(&mut message).is_ok_and(|length| &message[..length] == b"WATCHDOG=1") {
                return true;
            }
        }
        false
    }
}

/// Holds one thread of a process as a debugger does, for so long.
const HOLD: &str = r#"
import ctypes, os, sys, time
pid, seconds = sys.argv[1], float(sys.argv[2])
names = {t: open(f"/proc/{pid}/task/{t}/comm").read().strip() for t in os.listdir(f"/proc/{pid}/task")}
thread = next(int(t) for t, name in names.items() if name == "enforcer")
libc = ctypes.CDLL(None, use_errno=True)
for request in (0x4206, 0x4207):
    if libc.ptrace(request, thread, None, None) != 0:
        sys.exit("ptrace: " + os.strerror(ctypes.get_errno()))
os.waitpid(thread, 0x40000000)
print("held", flush=True)
time.sleep(seconds)
"#;

#[test]
fn the_watchdog_is_fed_only_while_the_enforcer_itself_answers() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[])).variable("WATCHDOG_USEC", "2000000");
    let agent = home.start(&net.router);
    let (agent, watchdog) = taken_apart(agent);
    let (pause, long) = (Duration::from_secs(3), Duration::from_secs(30));
    assert!(watchdog.is_fed_within(long));

    // One thread is held; the timer, and everything else, goes on.
    let mut hold = std::process::Command::new("python3");
    hold.args(["-c", HOLD, &agent.pid().to_string(), "60"]).stdout(std::process::Stdio::piped());
    let mut holder = net.router.background(hold);
    let mut said = [0; 4];
    std::io::Read::read_exact(holder.0.stdout.as_mut().unwrap(), &mut said).unwrap();
    // What was asked just before is still answered for.
    let _ = watchdog.is_fed_within(Duration::from_secs(1));
    assert!(!watchdog.is_fed_within(pause), "the enforcer is held, and the watchdog is fed");
    drop(holder);
    assert!(watchdog.is_fed_within(long), "it goes on");

    agent.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(200));
    assert!(!watchdog.is_fed_within(pause), "nothing runs, and the watchdog is fed");
    agent.signal(Signal::SIGCONT);
    assert!(watchdog.is_fed_within(long));
    assert!(home.log().contains("the watchdog is not fed"), "{}", home.log());
}

fn taken_apart(agent: Agent) -> (Agent, Watchdog) {
    let socket = agent.notifications();
    (agent, Watchdog(socket))
}

#[test]
fn a_monitor_is_answered_without_a_trace_and_opens_nothing() {
    let net = Topology::new();
    let config = Config::new(&[
        "step1_reply: http",
        "healthcheck_app_name: monitor",
        "step1_2_rate_limit_per_minute: 600",
    ])
    .app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    let url = format!("http://{to}:{STEP1_PORT}{STEP1_PATH}");
    let mut before = None;
    for _ in 0..10 {
        let post = ["-sS", "-i", "-m", "10", "-d", &form("monitor", "whatever-it-is"), &url];
        let answer = net.a.run("curl", &post).success().text();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // What it says at its start may come a moment after it is ready.
        before.get_or_insert_with(|| home.log());
    }
    assert_eq!(Some(home.log()), before, "nothing is logged");
    assert!(!home.log().contains("monitor"));
    // What cannot be a key is not well formed.
    for none in ["", "whatever", &"x".repeat(51)] {
        let post = ["-sS", "-i", "-m", "10", "-d", &form("monitor", none), &url];
        let answer = net.a.run("curl", &post).success().text();
        assert!(answer.starts_with("HTTP/1.1 400"), "{none}: {answer}");
    }
    for set in ["step2_4", "app_ssh_4"] {
        assert!(elements(&net.router, set).is_empty(), "{set}");
    }
    assert!(post_step2(&net.a, to, STEP2_PATH, &form("monitor", "whatever-it-is"), &[]).is_none());
    home.check(&net.router, &["health"]).success();
}

#[test]
fn a_plan_that_the_disk_would_not_take_is_told_and_kept_as_soon_as_it_does() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let disk = Disk::over(home.path("state"));
    let agent = home.start(&net.router);
    assert_ill(&home, &net.router, 0, &[]);
    disk.fill();
    let more = Config::ssh(&[]).app("web", "3333", "tcp", "local", &[]);
    home.rewrite_config(more.text());
    agent.reload();
    assert_ill(&home, &net.router, 1, &["last-good-plan"]);
    let shown = home.verb(&net.router, &["status"]).success().text();
    assert!(shown.lines().any(|line| line.starts_with("BAD   last plan")), "{shown}");
    disk.free();
    let end = Instant::now() + Duration::from_secs(70);
    while home.check(&net.router, &["health"]).code != Some(0) {
        assert!(Instant::now() < end, "it is not tried again: {}", home.log());
        thread::sleep(Duration::from_secs(1));
    }
    // A reboot, with a typo in the configuration.
    agent.kill();
    net.router.run("nft", &["delete", "table", "inet", "knock_agent"]).success();
    let _service = Server::tcp(&net.router, 3333, Habit::Echo);
    home.rewrite_config("bad: [\n");
    home.guard(&net.router).success();
    assert_silent(&net.a, Family::V4.router(), 3333);
}

#[test]
fn a_program_whose_file_is_called_otherwise_knows_its_own_ports() {
    let net = Topology::new();
    let other_name = [
        "sh",
        "-c",
        "d=$(mktemp -d) && ln -s \"$0\" \"$d/knock-agent-0.2\" && exec \"$d/knock-agent-0.2\" \"$@\"",
    ];
    let home = Installation::new(&Config::ssh(&[])).wrapper(&other_name);
    let _agent = home.start(&net.router);
    let found = crate::audit::findings(&home, &net.router);
    assert!(!found.iter().any(|found| found.code == "step-port-taken"), "{found:#?}");
    home.check(&net.router, &["health"]).success();
}
