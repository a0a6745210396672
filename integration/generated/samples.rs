//! Documents made from the tables: each key with every kind of value that it may and may not have.

use std::path::Path;

use knock_agent::config::manual::{Shape, Table};
use knock_agent::config::{Outside, SecretFrom, UserFile, parse, parse_profile};
use knock_agent::units::Secret;
use serde_json::{Map, Value, json};

/// What kind of file a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// A configuration.
    Configuration,
    /// The file of a client whose knocks change with time.
    Client,
    /// A profile.
    Profile,
}

/// A document, and whether it is right.
#[derive(Debug)]
pub struct Sample {
    pub of: Of,
    pub what: String,
    pub document: Value,
    pub good: bool,
}

/// Good as a key, as a password and as base32.
const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

/// What is in other files.
struct Elsewhere {
    client: Option<String>,
    secret: &'static str,
}

impl Outside for Elsewhere {
    fn secret(&self, _: SecretFrom<'_>) -> Result<Secret, String> {
        Ok(Secret::new(self.secret.to_owned()))
    }

    fn users(&self, _: &Path) -> Result<Vec<UserFile>, String> {
        let file = |text: &String| UserFile {
            name: "laptop".to_owned(),
            file: "laptop.yaml".to_owned(),
            text: text.clone().into(),
        };
        Ok(self.client.iter().map(file).collect())
    }
}

fn base() -> Value {
    json!({
        "global": {"interface_ext": "eth0", "http_post_path": "/one-place", "https_post_path": "/two-place"},
        "ssh": {"port": 22, "duration": 60, "access_key_http": "first-secret", "access_key_https": "other-secret"},
    })
}

/// A document in which the section is as short as can be, and where it is there.
fn around(table: &Table) -> (Of, Value, &'static str) {
    let mut config = base();
    let alice = json!({"access_key_http": "alice-key-1", "access_key_https": "alice-key-2"});
    let global = |config: &mut Value, key: &str, value: Value| config["global"][key] = value;
    let steps = json!({"host": "gate.example.com", "http_post_path": "/one", "https_post_path": "/two", "app": "ssh"});
    let at = match table.name {
        "global" => "/global",
        "lockout" => {
            global(&mut config, "lockout", json!({}));
            "/global/lockout"
        }
        "path_secret" => {
            global(&mut config, "http_post_path_secret", json!({}));
            "/global/http_post_path_secret"
        }
        "app" => "/ssh",
        "sequence" => {
            config["ssh"]["sequence"] = json!({"knocks": ["tcp/1234", "tcp/5678"]});
            "/ssh/sequence"
        }
        "user" => {
            global(&mut config, "users", json!({"alice": alice}));
            "/global/users/alice"
        }
        "user_app" => {
            global(&mut config, "users", json!({"alice": alice}));
            config["global"]["users"]["alice"]["apps"] = json!({"ssh": {}});
            "/global/users/alice/apps/ssh"
        }
        "access_key" => {
            config["ssh"]["access_key_http"] = json!({"key": "first-secret"});
            "/ssh/access_key_http"
        }
        "totp" => {
            global(&mut config, "users", json!({"alice": alice}));
            config["global"]["users"]["alice"]["totp"] =
                json!({"secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"});
            "/global/users/alice/totp"
        }
        "secret" => {
            let hook = json!({"url": "https://example.net/x", "authorization": {"value": "x"}});
            global(&mut config, "notify", json!({"webhook": hook}));
            "/global/notify/webhook/authorization"
        }
        "time_sequence" => {
            global(&mut config, "time_sequence", json!({}));
            "/global/time_sequence"
        }
        "metrics" => {
            global(&mut config, "metrics", json!({"listen": "127.0.0.1:9469"}));
            "/global/metrics"
        }
        "metrics_file" => {
            global(&mut config, "metrics", json!({"textfile": "/var/lib/knock-agent/x.prom"}));
            "/global/metrics"
        }
        "notify" => {
            global(&mut config, "notify", json!({}));
            "/global/notify"
        }
        "exec" => {
            global(&mut config, "notify", json!({"exec": {"command": "/bin/true"}}));
            "/global/notify/exec"
        }
        "webhook" => {
            global(&mut config, "notify", json!({"webhook": {"url": "https://example.net/x"}}));
            "/global/notify/webhook"
        }
        "mail" => {
            let mail = json!({"server": "mail.example.net", "from": "a@example.net", "to": "b@example.net"});
            global(&mut config, "notify", json!({"mail": mail}));
            "/global/notify/mail"
        }
        "sequence_client" => {
            let client = json!({"app": "ssh", "secret": "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"});
            return (Of::Client, client, "");
        }
        "profile" => return (Of::Profile, steps, ""),
        "profile_secret" => {
            let mut steps = steps;
            steps["access_key_http"] = json!({"key": "first-secret"});
            return (Of::Profile, steps, "/access_key_http");
        }
        "profile_code" => {
            let mut steps = steps;
            steps["totp"] = json!({"secret": "ABCD"});
            return (Of::Profile, steps, "/totp");
        }
        "knock_profile" => return (Of::Profile, json!({"host": "gate", "sequence": ["tcp/1"]}), ""),
        "timed_knocks" => {
            return (Of::Profile, json!({"host": "gate", "sequence": {"secret": "ABCD"}}), "/sequence");
        }
        other => panic!("no document has the section {other}: write one here"),
    };
    (Of::Configuration, config, at)
}

/// What else must be said so that a key can be as long or as short as its bounds; the place, the key, the value, none where
/// the key has to go.
fn besides(table: &str, key: &str) -> Vec<(&'static str, &'static str, Value)> {
    match (table, key) {
        ("global", "http_post_path_every") => {
            vec![("/global", "http_post_path_secret", json!("a-secret-of-16-and-more"))]
        }
        ("metrics", "textfile_every") => {
            vec![("/global/metrics", "textfile", json!("/var/lib/knock-agent/x.prom"))]
        }
        // Without keys there is nothing that only the steps could open.
        ("global", "steps") => vec![
            ("/ssh", "sequence", json!({"knocks": ["tcp/1234", "tcp/5678"]})),
            ("/ssh", "access_key_http", Value::Null),
            ("/ssh", "access_key_https", Value::Null),
            ("/global", "steps", json!("off")),
        ],
        // The longest first lock-out is as long as the longest there is.
        ("lockout", "first") => vec![("/global/lockout", "longest", json!("3650d"))],
        ("lockout", "longest") => vec![("/global/lockout", "first", json!("1s"))],
        ("app", "duration") => vec![("/ssh", "max_duration", json!("3650d"))],
        ("app", "max_duration") => vec![("/ssh", "duration", json!("1s"))],
        ("app", "interface_int" | "destination") => vec![("/global", "interface_int", json!("eth1"))],
        ("sequence", "knock_window") => vec![("/ssh/sequence", "window", json!("1h"))],
        ("sequence", "window" | "opens") => vec![("/ssh/sequence", "name", json!("first"))],
        ("time_sequence", "knock_window") => vec![("/global/time_sequence", "window", json!("1h"))],
        ("user" | "user_app", "duration" | "max_duration") => {
            let mut out = vec![("/ssh", "max_duration", json!("3650d")), ("/ssh", "duration", json!("1s"))];
            if key == "duration" {
                let most =
                    if table == "user" { "/global/users/alice" } else { "/global/users/alice/apps/ssh" };
                out.push((most, "max_duration", json!("3650d")));
            }
            out
        }
        ("mail", "user") => vec![("/global/notify/mail", "password", json!("x"))],
        ("mail", "password") => vec![("/global/notify/mail", "user", json!("x"))],
        ("profile", "http_post_path_every") => vec![("", "http_post_path_secret", json!("x"))],
        ("profile", "step1") => vec![("", "user", json!("alice"))],
        _ => vec![],
    }
}

/// A value with what it needs at its place.
fn fitting(table: &str, key: &str, mut value: Value) -> Value {
    if (table, key) == ("global", "sequence") {
        let each = match &mut value {
            Value::Array(list) => list.iter_mut().collect(),
            one => vec![one],
        };
        for sequence in each.into_iter().filter(|sequence| sequence.get("knocks").is_some()) {
            sequence["opens"] = json!("step-1");
        }
    }
    value
}

/// Every sample about the keys of a section.
pub fn of(table: &Table) -> Vec<Sample> {
    let (kind, document, at) = around(table);
    let mut out = Vec::new();
    let name = |key: &str, value: &Value| format!("{}.{key} = {value}", table.name);
    for entry in table.entries {
        let mut add = |value: Value, good: bool| {
            let mut document = document.clone();
            for (place, key, value) in besides(table.name, entry.key) {
                let section = document.pointer_mut(place).unwrap().as_object_mut().unwrap();
                match value {
                    Value::Null => drop(section.remove(key)),
                    value => drop(section.insert(key.to_owned(), value)),
                }
            }
            let section = document.pointer_mut(at).unwrap().as_object_mut().unwrap();
            if table.one_of.contains(&entry.key) {
                section.retain(|key, _| !table.one_of.contains(&key.as_str()));
            }
            let value = fitting(table.name, entry.key, value);
            section.insert(entry.key.to_owned(), value.clone());
            out.push(Sample { of: kind, what: name(entry.key, &value), document, good });
        };
        // No request is so short that the least of these would do.
        let too_short =
            |value: &Value| (table.name, entry.key) == ("global", "step1_max_bytes") && *value == json!(100);
        good(&entry.shape).into_iter().filter(|value| !too_short(value)).for_each(|value| add(value, true));
        bad(&entry.shape).into_iter().for_each(|value| add(value, false));
    }
    let mut strange = document.clone();
    strange.pointer_mut(at).unwrap()["no_such_key"] = json!(1);
    out.push(Sample {
        of: kind,
        what: format!("{}: a strange key", table.name),
        document: strange,
        good: false,
    });
    for entry in table.entries.iter().filter(|entry| entry.needed) {
        let mut without = document.clone();
        without.pointer_mut(at).unwrap().as_object_mut().unwrap().remove(entry.key);
        let what = format!("{}: without {}", table.name, entry.key);
        out.push(Sample { of: kind, what, document: without, good: false });
    }
    out
}

/// Values that a shape allows: its bounds among them.
fn good(shape: &Shape) -> Vec<Value> {
    match shape {
        Shape::Switch => vec![json!(true), json!(false)],
        Shape::Number(i64::MIN, i64::MAX) => vec![json!(7)],
        Shape::Number(least, most) => vec![json!(least), json!(most)],
        Shape::Words(words) => words
            .iter()
            .map(|word| json!(word))
            .chain(switches(words).map(|(_, value)| json!(value)))
            .collect(),
        Shape::Time(least, most) => vec![json!(least), json!(most), json!(format!("{most}s"))],
        Shape::Text(text) | Shape::Mixed(_, _, text) => vec![json!(text.example)],
        Shape::List(of, least, _) => {
            let each = good(of);
            let mut out: Vec<Value> = each.iter().map(|value| json!([value])).collect();
            if *least == 0 {
                out.push(json!([]));
            }
            out.extend(each);
            out
        }
        Shape::Section(table) => vec![shortest(table)],
        Shape::Named(names, of) => good(of).into_iter().map(|value| json!({names.example: value})).collect(),
        Shape::Either(all) => all.iter().flat_map(good).collect(),
        Shape::Nothing => vec![Value::Null],
    }
}

/// What YAML 1.1 makes of some of these words.
fn switches(words: &[&str]) -> impl Iterator<Item = (&'static str, bool)> {
    [("on", true), ("off", false)].into_iter().filter(|(word, _)| words.contains(word))
}

/// The section with nothing but what it needs.
fn shortest(table: &Table) -> Value {
    let first = table.one_of.first();
    let needed = table.entries.iter().filter(|entry| entry.needed || Some(&entry.key) == first);
    let mut out: Map<String, Value> =
        needed.map(|entry| (entry.key.to_owned(), good(&entry.shape)[0].clone())).collect();
    if table.name == "user" {
        out.insert("access_key_http".to_owned(), json!("alice-key-1"));
        out.insert("access_key_https".to_owned(), json!("alice-key-2"));
    }
    Value::Object(out)
}

/// Values that a shape does not allow: those next to its bounds, wrong words, other types.
fn bad(shape: &Shape) -> Vec<Value> {
    let mut out = vec![json!([[]]), json!({"no_such_key": 1})];
    match shape {
        Shape::Switch => out.extend([json!("maybe"), json!(1)]),
        Shape::Number(i64::MIN, i64::MAX) | Shape::Nothing => {}
        Shape::Number(least, most) => {
            out.extend([json!(least - 1), json!(most + 1), json!("many"), json!(true)])
        }
        Shape::Words(words) => {
            out.extend([json!("no-such-word"), json!(1)]);
            let switches: Vec<bool> = switches(words).map(|(_, value)| value).collect();
            out.extend([true, false].into_iter().filter(|value| !switches.contains(value)).map(Value::from));
        }
        Shape::Time(least, most) => {
            out.extend([
                json!(least - 1),
                json!(most + 1),
                json!("soon"),
                json!("-5s"),
                json!(1.5),
                Value::Null,
            ]);
        }
        Shape::Text(text) => {
            out.extend([json!(true), Value::Null]);
            out.extend((!text.wrong.is_empty()).then(|| json!(text.wrong)));
        }
        Shape::Mixed(least, most, text) => {
            out.extend([json!(least - 1), json!(most + 1), json!(text.wrong), json!(true), Value::Null]);
        }
        Shape::List(of, least, _) => {
            let each = bad(of);
            out.extend(each.iter().map(|value| json!([value])));
            out.extend(each);
            if *least > 0 {
                out.push(json!([]));
            }
        }
        Shape::Section(_) => out.extend([json!("text"), json!([])]),
        Shape::Named(names, _) => out.extend([json!("text"), json!({names.wrong: {}})]),
        // What one of them refuses another may take.
        Shape::Either(all) => {
            let refused: Vec<Vec<Value>> = all.iter().map(bad).collect();
            let by_all = refused[0].iter().filter(|value| refused.iter().all(|list| list.contains(value)));
            out.extend(by_all.cloned());
        }
    }
    out.dedup();
    out
}

/// Whether the program reads a document, else why not.
pub fn read(sample: &Sample) -> Result<(), String> {
    let text = sample.document.to_string();
    let config = |text: &str, client: Option<String>| {
        let secret = if sample.what.starts_with("webhook.") { "https://example.net/x" } else { SECRET };
        parse("sample.yaml", text, None, &Elsewhere { client, secret })
            .map(drop)
            .map_err(|problems| problems.to_string())
    };
    match sample.of {
        Of::Configuration => config(&text, None),
        Of::Client => {
            let mut whole = base();
            whole["ssh"]["max_duration"] = json!("3650d");
            whole["global"]["time_sequence"] = json!({});
            config(&whole.to_string(), Some(text))
        }
        Of::Profile => parse_profile("sample.yaml", &text, Some(Path::new("/home/alice")))
            .map(drop)
            .map_err(|problems| problems.to_string()),
    }
}

/// What a configuration comes to with these keys besides those that it needs.
pub fn settings(more: &[(&str, &str, Value)]) -> String {
    let mut document = base();
    for (at, key, value) in more {
        document.pointer_mut(at).unwrap()[*key] = value.clone();
    }
    let checked =
        parse("sample.yaml", &document.to_string(), None, &Elsewhere { client: None, secret: SECRET });
    format!("{:?}", checked.unwrap_or_else(|problems| panic!("{problems}")).settings)
}
