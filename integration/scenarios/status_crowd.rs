//! `status` where very many are let in, and where it is watched on small screens.

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::{Agent, Installation, PROGRAM};
use crate::configuration::Config;
use crate::firewall::add_elements;
use crate::knocking::knock;
use crate::process::finish;
use crate::topology::{Family, Topology};

const LIMIT: Duration = Duration::from_secs(60);
const CROWD: u32 = 100_000;

/// How many bytes of answers an agent reads from the kernel, about, while something is done.
fn read_from_kernel(agent: &Agent, what: impl FnOnce()) -> u64 {
    let trace = std::env::temp_dir().join(format!("knock-agent-trace-{}", agent.pid()));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=recvfrom,recvmsg", "-e", "signal=none", "-o"]).arg(&trace);
    command.args(["-p", &agent.pid().to_string()]).stdin(Stdio::null());
    let mut strace = crate::process::Background(command.spawn().unwrap());
    let end = Instant::now() + LIMIT;
    let traced = || {
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        status.lines().any(|line| line == format!("TracerPid:\t{}", strace.0.id()))
    };
    while !traced() {
        assert!(Instant::now() < end, "strace does not see the agent");
        sleep(Duration::from_millis(20));
    }
    // All its threads.
    sleep(Duration::from_millis(500));
    what();
    strace.signal(Signal::SIGINT);
    crate::process::wait(&mut strace.0, LIMIT).unwrap();
    let text = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    let results =
        text.lines().filter_map(|line| line.rsplit_once(" = ")?.1.split(' ').next()?.parse::<u64>().ok());
    results.sum()
}

#[test]
fn with_a_hundred_thousand_let_in_status_asks_the_kernel_for_what_it_shows_only() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let crowd: Vec<String> = (0..CROWD).map(|n| Ipv4Addr::from(0x0b00_0000 + n).to_string()).collect();
    add_elements(&net.router, "app_ssh_4", &crowd, 7_200);
    let shown = || home.verb(&net.router, &["status"]).text();
    let end = Instant::now() + Duration::from_secs(300);
    while !shown().contains("the newest of 100,000 (ssh 100,000)") {
        let text = shown();
        let told = text.lines().find(|line| line.contains("the newest of"));
        assert!(Instant::now() < end, "{told:?}\n{}", home.log());
        sleep(Duration::from_secs(1));
    }
    // The newest are first, also by the kernel's word: one that is gone there is not shown.
    home.grant(&net.router, "ssh", Family::V4.client_b(), 300);
    let text = shown();
    let first = text.lines().skip_while(|line| !line.contains("TIME LEFT")).nth(1).unwrap();
    assert!(
        first.contains("203.0.113.3") && first.contains("by operator") | first.contains("root"),
        "{first}"
    );
    assert!(text.lines().count() < 1_100, "{}", text.lines().count());

    // The agent may look at everything again after so many came.
    let looks =
        (0..4).map(|_| read_from_kernel(&agent, || drop(home.verb(&net.router, &["status"]).success())));
    let glance = looks.min().unwrap();
    let mut all = None;
    let everything =
        read_from_kernel(&agent, || all = Some(home.verb(&net.router, &["status", "--json"]).success()));
    // An element takes some 40 bytes or more in a dump, which holds up who knocks: so many are told from memory.
    assert!(glance > 1_000, "what is measured here: {glance}");
    assert!(glance < u64::from(CROWD) * 3, "{glance}");
    assert!(everything < u64::from(CROWD) * 3, "{everything}");
    let all: Value = serde_json::from_slice(&all.unwrap().stdout).unwrap();
    assert_eq!(all["grants"].as_array().unwrap().len(), 100_001, "--json has all of them");
    assert!(all.get("open").is_none());
    let listed = home.verb(&net.router, &["status", "--all"]).success().text();
    assert!(listed.matches("tcp/2222").count() == 100_001, "{}", listed.lines().count());
}

/// Asks for all that stands open, so many at once, and reads nothing of what comes.
const ASK_AND_READ_NOTHING: &str = r#"
import socket, sys, time
all = []
for _ in range(int(sys.argv[2])):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.sendall(b'{"verb":"status"}\n')
    all.append(s)
print("all", flush=True)
time.sleep(300)
"#;

#[test]
fn those_who_ask_for_everything_and_read_nothing_hold_up_neither_knocks_nor_operators() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let crowd: Vec<String> = (0..30_000).map(|n| Ipv4Addr::from(0x0b00_0000 + n).to_string()).collect();
    add_elements(&net.router, "app_ssh_4", &crowd, 7_200);
    let end = Instant::now() + Duration::from_secs(120);
    while !home.verb(&net.router, &["status"]).text().contains("the newest of 30,000") {
        assert!(Instant::now() < end, "{}", home.log());
        sleep(Duration::from_millis(300));
    }
    let mut command = Command::new("python3");
    command.args(["-c", ASK_AND_READ_NOTHING]).arg(home.path("run/control.sock")).arg("40");
    let mut asking = net.router.background({
        command.stdout(Stdio::piped());
        command
    });
    asking.0.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let begun = Instant::now();
    home.verb(&net.router, &["status"]).success();
    home.grant(&net.router, "ssh", Family::V4.client_b(), 300);
    knock(&net.a, Family::V4.router(), "ssh");
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    // Each answer is five megabytes, and there is no room for forty of them.
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    let kilobytes: u64 = resident.unwrap().trim().parse().unwrap();
    assert!(kilobytes < 150_000, "{kilobytes}");
    assert!(asking.is_alive());
}

/// What was printed so far, by a thread that reads it.
fn heard(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&text);
    thread::spawn(move || {
        let mut bytes = [0; 4_096];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    });
    text
}

/// The last whole picture: its lines without what is no text.
fn picture(text: &str) -> Option<Vec<String>> {
    let (before, _) = text.rsplit_once("\u{1b}[J")?;
    let (_, picture) = before.rsplit_once("\u{1b}[H")?;
    let plain = |line: &str| {
        let mut parts = line.trim_end_matches('\r').split('\u{1b}');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |all, part| all + part.split_once(['m', 'K']).map_or("", |(_, rest)| rest))
    };
    Some(picture.lines().map(plain).collect())
}

#[test]
fn a_small_screen_shows_what_fits_whatever_its_size_becomes_and_whoever_answers() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    for n in 1..40 {
        home.grant(&net.router, "ssh", Ipv4Addr::new(198, 51, 100, n), 3_000);
    }
    let (tty, config, run) = (home.path("tty"), home.path("config.yaml"), home.path("run"));
    let line = format!(
        "tty > {}; stty cols 40 rows 16; exec {PROGRAM} status --watch 1 --config {} --runtime-dir {}",
        tty.display(),
        config.display(),
        run.display()
    );
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).env("TERM", "xterm").env("SHELL", "/bin/sh");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut watching = net.router.background(command);
    let text = heard(watching.0.stdout.take().unwrap());
    let wait_for = |what: &str, is_so: &dyn Fn(&[String]) -> bool| {
        let end = Instant::now() + LIMIT;
        text.lock().unwrap().clear();
        loop {
            let found = picture(&text.lock().unwrap());
            if let Some(found) = found.filter(|lines| is_so(lines)) {
                return found;
            }
            assert!(Instant::now() < end, "{what}: {:?}", text.lock().unwrap());
            sleep(Duration::from_millis(100));
        }
    };
    let width = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let small = wait_for("small", &|lines| lines.len() > 3);
    assert!(width(&small) == 40 && small.len() <= 15, "{small:#?}");
    assert!(small.iter().any(|line| line.contains("198.51.100.")), "{small:#?}");
    assert!(small.last().unwrap().contains("more lines"), "{small:#?}");
    // It is made larger.
    let tty = fs::read_to_string(&tty).unwrap();
    finish(
        {
            let mut command = Command::new("stty");
            command.args(["-F", tty.trim(), "cols", "120", "rows", "30"]);
            command
        },
        b"",
        LIMIT,
    )
    .success();
    let large = wait_for("large", &|lines| width(lines) > 60);
    assert!(width(&large) <= 120 && large.len() <= 29, "{large:#?}");
    // The daemon goes and comes.
    agent.kill();
    wait_for("gone", &|lines| {
        lines.iter().any(|line| line.starts_with("BAD") && line.contains("does not run"))
    });
    let _agent = home.start(&net.router);
    wait_for("back", &|lines| lines.iter().any(|line| line.starts_with("ok    daemon")));
    watching.signal(Signal::SIGTERM);
    crate::process::wait(&mut watching.0, LIMIT).unwrap();
}
