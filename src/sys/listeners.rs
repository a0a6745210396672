//! Who listens on which port, as `/proc/net` and `/proc/<pid>/fd` tell.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A socket that waits for clients: TCP that listens, UDP without a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// Whether it is TCP.
    pub is_tcp: bool,
    /// Its address, which may be unspecified.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Number and name of a process that has it; none: not to be seen by this user.
    pub process: Option<(u32, String)>,
}

/// All of this network namespace.
///
/// # Errors
/// When `/proc/net` cannot be read.
pub fn listening() -> io::Result<Vec<ListeningSocket>> {
    let mut found = Vec::new();
    for (file, is_tcp) in [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)] {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(|line| parse(line, is_tcp))),
            // Without IPv6, the kernel has no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let owners = if found.is_empty() { HashMap::new() } else { owners() };
    Ok(found
        .into_iter()
        .map(|(mut socket, inode)| {
            socket.process = owners.get(&inode).cloned();
            socket
        })
        .collect())
}

/// `sl local_address rem_address st ... inode`, with TCP_LISTEN 0A, and 07 for UDP without a peer.
fn parse(line: &str, is_tcp: bool) -> Option<(ListeningSocket, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
    if state != (if is_tcp { "0A" } else { "07" }) {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let socket = ListeningSocket {
        is_tcp,
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        process: None,
    };
    Some((socket, inode.parse().ok()?))
}

/// The kernel prints addresses as 32-bit numbers of the machine.
fn parse_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// From the inode of a socket to a process that has it open; those of other users are seen by root only.
fn owners() -> HashMap<u64, (u32, String)> {
    let mut out = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return out };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
            if let Some(inode) = inode {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                out.entry(inode).or_insert((pid, name.trim_end().to_owned()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_found_with_its_process() {
        let tcp = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let udp = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        for (is_tcp, address) in [(true, tcp.local_addr().unwrap()), (false, udp.local_addr().unwrap())] {
            let found = listening().unwrap();
            let own = found.iter().find(|s| s.is_tcp == is_tcp && s.port == address.port()).unwrap();
            assert_eq!(own.address, address.ip());
            assert_eq!(own.process.as_ref().unwrap().0, std::process::id());
        }
    }

    #[test]
    fn lines_of_other_states_and_nonsense_are_no_listeners() {
        let line = |state: &str| {
            format!(
                "   0: 0100007F:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1"
            )
        };
        assert_eq!(parse(&line("0A"), true).unwrap().1, 4711);
        assert!(parse(&line("01"), true).is_none());
        assert!(parse("", true).is_none());
        assert_eq!(parse_address("B80D0120000000000000000001000000"), "2001:db8::1".parse().ok());
        assert_eq!(parse_address("xyz"), None);
    }
}
