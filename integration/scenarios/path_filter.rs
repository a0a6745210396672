//! Requests that must not get past the kernel, and those that must not get past the process.

use std::io::Write;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::on_every_firewall;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, time_left};
use crate::handmade;
use crate::knocking::{STEP1_PORT, assert_step2_opens, form, request, step1};
use crate::probe::{GENEROUS, dial};
use crate::server::in_url;
use crate::topology::{Family, Topology};

on_every_firewall! {
    requests_whose_first_segment_does_not_match_reach_no_process,
    more_than_step1_max_bytes_over_one_connection_are_refused,
    more_segments_than_step1_segments_are_not_heard,
    python_requests_sends_two_segments_and_gets_in,
    the_longest_path_is_matched_to_its_last_character,
}

/// Sends the pieces as segments of one connection, 150 ms apart, and stays connected for a while.
/// Returns the sockets of the step-1 port that got beyond the handshake while it lasted.
fn send_segments(net: &Topology, to: IpAddr, pieces: &[&[u8]]) -> Vec<String> {
    let mut stream = dial(&net.a, (to, STEP1_PORT).into(), GENEROUS).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut seen = Vec::new();
    // By the clock: on a slow machine a look alone takes long, and a connection has only so much time.
    let watch = |time: Duration, seen: &mut Vec<String>| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            seen.extend(sockets(net));
            sleep(Duration::from_millis(30));
        }
    };
    for piece in pieces {
        stream.write_all(piece).unwrap();
        watch(Duration::from_millis(150), &mut seen);
    }
    watch(Duration::from_millis(300), &mut seen);
    seen.dedup();
    seen
}

/// The step-1 sockets of the router that are connections to a process.
fn sockets(net: &Topology) -> Vec<String> {
    let filter = format!("sport = :{STEP1_PORT}");
    let listing = net.router.run("ss", &["-Htan", &filter]).success().text();
    listing
        .lines()
        .filter(|l| !l.starts_with("LISTEN") && !l.starts_with("SYN-RECV"))
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn assert_nobody_admitted(net: &Topology, what: &str) {
    for family in Family::BOTH {
        assert_eq!(admission_left(&net.router, family.client_a()), None, "{what}");
        assert_eq!(time_left(&net.router, "ssh", family.client_a()), None, "{what}");
    }
}

fn requests_whose_first_segment_does_not_match_reach_no_process() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    let right = form("ssh", &http_key("ssh"));
    let shorter = &STEP1_PATH[..STEP1_PATH.len() - 1];
    let escaped = STEP1_PATH.replacen('f', "%66", 1);
    for family in Family::BOTH {
        let to = family.router();
        let absolute = format!("POST http://{}:{STEP1_PORT}{STEP1_PATH}", in_url(to));
        let starts = [
            format!("GET {STEP1_PATH}"),
            format!("post {STEP1_PATH}"),
            format!("Post {STEP1_PATH}"),
            format!("PUT {STEP1_PATH}"),
            format!(" POST {STEP1_PATH}"),
            format!("\r\nPOST {STEP1_PATH}"),
            "POST /".to_owned(),
            "POST /wrong".to_owned(),
            format!("POST {STEP2_PATH}"),
            format!("POST {shorter}"),
            format!("POST {STEP1_PATH}x"),
            format!("POST {STEP1_PATH}/"),
            format!("POST {STEP1_PATH}?a=b"),
            format!("POST {STEP1_PATH}\t"),
            format!("POST  {STEP1_PATH}"),
            format!("POST /{STEP1_PATH}"),
            format!("POST {}", STEP1_PATH.to_uppercase()),
            format!("POST {escaped}"),
            absolute,
            format!("POST /wrong HTTP/1.1\r\nX-Note: POST {STEP1_PATH}"),
            format!("POST /wrong?POST {STEP1_PATH}"),
        ];
        for start in starts {
            let got_in = send_segments(&net, to, &[request(&start, &right).as_bytes()]);
            assert_eq!(got_in, Vec::<String>::new(), "a connection reached the process: {start:?}");
            assert_nobody_admitted(&net, &start);
        }
    }
    step1(&net.a, Family::V4.router(), "ssh");
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "the right one still works");
}

#[test]
fn a_request_that_was_cut_in_the_path_or_is_too_long_reaches_no_process() {
    let net = handmade::topology();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    let right = form("ssh", &http_key("ssh"));
    let whole = request(&format!("POST {STEP1_PATH}"), &right);
    let (start, rest) = whole.split_at(12);
    let padding = "x".repeat(500);
    let padded =
        request(&format!("POST {STEP1_PATH}"), &right).replace("Host: x", &format!("Host: {padding}"));
    let got_in = send_segments(&net, to, &[padded.as_bytes()]);
    assert_eq!(got_in, Vec::<String>::new(), "a connection reached the process: more than 500 bytes");
    assert_nobody_admitted(&net, "more than 500 bytes");
    // A kernel that got no answer sends both pieces again as one, and that is a request like any other: only
    // by hand do they stay apart.
    handmade::send(&net.a, to, "", &[start, rest]);
    assert_nobody_admitted(&net, "cut in the path");
    handmade::send(&net.a, to, "", &[&right, &whole]);
    assert_nobody_admitted(&net, "the body first");
    handmade::send(&net.a, to, "", &[&whole]);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "the whole one is heard");
}

#[test]
fn a_second_request_in_the_same_connection_is_not_heard() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let mut agent = home.start(&net.router);
    let to = Family::V4.router();
    let start = format!("POST {STEP1_PATH}");
    let wrong = request(&start, &form("ssh", "not-the-key-of-x"));
    let right = request(&start, &form("ssh", &http_key("ssh")));
    send_segments(&net, to, &[format!("{wrong}{right}").as_bytes()]);
    assert_nobody_admitted(&net, "a second request in the same segment");
    send_segments(&net, to, &[wrong.as_bytes(), right.as_bytes()]);
    assert_nobody_admitted(&net, "a second request in the same connection");
    assert!(agent.is_alive());
    // Each alone is heard, so that what was refused above was refused for being the second.
    send_segments(&net, to, &[right.as_bytes()]);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "the right one alone is heard");
}

fn more_than_step1_max_bytes_over_one_connection_are_refused() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 30"]));
    let mut agent = home.start(&net.router);
    let to = Family::V4.router();
    let right = form("ssh", &http_key("ssh"));
    let head = |padding: usize| {
        let mut head = format!("POST {STEP1_PATH} HTTP/1.1\r\nContent-Length: {}\r\n", right.len());
        head += &format!("X: {}\r\n", "x".repeat(padding));
        head
    };
    let (first, middle) = (head(200), format!("Y: {}\r\n\r\n", "y".repeat(300)));
    send_segments(&net, to, &[first.as_bytes(), middle.as_bytes(), right.as_bytes()]);
    assert_nobody_admitted(&net, "three segments of more than 500 bytes together");
    assert!(agent.is_alive());
    let short = "Y: y\r\n\r\n";
    // On a busy machine the pauses between segments may outlast the kernel's memory of the first.
    let heard = || {
        send_segments(&net, to, &[first.as_bytes(), short.as_bytes(), right.as_bytes()]);
        admission_left(&net.router, Family::V4.client_a()).is_some()
    };
    assert!((0..3).any(|_| heard()), "three segments of less are heard");
}

fn more_segments_than_step1_segments_are_not_heard() {
    let net = handmade::topology();
    let config = Config::new(&["step1_segments: 1"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    let whole = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
    let (head, body) = whole.split_at(whole.find("app=").unwrap());
    handmade::send(&net.a, to, "", &[head, body]);
    assert_nobody_admitted(&net, "two segments where one is allowed");
    handmade::send(&net.a, to, "", &[&whole]);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "one segment is heard");
}

fn python_requests_sends_two_segments_and_gets_in() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        let to = in_url(family.router());
        let script = format!(
            "import requests, urllib3\n\
             urllib3.disable_warnings()\n\
             try:\n\
             \x20   requests.post('http://{to}:8080{STEP1_PATH}',\n\
             \x20       data={{'app': 'ssh', 'access_key': '{}'}}, timeout=1)\n\
             \x20   raise SystemExit('step 1 answered')\n\
             except requests.exceptions.ReadTimeout:\n\
             \x20   pass\n\
             r = requests.post('https://{to}:8443{STEP2_PATH}',\n\
             \x20   data={{'app': 'ssh', 'access_key': '{}'}}, timeout=5, verify=False)\n\
             print(r.status_code, r.text, end='')\n",
            http_key("ssh"),
            https_key("ssh")
        );
        let done = net.a.feed("python3", &["-"], script.as_bytes());
        assert!(
            !done.stderr.contains("No module named"),
            "the Python module `requests` is not there: apt-get install python3-requests\n{}",
            done.stderr
        );
        assert_eq!(done.success().text(), "200 OK\n");
        assert!(time_left(&net.router, "ssh", family.client_a()).is_some(), "a grant");
    }
}

fn the_longest_path_is_matched_to_its_last_character() {
    let net = Topology::new();
    let longest = format!("/{}", "abcdefghi/".repeat(10).trim_end_matches('/'));
    let longest = format!("{}z", &longest[..99]);
    assert_eq!(longest.len(), 100);
    let text = Config::ssh(&[]).text().replace(STEP1_PATH, &longest);
    let home = Installation::with_text(&text);
    let _agent = home.start(&net.router);
    let to = Family::V6.router();
    let right = form("ssh", &http_key("ssh"));
    let almost = format!("POST {}y", &longest[..99]);
    let got_in = send_segments(&net, to, &[request(&almost, &right).as_bytes()]);
    assert_eq!(got_in, Vec::<String>::new());
    assert_nobody_admitted(&net, "the last character differs");
    crate::knocking::post_step1(&net.a, to, &longest, &right);
    assert_step2_opens(&net.a, to, "ssh");
}
