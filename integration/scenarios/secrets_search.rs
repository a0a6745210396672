//! Every kind of secret in use at once, then searched for wherever it must not be.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::{Installation, PROGRAM};
use crate::backend::{Backend, on_every_firewall};
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::time_left;
use crate::knocker::{Knocker, pin};
use crate::knocking::{assert_step2_answers, form, post_step1, post_step2, request};
use crate::namespace::Namespace;
use crate::process::{Background, finish, wait};
use crate::temporary::TempDir;
use crate::tls::exchange;
use crate::topology::{Family, Topology};

on_every_firewall! { secrets_are_nowhere_but_where_they_belong }

/// In base32, with the bytes they stand for in hexadecimal digits.
const SEEDS: [(&str, &str); 2] = [
    ("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", "48656c6c6f21deadbeef48656c6c6f21deadbeef"),
    ("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "3132333435363738393031323334353637383930"),
];
const PATH_SECRET: &str = "by-which-the-path-changes";
const WRONG: [&str; 3] = ["a-wrong-key-that-is-secret-elsewhere", "91827364", "a-key-in-the-wrong-place"];

/// What is searched for, each with a name.
#[derive(Default)]
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn add(&mut self, name: &'static str, value: impl Into<String>) -> String {
        let value = value.into();
        assert!(value.len() >= 8, "{name} is too short to be searched for");
        self.0.push((name, value.clone()));
        value
    }

    /// The names of those that are in these bytes.
    fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let is_in = |value: &str| bytes.windows(value.len()).any(|window| window == value.as_bytes());
        self.0.iter().filter(|(_, value)| is_in(value)).map(|(name, _)| *name).collect()
    }

    #[track_caller]
    fn assert_not_in(&self, place: &str, bytes: &[u8], but: &[&str]) {
        let found: Vec<&str> = self.found_in(bytes).into_iter().filter(|name| !but.contains(name)).collect();
        assert!(found.is_empty(), "{found:?} in {place}:\n{}", String::from_utf8_lossy(bytes));
    }
}

/// The configuration of everything there is, its files, and the secrets in it.
struct House {
    home: Installation,
    files: TempDir,
    secrets: Secrets,
    /// The path of step 1, which changes once a day.
    path: String,
    /// Alice's keys.
    generated: [String; 2],
}

/// A generated key, and what is stored of it.
fn generated(host: &Namespace, secrets: &mut Secrets) -> (String, String) {
    let made = host.run(PROGRAM, &["hash-key", "--generate"]).success().text();
    let part = |line: usize| made.lines().nth(line).unwrap().split_once(": ").unwrap().1.trim().to_owned();
    let key = secrets.add("a generated key", part(0));
    secrets.add("its secret half", key.split_once('.').unwrap().1);
    let stored = secrets.add("what is stored of it", part(1));
    secrets.add("its verifier", stored.rsplit('$').next().unwrap());
    (key, stored)
}

fn house(host: &Namespace) -> House {
    let mut secrets = Secrets::default();
    let files = TempDir::new();
    let (first, stored_first) = generated(host, &mut secrets);
    let (second, stored_second) = generated(host, &mut secrets);
    let chosen = secrets.add("a chosen key", "a chosen key of carol");
    let hash = host.feed(PROGRAM, &["hash-key"], format!("{chosen}\n").as_bytes()).success().text();
    let hash = secrets.add("its hash", hash.trim());
    secrets.add("its salt and hash", hash.rsplit("p=").next().unwrap());
    for (name, value) in [
        ("a key in a credential", "a-key-in-a-credential"),
        ("a key in a file", "a-key-in-a-file-of-its-own"),
        ("a key in the configuration", "carols-first-key"),
        ("a first key in a user's file", "daves-first-key-of-a-file"),
        ("a second key in a user's file", "daves-second-key-of-a-file"),
        ("a key of the app", &http_key("ssh")),
        ("a second key of the app", &https_key("ssh")),
        ("the path of step 1", STEP1_PATH),
        ("the path of step 2", STEP2_PATH),
        ("a seed", SEEDS[0].0),
        ("a seed in hexadecimal digits", SEEDS[0].1),
        ("another seed", SEEDS[1].0),
        ("another seed in hexadecimal digits", SEEDS[1].1),
        ("the secret of the path", PATH_SECRET),
        ("a wrong key", WRONG[0]),
        ("a wrong code", WRONG[1]),
        ("a key in a query", WRONG[2]),
        ("the address of a webhook", "a-hook-that-is-secret"),
        ("the token of a webhook", "a-token-of-a-webhook"),
        ("the password of a mail server", "a-password-of-a-mail-server"),
    ] {
        secrets.add(name, value);
    }
    files.write("cred", "a-key-in-a-credential\n");
    files.write("file", "a-key-in-a-file-of-its-own\n");
    files.write("alice.json", format!("{{\"secret\": \"{}\", \"interval\": 30, \"digits\": 8}}", SEEDS[0].0));
    files.write(
        "users/dave.yaml",
        format!(
            "access_key_http: daves-first-key-of-a-file\naccess_key_https: daves-second-key-of-a-file\n\
             totp: {{secret: {}, digits: 8}}\n",
            SEEDS[1].0
        ),
    );
    let folder = files.path().display();
    let users = format!(
        "users: {{alice: {{access_key_http: {stored_first}, access_key_https: {stored_second}, totp: {{file: {folder}/alice.json}}}}, \
         bob: {{access_key_http: {{credential: cred}}, access_key_https: {{file: {folder}/file}}}}, \
         carol: {{access_key_http: carols-first-key, access_key_https: \"{hash}\"}}}}"
    );
    files.write("password", "a-password-of-a-mail-server\n");
    let notify = format!(
        "notify: {{exec: {{command: [/bin/sh, -c, \"cat >{folder}/told\"]}}, \
         webhook: {{url: \"https://127.0.0.1:9/a-hook-that-is-secret\", authorization: Bearer a-token-of-a-webhook}}, \
         mail: {{server: \"127.0.0.1:9\", user: router, password: {{file: {folder}/password}}, from: r@gate.test, to: a@gate.test}}}}"
    );
    let lines = [
        users,
        notify,
        format!("http_post_path_secret: {PATH_SECRET}"),
        "http_post_path_every: 1d".to_owned(),
        "step1_max_bytes: 800".to_owned(),
        format!("users_folder: {folder}/users"),
        format!("state_file: {folder}/state.json"),
        format!("2fa_config_folder: {folder}/2fa"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    files.write(&format!("2fa/{}.json", https_key("ssh")), format!("{{\"secret\": \"{}\"}}", SEEDS[0].0));
    let config = Config::new(&lines).app("ssh", "2222", "tcp", "local", &["2fa_step: https", "duration: 60"]);
    let home = Installation::new(&config)
        .variable("CREDENTIALS_DIRECTORY", files.path().to_str().unwrap())
        .variable("RUST_LOG", "trace")
        .variable("RUST_BACKTRACE", "full")
        .flags(&["--log-level", "trace"]);
    let key = fs::read_to_string(home.path("key.pem")).unwrap();
    secrets.add("the key of the certificate", key.lines().nth(1).unwrap());
    let token = format!(
        "printf 'knock-agent path 1\\n%s' $(($(date +%s) / 86400)) | openssl dgst -sha256 -hmac {PATH_SECRET} | sed 's/.*= *//' | cut -c1-32"
    );
    let token = host.run("sh", &["-c", &token]).success().text();
    let token = secrets.add("the end of the path of step 1", token.trim());
    let path = format!("{STEP1_PATH}/{token}");
    House { home, files, secrets, path, generated: [first, second] }
}

fn code(host: &Namespace, seed: &str, digits: &str) -> String {
    host.run("oathtool", &["--totp", "-d", digits, "-b", seed]).success().text().trim().to_owned()
}

/// Knocks that are right, by the client and by curl; what went over the wire is a secret from then on.
fn knock_well(net: &Topology, house: &mut House) {
    let to = Family::V4.router();
    let second = |key: &str, more: &str| {
        post_step2(&net.a, to, STEP2_PATH, &format!("app=ssh&access_key={key}{more}"), &[])
    };
    let revoke = |house: &House| drop(house.home.verb(&net.router, &["revoke", "--all"]).success());
    // Alice by the client, which makes a proof and a code.
    let keys = (house.generated[0].as_str(), house.generated[1].as_str());
    let id = keys.0.split_once('.').unwrap().0.to_owned();
    let script = format!(
        "totp: {{command: [oathtool, --totp, -d, \"8\", -b, \"@{}/seed\"]}}",
        house.files.path().display()
    );
    house.files.write("seed", SEEDS[0].0);
    let more = [
        format!("user: \"{id}\""),
        script,
        pin(&house.home),
        format!("http_post_path_secret: {PATH_SECRET}"),
        "http_post_path_every: 1d".to_owned(),
    ];
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    let client = Knocker::new().with_keys("203.0.113.1", keys, &more);
    let told = client.run(&net.a, &["knock", "gate"]).success();
    house.secrets.assert_not_in("what the client says", told.stderr.as_bytes(), &[]);
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
    revoke(house);
    // Bob by a proof with openssl, and a replay of it.
    let nonce = "00112233445566778899aabbccddeeff";
    let proof = super::users::proof_of(&net.a, "a-key-in-a-credential", "bob", "203.0.113.2", nonce);
    let sent = house.secrets.add("a proof", proof.rsplit_once('=').unwrap().1);
    house.secrets.add("the code in a proof", sent.rsplit_once('.').unwrap().1);
    for _ in 0..2 {
        post_step1(&net.a, to, &house.path, &proof);
    }
    assert_step2_answers(second("a-key-in-a-file-of-its-own", ""), 200);
    revoke(house);
    // Carol by a hash, wrong and right.
    post_step1(&net.a, to, &house.path, "app=ssh&access_key=carols-first-key");
    assert_step2_answers(second("another+chosen+key", "&user=carol"), 403);
    assert_step2_answers(second("a+chosen+key+of+carol", "&user=carol"), 200);
    revoke(house);
    // Dave by a code, missing, wrong, right, and used again.
    post_step1(&net.a, to, &house.path, "app=ssh&access_key=daves-first-key-of-a-file");
    let key = "daves-second-key-of-a-file";
    assert_step2_answers(second(key, ""), 401);
    assert_step2_answers(second(key, &format!("&token={}", WRONG[1])), 403);
    let token = code(&net.a, SEEDS[1].0, "8");
    let token = house.secrets.add("a one-time code", token);
    assert_step2_answers(second(key, &format!("&token={token}")), 200);
    assert_step2_answers(second(key, &format!("&token={token}")), 403);
}

/// What strangers and broken clients send.
fn knock_badly(net: &Topology, house: &House) {
    let to = Family::V4.router();
    let wrong = format!("{}&token={}", form("ssh", WRONG[0]), WRONG[1]);
    post_step1(&net.b, to, &house.path, &wrong);
    post_step1(&net.b, to, &house.path, &form("unknown", WRONG[0]));
    post_step1(&net.a, to, &house.path, &form("ssh", &http_key("ssh")));
    for (head, body) in [
        (format!("POST {STEP2_PATH}"), wrong.clone()),
        (format!("POST {STEP2_PATH}"), format!("{wrong}&unknown=1")),
        (format!("POST {STEP2_PATH}?access_key={}", WRONG[2]), wrong.clone()),
        (format!("GET {STEP2_PATH}/longer?key={}", WRONG[2]), String::new()),
        (format!("POST {STEP2_PATH}"), format!("{}&token=12", form("ssh", &https_key("ssh")))),
        (format!("POST {STEP2_PATH}"), format!("app=ssh&proof={}", WRONG[0])),
    ] {
        let asked = request(&head, &body);
        for asked in
            [asked.clone(), asked.replace("HTTP/1.1", "HTTP/9.9"), asked.replace("Host: x", "Host x")]
        {
            let _ = exchange(&net.a, to, asked.as_bytes());
        }
    }
}

/// Everything that the control socket answers, to what is asked rightly and to what is not.
fn answers(home: &Installation, host: &Namespace) -> Vec<u8> {
    let mut out = Vec::new();
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["grant", "unknown", "203.0.113.9"],
        &["revoke", "ssh", "203.0.113.9"],
        &["unblock", "--all"],
        &["allow", "--list"],
        &["confirm"],
    ] {
        let done = home.verb(host, words);
        out.extend([&done.stdout, done.stderr.as_bytes()].concat());
    }
    for asked in ["", "{}\n", "{\"status\": 1}\n", "\"everything\"\n", "\u{0}\n"] {
        let mut socket = UnixStream::connect(home.path("run/control.sock")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        let _ = socket.write_all(asked.as_bytes()).and_then(|()| socket.shutdown(std::net::Shutdown::Write));
        let _ = socket.read_to_end(&mut out);
    }
    out
}

/// A process and all that it started and that still run.
fn family_of(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let found: Vec<u32> = children
            .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        all.extend(found);
        at += 1;
    }
    all
}

fn files_below(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files_below(&entry.path(), out);
        } else if kind.is_file() {
            out.push(entry.path());
        }
    }
}

fn secrets_are_nowhere_but_where_they_belong() {
    let net = Topology::new();
    let mut house = house(&net.router);
    let config = fs::read(house.home.path("config.yaml")).unwrap();
    let known = house.secrets.found_in(&config);
    assert!(known.len() >= 9, "what is there is found: {known:?}");
    let trace = house.files.path().join("programs");
    // The programs that the daemon starts, with arguments and environment in full; the daemon keeps its process id.
    let words = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-v",
        "-s",
        "100000",
        "-e",
        "trace=execve",
        "-o",
        trace.to_str().unwrap(),
    ];
    house.home = house.home.wrapper(&words);
    let agent = house.home.start(&net.router);
    knock_well(&net, &mut house);
    knock_badly(&net, &house);
    let (home, secrets) = (&house.home, &house.secrets);
    // A reload with what is wrong, and one with what is right.
    let good = fs::read_to_string(home.path("config.yaml")).unwrap();
    home.rewrite_config(
        &good
            .replace("carols-first-key", &format!("carols-first-key{}", "x".repeat(60)))
            .replace("duration: 60", "duration: x"),
    );
    agent.reload();
    home.rewrite_config(&good);
    agent.reload();
    secrets.assert_not_in("answers of the control socket", &answers(home, &net.router), &[]);
    let family = family_of(agent.pid());
    assert!(family.len() > 1, "the daemon and the process that tells others");
    for (pid, file) in
        family.iter().flat_map(|pid| ["cmdline", "environ", "comm", "status"].map(|file| (pid, file)))
    {
        let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        // The process that hears strangers has no environment.
        assert!(!text.is_empty() || file == "environ", "{file}");
        secrets.assert_not_in(file, &text, &[]);
    }
    let told = house.files.path().join("told");
    let end = Instant::now() + Duration::from_secs(30);
    while !told.exists() {
        assert!(Instant::now() < end, "nobody is told:\n{}", home.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    secrets.assert_not_in("what a program is told", &fs::read(&told).unwrap(), &[]);
    agent.terminate();
    let log = home.log();
    for told in ["granted", "wrong-key", "replayed-code", "DEBUG", "not a duration"] {
        assert!(log.contains(told), "{told} is not in the log:\n{log}");
    }
    secrets.assert_not_in("the log", log.as_bytes(), &[]);
    let programs = fs::read(&trace).unwrap();
    assert!(programs.windows(4).any(|word| word == b"run\""), "strace saw nothing");
    if Backend::current().is_iptables() {
        assert!(String::from_utf8_lossy(&programs).contains("-restore"), "iptables was started");
    }
    secrets.assert_not_in("programs that were started", &programs, &[]);
    let mut kept = vec![house.files.path().join("state.json")];
    for folder in ["run", "state"] {
        files_below(&home.path(folder), &mut kept);
    }
    assert!(kept.iter().any(|path| path.ends_with("run/used-codes.json")), "{kept:?}");
    for path in kept {
        // The rules of the guard, to which the path of step 1 belongs; for nobody but the daemon.
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        secrets.assert_not_in(
            &path.display().to_string(),
            &fs::read(&path).unwrap(),
            &["the path of step 1", "the end of the path of step 1"],
        );
    }
}

/// Ends it as a crash does, with its own limit on core files lifted where root may do that; whether the kernel wrote one.
fn dumps_core(process: &mut Background, pid: u32) -> bool {
    let mut lift = Command::new("prlimit");
    lift.args(["--core=unlimited:unlimited", "--pid", &pid.to_string()]);
    // In a container root may not, and then the limit is a reason more.
    let _ = finish(lift, b"", Duration::from_secs(10));
    process.signal(Signal::SIGABRT);
    wait(&mut process.0, Duration::from_secs(20)).expect("an end").core_dumped()
}

fn in_folder(folder: &TempDir, words: &[&str]) -> Vec<String> {
    let script = "cd \"$1\" && shift && ulimit -c unlimited && exec \"$@\"";
    let folder = folder.path().to_str().unwrap();
    ["sh", "-c", script, "sh", folder].iter().chain(words).map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_crash_leaves_no_core_file_of_daemon_or_client_whatever_the_limits_are() {
    let net = Topology::new();
    let folder = TempDir::new();
    let cores = || fs::read_dir(folder.path()).unwrap().flatten().count();
    let spawn = |words: &[&str]| {
        let words = in_folder(&folder, words);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        net.a.background(command)
    };
    let mut other = spawn(&["sleep", "60"]);
    std::thread::sleep(Duration::from_millis(300));
    let pid = other.0.id();
    assert!(dumps_core(&mut other, pid), "this host writes no core files at all: nothing can be told");
    let made = cores();

    let words = in_folder(&folder, &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let home = Installation::new(&Config::ssh(&["duration: 60"])).wrapper(&words);
    let agent = home.start(&net.router);
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(line.split_whitespace().filter(|word| *word == "0").count(), 2, "{line}");
    let knocker = Knocker::new().profile("203.0.113.1", &[&pin(&home)]);
    let profile = knocker.home().path().join(".config/knock-agent/gate.yaml");
    let mut client = {
        let words = in_folder(&folder, &[PROGRAM, "knock", profile.to_str().unwrap(), "--watch"]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("HOME", knocker.home().path());
        net.a.background(command)
    };
    let end = Instant::now() + Duration::from_secs(30);
    while time_left(&net.router, "ssh", Family::V4.client_a()).is_none() {
        assert!(Instant::now() < end && client.is_alive(), "{}", home.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    let pid = client.0.id();
    assert!(!dumps_core(&mut client, pid), "the client");
    let pid = agent.pid();
    assert!(!dumps_core(&mut agent.into_process(), pid), "the daemon");
    assert_eq!(cores(), made);
}
