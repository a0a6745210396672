//! Outside interfaces that the configuration names and this host does not have, now.

use std::collections::BTreeSet;

use crate::config::Settings;
use crate::sys::interfaces;
use crate::units::IfName;

/// Those that are missing, sorted; none where the kernel does not say which there are.
///
/// Rules ask packets for the name of their interface, so that one that comes later is guarded from its first packet.
pub(super) fn missing(settings: &Settings) -> BTreeSet<&IfName> {
    let Ok(present) = interfaces::names() else { return BTreeSet::new() };
    let of_apps = settings.apps.iter().flat_map(|app| &app.interface_ext);
    of_apps
        .chain(&settings.global.interface_ext)
        .filter(|name| !present.iter().any(|have| have == name.as_str()))
        .collect()
}
