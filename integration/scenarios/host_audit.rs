//! Hosts with firewalls of their own: the dry run names what would defeat us, and what it says to do about it works.

use std::net::IpAddr;
use std::time::Duration;

use crate::agent::Installation;
use crate::audit::{assert_quiet, find, findings, host_rules, obstacles, remedy, start_fw4};
use crate::configuration::Config;
use crate::knocking::{assert_step2_opens, knock, step1};
use crate::machine::Machine;
use crate::namespace::Namespace;
use crate::probe::{Reach, assert_echoes, assert_silent, assert_udp_open, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

/// Services here, and one on a LAN host for each family.
fn config(global: &[&str]) -> Config {
    Config::new(global)
        .app("ssh", "2222", "tcp", "local", &["duration: 60"])
        .app("vpn", "1194", "udp", "local", &["duration: 60"])
        .app("lan4", "2223", "tcp", "10.0.0.5:22", &["duration: 60"])
        .app("lan6", "2223", "tcp", "\"[fd00:5::5]:22\"", &["duration: 60"])
}

struct Site {
    net: Topology,
    home: Installation,
    _services: [Server; 3],
}

impl Site {
    fn new(config: &Config) -> Self {
        let net = Topology::new();
        let services = [
            Server::tcp(&net.router, 2222, Habit::Echo),
            Server::udp(&net.router, 1194, Habit::Echo),
            Server::tcp(&net.lan, 22, Habit::Echo),
        ];
        Self { home: Installation::new(config), _services: services, net }
    }

    fn router(&self) -> &Namespace {
        &self.net.router
    }

    /// Both steps open everything, for one client only.
    #[track_caller]
    fn assert_works(&self) {
        for (family, lan) in [(Family::V4, "lan4"), (Family::V6, "lan6")] {
            let to = family.router();
            assert_silent(&self.net.a, to, 2222);
            step1(&self.net.a, to, "ssh");
            assert_step2_opens(&self.net.a, to, "ssh");
            assert_echoes(&self.net.a, to, 2222);
            knock(&self.net.a, to, "vpn");
            assert_udp_open(&self.net.a, to, 1194);
            knock(&self.net.a, to, lan);
            assert_echoes(&self.net.a, to, 2223);
            assert_silent(&self.net.b, to, 2222);
        }
    }

    /// Whether step 1 gets an answer of the kernel and a granted client its service: what the audit speaks about.
    fn step1_answers(&self, family: Family) -> bool {
        tcp(&self.net.a, (family.router(), 8080).into(), Duration::from_secs(1)) == Reach::Open
    }

    /// How a guarded port is reached by somebody behind `int0`, which is not guarded.
    fn guest(&self, family: Family) -> Reach {
        let own = if family == Family::V4 { "10.0.0.1" } else { "fd00:5::1" };
        tcp(&self.net.lan, (own.parse::<IpAddr>().unwrap(), 2222).into(), Duration::from_secs(1))
    }

    fn service_opens(&self, family: Family, port: u16) -> bool {
        tcp(&self.net.a, (family.router(), port).into(), Duration::from_secs(1)) == Reach::Open
    }
}

/// The obstacles are exactly these (code and table with chain), each is real, and their remedies remove them.
#[track_caller]
fn remedied(site: &Site, machine: &Machine<'_>, expected: &[(&str, &str)]) {
    let found = obstacles(&site.home, site.router());
    let mut names: Vec<(&str, String)> = found
        .iter()
        .map(|finding| {
            let words: Vec<&str> = finding.message.split(' ').collect();
            assert_eq!(words[0], "chain", "{finding:#?}");
            (finding.code.as_str(), words[1..4].join(" "))
        })
        .collect();
    names.sort();
    let expected: Vec<(&str, String)> = expected.iter().map(|&(code, at)| (code, at.to_owned())).collect();
    assert_eq!(names, expected, "{found:#?}");
    let guest = || Family::BOTH.map(|family| site.guest(family));
    let guest_before = guest();
    let _agent = site.home.start(site.router());
    for family in Family::BOTH {
        site.home.grant(site.router(), "ssh", family.client_a(), 60);
        assert!(
            !site.step1_answers(family) || !site.service_opens(family, 2222) || !lan_opens(site, family),
            "nothing is in the way over {family:?}"
        );
    }
    site.home.verb(site.router(), &["revoke", "--all"]).success();
    remedy(machine, &found);
    assert_quiet(&site.home, site.router());
    site.assert_works();
    assert_eq!(
        guest(),
        guest_before,
        "the remedy opens nothing to those behind an interface that nobody guards"
    );
}

fn lan_opens(site: &Site, family: Family) -> bool {
    let app = if family == Family::V4 { "lan4" } else { "lan6" };
    site.home.grant(site.router(), app, family.client_a(), 60);
    site.service_opens(family, 2223)
}

const DEFAULT: &str = "host-drops-by-default";
const OUTPUT: &str = "host-drops-output";
const EARLY: &str = "host-drops-early";

#[test]
fn a_host_without_rules_needs_nothing() {
    let site = Site::new(&config(&[]));
    let found = findings(&site.home, site.router());
    assert!(found.is_empty(), "{found:#?}");
    let _agent = site.home.start(site.router());
    assert_quiet(&site.home, site.router());
    site.assert_works();
}

#[test]
fn three_chains_that_drop_by_default_need_one_rule_each() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("everything-drops.nft"));
    let all =
        [(DEFAULT, "inet filter forward"), (DEFAULT, "inet filter input"), (OUTPUT, "inet filter output")];
    remedied(&site, &machine, &all);
}

#[test]
fn a_masked_mark_is_matched_with_its_mask() {
    let site = Site::new(&config(&["mark: 0x500/0xff00"]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("everything-drops.nft"));
    let all =
        [(DEFAULT, "inet filter forward"), (DEFAULT, "inet filter input"), (OUTPUT, "inet filter output")];
    remedied(&site, &machine, &all);
}

#[test]
fn without_a_mark_the_ports_are_let_through_and_the_gate_guards_them() {
    let site = Site::new(&config(&["mark: 0"]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("everything-drops.nft"));
    let all =
        [(DEFAULT, "inet filter forward"), (DEFAULT, "inet filter input"), (OUTPUT, "inet filter output")];
    remedied(&site, &machine, &all);
}

#[test]
fn final_drops_behind_jumps_and_in_later_tables_are_found() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("late-drops.nft"));
    remedied(&site, &machine, &[(DEFAULT, "inet first input"), (DEFAULT, "inet second input")]);
}

#[test]
fn chains_before_ours_are_given_the_ports() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("early-drops.nft"));
    remedied(&site, &machine, &[(EARLY, "inet early mangle"), (EARLY, "inet early raw")]);
}

#[test]
fn chains_of_an_interface_are_given_the_ports() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("ingress-drops.nft"));
    remedied(&site, &machine, &[(EARLY, "netdev edge in")]);
}

#[test]
fn chains_that_want_everything_tracked_are_told_about_step_1() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("no-untracked.nft"));
    remedied(&site, &machine, &[(EARLY, "inet strict prerouting"), (OUTPUT, "inet strict output")]);
}

#[test]
fn iptables_that_drop_by_default_get_a_rule_in_each_family() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    for (tool, others) in
        [("iptables-restore", &["ipv6-icmp"][..]), ("ip6tables-restore", &["-p icmp", "BROADCAST"])]
    {
        let mut rules = String::new();
        for line in host_rules("iptables.rules").lines() {
            if !others.iter().any(|word| line.contains(word)) {
                rules += line;
                rules.push('\n');
            }
        }
        site.router().feed(tool, &[], rules.as_bytes()).success();
    }
    let all = [
        (DEFAULT, "ip filter FORWARD"),
        (DEFAULT, "ip filter INPUT"),
        (DEFAULT, "ip6 filter FORWARD"),
        (DEFAULT, "ip6 filter INPUT"),
        (OUTPUT, "ip filter OUTPUT"),
        (OUTPUT, "ip6 filter OUTPUT"),
    ];
    remedied(&site, &machine, &all);
}

#[test]
fn iptables_that_drop_early_are_given_the_ports_of_the_outside() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    for (tool, icmp) in [("iptables", "icmp"), ("ip6tables", "ipv6-icmp")] {
        machine
            .sh(&format!(
                "{tool} -t raw -A PREROUTING -p {icmp} -j ACCEPT\n\
                 {tool} -t raw -A PREROUTING -p tcp ! --syn -j ACCEPT\n\
                 {tool} -t raw -P PREROUTING DROP\n\
                 {tool} -t mangle -A PREROUTING -p {icmp} -j ACCEPT\n\
                 {tool} -t mangle -A PREROUTING -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
                 {tool} -t mangle -P PREROUTING DROP"
            ))
            .success();
    }
    let all = [
        (EARLY, "ip mangle PREROUTING"),
        (EARLY, "ip raw PREROUTING"),
        (EARLY, "ip6 mangle PREROUTING"),
        (EARLY, "ip6 raw PREROUTING"),
    ];
    remedied(&site, &machine, &all);
    assert_eq!(Family::BOTH.map(|family| site.guest(family)), [Reach::Silent; 2]);
}

#[test]
fn ufw_gets_lines_in_its_files() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    machine.sh("ufw --force enable && ufw allow 22/tcp && ufw limit 23/tcp").success();
    let all = [
        (DEFAULT, "ip filter FORWARD"),
        (DEFAULT, "ip filter INPUT"),
        (DEFAULT, "ip6 filter FORWARD"),
        (DEFAULT, "ip6 filter INPUT"),
    ];
    remedied(&site, &machine, &all);
}

#[test]
fn ufw_without_outgoing_traffic_gets_lines_for_that_too() {
    let site = Site::new(&Config::ssh(&["duration: 60"]));
    let machine = Machine::new(site.router());
    machine.sh("ufw --force enable && ufw default deny outgoing").success();
    let found = obstacles(&site.home, site.router());
    assert!(found.iter().any(|finding| finding.code == OUTPUT), "{found:#?}");
    let _agent = site.home.start(site.router());
    assert!(!site.step1_answers(Family::V4));
    remedy(&machine, &found);
    assert_quiet(&site.home, site.router());
    for family in Family::BOTH {
        knock(&site.net.a, family.router(), "ssh");
        assert_echoes(&site.net.a, family.router(), 2222);
    }
}

#[test]
fn firewalld_gets_ports_in_the_zone_of_the_interface() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    let start = "dbus-daemon --system --fork --nopidfile\n\
        (firewalld --nofork --nopid > /mnt/firewalld.log 2>&1 &)\n\
        for try in $(seq 100); do firewall-cmd --state > /dev/null 2>&1 && break; sleep 0.2; done\n\
        firewall-cmd --zone=external --change-interface=ext0 --permanent && firewall-cmd --reload\n\
        firewall-cmd --zone=trusted --change-interface=int0 --permanent && firewall-cmd --reload";
    machine.sh(start).success();
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].fix.contains("--zone=external"), "{found:#?}");
    remedied(&site, &machine, &[(DEFAULT, "inet firewalld filter_INPUT")]);
}

#[test]
fn openwrt_gets_files_that_outlive_a_reload() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    start_fw4(&machine);
    remedied(&site, &machine, &[(DEFAULT, "inet fw4 input")]);
    assert!(machine.path("/usr/share/nftables.d/chain-pre/input_wan/knock-agent.nft").exists());
}

#[test]
fn vyos_gets_set_commands_with_a_free_number() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("vyos14.nft"));
    let all = [
        (DEFAULT, "ip vyos_filter VYOS_FORWARD_filter"),
        (DEFAULT, "ip vyos_filter VYOS_INPUT_filter"),
        (DEFAULT, "ip6 vyos_filter VYOS_IPV6_FORWARD_filter"),
        (DEFAULT, "ip6 vyos_filter VYOS_IPV6_INPUT_filter"),
    ];
    remedied(&site, &machine, &all);
}

#[test]
fn vyos_13_gets_rules_in_its_hooks() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("vyos13.nft"));
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 2, "{found:#?}");
    remedy(&machine, &found);
    assert_quiet(&site.home, site.router());
    let _agent = site.home.start(site.router());
    site.assert_works();
}

#[test]
fn proxmox_gets_rules_before_its_chains() {
    let site = Site::new(&Config::ssh(&["duration: 60"]));
    let machine = Machine::new(site.router());
    site.router().feed("iptables-restore", &[], host_rules("proxmox.rules").as_bytes()).success();
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].message.contains("ip filter INPUT"), "{found:#?}");
    let _agent = site.home.start(site.router());
    assert!(!site.step1_answers(Family::V4));
    assert!(site.step1_answers(Family::V6));
    remedy(&machine, &found);
    assert_quiet(&site.home, site.router());
    knock(&site.net.a, Family::V4.router(), "ssh");
    assert_echoes(&site.net.a, Family::V4.router(), 2222);
}

#[test]
fn libvirt_gets_a_rule_for_its_guests() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().nft(&host_rules("libvirt.nft"));
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].message.contains("lan4"), "{found:#?}");
    let _agent = site.home.start(site.router());
    assert!(!lan_opens(&site, Family::V4));
    remedy(&machine, &found);
    assert_quiet(&site.home, site.router());
    assert!(lan_opens(&site, Family::V4));
}

#[test]
fn dockers_policy_for_forwarding_is_met_in_its_users_chain() {
    let site = Site::new(&config(&[]));
    let machine = Machine::new(site.router());
    site.router().feed("iptables-restore", &[], host_rules("docker-iptables.rules").as_bytes()).success();
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].fix.contains("DOCKER-USER"), "{found:#?}");
    let _agent = site.home.start(site.router());
    assert!(!lan_opens(&site, Family::V4));
    remedy(&machine, &found);
    assert_quiet(&site.home, site.router());
    assert!(lan_opens(&site, Family::V4));
}

#[test]
fn lists_of_strangers_and_sane_checks_are_no_obstacle() {
    let site = Site::new(&config(&[]));
    site.router().nft(&host_rules("bans.nft"));
    assert_quiet(&site.home, site.router());
    let _agent = site.home.start(site.router());
    site.assert_works();
}

#[test]
fn iptables_legacy_is_named_because_it_cannot_be_read() {
    let site = Site::new(&Config::ssh(&["duration: 60"]));
    let machine = Machine::new(site.router());
    let drop = "iptables-legacy -P INPUT DROP && iptables-legacy -A INPUT -i lo -j ACCEPT";
    machine.sh(drop).success();
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].code, "iptables-legacy");
    let _agent = site.home.start(site.router());
    assert!(!site.step1_answers(Family::V4));
    remedy(&machine, &found);
    knock(&site.net.a, Family::V4.router(), "ssh");
    assert_echoes(&site.net.a, Family::V4.router(), 2222);
}

#[test]
fn what_the_host_bans_stays_out_after_the_remedy() {
    let site = Site::new(&Config::ssh(&["duration: 60"]));
    let machine = Machine::new(site.router());
    site.router().nft(
        "table inet host { chain input { type filter hook input priority filter; policy drop;\n\
         ip saddr 203.0.113.3 drop\niif lo accept\nmeta l4proto { icmp, ipv6-icmp } accept\n}; }",
    );
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 1, "{found:#?}");
    remedy(&machine, &found);
    assert_quiet(&site.home, site.router());
    let _agent = site.home.start(site.router());
    for client in [Family::V4.client_a(), Family::V4.client_b()] {
        site.home.grant(site.router(), "ssh", client, 60);
    }
    assert_echoes(&site.net.a, Family::V4.router(), 2222);
    assert_silent(&site.net.b, Family::V4.router(), 2222);
}

#[test]
fn a_chain_that_drops_for_some_clients_is_a_warning() {
    let site = Site::new(&Config::ssh(&[]));
    site.router().nft(
        "table inet host { set near { type ipv4_addr; flags interval; elements = { 203.0.113.0/24 }; }; \
         chain input { type filter hook input priority filter; ip saddr != @near drop; }; }",
    );
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].severity.as_str(), found[0].code.as_str()), ("warning", DEFAULT));
    assert!(found[0].message.contains("for some clients"), "{found:#?}");
}

#[test]
fn what_nobody_can_tell_beforehand_is_a_warning() {
    let site = Site::new(&Config::ssh(&[]));
    site.router().nft(
        "table inet host { chain input { type filter hook input priority filter; meta hour \"00:00\"-\"06:00\" drop; }; }",
    );
    let found = obstacles(&site.home, site.router());
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].severity, "warning");
    assert!(found[0].message.contains("may drop"), "{found:#?}");
}

#[test]
fn a_program_on_our_port_is_named() {
    let site = Site::new(&Config::ssh(&[]));
    let _other = Server::tcp(site.router(), 8443, Habit::Echo);
    let found = findings(&site.home, site.router());
    let taken = find(&found, "step-port-taken");
    assert_eq!(taken.severity, "error");
    assert!(taken.message.contains(&format!("pid {}", std::process::id())), "{taken:#?}");
    drop(_other);
    let other = Installation::new(&Config::new(&[]).app("web", "3333", "tcp", "local", &[]));
    let found = findings(&other, site.router());
    let nobody = find(&found, "nothing-listens");
    assert_eq!(nobody.severity, "info");
    assert!(nobody.message.contains("3333"), "{nobody:#?}");
}

#[test]
fn a_table_of_which_a_program_is_the_owner_is_changed_by_that_program() {
    let site = Site::new(&Config::ssh(&["duration: 60"]));
    let mut owner = std::process::Command::new("nft");
    owner.arg("-i").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut owner = site.router().background(owner);
    let pid = owner.0.id();
    let mut tell = |line: &str| {
        let stdin = owner.0.stdin.as_mut().unwrap();
        std::io::Write::write_all(stdin, format!("{line}\n").as_bytes()).unwrap();
    };
    tell("add table inet site { flags owner; }");
    tell("add chain inet site in { type filter hook input priority 0; policy drop; }");
    tell("add rule inet site in meta l4proto ipv6-icmp accept");
    let listed = |what: &str| {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while !site.router().run("nft", &["list", "ruleset"]).success().text().contains(what) {
            assert!(std::time::Instant::now() < end, "{what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    listed("ipv6-icmp accept");
    let found = find(&obstacles(&site.home, site.router()), DEFAULT);
    let fix = &found.fix;
    assert!(fix.lines().all(|line| line.starts_with('#')), "no line for a shell can do it: {fix}");
    assert!(fix.contains("flags owner") && fix.contains(&format!("ps -p {pid}")), "{fix}");
    let line =
        fix.lines().find(|line| line.contains("meta mark")).expect("what to do").trim_start_matches("# ");
    tell(line);
    listed("meta mark 0x00005e2b accept");
    assert_quiet(&site.home, site.router());
    let _agent = site.home.start(site.router());
    knock(&site.net.a, Family::V4.router(), "ssh");
    assert_echoes(&site.net.a, Family::V4.router(), 2222);
}
