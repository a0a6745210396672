//! What is generated from the program's own tables, held against what it does: each key of the manual and the schemas is read
//! as they say, with its bounds, and shells, man and a validator of schemas take the files.
//!
//! Nothing here needs root. What is missing is named: bash, zsh, fish, man-db, mandoc, python3-jsonschema.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test harness stops at the first thing that is not as it should be"
)]

#[path = "generated/samples.rs"]
mod samples;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use knock_agent::config::manual::{CLIENT_PROFILE, CONFIGURATION, GLOBAL};
use serde_json::{Value, json};

use samples::{Of, Sample, read};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_value_that_the_manual_allows_is_read_and_every_other_refused() {
    let mut wrong = String::new();
    let mut seen = 0;
    for table in CONFIGURATION.iter().chain(CLIENT_PROFILE) {
        for sample in samples::of(table) {
            seen += 1;
            match read(&sample) {
                Ok(()) if sample.good => {}
                Err(_) if !sample.good => {}
                Ok(()) => writeln!(wrong, "{}: was read: {}", sample.what, sample.document).unwrap(),
                Err(why) => writeln!(wrong, "{}: {why}: {}", sample.what, sample.document).unwrap(),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(seen > 900, "{seen}");
}

#[test]
fn a_default_that_is_written_down_changes_nothing() {
    let plain = samples::settings(&[]);
    for (table, at) in [(&GLOBAL, "/global"), (&knock_agent::config::manual::APP, "/ssh")] {
        for entry in table.entries.iter() {
            let Some(default) = entry.default else { continue };
            let value: Value = serde_yaml::from_str(default).unwrap();
            let said = samples::settings(&[(at, entry.key, value)]);
            assert_eq!(said, plain, "{at}/{}: {default}", entry.key);
        }
    }
}

/// The verdicts of Debian's python3-jsonschema on documents, each with the schema that it is held against.
fn validated(documents: &[(&str, &Value)]) -> Vec<bool> {
    const PROGRAM: &str = "
import json, sys
from jsonschema import Draft202012Validator as Judge
root, todo = json.load(sys.stdin)
judges = {}
for name, pointer in sorted({(d[0], d[1]) for d in todo}):
    with open(f'{root}/config/{name}') as file:
        schema = json.load(file)
    Judge.check_schema(schema)
    whole = schema if not pointer else {**{'$schema': schema['$schema'], '$defs': schema['$defs']}, '$ref': '#' + pointer}
    judges[name, pointer] = Judge(whole)
print(json.dumps([judges[name, pointer].is_valid(document) for name, pointer, document in todo]))
";
    let todo: Vec<Value> = documents
        .iter()
        .map(|(schema, document)| {
            let (name, pointer) = schema.split_once('#').unwrap_or((schema, ""));
            json!([name, pointer, document])
        })
        .collect();
    let said = output(Command::new("python3").args(["-c", PROGRAM]), &json!([ROOT, todo]).to_string());
    let verdicts: Vec<bool> = serde_json::from_str(&said).unwrap();
    assert_eq!(verdicts.len(), documents.len());
    verdicts
}

/// What a program prints; it must do well.
fn output(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; see `ensure_test_packages`"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success() && err.is_empty(), "{command:?}: {}\n{out}{err}", done.status);
    out.into_owned()
}

fn schema(of: Of) -> &'static str {
    match of {
        Of::Configuration => "knock-agent.schema.json",
        Of::Client => "knock-agent.schema.json#/$defs/sequence_client",
        Of::Profile => "knock-agent-profile.schema.json",
    }
}

#[test]
fn the_schemas_allow_what_is_read_and_refuse_what_is_not() {
    let all: Vec<Sample> =
        CONFIGURATION.iter().chain(CLIENT_PROFILE).flat_map(|table| samples::of(table)).collect();
    let documents: Vec<(&str, &Value)> =
        all.iter().map(|sample| (schema(sample.of), &sample.document)).collect();
    for (sample, valid) in all.iter().zip(validated(&documents)) {
        assert_eq!(valid, sample.good, "{}: {}", sample.what, sample.document);
    }
}

/// A YAML text as the editor's language server sees it.
fn yaml(text: &str) -> Value {
    let mut value: serde_yaml::Value =
        serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    value.apply_merge().unwrap();
    serde_json::to_value(value).unwrap()
}

#[test]
fn shipped_examples_are_valid_and_the_same_with_a_fault_are_not() {
    let text = |path: &str| std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let ours = text("config/config.yaml");
    let spelled_out: String =
        ours.lines().map(|line| format!("{}\n", line.replacen("  #: ", "  ", 1))).collect();
    let good = [
        ours.clone(),
        spelled_out,
        text("src/config/tests/knock_port_example.yaml"),
        text("src/config/tests/knock_port_tests.yaml").replace("$BACKEND_IP", "10.1.2.3"),
    ];
    let faults = [
        ("interface_ext: eth0", "interface_exit: eth0"),
        ("interface_ext: eth0", "interface_ext: []"),
        ("  http_post_path: /step-1-SECRET\n", ""),
        ("port: 22", "port: ssh"),
        ("port: 22", "prot: 22"),
        ("duration: 24h", "duration: a day"),
        ("destination: 192.168.0.40:80", "destination: http://192.168.0.40"),
        ("access_key_http: [replace-this-key-3]", "access_key_http: {}"),
        ("global:", "globals:"),
    ];
    let bad: Vec<String> = faults
        .iter()
        .map(|(from, to)| {
            assert!(ours.contains(from), "{from}");
            ours.replacen(from, to, 1)
        })
        .collect();
    let values: Vec<Value> = good.iter().chain(&bad).map(|text| yaml(text)).collect();
    let documents: Vec<(&str, &Value)> =
        values.iter().map(|value| (schema(Of::Configuration), value)).collect();
    let verdicts = validated(&documents);
    for (n, verdict) in verdicts.iter().enumerate() {
        let fault = n.checked_sub(good.len()).map(|n| faults[n]);
        assert_eq!(*verdict, n < good.len(), "{n}: {fault:?}");
    }
    let profile = yaml(&text("config/profile.yaml"));
    let mut broken = profile.clone();
    broken["https_port"] = json!("443");
    let both = [(schema(Of::Profile), &profile), (schema(Of::Profile), &broken)];
    assert_eq!(validated(&both), [true, false]);
}

#[test]
fn shells_take_the_completions() {
    let file = |name: &str| format!("{ROOT}/packaging/completions/{name}");
    for (shell, name) in [("bash", "knock-agent.bash"), ("zsh", "_knock-agent"), ("fish", "knock-agent.fish")]
    {
        output(Command::new(shell).args(["-n", &file(name)]), "");
    }
    let ask = format!(
        "source {}; COMP_WORDS=(knock-agent che); COMP_CWORD=1; _knock__agent knock-agent che knock-agent; echo ${{COMPREPLY[*]}}",
        file("knock-agent.bash")
    );
    assert_eq!(output(Command::new("bash").args(["-c", &ask]), "").trim(), "check-config check-ruleset");
    for (words, wanted) in [
        ("status --js", "--json"),
        ("run --log-level de", "debug"),
        ("check-config --stri", "--strict"),
        ("generate comp", "completions"),
    ] {
        let typed: Vec<&str> = words.split(' ').collect();
        let (last, before) = (typed[typed.len() - 1], typed.get(typed.len() - 2).unwrap());
        let ask = format!(
            "source {}; COMP_WORDS=(knock-agent {words}); COMP_CWORD={}; _knock__agent knock-agent {last} {before}; \
             echo \"${{COMPREPLY[*]}}\"",
            file("knock-agent.bash"),
            typed.len()
        );
        assert_eq!(output(Command::new("bash").args(["-c", &ask]), "").trim(), wanted, "{words}");
    }
    let ask = format!("source {}; complete -C 'knock-agent run --conf'", file("knock-agent.fish"));
    let said = output(Command::new("fish").args(["--no-config", "-c", &ask]), "");
    assert!(said.contains("--config") && said.contains("--confirm"), "{said}");
}

#[test]
fn man_and_mandoc_take_every_page_without_a_warning() {
    let mut pages = 0;
    for entry in std::fs::read_dir(format!("{ROOT}/packaging/man")).unwrap() {
        let path = entry.unwrap().path();
        let text =
            output(Command::new("man").arg("-l").arg("--warnings").arg(&path).env("LC_ALL", "C.UTF-8"), "");
        assert!(text.contains("SEE ALSO"), "{}", path.display());
        output(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path), "");
        pages += 1;
    }
    assert!(pages > 20, "{pages}");
}
