//! Configurations that nothing starts on.

use crate::agent::{Installation, PROGRAM};
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH};
use crate::firewall::{everything, is_guarded};
use crate::machine::Machine;
use crate::namespace::Namespace;

fn good() -> String {
    Config::ssh(&[]).text().to_owned()
}

/// The line of the text (from 1) on which `what` is.
fn line_of(text: &str, what: &str) -> usize {
    text.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in:\n{text}")) + 1
}

/// What is replaced in a good file by what, and a text that stands on the line to blame.
const BROKEN: &[(&str, &str, &str)] = &[
    ("protocol: tcp", "protocol: sctp", "sctp"),
    ("port: 2222", "port: 70000", "70000"),
    ("port: 2222", "port: 0", "port: 0"),
    ("port: 2222", "port: \"30-20\"", "30-20"),
    ("port: 2222", "port: [22, ssh]", "ssh]"),
    ("port: 2222", "port: []", "port:"),
    ("port: 2222", "prot: 2222", "prot:"),
    ("duration: 10", "duration: never", "never"),
    ("duration: 10", "duration: -1", "-1"),
    ("duration: 10", "duration: 0", "duration: 0"),
    ("duration: 10", "duration: 10\n  duration: 20", "duration: 20"),
    ("step2_https_duration: 5", "step2_https_duration: [5]", "[5]"),
    ("destination: local", "destination: here", "here"),
    ("destination: local", "destination: 10.0.0.256", "10.0.0.256"),
    ("destination: local", "destination: 10.0.0.5:99999", "99999"),
    ("- first-key-of-ssh", "- short", "short"),
    ("- first-key-of-ssh", "- aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaa"),
    ("interface_ext: ext0", "interface_ext: \"a/b\"", "a/b"),
    ("interface_ext: ext0", "interface_ext: a-name-of-sixteen", "a-name-of-sixteen"),
    ("interface_ext: ext0", "interface_xet: ext0", "interface_xet"),
    (STEP1_PATH, "/1-SECRET", "/1-SECRET"),
    (STEP1_PATH, "/SECRET-1", "/SECRET-1"),
    (STEP1_PATH, "/step-1-SECRET", "/step-1-SECRET"),
    (STEP1_PATH, "/_CONFIGURED_PATH_", "/_CONFIGURED_PATH_"),
    (STEP1_PATH, "no-slash", "no-slash"),
    (STEP1_PATH, "/with space", "/with space"),
    (STEP2_PATH, "/2-SECRET", "/2-SECRET"),
    (STEP2_PATH, "/SECRET-2", "/SECRET-2"),
    (STEP2_PATH, "/step-2-SECRET", "/step-2-SECRET"),
    (STEP2_PATH, "/a%20b", "/a%20b"),
    ("rate_limit_per_minute: 600", "rate_limit_per_minute: many", "many"),
    ("port: 2222", "port: 8080", "port: 8080"),
    ("port: 2222", "port: \"8000-9000\"", "8000-9000"),
    ("port: 2222", "\tport: 2222", "port: 2222"),
];

#[test]
fn every_kind_of_broken_configuration_is_located_and_exits_78() {
    let host = Namespace::new("broken");
    let home = Installation::with_text(&good());
    home.check(&host, &["check-config"]).success();
    for (from, to, blamed) in BROKEN {
        let text = good().replacen(from, to, 1);
        assert_ne!(text, good(), "{from} is in the good file");
        home.rewrite_config(&text);
        let done = home.check(&host, &["check-config"]);
        assert_eq!(done.code, Some(78), "{to:?}: {done:?}");
        let place = format!("config.yaml:{}:", line_of(&text, blamed));
        let told = format!("{}{}", done.text(), done.stderr);
        let located = told.split(&place).skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        assert!(located, "{to:?} is not located at {place}COLUMN:\n{told}");
    }
}

#[test]
fn all_problems_of_a_file_are_told_at_once() {
    let host = Namespace::new("broken");
    let text = good()
        .replace("protocol: tcp", "protocol: sctp")
        .replace("duration: 10", "duration: never")
        .replace("destination: local", "destination: here")
        .replace("interface_int", "interface_in");
    let home = Installation::with_text(&text);
    let done = home.check(&host, &["check-config"]).exits(78);
    for blamed in ["sctp", "never", "here", "interface_in:"] {
        let place = format!("config.yaml:{}:", line_of(&text, blamed));
        assert!(done.stderr.contains(&place), "{blamed}:\n{}", done.stderr);
    }
}

#[test]
fn no_verb_starts_on_a_bad_file_and_the_kernel_is_left_alone() {
    let host = Namespace::new("broken");
    let more = good().replace("ssh:\n", "global:\n");
    let slugs =
        Config::new(&[]).app("a-b", "1000", "tcp", "local", &[]).app("a_b", "1001", "tcp", "local", &[]);
    for text in [
        "",
        "[]",
        "nonsense",
        "global: 5\n",
        "global:\n  - a\n",
        ": : :\n",
        "global: {\n",
        "a: &a [*a]\n",
        &more,
        slugs.text(),
        &good().replace("global:", "globl:"),
    ] {
        let home = Installation::with_text(text);
        assert_eq!(home.run_in_vain(&host).code, Some(78), "run on {text:?}");
        home.check(&host, &["check-config"]).exits(78);
        home.check(&host, &["check-ruleset"]).exits(78);
        assert_eq!(everything(&host).trim(), "", "{text:?}");
    }
    let home = Installation::with_text(&good());
    std::fs::remove_file(home.path("config.yaml")).unwrap();
    let missing = home.run_in_vain(&host);
    assert!(
        [Some(74), Some(78)].contains(&missing.code) && missing.stderr.contains("config.yaml"),
        "{missing:?}"
    );
    let binary = Installation::with_text(&good());
    binary.folder().write("config.yaml", b"global:\n  http_post_path: \"\xff\xfe\"\n");
    assert_eq!(binary.run_in_vain(&host).code, Some(78));
}

#[test]
fn a_missing_certificate_is_an_error_and_never_plain_http() {
    let host = Namespace::new("broken");
    for name in ["cert.pem", "key.pem"] {
        let home = Installation::with_text(&good());
        std::fs::remove_file(home.path(name)).unwrap();
        let done = home.run_in_vain(&host);
        assert!(done.code.is_some_and(|c| c != 0) && done.stderr.contains(name), "{done:?}");
        let home = Installation::with_text(&good());
        home.folder().write(name, "not a PEM file");
        let done = home.run_in_vain(&host);
        assert!(done.code.is_some_and(|c| c != 0) && done.stderr.contains(name), "{done:?}");
    }
}

#[test]
fn a_file_that_others_can_read_is_a_warning_and_an_error_when_strict() {
    use std::os::unix::fs::PermissionsExt;
    let host = Namespace::new("broken");
    let home = Installation::with_text(&good());
    let quiet = home.check(&host, &["check-config", "--strict"]).success();
    assert!(!quiet.stderr.contains("warning"), "{}", quiet.stderr);
    std::fs::set_permissions(home.path("config.yaml"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let done = home.check(&host, &["check-config"]).success();
    assert!(done.stderr.contains("config.yaml"), "{done:?}");
    let strict = home.check(&host, &["check-config", "--strict"]);
    assert!(strict.code.is_some_and(|c| c != 0), "{strict:?}");
}

#[test]
fn a_missing_folder_of_codes_is_told_with_all_the_rest_and_closes_all_the_same() {
    let host = Namespace::new("broken");
    let alone = good().replacen("global:\n", "global:\n  2fa_config_folder: /nowhere/2fa\n", 1);
    let text = alone.replace("protocol: tcp", "protocol: sctp");
    let home = Installation::with_text(&text);
    let places = [("/nowhere/2fa", "global.2fa_config_folder"), ("sctp", "ssh.protocol")];
    let places = places.map(|(at, key)| (format!("config.yaml:{}:", line_of(&text, at)), key));
    for done in [home.check(&host, &["check-config"]), home.run_in_vain(&host)] {
        for (place, key) in &places {
            let told = done.stderr.lines().any(|line| line.contains(place) && line.contains(key));
            assert!(told && done.code == Some(78), "{place} {key}: {done:?}");
        }
    }
    home.rewrite_config(&alone);
    home.run_in_vain(&host).exits(78);
    home.check(&host, &["check-ruleset"]).exits(78);
    home.guard(&host).success();
    assert!(is_guarded(&host), "who only closes needs no codes");
}

#[test]
fn programs_are_told_by_either_check_what_is_wrong() {
    let host = Namespace::new("broken");
    let home = Installation::with_text(&good().replace("protocol: tcp", "protocol: sctp"));
    let told = |args: &[&str]| -> serde_json::Value {
        let done = home.check(&host, args).exits(78);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"))
    };
    let [config, ruleset] = ["check-config", "check-ruleset"].map(|verb| told(&[verb, "--json"]));
    assert_eq!((&config["ok"], &ruleset["ok"]), (&false.into(), &false.into()));
    assert_eq!(config["problems"][0]["path"], "ssh.protocol");
    assert_eq!(ruleset["problems"], config["problems"]);
    assert_eq!(ruleset["findings"], serde_json::json!([]));
    home.rewrite_config(&good());
    std::fs::remove_file(home.path("cert.pem")).unwrap();
    let cert = told(&["check-ruleset", "--json"]);
    assert!(cert["problems"][0]["message"].as_str().unwrap().contains("cert.pem"), "{cert}");
}

/// The daemon's own user with its files, and no unit that names it.
const OWN_USER: &str = "set -e\n\
    sed -i '/^knock-agent:/d' /etc/passwd /etc/group\n\
    echo 'knock-agent:x:64999:64999::/:/usr/sbin/nologin' >>/etc/passwd\n\
    echo 'knock-agent:x:64999:' >>/etc/group\n\
    mkdir -p /etc/knock-agent && cd /etc/knock-agent && mkdir 2fa users\n\
    printf 'access_key_http: dave-key-number-1\\naccess_key_https: dave-key-number-2\\n' >users/dave.yaml\n\
    printf '{\"secret\": \"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP\"}' >2fa/second-key-of-ssh.json\n";

#[test]
fn root_is_told_of_files_that_the_daemon_s_own_user_cannot_read() {
    let host = Namespace::new("readable");
    let machine = Machine::new(&host);
    let folders = ["2fa_config_folder: /etc/knock-agent/2fa", "users_folder: /etc/knock-agent/users"];
    let config = Config::new(&folders).app("ssh", "2222", "tcp", "local", &[]);
    machine.sh(OWN_USER).success();
    std::fs::write(machine.path("/etc/knock-agent/config.yaml"), config.text()).unwrap();
    let made = "cd /etc/knock-agent && chgrp -R knock-agent . && chmod -R u=rwX,g=rX,o= .";
    machine.sh(&format!("cd /etc/knock-agent && {PROGRAM} cert --name x && {made}")).success();
    let unreadable = |verb: &str| {
        let done = machine.sh(&format!("{PROGRAM} {verb}")).success();
        let warned = done.stderr.lines().filter(|line| line.contains("cannot read this file"));
        let found: Vec<String> = warned.map(|line| line.split(':').next().unwrap().to_owned()).collect();
        (found, done.stderr)
    };
    let checks = ["check-config", "check-ruleset --offline"];
    for verb in checks {
        assert_eq!(unreadable(verb).0, Vec::<String>::new(), "{verb}");
    }
    let names =
        ["config.yaml", "cert.pem", "key.pem", "2fa", "2fa/second-key-of-ssh.json", "users/dave.yaml"];
    for name in names.map(|name| format!("/etc/knock-agent/{name}")) {
        machine.sh(&format!("chgrp root {name} && chmod g=,o= {name}")).success();
        for verb in checks {
            let (found, told) = unreadable(verb);
            assert!(found.contains(&name) && told.contains("the user knock-agent"), "{verb} {name}: {told}");
        }
        let (_, told) = unreadable(checks[0]);
        let fix = told.split("fix: ").find(|fix| fix.starts_with("chgrp")).unwrap();
        machine.sh(fix.lines().next().unwrap()).success();
        assert_eq!(unreadable(checks[0]).0, Vec::<String>::new(), "{fix}");
    }
    // A trial of somebody's, elsewhere.
    machine.sh("cd /etc/knock-agent && chmod 600 config.yaml && cp -p config.yaml /mnt").success();
    assert_eq!(unreadable("check-config --config /mnt/config.yaml").0, Vec::<String>::new());
}
