//! Users with keys of their own, proofs, dates, and closing.

use std::time::SystemTime;

use super::*;
use crate::config::{Alone, parse};
use crate::knock::proof::Proof;
use crate::units::Verifier;

const CLIENT: &str = "192.0.2.1";

fn gate(global: &str, apps: &str) -> Gatekeeper {
    gate_with(global, apps, &[])
}

fn gate_with(global: &str, apps: &str, two_factor: &[TwoFactor]) -> Gatekeeper {
    Gatekeeper::new(&settings(global, apps), two_factor, [3; 16])
}

fn settings(global: &str, apps: &str) -> Settings {
    let text = format!(
        "global:\n  interface_ext: eth0\n  http_post_path: /one-place\n  https_post_path: /two-place\n  step1_2_rate_limit_per_minute: 1000\n{global}\n{apps}\n"
    );
    parse("test", &text, None, &Alone).unwrap_or_else(|p| panic!("{p}\n{text}")).settings
}

const SSH: &str = "ssh: {port: 22, duration: 1h, max_duration: 4h}";
const USERS: &str = "  users:
    alice: {access_key_http: alice-key-1, access_key_https: alice-key-2}
    bob: {access_key_http: bobby-key-1, access_key_https: bobby-key-2, duration: 10m, max_duration: 20m}";

fn attempt(step: Step, key: &str) -> Attempt {
    Attempt {
        client: ClientAddr::new(CLIENT.parse().unwrap()),
        step,
        app: "ssh".to_owned(),
        credential: Credential::Key(Secret::new(key.to_owned())),
        user: None,
        token: None,
        duration: None,
        action: Action::Open,
    }
}

fn one(key: &str) -> Attempt {
    attempt(Step::One, key)
}

fn two(key: &str) -> Attempt {
    attempt(Step::Two, key)
}

fn at(secs: u64) -> Now {
    Now::at_secs(secs)
}

fn judge(gate: &mut Gatekeeper, attempt: &Attempt, now: Now) -> Verdict {
    gate.judge(attempt, &|_, _| false, now)
}

fn ok(verdict: &Verdict) -> bool {
    !matches!(verdict, Verdict::Refuse(_))
}

fn granted(user: &str, secs: u64) -> Verdict {
    let lifetime = Lifetime::from_secs(secs).unwrap();
    Verdict::Grant { app: "ssh".parse().unwrap(), lifetime, user: user.to_owned() }
}

#[test]
fn a_user_is_known_by_name_and_has_the_time_that_is_theirs() {
    let mut gate = gate(USERS, SSH);
    for (http, https, user, secs) in
        [("alice-key-1", "alice-key-2", "alice", 3_600), ("bobby-key-1", "bobby-key-2", "bob", 600)]
    {
        assert!(ok(&judge(&mut gate, &one(http), at(0))));
        assert_eq!(judge(&mut gate, &two(https), at(1)), granted(user, secs));
    }
}

#[test]
fn a_client_gets_the_time_it_asks_for_up_to_its_limit() {
    let mut gate = gate(USERS, SSH);
    let asked = |key: &str, time: &str| Attempt { duration: Some(time.parse().unwrap()), ..two(key) };
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
    assert!(ok(&judge(&mut gate, &one("bobby-key-1"), at(0))));
    for (key, time, user, secs) in [
        ("alice-key-2", "60", "alice", 60),
        ("alice-key-2", "3h", "alice", 10_800),
        ("alice-key-2", "1d", "alice", 14_400),
        ("bobby-key-2", "1d", "bob", 1_200),
    ] {
        assert_eq!(judge(&mut gate, &asked(key, time), at(1)), granted(user, secs), "{key} {time}");
    }
}

#[test]
fn step_1_of_one_user_and_step_2_of_another_are_no_knock() {
    let keys = "ssh: {port: 22, duration: 1h, access_key_http: common-key-1, access_key_https: common-key-2}";
    let https = ["alice-key-2", "bobby-key-2", "common-key-2"];
    let http = ["alice-key-1", "bobby-key-1", "common-key-1"];
    let users = USERS.replace(", duration: 10m, max_duration: 20m", "");
    for (first, step1) in http.iter().enumerate() {
        for (second, step2) in https.iter().enumerate() {
            let mut gate = gate(&users, keys);
            assert!(ok(&judge(&mut gate, &one(step1), at(0))), "{step1}");
            let verdict = judge(&mut gate, &two(step2), at(1));
            let wanted =
                if first == second { ok(&verdict) } else { verdict == Verdict::Refuse(Refusal::NoStep1) };
            assert!(wanted, "{step1} {step2}: {verdict:?}");
        }
    }
}

#[test]
fn who_is_disabled_or_was_good_until_yesterday_opens_nothing() {
    // `Now::at_secs(0)` is 2023-11-14T22:13:20Z.
    for (terms, wanted) in [
        ("disabled: true", Refusal::WrongKey),
        ("expires: 2023-11-13", Refusal::Expired),
        ("expires: \"2023-11-14T22:13:20Z\"", Refusal::Expired),
        ("apps: {ssh: {disabled: true}}", Refusal::WrongKey),
        ("apps: {ssh: {expires: 2023-11-13}}", Refusal::Expired),
        ("apps: [vpn]", Refusal::WrongKey),
    ] {
        let users = format!(
            "  users: {{alice: {{access_key_http: alice-key-1, access_key_https: alice-key-2, {terms}}}}}"
        );
        let mut gate = gate(&users, &format!("{SSH}\nvpn: {{port: 23, duration: 1h}}"));
        assert_eq!(judge(&mut gate, &one("alice-key-1"), at(0)), Verdict::Refuse(wanted), "{terms}");
    }
    for terms in ["{key: alice-key-1, disabled: true}", "{key: alice-key-1, expires: 2023-11-13}"] {
        let users =
            format!("  users: {{alice: {{access_key_http: {terms}, access_key_https: alice-key-2}}}}");
        assert!(!ok(&judge(&mut gate(&users, SSH), &one("alice-key-1"), at(0))), "{terms}");
    }
}

#[test]
fn a_grant_does_not_outlive_its_key() {
    let users = "  users: {alice: {access_key_http: alice-key-1, access_key_https: {key: alice-key-2, expires: \"2023-11-14T22:15:00Z\"}}}";
    let mut gate = gate(users, SSH);
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
    assert_eq!(judge(&mut gate, &two("alice-key-2"), at(1)), granted("alice", 99));
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(98))));
    assert_eq!(judge(&mut gate, &two("alice-key-2"), at(99)), granted("alice", 1));
    assert_eq!(judge(&mut gate, &two("alice-key-2"), at(100)), Verdict::Refuse(Refusal::Expired));
}

fn proof(user: &str, key: &str, address: Option<&str>, nonce: u64, wall: SystemTime) -> Attempt {
    let claim = Claim { app: "ssh", user };
    let key = Verifier::of(&Secret::new(key.to_owned()));
    let address = address.map(|address| address.parse().unwrap());
    let proof = Proof::make(&key, &claim, address, &format!("{nonce:016x}"), wall);
    Attempt { credential: Credential::Proof(proof), user: Some(user.to_owned()), ..one("") }
}

#[test]
fn a_proof_does_what_its_key_does_and_only_once() {
    let mut gate = gate(USERS, SSH);
    let knock = proof("alice", "alice-key-1", Some(CLIENT), 1, at(0).wall);
    assert!(ok(&judge(&mut gate, &knock, at(0))));
    assert!(gate.take_used());
    assert_eq!(judge(&mut gate, &two("alice-key-2"), at(1)), granted("alice", 3_600));
    assert!(ok(&judge(&mut gate, &knock, at(3))), "a retransmission while it is pending");
    for (client, when) in [(CLIENT, 6), ("192.0.2.9", 6)] {
        let replay = Attempt { client: ClientAddr::new(client.parse().unwrap()), ..knock.clone() };
        assert!(!ok(&judge(&mut gate, &replay, at(when))), "{client} {when}");
    }
    let elsewhere = proof("alice", "alice-key-1", None, 2, at(6).wall);
    assert!(ok(&judge(&mut gate, &elsewhere, at(6))));
    let replay = Attempt { client: ClientAddr::new("192.0.2.9".parse().unwrap()), ..elsewhere };
    assert_eq!(judge(&mut gate, &replay, at(7)), Verdict::Refuse(Refusal::ReplayedProof));
    let used = gate.used_up();
    let mut restarted = gate_with(USERS, SSH, &[]);
    restarted.remember_used(&used, at(8));
    assert_eq!(judge(&mut restarted, &replay, at(8)), Verdict::Refuse(Refusal::ReplayedProof));
}

#[test]
fn a_proof_is_of_the_user_it_names_for_step_1_only() {
    let mut gate = gate(USERS, SSH);
    let now = at(0);
    for (user, key) in
        [("bob", "alice-key-1"), ("alice", "alice-key-2"), ("carol", "alice-key-1"), ("", "alice-key-1")]
    {
        let verdict = judge(&mut gate, &proof(user, key, None, 1, now.wall), now);
        assert_eq!(verdict, Verdict::Refuse(Refusal::WrongKey), "{user} {key}");
    }
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), now)));
    let step2 = Attempt { step: Step::Two, ..proof("alice", "alice-key-2", None, 1, now.wall) };
    assert_eq!(judge(&mut gate, &step2, now), Verdict::Refuse(Refusal::WrongKey));
}

#[test]
fn an_operator_may_want_proofs_only_and_with_an_address() {
    let now = at(0);
    let with = |mode: &str| gate(&format!("{USERS}\n  step1_proof: {mode}"), SSH);
    let anywhere = |nonce| proof("alice", "alice-key-1", None, nonce, now.wall);
    let here = |nonce| proof("alice", "alice-key-1", Some(CLIENT), nonce, now.wall);
    for (mode, key, free, bound) in [
        ("accept", true, true, true),
        ("require", false, true, true),
        ("require_address", false, false, true),
    ] {
        let mut gate = with(mode);
        assert_eq!(ok(&judge(&mut gate, &one("alice-key-1"), now)), key, "{mode}");
        assert_eq!(ok(&judge(&mut gate, &anywhere(1), now)), free, "{mode}");
        assert_eq!(ok(&judge(&mut gate, &here(2), now)), bound, "{mode}");
        assert!(ok(&judge(&mut gate, &two("alice-key-2"), now)), "step 2 is encrypted");
    }
}

#[test]
fn a_generated_key_of_an_app_can_be_proved_by_its_id() {
    let (http, https) = ("ab3d.abcdefghijklmnopqrstuvwxyz", "ef4g.abcdefghijklmnopqrstuvwxyz");
    let stored: String =
        Verifier::of(&Secret::new(http.to_owned())).expose().iter().map(|b| format!("{b:02x}")).collect();
    let app = format!(
        "ssh: {{port: 22, duration: 1h, access_key_http: $ka1$ab3d${stored}, access_key_https: {https}}}"
    );
    let mut gate = gate("", &app);
    assert!(ok(&judge(&mut gate, &proof("ab3d", http, None, 1, at(0).wall), at(0))));
    assert_eq!(judge(&mut gate, &two(https), at(1)), granted("key 1", 3_600));
    assert!(ok(&judge(&mut gate, &one(http), at(9))), "the key itself, of which only the verifier is stored");
    assert!(!ok(&judge(&mut gate, &one("ab3d.abcdefghijklmnopqrstuvwxy2"), at(9))));
}

#[test]
fn a_code_is_the_users_own_and_a_session_needs_none_to_go_on() {
    let users = "  2fa_step: https\n  users:\n    alice: {access_key_http: alice-key-1, access_key_https: alice-key-2, totp: {secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}}";
    let mut gate = gate(users, SSH);
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
    assert!(matches!(judge(&mut gate, &two("alice-key-2"), at(1)), Verdict::NeedToken { readmit: Some(_) }));
    let code = TotpSecret::from_base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", TotpKind::default()).unwrap();
    let with_code = Attempt { token: Some(code.code_at(at(2).wall)), ..two("alice-key-2") };
    assert_eq!(judge(&mut gate, &with_code, at(2)), granted("alice", 3_600));
    assert_eq!(judge(&mut gate, &with_code, at(3)), Verdict::Refuse(Refusal::ReplayedToken));
    let is_in = |app: &AppName, user: &str| app.as_str() == "ssh" && user == "alice";
    assert_eq!(gate.judge(&two("alice-key-2"), &is_in, at(4)), granted("alice", 3_600));
    let wrong = Attempt { token: Some(Secret::new("000000".to_owned())), ..two("alice-key-2") };
    assert_eq!(gate.judge(&wrong, &is_in, at(5)), Verdict::Refuse(Refusal::WrongToken));
}

#[test]
fn a_grant_is_renewed_without_a_code_only_where_one_of_the_secret_of_now_was_given_for_it() {
    let users = |totp: &str| {
        format!(
            "  2fa_step: https\n  users:\n    alice: {{access_key_http: alice-key-1, access_key_https: alice-key-2{totp}}}"
        )
    };
    let [first, second] = ["GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"];
    let with = |secret: &str| users(&format!(", totp: {{secret: {secret}}}"));
    let token = |secret: &str, now: Now| {
        let code = TotpSecret::from_base32(secret, TotpKind::default()).unwrap().code_at(now.wall);
        Attempt { token: Some(code), ..two("alice-key-2") }
    };
    let is_in = |_: &AppName, user: &str| user == "alice";
    let mut random = 4;
    let mut reload = |gate: &mut Gatekeeper, users: &str| {
        random += 1;
        gate.reload(&settings(users, SSH), &[], [random; 16]);
        assert!(ok(&judge(gate, &one("alice-key-1"), at(1))));
    };
    let asks = |gate: &mut Gatekeeper| {
        matches!(gate.judge(&two("alice-key-2"), &is_in, at(1)), Verdict::NeedToken { .. })
    };
    let mut gate = gate(&users(""), SSH);
    reload(&mut gate, &users(""));
    assert_eq!(gate.judge(&two("alice-key-2"), &is_in, at(1)), granted("alice", 3_600));
    reload(&mut gate, &with(first));
    assert!(asks(&mut gate), "the secret is new");
    assert_eq!(gate.judge(&token(first, at(1)), &is_in, at(1)), granted("alice", 3_600));
    assert!(!asks(&mut gate) && gate.take_used());
    reload(&mut gate, &with(second));
    assert!(asks(&mut gate), "it was replaced");
    assert_eq!(gate.judge(&token(second, at(1)), &is_in, at(1)), granted("alice", 3_600));
    assert!(!asks(&mut gate));

    // A restart asks nobody again, as far as it is known who gave one.
    let known = gate.used_up();
    for (used, wants) in [(known.clone(), false), (UsedUp { proved: Vec::new(), ..known }, true)] {
        let mut after = super::users_tests::gate(&with(second), SSH);
        after.remember_used(&used, at(1));
        assert!(ok(&judge(&mut after, &one("alice-key-1"), at(1))));
        assert_eq!(asks(&mut after), wants);
    }

    reload(&mut gate, &users(""));
    assert_eq!(gate.judge(&two("alice-key-2"), &is_in, at(1)), granted("alice", 3_600));
    reload(&mut gate, &with(second));
    assert!(asks(&mut gate), "it was renewed without a code meanwhile");
}

#[test]
fn a_wrong_code_that_is_repeated_counts_once_until_other_codes_are_right() {
    let users = "  lockout: {after: 2}\n  2fa_step: http\n  users:\n    alice: {access_key_http: alice-key-1, access_key_https: alice-key-2, totp: {secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}}";
    let mut gate = gate(users, SSH);
    let wrong = |host: u8, code: &str| Attempt {
        client: ClientAddr::new([192, 0, 2, host].into()),
        token: Some(Secret::new(code.to_owned())),
        ..one("alice-key-1")
    };
    // As many as would hold back her codes, twice over.
    for host in [1, 2, 1, 2, 1, 2, 1, 2] {
        assert_eq!(judge(&mut gate, &wrong(host, "000000"), at(1)), Verdict::Refuse(Refusal::WrongToken));
    }
    assert_eq!((gate.take_held(), gate.defence().locked_out(at(1).boot)), (None, Vec::new()));
    assert_eq!(judge(&mut gate, &wrong(3, "000000"), at(1)), Verdict::Refuse(Refusal::WrongToken));
    assert_eq!(gate.take_held(), None);
    // The next code is another one, and so is the guess.
    assert_eq!(judge(&mut gate, &wrong(1, "000000"), at(31)), Verdict::Refuse(Refusal::WrongToken));
    assert!(gate.take_held().is_some());
    assert_eq!(gate.defence().locked_out(at(31).boot).len(), 1);
}

#[test]
fn closing_takes_both_steps_and_no_code() {
    let users = "  2fa_step: https\n  users:\n    alice: {access_key_http: alice-key-1, access_key_https: alice-key-2, totp: {secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}}";
    let mut gate = gate(users, SSH);
    let close = Attempt { action: Action::Close, ..two("alice-key-2") };
    assert_eq!(judge(&mut gate, &close, at(0)), Verdict::Refuse(Refusal::NoStep1));
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
    let closed = Verdict::Close { app: "ssh".parse().unwrap(), user: "alice".to_owned() };
    assert_eq!(judge(&mut gate, &close, at(1)), closed);
}

#[test]
fn a_hashed_key_is_found_by_its_user_and_judged_afterwards() {
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm+A2aXibz3GSvOOHAXUwm1P0Y";
    let users =
        format!("  users:\n    alice: {{access_key_http: alice-key-1, access_key_https: \"{hash}\"}}");
    let mut gate = gate(&users, SSH);
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
    let step2 = Attempt { user: Some("alice".to_owned()), ..two("correct horse") };
    let Verdict::Hash { hash: asked, key } = judge(&mut gate, &step2, at(1)) else { panic!("no hash") };
    assert_eq!((asked.expose(), key.expose()), (hash, "correct horse"));
    let no = |_: &AppName, _: &str| false;
    assert_eq!(gate.judge_hashed(&step2, &asked, false, &no, at(1)), Verdict::Refuse(Refusal::WrongKey));
    assert_eq!(gate.judge_hashed(&step2, &asked, true, &no, at(1)), granted("alice", 3_600));
    assert_eq!(gate.judge_hashed(&step2, &asked, true, &no, at(9)), Verdict::Refuse(Refusal::NoStep1));
    for user in [None, Some("bob".to_owned())] {
        let other = Attempt { user, ..two("correct horse") };
        assert_eq!(judge(&mut gate, &other, at(2)), Verdict::Refuse(Refusal::WrongKey));
        assert_eq!(gate.judge_hashed(&other, &asked, true, &no, at(2)), Verdict::Refuse(Refusal::WrongKey));
    }
}

#[test]
fn a_file_that_is_named_after_a_hashed_key_counts_once_the_key_is_known() {
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm+A2aXibz3GSvOOHAXUwm1P0Y";
    let users =
        format!("  users:\n    alice: {{access_key_http: alice-key-1, access_key_https: \"{hash}\"}}");
    let factor = |key: &str| TwoFactor {
        access_key: Secret::new(key.to_owned()),
        secret: TotpSecret::new(&[7; 20], TotpKind::default()).unwrap(),
    };
    let mut gate = gate_with(&users, SSH, &[factor("correct horse")]);
    let no = |_: &AppName, _: &str| false;
    let step2 = Attempt { user: Some("alice".to_owned()), ..two("correct horse") };
    for reloads in 0..2_u8 {
        assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
        let Verdict::Hash { hash: asked, .. } = judge(&mut gate, &step2, at(1)) else { panic!("no hash") };
        let asked_for = gate.judge_hashed(&step2, &asked, true, &no, at(1));
        assert!(!matches!(asked_for, Verdict::Grant { .. }), "{asked_for:?}");
        let files = [factor("correct horse")];
        assert_eq!(gate.reload(&settings(&users, SSH), &files, [4 + reloads; 16]), []);
    }
    // Known again, and then without its file.
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
    let hash = Secret::new(hash.to_owned());
    assert!(!matches!(gate.judge_hashed(&step2, &hash, true, &no, at(1)), Verdict::Grant { .. }));
    let gone = gate.reload(&settings(&users, SSH), &[factor("another horse")], [6; 16]);
    assert_eq!(gone, [NoCode { app: "ssh".parse().unwrap(), by: "alice".to_owned(), step: 2 }]);
}

#[test]
fn a_reload_tells_which_keys_need_no_code_any_more() {
    let secret = || TotpSecret::new(&[7; 20], TotpKind::default()).unwrap();
    let factor = |key: &str| TwoFactor { access_key: Secret::new(key.to_owned()), secret: secret() };
    let ssh = |keys: &str| {
        format!("ssh: {{port: 22, duration: 1h, access_key_http: [{keys}], access_key_https: other-of-ssh}}")
    };
    let both = ssh("first-of-ssh, second-of-ssh");
    let files = [factor("second-of-ssh"), factor("bobby-key-2")];
    let mut gate = gate_with(USERS, &both, &files);
    assert_eq!(gate.reload(&settings(USERS, &both), &files, [4; 16]), []);
    let gone = |by: &str, step| NoCode { app: "ssh".parse().unwrap(), by: by.to_owned(), step };
    // Another place is no other key, and a key that is no more has lost nothing.
    let turned = ssh("second-of-ssh, first-of-ssh");
    assert_eq!(gate.reload(&settings(USERS, &turned), &[], [5; 16]), [gone("key 2", 1), gone("bob", 2)]);
    let mut gate = gate_with(USERS, &both, &files);
    assert_eq!(gate.reload(&settings("", &ssh("first-of-ssh")), &[], [5; 16]), []);
}

#[test]
fn a_plain_key_beside_a_hashed_one_opens_with_the_users_name_and_without() {
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$lnizTRNgy0D3lJD4Xlm+A2aXibz3GSvOOHAXUwm1P0Y";
    let users = format!(
        "  users:\n    alice: {{access_key_http: alice-key-1, access_key_https: [\"{hash}\", alice-key-2]}}"
    );
    for user in [None, Some("alice".to_owned())] {
        let mut gate = gate(&users, SSH);
        assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
        let step2 = Attempt { user, ..two("alice-key-2") };
        assert_eq!(judge(&mut gate, &step2, at(1)), granted("alice", 3_600));
    }
}

#[test]
fn a_hash_that_is_replaced_and_a_lock_out_that_begins_while_a_key_is_compared_count() {
    let users = |hash: &str| {
        format!(
            "  lockout: {{after: 2}}\n  users:\n    alice: {{access_key_http: alice-key-1, access_key_https: \"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ${hash}\"}}"
        )
    };
    let no = |_: &AppName, _: &str| false;
    let step2 = Attempt { user: Some("alice".to_owned()), ..two("correct horse") };
    let begun = || {
        let mut gate = gate(&users("aaaa"), SSH);
        assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(0))));
        let Verdict::Hash { hash, .. } = judge(&mut gate, &step2, at(1)) else { panic!("no hash") };
        (gate, hash)
    };
    let (mut gate, hash) = begun();
    gate.reload(&settings(&users("bbbb"), SSH), &[], [4; 16]);
    assert!(ok(&judge(&mut gate, &one("alice-key-1"), at(1))));
    assert_eq!(gate.judge_hashed(&step2, &hash, true, &no, at(1)), Verdict::Refuse(Refusal::WrongKey));

    let (mut gate, hash) = begun();
    for key in ["a-wrong-key", "another-one"] {
        assert!(!ok(&judge(&mut gate, &two(key), at(1))));
    }
    assert_eq!(gate.judge_hashed(&step2, &hash, true, &no, at(1)), Verdict::Refuse(Refusal::LockedOut));
    assert_eq!(gate.judge_hashed(&step2, &hash, true, &no, at(61)), Verdict::Refuse(Refusal::NoStep1));
}

#[test]
fn a_code_of_somebody_who_is_disabled_and_enabled_stays_used() {
    let users = |disabled: bool| {
        format!(
            "  users:\n    alice: {{access_key_http: alice-key-1, access_key_https: alice-key-2, disabled: {disabled}, totp: {{secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}}}}"
        )
    };
    let mut gate = gate(&users(false), SSH);
    let code = TotpSecret::from_base32("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", TotpKind::default()).unwrap();
    let knock = Attempt { token: Some(code.code_at(at(0).wall)), ..one("alice-key-1") };
    assert!(ok(&judge(&mut gate, &knock, at(0))));
    gate.reload(&settings(&users(true), SSH), &[], [4; 16]);
    let used = gate.used_up();
    gate.reload(&settings(&users(false), SSH), &[], [5; 16]);
    assert_eq!(judge(&mut gate, &knock, at(2)), Verdict::Refuse(Refusal::ReplayedToken));
    let mut restarted = gate_with(&users(false), SSH, &[]);
    restarted.remember_used(&used, at(3));
    assert_eq!(judge(&mut restarted, &knock, at(3)), Verdict::Refuse(Refusal::ReplayedToken));
}
