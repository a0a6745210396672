use super::*;
use crate::config::{Destination, Established, Global, Step1Reply, TwoFactorStep};
use crate::units::{Automaton, Protocols};
use proptest::prelude::*;

const HTTP: [&str; 2] = ["http-key-zero", "http-key-one-longer"];
const HTTPS: [&str; 2] = ["https-key-zero", "https-key-one-longer"];

fn lifetime(secs: u64) -> Lifetime {
    Lifetime::from_secs(secs).unwrap()
}

fn app(name: &str, two_factor_step: TwoFactorStep) -> App {
    let name: AppName = name.parse().unwrap();
    let keys = |keys: [&str; 2]| {
        keys.iter().map(|key| format!("{key}-{}", name.as_str()).parse().unwrap()).collect()
    };
    App {
        slug: name.slug(),
        ports: Vec::new(),
        protocol: Protocols::Tcp,
        access_key_http: keys(HTTP),
        access_key_https: keys(HTTPS),
        destination: Destination::Local,
        duration: lifetime(3_600),
        max_duration: lifetime(3_600),
        step2_https_duration: lifetime(5),
        interface_ext: Vec::new(),
        interface_int: Vec::new(),
        established: Established::Cut,
        masquerade: true,
        once: false,
        allow: Vec::new(),
        two_factor_step,
        name,
    }
}

fn settings(two_factor_step: TwoFactorStep) -> Settings {
    Settings {
        global: Global {
            http_post_path: "/one".parse().unwrap(),
            path_rotation: None,
            step1_paths: vec!["/one".parse().unwrap()],
            https_post_path: "/two".parse().unwrap(),
            step1_2_rate_limit_per_minute: 20,
            interface_ext: Vec::new(),
            interface_int: Vec::new(),
            two_factor_folder: None,
            two_factor_step,
            token_window: lifetime(60),
            healthcheck_app_name: Some("health".to_owned()),
            users_folder: None,
            lockout: None,
            step1_proof: Step1Proof::Accept,
            steps: true,
            knock_log: crate::config::KnockLog::default(),
            step1_reply: Step1Reply::Silent,
            step1_max_bytes: 500,
            step1_segments: 3,
            mark: None,
            ipv6_prefix: 128,
            adopt_established: true,
            default_input: crate::config::DefaultInput::Accept,
            state_file: None,
            allow: Vec::new(),
            proxy: None,
        },
        apps: vec![app("a", two_factor_step), app("b", two_factor_step)],
        users: Vec::new(),
        sequences: Vec::new(),
        automaton: Automaton::default(),
        time_sequence: None,
        notify: crate::config::Notify::default(),
        metrics: crate::config::Metrics::default(),
    }
}

impl Gatekeeper {
    /// Judges where nobody is in yet.
    fn alone(&mut self, attempt: &Attempt, now: Now) -> Verdict {
        self.judge(attempt, &|_, _| false, now)
    }
}

fn totp() -> TotpSecret {
    TotpSecret::new(&[5; 20], TotpKind::default()).unwrap()
}

fn factor(key: &str) -> TwoFactor {
    TwoFactor { access_key: Secret::new(key.to_owned()), secret: totp() }
}

fn gatekeeper() -> Gatekeeper {
    Gatekeeper::new(&settings(TwoFactorStep::Http), &[], [1; 16])
}

fn attempt(step: Step, address: &str, app: &str, key: &str, token: Option<&Secret>) -> Attempt {
    Attempt {
        client: ClientAddr::new(address.parse().unwrap()),
        step,
        app: app.to_owned(),
        credential: Credential::Key(Secret::new(format!("{key}-{app}"))),
        user: None,
        token: token.cloned(),
        duration: None,
        action: Action::Open,
    }
}

fn one(app: &str) -> Attempt {
    attempt(Step::One, "192.0.2.1", app, HTTP[0], None)
}

fn two(app: &str) -> Attempt {
    attempt(Step::Two, "192.0.2.1", app, HTTPS[1], None)
}

fn at(secs: u64) -> Now {
    Now::at_secs(secs)
}

fn admitted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::AdmitToStep2 { .. })
}

fn granted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Grant { .. })
}

#[test]
fn both_steps_open_the_app_and_name_the_key() {
    let mut gate = gatekeeper();
    let name: AppName = "a".parse().unwrap();
    let admit = Verdict::AdmitToStep2 { app: name.clone(), lifetime: lifetime(5) };
    assert_eq!(gate.alone(&one("a"), at(0)), admit);
    assert!(gate.live_step1(one("a").client, &name, at(4)));
    let grant = Verdict::Grant { app: name, lifetime: lifetime(3_600), user: "key 2".to_owned() };
    assert_eq!(gate.alone(&two("a"), at(4)), grant);
    assert_eq!(gate.alone(&two("a"), at(4)), grant, "an answer that got lost can be asked for again");
}

#[test]
fn step_2_needs_a_live_step_1_of_this_address_and_app() {
    for (first, then, when) in [
        (None, two("a"), 0),
        (Some(one("b")), two("a"), 0),
        (Some(one("a")), two("a"), 5),
        (Some(attempt(Step::One, "192.0.2.2", "a", HTTP[0], None)), two("a"), 0),
        (Some(attempt(Step::One, "192.0.2.1", "a", HTTPS[0], None)), two("a"), 0),
        (Some(attempt(Step::Two, "192.0.2.1", "a", HTTP[0], None)), two("a"), 0),
    ] {
        let mut gate = gatekeeper();
        if let Some(first) = &first {
            let _ = gate.alone(first, at(0));
        }
        let verdict = gate.alone(&then, at(when));
        assert_eq!(verdict, Verdict::Refuse(Refusal::NoStep1), "{first:?} {when}");
    }
}

#[test]
fn the_key_of_one_step_or_app_is_no_key_of_another() {
    let mut gate = gatekeeper();
    assert!(admitted(&gate.alone(&one("a"), at(0))));
    for key in [HTTP[0], "https-key-zer", "https-key-zero0", ""] {
        let verdict = gate.alone(&attempt(Step::Two, "192.0.2.1", "a", key, None), at(0));
        assert_eq!(verdict, Verdict::Refuse(Refusal::WrongKey), "{key}");
    }
    let mut other = attempt(Step::One, "192.0.2.1", "b", HTTP[0], None);
    other.credential = Credential::Key(Secret::new(format!("{}-a", HTTP[0])));
    assert_eq!(gate.alone(&other, at(0)), Verdict::Refuse(Refusal::WrongKey));
    for unknown in ["c", "A", "a ", "healthy", "global"] {
        let verdict = gate.alone(&attempt(Step::One, "192.0.2.1", unknown, HTTP[0], None), at(0));
        assert_eq!(verdict, Verdict::Refuse(Refusal::UnknownApp), "{unknown}");
    }
}

#[test]
fn a_monitor_is_answered_at_both_steps_whatever_it_shows_and_opens_nothing() {
    let mut gate = gatekeeper();
    for step in [Step::One, Step::Two] {
        let mut asks = attempt(step, "192.0.2.1", "health", HTTP[0], None);
        assert_eq!(gate.alone(&asks, at(0)), Verdict::Alive);
        asks.app = "Health".to_owned();
        assert_eq!(gate.alone(&asks, at(0)), Verdict::Refuse(Refusal::UnknownApp));
    }
    assert_eq!(gate.next_expiry(), None, "nothing is pending");
    for _ in 0..100 {
        let _ = gate.alone(&attempt(Step::One, "192.0.2.1", "health", "x", None), at(0));
    }
    let asks = attempt(Step::One, "192.0.2.1", "health", "x", None);
    assert_eq!(gate.alone(&asks, at(0)), Verdict::Refuse(Refusal::TooMany), "it is counted as others are");
}

#[test]
fn a_request_repeated_with_its_code_is_free_and_prolongs_nothing() {
    let key = format!("{}-a", HTTP[0]);
    let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Http), &[factor(&key)], [1; 16]);
    let code = totp().code_at(at(0).wall);
    let knock = attempt(Step::One, "192.0.2.1", "a", HTTP[0], Some(&code));
    for _ in 0..100 {
        assert!(admitted(&gate.alone(&knock, at(0))));
    }
    let name: AppName = "a".parse().unwrap();
    let rest = Verdict::AdmitToStep2 { app: name, lifetime: lifetime(2) };
    assert_eq!(gate.alone(&knock, at(3)), rest);
    assert_eq!(gate.alone(&two("a"), at(5)), Verdict::Refuse(Refusal::NoStep1));
}

#[test]
fn a_request_repeated_without_a_code_is_a_fresh_knock() {
    let mut gate = gatekeeper();
    let name: AppName = "a".parse().unwrap();
    let whole = Verdict::AdmitToStep2 { app: name, lifetime: lifetime(5) };
    assert_eq!(gate.alone(&one("a"), at(0)), whole);
    assert_eq!(gate.alone(&one("a"), at(3)), whole);
    assert!(granted(&gate.alone(&two("a"), at(7))));
    assert_eq!(gate.alone(&two("a"), at(8)), Verdict::Refuse(Refusal::NoStep1));
    let tried = (0..100).filter(|_| admitted(&gate.alone(&one("a"), at(9)))).count();
    assert!(tried < 20, "it counts like any other request");
}

#[test]
fn each_step_has_the_rate_limit_of_an_address_to_itself() {
    let mut settings = settings(TwoFactorStep::Http);
    settings.global.step1_2_rate_limit_per_minute = 1;
    let mut gate = Gatekeeper::new(&settings, &[], [1; 16]);
    assert!(admitted(&gate.alone(&one("a"), at(0))));
    assert_eq!(gate.alone(&one("b"), at(0)), Verdict::Refuse(Refusal::TooMany));
    assert!(granted(&gate.alone(&two("a"), at(0))));
    assert_eq!(gate.alone(&two("a"), at(0)), Verdict::Refuse(Refusal::TooMany));
    assert!(admitted(&gate.alone(&attempt(Step::One, "192.0.2.2", "a", HTTP[0], None), at(0))));
}

#[test]
fn a_code_at_step_1_is_needed_right_and_good_once() {
    let key = format!("{}-a", HTTP[0]);
    let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Http), &[factor(&key)], [1; 16]);
    let (now, later) = (at(0), at(6));
    let code = totp().code_at(now.wall);
    let wrong = Secret::new(if code.expose() == "000000" { "000001" } else { "000000" }.to_owned());
    let knock = |code: Option<&Secret>| attempt(Step::One, "192.0.2.1", "a", HTTP[0], code);

    assert_eq!(gate.alone(&knock(None), now), Verdict::Refuse(Refusal::MissingToken));
    assert_eq!(gate.alone(&knock(Some(&wrong)), now), Verdict::Refuse(Refusal::WrongToken));
    assert!(admitted(&gate.alone(&knock(Some(&code)), now)));
    assert!(admitted(&gate.alone(&knock(Some(&code)), now)), "the same again is a retransmission");
    assert!(granted(&gate.alone(&two("a"), now)), "step 2 asks for none");
    let elsewhere = attempt(Step::One, "192.0.2.9", "a", HTTP[0], Some(&code));
    assert_eq!(gate.alone(&elsewhere, now), Verdict::Refuse(Refusal::ReplayedToken));
    assert_eq!(gate.alone(&knock(Some(&code)), later), Verdict::Refuse(Refusal::ReplayedToken));
    let unprotected = attempt(Step::One, "192.0.2.1", "a", HTTP[1], None);
    assert!(admitted(&gate.alone(&unprotected, later)));
}

#[test]
fn a_code_at_step_2_is_asked_for_with_time_to_type_it_once() {
    for protected in [HTTP[0], HTTPS[1]] {
        let key = format!("{protected}-a");
        let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Https), &[factor(&key)], [1; 16]);
        let with_code = |code: &Secret| attempt(Step::Two, "192.0.2.1", "a", HTTPS[1], Some(code));
        assert!(admitted(&gate.alone(&one("a"), at(0))), "step 1 asks for none");
        let first = Verdict::NeedToken { readmit: Some(lifetime(60)) };
        assert_eq!(gate.alone(&two("a"), at(4)), first);
        assert_eq!(gate.alone(&two("a"), at(50)), Verdict::NeedToken { readmit: None });
        let code = totp().code_at(at(50).wall);
        let old = totp().code_at(at(50).wall - Duration::from_secs(90));
        assert_eq!(gate.alone(&with_code(&old), at(50)), Verdict::Refuse(Refusal::WrongToken));
        assert!(granted(&gate.alone(&with_code(&code), at(50))));
        assert_eq!(gate.alone(&with_code(&code), at(50)), Verdict::Refuse(Refusal::ReplayedToken));
        assert_eq!(gate.alone(&two("a"), at(64)), Verdict::Refuse(Refusal::NoStep1));
    }
}

#[test]
fn a_key_of_step_2_with_a_secret_of_its_own_needs_a_code_although_step_1_asks_for_codes() {
    let [first, second] = [HTTP[0], HTTPS[1]].map(|key| factor(&format!("{key}-a")));
    let own = TwoFactor { secret: TotpSecret::new(&[6; 20], TotpKind::default()).unwrap(), ..second.clone() };
    let (code, own_code) = (totp().code_at(at(0).wall), own.secret.code_at(at(0).wall));
    let step1 = |code: Option<&Secret>| attempt(Step::One, "192.0.2.1", "a", HTTP[0], code);
    let step2 = |code: &Secret| attempt(Step::Two, "192.0.2.1", "a", HTTPS[1], Some(code));

    let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Http), std::slice::from_ref(&own), [1; 16]);
    assert!(admitted(&gate.alone(&step1(None), at(0))), "the key of step 1 has none");
    assert_eq!(gate.alone(&two("a"), at(0)), Verdict::NeedToken { readmit: Some(lifetime(60)) });
    assert_eq!(gate.alone(&step2(&code), at(0)), Verdict::Refuse(Refusal::WrongToken));
    assert!(granted(&gate.alone(&step2(&own_code), at(0))));

    let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Http), &[first.clone(), own], [1; 16]);
    assert!(admitted(&gate.alone(&step1(Some(&code)), at(0))));
    assert!(matches!(gate.alone(&two("a"), at(0)), Verdict::NeedToken { .. }), "another secret");
    assert!(granted(&gate.alone(&step2(&own_code), at(0))));

    let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Http), &[first, second], [1; 16]);
    assert!(admitted(&gate.alone(&step1(Some(&code)), at(0))));
    assert!(granted(&gate.alone(&two("a"), at(0))), "the same secret was asked for at step 1");
    // A neighbour's step 1 proves nothing for this one's.
    assert!(admitted(&gate.alone(&attempt(Step::One, "192.0.2.1", "a", HTTP[1], None), at(10))));
    assert!(matches!(gate.alone(&two("a"), at(10)), Verdict::NeedToken { .. }));
}

#[test]
fn one_code_does_not_serve_both_steps() {
    let key = format!("{}-a", HTTP[0]);
    let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Both), &[factor(&key)], [1; 16]);
    let code = totp().code_at(at(0).wall);
    assert!(admitted(&gate.alone(&attempt(Step::One, "192.0.2.1", "a", HTTP[0], Some(&code)), at(0))));
    let second = |code: &Secret| attempt(Step::Two, "192.0.2.1", "a", HTTPS[0], Some(code));
    assert_eq!(gate.alone(&second(&code), at(0)), Verdict::Refuse(Refusal::ReplayedToken));
    assert!(granted(&gate.alone(&second(&totp().code_at(at(30).wall)), at(1))));
}

#[test]
fn a_reload_keeps_used_codes_and_the_rate_and_forgets_step_1s() {
    let key = format!("{}-a", HTTP[0]);
    let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Http), &[factor(&key)], [1; 16]);
    let code = totp().code_at(at(0).wall);
    let knock = attempt(Step::One, "192.0.2.1", "a", HTTP[0], Some(&code));
    assert!(admitted(&gate.alone(&knock, at(0))));
    gate.reload(&settings(TwoFactorStep::Http), &[factor(&key)], [2; 16]);
    assert_eq!(gate.alone(&two("a"), at(0)), Verdict::Refuse(Refusal::NoStep1));
    assert_eq!(gate.alone(&knock, at(0)), Verdict::Refuse(Refusal::ReplayedToken));
    for _ in 0..19 {
        let _ = gate.alone(&two("a"), at(0));
    }
    assert_eq!(gate.alone(&two("a"), at(0)), Verdict::Refuse(Refusal::TooMany));
}

#[test]
fn a_reload_that_replaces_a_key_makes_no_used_code_good_again() {
    let key = |number: usize| format!("{}-a", HTTP[number]);
    let mut gate = Gatekeeper::new(&settings(TwoFactorStep::Http), &[factor(&key(0))], [1; 16]);
    let code = totp().code_at(at(0).wall);
    assert!(admitted(&gate.alone(&attempt(Step::One, "192.0.2.1", "a", HTTP[0], Some(&code)), at(0))));
    gate.reload(&settings(TwoFactorStep::Http), &[factor(&key(1))], [2; 16]);
    let again = attempt(Step::One, "192.0.2.1", "a", HTTP[1], Some(&code));
    assert_eq!(gate.alone(&again, at(0)), Verdict::Refuse(Refusal::ReplayedToken));
}

#[test]
fn an_address_of_the_wrong_family_opens_nothing() {
    let mut settings = settings(TwoFactorStep::Http);
    settings.apps[0].destination = Destination::Host("192.168.1.1".parse().unwrap());
    let mut gate = Gatekeeper::new(&settings, &[], [1; 16]);
    let v6 = attempt(Step::One, "2001:db8::1", "a", HTTP[0], None);
    assert_eq!(gate.alone(&v6, at(0)), Verdict::Refuse(Refusal::WrongFamily));
    assert!(admitted(&gate.alone(&one("a"), at(0))));
}

#[test]
fn a_link_local_address_is_let_in_only_where_a_grant_is_for_one_address() {
    for prefix in [128, 127, 64, 32] {
        let mut settings = settings(TwoFactorStep::Http);
        settings.global.ipv6_prefix = prefix;
        let mut gate = Gatekeeper::new(&settings, &[], [1; 16]);
        let knock = gate.alone(&attempt(Step::One, "fe80::1:2", "a", HTTP[0], None), at(0));
        if prefix == 128 {
            assert!(admitted(&knock));
        } else {
            assert_eq!(knock, Verdict::Refuse(Refusal::LinkLocal), "{prefix}");
        }
        assert!(admitted(&gate.alone(&attempt(Step::One, "2001:db8::1", "a", HTTP[0], None), at(0))));
    }
}

#[test]
fn ipv6_step_1_is_for_one_address_unless_the_prefix_is_widened() {
    for (prefix, opens) in [(128, false), (64, true)] {
        let mut settings = settings(TwoFactorStep::Http);
        settings.global.ipv6_prefix = prefix;
        let mut gate = Gatekeeper::new(&settings, &[], [1; 16]);
        assert!(admitted(&gate.alone(&attempt(Step::One, "2001:db8::1", "a", HTTP[0], None), at(0))));
        let verdict = gate.alone(&attempt(Step::Two, "2001:db8::2", "a", HTTPS[0], None), at(0));
        assert_eq!(granted(&verdict), opens, "{prefix}");
    }
}

#[test]
fn what_the_kernel_refused_is_forgotten() {
    let mut gate = gatekeeper();
    assert!(admitted(&gate.alone(&one("a"), at(0))));
    assert_eq!(gate.next_expiry(), Some(Duration::from_secs(5)));
    gate.forget(one("a").client, &"a".parse().unwrap());
    assert_eq!(gate.next_expiry(), None);
    assert_eq!(gate.alone(&two("a"), at(0)), Verdict::Refuse(Refusal::NoStep1));
}

proptest! {
    /// A model that knows only the law: a grant follows a right step 1 of the same address and app, in time.
    #[test]
    fn nothing_is_granted_without_a_live_step_1_and_the_right_key(
        ops in proptest::collection::vec((0_u64..4, any::<bool>(), 0_u8..3, 0_usize..3, 0_usize..4), 1..120),
    ) {
        let mut settings = settings(TwoFactorStep::Http);
        settings.global.step1_2_rate_limit_per_minute = 1_000;
        let mut gate = Gatekeeper::new(&settings, &[], [1; 16]);
        let mut until: BTreeMap<(u8, usize), u64> = BTreeMap::new();
        let mut now = 0;
        for (pass, second, who, app, key) in ops {
            now += pass;
            let name = ["a", "b", "c"][app];
            let text = [HTTP[0], HTTP[1], HTTPS[0], HTTPS[1]][key];
            let step = if second { Step::Two } else { Step::One };
            let verdict = gate.alone(&attempt(step, &format!("192.0.2.{who}"), name, text, None), at(now));
            if second {
                let live = until.get(&(who, app)).is_some_and(|&end| now < end);
                prop_assert_eq!(granted(&verdict), live && key >= 2, "{:?}", verdict);
            } else {
                let right = app < 2 && key < 2;
                prop_assert_eq!(admitted(&verdict), right, "{:?}", verdict);
                if right {
                    until.insert((who, app), now + 5);
                }
            }
        }
    }
}

#[test]
fn keys_that_share_a_secret_share_its_used_codes_across_a_restart_too() {
    let http = |app: &str| format!("{}-{app}", HTTP[0]);
    let start = || {
        let factors = vec![factor(&http("a")), factor(&http("b"))];
        Gatekeeper::new(&settings(TwoFactorStep::Http), &factors, [7; 16])
    };
    let now = Now::at_secs(100);
    let attempt = |app: &str, n: u8| Attempt {
        client: ClientAddr::new([192, 0, 2, n].into()),
        step: Step::One,
        app: app.to_owned(),
        credential: Credential::Key(Secret::new(http(app))),
        user: None,
        duration: None,
        action: Action::Open,
        token: Some(totp().code_at(now.wall)),
    };
    let mut before = start();
    assert!(matches!(before.alone(&attempt("a", 1), now), Verdict::AdmitToStep2 { .. }));
    assert!(before.take_used());
    assert_eq!(before.alone(&attempt("b", 2), now), Verdict::Refuse(Refusal::ReplayedToken));
    let mut after = start();
    after.remember_used(&before.used_up(), now);
    for (app, n) in [("a", 3), ("b", 4)] {
        assert_eq!(after.alone(&attempt(app, n), now), Verdict::Refuse(Refusal::ReplayedToken), "{app}");
    }
    let mut in_doubt = start();
    in_doubt.refuse_present(now);
    assert_eq!(in_doubt.alone(&attempt("a", 5), now), Verdict::Refuse(Refusal::ReplayedToken));
    // After a reboot with a calendar that is behind, and the next restart.
    let (mut behind, mut again) = (start(), start());
    behind.refuse_until(Some(now.wall));
    again.remember_used(&behind.used_up(), now);
    assert!(behind.used_up().refused_until.is_some());
    for gate in [&mut behind, &mut again] {
        assert_eq!(gate.alone(&attempt("a", 6), now), Verdict::Refuse(Refusal::ReplayedToken));
    }
}

#[test]
fn a_doubt_is_of_one_moment_whatever_the_calendar_says_then_and_later() {
    let key = format!("{}-a", HTTP[0]);
    let at_code =
        |at: Now, client: &str| attempt(Step::One, client, "a", HTTP[0], Some(&totp().code_at(at.wall)));
    let start = || Gatekeeper::new(&settings(TwoFactorStep::Http), &[factor(&key)], [7; 16]);
    let refused = Verdict::Refuse(Refusal::ReplayedToken);
    // Whatever the calendar said at the start, it is right ten seconds later.
    for wrong in [0, 3_600, 700_000_000] {
        for ahead in [true, false] {
            let (boot, right) = (Duration::from_secs(5), Now::at_secs(1_000).wall);
            let off = Duration::from_secs(wrong);
            let wall = if ahead { right + off } else { right - off };
            let mut first = start();
            first.refuse_present(Now { boot, wall });
            let later = |secs| Now {
                boot: boot + Duration::from_secs(secs),
                wall: right + Duration::from_secs(secs),
            };
            let mut restarted = start();
            restarted.remember_used(&first.used_up(), later(10));
            for gate in [&mut first, &mut restarted] {
                assert_eq!(
                    gate.alone(&at_code(later(0), "192.0.2.1"), later(10)),
                    refused,
                    "{wrong} {ahead}"
                );
                let fresh = gate.alone(&at_code(later(60), "192.0.2.2"), later(60));
                assert!(matches!(fresh, Verdict::AdmitToStep2 { .. }), "{wrong} {ahead}: {fresh:?}");
            }
        }
    }
}
