//! What turns the listed tables into the wanted ones, for `iptables-restore --noflush`.
//!
//! A table is changed at one stroke. The order of tables is that of the plan: what closes comes first, and what
//! opens is taken away before anything else.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::model::{Chain, Table};
use super::save::{ListedTable, Listing};

/// A change of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChange {
    /// The table.
    pub table: String,
    /// What changes, for people.
    pub what: Vec<String>,
    /// The text for `iptables-restore --noflush`.
    pub text: String,
}

/// The changes that turn one family's listed tables into the wanted ones; empty when nothing differs.
#[must_use]
pub fn changes(have: &Listing, wanted: &[Table]) -> Vec<TableChange> {
    let none = ListedTable::default();
    let of = |name: &str| have.tables.get(name).unwrap_or(&none);
    let removed = |name: &str| {
        let unwanted = wanted.iter().all(|table| table.name != name);
        unwanted.then(|| change(of(name), &empty(name))).flatten()
    };
    let mut out: Vec<TableChange> = removed("nat").into_iter().collect();
    out.extend(wanted.iter().filter_map(|table| change(of(&table.name), table)));
    out.extend(["raw", "filter", "mangle"].into_iter().filter_map(removed));
    out
}

/// The changes that remove everything of ours from one family's tables: what opens first, the gate last.
#[must_use]
pub fn removal(have: &Listing) -> Vec<TableChange> {
    let each = ["nat", "raw", "filter", "mangle"].into_iter();
    each.filter_map(|name| change(have.tables.get(name)?, &empty(name))).collect()
}

/// The whole of one family's tables, as into a kernel without any.
#[must_use]
pub fn text(wanted: &[Table]) -> String {
    changes(&Listing::default(), wanted).into_iter().map(|change| change.text).collect()
}

fn empty(name: &str) -> Table {
    Table { name: name.to_owned(), hooks: Vec::new(), chains: Vec::new() }
}

fn change(have: &ListedTable, wanted: &Table) -> Option<TableChange> {
    let edited: Vec<&Chain> =
        wanted.chains.iter().filter(|chain| have.chains.get(&chain.name) != Some(&chain.rules)).collect();
    let kept: BTreeSet<&str> = wanted.chains.iter().map(|chain| chain.name.as_str()).collect();
    let stale: Vec<&str> =
        have.chains.keys().map(String::as_str).filter(|name| !kept.contains(name)).collect();
    let hooked = have.has_hooks(&wanted.hooks);
    if edited.is_empty() && stale.is_empty() && hooked {
        return None;
    }
    let name = &wanted.name;
    let mut what: Vec<String> = Vec::new();
    let mut text = format!("*{name}\n");
    // Declaring a chain empties it.
    for chain in edited.iter().map(|chain| chain.name.as_str()).chain(stale.iter().copied()) {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    if !hooked {
        for (builtin, hooks) in &have.hooks {
            for (_, rule) in hooks {
                let _ = writeln!(text, "-D {builtin} {rule}");
            }
        }
    }
    for chain in &edited {
        let verb = if have.chains.contains_key(&chain.name) { "replace" } else { "add" };
        what.push(format!("{verb} chain {} of table {name}", chain.name));
        for rule in &chain.rules {
            let _ = writeln!(text, "-A {} {rule}", chain.name);
        }
    }
    if !hooked {
        what.push(format!("place the rules of table {name} that lead to them"));
        for hook in wanted.hooks.iter().rev() {
            let _ = writeln!(text, "-I {} 1 {}", hook.builtin, hook.rule());
        }
    }
    for chain in stale {
        what.push(format!("remove chain {chain} of table {name}"));
        let _ = writeln!(text, "-X {chain}");
    }
    text.push_str("COMMIT\n");
    Some(TableChange { table: name.clone(), what, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::iptables::model::Hook;
    use crate::ruleset::iptables::save::listing;

    fn table(name: &str, builtin: &str) -> Table {
        Table {
            name: name.into(),
            hooks: vec![Hook { builtin: builtin.into(), chain: "KA-a".into() }],
            chains: vec![Chain::new("a", vec!["-j RETURN".into()])],
        }
    }

    #[test]
    fn what_is_listed_as_wanted_needs_no_change() {
        let listed = "*raw\n:KA-a - [0:0]\n-A PREROUTING -m comment --comment \"knock-agent\" -j KA-a\n-A KA-a -j RETURN\nCOMMIT\n";
        assert_eq!(changes(&listing(listed), &[table("raw", "PREROUTING")]), []);
    }

    #[test]
    fn a_table_is_changed_in_one_piece_and_only_where_it_differs() {
        let listed = "*raw\n:KA-a - [0:0]\n:KA-old - [0:0]\n-A PREROUTING -j X\n-A PREROUTING -j KA-a\n-A KA-a -j KA-old\nCOMMIT\n";
        let changes = changes(&listing(listed), &[table("raw", "PREROUTING")]);
        assert_eq!(
            changes[0].text,
            "*raw\n:KA-a - [0:0]\n:KA-old - [0:0]\n-D PREROUTING -j KA-a\n-A KA-a -j RETURN\n-I PREROUTING 1 -m comment --comment \"knock-agent\" -j KA-a\n-X KA-old\nCOMMIT\n"
        );
        assert_eq!(changes.len(), 1);
    }

    #[test]
    fn what_opens_goes_first_and_the_gate_last() {
        let order = |changes: Vec<TableChange>| -> Vec<String> {
            changes.into_iter().map(|change| change.table).collect()
        };
        let all = ["mangle", "raw", "nat"].map(|name| table(name, "PREROUTING"));
        let listed: String = all
            .iter()
            .map(|table| format!("*{}\n:KA-a - [0:0]\n-A PREROUTING -j KA-a\nCOMMIT\n", table.name))
            .collect();
        assert_eq!(order(removal(&listing(&listed))), ["nat", "raw", "mangle"]);
        assert_eq!(order(changes(&Listing::default(), &all)), ["mangle", "raw", "nat"]);
        assert_eq!(order(changes(&listing(&listed), &all[..1])), ["nat", "mangle", "raw"]);
        assert_eq!(removal(&Listing::default()), []);
    }
}
