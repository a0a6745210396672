//! Network interfaces of this network namespace, and their addresses.

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

/// Every address of this host, those of the loopback interface included.
///
/// # Errors
/// When the kernel does not say.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| interface.address);
    Ok(addresses
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|at| IpAddr::V4(at.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|at| IpAddr::V6(at.ip())))
        })
        .collect())
}
