//! How long right and wrong keys take, over thousands of interleaved tries: measured by hand, on a quiet machine.
//!
//! `cargo test --test integration -- --ignored key_timing --nocapture --test-threads=1`; figures of one run are in
//! `docs/decisions/0039-what-time-tells.md`.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use knock_agent::config;
use knock_agent::knock::{Action, Attempt, Claim, Credential, Gatekeeper, Proof, Step};
use knock_agent::units::{ClientAddr, Now, Secret, Verifier};

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::knocking::{STEP1_PORT, STEP2_PORT};
use crate::topology::{Family, Topology};

/// Above this, the two differ for certain; the bound that dudect uses.
const CERTAIN: f64 = 4.5;

/// Times of one kind of try, in nanoseconds.
struct Kind {
    name: String,
    times: Vec<f64>,
}

impl Kind {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), times: Vec::new() }
    }
}

/// One line for each kind, each compared with the kind that is named.
fn report(title: &str, kinds: &mut [Kind], pairs: &[(&str, &str)]) -> String {
    let mut out =
        format!("{title}\n{:<32}{:>7}{:>10}{:>10}{:>10}  (us)\n", "", "tries", "25 %", "median", "75 %");
    for kind in kinds.iter_mut() {
        kind.times.sort_by(f64::total_cmp);
        let at = |part: f64| quantile(&kind.times, part) / 1_000.0;
        let (name, count) = (&kind.name, kind.times.len());
        writeln!(out, "{name:<32}{count:>7}{:>10.2}{:>10.2}{:>10.2}", at(0.25), at(0.5), at(0.75)).unwrap();
    }
    let find = |name: &str| &kinds.iter().find(|kind| kind.name == name).unwrap().times;
    for (one, other) in pairs {
        let (a, b) = (find(one), find(other));
        let ratio = quantile(a, 0.5) / quantile(b, 0.5);
        let t = welch(a, b);
        let verdict = if t.abs() > CERTAIN { "differ" } else { "not told apart" };
        writeln!(out, "{one} / {other}: medians {ratio:.3}, t {t:.1}, {verdict}").unwrap();
    }
    out
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// Welch's t of the tries below the ninth decile of both together: what is above is the machine's noise.
fn welch(a: &[f64], b: &[f64]) -> f64 {
    let mut all = [a, b].concat();
    all.sort_by(f64::total_cmp);
    let bound = quantile(&all, 0.9);
    let of = |times: &[f64]| {
        let kept: Vec<f64> = times.iter().copied().filter(|time| *time <= bound).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((one, spread), (other, spread_of_other)) = (of(a), of(b));
    (one - other) / (spread + spread_of_other).sqrt()
}

#[test]
fn the_statistic_tells_a_shift_from_noise() {
    let noise = |shift: f64| {
        (0..2_000_u32).map(|n| f64::from(n.wrapping_mul(2_654_435_761) % 1_000) + shift).collect()
    };
    let (base, same, later): (Vec<f64>, Vec<f64>, Vec<f64>) = (noise(0.0), noise(3.0), noise(80.0));
    assert!(welch(&base, &same).abs() < CERTAIN);
    assert!(welch(&base, &later).abs() > CERTAIN);
}

/// Numbers that follow no pattern which a processor could learn.
struct Shuffle(u64);

impl Shuffle {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

const ID: &str = "abcdefgh";

const DIGITS: &[u8] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A kind of key that is presented: its name, the key, and the app it is for.
type Presented = (&'static str, String, &'static str);

/// The right key and wrong ones, new ones at each call: of a fixed one the place of its digest would be measured, which
/// tells nothing.
fn keys(right: &str, shuffle: &mut Shuffle) -> Vec<Presented> {
    let (id, secret) = right.split_once('.').unwrap();
    let mut text = |length: usize, not: u8| -> String {
        let mut digit = || DIGITS[shuffle.below(DIGITS.len())];
        // Its first digit is certainly wrong.
        let first = std::iter::repeat_with(&mut digit).find(|digit| *digit != not).unwrap();
        let mut out = vec![first];
        out.extend(std::iter::repeat_with(digit).take(length - 1));
        String::from_utf8(out).unwrap()
    };
    let near = &right[..right.len() - 4];
    let next = right.as_bytes()[right.len() - 4];
    vec![
        ("right", right.to_owned(), "a"),
        ("wrong in its last four", format!("{near}{}", text(4, next)), "a"),
        (
            "wrong from the first on",
            format!("{}.{}", text(id.len(), id.as_bytes()[0]), text(secret.len(), secret.as_bytes()[0])),
            "a",
        ),
        ("right id, wrong secret", format!("{id}.{}", text(secret.len(), secret.as_bytes()[0])), "a"),
        ("unknown id, right secret", format!("{}.{secret}", text(id.len(), id.as_bytes()[0])), "a"),
        ("unknown app", format!("{id}.{}", text(secret.len(), secret.as_bytes()[0])), "b"),
    ]
}

const PAIRS: [(&str, &str); 4] = [
    ("wrong in its last four", "wrong from the first on"),
    ("right id, wrong secret", "unknown id, right secret"),
    ("unknown app", "right id, wrong secret"),
    ("right", "right id, wrong secret"),
];

/// How many different tries of each kind there are, and how often tables are made anew, under another random key.
const POOL: usize = 100;
const TABLES: u8 = 50;

/// The core alone: no socket, no kernel, its clock an argument.
#[test]
#[ignore = "measures: run by hand on a quiet machine"]
fn right_and_wrong_keys_in_the_core() {
    let first = format!("{ID}.0123456789abcdefghjkmnpqrstv");
    let second = format!("{ID}.vtsrqpnmkjhgfedcba9876543210");
    let mut text = format!(
        "global: {{http_post_path: {STEP1_PATH}, https_post_path: {STEP2_PATH}, interface_ext: eth0, lockout: off, \
         step1_2_rate_limit_per_minute: 100000, users: {{alice: {{access_key_http: {first}, access_key_https: {second}}}"
    );
    for n in 0..200 {
        write!(text, ", user{n}: {{access_key_http: first-key-of-{n}, access_key_https: second-key-of-{n}}}")
            .unwrap();
    }
    text += "}}\na: {port: 22, destination: local, duration: 60, step2_https_duration: 86400}\n";
    let settings =
        config::parse("bench", &text, None, &config::Alone).unwrap_or_else(|p| panic!("{p}")).settings;
    let mut shuffle = Shuffle(7);
    for (step, key, title) in [(Step::One, &first, "core, step 1"), (Step::Two, &second, "core, step 2")] {
        let pools: Vec<Vec<Presented>> = (0..POOL).map(|_| keys(key, &mut shuffle)).collect();
        let key = |key: &str| Credential::Key(Secret::new(key.to_owned()));
        let attempts: Vec<Vec<Attempt>> = pools
            .iter()
            .map(|tries| {
                tries.iter().map(|(_, presented, app)| attempt(step, app, key(presented), None)).collect()
            })
            .collect();
        let mut kinds: Vec<Kind> = pools[0].iter().map(|(name, ..)| Kind::new(name)).collect();
        measure(&settings, &attempts, &mut kinds, SystemTime::now(), &mut shuffle);
        println!("{}", report(title, &mut kinds, &PAIRS));
    }
    // Proofs: of the right user, with all but the last digit right, with the first one wrong, and of nobody.
    let wall = SystemTime::now();
    let verifier = Verifier::of(&Secret::new(first.clone()));
    let claim = Claim { app: "a", user: "alice" };
    let proofs = |shuffle: &mut Shuffle| {
        let nonce: String = (0..32).map(|_| char::from(b"0123456789abcdef"[shuffle.below(16)])).collect();
        let right = Proof::make(&verifier, &claim, None, &nonce, wall).text().expose().to_owned();
        let turned = |at: usize| {
            let digit = if right.as_bytes()[at] == b'0' { "1" } else { "0" };
            let text = format!("{}{digit}{}", &right[..at], &right[at + 1..]);
            Credential::Proof(Proof::parse(&text).unwrap())
        };
        let (last, first) = (turned(right.len() - 1), turned(nonce.len() + 1));
        let of = |proof: &Credential, user| attempt(Step::One, "a", proof.clone(), Some(user));
        vec![of(&last, "alice"), of(&first, "alice"), of(&first, "nobod")]
    };
    let attempts: Vec<Vec<Attempt>> = (0..POOL).map(|_| proofs(&mut shuffle)).collect();
    let names = ["wrong in its last digit", "wrong in its first digit", "unknown user"];
    let mut kinds: Vec<Kind> = names.map(Kind::new).into();
    measure(&settings, &attempts, &mut kinds, wall, &mut shuffle);
    println!("{}", report("core, proofs", &mut kinds, &[(names[0], names[1]), (names[2], names[1])]));
}

fn attempt(step: Step, app: &str, credential: Credential, user: Option<&str>) -> Attempt {
    Attempt {
        client: ClientAddr::new(Family::V4.client_a()),
        step,
        app: app.to_owned(),
        credential,
        user: user.map(str::to_owned),
        token: None,
        duration: None,
        action: Action::Open,
    }
}

fn measure(
    settings: &config::Settings,
    attempts: &[Vec<Attempt>],
    kinds: &mut [Kind],
    wall: SystemTime,
    shuffle: &mut Shuffle,
) {
    for random in 0..TABLES {
        let mut gatekeeper = Gatekeeper::new(settings, &[], [random; 16]);
        for n in 0..100 * u32::try_from(kinds.len()).unwrap() {
            let (one, at) = (shuffle.below(attempts.len()), shuffle.below(kinds.len()));
            // Slow enough for every limit; the calendar stands still, as proofs are made for one time step.
            let now = Now { boot: Duration::from_secs(1_000) + Duration::from_millis(20) * n, wall };
            // A fresh copy, as where one lies in memory would be measured, too.
            let attempt = black_box(attempts[one][at].clone());
            let begun = Instant::now();
            let verdict = gatekeeper.judge(&attempt, &|_, _| false, now);
            let took = begun.elapsed();
            drop(black_box(verdict));
            kinds[at].times.push(took.as_nanos() as f64);
        }
    }
}

/// Sends requests and measures from the last byte of each to the first of its answer. ADDRESS, PORT, PATH, TRIES, then from
/// standard input one form a line; prints the number of the form and nanoseconds.
const CLIENT: &str = r#"
import random, socket, ssl, sys, time
address, port, path, tries = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
forms = sys.stdin.read().split()
tls = None
if sys.argv[5] == "tls":
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
order = list(range(len(forms))) * tries
random.shuffle(order)
begin = time.perf_counter()
for n, at in enumerate(order):
    # Below what everybody together may send.
    time.sleep(max(0, begin + n / 80 - time.perf_counter()))
    body = forms[at]
    request = ("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s"
        % (path, len(body), body)).encode()
    s = socket.create_connection((address, port), 5)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        s = tls.wrap_socket(s)
        time.sleep(0.001)
    start = time.perf_counter_ns()
    s.sendall(request)
    answer = s.recv(4096)
    took = time.perf_counter_ns() - start
    s.close()
    print(at, took, answer[9:12].decode())
"#;

/// Both steps as a stranger sees them, next to the gateway, where the network hides least.
#[test]
#[ignore = "measures for minutes: run by hand on a quiet machine"]
fn right_and_wrong_keys_over_the_network() {
    let net = Topology::new();
    let (first, second) =
        (format!("{ID}.0123456789abcdefghjkmnpqrstv"), format!("{ID}.vtsrqpnmkjhgfedcba9876543210"));
    let global = [
        "step1_reply: http",
        &format!("users: {{alice: {{access_key_http: {first}, access_key_https: {second}}}}}"),
    ];
    let mut text = Config::new(&global)
        .app("a", "2222", "tcp", "local", &["duration: 600", "step2_https_duration: 3600"])
        .text()
        .to_owned();
    text = text
        .replace("per_minute: 600", "per_minute: 100000")
        .replace(&http_key("a"), "another-first-key")
        .replace(&https_key("a"), "another-second-key");
    let home = Installation::with_text(&text);
    let _agent = home.start(&net.router);
    let to = Family::V4.router().to_string();
    let mut shuffle = Shuffle(7);
    for (key, path, port, tls, title) in [
        (&first, STEP1_PATH, STEP1_PORT, "plain", "over the network, step 1"),
        (&second, STEP2_PATH, STEP2_PORT, "tls", "over the network, step 2"),
    ] {
        let pool: Vec<Vec<Presented>> = (0..POOL).map(|_| keys(key, &mut shuffle)).collect();
        let kinds_of = pool[0].len();
        let form = |(_, key, app): &Presented| format!("app={app}&access_key={key}");
        let forms: Vec<String> = pool.iter().flatten().map(form).collect();
        let mut command = std::process::Command::new("python3");
        command.args(["-c", CLIENT, &to, &port.to_string(), path, "10", tls]);
        let done = net.a.finish(command, forms.join("\n").as_bytes(), Duration::from_secs(400)).success();
        let mut kinds: Vec<Kind> = pool[0].iter().map(|(name, ..)| Kind::new(name)).collect();
        for line in done.text().lines() {
            let [at, took, status] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let at = at.parse::<usize>().unwrap() % kinds_of;
            assert_eq!(status, if at == 0 { "200" } else { "403" }, "{}", kinds[at].name);
            kinds[at].times.push(took.parse().unwrap());
        }
        println!("{}", report(title, &mut kinds, &PAIRS));
    }
}
