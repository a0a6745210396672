//! What of knocks is written into a log.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::Config;
use crate::knocks::{knock_at, knock_from_port, once};
use crate::probe::{assert_echoes, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const TO: Family = Family::V4;
/// Whether the kernel's log hears of other network namespaces than the first.
const ALL: &str = "/proc/sys/net/netfilter/nf_log_all_netns";

/// The kernel's own log from now on.
struct KernelLog(File);

impl KernelLog {
    fn open() -> Self {
        fs::write(ALL, "1").unwrap();
        let mut file =
            File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        Self(file)
    }

    /// The lines of the guard, by kind, as protocol, source and port.
    fn read(&mut self) -> BTreeMap<String, Vec<String>> {
        let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut record = [0; 8192];
        loop {
            let length = match self.0.read(&mut record) {
                Ok(length) => length,
                // Overwritten before it was read.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => continue,
                Err(_) => return out,
            };
            let text = String::from_utf8_lossy(&record[..length]);
            let Some((_, rest)) = text.split_once(";knock-agent ") else { continue };
            let (kind, packet) = rest.split_once(": ").unwrap();
            let field = |name: &str| {
                let word = packet.split_whitespace().find_map(|word| word.strip_prefix(name));
                word.unwrap_or_default().to_owned()
            };
            assert_eq!(field("IN="), "ext0", "{text}");
            let told = format!("{} {} {}", field("PROTO="), field("SRC="), field("DPT="));
            out.entry(kind.to_owned()).or_default().push(told);
        }
    }
}

#[test]
fn what_is_asked_for_is_written_into_the_kernel_s_log_and_no_more_than_it_can_bear() {
    let net = Topology::new();
    let _services =
        [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.router, 2223, Habit::Echo)];
    let config = |global: &[&str]| {
        Config::new(global).app(
            "ssh",
            "[2222, 2223]",
            "tcp",
            "local",
            &["duration: 600", "sequence: {knocks: [1234, udp/5678]}"],
        )
    };
    let home = Installation::new(&config(&["log_knocks: [accepted, ignored, invalid, transient]"]));
    let agent = home.start(&net.router);
    let mut log = KernelLog::open();
    let to = TO.router();
    knock_from_port(&net.a, 40_001, to, "1234");
    knock_from_port(&net.a, 40_001, to, "1234");
    knock_at(&net.a, to, "udp/5678");
    assert_echoes(&net.a, to, 2222);
    knock_at(&net.b, to, "udp/5678");
    assert_silent(&net.b, to, 2223);
    let allow = ["allow", &TO.client_b().to_string(), "--app", "ssh", "--for", "60s"];
    home.verb(&net.router, &allow).success();
    assert_echoes(&net.b, to, 2223);
    let (a, b) = (TO.client_a(), TO.client_b());
    let told = |kind: &str, line: String| (kind.to_owned(), vec![line]);
    let wanted = BTreeMap::from([
        told("accepted", format!("UDP {a} 5678")),
        told("ignored", format!("TCP {a} 1234")),
        told("invalid", format!("UDP {b} 5678")),
        told("transient", format!("TCP {b} 2223")),
    ]);
    assert_eq!(log.read(), wanted);
    // A flood of one kind: a few lines, and the others still have theirs.
    let begin = Instant::now();
    net.b.enter(|| (0..2_000).for_each(|_| once(None, to, "udp/5678".parse().unwrap())));
    knock_at(&net.a, Family::V6.router(), "1234,udp/5678");
    let found = log.read();
    let most = 11 + usize::try_from(begin.elapsed().as_secs() / 6).unwrap();
    assert!((1..=most).contains(&found["invalid"].len()), "{found:?}");
    assert_eq!(found["accepted"].len(), 1, "{found:?}");
    // To a group instead, and what is not asked for not at all.
    home.rewrite_config(config(&["log_knocks: accepted", "log_knocks_group: 7"]).text());
    agent.reload();
    let mut command = Command::new("tcpdump");
    command.args(["-n", "-l", "-c", "1", "-i", "nflog:7"]).stdin(Stdio::null()).stderr(Stdio::piped());
    command.stdout(Stdio::piped());
    let mut listening = net.router.background(command);
    let end = Instant::now() + Duration::from_secs(20);
    while listening.is_alive() {
        assert!(Instant::now() < end, "the group is told nothing");
        knock_at(&net.a, to, "1234,udp/5678,udp/5678,9,udp/5678");
        std::thread::sleep(Duration::from_secs(2));
    }
    let mut text = String::new();
    listening.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("203.0.113.2") && text.contains("203.0.113.1.5678: UDP"), "{text}");
    assert_eq!(log.read(), BTreeMap::new());
    // Off by default.
    home.rewrite_config(config(&[]).text());
    agent.reload();
    let rules = net.router.run("nft", &["list", "table", "inet", "knock_agent"]).success().text();
    assert!(!rules.contains("log prefix \"knock-agent"), "{rules}");
}
