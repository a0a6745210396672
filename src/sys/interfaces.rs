//! Network interfaces of this network namespace.

use std::io;
use std::net::IpAddr;

/// Their names, sorted.
///
/// # Errors
/// When the kernel does not say.
pub fn names() -> io::Result<Vec<String>> {
    let mut out: Vec<String> = nix::net::if_::if_nameindex()?
        .iter()
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect();
    out.sort();
    Ok(out)
}

/// The addresses of this host.
///
/// # Errors
/// When the kernel does not say.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let all = nix::ifaddrs::getifaddrs()?.filter_map(|interface| interface.address);
    Ok(all
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect())
}

/// The name of the interface with this index; none if there is none.
#[must_use]
pub fn name_of(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok())
}
