//! Files that take our table away when they are loaded again, or load what was saved of it.

use std::collections::BTreeSet;

use super::finding::{Finding, Severity};
use super::situation::{SavedFile, Saver, Situation};
use crate::ruleset::remedy::{Program, program_of};

/// Judges files that flush everything, and those in which our rules were saved.
#[must_use]
pub fn reloads(situation: &Situation) -> Vec<Finding> {
    let flushing = situation.flushing_files.iter().map(|file| flush(situation, file));
    flushing.chain(situation.saved_files.iter().map(saved)).collect()
}

/// A file that loads at boot what our rules and sets were when it was saved.
#[must_use]
pub fn saved(SavedFile { file, saver }: &SavedFile) -> Finding {
    let (what, fix) = match saver {
        Saver::Nft => (
            "our table is in {}, saved with the host's own rules: until `knock-agent guard` makes it anew at boot, it lets in whoever was let in when it was saved",
            "sed -i '/^table inet knock_agent {/,/^}/d' {}",
        ),
        Saver::Iptables => (
            "our chains are in {}, saved with the host's own rules: where it is loaded at boot before `knock-agent guard` has made their sets, iptables-restore refuses the whole file, and the host's own firewall is not loaded",
            "sed -i '/KA-/d' {}   # and when you save again: iptables-save | grep -v KA-",
        ),
        Saver::Ipset => (
            "our sets are in {}, saved with the host's own: until `knock-agent guard` empties them at boot, they let in whoever was let in when they were saved",
            "sed -i '/ ka_/d' {}   # and when you save again: ipset save | grep -v ' ka_'",
        ),
    };
    let mut fix = fix.replace("{}", file);
    if let Some(conf) = openrc(file) {
        fix += &format!(
            "\nsed -i 's/^SAVE_ON_STOP=.*/SAVE_ON_STOP=\"no\"/' {conf}   # or each shutdown saves them again"
        );
    }
    Finding { severity: Severity::Warning, code: "saved-rules", message: what.replace("{}", file), fix }
}

/// Where it is said whether OpenRC saves to that file whenever it stops.
fn openrc(file: &str) -> Option<&'static str> {
    Some(match file {
        "/etc/iptables/rules-save" | "/var/lib/iptables/rules-save" => "/etc/conf.d/iptables",
        "/etc/iptables/rules6-save" | "/var/lib/ip6tables/rules-save" => "/etc/conf.d/ip6tables",
        "/var/lib/ipset/rules-save" => "/etc/conf.d/ipset",
        "/var/lib/nftables/rules-save" => "/etc/conf.d/nftables",
        _ => return None,
    })
}

fn flush(situation: &Situation, file: &str) -> Finding {
    let host = &situation.host;
    let tables: BTreeSet<String> = host
        .chains
        .iter()
        .filter(|chain| program_of(host, &chain.table, &chain.name) == Program::PlainNft)
        .map(|chain| chain.table.to_string())
        .collect();
    let own: Vec<String> =
        tables.iter().map(|table| format!("table {table}\\ndelete table {table}")).collect();
    Finding {
        severity: Severity::Warning,
        code: "flush-on-reload",
        message: format!(
            "{file} flushes everybody's rules, ours too, whenever it is loaded: the running agent restores them, but in the second between the guarded ports are as open as the rest of the file leaves them"
        ),
        fix: if own.is_empty() {
            format!("# in {file}, delete only the tables that it defines, instead of flush ruleset")
        } else {
            format!("sed -i 's/^flush ruleset.*/{}/' {file}", own.join("\\n"))
        },
    }
}
