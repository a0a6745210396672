//! `knock-agent explain`: what it says of an address and what becomes of a real packet of it.

use std::net::{IpAddr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::knocking::{form, knock, post_step2, step1};
use crate::knocks::knock_at;
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, PATIENCE, Reach, dial, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

/// One installation on the router of a topology, and what it says.
pub(super) struct Scene<'n> {
    pub(super) net: &'n Topology,
    pub(super) home: &'n Installation,
}

impl Scene<'_> {
    pub(super) fn explain(&self, addr: IpAddr, what: &str) -> Value {
        let done = self.home.check(&self.net.router, &["explain", &addr.to_string(), what, "--json"]);
        let value: Value =
            serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"));
        let code = match value["verdict"].as_str() {
            Some("open") => 0,
            Some("closed") => 1,
            Some("unknown") => 3,
            other => panic!("{other:?}: {value}"),
        };
        assert_eq!(done.code, Some(code), "{value:#}");
        assert_eq!(value["version"], 1);
        self.keeps_secrets(&value.to_string());
        value
    }

    fn keeps_secrets(&self, text: &str) {
        for app in ["ssh", "web", "lan"] {
            for secret in [STEP1_PATH, STEP2_PATH, &http_key(app), &https_key(app)] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
        }
    }

    /// What it says of an address, compared with a connection that is really tried from there.
    #[track_caller]
    pub(super) fn says(&self, from: &Namespace, addr: IpAddr, app: &str, port: u16, cause: &str) -> Value {
        let value = self.explain(addr, app);
        assert_eq!(value["cause"], cause, "{value:#}");
        let to = if addr.is_ipv4() { Family::V4.router() } else { Family::V6.router() };
        let open = value["verdict"] == "open";
        let limit = if open { GENEROUS } else { PATIENCE };
        let reach = tcp(from, (to, port).into(), limit);
        assert_eq!(reach == Reach::Open, open, "{reach:?} {value:#}");
        value
    }

    /// The same of client `a` by IPv4 and the app `ssh`.
    #[track_caller]
    pub(super) fn a(&self, cause: &str) -> Value {
        self.says(&self.net.a, Family::V4.client_a(), "ssh", 2222, cause)
    }
}

/// Whether one of the notes beside the answer has that cause.
pub(super) fn has_also(value: &Value, cause: &str) -> bool {
    value["also"].as_array().unwrap().iter().any(|note| note["cause"] == cause)
}

pub(super) fn next(value: &Value) -> String {
    value["next"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

pub(super) fn two_apps(global: &[&str]) -> Config {
    Config::new(global).app("ssh", "2222", "tcp", "local", &["duration: 60"]).app(
        "web",
        "3333",
        "tcp",
        "local",
        &["duration: 60"],
    )
}

#[test]
fn a_grant_and_what_the_host_s_own_rules_do_to_it() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let _server = Server::tcp(&net.router, 2222, Habit::Echo);
    let router = &net.router;
    scene.a("not-knocked");

    home.grant(router, "ssh", Family::V4.client_a(), 300);
    let value = scene.a("granted");
    assert!(value["message"].as_str().unwrap().contains("operator"), "{value:#}");
    // Others of the same client's, or of the same network's.
    scene.says(&net.b, Family::V4.client_b(), "ssh", 2222, "not-knocked");
    scene.says(&net.a, Family::V4.client_a(), "web", 3333, "granted-other-app");
    scene.says(&net.a, Family::V6.client_a(), "ssh", 2222, "granted-other-family");
    home.grant(router, "ssh", Family::V6.client_b(), 300);
    scene.says(&net.a, Family::V6.client_a(), "ssh", 2222, "granted-other-address");

    // A host that drops by default, and the remedy that is named.
    router.nft(
        "table inet filter { chain input { type filter hook input priority 0; policy drop; ct state established accept; tcp dport 8080-8443 accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; iif lo accept; }\n}",
    );
    let value = scene.a("host-drops");
    let step = value["steps"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&step["table"], &step["chain"]), (&"filter".into(), &"input".into()), "{value:#}");
    let remedy = next(&value);
    let line = remedy.lines().find(|line| line.starts_with("nft ")).unwrap_or_else(|| panic!("{value:#}"));
    router.run("sh", &["-c", line]).success();
    scene.a("granted");
    router.nft("delete table inet filter");

    // A list of others, with and without ranges, and a rule that drops before everything.
    router.nft(
        "table inet bans { set bad { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, 203.0.113.2 }; }
         chain input { type filter hook input priority 0; ip saddr @bad counter drop; }\n}",
    );
    let value = scene.a("host-bans");
    let step = value["steps"].as_array().unwrap().last().unwrap().clone();
    assert!(step["rule"].as_str().unwrap().contains("ip saddr @bad"), "{value:#}");
    assert!(
        step["handle"].as_u64().is_some() && next(&value).contains("delete element inet bans bad"),
        "{value:#}"
    );
    scene.says(&net.b, Family::V6.client_b(), "ssh", 2222, "granted");
    router.nft("delete table inet bans; table ip raw { chain pre { type filter hook prerouting priority -300; tcp dport 2222 drop; }\n}");
    scene.a("host-drops");
    router.nft("delete table ip raw; table netdev early { chain in { type filter hook ingress device ext0 priority 0; ip saddr 203.0.113.2 drop; }\n}");
    scene.a("host-bans");
    router.nft("delete table netdev early; table inet out { chain output { type filter hook output priority 0; tcp sport 2222 drop; }\n}");
    scene.a("host-drops-reply");
    router.nft("delete table inet out; table inet odd { chain input { type filter hook input priority 0; tcp dport 2222 numgen random mod 2 0 drop; }\n}");
    let value = scene.explain(Family::V4.client_a(), "ssh");
    assert_eq!((&value["verdict"], &value["cause"]), (&"unknown".into(), &"cannot-tell".into()), "{value:#}");
    router.nft("delete table inet odd");

    // iptables on the same kernel.
    router
        .run(
            "iptables-nft",
            &[
                "-I",
                "INPUT",
                "-s",
                "203.0.113.2",
                "-p",
                "tcp",
                "-m",
                "multiport",
                "--dports",
                "2222",
                "-j",
                "REJECT",
            ],
        )
        .success();
    scene.a("host-bans");
    router.run("iptables-nft", &["-F"]).success();
    // What got no answer before is remembered until one did.
    assert_eq!(tcp(&net.a, (Family::V4.router(), 2222).into(), GENEROUS), Reach::Open);
    scene.a("granted");

    // Ports that are nobody's, and addresses of our own.
    let _other = Server::tcp(router, 4444, Habit::Echo);
    scene.says(&net.a, Family::V4.client_a(), "tcp/4444", 4444, "not-guarded");
    scene.says(router, Family::V4.router(), "ssh", 2222, "own-address");
    let from_lan = scene.explain(Family::V4.lan(), "ssh");
    assert_eq!((&from_lan["verdict"], &from_lan["cause"]), (&"open".into(), &"other-interface".into()));
    home.verb(router, &["allow", "203.0.113.0/24", "--app", "web"]).success();
    let _web = Server::tcp(router, 3333, Habit::Echo);
    scene.says(&net.b, Family::V4.client_b(), "web", 3333, "allowed");

    let all = home.check(router, &["explain", &Family::V4.client_a().to_string()]);
    assert!(
        all.text().lines().count() > 4 && all.text().contains("is let through to ssh (tcp/2222)"),
        "{all:?}"
    );
    home.check(router, &["explain", "203.0.113.2", "nobody"]).exits(2);
}

#[test]
fn what_listens_and_where() {
    let net = Topology::new();
    let home = Installation::new(&two_apps(&[]));
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        home.grant(&net.router, "ssh", family.client_a(), 300);
    }
    scene.a("nothing-listens");
    let listen = |at: &str| net.router.enter(|| TcpListener::bind((at, 2222)).unwrap());
    let listener = listen("127.0.0.1");
    scene.a("listens-loopback");
    drop(listener);
    let listener = listen("10.0.0.1");
    scene.a("listens-elsewhere");
    drop(listener);
    let listener = listen("0.0.0.0");
    scene.a("granted");
    scene.says(&net.a, Family::V6.client_a(), "ssh", 2222, "listens-other-family");
    drop(listener);
    let mut only_v6 = std::process::Command::new("python3");
    only_v6.args(["-c", "import socket, time\ns = socket.socket(socket.AF_INET6)\ns.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)\ns.bind(('::', 2222))\ns.listen()\ntime.sleep(60)"]);
    let _only_v6 = net.router.background(only_v6);
    let end = Instant::now() + Duration::from_secs(20);
    while tcp(&net.a, (Family::V6.router(), 2222).into(), GENEROUS) != Reach::Open {
        assert!(Instant::now() < end);
    }
    scene.says(&net.a, Family::V6.client_a(), "ssh", 2222, "granted");
    scene.a("listens-other-family");
}

#[test]
fn what_the_daemon_remembers_of_those_who_are_not_let_in() {
    let net = Topology::new();
    let global = ["lockout: {after: 3, first: 1m, longest: 1h}"];
    let mut config = Config::new(&global).app("ssh", "2222", "tcp", "local", &["duration: 3"]);
    config = config.app("web", "3333", "tcp", "local", &["duration: 60", "once: true"]);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let agent = home.start(&net.router);
    let _ssh = Server::tcp(&net.router, 2222, Habit::Echo);
    let _web = Server::tcp(&net.router, 3333, Habit::Echo);
    let (to, a) = (Family::V4.router(), Family::V4.client_a());

    step1(&net.a, to, "ssh");
    scene.a("step2-missing");
    let wrong = form("ssh", "a-key-that-is-wrong");
    post_step2(&net.a, to, STEP2_PATH, &wrong, &[]);
    let value = scene.a("knock-refused");
    assert!(value["message"].as_str().unwrap().contains("step 2 was refused: wrong key"), "{value:#}");
    knock(&net.a, to, "ssh");
    let end = Instant::now() + Duration::from_secs(30);
    while scene.explain(a, "ssh")["verdict"] == "open" {
        assert!(Instant::now() < end);
        sleep(Duration::from_millis(300));
    }
    let value = scene.a("grant-expired");
    assert!(value["message"].as_str().unwrap().starts_with("its grant of 3 s ended"), "{value:#}");
    home.grant(&net.router, "ssh", a, 60);
    home.verb(&net.router, &["revoke", "ssh", &a.to_string()]).success();
    scene.a("grant-revoked");

    // One connection, and no more.
    home.grant(&net.router, "web", a, 60);
    scene.says(&net.a, a, "web", 3333, "granted");
    let value = scene.says(&net.a, a, "web", 3333, "once-used");
    assert!(value["message"].as_str().unwrap().contains("one connection"), "{value:#}");

    // Too many wrong ones.
    step1(&net.b, to, "ssh");
    for n in 0..3 {
        post_step2(&net.b, to, STEP2_PATH, &form("ssh", &format!("a-key-that-is-wrong-{n}")), &[]);
    }
    let value = scene.says(&net.b, Family::V4.client_b(), "ssh", 2222, "locked-out");
    assert!(next(&value).contains("unblock"), "{value:#}");

    // Nobody hears knocks any more, and nobody guards.
    agent.terminate();
    scene.a("daemon-not-running");
    net.router.nft("delete table inet knock_agent");
    scene.a("no-guard");
}

#[test]
fn rates_sequences_and_steps_that_cannot_be_heard() {
    let net = Topology::new();
    let global = ["step1_2_rate_limit_per_minute: 2"];
    let more = ["sequence: {knocks: [tcp/7001, tcp/7002, tcp/7003], window: 60s, knock_window: 60s}"];
    let config = Config::new(&global).app("ssh", "2222", "tcp", "local", &more);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (to, a) = (Family::V4.router(), Family::V4.client_a());
    // Of each kernel's own: one knock that was right, then a second one.
    knock_at(&net.a, to, "tcp/7001");
    let value = scene.a("sequence-unfinished");
    assert!(value["message"].as_str().unwrap().contains("1 of 3 knocks"), "{value:#}");
    assert!(!value.to_string().contains("700"), "{value:#}");
    knock_at(&net.a, to, "tcp/7002");
    assert!(scene.explain(a, "ssh")["message"].as_str().unwrap().contains("2 of 3 knocks"));
    for _ in 0..3 {
        crate::knocking::post_step1(&net.b, to, STEP1_PATH, &form("ssh", "a-key-that-is-wrong"));
    }
    scene.says(&net.b, Family::V4.client_b(), "ssh", 2222, "rate-limited");
    net.router.nft(
        "table ip raw { chain pre { type filter hook prerouting priority -400; tcp dport 8443 drop; }\n}",
    );
    let value = scene.says(&net.b, Family::V4.client_b(), "ssh", 2222, "rate-limited");
    assert!(has_also(&value, "knock-blocked"), "{value:#}");
    scene.says(&net.b, Family::V6.client_b(), "ssh", 2222, "not-knocked");
    net.router.nft("delete table ip raw; table inet raw { chain pre { type filter hook prerouting priority -400; tcp dport 8443 drop; }\n}");
    scene.says(&net.b, Family::V6.client_b(), "ssh", 2222, "knock-blocked");
}

#[test]
fn a_lan_host_and_the_way_there_and_back() {
    let net = Topology::new();
    let lan = Family::V4.lan();
    let more = ["duration: 300"];
    let plain = ["duration: 300", "masquerade: false"];
    let config = Config::new(&[]).app("lan", "2222", "tcp", &format!("{lan}:22"), &more).app(
        "web",
        "3333",
        "tcp",
        &lan.to_string(),
        &plain,
    );
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    let _agent = home.start(&net.router);
    let (a, router) = (Family::V4.client_a(), &net.router);
    let says = |cause: &str| scene.says(&net.a, a, "lan", 2222, cause);
    says("not-knocked");
    home.grant(router, "lan", a, 300);
    home.grant(router, "web", a, 300);
    says("lan-refuses");
    let _server = Server::tcp(&net.lan, 22, Habit::Echo);
    let _web = Server::tcp(&net.lan, 3333, Habit::Echo);
    let value = says("granted");
    let sent = value["steps"].as_array().unwrap().iter().any(|step| step["to"] == format!("{lan} port 22"));
    assert!(sent, "{value:#}");
    let value = scene.says(&net.a, Family::V6.client_a(), "lan", 2222, "wrong-family");
    assert!(value["message"].as_str().unwrap().contains("10.0.0.5"), "{value:#}");

    let value = scene.says(&net.a, a, "web", 3333, "granted");
    assert!(has_also(&value, "no-masquerade"), "{value:#}");
    net.lan.run("ip", &["route", "del", "default"]).success();
    let _ = dial(&net.a, (Family::V4.router(), 3333).into(), PATIENCE);
    scene.says(&net.a, a, "web", 3333, "no-answer");
    says("granted");

    router.sysctl("net/ipv4/ip_forward", "0");
    says("forwarding-off");
    router.sysctl("net/ipv4/ip_forward", "1");
    router.nft("table inet fw { chain forward { type filter hook forward priority 0; policy drop; }\n}");
    let value = says("host-drops");
    assert!(next(&value).contains("meta mark"), "{value:#}");
    router.nft("delete table inet fw; table inet fw { chain forward { type filter hook forward priority 0; iifname int0 drop; }\n}");
    says("host-drops-reply");
    router.nft("delete table inet fw");
    router.run("ip", &["route", "add", "203.0.113.2/32", "dev", "int0"]).success();
    router.sysctl("net/ipv4/conf/ext0/rp_filter", "1");
    let value = home.check(router, &["explain", &a.to_string(), "lan", "--by", "ext0", "--json"]).exits(1);
    assert!(value.text().contains("\"cause\":\"reverse-path\""), "{value:?}");
    router.run("ip", &["route", "del", "203.0.113.2/32"]).success();
    says("granted");
    net.lan.run("ip", &["link", "set", "eth0", "down"]).success();
    router.run("ip", &["neigh", "flush", "all"]).success();
    says("lan-host-down");
    router.run("ip", &["addr", "del", "10.0.0.1/24", "dev", "int0"]).success();
    let value = says("interface-down");
    assert!(has_also(&value, "no-route"), "{value:#}");
    router.run("ip", &["addr", "del", "203.0.113.1/24", "dev", "ext0"]).success();
    assert_eq!(scene.explain(a, "lan")["cause"], "no-address");
}

#[test]
fn translations_of_others_open_connections_and_files_that_are_newer() {
    let net = Topology::new();
    let keep = ["duration: 300", "established: keep"];
    let config = Config::new(&[])
        .app("ssh", "2222", "tcp", "local", &keep)
        .app("web", "3333", "tcp", "local", &["duration: 300"])
        .app("vpn", "1194", "udp", "local", &["duration: 300"]);
    let home = Installation::new(&config);
    let scene = Scene { net: &net, home: &home };
    // A certificate that ended two days ago.
    let begun = SystemTime::now() - Duration::from_secs(3 * 86_400);
    let made = knock_agent::service::certificate::self_signed(&["gate".to_owned()], 1, begun).unwrap();
    home.folder().write("cert.pem", &made.certificate_pem);
    home.folder().write("key.pem", made.key_pem.as_str());
    let _agent = home.start(&net.router);
    let (a, router) = (Family::V4.client_a(), &net.router);
    step1(&net.b, Family::V4.router(), "ssh");
    let value = scene.says(&net.b, Family::V4.client_b(), "ssh", 2222, "certificate-expired");
    assert!(value["message"].as_str().unwrap().contains("ended 2 days ago"), "{value:#}");

    for app in ["ssh", "web", "vpn"] {
        home.grant(router, app, a, 300);
    }
    // As Docker publishes a port.
    router.nft("table ip nat { chain pre { type nat hook prerouting priority -100; tcp dport 3333 dnat to 10.0.0.5:80\n}\n}");
    let _there = Server::tcp(&net.lan, 80, Habit::Echo);
    let value = scene.says(&net.a, a, "web", 3333, "granted");
    assert!(has_also(&value, "redirected"), "{value:#}");
    router.nft("table ip docker { chain forward { type filter hook forward priority 0; policy drop;\n}\n}");
    scene.says(&net.a, a, "web", 3333, "host-drops");

    assert_eq!(scene.explain(a, "vpn")["cause"], "nothing-listens");
    let _vpn = Server::udp(router, 1194, Habit::Echo);
    let value = scene.explain(a, "udp/1194");
    assert_eq!((&value["cause"], &value["app"]), (&"granted".into(), &"vpn".into()), "{value:#}");
    assert!(crate::probe::udp_echoes(&net.a, Family::V4.router(), 1194, GENEROUS));

    let _ssh = Server::tcp(router, 2222, Habit::Echo);
    home.verb(router, &["revoke", "ssh", &a.to_string()]).success();
    scene.a("grant-revoked");
    home.grant(router, "ssh", a, 4);
    let stream = dial(&net.a, (Family::V4.router(), 2222).into(), GENEROUS).unwrap();
    while crate::firewall::time_left(router, "ssh", a).is_some() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let value = scene.a("grant-expired");
    assert!(has_also(&value, "established-lives"), "{value:#}");
    crate::probe::assert_echo(stream);

    // The file says more than the kernel.
    let newer = config.app("new", "5555", "tcp", "local", &[]);
    home.rewrite_config(newer.text());
    let _new = Server::tcp(router, 5555, Habit::Echo);
    scene.says(&net.a, a, "new", 5555, "not-in-force");
    router.run("ip", &["route", "add", "blackhole", "203.0.113.3/32"]).success();
    scene.says(&net.b, Family::V4.client_b(), "ssh", 2222, "route-forbids");
}
