//! Looks who would be locked out, before anything is guarded.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::bare::sets_of_app;
use super::operations::OperationError;
use super::outlasting::Outlasting;
use super::own::OwnAddresses;
use super::status::{Service, services};
use super::taken::OnTrial;
use super::ways_gone::GuardBefore;
use crate::backend::{Firewall, Plan};
use crate::config::{App, Settings};
use crate::ruleset::audit::{Finding, Severity};
use crate::ruleset::diff::{Change, Live, SetRef, diff};
use crate::ruleset::layout::{Layout, Options};
use crate::ruleset::lockout::{self, Endangered, Flow, Interface, Seen, adoption, endangered};
use crate::sys::{clock, flows, interfaces};
use crate::units::{IfName, Now, PortRange, Protocol};

/// Connections that the log names.
const NAMED: usize = 50;

/// What looking came to.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Connections that the rules would cut.
    pub endangered: Endangered<'a>,
    /// Whether connection tracking could be asked: without it, forwarded connections and UDP are not seen.
    pub tracking: bool,
}

/// Looks for connections from outside to ports that are not guarded yet.
///
/// # Errors
/// When the kernel does not tell of its sockets.
pub fn look<'a>(layout: &Layout<'a>, live: Option<&Live>) -> io::Result<Found<'a>> {
    let seen = Seen {
        sockets: flows::sockets()?,
        tracked: flows::tracked_connections().ok(),
        own: interfaces::addresses()?.into_iter().collect(),
        interfaces: interfaces::states()?.into_iter().map(interface).collect(),
    };
    let mut ways = BTreeMap::new();
    let way = |addr: IpAddr| ways.entry(addr).or_insert_with(|| way_towards(addr)).clone();
    Ok(Found { endangered: endangered(layout, live, &seen, way), tracking: seen.tracked.is_some() })
}

fn interface(state: interfaces::InterfaceState) -> Interface {
    Interface { name: state.name, addresses: state.addresses, is_port: state.port_of.is_some() }
}

/// What an operator should know beforehand; nothing where nobody would be locked out. `adopts`: whether the firewall
/// can let connections live on.
#[must_use]
pub fn findings(layout: &Layout<'_>, live: Option<&Live>, adopts: bool) -> Vec<Finding> {
    match look(layout, live) {
        Ok(found) => lockout::findings(&found.endangered, adopts && layout.settings.global.adopt_established),
        Err(error) => vec![Finding {
            severity: Severity::Warning,
            code: "lockout",
            message: format!(
                "open connections cannot be looked at ({error}): who would be locked out is not known"
            ),
            fix: "load the modules that ss needs: modprobe -a tcp_diag inet_diag".to_owned(),
        }],
    }
}

/// What a start found and did.
pub(super) struct Installed {
    /// What is in force.
    pub(super) live: Live,
    /// When that was read.
    pub(super) read_at: Now,
    /// How much had to be changed.
    pub(super) changes: usize,
}

/// What there was when a start was first tried: a try that failed may have changed something.
pub(super) struct Before {
    /// What lives on by the guard of before.
    pub(super) outlasting: Outlasting,
    /// What that guard knew.
    pub(super) guard: GuardBefore,
    /// The addresses that clients turned to.
    pub(super) own: OwnAddresses,
}

/// Puts a plan in force at a start; connections that are open live on, if the settings want that. What there was is noted
/// in `before`, once.
///
/// # Errors
/// [`OperationError`]; what was guarded before still is.
pub(super) fn install(
    firewall: &mut Firewall,
    settings: &Settings,
    options: Options,
    plan: &Plan,
    on_trial: &OnTrial,
    before: &mut Option<Before>,
) -> Result<Installed, OperationError> {
    let (found, read_at) = (firewall.read()?, clock::now());
    before.get_or_insert_with(|| Before {
        outlasting: Outlasting::of_before(found.as_ref(), settings, options),
        guard: GuardBefore::of(found.as_ref()),
        own: {
            let mut own = OwnAddresses::default();
            own.learn(found.as_ref());
            own
        },
    });
    let found = match found {
        // Nobody is going to be locked out; and grants, of which there may be a million, are read once.
        Some(live) if is_in_force(&live, plan) => {
            return Ok(Installed { live, read_at, changes: 0 });
        }
        found => found,
    };
    let mut found = found;
    let moved = found.as_mut().map(|live| end_moved(live, settings)).unwrap_or_default();
    on_trial.takes(&moved, settings, read_at.wall);
    let mut more = adopt(settings, options, found.as_ref());
    // In one change with the rules: where those are refused, nobody has lost anything.
    more.extend(moved.iter().filter_map(|change| emptied(change, plan)));
    let believed = found.map(believed);
    let changes = firewall.install_over(believed.as_ref(), plan, more)?;
    let ended: usize = moved.iter().map(elements_of).sum();
    if ended > 0 {
        tracing::info!(ended, "grants of apps that have other ports now end");
    }
    let live = firewall.read()?.ok_or(OperationError::NoTable)?;
    Ok(Installed { live, read_at: clock::now(), changes })
}

/// The changes that end what was granted for apps that the guard in force has at other ports altogether: it would open ports for
/// which nobody was let in. It is taken out of what was read.
fn end_moved(found: &mut Live, settings: &Settings) -> Vec<Change> {
    let moved = settings.apps.iter().filter(|app| has_moved(&services(found, &app.slug), app));
    let sets: Vec<String> = moved.flat_map(|app| sets_of_app(found, &app.slug)).collect();
    let taken = sets.iter().filter_map(|name| {
        let set = SetRef::from(found.ruleset.set(name)?);
        let elements = found.elements.remove(name).filter(|elements| !elements.is_empty())?;
        Some(Change::DeleteElements { set, elements })
    });
    taken.collect()
}

/// The change that ends all of a set instead, which may be another one of that name by then; none where none is planned.
fn emptied(change: &Change, plan: &Plan) -> Option<Change> {
    let Change::DeleteElements { set, .. } = change else { return None };
    let stays = match plan {
        Plan::Nftables(ruleset) => ruleset.set(&set.name).is_some(),
        Plan::Iptables(_) => true,
    };
    stays.then(|| Change::FlushSet(set.name.clone()))
}

fn elements_of(change: &Change) -> usize {
    match change {
        Change::DeleteElements { elements, .. } => elements.len(),
        _ => 0,
    }
}

/// Whether an app has none of the ports that it had.
pub(super) fn has_moved(had: &[Service], app: &App) -> bool {
    let has = |service: &Service| {
        let of_app = app.protocol.each().iter().any(|protocol| protocol.name() == service.protocol);
        let meets = |ports: &PortRange| ports.first() <= service.last && service.first <= ports.last();
        of_app && app.ports.iter().any(meets)
    };
    !had.is_empty() && !had.iter().any(has)
}

/// What may be taken over; the rest is told.
fn believed(found: Live) -> Live {
    if found.loaded {
        tracing::warn!("the table in force was loaded from a file: nobody is let in by what was saved there");
    }
    found.believed()
}

/// Whether a plan of nftables is in force already.
fn is_in_force(live: &Live, plan: &Plan) -> bool {
    matches!(plan, Plan::Nftables(wanted) if diff(Some(live), wanted).is_empty())
}

/// Logs who would be locked out; the changes that let them live on, if the settings want that.
pub(super) fn adopt(settings: &Settings, options: Options, live: Option<&Live>) -> Vec<Change> {
    let layout = Layout::new(settings, options);
    let found = match look(&layout, live) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "connections that are open now cannot be seen: they are cut");
            return Vec::new();
        }
    };
    if !found.tracking
        && (!layout.lan.is_empty() || layout.services.iter().any(|s| s.protocol == Protocol::Udp))
    {
        tracing::info!(
            "connection tracking cannot be asked: open connections that are forwarded, and UDP, are not seen"
        );
    }
    let Endangered { flows, doubted } = &found.endangered;
    let adopts = settings.global.adopt_established;
    let fate = if adopts { "it lives on until it ends" } else { "it is cut" };
    log(flows, &format!("an open connection to a port that is guarded from now on: {fate}"));
    log(
        doubted,
        "an open connection by an interface that is guarded from now on, which may have come by another one with a grant that is over: it is cut",
    );
    if adopts { adoption(flows) } else { Vec::new() }
}

fn log(flows: &[Flow<'_>], what: &str) {
    for flow in flows.iter().take(NAMED) {
        tracing::warn!(%flow, "{what}");
    }
    if flows.len() > NAMED {
        tracing::warn!(more = flows.len() - NAMED, "and further ones");
    }
}

/// Where it cannot be told it counts as outside.
pub(super) fn comes_from_outside(is_ext: impl Fn(&IfName) -> bool, addr: IpAddr) -> bool {
    way_towards(addr).is_none_or(|name| is_ext(&name))
}

fn way_towards(addr: IpAddr) -> Option<IfName> {
    flows::interface_towards(addr).ok().flatten().and_then(interfaces::name_of)?.parse().ok()
}
