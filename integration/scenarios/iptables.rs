//! What iptables alone can get wrong: two families and the sets are no single transaction, others' programs do
//! the work, and somebody may have to be root for them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::agent::{Installation, PROGRAM};
use crate::backend::{Backend, on_both_iptables};
use crate::configuration::Config;
use crate::firewall::{everything, is_guarded, remove_guard, table, time_left};
use crate::knocking::knock;
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_open, assert_silent};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

on_both_iptables! {
    what_fails_half_way_is_undone,
    killed_after_any_step_no_port_opens_that_was_closed,
    a_set_that_somebody_flushed_gets_its_grants_back,
    grants_longer_than_ipset_counts_are_refused,
    what_iptables_cannot_do_is_refused_with_78,
    a_missing_program_is_named_with_its_package,
    through_sudo_a_user_without_capabilities_guards_and_opens,
    a_rule_of_sudo_for_the_programs_themselves_goes_on_and_is_warned_of,
    both_kinds_of_firewall_at_once_are_refused,
    the_printed_text_loads_to_the_rules_that_run_makes,
    a_host_that_drops_by_default_is_told_what_to_add,
    what_passed_is_told_by_status_and_figures,
}

fn what_passed_is_told_by_status_and_figures() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config =
        Config::new(&["metrics: {listen: \"127.0.0.1:9469\"}"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
    // Nobody sends anything any more, and it is looked at every second.
    std::thread::sleep(Duration::from_secs(3));
    let page =
        net.router.run("curl", &["-sS", "-f", "-m", "20", "http://127.0.0.1:9469/metrics"]).success().text();
    // The programs' own listing is the judge.
    let save = Backend::current().program('4', "save");
    let listed = net.router.run(&save, &["-c"]).success().text();
    let packets = |rule: &str| {
        let line = listed.lines().find(|line| line.contains("-A KA-svc_tcp_2222 ") && line.contains(rule));
        let line = line.unwrap_or_else(|| panic!("no {rule} in\n{listed}"));
        line.trim_start_matches('[').split(':').next().unwrap().parse::<u64>().unwrap()
    };
    let (granted, dropped) = (packets("ka:grant:ssh"), packets("ka:drop:tcp_2222"));
    assert!(granted >= 3 && dropped >= 1, "{listed}");
    let told: serde_json::Value =
        serde_json::from_slice(&home.verb(&net.router, &["status", "--json"]).success().stdout).unwrap();
    let ssh = &told["traffic"][0];
    assert_eq!((ssh["packets_in"].as_u64(), ssh["packets_dropped"].as_u64()), (Some(granted), Some(dropped)));
    assert!(ssh["packets_out"].as_u64() >= Some(2), "{ssh}");
    for (rule, verdict, count) in [("grant:ssh", "other", granted), ("drop:tcp_2222", "drop", dropped)] {
        let figure = format!(
            "knock_agent_rule_packets_total{{chain=\"svc_tcp_2222\",rule=\"{rule}\",verdict=\"{verdict}\"}} {count}"
        );
        assert!(page.lines().any(|line| line == figure), "no {figure} in\n{page}");
    }
    assert!(page.contains("knock_agent_guarded 1"), "{page}");
}

/// A folder to be mounted over `/usr/sbin`, in which one program is another.
struct Programs<'a>(&'a Path);

impl<'a> Programs<'a> {
    fn new(folder: &'a Path) -> Self {
        let sbin = folder.join("sbin");
        fs::create_dir(&sbin).unwrap();
        fs::set_permissions(&sbin, fs::Permissions::from_mode(0o755)).unwrap();
        for program in ["xtables-legacy-multi", "xtables-nft-multi", "ipset"] {
            let copied = Command::new("cp").arg(Path::new("/usr/sbin").join(program)).arg(&sbin).status();
            assert!(copied.unwrap().success(), "{program}");
        }
        for stem in ["iptables", "ip6tables"] {
            for variant in ["legacy", "nft"] {
                for verb in ["restore", "save"] {
                    let name = format!("{stem}-{variant}-{verb}");
                    symlink(format!("xtables-{variant}-multi"), sbin.join(name)).unwrap();
                }
            }
        }
        Self(folder)
    }

    fn path(&self, program: &str) -> std::path::PathBuf {
        self.0.join("sbin").join(program)
    }

    /// Has the `number`th change of tables end as `then` says; the others go their way.
    fn interrupt(&self, number: usize, then: &str) {
        let counter = self.0.join("count");
        let _ = fs::remove_file(&counter);
        for stem in ["iptables", "ip6tables"] {
            let name = Backend::current().program(if stem == "iptables" { '4' } else { '6' }, "restore");
            let multi = if Backend::current() == Backend::IptablesNft { "nft" } else { "legacy" };
            let _ = fs::remove_file(self.path(&name));
            // What is only tested is not counted.
            let script = format!(
                "#!/bin/sh\ncase \"$*\" in *--test*) exec /usr/sbin/xtables-{multi}-multi {stem}-restore \"$@\";; esac\n\
                 echo x >> {counter}\n\
                 if [ $(wc -l < {counter}) = {number} ]; then {then}; fi\n\
                 exec /usr/sbin/xtables-{multi}-multi {stem}-restore \"$@\"\n",
                counter = counter.display()
            );
            fs::write(self.path(&name), script).unwrap();
            fs::set_permissions(self.path(&name), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// The number of changes of tables that were begun.
    fn begun(&self) -> usize {
        fs::read_to_string(self.0.join("count")).unwrap_or_default().lines().count()
    }

    /// A command in front of the agent that mounts it.
    fn mounted(&self) -> [String; 5] {
        let sbin = self.0.join("sbin");
        let script = format!("mount --bind {} /usr/sbin && exec \"$@\"", sbin.display());
        ["unshare".into(), "-m".into(), "sh".into(), "-c".into(), script]
    }

    fn guard(&self, home: &Installation, host: &Namespace) -> crate::process::Finished {
        let mounted = self.mounted();
        let mut words: Vec<&str> = mounted.iter().map(String::as_str).collect();
        words.push("sh");
        host.finish(home.guard_command(&words), b"", Duration::from_secs(30))
    }
}

/// Configurations that need changes of all tables of both families on the way from one to the other.
fn two_configurations() -> [Config; 2] {
    let lan = ["10.0.0.5", "\"fd00:5::5\""];
    [
        Config::ssh(&["duration: 60"]).app("lan", "2223", "tcp", lan[0], &[]).app(
            "lan6",
            "2224",
            "tcp",
            lan[1],
            &[],
        ),
        Config::new(&["mark: 77"])
            .app("ssh", "2222", "tcp", "local", &["duration: 60"])
            .app("web", "3333", "both", "local", &[])
            .app("lan", "2223", "both", lan[0], &[])
            .app("lan6", "2224", "both", lan[1], &[]),
    ]
}

fn what_fails_half_way_is_undone() {
    let net = Topology::new();
    let [one, other] = two_configurations();
    let home = Installation::new(&one);
    let programs = Programs::new(home.folder().path());
    let nothing = everything(&net.router);
    let fails = "cat >/dev/null; echo 'iptables-restore: not this time' >&2; exit 1";
    let mut number = 1;
    // From nothing to something: nothing stays.
    loop {
        programs.interrupt(number, fails);
        let done = programs.guard(&home, &net.router);
        if programs.begun() < number {
            break;
        }
        done.exits(69);
        assert_eq!(everything(&net.router), nothing, "failed at change {number}");
        number += 1;
    }
    assert!(number >= 4, "there were {} changes only", number - 1);
    assert!(is_guarded(&net.router));
    // From one to another: the one stays, with its grants.
    home.grant(&net.router, "ssh", Family::V4.client_a(), 600);
    let before = table(&net.router);
    home.rewrite_config(other.text());
    number = 1;
    loop {
        programs.interrupt(number, fails);
        let done = programs.guard(&home, &net.router);
        if programs.begun() < number {
            break;
        }
        // Then the last good plan is put in force, which is the one that is there.
        assert!(done.stderr.contains("not this time"), "{}", done.stderr);
        assert_eq!(table(&net.router), before, "failed at change {number}");
        assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some());
        number += 1;
    }
    assert!(number >= 4 && table(&net.router) != before);
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_some(), "a grant outlasts all of it");
}

fn killed_after_any_step_no_port_opens_that_was_closed() {
    let net = Topology::new();
    let _services = [
        Server::tcp(&net.router, 2222, Habit::Echo),
        Server::tcp(&net.lan, 2223, Habit::Echo),
        Server::tcp(&net.lan, 2224, Habit::Echo),
    ];
    let configs = two_configurations();
    let home = Installation::new(&configs[0]);
    let programs = Programs::new(home.folder().path());
    home.guard(&net.router).success();
    let closed = || {
        for family in Family::BOTH {
            assert_silent(&net.b, family.router(), 2222);
        }
        assert_silent(&net.b, Family::V4.lan(), 2223);
        assert_silent(&net.b, Family::V6.lan(), 2224);
    };
    for (before, after) in [(0, 1), (1, 0)] {
        let mut number = 1;
        loop {
            home.rewrite_config(configs[before].text());
            home.guard(&net.router).success();
            home.rewrite_config(configs[after].text());
            // The change itself is carried out or not, by turns; then its parent dies.
            let carried_out = number % 2 == 0;
            let then = if carried_out {
                let multi = if Backend::current() == Backend::IptablesNft { "nft" } else { "legacy" };
                format!(
                    "case $0 in *ip6*) s=ip6tables;; *) s=iptables;; esac; /usr/sbin/xtables-{multi}-multi $s-restore \"$@\"; kill -9 $PPID; exit 1"
                )
            } else {
                "kill -9 $PPID; exit 1".to_owned()
            };
            programs.interrupt(number, &then);
            let _ = programs.guard(&home, &net.router);
            let finished = programs.begun() < number;
            closed();
            if finished {
                break;
            }
            number += 1;
        }
        assert!(number >= 4, "there were {} changes only", number - 1);
    }
    home.guard(&net.router).success();
    let agent = home.start(&net.router);
    knock(&net.a, Family::V6.router(), "ssh");
    assert_echoes(&net.a, Family::V6.router(), 2222);
    agent.terminate();
    home.verb(&net.router, &["teardown"]).success();
    assert_open(&net.b, Family::V4.router(), 2222);
}

fn a_set_that_somebody_flushed_gets_its_grants_back() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let _agent = home.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    for words in [&["flush", "ka_app_ssh_4"][..], &["flush"]] {
        net.router.run("ipset", words).success();
        assert_silent(&net.a, Family::V4.router(), 2222);
        std::thread::sleep(Duration::from_millis(2_500));
        assert_echoes(&net.a, Family::V4.router(), 2222);
        let left = time_left(&net.router, "ssh", Family::V4.client_a()).expect("the grant is back");
        assert!(left < Duration::from_secs(59), "{left:?}");
    }
    // The plain "flush everything" of old scripts concerns one table only, and not the gate's.
    for family in ['4', '6'] {
        net.router.run(&Backend::current().program(family, ""), &["-w", "-F"]).success();
    }
    assert_silent(&net.b, Family::V4.router(), 2222);
}

fn grants_longer_than_ipset_counts_are_refused() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 24d", "max_duration: 24d"]));
    let agent = home.start(&net.router);
    for run in 0..2 {
        let done = home.verb(&net.router, &["grant", "ssh", "203.0.113.2", "--for", "25d"]).exits(2);
        assert!(done.stderr.contains("2147483 s"), "{run}: {}", done.stderr);
        let done = home.verb(&net.router, &["allow", "198.51.100.0/24", "--for", "60d"]).exits(2);
        assert!(done.stderr.contains("2147483 s"), "{run}: {}", done.stderr);
        home.verb(&net.router, &["grant", "ssh", "203.0.113.3", "--for", "24d"]).success();
        if run == 0 {
            home.verb(&net.router, &["revoke", "--all"]).success();
        }
    }
    assert!(time_left(&net.router, "ssh", Family::V4.client_a()).is_none());
    agent.terminate();
}

fn what_iptables_cannot_do_is_refused_with_78() {
    let net = Topology::new();
    let odd = Config::ssh(&[]).text().replace("interface_ext: ext0", "interface_ext: \"ext+\"");
    for (text, words) in
        [(Config::ssh(&["duration: 30d"]).text().to_owned(), "2147483 s"), (odd, "interface_ext ext+")]
    {
        let home = Installation::with_text(&text);
        let done = home.run_in_vain(&net.router).exits(78);
        assert!(done.stderr.contains(words), "{}", done.stderr);
        home.guard(&net.router).exits(78);
        home.check(&net.router, &["check-ruleset"]).exits(78);
        assert!(home.check(&net.router, &["check-config"]).exits(78).stderr.contains(words));
        for verb in ["check-config", "check-ruleset"] {
            let told: serde_json::Value =
                serde_json::from_slice(&home.check(&net.router, &[verb, "--json"]).exits(78).stdout).unwrap();
            assert!(told["problems"][0]["message"].as_str().unwrap().contains(words), "{told:#}");
        }
        assert_eq!(everything(&net.router), "", "nothing was changed");
    }
    // The ports behind a proxy would not be guarded.
    let proxied = Config::new(&["step1_reply: http"]).app("ssh", "2222", "tcp", "local", &[]);
    let home = Installation::new(&proxied).flags(&["--waf-http-port", "80", "--waf-https-port", "443"]);
    let words = "for nftables only";
    assert!(home.run_in_vain(&net.router).exits(78).stderr.contains(words));
    for verb in ["check-config", "check-ruleset"] {
        assert!(home.check(&net.router, &[verb]).exits(78).stderr.contains(words), "{verb}");
    }
    assert_eq!(everything(&net.router), "", "nothing was changed");
}

fn a_missing_program_is_named_with_its_package() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let programs = Programs::new(home.folder().path());
    let restore = Backend::current().program('6', "restore");
    fs::rename(programs.path(&restore), home.path("aside")).unwrap();
    let done = programs.guard(&home, &net.router).exits(69);
    assert!(done.stderr.contains("apt-get install iptables"), "{}", done.stderr);
    assert_eq!(everything(&net.router), "");
    // What somebody else could have put there is not run.
    fs::rename(home.path("aside"), programs.path(&restore)).unwrap();
    fs::set_permissions(programs.path("ipset"), fs::Permissions::from_mode(0o777)).unwrap();
    // Lists of `-m recent` stand in for ipset.
    let done = programs.guard(&home, &net.router).success();
    assert!(done.stderr.contains("apt-get install ipset"), "{}", done.stderr);
    home.verb(&net.router, &["teardown"]).success();
    assert_eq!(everything(&net.router), "");
}

/// Where the program is installed for these tests.
const INSTALLED: &str = "/usr/local/sbin/knock-agent";

/// A command in front of another: it is `nobody` without capabilities, whom sudo allows what that text says; with this
/// program installed.
fn as_nobody_with(home: &Installation, sudoers: &str) -> Vec<String> {
    let folder = home.path("sudoers.d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("knock-agent"), sudoers).unwrap();
    fs::set_permissions(folder.join("knock-agent"), fs::Permissions::from_mode(0o440)).unwrap();
    let mounted = format!(
        "mount --bind {} /etc/sudoers.d && mount -t tmpfs -o mode=755 none /usr/local/sbin && touch {INSTALLED} \
         && mount --bind {PROGRAM} {INSTALLED} && exec \"$@\"",
        folder.display()
    );
    let before = ["unshare", "-m", "sh", "-c", &mounted, "sh"];
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    before.iter().chain(&nobody).map(|word| (*word).to_owned()).collect()
}

fn a_rule_of_sudo_for_the_programs_themselves_goes_on_and_is_warned_of() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"])).for_nobody().flags(&["--use-sudo"]);
    let text = "nobody ALL = (root) NOPASSWD: /usr/sbin/ipset, /usr/sbin/iptables-*, /usr/sbin/ip6tables-*\n";
    let words = as_nobody_with(&home, text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let home = home.wrapper(&words);
    let agent = home.start(&net.router);
    assert!(home.log().contains("is as good as root"), "{}", home.log());
    assert_silent(&net.b, Family::V4.router(), 2222);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    agent.terminate();
}

fn through_sudo_a_user_without_capabilities_guards_and_opens() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let given = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/sudoers.d/knock-agent-iptables");
    let visudo = Command::new("visudo").args(["-c", "-f"]).arg(&given).status().unwrap();
    assert!(visudo.success(), "visudo -c");
    let text = fs::read_to_string(&given).unwrap();
    let commands = text.lines().filter(|line| !line.starts_with('#')).collect::<String>();
    assert!(!commands.contains(['*', '?', '[', '!']), "a wildcard in {commands}");
    let text = text.replace("knock-agent ALL", "nobody ALL").replace("/usr/bin/knock-agent", INSTALLED);
    assert!(text.contains("nobody ALL") && text.contains(INSTALLED));
    let app = Config::ssh(&["duration: 60", "sequence: {knocks: [tcp/1234, udp/5678]}"]);
    let home = Installation::new(&app).for_nobody().flags(&["--use-sudo"]);
    let words = as_nobody_with(&home, &text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let home = home.wrapper(&words);
    let agent = home.start(&net.router);
    let pid = agent.pid().to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    for family in Family::BOTH {
        assert_silent(&net.b, family.router(), 2222);
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
    }
    net.router.run("ipset", &["flush", "ka_app_ssh_4"]).success();
    std::thread::sleep(Duration::from_secs(8));
    assert_echoes(&net.a, Family::V4.router(), 2222);
    // Nothing else is allowed to it.
    let sudo = |command: &str| {
        let mut all = words.clone();
        all.extend(["sudo", "-n"]);
        all.extend(command.split(' '));
        net.router.run(all[0], &all[1..]).code
    };
    let part = format!("{INSTALLED} iptables-as-root");
    assert_eq!(sudo(&format!("{part} ipset list -n")), Some(0));
    for command in [
        "/usr/sbin/ipset list -n",
        "/usr/sbin/ipset restore -exist",
        "/usr/sbin/iptables-legacy-restore --noflush -w 10",
        "/usr/sbin/iptables -F",
        &format!("{part} ipset flush"),
        &format!("{part} ipset list"),
        INSTALLED,
        "id",
    ] {
        assert_ne!(sudo(command), Some(0), "{command}");
    }
    // Nor is a file written, a program started, or anything of others changed.
    net.router.run("ipset", &["create", "theirs", "hash:ip"]).success();
    let file = home.path("written");
    fs::write(home.path("program"), format!("#!/bin/sh\ntouch {}\n", file.display())).unwrap();
    fs::set_permissions(home.path("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let restore = Backend::current().program('4', "restore") + " --noflush -w 10";
    for (arguments, input) in [
        ("ipset -", format!("save -file {}\n", file.display())),
        ("ipset restore -exist", format!("create ka_x hash:ip\nsave -file {}\n", file.display())),
        ("ipset restore -exist", "destroy theirs\n".to_owned()),
        (
            &restore,
            format!("*raw\n:KA-x - [0:0]\n-A KA-x -M {} -j DROP\nCOMMIT\n", home.path("program").display()),
        ),
        (&restore, "*filter\n-A INPUT -j DROP\nCOMMIT\n".to_owned()),
    ] {
        let command = format!("{part} {arguments}");
        let mut all = words.clone();
        all.extend(["sudo", "-n"]);
        all.extend(command.split(' '));
        let done = net.router.feed(all[0], &all[1..], input.as_bytes());
        assert_eq!(done.code, Some(77), "{command}: {}", done.stderr);
    }
    assert!(!file.exists());
    net.router.run("ipset", &["list", "theirs"]).success();
    agent.terminate();
}

fn both_kinds_of_firewall_at_once_are_refused() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    Backend::Nftables.run(|| drop(home.guard(&net.router).success()));
    let done = home.run_in_vain(&net.router).exits(78);
    assert!(done.stderr.contains("knock-agent teardown"), "{}", done.stderr);
    assert_eq!(everything(&net.router), "", "no rules of iptables");
    home.verb(&net.router, &["teardown"]).success();
    home.start(&net.router).terminate();
}

fn the_printed_text_loads_to_the_rules_that_run_makes() {
    for config in two_configurations() {
        let net = Topology::new();
        let home = Installation::new(&config);
        let print = ["check-ruleset", "--print", "iptables"];
        let text = home.check(&net.router, &print).success().text();
        let offline = home.check(&net.router, &["check-ruleset", "--offline", "--print", "iptables"]);
        assert_eq!(offline.success().text(), text);
        assert_eq!(everything(&net.router), "", "nothing was changed");
        let agent = home.start(&net.router);
        let fresh = Namespace::new("fresh");
        let parts: Vec<&str> = text.split("# for ").collect();
        let body = |part: &str| part.split_once('\n').map(|(_, body)| body.to_owned()).unwrap();
        fresh.feed("ipset", &["restore", "-exist"], body(parts[1]).as_bytes()).success();
        for (family, part) in [('4', parts[2]), ('6', parts[3])] {
            let restore = Backend::current().program(family, "restore");
            fresh.feed(&restore, &["--noflush", "-w"], body(part).as_bytes()).success();
        }
        assert_eq!(table(&fresh), table(&net.router));
        // The words are those of the listing, so that what others edit is found.
        home.check(&net.router, &["check-ruleset", "--diff-exit"]).success();
        agent.terminate();
        remove_guard(&net.router);
    }
}

fn a_host_that_drops_by_default_is_told_what_to_add() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    let iptables = |line: &str| {
        let command = Backend::current().program('4', "");
        let words: Vec<&str> = ["-w"].into_iter().chain(line.split(' ')).collect();
        net.router.run(&command, &words).success();
    };
    for line in ["-A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT", "-P INPUT DROP", "-P OUTPUT DROP"]
    {
        iptables(line);
    }
    let _agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_b(), 60);
    assert_silent(&net.b, Family::V4.router(), 2222);
    let report = home.check(&net.router, &["check-ruleset"]).success().text();
    let fixes: Vec<String> = report
        .lines()
        .filter_map(|line| line.trim().strip_prefix("fix: iptables ").map(str::to_owned))
        .collect();
    assert_eq!(fixes.len(), 2, "{report}");
    for fix in &fixes {
        iptables(fix);
    }
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_echoes(&net.b, Family::V4.router(), 2222);
    let again = home.check(&net.router, &["check-ruleset"]).success().text();
    assert!(!again.contains("fix: iptables"), "{again}");
}

#[test]
#[ignore = "needs a kernel without nf_tables: KERNEL_APPEND=modprobe.blacklist=nf_tables integration/kernel-6.1 no_nf_tables --ignored"]
fn where_there_is_no_nf_tables_iptables_is_chosen() {
    let net = Topology::new();
    assert_ne!(net.router.run("nft", &["list", "tables"]).code, Some(0), "this kernel has nf_tables");
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    // Without any flag about the firewall.
    let home = Installation::new(&Config::ssh(&["duration: 60"]));
    home.guard(&net.router).success();
    assert_silent(&net.b, Family::V4.router(), 2222);
    let agent = home.start(&net.router);
    assert!(home.log().contains("this kernel has no nf_tables"), "{}", home.log());
    for family in Family::BOTH {
        assert_silent(&net.b, family.router(), 2222);
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
    }
    home.check(&net.router, &["check-ruleset", "--diff-exit"]).success();
    agent.terminate();
    let asked = home.run_in_vain_with(&net.router, &["--nftables-chain-input", "input"]);
    assert_eq!(asked.code, Some(78), "{}", asked.stderr);
    let status = home.verb(&net.router, &["status", "--json"]).success().text();
    assert!(status.contains("\"backend\":\"iptables\"") && status.contains("203.0.113.2"), "{status}");
    home.verb(&net.router, &["revoke", "--all"]).success();
    assert_silent(&net.a, Family::V4.router(), 2222);
    home.verb(&net.router, &["teardown"]).success();
    assert_open(&net.a, Family::V4.router(), 2222);
}
