//! Little privilege is enough, and less is refused clearly.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::trial;
use crate::agent::Installation;
use crate::configuration::Config;
use crate::firewall::{everything, time_left};
use crate::front::{child_of, status_line};
use crate::knocking::knock;
use crate::probe::{assert_echoes, assert_silent};
use crate::process::Background;
use crate::server::{Habit, Server};
use crate::temporary::TempDir;
use crate::topology::{Family, Topology};

const NOBODY: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];

fn nobody_with(capabilities: &str) -> Vec<String> {
    let mut words: Vec<String> = NOBODY.iter().map(|&w| w.to_owned()).collect();
    if capabilities.is_empty() {
        words.extend(["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"].map(str::to_owned));
    } else {
        words.push(format!("--inh-caps=-all,{capabilities}"));
        words.push(format!("--ambient-caps=-all,{capabilities}"));
        words.push(format!("--bounding-set=-all,{capabilities}"));
    }
    words
}

fn as_nobody(capabilities: &str) -> Installation {
    let words = nobody_with(capabilities);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Installation::new(&Config::ssh(&["duration: 60"])).for_nobody().wrapper(&words)
}

#[test]
fn nobody_with_two_capabilities_can_run_everything() {
    let net = Topology::new();
    let _services = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = as_nobody("+net_admin,+net_bind_service");
    let agent = home.start(&net.router);
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    assert!(status.lines().any(|l| l.starts_with("Uid:\t65534\t65534")), "{status}");
    // Once the ports are bound, CAP_NET_ADMIN is all that is left.
    for set in ["CapEff", "CapPrm"] {
        assert!(status.lines().any(|l| l == format!("{set}:\t0000000000001000")), "{status}");
    }
    for family in Family::BOTH {
        assert_silent(&net.a, family.router(), 2222);
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
    home.verb(&net.router, &["status", "--json"]).success();
    agent.terminate();
    let agent = home.start(&net.router);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    agent.kill();
}

#[test]
fn the_process_that_puts_a_trial_back_has_one_capability_and_does_it_with_that() {
    let net = Topology::new();
    let before = everything(&net.router);
    let of_root = Installation::new(&Config::ssh(&["duration: 60"]));
    for home in [of_root, as_nobody("+net_admin,+net_bind_service")] {
        let mut agent = trial::start(&home, &net.router, "600s");
        let watcher = child_of(agent.0.id(), "put-back-unless-confirmed").expect("a process that waits");
        for (set, wanted) in [("Eff", 0x1000), ("Prm", 0x1000), ("Inh", 0), ("Amb", 0)] {
            let has = status_line(watcher, &format!("Cap{set}"));
            assert_eq!(has, Some(format!("{wanted:016x}")), "Cap{set}");
        }
        assert_eq!(status_line(watcher, "NoNewPrivs").as_deref(), Some("1"));
        agent.signal(Signal::SIGKILL);
        assert_eq!(trial::code(&mut agent), None);
        trial::eventually("it is put back", || everything(&net.router) == before);
        // One that hangs is ended, which takes no capability.
        let mut agent = trial::start(&home, &net.router, "2s");
        agent.signal(Signal::SIGSTOP);
        trial::eventually("it is put back", || everything(&net.router) == before);
        assert_eq!(trial::code(&mut agent), None, "{}", trial::log(&home));
    }
}

#[test]
fn root_leaves_what_it_writes_to_the_user_that_the_daemon_has_at_other_times() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&[]));
    let (folder, state) = (home.path("state"), home.path("state/grants"));
    std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).unwrap();
    let text = format!("state_file: {}", state.display());
    home.rewrite_config(Config::new(&[&text]).app("ssh", "2222", "tcp", "local", &[]).text());
    let mut agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 60);
    agent.reload();
    home.grant(&net.router, "ssh", Family::V6.client_a(), 60);
    assert!(agent.is_alive());
    let about = fs::metadata(&state).unwrap();
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (65534, 65534, 0o600));
    assert!(fs::read_to_string(&state).unwrap().contains(&Family::V6.client_a().to_string()));
}

#[test]
fn a_daemon_of_root_s_leaves_the_user_of_the_folder_all_that_a_daemon_of_his_takes() {
    let net = Topology::new();
    let _services = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&Config::ssh(&["duration: 60"])).for_nobody();
    let lock = home.path("run/lock");
    // A file that has another name elsewhere is not given away.
    fs::write(home.path("other"), "").unwrap();
    fs::hard_link(home.path("other"), &lock).unwrap();
    home.start(&net.router).kill();
    assert_eq!(fs::metadata(&lock).unwrap().uid(), 0);
    fs::remove_file(&lock).unwrap();

    let agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_a(), 60);
    agent.kill();
    let words = nobody_with("+net_admin,+net_bind_service");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let home = home.wrapper(&words);
    let agent = home.start(&net.router);
    assert_echoes(&net.a, Family::V4.router(), 2222);
    home.verb(&net.router, &["revoke", "--all"]).success();
    knock(&net.a, Family::V6.router(), "ssh");
    assert_echoes(&net.a, Family::V6.router(), 2222);
    assert_silent(&net.a, Family::V4.router(), 2222);
    agent.terminate();

    std::os::unix::fs::chown(&lock, Some(0), Some(0)).unwrap();
    let told = home.run_in_vain(&net.router).exits(77).stderr;
    assert!(told.contains("run/lock") && told.contains("can be removed while no daemon runs"), "{told}");
}

#[test]
fn without_net_admin_the_daemon_says_so_and_exits_77() {
    let net = Topology::new();
    let wrappers: [Vec<String>; 2] = [
        nobody_with("+net_bind_service"),
        ["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"].map(str::to_owned).to_vec(),
    ];
    for words in wrappers {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let home = Installation::new(&Config::ssh(&[])).for_nobody().wrapper(&words);
        let done = home.run_in_vain(&net.router).exits(77);
        assert!(done.stderr.to_lowercase().contains("net_admin"), "{}", done.stderr);
        assert_eq!(everything(&net.router).trim(), "");
    }
}

#[test]
fn without_net_bind_service_a_low_port_is_refused_with_77() {
    let net = Topology::new();
    let home = as_nobody("+net_admin").flags(&["--http-port", "80", "--https-port", "443"]);
    let done = home.run_in_vain(&net.router).exits(77);
    assert!(done.stderr.to_lowercase().contains("net_bind_service"), "{}", done.stderr);
    let high = as_nobody("+net_admin");
    let _agent = high.start(&net.router);
    knock(&net.a, Family::V4.router(), "ssh");
}

#[test]
fn low_ports_work_with_the_capability() {
    use crate::configuration::{STEP1_PATH, STEP2_PATH, http_key, https_key};
    use crate::knocking::form;
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = as_nobody("+net_admin,+net_bind_service").flags(&["--http-port", "80", "--https-port", "443"]);
    let _agent = home.start(&net.router);
    let to = Family::V4.router();
    let first = format!("http://{to}{STEP1_PATH}");
    net.a.run("curl", &["-sS", "-m", "1", "-d", &form("ssh", &http_key("ssh")), &first]).exits(28);
    let second = format!("https://{to}{STEP2_PATH}");
    let answer = net.a.run("curl", &["-sSk", "-m", "5", "-d", &form("ssh", &https_key("ssh")), &second]);
    assert_eq!(answer.success().text(), "OK\n");
    assert_echoes(&net.a, to, 2222);
}

#[test]
fn a_local_user_without_rights_gives_no_orders_whatever_the_socket_allows() {
    let net = Topology::new();
    let home = Installation::new(&Config::ssh(&["duration: 60"])).for_nobody();
    let _agent = home.start(&net.router);
    home.grant(&net.router, "ssh", Family::V4.client_b(), 60);
    let (run, socket) = (home.path("run"), home.path("run/control.sock"));
    let stranger = ["--reuid=65533", "--regid=65533", "--clear-groups"];
    let program = home.path("knock-agent");
    let ordered = |verb: &[&str]| {
        let program = [program.to_str().unwrap()];
        let more = ["--runtime-dir", run.to_str().unwrap()];
        net.router.run("setpriv", &[&stranger[..], &program, verb, &more].concat()).code
    };
    let (a, b) = (Family::V4.client_a(), Family::V4.client_b());
    for mode in [None, Some(0o666)] {
        if let Some(mode) = mode {
            fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(&socket, fs::Permissions::from_mode(mode)).unwrap();
        }
        for verb in [
            &["grant", "ssh", "203.0.113.2"][..],
            &["revoke", "ssh", "203.0.113.3"],
            &["revoke", "--all"],
            &["allow", "203.0.113.0/24"],
            &["teardown"],
        ] {
            assert_eq!(ordered(verb), Some(77), "{verb:?} with {mode:?}");
        }
        assert!(time_left(&net.router, "ssh", a).is_none() && time_left(&net.router, "ssh", b).is_some());
    }
}

/// A gateway on a host that has the operators' group, 64999.
fn with_operators() -> (TempDir, Installation) {
    let groups = TempDir::new();
    let file = groups.write("group", "root:x:0:\nknock-agent:x:64999:\n");
    let script = format!("mount --bind {} /etc/group && exec \"$0\" \"$@\"", file.display());
    let home =
        Installation::new(&Config::ssh(&["duration: 60"])).wrapper(&["unshare", "-m", "sh", "-c", &script]);
    (groups, home)
}

#[test]
fn an_operator_opens_and_closes_and_does_not_take_the_guard_down() {
    let net = Topology::new();
    let (_groups, home) = with_operators();
    let _agent = home.start(&net.router);
    let asked = |who: u32, request: &str| {
        // From inside its folder, whose parents root alone can enter.
        let ask = "import os, socket, sys\n\
                   s = socket.socket(socket.AF_UNIX)\n\
                   os.setgroups([])\n\
                   os.setgid(64999)\n\
                   os.chdir(sys.argv[1])\n\
                   os.setresuid(int(sys.argv[2]), int(sys.argv[2]), 0)\n\
                   s.connect('control.sock')\n\
                   s.sendall(sys.argv[3].encode() + b'\\n')\n\
                   print(s.makefile().readline(), end='')\n";
        let run = home.path("run");
        net.router
            .run("python3", &["-c", ask, run.to_str().unwrap(), &who.to_string(), request])
            .success()
            .text()
    };
    let run = home.path("run");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).unwrap();
    let client = Family::V4.client_a();
    let grant = format!("{{\"verb\":\"grant\",\"app\":\"ssh\",\"address\":\"{client}\",\"seconds\":60}}");
    assert!(asked(65534, &grant).contains("done"), "{}", home.log());
    assert!(time_left(&net.router, "ssh", client).is_some());
    for request in [
        "{\"verb\":\"teardown\"}",
        "{\"verb\":\"confirm\"}",
        "{\"verb\":\"allow\",\"network\":\"0.0.0.0/0\"}",
        "{\"verb\":\"allow\",\"network\":\"::/1\"}",
    ] {
        let told = asked(65534, request);
        assert!(told.contains("\"permission\"") && told.contains("takes root"), "{request}: {told}");
    }
    assert!(time_left(&net.router, "ssh", client).is_some(), "it all stands");
    assert_silent(&net.b, Family::V4.router(), 2222);
    assert!(asked(0, "{\"verb\":\"teardown\"}").contains("done"));
    assert_eq!(everything(&net.router).trim(), "");
}

/// Somebody who has taken the daemon's name, as whom `setpriv` makes them.
fn squatter(net: &Topology, who: &[&str]) -> Background {
    let squat = "import socket,time; s=socket.socket(socket.AF_UNIX); s.bind('\\0knock-agent'); s.listen(9); time.sleep(60)";
    let mut command = Command::new("setpriv");
    command.args(who).args(["/usr/bin/python3", "-c", squat]);
    let started = net.router.background(command);
    let end = Instant::now() + Duration::from_secs(10);
    while !net.router.run("ss", &["-xa"]).text().contains("@knock-agent") {
        assert!(Instant::now() < end, "nobody took the name");
        sleep(Duration::from_millis(20));
    }
    started
}

#[test]
fn an_operator_who_takes_the_daemon_s_name_does_not_keep_it_from_starting() {
    let net = Topology::new();
    let (_groups, home) = with_operators();
    // In a user namespace of one's own, one has all capabilities there.
    for inside in [&[][..], &["unshare", "--user", "--map-root-user"]] {
        let _squatter =
            squatter(&net, &[&["--reuid=65534", "--regid=64999", "--clear-groups"], inside].concat());
        let agent = home.start(&net.router);
        assert!(home.log().contains("ignored"), "{inside:?}: {}", home.log());
        agent.terminate();
    }
}

#[test]
fn where_proc_hides_others_it_is_told_all_the_same_who_can_guard() {
    let net = Topology::new();
    // As `ProtectProc=invisible` of the units does.
    let hide = "mount -t proc -o hidepid=invisible proc /proc && exec \"$0\" \"$@\"";
    let nobody = nobody_with("+net_admin,+net_bind_service");
    let mut words = vec!["unshare", "-m", "sh", "-c", hide];
    words.extend(nobody.iter().map(String::as_str));
    let home = Installation::new(&Config::ssh(&["duration: 60"])).for_nobody().wrapper(&words);
    let guard = || net.router.finish(home.guard_command(&words), b"", Duration::from_secs(20)).success();
    // Root of a container that shares the network.
    let powerless = squatter(&net, &["--bounding-set=-all", "--inh-caps=-all"]);
    let agent = home.start(&net.router);
    assert!(home.log().contains("ignored"), "{}", home.log());
    agent.kill();
    let text = Config::ssh(&[]).app("web", "3333", "tcp", "local", &[]);
    home.rewrite_config(text.text());
    guard();
    assert!(everything(&net.router).contains("3333"), "no daemon runs");
    drop(powerless);
    let agent = home.start(&net.router);
    home.rewrite_config(text.app("db", "4444", "tcp", "local", &[]).text());
    guard();
    assert!(!everything(&net.router).contains("4444"), "a daemon runs");
    let second = Installation::new(&Config::ssh(&[])).for_nobody().wrapper(&words);
    let second = second.run_in_vain(&net.router).exits(69);
    assert!(second.stderr.contains(&format!("pid {}", agent.pid())), "{}", second.stderr);
}

#[test]
fn what_the_daemon_s_user_starts_without_capabilities_does_not_take_the_guard_down() {
    let net = Topology::new();
    let home = as_nobody("+net_admin,+net_bind_service");
    let _agent = home.start(&net.router);
    let told = |who: &str, through: &[&str], verb: &[&str]| {
        let who = nobody_with(who);
        let [program, config, run] =
            ["knock-agent", "config.yaml", "run"].map(|name| home.path(name).to_str().unwrap().to_owned());
        let who: Vec<&str> = who.iter().map(String::as_str).collect();
        let more = ["--config", &config, "--runtime-dir", &run];
        net.router.run(who[0], &[&who[1..], through, &[&program], verb, &more].concat())
    };
    // In a user namespace of one's own, one has all capabilities there.
    for through in [&[][..], &["unshare", "--user"], &["unshare", "--user", "--map-root-user"]] {
        for verb in [&["teardown"][..], &["confirm"], &["allow", "0.0.0.0/0"]] {
            let refused = told("", through, verb).exits(77);
            assert!(refused.stderr.contains("takes root"), "{through:?} {verb:?}: {}", refused.stderr);
        }
    }
    // As an operator could.
    told("", &[], &["grant", "ssh", "203.0.113.2", "--for", "60s"]).success();
    assert_silent(&net.b, Family::V4.router(), 2222);
    // Who could do it without the daemon is the one to ask.
    told("+net_admin", &[], &["teardown"]).success();
    assert_eq!(everything(&net.router).trim(), "");
}
