//! `knock-agent explain` of several uplinks, bridges, marks of connections, and answers that get lost outside.

use super::explain::{Scene, has_also, two_apps};
use super::explain_hosts::run;
use crate::agent::Installation;
use crate::configuration::STEP2_PATH;
use crate::configuration::https_key;
use crate::knocking::{form, post_step2, step1};
use crate::probe::{GENEROUS, Reach, tcp};
use crate::server::{Habit, Server};
use crate::topology::{Family, Topology};

#[test]
fn two_uplinks_marks_of_connections_and_answers_that_do_not_arrive() {
    let net = Topology::new();
    let (router, a, to) = (&net.router, Family::V4.client_a(), Family::V4.router());
    run(
        router,
        "ip link add wan1 type veth peer name wan1p; ip link set wan1p up; ip link set wan1 up; ip addr add 198.51.100.1/24 dev wan1",
    );
    run(router, &format!("ip route replace default via {a}"));
    let text = two_apps(&[]).text().replace("interface_ext: ext0", "interface_ext: [ext0, wan1]");
    let home = Installation::with_text(&text);
    let scene = Scene { net: &net, home: &home };
    let agent = home.start(router);
    let _server = Server::tcp(router, 2222, Habit::Echo);
    home.grant(router, "ssh", a, 900);

    // A client of the internet may come in by either of them.
    let far = "45.83.12.7".parse().unwrap();
    home.grant(router, "ssh", far, 900);
    router.nft("table inet t { chain c { type filter hook input priority 0; iifname wan1 drop; }\n}");
    let value = scene.explain(far, "ssh");
    assert!(value["cause"] == "granted" && has_also(&value, "host-drops"), "{value:#}");
    assert!(value["also"][0]["message"].as_str().unwrap().contains("--by wan1"), "{value:#}");
    let value = scene.explain("198.51.100.7".parse().unwrap(), "ssh");
    assert_eq!(value["cause"], "knock-blocked", "its own network: {value:#}");
    router.nft("delete table inet t");
    let value = scene.explain("10.99.0.7".parse().unwrap(), "ssh");
    assert_eq!(value["cause"], "private-address", "{value:#}");

    // A mark that one chain gives to the connection, and another one asks for.
    router.nft("table inet t { chain m { type filter hook prerouting priority -150; tcp dport 2222 ct mark set 7; }\n chain c { type filter hook input priority 5; ct mark 7 drop; }\n}");
    scene.a("host-drops");
    router.nft("delete table inet t");
    run(router, "iptables-legacy -t mangle -A PREROUTING -p tcp --dport 2222 -j CONNMARK --set-mark 5");
    run(router, "iptables-legacy -A OUTPUT -m connmark --mark 5 -j DROP");
    scene.a("host-drops-reply");
    run(router, "iptables-legacy -F; iptables-legacy -t mangle -F");

    // An old hardware address: the client comes here, and no answer to it.
    run(router, &format!("ip neigh replace {a} lladdr 02:00:00:00:00:99 dev ext0 nud permanent"));
    assert_eq!(tcp(&net.a, (to, 2222).into(), crate::probe::PATIENCE), Reach::Silent);
    let value = scene.a("no-answer");
    assert!(value["verdict"] == "unknown" && has_also(&value, "granted"), "{value:#}");
    run(router, &format!("ip neigh del {a} dev ext0"));
    assert_eq!(tcp(&net.a, (to, 2222).into(), GENEROUS), Reach::Open);
    scene.a("granted");

    // Step 1 for one app, step 2 for another one.
    step1(&net.b, to, "ssh");
    post_step2(&net.b, to, STEP2_PATH, &form("web", &https_key("web")), &[]);
    for app in ["ssh", "web"] {
        let value = scene.explain(Family::V4.client_b(), app);
        let message = value["message"].as_str().unwrap();
        assert!(message.contains("its step 1 was for ssh and its step 2 for web"), "{value:#}");
    }

    // What is guarded becomes a port of a bridge.
    run(
        router,
        "ip link add br0 type bridge; ip link set br0 up; ip addr flush dev ext0; ip link set ext0 master br0",
    );
    run(router, &format!("ip addr add {to}/24 dev br0"));
    let value = scene.explain(a, "ssh");
    assert!(
        value["cause"] == "other-interface" && value["message"].as_str().unwrap().contains("by br0"),
        "{value:#}"
    );
    home.rewrite_config(&text.replace("[ext0, wan1]", "br0"));
    agent.reload();
    router.nft("table bridge t { chain i { type filter hook input priority 0; ether type ip tcp dport 2222 drop; }\n}");
    scene.a("host-drops");
    router.nft("delete table bridge t");
    scene.a("granted");
}
