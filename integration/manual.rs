//! What the documentation says, held to what is there: links, lists of keys and flags, blocks that no test runs.

#![expect(clippy::expect_used, reason = "a test stops at the first thing that is not as it should be")]

#[path = "pages/markdown.rs"]
#[allow(dead_code, reason = "what follows pages is elsewhere")]
mod markdown;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use markdown::Task;

/// Pages that a test follows; their blocks are executed.
const FOLLOWED: &str = "integration/scenarios/recipes.rs";
/// Folders with pages of which every block must say what is done with it.
const EXECUTED: &[&str] = &[
    "README.md",
    "docs/quick-start.md",
    "docs/recipes",
    "docs/migration",
    "docs/operations.md",
    "docs/install-by-hand.md",
    "docs/requests.md",
    "docs/troubleshooting.md",
    "docs/client.md",
    "docs/sequences.md",
    "docs/proxy.md",
    "docs/containers.md",
    "docs/vyos.md",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every Markdown file below a folder or of that name.
fn pages(at: &Path) -> Vec<PathBuf> {
    if at.is_file() {
        return vec![at.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(at).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() || path.extension().is_some_and(|e| e == "md") {
            found.extend(pages(&path));
        }
    }
    found.sort();
    found
}

fn every_page() -> Vec<PathBuf> {
    let mut all = pages(&root().join("docs"));
    all.extend(
        ["README.md", "CHANGELOG.md", "SECURITY.md", "nft-templates/README.md"].map(|f| root().join(f)),
    );
    all
}

fn shown_path(path: &Path) -> String {
    path.strip_prefix(root()).expect("a file of the project").display().to_string()
}

/// The text without what stands in fenced blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            !inside && !fence
        })
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Targets of links `[...](target)`, also over a line break, and not of what is in backticks.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let plain: String = prose.split('`').step_by(2).collect();
    plain.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_owned).collect()
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for heading in prose(text).lines().filter(|line| line.starts_with('#')) {
        let name: String = heading
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let free = (0..).map(|n| if n == 0 { name.clone() } else { format!("{name}-{n}") });
        found.extend(free.into_iter().find(|name| !found.contains(name)));
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in every_page() {
        let text = read(&page);
        for link in links(&text) {
            count += 1;
            if link.starts_with("https://") || link.starts_with("http://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let there = target.exists()
                && (anchor.is_empty() || target.is_file() && anchors(&read(&target)).contains(anchor));
            if !there {
                wrong.push(format!("{}: {link}", shown_path(&page)));
            }
        }
    }
    assert!(count > 200, "only {count} links were found");
    assert!(wrong.is_empty(), "{} dead links:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn links_and_anchors_are_found() {
    assert_eq!(links("[a](b.md#c) `[no](x)`\n```\n[no](y)\n```\n[two\nlines](z)"), ["b.md#c", "z"]);
    let found = anchors("# A *b* `c-d`, e\n## Same\n```\n# none\n```\n## Same\n");
    assert_eq!(found, ["a-b-c-d-e", "same", "same-1"].map(str::to_owned).into());
}

#[test]
fn the_book_has_every_page() {
    let summary = read(&root().join("docs/SUMMARY.md"));
    let listed: BTreeSet<String> = links(&summary).into_iter().collect();
    let there: BTreeSet<String> = pages(&root().join("docs"))
        .iter()
        .map(|page| page.strip_prefix(root().join("docs")).expect("below docs").display().to_string())
        .filter(|page| page != "SUMMARY.md")
        .collect();
    let missing: Vec<_> = there.difference(&listed).collect();
    assert!(missing.is_empty(), "not in docs/SUMMARY.md: {missing:?}");
    let gone: Vec<_> = listed.difference(&there).collect();
    assert!(gone.is_empty(), "in docs/SUMMARY.md, and no page: {gone:?}");
    assert_eq!(links(&summary).len(), listed.len(), "a page is in docs/SUMMARY.md twice");
}

/// The book is what is below `docs`; a README of a folder keeps its name, as book.toml wants it.
#[test]
fn no_link_leads_out_of_the_book() {
    assert!(read(&root().join("book.toml")).contains("\nuse-default-preprocessors = false\n"));
    let docs = root().join("docs");
    let mut wrong = Vec::new();
    for page in pages(&docs) {
        let depth = page.strip_prefix(&docs).expect("below docs").components().count() - 1;
        for link in links(&read(&page)) {
            let up = link.split('/').filter(|part| *part == "..").count();
            let file = link.split('#').next().unwrap_or_default();
            let shown = file.is_empty() || file.ends_with(".md") || link.contains("://");
            if up > depth || !shown {
                wrong.push(format!("{}: {link}", shown_path(&page)));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "these are not in the book; write what they name in backticks:\n{}",
        wrong.join("\n")
    );
}

/// Where a page or an example shows a key or a path of a step, it is one that the program refuses.
#[test]
fn every_secret_that_is_shown_is_refused() {
    let examples = ["config/config.yaml", "config/profile.yaml"].map(|file| root().join(file));
    let (mut count, mut wrong) = (0, Vec::new());
    for page in every_page().into_iter().chain(examples) {
        for line in read(&page).lines() {
            let line = line.trim_start_matches(['#', ' ', ':']);
            let Some((name, value)) = line.split_once(": ") else { continue };
            let value = value.split(" #").next().unwrap_or_default().trim_matches(['[', ']', ' ', '"', '\'']);
            let secret = match name {
                "access_key_http" | "access_key_https" => value,
                "http_post_path" | "https_post_path" => value.trim_start_matches('/'),
                _ => continue,
            };
            // Made where it is typed, stored without telling it, or somewhere else.
            if secret.contains('$') || secret.starts_with('{') || secret == "prompt" {
                continue;
            }
            count += 1;
            let shipped = name.ends_with("_path") && secret.contains("SECRET");
            if !shipped && !knock_agent::units::is_placeholder(secret) {
                wrong.push(format!("{}: {line}", shown_path(&page)));
            }
        }
    }
    assert!(count > 50, "only {count} secrets were found");
    assert!(wrong.is_empty(), "anybody could copy these and be let in:\n{}", wrong.join("\n"));
}

#[test]
fn pages_that_are_followed_say_of_each_block_what_is_done_with_it() {
    let followed = read(&root().join(FOLLOWED));
    for page in EXECUTED.iter().flat_map(|at| pages(&root().join(at))) {
        let name = shown_path(&page);
        markdown::steps(&read(&page)).unwrap_or_else(|mistake| panic!("{name}: {mistake}"));
        let stem = page.file_stem().expect("a name").to_string_lossy().into_owned();
        let index = name == "docs/recipes/README.md";
        assert!(
            index || followed.contains(&format!("\"{stem}\"")) || followed.contains(&name),
            "nobody follows {name}"
        );
    }
}

/// Info strings are not shown: who reads a page as it is rendered learns from the prose where a file goes.
#[test]
fn a_file_that_is_to_be_written_is_named_in_the_paragraph_before_it() {
    let (mut count, mut wrong) = (0, Vec::new());
    for page in EXECUTED.iter().flat_map(|at| pages(&root().join(at))) {
        let text = read(&page);
        let lines: Vec<&str> = text.lines().collect();
        for block in markdown::blocks(&text).expect("a page that can be read") {
            let Task::File { path, .. } = &block.task else { continue };
            count += 1;
            let before = lines.get(..block.line - 1).unwrap_or_default();
            let blank = |line: &&&str| line.trim().is_empty();
            let paragraph: Vec<&str> =
                before.iter().rev().skip_while(blank).take_while(|line| !blank(line)).copied().collect();
            if !paragraph.iter().any(|line| line.contains(&format!("`{path}`"))) {
                wrong.push(format!("{}, line {}: {path}", shown_path(&page), block.line));
            }
        }
    }
    assert!(count > 15, "only {count} files were found");
    assert!(wrong.is_empty(), "where these go is not told:\n{}", wrong.join("\n"));
}

/// Blocks that no test can run, and why; each new one is a decision.
#[test]
fn the_blocks_that_no_test_runs_are_these() {
    let mut found = Vec::new();
    for page in EXECUTED.iter().flat_map(|at| pages(&root().join(at))) {
        let blocks = markdown::blocks(&read(&page)).expect("a page that can be read");
        found.extend(blocks.iter().filter_map(|block| match &block.task {
            Task::NotRun(reason) => Some(format!("{}: {reason}", shown_path(&page))),
            _ => None,
        }));
    }
    let expected: Vec<String> = NOT_RUN.iter().map(|(page, why)| format!("{page}: {why}")).collect();
    assert_eq!(found, expected);
}

const VYOS: &str = "it is for a router with VyOS; tests run these scripts below a folder, and the rules beside tables like VyOS's";

const NOT_RUN: &[(&str, &str)] = &[
    ("README.md", "they build for minutes; tests run the demo, and are the tests"),
    ("README.md", "it builds for minutes; a test of its own makes the package and installs it"),
    ("docs/quick-start.md", "it builds for minutes; a test of its own makes the package and installs it"),
    (
        "docs/recipes/docker-published-port.md",
        "the tests have a container of their own, behind the rules that Docker makes",
    ),
    ("docs/recipes/openwrt.md", "uci is OpenWrt's"),
    ("docs/recipes/rdp-behind-a-router.md", "it opens a window"),
    ("docs/operations.md", "certbot asks an authority on the Internet"),
    ("docs/operations.md", "acme.sh asks an authority on the Internet"),
    ("docs/operations.md", "lego asks an authority on the Internet"),
    ("docs/install-by-hand.md", "it builds for minutes; the tests begin with a program that is built"),
    ("docs/install-by-hand.md", "it asks at a terminal; a test of its own does that"),
    ("docs/requests.md", "it asks for a key and a code at the terminal; a test of its own does that"),
    ("docs/client.md", "it builds for minutes; the tests begin with a program that is built"),
    ("docs/client.md", "it needs the keyring of a desktop"),
    ("docs/client.md", "security is macOS's"),
    ("docs/sequences.md", "it asks for a PIN at the terminal; the recipe makes a client without one"),
    ("docs/sequences.md", "they ask for a PIN or a code at the terminal; tests of their own do that"),
    ("docs/containers.md", "Docker fetches the two images that this one is made from on the Internet"),
    ("docs/vyos.md", "it builds for minutes; the tests begin with a program that is built"),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
    ("docs/vyos.md", VYOS),
];

/// What stands in backticks in the first column of a page's tables.
fn first_cells(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for row in text.lines().map(str::trim).filter(|line| line.starts_with("| `")) {
        let cell = row.trim_start_matches('|').split('|').next().unwrap_or_default();
        found.extend(cell.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches(':').to_owned()));
    }
    found
}

/// Keys that the source of the configuration names, `"key"` in its lists of known ones.
fn known_keys(file: &str, list: &str) -> Vec<String> {
    let text = read(&root().join(file));
    let at = text.find(&format!("{list}: &[&str]")).unwrap_or_else(|| panic!("no {list} in {file}"));
    let list = text.get(at..).unwrap_or_default().split(';').next().unwrap_or_default();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_of_the_configuration_is_documented_and_no_other() {
    let text = ["docs/configuration.md", "docs/sequences.md", "docs/client.md"]
        .map(|page| read(&root().join(page)))
        .concat();
    let page = first_cells(&text);
    let mut wrong = Vec::new();
    let mut known = BTreeSet::new();
    for (file, list) in KEYS {
        for key in known_keys(file, list) {
            if !page.iter().any(|cell| *cell == key || cell.ends_with(&format!(".{key}"))) {
                wrong.push(format!("`{key}` ({file}) is in no table"));
            }
            known.insert(key);
        }
    }
    assert!(known.len() > 60, "only {} keys were found", known.len());
    for cell in first_cells(&read(&root().join("docs/configuration.md"))) {
        if !known.contains(cell.rsplit('.').next().unwrap_or_default()) {
            wrong.push(format!("docs/configuration.md: the program knows no `{cell}`"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const KEYS: &[(&str, &str)] = &[
    ("src/config/global.rs", "KEYS"),
    ("src/config/app.rs", "KEYS"),
    ("src/config/keys.rs", "KEYS"),
    ("src/config/notify.rs", "EXEC"),
    ("src/config/notify.rs", "WEBHOOK"),
    ("src/config/notify.rs", "MAIL"),
    ("src/config/user.rs", "KEYS"),
    ("src/config/user.rs", "TOTP_KEYS"),
    ("src/config/sequence.rs", "KEYS"),
    ("src/config/time_sequence.rs", "KEYS"),
    ("src/config/sequence_client.rs", "KEYS"),
    ("src/config/profile.rs", "KEYS"),
];

fn help(verb: &[&str]) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_knock-agent"))
        .args(verb)
        .arg("--help")
        .env("COLUMNS", "200")
        .output()
        .expect("the program");
    assert!(done.status.success());
    String::from_utf8(done.stdout).expect("text")
}

/// The long flags that a verb's help describes.
fn flags_of(help: &str) -> BTreeSet<String> {
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| {
            line.split(|c: char| c.is_whitespace() || ",=[:".contains(c)).find(|w| w.starts_with("--"))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_verb_and_flag_is_documented_and_no_other() {
    let text = read(&root().join("docs/command-line.md"));
    let verbs: Vec<String> = help(&[])
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|verb| verb != "help")
        .collect();
    assert!(verbs.len() >= 15, "{verbs:?}");
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    let (mut all, mut wrong) = (BTreeSet::new(), Vec::new());
    for verb in &verbs {
        let titled = |section: &&&str| {
            section.lines().next().is_some_and(|title| title.split('`').any(|word| word == verb))
        };
        let Some(section) = sections.iter().find(titled) else {
            wrong.push(format!("docs/command-line.md has no section `{verb}`"));
            continue;
        };
        let common = section.contains("(#flags-of-run)");
        let shared = sections.iter().find(|s| s.starts_with("Flags of run")).copied().unwrap_or_default();
        let said = format!("{section}{}", if common { shared } else { "" });
        for flag in flags_of(&help(&[verb])) {
            if flag != "--help" && !said.contains(&format!("`{flag}")) {
                wrong.push(format!("`{verb}` has {flag}; its section has not"));
            }
            all.insert(flag);
        }
    }
    for cell in first_cells(&text) {
        let flag = cell.split(|c: char| c.is_whitespace() || "=[".contains(c)).next().unwrap_or_default();
        if flag.starts_with("--") && !all.contains(flag) {
            wrong.push(format!("no verb has {flag}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
