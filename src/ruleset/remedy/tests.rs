//! What admits by ports admits by outside interfaces only, in every language.

use super::{Admission, Need, admit};
use crate::ruleset::audit::host::{Host, HostChain, HostFamily, HostHook, TableRef};
use crate::ruleset::audit::journey::{Journey, Route};
use crate::ruleset::audit::packet::{Interface, Packet, TcpFlags};
use crate::units::{Family, Protocol};

/// Packets to port 22 of this host by each of two outside interfaces, or their answers.
fn journeys(route: Route) -> Vec<Journey> {
    let one = |name: &str| {
        let mut packet = Packet::new(Family::V4, Protocol::Tcp, (None, None), (None, None), TcpFlags::Syn);
        let interface = Some(Interface { name: name.to_owned(), index: None });
        if route == Route::Out {
            packet.oif = interface
        } else {
            packet.iif = interface
        }
        let ports = std::num::NonZeroU16::new(22).unwrap().into();
        Journey { what: "ssh".to_owned(), ports, packet, route, untracked: false, forwarded: None }
    };
    ["eth0", "eth1"].map(one).into()
}

fn remedy(family: HostFamily, table: &str, (chain, hook): (&str, HostHook), others: &[&str]) -> Vec<String> {
    let table = TableRef { family, table: table.to_owned() };
    let of =
        |name: &str| HostChain { table: table.clone(), name: name.to_owned(), base: None, rules: vec![] };
    let host = Host { chains: others.iter().map(|name| of(name)).collect(), ..Host::default() };
    let route = if hook == HostHook::Output { Route::Out } else { Route::In };
    let visited = others.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let need = Need {
        table: &table,
        chain,
        hook,
        priority: 0,
        place: None,
        only_place: false,
        visited: &visited,
        admission: Admission::Ports,
        journeys: &journeys(route),
    };
    let told = admit(&host, &need);
    told.lines().map(str::to_owned).collect()
}

#[test]
fn ports_are_let_through_by_outside_interfaces_only() {
    let (input, output) = (("INPUT", HostHook::Input), ("OUTPUT", HostHook::Output));
    let early = ("PREROUTING", HostHook::Prerouting);
    let vyos = ("VYOS_INPUT_filter", HostHook::Input);
    for (family, table, chain, others, lines) in [
        (
            HostFamily::Inet,
            "host",
            early,
            &[][..],
            &[
                "nft insert rule inet host PREROUTING iifname '{ \"eth0\", \"eth1\" }' fib daddr type local tcp dport 22 accept",
            ][..],
        ),
        (
            HostFamily::Bridge,
            "host",
            early,
            &[],
            &[
                "nft insert rule bridge host PREROUTING meta ibrname '{ \"eth0\", \"eth1\" }' tcp dport 22 accept",
            ],
        ),
        (
            HostFamily::Inet,
            "host",
            output,
            &[],
            &["nft insert rule inet host OUTPUT oifname '{ \"eth0\", \"eth1\" }' tcp sport 22 accept"],
        ),
        (
            HostFamily::Ip,
            "raw",
            early,
            &[],
            &[
                "iptables -t raw -I PREROUTING -i eth0 -m addrtype --dst-type LOCAL -p tcp --dport 22 -j ACCEPT",
                "iptables -t raw -I PREROUTING -i eth1 -m addrtype --dst-type LOCAL -p tcp --dport 22 -j ACCEPT",
            ],
        ),
        (
            HostFamily::Ip6,
            "filter",
            output,
            &[],
            &[
                "ip6tables -I OUTPUT -o eth0 -p tcp --sport 22 -j ACCEPT",
                "ip6tables -I OUTPUT -o eth1 -p tcp --sport 22 -j ACCEPT",
            ],
        ),
        (
            HostFamily::Inet,
            "proxmox-firewall",
            input,
            &[],
            &[
                "sed -i '/^\\[RULES\\]/a IN ACCEPT -i eth0 -p tcp -dport 22' /etc/pve/local/host.fw",
                "sed -i '/^\\[RULES\\]/a IN ACCEPT -i eth1 -p tcp -dport 22' /etc/pve/local/host.fw",
            ],
        ),
        (
            HostFamily::Ip,
            "vyos_filter",
            vyos,
            &[],
            &[
                "set firewall ipv4 input filter rule 9 inbound-interface name eth0",
                "set firewall ipv4 input filter rule 10 inbound-interface name eth1",
            ],
        ),
        (
            HostFamily::Inet,
            "fw4",
            ("input", HostHook::Input),
            &["input_wan"],
            &[
                "echo 'iifname { \"eth0\", \"eth1\" } tcp dport 22 accept' > /usr/share/nftables.d/chain-pre/input_wan/knock-agent.nft",
            ],
        ),
        (
            HostFamily::Inet,
            "firewalld",
            ("filter_INPUT", HostHook::Input),
            &["filter_IN_home"],
            &[
                "# this lets them in by every interface of zone home, and only what comes in by eth0, eth1 is guarded:",
                "firewall-cmd --permanent --zone=home --add-port=22/tcp",
            ],
        ),
    ] {
        let told = remedy(family, table, chain, others);
        for line in lines {
            assert!(told.iter().any(|have| have == line), "{line}\nis not in\n{}", told.join("\n"));
        }
        let opening = |line: &&String| line.contains("dport 22") && !line.starts_with('#');
        let wide = |line: &&String| !line.contains("eth0") && !line.contains("eth1");
        assert_eq!(told.iter().filter(opening).filter(wide).count(), 0, "{}", told.join("\n"));
    }
}
