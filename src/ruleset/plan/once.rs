//! Apps whose grants end with the first connection (`once`): what stays open is that connection, known by the client's
//! end of it, which is the same before and after a translation.

use crate::config::App;
use crate::ruleset::expr::Side;
use crate::ruleset::knocking::{LOG_BYTES, LOG_GROUP, LOG_USED};
use crate::ruleset::layout::Layout;
use crate::ruleset::model::{KeyPart, ONCE_SETS, Rule, Set};
use crate::ruleset::rule::RuleText;
use crate::units::{Family, Protocol};

use super::sets::{address, from_packets};

/// What the names of the sets of an app's connections begin with.
fn stem(app: &App) -> String {
    format!("{ONCE_SETS}{}", app.slug)
}

/// The set of an app's connections.
pub(super) fn once_set(app: &App, family: Family) -> String {
    format!("{}_{}", stem(app), family.digit())
}

pub(super) fn sets(layout: &Layout<'_>) -> Vec<Set> {
    let apps = layout.settings.apps.iter().filter(|app| app.once);
    apps.flat_map(|app| {
        Family::BOTH.map(|family| {
            let key = vec![KeyPart::Protocol, address(family), KeyPart::Port];
            from_packets(&stem(app), key, family)
        })
    })
    .collect()
}

/// What lets in, by what `begin` begins with: the connections there are and, where first packets are met, what makes
/// a grant into one.
pub(super) fn clients(
    layout: &Layout<'_>,
    app: &App,
    protocol: Protocol,
    side: Side,
    first: bool,
    begin: impl Fn() -> RuleText,
    finish: impl Fn(RuleText, &str) -> Rule,
) -> Vec<Rule> {
    let what = format!("once:{}", app.slug);
    let mut rules: Vec<Rule> = app
        .families()
        .iter()
        .map(|&family| finish(begin().end_in(family, side, &once_set(app, family)), &what))
        .collect();
    if !first {
        return rules;
    }
    let own = format!("app_{}", app.slug);
    let mut kinds = vec![(own, app.families())];
    kinds.extend(layout.knocking.of_app(app).map(|grants| (grants.stem.clone(), grants.families)));
    for (stem, families) in &kinds {
        for &family in *families {
            let here = kinds.iter().filter(|(_, families)| families.contains(&family));
            let all: Vec<&str> = here.map(|(stem, _)| stem.as_str()).collect();
            let begin = match protocol {
                // What is left of a connection of before begins nothing.
                Protocol::Tcp => begin().beginning(),
                Protocol::Udp => begin(),
            };
            rules.push(finish(used_up(layout, app, family, (stem, &all), begin), &what));
        }
    }
    rules
}

/// Ends the grant, with every other one that the client has for the app, and keeps the connection for as long as a
/// grant lasts.
fn used_up(
    layout: &Layout<'_>,
    app: &App,
    family: Family,
    (stem, all): (&str, &[&str]),
    begin: RuleText,
) -> RuleText {
    let prefix = layout.settings.global.ipv6_prefix;
    let set = |stem: &str| format!("{stem}_{}", family.digit());
    let mut text = begin.addr_in(family, Side::Source, prefix, &set(stem)).update_end_here(
        family,
        &once_set(app, family),
        app.duration.as_secs() * 1_000,
    );
    for stem in all {
        text = text.forget_source_here(family, prefix, &set(stem));
    }
    if layout.options.log { text.log(&format!("{LOG_USED}{}", app.slug), LOG_GROUP, LOG_BYTES) } else { text }
}
