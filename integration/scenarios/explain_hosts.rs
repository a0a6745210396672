//! `knock-agent explain` on hosts with rules of iptables-legacy, routing of their own, and firewalls as they are delivered.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::explain::{Scene, has_also, next, two_apps};
use crate::agent::Installation;
use crate::configuration::Config;
use crate::hosts::{Vyos, load};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, PATIENCE, Reach, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

#[track_caller]
pub(super) fn run(host: &Namespace, line: &str) {
    host.run("sh", &["-e", "-c", line]).success();
}

/// Attaches a program to `ext0` that drops everything, as long as it runs.
const XDP: &str = "
import ctypes, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    got = libc.syscall(321, command, attributes, len(attributes))
    assert got >= 0, ctypes.get_errno()
    return got
program = struct.pack('<BBhiBBhi', 0xb7, 0, 0, 1, 0x95, 0, 0, 0)
code, licence = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b'GPL')
loaded = bpf(5, struct.pack('<IIQQIIQII16sII', 6, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, b'drop', 0, 37))
link = bpf(28, struct.pack('<IIIIQ', loaded, socket.if_nametoindex('ext0'), 37, 2, 0))
time.sleep(60)
";

#[test]
fn rules_of_iptables_legacy_routes_of_others_and_programs_before_all_rules() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let (router, a) = (&net.router, Family::V4.client_a());
    home.grant(router, "ssh", a, 600);

    run(router, "iptables-legacy -P INPUT DROP");
    let value = scene.a("host-drops");
    assert_eq!(value["steps"].as_array().unwrap().last().unwrap()["table"], "filter (legacy)", "{value:#}");
    let remedy = next(&value);
    run(router, remedy.lines().find(|line| line.starts_with("iptables-legacy ")).unwrap());
    scene.a("granted");
    run(router, "iptables-legacy -P INPUT ACCEPT; iptables-legacy -F");
    run(router, "iptables-legacy -N f2b-sshd; iptables-legacy -A f2b-sshd -s 203.0.113.2 -j REJECT");
    run(router, "iptables-legacy -A INPUT -p tcp -m multiport --dports 22,2222 -j f2b-sshd");
    let value = scene.a("host-bans");
    let remedy = next(&value);
    assert!(remedy.contains("fail2ban-client unban 203.0.113.2"), "{value:#}");
    run(router, remedy.lines().find(|line| line.starts_with("iptables-legacy ")).unwrap());
    scene.a("granted");
    run(router, "iptables-legacy -t raw -A PREROUTING -p tcp --dport 2222 -j DROP");
    scene.a("host-drops");
    run(
        router,
        "iptables-legacy -t raw -F; iptables-legacy -A INPUT -p tcp --dport 2222 -m statistic --mode random --probability 1 -j DROP",
    );
    let value = scene.a("cannot-tell");
    assert_eq!(value["verdict"], "unknown");
    run(router, "iptables-legacy -F");

    // What comes too fast for a rule, which nobody can see afterwards.
    router.nft("table inet rate { chain input { type filter hook input priority 0; tcp dport 2222 limit rate over 1/second drop; }\n}");
    let value = scene.explain(a, "ssh");
    assert!(value["cause"] == "granted" && has_also(&value, "rate-rule"), "{value:#}");
    router.nft("delete table inet rate");

    run(router, "ip rule add to 203.0.113.2 prohibit pref 100");
    scene.a("route-forbids");
    run(
        router,
        "ip rule del pref 100; ip rule add to 203.0.113.1 unreachable pref 0; ip rule del pref 0 lookup local; ip rule add pref 1 lookup local",
    );
    let value = scene.a("route-forbids");
    assert!(next(&value).contains("ip rule"), "{value:#}");
    run(router, "ip rule add pref 0 lookup local; ip rule del pref 0 unreachable; ip rule del pref 1");
    run(router, "ip route add 203.0.113.2/32 dev int0");
    scene.a("asymmetric-route");
    router.sysctl("net/ipv4/conf/ext0/rp_filter", "1");
    scene.a("reverse-path");
    run(router, "ip route del 203.0.113.2/32 dev int0");
    // Until then it may be as it was when the answer went elsewhere.
    assert_eq!(tcp(&net.a, (Family::V4.router(), 2222).into(), GENEROUS), Reach::Open);
    scene.a("granted");

    // Tables that are switched off: one of the host's, then ours while the daemon hangs.
    router.nft(
        "table inet off { flags dormant; chain input { type filter hook input priority 0; policy drop; }\n}",
    );
    scene.a("granted");
    let b = Family::V4.client_b();
    agent.signal(Signal::SIGSTOP);
    scene.says(&net.b, b, "ssh", 2222, "daemon-mute");
    run(router, "nft 'add table inet knock_agent { flags dormant; }'");
    scene.says(&net.b, b, "ssh", 2222, "no-guard");
    agent.signal(Signal::SIGCONT);
    let end = Instant::now() + Duration::from_secs(30);
    while scene.explain(b, "ssh")["cause"] != "not-knocked" {
        assert!(Instant::now() < end);
    }

    let mut program = Command::new("python3");
    program.args(["-c", XDP]);
    let attached = router.background(program);
    let end = Instant::now() + Duration::from_secs(30);
    while scene.explain(a, "ssh")["cause"] != "xdp" {
        assert!(Instant::now() < end);
    }
    scene.a("xdp");
    drop(attached);
    run(router, "ip link set ext0 down");
    let value = scene.a("interface-down");
    assert!(next(&value).contains("ip link set ext0 up"), "{value:#}");
}

#[test]
fn what_the_host_s_rules_do_to_the_question_is_not_said_of_the_lan_host() {
    let net = Topology::new();
    let lan = Family::V4.lan();
    let config = Config::new(&[]).app("lan", "2222", "tcp", &format!("{lan}:22"), &["duration: 300"]);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (router, a) = (&net.router, Family::V4.client_a());
    home.grant(router, "lan", a, 300);
    let refused = || scene.says(&net.a, a, "lan", 2222, "lan-refuses");
    refused();
    let output = |rule: &str| {
        router
            .nft(&format!("table inet fw {{ chain o {{ type filter hook output priority 0; {rule}; }}\n}}"));
    };
    let free = || router.nft("delete table inet fw");

    // Nobody listens, and some of what the host sends is dropped: what refuses cannot be told.
    output("oifname int0 numgen random mod 1000 == 0 drop");
    let value = scene.explain(a, "lan");
    assert!(value["verdict"] == "unknown" && value["cause"] == "lan-silent", "{value:#}");
    free();

    let server = Server::tcp(&net.lan, 22, Habit::Echo);
    let ways: [(&str, &str); 3] = [
        ("iptables -A OUTPUT -o int0 -p tcp -m conntrack --ctstate NEW -j REJECT", "iptables -F OUTPUT"),
        ("iptables-legacy -A OUTPUT -o int0 -p tcp --syn -j REJECT", "iptables-legacy -F OUTPUT"),
        ("iptables -P OUTPUT DROP", "iptables -P OUTPUT ACCEPT"),
    ];
    for (closes, opens) in ways {
        run(router, closes);
        let value = scene.says(&net.a, a, "lan", 2222, "granted");
        let note = value["also"].as_array().unwrap().iter().find(|note| note["cause"] == "lan-silent");
        let note = note.unwrap_or_else(|| panic!("{closes}: {value:#}"))["message"].as_str().unwrap();
        assert!(note.contains("what this host itself sends there"), "{closes}: {note}");
        run(router, opens);
    }
    // What lets it pass before it drops changes nothing.
    output("oifname int0 accept; drop");
    let value = scene.says(&net.a, a, "lan", 2222, "granted");
    assert!(!has_also(&value, "lan-silent"), "{value:#}");
    drop(server);
    refused();
}

#[test]
fn on_each_host_the_verdict_is_what_becomes_of_packets() {
    let net = Topology::new();
    let router = &net.router;
    let (a, b) = (Family::V4.client_a(), Family::V4.client_b());
    let _server = Server::tcp(router, 2222, Habit::Echo);
    for name in ["debian.nft", "docker.nft", "firewalld.nft", "openwrt.nft", "vyos 14", "vyos 15"] {
        match name.strip_prefix("vyos ") {
            Some(version) => Vyos::boot(router, version, "stateful").commit(router, "all"),
            None => load(router, name),
        }
        let home = Installation::new(&two_apps(&[]));
        let scene = Scene { net: &net, home: &home };
        let agent = home.start(router);
        home.grant(router, "ssh", a, 600);
        let value = scene.explain(a, "ssh");
        let open = value["verdict"] == "open";
        let reach = tcp(&net.a, (Family::V4.router(), 2222).into(), if open { GENEROUS } else { PATIENCE });
        assert_eq!(reach == Reach::Open, open, "{name} {reach:?} {value:#}");
        assert!(["granted", "host-drops"].contains(&value["cause"].as_str().unwrap()), "{name} {value:#}");
        let value = scene.explain(b, "ssh");
        assert_eq!(value["verdict"], "closed", "{name} {value:#}");
        agent.terminate();
        run(router, "nft flush ruleset");
    }
}
