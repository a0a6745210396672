//! Behind a proxy: what is refused before anything starts, what a reload may change, limits that count clients.

use std::net::IpAddr;
use std::time::Duration;

use super::behind_nginx::lies;
use super::limits::locked_out;
use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, table, time_left};
use crate::knocking::{STEP1_PORT, STEP2_PORT, form, parse_reply};
use crate::probe::{Reach, assert_echoes, assert_silent, tcp};
use crate::proxies::{
    BACKEND, Proxy, assert_nothing_for, config, example, installation, knock, post, status, step1, step2,
};
use crate::server::{Habit, Server, in_url};
use crate::topology::{Family, Topology};

#[test]
fn what_does_not_fit_together_does_not_start() {
    let net = Topology::new();
    let silent = Config::ssh(&[]);
    let taken = Config::new(&["step1_reply: http"]).app("ssh", "8081", "tcp", "local", &[]);
    let no_certificate = installation(&config(&[]), &[]).without_certificate();
    let half = Installation::new(&config(&[])).flags(&["--waf-http-port", "80"]);
    for (home, code, part) in [
        (installation(&silent, &[]), 78, "behind a proxy step 1 must answer"),
        (installation(&taken, &[]), 78, "tcp port 8081 belongs to knock-agent itself (--http-port)"),
        (Installation::new(&config(&["proxy_header: forwarded"])), 78, "the command line names none"),
        (no_certificate, 78, "--cert FILE is missing"),
        (half, 2, "--waf-https-port"),
        (installation(&config(&[]), &["--waf-trusted-ips", "0.0.0.0/0"]), 2, "trusts everybody"),
        (installation(&config(&[]), &["--waf-trusted-ips", "10.0.0.1/8"]), 2, "did you mean 10.0.0.0/8"),
    ] {
        let done = home.run_in_vain(&net.router).exits(code);
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
        assert!(!crate::firewall::is_guarded(&net.router), "{part}");
    }
}

/// The addresses that somebody listens at on these ports.
fn ears(net: &Topology) -> Vec<String> {
    let listing = net.router.run("ss", &["-Htln"]).success().text();
    let mut found: Vec<String> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .filter(|at| BACKEND.iter().any(|port| at.ends_with(&format!(":{port}"))))
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn for_a_proxy_on_this_host_the_agent_listens_on_loopback_only_and_guards_that_too() {
    let net = Topology::new();
    let home = installation(&config(&["proxy_step2: http"]), &[]).without_certificate();
    let agent = home.start(&net.router);
    assert_eq!(ears(&net), ["127.0.0.1:8081", "127.0.0.1:8444", "[::1]:8081", "[::1]:8444"]);
    for family in Family::BOTH {
        for port in BACKEND {
            assert_silent(&net.a, family.router(), port);
        }
    }
    // Whatever becomes of the rules, there is nobody to speak plain HTTP with.
    agent.kill();
    home.verb(&net.router, &["teardown"]).success();
    let _agent = home.start(&net.router);
    let stop = net.router.run("nft", &["delete", "table", "inet", "knock_agent"]);
    for port in BACKEND {
        let reach = tcp(&net.a, (Family::V4.router(), port).into(), Duration::from_secs(1));
        assert!(matches!(reach, Reach::Refused | Reach::Silent), "{stop:?} {reach:?}");
    }
}

#[test]
fn guard_alone_closes_the_ports_behind_the_proxy() {
    let net = Topology::new();
    let home = installation(&config(&[]), &["--waf-trusted-ips", "10.0.0.5"]);
    let mut command = home.guard_command(&[]);
    command.args(["--waf-http-port", "80", "--waf-https-port", "443", "--http-port", "8081"]);
    command.args(["--https-port", "8444", "--waf-trusted-ips", "10.0.0.5"]);
    net.router.finish(command, b"", Duration::from_secs(20)).success();
    for family in Family::BOTH {
        for port in BACKEND {
            assert_silent(&net.a, family.router(), port);
        }
    }
    let guarded = table(&net.router);
    let _agent = home.start(&net.router);
    assert_eq!(table(&net.router), guarded, "the daemon has nothing to change");
}

#[test]
fn a_reload_may_change_the_header_and_never_takes_tls_away_or_for_granted() {
    let net = Topology::new();
    let text = |more: &[&str]| config(more).text().to_owned();
    let home = installation(&config(&["proxy_step2: http"]), &[]).without_certificate();
    let agent = home.start(&net.router);
    let _nginx = Proxy::nginx(&net.router, &example("nginx-plain.conf"));
    let to = Family::V4.router();
    assert_eq!(status(&step1(&net.a, to, &[])), 200);

    // This nginx sends no such header.
    home.rewrite_config(&text(&["proxy_step2: http", "proxy_header: forwarded"]));
    agent.reload();
    assert_eq!(status(&step1(&net.b, to, &[])), 400);
    assert_nothing_for(&net.router, Family::V4.client_b(), "no header");

    for (refused, reason) in [
        (text(&["proxy_header: x-real-ip"]), "step 2 would be HTTPS"),
        (text(&["proxy_step2: http"]).replace("step1_reply: http", "step1_reply: silent"), "must answer"),
    ] {
        home.rewrite_config(&refused);
        assert!(agent.reload().contains("refused"), "{reason}");
        assert!(home.log().contains(reason), "{reason}: {}", home.log());
        assert_eq!(status(&step1(&net.b, to, &[])), 400, "as before: {reason}");
    }

    home.rewrite_config(&text(&["proxy_step2: http"]));
    agent.reload();
    assert_eq!(status(&step1(&net.a, to, &[])), 200);
    assert_eq!(status(&step2(&net.a, to, &[])), 200);
}

#[test]
fn the_limit_counts_clients_and_not_the_proxy_or_what_a_client_calls_itself() {
    let net = Topology::new();
    let limit = "step1_2_rate_limit_per_minute: 3";
    let home = installation(&config(&[limit, "proxy_header: x-forwarded-for"]), &[]);
    let _agent = home.start(&net.router);
    let _nginx = Proxy::nginx(&net.router, &example("nginx.conf"));
    let to = Family::V4.router();
    let wrong = form("ssh", "not-the-key-of-anything");
    let statuses: Vec<u16> = (1..=6)
        .map(|n| {
            let lie = format!("X-Forwarded-For: 198.51.100.{n}");
            status(&post(&net.a, "http", to, STEP1_PATH, &wrong, &[&lie]))
        })
        .collect();
    assert_eq!(statuses, [403, 403, 403, 429, 429, 429]);
    assert_eq!(status(&step1(&net.b, to, &[])), 200);
    assert!(admission_left(&net.router, Family::V4.client_b()).is_some());
}

/// Failures behind a proxy, whatever the client calls itself, lock out the client and neither the proxy nor others.
fn locks_out_clients(header: &str, start: impl Fn(&Topology) -> Proxy) {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let header = format!("proxy_header: {header}");
    let home = installation(&config(&["lockout: {after: 3, first: 10m, longest: 1d}", &header]), &[]);
    let _agent = home.start(&net.router);
    let _proxy = start(&net);
    for family in Family::BOTH {
        let (to, own, other) = (family.router(), family.client_a(), family.client_b());
        let named: Vec<String> =
            [other.to_string(), "127.0.0.1".to_owned(), "198.51.100.3".to_owned()].into();
        let statuses: Vec<u16> = named
            .iter()
            .map(|lie| {
                let wrong = form("ssh", &format!("not-the-key-of-{lie}"));
                let lie = format!("X-Forwarded-For: {lie}");
                status(&post(&net.a, "http", to, STEP1_PATH, &wrong, &[&lie]))
            })
            .collect();
        assert_eq!(statuses, [403; 3], "{header}");
        let locked: Vec<String> = locked_out(&home, &net.router).into_iter().map(|row| row.0).collect();
        let row = if family == Family::V4 { own.to_string() } else { "2001:db8:1::/64".to_owned() };
        assert_eq!(locked, [row], "{header}");
        assert_ne!(status(&step1(&net.a, to, &[])), 200, "{header}: the right key while locked out");
        assert_nothing_for(&net.router, own, "locked out");
        if family == Family::V4 {
            // Of IPv6 both are in one /64.
            knock(&net.b, to);
            assert_echoes(&net.b, to, 2222);
        }
        home.verb(&net.router, &["unblock", &own.to_string()]).success();
        assert_eq!(locked_out(&home, &net.router), [], "{header}");
        knock(&net.a, to);
        assert_echoes(&net.a, to, 2222);
    }
}

#[test]
fn nginx_s_clients_are_locked_out_each_by_its_own_address() {
    locks_out_clients("x-forwarded-for", |net| Proxy::nginx(&net.router, &example("nginx.conf")));
}

#[test]
fn haproxy_s_clients_are_locked_out_each_by_its_own_address() {
    locks_out_clients("proxy-protocol", |net| Proxy::haproxy(&net.router, &example("haproxy.cfg")));
}

/// Sends the request of a step to the agent itself, with these headers; how it was answered, 0 for silence.
fn directly(net: &Topology, step: u8, to: IpAddr, headers: &[String]) -> u16 {
    let to = in_url(to);
    let (url, key) = match step {
        1 => (format!("http://{to}:{STEP1_PORT}{STEP1_PATH}"), http_key("ssh")),
        _ => (format!("https://{to}:{STEP2_PORT}{STEP2_PATH}"), https_key("ssh")),
    };
    let form = form("ssh", &key);
    let mut args = vec!["-sS", "-k", "-g", "-i", "-m", "8", "-d", &form];
    args.extend(headers.iter().flat_map(|header| ["-H", header]));
    args.push(&url);
    let done = net.a.run("curl", &args);
    if done.code == Some(0) { parse_reply(&done.text()).status } else { 0 }
}

#[test]
fn without_a_proxy_no_header_makes_a_client_somebody_else() {
    let net = Topology::new();
    let config = Config::new(&["step1_reply: http", "step1_max_bytes: 1000"]);
    let home = Installation::new(&config.app("ssh", "2222", "tcp", "local", &["duration: 60"]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let (to, own, other) = (family.router(), family.client_a(), family.client_b());
        let mut let_in = 0;
        for lie in lies(other) {
            let first = directly(&net, 1, to, &lie);
            assert_nothing_for(&net.router, other, &format!("{lie:?}"));
            if first != 200 {
                // Malformed: two of one header, a blank before the colon, too long for one packet.
                assert_nothing_for(&net.router, own, &format!("{first} {lie:?}"));
                continue;
            }
            assert_eq!(directly(&net, 2, to, &lie), 200, "{lie:?}");
            assert!(time_left(&net.router, "ssh", own).is_some(), "{lie:?}");
            assert_nothing_for(&net.router, other, &format!("{lie:?}"));
            let_in += 1;
            home.verb(&net.router, &["revoke", "--all"]).success();
            net.router.nft(&format!("flush set inet knock_agent step2_{}", family.digit()));
        }
        assert!(let_in > 10, "{let_in}");
    }
}

#[test]
fn no_proxy_logs_a_secret_path_while_the_agent_is_not_there() {
    let net = Topology::new();
    let to = Family::V4.router();
    let long = form("ssh", &"k".repeat(2_000));
    let tried = |name: &str, proxy: &Proxy| {
        for (scheme, path) in [("http", STEP1_PATH), ("https", STEP2_PATH)] {
            for body in [form("ssh", &http_key("ssh")), long.clone()] {
                post(&net.a, scheme, to, path, &body, &[]);
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        let log = proxy.log();
        assert!(!log.contains(STEP1_PATH) && !log.contains(STEP2_PATH), "{name}: {log}");
    };
    for name in ["nginx.conf", "nginx-plain.conf"] {
        let text = example(name).replace("/var/log/nginx/error.log", "stderr");
        tried(name, &Proxy::nginx(&net.router, &text));
    }
    for name in ["haproxy.cfg", "haproxy-http.cfg"] {
        tried(name, &Proxy::haproxy(&net.router, &example(name)));
    }
    tried("Caddyfile", &Proxy::caddy(&net.router, &example("Caddyfile")));
}
