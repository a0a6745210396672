//! The sets that rules ask, with the types and options that give them what nftables' sets have.

use super::gate::{SPOKEN, SPOKEN_SECS, TALKED, TALKED_SECS};
use super::model::{IpSet, SetContent};
use super::plan::{Draft, Keeping};
use super::step1::{FLOW, FLOW_SECS, METER};
use super::{adopted, behind, names};
use crate::ruleset::knocking::KnockGrants;
use crate::ruleset::plan::{allow_set, app_set, step2_set};
use crate::units::Family;

/// Room in each set of grants.
const GRANTS: u32 = 1_048_576;
/// Room in each set that strangers' or half-known clients' packets fill, and in a set of networks.
const CLIENTS: u32 = 65_536;
/// The IPv6 clients of one site share a meter, and a place where there is none for their ports.
const METER_PREFIX: u8 = 64;
const METER_SECS: u32 = 60;

pub(super) fn sets(draft: &Draft<'_>) -> Vec<IpSet> {
    let settings = draft.layout.settings;
    let mut out = Vec::new();
    if draft.keeping == Keeping::Recent {
        return out;
    }
    for family in Family::BOTH {
        let digit = family.digit();
        out.push(networks(allow_set("all", family), family));
        if settings.global.steps {
            out.push(addresses(step2_set(family), family, CLIENTS, 128, SetContent::Admissions));
            let meter = netmask(family, METER_PREFIX);
            out.push(packets(format!("{METER}_{digit}"), "hash:ip", family, &meter, METER_SECS, " counters"));
        }
        out.push(packets(format!("{SPOKEN}_{digit}"), "hash:ip,port", family, "", SPOKEN_SECS, ""));
        out.push(packets(format!("{TALKED}_{digit}"), "hash:ip,port", family, "", TALKED_SECS, ""));
        for (stem, secs) in [(SPOKEN, SPOKEN_SECS), (TALKED, TALKED_SECS)] {
            out.push(by(draft, format!("{stem}_by_{digit}"), family, secs));
        }
        for meaning in behind::ends(draft, family) {
            out.push(packets(meaning, "hash:ip,port", family, "", SPOKEN_SECS, ""));
        }
        out.extend(behind::clients(draft, family).map(|meaning| by(draft, meaning, family, SPOKEN_SECS)));
        out.extend(adopted::sets(family));
        if settings.global.steps && draft.segments() > 1 {
            out.push(packets(format!("{FLOW}_{digit}"), "hash:ip,port", family, "", FLOW_SECS, " counters"));
        }
        for app in &settings.apps {
            let prefix = settings.global.ipv6_prefix;
            out.push(addresses(app_set(&app.slug, family), family, GRANTS, prefix, SetContent::Kept));
            out.push(networks(allow_set(&app.slug, family), family));
        }
        out.extend(draft.layout.knocking.grants.iter().map(|grants| knocked(draft, grants, family)));
    }
    out
}

/// Clients without room for their ends.
fn by(draft: &Draft<'_>, meaning: String, family: Family, secs: u32) -> IpSet {
    let mask = netmask(family, draft.layout.settings.global.ipv6_prefix.min(METER_PREFIX));
    let kind = format!("hash:ip family {} maxelem {GRANTS}{mask} timeout {secs}", inet(family));
    IpSet { name: names::set(&meaning), meaning, kind, content: SetContent::Packets }
}

fn addresses(meaning: String, family: Family, room: u32, prefix: u8, content: SetContent) -> IpSet {
    let mask = netmask(family, prefix);
    let kind = format!("hash:ip family {} maxelem {room}{mask} timeout 0 comment", inet(family));
    IpSet { name: names::set(&meaning), meaning, kind, content }
}

/// What sequences fill: what a rule adds lasts as long as the set says.
fn knocked(draft: &Draft<'_>, grants: &KnockGrants, family: Family) -> IpSet {
    let (room, prefix, content) = match grants.service {
        true => (GRANTS, draft.layout.settings.global.ipv6_prefix, SetContent::Kept),
        false => (CLIENTS, family.bits(), SetContent::Admissions),
    };
    let (meaning, mask) = (grants.set(family), netmask(family, prefix));
    let kind =
        format!("hash:ip family {} maxelem {room}{mask} timeout {} comment", inet(family), grants.secs);
    IpSet { name: names::set(&meaning), meaning, kind, content }
}

fn networks(meaning: String, family: Family) -> IpSet {
    let kind = format!("hash:net family {} maxelem {CLIENTS} timeout 0 comment", inet(family));
    IpSet { name: names::set(&meaning), meaning, kind, content: SetContent::Kept }
}

fn packets(meaning: String, kind: &str, family: Family, mask: &str, secs: u32, more: &str) -> IpSet {
    let kind = format!("{kind} family {} maxelem {CLIENTS}{mask} timeout {secs}{more}", inet(family));
    IpSet { name: names::set(&meaning), meaning, kind, content: SetContent::Packets }
}

/// Whether two types are one: others' versions of ipset may list more, and in another order.
#[must_use]
pub fn same_kind(one: &str, other: &str) -> bool {
    let told = |kind: &str| {
        let words: Vec<&str> = kind.split_whitespace().collect();
        let value = |key: &str| {
            let at = words.iter().position(|word| *word == key)?;
            words.get(at + 1).map(|word| (*word).to_owned())
        };
        let flag = |key: &str| words.contains(&key);
        (
            words.first().map(|word| (*word).to_owned()),
            ["family", "maxelem", "netmask", "timeout"].map(value),
            ["comment", "counters"].map(flag),
        )
    };
    told(one) == told(other)
}

fn netmask(family: Family, prefix: u8) -> String {
    if family == Family::V4 || prefix >= family.bits() { String::new() } else { format!(" netmask {prefix}") }
}

fn inet(family: Family) -> &'static str {
    match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_compared_by_what_matters() {
        let ours = "hash:ip family inet6 maxelem 10 netmask 64 timeout 0 comment";
        assert!(same_kind(ours, "hash:ip family inet6 netmask 64 maxelem 10 comment timeout 0 forceadd"));
        for other in [
            "hash:net family inet6 maxelem 10 netmask 64 timeout 0 comment",
            "hash:ip family inet6 maxelem 10 timeout 0 comment",
            "hash:ip family inet6 maxelem 10 netmask 56 timeout 0 comment",
            "hash:ip family inet6 maxelem 10 netmask 64 comment",
            "hash:ip family inet6 maxelem 10 netmask 64 timeout 0",
        ] {
            assert!(!same_kind(ours, other), "{other}");
        }
    }
}
