//! What is in force by iptables, in the model's own terms: the sets by the names they have in nftables, and
//! which guarded port asks for which of them.

use std::collections::BTreeMap;

use super::elements::{self, listed};
use super::recent::Filled;
use super::save::{ListedSet, Listing};
use super::{adopted, knock, names};
use crate::ruleset::allow::{Span, address_key};
use crate::ruleset::diff::Live;
use crate::ruleset::expr::{Expr, Reg, Verdict};
use crate::ruleset::model::{Chain, Content, Element, Elements, KeyPart, Rule, Set, SetFlags, Value};
use crate::ruleset::plan::{KNOCK_PORTS, allow_set, interface_key};
use crate::units::{Family, Network, PortRange, Protocol};

/// What was read; none where nothing of ours is there. A set of grants that somebody flushed counts as gone.
#[must_use]
pub fn live(listings: [&Listing; 2], sets: &BTreeMap<String, ListedSet>, lists: &[Filled]) -> Option<Live> {
    let guarded = listings.iter().any(|listing| listing.has_ours());
    if !guarded && sets.is_empty() {
        return None;
    }
    let meanings = meanings(listings);
    let mut live = Live::default();
    for (name, set) in sets {
        let known = names::meaning(name).map(str::to_owned).or_else(|| meanings.get(name).cloned());
        let Some(meaning) = known else { continue };
        let (found, sentinel) = listed(set);
        if elements::has_sentinel(&meaning) && !sentinel || set.kind.starts_with("hash:ip,port,ip") {
            continue;
        }
        live.ruleset.sets.push(as_set(&meaning, set));
        live.elements.insert(meaning, found);
    }
    for ([from, to], set) in Family::BOTH.map(adopted::parts) {
        if let (Some(from), Some(to)) = (sets.get(&from), sets.get(&to)) {
            live.elements.insert(set.name.clone(), adopted::listed(from, to));
            live.ruleset.sets.push(set);
        }
    }
    for filled in lists {
        add_list(filled, &mut live);
    }
    if !lists.is_empty() {
        add_networks(listings, &mut live);
    }
    services(listings, sets, lists, &mut live);
    Some(live)
}

/// The set or list that a rule asks for an address.
fn asked_set<'a>(rule: &'a str, lists: &'a [Filled]) -> Option<&'a str> {
    after(rule, "--match-set").or_else(|| {
        let name = after(rule, "--name")?;
        lists.iter().find(|filled| filled.list.name == name).map(|filled| filled.list.meaning.as_str())
    })
}

/// Several lists may stand for one set: the longest time counts.
fn add_list(filled: &Filled, live: &mut Live) {
    let meaning = &filled.list.meaning;
    if live.ruleset.set(meaning).is_none() {
        let family = if meaning.ends_with('4') { "inet" } else { "inet6" };
        let kind = format!("hash:ip family {family}");
        live.ruleset.sets.push(as_set(meaning, &ListedSet { kind, ..ListedSet::default() }));
    }
    let elements = live.elements.entry(meaning.clone()).or_default();
    let left = |element: &Element| element.timeout.map(|timeout| timeout.left_ms);
    for (key, element) in &filled.elements {
        if elements.get(key).is_none_or(|have| left(have) < left(element)) {
            elements.insert(key.clone(), element.clone());
        }
    }
}

/// The networks that rules let in by themselves.
fn add_networks(listings: [&Listing; 2], live: &mut Live) {
    let mut spans: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for (_, rule) in mangle_rules(listings) {
        let set = comment(rule).and_then(|what| what.strip_prefix("allow:"));
        let network = after(rule, "-s").and_then(|word| word.parse::<Network>().ok());
        if let (Some(slug), Some(network)) = (set, network) {
            let known = spans.entry(allow_set(slug, network.family())).or_default();
            if !known.contains(&Span::configured(network)) {
                known.push(Span::configured(network));
            }
        }
    }
    for (set, spans) in spans {
        let family = if set.ends_with('4') { Family::V4 } else { Family::V6 };
        live.elements.insert(set, elements::as_networks(&crate::ruleset::allow::elements(&spans, family)));
    }
}

fn as_set(meaning: &str, set: &ListedSet) -> Set {
    let address = if set.kind.contains(" family inet6") { KeyPart::Ipv6 } else { KeyPart::Ipv4 };
    Set {
        name: meaning.to_owned(),
        key: vec![address],
        value: Value::Nothing,
        flags: SetFlags { timeout: true, interval: set.kind.starts_with("hash:net"), dynamic: false },
        size: None,
        content: Content::Living,
    }
}

/// What sets with cut names stand for: a rule that asks one says whose it is.
fn meanings(listings: [&Listing; 2]) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for rule in mangle_rules(listings).map(|(_, rule)| rule).filter(|rule| rule.contains(names::CUT)) {
        let (Some(set), Some(what)) = (after(rule, "--match-set"), comment(rule)) else { continue };
        let Some((_, digit)) = set.rsplit_once('_') else { continue };
        let stem = what.strip_prefix("grant:").map(|slug| ("app", slug));
        let stem = stem.or_else(|| what.strip_prefix("allow:").map(|slug| ("allow", slug)));
        let stem = stem.map(|(kind, slug)| format!("{kind}_{slug}"));
        if let Some(stem) = stem.or_else(|| what.strip_prefix("knocked:").map(str::to_owned)) {
            out.insert(set.to_owned(), format!("{stem}_{digit}"));
        }
    }
    out
}

/// The guarded ports as a map to chains, and the sets that those ask.
fn services(listings: [&Listing; 2], sets: &BTreeMap<String, ListedSet>, lists: &[Filled], live: &mut Live) {
    let dispatch = names::chain("services");
    let knocks = [Protocol::Tcp, Protocol::Udp].map(|protocol| names::chain(&knock::ports_chain(protocol)));
    let mut ports = Elements::new();
    let mut map = Elements::new();
    let mut asked: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
    let (forward, here) = (names::chain("forward"), names::chain("gate_here"));
    let mut outside = Elements::new();
    for (chain, rule) in mangle_rules(listings) {
        if chain == here {
            let name = after(rule, "-i").and_then(|name| name.parse().ok());
            outside.extend(name.map(|name| (interface_key(&name), Element::default())));
        } else if chain == dispatch {
            map.extend(guarded(rule, &[]));
        } else if knocks.iter().any(|name| name == chain) {
            ports.extend(guarded(rule, &[]));
        } else if chain == forward {
            let host = after(rule, "-d").and_then(|word| word.parse::<Network>().ok());
            let Some(host) = host.map(|network| network.first()) else { continue };
            let lan = format!("lan_{}", Family::of(host).digit());
            live.elements.entry(lan).or_default().extend(guarded(rule, &address_key(host)));
        } else if let (Some(set), Some(what)) = (asked_set(rule, lists), comment(rule))
            && let Some(slug) = what.strip_prefix("grant:")
            && let Some((_, digit)) = set.rsplit_once('_')
        {
            let list = lists.iter().map(|filled| &filled.list).find(|list| list.meaning == set);
            let lookup = Expr::Lookup { set: format!("app_{slug}_{digit}"), reg: Reg(0), verdict: false };
            let narrow =
                list.filter(|list| set.ends_with('6') && list.prefix < 128).map(|list| mask_of(list.prefix));
            let mask = sets.get(set).and_then(mask).or(narrow.flatten());
            let exprs = mask.into_iter().chain([lookup]).collect();
            let rule = Rule { comment: Some(format!("ka:{what}")), exprs };
            asked.entry(chain.to_owned()).or_default().push(rule);
        }
    }
    live.elements.insert("ext".to_owned(), outside);
    live.elements.insert("services".to_owned(), map);
    live.elements.insert(KNOCK_PORTS.to_owned(), ports);
    live.ruleset.chains = asked.into_iter().map(|(name, rules)| Chain { name, base: None, rules }).collect();
}

/// The element of the map from ports to chains that a rule stands for, after what the map asks besides.
fn guarded(rule: &str, before: &[u8]) -> Option<(Vec<u8>, Element)> {
    let name = after(rule, "-p")?;
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.name() == name)?;
    let ports = after(rule, "--dport")?.replace(':', "-").parse::<PortRange>().ok()?;
    let verdict = Some(Verdict::Goto(after(rule, "-g")?.to_owned()));
    let key = |port: u16| {
        let mut key = before.to_vec();
        key.extend([protocol.number(), 0, 0, 0]);
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
        key
    };
    let last = (!ports.is_single()).then(|| key(ports.last()));
    Some((key(ports.first()), Element { last, verdict, ..Element::default() }))
}

/// What a set with a `netmask` does with an address before it looks it up.
fn mask(set: &ListedSet) -> Option<Expr> {
    mask_of(after(&set.kind, "netmask")?.parse().ok()?)
}

fn mask_of(prefix: u8) -> Option<Expr> {
    let mask = u128::MAX.checked_shl(u32::from(128_u8.checked_sub(prefix)?))?;
    Some(Expr::Bitwise { reg: Reg(0), mask: mask.to_be_bytes().to_vec(), xor: vec![0; 16] })
}

fn mangle_rules(listings: [&Listing; 2]) -> impl Iterator<Item = (&str, &str)> {
    listings.into_iter().filter_map(|listing| listing.tables.get("mangle")).flat_map(|table| {
        let each = table.chains.iter();
        each.flat_map(|(name, rules)| rules.iter().map(move |rule| (name.as_str(), rule.as_str())))
    })
}

fn after<'r>(rule: &'r str, word: &str) -> Option<&'r str> {
    let mut words = rule.split(' ');
    words.by_ref().find(|found| *found == word)?;
    words.next()
}

/// What a rule of ours is for.
fn comment(rule: &str) -> Option<&str> {
    rule.split_once("--comment \"ka:")
        .or_else(|| rule.split_once("--comment ka:"))?
        .1
        .split(['"', ' '])
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::iptables::{plan, restore, save};
    use crate::ruleset::layout::Options;

    #[test]
    fn what_is_guarded_and_by_which_sets_is_read_from_the_rules_alone() {
        let long = "a-name-of-an-app-that-is-much-too-long-for-an-ipset";
        let text = format!(
            "global:\n  interface_ext: eth0\n  http_post_path: /a-path\n  https_post_path: /b-path\n{}:\n  port: [22, \"6000-6010\"]\n  duration: 1h\n  access_key_http: [first-secret]\n  access_key_https: [other-secret]\n",
            &long[..48]
        );
        let settings = crate::config::parse("x", &text, None, &crate::config::Alone).unwrap().settings;
        let port = |n| std::num::NonZeroU16::new(n).unwrap();
        let options = Options { http_port: port(80), https_port: port(443), inner_header: true, log: true };
        let tables = plan::plan(&settings, options, plan::Matcher::Bpf, plan::Keeping::Ipset).unwrap();
        let listing = save::listing(&restore::text(&tables.ipv4));
        let created: String = tables.ipsets.iter().map(super::super::elements::creation).collect();
        let live = live([&listing, &Listing::default()], &save::sets(&created), &[]).unwrap();
        let slug = settings.apps[0].slug.clone();
        assert_eq!(live.elements["services"].len(), 2);
        assert!(live.elements.contains_key(&format!("app_{slug}_4")), "{:?}", live.elements.keys());
        let asks = |chain: &str| {
            let rules = live.ruleset.chain(chain).map(|chain| chain.rules.len());
            rules.is_some_and(|count| count > 0)
        };
        for element in live.elements["services"].values() {
            let Some(Verdict::Goto(chain)) = &element.verdict else { panic!("no chain") };
            assert!(asks(chain), "{chain}");
        }
    }
}
