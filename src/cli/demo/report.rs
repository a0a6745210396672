//! The story as it is told: numbered steps, a line per address family, a summary.

use std::io::{self, IsTerminal, Write};

use crate::units::Family;

/// What a check found: words for what happened, or for what should not have.
pub(super) type Found = Result<String, String>;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[1;31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Tells the story and counts what did not happen.
#[derive(Debug)]
pub(super) struct Report {
    colour: bool,
    steps: usize,
    failed: Vec<usize>,
}

impl Report {
    /// A report to standard output, in colour on a terminal unless `NO_COLOR` is set.
    pub(super) fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: io::stdout().is_terminal() && !unwanted,
            steps: 0,
            failed: Vec::new(),
        }
    }

    /// A line that is no step.
    pub(super) fn say(&self, text: &str) {
        // Whoever closed the pipe has seen enough; the exit code still tells how it ended.
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// A step that both families took.
    pub(super) fn step(&mut self, title: &str, found: &[Found; 2]) {
        self.title(title);
        for (family, found) in Family::BOTH.iter().zip(found) {
            let family = match family {
                Family::V4 => "IPv4",
                Family::V6 => "IPv6",
            };
            self.line(family, found);
        }
    }

    /// A step that has no family.
    pub(super) fn single_step(&mut self, title: &str, found: &Found) {
        self.title(title);
        self.line("", found);
    }

    /// The summary; whether everything happened.
    pub(super) fn finish(self, seconds: f64) -> bool {
        let (steps, failed) = (self.steps, self.failed.len());
        self.say("");
        if failed == 0 {
            let text = format!("All {steps} steps happened, over IPv4 and IPv6, in {seconds:.1} s.");
            self.say(&self.paint(GREEN, &text));
        } else {
            let numbers: Vec<String> = self.failed.iter().map(ToString::to_string).collect();
            let text = format!(
                "FAILED: {failed} of {steps} steps did not happen: {}.",
                numbers.join(", ")
            );
            self.say(&self.paint(RED, &text));
        }
        failed == 0
    }

    fn title(&mut self, title: &str) {
        self.steps += 1;
        let text = format!("{:>2}  {title}", self.steps);
        self.say(&self.paint(BOLD, &text));
    }

    fn line(&mut self, family: &str, found: &Found) {
        let (word, colour, text) = match found {
            Ok(text) => ("ok    ", GREEN, text),
            Err(text) => ("FAILED", RED, text),
        };
        if found.is_err() && self.failed.last() != Some(&self.steps) {
            self.failed.push(self.steps);
        }
        let family = if family.is_empty() {
            String::new()
        } else {
            format!("{family}  ")
        };
        self.say(&format!("    {}  {family}{text}", self.paint(colour, word)));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}
