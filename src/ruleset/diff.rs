//! The changes that turn what is live into what is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::expr::Expr;
use super::host_chain::HostChange;
use super::keeping::kept;
use super::model::{Chain, Content, Elements, Rule, Ruleset, Set, Value};

/// What was read from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Sets and chains; the sets' own `content` says nothing here.
    pub ruleset: Ruleset,
    /// The elements of each set.
    pub elements: BTreeMap<String, Elements>,
    /// Whether the table is switched off (`flags dormant`) or has other flags, which ours never has.
    pub flagged: bool,
    /// Names of sets that this program cannot have made.
    pub foreign_sets: Vec<String>,
    /// Whether it was loaded from a file, and not made by this program: what is let in there was let in when the file was
    /// written, and may be over.
    pub loaded: bool,
    /// The kernel's number for the table, which no other table gets, also one of the same name later; 0 where there is none.
    pub handle: u64,
}

impl Live {
    /// What of it a start may take over: of a table that was loaded from a file, nothing that is in its sets.
    #[must_use]
    pub fn believed(self) -> Self {
        if self.loaded { Self { elements: BTreeMap::new(), ..self } } else { self }
    }
}

/// How the keys of a set are laid out, which is all that elements need to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetRef {
    /// Its name.
    pub name: String,
    /// Whether its elements are ranges.
    pub interval: bool,
    /// Whether its key has several parts.
    pub concatenated: bool,
}

impl SetRef {
    /// A set whose keys have one part each and are no ranges.
    #[must_use]
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), interval: false, concatenated: false }
    }
}

impl From<&Set> for SetRef {
    fn from(set: &Set) -> Self {
        Self { name: set.name.clone(), interval: set.flags.interval, concatenated: set.key.len() > 1 }
    }
}

/// One change; a list of them is carried out in order, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Make the table, if it is not there.
    AddTable,
    /// Remove the table and all in it.
    DeleteTable,
    /// Make a set, without elements.
    AddSet(Set),
    /// Remove a set and its elements.
    DeleteSet(String),
    /// Remove all elements of a set.
    FlushSet(String),
    /// Make a chain, without rules.
    AddChain(Chain),
    /// Remove a chain.
    DeleteChain(String),
    /// Remove all rules of a chain.
    FlushChain(String),
    /// Append a rule to a chain.
    AddRule {
        /// The chain.
        chain: String,
        /// The rule.
        rule: Rule,
    },
    /// Add elements.
    AddElements {
        /// Where.
        set: SetRef,
        /// Which.
        elements: Elements,
    },
    /// Give elements a new time (and comment), whether they are there or not.
    RenewElements {
        /// Where.
        set: SetRef,
        /// Which.
        elements: Elements,
    },
    /// Remove elements.
    DeleteElements {
        /// Where.
        set: SetRef,
        /// Which.
        elements: Elements,
    },
    /// Change a chain of the host's, not ours.
    Host(HostChange),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elements = |f: &mut fmt::Formatter<'_>, verb: &str, set: &SetRef, elements: &Elements| {
            let plural = if elements.len() == 1 { "" } else { "s" };
            write!(f, "{verb} {} element{plural} of {}", elements.len(), set.name)
        };
        match self {
            Self::AddTable => f.write_str("add the table"),
            Self::DeleteTable => f.write_str("delete the table"),
            Self::AddSet(set) => {
                write!(f, "add {} {}", if set.value == Value::Nothing { "set" } else { "map" }, set.name)
            }
            Self::DeleteSet(name) => write!(f, "delete set {name}"),
            Self::FlushSet(name) => write!(f, "remove the elements of set {name}"),
            Self::AddChain(chain) => write!(f, "add chain {}", chain.name),
            Self::DeleteChain(name) => write!(f, "delete chain {name}"),
            Self::FlushChain(name) => write!(f, "remove the rules of chain {name}"),
            Self::AddRule { chain, rule } => {
                write!(f, "add rule {} to chain {chain}", rule.comment.as_deref().unwrap_or("without a name"))
            }
            Self::AddElements { set, elements: all } => elements(f, "add", set, all),
            Self::RenewElements { set, elements: all } => elements(f, "renew", set, all),
            Self::DeleteElements { set, elements: all } => elements(f, "delete", set, all),
            Self::Host(change) => change.fmt(f),
        }
    }
}

/// The changes that turn `live` (none: no table) into `wanted`; empty when nothing differs.
///
/// The elements of [`Content::Living`] sets stay. Where such a set or a base chain has to change its
/// shape, or the table was loaded from a file, the table is replaced in the same transaction and those elements are carried over; a set whose
/// elements are planned is replaced alone, with the rules that ask it.
#[must_use]
pub fn diff(live: Option<&Live>, wanted: &Ruleset) -> Vec<Change> {
    match live {
        None => build(wanted, None),
        Some(live) if makes_anew(live, wanted) => {
            let mut out = vec![Change::AddTable, Change::DeleteTable];
            out.extend(build(wanted, Some(live)));
            out.extend(kept(live, wanted));
            out
        }
        Some(live) => {
            let mut out = patch(live, wanted);
            out.extend(kept(live, wanted));
            out
        }
    }
}

/// Whether the changes that [`diff`] gives make the whole table anew, so that what packets put there is lost.
#[must_use]
pub fn makes_anew(live: &Live, wanted: &Ruleset) -> bool {
    let set_changed = |set: &Set| {
        live.foreign_sets.contains(&set.name)
            || (set.content == Content::Living
                && live.ruleset.set(&set.name).is_some_and(|have| !have.same_shape(set)))
    };
    let chain_changed =
        |chain: &Chain| live.ruleset.chain(&chain.name).is_some_and(|have| have.base != chain.base);
    live.flagged
        || live.loaded
        || wanted.sets.iter().any(set_changed)
        || wanted.chains.iter().any(chain_changed)
}

/// Everything, into an empty table.
fn build(wanted: &Ruleset, carry: Option<&Live>) -> Vec<Change> {
    let mut out = vec![Change::AddTable];
    out.extend(wanted.sets.iter().map(|set| Change::AddSet(bare(set))));
    out.extend(wanted.chains.iter().map(|chain| Change::AddChain(without_rules(chain))));
    for set in &wanted.sets {
        let elements = match &set.content {
            Content::Planned(elements) => elements.clone(),
            Content::Living => carried(set, carry),
        };
        add(&mut out, set, elements);
    }
    out.extend(wanted.chains.iter().flat_map(rules));
    out
}

fn carried(set: &Set, carry: Option<&Live>) -> Elements {
    let Some(live) = carry else { return Elements::new() };
    // What the packet path put there lives for seconds, and may not be set from outside.
    let same_keys = live.ruleset.set(&set.name).is_some_and(|have| {
        have.key == set.key && have.flags.interval == set.flags.interval && !set.is_fleeting()
    });
    live.elements.get(&set.name).filter(|_| same_keys).cloned().unwrap_or_default()
}

fn patch(live: &Live, wanted: &Ruleset) -> Vec<Change> {
    let names = |ruleset: &Ruleset| -> BTreeSet<String> {
        ruleset.chains.iter().map(|chain| chain.name.clone()).collect()
    };
    let (have_chains, want_chains) = (names(&live.ruleset), names(wanted));
    let replaced: BTreeSet<&str> = wanted
        .sets
        .iter()
        .filter(|set| live.ruleset.set(&set.name).is_some_and(|have| !have.same_shape(set)))
        .map(|set| set.name.as_str())
        .collect();
    let asks = |chain: &Chain| chain.rules.iter().any(|rule| asks_one_of(rule, &replaced));
    let mut out = Vec::new();
    out.extend(
        wanted
            .sets
            .iter()
            .filter(|set| live.ruleset.set(&set.name).is_none())
            .map(|s| Change::AddSet(bare(s))),
    );
    out.extend(
        wanted
            .chains
            .iter()
            .filter(|chain| !have_chains.contains(&chain.name))
            .map(|chain| Change::AddChain(without_rules(chain))),
    );
    let edited: Vec<&Chain> = wanted
        .chains
        .iter()
        .filter(|chain| {
            let changed = |have: &Chain| have.rules != chain.rules || asks(have);
            live.ruleset.chain(&chain.name).is_none_or(changed)
        })
        .collect();
    let stale_chains: Vec<&Chain> =
        live.ruleset.chains.iter().filter(|chain| !want_chains.contains(&chain.name)).collect();
    let had_rules =
        |chain: &Chain| live.ruleset.chain(&chain.name).is_some_and(|have| !have.rules.is_empty());
    out.extend(
        edited
            .iter()
            .chain(&stale_chains)
            .filter(|chain| had_rules(chain))
            .map(|chain| Change::FlushChain(chain.name.clone())),
    );
    for set in &wanted.sets {
        if let Content::Planned(elements) = &set.content {
            let empty = Elements::new();
            let mut have = live.elements.get(&set.name).unwrap_or(&empty);
            if replaced.contains(set.name.as_str()) {
                out.push(Change::DeleteSet(set.name.clone()));
                out.push(Change::AddSet(bare(set)));
                have = &empty;
            }
            change_elements(&mut out, &SetRef::from(set), have, elements);
        }
    }
    out.extend(edited.iter().flat_map(|chain| rules(chain)));
    let stale_sets = live
        .ruleset
        .sets
        .iter()
        .map(|set| &set.name)
        .chain(&live.foreign_sets)
        .filter(|name| wanted.set(name).is_none());
    out.extend(stale_sets.map(|name| Change::DeleteSet(name.clone())));
    out.extend(stale_chains.iter().map(|chain| Change::DeleteChain(chain.name.clone())));
    out
}

fn asks_one_of(rule: &Rule, sets: &BTreeSet<&str>) -> bool {
    rule.exprs.iter().any(|expr| match expr {
        Expr::Lookup { set, .. }
        | Expr::Map { set, .. }
        | Expr::Update { set, .. }
        | Expr::Remember { set, .. }
        | Expr::Forget { set, .. } => sets.contains(set.as_str()),
        _ => false,
    })
}

/// Deletes before it adds, because a new range may lie where an old one was.
fn change_elements(out: &mut Vec<Change>, set: &SetRef, have: &Elements, want: &Elements) {
    let differs = |a: &Elements, b: &Elements| -> Elements {
        a.iter()
            .filter(|(key, element)| {
                b.get(*key).is_none_or(|other| {
                    (&other.last, &other.verdict, other.mark)
                        != (&element.last, &element.verdict, element.mark)
                })
            })
            .map(|(key, element)| (key.clone(), element.clone()))
            .collect()
    };
    let (gone, new) = (differs(have, want), differs(want, have));
    if !gone.is_empty() {
        out.push(Change::DeleteElements { set: set.clone(), elements: gone });
    }
    if !new.is_empty() {
        out.push(Change::AddElements { set: set.clone(), elements: new });
    }
}

fn add(out: &mut Vec<Change>, set: &Set, elements: Elements) {
    if !elements.is_empty() {
        out.push(Change::AddElements { set: set.into(), elements });
    }
}

fn bare(set: &Set) -> Set {
    Set { content: Content::Living, ..set.clone() }
}

fn without_rules(chain: &Chain) -> Chain {
    Chain { rules: Vec::new(), ..chain.clone() }
}

fn rules(chain: &Chain) -> impl Iterator<Item = Change> {
    chain.rules.iter().map(|rule| Change::AddRule { chain: chain.name.clone(), rule: rule.clone() })
}
