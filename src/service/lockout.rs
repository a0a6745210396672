//! Looks who would be locked out, before anything is guarded.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use crate::ruleset::diff::Live;
use crate::ruleset::layout::Layout;
use crate::ruleset::lockout::{Flow, Seen, endangered};
use crate::sys::{flows, interfaces};

/// What looking came to.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// Connections that the rules would cut.
    pub flows: Vec<Flow<'a>>,
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
        own: interfaces::own_addresses()?.into_iter().collect(),
    };
    let mut ways = BTreeMap::new();
    let outside = |addr: IpAddr| *ways.entry(addr).or_insert_with(|| comes_from_outside(layout, addr));
    Ok(Found { flows: endangered(layout, live, &seen, outside), tracking: seen.tracked.is_some() })
}

/// Where it cannot be told it counts as outside.
fn comes_from_outside(layout: &Layout<'_>, addr: IpAddr) -> bool {
    let way = flows::interface_towards(addr).ok().flatten().and_then(interfaces::name_of);
    way.is_none_or(|name| layout.ext.iter().any(|ext| ext.as_str() == name))
}
