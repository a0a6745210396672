//! Flowtables: once a connection is in one, no chain sees its packets any more, and it outlives its grant.

use std::collections::BTreeMap;

use super::Trip;
use super::finding::{Finding, Severity};
use super::host::TableRef;
use super::journey::{Journey, Meeting};
use super::machine::{Deed, Place};
use super::situation::Situation;
use crate::config::Established;
use crate::ruleset::layout::Layout;
use crate::ruleset::remedy::{Program, mark_matcher, program_of};

/// Judges every flowtable that granted connections would get into.
#[must_use]
pub(super) fn flowtables(layout: &Layout<'_>, situation: &Situation, trips: &[Trip]) -> Vec<Finding> {
    let mut found: BTreeMap<(TableRef, String), (Place, String, Vec<String>)> = BTreeMap::new();
    for Trip { journey, met } in trips {
        if keeps(layout, journey) {
            continue;
        }
        for meeting in met {
            for (deed, place, _) in &meeting.passage.deeds {
                let Deed::FlowAdd(name) = deed else { continue };
                if !takes(situation, meeting, name, journey) {
                    continue;
                }
                let key = (meeting.table.clone(), name.clone());
                let entry =
                    found.entry(key).or_insert_with(|| (place.clone(), meeting.chain.clone(), Vec::new()));
                if !entry.2.contains(&journey.what) {
                    entry.2.push(journey.what.clone());
                }
            }
        }
    }
    found
        .iter()
        .map(|((table, name), (place, chain, apps))| Finding {
            severity: Severity::Warning,
            code: "flowtable",
            message: format!(
                "flowtable {name} of table {table} takes connections of {} past all chains: they stay open after their grant has ended, until they are idle",
                apps.join(", ")
            ),
            fix: fix(layout, situation, table, name, place, chain),
        })
        .collect()
}

/// Connections that may outlive their grant anyway.
fn keeps(layout: &Layout<'_>, journey: &Journey) -> bool {
    layout
        .settings
        .apps
        .iter()
        .any(|app| app.name.as_str() == journey.what && app.established == Established::Keep)
}

/// Whether the flowtable takes packets of the outside interface at all.
fn takes(situation: &Situation, meeting: &Meeting, name: &str, journey: &Journey) -> bool {
    let interfaces = [journey.packet.iif.as_ref(), journey.packet.oif.as_ref()];
    situation
        .host
        .flowtables
        .iter()
        .filter(|flowtable| flowtable.table == meeting.table && flowtable.name == name)
        .any(|flowtable| {
            interfaces.iter().flatten().any(|interface| flowtable.devices.contains(&interface.name))
        })
}

fn fix(
    layout: &Layout<'_>,
    situation: &Situation,
    table: &TableRef,
    name: &str,
    place: &Place,
    base: &str,
) -> String {
    match (program_of(&situation.host, table, base), layout.settings.global.mark) {
        // Its rule comes before everything that can be added.
        (Program::Fw4, _) => {
            "uci set firewall.@defaults[0].flow_offloading=0\nuci commit firewall\nfw4 reload".to_owned()
        }
        (Program::Vyos14, _) => format!(
            "configure\n# where state-policy sends connections there:\ndelete firewall global-options state-policy offload\n# where rules with action offload do: put a rule that accepts our mark before them\ncommit\nsave\n# ({name})"
        ),
        (_, Some(mark)) => {
            let verdict = if place.chain == base { "accept" } else { "return" };
            format!("nft insert rule {table} {} {} {verdict}", place.chain, mark_matcher(mark))
        }
        (_, None) => {
            format!("# set global.mark and accept it in {base} before the rule that adds to flowtable {name}")
        }
    }
}
