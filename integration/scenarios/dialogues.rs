//! What is asked at a terminal and not shown: keys, codes and PINs, typed at a real one. `integration/lib/at-terminal` looks
//! whether a terminal is left as it was.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::agent::{Installation, PROGRAM};
use crate::configuration::{Config, http_key, https_key};
use crate::firewall::time_left;
use crate::knocker::{Knocker, pin};
use crate::namespace::Namespace;
use crate::process::Finished;
use crate::topology::{Family, Topology};

const AT_TERMINAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/lib/at-terminal");
const CTRL_C: &str = "\u{3}";
const CTRL_D: &str = "\u{4}";
const HANGUP: &str = "{hangup}";
const TERMINATE: &str = "{terminate}";
/// Text in Latin-1: no UTF-8.
const LATIN_1: &str = "{bytes:e9616263646566676869}";
const KEY: &str = "a-key-typed-by-hand";
const LIMIT: Duration = Duration::from_secs(150);

type Talk<'t> = [(&'t str, &'t str)];

/// Runs the program at a terminal, in the home folder of a client.
fn talk(
    host: &Namespace,
    who: &Knocker,
    settings: &[(&str, &str)],
    words: &[&str],
    talk: &Talk<'_>,
) -> Finished {
    let mut command: Command = who.program(&[&[AT_TERMINAL, PROGRAM], words].concat());
    command.current_dir(who.home().path()).envs(settings.iter().copied());
    let talk: Vec<_> = talk.iter().map(|(asked, typed)| json!([asked, typed])).collect();
    host.finish(command, json!(talk).to_string().as_bytes(), LIMIT)
}

fn files(who: &Knocker) -> Vec<String> {
    let mut command = Command::new("find");
    command.args([".", "-type", "f", "!", "-name", "hosts"]).current_dir(who.home().path());
    crate::process::finish(command, b"", LIMIT).success().text().lines().map(str::to_owned).collect()
}

#[test]
fn whatever_ends_enroll_leaves_no_file_and_the_terminal_as_it_was() {
    let host = Namespace::new("enroll");
    let who = Knocker::new();
    fs::create_dir(who.home().path().join("2fa")).unwrap();
    let words = ["enroll", "alice", "--folder", "2fa", "--png", "alice.png"];
    let (key, code) = ("access key that needs a code (not shown):", "the app shows:");
    let typed = format!("{KEY}\n");
    let ends: &[(&Talk<'_>, i32, &str)] = &[
        (&[(key, CTRL_C)], 2, "given up"),
        (&[(key, CTRL_D)], 2, "end of input"),
        (&[(key, TERMINATE)], 2, "given up"),
        (&[(key, LATIN_1)], 2, "not UTF-8"),
        (&[(key, "\n")], 2, "not an access key"),
        (&[(key, "../up-and-away\n")], 2, "not an access key"),
        (&[(key, &typed), (code, CTRL_C)], 1, "nothing is saved"),
        (&[(key, &typed), (code, CTRL_D)], 1, "nothing is saved"),
        (&[(key, &typed), (code, TERMINATE)], 1, "nothing is saved"),
        (&[(key, &typed), (code, HANGUP)], 1, ""),
        (&[(key, &typed), (code, "x\n"), (code, "\n"), (code, "0\u{3}")], 1, "nothing is saved"),
    ];
    for (answers, code, said) in ends {
        let done = talk(&host, &who, &[], &words, answers).exits(*code);
        let text = done.text();
        assert!(text.contains(said) && !text.contains(KEY), "{answers:?}: {text}");
        assert_eq!(files(&who), Vec::<String>::new(), "{answers:?}");
    }
    let settings = [("LC_ALL", "C"), ("COLUMNS", "20")];
    let answers = [(key, typed.as_str()), (code, "no\n"), ("try the next one", ""), (code, "{code}\n")];
    let text = talk(&host, &who, &settings, &words, &answers).success().text();
    assert!(text.contains("this terminal has 20") && !text.contains('█') && !text.contains(KEY), "{text}");
    let mut made = files(&who);
    made.sort();
    assert_eq!(made, [format!("./2fa/{KEY}.json"), "./alice.png".to_owned()]);
    let wide = [("LC_ALL", "C"), ("COLUMNS", "49")];
    let text = talk(&host, &who, &wide, &["enroll", "bob"], &[(code, CTRL_C)]).exits(1).text();
    let picture = text.lines().filter(|line| line.contains('█')).collect::<Vec<_>>();
    assert!(picture.len() > 20 && picture.iter().all(|line| line.chars().count() == 49), "{text}");
}

#[test]
fn keys_and_pins_are_typed_twice_and_hidden() {
    let host = Namespace::new("typed");
    let who = Knocker::new();
    let (first, again) = ("key (not shown):", "the same again:");
    let typed = format!("{KEY}\n");
    let ends: &[(&Talk<'_>, &str)] = &[
        (&[(first, CTRL_C)], "given up"),
        (&[(first, &typed), (again, CTRL_D)], "end of input"),
        (&[(first, &typed), (again, TERMINATE)], "given up"),
        (&[(first, &typed), (again, "another-key-by-hand\n")], "not the same"),
        (&[(first, LATIN_1)], "not UTF-8"),
    ];
    for (answers, said) in ends {
        let text = talk(&host, &who, &[], &["hash-key"], answers).exits(2).text();
        assert!(text.contains(said) && !text.contains("-by-hand") && !text.contains("$argon2"), "{text}");
    }
    // What is corrected counts as it ends up.
    let corrected = format!("wrong\u{15}{KEY}é\u{7f}\n");
    let small = [("LC_ALL", "C"), ("COLUMNS", "20")];
    let text =
        talk(&host, &who, &small, &["hash-key"], &[(first, &corrected), (again, &typed)]).success().text();
    assert!(text.contains("$argon2id$") && !text.contains(KEY), "{text}");

    let config = who.home().path().join("config.yaml");
    who.home().write(
        "config.yaml",
        format!(
            "global:\n  interface_ext: lo\n  http_post_path: /first-one-4711\n  https_post_path: /second-one-0815\n  \
             time_sequence: {{clients: {}}}\nssh: {{port: 2222, duration: 1h}}\n",
            who.home().path().join("clients").display()
        ),
    );
    let config = config.display().to_string();
    let words = [
        "enroll",
        "--sequence",
        "laptop",
        "--app",
        "ssh",
        "-c",
        &config,
        "--png",
        "c.png",
        "--profile",
        "p.yaml",
    ];
    let (first, again) = ("a PIN for the client", "once more:");
    let ends: &[(&Talk<'_>, &str)] = &[
        (&[(first, CTRL_C)], "given up"),
        (&[(first, "48-15-16\n"), (again, TERMINATE)], "given up"),
        (&[(first, "48-15-16\n"), (again, "48-15-17\n")], "two different PINs"),
        (&[(first, "48-15-16\n"), (again, HANGUP)], ""),
    ];
    for (answers, said) in ends {
        let text = talk(&host, &who, &[], &words, answers).exits(2).text();
        assert!(text.contains(said) && !text.contains("48-15"), "{text}");
        assert_eq!(files(&who), ["./config.yaml"], "{answers:?}");
    }
    let answers = [(first, "48-15-16\n"), (again, "48-15-16\n")];
    let text = talk(&host, &who, &[], &words, &answers).success().text();
    assert!(!text.contains("48-15"), "{text}");
    let saved = fs::read_to_string(who.home().path().join("clients/laptop.yaml")).unwrap();
    assert!(saved.contains("pin: '48-15-16'"), "{saved}");
}

#[test]
fn keys_that_are_typed_open_and_whoever_gives_up_opens_nothing() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 600"]));
    let _agent = home.start(&net.router);
    let who = Knocker::new().profile("203.0.113.1", &[&pin(&home)]);
    let profile = who.home().path().join(".config/knock-agent/gate.yaml");
    let text = fs::read_to_string(&profile).unwrap();
    fs::write(&profile, text.replace("{file: ~/key1}", "prompt").replace("{file: ~/key2}", "prompt"))
        .unwrap();
    let (first, second) = ("key of step 1 (not shown):", "key of step 2 (not shown):");
    let [one, two] = [http_key("ssh"), https_key("ssh")].map(|key| format!("{key}\n"));
    let small = [("LC_ALL", "C"), ("COLUMNS", "20")];
    let ends: &[(&Talk<'_>, &str)] = &[
        (&[(first, CTRL_C)], "nothing was typed"),
        (&[(first, CTRL_D)], "nothing was typed"),
        (&[(first, "\n")], "nothing was typed"),
        (&[(first, TERMINATE)], "nothing was typed"),
        (&[(first, LATIN_1)], "not UTF-8"),
        (&[(first, &one), (second, CTRL_C)], "nothing was typed"),
    ];
    for (answers, said) in ends {
        let done = talk(&net.a, &who, &small, &["knock", "gate"], answers).exits(78);
        let text = done.text();
        assert!(text.contains(said) && !text.contains("no terminal"), "{answers:?}: {text}");
        assert!(!text.contains(one.trim()), "{text}");
    }
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_none());
    let text =
        talk(&net.a, &who, &small, &["knock", "gate"], &[(first, &one), (second, &two)]).success().text();
    assert!(!text.contains(one.trim()) && !text.contains(two.trim()), "{text}");
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
}

#[test]
fn a_question_of_init_that_a_signal_ends_leaves_the_terminal_as_it_was() {
    let host = Namespace::new("init");
    let who = Knocker::new();
    let words = ["init", "--config", "etc/config.yaml"];
    let ends: &[(&str, &str)] = &[(TERMINATE, "nothing was written"), (LATIN_1, "not UTF-8"), (HANGUP, "")];
    for (typed, said) in ends {
        let settings = [("LC_ALL", "C"), ("COLUMNS", "20")];
        let text = talk(&host, &who, &settings, &words, &[("[22/tcp]", typed)]).exits(1).text();
        assert!(text.contains(said), "{typed}: {text}");
        assert_eq!(files(&who), Vec::<String>::new());
    }
}
