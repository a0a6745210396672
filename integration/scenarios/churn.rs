//! Who opens and drops connections all the time, from many addresses of a network, keeps nobody from either step.

use std::net::{IpAddr, SocketAddr};
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, http_key, https_key};
use crate::firewall::add_elements;
use crate::knocking::{STEP1_PORT, STEP2_PORT, form, request, step1};
use crate::namespace::Namespace;
use crate::strangers::{Stranger, connect_and_leave_open};
use crate::topology::{Family, Topology};

/// A client at the end of a long line: so much passes before what it says next, in s.
const LINE: &str = "0.4";
/// Of each of three who churn; enough to have all seats taken anew several times while the client waits.
const PACE: Duration = Duration::from_millis(2);
/// How many of ten of its knocks succeed at least; the machine is busy with those who churn.
const ENOUGH: usize = 8;

/// The first words of the answers to ten requests, over TLS or not.
fn slowly(from: &Namespace, to: SocketAddr, tls: bool, request: &str) -> Vec<String> {
    let wrapped = if tls { "ssl._create_unverified_context().wrap_socket(raw)" } else { "raw" };
    let script = format!(
        "import socket, ssl, sys, threading, time\n\
         def once():\n\
         \x20   try:\n\
         \x20       raw = socket.create_connection(('{}', {}), timeout=20)\n\
         \x20       time.sleep({LINE})\n\
         \x20       stream = {wrapped}\n\
         \x20       time.sleep({LINE})\n\
         \x20       stream.sendall({request:?}.encode())\n\
         \x20       print(repr(stream.recv(1000)[:12]), flush=True)\n\
         \x20   except OSError as error:\n\
         \x20       print(repr(error), flush=True)\n\
         for _ in range(10):\n\
         \x20   once()\n",
        to.ip(),
        to.port()
    );
    from.run("python3", &["-c", &script]).success().text().lines().map(str::to_owned).collect()
}

/// Ten requests of client A, while strangers come to the port; how many strangers did.
fn beside_churn(
    net: &Topology,
    to: SocketAddr,
    strangers: u32,
    tls: bool,
    request: &str,
) -> (Vec<String>, u32) {
    let (stop, came) = (AtomicBool::new(false), AtomicU32::new(0));
    let family = Family::V6;
    let gate = SocketAddr::new(family.router(), to.port());
    let heard = thread::scope(|scope| {
        for first in 0..3 {
            let (stop, came) = (&stop, &came);
            scope.spawn(move || {
                net.b.enter(|| {
                    let mut open = Vec::new();
                    for number in (first..).step_by(3).take_while(|_| !stop.load(Ordering::Relaxed)) {
                        let from: IpAddr = Stranger(number % strangers).address(family);
                        if let Some(stream) = connect_and_leave_open(from, gate) {
                            came.fetch_add(1, Ordering::Relaxed);
                            open.push(stream);
                        }
                        if open.len() > 500 {
                            open.clear();
                        }
                        thread::sleep(PACE);
                    }
                });
            });
        }
        let end = Instant::now() + Duration::from_secs(60);
        while came.load(Ordering::Relaxed) < 600 && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        let heard = panic::catch_unwind(|| slowly(&net.a, to, tls, request));
        stop.store(true, Ordering::Relaxed);
        heard.unwrap_or_else(|reason| panic::resume_unwind(reason))
    });
    (heard, came.into_inner())
}

fn config(more: &[&str]) -> Config {
    let all = [&["lockout: off", "step1_2_rate_limit_per_minute: 1000"], more].concat();
    Config::new(&all).app("ssh", "2222", "tcp", "local", &["step2_https_duration: 120"])
}

fn assert_heard(heard: &[String], came: u32, began: Instant) {
    let well = heard.iter().filter(|line| line.contains("HTTP/1.1 ")).count();
    let rate = f64::from(came) / began.elapsed().as_secs_f64();
    assert!(rate > 600.0, "hardly a crowd: {rate:.0} a second");
    assert!(well >= ENOUGH, "{well} of 10 beside {rate:.0} strangers a second: {heard:?}");
}

#[test]
fn strangers_who_come_and_go_without_a_word_keep_nobody_from_a_step_1_that_answers() {
    let net = Topology::new();
    Stranger::settle(&net);
    let home = Installation::new(&config(&["step1_reply: http"]));
    let _agent = home.start(&net.router);
    let began = Instant::now();
    let right = request(&format!("POST {STEP1_PATH}"), &form("ssh", &http_key("ssh")));
    let to = (Family::V4.router(), STEP1_PORT).into();
    let (heard, came) = beside_churn(&net, to, 60_000, false, &right);
    assert_heard(&heard, came, began);
}

#[test]
fn admitted_addresses_that_come_and_go_without_a_word_keep_nobody_from_step_2() {
    let net = Topology::new();
    Stranger::settle(&net);
    let home = Installation::new(&config(&[]));
    let _agent = home.start(&net.router);
    let admitted: Vec<String> = (0..80).map(|n| Stranger(n).address(Family::V6).to_string()).collect();
    add_elements(&net.router, "step2_6", &admitted, 300);
    step1(&net.a, Family::V4.router(), "ssh");
    let began = Instant::now();
    // One that leaves the client admitted: the front answers by itself.
    let other = request("POST /another-second-step", &form("ssh", &https_key("ssh")));
    let to = (Family::V4.router(), STEP2_PORT).into();
    let (heard, came) = beside_churn(&net, to, 80, true, &other);
    assert_heard(&heard, came, began);
}
