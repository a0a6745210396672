//! Asking a person, or taking what flags and defaults say.

use std::io::ErrorKind;

use crate::cli::{Exit, Printer};
use crate::sys::terminal;

/// Where answers come from that no flag gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A person at the terminal.
    Person,
    /// What is usual (`--yes`).
    Defaults,
    /// Nobody: what is missing is told in the end.
    Nobody,
}

/// The questions, one after the other.
pub struct Questions<'p> {
    from: From,
    err: &'p mut Printer,
    missing: Vec<String>,
}

/// One question.
pub struct Question<'q> {
    /// The flag that answers it.
    pub flag: &'q str,
    /// The question itself, without its default.
    pub text: &'q str,
    /// What an empty answer means, if it may be empty.
    pub usual: Option<String>,
}

impl<'p> Questions<'p> {
    pub fn new(from: From, err: &'p mut Printer) -> Self {
        Self { from, err, missing: Vec::new() }
    }

    /// Where messages go.
    pub fn err(&mut self) -> &mut Printer {
        self.err
    }

    /// A line before a question; only persons want it.
    pub fn say(&mut self, line: &str) {
        if self.from == From::Person {
            self.err.line(line);
        }
    }

    /// A line for whoever reads what comes of it, too.
    pub fn note(&mut self, line: &str) {
        if self.from != From::Nobody {
            self.err.line(format!("note: {line}"));
        }
    }

    /// What a flag gave, or the answer. A wrong one is asked for again, with the judge's hint.
    ///
    /// # Errors
    /// The exit code, where nobody answers.
    pub fn ask<T>(
        &mut self,
        question: Question<'_>,
        given: Option<T>,
        judge: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Exit> {
        if let Some(given) = given {
            return Ok(given);
        }
        match self.from {
            From::Person => self.ask_person(&question, &judge),
            From::Defaults | From::Nobody => self.take_usual(&question, &judge),
        }
    }

    fn take_usual<T>(
        &mut self,
        question: &Question<'_>,
        judge: &impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Exit> {
        if self.from == From::Nobody {
            let usual =
                question.usual.as_ref().map(|usual| format!("   (usual: {usual})")).unwrap_or_default();
            self.missing.push(format!("{}{usual}", question.flag));
        }
        let Some(usual) = &question.usual else {
            if self.from == From::Nobody {
                return Err(self.nobody());
            }
            self.err.line(format!("error: {}", question.text));
            self.err.line(format!("  fix: there is nothing usual here; say it with {}", question.flag));
            return Err(Exit::Usage);
        };
        judge(usual).map_err(|hint| {
            self.err.line(format!("error: {usual}: {hint}"));
            self.err.line(format!("  fix: say something else with {}", question.flag));
            Exit::Usage
        })
    }

    fn ask_person<T>(
        &mut self,
        question: &Question<'_>,
        judge: &impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Exit> {
        let usual = question.usual.as_ref().map(|usual| format!(" [{usual}]")).unwrap_or_default();
        let prompt = format!("{}{usual}:", question.text);
        loop {
            let typed = match terminal::ask_shown(&prompt) {
                Ok(Some(typed)) => typed,
                Ok(None) => return Err(self.nobody()),
                Err(error) => return Err(self.given_up(&error)),
            };
            let answer = match (typed.trim(), &question.usual) {
                ("", Some(usual)) => usual.as_str(),
                (typed, _) => typed,
            };
            match judge(answer) {
                Ok(answer) => return Ok(answer),
                Err(hint) => self.err.line(format!("  {hint}")),
            }
        }
    }

    fn given_up(&mut self, error: &std::io::Error) -> Exit {
        if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::Interrupted) {
            self.err.line("nothing was written");
        } else {
            self.err.line(format!("error: the terminal: {error}"));
        }
        Exit::Found
    }

    /// Tells what nobody answered, if there is such.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub fn finish(&mut self) -> Result<(), Exit> {
        if self.missing.is_empty() { Ok(()) } else { Err(self.nobody()) }
    }

    fn nobody(&mut self) -> Exit {
        self.err.line("error: there is no terminal to ask at, and these are not said:");
        for flag in &self.missing {
            self.err.line(format!("  {flag}"));
        }
        self.err.line("  fix: say them, or take what is usual with --yes");
        Exit::Usage
    }
}
