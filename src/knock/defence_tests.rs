//! Lock-outs and the cap, as the gatekeeper applies them.

use super::*;
use crate::config::{Alone, parse};

fn settings(lockout: &str) -> Settings {
    let text = format!(
        "global:\n  interface_ext: eth0\n  http_post_path: /one-place\n  https_post_path: /two-place\n  \
         step1_2_rate_limit_per_minute: 1000\n  lockout: {lockout}\nssh: {{port: 22, duration: 1h, \
         access_key_http: first-key-1, access_key_https: second-key-2}}\n"
    );
    parse("test", &text, None, &Alone).unwrap_or_else(|p| panic!("{p}\n{text}")).settings
}

fn attempt(step: Step, client: &str, key: &str) -> Attempt {
    Attempt {
        client: ClientAddr::new(client.parse().unwrap()),
        step,
        app: "ssh".to_owned(),
        credential: Credential::Key(Secret::new(key.to_owned())),
        user: None,
        token: None,
        duration: None,
        action: Action::Open,
    }
}

fn knock(gate: &mut Gatekeeper, step: Step, client: &str, key: &str, secs: u64) -> Verdict {
    gate.judge(&attempt(step, client, key), &|_, _| false, Now::at_secs(secs))
}

const RULE: &str = "{after: 3, first: 1m, longest: 1h}";
const WRONG: Verdict = Verdict::Refuse(Refusal::WrongKey);
const LOCKED: Verdict = Verdict::Refuse(Refusal::LockedOut);

fn fail(gate: &mut Gatekeeper, client: &str, times: usize, secs: u64) {
    for n in 0..times {
        assert_eq!(knock(gate, Step::One, client, &format!("a-wrong-key-{n}"), secs), WRONG);
    }
}

/// More strangers than are judged in a second.
fn crowd(gate: &mut Gatekeeper, secs: u64) {
    for n in 0..1_000_u32 {
        let client = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        let _ = knock(gate, Step::One, &client, "a-wrong-key", secs);
    }
}

fn admitted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::AdmitToStep2 { .. })
}

#[test]
fn within_a_lock_out_the_right_key_opens_nothing_either_and_a_reload_lifts_none() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    fail(&mut gate, "192.0.2.1", 3, 10);
    assert_eq!(gate.defence_mut().take_begun(), Some(Duration::from_secs(60)));
    assert_eq!(gate.defence_mut().take_begun(), None);
    for key in ["a-wrong-key", "first-key-1"] {
        assert_eq!(knock(&mut gate, Step::One, "192.0.2.1", key, 11), LOCKED);
    }
    assert!(admitted(&knock(&mut gate, Step::One, "192.0.2.2", "first-key-1", 11)));
    gate.reload(&settings(RULE), &[], [4; 16]);
    assert_eq!(knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 69), LOCKED);
    assert_eq!(gate.defence().locked_out(Duration::from_secs(69)).len(), 1);
    assert!(admitted(&knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 70)));
}

#[test]
fn a_lock_out_between_the_steps_keeps_step_2_from_opening() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    assert!(admitted(&knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 0)));
    for key in ["a-wrong-key", "another-one", "a-wrong-key"] {
        assert_eq!(knock(&mut gate, Step::Two, "192.0.2.1", key, 1), WRONG);
    }
    assert_eq!(knock(&mut gate, Step::Two, "192.0.2.1", "second-key-2", 2), LOCKED);
}

#[test]
fn only_a_whole_knock_wipes_failures_out_and_a_step_1_does_not() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    fail(&mut gate, "192.0.2.1", 2, 0);
    assert!(admitted(&knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 0)));
    assert!(matches!(knock(&mut gate, Step::Two, "192.0.2.1", "second-key-2", 0), Verdict::Grant { .. }));
    fail(&mut gate, "192.0.2.1", 2, 0);
    assert!(admitted(&knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 0)));
    fail(&mut gate, "192.0.2.1", 1, 0);
    assert_eq!(knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 1), LOCKED);
}

#[test]
fn a_wrong_request_that_is_repeated_counts_once_a_minute_and_not_for_the_other_step() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    for secs in [0, 1, 3, 7, 59] {
        assert_eq!(knock(&mut gate, Step::One, "192.0.2.1", "a-wrong-key", secs), WRONG);
    }
    assert_eq!(knock(&mut gate, Step::Two, "192.0.2.1", "a-wrong-key", 59), WRONG);
    gate.reload(&settings(RULE), &[], [3; 16]);
    assert_eq!(gate.defence().locked_out(Duration::from_secs(59)), []);
    assert_eq!(knock(&mut gate, Step::Two, "192.0.2.1", "a-wrong-key", 60), WRONG);
    assert_eq!(gate.defence().locked_out(Duration::from_secs(60)).len(), 1, "what it is known by changed");
}

#[test]
fn nothing_but_guesses_leads_to_a_lock_out() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    for _ in 0..9 {
        let verdict = knock(&mut gate, Step::Two, "192.0.2.1", "second-key-2", 0);
        assert_eq!(verdict, Verdict::Refuse(Refusal::NoStep1));
    }
    assert_eq!(gate.defence().locked_out(Duration::ZERO), []);
    let mut off = Gatekeeper::new(&settings("off"), &[], [3; 16]);
    fail(&mut off, "192.0.2.1", 30, 0);
}

#[test]
fn a_flood_of_strangers_is_bounded_and_leaves_room_for_those_who_got_in_before() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    let knower = "192.0.2.1";
    assert!(admitted(&knock(&mut gate, Step::One, knower, "first-key-1", 0)));
    assert!(matches!(knock(&mut gate, Step::Two, knower, "second-key-2", 0), Verdict::Grant { .. }));
    let later = 3_600;
    let mut judged = 0;
    for n in 0..1_000_u32 {
        let client = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        match knock(&mut gate, Step::One, &client, "a-wrong-key", later) {
            WRONG => judged += 1,
            verdict => assert_eq!(verdict, Verdict::Refuse(Refusal::Busy)),
        }
    }
    assert_eq!(judged, 150);
    assert!(admitted(&knock(&mut gate, Step::One, knower, "first-key-1", later)));
    assert!(admitted(&knock(&mut gate, Step::One, "10.0.0.9", "first-key-1", later + 1)));
}

#[test]
fn who_repeats_a_right_step_1_from_many_addresses_leaves_room_for_those_who_got_in_before() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    let knower = "192.0.2.1";
    assert!(goes_in(&mut gate, knower, 0));
    for secs in 3_600..3_610 {
        // Each address again and again, while its step 1 is live; some of them go on to step 2, with a wrong key.
        let mut judged = 0;
        for n in 0..2_000_u32 {
            let first = knock(&mut gate, Step::One, &of_a_network(n % 500), "first-key-1", secs);
            let second = knock(&mut gate, Step::Two, &of_a_network(n % 500), "a-wrong-key", secs);
            judged += usize::from(admitted(&first)) + usize::from(second == WRONG);
        }
        assert!(judged <= 200, "{judged}");
        assert!(goes_in(&mut gate, knower, secs), "{secs}");
    }
}

#[test]
fn a_live_step_1_has_a_share_for_step_2_that_strangers_do_not_use_up() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    assert!(admitted(&knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 0)));
    crowd(&mut gate, 0);
    assert!(matches!(knock(&mut gate, Step::Two, "192.0.2.1", "second-key-2", 0), Verdict::Grant { .. }));
}

#[test]
fn what_is_put_off_because_of_others_takes_nothing_of_the_clients_own_rate() {
    let mut settings = settings(RULE);
    settings.global.step1_2_rate_limit_per_minute = 2;
    let mut gate = Gatekeeper::new(&settings, &[], [3; 16]);
    crowd(&mut gate, 0);
    for _ in 0..9 {
        let verdict = knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 0);
        assert_eq!(verdict, Verdict::Refuse(Refusal::Busy));
    }
    assert!(admitted(&knock(&mut gate, Step::One, "192.0.2.1", "first-key-1", 1)));
}

/// An address of a network of IPv6 that one customer may have.
fn of_a_network(n: u32) -> String {
    format!("2001:db8:f:{n:x}::7")
}

/// Both steps, at the same moment.
fn goes_in(gate: &mut Gatekeeper, client: &str, secs: u64) -> bool {
    admitted(&knock(gate, Step::One, client, "first-key-1", secs))
        && matches!(knock(gate, Step::Two, client, "second-key-2", secs), Verdict::Grant { .. })
}

#[test]
fn a_whole_network_that_guesses_keeps_out_neither_those_who_got_in_nor_those_who_come_for_the_first_time() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    let known = |n: u64| format!("2001:db8:e:{n:x}::7");
    for n in 0..60 {
        assert!(goes_in(&mut gate, &known(n), n));
    }
    let mut judged = 0;
    for n in 0..65_000_u32 {
        // 500 a second, until the table of rates would be full, and on.
        let secs = 1_000 + u64::from(n / 500);
        judged += usize::from(knock(&mut gate, Step::One, &of_a_network(n), "a-wrong-key", secs) == WRONG);
        if n % 1_000 == 999 {
            let turn = secs / 2 % 60;
            assert!(goes_in(&mut gate, &known(turn), secs), "known, {secs}");
            for newcomer in [format!("2001:db8:d:{secs:x}::7"), format!("198.51.100.{turn}")] {
                assert!(goes_in(&mut gate, &newcomer, secs), "{newcomer}, {secs}");
            }
        }
    }
    assert!(judged <= 130 * 50 + 200, "{judged} wrong keys were judged");
}

#[test]
fn a_whole_network_with_a_right_step_1_keeps_out_nobody_either() {
    let mut gate = Gatekeeper::new(&settings(RULE), &[], [3; 16]);
    for n in 0..30_000_u32 {
        let secs = 1_000 + u64::from(n / 500);
        let _ = knock(&mut gate, Step::One, &of_a_network(n), "first-key-1", secs);
        let _ = knock(&mut gate, Step::Two, &of_a_network(n), "a-wrong-key", secs);
        if n % 1_000 == 999 {
            for newcomer in [format!("2001:db8:d:{secs:x}::7"), format!("198.51.100.{}", secs % 200)] {
                assert!(goes_in(&mut gate, &newcomer, secs), "{newcomer}, {secs}");
            }
        }
    }
    // Who is of that network has a chance when it is quiet, and the network a fresh start then.
    assert!(goes_in(&mut gate, &of_a_network(65_000), 1_100));
}

/// Alice has a key at step 1 that is compared slowly, bob has none.
fn with_a_slow_key() -> Gatekeeper {
    let users = format!(
        "{RULE}\n  users:\n    alice: {{access_key_http: \"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aaaa\", \
         access_key_https: alice-key-2}}\n    bob: {{access_key_http: bob-key-001, access_key_https: bob-key-002}}"
    );
    Gatekeeper::new(&settings(&users), &[], [3; 16])
}

/// A try at alice's slow key, compared at once; whether it was compared at all.
fn compared(gate: &mut Gatekeeper, client: &str, fits: bool, secs: u64) -> bool {
    let (now, no) = (Now::at_secs(secs), |_: &AppName, _: &str| false);
    let key = Credential::Key(Secret::new("correct horse".to_owned()));
    let attempt =
        Attempt { user: Some("alice".to_owned()), credential: key, ..attempt(Step::One, client, "") };
    match gate.judge(&attempt, &no, now) {
        Verdict::Hash { hash, .. } => {
            assert_eq!(admitted(&gate.judge_hashed(&attempt, &hash, fits, &no, now)), fits);
            true
        }
        verdict => {
            assert!(matches!(verdict, Verdict::Refuse(Refusal::Busy | Refusal::LockedOut)), "{verdict:?}");
            false
        }
    }
}

fn alice_gets_in(gate: &mut Gatekeeper, client: &str, secs: u64) -> bool {
    compared(gate, client, true, secs)
        && matches!(knock(gate, Step::Two, client, "alice-key-2", secs), Verdict::Grant { .. })
}

#[test]
fn guesses_of_a_whole_network_at_a_slow_key_leave_comparisons_for_others() {
    let mut gate = with_a_slow_key();
    assert!(alice_gets_in(&mut gate, "192.0.2.1", 0));
    for secs in 1_000..1_100_u32 {
        let mut made = 0;
        for n in 0..60 {
            let client = of_a_network(secs * 60 % 30_000 + n);
            // Also with a right step 1 of somebody else, which is seen where it is plain.
            if n % 2 == 0 {
                let _ = knock(&mut gate, Step::One, &client, "bob-key-001", secs.into());
            }
            made += u32::from(compared(&mut gate, &client, false, secs.into()));
        }
        assert!(made <= 4, "{made}");
        assert!(alice_gets_in(&mut gate, "192.0.2.1", secs.into()), "known, {secs}");
        // Until a hundred of the network were judged, which is soon, they compete.
        if secs >= 1_030 {
            assert!(alice_gets_in(&mut gate, &format!("198.51.100.{}", secs - 1_000), secs.into()), "{secs}");
        }
    }
}

#[test]
fn who_got_in_himself_has_no_more_guesses_at_a_slow_key_of_somebody_else() {
    let mut gate = with_a_slow_key();
    for n in 0..40 {
        let client = format!("198.51.100.{n}");
        assert!(admitted(&knock(&mut gate, Step::One, &client, "bob-key-001", n)));
        let second = knock(&mut gate, Step::Two, &client, "bob-key-002", n);
        assert!(matches!(second, Verdict::Grant { .. }), "{second:?}");
    }
    let made = (0..40).filter(|n| compared(&mut gate, &format!("198.51.100.{n}"), false, 50)).count();
    assert!(made <= 4, "{made}");
}
