//! The dashboard's questions and the alerts, asked of a Prometheus that fetches the figures of a real agent.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH};
use crate::knocking::{form, knock, post_step1};
use crate::namespace::Namespace;
use crate::probe::assert_silent;
use crate::topology::{Family, Topology};

const LIMIT: Duration = Duration::from_secs(120);

/// An answer of Prometheus' own interface; none while it does not answer.
fn ask(host: &Namespace, path: &str, query: &str) -> Option<Value> {
    let url = format!("http://127.0.0.1:9090/api/v1/{path}");
    let query = format!("query={query}");
    let done = host.run("curl", &["-sS", "-m", "20", "-G", "--data-urlencode", &query, &url]);
    let answer: Value = serde_json::from_slice(&done.stdout).ok()?;
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    Some(answer["data"].clone())
}

/// Every question of the dashboard, for this agent and times that a short test has.
fn questions() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration");
    let text = std::fs::read_to_string(folder.join("grafana/knock-agent.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    let mut open = vec![&dashboard];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    let mut found: Vec<String> = found
        .into_iter()
        .map(|expr| {
            expr.replace("$job", "knock-agent").replace("$instance", ".+").replace("$__rate_interval", "5m")
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn each_question_of_the_dashboard_has_an_answer_and_prometheus_takes_the_alerts() {
    let net = Topology::new();
    let host = &net.router;
    let config =
        Config::new(&["metrics: {listen: \"127.0.0.1:9469\"}"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(host);
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/prometheus/knock-agent.rules.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n  - job_name: knock-agent\n    static_configs:\n      - targets: [\"127.0.0.1:9469\"]\n",
        rules.display()
    );
    home.folder().write("prometheus.yml", text.as_bytes());
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", home.path("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", home.path("tsdb").display()));
    command.args(["--web.listen-address=127.0.0.1:9090", "--log.level=error"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _prometheus = host.background(command);
    let end = Instant::now() + LIMIT;
    let is_up =
        || ask(host, "query", "up == 1").is_some_and(|data| !data["result"].as_array().unwrap().is_empty());
    while !is_up() {
        assert!(Instant::now() < end, "Prometheus does not fetch the figures");
        sleep(Duration::from_millis(200));
    }
    // What happens between two looks is what rates are made of.
    knock(&net.a, Family::V4.router(), "ssh");
    post_step1(&net.b, Family::V4.router(), STEP1_PATH, &form("ssh", "not-the-key"));
    assert_silent(&net.b, Family::V4.router(), 2222);
    for question in questions() {
        loop {
            let data = ask(host, "query", &question).unwrap();
            let answers = data["result"].as_array().unwrap();
            let is_number = |one: &Value| one["value"][1].as_str().is_some_and(|text| text != "NaN");
            if !answers.is_empty() && answers.iter().any(is_number) {
                break;
            }
            assert!(Instant::now() < end, "no answer to: {question}");
            sleep(Duration::from_millis(500));
        }
    }
    let groups = ask(host, "rules", "").unwrap();
    let all = groups["groups"][0]["rules"].as_array().unwrap();
    assert!(all.len() >= 15, "{groups}");
    for rule in all {
        assert!(rule["health"] == "ok" && rule["state"] == "inactive", "all is well here: {rule}");
    }
}
