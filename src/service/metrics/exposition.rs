//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until a restart.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Times, counted in ranges.
    Histogram,
}

impl Kind {
    /// Its word in the format.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Figures of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name, `knock_agent_` and words of `a-z` with `_` between them.
    pub name: &'static str,
    /// What they are.
    pub kind: Kind,
    /// The names of the labels, each of which has a bounded number of values.
    pub labels: &'static [&'static str],
    /// A sentence for people.
    pub help: &'static str,
}

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    open: Option<&'static str>,
}

impl Page {
    /// Writes one figure; the head of its family comes before the first one. The values are those of the labels in their order,
    /// any more of either are left out.
    pub fn add(&mut self, family: &Family, values: &[&str], value: impl Display) {
        self.line(family, "", family.labels.iter().copied().zip(values.iter().copied()), value);
    }

    /// Writes a figure of a histogram, whose name ends in this, with its bound if it has one.
    pub fn add_part(&mut self, family: &Family, suffix: &str, bound: Option<&str>, value: impl Display) {
        self.line(family, suffix, bound.into_iter().map(|bound| ("le", bound)), value);
    }

    /// The page.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn line<'l>(
        &mut self,
        family: &Family,
        suffix: &str,
        labels: impl Iterator<Item = (&'l str, &'l str)>,
        value: impl Display,
    ) {
        let Family { name, kind, help, .. } = family;
        // Writing into a text does not fail.
        if self.open != Some(name) {
            self.open = Some(name);
            let help = help.replace('\\', r"\\").replace('\n', r"\n");
            let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {}\n", kind.word());
        }
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut first = true;
        for (label, value) in labels {
            self.text.push(if std::mem::take(&mut first) { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"{}\"", escaped(value));
        }
        let _ = writeln!(self.text, "{} {value}", if first { "" } else { "}" });
    }
}

/// A value as it stands between quotes.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => out.push_str(r"\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str(r"\n"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAMILY: Family =
        Family { name: "x_total", kind: Kind::Counter, labels: &["app", "how"], help: "One\\two\nthree." };

    #[test]
    fn the_head_comes_once_and_labels_in_their_order() {
        let mut page = Page::default();
        page.add(&FAMILY, &["a", "b"], 7);
        page.add(&FAMILY, &["c"], 0.5);
        page.add(&Family { labels: &[], kind: Kind::Gauge, name: "y", help: "Y." }, &[], 1);
        assert_eq!(
            page.finish(),
            "# HELP x_total One\\\\two\\nthree.\n# TYPE x_total counter\nx_total{app=\"a\",how=\"b\"} 7\nx_total{app=\"c\"} 0.5\n# HELP y Y.\n# TYPE y gauge\ny 1\n"
        );
    }

    #[test]
    fn values_cannot_leave_their_quotes() {
        assert_eq!(escaped("a\"} 1\nx{b=\"\\"), "a\\\"} 1\\nx{b=\\\"\\\\");
    }

    /// As a reader of the format undoes it.
    fn plain(escaped: &str) -> String {
        let (mut out, mut chars) = (String::new(), escaped.chars());
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next().expect("something escaped") {
                    'n' => out.push('\n'),
                    other => out.push(other),
                },
                '"' | '\n' => panic!("{escaped}"),
                other => out.push(other),
            }
        }
        out
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_as_it_was(value in "\\PC*|[\"\\\\\n]*") {
            prop_assert_eq!(plain(&escaped(&value)), value);
        }
    }
}
