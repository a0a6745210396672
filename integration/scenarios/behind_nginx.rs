//! nginx in front: both steps by the proxy's ports, each client by its own address, whatever it says of itself.

use std::net::IpAddr;

use crate::agent::Installation;
use crate::audit::{assert_quiet, find, findings};
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, time_left};
use crate::hosts::{Vyos, load};
use crate::knocking::form;
use crate::namespace::Namespace;
use crate::probe::assert_silent;
use crate::proxies::{
    BACKEND, Proxy, assert_nothing_for, config, example, installation, knock, post, status, step1, step2,
    the_whole_story,
};
use crate::server::{Habit, Server, in_url};
use crate::topology::{Family, Topology};

/// What a client may say about itself: that it is somebody else, the proxy, or nobody.
pub fn lies(other: IpAddr) -> Vec<Vec<String>> {
    let node = if other.is_ipv6() { format!("\"[{other}]\"") } else { other.to_string() };
    let mut all: Vec<Vec<String>> = Vec::new();
    for value in [other.to_string(), "127.0.0.1".to_owned(), "unknown".to_owned(), String::new()] {
        let node = if value == other.to_string() { node.clone() } else { value.clone() };
        let lines = [
            format!("X-Real-IP: {value}"),
            format!("X-Forwarded-For: {value}"),
            format!("X-Forwarded-For: {value}, 127.0.0.1"),
            format!("Forwarded: for={node}"),
            format!("Forwarded: for=\"{node}"),
        ];
        all.extend(lines.iter().map(|line| vec![line.clone()]));
        all.push(lines.to_vec());
        all.push(vec![lines[0].clone(), lines[0].clone(), lines[1].clone(), lines[1].clone()]);
    }
    all.push(vec![format!("X_Real_IP: {other}"), format!("X-Real-Ip : {other}")]);
    all.push(vec![
        "Connection: X-Real-IP, X-Forwarded-For, Forwarded".to_owned(),
        format!("X-Real-IP: {other}"),
    ]);
    all.push(vec![format!("X-Client-IP: {other}"), format!("X-Forwarded: for={node}")]);
    all
}

fn revoked(net: &Topology, home: &Installation) {
    home.verb(&net.router, &["revoke", "--all"]).success();
    for set in ["step2_4", "step2_6"] {
        net.router.run("nft", &["flush", "set", "inet", "knock_agent", set]).success();
    }
}

fn whatever_a_client_says(header: &str, family: Family) {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = installation(&config(&[&format!("proxy_header: {header}")]), &[]);
    let _agent = home.start(&net.router);
    let _nginx = Proxy::nginx(&net.router, &example("nginx.conf"));
    let (to, own, other) = (family.router(), family.client_a(), family.client_b());
    let mut answered = 0;
    for lie in lies(other) {
        let lines: Vec<&str> = lie.iter().map(String::as_str).collect();
        let first = step1(&net.a, to, &lines);
        assert_nothing_for(&net.router, other, &format!("{header}: {lie:?}"));
        if status(&first) != 200 {
            // Refused by the agent, or by nginx, or too long for the kernel: nobody is let in.
            assert_nothing_for(&net.router, own, &format!("{header}: {lie:?}"));
            assert!(matches!(status(&first), 0 | 400), "{header}: {lie:?}: {first:?}");
            continue;
        }
        answered += 1;
        assert!(admission_left(&net.router, own).is_some(), "{header}: {lie:?}");
        let second = step2(&net.a, to, &lines);
        assert_eq!(status(&second), 200, "{header}: {lie:?}: {second:?}");
        assert!(time_left(&net.router, "ssh", own).is_some(), "{header}: {lie:?}");
        assert_nothing_for(&net.router, other, &format!("{header}: {lie:?}"));
        revoked(&net, &home);
    }
    assert!(answered > 3, "{header}: {answered}");
}

#[test]
fn x_real_ip_is_what_nginx_saw_whatever_a_client_says() {
    whatever_a_client_says("x-real-ip", Family::V4);
}

#[test]
fn x_real_ip_is_what_nginx_saw_whatever_a_client_says_over_ipv6() {
    whatever_a_client_says("x-real-ip", Family::V6);
}

#[test]
fn x_forwarded_for_ends_in_what_nginx_saw_whatever_a_client_says() {
    whatever_a_client_says("x-forwarded-for", Family::V4);
}

#[test]
fn x_forwarded_for_ends_in_what_nginx_saw_whatever_a_client_says_over_ipv6() {
    whatever_a_client_says("x-forwarded-for", Family::V6);
}

#[test]
fn forwarded_is_what_nginx_saw_whatever_a_client_says() {
    whatever_a_client_says("forwarded", Family::V4);
}

#[test]
fn forwarded_is_what_nginx_saw_whatever_a_client_says_over_ipv6() {
    whatever_a_client_says("forwarded", Family::V6);
}

#[test]
fn with_nginx_in_front_each_client_gets_in_by_its_own_address() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = installation(&config(&[]), &[]);
    let _agent = home.start(&net.router);
    let nginx = Proxy::nginx(&net.router, &example("nginx.conf"));
    the_whole_story(&net);
    // The ports that clients use are nginx's, as they should be.
    assert_quiet(&home, &net.router);
    home.check(&net.router, &["health"]).success();
    home.verb(&net.router, &["health"]).success();
    let told = home.verb(&net.router, &["explain", &Family::V4.client_a().to_string(), "ssh"]).success();
    assert!(!told.text().contains("bad-configuration") && told.stderr.is_empty(), "{told:?}");
    drop(nginx);
}

#[test]
fn a_program_on_a_port_behind_the_proxy_is_named() {
    let net = Topology::new();
    let home = installation(&config(&[]), &[]);
    let other = Server::tcp(&net.router, BACKEND[0], Habit::Echo);
    let taken = find(&findings(&home, &net.router), "step-port-taken");
    assert_eq!(taken.severity, "error");
    assert!(taken.message.contains(&BACKEND[0].to_string()), "{taken:#?}");
    drop(other);
    assert_quiet(&home, &net.router);
}

#[test]
fn where_tls_ends_at_nginx_each_client_gets_in_by_its_own_address() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = installation(&config(&["proxy_step2: http"]), &[]).without_certificate();
    let _agent = home.start(&net.router);
    let _nginx = Proxy::nginx(&net.router, &example("nginx-plain.conf"));
    the_whole_story(&net);
}

#[test]
fn nginx_may_speak_to_the_agent_over_ipv6() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = installation(&config(&[]), &["--waf-trusted-ips", "::1"]);
    let _agent = home.start(&net.router);
    let text = example("nginx.conf").replace("127.0.0.1:", "[::1]:");
    let _nginx = Proxy::nginx(&net.router, &text);
    the_whole_story(&net);
}

#[test]
fn nginx_refuses_long_bodies_before_the_agent_sees_them() {
    let net = Topology::new();
    let home = installation(&config(&[]), &[]);
    let _agent = home.start(&net.router);
    let _nginx = Proxy::nginx(&net.router, &example("nginx.conf"));
    let to = Family::V4.router();
    assert_eq!(status(&step1(&net.a, to, &[])), 200);
    let long = format!("{}&token={}", form("ssh", &https_key("ssh")), "1".repeat(300));
    let reply = post(&net.a, "https", to, STEP2_PATH, &long, &[]).expect("nginx's answer");
    assert_eq!(reply.status, 413);
    assert!(reply.head.contains("Server: nginx") && reply.body.contains("nginx"), "{reply:?}");
}

#[test]
fn a_vyos_router_with_nginx_on_it_lets_each_client_in_by_its_own_address() {
    for version in ["14", "15"] {
        let net = Topology::new();
        let vyos = Vyos::boot(&net.router, version, "stateful");
        vyos.commit(&net.router, "all");
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        let home = installation(&config(&[]), &["--firewall-type", "vyos"]);
        let _agent = home.start(&net.router);
        let _nginx = Proxy::nginx(&net.router, &example("nginx.conf"));
        the_whole_story(&net);
        vyos.commit(&net.router, "all");
        knock(&net.b, Family::V4.router());
        assert_backend_is_closed(&net);
    }
}

/// Clients, with every header that would be believed, get no packet back from the ports behind the proxy.
#[track_caller]
fn assert_backend_is_closed(net: &Topology) {
    for family in Family::BOTH {
        for port in BACKEND {
            assert_silent(&net.a, family.router(), port);
            assert_silent(&net.lan, family.router(), port);
        }
    }
}

#[test]
fn the_ports_behind_the_proxy_answer_nobody_but_the_proxy() {
    let net = Topology::new();
    let home = installation(&config(&["proxy_step2: http"]), &[]);
    let _agent = home.start(&net.router);
    assert_backend_is_closed(&net);
    for family in Family::BOTH {
        let (own, other) = (family.client_a(), family.client_b());
        for (port, path, key) in
            [(BACKEND[0], STEP1_PATH, http_key("ssh")), (BACKEND[1], STEP2_PATH, https_key("ssh"))]
        {
            let url = format!("http://{}:{port}{path}", in_url(family.router()));
            for header in [format!("X-Real-IP: {own}"), format!("X-Real-IP: {other}")] {
                let args = ["-sS", "-g", "-m", "1", "-H", &header, "-d", &form("ssh", &key), &url];
                net.a.run("curl", &args).exits(28);
                assert_nothing_for(&net.router, own, &header);
                assert_nothing_for(&net.router, other, &header);
            }
        }
    }
    let dropped = net.router.run("nft", &["list", "chain", "inet", "knock_agent", "backend_gate"]).text();
    let dropped = dropped.lines().find(|line| line.contains("ka:drop:backend")).unwrap().to_owned();
    assert!(!dropped.contains("packets 0 "), "{dropped}");
}

/// nginx on the LAN host, to which the router forwards the two ports; the service is on the router.
fn forward_to_lan(router: &Namespace) {
    router.nft(
        "table inet forwards {\n\
         chain in {\ntype nat hook prerouting priority dstnat; policy accept;\n\
         iifname ext0 ip daddr 203.0.113.1 tcp dport { 80, 443 } dnat ip to 10.0.0.5\n\
         iifname ext0 ip6 daddr 2001:db8:1::1 tcp dport { 80, 443 } dnat ip6 to fd00:5::5\n}\n}\n",
    );
}

#[test]
fn with_nginx_on_a_lan_host_each_client_gets_in_by_its_own_address() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    forward_to_lan(&net.router);
    net.lan.run("ip", &["addr", "add", "10.0.0.6/24", "dev", "eth0"]).success();
    let home = installation(&config(&[]), &["--waf-trusted-ips", "10.0.0.5, fd00:5::5"]);
    let _agent = home.start(&net.router);
    let text = example("nginx.conf").replace("127.0.0.1:", "10.0.0.1:");
    let _nginx = Proxy::nginx(&net.lan, &text);
    the_whole_story(&net);
    // Its neighbour is not trusted, nor is this host itself, nor who only claims to be the proxy.
    let url = format!("http://10.0.0.1:{}{STEP1_PATH}", BACKEND[0]);
    let form = form("ssh", &http_key("ssh"));
    let args = ["-sS", "-m", "1", "-H", "X-Real-IP: 203.0.113.3", "-d", &form, &url];
    net.lan.run("curl", &[&["--interface", "10.0.0.6"][..], &args].concat()).exits(28);
    let refused = net.router.run("curl", &args);
    assert!(refused.code != Some(0) && refused.stdout.is_empty(), "{refused:?}");
    for family in Family::BOTH {
        for port in BACKEND {
            assert_silent(&net.a, family.router(), port);
        }
    }
    assert_nothing_for(&net.router, Family::V4.client_b(), "from an untrusted neighbour");
    let believed = net.lan.run("curl", &[&["--interface", "10.0.0.5"][..], &args].concat()).success();
    assert_eq!(believed.text(), "OK\n");
    assert!(admission_left(&net.router, Family::V4.client_b()).is_some(), "the same from the proxy itself");
    // That the ports lead to the proxy is no obstacle; that they lead elsewhere may be one.
    let about = |home: &Installation| -> Vec<String> {
        let found =
            findings(home, &net.router).into_iter().filter(|found| found.code.starts_with("step-port"));
        found.map(|found| found.severity).collect()
    };
    assert_eq!(about(&home), [""; 0]);
    home.verb(&net.router, &["health"]).success();
    let elsewhere = installation(&config(&[]), &["--waf-trusted-ips", "10.0.0.6, fd00:5::6"]);
    let told = about(&elsewhere);
    assert!(!told.is_empty() && told.iter().all(|severity| severity == "warning"), "{told:?}");
    let alone = Installation::new(&Config::ssh(&[])).flags(&["--http-port", "80", "--https-port", "443"]);
    assert!(about(&alone).contains(&"error".to_owned()));
}

#[test]
fn a_host_that_drops_by_default_lets_a_proxy_on_a_lan_host_speak_to_the_agent() {
    let net = Topology::new();
    load(&net.router, "debian.nft");
    net.router.nft(
        "insert rule inet filter input meta mark 24107 accept\ninsert rule inet filter forward ct status dnat accept",
    );
    forward_to_lan(&net.router);
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = installation(&config(&[]), &["--waf-trusted-ips", "10.0.0.0/24"]);
    let _agent = home.start(&net.router);
    let text = example("nginx.conf").replace("127.0.0.1:", "10.0.0.1:");
    let _nginx = Proxy::nginx(&net.lan, &text);
    the_whole_story(&net);
}
