//! `knock-agent init`: from the first question to an open port, by the commands that it prints.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::{Installation, PROGRAM};
use crate::backend::Backend;
use crate::configuration::Config;
use crate::firewall::{everything, is_guarded, time_left};
use crate::namespace::Namespace;
use crate::pages::Hosts;
use crate::probe::{assert_echoes, assert_open, assert_silent};
use crate::process::{Background, Finished};
use crate::server::{Habit, Server};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

const CTRL_C: &str = "\u{3}";
const LIMIT: Duration = Duration::from_secs(150);

/// Runs `init` at a terminal of its own.
fn at_terminal(host: &Namespace, args: &[&str], talk: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/integration/lib/at-terminal"));
    command.arg(PROGRAM).arg("init").args(args);
    command.env("NO_COLOR", "1").env("SSH_CONNECTION", "203.0.113.2 50122 203.0.113.1 2222");
    let talk: Vec<_> = talk.iter().map(|(asked, typed)| json!([asked, typed])).collect();
    host.finish(command, json!(talk).to_string().as_bytes(), LIMIT)
}

/// Runs it where nobody can be asked.
fn alone(host: &Namespace, args: &[&str]) -> Finished {
    let mut command = Command::new("setsid");
    command.args(["--wait", PROGRAM, "init"]).args(args);
    host.finish(command, b"", LIMIT)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).map(|all| all.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries.iter().map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// The lines from a heading to the next empty one.
fn below(shown: &str, heading: &str) -> String {
    let lines = shown.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    let found: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    assert!(!found.is_empty(), "{heading}: {shown}");
    found.join("\n")
}

/// The arguments of the command that begins so.
fn printed<'t>(shown: &'t str, begin: &str) -> Vec<&'t str> {
    let line = shown.lines().find_map(|line| line.trim().strip_prefix(begin));
    line.unwrap_or_else(|| panic!("{begin}: {shown}")).split(' ').filter(|word| !word.is_empty()).collect()
}

/// What was printed to start it, in folders of the test's own.
fn start(host: &Namespace, shown: &str, folder: &Path) -> Background {
    let mut command = Command::new(PROGRAM);
    command.arg("run").args(printed(shown, "sudo knock-agent run"));
    command.arg("--runtime-dir").arg(folder.join("run")).arg("--state-dir").arg(folder.join("state"));
    let log = folder.join("log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let process = host.background(command);
    let end = Instant::now() + Duration::from_secs(60);
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    while !log().contains("listening") {
        assert!(Instant::now() < end, "it does not start: {}", log());
        sleep(Duration::from_millis(50));
    }
    process
}

fn with_routes(net: &Topology) {
    net.router.run("ip", &["route", "add", "default", "via", "203.0.113.3"]).success();
    net.router.run("ip", &["-6", "route", "add", "default", "via", "2001:db8:1::3"]).success();
    // As routers have them for addresses that nobody has.
    for bogons in ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"] {
        net.router.run("ip", &["route", "add", "blackhole", bogons]).success();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_init_prints_opens_the_port_in_both_families_and_nobody_is_locked_out() {
    let net = Topology::new();
    with_routes(&net);
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let folder = TempDir::new();
    let config = folder.path().join("etc/config.yaml");
    let before = everything(&net.router);
    let state = folder.path().join("state");
    let args = ["--config", text(&config), "--state-dir", text(&state)];
    let shown = at_terminal(
        &net.router,
        &args,
        &[
            ("51820/udp", "70000\n"),
            ("a port from 1 to 65535", "2222/tcp\n"),
            ("called?", "ssh\n"),
            ("Where is it?", "far away\n"),
            ("the address of a LAN host:", "\n"),
            ("leads to the internet? [ext0]", "nope0\n"),
            ("`nope0` is no interface of this host: ext0, int0", "\n"),
            ("[203.0.113.1,2001:db8:1::1]", "\n"),
            ("How long", "soon\n"),
            ("is not a duration", "1h\n"),
            ("You are connected from 203.0.113.2 to port 2222", ""),
            ("without a knock?", "0.0.0.0/0\n"),
            ("everybody in", "none\n"),
            ("The certificate", "\n"),
            ("one-time code", "\n"),
        ],
    )
    .success()
    .text();
    assert_eq!(everything(&net.router), before, "init changes no rules");
    assert!(!shown.contains("nothing that others can reach"), "{shown}");
    for name in ["config.yaml", "key.pem"] {
        let mode = config.with_file_name(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{name}: {mode:o}");
    }
    let curl = |family: Family| below(&shown, &format!("Or with curl, towards {}:", family.router()));
    let key =
        curl(Family::V4).lines().find_map(|line| Some(line.split_once("access_key=")?.1.to_owned())).unwrap();
    let stored = std::fs::read_to_string(&config).unwrap();
    assert!(!stored.contains(key.trim_end_matches('"')), "the configuration has the client's key");

    let runtime = folder.path().join("run");
    let mut agent = start(&net.router, &shown, folder.path());
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        let said = net.a.finish(
            {
                let mut shell = Command::new("sh");
                shell.args(["-c", &curl(family)]);
                shell
            },
            b"",
            LIMIT,
        );
        assert!(said.text().contains("OK"), "{}", said.text());
        assert_echoes(&net.a, family.router(), 2222);
        assert!(time_left(&net.router, "ssh", family.client_a()).unwrap() > Duration::from_secs(3_000));
        assert_silent(&net.b, family.router(), 2222);
    }
    // The profile that was printed proves its key at step 1.
    net.router
        .run(PROGRAM, &["revoke", "--all", "--config", text(&config), "--runtime-dir", text(&runtime)])
        .success();
    assert_silent(&net.a, Family::V6.router(), 2222);
    let profile = folder.write("home.yaml", below(&shown, "For the client,"));
    std::fs::set_permissions(&profile, std::fs::Permissions::from_mode(0o600)).unwrap();
    net.a.run(PROGRAM, &["knock", text(&profile), "-4"]).success();
    assert_echoes(&net.a, Family::V4.router(), 2222);
    let mut confirm = printed(&shown, "sudo knock-agent confirm");
    confirm.extend(["--runtime-dir", text(&runtime)]);
    net.router.run(PROGRAM, &[&["confirm"], confirm.as_slice()].concat()).success();
    assert!(agent.is_alive() && is_guarded(&net.router));
}

#[test]
fn with_a_code_and_a_profile_no_secret_is_shown_and_the_client_gets_in() {
    let net = Topology::new();
    with_routes(&net);
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let folder = TempDir::new();
    let (config, profile) = (folder.path().join("etc/config.yaml"), folder.path().join("home.yaml"));
    let (state, port) = (folder.path().join("state"), ["--http-port", "8080", "--https-port", "8443"]);
    let mut args = vec!["--yes", "--service", "2222", "--app", "ssh", "--two-factor", "alice"];
    args.extend(["--config", text(&config), "--profile", text(&profile), "--state-dir", text(&state)]);
    args.extend(port);
    // A code that is wrong saves nothing, nor does Ctrl-C.
    let wrong = [("the app shows:", "000000x\n"), ("try the next one", ""), ("the app shows:", CTRL_C)];
    assert_ne!(at_terminal(&net.router, &args, &wrong).code, Some(0));
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));

    let shown = at_terminal(&net.router, &args, &[("the app shows:", "{code}\n")]).success().text();
    let written = std::fs::read_to_string(&profile).unwrap();
    let secrets = written.lines().filter(|line| line.contains("access_key") || line.contains("post_path"));
    for secret in secrets.map(|line| line.split_once(": ").unwrap().1.trim_matches('"')) {
        assert!(secret.len() > 20 && !shown.contains(secret), "{secret} was shown");
    }
    assert_eq!(profile.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let _agent = start(&net.router, &shown, folder.path());
    assert_silent(&net.a, Family::V4.router(), 2222);
    let saved = std::fs::read_to_string(config.with_file_name("alice.json")).unwrap();
    let saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    let code = net.a.run("oathtool", &["--totp", "-b", saved["secret"].as_str().unwrap()]).success().text();
    let mut knock = Command::new("setsid");
    knock.args(["--wait", PROGRAM, "knock", text(&profile), "-4"]);
    net.a.finish(knock, code.as_bytes(), LIMIT).success();
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
}

#[test]
fn whatever_stops_init_leaves_what_was_there_and_says_what_to_do() {
    let host = Namespace::new("init");
    let folder = TempDir::new();
    let config: PathBuf = folder.path().join("etc/config.yaml");
    let here = ["--config", text(&config)];
    let with = |more: &[&'static str]| [here.as_slice(), more].concat();
    // No route, so nothing is usual; nobody to ask.
    let no_route = alone(&host, &with(&["--yes", "--service", "22"])).exits(2);
    assert!(no_route.stderr.contains("--interface-ext"), "{}", no_route.stderr);
    let nobody = alone(&host, &here).exits(2);
    assert!(nobody.stderr.contains("--service") && nobody.stderr.contains("--yes"), "{}", nobody.stderr);
    let nobody =
        alone(&host, &with(&["--service", "22", "--interface-ext", "eth9", "--host", "gate.example.com"]));
    for flag in ["--app", "--destination", "--duration", "--allow", "--cert", "--two-factor"] {
        assert!(nobody.stderr.contains(flag), "{flag}: {}", nobody.stderr);
    }
    nobody.exits(2);
    assert!(names(folder.path()).is_empty());

    // No interface but lo: one that will come can be named, after its name was doubted once.
    let service = ["--service", "99", "--app", "odd", "--destination", "local", "--host", "gate.example.com"];
    let talk = [
        ("note: nothing that others can reach listens on 99/tcp of this host now", ""),
        ("there is none but lo; one that comes later can be named", ""),
        ("leads to the internet?:", "eth7,eth8\n"),
        (
            "`eth7` is no interface of this host: there is none but lo; type it again if it comes later",
            "eth7\n",
        ),
        ("type it again", "eth7,eth8\n"),
        ("type it again", "eth7,eth8\n"),
        ("How long", CTRL_C),
    ];
    at_terminal(&host, &[here.as_slice(), &service].concat(), &talk).exits(1);
    assert!(names(folder.path()).is_empty());

    // Ctrl-C at the first and at the last question.
    let ended =
        at_terminal(&host, &here, &[("Nothing that others can reach listens", ""), ("[22/tcp]", CTRL_C)]);
    assert!(ended.text().contains("nothing was written"), "{}", ended.text());
    ended.exits(1);
    let flags =
        with(&["--service", "22", "--interface-ext", "eth9", "--host", "gate.example.com", "--app", "ssh"]);
    let talk = [
        ("Where is it?", "\n"),
        ("How long", "\n"),
        ("a knock?", "\n"),
        ("certificate", "\n"),
        ("code", CTRL_C),
    ];
    let ended = at_terminal(&host, &flags, &talk);
    assert!(ended.text().contains("nothing was written"), "{}", ended.text());
    ended.exits(1);
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));

    // What is there stays, unless it is said otherwise; certificates of before go on being used.
    // What does not exist would be found, and told by the exit code.
    host.run("ip", &["link", "add", "eth9", "type", "veth", "peer", "name", "peer9"]).success();
    let flags = with(&["--yes", "--service", "22", "--interface-ext", "eth9", "--host", "gate.example.com"]);
    alone(&host, &flags).success();
    let read = |name: &str| std::fs::read_to_string(config.with_file_name(name)).unwrap();
    let (first, certificate) = (read("config.yaml"), read("cert.pem"));
    let refused = alone(&host, &flags).exits(74);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(read("config.yaml"), first);
    std::fs::remove_file(&config).unwrap();
    alone(&host, &flags).success();
    assert_ne!(read("config.yaml"), first);
    assert_eq!(read("cert.pem"), certificate);
    alone(&host, &[flags.as_slice(), &["--force"]].concat()).success();
    assert_ne!(read("cert.pem"), certificate);
    let three: BTreeSet<String> = ["cert.pem", "config.yaml", "key.pem"].map(str::to_owned).into();
    assert_eq!(names(config.parent().unwrap()), three);

    // Answers that do not go together: the service's port is that of a step.
    let away = folder.path().join("other/config.yaml");
    let more = ["--yes", "--service", "8443", "--interface-ext", "eth9", "--host", "x.example"];
    let ports = ["--http-port", "8080", "--https-port", "8443"];
    let clash = alone(&host, &[&["--config", text(&away)], more.as_slice(), &ports].concat()).exits(78);
    assert!(clash.stderr.contains("nothing was written") && !away.exists(), "{}", clash.stderr);

    // A folder that cannot be made: nothing anywhere.
    std::fs::write(folder.path().join("file"), "").unwrap();
    let under = folder.path().join("file/config.yaml");
    let failed = alone(
        &host,
        &[
            "--config",
            text(&under),
            "--yes",
            "--service",
            "22",
            "--interface-ext",
            "eth9",
            "--host",
            "x.example",
        ],
    );
    assert_eq!(failed.code, Some(74), "{}", failed.stderr);
}

#[test]
fn paths_that_are_said_from_a_folder_are_whole_where_systemd_reads_them() {
    let host = Namespace::new("init");
    host.run("ip", &["link", "add", "eth9", "type", "veth", "peer", "name", "peer9"]).success();
    let folder = TempDir::new();
    let at = text(folder.path());
    let init = |more: &str| {
        let flags = "--yes --service 22 --interface-ext eth9 --host gate.example.com --state-dir state";
        let line =
            format!("cd {at} && exec setsid --wait {PROGRAM} init --config config.yaml {flags} {more}");
        let done = host.run("sh", &["-c", &line]);
        done.success().text()
    };
    let starts = |shown: &str, cert: &str, key: &str| {
        let tls = format!(" --cert {at}/{cert} --key {at}/{key}");
        for begin in ["ExecStart=/usr/bin/knock-agent run", "sudo knock-agent run"] {
            let line = shown.lines().find(|line| line.trim().starts_with(begin)).unwrap_or_default();
            assert!(line.contains(&format!(" --config {at}/config.yaml ")) && line.contains(&tls), "{shown}");
        }
    };
    let shown = init("");
    starts(&shown, "cert.pem", "key.pem");
    assert!(!shown.contains("who has to be able to read"), "they are beside the configuration: {shown}");
    let written = std::fs::read_to_string(folder.path().join("config.yaml")).unwrap();
    assert!(written.contains(&format!("state_file: {at}/state/grants")), "{written}");
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    for (from, to) in [("cert.pem", "tls/chain.pem"), ("key.pem", "tls/secret.pem")] {
        std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    }
    let shown = init("--force --cert tls/chain.pem --key tls/secret.pem");
    starts(&shown, "tls/chain.pem", "tls/secret.pem");
    assert!(shown.contains(&format!("who has to be able to read {at}/tls/secret.pem")), "{shown}");
}

/// Runs `init` at a terminal, in a folder that is mounted or made by this; it has to end before the first question.
fn before_the_first_question(host: &Namespace, made: &str, through: &str, code: i32) -> String {
    let folder = TempDir::new();
    let line = format!(
        "{made}; exec {through} {0}/integration/lib/at-terminal {PROGRAM} init --config \"$1/etc/config.yaml\"",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &line, "sh"]).arg(folder.path());
    let text = host.finish(command, b"[]", LIMIT).exits(code).text();
    assert!(text.contains("error: ") && !text.contains("Which service"), "{text}");
    text
}

#[test]
fn what_keeps_init_from_writing_is_said_before_the_first_question() {
    let host = Namespace::new("init");
    let asked = |made: &str, through: &str, code: i32| before_the_first_question(&host, made, through, code);
    for options in ["size=8k", "ro"] {
        let mounted = format!("mount -t tmpfs -o {options} none \"$1\"");
        let text = asked(&mounted, "", 74);
        assert!(text.contains("nothing was written"), "{text}");
    }
    let others = "chown 65534 \"$1\" && chmod 0500 \"$1\"";
    let text = asked(others, "setpriv --bounding-set=-dac_override --", 77);
    assert!(text.contains("fix: run it as root"), "{text}");
    let old = "mkdir \"$1/etc\" && echo none >\"$1/etc/cert.pem\" && echo none >\"$1/etc/key.pem\"";
    let text = asked(old, "", 78);
    assert!(text.contains("cert.pem") && text.contains("--force makes new ones"), "{text}");
    let text = asked("mkdir \"$1/etc\" && echo none >\"$1/etc/key.pem\"", "", 74);
    assert!(text.contains("key.pem is there already"), "{text}");
}

#[test]
fn services_have_names_and_what_is_in_the_way_is_said_last() {
    let net = Topology::new();
    with_routes(&net);
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    net.router
        .nft("table inet host {\n chain input {\n type filter hook input priority 0; policy drop;\n }\n}\n");
    let folder = TempDir::new();
    let config = folder.path().join("config.yaml");
    let talk = [
        ("[2222/tcp]", "2\n"),
        ("there is no 2 in the list", "nobody-knows\n"),
        ("no service `nobody-knows`", "ssh\n"),
        ("called? [ssh]", "\n"),
    ];
    let done = at_terminal(&net.router, &["--config", text(&config), "--yes"], &[]);
    drop(done);
    std::fs::remove_file(&config).unwrap();
    let mut args = vec!["--config", text(&config), "--destination", "local", "--interface-ext", "ext0"];
    args.extend([
        "--host",
        "gate.example.com",
        "--duration",
        "1h",
        "--allow",
        "none",
        "--two-factor",
        "none",
    ]);
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    args.extend(["--cert", text(&cert), "--key", text(&key)]);
    let shown = at_terminal(&net.router, &args, &talk).exits(1).text();
    let (_, last) = shown.rsplit_once("Before you start it:").unwrap_or_else(|| panic!("{shown}"));
    assert!(last.contains("host-drops-by-default") && last.contains("fix: "), "{shown}");
    assert!(shown.find("Start it").unwrap() < shown.rfind("Before you start it:").unwrap());
    let written = std::fs::read_to_string(&config).unwrap();
    assert!(written.contains("\nssh:\n  port: 22\n"), "the list's service was not chosen by its name");
    alone(&net.router, &["--config", text(&config), "--force", "--yes", "--service", "wireguard"]).exits(1);
    let written = std::fs::read_to_string(&config).unwrap();
    assert!(written.contains("wireguard:\n  port: 51820\n  protocol: udp"), "{written}");
}

#[test]
fn where_80_is_taken_the_printed_commands_have_both_units_use_the_other_ports() {
    let mut hosts = Hosts::new();
    hosts.follow("docs/quick-start.md", Some("## 2. "));
    let _taken = Server::tcp(&hosts.net.router, 80, Habit::Echo);
    let gate = &hosts.gateway;
    let shown = gate.does("sudo knock-agent init --yes --service 22 --app ssh --host gate.example.com");
    let (_, commands) = shown.split_once("leave the rest to systemd, after each boot too:\n").unwrap();
    gate.does(commands);
    gate.does("systemctl is-active knock-agent && systemctl is-active knock-agent-guard");
    let status = gate.does("sudo knock-agent status");
    assert!(status.contains("tcp/8080 and tcp/8443"), "{status}");
    for unit in ["knock-agent", "knock-agent-guard"] {
        let drop_in = gate.does(&format!("cat /etc/systemd/system/{unit}.service.d/init.conf"));
        assert!(
            drop_in.contains("\nExecStart=\n") && drop_in.contains("--http-port 8080 --https-port 8443"),
            "{drop_in}"
        );
        let verify = gate.does(&format!("! systemd-analyze verify {unit}.service 2>&1 | grep init.conf"));
        assert_eq!(verify, "", "systemd understands it");
    }
    // The checks of whoever forgets the ports say which ones the unit has; a certificate that is not there is an error.
    let folder = "sudo rm -r /etc/systemd/system/knock-agent*.d";
    gate.does(folder);
    let note = "note: this looks at ports 8080 and 8443, and knock-agent.service has others";
    assert!(gate.does("sudo knock-agent check-config").contains(note));
    let missing = "--cert /nowhere/cert.pem --key /etc/knock-agent/key.pem";
    for verb in ["check-config", "check-ruleset"] {
        for (flags, says) in
            [(missing, "/nowhere/cert.pem"), ("--cert /etc/knock-agent/cert.pem", "--key FILE is missing")]
        {
            let done = gate.shell(&format!("sudo knock-agent {verb} {flags}"));
            assert!(done.code == Some(78) && done.printed.contains(says), "{verb}: {}", done.printed);
        }
    }
    // Where the drop-ins of before are still there, they are written again for the package's own ports.
    gate.does(commands);
    gate.does("mkdir -m 700 /root/tls && cp /etc/knock-agent/*.pem /root/tls");
    let elsewhere = "--http-port 443 --https-port 444 --cert /root/tls/cert.pem --key /root/tls/key.pem";
    let again = gate.does(&format!(
        "sudo knock-agent init --force --yes --service 22 --app ssh --host gate.example.com {elsewhere}"
    ));
    assert!(again.contains("who has to be able to read /root/tls/key.pem"), "{again}");
    assert!(again.contains("init.conf"), "{again}");
}

#[test]
fn where_iptables_guards_the_printed_start_takes_itself_back_without_confirm() {
    Backend::IptablesNft.run(|| {
        let net = Topology::new();
        with_routes(&net);
        let _service = Server::tcp(&net.router, 2222, Habit::Echo);
        Installation::new(&Config::ssh(&[])).guard(&net.router).success();
        let folder = TempDir::new();
        let config = folder.path().join("etc/config.yaml");
        let asked = ["--yes", "--service", "2222/tcp", "--app", "ssh", "--host", "203.0.113.1"];
        let shown = alone(&net.router, &[&asked[..], &["--config", text(&config)]].concat()).success().text();
        assert!(!shown.contains("--confirm 5m") && shown.contains("docs/host-firewall.md"), "{shown}");
        let run = folder.path().join("run");
        let teardown = format!("{PROGRAM} teardown --runtime-dir {}", text(&run));
        let documented = std::fs::read_to_string("docs/operations.md").unwrap();
        let says = |begin: &str| {
            let line = shown.lines().map(str::trim).find(|line| line.starts_with(begin)).unwrap();
            assert!(documented.contains(&format!("\n{line}\n")), "as docs/operations.md has it: {line}");
            let line = line.strip_prefix("sudo ").unwrap();
            let line = line.replace("/run/knock-agent-trial", text(&folder.path().join("trial")));
            let line = line.replace("sleep 300", "sleep 2").replace("knock-agent teardown", &teardown);
            net.router.run("sh", &["-c", &line]).success();
        };
        let _daemon = start(&net.router, &shown, folder.path());
        let guarded = || assert_silent(&net.a, Family::V4.router(), 2222);
        says("sudo sh -c");
        guarded();
        says("sudo rm");
        sleep(Duration::from_secs(4));
        guarded();
        says("sudo sh -c");
        let end = Instant::now() + Duration::from_secs(30);
        while is_guarded(&net.router) {
            assert!(Instant::now() < end, "the guard is not taken down");
            sleep(Duration::from_millis(100));
        }
        assert_open(&net.a, Family::V4.router(), 2222);
    });
}
