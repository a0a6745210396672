//! What is written down, as tables in Markdown.

use std::fmt::Write;

/// Measured rows with words around them.
pub struct Section {
    pub title: &'static str,
    /// What was done, and how to read it.
    pub words: String,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
}

impl Section {
    pub fn new(title: &'static str, words: &str, head: &[&'static str]) -> Self {
        Self { title, words: words.to_owned(), head: head.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: &[&str]) {
        let cells: Vec<String> = cells.iter().map(|&cell| cell.to_owned()).collect();
        eprintln!("   {}", cells.join(" | "));
        self.rows.push(cells);
    }
}

/// A target, and how far it is.
pub struct Verdict {
    pub what: &'static str,
    pub target: String,
    pub reached: String,
    pub met: bool,
    /// Why, where it is missed.
    pub why: &'static str,
}

#[derive(Default)]
pub struct Report {
    pub sections: Vec<Section>,
    pub verdicts: Vec<Verdict>,
}

impl Report {
    pub fn markdown(&self, machine: &str) -> String {
        let mut out = format!(
            "# Benchmarks\n\nWritten by `benches/run`; nothing here is typed by hand. Everything is measured in one run on one machine, \
             in network namespaces of its own, with the release build. Figures are medians, with p10-p90 in brackets. What is a \
             ratio was measured in turns, so that both sides of it saw the same machine; other figures are as good as the machine \
             was quiet.\n\n{machine}\n"
        );
        if !self.verdicts.is_empty() {
            out += "\n## Targets\n\n| | target | reached | |\n|---|---|---|---|\n";
            for verdict in &self.verdicts {
                let Verdict { what, target, reached, met, .. } = verdict;
                let _ = writeln!(
                    out,
                    "| {what} | {target} | {reached} | {} |",
                    if *met { "met" } else { "**missed**" }
                );
            }
            for verdict in self.verdicts.iter().filter(|verdict| !verdict.met && !verdict.why.is_empty()) {
                let _ = write!(out, "\n*{}* is missed: {}\n", verdict.what, verdict.why);
            }
        }
        for section in &self.sections {
            let _ = write!(out, "\n## {}\n\n{}\n\n", section.title, section.words);
            let _ = writeln!(out, "| {} |", section.head.join(" | "));
            let _ = writeln!(out, "|{}", "---|".repeat(section.head.len()));
            for row in &section.rows {
                let _ = writeln!(out, "| {} |", row.join(" | "));
            }
        }
        out
    }
}
