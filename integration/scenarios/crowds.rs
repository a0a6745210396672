//! Many at once: operators, clients who knock, and fronts that die meanwhile.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::Installation;
use crate::configuration::Config;
use crate::firewall::{elements, flush_host, is_guarded};
use crate::front;
use crate::namespace::Namespace;
use crate::process::Stop;
use crate::strangers::{Stranger, knock_from};
use crate::topology::{Family, Topology};

/// Asks the daemon as the command line does, without a process for each question.
fn ask(home: &Installation, request: &str) -> String {
    let mut socket = UnixStream::connect(home.path("run/control.sock")).unwrap();
    socket.write_all(format!("{request}\n").as_bytes()).unwrap();
    let mut reply = String::new();
    BufReader::new(socket).read_line(&mut reply).unwrap();
    reply
}

fn granted(host: &Namespace) -> BTreeSet<String> {
    elements(host, "app_ssh_4").into_iter().map(|element| element.key).collect()
}

/// Does it for each number below `count`, on so many threads at once.
fn at_once(threads: usize, count: u32, work: impl Fn(u32) + Sync) {
    let next = AtomicUsize::new(0);
    scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Ok(number) = u32::try_from(next.fetch_add(1, Ordering::Relaxed)) {
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

#[test]
fn a_thousand_grants_and_revocations_at_once_are_all_carried_out() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let _agent = home.start(&net.router);
    let address = |number: u32| Stranger(number).address(Family::V4).to_string();
    let say = |verb: &str, number: u32| {
        let more = if verb == "grant" { ",\"seconds\":600" } else { "" };
        let address = address(number);
        let reply =
            ask(&home, &format!("{{\"verb\":\"{verb}\",\"app\":\"ssh\",\"address\":\"{address}\"{more}}}"));
        assert!(reply.contains("\"done\""), "{verb} {address}: {reply}");
    };
    at_once(100, 500, |number| say("grant", number));
    // Half of what is there goes while as much again comes.
    at_once(100, 1_000, |number| match number % 2 {
        0 => say("revoke", number / 2),
        _ => say("grant", 500 + number / 2),
    });
    let expected: BTreeSet<String> = (500..1_000).map(address).collect();
    assert_eq!(granted(&net.router), expected);
    flush_host(&net.router);
    let end = Instant::now() + Duration::from_secs(20);
    while !is_guarded(&net.router) {
        assert!(Instant::now() < end, "the guard does not come back");
        sleep(Duration::from_millis(10));
    }
    assert_eq!(granted(&net.router), expected, "agent and kernel agree");
}

#[test]
fn a_hundred_knock_at_once_and_all_of_them_get_in() {
    let net = Topology::new();
    Stranger::settle(&net);
    let home = Installation::new(&Config::ssh(&["duration: 600", "step2_https_duration: 60"]));
    let _agent = home.start(&net.router);
    let opened = AtomicUsize::new(0);
    at_once(100, 120, |number| {
        let opens =
            net.b.enter(|| knock_from(Stranger(number).address(Family::V4), Family::V4.router(), "ssh"));
        opened.fetch_add(usize::from(opens), Ordering::Relaxed);
    });
    assert_eq!(opened.into_inner(), 120);
    let expected: BTreeSet<String> = (0..120).map(|n| Stranger(n).address(Family::V4).to_string()).collect();
    assert_eq!(granted(&net.router), expected);
}

#[test]
fn fronts_that_are_killed_in_the_middle_of_knocks_take_nothing_along_and_keep_nobody_out() {
    let net = Topology::new();
    Stranger::settle(&net);
    let home = Installation::new(&Config::ssh(&["duration: 600", "step2_https_duration: 60"]));
    let mut agent = home.start(&net.router);
    let stays: BTreeSet<String> = (100..150).map(|n| Stranger(n).address(Family::V4).to_string()).collect();
    for address in &stays {
        let request =
            format!("{{\"verb\":\"grant\",\"app\":\"ssh\",\"address\":\"{address}\",\"seconds\":600}}");
        assert!(ask(&home, &request).contains("\"done\""));
    }
    let over = AtomicBool::new(false);
    let killed = scope(|scope| {
        let _stop = Stop(&over);
        let killing = scope.spawn(|| {
            let mut killed = 0;
            while !over.load(Ordering::Relaxed) && killed < 5 {
                // While several clients are at any point of their two steps.
                if let Some(pid) = front::pid_of(&agent) {
                    killed += usize::from(
                        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).is_ok(),
                    );
                }
                sleep(Duration::from_millis(400));
            }
            killed
        });
        at_once(8, 16, |number| {
            let end = Instant::now() + Duration::from_secs(60);
            let knocks = || knock_from(Stranger(number).address(Family::V4), Family::V4.router(), "ssh");
            while !net.b.enter(knocks) {
                assert!(Instant::now() < end, "client {number} does not get in\n{}", home.log());
            }
        });
        killing.join().unwrap()
    });
    assert!(killed >= 3, "{killed} fronts were killed");
    let all = granted(&net.router);
    assert!(all.is_superset(&stays), "a grant was lost");
    assert_eq!(all.len(), stays.len() + 16);
    assert!(agent.is_alive());
}
