use std::net::IpAddr;
use std::time::Duration;

use crate::backend::Backend;
use crate::ipset;
use crate::namespace::Namespace;
use crate::recent;

/// An element of one of the agent's sets, as `nft` or `ipset` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Address, network or range.
    pub key: String,
    /// The whole time it was given.
    pub timeout: Option<Duration>,
    /// What is left of it.
    pub expires: Option<Duration>,
}

/// The elements of a set of the agent's table; stops the test when there is no such set.
#[track_caller]
pub fn elements(host: &Namespace, set: &str) -> Vec<Element> {
    if Backend::current().is_iptables() {
        return ipset::elements(host, set);
    }
    let listing = host.run("nft", &["list", "set", "inet", "knock_agent", set]).success().text();
    parse_elements(&listing)
}

/// What is left of an address's access to an app, as the kernel counts it.
#[track_caller]
pub fn time_left(host: &Namespace, app: &str, address: IpAddr) -> Option<Duration> {
    let digit = if address.is_ipv4() { '4' } else { '6' };
    let found = elements(host, &format!("app_{app}_{digit}"));
    found.into_iter().find(|e| e.key == address.to_string()).map(|e| e.expires.expect("a grant that ends"))
}

/// What is left of an address's admission to step 2.
#[track_caller]
pub fn admission_left(host: &Namespace, address: IpAddr) -> Option<Duration> {
    let set = if address.is_ipv4() { "step2_4" } else { "step2_6" };
    let found = elements(host, set);
    found
        .into_iter()
        .find(|e| e.key == address.to_string())
        .map(|e| e.expires.expect("an admission that ends"))
}

/// Whether the agent's table exists.
pub fn is_guarded(host: &Namespace) -> bool {
    if Backend::current().is_iptables() {
        return ipset::is_guarded(host);
    }
    host.run("nft", &["list", "tables"]).success().text().lines().any(|l| l == "table inet knock_agent")
}

/// Removes all that the agent has in force, if anything, as somebody would who starts anew.
pub fn remove_guard(host: &Namespace) {
    let backend = Backend::current();
    if !backend.is_iptables() {
        host.run("nft", &["delete", "table", "inet", "knock_agent"]);
        return;
    }
    for family in ['4', '6'] {
        for table in ["mangle", "raw", "nat", "filter"] {
            for what in ["-F", "-X"] {
                // A daemon may put it back in the middle of it.
                host.run(&backend.program(family, ""), &["-w", "-t", table, what]);
            }
        }
    }
    host.run("ipset", &["destroy"]);
}

/// Removes all rules and sets of everybody, as somebody would who starts anew.
#[track_caller]
pub fn flush_host(host: &Namespace) {
    if Backend::current().is_iptables() {
        remove_guard(host);
        host.run("ipset", &["flush"]).success();
    } else {
        host.run("nft", &["flush", "ruleset"]).success();
    }
}

/// Adds a rule that is none of the agent's, named `of_the_host`.
pub fn add_foreign_rule(host: &Namespace) {
    let backend = Backend::current();
    if backend.is_iptables() {
        let words = "-w -A INPUT -m comment --comment of_the_host".split(' ').collect::<Vec<_>>();
        host.run(&backend.program('4', ""), &words).success();
    } else {
        host.nft("table inet of_the_host { chain input { type filter hook input priority 0; counter; }; }");
    }
}

/// Whether the agent has a set of that name.
pub fn has_set(host: &Namespace, name: &str) -> bool {
    if Backend::current().is_recent() {
        return !recent::lists(host, name).is_empty();
    }
    if Backend::current().is_iptables() {
        let names = host.run("ipset", &["list", "-n"]).success().text();
        return names.lines().any(|line| line == format!("ka_{name}"));
    }
    let sets = host.run("nft", &["list", "sets", "inet"]).success().text();
    sets.lines().any(|line| line.trim() == format!("set {name} {{"))
}

/// Adds addresses to a set for so many seconds, as an administrator could.
pub fn add_elements(host: &Namespace, set: &str, addresses: &[String], seconds: u32) {
    if Backend::current().is_iptables() {
        let line = |address| format!("add ka_{set} {address} timeout {seconds}\n");
        let lines: String = addresses.iter().map(line).collect();
        host.feed("ipset", &["restore"], lines.as_bytes()).success();
    } else {
        let each: Vec<String> = addresses.iter().map(|a| format!("{a} timeout {seconds}s")).collect();
        host.nft(&format!("add element inet knock_agent {set} {{ {} }}", each.join(", ")));
    }
}

/// Removes one element, as an administrator would.
#[track_caller]
pub fn remove_element(host: &Namespace, set: &str, key: &str) {
    if Backend::current().is_recent() {
        return recent::command(host, set, &format!("-{key}"));
    }
    if Backend::current().is_iptables() {
        host.run("ipset", &["del", &format!("ka_{set}"), key]).success();
    } else {
        host.nft(&format!("delete element inet knock_agent {set} {{ {key} }}"));
    }
}

/// The agent's table without what changes by itself, and without elements.
#[track_caller]
pub fn table(host: &Namespace) -> String {
    if Backend::current().is_iptables() {
        return ipset::guard(host);
    }
    let listing = host.run("nft", &["-s", "list", "table", "inet", "knock_agent"]).success().text();
    without_elements(&listing)
}

/// The objects of our table, whose order is that in which they were made.
pub fn sorted_table(host: &Namespace) -> Vec<String> {
    let text = table(host);
    let mut objects: Vec<String> = text.split("\n\t}\n").map(|text| text.trim().to_owned()).collect();
    objects.sort();
    objects
}

/// Everything the kernel lists, with handles, without counters and time left.
pub fn everything(host: &Namespace) -> String {
    if Backend::current().is_iptables() {
        return ipset::everything(host);
    }
    host.run("nft", &["-s", "-a", "list", "ruleset"]).success().text()
}

fn without_elements(listing: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in listing.lines() {
        inside |= line.trim_start().starts_with("elements = {");
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
        inside &= !line.trim_end().ends_with('}');
    }
    kept
}

fn parse_elements(listing: &str) -> Vec<Element> {
    let Some((_, rest)) = listing.split_once("elements = {") else {
        return Vec::new();
    };
    let body = rest.split_once('}').expect("the end of the elements").0;
    body.split(',').map(parse_element).collect()
}

fn parse_element(text: &str) -> Element {
    let bare = text.split(" comment ").next().unwrap_or_default();
    let mut words = bare.split_whitespace();
    let mut element = Element { key: words.next().unwrap().to_owned(), timeout: None, expires: None };
    while let Some(word) = words.next() {
        match word {
            "timeout" => element.timeout = words.next().map(duration),
            "expires" => element.expires = words.next().map(duration),
            _ => {}
        }
    }
    element
}

/// Reads what nft writes for a duration: `1d2h3m4s567ms`.
fn duration(text: &str) -> Duration {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let number: u64 = number.parse().unwrap();
        total += match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(60 * number),
            "h" => Duration::from_secs(3600 * number),
            "d" => Duration::from_secs(86_400 * number),
            _ => panic!("no unit of time: {unit}"),
        };
        rest = tail;
    }
    total
}

#[test]
fn the_listing_of_a_set_is_read_with_its_times() {
    let listing = "table inet knock_agent {\n\tset app_x_4 {\n\t\ttype ipv4_addr\n\t\tsize 1048576\n\t\tflags timeout\n\
        \t\telements = { 203.0.113.2 timeout 1m30s expires 1m1s20ms comment \"alice two-step\",\n\
        \t\t\t     203.0.113.3 }\n\t}\n}\n";
    let found = parse_elements(listing);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].key, "203.0.113.2");
    assert_eq!(found[0].timeout, Some(Duration::from_secs(90)));
    assert_eq!(found[0].expires, Some(Duration::from_millis(61_020)));
    assert_eq!(found[1], Element { key: "203.0.113.3".into(), timeout: None, expires: None });
    assert_eq!(without_elements(listing).matches("203").count(), 0);
    assert!(without_elements(listing).ends_with("\t\tflags timeout\n\t}\n}\n"));
}
