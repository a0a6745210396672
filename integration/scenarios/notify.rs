//! Telling programs, web servers and people what happens.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::{Installation, PROGRAM};
use crate::configuration::Config;
use crate::firewall::time_left;
use crate::front::child_of;
use crate::knocking::{assert_step2_opens, knock, post_step1, step1};
use crate::namespace::Namespace;
use crate::probe::when_silent;
use crate::process::Background;
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

const LIMIT: Duration = Duration::from_secs(30);

/// A program that appends its input to a file, after these lines of shell.
fn program(folder: &TempDir, name: &str, before: &str) -> String {
    let path = folder.path().join(name);
    let told = folder.path().join(format!("{name}.told"));
    folder.write(name, format!("#!/bin/sh\n{before}\ncat >> {}\n", told.display()));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The events that a file has, when there are at least so many.
#[track_caller]
fn told(folder: &TempDir, name: &str, least: usize) -> Vec<Value> {
    let end = Instant::now() + LIMIT;
    loop {
        let text = fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() >= least {
            return lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        assert!(Instant::now() < end, "{name} was told {text:?}, not {least} events");
        sleep(Duration::from_millis(50));
    }
}

fn words<'v>(events: &'v [Value], key: &str) -> Vec<&'v str> {
    events.iter().map(|event| event[key].as_str().unwrap_or_default()).collect()
}

/// The daemon's configuration with `notify` below `global`.
fn with(notify: &str) -> Config {
    with_also(&[], notify)
}

fn with_also(more: &[&str], notify: &str) -> Config {
    let lines: Vec<String> = notify.lines().map(|line| format!("  {line}")).collect();
    let mut all: Vec<String> = more.iter().map(|line| (*line).to_owned()).collect();
    all.push("notify:".to_owned());
    all.extend(lines);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Config::new(&all).app("ssh", "2222", "tcp", "local", &["duration: 3"])
}

#[test]
fn a_program_is_told_of_openings_renewals_and_ends_and_has_no_privileges() {
    let net = Topology::new();
    let folder = TempDir::new();
    let about = folder.path().join("about");
    let before = format!(
        // By the shell itself: while it starts another program it blocks signals.
        "while read -r line; do printf '%s\\n' \"$line\"; done < /proc/$$/status > {0}; env >> {0}; pwd >> {0}",
        about.display()
    );
    let hook = program(&folder, "hook", &before);
    let home = Installation::new(&with(&format!("exec: {{command: [{hook}, an argument]}}")));
    let agent = home.start(&net.router);
    let client = Family::V4.client_a();
    knock(&net.a, Family::V4.router(), "ssh");
    let opened = told(&folder, "hook.told", 1);
    assert_eq!(
        (opened[0]["event"].as_str(), opened[0]["how"].as_str(), opened[0]["by"].as_str()),
        (Some("opened"), Some("two-step"), Some("key 1"))
    );
    assert_eq!(
        (opened[0]["address"].as_str(), opened[0]["lifetime_s"].as_u64()),
        (Some("203.0.113.2"), Some(3))
    );
    // An operator's is another one, of the same name or not.
    home.grant(&net.router, "ssh", client, 3);
    let ended = told(&folder, "hook.told", 4);
    // It is told by the ledger's clock; the kernel closes within the milliseconds that it took to make the grant.
    when_silent(&net.a, Family::V4.router(), 2222, Instant::now() + Duration::from_secs(2));
    for how in ["two-step", "operator"] {
        let of_it: Vec<Value> = ended.iter().filter(|event| event["how"] == how).cloned().collect();
        assert_eq!(words(&of_it, "event"), ["opened", "closed"], "{ended:?}");
        assert_eq!(of_it[1]["reason"], "expired");
    }
    home.grant(&net.router, "ssh", client, 60);
    home.grant(&net.router, "ssh", client, 90);
    home.verb(&net.router, &["revoke", "ssh", "203.0.113.2"]).success();
    let all = told(&folder, "hook.told", 7);
    assert_eq!(words(&all[4..], "event"), ["opened", "renewed", "closed"]);
    assert_eq!(all[6]["reason"], "revoked");
    assert!(
        all.iter().all(|event| event["version"] == 1 && event["app"] == "ssh" && event["host"].is_string())
    );
    let about = fs::read_to_string(about).unwrap();
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "SigBlk:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(about.lines().any(|have| have == line), "{line} in {about}");
    }
    assert!(!about.contains("NOTIFY_SOCKET") && about.ends_with("/\n"), "{about}");
    agent.terminate();
}

#[test]
fn a_program_is_told_the_network_that_is_open_who_came_and_whether_another_grant_goes_on() {
    let net = Topology::new();
    let folder = TempDir::new();
    let hook = program(&folder, "hook", "");
    let home = Installation::new(&with_also(&["ipv6_prefix: 64"], &format!("exec: {{command: [{hook}]}}")));
    let _agent = home.start(&net.router);
    knock(&net.a, Family::V6.router(), "ssh");
    home.grant(&net.router, "ssh", "2001:db8:1::77", 60);
    // The client's time is over, the operator's is not.
    let all = told(&folder, "hook.told", 3);
    assert_eq!(words(&all, "event"), ["opened", "opened", "closed"], "{all:?}");
    assert!(all.iter().all(|event| event["address"] == "2001:db8:1::/64"), "{all:?}");
    assert_eq!(all[0]["client"], Family::V6.client_a().to_string(), "{all:?}");
    assert_eq!((&all[2]["how"], &all[2]["still_open"]), (&"two-step".into(), &true.into()), "{all:?}");
    home.verb(&net.router, &["revoke", "ssh", "2001:db8:1::77"]).success();
    let all = told(&folder, "hook.told", 4);
    assert_eq!((&all[3]["event"], &all[3]["still_open"]), (&"closed".into(), &Value::Null), "{all:?}");
}

#[test]
fn what_is_slow_or_broken_holds_up_neither_a_knock_nor_the_end() {
    let net = Topology::new();
    let folder = TempDir::new();
    let slow = program(&folder, "slow", "sleep 60");
    let notify = format!(
        "exec:\n  - command: [{slow}]\n    timeout: 300s\n  - command: [/nowhere/at/all]\n  - command: [/bin/sh, -c, 'kill -9 $PPID']\n    events: locked-out\n\
         webhook: {{url: \"http://203.0.113.77:9/\"}}\nmail: {{server: 203.0.113.77, from: a@b, to: c@d}}"
    );
    let home = Installation::new(&with(&notify));
    let agent = home.start(&net.router);
    for _ in 0..3 {
        for client in [&net.a, &net.b] {
            step1(client, Family::V4.router(), "ssh");
            assert_step2_opens(client, Family::V4.router(), "ssh");
        }
    }
    assert!(time_left(&net.router, "ssh", Family::V4.client_b()).is_some());
    // More events than anybody waits for.
    for _ in 0..40 {
        home.grant(&net.router, "ssh", "198.51.100.7", 60);
        home.verb(&net.router, &["revoke", "ssh", "198.51.100.7"]).success();
    }
    let begun = Instant::now();
    agent.terminate();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn the_process_that_tells_is_started_again_and_follows_a_reload() {
    let net = Topology::new();
    let folder = TempDir::new();
    let (one, two) = (program(&folder, "one", ""), program(&folder, "two", ""));
    let home = Installation::new(&with(&format!("exec: {{command: [{one}], events: [opened]}}")));
    let mut agent = home.start(&net.router);
    home.grant(&net.router, "ssh", "198.51.100.7", 60);
    told(&folder, "one.told", 1);
    let launcher = child_of(agent.pid(), "start-others").unwrap();
    let teller = child_of(launcher, "tell-others").unwrap();
    net.router.run("kill", &["-9", &teller.to_string()]).success();
    // The first event after that is lost, and counted; a new process is started ten seconds after the first.
    let end = Instant::now() + LIMIT;
    let mut n = 8;
    while fs::read_to_string(folder.path().join("one.told")).unwrap().lines().count() < 2 {
        assert!(Instant::now() < end, "nobody tells any more");
        home.grant(&net.router, "ssh", format!("198.51.100.{n}"), 60);
        n += 1;
        sleep(Duration::from_millis(500));
    }
    assert!(told(&folder, "one.told", 2)[1]["missed"].as_u64().is_some_and(|missed| missed > 0));
    home.rewrite_config(with(&format!("exec: {{command: [{two}], events: [closed]}}")).text());
    agent.reload();
    home.verb(&net.router, &["revoke", "ssh", "198.51.100.7"]).success();
    assert_eq!(words(&told(&folder, "two.told", 1), "event"), ["closed"]);
    assert!(agent.is_alive());
    agent.signal(Signal::SIGTERM);
}

/// Runs a server in Python and waits until its port answers.
#[track_caller]
fn python(host: &Namespace, folder: &TempDir, port: u16, text: &str) -> Background {
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (file("server.pem"), file("server.key"));
    host.run(PROGRAM, &["cert", "--name", "localhost", "--cert", &cert, "--key", &key]).success();
    folder.write("server.py", text);
    let log = fs::File::create(folder.path().join("server.log")).unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command.arg("server.py").current_dir(folder.path()).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let server = host.background(command);
    let end = Instant::now() + LIMIT;
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    while crate::probe::dial(host, at, Duration::from_secs(1)).is_err() {
        let log = fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
        assert!(Instant::now() < end, "the server does not answer: {log}");
        sleep(Duration::from_millis(50));
    }
    server
}

const WEB: &str = r#"
import http.server, ssl, os
seen = {"n": 0}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        seen["n"] += 1
        first = seen["n"] == 1
        ok = self.headers.get("authorization") == "Bearer a-token-of-ours" and self.path == "/hook?with=secret"
        if ok and not first:
            with open("web.told", "ab") as out: out.write(body + b"\n")
        self.send_response(500 if first else 204 if ok else 403)
        self.send_header("content-length", "0")
        self.end_headers()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8444), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
fn a_web_server_is_told_over_tls_again_if_it_fails_and_only_with_a_good_certificate() {
    let net = Topology::new();
    let folder = TempDir::new();
    let _server = python(&net.router, &folder, 8444, WEB);
    folder.write("token", "Bearer a-token-of-ours\n");
    fs::set_permissions(folder.path().join("token"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let web = |ca: &str| {
        format!(
            "webhook:\n  url: \"https://localhost:8444/hook?with=secret\"\n  authorization: {{file: {}}}\n{ca}  events: [opened]",
            file("token")
        )
    };
    let home = Installation::new(&with(&web(&format!("  ca_file: {}\n", file("server.pem")))));
    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", "2001:db8:1::2", 60);
    let events = told(&folder, "web.told", 1);
    assert_eq!((words(&events, "address"), words(&events, "how")), (vec!["2001:db8:1::2"], vec!["operator"]));
    // Nobody vouches for the certificate now.
    home.rewrite_config(with(&web("")).text());
    agent.reload();
    home.grant(&net.router, "ssh", "198.51.100.7", 60);
    let end = Instant::now() + Duration::from_secs(60);
    while !home.log().contains("somebody was not told of an event") {
        assert!(Instant::now() < end, "{}", home.log());
        sleep(Duration::from_millis(200));
    }
    assert_eq!(told(&folder, "web.told", 1).len(), 1);
    let log = home.log();
    assert!(!log.contains("a-token-of-ours") && !log.contains("with=secret"), "{log}");
}

const MAIL: &str = r#"
import asyncio, ssl
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open("mail.told", "ab") as out:
            out.write(("FROM %s TO %s\n" % (envelope.mail_from, ",".join(envelope.rcpt_tos))).encode() + envelope.content + b"\nEND\n")
        return "250 OK"
def login(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login == b"router" and data.password == b"a-password-of-ours"
    return AuthResult(success=good)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
controller = Controller(Handler(), hostname="127.0.0.1", port=5587, tls_context=context, require_starttls=True, auth_required=True, authenticator=login)
controller.start()
asyncio.new_event_loop().run_forever()
"#;

#[test]
fn people_get_mail_by_a_real_server_with_starttls_and_a_password() {
    let net = Topology::new();
    let folder = TempDir::new();
    let _server = python(&net.router, &folder, 5587, MAIL);
    folder.write("password", "a-password-of-ours\n");
    fs::set_permissions(folder.path().join("password"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let notify = format!(
        "mail:\n  server: localhost:5587\n  ca_file: {}\n  user: router\n  password: {{file: {}}}\n  from: router@example.net\n  to: [admin@example.net, other@example.org]\n  whois: true\n  events: [opened, locked-out, repaired]",
        file("server.pem"),
        file("password"),
    );
    let config = with(&notify).text().replace("lockout: off", "lockout: {after: 2, first: 60s, longest: 1h}");
    let home = Installation::with_text(&config);
    let _agent = home.start(&net.router);
    net.router.run("nft", &["flush", "chain", "inet", "knock_agent", "gate"]).success();
    home.grant(&net.router, "ssh", "198.51.100.7", 60);
    for n in 0..3 {
        post_step1(
            &net.b,
            Family::V4.router(),
            crate::configuration::STEP1_PATH,
            &format!("app=ssh&access_key=a-wrong-key-of-b-{n}"),
        );
    }
    let end = Instant::now() + LIMIT;
    loop {
        let mail = fs::read_to_string(folder.path().join("mail.told")).unwrap_or_default();
        let all = [
            "our rules were changed by nft",
            "ssh is open for 198.51.100.7 for 60 s",
            "203.0.113.3 is locked out for 60 s",
        ];
        if all.iter().all(|text| mail.replace("=\r\n", "").replace("=\n", "").contains(text)) {
            assert!(
                mail.contains("FROM router@example.net TO admin@example.net,other@example.org"),
                "{mail}"
            );
            assert!(mail.contains("Subject:") && mail.contains("198.51.100.7:"), "{mail}");
            break;
        }
        let log = fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
        assert!(Instant::now() < end, "{mail}\n{log}\n{}", home.log());
        sleep(Duration::from_millis(100));
    }
    assert!(!home.log().contains("a-password-of-ours"));
}

const ENDLESS: &str = r#"
import socket
server = socket.create_server(("127.0.0.1", 5525))
while True:
    client, _ = server.accept()
    sent = 0
    try:
        client.sendall(b"220 ")
        while sent < 256:
            client.sendall(b"A" * 1048576)
            sent += 1
    except OSError:
        pass
    client.close()
    if sent:
        with open("sent", "a") as out: out.write("%d\n" % sent)
"#;

#[test]
fn a_mail_server_whose_line_does_not_end_takes_neither_memory_nor_the_events_of_others() {
    let net = Topology::new();
    let folder = TempDir::new();
    let _server = python(&net.router, &folder, 5525, ENDLESS);
    let hook = program(&folder, "hook", "");
    let notify = format!(
        "exec: {{command: [{hook}], events: [opened]}}\nmail: {{server: \"127.0.0.1:5525\", security: none, from: a@b, to: c@d, events: [opened]}}"
    );
    let home = Installation::new(&with(&notify));
    let mut agent = home.start(&net.router);
    home.grant(&net.router, "ssh", "198.51.100.7", 60);
    let end = Instant::now() + LIMIT;
    let sent = loop {
        let text = fs::read_to_string(folder.path().join("sent")).unwrap_or_default();
        if let Some(line) = text.lines().next() {
            break line.parse::<u32>().unwrap();
        }
        assert!(Instant::now() < end, "nobody connected: {}", home.log());
        sleep(Duration::from_millis(50));
    };
    assert!(sent < 100, "{sent} MiB were kept");
    for n in 8..12 {
        home.grant(&net.router, "ssh", format!("198.51.100.{n}"), 60);
    }
    let events = told(&folder, "hook.told", 5);
    assert!(events.iter().all(|event| event["missed"].is_null()), "{events:?}");
    assert!(agent.is_alive());
    agent.terminate();
}
