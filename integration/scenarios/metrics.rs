//! Figures for Prometheus, as curl, promtool and the kernel see them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::agent::Installation;
use crate::configuration::{Config, STEP1_PATH, http_key};
use crate::front::{pid_of, successor};
use crate::knocking::{form, knock, post_step1, step1};
use crate::namespace::Namespace;
use crate::probe::assert_silent;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const URL: &str = "http://127.0.0.1:9469/metrics";

/// The page by HTTP.
#[track_caller]
fn page(host: &Namespace) -> String {
    let done = host.run("curl", &["-sS", "-f", "-m", "20", URL]).success();
    let text = done.text();
    assert!(text.ends_with('\n'), "{text}");
    text
}

/// The value of a figure, written as on the page.
#[track_caller]
fn value(page: &str, figure: &str) -> f64 {
    let found = page.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {figure} in\n{page}")).parse().unwrap()
}

/// Waits until a figure has this value.
#[track_caller]
fn wait_for(host: &Namespace, figure: &str, wanted: f64) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let page = page(host);
        if (value(&page, figure) - wanted).abs() < f64::EPSILON {
            return;
        }
        assert!(Instant::now() < end, "{figure} does not become {wanted}:\n{page}");
        thread::sleep(Duration::from_millis(500));
    }
}

#[track_caller]
fn promtool_accepts(host: &Namespace, page: &str) {
    host.feed("promtool", &["check", "metrics"], page.as_bytes()).success();
}

fn families(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    types.map(str::to_owned).collect()
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("integration").join(name)
}

/// Every name of ours in a text, as the page has it.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("knock_agent_"));
    ours.map(|word| {
        let parts = ["_bucket", "_sum", "_count"];
        parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word).to_owned()
    })
    .collect()
}

/// Packets at a rule, as nft lists them.
fn counted(host: &Namespace, rule: &str) -> u64 {
    let listed = host.run("nft", &["list", "table", "inet", "knock_agent"]).success().text();
    let line = listed.lines().find(|line| line.contains(&format!("comment \"ka:{rule}\"")));
    let line = line.unwrap_or_else(|| panic!("no rule ka:{rule} in\n{listed}"));
    let after = line.split("counter packets ").nth(1).unwrap();
    after.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn figures_tell_what_happened_and_are_those_of_documentation_dashboard_and_alerts() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::new(&["metrics: {listen: \"127.0.0.1:9469\"}"]).app(
        "My-App",
        "2222",
        "tcp",
        "local",
        &["duration: 600"],
    );
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    let [v4, v6] = Family::BOTH;
    let first = page(&net.router);
    promtool_accepts(&net.router, &first);
    assert!(value(&first, "knock_agent_commit_duration_seconds_count") > 0.0);

    knock(&net.a, v4.router(), "My-App");
    knock(&net.a, v6.router(), "My-App");
    home.grant(&net.router, "My-App", v4.client_b(), 1);
    post_step1(&net.b, v6.router(), STEP1_PATH, &form("My-App", "not-the-key"));
    assert_silent(&net.b, v6.router(), 2222);
    home.rewrite_config("global: {}\n");
    agent.reload();
    home.rewrite_config(config.text());
    agent.reload();
    net.router.run("nft", &["delete", "table", "inet", "knock_agent"]).success();
    wait_for(&net.router, "knock_agent_repairs_total{where=\"table\"}", 1.0);
    wait_for(&net.router, "knock_agent_grants_closed_total{app=\"My-App\",reason=\"expired\"}", 1.0);
    assert_silent(&net.b, v6.router(), 2222);
    // Nobody sends anything any more: the counters rest.
    thread::sleep(Duration::from_millis(1_500));

    let page = page(&net.router);
    promtool_accepts(&net.router, &page);
    for (figure, wanted) in [
        ("knock_agent_guarded", 1.0),
        ("knock_agent_grants{app=\"My-App\"}", 2.0),
        ("knock_agent_grants_opened_total{app=\"My-App\",how=\"two-step\"}", 2.0),
        ("knock_agent_grants_opened_total{app=\"My-App\",how=\"operator\"}", 1.0),
        ("knock_agent_grants_opened_total{app=\"My-App\",how=\"sequence\"}", 0.0),
        ("knock_agent_knocks_total{step=\"1\",result=\"opened\"}", 2.0),
        ("knock_agent_knocks_total{step=\"1\",result=\"refused\"}", 1.0),
        ("knock_agent_knocks_total{step=\"2\",result=\"granted\"}", 2.0),
        ("knock_agent_denials_total{reason=\"wrong-key\"}", 1.0),
        ("knock_agent_config_reloads_total{result=\"done\"}", 1.0),
        ("knock_agent_config_reloads_total{result=\"refused\"}", 1.0),
        ("knock_agent_config_last_reload_successful", 1.0),
        ("knock_agent_front_up", 1.0),
        ("knock_agent_front_restarts_total", 0.0),
    ] {
        assert!((value(&page, figure) - wanted).abs() < f64::EPSILON, "{figure}\n{page}");
    }
    let dropped = value(
        &page,
        "knock_agent_rule_packets_total{chain=\"svc_tcp_2222\",rule=\"drop:tcp_2222\",verdict=\"drop\"}",
    );
    let listed = f64::from(u32::try_from(counted(&net.router, "drop:tcp_2222")).unwrap());
    assert!(listed > 0.0 && (dropped - listed).abs() < f64::EPSILON, "{dropped} of {listed}");
    let ends = net.router.run("openssl", &["x509", "-noout", "-enddate", "-in", &path(&home, "cert.pem")]);
    let mut told = std::process::Command::new("date");
    told.args(["-u", "+%s", "-d", ends.text().trim().strip_prefix("notAfter=").unwrap()]);
    let told = net.router.finish(told, b"", Duration::from_secs(10)).success().text();
    let shown = value(&page, "knock_agent_certificate_expiry_timestamp_seconds");
    assert!((shown - told.trim().parse::<f64>().unwrap()).abs() < f64::EPSILON, "{shown} {told}");
    for secret in ["203.0.113", "2001:db8", &http_key("My-App"), STEP1_PATH] {
        assert!(!page.contains(secret), "{secret}");
    }
    // Other hosts do not reach it.
    let url = "http://203.0.113.1:9469/metrics";
    assert_ne!(net.a.run("curl", &["-sS", "-m", "2", url]).code, Some(0));

    let there = families(&page);
    let documented = fs::read_to_string(file("../docs/metrics.md")).unwrap();
    let rows = documented.lines().filter_map(|line| line.strip_prefix("| `knock_agent_")?.split('`').next());
    assert_eq!(there, rows.map(|rest| format!("knock_agent_{rest}")).collect());
    for user in ["prometheus/knock-agent.rules.yml", "grafana/knock-agent.json"] {
        let named = names(&fs::read_to_string(file(user)).unwrap());
        assert!(named.len() >= 10, "{user}: {named:?}");
        let unknown: Vec<_> = named.difference(&there).collect();
        assert!(unknown.is_empty(), "{user}: {unknown:?}");
    }
}

fn path(home: &Installation, name: &str) -> String {
    home.path(name).to_str().unwrap().to_owned()
}

#[test]
fn a_socket_and_a_file_show_the_same_and_go_with_the_daemon() {
    let net = Topology::new();
    let folder = crate::temporary::TempDir::new();
    let (socket, prom) = (folder.path().join("m.sock"), folder.path().join("knock-agent.prom"));
    let line = format!(
        "metrics: {{listen: {}, textfile: {}, textfile_every: 1s}}",
        socket.display(),
        prom.display()
    );
    let home = Installation::new(&Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &[]));
    let agent = home.start(&net.router);
    let by_socket = || {
        let args = ["-sS", "-f", "-m", "20", "--unix-socket", socket.to_str().unwrap(), "http://x/anything"];
        net.router.run("curl", &args).success().text()
    };
    promtool_accepts(&net.router, &by_socket());
    home.grant(&net.router, "ssh", Family::V4.client_a(), 60);
    let end = Instant::now() + Duration::from_secs(30);
    let written = loop {
        let text = fs::read_to_string(&prom).unwrap_or_default();
        if text.contains("knock_agent_grants{app=\"ssh\"} 1\n") {
            break text;
        }
        assert!(Instant::now() < end, "{text}");
        thread::sleep(Duration::from_millis(200));
    };
    promtool_accepts(&net.router, &written);
    assert_eq!(families(&written), families(&by_socket()));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&prom).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o007, 0);
    agent.terminate();
    assert!(!prom.exists(), "what nobody writes any more does not look as if somebody did");
}

#[test]
fn those_who_connect_and_wait_or_send_without_end_keep_nobody_from_the_figures_for_long() {
    let net = Topology::new();
    let home = Installation::new(&Config::new(&["metrics: {listen: \"[::1]:9469\"}"]).app(
        "ssh",
        "2222",
        "tcp",
        "local",
        &[],
    ));
    let mut agent = home.start(&net.router);
    let waiting: Vec<TcpStream> =
        net.router.enter(|| (0..30).map(|_| TcpStream::connect("[::1]:9469").unwrap()).collect());
    let endless = net
        .router
        .run("curl", &["-sS", "-g", "-m", "8", "-o", "/dev/null", "-T", "/dev/zero", "http://[::1]:9469/"]);
    assert_ne!(endless.code, None, "it is ended");
    let done =
        net.router.run("curl", &["-sS", "-g", "-f", "-m", "30", "http://[::1]:9469/metrics"]).success();
    assert!(done.text().contains("knock_agent_guarded 1"));
    knock(&net.a, Family::V4.router(), "ssh");
    assert!(agent.is_alive());
    drop(waiting);
}

#[test]
fn an_address_that_is_taken_is_told_and_people_are_let_in_all_the_same() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let _taken = net.router.enter(|| std::net::TcpListener::bind("127.0.0.1:9469").unwrap());
    let config =
        Config::new(&["metrics: {listen: \"127.0.0.1:9469\"}"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    crate::probe::assert_echoes(&net.a, Family::V4.router(), 2222);
    let health = home.check(&net.router, &["health"]).exits(1).text();
    assert!(health.starts_with("metrics: ") && health.lines().count() == 1, "{health}");
}

#[test]
fn a_front_that_hangs_is_told_by_health_and_counted_when_it_is_replaced() {
    let net = Topology::new();
    let config =
        Config::new(&["metrics: {listen: \"127.0.0.1:9469\"}"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    home.check(&net.router, &["health"]).success();
    let front = pid_of(&agent).unwrap();
    kill(Pid::from_raw(front.cast_signed()), Signal::SIGSTOP).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let told = home.check(&net.router, &["health"]);
        if told.code == Some(1) {
            assert!(told.text().starts_with("front: "), "{told:?}");
            break;
        }
        assert!(Instant::now() < end, "{told:?}");
        thread::sleep(Duration::from_millis(500));
    }
    successor(&agent, front);
    wait_for(&net.router, "knock_agent_front_restarts_total", 1.0);
    wait_for(&net.router, "knock_agent_front_up", 1.0);
    home.check(&net.router, &["health"]).success();
    step1(&net.a, Family::V4.router(), "ssh");
}

#[test]
fn promtool_accepts_the_alerts_and_their_tests_and_every_question_of_the_dashboard() {
    crate::requirements::demand();
    let net = Topology::new();
    let rules = file("prometheus/knock-agent.rules.yml");
    let tests = file("prometheus/knock-agent.rules.test.yml");
    net.a.run("promtool", &["check", "rules", rules.to_str().unwrap()]).success();
    net.a.run("promtool", &["test", "rules", tests.to_str().unwrap()]).success();
    let text = fs::read_to_string(&rules).unwrap();
    let tested = fs::read_to_string(&tests).unwrap();
    let alerts: Vec<&str> = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        assert!(
            tested.contains(&format!("alertname: {alert}\n        exp_alerts:")),
            "{alert} is never seen to be told"
        );
    }
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(file("grafana/knock-agent.json")).unwrap()).unwrap();
    let mut asked = BTreeMap::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let question = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            asked.insert(question, panel["title"].as_str().unwrap().to_owned());
        }
    }
    assert!(asked.len() >= 15);
    let recorded = asked.keys().enumerate().map(|(n, question)| {
        format!("      - {{record: 'q:{n}', expr: {}}}\n", serde_json::to_string(question).unwrap())
    });
    let all = format!("groups:\n  - name: dashboard\n    rules:\n{}", recorded.collect::<String>());
    let folder = crate::temporary::TempDir::new();
    folder.write("dashboard.yml", &all);
    let checked = folder.path().join("dashboard.yml");
    net.a.run("promtool", &["check", "rules", checked.to_str().unwrap()]).success();
}
