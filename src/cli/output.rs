use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::cli::Exit;

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

    fn to(sink: Box<dyn Write>, colour: bool) -> Self {
        Self { sink, colour, terminal: false, state: State::Open }
    }

    /// The text in the colour of its tone, or as it is where there is no colour.
    #[must_use]
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if self.colour { format!("\u{1b}[{}m{text}\u{1b}[0m", tone.ansi()) } else { text.to_owned() }
    }

    /// Prints a line.
    pub fn line(&mut self, text: impl Display) {
        if self.state == State::Open {
            let outcome = writeln!(self.sink, "{text}");
            self.note(outcome);
        }
    }

    /// Whether a person looks at it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Empties the screen.
    pub fn clear(&mut self) {
        if self.state == State::Open {
            let outcome = self.sink.write_all(b"\x1b[H\x1b[2J");
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
        for row in rows {
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

/// A text without anything that a terminal obeys.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
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
    fn only_a_coloured_printer_paints() {
        let plain = Printer::to(Box::new(io::sink()), false);
        assert_eq!(plain.paint(Tone::Bad, "x"), "x");
        let coloured = Printer::to(Box::new(io::sink()), true);
        assert_eq!(coloured.paint(Tone::Bad, "x"), "\u{1b}[31;1mx\u{1b}[0m");
    }
}
