//! One-time codes of the client, `enroll`, and a real authenticator's arithmetic.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use crate::agent::Installation;
use crate::configuration::{Config, http_key, https_key};
use crate::firewall::time_left;
use crate::knocker::{Knocker, NAME, pin};
use crate::namespace::Namespace;
use crate::process::{finish, wait};
use crate::topology::{Family, Topology};

const SECRET: &str = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";

fn install() -> Installation {
    let home = Installation::with_text("");
    let folder = home.path("2fa");
    let name = format!("2fa/{}.json", https_key("ssh"));
    home.folder().write(&name, format!("{{\"secret\": \"{SECRET}\", \"interval\": 30}}"));
    let line = format!("2fa_config_folder: \"{}\"", folder.display());
    let config =
        Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &["2fa_step: https", "duration: 60"]);
    home.rewrite_config(config.text());
    home
}

#[test]
fn a_code_is_asked_for_when_the_gateway_wants_one() {
    let net = Topology::new();
    let home = install();
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile("203.0.113.1", &[&pin(&home)]);
    let told = knocker.run(&net.a, &["knock", "gate"]).exits(14).stderr;
    assert!(told.contains("no terminal"), "{told}");
    knocker.feed(&net.a, &["knock", "gate"], b"000000\n").exits(13);
    let code = net.a.run("oathtool", &["--totp", "-b", SECRET]).success().text();
    knocker.feed(&net.a, &["knock", "gate"], code.as_bytes()).success();
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
    home.verb(&net.router, &["revoke", "--all"]).success();
    let again = knocker.feed(&net.a, &["knock", "gate"], code.as_bytes()).exits(13).stderr;
    assert!(!again.contains(code.trim()) && !again.contains(SECRET), "{again}");
}

#[test]
fn a_program_that_prints_codes_is_asked_instead_of_somebody() {
    let net = Topology::new();
    let home = install();
    let _agent = home.start(&net.router);
    let knocker = Knocker::new();
    knocker.home().write("seed", SECRET);
    let seed = knocker.home().path().join("seed");
    let program = format!("totp: {{command: [oathtool, --totp, -b, \"@{}\"]}}", seed.display());
    let knocker = knocker.profile("203.0.113.1", &[&pin(&home), &program]);
    knocker.run(&net.a, &["knock", "gate"]).success();
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
}

#[test]
fn a_client_with_the_secret_gives_each_family_a_code_of_its_own() {
    let net = Topology::new();
    let home = install();
    let _agent = home.start(&net.router);
    let lazy = Knocker::new().profile(NAME, &[&pin(&home), &format!("totp: {{secret: {SECRET}}}")]);
    let told = lazy.run(&net.a, &["knock", "gate"]).success().stderr;
    assert!(told.contains("both factors") && !told.contains(SECRET), "{told}");
    for family in Family::BOTH {
        assert!(time_left(&net.router, "ssh", family.client_a()).is_some(), "{family:?}: {told}");
    }
}

/// Runs `enroll` and types the code that oathtool makes for the secret that is shown.
pub(super) fn enroll_with(
    host: &Namespace,
    knocker: &Knocker,
    words: &[&str],
    before: &str,
    right: bool,
) -> (i32, String, String) {
    let mut command = knocker.command(&[&["enroll"], words].concat());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir(knocker.home().path());
    let mut child = host.background(command);
    let mut input = child.0.stdin.take().unwrap();
    input.write_all(before.as_bytes()).unwrap();
    let mut shown = String::new();
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    while output.read_line(&mut shown).unwrap() > 0 {
        let Some(rest) = shown.split("by hand: ").nth(1).filter(|rest| rest.ends_with('\n')) else {
            continue;
        };
        let secret = rest.split_whitespace().next().unwrap();
        let code = if right {
            host.run("oathtool", &["--totp", "-b", secret]).success().text()
        } else {
            "000000\n000000\n000000\n".to_owned()
        };
        input.write_all(code.as_bytes()).unwrap();
        break;
    }
    drop(input);
    std::io::Read::read_to_string(&mut output, &mut shown).unwrap();
    let status = wait(&mut child.0, Duration::from_secs(30)).expect("an end");
    let mut told = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut told).unwrap();
    (status.code().unwrap(), shown, told)
}

pub(super) fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(super) fn decoded(picture: &std::path::Path) -> String {
    let mut command = std::process::Command::new("zbarimg");
    command.args(["-q", "--raw", "-Sdisable", "-Sqrcode.enable"]).arg(picture);
    finish(command, b"", Duration::from_secs(30)).success().text().trim().to_owned()
}

/// What the terminal shows as a picture: two modules in a character, light ones drawn.
fn photograph(blocks: &str) -> Vec<u8> {
    let rows: Vec<Vec<char>> = blocks.lines().map(|line| line.chars().collect()).collect();
    let (width, height, scale) = (rows[0].len(), rows.len() * 2, 4);
    let mut picture = format!("P5 {} {} 255\n", width * scale, height * scale).into_bytes();
    for y in 0..height * scale {
        for x in 0..width * scale {
            let ch = rows[y / scale / 2][x / scale];
            let light = ch == '█' || ch == (if y / scale % 2 == 0 { '▀' } else { '▄' });
            picture.push(if light { 255 } else { 0 });
        }
    }
    picture
}

#[test]
fn an_enrolled_secret_is_what_the_pictures_say_and_what_the_daemon_takes() {
    let net = Topology::new();
    let knocker = Knocker::new();
    let words =
        ["alice", "--png", "a.png", "--svg", "a.svg", "--uri", "--issuer", "my gate", "--folder", "2fa"];
    fs::create_dir(knocker.home().path().join("2fa")).unwrap();
    let (code, shown, told) =
        enroll_with(&net.router, &knocker, &words, &format!("{}\n", https_key("ssh")), true);
    assert_eq!(code, 0, "{told}");
    assert!(!told.contains(&https_key("ssh")), "{told}");
    let uri = shown.lines().find(|line| line.starts_with("otpauth://")).expect("the URI");
    assert!(uri.starts_with("otpauth://totp/my%20gate:alice?secret="), "{uri}");
    let home = knocker.home().path();
    assert_eq!(decoded(&home.join("a.png")), uri);
    let blocks = shown.split("by hand").next().unwrap();
    fs::write(home.join("terminal.pgm"), photograph(blocks)).unwrap();
    assert_eq!(decoded(&home.join("terminal.pgm")), uri);
    let saved = home.join(format!("2fa/{}.json", https_key("ssh")));
    for path in [&saved, &home.join("a.png"), &home.join("a.svg")] {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&saved).unwrap()).unwrap();
    let secret = json["secret"].as_str().unwrap();
    assert!(uri.contains(&format!("secret={secret}&")) && json["interval"] == 30, "{uri}");
    let svg = fs::read_to_string(home.join("a.svg")).unwrap();
    let dark = svg.matches('M').count();
    let drawn = blocks.lines().flat_map(str::chars).map(|ch| match ch {
        '█' => 2,
        ' ' => 0,
        _ => 1,
    });
    let side = blocks.lines().next().unwrap().chars().count();
    assert_eq!(dark, side * side - drawn.sum::<usize>(), "as many dark squares as the terminal shows");

    let folder = home.join("2fa");
    let line = format!("2fa_config_folder: \"{}\"", folder.display());
    let more = ["2fa_step: https", "duration: 60"];
    let agent_home = Installation::new(&Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &more));
    let agent = agent_home.start(&net.router);
    let client = Knocker::new().profile("203.0.113.1", &[&pin(&agent_home)]);
    let token = net.a.run("oathtool", &["--totp", "-b", secret]).success().text();
    client.feed(&net.a, &["knock", "gate"], token.as_bytes()).success();
    agent.terminate();
    fs::set_permissions(&saved, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = agent_home.run_in_vain(&net.router);
    assert!(refused.code != Some(0) && refused.stderr.contains("mode 0644"), "{}", refused.stderr);

    let (code, _, told) =
        enroll_with(&net.router, &knocker, &words, &format!("{}\n", https_key("ssh")), true);
    assert_eq!(code, 2, "nothing is overwritten: {told}");
    assert!(told.contains("--force") && !told.contains(&https_key("ssh")), "{told}");
    assert!(fs::read_to_string(&saved).unwrap().contains(secret));
}

#[test]
fn nothing_is_saved_before_a_code_was_right() {
    let host = Namespace::new("enroll");
    let knocker = Knocker::new();
    let (code, _, told) = enroll_with(&host, &knocker, &["bob", "--png", "b.png"], "", false);
    assert_eq!(code, 1, "{told}");
    for file in ["bob.json", "b.png"] {
        assert!(!knocker.home().path().join(file).exists(), "{file}");
    }
    let (code, _, told) = enroll_with(&host, &knocker, &["bob"], "", true);
    assert_eq!(code, 0, "{told}");
    assert_eq!(mode(&knocker.home().path().join("bob.json")), 0o600);
}

/// Runs its arguments at a terminal, types the first line of standard input when it is asked, and prints what was shown.
const AT_A_TERMINAL: &str = "\
import os, pty, sys
answer = sys.stdin.readline().strip()
pid, fd = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b''
typed = False
while True:
    try:
        piece = os.read(fd, 4096)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    if not typed and b'code:' in shown:
        typed = True
        os.write(fd, b'12\\x7f\\x7f' + answer.encode() + b'\\r')
status = os.waitpid(pid, 0)[1]
sys.stdout.write(shown.decode())
sys.exit(os.waitstatus_to_exitcode(status))
";

#[test]
fn a_code_that_is_typed_at_a_terminal_is_not_shown() {
    let net = Topology::new();
    let home = install();
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile("203.0.113.1", &[&pin(&home)]);
    let code = net.a.run("oathtool", &["--totp", "-b", SECRET]).success().text();
    let command = knocker.program(&["python3", "-c", AT_A_TERMINAL, crate::agent::PROGRAM, "knock", "gate"]);
    let done = net.a.finish(command, code.as_bytes(), Duration::from_secs(60)).success();
    let shown = done.text();
    assert!(shown.contains("one-time code:") && shown.contains("open"), "{shown}");
    assert!(!shown.contains(code.trim()), "{shown}");
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
}

#[test]
fn whoever_looks_long_for_the_code_of_step_2_gets_in() {
    let net = Topology::new();
    let home = install();
    let _agent = home.start(&net.router);
    let knocker = Knocker::new().profile("203.0.113.1", &[&pin(&home), "2fa_step: https"]);
    // Longer than step 2 is open.
    let slowly = format!("(sleep 9; oathtool --totp -b {SECRET}) | {} knock gate", crate::agent::PROGRAM);
    net.a.finish(knocker.program(&["sh", "-c", &slowly]), b"", Duration::from_secs(60)).success();
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
}

#[test]
fn a_client_with_the_secret_gives_both_steps_of_each_family_codes_of_their_own() {
    let net = Topology::new();
    let home = Installation::with_text("");
    for key in [http_key("ssh"), https_key("ssh")] {
        home.folder().write(&format!("2fa/{key}.json"), format!("{{\"secret\": \"{SECRET}\"}}"));
    }
    let line = format!("2fa_config_folder: \"{}\"", home.path("2fa").display());
    let more = ["2fa_step: both", "duration: 300"];
    home.rewrite_config(Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &more).text());
    let _agent = home.start(&net.router);
    let secret = format!("totp: {{secret: {SECRET}}}");
    let lazy = Knocker::new().profile(NAME, &[&pin(&home), &secret, "2fa_step: both"]);
    let command = lazy.command(&["knock", "gate"]);
    let told = net.a.finish(command, b"", Duration::from_secs(120)).success().stderr;
    for family in Family::BOTH {
        assert!(time_left(&net.router, "ssh", family.client_a()).is_some(), "{family:?}: {told}");
    }
}

#[test]
fn keys_come_from_a_password_store() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    let sources = [
        "access_key_http: {command: [pass, show, knock/one]}",
        "access_key_https: {command: [pass, show, knock/two]}",
    ];
    let knocker = Knocker::new().profile("203.0.113.1", &[&pin(&home)]);
    let profile = knocker.home().path().join(".config/knock-agent/gate.yaml");
    let text = fs::read_to_string(&profile).unwrap();
    let text = text.replace("access_key_http: {file: ~/key1}", sources[0]);
    fs::write(&profile, text.replace("access_key_https: {file: ~/key2}", sources[1])).unwrap();
    for key in ["key1", "key2"] {
        fs::remove_file(knocker.home().path().join(key)).unwrap();
    }
    let make = format!(
        "gpg --batch --quiet --passphrase '' --quick-gen-key me@gate.test default default never && pass init me@gate.test && \
         echo {} | pass insert -e knock/one && printf '%s\\nlogin: alice\\n' {} | pass insert -m knock/two",
        http_key("ssh"),
        https_key("ssh")
    );
    net.a.finish(knocker.program(&["sh", "-c", &make]), b"", Duration::from_secs(60)).success();
    knocker.run(&net.a, &["knock", "gate"]).success();
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
    net.a.finish(knocker.program(&["pass", "rm", "-f", "knock/two"]), b"", Duration::from_secs(60)).success();
    let told = knocker.run(&net.a, &["knock", "gate"]).exits(78).stderr;
    assert!(told.contains("`pass` gave no secret"), "{told}");
    net.a
        .finish(knocker.program(&["gpgconf", "--kill", "gpg-agent"]), b"", Duration::from_secs(60))
        .success();
}
