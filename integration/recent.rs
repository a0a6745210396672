//! Lists of `-m recent`, as the kernel shows them.

use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::firewall::Element;
use crate::namespace::Namespace;

const FOLDER: &str = "/proc/net/xt_recent";

/// The lists of a set, with their seconds.
pub fn lists(host: &Namespace, set: &str) -> Vec<(String, u64)> {
    let found = host.run("ls", &[FOLDER]).text();
    let of = |name: &str| {
        let secs = name.strip_prefix(&format!("ka_{set}_"))?.parse().ok()?;
        Some((name.to_owned(), secs))
    };
    found.lines().filter_map(of).collect()
}

/// Writes a command to every list of a set, as an administrator would.
#[track_caller]
pub fn command(host: &Namespace, set: &str, text: &str) {
    for (name, _) in lists(host, set) {
        write(host, &name, text);
    }
}

/// Writes a command to a list.
#[track_caller]
pub fn write(host: &Namespace, name: &str, text: &str) {
    host.feed("tee", &[&format!("{FOLDER}/{name}")], format!("{text}\n").as_bytes()).success();
}

/// What a list has: addresses, and when each was last changed, in ticks.
pub fn entries(host: &Namespace, name: &str) -> Vec<(String, u64)> {
    let text = host.run("cat", &[&format!("{FOLDER}/{name}")]).success().text();
    let entry = |line: &str| {
        let mut words = line.split(' ');
        let address: std::net::IpAddr = words.next()?.strip_prefix("src=")?.parse().ok()?;
        let seen = line.split_once("last_seen: ")?.1.split(' ').next()?.parse().ok()?;
        Some((address.to_string(), seen))
    };
    text.lines().map(|line| entry(line).expect("a line of a list")).collect()
}

/// The entries of a set that still open something.
#[track_caller]
pub fn elements(host: &Namespace, set: &str) -> Vec<Element> {
    let lists = lists(host, set);
    assert!(!lists.is_empty(), "there is no list of {set}");
    let hz = ticks_per_second(host);
    let mut out = Vec::new();
    for (name, secs) in lists {
        let (entries, now) = (entries(host, &name), now(host));
        for (key, seen) in entries {
            let left =
                Duration::from_secs(secs).checked_sub(Duration::from_millis((now - seen) * 1_000 / hz));
            if let Some(expires) = left.filter(|left| !left.is_zero()) {
                let timeout = Some(Duration::from_secs(secs));
                out.push(Element { key, timeout, expires: Some(expires) });
            }
        }
    }
    out
}

fn now(host: &Namespace) -> u64 {
    write(host, "ka_clock", "+224.0.0.1");
    let found = entries(host, "ka_clock").into_iter().find(|(key, _)| key == "224.0.0.1");
    found.expect("the entry just made").1
}

/// How fast the kernel counts. To find that out takes seconds, once, so it is done before anything is measured.
pub fn ticks_per_second(host: &Namespace) -> u64 {
    static HZ: OnceLock<u64> = OnceLock::new();
    *HZ.get_or_init(|| {
        let (first, began) = (now(host), Instant::now());
        sleep(Duration::from_secs(2));
        let (last, passed) = (now(host), began.elapsed());
        let rate = (last - first) as f64 / passed.as_secs_f64();
        *[100_u64, 250, 300, 1_000].iter().min_by_key(|hz| (rate as u64).abs_diff(**hz)).unwrap()
    })
}
