//! The story as it is told: numbered steps, a line per address family, a summary.

use std::time::Duration;

use crate::cli::{Exit, Printer, Tone};
use crate::units::Family;

/// What a check found: words for what happened, or for what should not have.
pub(super) type Found = Result<String, String>;

/// Tells the story and counts what did not happen.
pub(super) struct Report {
    out: Printer,
    steps: usize,
    failed: Vec<usize>,
}

impl Report {
    /// A report to standard output.
    pub(super) fn new() -> Self {
        Self { out: Printer::stdout(), steps: 0, failed: Vec::new() }
    }

    /// A line that is no step.
    pub(super) fn say(&mut self, text: &str) {
        self.out.line(text);
    }

    /// A step that both families took.
    pub(super) fn step(&mut self, title: &str, found: &[Found; 2]) {
        self.title(title);
        for (family, found) in Family::BOTH.iter().zip(found) {
            match family {
                Family::V4 => self.line("IPv4  ", found),
                Family::V6 => self.line("IPv6  ", found),
            }
        }
    }

    /// A step that has no family.
    pub(super) fn single_step(&mut self, title: &str, found: &Found) {
        self.title(title);
        self.line("", found);
    }

    /// The summary; what the agent logged is shown where something did not happen.
    pub(super) fn finish(mut self, took: Duration, log: impl FnOnce() -> String) -> Exit {
        let (steps, failed) = (self.steps, self.failed.len());
        let seconds = took.as_secs_f64();
        self.out.line("");
        if failed == 0 {
            let text = format!("All {steps} steps happened, over IPv4 and IPv6, in {seconds:.1} s.");
            self.out.line(self.out.paint(Tone::Good, &text));
            return self.out.finish(Exit::Done);
        }
        let numbers: Vec<String> = self.failed.iter().map(ToString::to_string).collect();
        let text = format!("FAILED: {failed} of {steps} steps did not happen: {}.", numbers.join(", "));
        self.out.line(self.out.paint(Tone::Bad, &text));
        self.out.line(format!("What the agent said last:\n{}", log().trim_end()));
        self.out.finish(Exit::Found)
    }

    fn title(&mut self, title: &str) {
        self.steps += 1;
        let text = format!("{:>2}  {title}", self.steps);
        self.out.line(self.out.paint(Tone::Heading, &text));
    }

    fn line(&mut self, family: &str, found: &Found) {
        let (word, tone, text) = match found {
            Ok(text) => ("ok    ", Tone::Good, text),
            Err(text) => ("FAILED", Tone::Bad, text),
        };
        if found.is_err() && self.failed.last() != Some(&self.steps) {
            self.failed.push(self.steps);
        }
        let word = self.out.paint(tone, word);
        self.out.line(format!("    {word}  {family}{text}"));
    }
}
