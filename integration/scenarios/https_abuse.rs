//! What step 2 does with clients that do not mean well.

use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::{Config, STEP2_PATH, https_key};
use crate::firewall::time_left;
use crate::knocking::{STEP2_PORT, assert_step2_opens, form, knock, post_step2, request, step1, step2};
use crate::probe::{GENEROUS, assert_silent, dial};
use crate::server::{Habit, Server};
use crate::tls::{Tls, exchange};
use crate::topology::{Family, Topology};

/// All of a request is over within this: the daemon's own 5 s, and time for slow machines.
const WHOLE: Duration = Duration::from_secs(8);

fn set_up() -> (Topology, Installation) {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 120", "duration: 60"]));
    (net, home)
}

/// A request to step 2 with these header lines (each ending in CRLF) and body.
fn raw(headers: &str, body: &str) -> Vec<u8> {
    format!("POST {STEP2_PATH} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn malformed_forms_are_refused_and_open_nothing() {
    let (net, home) = set_up();
    let mut agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    step1(&net.a, to, "ssh");
    let key = https_key("ssh");
    let right = form("ssh", &key);
    let mut bodies: Vec<Vec<u8>> = [
        String::new(),
        "app=ssh".into(),
        format!("access_key={key}"),
        "app=&access_key=".into(),
        format!("app=&access_key={key}"),
        "app=ssh&access_key=".into(),
        format!("{right}&app=ssh"),
        format!("{right}&access_key={key}"),
        format!("{right}&unknown=1"),
        format!("{right}&"),
        format!("{right}&token=1&token=2"),
        format!("app=ssh;access_key={key}"),
        format!("app=ssh&access_key={key}%"),
        format!("app=ssh&access_key={key}%zz"),
        format!("app=ssh&access_key={key}%00"),
        format!("app=ssh&access_key={}", "k".repeat(51)),
        format!("app=ssh&access_key={}", "k".repeat(900)),
        format!("app={}&access_key={key}", "a".repeat(900)),
        "app=ssh&access_key=short".into(),
        "app=ssh&access_key=%ff%fe%fd%fc%fb%fa%f9%f8%f7%f6%f5".into(),
        format!("{{\"app\": \"ssh\", \"access_key\": \"{key}\"}}"),
    ]
    .map(String::into_bytes)
    .to_vec();
    bodies.push(b"app=ssh&access_key=\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf7\xf6\xf5\xf4".to_vec());
    for body in bodies {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let mut whole = raw(&format!("Content-Length: {}\r\n", body.len()), "");
        whole.extend(&body);
        let reply = exchange(&net.a, to, &whole).unwrap_or_else(|| panic!("no answer to {shown:?}"));
        assert!([400, 403, 411, 413, 415].contains(&reply.status), "{shown:?}: {}", reply.head);
        assert_eq!(time_left(&net.router, "ssh", client), None, "{shown:?}");
    }
    assert!(agent.is_alive());
    assert_step2_opens(&net.a, to, "ssh");
}

#[test]
fn malformed_framing_is_refused_and_opens_nothing() {
    let (net, home) = set_up();
    let mut agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    step1(&net.a, to, "ssh");
    let right = form("ssh", &https_key("ssh"));
    let length = right.len();
    let chunked = format!("{length:x}\r\n{right}\r\n0\r\n\r\n");
    let right_length = format!("Content-Length: {length}\r\n");
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("chunked", raw("Transfer-Encoding: chunked\r\n", &chunked), &[400, 411, 501]),
        (
            "chunked and a length",
            raw(&format!("Transfer-Encoding: chunked\r\n{right_length}"), &right),
            &[400, 411, 501],
        ),
        ("two lengths", raw(&format!("{right_length}Content-Length: {}\r\n", length + 1), &right), &[400]),
        ("a list of lengths", raw(&format!("Content-Length: {length}, {}\r\n", length + 1), &right), &[400]),
        ("a negative length", raw(&format!("Content-Length: -{length}\r\n"), &right), &[400]),
        ("a signed length", raw(&format!("Content-Length: +{length}\r\n"), &right), &[400]),
        ("a hexadecimal length", raw(&format!("Content-Length: 0x{length:x}\r\n"), &right), &[400]),
        ("an endless length", raw("Content-Length: 99999999999999999999999999\r\n", &right), &[400, 413]),
        ("a huge body", raw("Content-Length: 300000000\r\n", &right), &[413]),
        ("a body over 1 KiB", raw("Content-Length: 2000\r\n", &"x".repeat(2000)), &[413]),
        ("no length", raw("", &right), &[400, 411]),
        (
            "a head over 4 KiB",
            raw(&format!("X: {}\r\n{right_length}", "x".repeat(5000)), &right),
            &[400, 413, 431],
        ),
        (
            "a hundred headers",
            raw(&format!("{}{right_length}", "X: x\r\n".repeat(100)), &right),
            &[400, 413, 431],
        ),
        ("a folded header", raw(&format!("X: x\r\n y\r\n{right_length}"), &right), &[400]),
        ("a bare name", raw(&format!("nonsense\r\n{right_length}"), &right), &[400]),
        ("GET", request(&format!("GET {STEP2_PATH}"), &right).into_bytes(), &[405]),
        ("lower case", request(&format!("post {STEP2_PATH}"), &right).into_bytes(), &[400, 405]),
        ("another path", request("POST /another", &right).into_bytes(), &[404]),
        ("a longer path", request(&format!("POST {STEP2_PATH}/x"), &right).into_bytes(), &[404]),
        ("a path and a query", request(&format!("POST {STEP2_PATH}?a"), &right).into_bytes(), &[400, 404]),
        ("garbage", b"\x00\x01\x02\x03garbage\r\n\r\n".to_vec(), &[400]),
    ];
    for (what, bytes, expected) in cases {
        let reply = exchange(&net.a, to, &bytes).unwrap_or_else(|| panic!("no answer to {what}"));
        assert!(expected.contains(&reply.status), "{what}: {}", reply.head);
        assert_eq!(time_left(&net.router, "ssh", client), None, "{what}");
    }
    assert!(agent.is_alive());
    let whole = request(&format!("POST {STEP2_PATH}"), &right);
    let reply = exchange(&net.a, to, whole.as_bytes()).expect("an answer");
    assert_eq!((reply.status, reply.body.as_str()), (200, "OK\n"), "the same by hand, but right");
}

#[test]
fn other_protocols_on_the_step_2_port_get_no_service() {
    let (net, home) = set_up();
    let mut agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    step1(&net.a, to, "ssh");
    let right = form("ssh", &https_key("ssh"));

    let mut preface = Tls::connect(&net.a, to, &["-alpn", "h2"]);
    preface.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00");
    let answer = String::from_utf8_lossy(&preface.rest(WHOLE)).into_owned();
    assert!(!answer.contains(" 200 "), "{answer}");

    let plain = request(&format!("POST {STEP2_PATH}"), &right);
    let answer = net.a.feed("nc", &["-w", "6", &to.to_string(), &STEP2_PORT.to_string()], plain.as_bytes());
    assert!(!answer.text().contains("200 OK"), "{}", answer.text());

    let old = ["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"];
    assert_eq!(post_step2(&net.a, to, STEP2_PATH, &right, &old), None, "TLS 1.1");
    assert_eq!(time_left(&net.router, "ssh", client), None);
    assert!(agent.is_alive());

    let reply = post_step2(&net.a, to, STEP2_PATH, &right, &["--tls-max", "1.2"]);
    assert_eq!(reply.expect("TLS 1.2").status, 200);
    let reply = post_step2(&net.a, to, STEP2_PATH, &right, &["--tlsv1.3"]);
    assert_eq!(reply.map(|r| [200, 403].contains(&r.status)), Some(true), "TLS 1.3 is spoken");
}

#[test]
fn one_connection_carries_one_request() {
    let (net, home) = set_up();
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let start = format!("POST {STEP2_PATH}");
    let wrong = request(&start, &form("ssh", "not-the-key-of-anything"));
    let right = request(&start, &form("ssh", &https_key("ssh")));
    let mut connection = Tls::connect(&net.a, to, &[]);
    connection.send(format!("{wrong}{right}").as_bytes());
    let answers = String::from_utf8_lossy(&connection.rest(WHOLE)).into_owned();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(!answers.contains(" 200 "), "{answers}");
    assert_eq!(time_left(&net.router, "ssh", Family::V4.client_a()), None);
}

#[test]
fn two_hundred_idle_connections_of_one_address_do_not_keep_others_out() {
    let (net, home) = set_up();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let mut agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let idle: Vec<TcpStream> = net.a.enter(|| {
        (0..200)
            .filter_map(|_| TcpStream::connect_timeout(&(to, STEP2_PORT).into(), Duration::from_secs(1)).ok())
            .collect()
    });
    assert!(!idle.is_empty(), "at least a few were accepted");
    let began = Instant::now();
    knock(&net.b, to, "ssh");
    assert!(began.elapsed() < Duration::from_secs(6), "client B waited for {:?}", began.elapsed());
    assert!(agent.is_alive());
    drop(idle);
    sleep(Duration::from_millis(500));
    step1(&net.a, to, "ssh");
    assert_step2_opens(&net.a, to, "ssh");
}

#[test]
fn two_hundred_idle_tls_sessions_of_one_address_do_not_keep_others_out() {
    let (net, home) = set_up();
    let mut agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let script = format!(
        "import socket, ssl, threading, time\n\
         context = ssl._create_unverified_context()\n\
         held = []\n\
         def idle():\n\
         \x20   try:\n\
         \x20       raw = socket.create_connection(('{to}', {STEP2_PORT}), timeout=2)\n\
         \x20       held.append(context.wrap_socket(raw))\n\
         \x20   except OSError:\n\
         \x20       pass\n\
         threads = [threading.Thread(target=idle) for _ in range(200)]\n\
         [t.start() for t in threads]\n\
         [t.join() for t in threads]\n\
         print(len(held), flush=True)\n\
         time.sleep(20)\n"
    );
    let mut command = std::process::Command::new("python3");
    command.arg("-c").arg(&script).stdout(std::process::Stdio::piped());
    let mut attacker = net.a.background(command);
    let mut first_line = String::new();
    let output = attacker.0.stdout.take().unwrap();
    // The attack runs while client B knocks; its count comes when all 200 have succeeded or failed.
    knock(&net.b, to, "ssh");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut first_line).unwrap();
    let shaken: usize = first_line.trim().parse().unwrap();
    assert!(shaken > 0, "the attack was one");
    let filter = format!("sport = :{STEP2_PORT}");
    let open = net.router.run("ss", &["-Htn", "state", "established", &filter]).success().text();
    assert!(open.lines().count() <= 32, "a few sessions per address are held:\n{open}");
    // Who holds connections pushes out his own: even he can still ask.
    assert_step2_opens(&net.a, to, "ssh");
    assert!(agent.is_alive());
}

#[test]
fn slow_senders_are_cut_off_and_delay_nobody() {
    let (net, home) = set_up();
    let mut agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let whole = request(&format!("POST {STEP2_PATH}"), &form("ssh", &https_key("ssh")));
    let mut slow = Tls::connect(&net.a, to, &[]);
    let mut header_only = Tls::connect(&net.a, to, &[]);
    header_only.send(whole.split("app=").next().unwrap().as_bytes());
    let silent = dial(&net.a, (to, STEP2_PORT).into(), GENEROUS).unwrap();
    let began = Instant::now();
    for byte in whole.as_bytes().iter().take(10) {
        slow.send(&[*byte]);
        sleep(Duration::from_millis(100));
    }
    let asked = Instant::now();
    knock(&net.b, to, "ssh");
    assert!(asked.elapsed() < Duration::from_secs(4), "client B waited for {:?}", asked.elapsed());
    while began.elapsed() < Duration::from_secs(4) {
        slow.send(b"x");
        sleep(Duration::from_millis(300));
    }
    for (what, connection) in [("slow", slow), ("header only", header_only)] {
        let answer = String::from_utf8_lossy(&connection.rest(WHOLE)).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408") || answer.starts_with("HTTP/1.1 400"),
            "{what}: {answer}"
        );
        assert!(began.elapsed() < WHOLE, "{what} lasted {:?}", began.elapsed());
    }
    silent.set_read_timeout(Some(WHOLE)).unwrap();
    let end = std::io::Read::read(&mut &silent, &mut [0; 64]);
    assert!(matches!(end, Ok(0) | Err(_)) && began.elapsed() < WHOLE, "{end:?} after {:?}", began.elapsed());
    assert_eq!(time_left(&net.router, "ssh", Family::V4.client_a()), None);
    assert!(agent.is_alive());
    step1(&net.a, to, "ssh");
    assert_step2_opens(&net.a, to, "ssh");
}

#[test]
fn too_many_requests_are_turned_away_for_that_address_only() {
    let net = Topology::new();
    let config = Config::new(&["step1_2_rate_limit_per_minute: 5"]).app(
        "ssh",
        "2222",
        "tcp",
        "local",
        &["step2_https_duration: 120"],
    );
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let statuses: Vec<u16> = (0..8)
        .filter_map(|_| post_step2(&net.a, to, STEP2_PATH, &form("ssh", "not-the-key-of-anything"), &[]))
        .map(|reply| reply.status)
        .collect();
    assert_eq!(statuses.first(), Some(&403), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    assert_eq!(step2(&net.a, to, "ssh").map(|r| r.status), Some(429), "the right key as well");
    assert_silent(&net.a, to, 2222);
    knock(&net.b, to, "ssh");
}
