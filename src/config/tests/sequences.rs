use super::*;
use crate::config::{KnockEffect, Severity};
use crate::units::{Knock, START};

/// Lines 1 to 6: the global section in one line, `global` keys of the case, an app `ssh` on tcp 22 without keys.
fn text(global: &str, sequence: &str) -> String {
    format!(
        "global:\n  interface_ext: eth0\n  http_post_path: /one-place\n  https_post_path: /two-place\n{global}ssh:\n  port: [22, \"6000-6010\"]\n  duration: 1h\n  sequence: {sequence}\n"
    )
}

/// Every problem of an app with that sequence, as path, message and fix.
fn problems(global: &str, sequence: &str) -> Vec<(Severity, String)> {
    let text = text(global, sequence);
    let list = match read(&text) {
        Ok(checked) => checked.warnings,
        Err(problems) => problems.list,
    };
    list.into_iter().map(|p| (p.severity, format!("{p}"))).collect()
}

fn knocks(text: &str) -> Vec<Knock> {
    text.split(',').map(|knock| knock.parse().unwrap()).collect()
}

#[test]
fn an_app_needs_no_keys_with_a_sequence_and_everything_else_has_a_default() {
    let checked = loads(&text("", "{knocks: [tcp/1234, 5678, u:9012]}"));
    assert_eq!(checked.warnings, []);
    let [sequence] = &checked.settings.sequences[..] else { panic!("one sequence") };
    assert_eq!(sequence.app, Some(0));
    assert_eq!(sequence.knocks, knocks("1234,5678,udp/9012"));
    assert_eq!((sequence.window.as_secs(), sequence.knock_window.as_secs()), (10, 10));
    assert_eq!((sequence.duration.as_secs(), sequence.strict), (3_600, false));
    assert_eq!(sequence.effect, KnockEffect::Service);
}

#[test]
fn an_app_that_only_sequences_open_needs_no_duration_where_each_has_one() {
    let app = |global: &str, lines: &str| {
        format!(
            "global: {{interface_ext: eth0, http_post_path: /one-place, https_post_path: /two-place{global}}}\ns:\n  port: 22\n{lines}\n"
        )
    };
    let contract = "  sequence: {knocks: [tcp/1234, tcp/5678, udp/9012], window: 10s, knock_window: 10s, strict: false, duration: 1h}";
    let two = "  sequence: [{knocks: [1, 5], duration: 2h, closing: [5, 1]}, {knocks: [2, 6], duration: 30s, name: a}, {knocks: [9, 3], duration: 3h, opens: a}]";
    for (lines, secs) in [(contract, 3_600), (two, 7_200)] {
        let settings = loads(&app("", lines)).settings;
        let app = &settings.apps[0];
        assert_eq!((app.duration.as_secs(), app.max_duration.as_secs()), (secs, secs), "{lines}");
        assert_eq!(settings.sequences[0].duration.as_secs(), secs);
    }
    let user = ", users: {alice: {access_key_http: alice-key-1, access_key_https: alice-key-2}}";
    let keys = format!("{contract}\n  access_key_http: first-secret\n  access_key_https: other-secret");
    let one_without = "  sequence: [{knocks: [1, 5], duration: 2h}, {knocks: [2, 6]}]";
    for (global, lines) in [(user, contract), ("", keys.as_str()), ("", one_without)] {
        let told = read(&app(global, lines)).unwrap_err().to_string();
        assert!(told.contains("s.duration: this key is missing"), "{lines}: {told}");
    }
    let wrong = read(&app("", "  sequence: {knocks: [1, 5], duration: soon}")).unwrap_err();
    assert!(wrong.list.iter().all(|problem| problem.path == "s.sequence.duration"), "{wrong}");
    let shorter = read(&app("", &format!("{contract}\n  max_duration: 30m"))).unwrap_err().to_string();
    assert!(shorter.contains("30m is shorter than `duration` of a sequence, 1h"), "{shorter}");
}

#[test]
fn a_sequence_that_opens_for_longer_than_max_duration_is_warned_of() {
    let with = |most: &str, of_it: &str| {
        let text = text("", &format!("[{{knocks: [1, 5]{of_it}}}, {{knocks: [2, 6], duration: 1m}}]"));
        let warnings = loads(&format!("{text}{most}")).warnings;
        warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    let longer = ", duration: 24h, closing: [7, 9]";
    let [told] = &with("  max_duration: 2h\n", longer)[..] else { panic!("one warning") };
    assert!(told.contains("for 1d, although max_duration is 2h"), "{told}");
    // Where it is not said, the app's `duration` bounds what is asked for, and not these.
    for (most, of_it) in [("", longer), ("  max_duration: 1d\n", longer), ("  max_duration: 2h\n", "")] {
        assert!(with(most, of_it).is_empty(), "{most}{of_it}");
    }
}

#[test]
fn every_key_is_read() {
    let global = "  sequence:\n    - {knocks: [1, 3], opens: step-1}\n    - {knocks: [2, 9], opens: step-2, window: 20, duration: 1m}\n    - {knocks: [4, 9], opens: inner}\n";
    let list = "\n    - {knocks: \"1234:udp,7000\", window: 1m, knock_window: 5s, strict: true, duration: 30s, closing: [7001, 9]}\n    - {knocks: [udp/77/20, 8], name: inner}";
    let settings = loads(&text(global, list)).settings;
    let [step1, step2, gate, service, closing, inner] = &settings.sequences[..] else {
        panic!("{:?}", settings.sequences)
    };
    assert_eq!(step1.app, None);
    assert_eq!((&step1.effect, step1.duration.as_secs()), (&KnockEffect::Step1, 10));
    assert_eq!((&step2.effect, step2.duration.as_secs()), (&KnockEffect::Step2, 60));
    assert_eq!(gate.effect.sequence().unwrap().as_str(), "inner");
    assert_eq!(service.knocks, knocks("udp/1234,7000"));
    assert_eq!((service.window.as_secs(), service.knock_window.as_secs()), (60, 5));
    assert_eq!((service.strict, service.duration.as_secs()), (true, 30));
    assert_eq!((&closing.effect, closing.app, closing.knocks.len()), (&KnockEffect::Closes, Some(0), 2));
    let first = settings.automaton.next(START, inner.knocks[0]);
    assert_eq!(settings.automaton.state(first).unwrap().terms.behind, Some(5));
}

#[test]
fn what_is_wrong_with_a_sequence_is_told_without_its_knocks() {
    for (global, sequence, wanted) in [
        ("", "{}", "ssh.sequence.knocks"),
        ("", "[tcp/12345, tcp/5678]", "must be a section"),
        ("", "{knocks: [tcp/0]}", "is not a knock"),
        ("", "{knocks: [icmp/12345, 7]}", "is not a knock"),
        ("", "{knocks: []}", "at least one value"),
        ("", "{knocks: [1, 2], windows: 3}", "did you mean `window`?"),
        ("", "{knocks: [1, 5], knock_window: 11}", "longer than the whole window, 10s"),
        ("", "{knocks: [1, 5], window: 2h}", "for an hour at most"),
        ("", "{knocks: [1, 5], opens: step-1}", "into `global`"),
        ("", "{knocks: [1, 5], opens: Other}", "write service, step-1, step-2"),
        ("", "{knocks: [1, 5], opens: other}", "there is no sequence `other`"),
        ("", "{knocks: [1, 5], strict: yes}", "true or false"),
        ("", "{knocks: [1, 22]}", "guarded for `ssh`"),
        ("", "{knocks: [1, 6005]}", "guarded for `ssh`"),
        ("", "{knocks: [1, 8443]}", "(--https-port)"),
        ("", "{knocks: [1, 5], closing: [1, 6010]}", "guarded for `ssh`"),
        ("  sequence: {knocks: [1, 5]}\n", "{knocks: [2, 5]}", "global.sequence.opens"),
        ("  sequence: {knocks: [1, 5], opens: service}\n", "{knocks: [2, 5]}", "into the section of an app"),
        ("  sequence: {knocks: [1, 5], opens: step-1, closing: [3]}\n", "{knocks: [2, 5]}", "could close"),
        ("", "[{knocks: [1, 5]}, {knocks: [1, 5]}]", "two sequences are the same"),
        ("", "[{knocks: [1, 5]}, {knocks: [1, 6], window: 9}]", "must have the same windows"),
        ("", "[{knocks: [udp/7/1, 6]}, {knocks: [5, udp/7]}]", "write a length in both, or in neither"),
        ("", "[{knocks: [1, 5], name: a}, {knocks: [2, 6], name: a}]", "another sequence `a`"),
        ("", "{knocks: [1, 5], name: step-1}", "a sequence's name has"),
        (
            "",
            "[{knocks: [1, 5], name: a, opens: b}, {knocks: [2, 6], name: b, opens: a}]",
            "nothing opens this sequence",
        ),
    ] {
        let told = problems(global, sequence);
        let errors: Vec<_> = told.iter().filter(|(severity, _)| *severity == Severity::Error).collect();
        assert!(!errors.is_empty() && told.iter().any(|(_, p)| p.contains(wanted)), "{sequence}: {told:?}");
        for (_, problem) in &told {
            let secrets = ["12345", "6005", "6010"];
            assert!(!secrets.iter().any(|secret| problem.contains(secret)), "{problem}");
        }
    }
    let many = vec!["1"; 33].join(",");
    assert!(problems("", &format!("{{knocks: [{many}]}}"))[0].1.contains("the most is 32"));
    assert!(problems("", &format!("{{knocks: \"{many}\"}}"))[0].1.contains("the most is 32"));
    assert!(
        loads(&text("", &format!("{{knocks: \"{}\"}}", &many[2..]))).settings.automaton.states().count()
            == 32
    );
}

#[test]
fn what_a_scan_would_knock_and_what_another_sequence_contains_is_warned_of() {
    for (sequence, wanted) in [
        ("{knocks: [1]}", "every scan finds it"),
        ("{knocks: [7000, tcp/7000]}", "all knocks are at one port"),
        ("{knocks: [10, 11, 12]}", "a scan knocks them in this order"),
        ("{knocks: [12, 11, 10]}", "a scan knocks them in this order"),
        ("{knocks: [21, 23]}", "a scan knocks them in this order"),
        ("{knocks: [5999, 6011, 6012]}", "a scan knocks them in this order"),
        ("{knocks: [6011, 5999]}", "a scan knocks them in this order"),
        ("{knocks: [8079, 8081, 8082]}", "a scan knocks them in this order"),
        ("[{knocks: [1, 5]}, {knocks: [1, 5, 7]}]", "contains this one"),
        ("[{knocks: [5, 7]}, {knocks: [1, 5, 7]}]", "contains this one"),
        ("[{knocks: [5, 7]}, {knocks: [1, 5, 7, 9]}]", "contains this one"),
    ] {
        let told = problems("", sequence);
        assert!(told.len() == 1 && told[0].0 == Severity::Warning, "{sequence}: {told:?}");
        assert!(told[0].1.contains(wanted), "{told:?}");
    }
    for fine in [
        "{knocks: [10, udp/11, 12]}",
        "{knocks: [10, 11, 10]}",
        "[{knocks: [1, 5]}, {knocks: [1, 6]}]",
        "{knocks: [20, 23]}",
        "{knocks: [udp/21, udp/23]}",
        "{knocks: [5999, 6012]}",
        "{knocks: [21, udp/23]}",
        "{knocks: [udp/8079, udp/8081]}",
    ] {
        assert_eq!(problems("", fine), [], "{fine}");
    }
}

#[test]
fn ten_thousand_sequences_load() {
    let list: String = (0..10_000)
        .map(|n| {
            format!(
                "\n    - {{knocks: [{}, {}, udp/{}]}}",
                10_000 + n % 30_000,
                41_000 + n * 7 % 20_000,
                10_000 + n
            )
        })
        .collect();
    let checked = loads(&text("", &list));
    assert_eq!(checked.settings.sequences.len(), 10_000);
}

#[test]
fn without_steps_there_are_no_paths_and_nothing_may_need_them() {
    let app = "ssh: {port: 8080, duration: 1h, sequence: {knocks: [1, 8443]}}\n";
    let checked = loads(&format!("global: {{interface_ext: eth0, steps: off}}\n{app}"));
    assert_eq!(checked.warnings, []);
    assert!(!checked.settings.global.steps);
    for (global, app, wanted) in [
        (
            "",
            "ssh: {port: 22, duration: 1h, access_key_http: [first-secret], access_key_https: [other-secret]}\n",
            "access keys open nothing",
        ),
        ("", "ssh: {port: 22, duration: 1h}\n", "nothing opens this app"),
        (", users: {}", app, "users open nothing"),
        (", sequence: {knocks: [7, 9], opens: step-1}", app, "this opens a step"),
        (", http_post_path: no", app, "global.http_post_path"),
    ] {
        let text = format!("global: {{interface_ext: eth0, steps: off{global}}}\n{app}");
        let problems = read(&text).unwrap_err().to_string();
        assert!(problems.contains(wanted), "{problems}");
        assert!(!problems.contains("add `access_key_http"), "{problems}");
    }
    for (off, works) in [("false", true), ("'off'", true), ("true", false)] {
        let text = format!("global: {{interface_ext: eth0, steps: {off}}}\n{app}");
        assert_eq!(read(&text).is_ok(), works, "{off}");
    }
    assert!(read(&format!("global: {{interface_ext: eth0, steps: maybe}}\n{app}")).is_err());
}

#[test]
fn a_log_of_knocks_is_off_and_takes_only_what_it_knows() {
    use crate::config::{KnockEvent, KnockLog};
    let sequence = "{knocks: [tcp/1234, 5678]}";
    let log = |global: &str| loads(&text(global, sequence)).settings.global.knock_log;
    assert_eq!(log(""), KnockLog::default());
    let of = |events: &[KnockEvent], group| KnockLog { events: events.iter().copied().collect(), group };
    assert_eq!(log("  log_knocks: invalid\n"), of(&[KnockEvent::Invalid], None));
    let all = [KnockEvent::Accepted, KnockEvent::Ignored, KnockEvent::Invalid, KnockEvent::Transient];
    let words = "  log_knocks: [transient, invalid, ignored, accepted]\n  log_knocks_group: 7\n";
    assert_eq!(log(words), of(&all, Some(7)));
    for (global, wanted) in [
        ("  log_knocks: [all]\n", "accepted"),
        ("  log_knocks_group: 24107\n", "itself listens"),
        ("  log_knocks_group: 65536\n", "65535"),
    ] {
        let problems = format!("{:?}", problems(global, sequence));
        assert!(problems.contains(wanted), "{problems}");
    }
}
