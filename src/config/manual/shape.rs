/// A section: its keys, and what holds for several of them.
#[derive(Debug)]
pub struct Table {
    /// Its name in schemas; a word of `a-z`, `_`.
    pub name: &'static str,
    /// Its heading in the manual page.
    pub title: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its keys, in the order in which people want to read of them.
    pub entries: &'static [Entry],
    /// Keys of which there must be exactly one; may be empty.
    pub one_of: &'static [&'static str],
    /// Pairs of keys of which the first is nothing without the second.
    pub with: &'static [(&'static str, &'static str)],
}

/// One key of a section.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: &'static str,
    /// What its value may be.
    pub shape: Shape,
    /// Whether it has to be there.
    pub needed: bool,
    /// What holds where it is not there, as YAML; none where nothing holds, or where it depends.
    pub default: Option<&'static str>,
    /// What it means: sentences, with code in backticks.
    pub meaning: &'static str,
}

/// What a value may be.
#[derive(Debug)]
pub enum Shape {
    /// `true` or `false`.
    Switch,
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// One of these words.
    Words(&'static [&'static str]),
    /// A duration: whole seconds, or a number with s, m, h or d; least and most in seconds.
    Time(u64, u64),
    /// Text.
    Text(&'static Text),
    /// A whole number within bounds, or text.
    Mixed(i64, i64, &'static Text),
    /// One value, or a list of them with at least and at most so many.
    List(&'static Shape, usize, usize),
    /// A section of its own.
    Section(&'static Table),
    /// Sections with names that the operator chooses, which look like the text.
    Named(&'static Text, &'static Shape),
    /// Whichever of these.
    Either(&'static [Shape]),
    /// Nothing after the colon.
    Nothing,
}

/// What a text looks like.
#[derive(Debug)]
pub struct Text {
    /// What it is, for people: a noun with its article.
    pub what: &'static str,
    /// A regular expression in what ECMA-262 and others share; it may let pass what the reader refuses, never the other way.
    pub pattern: &'static str,
    /// The fewest characters.
    pub least: usize,
    /// The most characters; none where that is nobody's business.
    pub most: Option<usize>,
    /// One that is right.
    pub example: &'static str,
    /// One that the pattern refuses.
    pub wrong: &'static str,
}

impl Entry {
    /// A key that may be left out.
    pub(super) const fn new(key: &'static str, shape: Shape, meaning: &'static str) -> Self {
        Self { key, shape, needed: false, default: None, meaning }
    }

    /// The same, and it has to be there.
    pub(super) const fn needed(self) -> Self {
        Self { needed: true, ..self }
    }

    /// The same, with what holds where it is not there.
    pub(super) const fn usually(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }
}

impl Table {
    /// A section about whose keys nothing more is to be said.
    pub(super) const fn new(
        name: &'static str,
        title: &'static str,
        about: &'static str,
        entries: &'static [Entry],
    ) -> Self {
        Self { name, title, about, entries, one_of: &[], with: &[] }
    }
}

impl Shape {
    /// What a value may be, in words for people.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::Number(least, most) if least == most => least.to_string(),
            Self::Number(least, most) => format!("a number from {least} to {most}"),
            Self::Words(words) => words.join(", "),
            Self::Time(1, TEN_YEARS) => "a duration".to_owned(),
            Self::Time(least, most) => format!("a duration from {} to {}", span(*least), span(*most)),
            Self::Text(text) | Self::Mixed(_, _, text) => text.what.to_owned(),
            Self::List(of, ..) => format!("{}, or a list", of.words()),
            Self::Section(table) => format!("a section, see \"{}\"", table.title),
            Self::Named(names, of) => format!("{}: {}", names.what, of.words()),
            Self::Either(all) => {
                let words: Vec<String> = all.iter().map(Self::words).collect();
                words.join("; or ")
            }
            Self::Nothing => "nothing".to_owned(),
        }
    }
}

/// The longest duration there is, in seconds.
pub(super) const TEN_YEARS: u64 = 10 * 365 * 86_400;
/// Any duration.
pub(super) const TIME: Shape = Shape::Time(1, TEN_YEARS);

fn span(secs: u64) -> String {
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if secs.is_multiple_of(size) {
            return format!("{}{unit}", secs / size);
        }
    }
    format!("{secs}s")
}
