use std::time::Duration;

use crate::backend::Backend;
use crate::firewall::Element;
use crate::namespace::Namespace;
use crate::recent;

/// The elements of a set, as `ipset` lists them.
#[track_caller]
pub fn elements(host: &Namespace, set: &str) -> Vec<Element> {
    if Backend::current().is_recent() {
        return recent::elements(host, set);
    }
    let listing = host.run("ipset", &["save", &format!("ka_{set}")]).success().text();
    parse(&listing)
}

/// The sentinels of sets of grants are nobody's.
const SENTINELS: [&str; 2] = ["224.0.0.0", "ff00::"];

fn parse(listing: &str) -> Vec<Element> {
    let adds = listing.lines().filter_map(|line| line.strip_prefix("add ")?.split_once(' '));
    adds.map(|(_, text)| element(text)).filter(|e| !SENTINELS.contains(&e.key.as_str())).collect()
}

fn element(text: &str) -> Element {
    let (head, comment) = text.split_once(" comment ").unwrap_or((text, ""));
    let (key, seconds) = head.split_once(" timeout ").unwrap_or((head, "0"));
    let seconds: u64 = seconds.parse().unwrap();
    let given = comment.rsplit_once(" (").and_then(|(_, rest)| rest.strip_suffix(" s)\""));
    let secs = |n: u64| (n > 0).then(|| Duration::from_secs(n));
    Element {
        key: key.to_owned(),
        timeout: given.map_or(secs(seconds), |given| secs(given.parse().unwrap())),
        expires: secs(seconds),
    }
}

/// The agent's chains and what leads to them, in both families, and the types of its sets.
pub fn guard(host: &Namespace) -> String {
    let ours = |line: &&str| line.contains("KA-") || line.starts_with('*');
    let mut out = String::new();
    for family in ['4', '6'] {
        let listing = tables(host, family);
        // A table without anything of ours is somebody else's business.
        for table in listing.split("COMMIT\n").filter(|table| table.contains("KA-")) {
            out.extend(table.lines().filter(ours).map(|line| format!("{line}\n")));
        }
    }
    let sets = host.run("ipset", &["list", "-t"]).success().text();
    let ours = sets.split("\n\n").filter(|set| set.trim_start().starts_with("Name: ka_"));
    let mut types: Vec<String> = ours.map(|set| without_kernels_choice(set.trim())).collect();
    types.sort();
    out + &types.join("\n")
}

/// Whether the agent's gate is in force in both families.
pub fn is_guarded(host: &Namespace) -> bool {
    ['4', '6'].into_iter().all(|family| {
        tables(host, family)
            .lines()
            .any(|line| line.starts_with("-A PREROUTING") && line.ends_with("-j KA-gate"))
    })
}

/// All tables of both kinds of iptables and all sets, without counters and time left.
pub fn everything(host: &Namespace) -> String {
    let mut out = String::new();
    for backend in [Backend::IptablesLegacy, Backend::IptablesNft] {
        for family in ['4', '6'] {
            let text = host.run(&backend.program(family, "save"), &[]).success().text();
            // Listing a table makes it, and what is in use once stays registered; empty, it does nothing.
            let used = |table: &&str| {
                let rule = |l: &str| l.starts_with("-A") || (l.starts_with(':') && !l.contains(" ACCEPT "));
                table.lines().any(rule)
            };
            for table in text.split("COMMIT\n").filter(used) {
                let lines = table.lines().filter(|l| !l.starts_with('#'));
                out.extend(lines.map(|l| without_counters(l) + "\n"));
            }
        }
    }
    let sets = host.run("ipset", &["save"]).success().text();
    out.extend(sets.lines().map(|line| without_kernels_choice(line) + "\n"));
    out
}

/// A family's tables by the programs of this test.
pub fn tables(host: &Namespace, family: char) -> String {
    let text = host.run(&Backend::current().program(family, "save"), &[]).success().text();
    text.lines().filter(|line| !line.starts_with('#')).map(|line| without_counters(line) + "\n").collect()
}

fn without_counters(line: &str) -> String {
    line.strip_prefix(':').and(line.split_once(" [")).map_or(line, |(head, _)| head).to_owned()
}

fn without_kernels_choice(text: &str) -> String {
    let changing =
        |line: &&str| !line.starts_with("Size in memory") && !line.starts_with("Number of entries");
    text.lines().filter(changing).map(plain_line).collect::<Vec<_>>().join("\n")
}

fn plain_line(line: &str) -> String {
    let mut out = Vec::new();
    let mut words = line.split(' ');
    while let Some(word) = words.next() {
        match word {
            "initval" | "hashsize" | "bucketsize" => drop(words.next()),
            "timeout" if line.starts_with("add ") => drop(words.next()),
            _ => out.push(word),
        }
    }
    out.join(" ")
}

#[test]
fn a_saved_set_is_read_with_its_times() {
    let found = parse(
        "create ka_app_x_4 hash:ip family inet\nadd ka_app_x_4 203.0.113.2 timeout 59 comment \"alice two-step (60 s)\"\n\
         add ka_app_x_4 224.0.0.0 timeout 0\nadd ka_app_x_4 10.0.0.0/8 timeout 0 comment \"config\"\n",
    );
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].timeout, found[0].expires),
        (Some(Duration::from_secs(60)), Some(Duration::from_secs(59)))
    );
    assert_eq!(found[1], Element { key: "10.0.0.0/8".into(), timeout: None, expires: None });
}
