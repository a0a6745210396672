//! TCP connections that somebody began and went no further with, as the kernel lists them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ports of this host at which an address has such connections.
#[must_use]
pub fn ports_of(client: IpAddr) -> Vec<u16> {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    ["tcp", "tcp6"].iter().flat_map(|name| ports(&read(name), client)).collect()
}

/// The format is that of `proc_net_tcp.txt` of the kernel.
fn ports(table: &str, client: IpAddr) -> Vec<u16> {
    const SYN_RECV: &str = "03";
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (here, there, state) = (words.next()?, words.next()?, words.next()?);
        let (_, port) = here.split_once(':')?;
        let (from, _) = there.split_once(':')?;
        let same = state == SYN_RECV && address(from)?.to_canonical() == client;
        same.then(|| u16::from_str_radix(port, 16).ok()).flatten()
    };
    table.lines().filter_map(port).collect()
}

/// Words of 32 bits, each in the order of this machine.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => word(0).map(|octets| Ipv4Addr::from(octets).into()),
        32 => {
            let octets = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn only_connections_that_were_begun_by_that_address_count() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
                     0: 017100CB:1F90 027100CB:C350 03 0\n\
                     1: 017100CB:20FB 027100CB:C351 01 0\n\
                     2: 017100CB:0016 037100CB:C351 03 0\n";
        assert_eq!(ports(table, [203, 0, 113, 2].into()), [8080]);
        let mapped = "0: 0000000000000000FFFF0000017100CB:1F90 0000000000000000FFFF0000027100CB:C350 03 0\n";
        assert_eq!(ports(mapped, [203, 0, 113, 2].into()), [8080]);
        assert!(ports(mapped, [203, 0, 113, 3].into()).is_empty());
    }
}
