//! What the documentation says of tests, held by a test: every one that it names is there.

#![expect(clippy::expect_used, reason = "a test stops at the first thing that is not as it should be")]

use std::fs;
use std::path::{Path, PathBuf};

/// Documents that name tests, and how many they name at least.
const NAMING: &[(&str, usize)] =
    &[("docs/defects.md", 60), ("docs/threat-model.md", 80), ("docs/robustness.md", 50)];
/// What is said of a test that the ordinary run leaves out.
const ELSEWHERE: &str = "(machine of its own)";
/// Macros that make tests of the functions they name.
const MAKERS: &[&str] =
    &["on_every_firewall!", "on_both_iptables!", "without_ipset!", "without_ipset_in_both!"];

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Test,
    /// The ordinary run leaves it out.
    Ignored,
    /// No such file, no such function, or one that is no test.
    Nothing,
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let mut wrong = Vec::new();
    for (document, least) in NAMING {
        let text = read(document);
        let names = names(&text);
        assert!(names.len() >= *least, "{document} names {} tests", names.len());
        for (name, behind) in names {
            let found = find(name);
            if found == Found::Nothing
                || (found == Found::Ignored) != behind.trim_start().starts_with(ELSEWHERE)
            {
                wrong.push(format!("{document}: `{name}`: {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong names:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_known_defect_has_a_test() {
    let text = read("docs/defects.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_digit))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for row in &rows {
        let [number, what, kind, tests] = row[..] else { panic!("not four columns: {row:?}") };
        assert!(!what.is_empty() && !kind.is_empty() && !names(tests).is_empty(), "{number} has no test");
    }
    let whole =
        |number: usize| rows.iter().filter(|row| row.first() == Some(&number.to_string().as_str())).count();
    assert!((1..=15).all(|n| whole(n) == 2) && (16..=20).all(|n| whole(n) == 1), "a number is missing");
}

#[test]
fn the_document_on_events_lists_those_that_the_program_can_tell_and_no_others() {
    let source = read("src/units/log_event.rs");
    let coded = |line: &str| -> Option<(String, String, String)> {
        let (variant, rest) = line.trim().strip_prefix("Self::")?.split_once(" => (\"")?;
        let (word, severity) = rest.split_once("\", ")?;
        let severity = severity.strip_suffix("),")?.to_ascii_lowercase();
        Some((variant.to_owned(), word.to_owned(), severity))
    };
    let coded: Vec<_> = source.lines().filter_map(coded).collect();
    let text = read("docs/events.md");
    let listed: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            Some((cells.next()?.trim_end_matches('`'), cells.next()?))
        })
        .filter(|(_, level)| ["error", "warn", "info"].contains(level))
        .collect();
    let known: Vec<(&str, &str)> =
        coded.iter().map(|(_, word, level)| (word.as_str(), level.as_str())).collect();
    assert!(known.len() > 20, "the scan found the events");
    assert_eq!(listed, known, "docs/events.md and src/units/log_event.rs, in the same order");
    let lines = lines_of_the_program(|line| line.contains("LogEvent::"));
    for (variant, word, _) in &coded {
        let told = |line: &String| {
            let at = format!("LogEvent::{variant}");
            let here = !line.contains("src/units/");
            here && line.split(&at).skip(1).any(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        };
        assert!(lines.iter().any(told), "nothing tells of {word}");
    }
}

#[test]
fn what_is_no_test_is_found_out() {
    let here = "documents::what_is_no_test_is_found_out";
    assert_eq!(find(here), Found::Test);
    assert_eq!(find("documents::read"), Found::Nothing);
    assert_eq!(find("documents::nothing"), Found::Nothing);
    assert_eq!(find("nowhere::at_all"), Found::Nothing);
    assert_eq!(find("repair::how_long_repairs_take"), Found::Ignored);
    assert_eq!(find("life_cycle::grants_end_on_time_with_nobody_alive_after_kill_9"), Found::Test);
    assert_eq!(names(&format!("a `b` `{here}` c")), [(here, " c")]);
    assert_eq!(names("`Type::of` `a::b c` `a/b::c_d`"), [("a/b::c_d", "")]);
}

#[test]
fn no_source_passes_anything_through_a_shell() {
    let found = lines_of_the_program(|code| {
        ["\"sh\"", "\"bash\"", "\"/bin/sh\"", "\"-c\"", "libc::system"]
            .iter()
            .any(|shell| code.contains(shell))
    });
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_source_names_a_folder_that_all_may_write() {
    let shared = ["\"/tmp", "\"/var/tmp", "\"/dev/shm", "temp_dir()"];
    // A template, whose end the system makes up when it makes the folder, for its owner alone.
    let template = "\"X\".repeat(6)";
    let found =
        lines_of_the_program(|code| shared.iter().any(|f| code.contains(f)) && !code.contains(template));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a document")
}

/// The names of tests in a text, as `file::function` in backticks, each with what stands behind it.
fn names(text: &str) -> Vec<(&str, &str)> {
    let mut pieces = text.split('`').peekable();
    let mut out = Vec::new();
    let _before = pieces.next();
    while let Some(code) = pieces.next() {
        let behind = pieces.next().unwrap_or_default();
        let plain = |part: &str| {
            !part.is_empty()
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_/".contains(c))
        };
        if code.split_once("::").is_some_and(|(file, function)| plain(file) && plain(function)) {
            out.push((code, behind));
        }
    }
    out
}

fn find(name: &str) -> Found {
    let (file, function) = name.split_once("::").expect("a name of a test");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = ["integration/scenarios", "integration", "src"]
        .iter()
        .find_map(|folder| fs::read_to_string(root.join(folder).join(format!("{file}.rs"))).ok());
    let Some(text) = text else { return Found::Nothing };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = [format!("fn {function}("), format!("async fn {function}(")];
    let Some(at) = lines.iter().position(|line| declared.iter().any(|start| line.starts_with(start))) else {
        return Found::Nothing;
    };
    let attributes: Vec<&&str> =
        lines.iter().take(at).rev().take_while(|line| line.starts_with("#[")).collect();
    if attributes.iter().any(|line| line.starts_with("#[ignore")) {
        return Found::Ignored;
    }
    let is_test = attributes.iter().any(|line| ["#[test]", "#[tokio::test]"].contains(*line));
    if is_test || made_a_test(&lines, function) { Found::Test } else { Found::Nothing }
}

/// Whether a macro is given the function to make tests of.
fn made_a_test(lines: &[&str], function: &str) -> bool {
    let mut inside = false;
    for line in lines {
        inside |= MAKERS.iter().any(|maker| line.starts_with(maker));
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        if inside && words.any(|word| word == function) {
            return true;
        }
        inside &= !line.ends_with('}');
    }
    false
}

/// `path:line: text` of the program's lines that have something in them, tests left out.
fn lines_of_the_program(has: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let name = file.to_string_lossy();
        if name.contains("tests") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a readable source file");
        let program = text.split("\nmod tests {").next().unwrap_or_default();
        for (number, line) in program.lines().enumerate() {
            if has(line.split("//").next().unwrap_or_default()) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.len() < 100, "the scan finds everything");
    found
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
