//! The templates and the encoder are two descriptions of one ruleset: for every kind of
//! configuration, both are loaded into a fresh network namespace and must list the same.
//!
//! Needs root and nft; fails without.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::num::NonZeroU16;
use std::path::Path;
use std::process::{Command, Output};

use knock_agent::backend::nftables::Nftables;
use knock_agent::config::{Behind, Outside, SecretFrom, Settings, StepPorts, UserFile, parse_behind};
use knock_agent::ruleset::diff::{Change, Live, diff};
use knock_agent::ruleset::layout::Options;
use knock_agent::ruleset::plan::plan;
use knock_agent::ruleset::text::render;
use knock_agent::units::Secret;

const GLOBAL: &str = "
global:
  interface_ext: eth0
  interface_int: eth1
  http_post_path: /quiet-door
  https_post_path: /second-door
";

const KEYS: &str = "
  duration: 10
  access_key_http: [first-secret-key]
  access_key_https: [second-secret-key]
";

fn global(more: &str) -> String {
    format!("{GLOBAL}{more}")
}

fn app(name: &str, lines: &str) -> String {
    format!("\n{name}:{KEYS}{lines}")
}

/// Every case: a name and a configuration.
fn cases() -> Vec<(&'static str, String)> {
    let ssh = || app("ssh", "  port: 22\n");
    vec![
        ("one local service", global("") + &ssh()),
        ("the whole host closed", global("  default_input: drop\n") + &ssh()),
        ("the whole host closed, without a mark", global("  default_input: drop\n  mark: 0\n") + &ssh()),
        ("no mark", global("  mark: 0\n") + &ssh()),
        ("a mark with a mask", global("  mark: 0x100/0xff00\n") + &ssh()),
        ("one packet only", global("  step1_segments: 1\n") + &ssh()),
        ("many packets", global("  step1_segments: 16\n  step1_max_bytes: 1400\n") + &ssh()),
        ("an answering step 1", global("  step1_reply: http\n") + &ssh()),
        ("an answering step 1 of one packet", global("  step1_reply: http\n  step1_segments: 1\n") + &ssh()),
        ("a high rate", global("  step1_2_rate_limit_per_minute: 600\n") + &ssh()),
        ("IPv6 networks instead of addresses", global("  ipv6_prefix: 64\n") + &ssh()),
        ("odd IPv6 networks", global("  ipv6_prefix: 61\n") + &ssh()),
        ("several interfaces", GLOBAL.replace("interface_ext: eth0", "interface_ext: [eth0, ppp0]") + &ssh()),
        (
            "an app on an interface of its own",
            global("") + &ssh() + &app("web", "  port: 443\n  interface_ext: wan2\n"),
        ),
        ("udp", global("") + &app("vpn", "  port: 1194\n  protocol: udp\n")),
        ("both protocols", global("") + &app("dns", "  port: 53\n  protocol: both\n")),
        ("a range", global("") + &app("media", "  port: \"6000-6010\"\n  protocol: udp\n")),
        ("the highest ports", global("") + &app("high", "  port: \"60000-65535\"\n  protocol: both\n")),
        (
            "a log of knocks",
            global("  log_knocks: [accepted, ignored, invalid, transient]\n")
                + &app(
                    "ssh",
                    "  port: 22\n  protocol: both\n  interface_ext: wan2\n  sequence: [{knocks: [7, 8], opens: in}, {knocks: [7, 9], window: 10, strict: true}, {knocks: [5, 6], name: in}]\n",
                )
                + &app("rdp", "  port: 3389\n  once: true\n  destination: 10.0.0.5\n"),
        ),
        (
            "a log of knocks for a group",
            global("  log_knocks: [accepted, ignored]\n  log_knocks_group: 7\n")
                + &app("ssh", "  port: 22\n  sequence: {knocks: [7, udp/8/20]}\n"),
        ),
        (
            "sequences",
            global(
                "  sequence: [{knocks: [5000, udp/5001], opens: step-2}, {knocks: [5002, 5001], opens: step-1, duration: 90}]\n  ipv6_prefix: 61\n",
            ) + &app(
                "ssh",
                "  port: 22\n  once: true\n  sequence: [{knocks: [203, 3000, 3002], strict: true, closing: [7, 8]}, {knocks: [203, 3000, 3002, 3002], duration: 2m}, {knocks: [udp/4000/2, udp/4000/1], window: 5}]\n",
            ),
        ),
        ("a log of what need not knock", global("  log_knocks: transient\n") + &ssh()),
        ("a list", global("") + &app("many", "  port: [80, 443, \"8000-8010\"]\n")),
        (
            "two apps on one port",
            global("")
                + &ssh()
                + &app("other", "  port: 22\n  destination: 10.0.0.7\n").replace("secret", "other"),
        ),
        (
            "overlapping ranges",
            global("")
                + &app("low", "  port: \"6000-6010\"\n")
                + &app("inside", "  port: 6005\n").replace("secret", "other"),
        ),
        ("established connections are kept", global("") + &app("ssh", "  port: 22\n  established: keep\n")),
        ("a LAN host", global("") + &app("rdp", "  port: 3389\n  destination: 10.0.0.5\n")),
        (
            "a LAN host at another port",
            global("") + &app("rdp", "  port: 13389\n  destination: 10.0.0.5:3389\n"),
        ),
        (
            "a LAN host without masquerade",
            global("") + &app("rdp", "  port: 3389\n  destination: 10.0.0.5\n  masquerade: false\n"),
        ),
        ("an IPv6 LAN host", global("") + &app("six", "  port: 2222\n  destination: \"[fd00::5]:22\"\n")),
        (
            "an IPv6 LAN host, same ports",
            global("") + &app("six", "  port: \"5000-5005\"\n  protocol: both\n  destination: fd00::5\n"),
        ),
        (
            "ranges to LAN hosts, both protocols",
            global("")
                + &app("game", "  port: [\"6000-6010\", 7000]\n  protocol: both\n  destination: 10.0.0.5\n"),
        ),
        (
            "a kept connection to a LAN host on an interface of its own",
            global("")
                + &ssh()
                + &app(
                    "rdp",
                    "  port: 3389\n  destination: 10.0.0.5\n  established: keep\n  interface_ext: wan2\n",
                ),
        ),
        (
            "two apps to one LAN host",
            global("")
                + &app("rdp", "  port: 3389\n  destination: 10.0.0.5\n")
                + &app("rdp2", "  port: 13389\n  destination: 10.0.0.5:3389\n").replace("secret", "other"),
        ),
        ("a short path", global("").replace("/quiet-door", "/q") + &ssh()),
        (
            "a path of exactly two pieces",
            global("").replace("/quiet-door", &format!("/{}", "a".repeat(25))) + &ssh(),
        ),
        ("the longest path", global("").replace("/quiet-door", &format!("/{}", "b".repeat(99))) + &ssh()),
        ("a proxy on this host", global("  step1_reply: http\n") + &ssh()),
        ("a proxy elsewhere", global("  step1_reply: http\n") + &ssh()),
        ("a proxy elsewhere, no mark", global("  step1_reply: http\n  mark: 0\n") + &ssh()),
        ("knocks that change with time", global("  time_sequence: {}\n") + &ssh()),
        (
            "knocks that change with time, by TCP, beside others",
            global(
                "  log_knocks: [accepted, ignored, invalid]\n  time_sequence: {protocol: tcp, window: 20, knock_window: 5, drift: 2}\n",
            ) + &app("ssh", "  port: 22\n  sequence: {knocks: [1, 2, udp/3], duration: 60, strict: true}\n"),
        ),
        ("knocks of clients of knock-knock", global("  time_sequence: {kind: knock-knock}\n") + &ssh()),
        ("a name that nft cannot have", global("") + &app("\"My App (v2)\"", "  port: 22\n")),
    ]
}

/// Two clients of knocks that change with time.
struct Clients;

impl Outside for Clients {
    fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
        Err("none".to_owned())
    }

    fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
        let file = |name: &str, letter: char, more: &str| UserFile {
            name: name.to_owned(),
            file: format!("{name}.yaml"),
            text: format!("app: ssh\nsecret: {}\n{more}", letter.to_string().repeat(32)).into(),
        };
        Ok(vec![file("alice", 'A', ""), file("bob", 'B', "duration: 5\n")])
    }
}

fn settings(name: &str, text: &str) -> Settings {
    let ports = Some(StepPorts { http: 8080, https: 8443 });
    let port = |number| NonZeroU16::new(number).unwrap();
    let trusted = match name.starts_with("a proxy elsewhere") {
        true => "127.0.0.1,10.0.0.5,10.1.0.0/16,10.1.2.0/24,fd00::5,2001:db8:1::/48",
        false => "127.0.0.1,::1",
    };
    let behind = Behind { http: port(8081), https: port(8444), trusted: trusted.parse().unwrap() };
    let behind = name.starts_with("a proxy").then_some(&behind);
    let checked = parse_behind(name, text, ports, behind, &Clients);
    checked.unwrap_or_else(|problems| panic!("{name}: {problems}")).settings
}

fn options(inner_header: bool) -> Options {
    let port = |number| NonZeroU16::new(number).unwrap();
    Options { http_port: port(8080), https_port: port(8443), inner_header, log: true }
}

/// Runs something in a network namespace of its own: that of a thread that ends with it.
fn in_fresh_namespace<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("this test needs root, for network namespaces of its own");
            what()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn nft(args: &[&str]) -> Output {
    Command::new("nft").args(args).output().expect("this test needs nft: apt-get install nftables")
}

fn listing() -> String {
    let output = nft(&["-s", "list", "ruleset"]);
    assert!(output.status.success(), "nft list: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn load(text: &str) {
    let file = std::env::temp_dir().join(format!(
        "ka-doors-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&file, text).unwrap();
    let output = nft(&["-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "nft -f: {}\n{text}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn templates_and_encoder_make_the_same_ruleset() {
    for (name, text) in cases() {
        for inner_header in [true, false] {
            let settings = settings(name, &text);
            let options = options(inner_header);
            let wanted = plan(&settings, options);
            let by_netlink = in_fresh_namespace(|| {
                Nftables::open().unwrap().install(&wanted).unwrap_or_else(|error| panic!("{name}: {error}"));
                listing()
            });
            let by_text = in_fresh_namespace(|| {
                // Twice, because it must replace itself.
                load(&render(&settings, options).unwrap());
                load(&render(&settings, options).unwrap());
                let live = Nftables::open().unwrap().read().unwrap().expect("a table");
                assert!(live.loaded, "{name}: who is let in there is not believed");
                let left = diff(Some(&Live { loaded: false, ..live }), &wanted);
                assert_eq!(left.iter().map(Change::to_string).collect::<Vec<_>>(), [""; 0], "{name}");
                listing()
            });
            assert!(by_netlink.contains("chain gate"), "{name}: nothing was loaded");
            if let Some((ours, theirs)) = by_netlink.lines().zip(by_text.lines()).find(|(a, b)| a != b) {
                panic!("{name}, inner header {inner_header}:\n by netlink {ours}\n by text    {theirs}");
            }
            assert_eq!(by_netlink.len(), by_text.len(), "{name}, inner header {inner_header}");
        }
    }
}

#[test]
fn what_nft_lists_it_also_loads() {
    for (name, text) in cases() {
        let wanted = plan(&settings(name, &text), options(true));
        let listed = in_fresh_namespace(|| {
            let mut nft = Nftables::open().unwrap();
            nft.install(&wanted).unwrap();
            assert!(!nft.read().unwrap().unwrap().loaded, "{name}");
            let listed = listing();
            // Into the table that is in force, as whoever flushes nothing before does.
            load(&listed);
            assert!(nft.read().unwrap().unwrap().loaded, "{name}");
            nft.install(&wanted).unwrap();
            assert_eq!((listing(), nft.read().unwrap().unwrap().loaded), (listed.clone(), false), "{name}");
            listed
        });
        let again = in_fresh_namespace(|| {
            load(&listed);
            listing()
        });
        assert_eq!(listed, again, "{name}");
    }
}

#[test]
fn every_ruleset_becomes_every_other_by_its_difference() {
    let all: Vec<(&str, Settings)> =
        cases().into_iter().map(|(name, text)| (name, settings(name, &text))).collect();
    in_fresh_namespace(|| {
        let mut nft = Nftables::open().unwrap();
        for (from, before) in &all {
            let before = plan(before, options(true));
            for (to, after) in all.iter().step_by(3) {
                let after = plan(after, options(true));
                nft.install(&before).unwrap_or_else(|error| panic!("{from}: {error}"));
                nft.install(&after).unwrap_or_else(|error| panic!("{from} -> {to}: {error}"));
                assert_eq!(nft.install(&after).unwrap(), [], "{from} -> {to}: not settled");
            }
        }
    });
}

#[test]
fn a_dry_run_changes_nothing_and_sees_what_is_wrong() {
    let (name, text) = cases().remove(0);
    let wanted = plan(&settings(name, &text), options(true));
    in_fresh_namespace(|| {
        let mut nft = Nftables::open().unwrap();
        let before = nft.generation().unwrap();
        nft.validate(&diff(None, &wanted)).unwrap();
        let mut broken = wanted.clone();
        broken.sets.retain(|set| set.name != "app_ssh_4");
        let error = nft.validate(&diff(None, &broken)).unwrap_err().to_string();
        assert!(error.contains("refused to add rule ka:grant:ssh"), "{error}");
        assert!(!nft.has_table().unwrap());
        assert_eq!(nft.generation().unwrap(), before);
    });
}
