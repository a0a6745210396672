//! VyOS: `set` commands, for what a commit keeps.

use super::{Admission, Need, Owner, Passer, iptables, nft};
use crate::ruleset::audit::host::{Host, HostFamily, HostHook};

/// The largest mark that a rule of VyOS takes.
const LARGEST: u32 = 0x7fff_ffff;
/// The number of our rule where there are no others.
const USUAL_NUMBER: u32 = 10;

/// VyOS 1.4 and later.
pub(super) fn admit_14(host: &Host, need: &Need<'_>) -> Vec<String> {
    if let Admission::Mark(mark) = need.admission
        && (mark.mask() != u32::MAX || mark.value() > LARGEST)
    {
        return vec![format!(
            "# VyOS matches whole marks up to {LARGEST} only: run with --firewall-type vyos, or set another global.mark"
        )];
    }
    let family = match need.table.family {
        HostFamily::Ip6 => "ipv6",
        _ => "ipv4",
    };
    let lost_in = need.place.map_or(need.chain, |place| place.chain.as_str());
    let (chain, path) = match custom(lost_in) {
        Some(name) => (lost_in, format!("firewall {family} name {name}")),
        None => match base(need) {
            Some(direction) => (need.chain, format!("firewall {family} {direction} filter")),
            None => return by_hand(need),
        },
    };
    let least = least_number(host, need, chain);
    // Where `check-ruleset --print vyos` puts it as well, unless bans come first.
    let number = least.unwrap_or(2 * USUAL_NUMBER) / 2;
    let rules = matches(need);
    let Some(first) = (number + 1).checked_sub(rules.len() as u32).filter(|&first| first > 0) else {
        return without_room(&path, least.unwrap_or_default(), &rules);
    };
    let mut out = vec!["configure".to_owned()];
    out.extend(rules.iter().zip(first..).flat_map(|(rule, number)| commands(&path, number, rule)));
    out.extend(["commit".to_owned(), "save".to_owned()]);
    out
}

/// What each of the rules matches, as VyOS writes it.
fn matches(need: &Need<'_>) -> Vec<Vec<String>> {
    match need.admission {
        Admission::Mark(mark) => vec![vec![format!("mark {}", mark.value())]],
        Admission::Ports => need.passers().iter().map(by_port).collect(),
    }
}

fn by_port(passer: &Passer) -> Vec<String> {
    let side = if passer.is_source { "source" } else { "destination" };
    let ports = nft::with_separator(passer.ports, '-');
    let mut out = vec![format!("protocol {}", passer.protocol), format!("{side} port {ports}")];
    if let Owner::Host(addr) = passer.owner {
        out.push(format!("{side} address {addr}"));
    }
    if let Some(door) = &passer.door {
        let way = if door.is_out { "outbound" } else { "inbound" };
        out.push(format!("{way}-interface name {}", door.name));
    }
    out
}

fn commands(path: &str, number: u32, rule: &[String]) -> Vec<String> {
    let lead = format!("set {path} rule {number}");
    let mut out = vec![format!("{lead} description knock-agent"), format!("{lead} action accept")];
    out.extend(rule.iter().map(|part| format!("{lead} {part}")));
    out
}

/// No command: to `set` at a number that is taken would turn the operator's rule into an accept.
fn without_room(path: &str, least: u32, rules: &[Vec<String>]) -> Vec<String> {
    let mut out = vec![format!(
        "# {path}: no free number before rule {least}; make room there (`rename rule`) for what follows, N free:"
    )];
    for rule in rules {
        out.push(format!("# set {path} rule N action accept"));
        out.extend(rule.iter().map(|part| format!("# set {path} rule N {part}")));
    }
    out
}

fn custom(chain: &str) -> Option<&str> {
    chain.strip_prefix("NAME_").or_else(|| chain.strip_prefix("NAME6_"))
}

fn base(need: &Need<'_>) -> Option<&'static str> {
    if !need.chain.ends_with("_filter") {
        return None;
    }
    match need.hook {
        HostHook::Input => Some("input"),
        HostHook::Forward => Some("forward"),
        HostHook::Output => Some("output"),
        HostHook::Ingress | HostHook::Prerouting | HostHook::Postrouting | HostHook::Egress => None,
    }
}

/// The least number of a rule of the chain: comments end with theirs, such as `ipv4-INP-filter-10`.
fn least_number(host: &Host, need: &Need<'_>, chain: &str) -> Option<u32> {
    let rules = host.chain(need.table, chain).map(|chain| chain.rules.as_slice()).unwrap_or_default();
    let number = |text: &str| text.rsplit('-').next()?.parse().ok();
    let comments = rules.iter().filter_map(|rule| rule.comment.as_deref());
    comments.filter(|text| text.starts_with("ipv")).filter_map(number).min()
}

/// A zone without rules for these packets, or a hook that has no rules of the operator's.
fn by_hand(need: &Need<'_>) -> Vec<String> {
    let mut out = vec![format!(
        "# {} of table {} belongs to a zone: make a rule set for what comes from outside, and in it",
        need.chain, need.table
    )];
    let rules = nft::rules(need);
    out.extend(rules.iter().map(|rule| format!("#   a rule that does: {rule}")));
    out.push(
        "# (set firewall ipv4 name KNOCK rule 1 action accept; set firewall ipv4 name KNOCK rule 1 mark ...;"
            .to_owned(),
    );
    out.push("#  set firewall zone <inside or local> from <outside> firewall name KNOCK; commit)".to_owned());
    out
}

/// VyOS 1.3: chains that are set up once at boot, for rules before those of the configuration.
pub(super) fn admit_13(need: &Need<'_>) -> Vec<String> {
    let chain = match need.hook {
        HostHook::Input => "VYATTA_PRE_FW_IN_HOOK",
        HostHook::Forward => "VYATTA_PRE_FW_FWD_HOOK",
        HostHook::Output => "VYATTA_PRE_FW_OUT_HOOK",
        HostHook::Ingress | HostHook::Prerouting | HostHook::Postrouting | HostHook::Egress => need.chain,
    };
    let mut out = iptables::insert(need, "iptables", chain);
    out.push("# to keep it, write the same into /config/scripts/vyos-postconfig-bootup.script".to_owned());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::audit::host::{HostChain, HostRule, TableRef};
    use crate::units::Mark;

    fn remedy(comments: &[&str]) -> String {
        let table = TableRef { family: HostFamily::Ip, table: "vyos_filter".to_owned() };
        let rule = |comment: &&str| HostRule { comment: Some((*comment).to_owned()), ..HostRule::default() };
        let chain = HostChain {
            table: table.clone(),
            name: "VYOS_INPUT_filter".to_owned(),
            base: None,
            rules: comments.iter().map(rule).collect(),
        };
        let host = Host { chains: vec![chain], ..Host::default() };
        let need = Need {
            table: &table,
            chain: "VYOS_INPUT_filter",
            hook: HostHook::Input,
            priority: 0,
            place: None,
            only_place: false,
            visited: &[],
            admission: Admission::Mark(Mark::DEFAULT),
            journeys: &[],
        };
        admit_14(&host, &need).join("\n")
    }

    #[test]
    fn the_number_is_free_and_that_of_print_vyos() {
        for (comments, number) in
            [(&[][..], 10), (&["ipv4-INP-filter-20", "ipv4-INP-filter-30"], 10), (&["ipv4-INP-filter-5"], 2)]
        {
            let text = remedy(comments);
            let wanted = format!("set firewall ipv4 input filter rule {number} mark 24107");
            assert!(text.lines().any(|line| line == wanted), "{wanted} in\n{text}");
        }
    }

    #[test]
    fn a_rule_of_the_operator_with_number_1_is_never_overwritten() {
        let text = remedy(&["ipv4-INP-filter-1", "ipv4-INP-filter-2"]);
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
        assert!(text.contains("no free number before rule 1"), "{text}");
    }
}
