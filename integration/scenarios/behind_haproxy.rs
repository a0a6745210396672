//! haproxy and Caddy in front: the PROXY protocol in both versions, TLS that goes through or ends there.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::Duration;

use crate::agent::Installation;
use crate::configuration::{STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, time_left};
use crate::knocking::{form, request};
use crate::namespace::Namespace;
use crate::probe::{GENEROUS, assert_silent, dial};
use crate::process::Finished;
use crate::proxies::{
    BACKEND, PUBLIC, Proxy, assert_nothing_for, config, example, installation, status, step1, step2,
    the_whole_story,
};
use crate::server::{Habit, Server, in_url};
use crate::topology::{Family, Topology};

/// The example, and the same with the other version of the protocol.
fn versions() -> [String; 2] {
    let two = example("haproxy.cfg");
    let one = two.replace(" send-proxy-v2\n", " send-proxy\n");
    assert_ne!(one, two);
    [one, two]
}

fn behind_the_proxy_protocol(more: &[&str]) -> Installation {
    installation(&config(&["proxy_header: proxy-protocol"]), more)
}

#[test]
fn with_haproxy_in_front_each_client_gets_in_by_its_own_address() {
    for text in versions() {
        let net = Topology::new();
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        let home = behind_the_proxy_protocol(&[]);
        let _agent = home.start(&net.router);
        let _haproxy = Proxy::haproxy(&net.router, &text);
        the_whole_story(&net);
    }
}

#[test]
fn haproxy_on_a_lan_host_speaks_both_families_to_the_agent() {
    for backend in ["10.0.0.1", "[fd00:5::1]"] {
        let net = Topology::new();
        net.router.nft(
            "table inet forwards {\nchain in {\ntype nat hook prerouting priority dstnat; policy accept;\n\
             iifname ext0 ip daddr 203.0.113.1 tcp dport { 80, 443 } dnat ip to 10.0.0.5\n\
             iifname ext0 ip6 daddr 2001:db8:1::1 tcp dport { 80, 443 } dnat ip6 to fd00:5::5\n}\n}\n",
        );
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        let home = behind_the_proxy_protocol(&["--waf-trusted-ips", "10.0.0.5,fd00:5::5"]);
        let _agent = home.start(&net.router);
        let _haproxy = Proxy::haproxy(&net.lan, &versions()[1].replace("127.0.0.1:", &format!("{backend}:")));
        the_whole_story(&net);
    }
}

/// Sends bytes to a port and reads whatever comes back.
fn raw(from: &Namespace, to: IpAddr, port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    if let Ok(mut stream) = dial(from, (to, port).into(), GENEROUS) {
        stream.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
        let _ = stream.write_all(bytes);
        let _ = stream.read_to_end(&mut heard);
    }
    heard
}

fn lines(source: IpAddr) -> Vec<Vec<u8>> {
    let (family, to, octets) = match source {
        IpAddr::V4(v4) => (4, "203.0.113.1", v4.octets().to_vec()),
        IpAddr::V6(v6) => (6, "2001:db8:1::1", v6.octets().to_vec()),
    };
    let mut two = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    two.push(if family == 4 { 0x11 } else { 0x21 });
    two.extend([0, u8::try_from(octets.len() * 2 + 4).unwrap()]);
    two.extend([&octets[..], &octets[..], &[1, 2, 3, 4]].concat());
    vec![format!("PROXY TCP{family} {source} {to} 40000 80\r\n").into_bytes(), two]
}

#[test]
fn a_line_of_the_proxy_protocol_that_a_client_sends_opens_nothing() {
    let net = Topology::new();
    let home = behind_the_proxy_protocol(&[]);
    let _agent = home.start(&net.router);
    let _haproxy = Proxy::haproxy(&net.router, &example("haproxy.cfg"));
    let first = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
    for family in Family::BOTH {
        let (to, own, other) = (family.router(), family.client_a(), family.client_b());
        for (source, line) in [own, other].into_iter().flat_map(|a| lines(a).into_iter().map(move |l| (a, l)))
        {
            // The kernel takes it for no step 1, and directly for nothing at all.
            assert!(raw_is_silent(&net.a, to, PUBLIC[0], &[&line[..], first.as_bytes()].concat()));
            for port in BACKEND {
                assert_silent(&net.a, to, port);
            }
            assert_nothing_for(&net.router, own, &format!("a line of the client's for {source}"));
            assert_nothing_for(&net.router, other, &format!("a line of the client's for {source}"));
        }
        assert_eq!(status(&step1(&net.a, to, &[])), 200);
        for line in lines(other) {
            // haproxy puts its own line in front; where TLS should begin, this one is nothing.
            let second = request(&format!("POST {STEP2_PATH}"), &form("ssh", &https_key("ssh")));
            let heard = raw(&net.a, to, PUBLIC[1], &[&line[..], second.as_bytes()].concat());
            assert!(!String::from_utf8_lossy(&heard).contains("HTTP/"), "{heard:?}");
            assert_nothing_for(&net.router, other, "a second line");
            assert_eq!(time_left(&net.router, "ssh", own), None);
        }
        assert_eq!(status(&step2(&net.a, to, &[])), 200);
        assert!(time_left(&net.router, "ssh", own).is_some());
    }
}

/// Whether nothing comes back within a second.
fn raw_is_silent(from: &Namespace, to: IpAddr, port: u16, bytes: &[u8]) -> bool {
    let Ok(mut stream) = dial(from, (to, port).into(), GENEROUS) else { return true };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let _ = stream.write_all(bytes);
    // The end of the connection would be an answer too.
    let error = stream.read_exact(&mut [0]).err();
    error.is_some_and(|error| error.kind() != std::io::ErrorKind::UnexpectedEof)
}

#[test]
fn the_proxy_itself_and_its_health_checks_open_nothing() {
    let net = Topology::new();
    let home = behind_the_proxy_protocol(&[]);
    let mut agent = home.start(&net.router);
    let text =
        example("haproxy.cfg").replace("send-proxy-v2", "send-proxy-v2 check inter 200ms check-send-proxy");
    let _haproxy = Proxy::haproxy(&net.router, &text);
    let first = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
    // From this host, past haproxy: without a line, with one for nobody, and with the proxy's own address.
    let mut local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00".to_vec();
    local.extend(first.as_bytes());
    let unknown = format!("PROXY UNKNOWN\r\n{first}");
    let itself = format!("PROXY TCP4 127.0.0.1 127.0.0.1 40000 8081\r\n{first}");
    for bytes in [first.as_bytes(), &local, unknown.as_bytes(), itself.as_bytes()] {
        assert_eq!(raw(&net.router, [127, 0, 0, 1].into(), BACKEND[0], bytes), b"");
    }
    for set in ["step2_4", "step2_6", "app_ssh_4", "app_ssh_6"] {
        assert_eq!(crate::firewall::elements(&net.router, set), [], "{set}");
    }
    assert!(agent.is_alive());
    // And a client still gets in, beside the checks.
    assert_eq!(status(&step1(&net.a, Family::V4.router(), &[])), 200);
    assert_eq!(status(&step2(&net.a, Family::V4.router(), &[])), 200);
}

#[test]
fn where_tls_ends_at_haproxy_each_client_gets_in_by_its_own_address() {
    for header in ["x-forwarded-for", "x-real-ip"] {
        let net = Topology::new();
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        let config = config(&[&format!("proxy_header: {header}"), "proxy_step2: http"]);
        let home = installation(&config, &[]).without_certificate();
        let _agent = home.start(&net.router);
        let _haproxy = Proxy::haproxy(&net.router, &example("haproxy-http.cfg"));
        the_whole_story(&net);
        // What the client says of itself is replaced.
        let (to, own, other) = (Family::V4.router(), Family::V4.client_b(), "198.51.100.9");
        let lies = [format!("X-Forwarded-For: {other}"), format!("X-Real-IP: {other}")];
        let lies: Vec<&str> = lies.iter().map(String::as_str).collect();
        assert_eq!(status(&step1(&net.b, to, &lies)), 200);
        assert_nothing_for(&net.router, other.parse().unwrap(), "a client's lie");
        assert_eq!(status(&step2(&net.b, to, &lies)), 200);
        assert!(time_left(&net.router, "ssh", own).is_some());
        assert_nothing_for(&net.router, other.parse().unwrap(), "a client's lie");
        assert_http2_works(&net.b, to);
    }
}

/// haproxy speaks HTTP/2 to the client and HTTP/1.1 to the agent.
#[track_caller]
fn assert_http2_works(from: &Namespace, to: IpAddr) {
    let url = format!("https://{}{STEP2_PATH}", in_url(to));
    let form = form("ssh", &https_key("ssh"));
    let done: Finished =
        from.run("curl", &["-sS", "-k", "-g", "-i", "--http2", "-m", "8", "-d", &form, &url]);
    assert!(done.success().text().starts_with("HTTP/2 "));
}

#[test]
fn a_proxy_that_only_adds_a_header_beside_the_client_s_is_refused() {
    let net = Topology::new();
    let config = config(&["proxy_header: x-forwarded-for", "proxy_step2: http"]);
    let home = installation(&config, &[]).without_certificate();
    let _agent = home.start(&net.router);
    let text = example("haproxy-http.cfg")
        .replace("http-request set-header X-Forwarded-For %[src]", "option forwardfor");
    let _haproxy = Proxy::haproxy(&net.router, &text);
    let (to, own) = (Family::V4.router(), Family::V4.client_a());
    assert_eq!(status(&step1(&net.a, to, &["X-Forwarded-For: 203.0.113.3"])), 400);
    assert_nothing_for(&net.router, own, "two headers");
    assert_nothing_for(&net.router, Family::V4.client_b(), "two headers");
    assert_eq!(status(&step1(&net.a, to, &[])), 200, "one header");
    assert!(admission_left(&net.router, own).is_some());
}

#[test]
fn with_caddy_in_front_each_client_gets_in_by_its_own_address() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = config(&["proxy_header: x-forwarded-for", "proxy_step2: http"]);
    let home = installation(&config, &[]).without_certificate();
    let _agent = home.start(&net.router);
    let _caddy = Proxy::caddy(&net.router, &example("Caddyfile"));
    the_whole_story(&net);
    let to = Family::V4.router();
    assert_eq!(status(&step1(&net.b, to, &["X-Forwarded-For: 198.51.100.9"])), 200);
    assert_nothing_for(&net.router, "198.51.100.9".parse().unwrap(), "a client's lie");
    assert!(admission_left(&net.router, Family::V4.client_b()).is_some());
}
