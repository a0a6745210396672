//! The `destination` of an app.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::report::Report;
use crate::config::section::Field;
use crate::config::settings::Destination;

const FORMS: &str = "write local, 192.168.0.40, 192.168.0.40:80, fd00::5 or \"[fd00::5]:80\"";

/// Reads `local`, `IP`, `IP:PORT`, `[IP]` or `[IP]:PORT`.
pub(super) fn read(field: &Field<'_>, report: &mut Report) -> Option<Destination> {
    let text = field.text(report)?;
    if text == "local" {
        return Some(Destination::Local);
    }
    let Some((ip, port)) = split(text) else {
        report.error_fix(field.spot(), format!("`{text}` is not a destination"), FORMS);
        return None;
    };
    if let Some(why) = unusable(ip) {
        report.error_fix(field.spot(), format!("`{text}` cannot be a destination: {why}"), FORMS);
        return None;
    }
    match port {
        None => Some(Destination::Host(ip)),
        Some(0) => {
            report.error_fix(field.spot(), format!("`{text}` has port 0"), "write a port from 1 to 65535");
            None
        }
        Some(port) => Some(Destination::HostPort(SocketAddr::new(ip, port))),
    }
}

/// The address and the port that somebody may have meant who wrote an IPv6 address that ends like a port.
pub(super) fn as_if_with_port(field: &Field<'_>) -> Option<(Ipv6Addr, u16)> {
    // Read before, and found to be right.
    let text = field.text(&mut Report::default())?;
    let (host, port) = text.parse::<Ipv6Addr>().ok().and_then(|_| text.rsplit_once(':'))?;
    Some((host.parse().ok()?, number(port)?))
}

/// The same text on its own; none where it is no destination.
#[must_use]
pub fn parse_destination(text: &str) -> Option<Destination> {
    if text == "local" {
        return Some(Destination::Local);
    }
    match split(text)? {
        (ip, _) if unusable(ip).is_some() => None,
        (_, Some(0)) => None,
        (ip, None) => Some(Destination::Host(ip)),
        (ip, Some(port)) => Some(Destination::HostPort(SocketAddr::new(ip, port))),
    }
}

fn split(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(ip) = text.parse() {
        return Some((ip, None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']')?;
        let ip = IpAddr::V6(ip.parse::<Ipv6Addr>().ok()?);
        return match rest.strip_prefix(':') {
            None => rest.is_empty().then_some((ip, None)),
            Some(port) => Some((ip, Some(number(port)?))),
        };
    }
    let (ip, port) = text.split_once(':')?;
    Some((IpAddr::V4(ip.parse::<Ipv4Addr>().ok()?), Some(number(port)?)))
}

fn number(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn unusable(ip: IpAddr) -> Option<&'static str> {
    if ip.is_loopback() {
        return Some("it is this host's loopback; for a service on this host write local");
    }
    if ip.is_unspecified() {
        return Some("it is no host's address");
    }
    if ip.is_multicast() {
        return Some("it is a multicast address");
    }
    match ip {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("it is the broadcast address"),
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("it is an IPv4 address, write it as one"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local addresses cannot be routed to"),
        IpAddr::V6(_) => None,
    }
}
