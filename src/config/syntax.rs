//! What can be wrong with a text before any of its keys is looked at.

use std::collections::HashSet;

use crate::config::node;
use crate::config::problem::Place;

/// The longest configuration that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// How many lists and mappings in brackets may be open at once: the YAML reader needs time in the square of it.
const MAX_OPEN: usize = 200;

/// Something wrong with the text itself.
pub(super) struct Fault {
    pub place: Place,
    pub message: String,
    pub fix: Option<String>,
}

impl Fault {
    pub fn new(place: Place, message: &str, fix: &str) -> Self {
        Self { place, message: message.to_owned(), fix: Some(fix.to_owned()) }
    }
}

/// Finds a file of another program for knocking: such begin with a section in brackets, or with a word in capitals and its value.
pub(super) fn foreign(text: &str) -> Option<Fault> {
    let said = |line: &&str| !line.is_empty() && !line.starts_with(['#', ';']);
    let (n, line) = text.lines().map(str::trim).enumerate().find(|(_, line)| said(line))?;
    let section = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let plain =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_.- ".contains(c));
    let fwknop = line.split_once(char::is_whitespace).is_some_and(|(word, value)| {
        word.len() > 2 && !value.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    });
    (section.is_some_and(plain) || fwknop).then(|| {
        Fault::new(
            Place { line: n + 1, column: 1 },
            "this is no YAML: it looks like a file of knockd, nfknock, knock-knock or fwknop",
            "docs/migration says, option by option, what becomes of it here",
        )
    })
}

/// Finds what the YAML reader would not report well, or would read wrongly.
pub(super) fn precheck(text: &str) -> Option<Fault> {
    if text.len() > MAX_BYTES {
        return Some(Fault::new(
            Place::START,
            "the file is larger than 1 MiB",
            "check that this is the right file",
        ));
    }
    let mut anchors = HashSet::new();
    let mut again = None;
    let mut aliases = false;
    let mut open = 0_usize;
    for (n, line) in text.lines().enumerate() {
        let at = |index: usize| Place { line: n + 1, column: index + 1 };
        if let Some(index) = line.chars().enumerate().position(|(c, ch)| !readable(ch, n + c == 0)) {
            return Some(Fault::new(
                at(index),
                "the file holds a control character, so it is not YAML",
                "remove it; check that this is a text file in UTF-8",
            ));
        }
        let code = without_comment(line);
        for (index, ch) in beginnings(code) {
            open = if "[{".contains(ch) { open + 1 } else { open.saturating_sub(1) };
            if open > MAX_OPEN {
                return Some(too_deep(at(index)));
            }
        }
        for (index, mark, name) in references(code) {
            match mark {
                '*' => aliases = true,
                _ if !anchors.insert(name) => again = again.or(Some(at(index))),
                _ => {}
            }
        }
    }
    // The YAML reader takes the wrong value for an alias once an anchor is defined twice.
    again.filter(|_| aliases).map(|place| {
        Fault::new(place, "this anchor is defined a second time", "give each &anchor a name of its own")
    })
}

fn too_deep(place: Place) -> Fault {
    Fault::new(place, "values are nested too deeply", "a configuration has three levels: section, key, list")
}

/// Characters YAML 1.2 allows (section 5.1).
fn readable(ch: char, first: bool) -> bool {
    match ch {
        '\u{feff}' => first,
        '\t' | '\n' | '\r' | '\u{85}' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        _ => !ch.is_control(),
    }
}

/// The part of a line before a comment; a quoted ` #` ends it too, which does no harm here.
fn without_comment(line: &str) -> &str {
    if line.starts_with('#') {
        return "";
    }
    line.split_once(" #").map_or(line, |(code, _)| code)
}

/// Brackets that open or close a list or mapping, with their columns from 0; some in quoted text are found as well.
fn beginnings(code: &str) -> impl Iterator<Item = (usize, char)> {
    let mut before = ' ';
    code.chars().enumerate().filter(move |(_, ch)| {
        let starts = before.is_whitespace() || "[{,:".contains(before);
        before = *ch;
        ("[{".contains(*ch) && starts) || "]}".contains(*ch)
    })
}

/// The `&anchor` and `*alias` marks of a line with their columns from 0; some in quoted text are found as well.
fn references(code: &str) -> impl Iterator<Item = (usize, char, &str)> {
    let mut before = ' ';
    code.char_indices().enumerate().filter_map(move |(column, (offset, ch))| {
        let begins = before.is_whitespace() || "[{,".contains(before);
        before = ch;
        if !(begins && (ch == '&' || ch == '*')) {
            return None;
        }
        let rest = code.get(offset + 1..).unwrap_or_default();
        let end = rest.find(|c: char| c.is_whitespace() || ",[]{}".contains(c)).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        (!name.is_empty()).then_some((column, ch, name))
    })
}

/// Where an error of the YAML reader is.
pub(super) fn place(error: &serde_yaml::Error) -> Option<Place> {
    let at = error.location()?;
    Some(Place { line: at.line(), column: at.column() })
}

/// An error of the YAML reader in words that show no value of the file.
pub(super) fn fault(error: &serde_yaml::Error, text: &str) -> Fault {
    let place = place(error).unwrap_or(Place::START);
    let said = error.to_string();
    if said.contains(node::TOO_MANY) || said.contains("repetition limit") {
        return Fault::new(
            place,
            "the file has more than 100000 values",
            "check aliases (*name): each stands for all the values behind its anchor",
        );
    }
    if said.contains("recursion limit") {
        return too_deep(place);
    }
    if said.contains("unknown anchor") {
        return Fault::new(
            place,
            "this alias names an anchor that is not defined above it",
            "define it with &name, or put a value that begins with * in quotes",
        );
    }
    // Only serde's own wording quotes values; libyaml's texts are fixed.
    let quotes_values = ["invalid type", "invalid value", "invalid length"].iter().any(|w| said.contains(w));
    if quotes_values || said.contains(node::TAGGED) {
        return Fault::new(
            place,
            "tags (words that begin with !) are not used here",
            "remove the tag, or put a value that begins with ! in quotes",
        );
    }
    let what = said.split(" at line ").next().unwrap_or_default();
    Fault { place, message: format!("this is not YAML: {what}"), fix: Some(syntax_fix(place, text)) }
}

fn syntax_fix(place: Place, text: &str) -> String {
    let indent = |line: &str| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t');
    let near = place.line.saturating_sub(2);
    match text.lines().enumerate().skip(near).take(3).find(|(_, line)| indent(line)) {
        Some((n, _)) => format!("indent with spaces: line {} begins with a tab", n + 1),
        None => "check indentation, colons followed by a space, and quotes around this place".to_owned(),
    }
}
