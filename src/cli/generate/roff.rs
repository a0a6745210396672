//! Manual pages in man(7).

use std::fmt::Write;

/// When the pages were last changed in what they say; the same bytes come out whenever they are made.
const DATE: &str = "2026-11-21";

/// Characters of a line.
const WIDTH: usize = 78;

/// A page while it is written.
pub(super) struct Page {
    text: String,
    /// Whether a heading was the last: no paragraph has to be begun.
    fresh: bool,
}

impl Page {
    /// A page of a section, such as 8.
    pub fn new(name: &str, section: u8) -> Self {
        let name = name.to_uppercase();
        let version = env!("CARGO_PKG_VERSION");
        let text = format!(".TH {name} {section} {DATE} \"knock-agent {version}\" \"knock-agent manual\"\n");
        Self { text, fresh: true }
    }

    /// The whole page.
    pub fn finish(self) -> String {
        self.text
    }

    /// A heading.
    pub fn heading(&mut self, title: &str) {
        self.push(format_args!(".SH {}\n", quoted(&title.to_uppercase())));
        self.fresh = true;
    }

    /// A heading below the last one.
    pub fn subheading(&mut self, title: &str) {
        self.push(format_args!(".SS {}\n", quoted(title)));
        self.fresh = true;
    }

    /// The name of what the page is about, and what it is.
    pub fn name(&mut self, name: &str, what: &str) {
        self.heading("name");
        self.push(format_args!("{} \\- {}\n", escape(name), escape(&uncapital(what))));
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.begin();
        self.lines(text);
    }

    fn begin(&mut self) {
        if !self.fresh {
            self.text.push_str(".PP\n");
        }
        self.fresh = false;
    }

    /// Lines of which each begins where lines begin.
    pub fn rows(&mut self, rows: &[&str]) {
        for (n, row) in rows.iter().enumerate() {
            if n > 0 {
                self.text.push_str(".br\n");
            }
            self.lines(&format!("`{row}`"));
        }
    }

    /// What follows a heading: text without a space before it.
    pub fn lines(&mut self, text: &str) {
        self.fresh = false;
        for line in text.lines() {
            self.wrapped(&marked_up(line));
        }
    }

    /// Readers fill lines themselves; those in the source are short, as man(7) wants them.
    fn wrapped(&mut self, line: &str) {
        let mut short = String::new();
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            if !short.is_empty() && short.len() + 1 + word.len() > WIDTH {
                self.push(format_args!("{}\n", protected(std::mem::take(&mut short))));
            }
            if !short.is_empty() {
                short.push(' ');
            }
            short.push_str(word);
        }
        self.push(format_args!("{}\n", protected(short)));
    }

    /// Something and what it means.
    pub fn item(&mut self, what: &str, meaning: &[String]) {
        self.push(format_args!(".TP\n{what}\n"));
        for (n, part) in meaning.iter().enumerate() {
            if n > 0 {
                self.text.push_str(".br\n");
            }
            self.lines(part);
        }
    }

    /// Lines that stay as they are.
    pub fn literal(&mut self, lines: &[&str]) {
        self.begin();
        self.text.push_str(".nf\n.RS 4\n");
        for line in lines {
            let line = if line.is_empty() { "\\&".to_owned() } else { escape(line) };
            self.push(format_args!("{line}\n"));
        }
        self.text.push_str(".RE\n.fi\n");
    }

    /// References to other pages, such as `nft(8)`.
    pub fn see_also(&mut self, pages: &[(String, u8)]) {
        self.heading("see also");
        for (n, (page, section)) in pages.iter().enumerate() {
            let comma = if n + 1 == pages.len() { "" } else { "," };
            self.push(format_args!(".BR {} ({section}){comma}\n", escape(page)));
        }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.text.write_fmt(text);
    }
}

/// A word in bold.
pub(super) fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", inline(text))
}

/// A word in italics.
pub(super) fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", inline(text))
}

/// Text whose code is in backticks.
fn marked_up(line: &str) -> String {
    let mut out = String::new();
    for (n, part) in line.split('`').enumerate() {
        out.push_str(&if n % 2 == 1 { bold(part) } else { inline(part) });
    }
    out
}

/// A whole line as it is.
fn escape(text: &str) -> String {
    protected(inline(text))
}

/// Text within a line.
pub(super) fn inline(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('^', "\\(ha")
        .replace('~', "\\(ti")
}

/// A line that begins with a dot or quote would be a request.
fn protected(line: String) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

fn quoted(title: &str) -> String {
    format!("\"{}\"", escape(title).replace('"', "\\(dq"))
}

/// Without its capital, unless that is part of a name.
fn uncapital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}
