use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::cli::Exit;
use crate::units::is_invisible;

/// What a piece of text means to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something is wrong.
    Bad,
    /// Somebody should look.
    Doubtful,
    /// All is well.
    Good,
    /// A heading.
    Heading,
}

impl Tone {
    fn ansi(self) -> &'static str {
        match self {
            Self::Bad => "31;1",
            Self::Doubtful => "33;1",
            Self::Good => "32",
            Self::Heading => "1",
        }
    }
}

/// Lines to standard output or standard error. A reader that went away (`| head`) is not an error; colour only on a
/// terminal and without `NO_COLOR` (<https://no-color.org>).
pub struct Printer {
    sink: Box<dyn Write>,
    colour: bool,
    terminal: bool,
    /// Whether lines are events of the log.
    logs: bool,
    /// The lines of a picture that is not shown yet.
    picture: Option<Vec<String>>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    ReaderGone,
    Failed,
}

impl Printer {
    /// Prints to standard output.
    #[must_use]
    pub fn stdout() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self { terminal, ..Self::to(Box::new(io::LineWriter::new(out.lock())), wants_colour(terminal)) }
    }

    /// Prints to standard error.
    #[must_use]
    pub fn stderr() -> Self {
        let err = io::stderr();
        let colour = wants_colour(err.is_terminal());
        Self::to(Box::new(err), colour)
    }

    /// Has the log tell what would be printed to standard error, for whoever reads that as a program.
    #[must_use]
    pub fn log() -> Self {
        Self { logs: true, ..Self::to(Box::new(io::stderr()), false) }
    }

    fn to(sink: Box<dyn Write>, colour: bool) -> Self {
        Self { sink, colour, terminal: false, logs: false, picture: None, state: State::Open }
    }

    /// The text in the colour of its tone, or as it is where there is no colour.
    #[must_use]
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colour { format!("\u{1b}[{}m{text}\u{1b}[0m", tone.ansi()) } else { text.to_owned() }
    }

    /// Prints a line; names of files, interfaces and people in it steer no terminal and turn no text around.
    pub fn line(&mut self, text: impl Display) {
        let text = harmless(&text.to_string(), self.colour);
        if let Some(picture) = &mut self.picture {
            picture.extend(text.split('\n').map(str::to_owned));
        } else if self.logs {
            log(&text);
        } else if self.state == State::Open {
            let outcome = writeln!(self.sink, "{text}");
            self.note(outcome);
        }
    }

    /// Whether a person looks at it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Keeps what is printed from now on until it is shown as a whole.
    pub fn begin_picture(&mut self) {
        self.picture = Some(Vec::new());
    }

    /// Shows what was kept in place of what was on the screen, as far as it fits there: `rows` and `columns` of it; all of
    /// it where they are not known.
    pub fn show_picture(&mut self, size: Option<(u16, u16)>) {
        let lines = self.picture.take().unwrap_or_default();
        if self.state == State::Open {
            let text = picture(&lines, size);
            let outcome = self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush());
            self.note(outcome);
        }
    }

    /// Whether what is printed still arrives anywhere.
    #[must_use]
    pub fn has_reader(&self) -> bool {
        self.state == State::Open
    }

    /// Prints rows with their columns aligned, two spaces between them and in front.
    pub fn table<const N: usize>(&mut self, rows: &[[String; N]]) {
        let mut widths = [0; N];
        let rows: Vec<[String; N]> = rows
            .iter()
            .map(|row| {
                std::array::from_fn(|n| {
                    row.get(n).map_or_else(String::new, |cell| harmless(cell, self.colour))
                })
            })
            .collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            self.line(format!("  {}", cells.join("  ")).trim_end());
        }
    }

    /// What this end came to: `exit`, unless the output could not be written.
    #[must_use]
    pub fn finish(mut self, exit: Exit) -> Exit {
        if self.state == State::Open {
            let outcome = self.sink.flush();
            self.note(outcome);
        }
        if self.state == State::Failed && exit == Exit::Done { Exit::Io } else { exit }
    }

    fn note(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.state = State::ReaderGone,
            Err(_) => self.state = State::Failed,
        }
    }
}

/// One event for what may be several lines, at the level that they name.
fn log(text: &str) {
    let text = text.replace("\n  fix: ", "; fix: ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let is = |word: &str| text.starts_with(word) || text.contains(&format!(": {word}"));
    if is("error: ") || text.ends_with("this configuration is not used") {
        tracing::error!("{text}");
    } else if is("warning: ") {
        tracing::warn!("{text}");
    } else {
        tracing::info!("{text}");
    }
}

/// Lines as a picture: from the upper left corner on, each to its end, and nothing below. The last row stays empty, as a
/// line that ends there would move all of them.
fn picture(lines: &[String], size: Option<(u16, u16)>) -> String {
    let (rows, columns) = size.map_or((usize::MAX, usize::MAX), |(rows, columns)| {
        (usize::from(rows).saturating_sub(1).max(1), usize::from(columns).max(1))
    });
    let hidden = lines.len().saturating_sub(rows);
    let shown = if hidden > 0 { rows - 1 } else { rows };
    let more = (hidden > 0).then(|| format!("... {} more lines", hidden + 1));
    let all = lines.iter().take(shown).chain(&more);
    let text: String = all.map(|line| format!("{}\x1b[K\n", cut(line, columns))).collect();
    format!("\x1b[H{text}\x1b[J")
}

/// As much of a line as so many columns hold; colours take none.
fn cut(line: &str, columns: usize) -> String {
    let (mut out, mut room, mut coloured, mut inside) = (String::new(), columns, false, false);
    for c in line.chars() {
        match c {
            '\x1b' => (inside, coloured) = (true, true),
            _ if inside => inside = !c.is_ascii_alphabetic(),
            _ if room == 0 => {
                return if coloured { out + "\x1b[0m" } else { out };
            }
            _ => room -= 1,
        }
        out.push(c);
    }
    out
}

/// A text without anything that a terminal obeys, or that is not seen.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// The same with what a line may have: ends of lines, tabs and, where it is coloured, colours. The rest is spelt as JSON
/// spells it, as the text may be JSON.
fn harmless(text: &str, coloured: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let meant = matches!(c, '\n' | '\t') || (coloured && text.get(at..).is_some_and(begins_colour));
        if meant || !(c.is_control() || is_invisible(c)) {
            out.push(c);
        } else {
            out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

/// Whether it begins as [`Printer::paint`] does.
fn begins_colour(text: &str) -> bool {
    let rest = text
        .strip_prefix("\u{1b}[")
        .map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
    rest.is_some_and(|rest| rest.starts_with('m'))
}

fn wants_colour(is_terminal: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_terminal && !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Rc<RefCell<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is_one() {
        for (kind, exit) in [(io::ErrorKind::BrokenPipe, Exit::Done), (io::ErrorKind::StorageFull, Exit::Io)]
        {
            let mut printer = Printer::to(Box::new(Broken(kind)), false);
            printer.line("x");
            printer.line("y");
            assert_eq!(printer.finish(Exit::Done), exit);
        }
        let mut printer = Printer::to(Box::new(Broken(io::ErrorKind::StorageFull)), false);
        printer.line("x");
        assert_eq!(printer.finish(Exit::BadConfig), Exit::BadConfig);
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let page = Page::default();
        let mut printer = Printer::to(Box::new(page.clone()), false);
        printer.table(&[["größe", "1"], ["a", "22"], ["b", ""]].map(|row| row.map(str::to_owned)));
        assert_eq!(String::from_utf8(page.0.take()).unwrap(), "  größe  1\n  a      22\n  b\n");
    }

    #[test]
    fn a_picture_fits_the_screen_whatever_is_in_it() {
        let page = Page::default();
        let mut printer = Printer::to(Box::new(page.clone()), true);
        let bad = printer.paint(Tone::Bad, "BAD");
        let mut show = |size| {
            printer.begin_picture();
            printer.line(format!("{bad} guard"));
            printer.line("two\nthree");
            printer.line("four");
            printer.show_picture(size);
            String::from_utf8(page.0.take()).unwrap()
        };
        let all = "\x1b[H\x1b[31;1mBAD\x1b[0m guard\x1b[K\ntwo\x1b[K\nthree\x1b[K\nfour\x1b[K\n\x1b[J";
        assert_eq!(show(None), all);
        assert_eq!(show(Some((5, 9))), all, "it just fits");
        let narrow = show(Some((4, 5)));
        assert_eq!(narrow, "\x1b[H\x1b[31;1mBAD\x1b[0m g\x1b[0m\x1b[K\ntwo\x1b[K\n... 2\x1b[K\n\x1b[J");
        assert_eq!(show(Some((0, 0))), "\x1b[H.\x1b[K\n\x1b[J", "no screen at all");
    }

    #[test]
    fn what_is_printed_turns_no_text_around_and_steers_no_terminal() {
        let page = Page::default();
        let mut printer = Printer::to(Box::new(page.clone()), false);
        let name = "a\u{202e}gpj\u{1b}]0;x\u{7}\u{9b}b\u{e0041}";
        printer.line(serde_json::json!({ "file": name }));
        printer.table(&[[name, "x"], ["", "y"]].map(|row| row.map(str::to_owned)));
        let text = String::from_utf8(page.0.take()).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || is_invisible(c))), "{text:?}");
        let mut lines = text.lines();
        let told: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(told["file"], name, "a program reads what it is");
        let ends: Vec<usize> = lines.map(|line| line.chars().count()).collect();
        assert_eq!(ends.len(), 2);
        assert_eq!(ends[0], ends[1], "columns are as wide as what is seen: {text}");
        assert_eq!(harmless("\u{1b}[31;1mx\u{1b}[0m\u{1b}[2J", true), "\u{1b}[31;1mx\u{1b}[0m\\u001b[2J");
        assert_eq!(plain("a\u{202e}b\u{200b}"), "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn only_a_coloured_printer_paints() {
        let plain = Printer::to(Box::new(io::sink()), false);
        assert_eq!(plain.paint(Tone::Bad, "x"), "x");
        let coloured = Printer::to(Box::new(io::sink()), true);
        assert_eq!(coloured.paint(Tone::Bad, "x"), "\u{1b}[31;1mx\u{1b}[0m");
    }
}
