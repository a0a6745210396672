//! A path of step 1 that changes with time.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

const SECRET: &str = "http_post_path_secret: sixteen-letters-or-more";

fn with(more: &str) -> Result<Checked, Problems> {
    let text = GLOBAL.replace('}', &format!(", {more}}}"));
    read(&format!("{text}{APP}}}"))
}

#[test]
fn the_path_is_one_and_stays_unless_there_is_a_secret() {
    let mut settings = loads(&format!("{GLOBAL}{APP}}}")).settings;
    let before = settings.global.step1_paths.clone();
    assert_eq!(before.iter().map(|path| path.expose()).collect::<Vec<_>>(), ["/one-place"]);
    assert!(!settings.follow_time(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
    assert_eq!(settings.global.step1_paths, before);
}

#[test]
fn with_a_secret_no_path_is_taken_before_the_time_is_known_and_three_afterwards() {
    let mut settings = with(SECRET).unwrap().settings;
    assert!(settings.global.step1_paths.is_empty());
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    assert!(settings.follow_time(at(1_800_000_000)));
    let paths = settings.global.step1_paths.clone();
    assert_eq!(paths.len(), 3);
    assert!(paths.iter().all(|path| path.expose().starts_with("/one-place/") && path.expose().len() == 43));
    assert!(!settings.follow_time(at(1_800_000_299)), "five minutes unless something else is said");
    assert!(settings.follow_time(at(1_800_000_300)));
}

#[test]
fn what_cannot_work_is_refused_with_its_place() {
    let long = "x".repeat(67);
    for (more, path, part) in [
        ("http_post_path_secret: short".to_owned(), "global.http_post_path_secret", "16 to 128"),
        ("http_post_path_every: 5m".to_owned(), "global.http_post_path_every", "no secret"),
        (format!("{SECRET}, http_post_path_every: 9s"), "global.http_post_path_every", "10s to 24h"),
        (format!("{SECRET}, http_post_path_every: soon"), "global.http_post_path_every", ""),
        ("http_post_path_secret: {file: x}".to_owned(), "global.http_post_path_secret.file", "whole path"),
        (format!("{SECRET}, step1_max_bytes: 150"), "global.http_post_path", "step1_max_bytes"),
    ] {
        let problems = with(&more).expect_err(&more);
        let found = problems.list.iter().any(|p| p.path == path && p.message.contains(part));
        assert!(found, "{more}: {problems}");
        assert!(!problems.to_string().contains("sixteen-letters"), "{problems}");
    }
    let text = GLOBAL.replace("/one-place", &format!("/{long}")).replace('}', &format!(", {SECRET}}}"));
    let problems = read(&format!("{text}{APP}}}")).expect_err("no room");
    assert!(problems.to_string().contains("67 characters"), "{problems}");
}
