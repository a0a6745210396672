//! What a state file kept, put into the kernel again.

use std::collections::BTreeMap;

use super::allowed::Allowed;
use super::clients_gone::may_knock;
use super::operations::{OperationError, Operations};
use super::state::{Rest, ms};
use crate::grant::{How, Note};
use crate::ruleset::allow::address_key;
use crate::ruleset::diff::{Change, SetRef};
use crate::ruleset::model::{Element, Elements};
use crate::units::{ClientAddr, Now};

/// Allows the networks again; those of apps that are no more are nobody's.
pub(super) fn networks(
    operations: &mut Operations,
    networks: Vec<Allowed>,
    now: Now,
) -> Result<usize, OperationError> {
    let before = operations.allowed.len();
    for network in networks {
        let slugs = operations.settings().apps.iter().map(|app| app.slug.as_str());
        if network.app.as_deref().is_none_or(|app| slugs.into_iter().any(|slug| slug == app)) {
            operations.remember(network);
        }
    }
    let more = operations.allowed.len().saturating_sub(before);
    if more > 0 {
        operations.sync_allowed(now)?;
    }
    Ok(more)
}

/// Puts the rest of grants into the kernel, in one transaction, where it has not got longer ones.
pub(super) fn grants(
    operations: &mut Operations,
    rest: Vec<Rest>,
    now: Now,
) -> Result<usize, OperationError> {
    let live = operations.live()?;
    let prefix = operations.settings().global.ipv6_prefix;
    let kinds = operations.grant_sets();
    let mut sets: BTreeMap<String, Elements> = BTreeMap::new();
    for Rest { app, address, note, mut timeout } in rest {
        let Some(grants) = kinds.iter().find(|kind| kind.key == app) else { continue };
        let known = operations.settings().apps.iter().find(|has| has.slug == grants.slug);
        let Some(app) = known else { continue };
        let client = ClientAddr::new(address);
        // Where the prefix was changed, the grant would be for other clients than it was.
        if !app.families().contains(&client.family()) || client.masked_v6(prefix).ip() != address {
            continue;
        }
        let of = Note::parse(Some(&note));
        // Nobody else could tell that a client went while no daemon ran: what it had opened was noted in `/run` only.
        if of.how == How::Sequence && !may_knock(operations.settings(), &app.slug, &of.by, now) {
            continue;
        }
        if of.how != How::Operator {
            timeout.left_ms = timeout.left_ms.min(ms(app.max_duration.as_duration()));
        }
        let (set, key) = (grants.set(client.family()), address_key(address));
        let have = live.elements.get(&set).and_then(|elements| elements.get(&key));
        if have.is_none_or(|have| have.timeout.is_some_and(|have| have.left_ms < timeout.left_ms)) {
            let element = Element { timeout: Some(timeout), comment: Some(note), ..Element::default() };
            sets.entry(set).or_default().insert(key, element);
        }
    }
    let count = sets.values().map(BTreeMap::len).sum();
    let changes: Vec<Change> = sets
        .into_iter()
        .map(|(name, elements)| Change::RenewElements { set: SetRef::plain(name), elements })
        .collect();
    if !changes.is_empty() {
        operations.firewall().apply(&changes)?;
        let live = operations.live()?;
        operations.adopt_grants(&live, now);
    }
    Ok(count)
}
