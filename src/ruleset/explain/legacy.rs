//! Rules of iptables-legacy, as `iptables-legacy-save` writes them, for the interpreter that follows those of nf_tables.
//!
//! What is not understood makes a rule that may match, or not: nothing is guessed.

use super::legacy_marks as marks;
use super::legacy_match::matches;
use crate::ruleset::audit::host::{
    HostBase, HostChain, HostChainKind, HostFamily, HostHook, HostRule, TableRef,
};
use crate::ruleset::audit::step::Step;
use crate::ruleset::expr::Verdict;
use crate::ruleset::iptables::model::CHAIN_PREFIX;
use crate::units::Family;

/// What the names of these tables end with, which no table of nf_tables is called by.
const LEGACY: &str = " (legacy)";

/// The name of the table of iptables-legacy that this stands for; none: it is one of nf_tables.
#[must_use]
pub fn table_of(table: &TableRef) -> Option<&str> {
    table.table.strip_suffix(LEGACY)
}

/// The command for a table of iptables-legacy.
#[must_use]
pub fn command(table: &TableRef) -> Option<String> {
    let name = table_of(table)?;
    let program = if table.family == HostFamily::Ip6 { "ip6tables-legacy" } else { "iptables-legacy" };
    Some(match name {
        "filter" => program.to_owned(),
        _ => format!("{program} -t {name}"),
    })
}

/// Everybody's chains of one family. The handle of a rule is its number, as `iptables -L --line-numbers` counts.
#[must_use]
pub fn chains(text: &str, family: Family) -> Vec<HostChain> {
    let mut out: Vec<HostChain> = Vec::new();
    let host_family = match family {
        Family::V4 => HostFamily::Ip,
        Family::V6 => HostFamily::Ip6,
    };
    let mut table = TableRef { family: host_family, table: String::new() };
    let mut first = 0;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table.table = format!("{name}{LEGACY}");
            first = out.len();
        } else if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split(' ');
            let (Some(name), policy) = (words.next(), words.next()) else { continue };
            let base = base(table_of(&table).unwrap_or_default(), name, policy == Some("DROP"));
            out.push(HostChain { table: table.clone(), name: name.to_owned(), base, rules: Vec::new() });
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let words = words(rest);
            let Some((name, words)) = words.split_first() else { continue };
            let Some(of_table) = out.get_mut(first..) else { continue };
            let names: Vec<String> = of_table.iter().map(|chain| chain.name.clone()).collect();
            let Some(chain) = of_table.iter_mut().find(|chain| chain.name == *name) else { continue };
            let number = chain.rules.last().map_or(1, |rule| rule.handle + 1);
            // Of our own rules some have the path of step 1 in them.
            let text = rest.split_once(' ').map(|(_, text)| text.replace('"', "'"));
            let comment = text.filter(|_| !name.starts_with(CHAIN_PREFIX));
            let rule = |steps| HostRule { handle: number, comment: comment.clone(), steps };
            chain.rules.extend(steps(words, family, &names).into_iter().map(rule));
        }
    }
    out
}

fn base(table: &str, chain: &str, drops: bool) -> Option<HostBase> {
    let hook = match chain {
        "PREROUTING" => HostHook::Prerouting,
        "INPUT" => HostHook::Input,
        "FORWARD" => HostHook::Forward,
        "OUTPUT" => HostHook::Output,
        "POSTROUTING" => HostHook::Postrouting,
        _ => return None,
    };
    // NF_IP_PRI_* of `linux/netfilter_ipv4.h`
    let (kind, priority) = match (table, hook) {
        ("raw", _) => (HostChainKind::Filter, -300),
        ("mangle", _) => (HostChainKind::Filter, -150),
        ("nat", HostHook::Prerouting | HostHook::Output) => (HostChainKind::Nat, -100),
        ("nat", _) => (HostChainKind::Nat, 100),
        ("security", _) => (HostChainKind::Filter, 50),
        _ => (HostChainKind::Filter, 0),
    };
    Some(HostBase { hook, priority, kind, drops, devices: Vec::new() })
}

/// Words as a shell would part them.
fn words(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                escaped = false;
                out.last_mut().into_iter().for_each(|word| word.push(c));
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => out.push(String::new()),
            _ => out.last_mut().into_iter().for_each(|word| word.push(c)),
        }
    }
    out.retain(|word| !word.is_empty());
    out
}

/// The rules of nf_tables that do the same; several where one port of several may match.
fn steps(words: &[String], family: Family, chains: &[String]) -> Vec<Vec<Step>> {
    let at = words.iter().position(|word| matches!(word.as_str(), "-j" | "-g"));
    let (asked, does) = words.split_at(at.unwrap_or(words.len()));
    let does = target(does, chains);
    let mut out = matches(asked, family);
    out.iter_mut().for_each(|steps| steps.extend(does.iter().cloned()));
    out
}

fn target(words: &[String], chains: &[String]) -> Vec<Step> {
    let (Some(how), Some(name)) = (words.first(), words.get(1)) else { return vec![Step::Nothing] };
    let goes = how == "-g";
    let value = |option: &str| {
        let at = words.iter().position(|word| word == option)?;
        words.get(at + 1).map(String::as_str)
    };
    match name.as_str() {
        "ACCEPT" => vec![Step::Verdict(Verdict::Accept)],
        "DROP" => vec![Step::Verdict(Verdict::Drop)],
        "RETURN" => vec![Step::Verdict(Verdict::Return)],
        "REJECT" => vec![Step::Reject],
        "MARK" | "CONNMARK" => marks::target(name == "CONNMARK", words),
        "CT" if words.iter().any(|word| word == "--notrack") => vec![Step::Notrack],
        "DNAT" => dnat(value("--to-destination").unwrap_or_default()),
        "REDIRECT" => {
            let port = value("--to-ports").and_then(|port| port.parse::<u16>().ok());
            let load = port.map(|port| Step::Constant { to: 0, data: port.to_be_bytes().to_vec() });
            load.into_iter().chain([Step::Redirect { port: port.map(|_| 0), last_port: None }]).collect()
        }
        chain if chains.iter().any(|known| known == chain) && goes => {
            vec![Step::Verdict(Verdict::Goto(chain.to_owned()))]
        }
        chain if chains.iter().any(|known| known == chain) => {
            vec![Step::Verdict(Verdict::Jump(chain.to_owned()))]
        }
        other => {
            vec![Step::CompatTarget { name: other.to_owned(), revision: u32::MAX, info: Vec::new() }]
        }
    }
}

/// `10.0.0.5`, `10.0.0.5:22`, `:22`, `[fd00::5]:22`; ranges are not known beforehand.
fn dnat(to: &str) -> Vec<Step> {
    let (addr, port) = match to.parse::<std::net::SocketAddr>() {
        Ok(at) => (Some(at.ip()), Some(at.port())),
        Err(_) => (to.parse().ok(), to.strip_prefix(':').and_then(|port| port.parse().ok())),
    };
    let mut out = Vec::new();
    if let Some(addr) = addr {
        let data = match addr {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        out.push(Step::Constant { to: 0, data });
    }
    out.extend(port.map(|port: u16| Step::Constant { to: 16, data: port.to_be_bytes().to_vec() }));
    out.push(Step::Dnat {
        addr: addr.map(|_| 0),
        last_addr: None,
        v6: addr.is_some_and(|addr| addr.is_ipv6()),
        port: port.map(|_| 16),
        last_port: None,
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::audit::host::Host;
    use crate::ruleset::audit::machine::{Fate, pass};
    use crate::ruleset::audit::packet::{Interface, Packet, TcpFlags, Tracking};
    use crate::units::Protocol;

    /// What becomes of a first packet from 203.0.113.9 to 192.0.2.1 port 22 in INPUT, and by which rule; none: not certain.
    fn judge(rules: &str, policy: &str) -> Option<(Fate, Option<u64>)> {
        let text = format!(
            "# Generated\n*filter\n:INPUT {policy} [0:0]\n:mine - [0:0]\n-A mine -s 198.51.100.0/24 -j RETURN\n{rules}\nCOMMIT\n"
        );
        let chains = chains(&text, Family::V4);
        let host = Host { chains, ..Host::default() };
        let from = (Some([203, 0, 113, 9].into()), Some(51_515));
        let to = (Some([192, 0, 2, 1].into()), Some(22));
        let mut packet = Packet::new(Family::V4, Protocol::Tcp, from, to, TcpFlags::Syn);
        packet.iif = Some(Interface { name: "eth0".into(), index: Some(2) });
        (packet.tracking, packet.of_one_client, packet.for_here) = (Tracking::NEW, true, true);
        let passage = pass(&host, &host.chains[0], &mut packet);
        let end = passage.ends.into_iter().find(|end| end.certain)?;
        Some((end.fate, end.place.rule.map(|(number, _)| number)))
    }

    #[test]
    fn what_iptables_legacy_writes_is_followed_as_the_kernel_does() {
        let dropped = |number| Some((Fate::Dropped, number));
        for (rules, wanted) in [
            ("", dropped(None)),
            ("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            ("-A INPUT -p tcp -m tcp --dport 20:25 -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            ("-A INPUT -p tcp -m tcp ! --dport 22 -j ACCEPT", dropped(None)),
            ("-A INPUT -p udp -m udp --dport 22 -j ACCEPT", dropped(None)),
            ("-A INPUT -i lo -j ACCEPT", dropped(None)),
            ("-A INPUT -i eth+ -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            ("-A INPUT ! -i eth0 -j ACCEPT", dropped(None)),
            ("-A INPUT -s 203.0.113.0/24 -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            ("-A INPUT ! -s 203.0.113.9/32 -j ACCEPT", dropped(None)),
            ("-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", dropped(None)),
            ("-A INPUT -m state --state NEW -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            ("-A INPUT -m conntrack ! --ctstate INVALID -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            ("-A INPUT -p tcp -m multiport --dports 80,443,20:22 -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            ("-A INPUT -p tcp -m multiport ! --dports 80,22 -j ACCEPT", dropped(None)),
            (
                "-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT",
                Some((Fate::Accepted, Some(1))),
            ),
            ("-A INPUT -p icmp -j ACCEPT", dropped(None)),
            ("-A INPUT -m mark --mark 0x1/0x1 -j ACCEPT", dropped(None)),
            (
                "-A INPUT -j MARK --set-xmark 0x1/0x1\n-A INPUT -m mark --mark 0x1/0x1 -j ACCEPT",
                Some((Fate::Accepted, Some(2))),
            ),
            (
                "-A INPUT -j CONNMARK --set-xmark 0x5/0xffffffff\n-A INPUT -m connmark --mark 0x5 -j ACCEPT",
                Some((Fate::Accepted, Some(2))),
            ),
            ("-A INPUT -m connmark ! --mark 0x5 -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            (
                "-A INPUT -j CONNMARK --set-xmark 0x5/0xffffffff\n-A INPUT -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n-A INPUT -m mark --mark 0x5 -j ACCEPT",
                Some((Fate::Accepted, Some(3))),
            ),
            (
                "-A INPUT -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff\n-A INPUT -m mark --mark 0x5 -j ACCEPT",
                None,
            ),
            ("-A INPUT -m addrtype --dst-type LOCAL -j ACCEPT", Some((Fate::Accepted, Some(1)))),
            ("-A INPUT -j LOG --log-prefix \"in: -j ACCEPT\"", dropped(None)),
            ("-A INPUT -m comment --comment \"a -j ACCEPT\" -j REJECT", dropped(Some(1))),
            ("-A INPUT -j mine\n-A INPUT -j ACCEPT", Some((Fate::Accepted, Some(2)))),
            ("-A mine -s 203.0.113.9/32 -j DROP\n-A INPUT -j mine\n-A INPUT -j ACCEPT", dropped(Some(2))),
            // Of these nobody can tell.
            ("-A INPUT -m set --match-set bad src -j DROP\n-A INPUT -j ACCEPT", None),
            ("-A INPUT -m something --new -j ACCEPT", None),
            ("-A INPUT -j SOMETHING", None),
        ] {
            assert_eq!(judge(rules, "DROP"), wanted, "{rules}");
        }
        assert_eq!(judge("", "ACCEPT"), Some((Fate::Accepted, None)));
    }

    #[test]
    fn tables_are_told_apart_and_their_commands_are_iptables_own() {
        let text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j DROP\nCOMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m tcp --dport 22 -j DNAT --to-destination [fd00::5]:2222\nCOMMIT\n";
        let found = chains(text, Family::V6);
        let [raw, nat] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((raw.table.to_string(), raw.rules.len()), ("ip6 raw (legacy)".to_owned(), 1));
        assert_eq!(command(&nat.table).unwrap(), "ip6tables-legacy -t nat");
        assert_eq!(
            nat.base.as_ref().map(|base| (base.priority, base.kind)),
            Some((-100, HostChainKind::Nat))
        );
        assert!(matches!(
            nat.rules[0].steps.last(),
            Some(Step::Dnat { addr: Some(0), v6: true, port: Some(16), .. })
        ));
        assert!(command(&TableRef { family: HostFamily::Ip, table: "filter".into() }).is_none());
    }

    #[test]
    fn text_of_our_own_rules_is_not_kept() {
        let text = "*mangle\n:PREROUTING ACCEPT [0:0]\n:KA-gate - [0:0]\n-A PREROUTING -j KA-gate\n-A KA-gate -m string --hex-string secret -j DROP\nCOMMIT\n";
        let found = chains(text, Family::V4);
        assert!(found[1].rules[0].comment.is_none() && found[0].rules[0].comment.is_some());
    }
}
