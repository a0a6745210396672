//! A section as its keys, and a key as the value it must be.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::config::node::{Kind, Node};
use crate::config::problem::MASKED;
use crate::config::report::{Report, Show, Spot};
use crate::config::suggest;
use crate::units::Lifetime;

/// YAML's key for taking over the entries of another mapping, as the reference's reader does.
const MERGE: &str = "<<";

/// The entries of one mapping, none twice.
pub(super) struct Section<'n> {
    path: String,
    name: Spot,
    entries: Vec<(&'n str, Field<'n>)>,
}

/// One key of a section, or one item of a list, with its value.
#[derive(Clone)]
pub(super) struct Field<'n> {
    path: String,
    key: Spot,
    node: &'n Node,
    secret: bool,
}

impl<'n> Section<'n> {
    /// Takes a mapping apart; `name` is where missing keys are reported.
    pub fn open(path: &str, name: Spot, node: &'n Node, report: &mut Report) -> Option<Self> {
        let Kind::Map(map) = &node.kind else {
            let what = node.what();
            report.error_fix(
                Spot::node(path, node, Show::Nothing),
                format!("this must be a section with keys of its own, not {what}"),
                "write `key: value` lines below it, indented by two spaces",
            );
            return None;
        };
        let mut section = Self { path: path.to_owned(), name, entries: Vec::new() };
        let mut merged = Vec::new();
        let mut seen: HashMap<&str, Spot> = HashMap::new();
        for (key, value) in map {
            let Kind::Text(text) = &key.kind else {
                report.error_fix(
                    Spot::node(path, key, Show::Plain),
                    format!("a key must be text, not {}", key.what()),
                    "put the key in quotes",
                );
                continue;
            };
            if text.as_str() == MERGE {
                merged.push(value);
                continue;
            }
            let field = section.field(text, key, value);
            if let Some(first) = seen.get(text.as_str()) {
                report.conflict(field.key, first, "this is set twice", "keep one of them");
                continue;
            }
            seen.insert(text, field.key.clone());
            section.entries.push((text, field));
        }
        for value in merged {
            section.merge(value, &mut seen, report);
        }
        Some(section)
    }

    fn merge(&mut self, value: &'n Node, seen: &mut HashMap<&'n str, Spot>, report: &mut Report) {
        match &value.kind {
            Kind::Map(map) => {
                for (key, value) in map {
                    let Kind::Text(text) = &key.kind else { continue };
                    let field = self.field(text, key, value);
                    if text.as_str() != MERGE && !seen.contains_key(text.as_str()) {
                        seen.insert(text, field.key.clone());
                        self.entries.push((text, field));
                    }
                }
            }
            Kind::List(list) if list.iter().all(|item| matches!(item.kind, Kind::Map(_))) => {
                for item in list {
                    self.merge(item, seen, report);
                }
            }
            _ => report.error(
                Spot::node(&self.path, value, Show::Nothing),
                "<< takes over the keys of another section: write <<: *name for a section marked &name",
            ),
        }
    }

    fn field(&self, text: &str, key: &Node, value: &'n Node) -> Field<'n> {
        let path = self.path_of(text);
        Field { key: Spot::node(&path, key, Show::Nothing), path, node: value, secret: false }
    }

    /// The path of a key of this section, such as `ssh.port`.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The place of the section's name, about one of its keys.
    pub fn spot_for(&self, key: &str) -> Spot {
        self.name.about(&self.path_of(key))
    }

    /// The place of the section's name.
    pub fn spot(&self) -> Spot {
        self.name.about(&self.path)
    }

    /// All entries in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = (&'n str, &Field<'n>)> {
        self.entries.iter().map(|(key, field)| (*key, field))
    }

    /// The value of a key, if it is there.
    pub fn get(&self, key: &str) -> Option<Field<'n>> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, field)| field.clone())
    }

    /// The value of a key whose value must never be shown.
    pub fn secret(&self, key: &str) -> Option<Field<'n>> {
        self.get(key).map(|field| Field { secret: true, ..field })
    }

    /// Reports a key that has to be there.
    pub fn missing(&self, key: &str, example: &str, report: &mut Report) {
        report.error_fix(self.spot_for(key), "this key is missing", format!("add `{key}: {example}`"));
    }

    /// Reports keys that nobody knows; `elsewhere` are those of the other kind of section, called `other`.
    pub fn refuse_unknown(&self, known: &[&str], elsewhere: &[&str], other: &str, report: &mut Report) {
        for (key, field) in self.entries().filter(|(key, _)| !known.contains(key)) {
            let mut spot = field.key.clone();
            let fix = if elsewhere.contains(&key) {
                format!("it belongs in {other}")
            } else {
                let near = if report.is_crowded() { None } else { suggest::nearest(key, known) };
                if near.is_none() && !is_word(key) {
                    spot = spot.about(&self.path_of(MASKED));
                }
                match near {
                    Some(word) => format!("did you mean `{word}`?"),
                    None => format!("remove it; known here: {}", known.join(", ")),
                }
            };
            report.error_fix(spot, "there is no such key", fix);
        }
    }
}

/// Whether it may be shown: anything else may be a secret that was written in the wrong place.
fn is_word(key: &str) -> bool {
    key.len() <= 30 && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

impl<'n> Field<'n> {
    /// Where the value is.
    pub fn spot(&self) -> Spot {
        let show = match (self.secret, self.node.is_scalar()) {
            (_, false) => Show::Nothing,
            (true, true) => Show::Masked,
            (false, true) => Show::Plain,
        };
        Spot::node(&self.path, self.node, show)
    }

    /// Where the value is, which may be shown although what it leads to may not.
    pub fn shown_spot(&self) -> Spot {
        Spot::node(&self.path, self.node, if self.node.is_scalar() { Show::Plain } else { Show::Nothing })
    }

    /// Whether nothing is written after the key.
    pub fn is_nothing(&self) -> bool {
        matches!(self.node.kind, Kind::Null)
    }

    /// Whether the value is a section with keys of its own.
    pub fn is_section(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    /// Where the key is.
    pub fn key(&self) -> Spot {
        self.key.clone()
    }

    /// The mapping below the key.
    pub fn section(&self, report: &mut Report) -> Option<Section<'n>> {
        Section::open(&self.path, self.key.clone(), self.node, report)
    }

    /// Whether the value is a list with nothing in it.
    pub fn is_empty_list(&self) -> bool {
        matches!(&self.node.kind, Kind::List(list) if list.is_empty())
    }

    fn wrong_type(&self, wanted: &str, report: &mut Report) {
        let fix = match (&self.node.kind, wanted.starts_with("text")) {
            (Kind::Null | Kind::List(_) | Kind::Map(_), _) => None,
            (Kind::Text(_), _) => Some("remove the quotes, and everything but digits"),
            (Kind::Bool(_) | Kind::Int(_) | Kind::Float, true) => Some("put it in quotes"),
            (Kind::Bool(_) | Kind::Int(_) | Kind::Float, false) => None,
        };
        let message = format!("this must be {wanted}, not {}", self.node.what());
        match fix {
            Some(fix) => report.error_fix(self.spot(), message, fix),
            None => report.error(self.spot(), message),
        }
    }

    /// The value as text that is not empty.
    pub fn text(&self, report: &mut Report) -> Option<&'n str> {
        let Kind::Text(text) = &self.node.kind else {
            self.wrong_type("text", report);
            return None;
        };
        if text.trim().is_empty() {
            report.error(self.spot(), "this is empty: write a value, or remove the key");
            return None;
        }
        Some(text)
    }

    /// The value as a whole number within a range.
    pub fn number<T: TryFrom<i128>>(&self, range: RangeInclusive<i128>, report: &mut Report) -> Option<T> {
        let Kind::Int(number) = self.node.kind else {
            self.wrong_type("a whole number", report);
            return None;
        };
        let (least, most) = (range.start(), range.end());
        let parsed = if range.contains(&number) { T::try_from(number).ok() } else { None };
        if parsed.is_none() {
            report.error(
                self.spot(),
                format!("`{number}` is out of range: write a number from {least} to {most}"),
            );
        }
        parsed
    }

    /// The value as `true` or `false`.
    pub fn switch(&self, report: &mut Report) -> Option<bool> {
        if let Kind::Bool(value) = self.node.kind {
            return Some(value);
        }
        report.error(self.spot(), "this must be true or false, without quotes");
        None
    }

    /// The value as one of a few words. `on` and `off` may also be true and false, as which programs that read YAML 1.1
    /// write them again.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)], report: &mut Report) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let one_of = names.join(", ");
        let text = match &self.node.kind {
            Kind::Text(text) => text.as_str(),
            Kind::Bool(true) if names.contains(&"on") => "on",
            Kind::Bool(false) if names.contains(&"off") => "off",
            Kind::Bool(_) | Kind::Null | Kind::Int(_) | Kind::Float | Kind::List(_) | Kind::Map(_) => {
                self.wrong_type(&format!("text (one of {one_of})"), report);
                return None;
            }
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let fix = match suggest::nearest(text, &names) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("write one of {one_of}"),
            };
            report.error_fix(self.spot(), format!("`{text}` is none of {one_of}"), fix);
        }
        found
    }

    /// The value as a number or text that a type of `units` judges; its message must show no secret.
    pub fn parse_with<T, E: Display>(
        &self,
        judge: impl Fn(&str) -> Result<T, E>,
        report: &mut Report,
    ) -> Option<T> {
        let verdict = match &self.node.kind {
            Kind::Int(number) => judge(&number.to_string()),
            Kind::Text(text) => judge(text),
            Kind::Null | Kind::Bool(_) | Kind::Float | Kind::List(_) | Kind::Map(_) => {
                self.wrong_type("a whole number or text", report);
                return None;
            }
        };
        verdict.map_err(|error| report.error(self.spot(), error.to_string())).ok()
    }

    /// The value as text that a type of `units` judges; its message must show no secret.
    pub fn parse_text<T: FromStr<Err: Display>>(&self, report: &mut Report) -> Option<T> {
        let text = self.text(report)?;
        text.parse().map_err(|error: T::Err| report.error(self.spot(), error.to_string())).ok()
    }

    /// The value as a duration.
    pub fn lifetime(&self, report: &mut Report) -> Option<Lifetime> {
        self.parse_with(str::parse, report)
    }

    /// The items of a list, or the one value that stands for a list of one; at least one, at most `most`.
    fn items(&self, most: usize, report: &mut Report) -> Option<Vec<Self>> {
        if let Kind::List(list) = &self.node.kind
            && list.len() > most
        {
            report.error(self.spot(), format!("this list has {} values, the most is {most}", list.len()));
            return None;
        }
        let items = match &self.node.kind {
            Kind::List(list) => list
                .iter()
                .enumerate()
                .map(|(n, node)| {
                    let path = format!("{}[{n}]", self.path);
                    Self { key: self.key.about(&path), path, node, secret: self.secret }
                })
                .collect(),
            Kind::Null => {
                self.wrong_type("a value or a list of values", report);
                return None;
            }
            // Those who read an item say what it must be.
            Kind::Bool(_) | Kind::Int(_) | Kind::Float | Kind::Text(_) | Kind::Map(_) => vec![self.clone()],
        };
        if items.is_empty() {
            report.error(self.spot(), "this list is empty: write at least one value");
            return None;
        }
        Some(items)
    }

    /// All items read by `read`; none if one of them is wrong, each of which is reported.
    pub fn each<T>(
        &self,
        most: usize,
        report: &mut Report,
        mut read: impl FnMut(&Self, &mut Report) -> Option<T>,
    ) -> Option<Vec<(T, Self)>> {
        let items = self.items(most, report)?;
        let wanted = items.len();
        let good: Vec<(T, Self)> =
            items.into_iter().filter_map(|item| read(&item, report).map(|value| (value, item))).collect();
        (good.len() == wanted).then_some(good)
    }
}

/// Reports every item that equals an earlier one of its list.
pub(super) fn refuse_repeats<'n, T>(
    items: &[(T, Field<'n>)],
    same: impl Fn(&T, &T) -> bool,
    what: &str,
    report: &mut Report,
) {
    for (n, (value, field)) in items.iter().enumerate() {
        if let Some((_, first)) = items.iter().take(n).find(|(earlier, _)| same(earlier, value)) {
            let message = format!("this {what} is in the list twice");
            report.conflict(field.spot(), &first.spot(), message, "keep one of them");
        }
    }
}
