//! The manual pages of the configuration and of profiles, from the tables that the schemas are made from.

use super::roff::{Page, bold};
use crate::config::manual::{CLIENT_PROFILE, CONFIGURATION, Entry, Table};

const EXAMPLE: &str = include_str!("../../../config/config.yaml");
const PROFILE_EXAMPLE: &str = include_str!("../../../config/profile.yaml");

/// `knock-agent.yaml(5)`.
pub(super) fn configuration() -> (String, String) {
    let mut page = Page::new("knock-agent.yaml", 5);
    page.name("knock-agent.yaml", "The configuration of knock-agent");
    page.heading("synopsis");
    page.lines("`/etc/knock-agent/config.yaml`");
    page.heading("description");
    page.lines("YAML: a section `global`, and a section for each app, which is a service that is closed and opens to a knock.");
    page.paragraph("Durations are whole seconds, or a number with a unit: `90s`, `15m`, `24h`, `30d`; at most ten years. Where a list is possible, one value may stand for a list of one. A section may take over the keys of another by `<<`. A key that is not known, a wrong type or a value out of its bounds is an error, which `knock-agent check-config` reports with line, column and what would be right; nothing starts with one.");
    page.paragraph("The file holds secrets: it belongs to root and the group `knock-agent`, mode 0640, or to root alone, mode 0600. A file that others can read is a warning, and an error with `--strict`.");
    page.paragraph("Editors that know JSON Schema complete the keys if the file begins with this line:");
    page.literal(&["# yaml-language-server: $schema=/usr/share/knock-agent/knock-agent.schema.json"]);
    tables(&mut page, CONFIGURATION);
    page.heading("examples");
    page.lines("SSH on this host:");
    page.literal(&[
        "global:",
        "  http_post_path: /replace-this-path-1",
        "  https_post_path: /replace-this-path-2",
        "  interface_ext: eth0",
        "ssh:",
        "  port: 22",
        "  access_key_http: [replace-this-key-1]",
        "  access_key_https: [replace-this-key-2]",
        "  duration: 24h",
    ]);
    page.paragraph("All keys, as they are shipped in `config/config.yaml`:");
    page.literal(&EXAMPLE.lines().collect::<Vec<_>>());
    files(&mut page, "/etc/knock-agent/config.yaml", "The configuration.");
    page.see_also(&others(&[
        ("knock-agent-profile", 5),
        ("knock-agent", 8),
        ("knock-agent-check-config", 8),
    ]));
    ("knock-agent.yaml.5".to_owned(), page.finish())
}

/// `knock-agent-profile(5)`.
pub(super) fn profile() -> (String, String) {
    let mut page = Page::new("knock-agent-profile", 5);
    page.name("knock-agent-profile", "A profile of knock-agent's client");
    page.heading("synopsis");
    page.lines("`~/.config/knock-agent/NAME.yaml`");
    page.heading("description");
    page.lines("YAML: everything that the client must know to knock at one gateway. It holds secrets: a file that others can read or change is refused.");
    tables(&mut page, CLIENT_PROFILE);
    page.heading("examples");
    page.literal(&PROFILE_EXAMPLE.lines().collect::<Vec<_>>());
    files(&mut page, "~/.config/knock-agent/NAME.yaml", "The profile that is called NAME.");
    page.see_also(&others(&[("knock-agent-connect", 1), ("knock-agent-knock", 1), ("knock-agent.yaml", 5)]));
    ("knock-agent-profile.5".to_owned(), page.finish())
}

fn files(page: &mut Page, path: &str, what: &str) {
    page.heading("files");
    page.item(&super::roff::italic(path), &[what.to_owned()]);
}

fn others(pages: &[(&str, u8)]) -> Vec<(String, u8)> {
    pages.iter().map(|(name, section)| ((*name).to_owned(), *section)).collect()
}

/// Sections whose titles are in capitals are headings of their own; the others are below them.
fn tables(page: &mut Page, tables: &[&Table]) {
    for table in tables {
        let own = !table.title.contains(|c: char| c.is_lowercase());
        if own {
            page.heading(table.title);
        } else {
            page.subheading(table.title);
        }
        page.lines(table.about);
        for entry in table.entries {
            key(page, entry);
        }
    }
}

fn key(page: &mut Page, entry: &Entry) {
    let mut facts = format!("Value: {}.", entry.shape.words());
    if entry.needed {
        facts.push_str(" Needed.");
    }
    if let Some(default) = entry.default {
        facts.push_str(&format!(" Unless given: `{default}`."));
    }
    page.item(&bold(entry.key), &[entry.meaning.to_owned(), facts]);
}
