//! Apps whose grants end with the first connection.

use std::fmt::Write;

use super::render::Renderer;
use super::template::{TemplateError, fill};
use crate::config::App;
use crate::ruleset::knocking::LOG_USED;
use crate::units::{Family, Protocol};

const SETS: &str = include_str!("../../../nft-templates/once-sets.nft");

impl Renderer<'_> {
    pub(super) fn once_sets(&self) -> Result<String, TemplateError> {
        let apps = self.settings().apps.iter().filter(|app| app.once);
        apps.map(|app| fill(SETS, &[("slug", &app.slug)])).collect()
    }

    /// The connections there are and, where first packets are met, what makes a grant into one.
    pub(super) fn once_rules(
        &self,
        begin: &str,
        app: &App,
        families: &[Family],
        (side, first): (&str, Option<Protocol>),
        action: &str,
    ) -> String {
        let slug = &app.slug;
        let port = if side == "saddr" { "sport" } else { "dport" };
        let mut out = String::new();
        for &family in families {
            let (ip, n) = (ip(family), family.digit());
            let _ = writeln!(
                out,
                "\t\t{begin}meta l4proto . {ip} {side} . th {port} @once_{slug}_{n} {action} comment \"ka:once:{slug}\""
            );
        }
        let Some(protocol) = first else { return out };
        let syn = match protocol {
            Protocol::Tcp => "tcp flags & (fin|syn|rst|ack) == syn ",
            Protocol::Udp => "",
        };
        let mut kinds = vec![(format!("app_{slug}"), families)];
        kinds.extend(self.layout.knocking.of_app(app).map(|grants| (grants.stem.clone(), grants.families)));
        for (stem, families) in &kinds {
            for &family in *families {
                let (ip, n) = (ip(family), family.digit());
                let key = format!("{ip} saddr {}", self.v6_mask(family));
                let (secs, log) = (app.duration.as_secs(), self.log(LOG_USED, slug));
                let here = kinds.iter().filter(|(_, families)| families.contains(&family));
                let forget: String =
                    here.map(|(each, _)| format!("delete @{each}_{n} {{ {key}}} ")).collect();
                let _ = writeln!(
                    out,
                    "\t\t{begin}{syn}{key}@{stem}_{n} update @once_{slug}_{n} {{ meta l4proto . {ip} saddr . th sport timeout {secs}s }} {forget}{log}{action} comment \"ka:once:{slug}\""
                );
            }
        }
        out
    }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
