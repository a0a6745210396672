//! VyOS: `set` commands, for what a commit keeps.

use super::{Admission, Need, Owner, iptables, nft};
use crate::ruleset::audit::host::{Host, HostFamily, HostHook};

/// The largest mark that a rule of VyOS takes.
const LARGEST: u32 = 0x7fff_ffff;

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
    let number = free_number(host, need, chain);
    let mut out = vec!["configure".to_owned()];
    match need.admission {
        Admission::Mark(mark) => {
            out.push(format!("set {path} rule {number} action accept"));
            out.push(format!("set {path} rule {number} mark {}", mark.value()));
        }
        Admission::Ports => {
            for (index, passer) in need.passers().iter().enumerate() {
                let rule = format!("set {path} rule {}", number.saturating_sub(index as u32).max(1));
                let side = if passer.is_source { "source" } else { "destination" };
                let ports = nft::with_separator(passer.ports, '-');
                out.push(format!("{rule} action accept"));
                out.push(format!("{rule} protocol {}", passer.protocol));
                out.push(format!("{rule} {side} port {ports}"));
                if let Owner::Host(addr) = passer.owner {
                    out.push(format!("{rule} {side} address {addr}"));
                }
            }
        }
    }
    out.extend(["commit".to_owned(), "save".to_owned()]);
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

/// A number before all others of the chain: their comments end with theirs, such as `ipv4-INP-filter-10`.
fn free_number(host: &Host, need: &Need<'_>, chain: &str) -> u32 {
    let rules = host.chain(need.table, chain).map(|chain| chain.rules.as_slice()).unwrap_or_default();
    let numbers = rules.iter().filter_map(|rule| {
        rule.comment
            .as_deref()
            .filter(|text| text.starts_with("ipv"))?
            .rsplit('-')
            .next()?
            .parse::<u32>()
            .ok()
    });
    numbers.min().map_or(1, |least| least.saturating_sub(1).max(1))
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
