//! What the shipped units of systemd take away from the daemon, as systemd itself counts it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::backend::on_both_iptables;
use crate::configuration::Config;
use crate::firewall::{is_guarded, remove_guard};
use crate::front;
use crate::probe::{assert_echoes, assert_silent};
use crate::process::finish;
use crate::requirements;
use crate::server::{Habit, Server};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

const DAEMON: &str = "packaging/systemd/knock-agent.service";
const GUARD: &str = "packaging/systemd/knock-agent-guard.service";
const VYOS: &str = "packaging/vyos/knock-agent.service";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(shipped(name)).unwrap()
}

/// With iptables, beside either unit.
const IPTABLES: &str = "packaging/systemd/iptables.conf";
const GUARD_IPTABLES: &str = "packaging/systemd/iptables-guard.conf";

on_both_iptables! {
    with_the_drop_ins_both_units_may_do_what_iptables_takes,
}

/// What a unit and its drop-in name together; what is empty begins anew.
fn together(unit: &str, drop_in: &str, key: &str) -> Vec<String> {
    let both = text(unit) + &text(drop_in);
    let mut out = Vec::new();
    for value in both.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')) {
        if value.is_empty() {
            out.clear();
        }
        out.extend(value.split_whitespace().map(str::to_owned));
    }
    out
}

/// `socket(2)` for other families than those before `--` fails as `RestrictAddressFamilies=` has it fail.
const ONLY_FAMILIES: &str = "
import ctypes, os, platform, socket, struct, sys
end = sys.argv.index('--')
families = [int(getattr(socket, name)) for name in sys.argv[1:end]]
number = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, len(families) + 2, number), (0x20, 0, 0, 16)]
code += [(0x15, len(families) - index, 0, family) for index, family in enumerate(families)]
code += [(0x06, 0, 0, 0x00050000 | 97), (0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(code), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
try:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sys.exit('nothing is filtered')
except OSError as error:
    assert error.errno == 97, error
os.execvp(sys.argv[end + 1], sys.argv[end + 1:])
";

/// A command in front of another, which gets of the unit's sandbox what concerns iptables' programs.
fn in_unit(unit: &str, drop_in: &str) -> Vec<String> {
    assert_eq!(together(unit, drop_in, "ReadWritePaths"), ["-/run/xtables.lock"]);
    assert!(text("packaging/tmpfiles.d/knock-agent.conf").contains("\nf      /run/xtables.lock "));
    let run = "mount -t tmpfs -o mode=755 none /run && touch /run/xtables.lock && mount --bind /run/xtables.lock \
               /run/xtables.lock && mount -o remount,bind,ro /run && ! touch /run/other 2>/dev/null && exec \"$@\"";
    let set = together(unit, drop_in, "CapabilityBoundingSet");
    let set: String =
        set.iter().map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase())).collect();
    let set = format!("--bounding-set=-all{set}");
    let mut words = vec!["unshare", "-m", "sh", "-c", run, "sh"];
    words.extend(["setpriv", "--inh-caps=-all", &set, "--no-new-privs", "python3", "-c", ONLY_FAMILIES]);
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    words.extend(together(unit, drop_in, "RestrictAddressFamilies"));
    words.push("--".to_owned());
    words
}

fn with_the_drop_ins_both_units_may_do_what_iptables_takes() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["sequence: {knocks: [tcp/1234, tcp/5678]}"]));
    let [guard, daemon] =
        [(GUARD, GUARD_IPTABLES), (DAEMON, IPTABLES)].map(|(unit, drop_in)| in_unit(unit, drop_in));
    let words: Vec<&str> = guard.iter().map(String::as_str).collect();
    net.router.finish(home.guard_command(&words), b"", Duration::from_secs(30)).success();
    assert!(is_guarded(&net.router));
    remove_guard(&net.router);
    let words: Vec<&str> = daemon.iter().map(String::as_str).collect();
    let home = home.wrapper(&words);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        home.grant(&net.router, "ssh", family.client_a(), 60);
        assert_echoes(&net.a, family.router(), 2222);
    }
}

/// How exposed systemd finds a unit: 0.0 to 10.0, less is better.
fn exposure(unit: &Path) -> f64 {
    let mut command = Command::new("systemd-analyze");
    command.env("LC_ALL", "C").args(["security", "--offline=true", "--no-pager"]).arg(unit);
    let done = finish(command, b"", Duration::from_secs(60)).success();
    let told = done.text();
    let line = told.lines().find(|line| line.contains("Overall exposure level for ")).unwrap();
    let number = line.rsplit_once(": ").unwrap().1.split(' ').next().unwrap();
    let number: f64 = number.parse().unwrap();
    assert!((0.0..=10.0).contains(&number) && told.contains("NoNewPrivileges="), "{told}");
    number
}

fn exposure_of(text: &str) -> f64 {
    let folder = TempDir::new();
    folder.write("some.service", text);
    exposure(&folder.path().join("some.service"))
}

#[test]
fn systemd_finds_the_units_little_exposed() {
    requirements::demand();
    let [daemon, guard, vyos] = [DAEMON, GUARD, VYOS].map(|unit| exposure(&shipped(unit)));
    assert!(daemon <= 3.0 && vyos <= 3.0 && guard <= 1.5, "{daemon}, {vyos}, {guard}");
    // The measure tells one from the other.
    let bare: String = text(DAEMON).lines().filter(|line| line.starts_with(['[', 'E', 'T'])).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    );
    assert!(exposure_of(&bare) > 9.0);
}

/// The system calls that the front may make, as the source of its filter names them.
fn calls_of_the_front() -> Vec<String> {
    let source = text("src/sys/seal/calls.rs");
    let between =
        |start: &str, end: &str| source.split_once(start).unwrap().1.split_once(end).unwrap().0.to_owned();
    let listed = between("const ALWAYS", "const ENFORCER:")
        + &between("const SENDING", "const PROTECTION")
        + &between("Role::Front => {", "Role::Enforcer => {");
    let name =
        |rest: &str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned();
    listed.split("libc::SYS_").skip(1).map(name).collect()
}

/// A unit has one sandbox for all that it starts. The front's is that of the daemon's unit, and what it takes away from itself.
#[test]
fn systemd_finds_the_front_s_part_of_the_unit_little_exposed() {
    requirements::demand();
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let end = Instant::now() + Duration::from_secs(30);
    let line = |name: &str| front::pid_of(&agent).and_then(|pid| front::status_line(pid, name));
    while line("Seccomp").as_deref() != Some("2") {
        assert!(Instant::now() < end, "no front that is sealed");
        std::thread::sleep(Duration::from_millis(20));
    }
    for none in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(line(none).as_deref(), Some("0000000000000000"), "{none}");
    }
    assert_eq!(line("NoNewPrivs").as_deref(), Some("1"));
    let calls = calls_of_the_front();
    assert!((40..70).contains(&calls.len()), "{calls:?}");
    for never in ["socket", "connect", "bind", "openat", "execve", "clone", "clone3", "ptrace", "kill"] {
        assert!(!calls.iter().any(|call| call == never), "{never}");
    }
    let mut part = String::new();
    for line in text(DAEMON).lines() {
        match line.split('=').next().unwrap() {
            "CapabilityBoundingSet" => part.push_str("CapabilityBoundingSet=\n"),
            "RestrictAddressFamilies" => part.push_str("RestrictAddressFamilies=none\n"),
            "AmbientCapabilities" | "SystemCallFilter" => {}
            _ => {
                part.push_str(line);
                part.push('\n');
            }
        }
    }
    let part = part.replace("[Service]", &format!("[Service]\nSystemCallFilter={}", calls.join(" ")));
    let (front, daemon) = (exposure_of(&part), exposure(&shipped(DAEMON)));
    assert!(front <= 1.5 && front < daemon, "{front}, {daemon}");
}

#[test]
fn every_line_that_takes_something_away_has_its_reason_above_it() {
    for unit in [DAEMON, GUARD, VYOS] {
        let text = text(unit);
        let (_, service) = text.split_once("[Service]").unwrap();
        let mut reason = false;
        let mut lines = 0;
        for line in service.lines() {
            match line.chars().next() {
                Some('#') => reason = true,
                Some('[') => break,
                Some(_) if lines == 0 && !line.contains("Capab") && !line.starts_with("User=") => {}
                Some(_) => {
                    assert!(reason, "{unit}: no reason for {line}");
                    lines += 1;
                }
                None => reason = false,
            }
        }
        assert!(lines > 20, "{unit}: {lines} lines");
    }
}

#[test]
fn a_unit_starts_the_program_and_nothing_else() {
    for unit in [DAEMON, GUARD, VYOS, IPTABLES, GUARD_IPTABLES] {
        let text = text(unit);
        for line in text.lines().filter(|line| line.starts_with("Exec") && !line.ends_with('=')) {
            let allowed = [
                "ExecStart=/usr/bin/knock-agent ",
                "ExecStart=/config/knock-agent/knock-agent ",
                "ExecReload=/bin/kill -HUP $MAINPID",
            ];
            assert!(allowed.iter().any(|start| line.starts_with(start)), "{unit}: {line}");
        }
        assert_eq!(text.matches("\nExecStart=/").count(), 1, "{unit}");
        assert!(!text.contains("\nPermissionsStartOnly") && !text.contains("=+"), "{unit}");
    }
}

#[test]
fn what_the_unit_s_user_cannot_read_is_told_with_the_command_that_mends_it() {
    requirements::demand();
    let folder = TempDir::new();
    let config = folder.write("secrets/config.yaml", "global: {interface_ext: lo, http_post_path: /one-place, https_post_path: /two-place}\nssh: {port: 22, duration: 1h, access_key_http: first-secret, access_key_https: {file: KEY}}\n".replace("KEY", folder.path().join("secrets/second").to_str().unwrap()));
    folder.write("secrets/second", "a-second-secret-in-a-file\n");
    let (cert, key) = crate::agent::certificate();
    let (cert, key) = (folder.write("cert.pem", cert), folder.write("key.pem", key));
    fs::set_permissions(folder.path().join("secrets"), fs::Permissions::from_mode(0o700)).unwrap();
    let unit = format!(
        "[Service]\nUser=nobody\nProtectHome=yes\nExecStart=/usr/bin/knock-agent run --config {} --cert {} --key {}\n",
        config.display(),
        cert.display(),
        key.display()
    );
    let unit = folder.write("knock-agent.service", unit);
    // As if it were installed, for this one process.
    let check = |verb: &str| {
        let script = format!(
            "mount -t tmpfs none /etc/systemd/system && cp {} /etc/systemd/system && exec {} {verb} --config {}",
            unit.display(),
            crate::agent::PROGRAM,
            config.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        finish(command, b"", Duration::from_secs(20)).success().stderr
    };
    let fixes = |told: &str| -> Vec<String> {
        let lines = told.lines().filter_map(|line| line.trim().strip_prefix("fix: "));
        lines.filter(|line| line.starts_with("chgrp ")).map(str::to_owned).collect()
    };
    let told = check("check-config");
    for file in ["secrets", "cert.pem", "key.pem"] {
        let place = folder.path().join(file);
        assert!(fixes(&told).iter().any(|fix| fix.ends_with(place.to_str().unwrap())), "{file}: {told}");
    }
    assert!(told.contains("runs as nobody"), "{told}");
    assert!(check("check-ruleset --offline").contains("runs as nobody"));
    // What is proposed helps, at last: behind a folder there may be files.
    for _ in 0..3 {
        for fix in fixes(&check("check-config")) {
            let mut command = Command::new("sh");
            command.args(["-c", &fix]);
            finish(command, b"", Duration::from_secs(20)).success();
        }
    }
    assert!(!check("check-config").contains("runs as nobody"));
}
