//! Manual pages of the command line, from its own definition.

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command};

use super::roff::{Page, bold, italic};

/// The program, and the section of its page.
const MAIN: (&str, u8) = ("knock-agent", 8);
/// Verbs of clients, whose pages are in section 1.
const OF_CLIENTS: &[&str] = &["knock", "connect"];
/// Verbs that have exit codes of their own, which their help lists.
const EXIT: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "Something was found, or with `--diff-exit` differs."),
    ("2", "Wrong usage."),
    ("69", "The daemon or the kernel cannot be reached."),
    ("70", "A bug."),
    ("74", "Input or output failed."),
    ("77", "No permission."),
    ("78", "The configuration is wrong."),
];
const FILES: &[(&str, &str)] = &[
    ("/etc/knock-agent/config.yaml", "The configuration, see `knock-agent.yaml`(5)."),
    (
        "/var/lib/knock-agent/",
        "What outlasts a restart: the last good plan, and grants where `state_file` says so.",
    ),
    ("/run/knock-agent/control.sock", "Where the daemon listens to the other verbs."),
];
const FILES_OF_CLIENTS: &[(&str, &str)] =
    &[("~/.config/knock-agent/NAME.yaml", "A profile, see `knock-agent-profile`(5).")];

/// The pages of the program and of each verb: file name and text.
pub(super) fn pages(root: &Command) -> Vec<(String, String)> {
    let mut root = root.clone().disable_help_subcommand(true);
    root.build();
    let mut out = vec![(file(MAIN), main_page(&root))];
    for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        out.push((file(page_of(verb)), verb_page(verb)));
    }
    out
}

fn file((name, section): (impl AsRef<str>, u8)) -> String {
    format!("{}.{section}", name.as_ref())
}

fn page_of(verb: &Command) -> (String, u8) {
    let section = if OF_CLIENTS.contains(&verb.get_name()) { 1 } else { 8 };
    (format!("knock-agent-{}", verb.get_name()), section)
}

fn main_page(root: &Command) -> String {
    let mut page = Page::new(MAIN.0, MAIN.1);
    page.name(MAIN.0, &plain(root.get_about()));
    synopsis(&mut page, root);
    page.heading("description");
    page.lines(&description(root));
    page.heading("verbs");
    for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let (name, section) = page_of(verb);
        page.item(
            &bold(verb.get_name()),
            &[format!("{}. See `{name}`({section}).", plain(verb.get_about()))],
        );
    }
    options(&mut page, root);
    after(&mut page, root, EXIT);
    files(&mut page, FILES.iter().chain(FILES_OF_CLIENTS));
    let mut pages: Vec<(String, u8)> =
        root.get_subcommands().filter(|verb| !verb.is_hide_set()).map(page_of).collect();
    pages.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    let clients = pages.iter().filter(|(_, section)| *section == 1).count();
    let rest = pages.split_off(clients);
    pages.extend([("knock-agent.yaml".to_owned(), 5), ("knock-agent-profile".to_owned(), 5)]);
    pages.extend(rest);
    pages.push(("nft".to_owned(), 8));
    page.see_also(&pages);
    page.finish()
}

fn verb_page(verb: &Command) -> String {
    let (name, section) = page_of(verb);
    let mut page = Page::new(&name, section);
    page.name(&name, &plain(verb.get_about()));
    synopsis(&mut page, verb);
    page.heading("description");
    page.lines(&description(verb));
    options(&mut page, verb);
    after(&mut page, verb, EXIT);
    files(&mut page, if section == 1 { FILES_OF_CLIENTS.iter() } else { FILES.iter() });
    let manual = if section == 1 { "knock-agent-profile" } else { "knock-agent.yaml" };
    page.see_also(&[(manual.to_owned(), 5), (MAIN.0.to_owned(), MAIN.1)]);
    page.finish()
}

fn plain(text: Option<&StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

fn description(command: &Command) -> String {
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    // The first paragraph is the short form.
    match long.split_once("\n\n") {
        Some((_, rest)) => rest.to_owned(),
        None => format!("{}.", plain(command.get_about())),
    }
}

fn synopsis(page: &mut Page, command: &Command) {
    page.heading("synopsis");
    let usage = command.clone().render_usage().to_string();
    let lines: Vec<&str> = usage.lines().map(|line| line.trim_start_matches("Usage:").trim()).collect();
    page.rows(&lines);
}

/// Arguments first, then the flags under their headings.
fn options(page: &mut Page, command: &Command) {
    let shown: Vec<&Arg> = command.get_arguments().filter(|arg| !arg.is_hide_set()).collect();
    let positionals: Vec<&&Arg> = shown.iter().filter(|arg| arg.is_positional()).collect();
    if !positionals.is_empty() {
        page.heading("arguments");
        for arg in positionals {
            page.item(&italic(&values(arg)), &meaning(arg));
        }
    }
    let flags: Vec<&&Arg> = shown.iter().filter(|arg| !arg.is_positional()).collect();
    page.heading("options");
    let mut headings: Vec<Option<&str>> = Vec::new();
    for flag in &flags {
        if !headings.contains(&flag.get_help_heading()) {
            headings.push(flag.get_help_heading());
        }
    }
    // Those without a heading come first, whatever their order.
    headings.sort_by_key(Option::is_some);
    for heading in headings {
        if let Some(title) = heading {
            page.subheading(title);
        }
        for flag in flags.iter().filter(|flag| flag.get_help_heading() == heading) {
            page.item(&flag_words(flag), &meaning(flag));
        }
    }
}

fn flag_words(arg: &Arg) -> String {
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|short| bold(&format!("-{short}"))));
    names.extend(arg.get_long().map(|long| bold(&format!("--{long}"))));
    let mut out = names.join(", ");
    if matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
        let value = italic(&values(arg));
        out.push_str(&if optional { format!("[={value}]") } else { format!(" {value}") });
    }
    out
}

fn values(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let mut out = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    if arg.get_num_args().is_some_and(|range| range.max_values() > names.len().max(1)) {
        out.push_str("...");
    }
    out
}

fn meaning(arg: &Arg) -> Vec<String> {
    let mut out = vec![format!("{}.", plain(arg.get_long_help().or_else(|| arg.get_help())))];
    let words: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|word| !word.is_hide_set() && arg.get_action().takes_values())
        .map(|word| match word.get_help() {
            Some(help) => format!("`{}`: {help}.", word.get_name()),
            None => format!("`{}`", word.get_name()),
        })
        .collect();
    if words.iter().all(|word| !word.contains(": ")) && !words.is_empty() {
        out.push(format!("One of {}.", words.join(", ")));
    } else {
        out.extend(words);
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        out.push(format!("Unless given: {}.", defaults.join(" ")));
    }
    out
}

/// What the help says below the flags: remarks, examples, and exit codes, which are the usual ones unless it lists them.
fn after(page: &mut Page, command: &Command, usual: &[(&str, &str)]) {
    let text = plain(command.get_after_help());
    let parts: Vec<&str> = text.split("\n\n").filter(|part| !part.trim().is_empty()).collect();
    let examples = |part: &&str| part.starts_with("Example");
    let codes = |part: &&str| part.starts_with("Exit codes:");
    let notes: Vec<&str> = parts.iter().copied().filter(|part| !examples(part) && !codes(part)).collect();
    if !notes.is_empty() {
        page.heading("notes");
        for note in notes {
            block(page, note);
        }
    }
    page.heading("exit status");
    let own = parts.iter().copied().find(codes).filter(|_| command.get_name() != MAIN.0);
    match own {
        Some(part) => block(page, part.trim_start_matches("Exit codes:").trim_start_matches('\n')),
        None => {
            for (code, what) in usual {
                page.item(&bold(code), &[(*what).to_owned()]);
            }
        }
    }
    for part in parts.iter().copied().filter(examples) {
        page.heading("examples");
        let lines: Vec<&str> =
            part.lines().skip(1).map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
        page.literal(&lines);
    }
}

/// A part of a help text: lines that are indented stay as they are.
fn block(page: &mut Page, part: &str) {
    let lines: Vec<&str> = part.lines().collect();
    for run in lines.chunk_by(|a, b| a.starts_with(' ') == b.starts_with(' ')) {
        match run.first() {
            Some(first) if first.starts_with(' ') => page.literal(run),
            Some(_) => run.iter().for_each(|line| page.paragraph(line)),
            None => {}
        }
    }
}

fn files<'f>(page: &mut Page, files: impl Iterator<Item = &'f (&'static str, &'static str)>) {
    page.heading("files");
    for (path, what) in files {
        page.item(&italic(path), &[(*what).to_owned()]);
    }
}
