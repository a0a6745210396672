//! A changed configuration or certificate, taken over while everything goes on.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::agent::{Agent, Installation};
use crate::backend::{Backend, on_every_firewall};
use crate::configuration::{Config, STEP1_PATH, STEP2_PATH, http_key, https_key};
use crate::firewall::{add_elements, admission_left, has_set, remove_guard, table, time_left};
use crate::knocking::{
    STEP2_PORT, assert_step2_answers, form, knock, post_step1, post_step2, request, step1, step2,
};
use crate::namespace::Namespace;
use crate::probe::{
    assert_echo, assert_echoes, assert_on_time, assert_open, assert_silent, dial, udp_socket, when_silent,
};
use crate::process::Stop;
use crate::server::{Habit, Server, in_url};
use crate::tls::Tls;
use crate::topology::{Family, Topology};

on_every_firewall! {
    not_one_probe_gets_through_while_the_configuration_changes_to_and_fro,
    a_running_grant_keeps_its_time_through_every_kind_of_change,
    the_grants_of_an_app_and_of_a_key_go_with_them_and_no_others,
    what_a_reload_leaves_is_what_a_fresh_start_makes,
    the_plan_that_was_reloaded_is_the_last_good_one,
    grants_of_another_ipv6_prefix_end_and_do_not_come_back_with_it,
}

fn grants_of_another_ipv6_prefix_end_and_do_not_come_back_with_it() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let with = |prefix: u8| {
        Config::new(&[&format!("ipv6_prefix: {prefix}")]).app("ssh", "2222", "tcp", "local", &[])
    };
    let home = Installation::new(&with(64));
    let agent = home.start(&net.router);
    let reload = |prefix: u8| {
        home.rewrite_config(with(prefix).text());
        agent.reload();
    };
    for family in Family::BOTH {
        home.grant(&net.router, "ssh", family.client_a(), 600);
        assert_echoes(&net.a, family.router(), 2222);
    }
    for prefix in [128, 64, 56] {
        reload(prefix);
        assert_silent(&net.a, Family::V6.router(), 2222);
        assert_echoes(&net.a, Family::V4.router(), 2222);
    }
    home.grant(&net.router, "ssh", Family::V6.client_b(), 600);
    reload(56);
    assert_echoes(&net.b, Family::V6.router(), 2222);
}

/// Configurations that differ in as many ways as there are kinds of changes to the table.
fn variations() -> [Config; 6] {
    let ssh = |global: &[&str], ports: &str| {
        Config::new(global).app("ssh", ports, "tcp", "local", &["duration: 600"]).app(
            "dns",
            "5353",
            "both",
            "local",
            &["duration: 600"],
        )
    };
    let lan = |config: Config| config.app("lan", "7000-7009", "both", "10.0.0.5", &["established: keep"]);
    [
        ssh(&[], "2222"),
        // A range: maps become maps of ranges.
        ssh(&[], "[2222, \"3000-3010\"]"),
        // Ranges that overlap: they are cut anew, and the one that is probed gets another chain.
        lan(ssh(&["mark: 77"], "[\"2220-2230\"]").app("web", "2225", "tcp", "local", &[])),
        lan(ssh(&["mark: 0", "step1_reply: http"], "\"2222-2223\"")),
        ssh(&["allow: [198.51.100.0/24, 10.9.0.0/16]"], "[2222, \"3000-3010\", 4000]").app(
            "more",
            "\"5000-6000\"",
            "udp",
            "local",
            &["allow: [192.0.2.7]"],
        ),
        ssh(&["step1_segments: 1", "step1_max_bytes: 900"], "2222"),
    ]
}

/// Sends datagrams as fast as it can until told to stop; returns how many.
fn flood(from: &Namespace, port: u16, stop: &AtomicBool) -> u64 {
    let to = Family::V4.router();
    let socket = udp_socket(from, to, 0);
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        sent += u64::from(socket.send_to(b"let me in", (to, port)).is_ok());
    }
    sent
}

fn not_one_probe_gets_through_while_the_configuration_changes_to_and_fro() {
    let net = Topology::new();
    let tcp = Server::tcp(&net.router, 2222, Habit::Echo);
    let udp = Server::udp(&net.router, 5353, Habit::Echo);
    let configs = variations();
    let home = Installation::new(&configs[0]);
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    // Others that have to be carried along take the kernel time.
    let hosts: Vec<String> = (0..4000).map(|n| format!("198.18.{}.{}", n / 250, n % 250)).collect();
    add_elements(&net.router, "app_dns_4", &hosts, 3600);
    knock(&net.a, to, "ssh");
    let stream = dial(&net.a, (to, 2222).into(), Duration::from_secs(4)).unwrap();
    assert_echo(stream.try_clone().unwrap());

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&net.b, 5353, &stop));
        let dialling = scope.spawn(|| {
            let mut tries = 0;
            while !stop.load(Ordering::Relaxed) {
                let reached = dial(&net.b, (to, 2222).into(), Duration::from_millis(20));
                assert!(reached.is_err(), "after {tries} tries a probe reached the guarded port");
                tries += 1;
            }
        });
        let stopping = Stop(&stop);
        for round in 1..=12 {
            home.rewrite_config(configs[round % configs.len()].text());
            let said = agent.reload();
            assert!(said.contains("STATUS=guarding\n"), "round {round}: {said}\n{}", home.log());
            assert_echo(stream.try_clone().unwrap());
        }
        drop(stopping);
        dialling.join().unwrap();
        let sent = flooding.join().unwrap();
        assert!(sent > 10_000, "a flood of {sent} is none");
    });
    assert_eq!(udp.last_heard(), None, "a datagram of a stranger reached the guarded port");
    assert!(tcp.last_heard().is_some(), "the granted client was heard");
    assert!(time_left(&net.router, "dns", "198.18.3.7".parse().unwrap()).is_some(), "nobody was lost");
}

fn what_a_reload_leaves_is_what_a_fresh_start_makes() {
    let net = Topology::new();
    let configs = variations();
    let home = Installation::new(&configs[0]);
    let agent = home.start(&net.router);
    let mut reloaded = Vec::new();
    for config in &configs {
        home.rewrite_config(config.text());
        agent.reload();
        reloaded.push(sorted(&table(&net.router)));
    }
    agent.terminate();
    for (config, reloaded) in configs.iter().zip(reloaded) {
        remove_guard(&net.router);
        home.rewrite_config(config.text());
        let agent = home.start(&net.router);
        assert_eq!(sorted(&table(&net.router)), reloaded, "{}", config.text());
        agent.terminate();
    }
}

/// The objects of a table, whose order is that in which they were made.
fn sorted(table: &str) -> Vec<String> {
    let mut objects: Vec<String> = table.split("\n\t}\n").map(|text| text.trim().to_owned()).collect();
    objects.sort();
    objects
}

fn a_running_grant_keeps_its_time_through_every_kind_of_change() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let ssh = |global: &[&str], port: &str, duration: &str| {
        Config::new(global).app("ssh", port, "tcp", "local", &[&format!("duration: {duration}")])
    };
    let home = Installation::new(&ssh(&[], "2222", "16"));
    let agent = home.start(&net.router);
    let due = Family::BOTH.map(|family| {
        knock(&net.a, family.router(), "ssh");
        Instant::now() + Duration::from_secs(16)
    });
    let stream = dial(&net.a, (Family::V4.router(), 2222).into(), Duration::from_secs(4)).unwrap();
    for (what, config) in [
        ("an app more", ssh(&[], "2222", "16").app("web", "3333", "tcp", "local", &[])),
        ("a range of ports", ssh(&[], "[2222, \"3000-3010\"]", "16")),
        ("another mark", ssh(&["mark: 77"], "[2222, \"3000-3010\"]", "16")),
        ("a shorter duration", ssh(&[], "2222", "1")),
    ] {
        let left = |family: Family| time_left(&net.router, "ssh", family.client_a());
        let before = Family::BOTH.map(left);
        let then = Instant::now();
        home.rewrite_config(config.text());
        agent.reload();
        let passed = then.elapsed();
        for (before, after) in before.into_iter().zip(Family::BOTH.map(left)) {
            let (before, after) = (before.expect(what), after.expect(what));
            // ipset lists whole seconds.
            let slack = Duration::from_millis(if Backend::current().is_iptables() { 1_700 } else { 700 });
            assert!(after <= before && after + passed + slack >= before, "{what}: {before:?} to {after:?}");
        }
        assert_echo(stream.try_clone().unwrap());
        assert_silent(&net.b, Family::V4.router(), 2222);
    }
    for (family, due) in Family::BOTH.into_iter().zip(due) {
        let late = due + Duration::from_secs(3);
        assert_on_time(when_silent(&net.a, family.router(), 2222, late), due);
    }
}

fn the_grants_of_an_app_and_of_a_key_go_with_them_and_no_others() {
    let net = Topology::new();
    let _services = [2222, 3333, 4444].map(|port| Server::tcp(&net.router, port, Habit::Echo));
    let keys = |list: &[&str]| {
        let mut text = Config::new(&[]).app("old", "4444", "tcp", "local", &["duration: 600"]);
        if list.len() < 3 {
            text = Config::new(&[]);
        }
        let text = text.app("web", "3333", "tcp", "local", &["duration: 600"]);
        let mut text = text.app("ssh", "2222", "tcp", "local", &["duration: 600"]).text().to_owned();
        let old = format!("  access_key_https:\n    - {}\n", https_key("ssh"));
        let new: String = list.iter().map(|name| format!("    - second-key-of-ssh-{name}\n")).collect();
        text = text.replace(&old, &format!("  access_key_https:\n{new}"));
        text
    };
    let home = Installation::with_text(&keys(&["one", "two", "three"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    let enter = |from: &Namespace, key: &str| {
        step1(from, to, "ssh");
        post_step2(from, to, STEP2_PATH, &form("ssh", &format!("second-key-of-ssh-{key}")), &[])
    };
    assert_step2_answers(enter(&net.a, "two"), 200);
    assert_step2_answers(enter(&net.b, "three"), 200);
    for app in ["old", "web"] {
        knock(&net.a, to, app);
    }
    home.grant(&net.router, "ssh", "198.51.100.9", 600);
    let stream = dial(&net.a, (to, 2222).into(), Duration::from_secs(4)).unwrap();
    assert_echo(stream.try_clone().unwrap());

    // Without `two` and without the app `old`; `three` is the first now.
    home.rewrite_config(&keys(&["three", "new"]));
    agent.reload();
    assert_silent(&net.a, to, 2222);
    assert_cut(stream);
    assert_eq!(time_left(&net.router, "ssh", Family::V4.client_a()), None);
    assert_echoes(&net.b, to, 2222);
    assert_echoes(&net.a, to, 3333);
    assert_open(&net.b, to, 4444);
    assert!(time_left(&net.router, "ssh", "198.51.100.9".parse().unwrap()).is_some(), "the operator's grant");
    assert_by(&home, &net, Family::V4.client_b(), "key 1");
    assert!(!has_set(&net.router, "app_old_4"));

    // The name follows the key also after a restart, and so does its end.
    agent.terminate();
    let agent = home.start(&net.router);
    assert_by(&home, &net, Family::V4.client_b(), "key 1");
    home.rewrite_config(&keys(&["new"]));
    agent.reload();
    assert_silent(&net.b, to, 2222);
    assert_step2_answers(enter(&net.b, "three"), 403);
    assert_step2_answers(enter(&net.b, "new"), 200);
    assert_echoes(&net.b, to, 2222);
}

#[track_caller]
fn assert_by(home: &Installation, net: &Topology, address: std::net::IpAddr, who: &str) {
    let status = home.verb(&net.router, &["status"]).success().text();
    let line = status.lines().find(|line| line.contains(&address.to_string()));
    assert!(line.is_some_and(|line| line.contains(who)), "{who} at {address}:\n{status}");
}

#[track_caller]
fn assert_cut(mut stream: std::net::TcpStream) {
    use std::io::{Read, Write};
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(b"still there").unwrap();
    assert!(stream.read_exact(&mut [0]).is_err(), "the stream of a key that is no more goes on");
}

#[test]
fn a_bad_configuration_is_refused_as_a_whole_and_the_old_one_goes_on() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 600"]));
    let mut agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let guard = table(&net.router);
    let good = Config::ssh(&[]).app("web", "3333", "tcp", "local", &[]);
    let wrong_key = good.text().replace(&http_key("web"), "tooshort1");
    let folder = home.path("2fa");
    home.folder().write(&format!("2fa/{}.json", https_key("web")), "{\"secret\": \"###\"}");
    let line = format!("2fa_config_folder: {}", folder.display());
    let wrong_2fa = Config::new(&[&line]).app("web", "3333", "tcp", "local", &[]);
    for (bad, complaint) in [
        ("", "config.yaml"),
        ("global: nonsense\n", "config.yaml:1:9: error"),
        (&wrong_key, "web.access_key_http"),
        (&good.text().replace("port: 3333", "port: 8443"), "web.port"),
        (&format!("{}  colour: red\n", good.text()), "colour"),
        (wrong_2fa.text(), "2FA file of web's https key 1"),
    ] {
        home.rewrite_config(bad);
        let logged = home.log().len();
        let said = agent.reload();
        assert!(said.contains("refused"), "{complaint}: {said}");
        let log = home.log()[logged..].to_owned();
        assert!(log.contains("WARN") && log.contains(complaint), "{complaint}:\n{log}");
        for secret in ["tooshort1", "first-key-of", "second-key-of", STEP1_PATH, STEP2_PATH] {
            assert!(!log.contains(secret), "{secret} is in the log:\n{log}");
        }
        assert_eq!(table(&net.router), guard, "{complaint}");
    }
    fs::remove_file(home.path("config.yaml")).unwrap();
    assert!(agent.reload().contains("refused"));
    assert!(agent.is_alive());
    assert_echoes(&net.a, to, 2222);
    assert_silent(&net.b, to, 2222);
    knock(&net.b, to, "ssh");
    assert_echoes(&net.b, to, 2222);
}

#[test]
fn when_the_kernel_refuses_everything_stays_as_it_was() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 600"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    knock(&net.a, to, "ssh");
    let guard = table(&net.router);
    // A hook takes 1024 chains (MAX_HOOK_COUNT), and forwarding takes one more.
    let chain = |n| {
        format!("add chain inet full c{n} {{ type filter hook prerouting priority 0; policy accept; }}\n")
    };
    net.router.nft(&format!("add table inet full\n{}", (0..1000).map(chain).collect::<String>()));
    let full =
        (1000..1024).find(|&n| net.router.feed("nft", &["-f", "-"], chain(n).as_bytes()).code != Some(0));
    assert!(full.is_some(), "the hook is full");

    let ranged = Config::new(&[]).app("ssh", "[2222, \"3000-3010\"]", "tcp", "local", &["duration: 1"]);
    let forwarded = ranged.app("lan", "7000", "tcp", "10.0.0.5", &[]);
    home.rewrite_config(&forwarded.text().replace(&https_key("ssh"), "another-second-key"));
    let said = agent.reload();
    assert!(said.contains("refused"), "{said}\n{}", home.log());
    assert!(home.log().contains("WARN not reloaded: the kernel refused to"), "{}", home.log());
    assert_eq!(table(&net.router), guard);
    let left = time_left(&net.router, "ssh", Family::V4.client_a()).expect("the grant stays");
    assert!(left > Duration::from_secs(500), "{left:?}");
    assert_echoes(&net.a, to, 2222);
    knock(&net.b, to, "ssh");

    net.router.nft("delete table inet full");
    assert!(agent.reload().contains("STATUS=guarding\n"));
    assert_silent(&net.a, to, 2222);
}

#[test]
fn new_paths_and_keys_work_and_the_old_ones_do_not() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 600", "step2_https_duration: 30"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    let changed = Config::ssh(&["duration: 600", "step2_https_duration: 30"])
        .text()
        .replace(STEP1_PATH, "/another-first-step-1234")
        .replace(STEP2_PATH, "/another-second-step-5678")
        .replace(&http_key("ssh"), "another-first-key")
        .replace(&https_key("ssh"), "another-second-key");
    home.rewrite_config(&changed);
    agent.reload();
    let client = Family::V4.client_a();
    step1(&net.a, to, "ssh");
    post_step1(&net.a, to, STEP1_PATH, &form("ssh", "another-first-key"));
    post_step1(&net.a, to, "/another-first-step-1234", &form("ssh", &http_key("ssh")));
    assert_eq!(admission_left(&net.router, client), None, "an old path or key");
    post_step1(&net.a, to, "/another-first-step-1234", &form("ssh", "another-first-key"));
    assert!(admission_left(&net.router, client).is_some(), "the new path and key");
    assert_step2_answers(step2(&net.a, to, "ssh"), 404);
    let second = |key: &str| post_step2(&net.a, to, "/another-second-step-5678", &form("ssh", key), &[]);
    assert_step2_answers(second(&https_key("ssh")), 403);
    assert_step2_answers(second("another-second-key"), 200);
    assert_echoes(&net.a, to, 2222);
}

/// The certificate that step 2 shows, as PEM.
fn shown(from: &Namespace) -> String {
    let at = format!("{}:{STEP2_PORT}", in_url(Family::V4.router()));
    let done = from.run("openssl", &["s_client", "-connect", &at, "-showcerts"]);
    let text = done.text();
    let begin = text.find("-----BEGIN CERTIFICATE-----").expect("a certificate");
    let end = text.find("-----END CERTIFICATE-----").expect("its end");
    text[begin..end].to_owned()
}

fn new_certificate(home: &Installation, host: &Namespace) {
    for name in ["cert.pem", "key.pem"] {
        fs::remove_file(home.path(name)).unwrap();
    }
    let mut command = std::process::Command::new(crate::agent::PROGRAM);
    command.arg("cert").arg("--cert").arg(home.path("cert.pem")).arg("--key").arg(home.path("key.pem"));
    host.finish(command, b"", Duration::from_secs(20)).success();
}

#[test]
fn a_new_certificate_is_served_and_a_connection_from_before_finishes() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["step2_https_duration: 60"]));
    let agent = home.start(&net.router);
    let to = Family::V4.router();
    step1(&net.a, to, "ssh");
    let before = shown(&net.a);
    let mut open = Tls::connect(&net.a, to, &[]);
    let whole = request(&format!("POST {STEP2_PATH}"), &form("ssh", &https_key("ssh")));
    let (first, rest) = whole.split_at(20);
    assert!(open.send(first.as_bytes()));
    sleep(Duration::from_millis(300));

    new_certificate(&home, &net.router);
    agent.reload();
    assert!(open.send(rest.as_bytes()));
    let answer = open.rest(Duration::from_secs(8));
    let answer = String::from_utf8_lossy(&answer);
    // The reload forgets who passed step 1, so the answer is that of a wrong key; but it is an answer.
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let after = shown(&net.a);
    assert!(after != before && fs::read_to_string(home.path("cert.pem")).unwrap().contains(&after));

    home.folder().write("key.pem", "torn");
    agent.reload();
    assert_eq!(shown(&net.a), after, "a bad pair is not taken");
    assert!(home.log().contains("the new certificate cannot be used"), "{}", home.log());
}

#[test]
fn sigterm_ends_the_daemon_also_in_the_middle_of_reloads() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let configs = variations();
    let home = Installation::new(&configs[0]);
    for round in 0..8 {
        let agent: Agent = home.start(&net.router);
        home.rewrite_config(configs[round % configs.len()].text());
        for _ in 0..3 {
            agent.signal(Signal::SIGHUP);
        }
        sleep(Duration::from_millis(3 * u64::try_from(round).unwrap()));
        if round % 2 == 0 {
            agent.terminate()
        } else {
            agent.kill()
        }
        assert_silent(&net.b, Family::V4.router(), 2222);
    }
}

fn the_plan_that_was_reloaded_is_the_last_good_one() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 3333, Habit::Echo);
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    home.rewrite_config(Config::ssh(&[]).app("web", "3333", "tcp", "local", &[]).text());
    agent.reload();
    let guard = sorted(&table(&net.router));
    agent.kill();
    remove_guard(&net.router);
    assert_open(&net.a, Family::V4.router(), 3333);
    home.rewrite_config("global: nonsense\n");
    home.guard(&net.router).success();
    assert_eq!(sorted(&table(&net.router)), guard);
    assert_silent(&net.a, Family::V4.router(), 3333);
}

#[test]
fn a_reload_takes_no_state_file_where_it_could_not_be_written() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let agent = home.start(&net.router);
    let with = |path: &std::path::Path| {
        let line = format!("state_file: {}", path.display());
        Config::new(&[&line]).app("ssh", "2222", "tcp", "local", &[]).text().to_owned()
    };
    fs::create_dir(home.path("elsewhere")).unwrap();
    home.rewrite_config(&with(&home.path("elsewhere/grants")));
    let said = agent.reload();
    assert!(said.contains("guarding by the configuration of before"), "{said}");
    assert!(home.log().contains("restart knock-agent"), "{}", home.log());
    let ill = home.check(&net.router, &["health"]).exits(1).text();
    assert!(ill.contains("restart knock-agent for it") && !ill.contains("): reload"), "{ill}");

    let file = home.path("state/grants");
    home.rewrite_config(&with(&file));
    let said = agent.reload();
    assert!(said.contains("STATUS=guarding\n"), "{said}\n{}", home.log());
    knock(&net.a, Family::V4.router(), "ssh");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !file.exists() {
        assert!(Instant::now() < deadline, "it is not written");
        sleep(Duration::from_millis(50));
    }
}
