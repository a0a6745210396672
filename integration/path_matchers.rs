//! The beginning of a step-1 request is matched by a program (`-m bpf`) or by comparisons (`-m u32`): both are loaded
//! into a fresh network namespace by both kinds of iptables, and real packets must match exactly.
//!
//! Needs root, iptables, ipset and python3; fails without.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::io::Write;
use std::num::NonZeroU16;
use std::process::{Command, Stdio};

use knock_agent::config::{Alone, StepPorts, parse};
use knock_agent::ruleset::iptables::elements::creation;
use knock_agent::ruleset::iptables::plan::{Keeping, Matcher, plan};
use knock_agent::ruleset::iptables::restore::text;
use knock_agent::ruleset::layout::Options;

/// Sends each line of its input to the step-1 port over a connection of its own.
const SENDER: &str = r#"
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.socket(family)
listener.bind((sys.argv[1], 8080))
listener.listen(64)
for line in sys.stdin.read().split("\n"):
    if not line: continue
    s = socket.socket(family)
    s.settimeout(5)
    s.connect((sys.argv[1], 8080))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.send(line.encode())
    # Closed without a repetition, so that each request is one packet.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()
"#;

fn run(program: &str, words: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// How many packets the rule for the right path has seen.
fn right_ones(save: &str) -> u64 {
    let listing = run(save, &["-c"], "");
    let line = listing
        .lines()
        .find(|line| line.contains("-A KA-step1_raw") && line.contains("ka:step1:path"))
        .expect("the rule for the path");
    line.trim_start_matches('[').split(':').next().unwrap().parse().unwrap()
}

fn in_fresh_namespace(what: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("this test needs root, for network namespaces of its own");
            run("ip", &["link", "set", "lo", "up"], "");
            what();
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn only_the_right_beginning_matches_in_both_families_and_kinds() {
    let path = "/a-path-of-exactly-33-characters-";
    let config = format!(
        "global:\n  interface_ext: eth0\n  http_post_path: {path}\n  https_post_path: /second-door\nssh:\n  port: 22\n  duration: 10\n  access_key_http: [first-secret-key]\n  access_key_https: [second-secret-key]\n"
    );
    let ports = Some(StepPorts { http: 8080, https: 8443 });
    let settings = parse("x", &config, ports, &Alone).unwrap().settings;
    let port = |number| NonZeroU16::new(number).unwrap();
    let options = Options { http_port: port(8080), https_port: port(8443), inner_header: true, log: true };
    let right = format!("POST {path} HTTP/1.1");
    let wrong: String = [
        format!("GET {path} HTTP/1.1"),
        format!("POST {path}x HTTP/1.1"),
        format!("POST {} HTTP/1.1", path.trim_end_matches('-')),
        format!(" POST {path} HTTP/1.1"),
        format!("xxxxPOST {path} HTTP/1.1"),
        format!("POST {} HTTP/1.1", path.replace("33", "34")),
        format!("POST {path}"),
        "P".to_owned(),
        "x".repeat(400),
    ]
    .map(|line| line + "\n")
    .concat();
    for matcher in [Matcher::Bpf, Matcher::U32] {
        let tables = plan(&settings, options, matcher, Keeping::Ipset).unwrap();
        for variant in ["legacy", "nft"] {
            in_fresh_namespace(|| {
                run("ipset", &["restore"], &tables.ipsets.iter().map(creation).collect::<String>());
                for (stem, of, address) in
                    [("iptables", &tables.ipv4, "127.0.0.1"), ("ip6tables", &tables.ipv6, "::1")]
                {
                    run(&format!("{stem}-{variant}-restore"), &["--noflush", "-w"], &text(of));
                    let save = format!("{stem}-{variant}-save");
                    run("python3", &["-c", SENDER, address], &wrong);
                    assert_eq!(right_ones(&save), 0, "{matcher:?} {stem} {variant}: a wrong one matched");
                    run("python3", &["-c", SENDER, address], &format!("{right}\n"));
                    assert!(
                        right_ones(&save) > 0,
                        "{matcher:?} {stem} {variant}: the right one did not match"
                    );
                }
            });
        }
    }
}
