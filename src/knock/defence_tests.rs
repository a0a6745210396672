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

fn knock(gate: &mut Gatekeeper, step: Step, client: &str, key: &str, secs: u64) -> Verdict {
    let attempt = Attempt {
        client: ClientAddr::new(client.parse().unwrap()),
        step,
        app: "ssh".to_owned(),
        credential: Credential::Key(Secret::new(key.to_owned())),
        user: None,
        token: None,
        duration: None,
        action: Action::Open,
    };
    gate.judge(&attempt, &|_, _| false, Now::at_secs(secs))
}

const RULE: &str = "{after: 3, first: 1m, longest: 1h}";
const WRONG: Verdict = Verdict::Refuse(Refusal::WrongKey);
const LOCKED: Verdict = Verdict::Refuse(Refusal::LockedOut);

fn fail(gate: &mut Gatekeeper, client: &str, times: usize, secs: u64) {
    for n in 0..times {
        assert_eq!(knock(gate, Step::One, client, &format!("a-wrong-key-{n}"), secs), WRONG);
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
