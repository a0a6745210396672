//! Clients whose knocks change with time: `enroll --sequence`, profiles and flags of `knock`, without a gateway. What
//! is sent is compared with what Python makes of the rule.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::client_codes::{decoded, enroll_with, mode};
use crate::agent::PROGRAM;
use crate::capture::{Capture, Packet};
use crate::knocker::{Knocker, NAME};
use crate::namespace::Namespace;
use crate::topology::{Family, Topology};

const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

/// Our rule: secret, PIN, step, how many; ports and lengths in lines.
const OURS: &str = "\
import base64, hashlib, hmac, struct, sys
secret, pin, step, count = base64.b32decode(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])
stream = b''
for block in range(2):
    text = b'knock-agent knocks 1' + struct.pack('>QQQ', step, block, len(pin)) + pin
    stream += hmac.new(secret, text, hashlib.sha256).digest()
taken = []
for at in range(count):
    number = int.from_bytes(stream[8 * at:8 * at + 8], 'big')
    port = 20000 + number % 12000
    while port in taken:
        port = 20000 + (port + 1 - 20000) % 12000
    taken.append(port)
    print(port, number // 12000 % 16)
";

/// The rule of knock-knock: code, PIN, how many.
const THEIRS: &str = "\
import hashlib, sys
code, pin, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
digits = hashlib.sha1((pin + code).encode()).hexdigest()
for at in range(count):
    start = count + 4 * at
    print(32768 + (int(digits[start:start + 4], 16) & 0x3fff), int(digits[at], 16))
";

type Knocks = Vec<(u16, usize)>;

fn python(host: &Namespace, script: &str, words: &[&str]) -> Knocks {
    let told = host.run("python3", &[&["-c", script], words].concat()).success().text();
    let line = |line: &str| {
        let (port, length) = line.split_once(' ').unwrap();
        (port.parse().unwrap(), length.parse().unwrap())
    };
    told.lines().map(line).collect()
}

fn ours(host: &Namespace, pin: &str, step: u64, count: &str) -> Knocks {
    python(host, OURS, &[SECRET, pin, &step.to_string(), count])
}

fn step() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30
}

/// What was sent by an address: one packet for each knock.
fn sent(packets: &[Packet], from: IpAddr, protocol: u8) -> Knocks {
    let ours = packets.iter().filter(|p| p.source == from && p.protocol == protocol);
    ours.filter(|p| protocol == 17 || p.flags & 0x3f == 2).map(|p| (p.destination_port, p.payload)).collect()
}

/// Captures what the words of a command line send.
fn knock(net: &Topology, knocker: &Knocker, words: &[&str], input: &str) -> (Vec<Packet>, String) {
    let capture = Capture::start(&net.router, "ext0", "udp or tcp");
    let told = knocker.feed(&net.a, &[&["knock"], words].concat(), input.as_bytes()).success().stderr;
    (capture.stop(), told)
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A home with a gateway's configuration that has these keys of `time_sequence`.
fn gateway(keys: &str) -> (Knocker, String) {
    let knocker = Knocker::new();
    let folder = knocker.home().path().join("clients");
    let config = knocker.home().path().join("config.yaml");
    let text = format!(
        "global:\n  interface_ext: ext0\n  http_post_path: /first-one-4711\n  https_post_path: /second-one-0815\n  \
         time_sequence: {{clients: {}{keys}}}\nssh: {{port: 2222, duration: 1h}}\n",
        folder.display()
    );
    private(&config, &text);
    (knocker, config.display().to_string())
}

#[test]
fn an_enrolled_client_sends_what_python_computes_and_each_family_something_else() {
    let net = Topology::new();
    let (knocker, config) = gateway(", lengths: true");
    let home = knocker.home().path().to_owned();
    let words = ["--sequence", "laptop", "--app", "ssh", "--host", NAME, "-c", &config, "--png", "c.png"];
    let words = [&words[..], &["--svg", "c.svg", "--profile", "laptop.yaml", "--knocks", "5"]].concat();
    let enroll_by = |words: &[&str], input: &str| {
        let mut command = knocker.command(&[&["enroll"], words].concat());
        command.current_dir(&home);
        net.router.finish(command, input.as_bytes(), std::time::Duration::from_secs(60))
    };
    let enroll = |input: &str| enroll_by(&words, input);
    enroll("one\nother\n").exits(2);
    assert!(!home.join("clients").exists() && !home.join("laptop.yaml").exists());
    // What cannot be saved as a whole is not left in part.
    let nowhere =
        [&words[..10], &["--svg", "c.svg", "--profile", "nowhere/at-all.yaml", "--no-pin"]].concat();
    enroll_by(&nowhere, "").exits(74);
    assert!(!home.join("c.png").exists() && !home.join("c.svg").exists());
    assert!(!home.join("clients/laptop.yaml").exists());
    let shown = enroll("a 'PIN'\na 'PIN'\n").success();
    let saved = home.join("clients/laptop.yaml");
    for path in [&saved, &home.join("c.png"), &home.join("c.svg"), &home.join("laptop.yaml")] {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    let profile = fs::read_to_string(home.join("laptop.yaml")).unwrap();
    assert_eq!(decoded(&home.join("c.png")), profile.trim());
    assert!(shown.text().contains(&profile) && !shown.text().contains("a 'PIN'"), "{}", shown.text());
    let checked = knocker.run(&net.router, &["check-config", "-c", &config]).success();
    assert!(checked.text().contains("1 client, whose knocks at udp ports 20000-31999"), "{}", checked.text());
    enroll("x\nx\n").exits(2);

    // A secret that the test knows.
    let text = fs::read_to_string(&saved).unwrap();
    let secret = text.lines().find_map(|line| line.strip_prefix("secret: ")).unwrap();
    assert!(profile.contains(secret));
    private(&home.join("laptop.yaml"), &profile.replace(secret, SECRET));
    let path = home.join("laptop.yaml").display().to_string();
    let before = step();
    let (packets, told) = knock(&net, &knocker, &[&path, "--delay", "0.05"], "a 'PIN'\n");
    let found = Family::BOTH.map(|family| sent(&packets, family.client_a(), 17));
    let computed = |step| ours(&net.a, "a 'PIN'", step, "5");
    let each_once = |step| {
        let (now, next) = (computed(step), computed(step + 1));
        found == [now.clone(), next.clone()] || found == [next, now]
    };
    assert!((before..=step()).any(each_once), "{found:?} {told}");
    assert!(!told.contains("PIN'") && !told.contains(SECRET), "{told}");
}

#[test]
fn the_secret_comes_by_a_file_or_descriptor_and_never_by_the_command_line() {
    let net = Topology::new();
    let knocker = Knocker::new();
    let home = knocker.home().path().to_owned();
    private(&home.join("secret"), SECRET);
    private(&home.join("pin"), "4711\n");
    let script = format!(
        "exec {PROGRAM} knock --sequence-secret-fd 7 --knock-tcp --knocks 8 --delay 0.05 --target 203.0.113.1 7< $HOME/secret"
    );
    let before = step();
    let capture = Capture::start(&net.router, "ext0", "tcp");
    let command = knocker.program(&["sh", "-c", &script]);
    net.a.finish(command, b"", std::time::Duration::from_secs(60)).success();
    let ports = |knocks: Knocks| knocks.into_iter().map(|(port, _)| port).collect::<Vec<_>>();
    let found = ports(sent(&capture.stop(), Family::V4.client_a(), 6));
    assert!((before..=step()).any(|step| ports(ours(&net.a, "", step, "8")) == found), "{found:?}");

    let (secret, pin) = (home.join("secret").display().to_string(), home.join("pin").display().to_string());
    let words =
        ["--sequence-secret-file", &secret, "--pin-file", &pin, "--delay", "0.05", "--target", "203.0.113.1"];
    let before = step();
    let (packets, _) = knock(&net, &knocker, &words, "");
    let found = ports(sent(&packets, Family::V4.client_a(), 17));
    assert!((before..=step()).any(|step| ports(ours(&net.a, "4711", step, "4")) == found), "{found:?}");

    for words in [&["--pin", "4711"][..], &["--sequence-secret", SECRET]] {
        let told =
            knocker.run(&net.a, &[&["knock", "--target", "203.0.113.1"], words].concat()).exits(2).stderr;
        assert!(told.contains("can be read by everybody") && !told.contains(words[1]), "{told}");
    }
    fs::set_permissions(home.join("secret"), fs::Permissions::from_mode(0o644)).unwrap();
    let told = knocker.run(&net.a, &[&["knock"], &words[..]].concat()).exits(78).stderr;
    assert!(told.contains("chmod 600"), "{told}");
}

#[test]
fn the_kind_of_knock_knock_sends_what_that_program_computes() {
    let net = Topology::new();
    let (knocker, config) = gateway(", kind: knock-knock");
    let home = knocker.home().path().to_owned();
    let words =
        ["--sequence", "phone", "--app", "ssh", "--host", NAME, "-c", &config, "--uri", "--png", "c.png"];
    let input = "a-long-pin\na-long-pin\n";
    let (code, _, told) = enroll_with(&net.router, &knocker, &words, input, false);
    assert_eq!(code, 1, "{told}");
    assert!(!home.join("clients").exists() && !home.join("c.png").exists());
    let (code, shown, told) = enroll_with(&net.router, &knocker, &words, input, true);
    assert_eq!(code, 0, "{told}");
    let uri = shown.lines().find(|line| line.starts_with("otpauth://")).expect("the URI");
    assert_eq!(decoded(&home.join("c.png")), uri);
    let text = fs::read_to_string(home.join("clients/phone.yaml")).unwrap();
    let secret = text.lines().find_map(|line| line.strip_prefix("secret: ")).unwrap();
    assert!(uri.contains(&format!("secret={secret}&")), "{uri}");

    let code = net.a.run("oathtool", &["--totp", "-b", secret]).success().text().trim().to_owned();
    let theirs = python(&net.a, THEIRS, &[&code, "a-long-pin", "3"]);
    let words = ["--sequence-code", "--ask-pin", "--target", "203.0.113.1", "--delay", "0.05"];
    let (packets, told) = knock(&net, &knocker, &words, &format!("{code}\na-long-pin\n"));
    assert_eq!(sent(&packets, Family::V4.client_a(), 17), theirs, "{told}");
    // The first and the second knock of this code are the same: it is sent once.
    let (packets, _) =
        knock(&net, &knocker, &[&words[..1], &words[2..], &["--knocks", "2"]].concat(), "292202\n");
    let twice = python(&net.a, THEIRS, &["292202", "", "2"]);
    assert_eq!(twice[0], twice[1]);
    assert_eq!(sent(&packets, Family::V4.client_a(), 17), twice[..1]);
    // One code is for one family.
    let words = ["--sequence-code", "--target", NAME, "--delay", "0.05"];
    let (packets, told) = knock(&net, &knocker, &words, &format!("{code}\n"));
    let families = Family::BOTH.map(|family| sent(&packets, family.client_a(), 17).len());
    assert!(families == [3, 0] || families == [0, 3], "{families:?} {told}");
    assert!(told.contains("not knocked") && !told.contains(&code), "{told}");
}
