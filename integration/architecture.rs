//! The shape of the source, held by a test: layers, file sizes, where `unsafe` and printing may be.

#![expect(clippy::expect_used, reason = "a test stops at the first thing that is not as it should be")]

use std::fs;
use std::path::{Path, PathBuf};

/// The top-level modules, lowest layer first; each may name itself and those before it.
const LAYERS: &[&str] =
    &["units", "config", "knock", "grant", "ruleset", "sys", "client", "backend", "service", "cli"];

/// All that the client may name: it is built where there is neither netlink nor a firewall.
const CLIENT_MAY: &[&str] = &["units", "config", "knock", "sys", "client"];

const MAX_LINES: usize = 500;

/// Macros that write to standard output or error.
const PRINTING: &[&str] = &["println!", "print!", "eprintln!", "eprint!"];

#[test]
fn every_file_keeps_to_its_layer_size_and_duties() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = rust_files(&root.join("src"));
    assert!(files.iter().any(|f| f.ends_with("src/lib.rs")), "the scan found the source");
    let mut broken = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).expect("a readable source file");
        let inside = file.strip_prefix(root).expect("a path under the project");
        broken.extend(judge(&inside.to_string_lossy(), &text));
    }
    assert!(broken.is_empty(), "{} broken rules:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn the_list_of_layers_is_that_of_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(&root).expect("a source folder").flatten() {
        let path = entry.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let known = LAYERS.contains(&name.as_str()) || ["lib", "main"].contains(&name.as_str());
        assert!(known, "{}: not a layer of integration/architecture.rs", path.display());
    }
    let text = fs::read_to_string(root.join("lib.rs")).expect("lib.rs");
    let listed: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("//! - [`")?.split('`').next()).collect();
    assert_eq!(listed, LAYERS, "the layers as src/lib.rs documents them");
}

#[test]
fn what_breaks_a_rule_is_found() {
    let found = |path: &str, text: &str| judge(path, text).into_iter().collect::<Vec<_>>().join("\n");

    assert!(found("src/units/port.rs", "use crate::knock::Verdict;").starts_with("src/units/port.rs:1: "));
    assert!(found("src/units/port.rs", "use crate::{\n    units::A,\n    cli::B,\n};").contains("cli"));
    assert!(found("src/client/mod.rs", "use crate::grant::Ledger;").contains("not built with it"));
    assert!(found("src/client/mod.rs", "use crate::backend::Backend;").contains("not built with it"));
    assert!(found("src/service/mod.rs", "use crate::client::Client;").contains("does without"));
    assert_eq!(found("src/client/mod.rs", "use crate::knock::Proof;\nuse crate::sys::random;"), "");
    assert!(found("src/knock/mod.rs", "let a = unsafe { b() };").contains("unsafe"));
    assert!(
        found("src/service/mod.rs", "fn a() {\n    eprintln!(\"b\");\n}")
            .starts_with("src/service/mod.rs:2: ")
    );
    assert!(found("src/cli/run.rs", &"\n".repeat(MAX_LINES + 1)).contains("lines"));
    assert_eq!(found("src/cli/run.rs", "use crate::service::Daemon;\nprintln!(\"a\");"), "");
    assert_eq!(found("src/sys/netlink.rs", "// SAFETY: b\nunsafe { b() }"), "");
    assert_eq!(found("src/units/port.rs", "//! unlike crate::cli, `unsafe` or println!("), "");
}

/// Every rule that a file breaks, as `path:line: reason`.
fn judge(path: &str, text: &str) -> Vec<String> {
    let layer = layer_of(path);
    let mut broken = Vec::new();
    let count = text.lines().count();
    if count > MAX_LINES {
        broken.push(format!("{path}:{count}: {count} lines, {MAX_LINES} at most: split it"));
    }
    // `use crate::{...}` may go over several lines; names on them count as `crate::<name>` does.
    let mut group = false;
    for (number, line) in text.lines().enumerate() {
        let at = format!("{path}:{}", number + 1);
        let code = line.split("//").next().unwrap_or_default();
        for name in names_of_crate(code, &mut group) {
            broken.extend(overreach(layer, name).map(|reason| format!("{at}: {reason}")));
        }
        if layer != Some("sys") && words(code).any(|word| word == "unsafe") {
            broken.push(format!("{at}: `unsafe` belongs in src/sys"));
        }
        let prints = PRINTING.iter().any(|name| code.split_whitespace().any(|word| word.starts_with(name)));
        if prints && layer != Some("cli") && path != "src/main.rs" {
            broken.push(format!("{at}: only src/cli and src/main.rs print"));
        }
    }
    broken
}

/// Why a module of this layer may not name that one; files outside any layer may name all.
fn overreach(layer: Option<&str>, name: &str) -> Option<String> {
    let layer = layer?;
    if !LAYERS.contains(&name) {
        return None;
    }
    if layer == "client" && !CLIENT_MAY.contains(&name) {
        return Some(format!("`client` may not name `{name}`, which is not built with it"));
    }
    if name == "client" && !["client", "cli"].contains(&layer) {
        return Some(format!("`{layer}` may not name `client`, which the gateway does without"));
    }
    let height = |of: &str| LAYERS.iter().position(|&l| l == of);
    let named = height(name)?;
    (named > height(layer)?).then(|| format!("`{layer}` may not name `{name}`, a layer above it"))
}

/// The top-level modules that a line names, also inside `use crate::{` groups.
fn names_of_crate<'a>(code: &'a str, group: &mut bool) -> Vec<&'a str> {
    let mut names: Vec<&str> = code.split("crate::").skip(1).filter_map(|rest| words(rest).next()).collect();
    *group |= code.contains("crate::{");
    if *group {
        names.extend(words(code).filter(|word| LAYERS.contains(word)));
        *group = !code.contains(';');
    }
    names
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn layer_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("src/")?.split('/').next()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    LAYERS.contains(&name).then_some(name)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}
