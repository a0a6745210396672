//! Services by their names, as people and `/etc/services` call them.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::path::Path;

use super::answers::{Service, protocol_word};
use crate::sys::files;
use crate::units::Protocols;

const SERVICES: &str = "/etc/services";
/// Debian's has 13 KB.
const MAX: u64 = 1 << 20;
/// Those that are asked for most, also where there is no such file.
const KNOWN: [(&str, u16, Protocols); 6] = [
    ("ssh", 22, Protocols::Tcp),
    ("rdp", 3389, Protocols::Tcp),
    ("vnc", 5900, Protocols::Tcp),
    ("http", 80, Protocols::Tcp),
    ("openvpn", 1194, Protocols::Udp),
    ("wireguard", 51_820, Protocols::Udp),
];

/// The service of that name, or `NAME/tcp` and so on; none where nobody knows it.
///
/// # Errors
/// A hint, where the name alone is not enough.
pub fn service(text: &str) -> Result<Option<Service>, String> {
    let listed = files::read_text(Path::new(SERVICES), MAX).unwrap_or_default();
    among(text, &listed)
}

fn among(text: &str, listed: &str) -> Result<Option<Service>, String> {
    let (name, wanted) = text.split_once('/').map_or((text, None), |(name, protocol)| (name, Some(protocol)));
    let name = name.to_ascii_lowercase();
    let known = KNOWN.iter().find(|(known, ..)| *known == name);
    if let Some((_, port, protocol)) =
        known.filter(|(_, _, protocol)| wanted.is_none_or(|w| w == protocol_word(*protocol)))
    {
        return Ok(NonZeroU16::new(*port).map(|port| Service { port, protocol: *protocol }));
    }
    let found = in_list(&name, listed);
    let meant = |(_, protocol): &&(NonZeroU16, &str)| wanted.is_none_or(|wanted| wanted == *protocol);
    let meant: Vec<_> = found.iter().filter(meant).collect();
    match meant.as_slice() {
        [] => Ok(None),
        [(port, protocol)] => {
            let protocol = if *protocol == "udp" { Protocols::Udp } else { Protocols::Tcp };
            Ok(Some(Service { port: *port, protocol }))
        }
        many => {
            let names: Vec<String> =
                many.iter().map(|(port, protocol)| format!("{port}/{protocol}")).collect();
            Err(format!("{name} is {}: write one of them", names.join(" and ")))
        }
    }
}

/// Ports and protocols of a name or an alias in a file like `/etc/services` (services(5)).
fn in_list<'l>(name: &str, listed: &'l str) -> BTreeSet<(NonZeroU16, &'l str)> {
    let read = |line: &'l str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (first, at) = (words.next()?, words.next()?);
        let named = std::iter::once(first).chain(words).any(|word| word.eq_ignore_ascii_case(name));
        let (port, protocol) =
            at.split_once('/').filter(|(_, protocol)| named && ["tcp", "udp"].contains(protocol))?;
        Some((port.parse().ok()?, protocol))
    };
    listed.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "# services\nssh\t\t22/tcp\t\t\t# SSH\nopenvpn 1194/tcp\nopenvpn 1194/udp\nntp\t\t123/udp\n\
                          domain 53/tcp\ndomain 53/udp\nhttp 80/tcp www\nsctpd 99/sctp\nrdp 3389/udp\nodd\n";

    fn said(text: &str) -> Result<Option<(u16, Protocols)>, String> {
        Ok(among(text, LISTED)?.map(|one| (one.port.get(), one.protocol)))
    }

    #[test]
    fn a_name_is_a_service_where_it_is_but_one() {
        assert_eq!(said("ssh"), Ok(Some((22, Protocols::Tcp))));
        assert_eq!(among("SSH", "").unwrap().unwrap().port.get(), 22);
        assert_eq!(said("openvpn"), Ok(Some((1194, Protocols::Udp))));
        assert_eq!(said("openvpn/tcp"), Ok(Some((1194, Protocols::Tcp))));
        assert_eq!(said("rdp/udp"), Ok(Some((3389, Protocols::Udp))));
        assert_eq!(
            (said("ntp"), said("www")),
            (Ok(Some((123, Protocols::Udp))), Ok(Some((80, Protocols::Tcp))))
        );
        assert!(said("domain").unwrap_err().contains("53/tcp and 53/udp"));
        assert_eq!(said("domain/udp"), Ok(Some((53, Protocols::Udp))));
        assert_eq!(
            (said("sctpd"), said("odd"), said("nobody"), said("ssh/sctp")),
            (Ok(None), Ok(None), Ok(None), Ok(None))
        );
    }
}
