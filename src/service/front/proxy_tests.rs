//! Both steps behind a proxy: whose request it is, and who may say so.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use super::fake::{Asked, enforcer, post, settings};
use super::{Reach, Step1Config, Step2Config, bind_step1, bind_step2, serve_step1, serve_step2};
use crate::config::{Proxy, ProxyHeader, ProxyStep2, Step1Reply};
use crate::service::certificate::{self_signed, server_config};
use crate::service::link::Answer;

const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const HEADERS: [ProxyHeader; 3] = [ProxyHeader::XRealIp, ProxyHeader::XForwardedFor, ProxyHeader::Forwarded];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    One,
    TwoPlain,
}

struct Gate {
    at: SocketAddr,
    asked: Asked,
}

fn start(at: At, header: ProxyHeader) -> Gate {
    let step2 = if at == At::TwoPlain { ProxyStep2::Http } else { ProxyStep2::Https };
    start_with(at == At::One, header, step2, None)
}

fn start_with(first: bool, header: ProxyHeader, step2: ProxyStep2, tls: Option<Arc<ServerConfig>>) -> Gate {
    let (link, asked) = enforcer(Answer::Opened);
    let mut settings = settings(Step1Reply::Http);
    let (http_port, https_port) = (NonZeroU16::MIN, NonZeroU16::MAX);
    let trusted = "127.0.0.1,::1".parse().unwrap();
    settings.global.proxy = Some(Proxy { http_port, https_port, trusted, header, step2 });
    let bind = if first { bind_step1 } else { bind_step2 };
    let ears = bind(0, Reach::Everybody).unwrap();
    let at = (PROXY, ears.local_addr().unwrap().port()).into();
    if first {
        let config = watch::channel(Arc::new(Step1Config::of(&settings))).1;
        tokio::spawn(serve_step1(ears, config, link));
    } else {
        let config = watch::channel(Arc::new(Step2Config::of(&settings))).1;
        tokio::spawn(serve_step2(ears, watch::channel(tls).1, config, link));
    }
    Gate { at, asked }
}

impl Gate {
    async fn connect(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    /// Sends it all and hears the answer; empty where there was none.
    async fn exchange(&self, from: Ipv4Addr, bytes: &[u8]) -> String {
        let mut stream = self.connect(from).await;
        let _ = stream.write_all(bytes).await;
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        String::from_utf8(heard).unwrap()
    }

    /// Sends it and tells the status and for whom the enforcer was asked.
    async fn outcome(&self, from: Ipv4Addr, bytes: &[u8]) -> (Option<u16>, Option<String>) {
        let before = self.asked.count();
        let heard = self.exchange(from, bytes).await;
        let status = heard.split(' ').nth(1).map(|status| status.parse().unwrap());
        let asked = (self.asked.count() > before).then(|| self.asked.last().client.to_string());
        (status, asked)
    }
}

fn path(at: At) -> &'static str {
    match at {
        At::One => "/one",
        At::TwoPlain => "/two",
    }
}

fn line(header: ProxyHeader, client: &str) -> String {
    let node = if client.contains(':') { format!("\"[{client}]\"") } else { client.to_owned() };
    match header {
        ProxyHeader::XRealIp => format!("X-Real-IP: {client}\r\n"),
        ProxyHeader::XForwardedFor => format!("X-Forwarded-For: {client}\r\n"),
        ProxyHeader::Forwarded => format!("Forwarded: for={node}\r\n"),
        ProxyHeader::ProxyProtocol => unreachable!(),
    }
}

#[tokio::test]
async fn every_header_with_and_without_a_trusted_proxy() {
    for at in [At::One, At::TwoPlain] {
        for header in HEADERS {
            let gate = start(at, header);
            let lines = |client: &str| line(header, client);
            let others: String =
                HEADERS.into_iter().filter(|&o| o != header).map(|o| line(o, "198.51.100.9")).collect();
            let good = lines("203.0.113.2");
            for (head, opens_for) in [
                (good.clone(), Some("203.0.113.2")),
                (lines("2001:db8::2"), Some("2001:db8::2")),
                (lines("::ffff:203.0.113.2"), Some("203.0.113.2")),
                (format!("{others}{good}"), Some("203.0.113.2")),
                (format!("{good}{others}"), Some("203.0.113.2")),
                (String::new(), None),
                (others.clone(), None),
                (format!("{good}{good}"), None),
                (format!("{}{good}", lines("198.51.100.9")), None),
                (format!("{good}{}", lines("198.51.100.9")), None),
                (good.to_uppercase().replace("FOR=", "for=") + &good, None),
                (lines(""), None),
                (lines("unknown"), None),
                (lines("_hidden"), None),
                (lines("203.0.113.2:80"), None),
                (lines("203.0.113.2 "), Some("203.0.113.2")),
                (lines("fe80::1%eth0"), None),
                (lines("127.0.0.1"), None),
                (lines("::1"), None),
                (lines("127.0.0.9"), None),
                (lines("0.0.0.0"), None),
                (lines("224.0.0.1"), None),
                (lines("203.0.113.2\0"), None),
                (lines("203.0.113.2\r\n 198.51.100.9"), None),
                (good.replace(": ", " : "), None),
                (good.replace(": ", ":\n "), None),
            ] {
                let request = post(path(at), &head);
                let got = gate.outcome(PROXY, request.as_bytes()).await;
                let status = if opens_for.is_some() { 200 } else { 400 };
                let want = (Some(status), opens_for.map(str::to_owned));
                assert_eq!(got, want, "{at:?} {header:?} {head:?}");
                let stranger = gate.outcome(STRANGER, request.as_bytes()).await;
                assert_eq!(stranger, (None, None), "not from the proxy: {at:?} {header:?} {head:?}");
            }
        }
    }
}

#[tokio::test]
async fn lists_of_hops_end_at_the_last_one_that_is_no_proxy() {
    for (header, lists) in [
        (
            ProxyHeader::XForwardedFor,
            ["198.51.100.9, 203.0.113.2", "203.0.113.2, 127.0.0.1", "203.0.113.2,::1"],
        ),
        (
            ProxyHeader::Forwarded,
            ["198.51.100.9, for=203.0.113.2", "203.0.113.2,for=127.0.0.1", "203.0.113.2, for=\"[::1]:80\""],
        ),
    ] {
        let gate = start(At::One, header);
        for list in lists {
            let head = match header {
                ProxyHeader::Forwarded => format!("Forwarded: for={list}\r\n"),
                _ => format!("X-Forwarded-For: {list}\r\n"),
            };
            let got = gate.outcome(PROXY, post("/one", &head).as_bytes()).await;
            assert_eq!(got, (Some(200), Some("203.0.113.2".to_owned())), "{list}");
        }
    }
}

#[tokio::test]
async fn a_header_says_nothing_where_the_proxy_protocol_is_expected_and_the_other_way_round() {
    let proxy_line = "PROXY TCP4 203.0.113.2 192.0.2.1 40000 80\r\n";
    for at in [At::One, At::TwoPlain] {
        let gate = start(at, ProxyHeader::ProxyProtocol);
        for header in HEADERS {
            let request = post(path(at), &line(header, "203.0.113.2"));
            assert_eq!(gate.outcome(PROXY, request.as_bytes()).await, (None, None));
            let gate = start(at, header);
            let both = format!("{proxy_line}{request}");
            assert_eq!(gate.outcome(PROXY, both.as_bytes()).await, (Some(400), None), "{header:?}");
        }
    }
}

fn version_2(what: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([what, family, 0, u8::try_from(addresses.len()).unwrap()]);
    bytes.extend(addresses);
    bytes
}

#[tokio::test]
async fn the_proxy_protocol_with_and_without_a_trusted_proxy() {
    let four = [203, 0, 113, 2, 192, 0, 2, 1, 0x9c, 0x40, 0, 80];
    let mapped = {
        let source = "::ffff:203.0.113.2".parse::<std::net::Ipv6Addr>().unwrap().octets();
        [&source[..], &source[..], &[0, 1, 0, 2]].concat()
    };
    let v1 = |text: &str| format!("PROXY {text}\r\n").into_bytes();
    let good = v1("TCP4 203.0.113.2 192.0.2.1 40000 80");
    let (v4, v6) = (Some("203.0.113.2"), Some("2001:db8::2"));
    for at in [At::One, At::TwoPlain] {
        let gate = start(at, ProxyHeader::ProxyProtocol);
        let request =
            post(path(at), "X-Real-IP: 198.51.100.9\r\nX-Forwarded-For: 198.51.100.9\r\n").into_bytes();
        for (front, opens_for) in [
            (good.clone(), v4),
            (v1("TCP6 2001:db8::2 2001:db8::1 40000 80"), v6),
            (v1("TCP6 ::ffff:203.0.113.2 ::ffff:192.0.2.1 40000 80"), v4),
            (version_2(0x21, 0x11, &four), v4),
            (version_2(0x21, 0x21, &mapped), v4),
            (Vec::new(), None),
            (v1("UNKNOWN"), None),
            (v1("UNKNOWN 203.0.113.2 192.0.2.1 40000 80"), None),
            (v1("TCP4 127.0.0.1 192.0.2.1 40000 80"), None),
            (v1("TCP4 203.0.113.2 192.0.2.1 40000"), None),
            (version_2(0x20, 0x11, &four), None),
            (version_2(0x20, 0x00, &[]), None),
            (version_2(0x21, 0x12, &four), None),
            (version_2(0x21, 0x31, &[0; 216]), None),
        ] {
            let bytes = [&front[..], &request].concat();
            let got = gate.outcome(PROXY, &bytes).await;
            let want = (opens_for.map(|_| 200), opens_for.map(str::to_owned));
            assert_eq!(got, want, "{at:?} {:?}", String::from_utf8_lossy(&front));
            assert_eq!(gate.outcome(STRANGER, &bytes).await, (None, None), "not from the proxy");
        }
        // One from the client behind the proxy's own is not a request.
        let twice = [&good[..], &v1("TCP4 198.51.100.9 192.0.2.1 1 2"), &request].concat();
        assert_eq!(gate.outcome(PROXY, &twice).await, (Some(400), None));
    }
}

#[tokio::test]
async fn a_proxy_line_may_come_in_pieces_and_not_at_all_for_long() {
    let gate = start(At::One, ProxyHeader::ProxyProtocol);
    let whole = format!("PROXY TCP4 203.0.113.2 192.0.2.1 40000 80\r\n{}", post("/one", ""));
    let mut stream = gate.connect(PROXY).await;
    stream.set_nodelay(true).unwrap();
    for piece in whole.as_bytes().chunks(9) {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");

    let begun = std::time::Instant::now();
    let mut idle = gate.connect(PROXY).await;
    idle.write_all(b"PROXY TCP4 ").await.unwrap();
    let _ = idle.read_to_end(&mut Vec::new()).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(gate.asked.count(), 1);
}

#[tokio::test]
async fn tls_of_the_client_comes_after_the_proxy_line() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};

    let made = self_signed(&["gate.example".to_owned()], 30, SystemTime::now()).unwrap();
    let tls = server_config(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
    let gate = start_with(false, ProxyHeader::ProxyProtocol, ProxyStep2::Https, Some(tls));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut raw = gate.connect(PROXY).await;
    raw.write_all(b"PROXY TCP4 203.0.113.2 192.0.2.1 40000 443\r\n").await.unwrap();
    let name = ServerName::try_from("gate.example").unwrap();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, raw).await.unwrap();
    tls.write_all(post("/two", "").as_bytes()).await.unwrap();
    let mut heard = String::new();
    tls.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
    assert_eq!(gate.asked.last().client.to_string(), "203.0.113.2");
    // Plain HTTP after the line is no TLS.
    let plain = format!("PROXY TCP4 203.0.113.2 192.0.2.1 40000 443\r\n{}", post("/two", ""));
    let heard = gate.exchange(PROXY, plain.as_bytes()).await;
    assert!(!heard.contains("HTTP") && gate.asked.count() == 1, "{heard:?}");
}

#[tokio::test]
async fn without_a_certificate_step_2_never_falls_back_to_plain_text() {
    let gate = start_with(false, ProxyHeader::XRealIp, ProxyStep2::Https, None);
    let request = post("/two", &line(ProxyHeader::XRealIp, "203.0.113.2"));
    assert_eq!(gate.outcome(PROXY, request.as_bytes()).await, (None, None));
}

#[tokio::test]
async fn a_connection_that_the_proxy_would_keep_carries_one_request_only() {
    for at in [At::One, At::TwoPlain] {
        let gate = start(at, ProxyHeader::XRealIp);
        let mine = post(path(at), "Connection: keep-alive\r\nX-Real-IP: 203.0.113.2\r\n");
        let other = post(path(at), "X-Real-IP: 198.51.100.9\r\n");
        let mut stream = gate.connect(PROXY).await;
        stream.write_all(mine.as_bytes()).await.unwrap();
        let mut heard = vec![0; 500];
        let length = stream.read(&mut heard).await.unwrap();
        let text = String::from_utf8_lossy(&heard[..length]).into_owned();
        assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("\r\nConnection: close\r\n"), "{text}");
        let _ = stream.write_all(other.as_bytes()).await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty() && gate.asked.count() == 1, "{at:?}: {:?}", String::from_utf8_lossy(&rest));

        // What one reader takes for a body and another for a request is neither.
        for smuggled in [
            format!("{mine}{other}"),
            mine.replace("Content-Length: 29", &format!("Content-Length: {}", 29 + other.len())) + &other,
            mine.replace("Content-Length: 29", "Content-Length: 29\r\nTransfer-Encoding: chunked"),
            mine.replace("Content-Length: 29", "Transfer-Encoding: chunked"),
            mine.replace("Content-Length: 29", "Content-Length: 0\r\nContent-Length: 29"),
            mine.replace(
                "Connection: keep-alive",
                "Connection: keep-alive, X-Real-IP\r\n X-Real-IP: 198.51.100.9",
            ),
        ] {
            let (status, asked) = gate.outcome(PROXY, smuggled.as_bytes()).await;
            assert_eq!(asked, None, "{at:?} {smuggled:?}");
            assert!(status.is_some_and(|status| status >= 400), "{at:?} {status:?} {smuggled:?}");
        }
    }
}

#[tokio::test]
async fn what_real_proxies_add_to_a_full_request_of_step_1_is_not_too_much() {
    let gate = start(At::One, ProxyHeader::XRealIp);
    // More than step1_max_bytes, which bounds what the client sends and not what the proxy makes of it.
    let added = "X-Real-IP: 203.0.113.2\r\nX-Forwarded-For: 203.0.113.2\r\nX-Forwarded-Proto: http\r\n\
                 X-Forwarded-Host: gate.example\r\nX-Forwarded-Port: 80\r\nX-Forwarded-Server: proxy.example\r\n\
                 Forwarded: for=203.0.113.2;host=gate.example;proto=http\r\nVia: 1.1 proxy.example\r\n\
                 X-Request-ID: 0123456789abcdef0123456789abcdef\r\nX-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678\r\n\
                 CF-Ray: 230b030023ae2822-SJC\r\nCF-Visitor: {\"scheme\":\"http\"}\r\nConnection: close\r\n";
    let request = post("/one", added);
    assert!(request.len() > 500);
    assert_eq!(gate.outcome(PROXY, request.as_bytes()).await, (Some(200), Some("203.0.113.2".to_owned())));
    let far_too_much = post("/one", &format!("{added}X: {}\r\n", "x".repeat(4_000)));
    assert_eq!(gate.outcome(PROXY, far_too_much.as_bytes()).await, (Some(431), None));
}

#[tokio::test]
async fn many_connections_of_the_proxy_do_not_push_each_other_out() {
    let gate = start(At::TwoPlain, ProxyHeader::XRealIp);
    let mut first = gate.connect(PROXY).await;
    let request = post("/two", &line(ProxyHeader::XRealIp, "203.0.113.2"));
    let (head, tail) = request.split_at(30);
    first.write_all(head.as_bytes()).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(gate.connect(PROXY).await);
    }
    for _ in 0..300 {
        drop(gate.connect(STRANGER).await);
    }
    first.write_all(tail.as_bytes()).await.unwrap();
    let mut heard = String::new();
    first.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
}
