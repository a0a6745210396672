//! One-time codes at either step.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{admission_left, remove_guard, time_left};
use crate::knocking::{
    Reply, STEP1_PORT, assert_step2_answers, assert_step2_opens, form, post_step1, post_step2, request,
    step1, step2,
};
use crate::namespace::Namespace;
use crate::probe::GENEROUS;
use crate::strangers::{Stranger, send_and_reset};
use crate::topology::{Family, Topology};

pub(super) const SECRET: &str = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";

/// A code of RFC 6238 (30 s, six digits), so many steps from now, by another implementation than ours.
pub(super) fn code(host: &Namespace, steps: i32) -> String {
    let script = format!(
        "import hmac, base64, struct, time\n\
         counter = struct.pack('>Q', int(time.time()) // 30 + {steps})\n\
         mac = hmac.new(base64.b32decode('{SECRET}'), counter, 'sha1').digest()\n\
         at = mac[-1] & 15\n\
         print('%06d' % ((struct.unpack('>I', mac[at:at + 4])[0] & 0x7fffffff) % 1000000), end='')\n"
    );
    host.run("python3", &["-c", &script]).success().text()
}

/// An app `ssh` whose `key` needs a code at the step that `more` says.
pub(super) fn install(key: &str, more: &[&str]) -> Installation {
    install_with(key, &[], more)
}

fn install_with(key: &str, global: &[&str], more: &[&str]) -> Installation {
    let home = Installation::with_text("");
    let folder = home.path("2fa");
    home.folder()
        .write(&format!("2fa/{key}.json"), format!("{{\"secret\": \"{SECRET}\", \"interval\": 30}}"));
    let line = format!("2fa_config_folder: \"{}\"", folder.display());
    home.rewrite_config(
        Config::new(&[&[line.as_str()], global].concat()).app("ssh", "2222", "tcp", "local", more).text(),
    );
    home
}

fn step2_with(net: &Topology, token: &str) -> Option<Reply> {
    let form = format!("{}&token={token}", form("ssh", &https_key("ssh")));
    post_step2(&net.a, Family::V4.router(), STEP2_PATH, &form, &[])
}

#[test]
fn a_file_that_is_not_there_at_the_moment_or_somebody_else_s_switches_no_code_off() {
    let net = Topology::new();
    let home = install(&http_key("ssh"), &[]);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    let file = home.path(&format!("2fa/{}.json", http_key("ssh")));
    let away = home.path("2fa/elsewhere");
    std::fs::rename(&file, &away).unwrap();
    std::os::unix::fs::symlink(&away, &file).unwrap();
    let agent = home.start(&net.router);
    step1(&net.a, to, "ssh");
    assert_eq!(admission_left(&net.router, client), None, "a link is as good");
    // As if it led to a disk that is not mounted.
    std::fs::remove_file(&away).unwrap();
    assert!(agent.reload().contains("refused"));
    home.check(&net.router, &["check-config"]).exits(78);
    step1(&net.a, to, "ssh");
    assert_eq!(admission_left(&net.router, client), None, "without the file");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, format!("{{\"secret\": \"{SECRET}\", \"interval\": 30}}")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(!agent.reload().contains("refused"));
    std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
    assert!(agent.reload().contains("refused"));
    let told = home.check(&net.router, &["check-config"]).exits(78);
    assert!(told.stderr.contains("belongs to the user 65534"), "{}", told.stderr);
}

#[test]
fn a_first_step_with_a_code_counts_once() {
    let net = Topology::new();
    let home = install(&http_key("ssh"), &["step2_https_duration: 8"]);
    let _agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    step1(&net.a, to, "ssh");
    assert_eq!(admission_left(&net.router, client), None, "without a code");
    let with = |token: &str| format!("{}&token={token}", form("ssh", &http_key("ssh")));
    post_step1(&net.a, to, STEP1_PATH, &with("000000"));
    post_step1(&net.a, to, STEP1_PATH, &with(&code(&net.a, -20)));
    assert_eq!(admission_left(&net.router, client), None, "with a wrong code");
    let token = code(&net.a, 0);
    post_step1(&net.a, to, STEP1_PATH, &with(&token));
    assert!(admission_left(&net.router, client).is_some(), "with the right code");
    assert_step2_opens(&net.a, to, "ssh");
    while admission_left(&net.router, client).is_some() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    post_step1(&net.b, to, STEP1_PATH, &with(&token));
    assert_eq!(admission_left(&net.router, Family::V4.client_b()), None, "the same code from elsewhere");
}

#[test]
fn a_second_step_asks_for_its_code_and_takes_it_once() {
    let net = Topology::new();
    let home = install(&https_key("ssh"), &["2fa_step: https", "step2_https_duration: 3"]);
    let _agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    step1(&net.a, to, "ssh");
    let asked = step2(&net.a, to, "ssh").expect("an answer");
    assert_eq!(asked.status, 401, "{}", asked.head);
    assert!(asked.head.to_lowercase().contains("www-authenticate: totp"), "{}", asked.head);
    assert_eq!(time_left(&net.router, "ssh", client), None);
    let left = admission_left(&net.router, client).expect("time to type the code");
    assert!(
        left.as_secs() > 50 && left.as_secs() <= 60,
        "the admission is renewed to a minute, once: {left:?}"
    );
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_step2_answers(step2(&net.a, to, "ssh"), 401);
    let again = admission_left(&net.router, client).expect("what is left of the minute");
    assert!(again < left, "asking again gives no more time: {again:?} after {left:?}");
    assert_step2_answers(step2_with(&net, "000000"), 403);
    assert_eq!(time_left(&net.router, "ssh", client), None);
    let token = code(&net.a, 0);
    let opened = step2_with(&net, &token).expect("an answer");
    assert_eq!((opened.status, opened.body.as_str()), (200, "OK\n"));
    assert!(time_left(&net.router, "ssh", client).is_some(), "a grant");
    home.verb(&net.router, &["revoke", "--all"]).success();
    step1(&net.a, to, "ssh");
    assert_step2_answers(step2_with(&net, &token), 403);
    assert_eq!(time_left(&net.router, "ssh", client), None, "the same code again");
}

#[test]
fn a_wrong_key_is_never_asked_for_a_code() {
    let net = Topology::new();
    let home = install(&https_key("ssh"), &["2fa_step: https", "step2_https_duration: 30"]);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let wrong = post_step2(&net.a, to, STEP2_PATH, &form("ssh", "not-the-key-of-anything"), &[]);
    assert_step2_answers(wrong, 403);
}

#[test]
fn a_used_code_stays_used_after_a_restart() {
    let net = Topology::new();
    let home = install(&http_key("ssh"), &[]);
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    let form = format!("{}&token={}", form("ssh", &http_key("ssh")), code(&net.a, 0));
    post_step1(&net.a, to, STEP1_PATH, &form);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "with the right code");
    agent.terminate();
    let _agent = home.start(&net.router);
    post_step1(&net.b, to, STEP1_PATH, &form);
    assert_eq!(admission_left(&net.router, Family::V4.client_b()), None, "the same code after a restart");
}

#[test]
fn a_code_from_before_a_reboot_is_refused_after_it_and_a_first_start_refuses_none() {
    let net = Topology::new();
    let home = install(&http_key("ssh"), &[]);
    // As the units do it; it keeps a plan.
    home.guard(&net.router).success();
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    let [used, unused] =
        [0, 1].map(|steps| format!("{}&token={}", form("ssh", &http_key("ssh")), code(&net.a, steps)));
    post_step1(&net.a, to, STEP1_PATH, &used);
    assert!(admission_left(&net.router, Family::V4.client_a()).is_some(), "at the first start");
    agent.kill();
    // What a reboot leaves.
    remove_guard(&net.router);
    home.lose_runtime_folder();
    let agent = home.start(&net.router);
    for form in [&used, &unused] {
        post_step1(&net.b, to, STEP1_PATH, form);
        assert_eq!(admission_left(&net.router, Family::V4.client_b()), None, "after the reboot");
    }
    agent.kill();
    let _agent = home.start(&net.router);
    post_step1(&net.b, to, STEP1_PATH, &used);
    assert_eq!(admission_left(&net.router, Family::V4.client_b()), None, "after one more restart");
}

#[test]
fn a_key_of_step_2_that_has_a_code_opens_nothing_without_wherever_codes_are_asked_for() {
    let net = Topology::new();
    let home = install(&https_key("ssh"), &["step2_https_duration: 30"]);
    let _agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    step1(&net.a, to, "ssh");
    assert!(admission_left(&net.router, client).is_some(), "the key of step 1 has none");
    assert_step2_answers(step2(&net.a, to, "ssh"), 401);
    assert_step2_answers(step2_with(&net, "000000"), 403);
    assert_eq!(time_left(&net.router, "ssh", client), None);
    assert_step2_answers(step2_with(&net, &code(&net.a, 0)), 200);
    assert!(time_left(&net.router, "ssh", client).is_some());
}

/// The stored form of a key (docs/configuration.md), by another implementation than ours.
fn stored(host: &Namespace, key: &str) -> String {
    let script = format!(
        "import hmac; print('$ka1$$' + hmac.new(b'{key}', b'knock-agent key 1', 'sha256').hexdigest(), end='')"
    );
    host.run("python3", &["-c", &script]).success().text()
}

#[test]
fn a_key_needs_the_code_of_its_file_however_it_is_stored_and_whosever_it_is() {
    let net = Topology::new();
    let home = install(&https_key("ssh"), &["2fa_step: https", "step2_https_duration: 60"]);
    let plain = std::fs::read_to_string(home.path("config.yaml")).unwrap();
    let (http, https) = (http_key("ssh"), https_key("ssh"));
    let of_app = plain.replace(&https, &stored(&net.a, &https));
    let apps = plain.find("  access_key_http:").unwrap()..plain.find("  duration:").unwrap();
    let of_user = |key: &str| {
        let user = format!("users: {{alice: {{access_key_http: {http}, access_key_https: \"{key}\"}}}}");
        let mut text = plain.clone();
        text.replace_range(apps.clone(), "");
        text.replacen("global:\n", &format!("global:\n  {user}\n"), 1)
    };
    // echo -n 'correct horse' | argon2 saltsalt -id -t 1 -k 64 -p 1 -e
    let slow = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm+A2aXibz3GSvOOHAXUwm1P0Y";
    let by_hash = "app=ssh&access_key=correct%20horse&user=alice";
    let usual = form("ssh", &https);
    home.rewrite_config(&of_app);
    let agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    for (n, (config, file, form)) in [
        (of_app.clone(), None, usual.as_str()),
        (of_user(&https), None, usual.as_str()),
        (of_user(&stored(&net.a, &https)), None, usual.as_str()),
        (of_user(slow), Some("correct horse.json"), by_hash),
    ]
    .into_iter()
    .enumerate()
    {
        home.rewrite_config(&config);
        let file = file.map(|name| {
            std::fs::rename(home.path(&format!("2fa/{https}.json")), home.path(&format!("2fa/{name}")))
                .unwrap();
        });
        let said = agent.reload();
        assert!(!said.contains("refused"), "{n}: {said}\n{}", home.log());
        let checked = home.check(&net.router, &["check-config", "--strict"]).success();
        let told = if file.is_some() { "argon2id" } else { "https key 1" };
        assert!(checked.text().contains(told), "{n}: {}", checked.text());
        step1(&net.a, to, "ssh");
        let step2 = |token: &str| post_step2(&net.a, to, STEP2_PATH, &format!("{form}{token}"), &[]);
        assert_step2_answers(step2(""), 401);
        assert_step2_answers(step2("&token=000000"), 403);
        assert_eq!(time_left(&net.router, "ssh", client), None, "{n}");
    }
    let token = format!("&token={}", code(&net.a, 0));
    let opened = post_step2(&net.a, to, STEP2_PATH, &format!("{by_hash}{token}"), &[]);
    assert_step2_answers(opened, 200);
}

#[test]
fn a_file_that_belongs_to_no_key_is_told_and_so_is_a_key_that_needs_no_code_any_more() {
    let net = Topology::new();
    let home = install(&https_key("ssh"), &[]);
    let agent = home.start(&net.router);
    let health = |code: i32| home.check(&net.router, &["health"]).exits(code).text();
    health(0);
    // As where the key was replaced and the file was not.
    let (file, other) = (home.path(&format!("2fa/{}.json", https_key("ssh"))), home.path("2fa/Old-Key.json"));
    std::fs::rename(file, other).unwrap();
    assert!(!agent.reload().contains("refused"));
    let log = home.log();
    assert!(
        log.contains("WARN this key needs no one-time code any more app=ssh by=\"key 1\" step=2"),
        "{log}"
    );
    let told = "1 file in";
    assert!(log.contains(told) && !log.contains("Old-Key"), "{log}");
    let ill = health(1);
    assert!(ill.starts_with("configuration: ") && ill.contains(told) && !ill.contains("Old-Key"), "{ill}");
    let checked = home.check(&net.router, &["check-config"]).success();
    assert!(checked.stderr.contains(told) && !checked.stderr.contains("Old-Key"), "{checked:?}");
    assert!(checked.text().contains("nobody"), "{checked:?}");
    home.check(&net.router, &["check-config", "--strict"]).exits(78);
    agent.terminate();
    let agent = home.start(&net.router);
    health(1);
    std::fs::remove_file(home.path("2fa/Old-Key.json")).unwrap();
    assert!(!agent.reload().contains("refused"));
    health(0);
}

#[test]
fn a_folder_of_codes_that_is_misspelt_or_gone_is_refused_at_a_reload_and_at_a_start() {
    let net = Topology::new();
    let home = install(&http_key("ssh"), &[]);
    let agent = home.start(&net.router);
    let (to, client) = (Family::V4.router(), Family::V4.client_a());
    let config = std::fs::read_to_string(home.path("config.yaml")).unwrap();
    for misspelt in [true, false] {
        if misspelt {
            home.rewrite_config(&config.replace("/2fa\"", "/2fb\""));
        } else {
            home.rewrite_config(&config);
            std::fs::rename(home.path("2fa"), home.path("elsewhere")).unwrap();
        }
        let said = agent.reload();
        assert!(said.contains("refused"), "{said}");
        assert!(home.log().contains("no key would need a one-time code"), "{}", home.log());
        step1(&net.a, to, "ssh");
        assert_eq!(admission_left(&net.router, client), None, "without a code");
    }
    home.check(&net.router, &["check-config"]).exits(78);
    agent.terminate();
    home.run_in_vain(&net.router).exits(78);
    std::fs::create_dir(home.path("2fa")).unwrap();
    let _agent = home.start(&net.router);
    step1(&net.a, to, "ssh");
    assert!(admission_left(&net.router, client).is_some(), "an empty folder asks nobody");
}

#[test]
fn codes_that_are_guessed_from_many_addresses_are_held_back_from_all_but_the_owner() {
    let net = Topology::new();
    let lockout = "lockout: {after: 5, first: 1m, longest: 1d}";
    let home = install_with(&http_key("ssh"), &[lockout], &["step2_https_duration: 2"]);
    let before = home.start(&net.router);
    Stranger::settle(&net);
    let (to, owner, thief) = (Family::V4.router(), Family::V4.client_a(), Family::V4.client_b());
    let with = |token: &str| format!("{}&token={token}", form("ssh", &http_key("ssh")));
    post_step1(&net.a, to, STEP1_PATH, &with(&code(&net.a, 0)));
    assert!(admission_left(&net.router, owner).is_some(), "the owner, with a right code");
    // Where the owner is must be known to the next daemon.
    before.terminate();
    let _agent = home.start(&net.router);
    // Three of each are no lock-out of anybody; some of them may be reset before they are read.
    net.b.enter(|| {
        for guess in 0..90 {
            let bytes = request(&format!("POST {STEP1_PATH}"), &with(&format!("00000{}", guess % 3)));
            let source = Stranger(guess / 3).address(Family::V4);
            assert!(send_and_reset(source, (to, STEP1_PORT).into(), bytes.as_bytes()));
        }
    });
    let end = Instant::now() + GENEROUS;
    while !home.log().contains("codes are held back, app=ssh by=key 1 seconds=60") {
        assert!(Instant::now() < end, "{}", home.log());
        sleep(Duration::from_millis(50));
    }
    let token = code(&net.a, 1);
    post_step1(&net.b, to, STEP1_PATH, &with(&token));
    assert_eq!(admission_left(&net.router, thief), None, "a right code from elsewhere");
    while admission_left(&net.router, owner).is_some() {
        sleep(Duration::from_millis(200));
    }
    post_step1(&net.a, to, STEP1_PATH, &with(&token));
    assert!(admission_left(&net.router, owner).is_some(), "the owner\n{}", home.log());
    let status = home.verb(&net.router, &["status", "--json"]).success().text();
    assert!(status.contains("\"code-held\""), "{status}");
    home.verb(&net.router, &["unblock", "--all"]).success();
    post_step1(&net.b, to, STEP1_PATH, &with("000003"));
    let judged = format!("client={thief} step=1 reason=wrong-code");
    assert!(home.log().contains(&judged), "{}", home.log());
}
