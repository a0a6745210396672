//! VyOS's commands for the permanent way: rules of its own configuration that accept our mark.

use crate::ruleset::host_chain::{HostFamily, HostTable, does_the_same, is_ours};
use crate::ruleset::host_place::{leads_to, place};
use crate::ruleset::model::{Chain, Rule};
use crate::units::Mark;

/// The table of 1.4 and later.
const FILTER: &str = "vyos_filter";
/// The largest mark that a rule of VyOS takes.
const LARGEST: u32 = 0x7fff_ffff;
/// The number of our rule where there are no others.
const USUAL_NUMBER: u32 = 10;

/// What was recognised of a VyOS router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    /// Its chains are iptables'.
    V1_3,
    /// 1.4 and later.
    Later,
    /// No firewall of VyOS's is loaded, or nobody looked.
    Unknown,
}

/// The commands for what is loaded in these tables; empty: nobody looked.
#[must_use]
pub fn vyos_commands(mark: Option<Mark>, tables: &[HostTable]) -> String {
    let Some(mark) = mark else {
        return "# global.mark is 0: packets are not marked, and VyOS cannot tell what was let in.\n"
            .to_owned();
    };
    let mut out = vec![
        "# These commands have VyOS accept what knock-agent let in, in its own configuration.".to_owned(),
        "# Without them, --firewall-type vyos puts the same rule in place, and again after each commit."
            .to_owned(),
    ];
    let release = release(tables);
    if release != Release::V1_3 {
        out.push(String::new());
        out.extend(later(mark, tables, release));
    }
    if release != Release::Later {
        out.push(String::new());
        out.extend(v1_3(mark));
    }
    out.join("\n") + "\n"
}

fn release(tables: &[HostTable]) -> Release {
    let hooks = |table: &HostTable| table.name == "filter" && table.chain("VYATTA_PRE_FW_IN_HOOK").is_some();
    if tables.iter().any(|table| table.name == FILTER) {
        Release::Later
    } else if tables.iter().any(hooks) {
        Release::V1_3
    } else {
        Release::Unknown
    }
}

fn v1_3(mark: Mark) -> Vec<String> {
    let value = if mark.mask() == u32::MAX {
        mark.value().to_string()
    } else {
        format!("{:#x}/{:#x}", mark.value(), mark.mask())
    };
    let mut out = vec![
        "# VyOS 1.3: its firewall rules cannot match a mark. These lines go into".to_owned(),
        "# /config/scripts/vyos-postconfig-bootup.script; its chains of this name stay until the next boot."
            .to_owned(),
    ];
    for program in ["iptables", "ip6tables"] {
        for hook in ["IN", "FWD", "OUT"] {
            out.push(format!("{program} -I VYATTA_PRE_FW_{hook}_HOOK -m mark --mark {value} -j ACCEPT"));
        }
    }
    out
}

fn later(mark: Mark, tables: &[HostTable], release: Release) -> Vec<String> {
    let mut out = vec!["# VyOS 1.4 and 1.5".to_owned()];
    if mark.mask() != u32::MAX || mark.value() > LARGEST {
        out.push(format!(
            "# Its rules match whole marks up to {LARGEST} only, not {:#x}/{:#x}: use --firewall-type vyos, or another global.mark.",
            mark.value(),
            mark.mask()
        ));
        return out;
    }
    out.push("configure".to_owned());
    for (family, word, v6) in [(HostFamily::Ip, "ipv4", ""), (HostFamily::Ip6, "ipv6", "IPV6_")] {
        let table = tables.iter().find(|table| table.family == family && table.name == FILTER);
        for hook in ["input", "forward", "output"] {
            let chain = format!("VYOS_{v6}{}_filter", hook.to_uppercase());
            out.extend(commands(&format!("firewall {word} {hook} filter"), table, &chain, mark));
        }
        for (name, chain) in table.into_iter().flat_map(zone_chains) {
            out.push(format!("# rule-set {name} is used between zones:"));
            out.extend(commands(&format!("firewall {word} name {name}"), table, &chain.name, mark));
        }
    }
    if release == Release::Unknown {
        out.push(
            "# Where zones are used, also in each rule-set from the outside zone to another one and back:"
                .to_owned(),
        );
        out.extend(rule(&"firewall ipv4 name RULE-SET", USUAL_NUMBER, mark).map(|line| format!("# {line}")));
    }
    out.extend(["commit".to_owned(), "save".to_owned()]);
    out
}

fn rule(path: &dyn std::fmt::Display, number: u32, mark: Mark) -> [String; 3] {
    [
        format!("set {path} rule {number} description 'knock-agent'"),
        format!("set {path} rule {number} action 'accept'"),
        format!("set {path} rule {number} mark '{}'", mark.value()),
    ]
}

/// The commands for one chain, as far as it does not have the rule already.
fn commands(path: &str, table: Option<&HostTable>, chain: &str, mark: Mark) -> Vec<String> {
    let found = table.and_then(|table| Some((table, table.chain(chain)?)));
    let Some((table, chain)) = found else { return rule(&path, USUAL_NUMBER, mark).to_vec() };
    let theirs: Vec<&Rule> = chain.rules.iter().filter(|rule| !is_ours(rule)).collect();
    if let Some(number) = theirs.iter().find(|rule| does_the_same(rule, mark)).and_then(|rule| number(rule)) {
        return vec![format!("# {path}: rule {number} accepts the mark already")];
    }
    let earliest = place(table, &theirs).earliest;
    let (before, after) = theirs.split_at_checked(earliest).unwrap_or((&theirs, &[]));
    let last = before.iter().rev().find_map(|rule| number(rule)).unwrap_or(0);
    let next = after.iter().find_map(|rule| number(rule)).unwrap_or(last + 2 * USUAL_NUMBER);
    if next <= last + 1 {
        return vec![format!(
            "# {path}: there is no free number before rule {next}; make room for a rule there:"
        )]
        .into_iter()
        .chain(rule(&path, next, mark).map(|line| format!("# {line}")))
        .collect();
    }
    rule(&path, last + (next - last) / 2, mark).to_vec()
}

/// The number of a rule, which VyOS writes at the end of its comment (`ipv4-INP-filter-10`).
fn number(rule: &Rule) -> Option<u32> {
    rule.comment.as_deref()?.rsplit('-').next()?.parse().ok()
}

/// The rule-sets that packets meet between zones, by the operator's name.
fn zone_chains(table: &HostTable) -> Vec<(String, &Chain)> {
    let prefix = if table.family == HostFamily::Ip6 { "NAME6_" } else { "NAME_" };
    let zones: Vec<&Chain> = ["FORWARD", "LOCAL", "OUTPUT"]
        .iter()
        .filter_map(|z| table.chain(&format!("VYOS_ZONE_{z}")))
        .collect();
    let reached = |chain: &&Chain| zones.iter().any(|zone| leads_to(table, zone, &chain.name));
    let named = |chain| -> Option<(String, &Chain)> {
        let chain: &Chain = chain;
        Some((chain.name.strip_prefix(prefix)?.to_owned(), chain))
    };
    table.chains.iter().filter(reached).filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::expr::{Expr, Verdict};
    use crate::ruleset::host_chain::accept_rule;
    use crate::ruleset::model::Hook;

    fn numbered(comment: &str, exprs: Vec<Expr>) -> Rule {
        Rule { comment: Some(comment.to_owned()), exprs }
    }

    fn table(chain: &str, rules: Vec<Rule>) -> HostTable {
        let handles = vec![(1..=rules.len() as u64).collect()];
        let chains = vec![Chain { name: chain.to_owned(), base: None, rules }];
        HostTable { family: HostFamily::Ip, name: FILTER.to_owned(), owned: false, chains, handles }
    }

    #[test]
    fn where_nothing_is_known_both_ways_are_printed() {
        let text = vyos_commands(Some(Mark::DEFAULT), &[]);
        for line in [
            "set firewall ipv4 input filter rule 10 action 'accept'",
            "set firewall ipv4 forward filter rule 10 mark '24107'",
            "set firewall ipv6 input filter rule 10 mark '24107'",
            "# set firewall ipv4 name RULE-SET rule 10 mark '24107'",
            "iptables -I VYATTA_PRE_FW_IN_HOOK -m mark --mark 24107 -j ACCEPT",
            "ip6tables -I VYATTA_PRE_FW_FWD_HOOK -m mark --mark 24107 -j ACCEPT",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_number_is_free_and_before_the_first_rule_that_may_drop() {
        let drop = |comment| numbered(comment, vec![Expr::Verdict(Verdict::Drop)]);
        let chain = "VYOS_INPUT_filter";
        let text = vyos_commands(Some(Mark::DEFAULT), &[table(chain, vec![drop("ipv4-INP-filter-20")])]);
        assert!(text.contains("set firewall ipv4 input filter rule 10 mark '24107'"), "{text}");
        let text = vyos_commands(Some(Mark::DEFAULT), &[table(chain, vec![drop("ipv4-INP-filter-5")])]);
        assert!(text.contains("set firewall ipv4 input filter rule 2 mark '24107'"), "{text}");
        let text = vyos_commands(Some(Mark::DEFAULT), &[table(chain, vec![drop("ipv4-INP-filter-1")])]);
        assert!(
            text.contains("# firewall ipv4 input filter: there is no free number before rule 1"),
            "{text}"
        );
        assert!(!text.contains("VYATTA"), "1.3 is not meant: {text}");
    }

    #[test]
    fn a_rule_that_is_there_is_not_asked_for_again() {
        let rule = accept_rule(Hook::Input, Mark::DEFAULT);
        let rule = numbered("ipv4-INP-filter-7", rule.exprs);
        let text = vyos_commands(Some(Mark::DEFAULT), &[table("VYOS_INPUT_filter", vec![rule])]);
        assert!(text.contains("# firewall ipv4 input filter: rule 7 accepts the mark already"), "{text}");
        assert!(!text.contains("set firewall ipv4 input"), "{text}");
    }

    #[test]
    fn a_mark_that_vyos_cannot_match_is_no_command() {
        let text = vyos_commands("0x100/0xff00".parse().ok(), &[]);
        assert!(!text.contains("set firewall"), "{text}");
        assert!(text.contains("--firewall-type vyos, or another global.mark"), "{text}");
        assert!(text.contains("--mark 0x100/0xff00"), "{text}");
        assert!(!vyos_commands(None, &[]).contains("set firewall"));
    }
}
