//! Knocks that change with time, and their clients.

use std::path::Path;

use super::*;
use crate::config::{Outside, SecretFrom, Severity, UserFile};
use crate::units::{KnockKind, PortRange, Protocol, Secret};

const FIRST: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const SECOND: &str = "MZXW6YTBOJRGC6RRGIZTINJWG44DSMBR";

/// A folder of clients in memory, which has any path.
struct Folder(Vec<(&'static str, String)>);

impl Outside for Folder {
    fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
        Ok(Secret::new(SECOND.to_owned()))
    }

    fn users(&self, folder: &Path) -> Result<Vec<UserFile>, String> {
        if folder == Path::new("/missing") {
            return Err("/missing: No such file or directory".to_owned());
        }
        let file = |(name, text): &(&str, String)| UserFile {
            name: (*name).to_owned(),
            file: format!("{}/{name}.yaml", folder.display()),
            text: zeroize::Zeroizing::new(text.clone()),
        };
        Ok(self.0.iter().map(file).collect())
    }
}

fn client(more: &str) -> String {
    format!("app: ssh\nsecret: {FIRST}\n{more}")
}

/// Apps `ssh` on tcp 22 without keys and `web` on udp 25000 with a sequence, under these keys of the section.
fn read_with(section: &str, clients: &[(&'static str, String)]) -> Result<Checked, Problems> {
    let text = format!(
        "global:\n  interface_ext: eth0\n  http_post_path: /one-place\n  https_post_path: /two-place\n  time_sequence: {section}\n\
         ssh: {{port: 22, duration: 1h, max_duration: 2h}}\n\
         web: {{port: 443, protocol: both, duration: 1h, sequence: {{knocks: [tcp/21000, udp/7]}}}}\n"
    );
    parse("test.yaml", &text, PORTS, &Folder(clients.to_vec()))
}

fn problems(section: &str, clients: &[(&'static str, String)]) -> Vec<(Severity, String)> {
    let list = match read_with(section, clients) {
        Ok(checked) => checked.warnings,
        Err(problems) => problems.list,
    };
    list.into_iter().map(|problem| (problem.severity, problem.to_string())).collect()
}

#[test]
fn everything_has_a_default_and_an_app_needs_no_keys_with_a_client() {
    let checked = read_with("{}", &[("laptop", client(""))]).unwrap();
    assert_eq!(checked.warnings, []);
    let timed = checked.settings.time_sequence.unwrap();
    assert_eq!((timed.kind, timed.protocol, timed.lengths), (KnockKind::Secret, Protocol::Udp, false));
    assert_eq!(timed.ports, PortRange::new(20_000, 31_999).unwrap());
    assert_eq!((timed.every.as_secs(), timed.drift, timed.steps()), (30, 1, 3));
    assert_eq!((timed.window.as_secs(), timed.knock_window.as_secs()), (10, 10));
    assert_eq!(timed.folder, Path::new("/etc/knock-agent/sequence-clients"));
    let [laptop] = &timed.clients[..] else { panic!("{timed:?}") };
    assert_eq!((laptop.name.as_str(), &laptop.apps[..], laptop.knocks), ("laptop", &[0][..], 4));
    assert_eq!((laptop.duration, laptop.disabled, laptop.expires), (None, false, None));
    assert!(laptop.pin.is_none());
    assert_eq!(timed.shape(laptop).count, 4);
}

#[test]
fn every_key_is_read_and_no_secret_is_printed() {
    let section = "{clients: /keys, ports: 10000-19999, lengths: true, every: 1m, drift: 2, window: 20s, knock_window: 5s}";
    let both = "apps: [web, ssh, web]\nsecret: {file: /elsewhere}\npin: \"0815\"\nknocks: 8\nduration: 90m\ndisabled: true\nexpires: 2099-01-31\n";
    let both = both.replace("90m", "1h");
    let settings = read_with(section, &[("a", client("")), ("b", both)]).unwrap().settings;
    let timed = settings.time_sequence.unwrap();
    assert_eq!((timed.every.as_secs(), timed.steps(), timed.lengths), (60, 5, true));
    assert_eq!((timed.window.as_secs(), timed.knock_window.as_secs()), (20, 5));
    let b = &timed.clients[1];
    assert_eq!((&b.apps[..], b.knocks, b.disabled, b.expires.is_some()), (&[0, 1][..], 8, true, true));
    assert_eq!(b.pin.as_ref().unwrap().expose(), "0815");
    assert_eq!(b.duration.unwrap().as_secs(), 3_600);
    let shown = format!("{timed:?}");
    assert!(!shown.contains(FIRST) && !shown.contains("0815") && !shown.contains("[49, 50"), "{shown}");
}

#[test]
fn the_kind_of_knock_knock_has_ports_lengths_and_times_of_its_own() {
    let of = |more: &str| read_with("{kind: knock-knock}", &[("a", client(more))]).unwrap();
    let checked = of("pin: a-long-pin");
    let timed = checked.settings.time_sequence.unwrap();
    assert_eq!((timed.ports, timed.lengths), (KnockKind::their_ports(), true));
    let told: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains("programs of this host get ports"), "{told:?}");
    let bare: Vec<String> = of("").warnings.iter().map(ToString::to_string).collect();
    assert!(bare.iter().any(|told| told.contains("1 of the clients have no PIN")), "{bare:?}");
    assert!(bare.iter().any(|told| told.contains("one guess in 333333 opens")), "{bare:?}");
    let tcp = problems("{kind: knock-knock, protocol: tcp}", &[]);
    assert!(tcp.iter().any(|(_, told)| told.contains("take no other ports")), "{tcp:?}");
}

#[test]
fn what_is_soon_guessed_is_warned_of() {
    let of = |section: &str, more: &str| {
        let told = problems(section, &[("a", client(more))]);
        told.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n")
    };
    assert!(of("{}", "knocks: 1").contains("every scan finds that of `a`"));
    assert!(of("{}", "knocks: 2").contains("one guess in 48000000 opens"));
    assert_eq!(of("{lengths: true}", "knocks: 2"), "", "2^32 and more");
    assert_eq!(of("{}", "knocks: 3"), "");
    assert!(of("{ports: 30000-40000}", "").contains("ports from 32768 to 60999"));
    assert!(of("{}", "disabled: true").contains("there is no client"));
}

#[test]
fn what_cannot_work_is_refused_without_telling_secrets() {
    let good = [("a", client("pin: sesame-open"))];
    for (section, wanted) in [
        ("{client: /x}", "did you mean `clients`?"),
        ("{clients: x}", "whole path"),
        ("{clients: /missing}", "mkdir -m 750 /missing"),
        ("{kind: other}", "one of secret, knock-knock"),
        ("{ports: 20000-20100}", "these are 101 ports"),
        ("{ports: 20000}", "these are 1 ports"),
        ("{protocol: tcp, lengths: true}", "no length that counts"),
        ("{every: 9s}", "every 10s to 1h"),
        ("{drift: 11}", "0 to 10"),
        ("{window: 5s, knock_window: 6s}", "longer than the whole window"),
        ("{protocol: tcp}", "this is one of the tcp ports 20000-31999"),
        ("{ports: 1-2000}", "`web` has one of the udp ports 1-2000"),
        ("{protocol: tcp, ports: 8000-9999}", "8443 (--https-port) is one of the tcp ports"),
    ] {
        let told = problems(section, &good);
        let found = told.iter().any(|(severity, told)| *severity == Severity::Error && told.contains(wanted));
        assert!(found, "{section}: {told:?}");
    }
    for (text, wanted) in [
        (format!("secret: {FIRST}"), "app: this key is missing"),
        ("app: ssh".to_owned(), "secret: this key is missing"),
        (client("apps: [web]"), "there is `apps` too"),
        (format!("app: shh\nsecret: {FIRST}"), "did you mean `ssh`?"),
        (format!("app: ssh\nsecret: {}", &FIRST[..24]), "has 15 bytes"),
        (format!("app: ssh\nsecret: {}1", &FIRST[..31]), "not base32"),
        (client("knocks: 9"), "1 to 8"),
        (client("duration: 3h"), "grants at most 2h"),
        (client("pin: 4711"), "put it in quotes"),
        (client("pin: \"so\\tmething\""), "none of them a control character"),
        (client("expires: soon"), "not a date"),
        (client("knock: 4"), "did you mean `knocks`?"),
        ("- a list".to_owned(), "must have sections"),
        (client("---\nx: y"), "a second YAML document"),
    ] {
        let told = problems("{}", &[("b", text.clone())]);
        let wrong =
            told.iter().find(|(severity, told)| *severity == Severity::Error && told.contains(wanted));
        let (_, message) = wrong.unwrap_or_else(|| panic!("{text}: {told:?}"));
        assert!(message.starts_with("/etc/knock-agent/sequence-clients/b.yaml:"), "{message}");
        for (_, told) in &told {
            assert!(
                !["GEZD", "sesame", "4711", "mething"].iter().any(|secret| told.contains(secret)),
                "{told}"
            );
        }
    }
    let twice = problems("{}", &[("a", client("")), ("b", client("pin: other"))]);
    assert!(twice.iter().any(|(_, told)| told.contains("that of `a` too")), "{twice:?}");
    let name = problems("{}", &[("-a", client(""))]);
    assert!(name.iter().any(|(_, told)| told.contains("rename the file")), "{name:?}");
}
