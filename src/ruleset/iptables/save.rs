//! Reads what `iptables-save` and `ipset save` write, as far as it is ours.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{CHAIN_PREFIX, Chain, Hook, SET_PREFIX, Table};

/// What one family's tables hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// By table.
    pub tables: BTreeMap<String, ListedTable>,
    /// Whether anybody has a rule or a policy there.
    pub used: bool,
    /// Tables of which iptables-nft shows nothing, whatever is in them: it has no words for a rule there.
    pub hidden: BTreeSet<String>,
}

/// What of a table is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedTable {
    /// Our chains with their rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// The rules of the host's chains that lead to ours, each with its place, counted from 0.
    pub hooks: BTreeMap<String, Vec<(usize, String)>>,
    /// The policies of the built-in chains that are not to accept.
    pub policies: BTreeMap<String, String>,
    /// Rules of others.
    pub others: Vec<String>,
}

impl Listing {
    /// Whether the gate is in force in this family.
    #[must_use]
    pub fn guards(&self) -> bool {
        self.tables.get("mangle").is_some_and(|table| {
            let gate = super::names::chain("gate");
            table.chains.contains_key(&gate)
                && table
                    .hooks
                    .get("PREROUTING")
                    .is_some_and(|hooks| hooks.iter().any(|(_, rule)| leads_to(rule, &gate)))
        })
    }

    /// Whether the gates are in force in this family, and lead to rules for every port that is guarded.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let Some(table) = self.tables.get("mangle") else { return false };
        let rules = |name: &str| table.chains.get(name).filter(|rules| !rules.is_empty());
        let [gate, here, services, forward] =
            ["gate", "gate_here", "services", "forward"].map(super::names::chain);
        let leads = |hooks: &Vec<(usize, String)>| hooks.iter().any(|(_, rule)| leads_to(rule, &forward));
        // Without any app.
        let serves = table.chains.keys().any(|name| name.starts_with(&super::names::chain("svc_")));
        self.guards()
            && table.hooks.get("FORWARD").is_some_and(leads)
            && [&gate, &here].iter().all(|name| rules(name).is_some())
            && (rules(&services).is_some() || !serves && table.chains.contains_key(&services))
            && rules(&services)
                .into_iter()
                .flatten()
                .filter_map(|rule| target(rule))
                .filter(|target| target.starts_with(CHAIN_PREFIX))
                .all(|name| rules(name).is_some())
    }

    /// Whether anything of ours is there.
    #[must_use]
    pub fn has_ours(&self) -> bool {
        self.tables.values().any(|table| !table.chains.is_empty() || !table.hooks.is_empty())
    }

    /// What of it is ours, as it would be wanted again.
    #[must_use]
    pub fn as_tables(&self) -> Vec<Table> {
        let order = ["mangle", "filter", "raw", "nat"].into_iter();
        order.filter_map(|name| self.tables.get(name).and_then(|have| have.as_table(name))).collect()
    }

    /// The same without others' rules, for a comparison.
    #[must_use]
    pub fn ours(&self) -> Self {
        let table = |table: &ListedTable| ListedTable {
            chains: table.chains.clone(),
            hooks: table.hooks.clone(),
            ..ListedTable::default()
        };
        let tables = self.tables.iter().map(|(name, have)| (name.clone(), table(have)));
        let tables = tables.filter(|(_, have)| !have.chains.is_empty() || !have.hooks.is_empty());
        Self { tables: tables.collect(), ..Self::default() }
    }
}

impl ListedTable {
    fn as_table(&self, name: &str) -> Option<Table> {
        if self.chains.is_empty() {
            return None;
        }
        let chain =
            |(name, rules): (&String, &Vec<String>)| Chain { name: name.clone(), rules: rules.clone() };
        let hooks = self.hooks.iter().flat_map(|(builtin, rules)| {
            rules.iter().filter_map(|(_, rule)| {
                Some(Hook { builtin: builtin.clone(), chain: target(rule)?.to_owned() })
            })
        });
        Some(Table {
            name: name.to_owned(),
            hooks: hooks.collect(),
            chains: self.chains.iter().map(chain).collect(),
        })
    }

    /// Whether exactly these hooks are there, each first in its chain in their order.
    #[must_use]
    pub fn has_hooks(&self, wanted: &[Hook]) -> bool {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let found = wanted.iter().all(|hook| {
            let place = places.entry(&hook.builtin).or_default();
            let at = *place;
            *place += 1;
            self.hooks.get(&hook.builtin).is_some_and(|have| {
                have.iter().any(|(index, rule)| *index == at && leads_to(rule, &hook.chain))
            })
        });
        found && self.hooks.values().map(Vec::len).sum::<usize>() == wanted.len()
    }
}

/// Reads `iptables-save`.
#[must_use]
pub fn listing(text: &str) -> Listing {
    let mut out = Listing::default();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('*') {
            name = table.trim();
            places.clear();
            out.tables.entry(name.to_owned()).or_default();
        } else if let Some(table) = hidden(line) {
            out.hidden.insert(table.to_owned());
        } else if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split(' ');
            let (Some(chain), Some(policy)) = (words.next(), words.next()) else { continue };
            let table = out.tables.entry(name.to_owned()).or_default();
            if chain.starts_with(CHAIN_PREFIX) {
                table.chains.entry(chain.to_owned()).or_default();
            } else if !["ACCEPT", "-"].contains(&policy) {
                table.policies.insert(chain.to_owned(), policy.to_owned());
            }
            out.used |= policy != "ACCEPT";
        } else if let Some((chain, rule)) =
            without_counts(line).strip_prefix("-A ").and_then(|rest| rest.split_once(' '))
        {
            out.used = true;
            let place = places.entry(chain).or_default();
            let table = out.tables.entry(name.to_owned()).or_default();
            if chain.starts_with(CHAIN_PREFIX) {
                table.chains.entry(chain.to_owned()).or_default().push(rule.to_owned());
            } else if target(rule).is_some_and(|target| target.starts_with(CHAIN_PREFIX)) {
                table.hooks.entry(chain.to_owned()).or_default().push((*place, rule.to_owned()));
            } else {
                table.others.push(format!("{chain} {rule}"));
            }
            *place += 1;
        }
    }
    out
}

/// The table that a line says nothing of: "# Table `nat' is incompatible, use 'nft' tool."
fn hidden(line: &str) -> Option<&str> {
    Some(line.strip_prefix("# Table `")?.split_once("' is incompatible")?.0)
}

/// A line without the counts that `-c` puts in front: `[packets:bytes] `.
fn without_counts(line: &str) -> &str {
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, rest)) => rest,
        None => line,
    }
}

fn leads_to(rule: &str, chain: &str) -> bool {
    target(rule) == Some(chain)
}

/// Where a rule leads, by jump or goto.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.split(' ');
    words.by_ref().find(|word| ["-j", "-g"].contains(word))?;
    words.next()
}

/// A set as `ipset save` lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedSet {
    /// Type and options, without what the kernel chooses.
    pub kind: String,
    /// Its elements.
    pub elements: Vec<ListedElement>,
}

/// An element as `ipset save` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedElement {
    /// Address or network.
    pub key: String,
    /// Seconds left; none: for ever.
    pub left_secs: Option<u64>,
    /// Its comment.
    pub comment: Option<String>,
}

/// Reads `ipset save`, also from ipset's interactive mode; others' sets are left out.
#[must_use]
pub fn sets(text: &str) -> BTreeMap<String, ListedSet> {
    let mut out: BTreeMap<String, ListedSet> = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim_start_matches("ipset> ");
        if let Some((name, kind)) = line.strip_prefix("create ").and_then(|rest| rest.split_once(' '))
            && name.starts_with(SET_PREFIX)
        {
            out.entry(name.to_owned()).or_default().kind = plain_kind(kind);
        } else if let Some((name, element)) = line.strip_prefix("add ").and_then(|rest| rest.split_once(' '))
            && let Some(set) = out.get_mut(name)
        {
            set.elements.push(listed_element(element));
        }
    }
    out
}

fn listed_element(text: &str) -> ListedElement {
    let (head, comment) = match text.split_once(" comment \"") {
        Some((head, rest)) => (head, rest.strip_suffix('"').map(str::to_owned)),
        None => (text, None),
    };
    let mut words = head.split(' ');
    let key = words.next().unwrap_or_default().to_owned();
    let mut left_secs = None;
    while let Some(word) = words.next() {
        if word == "timeout" {
            left_secs = words.next().and_then(|secs| secs.parse().ok()).filter(|&secs: &u64| secs > 0);
        }
    }
    ListedElement { key, left_secs, comment }
}

/// Without `hashsize`, `bucketsize` and `initval`, which the kernel chooses.
fn plain_kind(kind: &str) -> String {
    let mut out: Vec<&str> = Vec::new();
    let mut words = kind.split_whitespace();
    while let Some(word) = words.next() {
        if ["hashsize", "bucketsize", "initval"].contains(&word) {
            words.next();
        } else {
            out.push(word);
        }
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_makes_no_difference_to_what_is_listed() {
        let counted = LISTED.replace("\n-A", "\n[7:420] -A");
        assert!(counted != LISTED && listing(&counted) == listing(LISTED));
    }

    const LISTED: &str = "# Generated by iptables-save v1.8.9\n*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT DROP [3:4]\n:KA-gate - [0:0]\n:THEIRS - [0:0]\n-A PREROUTING -m comment --comment \"knock-agent\" -j KA-gate\n-A PREROUTING -j THEIRS\n-A KA-gate -p tcp -m comment --comment \"ka:own\" -j RETURN\nCOMMIT\n";

    #[test]
    fn ours_and_theirs_are_told_apart() {
        let listing = listing(LISTED);
        let table = &listing.tables["mangle"];
        assert_eq!(table.chains["KA-gate"], ["-p tcp -m comment --comment \"ka:own\" -j RETURN"]);
        assert_eq!(table.others, ["PREROUTING -j THEIRS"]);
        assert_eq!(table.policies["INPUT"], "DROP");
        let hook = Hook { builtin: "PREROUTING".into(), chain: "KA-gate".into() };
        assert!(table.has_hooks(std::slice::from_ref(&hook)));
        assert!(!table.has_hooks(&[]), "one too many");
        assert!(!table.has_hooks(&[hook.clone(), Hook { builtin: "INPUT".into(), chain: "KA-in".into() }]));
        assert!(listing.guards() && listing.has_ours() && listing.used);
        assert_eq!(listing.ours().tables["mangle"].others, [""; 0]);
    }

    #[test]
    fn a_hook_that_is_not_first_or_there_twice_is_not_as_wanted() {
        let hook = [Hook { builtin: "PREROUTING".into(), chain: "KA-gate".into() }];
        let after = listing("*mangle\n-A PREROUTING -j X\n-A PREROUTING -j KA-gate\nCOMMIT\n");
        assert!(!after.tables["mangle"].has_hooks(&hook));
        let twice = listing("*mangle\n-A PREROUTING -j KA-gate\n-A PREROUTING -j KA-gate\nCOMMIT\n");
        assert!(!twice.tables["mangle"].has_hooks(&hook));
    }

    #[test]
    fn an_untouched_host_uses_nothing() {
        assert!(!listing("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n").used);
        assert!(listing("*filter\n:INPUT DROP [0:0]\nCOMMIT\n").used);
        assert!(!listing("").used);
    }

    #[test]
    fn a_table_that_is_not_shown_is_not_taken_for_an_empty_one() {
        let text = format!("{LISTED}# Table `nat' is incompatible, use 'nft' tool.\n# Completed\n");
        assert_eq!(listing(&text).hidden, BTreeSet::from(["nat".to_owned()]));
        assert!(listing(LISTED).hidden.is_empty() && listing(&text).ours() == listing(LISTED).ours());
    }

    #[test]
    fn a_guard_of_no_app_is_whole_and_one_whose_dispatch_was_flushed_is_not() {
        let gates = "*mangle\n:KA-services - [0:0]\n-A PREROUTING -j KA-gate\n-A FORWARD -j KA-forward\n-A KA-gate -g KA-gate_here\n-A KA-gate_here -i eth0 -g KA-services\n";
        let service = ":KA-svc_tcp_22 - [0:0]\n-A KA-svc_tcp_22 -j DROP\n";
        let declared = ":KA-gate - [0:0]\n";
        let whole = |more: &str| {
            listing(&gates.replacen("*mangle\n", &format!("*mangle\n{declared}{more}"), 1)).is_whole()
        };
        assert!(whole(""));
        assert!(!whole(service));
        assert!(whole(&format!("{service}-A KA-services -p tcp --dport 22 -g KA-svc_tcp_22\n")));
    }

    #[test]
    fn sets_are_read_with_their_times_and_comments() {
        let text = "ipset> create ka_app_ssh_4 hash:ip family inet hashsize 1024 maxelem 1048576 timeout 0 comment bucketsize 12 initval 0x1\nadd ka_app_ssh_4 203.0.113.2 timeout 59 comment \"alice two-step (60 s)\"\nadd ka_app_ssh_4 224.0.0.0 timeout 0\nipset> create theirs hash:ip family inet\nadd theirs 1.2.3.4\nipset> ";
        let sets = sets(text);
        assert_eq!(sets.len(), 1);
        let set = &sets["ka_app_ssh_4"];
        assert_eq!(set.kind, "hash:ip family inet maxelem 1048576 timeout 0 comment");
        assert_eq!(set.elements[0].left_secs, Some(59));
        assert_eq!(set.elements[0].comment.as_deref(), Some("alice two-step (60 s)"));
        assert_eq!(
            set.elements[1],
            ListedElement { key: "224.0.0.0".into(), left_secs: None, comment: None }
        );
    }
}
