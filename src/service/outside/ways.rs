//! By which interfaces this host reaches the Internet.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::sys::flows::interface_towards;
use crate::sys::interfaces::{self, InterfaceState};
use crate::sys::routes;
use crate::units::{Family, IfName};

/// Addresses that are on the Internet wherever one is, those of a root name server. Nothing is sent to them.
pub const SOMEWHERE: [(Family, IpAddr); 2] = [
    (Family::V4, IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4))),
    (Family::V6, IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30))),
];

/// The way of one family.
#[derive(Debug)]
pub(super) struct Way {
    /// The interface.
    pub(super) name: String,
    /// The family.
    pub(super) family: Family,
}

impl Way {
    pub(super) fn is_in(&self, named: &BTreeSet<IfName>) -> bool {
        named.iter().any(|name| name.as_str() == self.name)
    }
}

/// By which interface each family's packets to the Internet leave; those that have no way have none, and what leads back to
/// this host is none.
pub(super) fn to_the_internet(present: &[InterfaceState]) -> Vec<Way> {
    let way = |(family, addr): (Family, IpAddr)| {
        let index = interface_towards(addr).ok().flatten()?;
        let name = &present.iter().find(|have| have.index == index)?.name;
        (name != "lo").then(|| Way { name: name.clone(), family })
    };
    SOMEWHERE.into_iter().filter_map(way).collect()
}

/// All ways by which a route leads everywhere that are in use: of several uplinks, the one that is chosen for packets of its
/// own address, or for every second connection, is no less a way for strangers.
pub(super) fn all(present: &[InterfaceState]) -> Vec<Way> {
    let of_family = |family: Family| {
        let found = routes::to_everywhere(family).unwrap_or_default();
        let used = present.iter().filter(move |have| found.contains(&have.index) && !have.is_down);
        used.filter(|have| have.name != "lo").map(move |have| Way { name: have.name.clone(), family })
    };
    Family::BOTH.into_iter().flat_map(of_family).collect()
}

/// The interfaces that have an address which is good beyond their link.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn numbered() -> io::Result<BTreeSet<String>> {
    let is_wide = |addr: &IpAddr| match addr {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    let states = interfaces::states()?;
    let wide = states.into_iter().filter(|state| state.addresses.iter().any(|(addr, _)| is_wide(addr)));
    Ok(wide.map(|state| state.name).collect())
}
