//! Outside interfaces that the configuration names and that guard nothing: this host does not have them now, or
//! packets do not come in by them.

use std::collections::BTreeSet;

use crate::config::Settings;
use crate::ruleset::audit::{Finding, Severity};
use crate::sys::interfaces::{self, InterfaceState};
use crate::units::IfName;

fn named(settings: &Settings) -> BTreeSet<&IfName> {
    let of_apps = settings.apps.iter().flat_map(|app| &app.interface_ext);
    of_apps.chain(&settings.global.interface_ext).collect()
}

/// Those that are missing, sorted; none where the kernel does not say which there are.
///
/// Rules ask packets for the name of their interface, so that one that comes later is guarded from its first packet.
fn missing<'a>(settings: &'a Settings, present: &[InterfaceState]) -> Vec<&'a IfName> {
    let there = |name: &IfName| present.iter().any(|have| have.name == name.as_str());
    named(settings).into_iter().filter(|name| !there(name)).collect()
}

/// Those that are ports of a bridge or bond, with its name: packets come in by that one.
fn ports<'a>(settings: &'a Settings, present: &[InterfaceState]) -> Vec<(&'a IfName, String)> {
    let port_of = |name: &IfName| present.iter().find(|have| have.name == name.as_str())?.port_of.clone();
    named(settings).into_iter().filter_map(|name| Some((name, port_of(name)?))).collect()
}

/// What an operator should know of them before anything is applied.
pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let Ok(present) = interfaces::states() else { return Vec::new() };
    let names: Vec<&str> = present.iter().map(|have| have.name.as_str()).collect();
    let missing = missing(settings, &present).into_iter().map(|name| Finding {
        severity: Severity::Warning,
        code: "no-such-interface",
        message: format!(
            "interface_ext {name} does not exist now; ports are guarded on it as soon as it does"
        ),
        fix: format!("# if {name} is misspelt, nothing is guarded: the interfaces are {}", names.join(", ")),
    });
    let ports = ports(settings, &present).into_iter().map(|(name, of)| Finding {
        severity: Severity::Error,
        code: "interface-is-a-port",
        message: format!(
            "interface_ext {name} is a port of {of}: packets come in by {of}, and nothing is guarded"
        ),
        fix: format!("# in the configuration: interface_ext: {of}"),
    });
    missing.chain(ports).collect()
}

/// Logs the same when the guard is put in place.
pub(super) fn tell(settings: &Settings) {
    let Ok(present) = interfaces::states() else { return };
    for name in missing(settings, &present) {
        tracing::warn!(
            "interface_ext {name} does not exist now: its ports are guarded as soon as it does, unless the name is wrong"
        );
    }
    for (name, of) in ports(settings, &present) {
        tracing::error!(
            "interface_ext {name} is a port of {of}: nothing is guarded on it; name {of} instead"
        );
    }
}
