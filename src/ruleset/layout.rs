//! What of the settings decides the shape of the ruleset: guarded ports cut into
//! pieces that belong to the same apps, LAN destinations likewise, interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::config::{App, Established, Settings};
use crate::ruleset::knocking::Knocking;
use crate::units::{Family, IfName, Network, PortRange, Protocol};

/// The interface by which this host talks to itself, and by which nothing comes from outside.
pub const LOOPBACK: &str = "lo";

/// What the command line adds to the settings, and what the kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The port of step 1 that clients use: that of a proxy in front, if there is one.
    pub http_port: NonZeroU16,
    /// The port of step 2 that clients use, likewise.
    pub https_port: NonZeroU16,
    /// Whether the kernel knows the inner header (Linux 5.16).
    pub inner_header: bool,
    /// Whether the kernel can tell a program of a packet (nfnetlink_log).
    pub log: bool,
}

/// Ports of one protocol that belong to the same apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Of a LAN host, where it is one.
    pub host: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub ports: PortRange,
    /// Indices of the apps, in the order of the file.
    pub apps: Vec<usize>,
}

impl Segment {
    /// Its name in chains: `tcp_22`, `udp_6000_6010`, `tcp_10_0_0_5_22`.
    #[must_use]
    pub fn name(&self) -> String {
        let mut name = self.protocol.name().to_owned();
        if let Some(host) = self.host {
            name.push('_');
            name.extend(host.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
        }
        name.push_str(&format!("_{}", self.ports.first()));
        if !self.ports.is_single() {
            name.push_str(&format!("_{}", self.ports.last()));
        }
        name
    }
}

/// The settings, seen as the ruleset needs them.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// What the command line and the kernel add.
    pub options: Options,
    /// All outside interfaces of all apps.
    pub ext: BTreeSet<&'a IfName>,
    /// The guarded ports as clients use them, by protocol and port.
    pub services: Vec<Segment>,
    /// Those of apps whose service is not a LAN host of ours.
    pub local: Vec<Segment>,
    /// The guarded ports of LAN hosts, by host, protocol and port.
    pub lan: Vec<Segment>,
    /// The knock sequences.
    pub knocking: Knocking,
}

impl<'a> Layout<'a> {
    /// Whether apps are guarded against this host itself as well.
    #[must_use]
    pub fn guards_loopback(&self) -> bool {
        self.ext.iter().any(|name| name.as_str() == LOOPBACK)
    }

    /// Works out the layout.
    #[must_use]
    pub fn new(settings: &'a Settings, options: Options) -> Self {
        let mut ext: BTreeSet<&IfName> = settings.global.interface_ext.iter().collect();
        ext.extend(settings.apps.iter().flat_map(|app| &app.interface_ext));
        let mut services = BTreeMap::new();
        let mut local = BTreeMap::new();
        let mut lan = BTreeMap::new();
        for (index, app) in settings.apps.iter().enumerate() {
            for &protocol in app.protocol.each() {
                let ranges = || app.ports.iter().map(|&ports| (ports, index));
                let of = |map: &mut Claims| map.entry((None, protocol)).or_default().extend(ranges());
                of(&mut services);
                let Some(host) = app.destination.host() else {
                    of(&mut local);
                    continue;
                };
                let there = match app.destination.port().and_then(|port| PortRange::new(port, port).ok()) {
                    Some(port) => vec![(port, index)],
                    None => ranges().collect(),
                };
                lan.entry((Some(host), protocol)).or_insert_with(Vec::new).extend(there);
            }
        }
        Self {
            settings,
            options,
            ext,
            services: segments(&services),
            local: segments(&local),
            lan: segments(&lan),
            knocking: Knocking::of(settings),
        }
    }

    /// The apps of a segment.
    pub fn apps<'s>(&'s self, segment: &'s Segment) -> impl Iterator<Item = &'a App> + 's {
        segment.apps.iter().filter_map(|&index| self.settings.apps.get(index))
    }

    /// The segment with those of its apps only whose service is here, or wherever somebody else forwards to.
    #[must_use]
    pub fn here(&self, segment: &Segment) -> Segment {
        let is_here = |index: &&usize| {
            self.settings.apps.get(**index).is_some_and(|app| app.destination.host().is_none())
        };
        Segment { apps: segment.apps.iter().filter(is_here).copied().collect(), ..segment.clone() }
    }

    /// The set with an app's outside interfaces, where they are not simply all of them.
    #[must_use]
    pub fn own_interfaces(&self, app: &App) -> Option<String> {
        let own: BTreeSet<&IfName> = app.interface_ext.iter().collect();
        (own != self.ext).then(|| format!("if_{}", app.slug))
    }

    /// The families in which any app of the segment can be reached.
    #[must_use]
    pub fn families(&self, segment: &Segment) -> Vec<Family> {
        let any = |family| self.apps(segment).any(|app| app.families().contains(&family));
        Family::BOTH.into_iter().filter(|&family| any(family)).collect()
    }

    /// Whether open connections of the segment outlive their grants.
    #[must_use]
    pub fn keeps_established(&self, segment: &Segment) -> bool {
        self.apps(segment).all(|app| app.established == Established::Keep)
    }

    /// The ports that only a proxy in front may use; none where there is no proxy.
    #[must_use]
    pub fn backend_ports(&self) -> Vec<NonZeroU16> {
        let proxy = self.settings.global.proxy.as_ref();
        proxy.map(|proxy| vec![proxy.http_port, proxy.https_port]).unwrap_or_default()
    }

    /// From where a proxy on another host speaks. Loopback is not in it, which is an interface rather than an address:
    /// a packet that comes in by another one has no right to such a source.
    #[must_use]
    pub fn proxies(&self) -> Vec<Network> {
        let proxy = self.settings.global.proxy.as_ref();
        let networks = proxy.map(|proxy| proxy.trusted.networks()).unwrap_or_default();
        networks.iter().copied().filter(|network| !network.first().is_loopback()).collect()
    }

    /// The apps whose service is a LAN host.
    pub fn forwarded(&self) -> impl Iterator<Item = (&'a App, IpAddr)> {
        self.settings.apps.iter().filter_map(|app| Some((app, app.destination.host()?)))
    }
}

type Claims = BTreeMap<(Option<IpAddr>, Protocol), Vec<(PortRange, usize)>>;

/// Cuts overlapping claims into disjoint pieces, each with everybody who claims it.
fn segments(claims: &Claims) -> Vec<Segment> {
    let mut out = Vec::new();
    for (&(host, protocol), claims) in claims {
        let mut cuts = BTreeSet::new();
        for (ports, _) in claims {
            cuts.insert(u32::from(ports.first()));
            cuts.insert(u32::from(ports.last()) + 1);
        }
        let cuts: Vec<u32> = cuts.into_iter().collect();
        for pair in cuts.windows(2) {
            let &[from, to] = pair else { continue };
            let (Ok(first), Ok(last)) = (u16::try_from(from), u16::try_from(to - 1)) else {
                continue;
            };
            let apps: BTreeSet<usize> =
                claims.iter().filter(|(ports, _)| ports.contains(first)).map(|&(_, app)| app).collect();
            if let (false, Ok(ports)) = (apps.is_empty(), PortRange::new(first, last)) {
                out.push(Segment { host, protocol, ports, apps: apps.into_iter().collect() });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> PortRange {
        text.parse().unwrap()
    }

    fn cut(claims: &[(&str, usize)]) -> Vec<(String, Vec<usize>)> {
        let claims = claims.iter().map(|&(ports, app)| (range(ports), app)).collect();
        segments(&BTreeMap::from([((None, Protocol::Tcp), claims)]))
            .into_iter()
            .map(|segment| (segment.ports.to_string(), segment.apps))
            .collect()
    }

    #[test]
    fn overlapping_claims_become_disjoint_pieces() {
        assert_eq!(
            cut(&[("6000-6010", 0), ("6005", 1)]),
            [("6000-6004".into(), vec![0]), ("6005".into(), vec![0, 1]), ("6006-6010".into(), vec![0])]
        );
    }

    #[test]
    fn gaps_belong_to_nobody_and_the_last_port_is_kept() {
        assert_eq!(cut(&[("22", 0), ("65535", 1)]), [("22".into(), vec![0]), ("65535".into(), vec![1])]);
        assert_eq!(cut(&[("1-65535", 0)]), [("1-65535".into(), vec![0])]);
    }

    #[test]
    fn segments_are_named_by_host_protocol_and_ports() {
        let segment = |host: Option<&str>, ports: &str| Segment {
            host: host.map(|h| h.parse().unwrap()),
            protocol: Protocol::Udp,
            ports: range(ports),
            apps: vec![],
        };
        assert_eq!(segment(None, "53").name(), "udp_53");
        assert_eq!(segment(Some("10.0.0.5"), "1-2").name(), "udp_10_0_0_5_1_2");
        assert_eq!(segment(Some("fd00::5"), "1").name(), "udp_fd00__5_1");
    }
}
