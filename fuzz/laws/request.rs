//! The request head and its form.

use crate::knock::{Action, Attempt, Credential, Form, Limits, Progress, Step, read_request};
use crate::units::{ClientAddr, HttpPath};

use super::choices::Choices;

const PATHS: [&str; 2] = ["/step-one", "/another/way-in"];
/// Longer streams are not read at every length.
const EVERY: usize = 400;

/// The first byte says at which step it came in, the rest is what a connection sends.
///
/// What is complete is so with its last byte and not before, and nothing may follow it. What was bad stays bad. Another,
/// simpler reader finds the same fields in it.
pub fn request(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let limits = [Limits::step1(500), Limits::step1_behind_proxy(500), Limits::step2()][choices.below(3)];
    let stream = choices.rest();
    let paths = PATHS.map(|path| path.parse::<HttpPath>().unwrap());
    let read = |end: usize| read_request(&stream[..end], &paths, limits);
    let whole = read(stream.len());
    let mut ended: Option<usize> = None;
    let stride = stream.len() / EVERY + 1;
    for end in (0..stream.len()).step_by(stride).chain([stream.len()]) {
        match (ended, read(end)) {
            (None, Progress::NeedMore) => {
                assert!(end < limits.total.max(limits.head), "{end} bytes are read")
            }
            (None, Progress::Done(form)) => {
                is_what_it_says(&stream[..end], &form);
                ended = Some(end);
            }
            (None, Progress::Bad(_)) => ended = Some(end),
            (Some(_), Progress::Bad(_)) => {}
            (Some(at), after) => panic!("{after:?} at {end}, although it was judged at {at}"),
        }
    }
    if let Progress::Done(form) = whole {
        assert!(stream.len() <= limits.total);
        assert!((0..stream.len()).all(|end| matches!(read(end), Progress::NeedMore)), "done too early");
        is_what_it_says(stream, &form);
    }
    form(stream);
}

/// A form that is read, written again and read is the same.
fn form(body: &[u8]) {
    let Some(form) = Form::parse(body) else { return };
    let again = Form::parse(written(&form).as_bytes()).expect("a form as somebody else would write it");
    let fields = |form: &Form| fields(form).map(|(_, value)| value);
    assert_eq!(fields(&form), fields(&again));
    is_told(&form);
}

/// Whatever a form says can be told to whoever judges it, in full.
fn is_told(form: &Form) {
    for ip in ["192.0.2.1", "2001:db8::1"] {
        let client = ClientAddr::new(ip.parse().unwrap());
        let told = Attempt::of(client, Step::Two, form.clone()).to_bytes().expect("a form that fits");
        let Attempt { app, credential, user, token, duration, action, .. } =
            Attempt::from_bytes(&told).expect("what was told");
        let heard = Form { app, credential, user, token, duration, action };
        assert_eq!(fields(form).map(|(_, value)| value), fields(&heard).map(|(_, value)| value));
    }
}

fn fields(form: &Form) -> [(&'static str, Option<String>); 7] {
    let (key, proof) = match &form.credential {
        Credential::Key(key) => (Some(key.expose().to_owned()), None),
        Credential::Proof(proof) => (None, Some(proof.text().expose().to_owned())),
    };
    let action = match form.action {
        Action::Open => "open",
        Action::Close => "close",
    };
    [
        ("app", Some(form.app.clone())),
        ("access_key", key),
        ("proof", proof),
        ("user", form.user.clone()),
        ("token", form.token.as_ref().map(|token| token.expose().to_owned())),
        ("duration", form.duration.map(|time| time.as_secs().to_string())),
        ("action", Some(action.to_owned())),
    ]
}

/// The form with every byte of every value as `%XX`, its fields in another order.
fn written(form: &Form) -> String {
    let pairs = fields(form).into_iter().rev().filter_map(|(name, value)| {
        let value: String = value?.bytes().map(|byte| format!("%{byte:02x}")).collect();
        Some(format!("{name}={value}"))
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// The same request as the simplest reader sees it, who knows this one shape only.
fn is_what_it_says(request: &[u8], form: &Form) {
    let end = request.windows(4).position(|four| four == b"\r\n\r\n").expect("an empty line");
    let (head, body) = (&request[..end], &request[end + 4..]);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap();
    let known = PATHS
        .iter()
        .any(|path| line.strip_prefix(&format!("POST {path} HTTP/1.")).is_some_and(|v| v == "0" || v == "1"));
    assert!(known, "{line}");
    let mut lengths = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a header");
        assert!(!name.contains([' ', '\t', '\n', '\r']), "{name:?}");
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value.trim().parse::<usize>().expect("a length")),
            "transfer-encoding" => panic!("framed in two ways"),
            _ => {}
        }
    }
    assert_eq!(lengths, [body.len()], "one length, that of what follows");
    let mut said: Vec<(String, String)> = Vec::new();
    for pair in std::str::from_utf8(body).expect("ASCII").split('&') {
        let (name, value) = pair.split_once('=').expect("a pair");
        said.push((name.to_owned(), decoded(value)));
    }
    for (name, value) in fields(form) {
        let found: Vec<&String> = said.iter().filter(|(n, _)| n == name).map(|(_, v)| v).collect();
        match (name, value) {
            ("action", Some(value)) => assert!(found.is_empty() && value == "open" || found == [&value]),
            // It is written in more than one way.
            ("duration", value) => assert_eq!(found.len(), usize::from(value.is_some())),
            (_, Some(value)) => assert_eq!(found, [&value], "{name}"),
            (_, None) => assert_eq!(found.len(), 0, "{name}"),
        }
    }
}

fn decoded(value: &str) -> String {
    let mut out = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next().expect("two digits")).to_digit(16).expect("a digit");
        out.push(match byte {
            b'%' => u8::try_from(digit() * 16 + digit()).unwrap(),
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(out).expect("UTF-8")
}
