//! What is shipped for OpenWrt: the script for procd, run by busybox's shell as OpenWrt has it, and what fw4 includes. procd,
//! UCI's reader and fw4 itself are stood in for; the program, the kernel and the clients are real.

use std::fs;
use std::path::{Path, PathBuf};

use crate::agent::{Installation, PROGRAM};
use crate::audit::{assert_quiet, host_rules, obstacles, remedy, start_fw4};
use crate::configuration::Config;
use crate::firewall::is_guarded;
use crate::knocking::knock;
use crate::machine::Machine;
use crate::probe::{assert_echoes, assert_silent};
use crate::process::Finished;
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

const INCLUDES: &str = "/usr/share/nftables.d/chain-pre";

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/openwrt/files")
}

fn config() -> Config {
    Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 60"]).app(
        "lan4",
        "2223",
        "tcp",
        "10.0.0.5:22",
        &["duration: 60"],
    )
}

/// Copies what is shipped into a machine, and fills in its UCI file.
fn install(machine: &Machine<'_>, home: &Installation, enabled: u8) {
    machine.sh(&format!("cp -R {}/etc {}/usr /", shipped().display(), shipped().display())).success();
    let path = |name: &str| home.path(name).display().to_string();
    let uci = fs::read_to_string(shipped().join("etc/config/knock-agent"))
        .unwrap()
        .replace("enabled '0'", &format!("enabled '{enabled}'"))
        .replace("/etc/knock-agent/config.yaml", &path("config.yaml"))
        .replace("option cert '/etc/knock-agent/cert.pem'", &format!("option cert '{}'", path("cert.pem")))
        .replace("option key '/etc/knock-agent/key.pem'", &format!("option key '{}'", path("key.pem")));
    machine.sh(&format!("cat > /etc/config/knock-agent <<'END'\n{uci}END\n")).success();
}

/// What `/etc/rc.common` has, as far as the script asks for it; what procd and the log are told goes to files.
const RC_COMMON: &str = r#"
config_load() { CONFIG=/etc/config/$1; }
config_get() {
    local found
    found=$(sed -n "s/^[[:space:]]*option $3 '\(.*\)'$/\1/p" "$CONFIG")
    eval "$1=\${found:-\${4:-}}"
}
config_get_bool() { config_get "$@"; }
config_list_foreach() {
    local each
    for each in $(sed -n "s/^[[:space:]]*list $2 '\(.*\)'$/\1/p" "$CONFIG"); do "$3" "$each"; done
}
logger() { echo "$*" >> /mnt/log; }
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_set_param() { echo "$*" >> /mnt/procd; }
procd_send_signal() { echo "signal $*" >> /mnt/procd; }
stop() { echo stop >> /mnt/procd; }
rm -f /mnt/procd /mnt/log
touch /mnt/procd /mnt/log
"#;

fn call(machine: &Machine<'_>, function: &str) -> Finished {
    let script = format!(
        "cat > /mnt/call <<'END'\n{RC_COMMON}\n. /etc/init.d/knock-agent\nPROGRAM={PROGRAM}\n{function}\nEND\n\
         busybox ash -u /mnt/call"
    );
    machine.sh(&script)
}

fn told(machine: &Machine<'_>, whom: &str) -> String {
    fs::read_to_string(machine.path(&format!("/mnt/{whom}"))).unwrap()
}

/// The command that procd would run.
fn command(machine: &Machine<'_>) -> Option<String> {
    told(machine, "procd").lines().find_map(|line| line.strip_prefix("command ").map(str::to_owned))
}

#[test]
fn what_openwrt_includes_is_what_check_ruleset_prints() {
    let net = Topology::new();
    let home = Installation::new(&config());
    let machine = Machine::new(&net.router);
    start_fw4(&machine);
    // Without an agent only the chain of what is for the router itself is told of: the other needs a LAN service.
    let found = obstacles(&home, &net.router);
    assert!(!found.is_empty());
    remedy(&machine, &found);
    let mut compared = Vec::new();
    for chain in ["input_wan", "forward_wan"] {
        let ours = fs::read_to_string(
            shipped().join(format!("usr/share/nftables.d/chain-pre/{chain}/knock-agent.nft")),
        );
        let printed = machine.path(&format!("{INCLUDES}/{chain}/knock-agent.nft"));
        let ours = ours.unwrap();
        assert_eq!(ours, "meta mark 24107 accept\n", "{chain}");
        if printed.exists() {
            assert_eq!(ours, fs::read_to_string(printed).unwrap(), "{chain}");
            compared.push(chain);
        }
    }
    assert!(compared.contains(&"input_wan"), "{compared:?}");
    assert!(host_rules("openwrt.nft").contains("chain forward_wan"));
}

#[test]
fn openwrt_s_script_starts_nothing_unless_enabled_and_then_closes_before_the_daemon_is_there() {
    let net = Topology::new();
    let _services = [Server::tcp(&net.router, 2222, Habit::Echo), Server::tcp(&net.lan, 22, Habit::Echo)];
    let home = Installation::new(&config());
    let machine = Machine::new(&net.router);
    install(&machine, &home, 0);
    call(&machine, "start_service").success();
    assert!(!is_guarded(&net.router) && command(&machine).is_none());

    install(&machine, &home, 1);
    start_fw4(&machine);
    machine.sh(&format!("cp -R {}/usr /", shipped().display())).success();
    call(&machine, "start_service").success();
    assert!(is_guarded(&net.router), "{}", told(&machine, "log"));
    assert_silent(&net.a, Family::V4.router(), 2222);
    let told_procd = told(&machine, "procd");
    for line in ["respawn 3600 1 0", "no_new_privs 1", "term_timeout 10"] {
        assert!(told_procd.lines().any(|have| have == line), "{told_procd}");
    }
    // What procd would start, with fw4's rules and the files that are shipped for it.
    let command = command(&machine).unwrap();
    machine.sh(&format!("({command} > /mnt/daemon 2>&1 &)\nfor n in $(seq 300); do {PROGRAM} status > /dev/null 2>&1 && break; sleep 0.1; done")).success();
    assert_quiet(&home, &net.router);
    knock(&net.a, Family::V4.router(), "ssh");
    assert_echoes(&net.a, Family::V4.router(), 2222);
    assert_silent(&net.b, Family::V4.router(), 2222);
    // What is for the LAN goes through the other chain.
    knock(&net.a, Family::V4.router(), "lan4");
    assert_echoes(&net.a, Family::V4.router(), 2223);
    assert_silent(&net.b, Family::V4.router(), 2223);
    call(&machine, "reload_service").success();
    assert_eq!(told(&machine, "procd"), "signal knock-agent\n");
    // procd starts a daemon that ends again, so it is told first that this one is to end.
    call(&machine, "teardown").success();
    assert_eq!(told(&machine, "procd"), "stop\n");
    assert!(!is_guarded(&net.router));
}

#[test]
fn openwrt_s_script_guards_by_the_last_good_plan_and_does_not_start_a_daemon_that_would_end() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let home = Installation::new(&config());
    let machine = Machine::new(&net.router);
    install(&machine, &home, 1);
    call(&machine, "start_service").success();
    net.router.run("nft", &["delete", "table", "inet", "knock_agent"]).success();
    home.rewrite_config("global: nonsense\n");
    call(&machine, "start_service").exits(1);
    assert!(is_guarded(&net.router) && command(&machine).is_none());
    assert_silent(&net.a, Family::V4.router(), 2222);
    assert!(told(&machine, "log").contains("NOT STARTED"), "{}", told(&machine, "log"));
}
