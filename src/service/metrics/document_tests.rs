use std::time::Duration;

use super::super::exposition::{Family, Kind};
use super::super::families::ALL;
use super::*;
use crate::service::around::Around;
use crate::service::tally::OfApp;

fn rule(chain: &str, what: &str, verdict: &'static str) -> RuleCounter {
    RuleCounter { chain: chain.into(), what: what.into(), verdict, packets: 2, bytes: 100 }
}

fn known() -> Known {
    let around = Around::default();
    around.front_begins(false);
    around.front_heard();
    Known { certificate_ends: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(9)), ..around.known() }
}

/// Something of everything.
fn figures() -> Figures {
    let mut commits = Commits::default();
    [1, 60, 100_000_000].into_iter().for_each(|us| commits.add(Duration::from_micros(us)));
    Figures {
        backend: "nftables",
        guarded: Some(true),
        rules: Some(vec![rule("gate", "step 1", "drop"), rule("gate", "step 1", "drop")]),
        apps: BTreeMap::from([("My \"App\"".to_owned(), OfApp { grants: 3, ..OfApp::default() })]),
        room: 1_048_576,
        denials: BTreeMap::from([("wrong-key".to_owned(), 5)]),
        commits,
        ..Figures::default()
    }
}

#[test]
fn a_page_has_every_family_once_and_in_the_order_of_the_list() {
    let page = document(&figures(), &known(), Some(7_000_000));
    let types: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let wanted: Vec<String> =
        ALL.iter().map(|family| format!("{} {}", family.name, family.kind.word())).collect();
    assert_eq!(types, wanted);
    for line in [
        "knock_agent_grants{app=\"My \\\"App\\\"\"} 3",
        "knock_agent_grants_opened_total{app=\"My \\\"App\\\"\",how=\"two-step\"} 0",
        "knock_agent_knocks_total{step=\"2\",result=\"granted\"} 0",
        "knock_agent_denials_total{reason=\"wrong-key\"} 5",
        "knock_agent_denials_total{reason=\"busy\"} 0",
        "knock_agent_rule_packets_total{chain=\"gate\",rule=\"step 1\",verdict=\"drop\"} 4",
        "knock_agent_rule_bytes_total{chain=\"gate\",rule=\"step 1\",verdict=\"drop\"} 200",
        "knock_agent_commit_duration_seconds_bucket{le=\"0.00005\"} 1",
        "knock_agent_commit_duration_seconds_bucket{le=\"0.0001\"} 2",
        "knock_agent_commit_duration_seconds_bucket{le=\"10\"} 2",
        "knock_agent_commit_duration_seconds_bucket{le=\"+Inf\"} 3",
        "knock_agent_commit_duration_seconds_sum 100.000061",
        "knock_agent_commit_duration_seconds_count 3",
        "knock_agent_certificate_expiry_timestamp_seconds 9",
        "knock_agent_front_up 1",
        "knock_agent_resident_memory_bytes 7000000",
    ] {
        assert!(page.lines().any(|have| have == line), "{line}\n{page}");
    }
}

#[test]
fn what_is_not_there_has_no_figure() {
    let known = Known { certificate_ends: None, front: None, ..known() };
    let page = document(&Figures { rules: None, guarded: None, ..figures() }, &known, None);
    for family in
        [of::CERTIFICATE, of::FRONT, of::FRONT_RESTARTS, of::PACKETS, of::BYTES, of::GUARDED, of::MEMORY]
    {
        assert!(!page.contains(family.name), "{}", family.name);
    }
}

#[test]
fn however_many_rules_there_are_their_figures_are_bounded_and_none_is_lost() {
    let rules: Vec<RuleCounter> = (0..5_000).map(|n| rule(&format!("chain_{n:05}"), "x", "drop")).collect();
    let page = document(&Figures { rules: Some(rules), ..figures() }, &known(), None);
    let packets: Vec<u64> = page
        .lines()
        .filter(|line| line.starts_with("knock_agent_rule_packets_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!((packets.len(), packets.iter().sum::<u64>()), (RULES + 1, 10_000));
    assert!(page.contains("{chain=\"(others)\",rule=\"(others)\",verdict=\"drop\"} 6000"));
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    for Family { name, kind, labels, help } in ALL {
        assert!(
            name.starts_with("knock_agent_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        );
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
        let who = ["address", "addr", "client", "user", "by", "key", "path"];
        assert!(labels.iter().all(|label| !who.contains(label)), "{name}: nobody is named");
    }
}

#[test]
fn the_documentation_lists_every_figure_as_it_is() {
    let text = include_str!("../../../docs/metrics.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| `knock_agent_"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    let wanted: Vec<Vec<String>> = ALL
        .iter()
        .map(|family| {
            let labels =
                family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let cells = [family.name, family.kind.word(), labels.trim_matches('`'), family.help];
            cells.map(str::to_owned).to_vec()
        })
        .collect();
    assert_eq!(rows, wanted, "docs/metrics.md");
}
