use super::*;
use crate::config::Severity;

/// A `global` section in block style: seven lines, the app of the cases begins at line 5.
const TOP: &str =
    "global:\n  interface_ext: eth0\n  http_post_path: /one-place\n  https_post_path: /two-place\n";
/// A good app in block style, six lines: ports at its second.
const SSH: &str = "ssh:\n  port: 22\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n";

/// One broken text, and each problem it must report: line, column, path, part of message or fix.
type Case = (&'static str, String, Vec<(usize, usize, &'static str, &'static str)>);

fn top(lines: &str) -> String {
    format!("{TOP}{lines}{SSH}")
}

fn app(lines: &str) -> String {
    format!("{TOP}{SSH}{lines}")
}

fn ssh(from: &str, to: &str) -> String {
    assert!(SSH.contains(from), "{from}");
    format!("{TOP}{}", SSH.replace(from, to))
}

fn global(from: &str, to: &str) -> String {
    assert!(TOP.contains(from), "{from}");
    format!("{}{SSH}", TOP.replace(from, to))
}

fn user(name: &str, more: &str) -> String {
    top(&format!(
        "  users: {{{name}: {{access_key_http: alice-key-1, access_key_https: alice-key-2, {more}}}}}\n"
    ))
}

const SLOW: &str = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$";

#[rustfmt::skip]
fn user_cases() -> Vec<Case> {
    vec![
        ("users in a list", top("  users: [alice]\n"), vec![(5, 10, "global.users", "section with keys of its own")]),
        ("a user without keys", top("  users: {alice: {apps: [ssh]}}\n"), vec![
            (5, 11, "global.users.alice.access_key_http", "missing for the app `ssh`"),
            (5, 11, "global.users.alice.access_key_https", "missing for the app `ssh`")]),
        ("a user of no app", user("alice", "apps: [sssh]"), vec![(5, 80, "global.users.alice.apps[0]", "did you mean `ssh`?")]),
        ("a user's name", user("al ice", "apps: [ssh]"), vec![(5, 11, "global.users.al ice", "rename the user")]),
        ("a user's unknown key", user("alice", "port: 22"), vec![(5, 80, "global.users.alice.port", "no such key")]),
        ("a user with somebody else's key", user("alice", "access_key_http: [first-secret]").replace("access_key_http: alice-key-1, ", ""), vec![
            (5, 68, "global.users.alice.access_key_http[0]", "one of the app itself too")]),
        ("a user's time beyond the app's", user("alice", "duration: 2h"), vec![(5, 90, "global.users.alice.duration", "longer than max_duration, 1h")]),
        ("a user's limit beyond the app's", user("alice", "max_duration: 2h"), vec![(5, 94, "global.users.alice.max_duration", "grants at most 1h")]),
        ("a date that is none", user("alice", "expires: soon"), vec![(5, 89, "global.users.alice.expires", "write 2027-01-31")]),
        ("a code's secret", user("alice", "totp: {secret: AAAA1}"), vec![(5, 95, "global.users.alice.totp.secret", "not base32")]),
        ("a code without a secret", user("alice", "totp: {interval: 30}"), vec![(5, 80, "global.users.alice.totp", "does not say where the secret is")]),
        ("two slow keys", user("alice", &format!("apps: {{ssh: {{access_key_https: ['{SLOW}aaaa', '{SLOW}bbbb']}}}}")), vec![
            (5, 160, "global.users.alice.apps.ssh.access_key_https[1]", "one key that is stored as argon2id")]),
        ("two places of a secret", user("alice", "totp: {secret: AAAA, file: /x}"), vec![(5, 101, "global.users.alice.totp.file", "one place")]),
        ("a file that is not read here", user("alice", "totp: {file: /x}"), vec![(5, 93, "global.users.alice.totp.file", "not read here")]),
        ("a folder that is not read here", top("  users_folder: /x\n"), vec![(5, 17, "global.users_folder", "not read here")]),
    ]
}

#[rustfmt::skip]
fn text_cases() -> Vec<Case> {
    vec![
        ("empty", String::new(), vec![(1, 1, "", "no content")]),
        ("comments only", "# nothing\n\n".into(), vec![(1, 1, "", "no content")]),
        ("prose", "hello there\n".into(), vec![(1, 1, "", "must have sections, it is text")]),
        ("a list", "- a\n- b\n".into(), vec![(1, 1, "", "must have sections, it is a list")]),
        ("a tab", "global:\n\tinterface_ext: eth0\n".into(), vec![(2, 1, "", "line 2 begins with a tab")]),
        ("not closed", "global: {a: b\nssh: c\n".into(), vec![(2, 4, "", "this is not YAML: did not find expected ',' or '}'")]),
        ("bad indentation", "global:\n  a: 1\n b: 2\n".into(), vec![(3, 2, "", "this is not YAML")]),
        ("a control character", "global:\n  a: \u{7}\n".into(), vec![(2, 6, "", "control character")]),
        ("two documents", format!("{TOP}---\nx: 1\n"), vec![(6, 1, "", "second YAML document")]),
        ("an unknown alias", "a: *b\n".into(), vec![(1, 4, "", "an anchor that is not defined above")]),
        ("an anchor twice", "a: &x 1\nb: &x 2\nc: *x\n".into(), vec![(2, 4, "", "defined a second time")]),
        ("a tag", format!("{TOP}ssh: !app {{}}\n"), vec![(5, 6, "", "tags")]),
        ("a tag that is wrong", format!("{TOP}ssh: {{port: !!int secret}}\n"), vec![(5, 13, "", "tags")]),
        ("a number as section", format!("{TOP}22: {{}}\n"), vec![(5, 1, "", "a key must be text, not a number")]),
        ("a list as key", format!("{TOP}? [a]\n: b\n"), vec![(5, 3, "", "a key must be text, not a list")]),
        ("a section twice", format!("{TOP}{SSH}{SSH}"), vec![(10, 1, "ssh", "set twice (the other is at 5:1)")]),
        ("global twice", format!("{TOP}{TOP}{SSH}"), vec![(5, 1, "global", "set twice (the other is at 1:1)")]),
        ("no global", SSH.into(), vec![(1, 1, "global", "this section is missing")]),
        ("global misspelt", format!("Globals{}{SSH}", TOP.strip_prefix("global").unwrap()), vec![
            (1, 1, "global", "rename `Globals` to `global`"),
            (1, 1, "Globals.port", "missing"), (1, 1, "Globals.access_key_http", "missing"),
            (1, 1, "Globals.access_key_https", "missing"), (1, 1, "Globals.duration", "missing"),
            (3, 3, "Globals.http_post_path", "it belongs in `global`"),
            (4, 3, "Globals.https_post_path", "it belongs in `global`")]),
        ("global is text", format!("global: yes please\n{SSH}"), vec![(1, 9, "global", "must be a section")]),
        ("an app without keys", format!("{TOP}ssh:\n"), vec![(5, 5, "ssh", "must be a section with keys of its own, not nothing")]),
        ("a bad merge", format!("{TOP}{SSH}  <<: 5\n"), vec![(10, 7, "ssh", "takes over the keys of another section")]),
    ]
}

#[rustfmt::skip]
fn global_cases() -> Vec<Case> {
    vec![
        ("no paths", "global:\n  interface_ext: eth0\n".to_owned() + SSH, vec![
            (1, 1, "global.http_post_path", "missing"), (1, 1, "global.https_post_path", "missing")]),
        ("no interface", global("  interface_ext: eth0\n", ""), vec![(1, 1, "global.interface_ext", "add `interface_ext: eth0`")]),
        ("a shipped path", global("/one-place", "/SECRET-1"), vec![(3, 19, "global.http_post_path", "comes from an example")]),
        ("a bad path", global("/two-place", "/a b"), vec![(4, 20, "global.https_post_path", "a path begins with /")]),
        ("a path without slash", global("/two-place", "two"), vec![(4, 20, "global.https_post_path", "a path begins with /")]),
        ("a number as path", global("/two-place", "12345"), vec![(4, 20, "global.https_post_path", "must be text, not a number")]),
        ("a long path", global("/two-place", &format!("/{}", "x".repeat(100))), vec![(4, 20, "global.https_post_path", "at most 100")]),
        ("one path for both", global("/two-place", "/one-place"), vec![(4, 20, "global.https_post_path", "same path (the other is at 3:19)")]),
        ("no room for the path", top("  step1_max_bytes: 300\n"), vec![(3, 19, "global.http_post_path", "step1_max_bytes is 300")]),
        ("a bad interface", global("eth0", "eth0:1"), vec![(2, 18, "global.interface_ext", "`eth0:1` is not an interface name")]),
        ("an interface twice", global("eth0", "[eth0, eth1, eth0]"), vec![(2, 31, "global.interface_ext[2]", "twice (the other is at 2:19)")]),
        ("no interface in a list", global("eth0", "[]"), vec![(2, 18, "global.interface_ext", "list is empty")]),
        ("an interface of numbers", global("eth0", "[1]"), vec![(2, 19, "global.interface_ext[0]", "must be text, not a number")]),
        ("an unknown key", top("  step1_replay: http\n"), vec![(5, 3, "global.step1_replay", "did you mean `step1_reply`?")]),
        ("an app's key", top("  port: 22\n"), vec![(5, 3, "global.port", "it belongs in the section of an app")]),
        ("a strange key", top("  banana: 22\n"), vec![(5, 3, "global.banana", "known here: http_post_path")]),
        ("a rate of zero", top("  step1_2_rate_limit_per_minute: 0\n"), vec![(5, 34, "global.step1_2_rate_limit_per_minute", "`0` is out of range")]),
        ("a rate in quotes", top("  step1_2_rate_limit_per_minute: '5'\n"), vec![(5, 34, "global.step1_2_rate_limit_per_minute", "remove the quotes")]),
        ("a lock-out of a number", top("  lockout: 5\n"), vec![(5, 12, "global.lockout", "one of off")]),
        ("a lock-out after nothing", top("  lockout: {after: 0}\n"), vec![(5, 20, "global.lockout.after", "from 1 to 1000")]),
        ("a lock-out of no time", top("  lockout: {first: soon}\n"), vec![(5, 20, "global.lockout.first", "soon")]),
        ("a lock-out that shrinks", top("  lockout: {first: 2d}\n"), vec![(5, 3, "global.lockout.first", "longer than the longest")]),
        ("a lock-out with a typo", top("  lockout: {frist: 1m}\n"), vec![(5, 13, "global.lockout.frist", "did you mean `first`?")]),
        ("few bytes", top("  step1_max_bytes: 99\n"), vec![(5, 20, "global.step1_max_bytes", "from 100 to 1400")]),
        ("many bytes", top("  step1_max_bytes: 1401\n"), vec![(5, 20, "global.step1_max_bytes", "from 100 to 1400")]),
        ("many segments", top("  step1_segments: 17\n"), vec![(5, 19, "global.step1_segments", "from 1 to 16")]),
        ("half a segment", top("  step1_segments: 1.5\n"), vec![(5, 19, "global.step1_segments", "a whole number")]),
        ("a bad reply", top("  step1_reply: silence\n"), vec![(5, 16, "global.step1_reply", "did you mean `silent`?")]),
        ("a bad mark", top("  mark: 0x1ff/0xff\n"), vec![(5, 9, "global.mark", "outside its mask")]),
        ("a negative mark", top("  mark: -1\n"), vec![(5, 9, "global.mark", "`-1` is not a mark")]),
        ("a wide prefix", top("  ipv6_prefix: 31\n"), vec![(5, 16, "global.ipv6_prefix", "from 32 to 128")]),
        ("a bad window", top("  token_window: 1w\n"), vec![(5, 17, "global.token_window", "`1w` is not a duration")]),
        ("a bad step", top("  2fa_step: never\n"), vec![(5, 13, "global.2fa_step", "none of http, https, both")]),
        ("a bad network", top("  allow: [10.0.0.0/8, 10.0.0.1/8]\n"), vec![(5, 23, "global.allow[1]", "did you mean 10.0.0.0/8?")]),
        ("a mapped network", top("  allow: '::ffff:10.0.0.1'\n"), vec![(5, 10, "global.allow", "write 10.0.0.1")]),
        ("an empty folder", top("  2fa_config_folder: ''\n"), vec![(5, 22, "global.2fa_config_folder", "this is empty")]),
        ("a state file without a folder", top("  state_file: grants\n"), vec![(5, 15, "global.state_file", "the whole path")]),
        ("a folder as state file", top("  state_file: /\n"), vec![(5, 15, "global.state_file", "the whole path")]),
        ("a folder with a line break", top("  2fa_config_folder: \"a\\nb\"\n"), vec![(5, 22, "global.2fa_config_folder", "control characters")]),
        ("a monitor named as an app", top("  healthcheck_app_name: ssh\n"), vec![(5, 25, "global.healthcheck_app_name", "an app has this name")]),
        ("a monitor named global", top("  healthcheck_app_name: global\n"), vec![(5, 25, "global.healthcheck_app_name", "the common section")]),
    ]
}

#[rustfmt::skip]
fn app_cases() -> Vec<Case> {
    vec![
        ("an app with nothing right", format!("{TOP}ssh: {{}}\n"), vec![
            (5, 1, "ssh.port", "add `port: 22`"), (5, 1, "ssh.access_key_http", "missing"),
            (5, 1, "ssh.access_key_https", "missing"), (5, 1, "ssh.duration", "add `duration: 24h`")]),
        ("a big port", ssh("22", "70000"), vec![(6, 9, "ssh.port", "`70000` is not a port")]),
        ("port zero", ssh("22", "0"), vec![(6, 9, "ssh.port", "`0` is not a port")]),
        ("a backward range", ssh("22", "[22, 30-20]"), vec![(6, 14, "ssh.port[1]", "ends before it begins")]),
        ("no ports", ssh("22", "[]"), vec![(6, 9, "ssh.port", "list is empty")]),
        ("a port that is true", ssh("22", "true"), vec![(6, 9, "ssh.port", "a whole number or text, not true or false")]),
        ("a port with keys", ssh("22", "{a: 1}"), vec![(6, 9, "ssh.port", "not a section")]),
        ("two bad ports", ssh("22", "[a, 22, b]"), vec![(6, 10, "ssh.port[0]", "`a` is not"), (6, 17, "ssh.port[2]", "`b` is not")]),
        ("a key twice", app("  port: 23\n"), vec![(10, 3, "ssh.port", "set twice (the other is at 6:3)")]),
        ("an unknown key", app("  duraton: 5\n"), vec![(10, 3, "ssh.duraton", "did you mean `duration`?")]),
        ("a dashed key", app("  max-duration: 5h\n"), vec![(10, 3, "ssh.max-duration", "did you mean `max_duration`?")]),
        ("a global key", app("  mark: 5\n"), vec![(10, 3, "ssh.mark", "it belongs in `global`")]),
        ("a short key", ssh("first-secret", "short-key"), vec![(8, 21, "ssh.access_key_http[0]", "this one has 9")]),
        ("a long key", ssh("[other-secret]", &"k".repeat(51)), vec![(9, 21, "ssh.access_key_https", "this one has 51")]),
        ("a key of digits", ssh("first-secret", "1234567890123"), vec![(8, 21, "ssh.access_key_http[0]", "put it in quotes")]),
        ("an invisible key", ssh("first-secret", "\"first\\u200bsecret\""), vec![(8, 21, "ssh.access_key_http[0]", "printable")]),
        ("a key listed twice", ssh("first-secret", "first-secret, x-second-secret, first-secret"), vec![(8, 52, "ssh.access_key_http[2]", "twice (the other is at 8:21)")]),
        ("one key for both", ssh("other-secret", "first-secret"), vec![(9, 22, "ssh.access_key_https[0]", "both steps (the other is at 8:21)")]),
        ("a slow hash of nobody", ssh("[first-secret]", "['$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm']"), vec![
            (8, 21, "ssh.access_key_http[0]", "found by its user's name")]),
        ("keys in a section", ssh("[first-secret]", "{alice: first-secret}"), vec![(8, 3, "ssh.access_key_http", "not known here")]),
        ("no duration", ssh("  duration: 1h\n", ""), vec![(5, 1, "ssh.duration", "missing")]),
        ("a duration of zero", ssh("1h", "0"), vec![(7, 13, "ssh.duration", "outside 1 second to 10 years")]),
        ("a fraction", ssh("1h", "1.5"), vec![(7, 13, "ssh.duration", "a whole number or text, not a number")]),
        ("a bad unit", ssh("1h", "1 hour"), vec![(7, 13, "ssh.duration", "`1 hour` is not a duration")]),
        ("a small maximum", app("  max_duration: 5m\n"), vec![(10, 17, "ssh.max_duration", "5m is shorter than `duration`, 1h")]),
        ("a bad protocol", app("  protocol: TCP\n"), vec![(10, 13, "ssh.protocol", "did you mean `tcp`?")]),
        ("protocols in a list", app("  protocol: [tcp]\n"), vec![(10, 13, "ssh.protocol", "one of tcp, udp, both), not a list")]),
        ("a name as destination", app("  destination: nas.lan\n"), vec![(10, 16, "ssh.destination", "`nas.lan` is not a destination")]),
        ("loopback", app("  destination: 127.0.0.1:22\n"), vec![(10, 16, "ssh.destination", "write local")]),
        ("loopback in IPv6", app("  destination: '::1'\n"), vec![(10, 16, "ssh.destination", "write local")]),
        ("nobody", app("  destination: 0.0.0.0\n"), vec![(10, 16, "ssh.destination", "no host's address")]),
        ("many", app("  destination: ff02::1\n"), vec![(10, 16, "ssh.destination", "multicast")]),
        ("link-local", app("  destination: fe80::1\n"), vec![(10, 16, "ssh.destination", "link-local")]),
        ("mapped", app("  destination: '::ffff:10.0.0.1'\n"), vec![(10, 16, "ssh.destination", "an IPv4 address")]),
        ("destination port zero", app("  destination: 10.0.0.1:0\n"), vec![(10, 16, "ssh.destination", "port 0")]),
        ("a flow list by accident", app("  destination: [fd00::5]\n"), vec![(10, 16, "ssh.destination", "must be text, not a list")]),
        ("no way to the LAN", app("  destination: 10.0.0.1\n"), vec![(10, 16, "ssh.interface_int", "needs the interface towards it")]),
        ("established", app("  established: drop\n"), vec![(10, 16, "ssh.established", "none of cut, keep")]),
        ("masquerade", app("  masquerade: yes\n"), vec![(10, 15, "ssh.masquerade", "true or false")]),
        ("once", app("  once: yes\n"), vec![(10, 9, "ssh.once", "true or false")]),
        ("the port of step 1", ssh("22", "8080"), vec![(6, 9, "ssh.port", "tcp port 8080 belongs to knock-agent itself (--http-port)")]),
        ("the port of step 2", ssh("22", "[22, 8000-9000]"), vec![
            (6, 14, "ssh.port[1]", "(--http-port)"), (6, 14, "ssh.port[1]", "(--https-port)")]),
        ("everybody", format!("{TOP}{}", SSH.replace("ssh", "All")), vec![(5, 1, "All", "`all` stands for every app")]),
        ("one slug", format!("{TOP}{SSH}{}", SSH.replace("ssh", "SSH")), vec![(10, 1, "SSH", "the same name, `ssh` (the other is at 5:1)")]),
        ("a long name", format!("{TOP}{}", SSH.replace("ssh", &"n".repeat(51))), vec![
            (5, 1, "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", "1 to 50 characters")]),
        ("two minds about one port", format!("{TOP}{SSH}{}  established: keep\n", SSH.replace("ssh", "sftp").replace("22", "20-30")), vec![
            (6, 9, "ssh.port", "`sftp` has tcp port 22 too")]),
    ]
}

#[test]
fn each_problem_is_told_with_its_place() {
    let cases: Vec<Case> =
        text_cases().into_iter().chain(user_cases()).chain(global_cases()).chain(app_cases()).collect();
    assert!(cases.len() > 90);
    let mut wrong = Vec::new();
    for (what, text, wanted) in cases {
        let list = match read(&text) {
            Err(problems) => problems.list,
            Ok(_) => {
                wrong.push(format!("{what}: loads"));
                continue;
            }
        };
        let told: Vec<String> =
            list.iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect();
        let as_wanted = told.len() == wanted.len()
            && told.iter().zip(&wanted).all(|(told, (line, column, path, part))| {
                let head = format!("test.yaml:{line}:{column}: error: ");
                let head = if path.is_empty() { head } else { format!("{head}{path}: ") };
                told.starts_with(&head) && told.contains(part)
            });
        if !as_wanted {
            wrong.push(format!("{what}: wanted {wanted:?}\n  told {}", told.join("\n       ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn everything_wrong_is_told_at_once_in_the_order_of_the_file() {
    let text = "global:\n  interface_ext: eth0\n  http_post_path: nope\n  https_post_path: /x\nssh:\n  port: 0\n  duraton: 1h\n  access_key_http: tiny\nweb: 5\n";
    let problems = read(text).unwrap_err();
    let lines: Vec<usize> = problems.list.iter().map(|p| p.place.unwrap().line).collect();
    assert_eq!(lines, [3, 5, 5, 6, 7, 8, 9]);
}

#[test]
fn one_port_for_both_steps_is_told_without_a_place() {
    let ports = Some(StepPorts { http: 80, https: 80 });
    let problems = parse("test.yaml", &app(""), ports, &crate::config::Alone).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "test.yaml: error: --https-port: both steps listen on port 80\n  fix: give --http-port and --https-port different ports"
    );
}

#[test]
fn no_problem_shows_a_secret() {
    let secret = "p4ssw0rd";
    for text in [
        global("/one-place", &format!("{secret}!")),
        global("/one-place", &format!("[{secret}]")),
        ssh("[first-secret]", secret),
        ssh("[first-secret]", &format!("[{secret}{secret}{secret}, {secret}{secret}{secret}]")),
        ssh("[first-secret]", &format!("{{{secret}: {secret}}}")),
        ssh("access_key_http: [first-secret]", &format!("acces_key_http: {secret}")),
        ssh("[first-secret]", &format!("[{secret}: , !!int {secret}]")),
        ssh("[first-secret]", &format!("{{file: {secret}}}")),
        ssh("[first-secret]", &format!("{{credential: {secret}}}")),
        format!("{TOP}{SSH}  {secret}: x\n"),
        ssh("[first-secret]", &format!("[{secret}")),
        ssh("[first-secret]", &format!("!{secret} {secret}")),
        ssh("[first-secret]", &format!("*{secret}")),
        user("alice", &format!("totp: {{secret: {secret}}}")),
        user("alice", &format!("totp: {{secret: [{secret}]}}")),
        user("alice", &format!("apps: {{ssh: {{access_key_http: {secret}}}}}")),
        user("alice", &format!("apps: {{ssh: {{access_key_http: [$ka1${secret}]}}}}")),
        user("alice", &format!("apps: {{ssh: {{access_key_http: {{{secret}: x}}}}}}")),
        format!("{TOP}ssh: {secret}\n"),
        secret.to_owned(),
    ] {
        let problems = read(&text).unwrap_err();
        let told = format!("{problems} {problems:?}");
        assert!(!told.contains(secret), "{told}\n--\n{text}");
    }
    let masked = read(&ssh("[first-secret]", secret)).unwrap_err();
    assert_eq!(masked.list[0].value.as_deref(), Some("***"));
}

#[test]
fn what_is_shown_cannot_steer_a_terminal() {
    let text = format!("{TOP}{SSH}  destination: \"\\e[2J\\u202e\"\n  \"\\e[1m\": 1\n");
    let told = read(&text).unwrap_err().to_string();
    assert!(!told.contains('\u{1b}') && !told.contains('\u{202e}'), "{told:?}");
}

#[test]
fn values_are_shown_as_they_were_written() {
    let problems = read(&app("  masquerade: 0x10\n  step2_https_duration: 1.50\n")).unwrap_err();
    let values: Vec<Option<&str>> = problems.list.iter().map(|p| p.value.as_deref()).collect();
    assert_eq!(values, [Some("0x10"), Some("1.50")]);
}

#[test]
fn files_of_other_programs_are_told_by_how_they_begin() {
    for text in ["[options]\n\tUseSyslog\n", "# knock-knock\n[main]\nport = 1\n", "SOURCE   ANY\nKEY x\n"] {
        let told = read(text).unwrap_err().to_string();
        assert!(told.contains("docs/migration") && told.lines().count() <= 2, "{told}");
    }
    let told = read("[22, 23]\n").unwrap_err().to_string();
    assert!(!told.contains("docs/migration"), "{told}");
}

#[test]
fn with_proofs_only_every_key_of_step_1_that_cannot_be_proved_is_warned_of() {
    let stored = format!("$ka1$abcdefgh${}", "ab".repeat(32));
    let slow = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm+A2aXibz3GSvOOHAXUwm1P0Y";
    let global = GLOBAL.trim_end().trim_end_matches('}');
    let with = |proof: &str, users: &str, key: &str| -> String {
        let text = format!(
            "{global}, step1_proof: {proof}{users}}}\nssh: {{port: 22, duration: 1h, access_key_http: ['{key}'], access_key_https: [other-secret]}}\n"
        );
        loads(&text).warnings.iter().map(ToString::to_string).collect()
    };
    for proof in ["require", "require_address"] {
        let told = with(proof, "", "first-secret");
        assert!(told.contains("nobody can use this key") && !told.contains("first-secret"), "{told}");
        assert_eq!(with(proof, "", &stored), "");
        let user = |key: &str| {
            format!(", users: {{alice: {{access_key_http: '{key}', access_key_https: alice-key-2}}}}")
        };
        assert_eq!(with(proof, &user("alice-key-1"), &stored), "");
        let told = with(proof, &user(slow), &stored);
        assert!(told.contains("argon2id, which does not do for a proof"), "{told}");
    }
    assert_eq!(with("accept", "", "first-secret"), "");
}

#[test]
fn a_path_of_step_1_that_is_found_by_trying_is_warned_of_and_not_told() {
    let with = |path: &str, more: &str| -> Vec<String> {
        let global = GLOBAL.trim_end().trim_end_matches('}').replace("/one-place", path);
        assert!(global.contains(path), "{global}");
        let text = format!("{global}{more}}}\n{APP}}}\n");
        loads(&text).warnings.iter().map(ToString::to_string).collect()
    };
    let told = with("/Q7xk2Zu", "");
    assert!(
        told.len() == 1 && told[0].contains("found by trying") && !told[0].contains("Q7xk2Zu"),
        "{told:?}"
    );
    assert_eq!(with("/Q7xk2Zux", ""), [""; 0]);
    let secret = ", http_post_path_secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    assert_eq!(with("/Q7xk2Zu", secret), [""; 0], "the end of it changes");
}

#[test]
fn what_nobody_can_use_and_what_does_nothing_is_warned_of() {
    let warned = |text: &str| -> Vec<String> {
        loads(text).warnings.iter().map(|warning| warning.message.clone()).collect()
    };
    let keys = "access_key_http: {key: first-secret, disabled: true}, access_key_https: other-secret";
    let users = |more: &str| {
        format!("users: {{alice: {{access_key_http: alice-key-1, access_key_https: alice-key-2{more}}}}}")
    };
    let global = GLOBAL.trim_end().trim_end_matches('}');
    let off = "every key for this app is disabled: it stays closed";
    assert_eq!(warned(&format!("{GLOBAL}ssh: {{port: 22, duration: 1h, {keys}}}\n")), [off]);
    let both = |more: &str| format!("{global}, {}}}\nssh: {{port: 22, duration: 1h, {keys}}}\n", users(more));
    assert!(warned(&both("")).is_empty());
    assert_eq!(warned(&both(", disabled: true")), [off]);
    let local = warned(&format!("{GLOBAL}{APP}, masquerade: false}}\n"));
    assert!(local.len() == 1 && local[0].contains("anyway"), "{local:?}");
    let lan = |networks: &str| {
        let more = format!("destination: 10.0.0.1, interface_int: eth1, allow: {networks}");
        warned(&format!("{GLOBAL}{APP}, {more}}}\n"))
    };
    assert!(lan("[192.0.2.0/24]").is_empty());
    let other = lan("[192.0.2.0/24, \"2001:db8::/64\"]");
    assert!(other.len() == 1 && other[0].contains("2001:db8::/64 cannot reach 10.0.0.1"), "{other:?}");
    let port =
        |ports: &str| warned(&format!("{GLOBAL}{}}}\n", APP.replace("port: 22", &format!("port: {ports}"))));
    assert_eq!(
        port("[22, 22, \"20-30\"]"),
        ["`22` names what is in this list already", "`20-30` names what is in this list already"]
    );
    assert_eq!(port("[22, \"23-30\"]"), [""; 0]);
    let to = |host: &str| warned(&format!("{GLOBAL}{APP}, interface_int: eth1, destination: \"{host}\"}}\n"));
    assert_eq!(to("fd00::42:22"), ["this is taken as an address without a port"]);
    for clear in
        ["[fd00::42]:22", "[fd00::42:22]", "fd00::22", "fd00::42:23", "fd00::42:2a", "fd00:0:1:2:3:4:5:22"]
    {
        assert_eq!(to(clear), [""; 0], "{clear}");
    }
    let group = warned(&format!("{global}, log_knocks_group: 7}}\n{APP}}}\n"));
    assert!(group.len() == 1 && group[0].contains("hears nothing"), "{group:?}");
}
