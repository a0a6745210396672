use super::*;
use crate::config::Step1Reply;
use crate::service::certificate::{self_signed, server_config};
use crate::service::front::fake::{Asked, FORM, enforcer, post, settings};
use crate::service::front::{Reach, bind_step2};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

struct Gate {
    at: SocketAddr,
    roots: RootCertStore,
    asked: Asked,
}

fn start(answer: Answer) -> Gate {
    let (link, asked) = enforcer(answer);
    let made = self_signed(&["gate.example".to_owned()], 30, SystemTime::now()).unwrap();
    let tls = server_config(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap()).unwrap();
    let listener = bind_step2(0, Reach::Everybody).unwrap();
    let at = ([127, 0, 0, 1], listener.local_addr().unwrap().port()).into();
    let (_, config) = watch::channel(Arc::new(Step2Config::of(&settings(Step1Reply::Silent))));
    tokio::spawn(serve_step2(listener, watch::channel(Some(tls)).1, config, link));
    Gate { at, roots, asked }
}

impl Gate {
    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }

    /// A connection from another address of this host.
    async fn raw_from(&self, from: [u8; 4]) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(self.at).await.unwrap()
    }

    async fn handshake(
        &self,
        raw: TcpStream,
        versions: &[&'static rustls::SupportedProtocolVersion],
        alpn: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("gate.example").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, raw).await
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        self.handshake(self.raw().await, rustls::ALL_VERSIONS, &[]).await.unwrap()
    }

    /// Sends and hears the answer to its orderly end.
    async fn exchange(&self, request: &str) -> String {
        let mut tls = self.tls().await;
        tls.write_all(request.as_bytes()).await.unwrap();
        hear(&mut tls).await
    }
}

/// The answer; a missing `close_notify` or a reset would be an error.
async fn hear(tls: &mut TlsStream<TcpStream>) -> String {
    let mut heard = String::new();
    tls.read_to_string(&mut heard).await.unwrap();
    heard
}

#[tokio::test]
async fn a_good_request_is_asked_and_answered_in_both_versions_of_tls() {
    let gate = start(Answer::Opened);
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut tls = gate.handshake(gate.raw().await, &[version], &["http/1.1"]).await.unwrap();
        tls.write_all(post("/two", "").as_bytes()).await.unwrap();
        let heard = hear(&mut tls).await;
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.ends_with("\r\n\r\nOK\n"), "{heard}");
        assert!(heard.contains("\r\nConnection: close\r\n"));
    }
    assert_eq!(gate.asked.count(), 2);
    assert_eq!(gate.asked.last().step, Step::Two);
}

#[tokio::test]
async fn every_answer_has_its_status() {
    for (answer, start_of_heard) in [
        (Answer::NeedToken, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: TOTP\r\n"),
        (Answer::Refused, "HTTP/1.1 403 Forbidden\r\n"),
        (Answer::TooMany, "HTTP/1.1 429 Too Many Requests\r\n"),
        (Answer::Unavailable, "HTTP/1.1 503 Service Unavailable\r\n"),
    ] {
        let heard = start(answer).exchange(&post("/two", "")).await;
        assert!(heard.starts_with(start_of_heard), "{heard}");
    }
}

#[tokio::test]
async fn what_is_no_knock_is_told_so_and_nobody_is_asked() {
    let gate = start(Answer::Opened);
    let good = post("/two", "");
    for (request, status) in [
        (good.replace("/two", "/one"), 404),
        (good.replace("/two", "/"), 404),
        (good.replace("POST", "GET"), 405),
        (good.replace("Content-Length: 29\r\n", ""), 411),
        (post("/two", "Content-Length: 29\r\n"), 400),
        (post("/two", "Transfer-Encoding: chunked\r\n"), 400),
        (good.replace("Length: 29", "Length: 1025"), 413),
        (good.replace("Length: 29", "Length: 300000000"), 413),
        (post("/two", "Content-Type: application/json\r\n"), 415),
        (post("/two", &"A: b\r\n".repeat(40)), 431),
        (post("/two", &format!("A: {}\r\n", "x".repeat(4_096))), 431),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        (good.replace("ssh", "s%FF"), 400),
        (good.replace("app=ssh", "app=   "), 400),
        (format!("{good}{good}"), 400),
        (good.replace("\r\n", "\n"), 400),
    ] {
        let heard = gate.exchange(&request).await;
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {heard}");
    }
    assert_eq!(gate.asked.count(), 0);
}

#[tokio::test]
async fn whoever_sends_far_too_much_still_hears_the_answer() {
    let gate = start(Answer::Opened);
    let mut tls = gate.tls().await;
    let head = post("/two", "").replace("Length: 29", "Length: 102400");
    tls.write_all(head.as_bytes()).await.unwrap();
    let _ = tls.write_all(&vec![b'x'; 102_400]).await;
    let heard = hear(&mut tls).await;
    assert!(heard.starts_with("HTTP/1.1 413 "), "{heard}");
}

#[tokio::test]
async fn a_request_in_many_records_is_one_request() {
    let gate = start(Answer::Opened);
    let mut tls = gate.tls().await;
    for piece in post("/two", "").as_bytes().chunks(10) {
        tls.write_all(piece).await.unwrap();
        tls.flush().await.unwrap();
    }
    assert!(hear(&mut tls).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(gate.asked.count(), 1);
}

#[tokio::test]
async fn plain_http_and_http_2_get_no_service_and_no_reset() {
    let gate = start(Answer::Opened);
    for plain in [post("/two", ""), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "x".repeat(20_000)] {
        let mut raw = gate.raw().await;
        raw.write_all(plain.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        raw.read_to_end(&mut heard).await.unwrap();
        assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
    }
    let refused = gate.handshake(gate.raw().await, rustls::ALL_VERSIONS, &["h2"]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(gate.asked.count(), 0);
}

#[tokio::test]
async fn slow_senders_end_within_five_seconds() {
    let gate = start(Answer::Opened);
    let begun = Instant::now();
    let (mut silent, mut idle, mut slow) = (gate.raw().await, gate.tls().await, gate.tls().await);
    slow.write_all(&post("/two", "").as_bytes()[..30]).await.unwrap();
    let mut nothing = Vec::new();
    let (end, idle_heard, slow_heard) =
        tokio::join!(silent.read_to_end(&mut nothing), hear(&mut idle), hear(&mut slow));
    assert!(end.is_ok() && nothing.is_empty());
    assert!(idle_heard.starts_with("HTTP/1.1 408 ") && slow_heard.starts_with("HTTP/1.1 408 "));
    assert!(begun.elapsed() < Duration::from_millis(5_500), "{:?}", begun.elapsed());
    assert_eq!(gate.asked.count(), 0);
}

#[tokio::test]
async fn two_hundred_idle_connections_of_one_address_keep_nobody_out() {
    let gate = start(Answer::Opened);
    let mut idle = Vec::new();
    for _ in 0..200 {
        let raw = gate.raw().await;
        idle.push(raw);
    }
    for from in [[127, 0, 0, 2], [127, 0, 0, 1]] {
        let begun = Instant::now();
        let mut tls = gate.handshake(gate.raw_from(from).await, rustls::ALL_VERSIONS, &[]).await.unwrap();
        tls.write_all(post("/two", "").as_bytes()).await.unwrap();
        assert!(hear(&mut tls).await.starts_with("HTTP/1.1 200 "), "{from:?}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    let mut first = idle.swap_remove(0);
    let early = tokio::time::timeout(Duration::from_secs(1), first.read(&mut [0; 16])).await;
    assert!(early.is_ok(), "the oldest is closed at once");
}

#[tokio::test]
async fn without_an_enforcer_it_says_unavailable() {
    let mut gate = start(Answer::Opened);
    let (link, asks) = crate::service::link::pair();
    drop(asks);
    let made = self_signed(&["gate.example".to_owned()], 30, SystemTime::now()).unwrap();
    let tls = server_config(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
    gate.roots.add(CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap()).unwrap();
    let listener = bind_step2(0, Reach::Everybody).unwrap();
    gate.at.set_port(listener.local_addr().unwrap().port());
    let (_, config) = watch::channel(Arc::new(Step2Config::of(&settings(Step1Reply::Silent))));
    tokio::spawn(serve_step2(listener, watch::channel(Some(tls)).1, config, link));
    assert!(gate.exchange(&post("/two", "")).await.starts_with("HTTP/1.1 503 "));
    assert!(FORM.len() == 29, "the requests above replace this length");
}
