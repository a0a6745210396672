//! Where the readers of the sections leave what they find wrong.

use crate::config::node::{self, Node};
use crate::config::problem::{MASKED, Place, Problem, Problems, Severity};
use crate::config::syntax::Fault;
use crate::units::is_invisible;

/// How many problems are told; each costs another walk over the text.
const MAX_LISTED: usize = 100;
/// How many problems are remembered; the rest is only counted.
const MAX_KEPT: usize = 1_000;
/// How many characters of a value or message are shown.
const MAX_SHOWN: usize = 200;
/// How many characters of a remedy are shown; it may list all known keys.
const MAX_FIX: usize = 1_000;

/// Whether a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// As it was written.
    Plain,
    /// As `***`.
    Masked,
    /// There is no value to show.
    Nothing,
}

/// What a problem is about.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    path: String,
    target: Target,
    show: Show,
}

#[derive(Clone, Copy, Debug)]
enum Target {
    Node { id: usize, scalar: bool },
    At(Place),
    Elsewhere,
}

impl Spot {
    /// A node of the document, by the path of its key.
    pub fn node(path: &str, node: &Node, show: Show) -> Self {
        let target = Target::Node { id: node.id, scalar: node.is_scalar() };
        Self { path: path.to_owned(), target, show }
    }

    /// A place in the text.
    pub fn at(path: &str, place: Place) -> Self {
        Self { path: path.to_owned(), target: Target::At(place), show: Show::Nothing }
    }

    /// Something outside the file, such as a flag.
    pub fn elsewhere(path: &str) -> Self {
        Self { path: path.to_owned(), target: Target::Elsewhere, show: Show::Nothing }
    }

    /// The same place, about another path and without a value.
    pub fn about(&self, path: &str) -> Self {
        Self { path: path.to_owned(), target: self.target, show: Show::Nothing }
    }

    fn sort_key(&self) -> (Option<Place>, usize) {
        match self.target {
            Target::Elsewhere => (None, 0),
            Target::At(place) => (Some(place), 0),
            Target::Node { id, .. } => (None, id.saturating_add(1)),
        }
    }
}

#[derive(Debug)]
struct Finding {
    severity: Severity,
    spot: Spot,
    message: String,
    fix: Option<String>,
    other: Option<Spot>,
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    uncounted: usize,
}

impl Report {
    /// Whether so much is wrong that details are no longer worth their time.
    pub fn is_crowded(&self) -> bool {
        self.findings.len() >= MAX_KEPT
    }

    /// Whether anything found is an error.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Error)
    }

    /// Adds an error whose message says what to do.
    pub fn error(&mut self, spot: Spot, message: impl Into<String>) {
        self.add(Severity::Error, spot, message.into(), None, None);
    }

    /// Adds an error with its remedy.
    pub fn error_fix(&mut self, spot: Spot, message: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, spot, message.into(), Some(fix.into()), None);
    }

    /// Adds an error that comes of two places, and its remedy.
    pub fn conflict(&mut self, spot: Spot, other: &Spot, message: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Error, spot, message.into(), Some(fix.into()), Some(other.clone()));
    }

    /// Adds a warning with its remedy.
    pub fn warning(&mut self, spot: Spot, message: impl Into<String>, fix: impl Into<String>) {
        self.add(Severity::Warning, spot, message.into(), Some(fix.into()), None);
    }

    /// Adds an error of the text itself.
    pub fn fault(&mut self, fault: Fault) {
        let spot = Spot::at("", fault.place);
        self.add(Severity::Error, spot, fault.message, fault.fix, None);
    }

    fn add(
        &mut self,
        severity: Severity,
        spot: Spot,
        message: String,
        fix: Option<String>,
        other: Option<Spot>,
    ) {
        if self.is_crowded() && severity == Severity::Error {
            self.uncounted += 1;
            return;
        }
        self.findings.push(Finding { severity, spot, message, fix, other });
    }

    /// The warnings, if nothing is worse.
    ///
    /// # Errors
    /// Everything found, if one of it is an error.
    pub fn finish(mut self, file: &str, text: &str) -> Result<Vec<Problem>, Problems> {
        let failed = self.has_errors();
        // Where there are too many, errors are told first.
        if self.findings.len() > MAX_LISTED {
            self.findings.sort_by_key(|f| f.severity);
        }
        let more = self.findings.len().saturating_sub(MAX_LISTED) + self.uncounted;
        self.findings.truncate(MAX_LISTED);
        self.findings.sort_by_key(|f| f.spot.sort_key());
        let mut list: Vec<Problem> = self.findings.into_iter().map(|f| problem(f, file, text)).collect();
        list.sort_by_key(|p| p.place);
        if failed { Err(Problems { list, more }) } else { Ok(list) }
    }
}

fn problem(finding: Finding, file: &str, text: &str) -> Problem {
    let Finding { severity, spot, mut message, fix, other } = finding;
    let (place, raw) = resolve(&spot, text);
    if let Some(place) = other.and_then(|spot| resolve(&spot, text).0) {
        message = format!("{message} (the other is at {place})");
    }
    let value = match spot.show {
        Show::Plain => raw.map(|raw| printable(&raw, MAX_SHOWN)),
        Show::Masked => Some(MASKED.to_owned()),
        Show::Nothing => None,
    };
    Problem {
        severity,
        file: file.to_owned(),
        place,
        path: printable(&spot.path, MAX_SHOWN),
        value,
        message: printable(&message, MAX_SHOWN),
        fix: fix.map(|fix| printable(&fix, MAX_FIX)),
    }
}

fn resolve(spot: &Spot, text: &str) -> (Option<Place>, Option<String>) {
    match spot.target {
        Target::Elsewhere => (None, None),
        Target::At(place) => (Some(place), None),
        Target::Node { id, scalar } => {
            let (place, raw) = node::locate(text, id);
            (Some(place), raw.filter(|_| scalar))
        }
    }
}

/// One line that cannot steer a terminal, at most `most` characters.
fn printable(text: &str, most: usize) -> String {
    let mut out = String::new();
    for (n, ch) in text.chars().enumerate() {
        if n == most {
            out.push_str("...");
            break;
        }
        if ch.is_control() || is_invisible(ch) {
            out.extend(ch.escape_unicode());
        } else {
            out.push(ch);
        }
    }
    out
}
