//! Files that take our table away when they are loaded again.

use std::collections::BTreeSet;

use super::finding::{Finding, Severity};
use super::situation::Situation;
use crate::ruleset::remedy::{Program, program_of};

/// Judges files that flush everything.
#[must_use]
pub fn reloads(situation: &Situation) -> Vec<Finding> {
    situation.flushing_files.iter().map(|file| flush(situation, file)).collect()
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
