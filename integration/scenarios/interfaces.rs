//! Interfaces that come and go, and addresses that change, under a running agent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::agent::Installation;
use crate::configuration::Config;
use crate::firewall::{table, time_left};
use crate::knocking::{assert_step2_opens, knock, step1};
use crate::namespace::Namespace;
use crate::probe::{assert_echoes, assert_silent, assert_udp_silent, dial, udp_socket};
use crate::server::{Habit, Server, last_piece, receive};
use crate::topology::{Family, Topology};

/// From the first packet that can pass to the open port: a second is curl's pause at step 1, the rest is for machines
/// that are slow, such as emulated ones.
const SOON: Duration = Duration::from_secs(8);

fn ip(host: &Namespace, batch: &str) {
    host.feed("ip", &["-batch", "-"], batch.as_bytes()).success();
}

/// The router's way to the clients is made, as `name`, with these addresses.
fn plug_in(net: &Topology, name: &str, v4: &str, v6: &str) {
    let router = net.router.name();
    ip(
        &net.switch,
        &format!(
            "link add pr type veth peer name {name} netns {router}\nlink set pr master br0\nlink set pr up\n"
        ),
    );
    set_up(net, name, v4, v6);
}

fn set_up(net: &Topology, name: &str, v4: &str, v6: &str) {
    ip(
        &net.router,
        &format!("addr add {v4} dev {name}\naddr add {v6} dev {name} nodad\nlink set {name} up\n"),
    );
    // As the announcements of a real link do.
    for client in [&net.a, &net.b] {
        client.run("ip", &["neigh", "flush", "dev", "eth0"]).success();
    }
}

/// Waits until packets go there and back; step 2's port is none of a stranger's, so that nothing is asked of it.
#[track_caller]
fn await_packets(net: &Topology) {
    let end = Instant::now() + Duration::from_secs(10);
    for family in Family::BOTH {
        let to = (family.router(), 9);
        while crate::probe::tcp(&net.a, to.into(), Duration::from_millis(200)) != crate::probe::Reach::Refused
        {
            assert!(Instant::now() < end, "no packets");
        }
    }
}

/// A knock by both families opens soon.
#[track_caller]
fn assert_a_knock_opens(net: &Topology, family: Family) {
    let to = family.router();
    let begun = Instant::now();
    step1(&net.a, to, "ssh");
    assert_step2_opens(&net.a, to, "ssh");
    assert_echoes(&net.a, to, 2222);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// Does something while strangers send datagrams and dial as fast as they can.
fn under_fire(net: &Topology, udp: &Server, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            let sockets = Family::BOTH.map(|family| udp_socket(&net.b, family.router(), 0));
            while !stop.load(Ordering::Relaxed) {
                for (socket, family) in sockets.iter().zip(Family::BOTH) {
                    let _ = socket.send_to(b"let me in", (family.router(), 5353));
                }
                sleep(Duration::from_micros(50));
            }
        });
        let dialling = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for family in Family::BOTH {
                    let reached = dial(&net.b, (family.router(), 2222).into(), Duration::from_millis(20));
                    assert!(reached.is_err(), "a stranger reached the guarded port of {family:?}");
                }
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        dialling.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(udp.last_heard(), None, "a datagram of a stranger reached the guarded port");
}

fn config() -> Config {
    let config = Config::new(&[]).app("ssh", "2222", "tcp", "local", &["duration: 300"]);
    config.app("dns", "5353", "udp", "local", &[])
}

#[test]
fn an_interface_that_comes_goes_and_is_renamed_is_guarded_from_its_first_packet() {
    let net = Topology::new();
    let _tcp = Server::tcp(&net.router, 2222, Habit::Echo);
    let udp = Server::udp(&net.router, 5353, Habit::Echo);
    let home = Installation::new(&config());
    ip(&net.router, "link del ext0\n");
    let agent = home.start(&net.router);
    let before = table(&net.router);
    assert!(home.log().contains("ext0"), "nobody is told that ext0 is missing: {}", home.log());
    under_fire(&net, &udp, || {
        plug_in(&net, "ext0", "203.0.113.1/24", "2001:db8:1::1/64");
        await_packets(&net);
        for family in Family::BOTH {
            assert_a_knock_opens(&net, family);
        }
        // Gone and back, as a PPPoE session after a night: the grant goes on.
        ip(&net.router, "link del ext0\n");
        plug_in(&net, "ext0", "203.0.113.1/24", "2001:db8:1::1/64");
        await_packets(&net);
        for family in Family::BOTH {
            assert!(time_left(&net.router, "ssh", family.client_a()).is_some());
            assert_echoes(&net.a, family.router(), 2222);
        }
        // Made under another name, and renamed before it is up, as udev does.
        ip(&net.router, "link del ext0\n");
        ip(
            &net.switch,
            &format!(
                "link add pr type veth peer name tmp0 netns {}\nlink set pr master br0\nlink set pr up\n",
                net.router.name()
            ),
        );
        ip(&net.router, "link set tmp0 name ext0\n");
        set_up(&net, "ext0", "203.0.113.1/24", "2001:db8:1::1/64");
        await_packets(&net);
        for family in Family::BOTH {
            assert_echoes(&net.a, family.router(), 2222);
        }
    });
    assert_eq!(table(&net.router), before, "the rules need no change for it");
    agent.terminate();
}

#[test]
fn addresses_that_change_are_guarded_and_served_at_once() {
    let net = Topology::new();
    let _tcp = Server::tcp(&net.router, 2222, Habit::Echo);
    let udp = Server::udp(&net.router, 5353, Habit::Echo);
    let home = Installation::new(&config());
    ip(&net.router, "addr flush dev ext0\naddr add 198.51.100.9/24 dev ext0\n");
    let _agent = home.start(&net.router);
    under_fire(&net, &udp, || {
        // The provider's next address, and another IPv6 prefix.
        for _ in 0..3 {
            ip(&net.router, "addr flush dev ext0\n");
            ip(&net.router, "addr add 203.0.113.1/24 dev ext0\naddr add 2001:db8:1::1/64 dev ext0 nodad\n");
            await_packets(&net);
            for family in Family::BOTH {
                assert_a_knock_opens(&net, family);
            }
            ip(&net.router, "addr flush dev ext0\naddr add 198.51.100.9/24 dev ext0\n");
        }
    });
}

#[test]
fn a_port_that_others_forward_is_cut_on_a_new_address_and_after_a_repair() {
    let net = Topology::new();
    // What Docker writes for a published port.
    net.router.nft(
        "table ip docker {\n chain pre {\n type nat hook prerouting priority -100\n\
         \n iifname ext0 udp dport 7000 dnat to 10.0.0.5:7000\n }\n}\n",
    );
    let _service = Server::udp(&net.lan, 7000, Habit::Push);
    let config = Config::new(&[]).app("push", "7000", "udp", "local", &["duration: 300"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    ip(&net.router, "addr flush dev ext0\naddr add 203.0.113.1/24 dev ext0\n");
    for how in ["nothing", "delete table inet knock_agent"] {
        let client = Family::V4.client_a();
        home.grant(&net.router, "push", client, 5);
        let due = Instant::now() + Duration::from_secs(5);
        let socket = udp_socket(&net.a, Family::V4.router(), 0);
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.send_to(b"begin", (Family::V4.router(), 7000)).unwrap();
        assert!(receive(&socket, &mut [0; 64]).is_ok(), "open while granted");
        if how != "nothing" {
            net.router.nft(how);
        }
        let last = last_piece(|piece| socket.recv(piece), due + Duration::from_secs(4));
        let last = last.expect("a stream");
        assert!(last < due + Duration::from_secs(1), "{how}: {:?} after its end", last.duration_since(due));
        assert_udp_silent(&net.a, Family::V4.router(), 7000);
    }
    assert_udp_silent(&net.b, Family::V4.router(), 7000);
}

#[test]
fn a_port_of_a_bridge_is_refused_by_the_check_and_its_bridge_is_guarded() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    for words in [
        "link add br9 type bridge",
        "link set br9 up",
        "addr flush dev ext0",
        "link set ext0 master br9",
        "addr add 203.0.113.1/24 dev br9",
        "addr add 2001:db8:1::1/64 dev br9 nodad",
    ] {
        net.router.run("ip", &words.split(' ').collect::<Vec<_>>()).success();
    }
    let findings = |home: &Installation| {
        let told = home.check(&net.router, &["check-ruleset", "--json"]).text();
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let all = told["findings"].as_array().expect("a list").clone();
        all.into_iter().find(|finding| finding["code"] == "interface-is-a-port")
    };
    let config = Config::ssh(&["duration: 60"]);
    let home = Installation::new(&config);
    let finding = findings(&home).expect("it is told");
    assert_eq!(finding["severity"], "error");
    assert!(finding["message"].as_str().expect("text").contains("br9"), "{finding}");
    home.check(&net.router, &["check-ruleset"]).exits(1);

    let home = Installation::with_text(&config.text().replace("interface_ext: ext0", "interface_ext: br9"));
    assert_eq!(findings(&home), None);
    let _agent = home.start(&net.router);
    for family in Family::BOTH {
        assert_silent(&net.b, family.router(), 2222);
        knock(&net.a, family.router(), "ssh");
        assert_echoes(&net.a, family.router(), 2222);
        assert_silent(&net.b, family.router(), 2222);
    }
}

#[test]
fn an_interface_that_is_misspelt_at_a_reload_or_renamed_opens_nothing_in_silence() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::ssh(&["duration: 60"]);
    let home = Installation::new(&config);
    let agent = home.start(&net.router);
    ip(&net.router, "link property add dev ext0 altname enp9s0f0\n");
    let guard = table(&net.router);
    let with = |name: &str| config.text().replace("interface_ext: ext0", &format!("interface_ext: {name}"));
    for (wrong, complaint, check) in [
        ("exto", "exto does not exist", 0),
        ("[exto, pppo]", "exto does not exist", 0),
        ("enp9s0f0", "enp9s0f0 is only another name of ext0", 78),
    ] {
        home.rewrite_config(&with(wrong));
        let logged = home.log().len();
        let said = agent.reload();
        assert!(said.contains("refused"), "{wrong}: {said}");
        assert!(home.log()[logged..].contains(complaint), "{wrong}: {}", &home.log()[logged..]);
        assert_eq!(table(&net.router), guard, "{wrong}");
        home.check(&net.router, &["check-config"]).exits(check);
        home.check(&net.router, &["check-ruleset"]).exits(1);
    }
    for family in Family::BOTH {
        assert_silent(&net.b, family.router(), 2222);
    }
    // What may come later beside what is there.
    home.rewrite_config(&with("[ext0, ppp0]"));
    assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    home.rewrite_config(config.text());
    assert!(agent.reload().contains("STATUS=guarding\n"), "{}", home.log());
    home.check(&net.router, &["health"]).success();

    let logged = home.log().len();
    ip(
        &net.router,
        "link set ext0 down\nlink property del dev ext0 altname enp9s0f0\nlink set ext0 name wan9\n",
    );
    for _ in 0..2 {
        let told = home.check(&net.router, &["health"]).exits(1).text();
        assert!(told.contains("interface: interface_ext ext0 does not exist now"), "{told}");
        let told = home.verb(&net.router, &["status"]).success().text();
        assert!(told.contains("interface_ext ext0 does not exist now"), "{told}");
    }
    let log = home.log()[logged..].to_owned();
    assert_eq!(log.matches("ext0 does not exist now").count(), 1, "{log}");
    agent.terminate();
    home.rewrite_config(&with("enp9s0f0"));
    ip(&net.router, "link property add dev wan9 altname enp9s0f0\n");
    home.run_in_vain(&net.router).exits(78);
}

#[test]
fn an_interface_without_an_address_beside_the_way_to_the_internet_is_no_guard_and_told() {
    let net = Topology::new();
    let _service = Server::tcp(&net.router, 2222, Habit::Echo);
    let config = Config::ssh(&["duration: 60"]);
    let home = Installation::new(&config);
    let _agent = home.start(&net.router);
    home.check(&net.router, &["health"]).success();
    // The provider's line comes in by another interface, as it does with PPPoE or a VLAN on it.
    let router = net.router.name();
    ip(
        &net.switch,
        &format!(
            "link add pw type veth peer name wan7 netns {router}\nlink set pw master br0\nlink set pw up\n"
        ),
    );
    ip(&net.router, "addr flush dev ext0\n");
    set_up(&net, "wan7", "203.0.113.1/24", "2001:db8:1::1/64");
    ip(&net.router, "route add default via 203.0.113.254\n");
    assert_echoes(&net.b, Family::V4.router(), 2222);
    let complaint = "ext0 has no address, and the way to the Internet is wan7, which is not guarded";
    assert!(home.check(&net.router, &["health"]).exits(1).text().contains(complaint));
    assert!(home.check(&net.router, &["check-ruleset"]).exits(1).text().contains(complaint));
    home.rewrite_config(&config.text().replace("interface_ext: ext0", "interface_ext: wan7"));
    home.check(&net.router, &["check-ruleset"]).success();

    // A second way beside one that is guarded is good to know, and no more.
    home.rewrite_config(config.text());
    ip(&net.router, "addr add 192.168.100.2/24 dev ext0\n");
    let told = home.check(&net.router, &["check-ruleset"]).success().text();
    assert!(told.contains("a way to the Internet is wan7 for IPv4"), "{told}");
    home.check(&net.router, &["health"]).success();

    // Nor does what comes out of a tunnel that anybody can feed.
    ip(&net.router, "link add vx0 type vxlan id 5 dstport 4789 remote 203.0.113.2\nlink set vx0 up\n");
    let told = home.check(&net.router, &["check-ruleset"]).success().text();
    assert!(told.contains("vx0 is a tunnel (vxlan) that asks nobody for a key"), "{told}");
}

#[test]
fn a_second_uplink_in_use_is_told_whatever_chooses_it() {
    let net = Topology::new();
    let config = Config::ssh(&["duration: 60"]);
    let home = Installation::new(&config);
    let router = net.router.name();
    ip(
        &net.switch,
        &format!(
            "link add pw type veth peer name wan7 netns {router}\nlink set pw master br0\nlink set pw up\n"
        ),
    );
    let up =
        "addr add 198.51.100.1/24 dev wan7\nlink set wan7 up\nroute add default via 203.0.113.254 dev ext0\n";
    ip(&net.router, up);
    let told = || home.check(&net.router, &["check-ruleset"]).success().text();
    let names_it = |what: &str| {
        let text = told();
        assert!(text.contains("a way to the Internet is wan7 for IPv4, and"), "{what}: {text}");
    };
    assert!(!told().contains("a way to the Internet"), "one uplink");
    for (what, adds, removes) in [
        (
            "by source address",
            "route add default via 198.51.100.9 dev wan7 table 200\nrule add from 198.51.100.1 lookup 200\n",
            "rule del from 198.51.100.1 lookup 200\nroute flush table 200\n",
        ),
        (
            "a higher metric",
            "route add default via 198.51.100.9 dev wan7 metric 500\n",
            "route del default via 198.51.100.9 dev wan7 metric 500\n",
        ),
        (
            "both in turn",
            "route replace default nexthop via 203.0.113.254 dev ext0 nexthop via 198.51.100.9 dev wan7\n",
            "route replace default via 203.0.113.254 dev ext0\n",
        ),
    ] {
        ip(&net.router, adds);
        names_it(what);
        ip(&net.router, removes);
        assert!(!told().contains("a way to the Internet"), "after {what}");
    }
    home.rewrite_config(&config.text().replace("interface_ext: ext0", "interface_ext: [ext0, wan7]"));
    ip(&net.router, "route add default via 198.51.100.9 dev wan7 metric 500\n");
    assert!(!told().contains("a way to the Internet"), "both are named");
}
