use std::path::PathBuf;

use super::*;
use crate::config::{Destination, Established, Step1Reply, TwoFactorStep};
use crate::units::{Lifetime, Mark, Protocols};

const KNOCK_PORT_EXAMPLE: &str = include_str!("knock_port_example.yaml");
const KNOCK_PORT_TESTS: &str = include_str!("knock_port_tests.yaml");
const OURS: &str = include_str!("../../../config/config.yaml");

fn secs(lifetime: Lifetime) -> u64 {
    lifetime.as_secs()
}

#[test]
fn the_reference_s_example_loads_once_its_paths_are_changed() {
    let text = KNOCK_PORT_EXAMPLE.replace("/SECRET-1", "/one-of-mine").replace("/SECRET-2", "/two-of-mine");
    let checked = loads(&text);
    assert_eq!(checked.warnings, []);
    let settings = checked.settings;
    assert_eq!(settings.global.http_post_path.expose(), "/one-of-mine");
    assert_eq!(settings.global.step1_2_rate_limit_per_minute, 5);
    assert_eq!(settings.global.two_factor_folder, Some(PathBuf::from("config/2fa")));
    assert_eq!(settings.global.healthcheck_app_name.as_deref(), Some("healthcheck"));
    let names: Vec<&str> = settings.apps.iter().map(|app| app.name.as_str()).collect();
    assert_eq!(names, ["openvpn", "http", "ssh"]);
    let [openvpn, http, ssh] = &settings.apps[..] else { panic!("three apps") };
    assert_eq!(openvpn.protocol, Protocols::Udp);
    assert_eq!(openvpn.access_key_http[1].plain().unwrap().expose(), "secret456_http");
    assert_eq!(openvpn.destination, Destination::Local);
    assert_eq!(http.destination, Destination::HostPort("192.168.0.40:80".parse().unwrap()));
    assert_eq!((secs(ssh.duration), secs(ssh.step2_https_duration)), (86_400, 5));
    assert_eq!(ssh.interface_int[0].as_str(), "eth0");
}

#[test]
fn the_reference_s_test_configuration_loads_unchanged_but_for_its_addresses() {
    let checked = loads(&KNOCK_PORT_TESTS.replace("$BACKEND_IP", "10.1.2.3"));
    let warned: Vec<&str> = checked.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warned, ["global.http_post_path"], "it is short");
    assert_eq!(checked.settings.apps.len(), 4);
    assert_eq!(checked.settings.apps[3].destination.port(), Some(2295));
}

#[test]
fn our_example_is_refused_as_shipped_and_for_its_secrets_only() {
    let problems = read(OURS).unwrap_err();
    let paths: Vec<&str> = problems.list.iter().map(|p| p.path.as_str()).collect();
    let keys = [
        "ssh.access_key_http[0]",
        "ssh.access_key_https[0]",
        "web.access_key_http[0]",
        "web.access_key_https[0]",
    ];
    assert_eq!(paths, [["global.http_post_path", "global.https_post_path"].as_slice(), &keys].concat());
    assert!(problems.list.iter().all(|p| p.message.contains("comes from an example")), "{problems}");
}

fn ours_with_own_secrets() -> String {
    OURS.replace("/step-1-SECRET", "/one-of-mine")
        .replace("/step-2-SECRET", "/two-of-mine")
        .replace("replace-this-", "my-own-")
}

#[test]
fn our_example_loads_with_secrets_of_one_s_own() {
    let checked = loads(&ours_with_own_secrets());
    assert_eq!(checked.warnings, []);
    assert!(!checked.settings.apps.is_empty());
}

#[test]
fn the_commented_keys_of_our_example_are_real_and_say_the_defaults() {
    let own = ours_with_own_secrets();
    let plain = loads(&own);
    let uncommented: String =
        own.lines().map(|line| format!("{}\n", line.replacen("  #: ", "  ", 1))).collect();
    assert_ne!(uncommented, own);
    let spelled_out = loads(&uncommented);
    assert_eq!(format!("{:?}", spelled_out.settings), format!("{:?}", plain.settings));
}

#[test]
fn what_is_left_out_has_its_default() {
    let settings = loads(&format!("{GLOBAL}{APP}}}")).settings;
    let global = &settings.global;
    assert_eq!(global.step1_2_rate_limit_per_minute, 10);
    let lockout = global.lockout.unwrap();
    assert_eq!((lockout.after, secs(lockout.first), secs(lockout.longest)), (5, 60, 86_400));
    assert_eq!(
        (global.step1_reply, global.step1_max_bytes, global.step1_segments),
        (Step1Reply::Silent, 500, 3)
    );
    assert_eq!((global.mark, global.ipv6_prefix), (Some(Mark::DEFAULT), 128));
    assert_eq!((secs(global.token_window), global.two_factor_step), (60, TwoFactorStep::Http));
    assert_eq!(
        (&global.healthcheck_app_name, &global.two_factor_folder, &global.state_file),
        (&None, &None, &None)
    );
    assert!(global.interface_int.is_empty() && global.allow.is_empty());
    let app = &settings.apps[0];
    assert_eq!((app.protocol, app.destination), (Protocols::Tcp, Destination::Local));
    assert_eq!(
        (secs(app.duration), secs(app.max_duration), secs(app.step2_https_duration)),
        (3_600, 3_600, 5)
    );
    assert_eq!((app.established, app.masquerade), (Established::Cut, true));
    assert_eq!(app.interface_ext, global.interface_ext);
    assert_eq!(app.two_factor_step, TwoFactorStep::Http);
}

#[test]
fn every_key_is_read() {
    let text = "\
global:
  http_post_path: /one/deep-place
  https_post_path: /two
  step1_2_rate_limit_per_minute: 7
  interface_ext: [eth0, ppp0]
  interface_int: [eth1]
  2fa_config_folder: /etc/knock-agent/2fa
  2fa_step: both
  healthcheck_app_name: alive
  step1_reply: http
  step1_max_bytes: 600
  step1_segments: 1
  mark: 0x100/0xff00
  ipv6_prefix: 64
  token_window: 2m
  allow: [10.0.0.0/8, '2001:db8::/32']
cam:
  port: [80, '6000-6010', '443', 6011, 81]
  protocol: both
  access_key_http: only-one-key
  access_key_https: ['zehn Zeichen ä']
  destination: '[fd00::5]:8080'
  duration: 90s
  max_duration: 30d
  step2_https_duration: 15m
  interface_ext: eth2
  interface_int: eth3
  established: keep
  masquerade: false
  once: false
  allow: 192.0.2.7
  2fa_step: https
";
    let checked = loads(text);
    let (global, app) = (&checked.settings.global, &checked.settings.apps[0]);
    let names =
        |list: &[crate::units::IfName]| list.iter().map(|n| n.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&global.interface_ext), ["eth0", "ppp0"]);
    assert_eq!(global.two_factor_step, TwoFactorStep::Both);
    assert_eq!(global.mark, Some("0x100/0xff00".parse().unwrap()));
    assert_eq!(
        (global.step1_reply, global.step1_max_bytes, global.step1_segments),
        (Step1Reply::Http, 600, 1)
    );
    assert_eq!((global.ipv6_prefix, secs(global.token_window)), (64, 120));
    assert_eq!(global.allow.len(), 2);
    let ports: Vec<String> = app.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["80-81", "443", "6000-6011"]);
    assert_eq!(app.protocol, Protocols::Both);
    assert_eq!(app.access_key_http[0].plain().unwrap().expose(), "only-one-key");
    assert_eq!(app.destination, Destination::HostPort("[fd00::5]:8080".parse().unwrap()));
    assert_eq!(
        (secs(app.duration), secs(app.max_duration), secs(app.step2_https_duration)),
        (90, 2_592_000, 900)
    );
    assert_eq!(
        (names(&app.interface_ext), names(&app.interface_int)),
        (vec!["eth2".into()], vec!["eth3".into()])
    );
    assert_eq!((app.established, app.masquerade), (Established::Keep, false));
    assert_eq!((app.allow[0].to_string().as_str(), app.two_factor_step), ("192.0.2.7", TwoFactorStep::Https));
}

#[test]
fn destinations_have_five_forms() {
    for (text, host, port) in [
        ("local", None, None),
        ("192.168.0.40", Some("192.168.0.40"), None),
        ("192.168.0.40:80", Some("192.168.0.40"), Some(80)),
        ("fd00::5", Some("fd00::5"), None),
        ("'[fd00::5]'", Some("fd00::5"), None),
        ("'[fd00::5]:22'", Some("fd00::5"), Some(22)),
    ] {
        let app = loads(&format!("{GLOBAL}{APP}, interface_int: eth1, destination: {text}}}"))
            .settings
            .apps
            .remove(0);
        assert_eq!(app.destination.host(), host.map(|h| h.parse().unwrap()), "{text}");
        assert_eq!(app.destination.port(), port, "{text}");
    }
}

#[test]
fn marks_may_be_numbers_or_text_and_zero_is_off() {
    for (text, mark) in [
        ("0", None),
        ("'0'", None),
        ("24107", Some("24107")),
        ("0x10", Some("16")),
        ("'0x10/0xf0'", Some("0x10/0xf0")),
    ] {
        let with_mark = GLOBAL.replace('}', &format!(", mark: {text}}}"));
        let settings = loads(&with_mark).settings;
        assert_eq!(settings.global.mark, mark.map(|m| m.parse().unwrap()), "{text}");
    }
}

#[test]
fn udp_may_use_the_ports_of_the_steps_and_apps_may_share_theirs() {
    loads(&format!("{GLOBAL}{APP}, protocol: udp}}").replace("port: 22", "port: [8080, 8443]"));
    let second = APP.replace("ssh:", "ssh2:");
    let checked = loads(&format!(
        "{GLOBAL}{APP}, interface_ext: eth5}}\n{second}, destination: 10.0.0.7, interface_int: eth1}}\n"
    ));
    assert_eq!(checked.warnings, []);
}

#[test]
fn one_section_may_take_over_another_s_keys() {
    let base = APP.replace("ssh:", "ssh: &base");
    let settings = loads(&format!("{GLOBAL}{base}}}\nweb: {{<<: *base, port: 80}}\n")).settings;
    assert_eq!(settings.apps[1].ports[0].first(), 80);
    assert_eq!(settings.apps[1].access_key_http[0].plain().unwrap().expose(), "first-secret");
}

#[test]
fn warnings_do_not_stop_it() {
    let global = GLOBAL.replace('}', ", state_file: /var/lib/knock-agent/state, allow: 0.0.0.0/0}");
    let many = APP.replace("port: 22", "port: 22-23");
    let checked = loads(&format!("{global}{many}, destination: 10.0.0.1:22, interface_int: eth1}}"));
    let paths: Vec<&str> = checked.warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(paths, ["global.allow", "ssh.destination"]);
    assert_eq!(checked.settings.global.state_file, Some("/var/lib/knock-agent/state".into()));
    assert_eq!(loads(GLOBAL).warnings[0].message, "there is no app: nothing is guarded");
}

#[test]
fn a_key_that_curl_sends_otherwise_is_warned_of() {
    let warned = |key: &str| {
        let checked = loads(&format!("{GLOBAL}{APP}}}").replace("first-secret", &format!("\"{key}\"")));
        checked.warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>()
    };
    for key in ["abc+def/ghi=", "one&two&three", "fifty%of-it", "with a blank"] {
        let messages = warned(key);
        assert!(messages.len() == 1 && messages[0].contains("curl"), "{key}: {messages:?}");
        assert!(!messages[0].contains(key), "{messages:?}");
    }
    assert_eq!(warned("abc-def/ghi=!"), [""; 0]);
}

#[test]
fn a_path_that_curl_sends_otherwise_is_warned_of() {
    let warned = |path: &str| {
        let text = format!("{GLOBAL}{APP}}}").replace("/one-place", path);
        loads(&text).warnings.iter().any(|warning| warning.message.contains("curl"))
    };
    assert!(warned("/quiet/../door-one-of-mine") && warned("/quiet-door-of-mine/."));
    assert!(!warned("/quiet/..door-one-of-mine") && !warned("/quiet.door-one-of-mine"));
}

#[test]
fn the_longest_path_fits_the_default_packet() {
    let path = format!("/{}", "a".repeat(99));
    let text =
        format!("{GLOBAL}{APP}}}").replace("/one-place", &path).replace("first-secret", &"k".repeat(50));
    assert_eq!(loads(&text).settings.global.http_post_path.expose(), path);
}

#[test]
fn what_a_panic_could_print_of_settings_has_no_secret_in_it() {
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm+A2aXibz3GSvOOHAXUwm1P0Y";
    let verifier = "ab".repeat(32);
    let seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    let users = format!(
        "users: {{alice: {{access_key_http: $ka1$abcdefgh$ {verifier}, access_key_https: \"{hash}\", totp: {{secret: {seed}}}}}, \
         bob: {{access_key_http: bobs-first-key, access_key_https: {{key: bobs-second-key, expires: 2099-01-01}}}}}}"
    )
    .replace("$ ", "$");
    let text = format!("{}{APP}}}\n", GLOBAL.replace('}', &format!(", {users}}}")));
    let checked = loads(&text);
    assert_eq!(checked.settings.users.len(), 2);
    let printed = format!("{checked:#?}");
    for secret in [
        "one-place",
        "two-place",
        "first-secret",
        "other-secret",
        "bobs-first",
        "bobs-second",
        &verifier[..],
        hash,
        seed,
        "lnizTRNg",
        "12345678",
    ] {
        assert!(!printed.contains(secret), "{secret}: {printed}");
    }
}
